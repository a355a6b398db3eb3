"""Pairwise sums of rows of float32, a level of the tree at a time, on vectors.

The terms of a row are cut into blocks of powers of two, each a whole subtree: every level adds the
even places to the odd ones, in `steps` of a matrix product with factors of 1, until one value is
left. Values of subtrees meet as the binary digits of the number of terms before them say.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.formats import Format, bfloat16
from lowprec.kernels.compiler import cgutils, intrinsic, ir, types
from lowprec.kernels.lanes import Lanes
from lowprec.kernels.loops import (
    EXACT_FLOATS,
    Elements,
    compile_as,
    load_constants,
    spell,
    swap_float_state,
)
from lowprec.kernels.magnitudes import Constants
from lowprec.kernels.plans import conversion_plan
from lowprec.kernels.products.steps import TERM, constants_of, step, step_plan
from lowprec.kernels.products.vectors import FLOAT
from lowprec.kernels.sums.orders import added, rounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.rounding import Overflow, Rounding

Array = np.ndarray[Any, Any]

_LANES = FLOAT.lanes
_LARGEST = 12  # levels of a block
_SMALLEST = 5


def term_plan(fmt: Format, rounding: Rounding, overflow: Overflow) -> tuple[str, Any] | None:
    """Return the rule that rounds the sum of any two float32, as text, and its constants.

    It is that of `step_plan`, but for bfloat16, whose step would turn a NaN with all its bits set
    into zero.
    """
    if fmt == bfloat16 and step_plan(fmt, rounding, overflow) is not None:
        plan, constants = conversion_plan(fmt, "float32", "float32", rounding, overflow)
        return spell(plan), constants
    return step_plan(fmt, rounding, overflow)


@intrinsic(prefer_literal=True)
def halve(_: Any, x: Any, i: Any, out: Any, j: Any, constants: Any, plan: Any) -> Any:
    """Add the neighbours of two vectors of `x` from i on; write a vector to `out` at j."""
    text = plan.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = Elements(context, builder, signature.args[0], args[0])
        target = Elements(context, builder, signature.args[2], args[2])
        pair = source.load(args[1], 2 * _LANES).value
        index = ir.VectorType(ir.IntType(32), _LANES)
        even, odd = (
            Lanes(builder, builder.shuffle_vector(
                pair, pair, ir.Constant(index, list(range(place, 2 * _LANES, 2)))
            ))
            for place in (0, 1)
        )  # fmt: skip
        fields = cgutils.unpack_tuple(builder, args[4], len(Constants._fields))
        c = constants_of(builder, fields, text, _LANES)
        target.store(step(even, even.constant(1.0), odd, text, c, TERM), args[3])
        return context.get_dummy_value()

    return types.void(x, i, out, j, constants, plan), generate


@functools.cache
def make_trees(plan: str, term: str) -> Callable[..., None]:
    """Return the loop that sums the rows of a float32 array pairwise.

    ``sum_rows(x, sums, constants, term_constants)``; `plan` is the rule of `rounding_plan`, `term`
    the one of `term_plan`.
    """

    def sum_rows(x, sums, constants, term_constants):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c, ct = load_constants(constants), load_constants(term_constants)
        room = np.zeros((1 << (_LARGEST - 1)) + 2 * _LANES, np.float32)
        state = np.empty(64)
        for i in range(x.shape[0]):
            row, done, size = x[i], 0, _LARGEST
            count = row.size
            while done < count:
                while size and (count - done) >> size == 0:
                    size -= 1
                if size < _SMALLEST:
                    size = 0
                total = np.float64(row[done])
                if size:
                    half = 1 << (size - 1)
                    for j in range(0, half, _LANES):
                        halve(row, done + 2 * j, room, j, ct, term)
                    for _ in range(1, size):
                        half >>= 1
                        for j in range(0, half, _LANES):
                            halve(room, 2 * j, room, j, ct, term)
                    total = np.float64(room[0])
                level = size
                while done >> level & 1:
                    total = added(total, 1.0, state[level], c, 0, plan)
                    level += 1
                state[level] = total
                done += 1 << size
            lowest = 0
            while not count >> lowest & 1:
                lowest += 1
            total = state[lowest]
            if count == 1:
                total = rounded(total, c, 0, plan)
            for level in range(lowest + 1, 63):
                if count >> level & 1:
                    total = added(total, 1.0, state[level], c, 0, plan)
            sums[i] = total if total == total else np.nan
        swap_float_state(floats)

    constants = types.Array(types.uint64, 1, "C")
    signature = types.void(
        types.Array(types.float32, 2, "C", readonly=True),
        types.Array(types.float64, 1, "C"),
        constants,
        constants,
    )
    return compile_as(f"trees|{plan}|{term}", sum_rows, signature)
