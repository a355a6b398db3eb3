"""Block formats by their definition, in fractions: what the tests hold `lowprec.blocks` to.

Nothing is shared with the library but the formats' fields: scales come from comparisons of
fractions, elements and scales from `oracle.round_exactly`, which divides integers.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import oracle

import lowprec as lp
from lowprec import BlockFormat, Format, IntegerFormat, ScaleRule

Draw = Any  # of an element's index in C order: its 32 random bits


class Block(NamedTuple):
    """One block, exactly."""

    scale: Fraction | None  # None: NaN
    elements: list[tuple[bool, Fraction]]  # whether the sign bit is set, and the magnitude


def largest(element: Format | IntegerFormat) -> Fraction:
    """Return M."""
    if isinstance(element, IntegerFormat):
        return (2 ** (element.bits - 1) - 1) / Fraction(2) ** element.fraction_bits
    return oracle.magnitude(oracle.finite_codes(element) - 1, element)


def round_element(
    x: Fraction, element: Format | IntegerFormat, negative: bool, rounding: str, random: int
) -> Fraction:
    """Round the magnitude x once, saturating."""

    def toss(f: Fraction) -> bool:
        if rounding == "stochastic":
            return random < math.floor(f * 2**32)
        return random < 2**31

    top = largest(element)
    if isinstance(element, IntegerFormat):
        unit = Fraction(2) ** -element.fraction_bits
        n, rest = divmod(x, unit)
        if rest:
            side = (2 * rest > unit) - (2 * rest < unit)
            drawn = toss(rest / unit)
            mode = lp.Rounding(rounding)
            n += bool(oracle._goes_away(mode, side, n % 2 == 1, negative, drawn))
        return min(n * unit, top)
    if x >= top:
        return top
    rounded = oracle.round_exactly(-x if negative else x, element, rounding, "saturate", toss)
    return Fraction(abs(rounded))


def floor_log2(x: Fraction) -> int:
    """Return the exponent of a positive number."""
    e = 0
    while Fraction(2) ** (e + 1) <= x:
        e += 1
    while Fraction(2) ** e > x:
        e -= 1
    return e


def power(amax: Fraction, fmt: BlockFormat) -> int:
    """Return e, by the sentences of the table of rules."""
    top = largest(fmt.element)
    emax, floor = floor_log2(top), floor_log2(amax)
    match fmt.rule:
        case ScaleRule.FLOOR:
            e = floor - emax
        case ScaleRule.CEIL:
            e = floor + (amax > Fraction(2) ** floor) - emax
        case ScaleRule.RCEIL:
            e = floor - emax - 3
            while amax > top * Fraction(2) ** e:
                e += 1
        case ScaleRule.EVEN:
            m = (
                fmt.element.bits - 2
                if isinstance(fmt.element, IntegerFormat)
                else fmt.element.precision - 1
            )
            significand = amax / Fraction(2) ** floor
            e = floor - emax + (significand >= 2 - Fraction(1, 2 ** (m + 1)))
        case _:
            raise AssertionError(fmt.rule)
    return min(max(e, fmt.scale.emin), fmt.scale.emax)


def tensor_scale(fmt: BlockFormat, amax: Fraction) -> Fraction:
    """Return g."""
    if not fmt.tensor_scale or amax == 0:
        return Fraction(1)
    most = 256 if fmt.rule is ScaleRule.FOUR_OVER_SIX else Fraction(fmt.scale.max)
    g = amax / (largest(fmt.element) * most)
    rounded = oracle.round_exactly(g, lp.float32, "ties_to_even", "saturate")
    return Fraction(rounded) or Fraction(1, 2**149)


def round_scale(s: Fraction, scale: Format) -> Fraction:
    """Round a positive scale to nearest; it does not become zero."""
    rounded = Fraction(oracle.round_exactly(s, scale, "ties_to_even", "saturate"))
    return rounded or Fraction(scale.smallest_subnormal)


def block_of(
    values: list[Any], fmt: BlockFormat, g: Fraction, rounding: str, randoms: list[int]
) -> Block:
    """Quantize one block of Python or NumPy numbers."""
    negative = [_is_negative(x) for x in values]
    if not all(isinstance(x, int | np.integer) or math.isfinite(x) for x in values):
        return Block(None, [(False, Fraction(0))] * len(values))
    sizes = [abs(exact(x)) for x in values]
    amax = max(sizes)
    scale = _scale(sizes, amax, fmt, g)
    elements = []
    for x, sign, random in zip(sizes, negative, randoms, strict=True):
        q = Fraction(0)
        if amax:
            q = round_element(x / (scale * g), fmt.element, sign, rounding, random)
        has_sign = sign and (q != 0 or _has_negative_zero(fmt.element))
        elements.append((has_sign, q))
    return Block(scale, elements)


def _scale(sizes: list[Fraction], amax: Fraction, fmt: BlockFormat, g: Fraction) -> Fraction:
    if fmt.rule not in (ScaleRule.AMAX, ScaleRule.FOUR_OVER_SIX):
        return Fraction(2) ** (power(amax, fmt) if amax else fmt.scale.emin)
    if not amax:
        return Fraction(0)
    if fmt.rule is ScaleRule.AMAX:
        return round_scale(amax / (largest(fmt.element) * g), fmt.scale)
    six, four = (round_scale(amax / (m * g), fmt.scale) for m in (6, 4))

    def error(s: Fraction) -> Fraction:
        rounded = (round_element(x / (s * g), fmt.element, False, "RNE", 0) for x in sizes)
        return sum(((q * s * g - x) ** 2 for q, x in zip(rounded, sizes, strict=True)), Fraction(0))

    return four if error(four) < error(six) else six


def _has_negative_zero(element: Format | IntegerFormat) -> bool:
    if isinstance(element, IntegerFormat):
        return False
    return element.specials is not lp.Specials.FNUZ


def _is_negative(x: Any) -> bool:
    return x < 0 or (not isinstance(x, int | np.integer) and math.copysign(1, x) < 0)


def exact(x: Any) -> Fraction:
    """Return a finite number as a fraction."""
    return Fraction(int(x)) if isinstance(x, int | np.integer) else Fraction(float(x))


def blocks(shape: tuple[int, ...], fmt: BlockFormat, axis: int) -> list[list[tuple[int, ...]]]:
    """Return the indices of the elements of each block, by sorting elements into blocks."""
    found: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for index in np.ndindex(*shape):
        key = list(index)
        if isinstance(fmt.block, tuple):
            key[-2] //= fmt.block[0]
            key[-1] //= fmt.block[1]
        else:
            key[axis] = 0 if fmt.block is None else key[axis] // fmt.block
        found.setdefault(tuple(key), []).append(index)
    return [found[key] for key in sorted(found)]


class Result(NamedTuple):
    """What quantizing an array must give."""

    values: np.ndarray[Any, Any]  # of dtype
    codes: np.ndarray[Any, Any]
    scales: np.ndarray[Any, Any]  # exact values as float64, in the order of the blocks
    g: float


def quantize(
    x: Any,
    fmt: BlockFormat,
    axis: int = -1,
    rounding: str = "ties_to_even",
    draw: Draw = None,
    tensor_amax: Any = None,
) -> Result:
    """Quantize an array element by element."""
    x = np.asarray(x)
    is_single = (x.dtype.kind == "f" and x.dtype.itemsize <= 4) or x.dtype.name == "bfloat16"
    dtype = np.float32 if is_single else np.float64
    items = x.astype(object) if x.dtype.kind in "iu" else x.astype(np.float64)
    amax = tensor_amax
    if amax is None:
        finite = [abs(exact(v)) for v in items.flat if isinstance(v, int) or math.isfinite(v)]
        amax = max(finite, default=Fraction(0))
    g = tensor_scale(fmt, amax if isinstance(amax, Fraction) else exact(amax))
    values, codes = np.zeros(x.shape, dtype), np.zeros(x.shape, np.int64)
    scales = []
    for block in blocks(x.shape, fmt, axis):
        randoms = [0 if draw is None else draw(np.ravel_multi_index(i, x.shape)) for i in block]
        found = block_of([items[i] for i in block], fmt, g, rounding, randoms)
        scales.append(math.nan if found.scale is None else float(found.scale))
        for index, (sign, q) in zip(block, found.elements, strict=True):
            if found.scale is None:
                values[index] = math.nan
                continue
            values[index] = as_float(q * found.scale * g, sign, dtype)
            codes[index] = code_of(q, sign, fmt.element)
    return Result(values, codes, np.array(scales), float(g))


def as_float(value: Fraction, negative: bool, dtype: Any) -> Any:
    """Round a magnitude once to float32 or float64, beyond which there is infinity."""
    fmt = lp.float32 if dtype == np.float32 else lp.float64
    rounded = oracle.round_exactly(value, fmt) if value else 0.0
    return math.copysign(rounded, -1.0 if negative else 1.0)


def code_of(q: Fraction, negative: bool, element: Format | IntegerFormat) -> int:
    """Return the code of an element by searching its value."""
    if isinstance(element, IntegerFormat):
        n = int(q * Fraction(2) ** element.fraction_bits)
        return -n if negative else n
    table = oracle.table(element)
    at = int(np.searchsorted(table.values, float(q)))
    assert table.values[at] == q
    return int(table.codes[at]) | (int(negative) << (element.bits - 1))


def expected_scales(result: Result, fmt: BlockFormat, shape: tuple[int, ...]) -> Any:
    """Return the stored scales: codes found by searching, or float32 numbers."""
    if fmt.scale == lp.float32:
        return result.scales.astype(np.float32).reshape(shape)
    table = oracle.table(fmt.scale)
    codes = []
    for s in result.scales:
        if math.isnan(s):
            codes.append(fmt.scale.nan_code)
        else:
            at = int(np.searchsorted(table.values, s))
            assert table.values[at] == s
            codes.append(int(table.codes[at]))
    return np.array(codes, fmt.scale.code_dtype).reshape(shape)
