"""What readers of packings share: a model's tensors, and what codes and scales become."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec import blocks
from lowprec.blocks import BlockFormat, IntegerFormat, ScaleRule
from lowprec.conversion import decode
from lowprec.formats import (
    Format,
    float8_e8m0fnu,
    float32,
    get_format,
)
from lowprec.tensors.quantized import Codes, Grid, QuantizedTensor, Scales

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lowprec.tensors.tensor import Array, Tensor


MOST_STATE_BYTES = 1 << 16


FP8 = {
    fmt.dtype: fmt
    for fmt in map(
        get_format, ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    )
}


BYTES = (np.dtype(np.uint8), np.dtype(float8_e8m0fnu.dtype))


class UnknownLayoutError(Exception):
    """The names are those of a packing, and the shapes are not."""


class Found(NamedTuple):
    """One quantized tensor: what it is called, what it becomes, and what it was."""

    tensor: QuantizedTensor
    used: tuple[str, ...]


class Model(NamedTuple):
    """All stored tensors by name, the files' texts and the model's quantization_config."""

    tensors: Mapping[str, Tensor]
    texts: Mapping[str, str]
    config: Mapping[str, Any]

    def get(self, name: str) -> Tensor | None:
        """Return a tensor, if there is one of this name."""
        return self.tensors.get(name)


@functools.cache
def values_of(fmt: Format | IntegerFormat, is_offset: bool = False) -> Array:
    """Return the value of each code, seen as uint8: offset binary, or two's complement."""
    codes = np.arange(256)
    if isinstance(fmt, IntegerFormat):
        half = 1 << (fmt.bits - 1)
        signed = codes - half if is_offset else np.where(codes >= half, codes - 2 * half, codes)
        return signed * fmt.step
    valid = (codes % (1 << fmt.bits)).astype(fmt.code_dtype)
    return np.asarray(decode(valid, fmt, dtype="float64"))


def format_of_scales(stored: Tensor) -> Format:
    """Return the format of a tensor of scales."""
    if stored.dtype in BYTES:
        return float8_e8m0fnu
    fmt = stored.fmt
    if not isinstance(fmt, Format) or not fmt.fits(float32):
        raise UnknownLayoutError(f"its scales are {stored.dtype}")
    return fmt


def block_format(element: Any, block: Any, scale: Format, *, tensor_scale: bool = False) -> Any:
    """Return the named format with these fields, or one that is described by them."""
    is_power = not scale.signed and scale.precision == 1
    rule = ScaleRule.FLOOR if is_power else ScaleRule.AMAX
    words = block if not isinstance(block, tuple) else f"{block[0]}x{block[1]}"
    name = f"{element}_{'channel' if block is None else words}"
    fmt = BlockFormat(name, element, block, scale, rule, tensor_scale)
    return blocks.get_format(fmt)


def need(condition: bool, words: str) -> None:
    """Refuse a layout, in these words, unless it is as expected."""
    if not condition:
        raise UnknownLayoutError(words)


def one_number(tensor: Tensor | None) -> Tensor | None:
    """Return a tensor of one float32 number, if there is one."""
    need(
        tensor is None or (tensor.size == 1 and tensor.dtype == np.float32),
        "its tensor's scale is not one float32 number",
    )
    return tensor


class Parts(NamedTuple):
    """What a packing's reader has found."""

    name: str
    packing: str
    shape: tuple[int, ...]
    fmt: BlockFormat
    codes: Codes
    values: Array
    scales: Scales
    tile: tuple[int, int]
    used: tuple[Tensor | None, ...]

    def found(self) -> Found:
        """Return the quantized tensor that these are."""
        stored = tuple(tensor for tensor in self.used if tensor is not None)
        period = (1, *self.shape)[-2]
        if self.scales.stored.size == 1:  # and all matrices are one
            period = self.codes.rows
        source = Grid(self.codes, self.scales, self.values, self.tile, period)
        grid = self.scales.stored.shape
        tensor = QuantizedTensor(
            self.name,
            self.shape,
            np.dtype(np.float32),
            source,
            self.fmt,
            packing=self.packing,
            stored=stored,
            scale_shape=grid if len(grid) == len(self.shape) else (self.scales.rows, 1),
            stored_scales=self.scales.stored,
            stored_tensor_scale=self.scales.tensor_scale,
        )
        return Found(tensor, tuple(one.name for one in stored))


def read_json(text: str) -> Any:
    """Return what a text of a file says; nothing where it is damaged or long."""
    try:
        return json.loads(text) if len(text) < MOST_STATE_BYTES else {}
    except (ValueError, RecursionError):
        return {}
