"""Products as tensor cores form them: terms aligned to the largest, cut, and added as integers.

A group of L products and an addend gives one output. With m the largest exponent among the terms
that are not zero, every term is cut to k fractional bits below 2**m, toward zero; the integers are
added exactly, and the sum is rounded once. Products are not renormalised: their exponent is the sum
of the factors' exponents, their significand less than 4.

Operands come as significands and exponents, so that no product over- or underflows: here in float64
and 64-bit integers, in `aligned_groups` as float32 where that holds all there is. Infinities and
NaN, which have no exponent, are added beside, as float64 adds them.

A call takes few columns, in memory row by row: the inner loops run along them from 0, so that the
compiler sees that no index is negative and no element is gathered.

References
----------
Fasi, Higham, Mikaitis, Pranesh (2021), "Numerical behavior of NVIDIA tensor cores"; Khattak and
Mikaitis (2025), "Accurate models of NVIDIA tensor cores".
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

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
NO_EXPONENT = -(1 << 13)
COLUMNS = 128  # of outputs that are computed together; their vectors stay in the first cache


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
def make_split(source: str, is_single: bool, has_values: bool) -> Callable[..., None]:
    """Return the loop that takes a matrix apart: ``split(x, emin, s, e)`` with x = s · 2**e.

    e is ⌊log2 |x|⌋, at least emin, so that |s| < 2; or s is x itself. Zeros, infinities and NaN
    have s = 0 and an exponent below all others. Column j of the matrix goes to panel
    ``j // width`` of `s` and `e`, which have the shape (panels, rows, width) and 32 or 64 bits.
    """
    convert = np.float32 if is_single else np.float64

    def split(x, emin, s, e):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        width = s.shape[2]
        for p in range(s.shape[0]):
            first = p * width
            for i in range(x.shape[0]):
                for j in range(min(width, x.shape[1] - first)):
                    value = np.float64(x[i, first + j])
                    exponent = ((value.view(np.int64) >> 52) & 0x7FF) - 1023
                    if value == 0.0 or exponent == 1024:
                        s[p, i, j] = 0.0
                        e[p, i, j] = NO_EXPONENT
                        continue
                    exponent = max(exponent, emin)
                    e[p, i, j] = exponent
                    if has_values:
                        s[p, i, j] = convert(value)
                        continue
                    half = -exponent >> 1
                    scaled = value * power_of((half + 1023) << 52)
                    s[p, i, j] = convert(scaled * power_of((-exponent - half + 1023) << 52))
        swap_float_state(floats)

    signature = types.void(
        types.Array(getattr(types, source), 2, "A", readonly=True),
        types.int64,
        types.Array(types.float32 if is_single else types.float64, 3, "C"),
        types.Array(types.int32 if is_single else types.int64, 3, "C"),
    )
    return compile_as(f"split|{source}|{is_single}|{has_values}", split, signature)


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


@functools.cache
def make_aligned(plan: str) -> Callable[..., None]:
    """Return the loop over matrices, compiled for the plan of the last rounding.

    It is called as ``loop(sa, ea, sb, eb, xa, xb, c, out, block, k, lowest, emin, constants)``:
    significands and exponents of the operands, of which the second has at most `COLUMNS` columns;
    the operands themselves where some are not finite, else empty arrays; the addends in float64;
    where the sums go, in float64; the terms of a group; the fractional bits; the least m; emin of
    the output's format.
    """

    def multiply(sa, ea, sb, eb, xa, xb, c, out, block, k, lowest, emin, constants):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        rule = load_constants(constants)
        rows, terms = sa.shape
        columns = sb.shape[1]
        highest = np.empty(COLUMNS, np.int64)  # m
        sums = np.empty(COLUMNS, np.int64)
        specials = np.zeros(COLUMNS, np.float64)
        accumulators = np.empty(COLUMNS, np.float64)
        exponents = accumulators.view(np.int64)  # the same memory, read as integers
        for i in range(rows):
            for j in range(columns):
                accumulators[j] = c[i, j]
            for first in range(0, terms, block):
                last = min(first + block, terms)
                for j in range(columns):
                    e = max(((exponents[j] >> 52) & 0x7FF) - 1023, emin)
                    m = e if accumulators[j] != 0.0 else lowest
                    highest[j] = max(m, lowest)
                    sums[j] = 0
                for t in range(first, last):
                    e = ea[i, t]
                    for j in range(columns):
                        highest[j] = max(highest[j], e + eb[t, j])
                for t in range(first, last):
                    s, e = sa[i, t], ea[i, t] + k + 1023
                    for j in range(columns):
                        power = power_of(max(e + eb[t, j] - highest[j], 0) << 52)
                        sums[j] += np.int64(s * sb[t, j] * power)
                if xa.shape[0]:
                    for j in range(columns):
                        specials[j] = 0.0
                    for t in range(first, last):
                        for j in range(columns):
                            product = xa[i, t] * xb[t, j]
                            if not np.isfinite(product):
                                specials[j] += product
                for j in range(columns):
                    accumulator, m = accumulators[j], highest[j]
                    special = accumulator + specials[j]
                    power = power_of((k - m + 1023) << 52)
                    value = scaled_total(sums[j], accumulator, power, m - k)
                    result = rounded(value, rule, np.uint64(0), plan)
                    result = 0.0 if value == 0.0 else result
                    result = result if np.abs(special) < np.inf else special
                    accumulators[j] = result if result == result else np.nan
            for j in range(columns):
                out[i, j] = accumulators[j]
        swap_float_state(floats)

    matrix = types.Array(types.float64, 2, "A", readonly=True)
    of_reals = types.Array(types.float64, 2, "C", readonly=True)
    of_integers = types.Array(types.int64, 2, "C", readonly=True)
    signature = types.void(
        *[of_reals, of_integers] * 2,
        *[matrix] * 3,
        types.Array(types.float64, 2, "A"),
        *[types.int64] * 4,
        types.Array(types.uint64, 1, "C"),
    )
    return compile_as(f"aligned|{plan}", multiply, signature)
