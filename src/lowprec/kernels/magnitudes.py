"""What every rule is made of: the magnitude of a source, and the bits that rounding adds to it.

Letters: `e` a biased exponent, `m` an integer significand, `s` how many bits are rounded off, `r`
the number of random bits `R`. A source is read as m·2**(e - …) with its leading bit, if it is a
normal number, at a known place, the `point`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, assert_never

import numpy as np

from lowprec.kernels.lanes import Lanes, maximum, select
from lowprec.rounding import Rounding

Field = Any  # an integer when a kernel is planned, Lanes when a rule is applied

ANY = "any"  #: a plan's mode that the constants name: all but those that draw random bits


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
    mode: Field = 0  # the rounding mode, for loops that serve any: see `mode_bits`


class Variant(NamedTuple):
    """Which formats a rule is for: by their signs and zeros, and by their subnormal numbers."""

    signs: Literal["signed", "fnuz", "unsigned", "scale"] = "signed"
    flushes: bool = False  # one step from 0 to the smallest normal number

    def __str__(self) -> str:
        return f"{self.signs}-flush" if self.flushes else self.signs

    @property
    def has_sign(self) -> bool:
        """Whether negative numbers have codes."""
        return self.signs in ("signed", "fnuz")

    @property
    def is_fnuz(self) -> bool:
        """Whether zero has no sign and the one NaN has the code of -0."""
        return self.signs == "fnuz"

    @property
    def is_scale(self) -> bool:
        """Whether there is neither a sign nor a zero, and exponent field 0 is a normal number."""
        return self.signs == "scale"


class Plan(NamedTuple):
    """What a kernel knows of its work when it is compiled."""

    source: str  # dtype: float32, float64, int64 or uint64; of codes when decoding
    target: str  # dtype: float32 or float64; of codes when encoding
    mode: str  # a rounding mode's name, any, or decode
    word: int  # bits of the integers that rules compute with
    twin: str = "general"  # which rule: general, or a faster one: aligned, adder, avx512, hardware
    variant: Variant = Variant()
    shift: int = 0  # how many bits the aligned twin rounds off
    random_bits: int = 0  # r of the stochastic modes
    draws_halves: int = 0  # 1 if steps of sums draw halves of words, which have 16 bits
    streaming: int = 0  # 1 if results are written past the caches
    infinity_is_nan: int = 0  # 1 if infinite sources become NaN, which saves telling them apart
    infinity_differs: int = 0  # 1 if infinite and overflowing sources may have different results
    sides_differ: int = 0  # 1 if overflow may give different magnitudes to either sign
    exponent_parity: int = 0  # 1 if the exponent tells even values from odd ones, the precision 1

    @property
    def is_encoding(self) -> bool:
        """Whether the result is codes."""
        return np.dtype(self.target).kind == "u"


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
    """Read the magnitude of floats."""
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


def mode_bits(rounding: Rounding, looks_at_exponent: bool) -> int:
    """Return how a deterministic mode changes what is rounded, for `adjust_any`.

    From the lowest: whether half a step is added; the last bit that is kept; one; all but one of
    a step to positive numbers; to negative ones; to even ones. Then whether exponents tell what is
    even.
    """
    bits = {
        Rounding.TIES_TO_EVEN: 0b000011,
        Rounding.TIES_TO_AWAY: 0b000101,
        Rounding.TIES_TOWARD_ZERO: 0b000001,
        Rounding.TOWARD_ZERO: 0b000000,
        Rounding.AWAY_FROM_ZERO: 0b011000,
        Rounding.TOWARD_POSITIVE: 0b001000,
        Rounding.TOWARD_NEGATIVE: 0b010000,
        Rounding.TO_ODD: 0b100000,
        Rounding.STOCHASTIC: 0,  # for which there is no such loop
        Rounding.STOCHASTIC_EQUAL: 0,
    }
    return bits[rounding] | looks_at_exponent << 6


def adjust_any(m: Lanes, s: Lanes, negative: Lanes, c: Constants, before: Lanes) -> Lanes:
    """Do what `adjust` does, in the mode that the constants name."""
    zero = m.constant(0)
    half, even, one, plus, minus, odd, parity = (
        zero - ((c.mode >> place) & 1) for place in range(7)
    )
    mask = (m.constant(1) << s) - 1
    is_odd = ((m >> s) + (before & parity)) & 1
    whole = select(negative, minus, plus) | (odd & (is_odd - 1))
    return m + ((mask >> 1) & half) + (is_odd & even) + (one & 1) + (mask & whole)


def adjust(
    m: Lanes, s: Lanes, negative: Lanes, plan: Plan, R: Lanes, before: Lanes | None = None
) -> Lanes:
    """Change m so that dropping its low s bits rounds as the mode says; s is at least 1.

    The last bit that is kept tells whether the value toward zero is odd; where the precision is 1
    the last bit of `before` and that one together do.
    """
    one = m.constant(1) << s
    mask = one - 1
    rounding = Rounding(plan.mode)
    match rounding:
        case Rounding.TIES_TO_EVEN:
            kept = m >> s if before is None else (m >> s) + before
            return m + (mask >> 1) + (kept & 1)
        case Rounding.TIES_TO_AWAY:
            return m + (mask >> 1) + 1
        case Rounding.TIES_TOWARD_ZERO:
            return m + (mask >> 1)
        case Rounding.TOWARD_ZERO:
            return m
        case Rounding.AWAY_FROM_ZERO:
            return m + mask
        case Rounding.TOWARD_POSITIVE:
            return m + select(negative, m.constant(0), mask)
        case Rounding.TOWARD_NEGATIVE:
            return m + select(negative, mask, 0)
        case Rounding.TO_ODD:
            if before is not None:
                is_even = (((m >> s) + before) & 1).equals(0)
                return m + select(is_even, mask, 0)
            return m | (((m & mask) + mask) & one)
        case Rounding.STOCHASTIC_EQUAL:  # away from zero iff R < 2**(r-1)
            return m + select((R >> (plan.random_bits - 1)).equals(0), mask, 0)
        case Rounding.STOCHASTIC:
            return m + stochastic_addend(s, plan.random_bits, R)
        case _:
            assert_never(rounding)


def stochastic_addend(s: Lanes, r: int, R: Lanes) -> Lanes:
    """Return what carries iff R < floor(f·2**r), f the s dropped bits as a fraction.

    The complement of R in r bits, aligned with the top of the dropped bits: dropped bits that do
    not reach the last random bit cannot matter, and random bits below the last dropped one only
    matter if all above are equal, when R is not smaller.
    """
    complement = R ^ ((1 << r) - 1)
    larger = maximum(s, r)
    return select(s >= r, complement << (larger - r), complement >> (larger - s))


def overflow_of(source: Magnitude, plan: Plan, c: Constants) -> Lanes:
    """Return the magnitude that overflow gives."""
    if plan.sides_differ:
        return select(source.negative, c.overflow_negative, c.overflow_positive)
    return c.overflow_positive
