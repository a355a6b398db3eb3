"""Elements of a few bits, packed into bytes and taken out again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


def unpacked(packed: Array, columns: int, bits: int, is_high_first: bool = False) -> Array:
    """Return the elements of rows of bytes as uint8."""
    if bits == 8:
        return packed[:, :columns]
    if bits == 4:
        pair = [packed & 15, packed >> 4]
        codes = np.stack(pair[::-1] if is_high_first else pair, axis=-1)
        return codes.reshape(len(packed), -1)[:, :columns]
    flags = np.unpackbits(packed, axis=-1, count=columns * bits, bitorder="little")
    flags = flags.reshape(len(packed), columns, bits)
    return np.packbits(flags, axis=-1, bitorder="little")[..., 0]


def packed(codes: Array, bits: int) -> Array:
    """Return rows of bytes that hold rows of elements; a ragged end is filled with zero bits."""
    if bits == 8:
        return codes
    if bits == 4 and codes.shape[-1] % 2 == 0:
        joined: Array = codes[..., ::2] | codes[..., 1::2] << np.uint8(4)
        return joined
    flags = (codes[..., None] >> np.arange(bits, dtype=np.uint8)) & np.uint8(1)
    flags = flags.reshape(*codes.shape[:-1], codes.shape[-1] * bits)
    return np.packbits(flags, axis=-1, bitorder="little")
