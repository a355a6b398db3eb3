"""Means: a sum as an accumulator forms it, and one division in its format."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.accumulation.accumulator import Accumulator, AccumulatorLike, as_accumulator
from lowprec.accumulation.sums import reduced_axes, reduction, sum  # noqa: A004 - numpy.sum's name
from lowprec.arrays.sources import as_array
from lowprec.common.processor_state import in_exact_state
from lowprec.common.randomness import draw_key
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


Array = np.ndarray[Any, Any]

_DIVISION_KEY = 0xD1B54A32D192ED03  # divisions draw from another stream than sums


@reduction
@in_exact_state
def mean(
    x: ArrayLike,
    accumulator: AccumulatorLike,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> Any:
    """Return the sum in an accumulator, divided by the number of terms with one more rounding.

    The number of terms is exact: it need not be a value of the format. (``Arithmetic.divide`` would
    round it first, 257 to 256 in bfloat16.) So the mean is what `lowprec.sum` gives, whose steps
    are rounded as the accumulator says, divided by that number and rounded once to the
    accumulator's format, with its rounding and overflow; in the order ``exact`` as well, whose sum
    is one rounding and whose mean is two. A sum that overflows is not mended by the division.

    Parameters
    ----------
    x : array_like of real numbers, any shape
        The terms, each taken exactly; integers of at most 53 significant bits, as float64 has.
    accumulator : Accumulator, or Format, str or dtype
        How the sum is formed, and to which format its quotient is rounded; a format stands for
        ``Accumulator(fmt)``.
    axis : int or tuple of int, optional
        Which axes to reduce, all by default.
    keepdims : bool
        Whether reduced axes stay, with one element.

    Returns
    -------
    numpy.ndarray, or a NumPy scalar
        Values of the accumulator's format: float32 where it holds them all, else float64. The mean
        of nothing is NaN.

    Raises
    ------
    ValueError
        If an integer has more than 53 significant bits.
    numpy.exceptions.AxisError
        If `x` has no such axis.

    Examples
    --------
    >>> float(mean([1, 1, 2], "float16")), float(mean(np.ones(3000), "float16"))
    (1.3330078125, 0.6826171875)
    >>> mean([[1, 2], [3, 4]], "bfloat16", axis=0)
    array([2., 3.], dtype=float32)
    """
    how, array = as_accumulator(accumulator), as_array(x)
    axes = reduced_axes(array.ndim, axis)
    terms = math.prod(array.shape[d] for d in axes)
    total = np.asarray(sum(array, how, axes, keepdims))
    means = np.empty(total.shape, total.dtype)
    if terms:
        means[...] = _divided(total, terms, how)
    means[np.isnan(means) | (terms == 0)] = np.nan  # whose sign differs between processors
    return means[()]


def _divided(sums: Array, terms: int, how: Accumulator) -> Array:
    """Return sums divided by the number of their terms, each quotient rounded once."""
    from lowprec.kernels.sums.means import make_mean  # imports Numba
    from lowprec.kernels.sums.orders import rounding_plan

    assert isinstance(how.rounding, Rounding)
    assert isinstance(how.overflow, Overflow)
    plan, constants = rounding_plan(how.formats[0], how.rounding, how.overflow, how.random_bits)
    key = (draw_key(how.rng) ^ _DIVISION_KEY) if how.is_stochastic else 0
    numbers, quotients = sums.astype(np.float64).reshape(-1), np.empty(sums.size)
    make_mean(plan)(numbers, float(terms), quotients, constants, np.uint64(key))
    return quotients.reshape(sums.shape)
