"""Layouts in which quantized tensors are written, as vLLM and transformers read them.

NVFP4, MXFP4, MXFP6 and MXFP8 lie as compressed-tensors packs them, fp8 in tiles of 128 × 128 as
DeepSeek's models do. A tensor is read once for its codes and once for its scales (NVFP4: once more
for its largest magnitude), a few rows at a time.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec import blocks
from lowprec.blocks import quantize
from lowprec.formats import float8_e4m3fn
from lowprec.tensors.bits import packed
from lowprec.tensors.quantized import cut
from lowprec.tensors.sources import MadeInBlocks, as_tensor
from lowprec.tensors.tensor import Tensor, format_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lowprec.blocks import BlockFormat, Quantized
    from lowprec.rounding import Rounding
    from lowprec.tensors.tensor import Array

SLAB = 1 << 18  # elements, but whole rows of blocks
_NO_LINEAR_LAYER = re.compile(
    r"(^|[._])(\w*embed\w*|wte|wpe|lm_head|output_layer|score|classifier|\w*norm\w*)([._]|$)"
)


class _FileLayout(NamedTuple):
    """How a block format is written."""

    name: str  # as compressed-tensors calls it; "fp8" for DeepSeek's
    codes: str  # what is added to a tensor's name
    scales: str
    group: int  # columns that share a scale, of which a row has whole ones
    bits: int


def layout_for(fmt: BlockFormat) -> _FileLayout:
    """Return the layout of a block format, whatever rule finds its scales.

    Raises ValueError if other programs read none.
    """
    for named, layout in _LAYOUTS:
        fields = (named.element, named.block, named.scale, named.tensor_scale)
        if fields == (fmt.element, fmt.block, fmt.scale, fmt.tensor_scale):
            return layout
    names = ", ".join(named.name for named, _ in _LAYOUTS)
    raise ValueError(f"no layout that other programs read holds {fmt}; use one of {names}")


_LAYOUTS = (
    (blocks.nvfp4, _FileLayout("nvfp4-pack-quantized", "_packed", "_scale", 16, 4)),
    (blocks.mxfp4, _FileLayout("mxfp4-pack-quantized", "_packed", "_scale", 32, 4)),
    (blocks.mxfp6_e2m3, _FileLayout("mxfp6-pack-quantized", "_packed", "_scale", 32, 6)),
    (blocks.mxfp8_e4m3, _FileLayout("mxfp8-quantized", "", "_scale", 32, 8)),
    (blocks.fp8_128x128, _FileLayout("fp8", "", "_scale_inv", 1, 8)),
)


def can_be_quantized(tensor: Tensor, fmt: BlockFormat, *, is_asked_for: bool) -> bool:
    """Whether a tensor is a weight that a layout holds: a matrix of whole blocks.

    fp8 in tiles also holds the matrices of several experts in one tensor. Embeddings, norms and the
    output layer are left, as models are quantized, unless their names were asked for.
    """
    layout = layout_for(fmt)
    axes = (2, 3) if layout.name == "fp8" else (2,)
    if len(tensor.shape) not in axes or min(tensor.shape) < 1 or tensor.shape[-1] % layout.group:
        return False
    return is_asked_for or _NO_LINEAR_LAYER.search(tensor.name) is None


def quantized_parts(
    tensor: Tensor, fmt: BlockFormat, rounding: Rounding, *, is_plan: bool = False
) -> list[Tensor]:
    """Return the tensors in which a tensor is written, quantized while they are read.

    tensor: A matrix, or several in tiles.
    fmt: The format, of a layout.
    rounding: How elements are rounded; a deterministic mode.
    is_plan: Whether names, shapes and dtypes alone are asked for: nothing is read then.
    """
    layout = layout_for(fmt)
    *outer, rows, columns = tensor.shape
    amax = None
    if fmt.tensor_scale:
        amax = 0.0 if is_plan else _largest(tensor)
    work = _QuantizedMatrix(tensor, fmt, rounding, amax)
    codes = np.dtype(float8_e4m3fn.dtype) if layout.bits == 8 else np.dtype(np.uint8)
    if fmt.scale.dtype is not None and fmt.scale.precision > 1:
        scales = np.dtype(fmt.scale.dtype)
    else:
        scales = np.dtype(np.uint8)  # of powers of two: their biased exponents
    high, wide = fmt.block if isinstance(fmt.block, tuple) else (1, layout.group)
    grid = (*outer, -(-rows // high), -(-columns // wide))
    whole = (*outer, rows, columns * layout.bits // 8)
    parts = [
        _part(tensor, layout.codes, whole, codes, work, "codes"),
        _part(tensor, layout.scales, grid, scales, work, "scales"),
    ]
    if fmt.tensor_scale:
        g = np.float32(1.0) if is_plan else work.tensor_scale()
        with np.errstate(all="ignore"):  # values are divided by what is stored
            inverse = np.float32(1.0 / float(g))
        parts.append(as_tensor(f"{tensor.name}_global_scale", inverse.reshape(1)))
    return parts


def _part(
    tensor: Tensor,
    end: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    work: _QuantizedMatrix,
    kind: str,
) -> Tensor:
    source = _CodesOrScales(work, kind, shape, dtype)
    return Tensor(f"{tensor.name}{end}", shape, dtype, source, format_of(dtype))


def _largest(tensor: Tensor) -> float:
    largest = 0.0
    for block in tensor.values():
        sizes = np.abs(block.astype(np.float64))
        largest = max(largest, float(np.max(sizes, where=np.isfinite(sizes), initial=0.0)))
    return largest


@dataclasses.dataclass(frozen=True)
class _QuantizedMatrix:
    """A matrix and how it is quantized."""

    tensor: Tensor
    fmt: BlockFormat
    rounding: Rounding
    amax: float | None

    def slabs(self) -> Iterator[Quantized]:
        """Yield the quantized matrix, some rows of whole blocks at a time."""
        period, columns = self.tensor.shape[-2:]
        high = self.fmt.block[0] if isinstance(self.fmt.block, tuple) else 1
        rows = max(1, SLAB // (high * columns)) * high
        if len(self.tensor.shape) > 2 and period % high:
            rows = period  # tiles end where a matrix does
        for block in cut(self.tensor.values(), rows * columns):
            yield self._quantized(block.reshape(-1, columns))

    def _quantized(self, x: Array) -> Quantized:
        if x.dtype.itemsize < 4:
            x = x.astype(np.float32)
        return quantize(x, self.fmt, rounding=self.rounding.value, tensor_amax=self.amax)

    def tensor_scale(self) -> np.float32:
        """Return what `quantize` multiplies by; 1 where nothing is finite."""
        group = self.fmt.block if isinstance(self.fmt.block, int) else 16
        found = self._quantized(np.zeros((1, group), np.float32)).tensor_scale
        assert found is not None, "the format has one"
        return found


@dataclasses.dataclass(frozen=True)
class _CodesOrScales(MadeInBlocks):
    """Codes or scales of a matrix, made while they are read."""

    work: _QuantizedMatrix
    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def blocks(self, elements: int) -> Iterator[Array]:
        """Yield all elements, in blocks of this many."""
        return cut(self._slabs(), elements)

    def _slabs(self) -> Iterator[Array]:
        bits = self.work.fmt.element.bits
        for slab in self.work.slabs():
            made = packed(slab.codes, bits) if self.kind == "codes" else slab.scales
            flat = np.ascontiguousarray(made).reshape(-1)
            yield flat if flat.dtype == self.dtype else flat.view(self.dtype)


# What a model says of itself in config.json -----------------------------------------------------


def quantization_config_of(
    formats: Mapping[BlockFormat, Sequence[str]], left: Sequence[str]
) -> dict[str, Any]:
    """Return the ``quantization_config`` of a model that was written in layouts.

    formats: The layers whose weights were quantized, by format.
    left: The layers whose weights were not.
    Raises ValueError if DeepSeek's layout is mixed with others, which no program reads.
    """
    layouts = {fmt: layout_for(fmt) for fmt in formats}
    if any(layout.name == "fp8" for layout in layouts.values()):
        if len(formats) > 1:
            raise ValueError("fp8_128x128 is a layout of whole models; leave other formats away")
        return {
            "quant_method": "fp8",
            "activation_scheme": "dynamic",
            "weight_block_size": [128, 128],
            "modules_to_not_convert": list(left),
        }
    is_mixed = len(formats) > 1
    groups = {
        f"group_{i}": {
            "targets": list(layers) if is_mixed else ["Linear"],
            "weights": _weights(fmt, layouts[fmt]),
            "input_activations": None,
            "output_activations": None,
            "format": layouts[fmt].name,
        }
        for i, (fmt, layers) in enumerate(formats.items())
    }
    one = next(iter(layouts.values())).name
    return {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision" if is_mixed else one,
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "config_groups": groups,
        "ignore": list(left),
    }


def _weights(fmt: BlockFormat, layout: _FileLayout) -> dict[str, Any]:
    return {
        "num_bits": layout.bits,
        "type": "float",
        "symmetric": True,
        "strategy": "tensor_group" if fmt.tensor_scale else "group",
        "group_size": layout.group,
        "dynamic": False,
        "scale_dtype": "torch.float8_e4m3fn" if fmt.tensor_scale else "torch.uint8",
    }
