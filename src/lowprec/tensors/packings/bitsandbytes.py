"""Packings of bitsandbytes: nf4 and fp4, whose scales may be quantized too."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from lowprec.formats import (
    float32,
)
from lowprec.tensors.packings.parts import MOST_STATE_BYTES, Found, Model, need, read_json
from lowprec.tensors.quantized import Codes, Flat, QuantizedTensor, rows_of

if TYPE_CHECKING:
    from lowprec.tensors.tensor import Array, Tensor


def read_bits(model: Model, name: str, base: str) -> Found | None:
    """Read nf4 and fp4 of bitsandbytes: blocks of the flat tensor, their scales quantized too."""
    state_tensor, codes = model.tensors[name], model.get(base)
    absmax, book = model.get(f"{base}.absmax"), model.get(f"{base}.quant_map")
    need(
        codes is not None and absmax is not None and book is not None, "codes, absmax or quant_map"
    )
    assert codes is not None
    assert absmax is not None
    assert book is not None
    need(state_tensor.nbytes <= MOST_STATE_BYTES, "its state is too long")
    state = read_json(
        rows_of(state_tensor, 0, state_tensor.size).tobytes().decode("utf-8", "replace")
    )
    need(isinstance(state, dict), "its state is damaged")
    shape, block = state.get("shape"), state.get("blocksize")
    need(
        isinstance(shape, list)
        and all(type(n) is int and n > 0 for n in shape)
        and type(block) is int
        and block > 0
        and block % 2 == 0,
        "its state is damaged",
    )
    size = math.prod(shape)
    need(codes.dtype == np.uint8 and codes.size == -(-size // 2), f"{codes.size:,} bytes of codes")
    count = -(-size // block)
    need(absmax.size == count and book.size == 16, "its scales or its table")
    values = rows_of(book, 0, 16).astype(np.float64)
    nested, nested_book = model.get(f"{base}.nested_absmax"), model.get(f"{base}.nested_quant_map")
    nested_block, offset = state.get("nested_blocksize"), state.get("nested_offset", 0.0)
    if nested is None:
        need(absmax.dtype == np.float32, f"its scales are {absmax.dtype}")
        read = functools.partial(_plain_absmax, absmax)
    else:
        need(
            nested_book is not None
            and nested_book.size == 256
            and absmax.dtype == np.uint8
            and type(nested_block) is int
            and nested_block > 0
            and nested.size == -(-count // nested_block)
            and isinstance(offset, float | int),
            "its nested scales",
        )
        assert nested_book is not None
        read = functools.partial(
            _nested_absmax, absmax, nested, nested_book, nested_block, float(offset)
        )
    used = (codes, absmax, book, nested, nested_book, state_tensor)
    stored = tuple(tensor for tensor in used if tensor is not None)
    source = Flat(Codes(codes, 1, size, 4, codes.size, is_high_first=True), values, read, block)
    kind = str(state.get("quant_type", "nf4"))
    tensor = QuantizedTensor(
        base,
        tuple(shape),
        np.dtype(np.float32),
        source,
        float32,
        packing=f"bitsandbytes {kind:.20}",
        stored=stored,
        scale_shape=(count,),
        stored_scales=absmax,
    )
    return Found(tensor, tuple(one.name for one in stored))


def _plain_absmax(absmax: Tensor, first: int, count: int) -> Array:
    return rows_of(absmax, first, count).astype(np.float64)


def _nested_absmax(
    absmax: Tensor,
    nested: Tensor,
    book: Tensor,
    block: int,
    offset: float,
    first: int,
    count: int,
) -> Array:
    """Return scales that are codes themselves: float32 arithmetic, as the library has it."""
    codes = rows_of(absmax, first, count)
    table = rows_of(book, 0, 256).astype(np.float32)
    begin = first // block
    coarse = rows_of(nested, begin, -(-(first + count) // block) - begin).astype(np.float32)
    spread = np.repeat(coarse, block)[first - begin * block :][:count]
    return (table[codes] * spread + np.float32(offset)).astype(np.float64)
