"""Exact sums: one long fixed-point number that holds every float64.

A sum is an array of float64 elements whose bits are 64-bit integers: limbs of 32 bits each, of
which the first counts units of 2**-1074, and with room for carries; then the sum of the infinities
and NaN; then which kinds of terms there were.

References
----------
Kulisch, Miranker (1986), "The arithmetic of the digital computer: a new approach".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lowprec.kernels.compiler import intrinsic, ir, types
from lowprec.kernels.loops import kernel

Array = np.ndarray[Any, Any]

_DIGITS = 69  # limbs: 2098 bits of float64, and 2**62 terms
_SPECIAL, _KINDS = _DIGITS, _DIGITS + 1
LIMBS = _DIGITS + 2  #: elements that a sum has
_CARRY_EVERY = (1 << 28) - 1  # terms between two carries: a limb has room for 2**30
_WORD = (1 << 32) - 1
_TRAILING, _FIELD = (1 << 52) - 1, 2047
_NONZERO, _POSITIVE_ZERO, _NEGATIVE_ZERO = 1, 2, 4  # kinds of terms


def _bitcast(source: Any, target: Any, to: ir.Type) -> Any:
    @intrinsic
    def view(_: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], to)

        return target(source), generate

    return view


_bits_of = _bitcast(types.float64, types.int64, ir.IntType(64))
_float_of = _bitcast(types.int64, types.float64, ir.DoubleType())


@kernel
def _add_at(limbs: Array, place: int, digit: int) -> None:
    limbs[place] = _float_of(_bits_of(limbs[place]) + digit)


@kernel
def _carry(limbs: Array) -> None:
    """Bring every limb but the last, which keeps the sign, into 0 … 2**32 - 1."""
    carry = np.int64(0)
    for place in range(_DIGITS - 1):
        digit = _bits_of(limbs[place]) + carry
        carry = digit >> 32
        limbs[place] = _float_of(digit & _WORD)
    _add_at(limbs, _DIGITS - 1, carry)


@kernel
def add_to_limbs(limbs: Array, term: float, n: int) -> None:
    """Add term number n; the limbs of an empty sum are all +0."""
    bits = _bits_of(term)
    field = (bits >> 52) & _FIELD
    kind = _NONZERO
    if term == 0.0:
        kind = _POSITIVE_ZERO if bits == 0 else _NEGATIVE_ZERO
    limbs[_KINDS] = _float_of(_bits_of(limbs[_KINDS]) | kind)
    if field == _FIELD:
        limbs[_SPECIAL] += term
        return
    significand = (bits & _TRAILING) | (np.int64(field > 0) << 52)
    shift = max(field, 1) - 1
    place, shift = shift >> 5, shift & 31
    low = np.uint64(significand & _WORD) << np.uint64(shift)
    high = ((significand >> 32) << shift) + np.int64(low >> np.uint64(32))
    sign = 1 - 2 * np.int64(bits < 0)
    _add_at(limbs, place, sign * np.int64(low & np.uint64(_WORD)))
    _add_at(limbs, place + 1, sign * (high & _WORD))
    _add_at(limbs, place + 2, sign * (high >> 32))
    if n & _CARRY_EVERY == _CARRY_EVERY:
        _carry(limbs)


@kernel
def read_limbs(limbs: Array, zero: float, to_nearest: bool) -> float:
    """Return the sum as a float64: to nearest, ties to even, or to odd and then finite if it is.

    `zero` is what x - x is.
    """
    if limbs[_SPECIAL] != 0.0:
        return limbs[_SPECIAL]
    _carry(limbs)
    negative = _bits_of(limbs[_DIGITS - 1]) < 0
    if negative:
        for place in range(_DIGITS):
            limbs[place] = _float_of(-_bits_of(limbs[place]))
        _carry(limbs)
    top = _DIGITS - 1
    while top >= 0 and _bits_of(limbs[top]) == 0:
        top -= 1
    if top < 0:
        return _zero(_bits_of(limbs[_KINDS]), zero)
    magnitude = _float_of(_leading_bits(limbs, top, to_nearest))
    return -magnitude if negative else magnitude


@kernel
def _zero(kinds: int, zero: float) -> float:
    """Return the sum of zeros: if all have one sign, with that sign."""
    if kinds == _POSITIVE_ZERO:
        return 0.0
    return -0.0 if kinds == _NEGATIVE_ZERO else zero


@kernel
def _leading_bits(limbs: Array, top: int, to_nearest: bool) -> Any:
    """Return the bits of a float64 that has the leading 53 bits, rounded."""
    width = 0  # of the top limb
    while _bits_of(limbs[top]) >> width:
        width += 1
    lowest = 32 * top + width - 53  # position of the last bit kept
    if lowest <= 0:  # exact, at most in the smallest binade of normal numbers
        return (_bits_of(limbs[1]) << 32) | _bits_of(limbs[0])
    if lowest > 2045:
        return (np.int64(2046) << 52) + _TRAILING + np.int64(to_nearest)
    place, shift = lowest >> 5, lowest & 31
    significand = _bits_of(limbs[place]) >> shift
    for above in range(place + 1, top + 1):
        significand |= _bits_of(limbs[above]) << (32 * (above - place) - shift)
    bits = (lowest << 52) + significand
    half = (lowest - 1) & 31
    digit = _bits_of(limbs[(lowest - 1) >> 5])
    is_half = (digit >> half) & 1
    rest = digit & ((np.int64(1) << half) - 1)
    for below in range((lowest - 1) >> 5):
        rest |= _bits_of(limbs[below])
    if to_nearest:
        return bits + (is_half & np.int64(rest != 0 or bits & 1 != 0))
    return bits | np.int64(is_half != 0 or rest != 0)
