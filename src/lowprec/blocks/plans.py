"""From a block format to what kernels know of it: numbers alone."""

from __future__ import annotations

import functools
import itertools
import math
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.blocks.formats import BlockFormat, IntegerFormat, ScaleRule
from lowprec.kernels.blocks.conversion import make_conversion
from lowprec.kernels.blocks.loops import AMAX, FOUR_OVER_SIX, POWER_OF_TWO
from lowprec.kernels.blocks.quotients import MagnitudeGrid
from lowprec.kernels.blocks.vector_facts import (
    FEW,
    LONG,
    ONE,
    SEVERAL,
    BlockConstants,
    BlockRule,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.formats import Format

    Array = np.ndarray[Any, Any]


class BlockPlan(NamedTuple):
    """What kernels know of a block format."""

    kind: int  # of rule
    rule: Array  # lowest, highest, emax, threshold and whether zero is a scale
    grids: Array  # of elements and scales
    largest: float  # M
    refuses_nan: bool  # the scale has no NaN


@functools.lru_cache(maxsize=256)
def plan_of(fmt: BlockFormat) -> BlockPlan:
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
    return BlockPlan(kind, np.array(rule, np.int64), grids, fmt.element.max, not scale.has_nan)


def grid_of(fmt: Format | IntegerFormat) -> MagnitudeGrid:
    """Return the grid of a format's magnitudes."""
    if isinstance(fmt, IntegerFormat):  # all in the two lowest binades, whose steps are equal
        return MagnitudeGrid(fmt.trailing_bits, fmt.emax, fmt.max_code, 0, 0, 2, 0)
    flush = int(not fmt.subnormals and fmt.precision > 1)
    style = int(not fmt.has_negative_zero)
    infinity = fmt.infinity_code or 0
    shift = fmt.bits - int(fmt.signed)
    return MagnitudeGrid(fmt.trailing_bits, fmt.emin, fmt.max_code, flush, shift, style, infinity)


def _threshold(fmt: BlockFormat) -> int:
    """Return from where on a significand takes the larger power, as twice its 52 trailing bits.

    The last bit says whether anything remains below them.
    """
    m, _ = math.frexp(fmt.element.max)
    trailing_of_max = int((2 * m - 1) * 2**52)
    match fmt.rule:
        case ScaleRule.FLOOR:
            return 1 << 54
        case ScaleRule.CEIL:
            return 1
        case ScaleRule.RCEIL:
            return 2 * trailing_of_max + 1
        case ScaleRule.EVEN:
            return (1 << 53) - (1 << (52 - fmt.element.trailing_bits))
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


# Vectors -----------------------------------------------------------------------------------------

_FEW_LANES, _MOST_LANES, _COLUMN_LANES = 16, 32, 64
_FLOAT32_BIAS, _FLOAT64_BIAS = 127, 1023
_DIVISOR, _TENSOR = map(BlockConstants._fields.index, ("divisor", "tensor"))


class VectorConversion(NamedTuple):
    """What converts vectors of float32 to a block format."""

    convert: Callable[..., None]
    tile: Array
    constants: Array  # for a tensor scale of 1
    largest: float  # M, where there is a tensor scale, else 0

    def constants_for(self, g: float) -> Array:
        """Return the constants for a tensor scale."""
        if not self.largest:
            return self.constants
        changed = self.constants.copy()
        changed[_DIVISOR], changed[_TENSOR] = _double_bits(self.largest * g), _double_bits(g)
        return changed


@functools.lru_cache(maxsize=1024)
def vector_conversion(
    fmt: BlockFormat, tile: tuple[int, int], target: np.dtype[Any], parallel: bool
) -> VectorConversion | None:
    """Return what converts vectors of float32; None if no rule serves."""
    found = _vector_rule(fmt, tile, target.name)
    if found is None:
        return None
    rule, constants = found
    largest = fmt.element.max if fmt.tensor_scale else 0.0
    convert = make_conversion(rule, parallel)
    return VectorConversion(convert, np.array(tile, np.int64), constants, largest)


def _vector_rule(
    fmt: BlockFormat, tile: tuple[int, int], target: str
) -> tuple[BlockRule, Array] | None:
    """Return the rule that converts vectors of float32, and its constants; None if none serves."""
    facts = _vector_facts(fmt)
    if facts is None:
        return None
    kind, constants, strict = facts
    quick = int(kind != "power" and _is_quick(fmt))
    down, across = tile
    most = _MOST_LANES if kind == "power" else _FEW_LANES
    style = grid_of(fmt.element).style
    if across == 1 and down > 1:
        lanes = _COLUMN_LANES if kind == "power" else _FEW_LANES
        return BlockRule(kind, True, SEVERAL, lanes, style, target, strict, quick), constants
    lanes = math.gcd(across, most)
    if lanes < 8 or (down > 1 and lanes != across):
        lanes = across if across in (8, 16, 32, 64, 128) else 0
    if not lanes:
        return None
    rows = ONE if tile == (1, lanes) else LONG if down == 1 else SEVERAL
    return BlockRule(kind, False, rows, lanes, style, target, strict, quick), constants


def _vector_facts(fmt: BlockFormat) -> tuple[str, Array, int] | None:
    grid = grid_of(fmt.element)
    if grid.flush or fmt.rule is ScaleRule.FOUR_OVER_SIX:
        return None
    if grid.trailing_bits == 0:  # ties go by the exponent, whose parity vectors do not look at
        return None
    if fmt.rule is not ScaleRule.AMAX:
        return _power_facts(fmt, grid)
    scale, t = fmt.scale, grid.trailing_bits
    wide = scale.precision + (24 if fmt.tensor_scale else 0)  # bits of a divisor
    of_max = grid.max_code.bit_length()
    if scale.precision + 1 + of_max + (24 if fmt.tensor_scale else 0) > 53 or t + 2 + wide > 53:
        return None
    if not scale.subnormals and scale.precision > 1:
        return None
    fields: dict[str, Any] = {
        "zero_scale": 0,
        "divisor": _double_bits(fmt.element.max),
        "tensor": _double_bits(1.0),
        "scale_emin": (scale.emin + _FLOAT64_BIAS) << 52,
        "scale_dropped": 52 - scale.trailing_bits,
        "scale_top": _double_bits(scale.max),
        "scale_least": _double_bits(scale.smallest_subnormal),
        "max_code": grid.max_code,
        "sign_shift": 31 - grid.sign_shift,
    }
    if _is_quick(fmt):
        fields["quick_emin"] = (grid.emin + _FLOAT32_BIAS) << 23
        fields["quick_dropped"] = 23 - t
        fields["quick_top"] = _single_bits(fmt.element.max)
    if grid.max_code < FEW:
        values = [float(_value(code, grid)) for code in range(grid.max_code + 1)]
        middles = [(a + b) / 2 for a, b in itertools.pairwise(values)]
        fields["middles"] = tuple(map(_double_bits, middles))
        fields["values"] = tuple(map(_double_bits, values))
        strict = sum(1 << i for i in range(0, len(middles), 2))
        return "few", BlockConstants(**fields).array(), strict
    fields["emin"] = (grid.emin + _FLOAT64_BIAS) << 52
    fields["dropped"] = 52 - t
    fields["top"] = _double_bits(fmt.element.max)
    return "quotient", BlockConstants(**fields).array(), 0


def _is_quick(fmt: BlockFormat) -> bool:
    """Whether quotients, elements and products with both parts of a divisor suit float32."""
    grid = grid_of(fmt.element)
    rest = fmt.scale.precision if fmt.tensor_scale else 0
    is_usual = grid.emin >= -80 and fmt.element.emax <= 80
    return is_usual and grid.trailing_bits <= 10 and grid.trailing_bits + 1 + rest <= 24


def _power_facts(fmt: BlockFormat, grid: MagnitudeGrid) -> tuple[str, Array, int] | None:
    t, scale, emax = grid.trailing_bits, fmt.scale, fmt.element.emax
    if t > 20 or scale.has_zero:
        return None
    # e and emin + e are exponents of normal float32 numbers, and so are those of the addends
    lowest = emax + max(-126, -126 - grid.emin, scale.emin)
    highest = min(126 - 23 + t - 1, scale.emax + emax - 1, 125)
    if lowest > highest or emax > 126:
        return None
    largest = _single_bits(fmt.element.max)
    trailing_of_max = largest & 0x7FFFFF
    grows = {
        ScaleRule.FLOOR: 0,
        ScaleRule.CEIL: (1 << 23) - 1,
        ScaleRule.RCEIL: (1 << 23) - 1 - trailing_of_max,
        ScaleRule.EVEN: 1 << (22 - t),
    }[fmt.rule]
    start = max(lowest + _FLOAT32_BIAS, 1) << 23
    constants = BlockConstants(
        lowest=start,
        span=((highest + 1 + _FLOAT32_BIAS) << 23) - start,
        grows=grows,
        emax=emax << 23,
        emin=grid.emin << 23,
        dropped=23 - t,
        top=largest,
        max_code=grid.max_code,
        sign_shift=31 - grid.sign_shift,
        zero_scale=_double_bits(scale.smallest_normal),
    )
    return "power", constants.array(), 0


def _value(code: int, grid: MagnitudeGrid) -> Fraction:
    t = grid.trailing_bits
    field, trailing = code >> t, code & ((1 << t) - 1)
    if field == 0:
        return trailing * Fraction(2) ** (grid.emin - t)
    return ((1 << t) | trailing) * Fraction(2) ** (grid.emin + field - 1 - t)


def _double_bits(x: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", x))[0])


def _single_bits(x: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", x))[0])
