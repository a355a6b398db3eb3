"""Elements of blocks in any mode, eight at a time: the rule of `quotients` on vectors.

It serves formats and divisors far from float64's ends, and tells of vectors that need another look:
a quotient that float64 rounded up to a power of two, or one below every grid.

A mode is a number T that the doubled fraction, plus one where anything remains, must reach for the
neighbour away from zero: it depends on the sign and on whether the other neighbour is odd.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lowprec.kernels.compiler import cgutils, intrinsic, ir, types
from lowprec.kernels.lanes import Lanes, maximum, minimum, select
from lowprec.kernels.loops import kernel
from lowprec.kernels.philox import element_bits
from lowprec.rounding import Rounding

AT_ONCE = 8
_FIELD, _SIGN = 2047 << 52, 1 << 63
_BIAS = 1023
_MAGIC = 1.5 * 2.0**52  # the sum of it and an integer ends in that integer's bits
_NEVER = 1 << 62
_FRACTION = 32  # bits of it that are looked at, as many as a random word has


def least_fractions(rounding: Rounding) -> np.ndarray[Any, Any]:
    """Return T for an even and an odd neighbour of a positive and of a negative number.

    Of stochastic modes it is for one random word: 0 says that T comes from another.
    """
    half = 1 << _FRACTION
    match rounding:
        case Rounding.TIES_TO_EVEN:
            table = [half + 1, half] * 2
        case Rounding.TIES_TO_AWAY:
            table = [half] * 4
        case Rounding.TIES_TOWARD_ZERO:
            table = [half + 1] * 4
        case Rounding.TOWARD_ZERO:
            table = [_NEVER] * 4
        case Rounding.AWAY_FROM_ZERO:
            table = [1] * 4
        case Rounding.TOWARD_POSITIVE:
            table = [1, 1, _NEVER, _NEVER]
        case Rounding.TOWARD_NEGATIVE:
            table = [_NEVER, _NEVER, 1, 1]
        case Rounding.TO_ODD:
            table = [1, _NEVER] * 2
        case Rounding.STOCHASTIC:
            table = [0] * 4
        case Rounding.STOCHASTIC_EQUAL:
            table = [1] * 4
    return np.array(table, np.int64)


@kernel
def are_usual(d: float, grid: Any) -> bool:
    """Whether vectors serve a divisor and a grid."""
    is_grid = grid[0] <= 10 and grid[1] >= -400 and grid[3] == 0
    return is_grid and 2.0**-300 < d < 2.0**300


@intrinsic(prefer_literal=True)
def convert_elements(
    _: Any, x: Any, out: Any, d: Any, grid: Any, table: Any, index: Any, step: Any, key: Any,
    draws: Any, source: Any, target: Any,
) -> Any:  # fmt: skip
    """Convert eight elements at the address `x` to `out`; return whether that is right.

    `grid` is (t, emin, max_code, sign_shift, style), `table` that of `least_fractions`; `draws`
    says whether the mode is stochastic. `index` is the first element's, and `step` the distance to
    the next. Nothing is written where it is wrong.
    """
    source_name, target_name, f = source.literal_value, target.literal_value, _FRACTION

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def spread(value: Any) -> Lanes:
            return Lanes(builder, value).splat(AT_ONCE)

        t, emin, max_code, shift, style = map(spread, cgutils.unpack_tuple(builder, args[3], 5))
        width = 8 * np.dtype(source_name).itemsize
        bits = _load(builder, args[0], width).float_resized(64).as_integers()
        negative, u = bits >= _SIGN, (bits & (_SIGN - 1)).as_floats()
        divisor = spread(args[2])
        # the floor of the quotient in units of 2**-f of a step
        quotient = u / divisor
        lowest = (emin + _BIAS) << 52
        field = maximum(quotient.as_integers() & _FIELD, lowest)
        units = (t + f) << 52
        floor = (quotient * ((units + ((2 * _BIAS) << 52)) - field).as_floats()).rounded_down()
        unit = divisor * (field - units).as_floats()
        rest = floor.negated().fused(unit, u)
        one_less = rest < 0.0
        floor = select(one_less, floor - 1.0, floor)
        n = (floor + _MAGIC).as_integers() & ((1 << 51) - 1)
        too_small = (quotient < 2.0**-500) & (u > 0.0)
        one_binade_less = (n >> (t + f)).equals(0) & (field > lowest)
        wrong = (too_small | one_binade_less).count_true().differs(0)
        serves = builder.not_(wrong.value)
        with builder.if_then(serves, likely=True):
            code = ((field - lowest) >> 52 << t) + (n >> f)
            left = ((n & ((1 << f) - 1)) << 1) | select(rest.equals(0.0), n.constant(0), 1)
            even, odd, even_below, odd_below = (
                spread(v) for v in cgutils.unpack_tuple(builder, args[4], 4)
            )
            is_odd = ~(code & 1).equals(0)
            least = select(is_odd, odd, even)
            least = select(negative, select(is_odd, odd_below, even_below), least)
            slot = cgutils.alloca_once_value(builder, least.value)
            builder.store(least.value, slot)
            with builder.if_then(args[8]):
                ramp = Lanes(builder, ir.Constant(ir.IntType(64), 0)).ramp(AT_ONCE)
                place = spread(args[5]) + ramp * spread(args[6])
                word = element_bits(place, Lanes(builder, args[7]), from_halves=False).resized(64)
                equal = select(word < 1 << 31, least, word.constant(_NEVER))
                builder.store(select(least.equals(0), (word + 1) << 1, equal).value, slot)
            least = Lanes(builder, builder.load(slot))
            code = code + select(left >= least, code.constant(1), 0)
            code = minimum(code, max_code)
            is_zero = code.equals(0)
            is_integer = style.equals(2)
            signed = negative & (style.equals(0) | ~is_zero)
            if np.dtype(target_name).kind != "f":
                plain = code | select(signed & ~is_integer, code.constant(1) << shift, 0)
                result = select(is_integer & negative, code.constant(0) - code, plain)
                result = result.resized(8 * np.dtype(target_name).itemsize)
            else:
                bits = 8 * np.dtype(target_name).itemsize
                result = _value(code, t, lowest, divisor, signed, bits)
            kind_out = result.value.type.as_pointer()
            builder.store(result.value, builder.inttoptr(args[1], kind_out), align=1)
        return serves

    return types.boolean(x, out, d, grid, table, index, step, key, draws, source, target), generate


def _load(builder: Any, address: Any, width: int) -> Lanes:
    """Read eight floats."""
    kind = {32: ir.FloatType(), 64: ir.DoubleType()}[width]
    pointer = builder.inttoptr(address, ir.VectorType(kind, AT_ONCE).as_pointer())
    return Lanes(builder, builder.load(pointer, align=width // 8))


def _value(
    code: Lanes, t: Lanes, lowest: Lanes, divisor: Lanes, signed: Lanes, width: int
) -> Lanes:
    """Return what codes without sign stand for, times the divisor, with their signs."""
    whole = (code | (1075 << 52)).as_floats() - 2.0**52
    small = (whole * (lowest - (t << 52)).as_floats()).as_integers()
    normal = (code << (t.constant(52) - t)) + (lowest - (1 << 52))
    q = select((code >> t).equals(0), small, normal).as_floats()
    value = q * divisor
    bits = value.as_integers()
    if width == 32:  # rounded to odd, so that rounding it again is one rounding
        tail = q.fused(divisor, value.negated())
        below = select(tail < 0.0, bits.constant(1), 0)
        bits = select(tail.differs(0.0), (bits - below) | 1, bits)
    bits = bits | select(signed, bits.constant(_SIGN), 0)
    return bits.as_floats().float_resized(width)


# For scales --------------------------------------------------------------------------------------


def _over_row(builder: Any, first: Lanes, address: Any, vectors: Any, width: int, grow: Any) -> Any:
    """Return, as scalars, the lanes that `grow` makes of those before and of each vector."""
    slot, index = cgutils.alloca_once(builder, first.value.type), ir.IntType(64)
    builder.store(first.value, slot)
    with cgutils.for_range(builder, vectors) as loop:
        place = builder.add(address, builder.mul(loop.index, index(AT_ONCE * width // 8)))
        lanes = grow(Lanes(builder, builder.load(slot)), _load(builder, place, width))
        builder.store(lanes.value, slot)
    lanes = builder.load(slot)
    return [
        Lanes(builder, builder.extract_element(lanes, ir.IntType(32)(i))) for i in range(AT_ONCE)
    ]


@intrinsic
def largest_bits(_: Any, x: Any, address: Any, vectors: Any) -> Any:
    """Return the bits, without sign, of the largest of so many vectors: NaN is larger than all."""
    width = x.dtype.bitwidth

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        none = Lanes(builder, ir.Constant(ir.VectorType(ir.IntType(width), AT_ONCE), None))
        magnitude = (1 << (width - 1)) - 1
        found, *others = _over_row(
            builder, none, args[1], args[2], width,
            lambda so_far, v: maximum(so_far, v.as_integers() & magnitude),
        )  # fmt: skip
        for other in others:
            found = maximum(found, other)
        return found.resized(64).value

    return types.uint64(x, address, vectors), generate


@intrinsic
def squared_errors(_: Any, x: Any, address: Any, vectors: Any, d: Any, grid: Any, top: Any) -> Any:
    """Return the sum of squared errors of so many vectors, within 2**-40 of itself.

    Elements are rounded to nearest on the grid (t, emin) times d, whose largest value is `top`.
    """
    width = x.dtype.bitwidth

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        t, emin = (
            Lanes(builder, v).splat(AT_ONCE) for v in cgutils.unpack_tuple(builder, args[4], 2)
        )
        d, most = (Lanes(builder, v).splat(AT_ONCE) for v in (args[3], args[5]))

        def grow(so_far: Lanes, v: Lanes) -> Lanes:
            u = (v.float_resized(64).as_integers() & (_SIGN - 1)).as_floats()
            quotient = u / d
            field = maximum(quotient.as_integers() & _FIELD, (emin + _BIAS) << 52)
            place = (field + ((t.constant(52) - t) << 52)).as_floats()
            q = (quotient + place) - place
            error = select(q > most, most, q).fused(d, u.negated())
            return so_far + error * error

        found, *others = _over_row(builder, d.constant(0.0), args[1], args[2], width, grow)
        for other in others:
            found = found + other
        return found.value

    return types.float64(x, address, vectors, d, grid, top), generate
