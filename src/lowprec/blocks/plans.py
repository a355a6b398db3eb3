"""From a block format to what kernels know of it: numbers alone."""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.blocks.formats import BlockFormat, IntegerFormat, ScaleRule
from lowprec.kernels.blocks.loops import AMAX, FOUR_OVER_SIX, POWER_OF_TWO
from lowprec.kernels.blocks.quotients import Grid

if TYPE_CHECKING:
    from lowprec.formats import Format

    Array = np.ndarray[Any, Any]

__all__ = ["Plan", "plan_of", "scale_for_tensor"]


class Plan(NamedTuple):
    """What kernels know of a block format."""

    kind: int  # of rule
    rule: Array  # lowest, highest, emax, threshold and whether zero is a scale
    grids: Array  # of elements and scales
    largest: float  # M
    refuses_nan: bool  # the scale has no NaN


@functools.lru_cache(maxsize=256)
def plan_of(fmt: BlockFormat) -> Plan:
    """Return the plan of a block format."""
    scale = fmt.scale
    kind = AMAX
    rule = [0, 0, 0, 0, 0]
    if fmt.rule is ScaleRule.FOUR_OVER_SIX:
        kind = FOUR_OVER_SIX
    elif fmt.rule is not ScaleRule.AMAX:
        kind = POWER_OF_TWO
        rule = [scale.emin, scale.emax, fmt.element.emax, _threshold(fmt), int(scale.has_zero)]
    grids = np.array([grid_of(fmt.element), grid_of(scale)], np.int64)
    return Plan(kind, np.array(rule, np.int64), grids, fmt.element.max, not scale.has_nan)


def grid_of(fmt: Format | IntegerFormat) -> Grid:
    """Return the grid of a format's magnitudes."""
    if isinstance(fmt, IntegerFormat):  # all in the two lowest binades, whose steps are equal
        return Grid(fmt.trailing_bits, fmt.emax, fmt.max_code, 0, 0, 2, 0)
    flush = int(not fmt.subnormals and fmt.precision > 1)
    style = int(not fmt.has_negative_zero)
    infinity = fmt.infinity_code or 0
    shift = fmt.bits - int(fmt.signed)
    return Grid(fmt.trailing_bits, fmt.emin, fmt.max_code, flush, shift, style, infinity)


def _threshold(fmt: BlockFormat) -> int:
    """Return from where on a significand takes the larger power, as twice its 52 trailing bits.

    The last bit says whether anything remains below them.
    """
    m, e = math.frexp(fmt.element.max)
    trailing_of_max = int((2 * m - 1) * 2**52)
    match fmt.rule:
        case ScaleRule.FLOOR:
            return 1 << 54
        case ScaleRule.CEIL:
            return 1
        case ScaleRule.RCEIL:
            return 2 * trailing_of_max + 1
        case ScaleRule.EVEN:
            return 2 * (2**52 - 2 ** (51 - fmt.element.trailing_bits))
        case ScaleRule.AMAX | ScaleRule.FOUR_OVER_SIX:
            raise AssertionError(fmt.rule)


def scale_for_tensor(fmt: BlockFormat, amax: Fraction) -> float:
    """Return g, the tensor's scale for its largest magnitude: one rounding of A/(M·S) to float32.

    1 for a tensor of zeros; never 0 and never infinite.
    """
    if amax == 0:
        return 1.0
    quotient = amax / Fraction(fmt.tensor_divisor)
    return max(min(_to_float32(quotient), float(np.finfo(np.float32).max)), 2.0**-149)


def _to_float32(x: Fraction) -> float:
    """Return a positive fraction rounded to nearest, ties to even, as a float32 with any emax."""
    e = x.numerator.bit_length() - x.denominator.bit_length()
    e = max(e if x >= Fraction(2) ** e else e - 1, -126)
    if e > 200:
        return math.inf
    return round(x / Fraction(2) ** (e - 23)) * 2.0 ** (e - 23)
