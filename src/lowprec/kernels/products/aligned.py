"""Products as tensor cores form them: terms aligned to the largest, cut, and added as integers.

A group of L products and an addend gives one output. With m the largest exponent among the terms
that are not zero, every term is cut to k fractional bits below 2**m, toward zero; the integers are
added exactly, and the sum is rounded once. Products are not renormalised: their exponent is the sum
of the factors' exponents, their significand less than 4.

Operands come as numbers and exponents in three ways. Where float32 holds every product exactly,
far from both ends of its range, the numbers are the operands themselves: a term is the product
times 2**(k - m), cut. Else they are significands, so that no product over- or underflows: in
float32 where products have at most 24 bits and sums at most 31, or in float64 and 64-bit integers.
Infinities and NaN, which have no exponent, are added beside, as float64 adds them.

A call takes few columns, in memory row by row: the inner loops run along them from 0, so that the
compiler sees that no index is negative and no element is gathered.

References
----------
Fasi, Higham, Mikaitis, Pranesh (2021), "Numerical behavior of NVIDIA tensor cores"; Khattak and
Mikaitis (2025), "Accurate models of NVIDIA tensor cores".
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.kernels.compiler import types
from lowprec.kernels.loops import (
    EXACT_FLOATS,
    compile_as,
    kept,
    kernel,
    load_constants,
    swap_float_state,
)
from lowprec.kernels.sums.orders import NATIVE, rounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.formats import Format

#: the exponent of a zero: lower than that of any number, and than any sum of two
NO_EXPONENT = -(1 << 13)
COLUMNS = 128  # of outputs that are computed together; their vectors stay in the first cache
_TOGETHER = 4  # terms whose sum is formed before it is stored


class Width(NamedTuple):
    """In which numbers terms are formed."""

    name: str
    float: np.dtype[Any]
    integer: np.dtype[Any]  # of sums
    exponent: np.dtype[Any]
    trailing_bits: int  # of the float
    bias: int
    has_values: bool  # the operands themselves, not their significands


_FLOAT32 = (np.dtype(np.float32), np.dtype(np.int32))
VALUES = Width("values", *_FLOAT32, np.dtype(np.int16), 23, 127, has_values=True)
NARROW = Width("narrow", *_FLOAT32, np.dtype(np.int32), 23, 127, has_values=False)
_FLOAT64 = (np.dtype(np.float64), np.dtype(np.int64))
WIDE = Width("wide", *_FLOAT64, np.dtype(np.int64), 52, 1023, has_values=False)


def width_of(formats: tuple[Format, Format], block: int, fraction_bits: int) -> Width:
    """Return the narrowest numbers that hold every product, and every sum of a group's.

    Where sums have 31 bits, 2**(m - k) is a normal float64 for every m.

    Products of float32 lie between 2**-95 and 2**118: then 2**(k - m) is a normal float32 for every
    m of a product, and 0 stands for it where m is so large that it cuts all products to 0.
    """
    first, second = formats
    sum_bits = fraction_bits + 2 + (block - 1).bit_length()
    is_narrow = first.precision + second.precision <= 24 and sum_bits <= 31
    if not is_narrow or first.emax + second.emax > 900:
        return WIDE
    is_inside = first.emin + second.emin >= -95 and first.emax + second.emax <= 116
    return VALUES if is_inside else NARROW


@kernel
def power_of(bits):  # type: ignore[no-untyped-def]
    """Return the float64 of these bits."""
    return np.int64(bits).view(np.float64)


@kernel
def odd_of(value, error):  # type: ignore[no-untyped-def]
    """Return value + error rounded to odd, where value is the nearest float64 and error not 0."""
    bits = np.float64(value).view(np.int64)
    if bits & 1:
        return value
    grows = (error > 0) == (value > 0)
    return np.int64(bits + 1 if grows else bits - 1).view(np.float64)


@functools.cache
def make_split(source: str, width: Width) -> Callable[..., None]:
    """Return the loop that takes a matrix apart: ``split(x, emin, s, e)`` with x = s · 2**e.

    e is ⌊log2 |x|⌋, at least emin, so that |s| < 2; or s is x itself. Zeros, infinities and NaN
    have s = 0 and an exponent below all others.
    """
    real, exponents, has_values = width.float, width.exponent, width.has_values

    def split(x, emin, s, e):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                value = np.float64(x[i, j])
                exponent = ((value.view(np.int64) >> 52) & 0x7FF) - 1023
                if value == 0.0 or exponent == 1024:
                    s[i, j] = 0.0
                    e[i, j] = NO_EXPONENT
                    continue
                exponent = max(exponent, emin)
                e[i, j] = exponent
                if has_values:
                    s[i, j] = real.type(value)
                    continue
                half = -exponent >> 1
                scaled = value * power_of((half + 1023) << 52)
                s[i, j] = real.type(scaled * power_of((-exponent - half + 1023) << 52))
        swap_float_state(floats)

    signature = types.void(
        types.Array(getattr(types, source), 2, "A", readonly=True),
        types.int64,
        types.Array(getattr(types, real.name), 2, "C"),
        types.Array(getattr(types, exponents.name), 2, "C"),
    )
    return compile_as(f"split|{source}|{width.name}", split, signature)


@functools.cache
def make_widen(source: str) -> Callable[..., None]:
    """Return the loop that copies a matrix to float64; subnormal numbers are kept."""

    def widen(x, out):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                out[i, j] = np.float64(x[i, j])
        swap_float_state(floats)

    signature = types.void(
        types.Array(getattr(types, source), 2, "A", readonly=True),
        types.Array(types.float64, 2, "C"),
    )
    return compile_as(f"widen|{source}", widen, signature)


@kernel
def scaled_total(total, accumulator, power, exponent):  # type: ignore[no-untyped-def]
    """Return an integer plus accumulator · power, cut, times 2**exponent, rounded to odd."""
    if np.isfinite(accumulator):
        total += np.int64(accumulator * power)
    value = np.float64(total)
    error = total - np.int64(value)
    if error != 0:  # to odd, so that the rounding that follows is the only one
        value = odd_of(value, error)
    half = exponent >> 1
    value = value * power_of((half + 1023) << 52)
    return value * power_of((exponent - half + 1023) << 52)


def _finding_highest(width: Width) -> Any:
    """Return what raises the highest exponent of each column to those of terms."""
    exponent = width.exponent.type

    @kernel
    def find_highest(ea, eb, highest, i, first, last):  # type: ignore[no-untyped-def]
        together = first + (last - first) // _TOGETHER * _TOGETHER
        for t in range(first, together, _TOGETHER):
            e0, e1, e2, e3 = ea[i, t], ea[i, t + 1], ea[i, t + 2], ea[i, t + 3]
            for j in range(eb.shape[1]):
                m01 = max(exponent(e0 + eb[t, j]), exponent(e1 + eb[t + 1, j]))
                m23 = max(exponent(e2 + eb[t + 2, j]), exponent(e3 + eb[t + 3, j]))
                highest[j] = max(highest[j], max(m01, m23))
        for t in range(together, last):
            e0 = ea[i, t]
            for j in range(eb.shape[1]):
                highest[j] = max(highest[j], exponent(e0 + eb[t, j]))

    return find_highest


def _adding_values(width: Width) -> Any:
    """Return what adds terms that are products of values, cut."""
    integer, trailing_bits, bias = width.integer.type, width.trailing_bits, width.bias

    @kernel
    def add_values(sa, ea, sb, eb, highest, scales, sums, i, first, last, k):  # type: ignore[no-untyped-def]
        factors = scales.view(sa.dtype)
        for j in range(
            sb.shape[1]
        ):  # all products are 0 where 2**(k - m) is out of float32's range
            e = integer(integer(k + bias) - highest[j])
            scales[j] = integer(
                min(max(e, integer(0)), integer(2 * bias)) << integer(trailing_bits)
            )
        together = first + (last - first) // _TOGETHER * _TOGETHER
        for t in range(first, together, _TOGETHER):
            s0, s1, s2, s3 = sa[i, t], sa[i, t + 1], sa[i, t + 2], sa[i, t + 3]
            for j in range(sb.shape[1]):
                factor = factors[j]
                t01 = integer(integer(s0 * sb[t, j] * factor) + integer(s1 * sb[t + 1, j] * factor))
                t2 = integer(s2 * sb[t + 2, j] * factor)
                t3 = integer(s3 * sb[t + 3, j] * factor)
                sums[j] = integer(sums[j] + integer(t01 + integer(t2 + t3)))
        for t in range(together, last):
            s0 = sa[i, t]
            for j in range(sb.shape[1]):
                sums[j] = integer(sums[j] + integer(s0 * sb[t, j] * factors[j]))

    return add_values


def _adding_significands(width: Width) -> Any:
    """Return what adds terms that are products of significands, scaled and cut."""
    integer, trailing_bits, bias = width.integer.type, width.trailing_bits, width.bias

    real = width.float.type

    @kernel
    def term(s, x, e):  # type: ignore[no-untyped-def]
        factor = integer(max(integer(e), integer(0)) << integer(trailing_bits)).view(real)
        return integer(s * x * factor)

    @kernel
    def add_significands(sa, ea, sb, eb, highest, scales, sums, i, first, last, k):  # type: ignore[no-untyped-def]
        for j in range(sb.shape[1]):
            scales[j] = integer(integer(k + bias) - highest[j])
        together = first + (last - first) // _TOGETHER * _TOGETHER
        for t in range(first, together, _TOGETHER):
            s0, s1, s2, s3 = sa[i, t], sa[i, t + 1], sa[i, t + 2], sa[i, t + 3]
            e0, e1, e2, e3 = ea[i, t], ea[i, t + 1], ea[i, t + 2], ea[i, t + 3]
            for j in range(sb.shape[1]):
                scale = scales[j]
                t0 = term(s0, sb[t, j], e0 + eb[t, j] + scale)
                t1 = term(s1, sb[t + 1, j], e1 + eb[t + 1, j] + scale)
                t2 = term(s2, sb[t + 2, j], e2 + eb[t + 2, j] + scale)
                t3 = term(s3, sb[t + 3, j], e3 + eb[t + 3, j] + scale)
                sums[j] = integer(sums[j] + integer(integer(t0 + t1) + integer(t2 + t3)))
        for t in range(together, last):
            s, e = sa[i, t], ea[i, t]
            for j in range(sb.shape[1]):
                sums[j] = integer(sums[j] + term(s, sb[t, j], e + eb[t, j] + scales[j]))

    return add_significands


@functools.cache
def make_aligned(width: Width, plan: str) -> Callable[..., None]:
    """Return the loop over matrices, compiled for the plan of the last rounding.

    It is called as ``loop(sa, ea, sb, eb, xa, xb, c, out, block, k, lowest, emin, constants)``:
    numbers and exponents of the operands, of which the second has at most `COLUMNS` columns; the
    operands themselves where some are not finite, else empty arrays; the addends in float64; where
    the sums go, in float64; the terms of a group; the fractional bits; the least m; emin of the
    output's format.
    """
    real, integer, of_exponents = width.float, width.integer, width.exponent
    exponent, is_narrow = of_exponents.type, integer.itemsize == 4
    is_cut = is_narrow and plan != NATIVE and kept(plan).mode == "toward_zero"
    find_highest = _finding_highest(width)
    add_terms = _adding_values(width) if width.has_values else _adding_significands(width)

    def multiply(sa, ea, sb, eb, xa, xb, c, out, block, k, lowest, emin, constants):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        rule = load_constants(constants)
        rows, terms = sa.shape
        columns = sb.shape[1]
        highest = np.empty(COLUMNS, of_exponents)  # m
        scales = np.empty(COLUMNS, integer)
        sums = np.empty(COLUMNS, integer)
        specials = np.zeros(COLUMNS, np.float64)
        accumulators = np.empty(COLUMNS, np.float64)
        exponents = accumulators.view(np.int64)  # the same memory, read as integers
        results = np.empty(COLUMNS, np.int64)
        shift = 52 - np.int64(constants[0])  # bits that the format does not have
        least = np.int64(constants[1]) << 52
        most = (np.int64(constants[2]) << shift) + least - (1 << 52)
        for i in range(rows):
            for j in range(columns):
                accumulators[j] = c[i, j]
            for first in range(0, terms, block):
                last = min(first + block, terms)
                for j in range(columns):
                    e = max(((exponents[j] >> 52) & 0x7FF) - 1023, emin)
                    m = e if accumulators[j] != 0.0 else lowest
                    highest[j] = exponent(max(m, lowest))
                    sums[j] = integer.type(0)
                find_highest(ea, eb, highest, i, first, last)
                add_terms(sa, ea, sb, eb, highest, scales, sums, i, first, last, k)
                if is_cut and not xa.shape[0]:  # normal results have bits cut off, no more
                    others = 0
                    for j in range(columns):
                        m = np.int64(highest[j])
                        power = power_of((k - m + 1023) << 52)
                        total = np.float64(sums[j]) + np.trunc(accumulators[j] * power)
                        value = np.float64(total * power_of((m - k + 1023) << 52))
                        bits = value.view(np.int64)
                        magnitude = bits & 0x7FFFFFFFFFFFFFFF
                        others |= ((magnitude < least) | (magnitude > most)) & (magnitude != 0)
                        results[j] = 0 if magnitude == 0 else bits >> shift << shift
                    if others == 0:
                        for j in range(columns):
                            exponents[j] = results[j]
                        continue
                if xa.shape[0]:
                    for j in range(columns):
                        specials[j] = 0.0
                    for t in range(first, last):
                        for j in range(columns):
                            product = xa[i, t] * xb[t, j]
                            if not np.isfinite(product):
                                specials[j] += product
                for j in range(columns):
                    accumulator = accumulators[j]
                    special = accumulator + specials[j]
                    m = np.int64(highest[j])
                    power = power_of((k - m + 1023) << 52)
                    if is_narrow:  # float64 holds the total, and its product
                        total = np.float64(sums[j]) + np.trunc(accumulator * power)
                        value = total * power_of((m - k + 1023) << 52)
                    else:
                        value = scaled_total(sums[j], accumulator, power, m - k)
                    result = rounded(value, rule, np.uint64(0), plan)
                    result = 0.0 if value == 0.0 else result
                    result = result if np.abs(special) < np.inf else special
                    accumulators[j] = result if result == result else np.nan
            for j in range(columns):
                out[i, j] = accumulators[j]
        swap_float_state(floats)

    matrix = types.Array(types.float64, 2, "A", readonly=True)
    of_reals = types.Array(getattr(types, real.name), 2, "C", readonly=True)
    of_integers = types.Array(getattr(types, of_exponents.name), 2, "C", readonly=True)
    signature = types.void(
        of_reals,
        of_integers,
        of_reals,
        of_integers,
        matrix,
        matrix,
        matrix,
        types.Array(types.float64, 2, "A"),
        types.int64,
        types.int64,
        types.int64,
        types.int64,
        types.Array(types.uint64, 1, "C"),
    )
    return compile_as(f"aligned|{width.name}|{plan}", multiply, signature)
