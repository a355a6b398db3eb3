"""Faster twins of the rules, for formats and processors that suit them; the same bits."""

from __future__ import annotations

from typing import assert_never

from lowprec.kernels.lanes import Lanes, maximum, select
from lowprec.kernels.magnitudes import Constants, Magnitude, Plan, adjust, overflow_of
from lowprec.rounding import Rounding


def convert_aligned(
    x: Lanes, plan: Plan, c: Constants, R: Lanes, nan_is_canonical: bool = False
) -> Lanes:
    """Twin for a format with the source's exponents and fewer bits, where overflow is infinity.

    The sign, the exponent and the kept bits of the source are the code, so a constant number of
    bits is rounded off, and the carry out of the largest number is infinity. Where a mode wants
    the largest number instead, it rounds toward zero and there is no carry. A canonical NaN has
    none of the bits that are rounded off.
    """
    u = x.float_resized(plan.word).as_integers()
    sign = 1 << (plan.word - 1)
    rounded = adjust(u, u.constant(plan.shift), u >= sign, plan, R)
    nan = c.nan << plan.shift if plan.is_encoding else c.nan
    if not nan_is_canonical:
        rounded = select(x.is_nan(), nan | (u & sign), rounded)
    if not plan.is_encoding:
        return (rounded & -(1 << plan.shift)).as_floats()
    return rounded.high_halves() if 2 * plan.shift == plan.word else rounded >> plan.shift


def convert_hardware(x: Lanes, plan: Plan, c: Constants, nan_is_canonical: bool = False) -> Lanes:
    """Twin for float32 to float16 by the processor; its NaNs are made canonical.

    The processor keeps the leading bits of a NaN, and so a canonical one.
    """
    sign = x.as_integers() & (1 << 31)
    if plan.mode == "away_from_zero":
        magnitude = (x.as_integers() & ~(1 << 31)).as_floats()
        half = magnitude.to_half("toward_positive") | (sign >> 16).resized(16)
    else:
        half = x.to_half(plan.mode)
    if plan.is_encoding:
        return select(x.is_nan(), (c.nan | (sign >> 16)).resized(16), half)
    y = half.as_floats().float_resized(32)
    return y if nan_is_canonical else select(x.is_nan(), (c.nan | sign).as_floats(), y)


def round_by_addition(x: Magnitude, plan: Plan, c: Constants) -> Lanes:
    """Twin for formats with fewer exponents than the source: the processor's adder rounds.

    Adding a power of two whose spacing is the format's spacing at x rounds x to it; taking the
    power off again is exact. The caller makes sure that the power is finite for every x that does
    not overflow, that a step is a normal number, and that one of the two is longer by a bit.
    """
    trailing, t = x.point - 1, c.trailing_bits
    field = x.bits & (((1 << (plan.word - 1)) - 1) ^ ((1 << trailing) - 1))
    emin = c.emin << trailing
    e = maximum(field, emin)
    power = e + ((t.constant(trailing) - t) << trailing)
    if plan.twin == "avx512" and x.bits.count > 1:
        y, q = add_in_direction(x, power, plan)
    else:
        step = (e - (t << trailing)).as_floats()
        y, q = add_and_correct(x, power, step, plan)
    magnitude = y.as_integers()
    if plan.is_encoding:
        magnitude = ((e - emin) >> (t.constant(trailing) - t)) + q
    return select(x.bits >= c.threshold, overflow_of(x, plan, c), magnitude)


def add_in_direction(x: Magnitude, power: Lanes, plan: Plan) -> tuple[Lanes, Lanes]:
    """Return the rounded value and its significand: the instruction names the direction."""
    f, direction = x.bits, plan.mode
    if direction == "away_from_zero":
        direction = "toward_positive"
    elif direction != "toward_zero":  # the direction depends on the sign
        sign = select(x.negative, f.constant(1 << (plan.word - 1)), 0)
        f, power = f | sign, power | sign
    total = f.as_floats().in_direction("add", direction, power.as_floats())
    return total - power.as_floats(), total.as_integers() - power


def add_and_correct(x: Magnitude, power: Lanes, step: Lanes, plan: Plan) -> tuple[Lanes, Lanes]:
    """Return the rounded value and its significand: first with ties to even, then one step off.

    What rounding took away is exact, and tells which results need the step.
    """
    f = x.bits.as_floats()
    total = f + power.as_floats()
    y, q = total - power.as_floats(), total.as_integers() - power
    up, down = corrections(f - y, step, q, x.negative, plan.mode)
    if up is not None:
        y, q = select(up, y + step, y), select(up, q + 1, q)
    if down is not None:
        y, q = select(down, y - step, y), select(down, q - 1, q)
    return y, q


def corrections(
    d: Lanes, step: Lanes, q: Lanes, negative: Lanes, mode: str
) -> tuple[Lanes | None, Lanes | None]:
    """Return where the result of ties_to_even is one step too low, and where one too high.

    `d` is what rounding took away, `q` the rounded significand.
    """
    rounding = Rounding(mode)
    match rounding:
        case Rounding.TIES_TO_EVEN:
            return None, None
        case Rounding.TIES_TO_AWAY:
            return d.equals(step * 0.5), None
        case Rounding.TIES_TOWARD_ZERO:
            return None, d.equals(step * -0.5)
        case Rounding.TOWARD_ZERO:
            return None, d < 0
        case Rounding.AWAY_FROM_ZERO:
            return d > 0, None
        case Rounding.TOWARD_POSITIVE:
            return (d > 0) & ~negative, (d < 0) & negative
        case Rounding.TOWARD_NEGATIVE:
            return (d > 0) & negative, (d < 0) & ~negative
        case Rounding.TO_ODD:
            is_even = (q & 1).equals(0)
            return (d > 0) & is_even, (d < 0) & is_even
        case Rounding.STOCHASTIC | Rounding.STOCHASTIC_EQUAL:
            raise AssertionError(f"{mode} is not rounded by addition")
        case _:
            assert_never(rounding)


def decode_hardware(code: Lanes, plan: Plan, c: Constants) -> Lanes:
    """Twin for float16 by the processor; its NaNs are made canonical."""
    y = code.as_floats().float_resized(32)
    sign = y.as_integers() & (1 << 31)
    return select(y.is_nan(), (c.nan | sign).as_floats(), y)
