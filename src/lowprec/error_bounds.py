"""A-priori bounds of the errors of sums and inner products."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING

from lowprec.accumulators import Accumulator, AccumulatorLike, as_accumulator

if TYPE_CHECKING:
    from lowprec.formats import Format

__all__ = ["error_bound"]


def error_bound(n: int, accumulator: AccumulatorLike = "float32") -> float:
    """Bound the error of a sum or an inner product of n terms, before it is computed.

    Parameters
    ----------
    n : int
        The number of terms.
    accumulator : Accumulator, or Format, str or dtype
        How they are summed.

    Returns
    -------
    float
        A factor of Σ|term|: the sum differs from the exact one by at most this much of it, unless
        a step overflows or falls below the format's smallest normal number. With u the unit
        roundoff (twice that for modes that do not round to nearest) and m roundings between a
        term and the sum, (1 + u)**m - 1: m is n for ``sequential`` and ``blas``, ⌈log2 n⌉ for
        ``pairwise``, 1 for ``exact``; for ``blocked`` as many in `inner` as a block has terms and
        as many in `fmt` as there are blocks. For ``kahan`` 2u + 4n·u².

    Raises
    ------
    ValueError
        If n is negative.

    Examples
    --------
    >>> round(error_bound(100, "float16"), 5)
    0.05003
    >>> round(error_bound(100, Accumulator("float16", order="pairwise")), 5)
    0.00342

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, sections 3.1, 4.2 and 4.3.
    """
    n = operator.index(n)
    if n < 0:
        raise ValueError(f"n is {n}; a sum has no terms or more")
    how = as_accumulator(accumulator)
    u, v = (_rounding_error(fmt, how) for fmt in how.formats)
    if n == 0:
        return 0.0
    product = 0.0 if how.fused else math.log1p(v)
    match how.order:
        case "sequential" | "blas":
            exponent = n * math.log1p(u)
        case "blocked":
            assert how.block is not None
            exponent = min(n, how.block) * math.log1p(v) + -(-n // how.block) * math.log1p(u)
        case "pairwise":
            exponent = max(1, (n - 1).bit_length()) * math.log1p(u)
        case "kahan":
            exponent = math.log1p(2 * u + 4 * n * u * u)
        case _:
            exponent = math.log1p(u)
    try:
        return math.expm1(exponent + product)
    except OverflowError:
        return math.inf


def _rounding_error(fmt: Format, how: Accumulator) -> float:
    is_nearest = str(getattr(how.rounding, "value", how.rounding)).startswith("ties")
    return fmt.unit_roundoff if is_nearest else fmt.eps
