"""The rules: how one number becomes a code of a format, and a code a number.

This is the specification that every kernel applies, written over `Lanes` (see there), and its
faster twins. Letters: `t` trailing significand bits of the format, `e` a biased exponent, `m` an
integer significand, `q` a rounded one, `r` the number of random bits `R`.

Every rule works on magnitudes. A source is read as m·2**(e - …) with its leading bit, if it is a
normal number, at a known place, the `point`; dropping the low `s` bits leaves `t + 1` of them, or
fewer below the format's smallest normal number, where the exponent stops falling. A code without
its sign is then (e - emin)·2**t + q: the carry of q into the next binade and out of the subnormal
range needs no case of its own, nor does overflow, which is a code greater than `max_code`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lowprec.kernels.lanes import Lanes, maximum, minimum, select

__all__ = ["Constants", "Plan", "convert", "decode"]


Field = Any  # an integer when a kernel is planned, Lanes when a rule is applied


class Constants(NamedTuple):
    """What a rule knows of the format at run time; integers, in the order of the kernels' array.

    `overflow_positive`, `overflow_negative`, `infinity` and `nan` are magnitudes of the result: of
    codes when encoding, of float bits when rounding or decoding. Rounding mode and overflow policy
    are already resolved in them.
    """

    trailing_bits: Field
    emin: Field  # in the source's bias, so 1 where source and format have the same range
    max_code: Field
    overflow_positive: Field
    overflow_negative: Field
    infinity: Field  # when decoding: the code of infinity
    nan: Field
    sign_mask: Field  # sign bit of the format's codes, 0 if unsigned
    quantum: Field  # float bits of the smallest subnormal number
    threshold: Field  # bits of the least source magnitude that overflows (of the source's floats)


class Plan(NamedTuple):
    """What a kernel knows of its work when it is compiled."""

    source: str  # dtype: float32, float64, int64 or uint64; of codes when decoding
    target: str  # dtype: float32 or float64; of codes when encoding
    mode: str  # a rounding mode's name, or decode
    word: int  # bits of the integers that rules compute with
    twin: str = "general"  # which rule: general, or a faster one: aligned, adder, avx512, hardware
    variant: str = "signed"  # which formats: signed, fnuz, unsigned, scale; …-flush
    shift: int = 0  # how many bits the aligned twin rounds off
    random_bits: int = 0  # r of the stochastic modes
    streaming: int = 0  # 1 if results are written past the caches

    @property
    def is_encoding(self) -> bool:
        """Whether the result is codes."""
        return self.target.startswith("uint")

    @property
    def overflow_differs_from_infinity(self) -> bool:
        """Whether infinite and overflowing sources may have different results."""
        return self.twin == "general" or not self.mode.startswith("ties")


# Reading -----------------------------------------------------------------------------------------


class Magnitude(NamedTuple):
    """A source's sign and magnitude; `m` has its leading bit at `point` if it is normal."""

    negative: Lanes
    bits: Lanes  # the float's magnitude bits; of an integer, its absolute value
    infinity: int  # what those bits are for infinity, 0 where the source has none
    e: Lanes
    m: Lanes
    point: int


def read(x: Lanes, plan: Plan) -> Magnitude:
    """Take a source apart. `m` is doubled, so that rounding always drops at least one bit."""
    return read_float(x, plan) if x.is_float else read_integer(x, plan)


def read_float(x: Lanes, plan: Plan) -> Magnitude:
    u = x.float_resized(plan.word).as_integers()
    trailing = {32: 23, 64: 52}[plan.word]
    sign = 1 << (plan.word - 1)
    bits = u & (sign - 1)
    field = bits >> trailing
    hidden = select(field.equals(0), u.constant(0), 1 << trailing)
    m = ((bits & ((1 << trailing) - 1)) | hidden) << 1
    infinity = (sign - 1) & ~((1 << trailing) - 1)
    return Magnitude(u >= sign, bits, infinity, maximum(field, 1), m, trailing + 1)


def read_integer(x: Lanes, plan: Plan) -> Magnitude:
    """Normalise an integer of up to 64 bits in a 128-bit word; exponents as float64's."""
    negative = (x >= (1 << 63)) if plan.source == "int64" else (x < 0)
    bits = select(negative, x.constant(0) - x, x)
    zeros = bits.leading_zeros() & 63  # 0 for zero, whose e is then put right
    e = select(bits.equals(0), bits.constant(1), bits.constant(63 + 1023) - zeros)
    m = (bits << zeros).resized(128) << 1
    return Magnitude(negative, bits.resized(128), 0, e.resized(128), m, 64)


# Rounding ----------------------------------------------------------------------------------------


def adjust(m: Lanes, s: Lanes, negative: Lanes, plan: Plan, R: Lanes) -> Lanes:
    """Change m so that dropping its low s bits rounds as the mode says; s is at least 1."""
    one = m.constant(1) << s
    mask = one - 1
    match plan.mode:
        case "ties_to_even":
            return m + (mask >> 1) + ((m >> s) & 1)
        case "ties_to_away":
            return m + (mask >> 1) + 1
        case "ties_toward_zero":
            return m + (mask >> 1)
        case "toward_zero":
            return m
        case "away_from_zero":
            return m + mask
        case "toward_positive":
            return m + select(negative, m.constant(0), mask)
        case "toward_negative":
            return m + select(negative, mask, 0)
        case "to_odd":
            return m | select((m & mask).equals(0), m.constant(0), one)
        case "stochastic_equal":  # away from zero iff R < 2**(r-1)
            return m + select((R >> (plan.random_bits - 1)).equals(0), mask, 0)
        case "stochastic":
            return m + stochastic_addend(s, plan.random_bits, R)
    raise AssertionError(plan.mode)


def stochastic_addend(s: Lanes, r: int, R: Lanes) -> Lanes:
    """Return what carries iff R < floor(f·2**r), f the s dropped bits as a fraction.

    The complement of R in r bits, aligned with the top of the dropped bits: dropped bits that do
    not reach the last random bit cannot matter, and random bits below the last dropped one only
    matter if all above are equal, when R is not smaller.
    """
    complement = R ^ ((1 << r) - 1)
    larger = maximum(s, r)
    return select(s >= r, complement << (larger - r), complement >> (larger - s))


def round_general(x: Magnitude, plan: Plan, c: Constants, R: Lanes) -> Lanes:
    """Return the code of the rounded magnitude, as if the exponent had no upper bound."""
    t = c.trailing_bits
    widest = plan.word - 1
    e = maximum(x.e, c.emin)
    s = (t.constant(x.point) - t) + (e - x.e)
    below = (x.e < c.emin) | (x.m < 1 << x.point)  # the format's smallest normal number
    if plan.variant.endswith("flush"):  # one step from 0 to the smallest normal number
        s = select(below, s + t, s)
    m = x.m
    if plan.mode == "stochastic":  # its fraction must not grow where s is cut
        m = m >> minimum(maximum(s, widest) - widest, widest)
    # m is below 2**(widest - 1), so that cutting s there leaves the other modes' results alone
    s = minimum(s, widest)
    q = adjust(m, s, x.negative, plan, R) >> s
    if plan.variant.endswith("flush"):
        q = select(below, q << t, q)
    if plan.variant.startswith("scale"):  # exponent field 0 is a normal number: there is no zero
        q = maximum(q, 1) - 1
    return ((e - c.emin) << t) + q


# Writing -----------------------------------------------------------------------------------------


def code_to_bits(code: Lanes, plan: Plan, c: Constants) -> Lanes:
    """Return the float bits of a finite code without its sign."""
    trailing = {32: 23, 64: 52}[code.bits]
    t = c.trailing_bits
    scaled = code << (t.constant(trailing) - t)
    if plan.twin == "aligned":
        return scaled  # subnormal numbers of the format are subnormal numbers of the float
    offset = c.emin if plan.variant.startswith("scale") else c.emin - 1
    normal = scaled + (offset << trailing)
    if plan.variant.startswith("scale"):
        return normal
    is_below = (code >> t).equals(0)
    if plan.variant.endswith("flush"):
        return select(is_below, code.constant(0), normal)
    subnormal = (code.to_floats() * c.quantum.as_floats()).as_integers()
    return select(is_below, subnormal, normal)


def convert(x: Lanes, plan: Plan, c: Constants, R: Lanes) -> Lanes:
    """Round a source once; return its code, or the float that the code stands for."""
    if plan.twin == "aligned":
        return convert_aligned(x, plan, c, R)
    if plan.twin == "hardware":
        return convert_hardware(x, plan, c)
    source = read(x, plan)
    if plan.twin in ("adder", "avx512"):
        magnitude = round_by_addition(source, plan, c)
    else:
        code = round_general(source, plan, c, R)
        word = min(plan.word, 64)
        code, c = code.resized(word), Constants(*(field.resized(word) for field in c))
        magnitude = code if plan.is_encoding else code_to_bits(code, plan, c)
        magnitude = select(code > c.max_code, overflow_of(source, plan, c), magnitude)
    if source.infinity:
        if plan.overflow_differs_from_infinity:
            magnitude = select(source.bits.equals(source.infinity), c.infinity, magnitude)
        magnitude = select(source.bits > source.infinity, c.nan, magnitude)
    return write(magnitude, source, plan, c)


def overflow_of(source: Magnitude, plan: Plan, c: Constants) -> Lanes:
    """Return the magnitude that overflow gives."""
    if plan.mode in ("toward_positive", "toward_negative"):
        return select(source.negative, c.overflow_negative, c.overflow_positive)
    return c.overflow_positive


def write(magnitude: Lanes, source: Magnitude, plan: Plan, c: Constants) -> Lanes:
    """Give the magnitude its sign, and the result its type."""
    is_zero = source.bits.equals(0)
    if plan.variant.startswith("scale"):
        magnitude = select(source.negative | is_zero, c.nan, magnitude)
    elif plan.variant.startswith("unsigned"):
        magnitude = select(source.negative & ~is_zero, c.nan, magnitude)
    else:
        sign_mask = c.sign_mask if plan.is_encoding else 1 << (c.nan.bits - 1)
        sign = select(source.negative, magnitude.constant(0) | sign_mask, 0)
        if plan.variant.startswith("fnuz"):  # zero is +0, and the one NaN has the code of -0
            sign = select(magnitude.equals(0), sign.constant(0), sign)
            sign = select(magnitude.equals(c.nan), magnitude.constant(0) | sign_mask, sign)
        magnitude = magnitude | sign
    if plan.is_encoding:
        return magnitude
    return magnitude.as_floats().float_resized(32 if plan.target == "float32" else 64)


# Faster twins ------------------------------------------------------------------------------------


def convert_aligned(x: Lanes, plan: Plan, c: Constants, R: Lanes) -> Lanes:
    """Twin for a format with the source's exponents and fewer bits, where overflow is infinity.

    The sign, the exponent and the kept bits of the source are the code, so a constant number of
    bits is rounded off, and the carry out of the largest number is infinity. Where a mode wants
    the largest number instead, it rounds toward zero and there is no carry.
    """
    u = x.float_resized(plan.word).as_integers()
    sign = 1 << (plan.word - 1)
    rounded = adjust(u, u.constant(plan.shift), u >= sign, plan, R)
    nan = c.nan << plan.shift if plan.is_encoding else c.nan
    rounded = select(x.is_nan(), nan | (u & sign), rounded)
    if not plan.is_encoding:
        return (rounded & -(1 << plan.shift)).as_floats()
    return rounded.high_halves() if 2 * plan.shift == plan.word else rounded >> plan.shift


def convert_hardware(x: Lanes, plan: Plan, c: Constants) -> Lanes:
    """Twin for float32 to float16 by the processor; its NaNs are made canonical."""
    sign = x.as_integers() & (1 << 31)
    if plan.mode == "away_from_zero":
        magnitude = (x.as_integers() & ~(1 << 31)).as_floats()
        half = magnitude.to_half("toward_positive") | (sign >> 16).resized(16)
    else:
        half = x.to_half(plan.mode)
    if plan.is_encoding:
        return select(x.is_nan(), (c.nan | (sign >> 16)).resized(16), half)
    return select(x.is_nan(), (c.nan | sign).as_floats(), half.as_floats().float_resized(32))


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
    total = f.as_floats().add_rounded(power.as_floats(), direction)
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
    match mode:
        case "ties_to_even":
            return None, None
        case "ties_to_away":
            return d.equals(step * 0.5), None
        case "ties_toward_zero":
            return None, d.equals(step * -0.5)
        case "toward_zero":
            return None, d < 0
        case "away_from_zero":
            return d > 0, None
        case "toward_positive":
            return (d > 0) & ~negative, (d < 0) & negative
        case "toward_negative":
            return (d > 0) & negative, (d < 0) & ~negative
        case "to_odd":
            is_even = (q & 1).equals(0)
            return (d > 0) & is_even, (d < 0) & is_even
    raise AssertionError(mode)


# Decoding ----------------------------------------------------------------------------------------


def decode(code: Lanes, plan: Plan, c: Constants) -> Lanes:
    """Return the float that a code stands for; every NaN becomes the quiet one of its sign."""
    if plan.twin == "hardware":
        return decode_hardware(code, plan, c)
    code = code.resized(plan.word)
    code_sign = code & c.sign_mask
    magnitude = code ^ code_sign
    bits = code_to_bits(magnitude, plan, c)
    special = select(magnitude.equals(c.infinity), c.overflow_positive, c.nan)
    bits = select(magnitude > c.max_code, special, bits)
    sign = select(code_sign.equals(0), code.constant(0), 1 << (plan.word - 1))
    if plan.variant.startswith("fnuz"):
        sign = select(bits.equals(0), sign.constant(0), sign)
        bits = select(code.equals(c.sign_mask), c.nan, bits)
        sign = select(code.equals(c.sign_mask), sign.constant(1 << (plan.word - 1)), sign)
    return (bits | sign).as_floats().float_resized(32 if plan.target == "float32" else 64)


def decode_hardware(code: Lanes, plan: Plan, c: Constants) -> Lanes:
    """Twin for float16 by the processor; its NaNs are made canonical."""
    y = code.as_floats().float_resized(32)
    sign = y.as_integers() & (1 << 31)
    return select(y.is_nan(), (c.nan | sign).as_floats(), y)
