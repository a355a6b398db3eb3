"""What a training step does to whole tensors, in one pass each: add and round, mask, look.

The addition is float32's; the rule of the plan then rounds its result. A plan may be empty: float32
itself.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from lowprec.formats import Format, float32
from lowprec.kernels.compiler import intrinsic, types
from lowprec.kernels.lanes import Lanes, select
from lowprec.kernels.loops import (
    EXACT_FLOATS,
    Elements,
    apply_plan,
    compile_as,
    kept,
    load_constants,
    spell,
    swap_float_state,
)
from lowprec.kernels.plans import conversion_plan
from lowprec.rounding import Overflow, Rounding

_WIDE, _NARROW = 32, 8  # lanes

_vector = types.Array(types.float32, 1, "C")
_input = types.Array(types.float32, 1, "C", readonly=True)
_constants = types.Array(types.uint64, 1, "C")


@intrinsic(prefer_literal=True)
def _apply_sum(
    _: Any, x: Any, y: Any, i: Any, j: Any, constants: Any, plan: Any, relu: Any, count: Any
) -> Any:
    """Round x[i:] + y[j:] into x[i:], `count` elements; with negative results to zero if asked."""
    lanes = count.literal_value
    work = kept(plan.literal_value) if plan.literal_value else None

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = Elements(context, builder, signature.args[0], args[0])
        other = Elements(context, builder, signature.args[1], args[1])
        result: Lanes = target.load(args[2], lanes) + other.load(args[3], lanes)
        if work is not None:
            result = apply_plan(result, work, args[4])
        if relu.literal_value:
            if not result.is_float:
                result = result.as_floats()
            result = select(result <= 0.0, result.constant(0.0), result)  # NaN stays
        target.store(result, args[2])
        return context.get_dummy_value()

    return types.void(x, y, i, j, constants, plan, relu, count), generate


@functools.cache
def _sum_loop(plan: str, relu: int) -> Any:
    def loop(x, y, constants):  # type: ignore[no-untyped-def]
        c = load_constants(constants)
        width = y.size
        wide = width - width % _WIDE
        narrow = width - width % _NARROW
        state = swap_float_state(EXACT_FLOATS)
        for first in range(0, x.size, width):
            for j in range(0, wide, _WIDE):
                _apply_sum(x, y, first + j, j, c, plan, relu, _WIDE)
            for j in range(wide, narrow, _NARROW):
                _apply_sum(x, y, first + j, j, c, plan, relu, _NARROW)
            for j in range(narrow, width):
                _apply_sum(x, y, first + j, j, c, plan, relu, 1)
        swap_float_state(state)

    return compile_as(f"sum|{plan}|{relu}", loop, types.void(_vector, _input, _constants))


class Sum:
    """Adds a row of float32 to every row of an array, in place, and rounds the float32 sums."""

    __slots__ = ("constants", "loop", "relu_loop")

    def __init__(self, fmt: Format, overflow: Overflow) -> None:
        plan = ""
        self.constants = np.zeros(16, np.uint64)
        if fmt != float32:
            made, self.constants = conversion_plan(
                fmt, "float32", "float32", Rounding.TIES_TO_EVEN, overflow
            )
            plan = spell(made)
        self.loop = _sum_loop(plan, 0)
        self.relu_loop = _sum_loop(plan, 1)

    def __call__(self, x: Any, row: Any, relu: bool = False) -> None:
        """Change contiguous `x`, of a multiple of `row`'s size; ``max(., 0)`` after if `relu`."""
        if row.size:
            (self.relu_loop if relu else self.loop)(x.reshape(-1), row, self.constants)


@functools.cache
def _mask_loop() -> Any:
    def loop(x, y, out):  # type: ignore[no-untyped-def]
        state = swap_float_state(EXACT_FLOATS)  # a subnormal y that is flushed is not above 0
        for i in range(x.size):
            out[i] = x[i] if y[i] > 0 else np.float32(0)
        swap_float_state(state)

    return compile_as("mask", loop, types.void(_input, _input, _vector))


def masked(x: Any, y: Any) -> Any:
    """Return x where y > 0, else 0, of contiguous float32 arrays of one shape."""
    out = np.empty_like(x)
    _mask_loop()(x.reshape(-1), y.reshape(-1), out.reshape(-1))
    return out


@functools.cache
def _finite_loop() -> Any:
    def loop(x):  # type: ignore[no-untyped-def]
        bits = x.view(np.int32)
        largest = np.int32(0)  # magnitude, as bits: those of infinity and NaN come last
        for i in range(bits.size):
            largest = max(largest, np.int32(bits[i] & np.int32(0x7FFFFFFF)))
        return largest < np.int32(0x7F800000)

    return compile_as("finite", loop, types.boolean(_input))


def all_finite(x: Any) -> bool:
    """Return whether a contiguous float32 array holds neither infinities nor NaN."""
    return bool(_finite_loop()(x.reshape(-1)))


@functools.cache
def _multiply_loop() -> Any:
    def loop(x, factor):  # type: ignore[no-untyped-def]
        bits = x.view(np.int32)
        largest = np.int32(0)
        state = swap_float_state(EXACT_FLOATS)
        for i in range(x.size):
            largest = max(largest, np.int32(bits[i] & np.int32(0x7FFFFFFF)))
            x[i] *= factor
        swap_float_state(state)
        return largest < np.int32(0x7F800000)

    return compile_as("multiply and look", loop, types.boolean(_vector, types.float32))


def multiply(x: Any, factor: float) -> bool:
    """Multiply a contiguous float32 array in place; return whether it was finite before."""
    return bool(_multiply_loop()(x.reshape(-1), np.float32(factor)))
