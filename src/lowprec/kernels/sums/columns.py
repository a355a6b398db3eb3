"""Sums of many rows that lie side by side: the columns of a matrix, a row of it after the other.

The sums so far stay in the nearest cache; each takes a step for every row that passes, so that
memory is read in order, once.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.kernels.compiler import cgutils, intrinsic, types
from lowprec.kernels.loops import (
    EXACT_FLOATS,
    Elements,
    compile_as,
    load_constants,
    swap_float_state,
)
from lowprec.kernels.magnitudes import Constants
from lowprec.kernels.products.steps import TERM, constants_of, step
from lowprec.kernels.products.vectors import FLOAT

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]

_LANES = FLOAT.lanes
_WIDEST = 2048  # columns whose sums the cache keeps
_CACHE_LINE = 64  # bytes


@intrinsic(prefer_literal=True)
def add_vector(_: Any, x: Any, i: Any, sums: Any, j: Any, constants: Any, plan: Any) -> Any:
    """Add the vector of `x` from i on to the one of `sums` from j on, each rounded once."""
    text = plan.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        terms = Elements(context, builder, signature.args[0], args[0]).load(args[1], _LANES)
        target = Elements(context, builder, signature.args[2], args[2])
        fields = cgutils.unpack_tuple(builder, args[4], len(Constants._fields))
        c = constants_of(builder, fields, text, _LANES)
        before = target.load(args[3], _LANES)
        target.store(step(terms, terms.constant(1.0), before, text, c, TERM), args[3])
        return context.get_dummy_value()

    return types.void(x, i, sums, j, constants, plan), generate


@functools.cache
def make_column_sums(plan: str) -> Callable[..., None]:
    """Return the loop that sums columns: ``sum_columns(x, columns, sums, constants)``.

    `x` holds the rows of `columns` float32, one after the other; `sums` has room for the sums of
    whole vectors of them. `plan` is that of `term_plan`.
    """

    def sum_columns(x, columns, sums, constants):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c = load_constants(constants)
        room = np.empty(_WIDEST + _LANES, np.float32)
        shift = -room.ctypes.data % _CACHE_LINE // room.itemsize  # no vector is on two lines
        kept = room[shift : shift + _WIDEST]
        for left in range(0, sums.size, _WIDEST):
            width = min(_WIDEST, sums.size - left)
            kept[:] = -0.0  # which adds nothing
            for first in range(left, x.size, columns):
                for j in range(0, width, _LANES):
                    add_vector(x, first + j, kept, j, c, plan)
            for j in range(width):
                total = kept[j]
                sums[left + j] = total if total == total else np.nan
        swap_float_state(floats)

    signature = types.void(
        types.Array(types.float32, 1, "C", readonly=True),
        types.int64,
        types.Array(types.float32, 1, "C"),
        types.Array(types.uint64, 1, "C"),
    )
    return compile_as(f"column sums|{plan}", sum_columns, signature)
