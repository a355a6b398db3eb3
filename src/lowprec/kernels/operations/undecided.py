"""Which powers of float64 do not decide how the exact ones are rounded: one pass over them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.kernels.compiler import types
from lowprec.kernels.loops import EXACT_FLOATS, compile_as, swap_float_state

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]

_SIGN = np.uint64(1 << 63)
_MAGNITUDE = np.uint64((1 << 63) - 1)


def _mark(
    x: Array, y: Array, z: Array, marks: Array, low: Any, margin: Any, least: Any, most: Any
) -> Any:
    """Clip the magnitudes of z; mark those near a multiple of low + 1, and of special operands."""
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
