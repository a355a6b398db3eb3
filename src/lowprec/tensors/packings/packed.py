"""Codes that share bytes or int32 words: compressed-tensors and ModelOpt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.blocks import IntegerFormat
from lowprec.tensors.bits import unpacked
from lowprec.tensors.packings.laid_out import (
    bytes_of_floats,
    columns_per_scale,
    integers_told,
    rows_and_width,
)
from lowprec.tensors.packings.parts import (
    Found,
    Model,
    Parts,
    UnknownLayoutError,
    block_format,
    format_of_scales,
    need,
    one_number,
    values_of,
)
from lowprec.tensors.quantized import Codes, Scales, rows_of

if TYPE_CHECKING:
    from lowprec.tensors.tensor import Array, Tensor


def read_packed(model: Model, name: str, base: str) -> Found | None:
    """Read ``weight_packed`` beside ``weight_scale``: fp4 and fp6 in bytes, integers in int32."""
    packed, scale = model.tensors[name], model.get(f"{base}_scale")
    if scale is None:
        raise UnknownLayoutError("it has the name of packed codes, and no scales beside it")
    need(len(packed.shape) >= 2 and len(scale.shape) == len(packed.shape), "its shapes")
    if packed.dtype == np.int32:
        return _read_int32(model, packed, scale, base)
    need(packed.dtype == np.uint8, f"its codes are {packed.dtype}")
    global_scale = one_number(model.get(f"{base}_global_scale"))
    return bytes_of_floats(packed, scale, global_scale, base, divides=True)


def _read_int32(model: Model, packed: Tensor, scale: Tensor, base: str) -> Found:
    """Read integers of 1 to 8 bits, packed into int32 along the rows, in offset binary."""
    shape_tensor = model.get(f"{base}_shape")
    need(shape_tensor is not None, "it has no weight_shape")
    assert shape_tensor is not None
    need(shape_tensor.size == len(packed.shape) <= 4, "its weight_shape")
    shape = tuple(int(n) for n in rows_of(shape_tensor, 0, shape_tensor.size))
    rows, words = rows_and_width(packed.shape)
    need(shape[:-1] == packed.shape[:-1] and 0 < shape[-1] <= words * 32, f"weight_shape {shape}")
    columns = shape[-1]
    widths = [bits for bits in range(1, 9) if -(-columns * bits // 32) == words]
    told = {int(n) for n in integers_told(model.config, "num_bits")}
    chosen = [bits for bits in widths if bits in told] or widths
    need(len(chosen) == 1, f"its elements may have {' or '.join(map(str, widths))} bits")
    bits = chosen[0]
    need(bits >= 2, "elements of 1 bit")
    lines, groups = rows_and_width(scale.shape)
    need(lines == rows and groups > 0, f"its scales have shape {scale.shape}")
    need(model.get(f"{base}_g_idx") is None, "its columns are permuted (g_idx)")
    block = columns_per_scale(columns, groups, model.config)
    element = IntegerFormat(f"int{bits}", bits)
    zero = model.get(f"{base}_zero_point")
    zeros: Any = None
    if zero is not None:
        need(zero.dtype == np.int32 and len(packed.shape) == 2, "its zero points")
        tall = -(-rows * bits // 32)
        need(zero.shape == (tall, groups), f"its zero points have shape {zero.shape}")
        zeros = _PackedDown(zero, rows, groups, bits)
    return Parts(
        base,
        "pack-quantized",
        shape,
        block_format(element, None if groups == 1 else block, format_of_scales(scale)),
        Codes(packed, rows, columns, bits, words * 4, offset=1 << (bits - 1)),
        values_of(element, is_offset=True),
        Scales(
            scale,
            lines,
            groups,
            None,
            zero_points=zeros,
            zero_offset=1 << (bits - 1),
        ),
        (1, block),
        (packed, scale, shape_tensor, zero),
    ).found()


class _PackedDown(NamedTuple):
    """Zero points that are packed into int32 down the columns: small, and read whole."""

    stored: Tensor
    height: int
    columns: int
    bits: int

    @property
    def rows(self) -> int:
        return self.columns

    def read(self, first: int, count: int) -> Array:
        words = rows_of(self.stored, 0, self.stored.size).reshape(-1, self.columns)
        packed = np.ascontiguousarray(words.T).view(np.uint8)
        return unpacked(packed, self.height, self.bits)
