"""Products as tensor cores form them: terms aligned to the largest, cut, and added as integers.

A group of L products and an addend gives one output. With m the largest exponent among the terms
that are not zero, every term is cut to k fractional bits below 2**m, toward zero; the integers are
added exactly, and the sum is rounded once. Products are not renormalised: their exponent is the sum
of the factors' exponents, their significand less than 4.

Operands come as significands and exponents, so that no product over- or underflows: in float32 and
32-bit integers where products have at most 24 bits and sums at most 31, else in float64 and 64-bit
integers. Infinities and NaN, which have no exponent, are added beside, as float64 adds them.

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
    kernel,
    load_constants,
    swap_float_state,
)
from lowprec.kernels.sums.orders import rounded

if TYPE_CHECKING:
    from collections.abc import Callable

#: the exponent of a zero: lower than that of any number, and than any sum of two
NO_EXPONENT = -(1 << 20)
_COLUMNS = 128  # of outputs that are computed together; their vectors stay in the first cache


class Width(NamedTuple):
    """In which numbers terms are formed."""

    float: np.dtype[Any]
    integer: np.dtype[Any]
    trailing_bits: int  # of the float
    bias: int


NARROW = Width(np.dtype(np.float32), np.dtype(np.int32), 23, 127)
WIDE = Width(np.dtype(np.float64), np.dtype(np.int64), 52, 1023)


def width_of(product_bits: int, block: int, fraction_bits: int) -> Width:
    """Return the narrowest numbers that hold every product, and every sum of a group's."""
    sum_bits = fraction_bits + 2 + (block - 1).bit_length()
    return NARROW if product_bits <= 24 and sum_bits <= 31 else WIDE


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

    e is ⌊log2 |x|⌋, at least emin, so that |s| < 2. Zeros, infinities and NaN have s = 0 and an
    exponent below all others.
    """
    real, integer, _, _ = width

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
                half = -exponent >> 1
                scaled = value * power_of((half + 1023) << 52)
                s[i, j] = real.type(scaled * power_of((-exponent - half + 1023) << 52))
                e[i, j] = exponent
        swap_float_state(floats)

    signature = types.void(
        types.Array(getattr(types, source), 2, "A", readonly=True),
        types.int64,
        types.Array(getattr(types, real.name), 2, "C"),
        types.Array(getattr(types, integer.name), 2, "C"),
    )
    return compile_as(f"split|{source}|{real.name}", split, signature)


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


@functools.cache
def make_aligned(width: Width, plan: str) -> Callable[..., None]:
    """Return the loop over matrices, compiled for the plan of the last rounding.

    It is called as ``loop(sa, ea, sb, eb, xa, xb, c, out, block, k, lowest, emin, constants)``:
    significands and exponents of the operands; the operands themselves where some are not finite,
    else empty arrays; the addends in float64; where the sums go, in float64; the terms of a group;
    the fractional bits; the least m; emin of the output's format.
    """
    real, integer, trailing_bits, bias = width

    def multiply(sa, ea, sb, eb, xa, xb, c, out, block, k, lowest, emin, constants):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        rule = load_constants(constants)
        rows, terms = sa.shape
        columns = sb.shape[1]
        highest = np.empty(_COLUMNS, integer)  # m
        scales = np.empty(_COLUMNS, integer)
        factors = scales.view(real)
        sums = np.empty(_COLUMNS, integer)
        specials = np.empty(_COLUMNS, np.float64)
        accumulators = np.empty(_COLUMNS, np.float64)
        exponents = accumulators.view(np.int64)  # the same memory, read as integers
        shift = integer.type(k + bias)
        for start in range(0, columns, _COLUMNS):
            width = min(_COLUMNS, columns - start)
            for i in range(rows):
                for j in range(width):
                    accumulators[j] = c[i, start + j]
                for first in range(0, terms, block):
                    last = min(first + block, terms)
                    for j in range(width):
                        e = ((exponents[j] >> 52) & 0x7FF) - 1023
                        m = max(lowest, max(e, emin)) if accumulators[j] != 0.0 else lowest
                        highest[j] = integer.type(m)
                        sums[j] = integer.type(0)
                    for t in range(first, last):
                        e = ea[i, t]
                        for j in range(width):
                            highest[j] = max(highest[j], integer.type(e + eb[t, start + j]))
                    for t in range(first, last):
                        e = integer.type(ea[i, t] + shift)
                        s = sa[i, t]
                        for j in range(width):
                            scale = integer.type(e + eb[t, start + j] - highest[j])
                            scales[j] = integer.type(max(scale, integer.type(0)) << trailing_bits)
                        for j in range(width):
                            term = s * sb[t, start + j] * factors[j]
                            sums[j] = integer.type(sums[j] + integer.type(term))
                    if xa.shape[0]:
                        for j in range(width):
                            specials[j] = 0.0
                        for t in range(first, last):
                            for j in range(width):
                                product = xa[i, t] * xb[t, start + j]
                                if not np.isfinite(product):
                                    specials[j] += product
                    for j in range(width):
                        accumulator = accumulators[j]
                        special = accumulator
                        if xa.shape[0]:
                            special += specials[j]
                        down = np.int64(k - highest[j])
                        power = np.int64(down + 1023) << 52
                        total = np.int64(sums[j])
                        if np.isfinite(accumulator):
                            total += np.int64(accumulator * power_of(power))
                        value = np.float64(total)
                        error = total - np.int64(value)
                        if error != 0:  # to odd, so that the rounding below is the only one
                            value = odd_of(value, error)
                        back = np.int64(highest[j]) - k
                        half = back >> 1
                        value = value * power_of((half + 1023) << 52)
                        value = value * power_of((back - half + 1023) << 52)
                        result = rounded(value, rule, np.uint64(0), plan)
                        if total == 0:
                            result = 0.0
                        if not np.isfinite(special):
                            result = special
                        if np.isnan(result):
                            result = np.nan
                        accumulators[j] = result
                for j in range(width):
                    out[i, start + j] = accumulators[j]
        swap_float_state(floats)

    matrix = types.Array(types.float64, 2, "A", readonly=True)
    of_reals = types.Array(getattr(types, real.name), 2, "C", readonly=True)
    of_integers = types.Array(getattr(types, integer.name), 2, "C", readonly=True)
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
    return compile_as(f"aligned|{real.name}|{plan}", multiply, signature)
