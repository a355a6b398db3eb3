"""How an array is cut into blocks: as (outer, rows, columns), and in pieces that bound memory."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lowprec.blocks.formats import BlockFormat

    Array = np.ndarray[Any, Any]


class Layout(NamedTuple):
    """How the blocks of a format lie in an array of one shape.

    shape: The array's.
    axis: The axis of blocks, or the first of the two of tiles; not negative.
    tile: Rows and columns of a block of the array seen as (outer, rows, columns).
    is_tiled: Whether blocks are tiles of the last two axes.
    """

    shape: tuple[int, ...]
    axis: int
    tile: tuple[int, int]
    is_tiled: bool

    @property
    def units(self) -> tuple[int, ...]:
        """How many elements of each axis belong together."""
        units = [1] * len(self.shape)
        if self.is_tiled:
            units[-2:] = self.tile
        else:
            units[self.axis] = max(self.tile)
        return tuple(units)

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """The shape of the array of scales."""
        pairs = zip(self.shape, self.units, strict=True)
        return tuple(-(-size // unit) for size, unit in pairs)

    def flattened(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return a shape of as many axes as (outer, rows, columns)."""
        if self.is_tiled:
            return math.prod(shape[:-2]), shape[-2], shape[-1]
        if self.axis == len(shape) - 1:
            return math.prod(shape[:-1]), 1, shape[-1]
        return (
            math.prod(shape[: self.axis]),
            shape[self.axis],
            math.prod(shape[self.axis + 1 :]),
        )

    @property
    def steps(self) -> tuple[int, int, int]:
        """By how much the index in C order grows along outer, rows and columns."""
        if self.is_tiled:
            return math.prod(self.shape[-2:]), self.shape[-1], 1
        inner = math.prod(self.shape[self.axis + 1 :])
        return inner * self.shape[self.axis], inner if self.tile[1] == 1 else 0, 1

    def pieces(self, limit: int) -> Iterator[tuple[slice, ...]]:
        """Cut the array into pieces of whole blocks, of at most `limit` elements where possible.

        Each piece is evenly spaced in C order along outer, rows and columns, as `steps` says.
        """
        yield from _cut(self.shape, self.units, (), limit)

    def placed_pieces(
        self, start: tuple[int, ...], whole: tuple[int, ...]
    ) -> Iterator[tuple[tuple[slice, ...], list[int]]]:
        """Cut a chunk of a larger array where its elements stop being evenly spaced there.

        Yields: The index in C order in the whole array of a piece's first element, and by how much
            it grows along the three axes.
        """
        strides = [math.prod(whole[i + 1 :]) for i in range(len(whole))]
        last = len(whole) - 1
        free = {self.axis - 1, self.axis, last} | ({last - 1} if self.is_tiled else set())
        fixed = [i for i in range(len(whole)) if i not in free]
        outer = strides[self.axis - 1] if self.axis else 0
        rows = strides[self.axis] if self.is_tiled or self.axis < last else 0
        for index in np.ndindex(*(self.shape[i] for i in fixed)):
            at = dict(zip(fixed, index, strict=True))
            piece = tuple(
                slice(at[i], at[i] + 1) if i in at else slice(0, size)
                for i, size in enumerate(self.shape)
            )
            place = sum(
                (part.start + begin) * stride
                for part, begin, stride in zip(piece, start, strides, strict=True)
            )
            yield piece, [place, outer, rows, 1]

    def scales_of(self, piece: tuple[slice, ...]) -> tuple[slice, ...]:
        """Return where the scales of a piece are."""
        return tuple(
            slice(part.start // unit, -(-part.stop // unit))
            for part, unit in zip(piece, self.units, strict=True)
        )

    def place_of(self, piece: tuple[slice, ...]) -> int:
        """Return the index in C order of a piece's first element."""
        place = 0
        for part, size in zip(piece, self.shape, strict=True):
            place = place * size + part.start
        return place


def _cut(
    shape: tuple[int, ...], units: tuple[int, ...], before: tuple[slice, ...], limit: int
) -> Iterator[tuple[slice, ...]]:
    done = len(before)
    if done == len(shape):
        yield before
        return
    size, unit, inner = shape[done], units[done], math.prod(shape[done + 1 :])
    wide = min(size, max(unit, limit // max(inner, 1) // unit * unit))
    for start in range(0, size, max(wide, 1)):
        here = (*before, slice(start, min(start + wide, size)))
        if wide * inner <= limit:
            yield (*here, *(slice(0, rest) for rest in shape[done + 1 :]))
        else:
            yield from _cut(shape, units, here, max(limit // wide, 1))


def layout_of(fmt: BlockFormat, shape: tuple[int, ...], axis: Any) -> Layout:
    """Return how blocks lie, or raise where they cannot.

    Raises ValueError if the array has no axis for blocks, or another axis than -1 is given with
        tiles.
    """
    axis = operator.index(axis)
    if not shape:
        raise ValueError(
            f"{fmt} has blocks of several elements, and a single number has no axis for them; "
            "pass an array, such as [x]"
        )
    if fmt.is_tiled:
        assert isinstance(fmt.block, tuple)
        if axis != -1:
            raise ValueError(
                f"axis is {axis}, but {fmt} has tiles of {fmt.block[0]} × {fmt.block[1]}, which "
                "lie in the last two axes; leave axis away, and move axes with numpy.moveaxis"
            )
        if len(shape) < 2:
            raise ValueError(
                f"{fmt} has tiles of {fmt.block[0]} × {fmt.block[1]}, but the array has shape "
                f"{shape}; pass one of at least two axes"
            )
        return Layout(shape, len(shape) - 2, fmt.block, True)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(
            f"axis is {axis}, but the array has {len(shape)} axes; use {-len(shape)} to "
            f"{len(shape) - 1}"
        )
    axis %= len(shape)
    assert not isinstance(fmt.block, tuple)
    size = max(shape[axis], 1) if fmt.block is None else fmt.block
    return Layout(shape, axis, (1, size) if axis == len(shape) - 1 else (size, 1), False)


def as_view(array: Array, shape: tuple[int, int, int]) -> Array | None:
    """Return the array in three axes, without a copy; None where its strides do not allow it."""
    if array.flags.c_contiguous:
        return array.reshape(shape)
    view = array.reshape(shape)  # copies where it must
    return view if np.may_share_memory(array, view) else None
