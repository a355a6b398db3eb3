"""Conversions to block formats held to the right values, by cause.

The blocks are those on which implementations disagree: their largest magnitude lies at a threshold
of some rule of scales or one float32 step beside it, at every size from the least to the largest,
or they are zero, or hold what is not finite.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.analysis.conformance import (
    OTHER,
    Cases,
    Conformance,
    Difference,
    Judged,
    by_cause,
)
from lowprec.blocks import quantize
from lowprec.blocks.formats import BlockFormat, ScaleRule
from lowprec.conversion import round_to
from lowprec.formats import Format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lowprec.analysis.conformance import Conversion

    Array = np.ndarray[Any, Any]

_BLOCKS = 4096  # of each kind
_POWERS = (ScaleRule.FLOOR, ScaleRule.CEIL, ScaleRule.RCEIL, ScaleRule.EVEN)


def block_conformance(
    function: Conversion, fmt: BlockFormat, *, target: str | None = None
) -> Conformance:
    """Hold a conversion to a block format to the right values.

    function: Takes a float32 array of shape (blocks, elements of a block) and returns as many
        values.
    fmt: The format; its blocks lie along one axis, without a scale of the whole tensor.
    target: What to call it; the function's name by default.
    Returns: By cause: how many blocks differ; a counter-example is the element that differs of the
        block with the smallest amax.
    Raises ValueError if the format has tiles, whole axes or a tensor's scale, or the function
        returns another shape.
    """
    if not isinstance(fmt.block, int) or fmt.tensor_scale:
        raise ValueError(
            f"{fmt} has no blocks of its own along one axis; use a format such as mxfp8_e4m3"
        )
    judged = []
    for kind, x in _blocks(fmt):
        with np.errstate(all="ignore"):
            got = np.asarray(function(x.copy()))
        if got.shape != x.shape:
            raise ValueError(
                f"the function returned shape {got.shape} for {x.shape}; return an element each"
            )
        with np.errstate(all="ignore"):
            judged.append(_judged(Cases(kind, x), got, fmt))
    differences = [
        _difference(cause, places, one)
        for cause, found in by_cause(judged)
        for one, places in zip(judged, found, strict=True)
        if places.size
    ]
    total = sum(len(one.cases.x) for one in judged)
    differences.sort(key=lambda one: -one.count)
    name = target or str(getattr(function, "__name__", function))
    return Conformance(name, str(fmt), total, tuple(differences), "Cases are blocks.")


def _right(x: Array, fmt: BlockFormat) -> Array:
    values: Array = quantize(x, fmt).dequantize("float64")
    return values


def _wrong(got: Array, right: Array) -> Array:
    """Return which blocks differ; zeros are alike."""
    same: Array = ((got == right) | (np.isnan(got) & np.isnan(right))).all(axis=1)
    return ~same


def _judged(cases: Cases, got: Array, fmt: BlockFormat) -> Judged:
    """Say which blocks differ, and what would explain each of them."""
    ends_early = got.dtype == np.float32  # where some scales do not
    values, x = got.astype(np.float64), cases.x

    def under(rule: ScaleRule) -> Array:
        found = _right(x, dataclasses.replace(fmt, rule=rule))
        return found.astype(np.float32).astype(np.float64) if ends_early else found

    right = under(fmt.rule)
    explained = dict(_explanations(x, values, right, fmt, under))
    return Judged(cases, values, right, _wrong(values, right), explained)


def _explanations(
    x: Array, got: Array, right: Array, fmt: BlockFormat, under: Callable[[ScaleRule], Array]
) -> Iterator[tuple[str, Array]]:
    amax = np.abs(x).max(axis=1)
    finite = np.isfinite(amax)
    yield "blocks with NaN or infinity keep numbers", ~finite & ~np.isnan(got).all(axis=1)
    rules = [rule for rule in _POWERS if fmt.rule in _POWERS and rule is not fmt.rule]
    alike = {rule: ~_wrong(got, under(rule)) for rule in rules}
    for rule in sorted(rules, key=lambda rule: -int(alike[rule].sum())):
        yield f"the scale's rule is {rule.value}", alike[rule]
    if fmt.rule is ScaleRule.RCEIL and isinstance(fmt.element, Format):
        # just above M·2**e a scale from a float32 logarithm is one step too small
        top = fmt.element.max
        e = np.floor(np.log2(np.where(amax > 0, amax, 1).astype(np.float64) / top))
        above = amax / (top * np.exp2(e))
        near = finite & (above > 1) & (above < 1 + 2.0**-18)
        smaller = ~_wrong(got, _scaled_down(x, fmt))
        yield "the scale comes through a float32 logarithm", near & smaller
    zeroed = (got == 0).all(axis=1) & (right != 0).any(axis=1)
    yield "blocks of numbers become zero", zeroed
    tiny = finite & (amax < 2.0**-110)
    yield "the least scale, 2**-127, is divided by as another number", tiny & ~zeroed
    yield OTHER, np.ones(len(x), bool)


def _scaled_down(x: Array, fmt: BlockFormat) -> Array:
    """Return the values with every scale one step smaller, saturating."""
    found = quantize(x, fmt)
    scales = np.maximum(found.scales.astype(np.int64) - 1, 0)
    exponents = (scales - 127)[..., :1]
    with np.errstate(all="ignore"):
        y = np.ldexp(np.nan_to_num(x.astype(np.float64)), -exponents)
        assert isinstance(fmt.element, Format)
        elements = round_to(y, fmt.element, overflow="saturate_finite")
        values: Array = np.ldexp(elements, exponents)
    return values


def _difference(cause: str, places: Array, one: Judged) -> Difference:
    x, got, right = one.cases.x, one.got, one.right
    amax = np.abs(np.nan_to_num(x[places], nan=math.inf)).max(axis=1)
    block = places[int(amax.argmin())]
    differ = ~((got[block] == right[block]) | (np.isnan(got[block]) & np.isnan(right[block])))
    at = int(differ.argmax())
    numbers = (float(part[block, at]) for part in (x, got, right))
    return Difference(cause, int(places.size), len(x), one.cases.kind, *numbers)


# Blocks ------------------------------------------------------------------------------------------


def _blocks(fmt: BlockFormat) -> Iterator[tuple[str, Array]]:
    assert isinstance(fmt.block, int)
    rng = np.random.default_rng(fmt.block)
    top = fmt.element.max
    m = top / 2.0 ** math.floor(math.log2(top))
    t = getattr(fmt.element, "trailing_bits", fmt.element.bits - 2)
    turns = [1.0, m, 2 - 2.0 ** -(t + 1), 1.5]
    for kind, low, high in (
        ("blocks at the rules' thresholds", -100, 120),
        ("blocks of tiny numbers", -147, -110),
        ("blocks of huge numbers", 118, 128),
    ):
        amax = np.exp2(rng.integers(low, high, _BLOCKS)) * rng.choice(turns, _BLOCKS)
        amax = np.minimum(amax, np.finfo(np.float32).max).astype(np.float32)
        steps = rng.integers(-1, 2, _BLOCKS).astype(np.uint32)
        amax = np.clip((amax.view(np.uint32) + steps).view(np.float32), 1e-45, 3.4028235e38)
        yield kind, _filled(amax, fmt.block, rng)
    amax = np.exp2(rng.uniform(-60, 60, _BLOCKS)).astype(np.float32)
    yield "blocks of ordinary numbers", _filled(amax, fmt.block, rng)
    x = _filled(amax[:64], fmt.block, rng)
    x[:16] = 0
    x[16:32, 1] = np.nan
    x[32:48, -1] = np.inf
    x[48:, 0] = -np.inf
    yield "blocks of zeros, and with NaN or infinity", x


def _filled(amax: Array, size: int, rng: np.random.Generator) -> Array:
    """Return blocks with these largest magnitudes; half of them of numbers that make ties."""
    with np.errstate(all="ignore"):
        x = (rng.uniform(-1, 1, (len(amax), size)) * amax[:, None]).astype(np.float32)
        short = np.round(x[::2].astype(np.float64) / amax[::2, None] * 64) / 64
        x[::2] = (short * amax[::2, None]).astype(np.float32)
    x[:, 0] = amax * rng.choice(np.array([-1, 1], np.float32), len(amax))
    return np.clip(x, -amax[:, None], amax[:, None])
