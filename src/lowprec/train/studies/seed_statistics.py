"""The little statistics that a comparison over seeds needs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from lowprec.common.processor_state import in_exact_state

if TYPE_CHECKING:
    from collections.abc import Sequence


class Spread(NamedTuple):
    """Mean and standard deviation of a few numbers.

    Attributes
    ----------
    mean : float
        NaN or infinite where one of the numbers is.
    sd : float
        With n - 1 in the denominator; NaN for a single number.
    samples : int
        How many numbers.
    """

    mean: float
    sd: float
    samples: int

    @classmethod
    @in_exact_state
    def of(cls, values: Sequence[float]) -> Spread:
        """Return those of some numbers.

        Examples
        --------
        >>> Spread.of([1.0, 2.0, 3.0])
        Spread(mean=2.0, sd=1.0, samples=3)
        """
        count = len(values)
        if not all(map(math.isfinite, values)):
            return cls(sum(values) / count, math.nan, count)
        mean = math.fsum(values) / count
        if count == 1:
            return cls(mean, math.nan, count)
        return cls(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1)), count)

    @property
    @in_exact_state
    def uncertainty(self) -> float:
        """How far the true mean may be from this one, with 95 % confidence (Student's t).

        Examples
        --------
        >>> round(Spread.of([1.0, 2.0, 3.0]).uncertainty, 3)
        2.484
        """
        if self.samples == 1:
            return math.nan
        return student_quantile(self.samples - 1) * self.sd / math.sqrt(self.samples)


_FIRST = (12.706, 4.303, 3.182, 2.776, 2.571)


@in_exact_state
def student_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t to three digits.

    freedom: Degrees of freedom, 1 or more.

    Examples
    --------
    >>> student_quantile(4), round(student_quantile(9), 2), round(student_quantile(10**6), 2)
    (2.776, 2.26, 1.96)

    References
    ----------
    Abramowitz and Stegun (1964), 26.7.5, for the expansion beyond five.
    """
    if freedom <= len(_FIRST):
        return _FIRST[freedom - 1]
    z, n = 1.959964, freedom
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3
