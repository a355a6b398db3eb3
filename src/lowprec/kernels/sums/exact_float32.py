"""Exact sums of rows of float32: significands added up by exponent, as integers.

A normal float32 is an integer below 2**24 times a power of two; 2**39 such integers fit in 64
bits. Four tables, of a place for every sign and exponent, take turns, so that an addition seldom
waits for the one before. At last every exponent's integer goes to the limbs of the general kernel,
in two pieces that float64 holds. What is not a normal number goes there at once.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.kernels.compiler import types
from lowprec.kernels.loops import EXACT_FLOATS, compile_as, kernel, load_constants, swap_float_state
from lowprec.kernels.sums.limbs import LIMBS, add_to_limbs, read_limbs
from lowprec.kernels.sums.orders import NATIVE, drawn, rounded, zero_of

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]

_TABLES = 4
_PIECE = 31  # bits of the lower piece
_WORD = np.int64(0xFFFFFFFF)
_SIGNIFICAND, _HIDDEN = np.int64(0x7FFFFF), np.int64(0x800000)
_FEWEST = 1024  # terms of a row that make up for the tables


@kernel
def add_to_limbs_unless_zero(limbs: Array, number: float) -> None:
    """Add a number; zero would count as a term of its sign."""
    if number != 0.0:
        add_to_limbs(limbs, number, 0)


@functools.cache
def make_exact_rows(plan: str) -> Callable[..., None]:
    """Return the loop that sums the rows of a float32 array exactly, and rounds each sum once.

    ``sum_rows(x, sums, constants, output, key)``; the sum of row i is output ``output + i``.
    """
    zero, is_native = zero_of(plan), plan == NATIVE

    def sum_rows(x, sums, constants, output, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c = load_constants(constants)
        tables = np.zeros((_TABLES, 512), np.int64)
        limbs = np.zeros(LIMBS)
        for i in range(x.shape[0]):
            row = x[i]
            words = row.view(np.uint32)
            limbs[:] = 0.0
            zeros = np.int64(0)  # of which sign
            whole = row.size - row.size % _TABLES if row.size >= _FEWEST else 0
            if whole:
                tables[:] = 0
            for k in range(0, whole, _TABLES):
                for j in range(_TABLES):
                    word = np.int64(words[k + j])
                    place = word >> 23  # the sign and the exponent
                    if (place + 1) & 254 == 0:  # zero, subnormal, infinite or NaN
                        if (word << 1) & _WORD == 0:
                            zeros |= np.int64(1) << (word >> 31)
                        else:
                            add_to_limbs(limbs, np.float64(row[k + j]), 0)
                    else:
                        tables[j, place] += (word & _SIGNIFICAND) | _HIDDEN
            for k in range(whole, row.size):
                add_to_limbs(limbs, np.float64(row[k]), k)
            if zeros & 1:
                add_to_limbs(limbs, 0.0, 0)
            if zeros & 2:
                add_to_limbs(limbs, -0.0, 0)
            for power in range(1, 255 if whole else 0):
                units = np.int64(0)
                for j in range(_TABLES):
                    units += tables[j, power] - tables[j, power + 256]
                    if tables[j, power] | tables[j, power + 256]:
                        add_to_limbs(limbs, 1.0, 0)  # a term but zero, whatever the sum
                        add_to_limbs(limbs, -1.0, 0)
                unit = math.ldexp(1.0, power - 150)
                low = units & ((np.int64(1) << _PIECE) - 1)
                add_to_limbs_unless_zero(limbs, np.float64(low) * unit)
                add_to_limbs_unless_zero(limbs, np.float64(units >> _PIECE) * (2.0**_PIECE * unit))
            total = read_limbs(limbs, zero, is_native)
            total = rounded(total, c, drawn(output + i, 0, key, plan), plan)
            sums[i] = total if total == total else np.nan
        swap_float_state(floats)

    signature = types.void(
        types.Array(types.float32, 2, "C", readonly=True),
        types.Array(types.float64, 1, "C"),
        types.Array(types.uint64, 1, "C"),
        types.int64,
        types.uint64,
    )
    return compile_as(f"exact rows|{plan}", sum_rows, signature)
