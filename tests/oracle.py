"""Rounding by looking it up: what the tests hold the library to.

The library shifts and masks significands. This oracle does neither: it lists the magnitudes of a
format in order, with the one that would follow `max` were the exponent unbounded, searches the two
neighbours of |x|, and picks one of them by the sentence that defines the mode. `round_to` does so
for arrays, by a binary search in float64 (every comparison is between exact float64 numbers);
`round_exactly` for one number of any size or precision, in fractions. `Staircase` turns the list
into the steps of the rounding function over the ordered patterns of a source dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from lowprec import Format, Overflow, Rounding, Specials

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
Toss = Callable[[Any], Any]
"""What a stochastic mode draws: from f in (0, 1), whether to go away from zero."""


# The set of values ---------------------------------------------------------------------------


def magnitude(code: int, fmt: Format) -> Fraction:
    """Return the exact value of a code without its sign, infinities and NaN read as numbers."""
    exponent, trailing = divmod(code, 2**fmt.trailing_bits)
    scale = Fraction(2) ** (-fmt.bias - fmt.trailing_bits)
    if exponent or not fmt.has_zero:  # without a zero exponent field 0 is a power of two
        return (2**fmt.trailing_bits + trailing) * 2**exponent * scale
    return trailing * 2 * scale if fmt.subnormals else Fraction(0)


def finite_codes(fmt: Format) -> int:
    """Return how many codes with a clear sign are finite numbers."""
    codes = 2 ** (fmt.exponent_bits + fmt.trailing_bits)
    beyond = {
        Specials.IEEE: 2**fmt.trailing_bits,
        Specials.FN: 1,
        Specials.FNUZ: 0,
        Specials.FINITE: 0,
        Specials.P3109: 1 if fmt.signed else 2,
    }
    return codes - beyond[fmt.specials]


def has_infinity(fmt: Format) -> bool:
    """Whether infinities are values."""
    return fmt.specials in (Specials.IEEE, Specials.P3109)


def is_odd(code: Any, fmt: Format) -> Any:
    """Whether a finite code without its sign is odd where ties go to even.

    With precision 1 the exponent field tells (IEEE P3109); of float8_e8m0fnu every value is odd, as
    in ml_dtypes.
    """
    is_e8m0 = not fmt.has_zero and (fmt.exponent_bits, fmt.specials) == (8, Specials.FN)
    return (code % 2 == 1) | is_e8m0


class Table(NamedTuple):
    """The magnitudes of a format in increasing order, the one beyond `max` last."""

    values: FloatArray  #: infinity where the one beyond `max` is 2**1024
    middles: FloatArray  #: halfway between a magnitude and the next
    odd: np.ndarray[Any, np.dtype[np.bool_]]  #: whether its significand, an integer, is odd
    codes: np.ndarray[Any, np.dtype[np.int64]]  #: its code, without a sign


@cache
def table(fmt: Format) -> Table:
    """List the magnitudes of a format (of at most 20 bits or so)."""
    codes = np.arange(finite_codes(fmt) + 1)
    if not fmt.subnormals and fmt.has_zero:
        codes = np.delete(codes, slice(1, 2**fmt.trailing_bits))
    field, trailing = np.divmod(codes, 2**fmt.trailing_bits)
    is_normal = (field > 0) | (not fmt.has_zero)
    significand = np.where(is_normal, 2**fmt.trailing_bits + trailing, 2 * trailing)
    exponent = field - fmt.bias - fmt.trailing_bits
    with np.errstate(over="ignore"):  # 2**1024
        values = np.ldexp(significand.astype(np.float64), exponent)
    halves = np.ldexp(significand.astype(np.float64), exponent - 1)
    return Table(values, halves[:-1] + halves[1:], is_odd(codes, fmt), codes)


def neighbours(
    size: Fraction, fmt: Format, bounded: bool = True
) -> tuple[Fraction, Fraction, bool]:
    """Find the neighbours of a positive number by one division with an integer quotient.

    Unless it is bounded, the exponent has no lower end, and there are no subnormal numbers.
    """
    smallest = magnitude(2**fmt.trailing_bits if fmt.has_zero else 0, fmt)
    if bounded and size < smallest and not (fmt.subnormals and fmt.has_zero):
        return (Fraction(0), smallest, False) if fmt.has_zero else (smallest, smallest, True)
    ratio = size / smallest
    binade = ratio.numerator.bit_length() - ratio.denominator.bit_length()
    binade -= ratio < Fraction(2) ** binade  # floor(log2), below 0 among the subnormals
    if bounded:
        binade = max(binade, 0)
    quantum = smallest / 2**fmt.trailing_bits * Fraction(2) ** binade
    quotient = size // quantum
    odd = quotient % 2 == 1
    if fmt.precision == 1:
        odd = bool(is_odd(binade + fmt.has_zero, fmt))
    return quotient * quantum, (quotient + (size % quantum != 0)) * quantum, odd


# The modes -----------------------------------------------------------------------------------


def _goes_away(rounding: Rounding, side: Any, odd: Any, negative: Any, toss: Any) -> Any:
    """Whether the neighbour away from zero is picked for an x between two neighbours.

    `side` is the sign of |x| - middle; `odd` belongs to the neighbour toward zero.
    """
    tie = side == 0
    match rounding:
        case Rounding.TIES_TO_EVEN:
            return (side > 0) | (tie & odd)
        case Rounding.TIES_TO_AWAY:
            return (side > 0) | tie
        case Rounding.TIES_TOWARD_ZERO:
            return side > 0
        case Rounding.TOWARD_ZERO:
            return side != side  # never
        case Rounding.AWAY_FROM_ZERO:
            return side == side  # always
        case Rounding.TOWARD_POSITIVE:
            return negative ^ True
        case Rounding.TOWARD_NEGATIVE:
            return negative
        case Rounding.TO_ODD:
            return odd ^ True
        case Rounding.STOCHASTIC | Rounding.STOCHASTIC_EQUAL:
            return toss


def _stays_finite(rounding: Rounding, negative: Any) -> Any:
    """Whether a finite overflow stops at `max` whatever the policy (IEEE 754-2019, 7.4)."""
    if rounding in (Rounding.TOWARD_ZERO, Rounding.TO_ODD):
        return negative | True
    if rounding in (Rounding.TOWARD_POSITIVE, Rounding.TOWARD_NEGATIVE):
        return negative ^ (rounding is Rounding.TOWARD_NEGATIVE)
    return negative & False


def _beyond(fmt: Format) -> float:
    """Return what stands for an infinity in this format: itself, NaN or `max`."""
    if has_infinity(fmt):
        return math.inf
    top = float(magnitude(finite_codes(fmt) - 1, fmt))
    return top if fmt.specials is Specials.FINITE else math.nan


def _infinity(fmt: Format, overflow: Overflow) -> float:
    """Return what an infinite input becomes."""
    top = float(magnitude(finite_codes(fmt) - 1, fmt))
    if overflow is Overflow.SATURATE_FINITE:
        return top
    if overflow is Overflow.SATURATE and not has_infinity(fmt):
        return top
    return _beyond(fmt)


# One number, exactly -------------------------------------------------------------------------


def round_exactly(
    x: float | Fraction,
    fmt: Format,
    rounding: str = "ties_to_even",
    overflow: str = "ieee",
    toss: Toss | None = None,
) -> float:
    """Round a real number, exactly given, to a format of any width."""
    mode, policy = Rounding(rounding), Overflow(overflow)
    if isinstance(x, float) and not math.isfinite(x):
        is_nan = math.isnan(x) or (x < 0 and not fmt.signed)
        negative = math.copysign(1, x) < 0
        return _signed(math.nan if is_nan else _infinity(fmt, policy), negative, fmt)
    negative = x < 0 or (isinstance(x, float) and math.copysign(1, x) < 0)
    if x == 0:
        return _signed(0.0, negative, fmt) if fmt.has_zero else math.nan
    if negative and not fmt.signed:
        return math.nan
    result = pick(abs(Fraction(x)), fmt, mode, negative, toss)
    top = magnitude(finite_codes(fmt) - 1, fmt)
    if result <= top:
        return _signed(float(result), negative, fmt)
    return _signed(float(top) if _clamps(mode, negative, policy) else _beyond(fmt), negative, fmt)


def pick(
    size: Fraction,
    fmt: Format,
    mode: Rounding,
    negative: bool,
    toss: Toss | None = None,
    bounded: bool = True,
) -> Fraction:
    """Return the neighbour of a positive number that a mode picks, as if there were no largest.

    Unless it is bounded, the exponent has no lower end either.
    """
    below, above, odd = neighbours(size, fmt, bounded)
    if above == below:
        return below
    middle = (below + above) / 2
    side = (size > middle) - (size < middle)
    drawn = toss((size - below) / (above - below)) if toss else None
    return above if _goes_away(mode, side, odd, negative, drawn) else below


def _clamps(mode: Rounding, negative: Any, policy: Overflow) -> Any:
    """Whether a finite overflow becomes the largest value."""
    match policy:
        case Overflow.IEEE:
            return _stays_finite(mode, negative)
        case Overflow.INFINITE:
            return negative & False
        case Overflow.SATURATE | Overflow.SATURATE_FINITE:
            return negative | True


def _signed(size: float, negative: bool, fmt: Format) -> float:
    if size == 0 and not fmt.has_negative_zero:
        return 0.0
    return math.copysign(size, -1.0 if negative else 1.0)


# Arrays --------------------------------------------------------------------------------------


class Found:
    """Where float64 numbers lie among the magnitudes of a format of at most 20 bits or so."""

    def __init__(self, x: Any, fmt: Format) -> None:
        self.x, self.fmt = np.asarray(x, np.float64), fmt
        values, middles, odd, _ = table(fmt)
        self.size, self.negative = np.abs(self.x), np.signbit(self.x)
        at = np.searchsorted(values, self.size, "right") - 1
        at = np.clip(at, 0, len(values) - 2)
        self.below, self.above, self.odd = values[at], values[at + 1], odd[at]
        self.middle = middles[at]
        self.side = (self.size > self.middle) * 1 - (self.size < self.middle)

    def fraction(self) -> FloatArray:
        """Return how far |x| is on its way from the lower to the upper neighbour, exactly."""
        with np.errstate(over="ignore"):  # far beyond the last middle
            way = (self.size - self.below) / (2 * (self.middle - self.below))
        return np.clip(way, 0, 1)

    def pick(self, rounding: str, overflow: str = "ieee", toss: Toss | None = None) -> FloatArray:
        """Return the neighbours that a mode picks."""
        mode, policy, fmt, x = Rounding(rounding), Overflow(overflow), self.fmt, self.x
        drawn = toss(self.fraction()) if toss else None
        away = _goes_away(mode, self.side, self.odd, self.negative, drawn)
        away = (self.size > self.below) & away | (self.size >= self.above)
        result = np.where(away, self.above, self.below)
        top = table(fmt).values[-2]
        keeps = _clamps(mode, self.negative, policy)
        result = np.where(result > top, np.where(keeps, top, _beyond(fmt)), result)
        result[np.isinf(x)] = _infinity(fmt, policy)
        result[np.isnan(x) | ((x == 0) & (not fmt.has_zero))] = np.nan
        if not fmt.signed:
            return np.where(x < 0, np.nan, result)
        if fmt.has_negative_zero:
            return np.copysign(result, np.where(self.negative, -1.0, 1.0))
        return np.where(self.negative & (result > 0), -result, result)  # FNUZ: one 0, one NaN


def round_to(
    x: Any,
    fmt: Format,
    rounding: str = "ties_to_even",
    overflow: str = "ieee",
    toss: Toss | None = None,
) -> FloatArray:
    """Round float64 numbers to a format of at most 20 bits or so."""
    return Found(x, fmt).pick(rounding, overflow, toss)


def encode(result: FloatArray, fmt: Format) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the codes of what `round_to` returned; NaN as the format's canonical one."""
    values, _, _, codes = table(fmt)
    size = np.abs(result)
    at = np.clip(np.searchsorted(values, size), 0, len(values) - 1)
    found = np.where(np.isinf(size), codes[-1], codes[at])
    if fmt.signed:
        found |= np.signbit(result).astype(np.int64) << (fmt.bits - 1)
    if not np.isnan(result).any():
        return found
    nan = {
        Specials.IEEE: finite_codes(fmt) | 1 << max(fmt.trailing_bits - 1, 0),
        Specials.FN: finite_codes(fmt),
        Specials.FNUZ: 1 << (fmt.bits - 1),
        Specials.P3109: 1 << (fmt.bits - 1) if fmt.signed else 2**fmt.bits - 1,
    }[fmt.specials]
    sign = (np.signbit(result) & fmt.signed).astype(np.int64) << (fmt.bits - 1)
    return np.where(np.isnan(result), nan | sign, found)


# The rounding function as a staircase ----------------------------------------------------------


class Staircase:
    """The rounding function over the 2**32 patterns of float32, as a list of its steps.

    Read as unsigned integers, the patterns of one sign are in order of magnitude, and rounding is
    monotone: it is constant on runs of patterns. A run starts where the table says that the next
    value is first reached. Any stretch of patterns is then a repetition of known results.
    """

    def __init__(self, fmt: Format, rounding: str = "ties_to_even", overflow: str = "ieee") -> None:
        mode = Rounding(rounding)
        starts, results = [], []
        for negative in (False, True):
            values, middles, odd, _ = table(fmt)
            ties_away = _goes_away(mode, np.zeros(len(middles)), odd[:-1], negative, None)
            inner_away = _goes_away(mode, -np.ones(len(middles)), odd[:-1], negative, None)
            outer_away = _goes_away(mode, np.ones(len(middles)), odd[:-1], negative, None)
            first = np.where(outer_away, _float32_above(middles), _float32_from(values[1:]))
            first = np.where(ties_away, np.minimum(first, _float32_from(middles)), first)
            first = np.where(inner_away, _float32_above(values[:-1]), first)
            ends = np.array([0, 1, 0x7F800000, 0x7F800001])  # 0, the least, infinity, the first NaN
            patterns = np.unique(np.concatenate([ends, first[first < 0x7F800000]]))
            signed = (patterns + (negative << 31)).astype(np.uint32)
            with np.errstate(invalid="ignore"):  # signalling NaN
                x = signed.view(np.float32).astype(np.float64)
            starts.append(signed.astype(np.int64))
            results.append(round_to(x, fmt, rounding, overflow).astype(np.float32))
        self.starts = np.concatenate(starts)
        self.results = np.concatenate(results)

    def over(self, start: int, stop: int, step: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the rounded values of the patterns ``range(start, stop, step)``."""
        edges = np.append(self.starts, 2**32).clip(start, stop)
        before = -((start - edges) // step)  # patterns of the range below each edge, rounded up
        return np.repeat(self.results, np.diff(before))


def _float32_from(x: FloatArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the pattern of the least float32 that is at least x >= 0."""
    with np.errstate(over="ignore"):
        near = x.astype(np.float32)
        near = np.where(near < x, np.nextafter(near, np.float32(np.inf)), near)
    return near.view(np.uint32).astype(np.int64)


def _float32_above(x: FloatArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the pattern of the least float32 that is more than x >= 0."""
    pattern = _float32_from(x)
    return pattern + (pattern.astype(np.uint32).view(np.float32) == x)
