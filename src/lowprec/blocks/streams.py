"""Tensors whose elements come one after the other, cut into pieces of whole blocks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lowprec.blocks.layouts import Layout

    Array = np.ndarray[Any, Any]


def can_be_streamed(layout: Layout) -> bool:
    """Whether the elements of a block follow one another, or those of a row of tiles."""
    return layout.is_tiled or layout.axis == len(layout.shape) - 1


def pieces_in_order(blocks: Iterator[Array], layout: Layout, limit: int) -> Iterator[Array]:
    """Yield pieces of whole blocks, in C order: of `limit` elements, or of a row of tiles."""
    rows = layout.tile[0] if layout.is_tiled else 1
    held: list[Array] = []
    count = 0
    for piece in layout.pieces(max(limit, rows * layout.shape[-1])):
        shape = tuple(part.stop - part.start for part in piece)
        size = math.prod(shape)
        while count < size:
            held.append(next(blocks))
            count += held[-1].size
        joined = np.concatenate(held) if len(held) > 1 else held[0]
        yield joined[:size].reshape(shape)
        held, count = [joined[size:]], count - size
