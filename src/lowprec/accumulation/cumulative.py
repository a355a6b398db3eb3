"""Cumulative sums: every element the sum, as an accumulator forms it, of the terms up to it."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.accumulation.accumulator import (
    Accumulator,
    AccumulatorLike,
    as_accumulator,
    result_dtype,
)
from lowprec.accumulation.sums import exactly
from lowprec.arrays.direct import blocks_of_rows
from lowprec.arrays.sources import as_array
from lowprec.common.processor_state import in_exact_state
from lowprec.common.randomness import draw_key
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Array = np.ndarray[Any, Any]

_ELEMENTS = 1 << 16  # of a temporary block of terms


@in_exact_state
def cumsum(x: ArrayLike, accumulator: AccumulatorLike, axis: int | None = None) -> Array:
    """Return the sums of the terms up to each one, as an accumulator forms them.

    The law: along the axis, element i has the bits of `lowprec.sum` of the terms 0 to i with the
    same accumulator, for a stochastic one with the same key. In the orders ``sequential`` and
    ``kahan`` that is the sum as it grows, every step rounded once; in ``blocked`` the sum of whole
    blocks plus the unfinished one, in ``pairwise`` that of the tree over the terms so far, in
    ``exact`` one rounding of each exact sum.

    Parameters
    ----------
    x : array_like of real numbers, any shape
        The terms, each taken exactly; integers of at most 53 significant bits, as float64 has.
    accumulator : Accumulator, or Format, str or dtype
        How each sum is formed; a format stands for ``Accumulator(fmt)``, which is sequential.
    axis : int, optional
        Along which axis; by default the terms are taken as one row, in C order.

    Returns
    -------
    numpy.ndarray
        Values of the accumulator's format, float32 where it holds them all, else float64: of the
        shape of `x`, or without an axis of shape ``(x.size,)``.

    Raises
    ------
    ValueError
        If the accumulator has no running sum, in the orders ``aligned`` and ``blas`` and in blocks
        with an accumulator of their own; or an integer has more than 53 significant bits.
    numpy.exceptions.AxisError
        If `x` has no such axis.

    Examples
    --------
    >>> cumsum([1, 2.0**-8, 2.0**-8], "bfloat16")
    array([1., 1., 1.], dtype=float32)
    >>> cumsum([1, 2.0**-8, 2.0**-8], Accumulator("bfloat16", order="kahan"))
    array([1.       , 1.       , 1.0078125], dtype=float32)
    >>> cumsum([[1, 2], [3, 4]], "float16", axis=0)
    array([[1., 2.],
           [4., 6.]], dtype=float32)
    """
    how, array = as_accumulator(accumulator), as_array(x)
    _require_running_sum(how)
    if axis is None:
        array, place = array.reshape(-1), 0
    else:
        place = operator.index(axis)
        if not -array.ndim <= place < array.ndim:
            raise np.exceptions.AxisError(place, array.ndim)
    rows = np.moveaxis(array, place, -1)
    result = np.empty(rows.shape, result_dtype(how.formats[0]))
    if result.size:
        _cumulate(rows, how, result.reshape(-1, rows.shape[-1]))
    return np.ascontiguousarray(np.moveaxis(result, -1, place))


def _require_running_sum(how: Accumulator) -> None:
    from lowprec.kernels.sums.prefixes import ORDERS  # imports Numba

    if how.order not in ORDERS or how.is_nested:
        kind = "blocks with an accumulator of their own" if how.is_nested else repr(how.order)
        raise ValueError(
            f"no cumulative sum in the order {kind}: its steps are whole groups of terms, or "
            "NumPy's own, and the terms up to one do not tell them; use one of the orders "
            f"{', '.join(ORDERS)}, or sum the terms up to each one"
        )


def _cumulate(x: Array, how: Accumulator, result: Array) -> None:
    """Write the running sums of the rows of `x`, along its last axis, to the rows of `result`."""
    from lowprec.kernels.sums.orders import rounding_plan  # imports Numba
    from lowprec.kernels.sums.prefixes import make_running_sums, prefix_state_size

    assert isinstance(how.rounding, Rounding)
    assert isinstance(how.overflow, Overflow)
    rounding, overflow = how.rounding, how.overflow
    plans = [rounding_plan(fmt, rounding, overflow, how.random_bits) for fmt in how.formats]
    constants = np.stack([fields for _, fields in plans])
    loop = make_running_sums(how.order, plans[0][0], plans[1][0])
    key = np.uint64(draw_key(how.rng) if how.is_stochastic else 0)
    terms = result.shape[1]
    rows = max(1, _ELEMENTS // terms)
    for part, blocks in blocks_of_rows(x, terms, rows, _ELEMENTS // rows):
        state = np.zeros((part.stop - part.start, prefix_state_size(how.order, terms)))
        first = 0
        for block in map(exactly, blocks):
            sums = np.empty(block.shape)
            loop(block, sums, state, constants, how.block or 1, first, part.start, key)
            sums[np.isnan(sums)] = np.nan  # whose sign differs between processors
            result[part, first : first + block.shape[1]] = sums
            first += block.shape[1]
