"""What a block format does to an array: the figures of any format, what clips, and which scales."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.analysis.variation import BlockVariations
from lowprec.arrays.sources import kernel_dtype
from lowprec.blocks import BlockFormat, IntegerFormat, ScaleRule, quantize
from lowprec.blocks.layouts import layout_of
from lowprec.blocks.quantizing import tensor_amax_of
from lowprec.blocks.streams import can_be_streamed, pieces_in_order
from lowprec.common.randomness import draw_key
from lowprec.formats import float32
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lowprec.analysis.measurement import Measurement
    from lowprec.arrays.sources import InBlocks
    from lowprec.blocks.layouts import Layout
    from lowprec.blocks.quantized import Quantized

    Array = np.ndarray[Any, Any]

_PIECE = 1 << 18  # elements
_LEAST = 2.0**-1074


def measure_array(
    x: Array | InBlocks,
    fmt: BlockFormat,
    rounding: Rounding,
    rng: Any,
    axis: int,
    tensor_amax: Any = None,
) -> Measurement:
    """Quantize an array, or the tensor of a file, piece by piece and tally what happened.

    See `lowprec.measure`. A tensor is read by piece where its blocks follow one another.
    """
    layout = layout_of(fmt, getattr(x, "shape", ()), axis)
    if not isinstance(x, np.ndarray) and (rounding.is_stochastic or not can_be_streamed(layout)):
        x = in_memory(x)
    if fmt.tensor_scale and tensor_amax is None:
        blocks = [x] if isinstance(x, np.ndarray) else x.__lowprec_blocks__()
        tensor_amax = as_number(max(map(tensor_amax_of, blocks), default=Fraction(0)))
    tally = _BlockTally(fmt, rounding)
    key = np.random.SeedSequence(draw_key(rng)) if rounding.is_stochastic else None
    limit = math.prod(layout.shape) if rounding.is_stochastic else _PIECE
    for part in _parts(x, layout, limit) if math.prod(layout.shape) else ():
        how: dict[str, Any] = {"rounding": rounding, "rng": key, "tensor_amax": tensor_amax}
        tally.add(part, quantize(part, fmt, axis=axis, **how))
    return tally.result()


def _parts(x: Array | InBlocks, layout: Layout, limit: int) -> Iterator[Array]:
    if isinstance(x, np.ndarray):
        return (x[piece] for piece in layout.pieces(limit))
    return pieces_in_order(x.__lowprec_blocks__(), layout, limit)


def in_memory(x: InBlocks) -> Array:
    """Return the tensor of a file as an array."""
    parts = list(x.__lowprec_blocks__())
    joined = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return joined.reshape(getattr(x, "shape", joined.shape))


def as_number(amax: Fraction) -> int | float:
    """Return the largest magnitude of integers or of floats, exactly."""
    return amax.numerator if amax.denominator == 1 else float(amax)


class _BlockTally:
    """The figures of a measurement, added up."""

    def __init__(self, fmt: BlockFormat, rounding: Rounding) -> None:
        from lowprec.analysis.counting import FormatTally

        # Elements are never beyond a largest value here: what clips has an error, and is counted.
        self.sums = FormatTally(float32, rounding, Overflow.SATURATE, 0)
        self.sums.limits[:] = [math.inf, _LEAST, _LEAST, 0.0, 0.0, 0.0, 0.0]
        self.fmt = fmt
        self.subnormals = self.clipped = self.blocks = self.clamped = 0
        self.max_ulps = 0.0
        self.variations = None if rounding.is_stochastic else BlockVariations(fmt.element)

    def add(self, x: Array, quantized: Quantized) -> None:
        """Add an array and what it became."""
        fmt, layout = self.fmt, layout_of(self.fmt, x.shape, quantized.axis)
        values = quantized.dequantize("float64")
        source = x.astype(kernel_dtype(x.dtype), copy=False)
        self.sums.add_rounded(np.ascontiguousarray(source).reshape(-1), values.reshape(-1))
        flat = layout.flattened(x.shape)
        wide = source.astype(np.float64).reshape(flat)
        if self.variations is not None:
            self.variations.look(*(_rows(each, layout) for each in (wide, values.reshape(flat))))
        size, rounded = np.abs(wide), np.abs(values).reshape(flat)
        divisors = _spread(
            _divisors(quantized).reshape(layout.flattened(layout.scale_shape)), layout, flat
        )
        kept = np.isfinite(rounded) & np.isfinite(size) & (size > 0)
        top = fmt.element.max * divisors
        self.clipped += int((size[kept] > top[kept]).sum())
        if not isinstance(fmt.element, IntegerFormat):
            small = fmt.element.smallest_normal * divisors
            self.subnormals += int((kept & (rounded > 0) & (rounded < small)).sum())
        if kept.any():
            steps = _steps(size[kept] / divisors[kept], fmt) * divisors[kept]
            error = np.abs(size[kept] - rounded[kept])
            self.max_ulps = max(self.max_ulps, float((error / steps).max()))
        self.blocks += quantized.scales.size
        self.clamped += _count_clamped(size, layout, quantized)

    def result(self) -> Measurement:
        """Return the measurement."""
        looked = self.variations
        rounding, policy = self.sums.rounding, Overflow.IEEE
        return dataclasses.replace(
            self.sums.result(),
            fmt=self.fmt,
            overflow=policy,
            subnormals=self.subnormals,
            max_ulp_error=self.max_ulps,
            clipped=self.clipped,
            blocks=self.blocks,
            clamped_blocks=self.clamped,
            sample=None if looked is None else looked.result(self.fmt, rounding, policy),
        )


def _rows(x: Array, layout: Layout) -> Array:
    """Return whole blocks as rows; what is left at the ends of an array is left out."""
    count, (rows, columns) = (
        len(x),
        (min(pair) for pair in zip(layout.tile, x.shape[1:], strict=True)),
    )
    down, along = x.shape[1] // rows, x.shape[2] // columns
    tiles = x[:, : down * rows, : along * columns].reshape(count, down, rows, along, columns)
    return tiles.swapaxes(2, 3).reshape(-1, rows * columns)


def _divisors(quantized: Quantized) -> Array:
    """Return scale times tensor scale of each block; 1 where that is 0, NaN where it is NaN."""
    g = 1.0 if quantized.tensor_scale is None else float(quantized.tensor_scale)
    d = quantized.scale_values() * g
    return np.where(d == 0, 1.0, d)


def _spread(blocks: Array, layout: Layout, flat: tuple[int, int, int]) -> Array:
    """Return a block's number for each of its elements."""
    rows, columns = layout.tile
    wide = np.repeat(np.repeat(blocks, rows, axis=1), columns, axis=2)
    return wide[:, : flat[1], : flat[2]]


def _steps(sizes: Array, fmt: BlockFormat) -> Array:
    """Return the distance of the elements' neighbours at a magnitude."""
    element = fmt.element
    if isinstance(element, IntegerFormat):
        return np.full(sizes.shape, element.step)
    exponents = np.frexp(sizes)[1] - 1
    lowest = element.emin + (0 if element.subnormals else element.trailing_bits)
    steps: Array = np.ldexp(1.0, np.maximum(exponents, lowest) - element.trailing_bits)
    return steps


def _count_clamped(size: Array, layout: Layout, quantized: Quantized) -> int:
    """Return how many blocks asked for a scale beyond the scales' range."""
    fmt, (rows, columns) = quantized.fmt, layout.tile
    outer, high, wide = size.shape
    down, across = -(-high // rows), -(-wide // columns)
    padded = np.zeros((outer, down * rows, across * columns))
    padded[:, :high, :wide] = np.where(np.isfinite(size), size, 0)
    amax = padded.reshape(outer, down, rows, across, columns).max((2, 4))
    whole = np.isfinite(quantized.scale_values().reshape(amax.shape)) & (amax > 0)
    amax = amax[whole]
    g = 1.0 if quantized.tensor_scale is None else float(quantized.tensor_scale)
    scale = fmt.scale
    if fmt.rule in (ScaleRule.AMAX, ScaleRule.FOUR_OVER_SIX):
        asked = amax / (fmt.element.max * g)
        half = math.ldexp(1.0, scale.emax - scale.trailing_bits - 1)
        return int(((asked > scale.max + half) | (asked <= scale.smallest_subnormal / 2)).sum())
    significand, e = np.frexp(amax)
    grows = {
        ScaleRule.FLOOR: False,
        ScaleRule.CEIL: significand > 0.5,
        ScaleRule.RCEIL: significand > math.frexp(fmt.element.max)[0],
        ScaleRule.EVEN: significand >= 1 - 2.0 ** -(fmt.element.trailing_bits + 2),
    }[fmt.rule]
    asked = e - 1 - fmt.element.emax + grows
    return int(((asked < scale.emin) | (asked > scale.emax)).sum())
