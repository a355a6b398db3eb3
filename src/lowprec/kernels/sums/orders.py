"""Sums with every step rounded once, in every order: the general kernel.

It works on a block of terms ``a[i, k] * b[k, j]`` of outputs (i, j) and keeps the state of each
output in float64, which holds every value of the accumulator's format and every term exactly. Terms
arrive block by block along k, so that no temporary grows with the operands.

One addition is exact up to its single rounding: TwoSum gives the float64 sum and its error, from
which the sum rounded to odd follows; its 53 bits hold two more than any format here, so that
rounding them is rounding the exact sum.

References
----------
Boldo, Melquiond (2008), "Emulation of a FMA and correctly rounded sums: proved algorithms using
rounding to odd"; Knuth, The Art of Computer Programming, volume 2, section 4.2.2 (TwoSum).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.formats import Format, float64
from lowprec.kernels.compiler import cgutils, intrinsic, types
from lowprec.kernels.lanes import Lanes, select
from lowprec.kernels.loops import (
    EXACT_FLOATS,
    compile_as,
    kept,
    load_constants,
    plan_of,
    spell,
    swap_float_state,
)
from lowprec.kernels.magnitudes import Constants, Plan, adjust
from lowprec.kernels.philox import philox
from lowprec.kernels.plans import conversion_plan, result_random_bits, shared_plan
from lowprec.kernels.rules import convert
from lowprec.kernels.sums.limbs import LIMBS, add_to_limbs, read_limbs
from lowprec.rounding import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.rounding import Overflow

Array = np.ndarray[Any, Any]

_SIGN, _INFINITY, _TRAILING = 1 << 63, 0x7FF << 52, 52
NATIVE = "native"  # float64 itself, to nearest: the processor rounds
_MATRIX = types.Array(types.float64, 2, "A", readonly=True)


def rounding_plan(
    fmt: Format,
    rounding: Rounding,
    overflow: Overflow,
    random_bits: int | None = None,
    on_vectors: bool = False,
) -> tuple[str, Array]:
    """Return how float64 sums are rounded to a format, as text, and the rule's constants.

    Up to 16 random bits, where so many are asked for, come from halves of words. Loops over single
    sums round nearly all of them on a quick way (`_add`); in other modes than the usual one the
    rest takes the general rule, so that a loop serves many formats. Loops on vectors have the
    fastest rule.
    """
    if fmt == float64:
        return NATIVE, np.zeros(len(Constants._fields), np.uint64)
    r = result_random_bits(fmt, rounding)
    if rounding.is_stochastic and random_bits is not None:
        r = random_bits
    plan, constants = conversion_plan(fmt, "float64", "float64", rounding, overflow, r)
    if rounding.is_stochastic and random_bits is not None and random_bits <= 16:
        plan = plan._replace(draws_halves=1)
    if not on_vectors and rounding is not Rounding.TIES_TO_EVEN:
        plan = plan._replace(twin="general", shift=0)
    if not on_vectors:
        plan = shared_plan(plan, keeps_mode=True)
    return spell(plan), constants


# One rounding ------------------------------------------------------------------------------------


def zero_of(plan: str) -> float:
    """Return the zero that an exact sum of 0 is: -0 where the mode rounds toward negative."""
    found = plan_of(plan)
    return -0.0 if found is not None and Rounding(found.mode).gives_negative_zero else 0.0


def two_sum(x: Lanes, y: Lanes) -> tuple[Lanes, Lanes]:
    """Return x + y rounded to nearest, and what that left out."""
    s = x + y
    part = s - x
    return s, (x - (s - part)) + (y - part)


def sum_to_odd(x: Lanes, y: Lanes) -> Lanes:
    """Return x + y in float64, rounded to odd; a finite sum stays finite."""
    s, error = two_sum(x, y)
    bits = s.as_integers()
    grows = ((error.as_integers() ^ bits) & _SIGN).equals(0)
    is_even = (bits & 1).equals(0)
    odd = select((error < 0) | (error > 0), select(grows, bits + 1, bits - 1), bits)
    odd = select(is_even, odd, bits)
    is_over = (bits & (_SIGN - 1)).equals(_INFINITY) & is_finite(x) & is_finite(y)
    return select(is_over, bits - 1, odd).as_floats()


def is_finite(x: Lanes) -> Lanes:
    """Return in which lanes a float64 is a number."""
    return (x.as_integers() & _INFINITY) < _INFINITY


def round_wide(x: Lanes, plan: Plan, c: Constants, random: Lanes | None = None) -> Lanes:
    """Return ○(x) of float64; `random` has 32 bits, and the modes that draw need it."""
    random = c.emin if random is None else random
    return convert(x, plan, c, random >> (32 - plan.random_bits) if plan.random_bits else random)


def _add(x: Lanes, y: Lanes, plan: Plan, c: Constants, random: Lanes) -> Lanes:
    """Return ○(x + y): nearly always a float64 that needs no more than its last bits cut off."""
    if not plan.variant.has_sign:
        return sum_wide(x, y, plan, c, random)
    s, error = two_sum(x, y)
    bits = s.as_integers()
    magnitude = bits & (_SIGN - 1)
    t = c.trailing_bits
    shift = t.constant(_TRAILING) - t
    least = c.emin << _TRAILING
    largest = (c.max_code << shift) + least - (1 << _TRAILING)
    usual = error.equals(0.0) & ((magnitude - least) <= (largest - least))
    drawn = random >> (32 - plan.random_bits) if plan.random_bits else random
    rounded = adjust(magnitude, shift, bits >= _SIGN, plan, drawn) >> shift << shift
    quick, builder = (rounded | (bits & _SIGN)).as_floats(), x.builder
    before = builder.block
    with builder.if_then(builder.not_(usual.value), likely=False):
        slow = sum_wide(x, y, plan, c, random)
        after = builder.block
    result = builder.phi(quick.value.type)
    result.add_incoming(quick.value, before)
    result.add_incoming(slow.value, after)
    return Lanes(builder, result)


def sum_wide(x: Lanes, y: Lanes, plan: Plan, c: Constants, random: Lanes | None = None) -> Lanes:
    """Return ○(x + y) of float64, in any lanes."""
    s = sum_to_odd(x, y)
    if Rounding(plan.mode).gives_negative_zero:
        sign = (x.as_integers() | y.as_integers()) & _SIGN
        s = select(s.equals(0.0), sign.as_floats(), s)
    return round_wide(s, plan, c, random)


def _rule(builder: Any, text: str, constants: Any, random: Any) -> tuple[Plan, Constants, Lanes]:
    fields = cgutils.unpack_tuple(builder, constants, len(Constants._fields))
    c = Constants(*(Lanes(builder, field) for field in fields))
    return kept(text), c, Lanes(builder, random)


@intrinsic(prefer_literal=True)
def rounded(_: Any, x: Any, constants: Any, random: Any, plan: Any) -> Any:
    """Return ○(x)."""
    text = plan.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, *rest = args[:3]
        if text == NATIVE:
            return x
        return round_wide(Lanes(builder, x), *_rule(builder, text, *rest)).value

    return types.float64(x, constants, random, plan), generate


@intrinsic(prefer_literal=True)
def added(_: Any, x: Any, y: Any, z: Any, constants: Any, random: Any, plan: Any) -> Any:
    """Return ○(x·y + z); float64 holds the product exactly, unless it is the format itself."""
    text = plan.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y, z = (Lanes(builder, value) for value in args[:3])
        if text == NATIVE:
            return x.fused(y, z).value
        return _add(x * y, z, *_rule(builder, text, *args[3:5])).value

    return types.float64(x, y, z, constants, random, plan), generate


@intrinsic(prefer_literal=True)
def drawn(_: Any, output: Any, number: Any, key: Any, plan: Any) -> Any:
    """Return 32 random bits for an output's rounding of this number; 0 where none are used.

    A counter serves four roundings by its words, or eight by the lower halves of these and then by
    the upper ones, which become the upper half of what is returned.
    """
    text = plan.literal_value
    has_draws = text != NATIVE and kept(text).random_bits
    has_halves = text != NATIVE and kept(text).draws_halves

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        output, number, key = (Lanes(builder, value) for value in args[:3])
        if not has_draws:
            return key.constant(0).value
        counter = (number >> (3 if has_halves else 2)) & 0xFFFFFFFF
        x0, x1, x2, x3 = philox((output << 32) | counter, key)
        is_even, is_lower = (number & 1).equals(0), (number & 2).equals(0)
        word = select(is_lower, select(is_even, x0, x1), select(is_even, x2, x3))
        if has_halves:
            word = select((number & 4).equals(0), word << 16, word) & 0xFFFF0000
        return word.value

    return types.uint64(types.int64, types.int64, types.uint64, plan), generate


# Orders ------------------------------------------------------------------------------------------
#
# Each takes the terms ``a[i, k] * b[k, j]`` that have the numbers first, first + 1, … in the sums,
# and after the last ones leaves the sum of output (i, j) in ``state[i, j, 0]``. `constants` are
# those of the format and of the inner one; `outputs[i]` is the index of output (i, 0) in the whole
# result and `key` the key of the random bits. An output's roundings are numbered in their order.


def _sequential(plan: str, inner: str) -> Callable[..., None]:
    def accumulate(a, b, state, constants, block, first, last, outputs, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c = load_constants(constants[0])
        for i in range(a.shape[0]):
            for k in range(b.shape[0]):
                n = first + k
                for j in range(b.shape[1]):
                    random = drawn(outputs[i] + j, n, key, plan)
                    if n == 0:
                        state[i, j, 0] = rounded(a[i, k] * b[k, j], c, random, plan)
                    else:
                        state[i, j, 0] = added(a[i, k], b[k, j], state[i, j, 0], c, random, plan)
        swap_float_state(floats)

    return accumulate


def _blocked(plan: str, inner: str) -> Callable[..., None]:
    def accumulate(a, b, state, constants, block, first, last, outputs, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c, ci = load_constants(constants[0]), load_constants(constants[1])
        for i in range(a.shape[0]):
            for k in range(b.shape[0]):
                n = first + k
                done = n // block  # blocks before, each with a rounding of its own
                for j in range(b.shape[1]):
                    random = drawn(outputs[i] + j, n + done, key, inner)
                    if n == done * block:
                        state[i, j, 1] = rounded(a[i, k] * b[k, j], ci, random, inner)
                    else:
                        state[i, j, 1] = added(a[i, k], b[k, j], state[i, j, 1], ci, random, inner)
                if n + 1 < (done + 1) * block and not (last and k + 1 == b.shape[0]):
                    continue
                for j in range(b.shape[1]):
                    random = drawn(outputs[i] + j, n + done + 1, key, plan)
                    if done == 0:
                        state[i, j, 0] = rounded(state[i, j, 1], c, random, plan)
                    else:
                        state[i, j, 0] = added(state[i, j, 1], 1.0, state[i, j, 0], c, random, plan)
        swap_float_state(floats)

    return accumulate


def _pairwise(plan: str, inner: str) -> Callable[..., None]:
    """Keep sums of 1, 2, 4, … terms, those that the binary digits of the count name."""

    def accumulate(a, b, state, constants, block, first, last, outputs, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c = load_constants(constants[0])
        for i in range(a.shape[0]):
            number = 0  # of additions before the first term
            for level in range(1, 63):
                number += first >> level
            for k in range(b.shape[0]):
                level = 0
                while (first + k) >> level & 1:
                    level += 1
                for j in range(b.shape[1]):
                    total = a[i, k] * b[k, j]
                    for below in range(level):
                        random = drawn(outputs[i] + j, number + below, key, plan)
                        total = added(total, 1.0, state[i, j, below], c, random, plan)
                    state[i, j, level] = total
                number += level
            if not last:
                continue
            count = first + b.shape[0]
            for j in range(b.shape[1]):
                lowest = 0
                while not count >> lowest & 1:
                    lowest += 1
                total, now = state[i, j, lowest], number
                if count == 1:
                    total = rounded(total, c, drawn(outputs[i] + j, now, key, plan), plan)
                for level in range(lowest + 1, state.shape[2]):
                    if count >> level & 1:
                        random = drawn(outputs[i] + j, now, key, plan)
                        total = added(total, 1.0, state[i, j, level], c, random, plan)
                        now += 1
                state[i, j, 0] = total
        swap_float_state(floats)

    return accumulate


def _kahan(plan: str, inner: str) -> Callable[..., None]:
    def accumulate(a, b, state, constants, block, first, last, outputs, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c = load_constants(constants[0])
        for i in range(a.shape[0]):
            for k in range(b.shape[0]):
                n = 4 * (first + k)
                for j in range(b.shape[1]):
                    o = outputs[i] + j
                    s, lost = state[i, j, 0], state[i, j, 1]
                    if n == 0:
                        random = drawn(o, n, key, plan)
                        state[i, j, 0] = rounded(a[i, k] * b[k, j], c, random, plan)
                        state[i, j, 1] = 0.0
                        continue
                    y = added(a[i, k], b[k, j], -lost, c, drawn(o, n, key, plan), plan)
                    t = added(y, 1.0, s, c, drawn(o, n + 1, key, plan), plan)
                    grown = added(t, 1.0, -s, c, drawn(o, n + 2, key, plan), plan)
                    state[i, j, 1] = added(grown, 1.0, -y, c, drawn(o, n + 3, key, plan), plan)
                    state[i, j, 0] = t
        swap_float_state(floats)

    return accumulate


def _exact(plan: str, inner: str) -> Callable[..., None]:
    """Keep each sum as one long fixed-point number, and round it once."""
    zero, is_native = zero_of(plan), plan == NATIVE

    def accumulate(a, b, state, constants, block, first, last, outputs, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c = load_constants(constants[0])
        for i in range(a.shape[0]):
            for j in range(b.shape[1]):
                limbs = state[i, j]
                for k in range(b.shape[0]):
                    add_to_limbs(limbs, a[i, k] * b[k, j], first + k)
                if last:
                    random = drawn(outputs[i] + j, 0, key, plan)
                    limbs[0] = rounded(read_limbs(limbs, zero, is_native), c, random, plan)
        swap_float_state(floats)

    return accumulate


_ORDERS = {
    "sequential": _sequential,
    "blocked": _blocked,
    "pairwise": _pairwise,
    "kahan": _kahan,
    "exact": _exact,
}


def state_size(order: str, terms: int) -> int:
    """Return how many float64 an output keeps in this order."""
    sizes = {"blocked": 2, "kahan": 2, "pairwise": terms.bit_length(), "exact": LIMBS}
    return sizes.get(order, 1)


@functools.cache
def make_accumulation(order: str, plan: str, inner: str) -> Callable[..., None]:
    """Return an order's loop, compiled for the plans of its format and its inner one."""
    signature = types.void(
        _MATRIX,
        _MATRIX,
        types.Array(types.float64, 3, "C"),
        types.Array(types.uint64, 2, "C"),
        types.int64,
        types.int64,
        types.boolean,
        types.Array(types.int64, 1, "C"),
        types.uint64,
    )
    loop = _ORDERS[order](plan, inner)
    return compile_as(f"accumulate|{order}|{plan}|{inner}", loop, signature)


@functools.cache
def make_products(plan: str) -> Callable[..., None]:
    """Return the loop that rounds the products of a row: ``out[k, j] = ○(a[k] * b[k, j])``.

    Rounding k of output j has the number ``first + k``.
    """

    def multiply(a, b, out, constants, first, output, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c = load_constants(constants)
        for k in range(b.shape[0]):
            for j in range(b.shape[1]):
                random = drawn(output + j, first + k, key, plan)
                out[k, j] = rounded(a[k] * b[k, j], c, random, plan)
        swap_float_state(floats)

    row = types.Array(types.float64, 1, "A", readonly=True)
    constants = types.Array(types.uint64, 1, "C")
    out = types.Array(types.float64, 2, "C")
    signature = types.void(row, _MATRIX, out, constants, types.int64, types.int64, types.uint64)
    return compile_as(f"products|{plan}", multiply, signature)
