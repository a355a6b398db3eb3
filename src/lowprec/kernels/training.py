"""What a training step does to whole tensors, in one pass each: add and round, mask, look.

The addition is float32's; the rule of the plan then rounds its result. A plan may be empty: float32
itself. A fully connected layer is a call forward and a call backward: between two steps of a small
network, calls cost more than what they compute.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from lowprec.formats import Format, float32
from lowprec.kernels.compiler import cgutils, intrinsic, types
from lowprec.kernels.lanes import Lanes, select
from lowprec.kernels.loops import (
    EXACT_FLOATS,
    Elements,
    address_of,
    apply_plan,
    apply_rule,
    compile_as,
    kept,
    kernel,
    load_constants,
    spell,
    swap_float_state,
)
from lowprec.kernels.objects import HEADER, floats_of, size_of
from lowprec.kernels.plans import conversion_plan
from lowprec.kernels.products.matmul import DEPTH, FLOAT32, NO_CONSTANTS, make_multiply
from lowprec.rounding import Overflow, Rounding

Hear = Callable[[list[tuple[Any, Any]], int], None]

_WIDE, _NARROW = 32, 8  # lanes

_vector = types.Array(types.float32, 1, "C")
_input = types.Array(types.float32, 1, "C", readonly=True)
_constants = types.Array(types.uint64, 1, "C")
_matrix = types.Array(types.float32, 2, "C")
_operand = types.Array(types.float32, 2, "A", readonly=True)
_product = types.void(
    _operand,
    _operand,
    types.Array(types.float32, 2, "A"),
    types.boolean,
    types.int64,
    types.Array(types.uint64, 2, "C"),
)


@intrinsic(prefer_literal=True)
def _apply_sum(
    _: Any,
    x: Any,
    y: Any,
    out: Any,
    i: Any,
    j: Any,
    constants: Any,
    plan: Any,
    relu: Any,
    count: Any,
) -> Any:
    """Round x[i:] + y[j:] into out[i:], `count` elements; negative results to zero if asked."""
    lanes = count.literal_value
    work = kept(plan.literal_value) if plan.literal_value else None

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        left, right, target = (
            Elements(context, builder, *pair)
            for pair in zip(signature.args[:3], args, strict=False)
        )
        result: Lanes = left.load(args[3], lanes) + right.load(args[4], lanes)
        if work is not None:
            result = apply_plan(result, work, cgutils.unpack_tuple(builder, args[5]))
        if relu.literal_value:
            if not result.is_float:
                result = result.as_floats()
            result = select(result <= 0.0, result.constant(0.0), result)  # NaN stays
        target.store(result, args[3])
        return context.get_dummy_value()

    return types.void(x, y, out, i, j, constants, plan, relu, count), generate


def _adding_rows(plan: str, relu: int) -> Any:
    """Return what adds a row to every row of an array, and rounds the sums into another."""

    @kernel
    def add_rows(x, y, out, c):  # type: ignore[no-untyped-def]
        width = y.size
        wide = width - width % _WIDE
        narrow = width - width % _NARROW
        for first in range(0, x.size, width):
            for j in range(0, wide, _WIDE):
                _apply_sum(x, y, out, first + j, j, c, plan, relu, _WIDE)
            for j in range(wide, narrow, _NARROW):
                _apply_sum(x, y, out, first + j, j, c, plan, relu, _NARROW)
            for j in range(narrow, width):
                _apply_sum(x, y, out, first + j, j, c, plan, relu, 1)

    return add_rows


@functools.cache
def _sum_loop(plan: str, relu: int) -> Any:
    add_rows = _adding_rows(plan, relu)

    def loop(x, y, constants):  # type: ignore[no-untyped-def]
        state = swap_float_state(EXACT_FLOATS)
        add_rows(x, y, x, load_constants(constants))
        swap_float_state(state)

    return compile_as(f"sum|{plan}|{relu}", loop, types.void(_vector, _input, _constants))


def _rounding_plan(fmt: Format, overflow: Overflow) -> tuple[str, Any]:
    """Return how float32 is rounded to a format, as text, and the rule's constants."""
    if fmt == float32:
        return "", np.zeros(16, np.uint64)
    plan, constants = conversion_plan(fmt, "float32", "float32", Rounding.TIES_TO_EVEN, overflow)
    return spell(plan), constants


class Sum:
    """Adds a row of float32 to every row of an array, in place, and rounds the float32 sums."""

    __slots__ = ("constants", "loop", "relu_loop")

    def __init__(self, fmt: Format, overflow: Overflow) -> None:
        plan, self.constants = _rounding_plan(fmt, overflow)
        self.loop = _sum_loop(plan, 0)
        self.relu_loop = _sum_loop(plan, 1)

    def __call__(self, x: Any, row: Any, relu: bool = False) -> None:
        """Change contiguous `x`, of a multiple of `row`'s size; ``max(., 0)`` after if `relu`."""
        if row.size:
            (self.relu_loop if relu else self.loop)(x.reshape(-1), row, self.constants)


# A fully connected layer -------------------------------------------------------------------------


@intrinsic
def _multiply_at(
    _: Any, address: Any, a: Any, b: Any, c: Any, is_first: Any, block: Any, constants: Any
) -> Any:
    """Call the loop of a matrix product that is at an address.

    A call by its name would make its machine code anew as a part of every loop that calls it.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        calls = context.call_conv
        kind = calls.get_function_type(types.void, _product.args)
        function = builder.inttoptr(args[0], kind.as_pointer())
        calls.call_function(builder, function, types.void, _product.args, args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, *_product.args), generate


def _rounding(plan: str) -> Any:
    """Return what rounds an array into another, which may be itself."""

    @kernel
    def round_into(x, out, c):  # type: ignore[no-untyped-def]
        if plan != "":
            whole = x.size - x.size % _WIDE
            for i in range(0, whole, _WIDE):
                apply_rule(x, out, i, c, plan, _WIDE)
            for i in range(whole, x.size):
                apply_rule(x, out, i, c, plan, 1)

    return round_into


@functools.cache
def _forward_loop(plan: str, relu: bool) -> Any:
    add_rows, round_into = _adding_rows(plan, int(relu)), _rounding(plan)

    def loop(x, weights, bias, rounded, row, sums, out, hears, constants, multiply, none):  # type: ignore[no-untyped-def]
        c = load_constants(constants)
        state = swap_float_state(EXACT_FLOATS)
        round_into(weights.reshape(-1), rounded.reshape(-1), c)
        round_into(bias, row, c)
        _multiply_at(multiply, x, rounded, sums, True, DEPTH, none)
        add_rows(sums.reshape(-1), row, out.reshape(-1), c)
        if hears:
            for i in range(sums.shape[0]):
                for j in range(row.size):
                    total = sums[i, j] + row[j]
                    sums[i, j] = np.float32(0) if relu and total <= 0 else total
        swap_float_state(state)

    weights = types.Array(types.float32, 2, "C", readonly=True)
    rounded = (_matrix, _vector) if plan else (weights, _input)
    arrays = _operand, weights, _input, *rounded, _matrix, _matrix, types.boolean
    signature = types.void(*arrays, _constants, types.int64, _product.args[-1])
    return compile_as(f"dense forward|{plan}|{relu}", loop, signature)


@functools.cache
def _backward_loop(plan: str, relu: bool) -> Any:
    round_into = _rounding(plan)

    def loop(  # type: ignore[no-untyped-def]
        x,
        weights,
        y,
        dy,
        dz,
        of_weights,
        of_bias,
        dx,
        to_weights,
        to_bias,
        to_x,
        constants,
        multiply,
        none,
    ):
        c = load_constants(constants)
        state = swap_float_state(EXACT_FLOATS)
        of_bias[:] = np.float32(0)
        for i in range(dz.shape[0]):
            if relu:
                for j in range(dz.shape[1]):
                    dz[i, j] = dy[i, j] if y[i, j] > 0 else np.float32(0)
            for j in range(dz.shape[1]):
                of_bias[j] += dz[i, j]
        for j in range(of_bias.size):
            total = of_bias[j]
            of_bias[j] = total if total == total else np.float32(np.nan)
        round_into(of_bias, to_bias, c)
        _multiply_at(multiply, x.T, dz, of_weights, True, DEPTH, none)
        round_into(of_weights.reshape(-1), to_weights.reshape(-1), c)
        if dx.size:
            _multiply_at(multiply, dz, weights.T, dx, True, DEPTH, none)
            round_into(dx.reshape(-1), to_x.reshape(-1), c)
        swap_float_state(state)

    read = types.Array(types.float32, 2, "C", readonly=True)
    dz = _matrix if relu else read
    results = _matrix, _vector, _matrix
    arrays = _operand, _operand, read, read, dz, *results, *results
    signature = types.void(*arrays, _constants, types.int64, _product.args[-1])
    return compile_as(f"dense backward|{plan}|{relu}", loop, signature)


_NOTHING = np.empty((0, 0), np.float32)


class Affine:
    """A fully connected layer under float32 sums, with a linear or a ReLU activation.

    Every array is contiguous float32.

    hear: Called after each pass with all arrays before and after their rounding, in order, and with
        the most terms of a sum; None where nobody listens.
    """

    def __init__(self, compute: Format, gradients: Format, hear: Hear | None = None) -> None:
        self.forward_plan, self.compute = _rounding_plan(compute, Overflow.IEEE)
        self.backward_plan, self.gradients = _rounding_plan(gradients, Overflow.IEEE)
        self.hear = hear
        self.multiply = address_of(make_multiply(FLOAT32))

    def forward(self, x: Any, weights: Any, bias: Any, relu: bool) -> tuple[Any, Any]:
        """Return the rounded weights, and the rounded x · weights + bias, at least 0 if `relu`."""
        loop = _forward_loop(self.forward_plan, relu)
        rounded, row = weights, bias
        if self.forward_plan:
            rounded, row = np.empty_like(weights), np.empty_like(bias)
        out = np.empty((x.shape[0], weights.shape[1]), np.float32)
        hears = self.hear is not None
        sums = np.empty_like(out) if hears else out
        arrays = x, weights, bias, rounded, row, sums, out
        loop(*arrays, hears, self.compute, self.multiply, NO_CONSTANTS)
        if self.hear is not None:  # what ReLU makes zero was zero before
            self.hear([(weights, rounded), (bias, row), (sums, out)], x.shape[1])
        return rounded, out

    def backward(
        self, x: Any, weights: Any, y: Any, dy: Any, wants_input: bool
    ) -> tuple[Any, Any, Any]:
        """Return the gradients of weights, bias and, if it is wanted, input, else None.

        `y` is what ReLU left, None where there is none.
        """
        relu = y is not None
        dz = np.empty_like(dy) if relu else dy
        sums = (
            np.empty(weights.shape, np.float32),
            np.empty(weights.shape[1], np.float32),
            np.empty(x.shape, np.float32) if wants_input else _NOTHING,
        )
        is_apart = self.hear is not None and self.backward_plan
        found = tuple(map(np.empty_like, sums)) if is_apart else sums
        loop = _backward_loop(self.backward_plan, relu)
        arrays = x, weights, y if relu else _NOTHING, dy, dz, *sums, *found
        loop(*arrays, self.gradients, self.multiply, NO_CONSTANTS)
        count = 3 if wants_input else 2
        if self.hear is not None:
            pairs = list(zip(sums, found, strict=True))[:count]
            self.hear(pairs, max(x.shape[0], weights.shape[1] if wants_input else 0))
        return found[0], found[1], found[2] if wants_input else None


# Looking -----------------------------------------------------------------------------------------


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
    def loop(arrays):  # type: ignore[no-untyped-def]
        largest = np.int32(0)  # magnitude, as bits: those of infinity and NaN come last
        for k in range(len(arrays)):
            bits = floats_of(arrays[k], 0, size_of(arrays[k])).view(np.int32)
            for i in range(bits.size):
                largest = max(largest, np.int32(bits[i] & np.int32(0x7FFFFFFF)))
        return largest < np.int32(0x7F800000)

    signature = types.boolean(types.Array(types.int64, 1, "C"))
    return compile_as(f"finite|{HEADER}", loop, signature)


def all_finite(arrays: list[Any]) -> bool:
    """Return whether contiguous float32 arrays hold neither infinities nor NaN."""
    return bool(_finite_loop()(np.fromiter(map(id, arrays), np.int64, len(arrays))))


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


# The update --------------------------------------------------------------------------------------


@functools.cache
def _descent_loop() -> Any:
    def loop(w, g, out, factor):  # type: ignore[no-untyped-def]
        state = swap_float_state(EXACT_FLOATS)
        for i in range(w.size):
            g[i] = update = g[i] * factor
            out[i] = w[i] + update
        swap_float_state(state)

    return compile_as("descent", loop, types.void(_input, _vector, _vector, types.float32))


def descend(w: Any, g: Any, out: Any, factor: float) -> Any:
    """Return w + g·factor, each operation rounded, in `out`; g becomes the update.

    Arrays are contiguous float32 of one shape; `out` may be g.
    """
    _descent_loop()(w.reshape(-1), g.reshape(-1), out.reshape(-1), factor)
    return out


@functools.cache
def _adam_loop() -> Any:
    def loop(w, g, m, v, out, numbers):  # type: ignore[no-untyped-def]
        of_g, beta, of_squares = numbers[0], numbers[1], numbers[2]
        scale, epsilon, factor = numbers[3], numbers[4], numbers[5]
        state = swap_float_state(EXACT_FLOATS)
        for i in range(w.size):
            m[i] += (g[i] - m[i]) * of_g
            v[i] = v[i] * beta + (g[i] * of_squares) * g[i]
            g[i] = update = m[i] / (np.sqrt(v[i]) * scale + epsilon) * factor
            out[i] = w[i] + update
        swap_float_state(state)

    changed = (_vector,) * 4
    return compile_as("adam", loop, types.void(_input, *changed, _input))


def adam(w: Any, g: Any, m: Any, v: Any, out: Any, numbers: Any) -> Any:
    """Move both means, in place, and return the parameters in `out`, which may be g.

    With (a, β, b, s, ε, f) = `numbers`: m ← m + (g - m)·a; v ← v·β + (g·b)·g;
    w + m / (√v·s + ε)·f, each operation rounded; g becomes what is added. Arrays are contiguous
    float32, all but `numbers` of one shape.
    """
    _adam_loop()(*(array.reshape(-1) for array in (w, g, m, v, out)), numbers)
    return out
