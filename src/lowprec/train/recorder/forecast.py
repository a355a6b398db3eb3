"""What a format would do to a tensor, told from its exponents alone.

Zeros, subnormal numbers and overflows follow from exponents up to one binade; the noise is that of
errors uniform in half a spacing, one twelfth of its square.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.common.recorded_rows import BINS, LOWEST_EXPONENT

if TYPE_CHECKING:
    from lowprec.formats import Format
    from lowprec.train.recorder.tracks import Tally

Array = np.ndarray[Any, Any]

_EXPONENTS = np.arange(BINS) + LOWEST_EXPONENT
_MEAN_SQUARE = 1.5 / math.log(2)  # of numbers in [1, 2) whose logarithms are uniform


class Forecast(NamedTuple):
    """What a format would do to a tensor.

    new_zeros, subnormals, overflows: Shares of the nonzero finite numbers.
    noise: The root of noise over signal, of what does not overflow: the relative error of the
        whole.
    headroom_bits: Doublings between the largest number and the format's maximum.
    """

    new_zeros: float
    subnormals: float
    overflows: float
    noise: float
    headroom_bits: float


def forecast(tally: Tally, fmt: Format, scale: int = 0) -> Forecast:
    """Tell what a format would do to a tensor, multiplied by a power of two.

    tally: The tensor; its exponents count.
    scale: The exponent of the power of two.

    Examples
    --------
    >>> from lowprec.formats import float16
    >>> from lowprec.train.recorder.tracks import Track
    >>> track = Track("weight_gradient", "w", float16)
    >>> numbers = np.float32([1e-9, 1e-3, 1e-3, 1e-3])
    >>> track.add(0, numbers, numbers)
    >>> forecast(track.whole, float16).new_zeros, forecast(track.whole, float16, 10).new_zeros
    (0.25, 0.0)
    """
    counts = tally.exponents.astype(np.float64)
    total = counts.sum()
    largest = tally["max_abs"] * 2.0**scale
    if not total:
        return Forecast(0.0, 0.0, 0.0, 0.0, math.inf)
    exponents = _EXPONENTS + scale
    lowest = round(math.log2(fmt.smallest_subnormal))
    zero = exponents < lowest - 1  # half the smallest number and less become zero
    over = exponents > fmt.emax
    kept = ~zero & ~over
    subnormal = kept & (exponents < fmt.emin)
    headroom = math.log2(fmt.max) - math.log2(largest) if largest else math.inf
    overflows = counts[over].sum()
    if headroom < 0 and not overflows:  # within the last binade, beyond the maximum
        overflows = 1.0
    signal = counts * _MEAN_SQUARE * np.exp2(2.0 * np.clip(_EXPONENTS, -500, 500))
    spacing = np.maximum(exponents, fmt.emin) - fmt.trailing_bits
    errors = np.where(zero, signal, counts * np.exp2(2.0 * (spacing - scale)) / 12)
    kept_signal = signal[~over].sum()
    noise = math.sqrt(errors[~over].sum() / kept_signal) if kept_signal else 0.0
    return Forecast(
        float(counts[zero].sum() / total),
        float(counts[subnormal].sum() / total),
        float(overflows / total),
        noise,
        headroom,
    )
