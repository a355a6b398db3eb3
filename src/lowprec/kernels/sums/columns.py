"""Sums of many rows that lie side by side: the columns of a matrix, a row of it after the other.

The sums so far stay in the nearest cache; each vector of them takes a step for every one of some
rows, so that memory is read in order, once.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.kernels.compiler import cgutils, intrinsic, ir, types
from lowprec.kernels.lanes import Lanes
from lowprec.kernels.loops import (
    EXACT_FLOATS,
    Elements,
    compile_as,
    keep,
    kept,
    load_constants,
    swap_float_state,
)
from lowprec.kernels.magnitudes import Constants
from lowprec.kernels.products.steps import TERM, constants_of, step
from lowprec.kernels.products.vectors import FLOAT
from lowprec.kernels.sums.quick import soon_rounded

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]

_LANES = FLOAT.lanes
_WIDEST = 2048  # columns whose sums the cache keeps
_ROWS = 16  # that a vector of sums takes before the next one, from a register
_FIELDS = len(Constants._fields)
_CACHE_LINE = 64  # bytes


@intrinsic(prefer_literal=True)
def add_rows(
    _: Any, x: Any, i: Any, size: Any, sums: Any, j: Any, constants: Any, plans: Any, vectors: Any
) -> Any:
    """Add vectors of `x` from i on to those of `sums` at j, each step rounded once.

    `size` is how many rows, and how far they are apart. Two ``vectors`` take the steps of
    `term_plan`; one alone, whose steps wait for each other, those of `soon_rounded`.
    """
    count, (usual, soon) = vectors.literal_value, kept(plans.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = Elements(context, builder, signature.args[0], args[0])
        target = Elements(context, builder, signature.args[3], args[3])
        rows, distance = cgutils.unpack_tuple(builder, args[2], 2)
        c_usual, c_soon = (
            constants_of(builder, cgutils.unpack_tuple(builder, fields, _FIELDS), text, _LANES)
            for text, fields in zip(
                (usual, soon), cgutils.unpack_tuple(builder, args[5], 2), strict=True
            )
        )

        def slowly(term: Lanes, before: Lanes) -> Lanes:
            return step(term, term.constant(1.0), before, usual, c_usual, TERM)

        places = [ir.Constant(ir.IntType(64), v * _LANES) for v in range(count)]
        at = [builder.add(args[4], place) for place in places]
        totals = [
            cgutils.alloca_once_value(builder, target.load(each, _LANES).value) for each in at
        ]
        with cgutils.for_range(builder, rows) as row:
            start = builder.add(args[1], builder.mul(row.index, distance))
            source.prefetch(start, count * _LANES)
            for place, total in zip(places, totals, strict=True):
                term = source.load(builder.add(start, place), _LANES)
                before = Lanes(builder, builder.load(total))
                after = (
                    slowly(term, before)
                    if count > 1
                    else soon_rounded(term, before, soon, c_soon, slowly)
                )
                builder.store(after.value, total)
        for each, total in zip(at, totals, strict=True):
            target.store(Lanes(builder, builder.load(total)), each)
        return context.get_dummy_value()

    return types.void(x, i, size, sums, j, constants, plans, vectors), generate


@functools.cache
def make_column_sums(usual: str, soon: str) -> Callable[..., None]:
    """Return the loop that sums columns: ``sum_columns(x, columns, sums, constants)``.

    `x` holds the rows of `columns` float32, one after the other; `sums` has room for the sums of
    whole vectors of them. `usual` is the plan of `term_plan`, `soon` that of `quick_plan` or the
    same; `constants` has those of each.
    """
    plans = keep(f"{usual}&{soon}", (usual, soon))

    def sum_columns(x, columns, sums, constants):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c, rows = (load_constants(constants[0]), load_constants(constants[1])), x.size // columns
        room = np.empty(_WIDEST + _LANES, np.float32)
        shift = -room.ctypes.data % _CACHE_LINE // room.itemsize  # no vector is on two lines
        totals = room[shift : shift + _WIDEST]
        for left in range(0, sums.size, _WIDEST):
            width = min(_WIDEST, sums.size - left)
            pairs = width // (2 * _LANES) * (2 * _LANES)
            totals[:] = -0.0  # which adds nothing
            for first in range(0, rows, _ROWS):
                size, start = (min(rows - first, _ROWS), columns), first * columns + left
                for j in range(0, pairs, 2 * _LANES):
                    add_rows(x, start + j, size, totals, j, c, plans, 2)
                for j in range(pairs, width, _LANES):
                    add_rows(x, start + j, size, totals, j, c, plans, 1)
            for j in range(width):
                total = totals[j]
                sums[left + j] = total if total == total else np.nan
        swap_float_state(floats)

    signature = types.void(
        types.Array(types.float32, 1, "C", readonly=True),
        types.int64,
        types.Array(types.float32, 1, "C"),
        types.Array(types.uint64, 2, "C"),
    )
    return compile_as(f"column sums|{plans}", sum_columns, signature)
