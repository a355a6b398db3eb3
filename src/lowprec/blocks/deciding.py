"""Four over six where float64 cannot tell which scale has less error: in exact fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.exact import Number
from lowprec.exact.reference import decode_exact, round_exact
from lowprec.formats import float4_e2m1fn, float8_e4m3fn
from lowprec.kernels.blocks.loops import UNDECIDED
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from lowprec.blocks.layouts import Layout
    from lowprec.formats import Format

    Array = np.ndarray[Any, Any]


def decide(scales: Array, x: Array, layout: Layout, g: float) -> None:
    """Replace what is undecided by the scale with the smaller sum of squared errors; 6's on ties.

    Parameters
    ----------
    scales : ndarray of float64, (outer, rows, columns) of blocks
        Changed in place.
    x : ndarray
        The elements.
    layout : Layout
        How blocks lie in it.
    g : float
        The tensor's scale.
    """
    undecided = np.argwhere(scales == UNDECIDED)
    if not len(undecided):
        return
    elements = x.reshape(layout.flattened(x.shape))
    rows, columns = layout.tile
    for o, i, j in undecided:
        block = elements[o, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        magnitudes = [_exact(value) for value in block.flat]
        scales[o, i, j] = _better(magnitudes, Fraction(g))


def _exact(value: Any) -> Fraction:
    is_integer = isinstance(value, np.integer | np.bool_)
    return abs(Fraction(int(value)) if is_integer else Fraction(float(value)))


def _better(magnitudes: list[Fraction], g: Fraction) -> float:
    six, four = (_rounded(max(magnitudes) / (m * g), float8_e4m3fn) for m in (6, 4))
    smallest = Fraction(float8_e4m3fn.smallest_subnormal)
    six, four = max(six, smallest), max(four, smallest)
    return float(four if _error(magnitudes, four * g) < _error(magnitudes, six * g) else six)


def _error(magnitudes: list[Fraction], d: Fraction) -> Fraction:
    errors = (x - _rounded(x / d, float4_e2m1fn) * d for x in magnitudes)
    return sum((error * error for error in errors), Fraction(0))


def _rounded(x: Fraction, fmt: Format) -> Fraction:
    code = round_exact(Number(False, x), fmt, Rounding.TIES_TO_EVEN, Overflow.SATURATE)
    magnitude = decode_exact(code, fmt).magnitude
    assert isinstance(magnitude, Fraction)
    return magnitude
