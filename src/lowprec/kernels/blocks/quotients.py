"""A quotient of numbers rounded once to a grid: the readable rule of block formats.

A magnitude x = hi + lo (lo only where a 64-bit integer has more than 53 bits) is divided by a
divisor d, a scale times the tensor's scale, which float64 holds exactly. The float64 quotient gives
a candidate n for the floor of x/(d·step); the sign of x - n·d·step, which a fused multiply-add
gives exactly, says whether it is one too many. So the floor, its `FRACTION` further bits and
whether anything remains are exact in every mode, stochastic ones included.

Letters: `t` trailing significand bits of the grid, `emin` the exponent of its smallest normal
number, `e` an exponent, `n` an integer significand, `f` bits of the fraction, `d` the divisor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lowprec.kernels.compiler import intrinsic, types
from lowprec.kernels.lanes import Lanes
from lowprec.kernels.loops import kernel
from lowprec.kernels.philox import element_bits
from lowprec.rounding import Rounding

(
    _TIES_TO_EVEN,
    _TIES_TO_AWAY,
    _TIES_TOWARD_ZERO,
    _TOWARD_ZERO,
    _AWAY_FROM_ZERO,
    _TOWARD_POSITIVE,
    _TOWARD_NEGATIVE,
    _TO_ODD,
    _STOCHASTIC,
    _STOCHASTIC_EQUAL,
) = range(10)
_NUMBERS = {mode: number for number, mode in enumerate(Rounding)}
_FIELD = 2047 << 52


class MagnitudeGrid(NamedTuple):
    """The magnitudes of a format, as integers that a kernel reads from an array."""

    trailing_bits: int
    emin: int
    max_code: int
    flush: int  # 1 where codes with exponent field 0 are all zero
    sign_shift: int  # how far the sign bit of a code is from the lowest one
    style: int  # 0: sign and magnitude; 1: the same, and zero has no sign; 2: an integer
    infinity_code: int  # 0 where there is none


def rounding_number(rounding: Rounding) -> int:
    """Return the number that stands for a mode in these kernels."""
    return _NUMBERS[rounding]


# What the processor does in one instruction ------------------------------------------------------


@intrinsic
def fused(_: Any, x: Any, y: Any, z: Any) -> Any:
    """Return x·y + z of float64, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b, c = (Lanes(builder, value) for value in args)
        return a.fused(b, c).value

    return types.float64(types.float64, types.float64, types.float64), generate


@intrinsic
def random_word(_: Any, index: Any, key: Any) -> Any:
    """Return the 32 random bits of the element that has this index in the whole array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = element_bits(Lanes(builder, args[0]), Lanes(builder, args[1]), from_halves=False)
        return word.resized(64).value

    return types.int64(types.int64, types.uint64), generate


@kernel
def power_of_two(e):  # type: ignore[no-untyped-def]
    """Return 2**e as a normal float64."""
    return np.int64((e + 1023) << 52).view(np.float64)


@kernel
def exponent(x):  # type: ignore[no-untyped-def]
    """Return floor(log2(x)) of a positive finite float64."""
    field = (np.float64(x).view(np.int64) & _FIELD) >> 52
    if field == 0:
        return ((np.float64(x * 2.0**64).view(np.int64) & _FIELD) >> 52) - (1023 + 64)
    return field - 1023


# The quotient ------------------------------------------------------------------------------------


@kernel
def _side(n, step, hi, lo):  # type: ignore[no-untyped-def]
    """Return the sign of hi + lo - n·step, exactly."""
    if lo == 0.0:
        rest = fused(-n, step, hi)
    else:
        product = n * step
        tail = fused(n, step, -product)
        head = hi - product
        small = lo - tail
        part = small - lo
        error = (lo - (small - part)) + (-tail - part)
        rest = head + small
        if rest == 0.0:
            rest = error
    return np.int64(rest > 0.0) - np.int64(rest < 0.0)


@kernel
def _divide(hi, lo, d, t, emin, f):  # type: ignore[no-untyped-def]
    """Return (n, whether something remains, e): floor(x/d · 2**(t + f - e)), e at least emin."""
    u = hi / d
    if u >= 2.0**500:  # beyond every grid
        return np.int64(1) << (t + f), True, np.int64(500)
    if u < 2.0**-500:  # below every grid
        return np.int64(0), hi > 0.0, emin
    e = max(exponent(u), emin)
    while True:
        step = d * power_of_two(e - t - f)
        n = np.floor(u * power_of_two(t + f - e))
        side = _side(n, step, hi, lo)
        if side < 0:
            n -= 1.0
            side = _side(n, step, hi, lo)
        elif lo != 0.0 and _side(n + 1.0, step, hi, lo) >= 0:
            n += 1.0
            side = _side(n, step, hi, lo)
        number = np.int64(n)
        if number >> (t + f) == 0 and e > emin:  # u was rounded up to a power of two
            e -= 1
        elif number >> (t + f + 1) != 0:  # lo has carried x/d there
            e += 1
        else:
            return number, side > 0, e


@kernel
def _grows(q, fraction, remains, f, mode, negative, random):  # type: ignore[no-untyped-def]
    """Return whether a mode takes the neighbour away from zero of q + fraction·2**-f + …."""
    half = np.int64(1) << (f - 1)
    is_inexact = remains or fraction != 0
    if mode == _TIES_TO_EVEN:
        return fraction > half or (fraction == half and (remains or q & 1 == 1))
    if mode == _TIES_TO_AWAY:
        return fraction >= half
    if mode == _TIES_TOWARD_ZERO:
        return fraction > half or (fraction == half and remains)
    if mode == _TOWARD_ZERO:
        return False
    if mode == _AWAY_FROM_ZERO:
        return is_inexact
    if mode == _TOWARD_POSITIVE:
        return is_inexact and not negative
    if mode == _TOWARD_NEGATIVE:
        return is_inexact and negative
    if mode == _TO_ODD:
        return is_inexact and q & 1 == 0
    if mode == _STOCHASTIC:
        return random < fraction
    return is_inexact and random < half


@kernel
def magnitude_code(hi, lo, d, grid, mode, negative, random):  # type: ignore[no-untyped-def]
    """Return the code without sign of (hi + lo)/d rounded once; what exceeds the largest is it."""
    if hi == 0.0:
        return np.int64(0)
    t, emin, max_code = grid[0], grid[1], grid[2]
    f = np.int64(32) if mode >= _STOCHASTIC else np.int64(2)
    n, remains, e = _divide(hi, lo, d, t, emin, f)
    fraction_mask = (np.int64(1) << f) - 1
    if grid[3] and n >> (t + f) == 0:  # one step from 0 to the smallest normal number
        remains = remains or n & ((np.int64(1) << t) - 1) != 0
        n >>= t
        grows = _grows(n >> f, n & fraction_mask, remains, f, mode, negative, random)
        return min((n >> f) + np.int64(grows) << t, max_code)
    code = ((e - emin) << t) + (n >> f)  # as even as n >> f but for t = 0, where codes decide
    code += np.int64(_grows(code, n & fraction_mask, remains, f, mode, negative, random))
    return min(code, max_code)


# Values ------------------------------------------------------------------------------------------


@kernel
def value_of(code, grid):  # type: ignore[no-untyped-def]
    """Return the magnitude that a code without sign stands for."""
    t, emin = grid[0], grid[1]
    field = code >> t
    if field == 0:
        return 0.0 if grid[3] else code * power_of_two(emin - t)
    significand = (code & ((np.int64(1) << t) - 1)) | (np.int64(1) << t)
    return significand * power_of_two(emin + field - 1 - t)


@kernel
def times(q, d):  # type: ignore[no-untyped-def]
    """Return q·d of magnitudes in float64, rounded to odd: rounding it again is one rounding."""
    product = q * d
    tail = fused(q, d, -product)
    if tail != 0.0:
        bits = np.float64(product).view(np.int64)
        if bits & 1 == 0:
            return np.int64(bits + 1 if tail > 0.0 else bits - 1).view(np.float64)
    return product
