"""Which powers of float64 do not decide how the exact ones are rounded: one pass over them.

Of those, powers that are exact are put right at once: most of what is near a short number is one.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.kernels.compiler import types
from lowprec.kernels.loops import EXACT_FLOATS, compile_as, kernel, swap_float_state

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]

_SIGN = np.uint64(1 << 63)
_MAGNITUDE = np.uint64((1 << 63) - 1)
_TRAILING = np.uint64((1 << 52) - 1)
_NOT_SHORT = np.uint64((1 << 40) - 1)  # bits that a significand of 13 bits has not


@kernel
def _exact_power(a: float, y: float, nearest: float) -> float:
    """Return a**y if it is found to be exact, `nearest` being close; else NaN. `a` is normal."""
    bits = np.float64(a).view(np.uint64)
    whole = ((np.int64(bits) >> 52) - 1023) * y
    if bits & _TRAILING == 0 and whole == np.rint(whole):  # a power of two
        return nearest
    while y != np.rint(y):  # a dyadic fraction: the root must be exact, and so has 13 bits at most
        root = np.sqrt(a)
        if np.float64(root).view(np.uint64) & _NOT_SHORT or root * root != a:
            return np.nan
        a, y = root, 2.0 * y
    if not 0.0 <= y <= 53.0:
        return np.nan
    bits = np.float64(a).view(np.uint64)
    significand, length = np.uint64((bits & _TRAILING) | (_TRAILING + np.uint64(1))), 53
    while significand & np.uint64(1) == 0:
        significand >>= np.uint64(1)
        length -= 1
    product = 1.0
    for _ in range(np.int64(y)):
        product *= a
    return product if y * length <= 53 else np.nan


@kernel
def _settle(x: Array, y: Array, words: Array, marks: Array, low: Any, first: int, end: int) -> Any:
    """Put exact powers among those marked right; return how many are no longer marked."""
    settled = 0
    for i in range(first, end):
        a, is_real = abs(x[i]), x[i] > 0.0 or y[i] == np.rint(y[i])
        if not (marks[i] and is_real and 0.0 < a < np.inf and abs(y[i]) < np.inf):
            continue
        bits = np.uint64(words[i] & _MAGNITUDE)
        nearest = np.uint64(np.uint64(bits + (low >> np.uint64(1)) + np.uint64(1)) & ~low)
        exact = _exact_power(a, y[i], nearest.view(np.float64))
        if exact == exact:
            words[i] = np.uint64(words[i] & _SIGN) | np.float64(exact).view(np.uint64)
            marks[i] = False
            settled += 1
    return settled


def _mark(
    x: Array, y: Array, z: Array, marks: Array, low: Any, margin: Any, least: Any, most: Any
) -> Any:
    """Clip the magnitudes of z; mark those near a multiple of low + 1, and of special operands.

    What is exact is not marked.
    """
    state = swap_float_state(EXACT_FLOATS)
    words, count = z.view(np.uint64), np.int64(0)
    for i in range(z.size):
        bits = np.uint64(words[i] & _MAGNITUDE)
        bits = np.uint64(min(max(bits, least), most))
        is_near = np.uint64(np.uint64(bits + margin) & low) <= np.uint64(margin + margin)
        u, v = abs(x[i]), abs(y[i])
        is_usual = (u < np.inf) & (u > 0) & (v < np.inf) & (v > 0) & (z[i] == z[i])
        is_marked = is_near | (not is_usual)
        words[i] = np.uint64(np.uint64(words[i] & _SIGN) | bits)
        marks[i] = is_marked
        count += is_marked
    if count:
        eights = marks[: z.size >> 3 << 3].view(np.uint64)
        for k in range(eights.size):
            if eights[k] != 0:
                count -= _settle(x, y, words, marks, low, k << 3, (k << 3) + 8)
        count -= _settle(x, y, words, marks, low, eights.size << 3, z.size)
    swap_float_state(state)
    return count


@functools.cache
def make_marker() -> Callable[..., int]:
    """Return ``mark(x, y, z, marks, low, margin, least, most)``, which counts what it marks.

    `x`, `y` and ``z = x**y`` are flat arrays of float64, `marks` of bool. `z` is changed: bits of
    its magnitudes are clipped to [least, most]. What is marked has operands that are zero, infinite
    or NaN, is NaN itself, or has bits that are within `margin` of a multiple of ``low + 1``.
    """
    numbers = types.Array(types.float64, 1, "C", readonly=True)
    z, marks = types.Array(types.float64, 1, "C"), types.Array(types.boolean, 1, "C")
    limits = [types.uint64] * 4
    return compile_as("mark-powers", _mark, types.int64(numbers, numbers, z, marks, *limits))
