"""Matrix products whose sums are rounded at random, on vectors.

Step n of an output takes word n % 4 of the counter that its index and n // 4 form, or half
a word, one of eight, where 16 random bits do, as the general kernel's `drawn` says. So four or
eight steps of a vector of outputs draw once, and terms go in such groups.

A sum is cut to float32's 24 bits, toward zero, and with them the fraction f that is to be rounded.
If h bits are left of it, it is rounded away from zero where they exceed the first h random bits,
and not where they are less. Where they are equal, once in 2**h, the rest decides: then the group
is done again, for this vector, in float64, which is exact, as it always is where a format suits
float32 less.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.formats import Format, float16, float32
from lowprec.kernels.compiler import cgutils, intrinsic, ir, processor_has, types
from lowprec.kernels.lanes import Lanes, interleave, select
from lowprec.kernels.loops import (
    EXACT_FLOATS,
    Elements,
    compile_as,
    has_fused_steps,
    kept,
    load_constants,
    spell,
    swap_float_state,
)
from lowprec.kernels.magnitudes import Constants, Plan, Variant
from lowprec.kernels.philox import philox
from lowprec.kernels.plans import conversion_plan, fits_float32_words, variant
from lowprec.kernels.products.odd import error_of_step
from lowprec.kernels.products.steps import constants_of
from lowprec.kernels.products.vectors import FLOAT
from lowprec.kernels.sums.orders import round_wide, rounding_plan, sum_wide
from lowprec.rounding import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.rounding import Overflow

Array = np.ndarray[Any, Any]

_LANES = FLOAT.lanes
_WORDS = 4  # steps that one counter serves, or twice as many by halves of its words
_TOGETHER = 4  # vectors that are computed together, or one
_ROWS = 256  # of the left operand that are read together
_LINE = 16  # floats of a cache line
_DEPTH = 128  # terms of a panel
_SIGN = 1 << 31
_MOST_BITS = 12  # of a format's precision, so that equal bits are rare


class StochasticPlans(NamedTuple):
    """Which rules round: in float64, and in float32 where that suits, both as text."""

    wide: str
    narrow: str  # empty where float32 does not suit
    are_fused: bool
    constants: Array  # of both

    def loop(self) -> Callable[..., None]:
        """Return the loop of `make_stochastic_multiply`."""
        return make_stochastic_multiply(self.wide, self.narrow, self.are_fused)


def stochastic_plans(
    inputs: Format,
    fmt: Format,
    rounding: Rounding,
    overflow: Overflow,
    fused: bool,
    random_bits: int | None,
) -> StochasticPlans | None:
    """Return the rules for products of elements of a format, None where there are none."""
    if not (rounding.is_stochastic and fmt.fits(float32) and has_fused_steps()):
        return None
    wide, constants = rounding_plan(fmt, rounding, overflow, random_bits, on_vectors=True)
    narrow, narrow_constants = "", constants
    if (
        rounding is Rounding.STOCHASTIC
        and fmt.precision <= _MOST_BITS
        and fits_float32_words(fmt)
        and variant(fmt) == Variant("signed")
        and fmt.precision > 1
        and (processor_has("avx512f") or inputs.fits(float16))
    ):
        plan, narrow_constants = conversion_plan(fmt, "float32", "float32", rounding, overflow, 16)
        r, halves = kept(wide).random_bits, kept(wide).draws_halves
        plan = plan._replace(shift=23 - fmt.trailing_bits, random_bits=r, draws_halves=halves)
        narrow = "" if plan.sides_differ else spell(plan)
    return StochasticPlans(wide, narrow, fused, np.stack([constants, narrow_constants]))


# Steps -------------------------------------------------------------------------------------------


def steps_of(plan: Plan) -> int:
    """Return how many steps draw from one counter."""
    return 2 * _WORDS if plan.draws_halves else _WORDS


def step_toward_zero(x: Lanes, y: Lanes, z: Lanes) -> Lanes:
    """Return x·y + z cut to float32; without AVX-512 float32 must hold the product."""
    if processor_has("avx512f"):
        return x.in_direction("vfmadd", "toward_zero", y, z)
    s, error = error_of_step(x, y, z)
    bits = s.as_integers()
    is_less = error.differs(0.0) & ((error.as_integers() ^ bits) >= _SIGN)
    return select(is_less, bits - 1, bits).as_floats()


def sum_toward_zero(x: Lanes, y: Lanes) -> Lanes:
    """Return x + y cut to float32, where y is not less than x, and x not less than 0."""
    if processor_has("avx512f"):
        return x.in_direction("add", "toward_zero", y)
    s = x + y
    return select(s - y > x, s.as_integers() - 1, s.as_integers()).as_floats()


class _Narrow:
    """The rule that rounds sums of float32, with its constants in lanes."""

    def __init__(self, c: Constants, plan: Plan) -> None:
        self.c, self.plan, self.unit = c, plan, 1 << plan.shift
        self.smallest = (c.emin << 23).as_floats()  # normal number
        self.max = ((c.max_code << plan.shift) + ((c.emin - 1) << 23)).as_floats()

    def round(self, s: Lanes, random: Lanes) -> tuple[Lanes, Lanes]:
        """Return s rounded, by random bits from the top on, and in which lanes f has too few."""
        magnitude = s.as_integers() & (_SIGN - 1)
        value = magnitude.as_floats()
        is_small = value < self.smallest
        raised = select(is_small, sum_toward_zero(value, self.smallest), value).as_integers()
        dropped, r = self.plan.shift, self.plan.random_bits
        if r <= dropped:  # what float32 has of f decides
            drawn = ((random >> (32 - r)) + 1) << (dropped - r)
            moved = raised + self.unit - drawn
            is_doubtful = random < 0
        else:
            moved = raised + self.unit - (random >> (32 - dropped))
            is_doubtful = (moved & (self.unit - 1)).equals(0)
        cut = (moved & -self.unit).as_floats()
        result = select(is_small, cut - self.smallest, cut)
        result = select(cut > self.max, self.c.overflow_positive.as_floats(), result)
        if self.plan.infinity_differs:
            infinity = value.equals(float("inf"))
            result = select(infinity, self.c.infinity.as_floats(), result)
        sign = s.as_integers() & _SIGN
        return (result.as_integers() | sign).as_floats(), is_doubtful


def draw(output: Lanes, number: Lanes, key: Lanes, steps: int) -> list[Lanes]:
    """Return the random bits of a group of steps, for a vector of outputs from `output` on."""
    half = _LANES // 2
    low = ((number >> (steps.bit_length() - 1)) & 0xFFFFFFFF).splat(half)
    even = output.splat(half) + (output.ramp(half) << 1)
    words = [philox((outputs << 32) | low, key) for outputs in (even, even + 1)]
    drawn = [interleave(a, b) for a, b in zip(*words, strict=True)]
    if steps == _WORDS:
        return drawn
    return [word << 16 for word in drawn] + drawn  # the bits below are shifted out


class _Group:
    """The arguments of a group of steps, as values of LLVM."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any, plan: Plan) -> None:
        self.builder, self.steps = builder, steps_of(plan)
        self.left, self.right, self.sums = (
            Elements(context, builder, signature.args[i], args[i]) for i in range(3)
        )
        self.places = [
            cgutils.unpack_tuple(builder, args[3], 4)[i] for i in range(4)
        ]  # in left, in right, in sums before and after
        output, number = cgutils.unpack_tuple(builder, args[4], 2)
        self.output, self.number = Lanes(builder, output), Lanes(builder, number)
        self.keys = [Lanes(builder, key) for key in cgutils.unpack_tuple(builder, args[5], 2)]
        self.fields = cgutils.unpack_tuple(builder, args[6], len(Constants._fields))

    def _at(self, place: int, distance: int) -> Any:
        return self.builder.add(self.places[place], ir.IntType(64)(distance))

    def words(self, vector: int, key: int) -> list[Lanes]:
        return draw(self.output + _LANES * vector, self.number, self.keys[key], self.steps)

    def left_factor(self, k: int) -> Lanes:
        return self.left.load(self._at(0, k), 1).splat(_LANES)

    def right_factor(self, k: int, vector: int, width: int) -> Lanes:
        return self.right.load(self._at(1, (k * width + vector) * _LANES), _LANES)

    def before(self, vector: int) -> Lanes:
        return self.sums.load(self._at(2, vector * _LANES), _LANES)

    def store(self, value: Lanes, vector: int) -> None:
        self.sums.store(value, self._at(3, vector * _LANES))


@intrinsic(prefer_literal=True)
def narrow_group(
    _: Any,
    left: Any,
    right: Any,
    sums: Any,
    places: Any,
    numbers: Any,
    keys: Any,
    constants: Any,
    plan: Any,
    are_fused: Any,
    width: Any,
) -> Any:
    """Make a group of steps of so many vectors; return where that is in doubt, a bit a lane.

    `places` are those of the first factors in `left` and `right`, and of the sums before and after
    in `sums`; `numbers` are the index of the first output and the number of the first step; `keys`
    those of sums and of products.
    """
    text, fused, count = plan.literal_value, are_fused.literal_value, width.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not text:  # float32 does not suit
            return ir.IntType(64)(-1)
        work = _Group(context, builder, signature, args, kept(text))
        c = constants_of(builder, work.fields, text, _LANES)
        assert c is not None
        rule = _Narrow(c, kept(text))
        result, of_flags = ir.IntType(64)(0), ir.VectorType(ir.IntType(1), _LANES)
        no_doubt = Lanes(builder, ir.Constant(of_flags, None))
        totals, doubts = [work.before(vector) for vector in range(count)], [no_doubt] * count
        words = [work.words(vector, 0) for vector in range(count)]
        others = words if fused else [work.words(vector, 1) for vector in range(count)]
        for k in range(work.steps):
            x = work.left_factor(k)
            for vector in range(count):  # beside each other, so that none waits for itself
                y = work.right_factor(k, vector, count)
                if fused:
                    sum_ = step_toward_zero(x, y, totals[vector])
                else:
                    product = step_toward_zero(x, y, x.constant(-0.0))
                    product, doubt = rule.round(product, others[vector][k])
                    doubts[vector] |= doubt
                    sum_ = step_toward_zero(product, x.constant(1.0), totals[vector])
                totals[vector], doubt = rule.round(sum_, words[vector][k])
                doubts[vector] |= doubt
        for vector in range(count):
            work.store(totals[vector], vector)
            flags = builder.bitcast(doubts[vector].value, ir.IntType(_LANES))
            flags = builder.zext(flags, result.type)
            result = builder.or_(result, builder.shl(flags, result.type(_LANES * vector)))
        return result

    arguments = left, right, sums, places, numbers, keys, constants, plan, are_fused, width
    return types.uint64(*arguments), generate


@intrinsic(prefer_literal=True)
def wide_group(
    _: Any,
    left: Any,
    right: Any,
    sums: Any,
    places: Any,
    numbers: Any,
    keys: Any,
    constants: Any,
    plan: Any,
    are_fused: Any,
    width: Any,
) -> Any:
    """Make a group of steps of one vector, exactly; the arguments are those of `narrow_group`."""
    rule, fused, count = kept(plan.literal_value), are_fused.literal_value, width.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        work = _Group(context, builder, signature, args, rule)
        c = constants_of(builder, work.fields, plan.literal_value, _LANES)
        assert c is not None
        words = work.words(0, 0)
        others = words if fused else work.words(0, 1)
        total = work.before(0).float_resized(64)
        for k in range(work.steps):
            x, y = work.left_factor(k), work.right_factor(k, 0, count)
            product = x.float_resized(64) * y.float_resized(64)
            if not fused:
                product = round_wide(product, rule, c, others[k].resized(64))
            total = sum_wide(product, total, rule, c, words[k].resized(64))
        work.store(total.float_resized(32), 0)
        return context.get_dummy_value()

    arguments = left, right, sums, places, numbers, keys, constants, plan, are_fused, width
    return types.void(*arguments), generate


# The product -------------------------------------------------------------------------------------


@functools.cache
def make_stochastic_multiply(wide: str, narrow: str, are_fused: bool) -> Callable[..., None]:
    """Return the loop that adds ``a @ b`` to `c`, for the plans of `stochastic_plans`.

    ``multiply(a, b, c, is_first, constants, first, output, down, keys)``: before the first terms
    `c` may hold anything; `first`, a multiple of eight, is the number of their first term, `output`
    the index of ``c[0, 0]`` and `down` the distance of rows; `keys` are those of sums and products.
    """
    fused, every, steps = int(are_fused), np.uint64((1 << _LANES) - 1), steps_of(kept(wide))
    widest = _TOGETHER * _LANES

    def multiply(a, b, c, is_first, constants, first, output, down, keys):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        of_wide, of_narrow = load_constants(constants[0]), load_constants(constants[1])
        (rows, terms), columns = a.shape, c.shape[1]
        both = (keys[0], keys[1])
        left = np.empty(min(rows, _ROWS) * _DEPTH, np.float32)
        room = np.empty((_DEPTH + 2) * widest + _LINE, np.float32)
        shift = -room.ctypes.data % 64 // room.itemsize  # no vector is on two cache lines
        panel, sums = room[shift : shift + _DEPTH * widest], room[shift + _DEPTH * widest :]
        for top in range(0, rows, _ROWS):
            height = min(_ROWS, rows - top)
            for k in range(0, terms, _DEPTH):
                depth = min(_DEPTH, terms - k)
                left[:] = np.float32(0)
                for i in range(height):
                    for t in range(depth):
                        left[i * _DEPTH + t] = a[top + i, k + t]
                j = 0
                while j < columns:
                    width = widest if columns - j > _LANES else _LANES
                    count, vectors = min(width, columns - j), width // _LANES
                    panel[:] = np.float32(-0.0)  # 0 times this adds nothing
                    for t in range(depth):
                        for n in range(count):
                            panel[t * width + n] = b[k + t, j + n]
                    for i in range(height):
                        here = 0
                        sums[:widest] = np.float32(-0.0)
                        if k or not is_first:
                            for n in range(count):
                                sums[n] = c[top + i, j + n]
                        at = output + (top + i) * down + j
                        for t in range(0, depth, steps):
                            there, row = widest - here, i * _DEPTH + t
                            places = (row, t * width, here, there)
                            numbers = (at, first + k + t)
                            if vectors == 1:
                                doubts = narrow_group(
                                    left, panel, sums, places, numbers, both, of_narrow,
                                    narrow, fused, 1,
                                )  # fmt: skip
                            else:
                                doubts = narrow_group(
                                    left, panel, sums, places, numbers, both, of_narrow,
                                    narrow, fused, _TOGETHER,
                                )  # fmt: skip
                            if doubts:
                                for n in range(0, width, _LANES):
                                    if not doubts >> np.uint64(n) & every:
                                        continue
                                    places = (row, t * width + n, here + n, there + n)
                                    numbers = (at + n, first + k + t)
                                    if vectors == 1:
                                        wide_group(
                                            left, panel, sums, places, numbers, both, of_wide,
                                            wide, fused, 1,
                                        )  # fmt: skip
                                    else:
                                        wide_group(
                                            left, panel, sums, places, numbers, both, of_wide,
                                            wide, fused, _TOGETHER,
                                        )  # fmt: skip
                            here = there
                        for n in range(count):
                            total = sums[here + n]
                            c[top + i, j + n] = total if total == total else np.float32(np.nan)
                    j += width
        swap_float_state(floats)

    operand = types.Array(types.float32, 2, "A", readonly=True)
    signature = types.void(
        operand,
        operand,
        types.Array(types.float32, 2, "A"),
        types.boolean,
        types.Array(types.uint64, 2, "C"),
        types.int64,
        types.int64,
        types.int64,
        types.Array(types.uint64, 1, "C"),
    )
    name = f"stochastic multiply|{wide}|{narrow}|{are_fused}"
    return compile_as(name, multiply, signature)
