"""What lies beside scales whatever its names are: bytes of fp4 and fp6, codes of a byte each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.blocks import IntegerFormat
from lowprec.formats import (
    float4_e2m1fn,
    float6_e2m3fn,
    float8_e4m3fn,
    float8_e8m0fnu,
)
from lowprec.tensors.packings.parts import (
    BYTES,
    FP8,
    Found,
    Model,
    Parts,
    block_format,
    format_of_scales,
    need,
    values_of,
)
from lowprec.tensors.quantized import Codes, Scales

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lowprec.tensors.tensor import Tensor


def rows_and_width(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return how many rows there are in all, and how wide one is."""
    return math.prod(shape[:-1]), shape[-1]


def bytes_of_floats(
    packed: Tensor, scale: Tensor, in_all: Tensor | None, base: str, *, divides: bool
) -> Found:
    """Read fp4 or fp6 packed into bytes, whose scales' shape tells which."""
    rows, width = rows_and_width(packed.shape)
    lines, groups = rows_and_width(scale.shape)
    need(lines == rows and groups > 0, f"its scales have shape {scale.shape}")
    is_nvfp4 = scale.dtype == float8_e4m3fn.dtype
    choices = {(16, False): float4_e2m1fn, (24, False): float6_e2m3fn, (8, True): float4_e2m1fn}
    element = choices.get((-(-width // groups), is_nvfp4))
    need(
        element is not None and (is_nvfp4 or scale.dtype in BYTES),
        f"codes of shape {packed.shape} and scales of shape {scale.shape} and {scale.dtype}",
    )
    assert element is not None
    block = 16 if is_nvfp4 else 32
    columns = width * 8 // element.bits
    need(groups == -(-columns // block), "its codes and scales do not agree in number")
    need(in_all is None or is_nvfp4, "it has a tensor's scale beside powers of two")
    fmt = block_format(
        element, block, float8_e4m3fn if is_nvfp4 else float8_e8m0fnu, tensor_scale=is_nvfp4
    )
    kind = "nvfp4" if is_nvfp4 else f"mxfp{element.bits}"
    table = values_of(float8_e4m3fn if is_nvfp4 else float8_e8m0fnu)
    scales = Scales(scale, lines, groups, table, in_all, divides)
    return Parts(
        base,
        f"{kind}-pack-quantized",
        (*packed.shape[:-1], columns),
        fmt,
        Codes(packed, rows, columns, element.bits, width),
        values_of(element),
        scales,
        (1, block),
        (packed, scale, in_all),
    ).found()


def columns_per_scale(columns: int, groups: int, config: Mapping[str, Any]) -> int:
    """Return how many columns share a scale."""
    if columns % groups == 0:
        return columns // groups
    sizes = {int(n) for n in integers_told(config, "group_size") if n and int(n) > 0}
    fitting = [size for size in sizes if -(-columns // size) == groups]
    need(len(fitting) == 1, f"{groups} scales for {columns} columns")
    return fitting[0]


def integers_told(config: Any, key: str) -> Iterable[Any]:
    """Yield what the weights' part of a quantization_config says, wherever it stands."""
    if isinstance(config, dict):
        for name, value in config.items():
            if name == key and isinstance(value, int):
                yield value
            elif name not in ("input_activations", "output_activations"):
                yield from integers_told(value, key)


def plain_codes(model: Model, codes: Tensor, scale: Tensor, base: str, kind: str) -> Found:
    """Read codes of a byte each, with a scale for the tensor, rows, groups or tiles."""
    need(len(codes.shape) >= 1, f"codes of shape {codes.shape}")
    element: Any = FP8.get(codes.dtype) or IntegerFormat("int8", 8)
    rows, columns = (1, *codes.shape)[-2:]
    outer = math.prod(codes.shape[:-2])
    scale_format = format_of_scales(scale)
    grid = scale.shape + (1,) * (len(codes.shape) - len(scale.shape))
    if scale.size == 1:
        tile, lines, groups = (max(outer * rows, 1), max(columns, 1)), 1, 1
        block: Any = (max(rows, 1), max(columns, 1)) if len(codes.shape) > 1 else None
    else:
        need(len(grid) == len(codes.shape) > 1, f"scales {grid} for codes {codes.shape}")
        need(grid[:-2] == codes.shape[:-2], f"scales {grid} for codes {codes.shape}")
        lines, groups = grid[-2:]
        tile, block = _tile_of((rows, columns), (lines, groups), model.config)
        lines *= outer
    zero = model.get(f"{base}_zero_point")
    if zero is not None:
        kinds = (np.int8, codes.dtype)
        need(zero.dtype in kinds and zero.size == scale.size, "its zero points")
    offset = 128 if codes.dtype == np.uint8 else 0
    is_mx = scale_format == float8_e8m0fnu
    need(not is_mx or codes.dtype in FP8, "integers with powers of two for scales")
    packing = "mxfp8-quantized" if is_mx else f"{kind}-quantized"
    table = values_of(scale_format) if is_mx else None
    return Parts(
        base,
        packing,
        codes.shape,
        block_format(element, block, scale_format),
        Codes(codes, outer * rows, columns, 8, columns, offset=offset),
        values_of(element, is_offset=bool(offset)),
        Scales(scale, lines, groups, table, zero_points=zero, zero_offset=offset),
        tile,
        (codes, scale, zero),
    ).found()


def _tile_of(
    shape: tuple[int, int], grid: tuple[int, int], config: Mapping[str, Any]
) -> tuple[tuple[int, int], Any]:
    """Return the tile of a grid of scales, and the block of its format."""
    (rows, columns), (lines, groups) = shape, grid
    if lines == rows:
        block = columns_per_scale(columns, groups, config)
        return (1, block), None if groups == 1 else block
    told = config.get("weight_block_size") or _structure(config)
    is_told = isinstance(told, list | tuple) and len(told) == 2
    tiles = [tuple(told)] if is_told else [(128, 128)] if grid != (1, 1) else []
    for high, wide in tiles:
        if (
            type(high) is int
            and type(wide) is int
            and min(high, wide) > 0
            and grid == (-(-rows // high), -(-columns // wide))
        ):
            return (high, wide), (high, wide)
    need(lines > 0 and groups > 0 and rows % lines == 0 and columns % groups == 0, f"scales {grid}")
    tile = rows // lines, columns // groups
    return tile, tile


def _structure(config: Any) -> Any:
    if isinstance(config, dict):
        for name, value in config.items():
            if name == "block_structure" and value:
                return value
            if name != "input_activations" and (found := _structure(value)):
                return found
    return None
