"""Quantized tensors of files: codes and scales that lie in tensors of their own, read as values.

Nothing but a few rows of blocks is in memory at a time. Values are exact in float64: code times
scale, times or over the tensor's scale, where a division alone is rounded, to more bits than any
narrower format could tell from the exact quotient.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.blocks.formats import BlockFormat
from lowprec.common.processor_state import in_exact_state
from lowprec.tensors.bits import unpacked
from lowprec.tensors.sources import FileRange, MadeInBlocks, let_go_of
from lowprec.tensors.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lowprec.tensors.tensor import Array

SLAB = 1 << 18  # elements that are decoded at a time, but whole rows of blocks
_MOST_SCALES = 1 << 28  # of a tensor that lies transposed


def rows_of(tensor: Tensor, first: int, count: int) -> Array:
    """Return elements of a stored tensor from `first` on, in C order."""
    source = tensor.source
    if isinstance(source, FileRange):
        width = source.dtype.itemsize
        part = dataclasses.replace(source, offset=source.offset + first * width, size=count)
        return np.concatenate([np.empty(0, source.dtype), *part.blocks(max(count, 1))])
    return source.array()[first : first + count]


class Codes(NamedTuple):
    """Elements of a few bits, in rows of whole bytes.

    stored: The bytes, or integers whose bytes they are.
    rows, columns: How many elements there are.
    bits: The width of an element: a row is a stream of bits, the first element in the lowest ones.
    row_bytes: The bytes of a row.
    is_high_first: Whether the first of two elements of 4 bits lies in the upper half of a byte.
    offset: What is subtracted from the bits to be the integer they stand for.
    """

    stored: Tensor
    rows: int
    columns: int
    bits: int
    row_bytes: int
    is_high_first: bool = False
    offset: int = 0

    def read(self, first: int, count: int) -> Array:
        """Return the codes of some rows as uint8, of shape (count, columns)."""
        width = self.stored.dtype.itemsize
        raw = rows_of(self.stored, first * self.row_bytes // width, count * self.row_bytes // width)
        packed = np.ascontiguousarray(raw).view(np.uint8).reshape(count, self.row_bytes)
        return unpacked(packed, self.columns, self.bits, self.is_high_first)


class Scales(NamedTuple):
    """A grid of scales, and what else turns codes into values.

    Attributes
    ----------
    stored : Tensor
        The scales as the file has them.
    rows, columns : int
        The shape of the grid.
    table : ndarray or None
        The value of each code, where scales are codes.
    tensor_scale : Tensor or None
        One number for all.
    divides : bool
        Whether values are divided by it.
    zero_points : Codes or Tensor or None
        What is subtracted from the elements of each block, as stored.
    zero_offset : int
        What is subtracted from codes of zero points.
    """

    stored: Tensor
    rows: int
    columns: int
    table: Array | None = None
    tensor_scale: Tensor | None = None
    divides: bool = False
    zero_points: Any = None
    zero_offset: int = 0

    def read(self, first: int, count: int) -> Array:
        """Return some rows of the grid as float64 numbers."""
        found = rows_of(self.stored, first * self.columns, count * self.columns)
        if self.table is not None:
            found = self.table[found.view(np.uint8)]
        return found.astype(np.float64).reshape(count, self.columns)

    def zeros(self, first: int, count: int) -> Array | None:
        """Return some rows of zero points as float64 numbers; None where there are none."""
        if self.zero_points is None:
            return None
        if isinstance(self.zero_points, Tensor):
            found = rows_of(self.zero_points, first * self.columns, count * self.columns)
            return found.astype(np.float64).reshape(count, self.columns) - self.zero_offset
        whole: Array = self.zero_points.read(0, self.zero_points.rows)  # packed down the columns
        return whole.T[first : first + count].astype(np.float64) - self.zero_offset

    def in_all(self) -> float:
        """Return the tensor's scale, 1 without one."""
        if self.tensor_scale is None:
            return 1.0
        return float(rows_of(self.tensor_scale, 0, 1)[0])


class _Values(MadeInBlocks):
    """Codes and scales of elements: `_slabs` hands both to a function, slab by slab."""

    dtype = np.dtype(np.float32)
    _slabs: Any

    def blocks(self, elements: int) -> Iterator[Array]:
        """Yield all values as float32, each rounded once, in blocks of this many."""
        with np.errstate(over="ignore"):
            for block in self.exact_blocks(elements):
                yield block.astype(np.float32)

    def exact_blocks(self, elements: int) -> Iterator[Array]:
        """Yield all values as float64, in blocks of this many."""
        return cut(self._slabs(self._decoded), elements)

    def scale_blocks(self, elements: int) -> Iterator[Array]:
        """Yield what each element is multiplied by, as float64, in blocks of this many."""
        return cut(self._slabs(self._spread), elements)

    def code_blocks(self, elements: int) -> Iterator[Array]:
        """Yield all codes as uint8, in blocks of this many."""
        return cut(self._slabs(lambda codes, scales: np.ascontiguousarray(codes)), elements)

    def _decoded(self, codes: Array, scales: Any) -> Array:
        raise NotImplementedError

    def _spread(self, codes: Array, scales: Any) -> Array:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Grid(_Values):
    """A matrix of elements in tiles that share a scale; outer axes are rows like others.

    values: The value of each code, float64.
    tile: Rows and columns that share a scale.
    period: The rows of one matrix, at whose end a tile ends too.
    is_transposed: Whether the tensor is each matrix' transpose.
    """

    codes: Codes
    scales: Scales
    values: Array
    tile: tuple[int, int]
    period: int
    is_transposed: bool = False

    @property
    def size(self) -> int:
        """How many elements there are."""
        return self.codes.rows * self.codes.columns

    def array(self) -> Array:
        """Return all values as float32."""
        whole, first = np.empty(self.size, np.float32), 0
        for block in self.blocks(SLAB):
            whole[first : first + block.size] = block
            first += block.size
        return whole

    def _slabs(self, make: Any) -> Iterator[Array]:
        if not self.size:
            return
        if self.is_transposed:
            for start in range(0, self.codes.rows, self.period):
                yield from self._columns(make, start)
            return
        high = self.tile[0]
        step = max(1, SLAB // max(1, self.codes.columns))
        if high < self.period:  # whole rows of tiles, or a part of one
            step = step // high * high or max(d for d in range(1, step + 1) if high % d == 0)
        for start in range(0, self.codes.rows, self.period):
            stop = start + self.period
            for first in range(start, stop, step):
                count = min(step, stop - first)
                yield make(self.codes.read(first, count), self._rows(first, count)).reshape(-1)

    def _columns(self, make: Any, start: int) -> Iterator[Array]:
        """Yield the transpose of one matrix, some columns at a time: whole bytes of whole tiles."""
        width = self.tile[1]
        step = max(1, SLAB // max(1, self.period * width)) * width
        mapped = self.codes.stored.source.array()
        raw = mapped.view(np.uint8).reshape(self.codes.rows, self.codes.row_bytes)
        rows = self._rows(start, self.period)
        for first in range(0, self.codes.columns, step):
            last = min(first + step, self.codes.columns)
            part = slice(first * self.codes.bits // 8, last * self.codes.bits // 8)
            packed = np.ascontiguousarray(raw[start : start + self.period, part])
            codes = unpacked(packed, last - first, self.codes.bits)
            grid = _Rows(
                rows.scales[:, first // width : -(-last // width)], None, rows.tile, rows.spread
            )
            yield np.ascontiguousarray(make(codes, grid).T).reshape(-1)
            let_go_of(mapped)

    def _rows(self, first: int, count: int) -> _Rows:
        """Return the scales of some rows, which begin where a tile does."""
        high, wide = self.tile
        matrix, inside = divmod(first, self.period)
        tall = -(-self.period // high)
        begin = matrix * tall + inside // high
        lines = -(-(inside % high + count) // high)
        if self.scales.rows == 1:  # one row for all of them
            begin, lines = 0, 1
        scales = self.scales.read(begin, lines)
        return _Rows(scales, self.scales.zeros(begin, lines), (high, wide), count)

    def _decoded(self, codes: Array, rows: _Rows) -> Array:
        values = self.values[codes]
        zeros = rows.per_element(rows.zeros, codes.shape[1])
        if zeros is not None:
            values = values - zeros
        with np.errstate(all="ignore"):
            values *= rows.per_element(rows.scales, codes.shape[1])
            return self._times_tensor_scale(values)

    def _spread(self, codes: Array, rows: _Rows) -> Array:
        scales = np.asarray(rows.per_element(rows.scales, codes.shape[1]))
        with np.errstate(all="ignore"):
            return self._times_tensor_scale(np.broadcast_to(scales, codes.shape))

    def _times_tensor_scale(self, values: Array) -> Array:
        scale = self.scales.in_all()
        return values / scale if self.scales.divides else values * scale


class _Rows(NamedTuple):
    """The scales of some rows of elements."""

    scales: Array
    zeros: Array | None
    tile: tuple[int, int]
    spread: int

    def per_element(self, grid: Array | None, columns: int) -> Array | None:
        """Return a row's entry of the grid for each element."""
        if grid is None:
            return None
        high, wide = self.tile
        if grid.shape[0] > 1 or high < self.spread:
            grid = np.repeat(grid, high, axis=0)[: self.spread]
        if grid.shape[1] > 1:
            grid = np.repeat(grid, wide, axis=1)[:, :columns]
        return grid


@dataclasses.dataclass(frozen=True)
class Flat(_Values):
    """Elements in blocks of the tensor read as one row, as bitsandbytes has them."""

    codes: Codes
    values: Array
    absmax: Any  # yields the scales of blocks, by first and count
    block: int

    @property
    def size(self) -> int:
        """How many elements there are."""
        return self.codes.columns

    def _decoded(self, codes: Array, scales: Any) -> Array:
        return np.asarray(self.values[codes] * scales)

    def _spread(self, codes: Array, scales: Any) -> Array:
        return np.asarray(scales)

    def _slabs(self, make: Any) -> Iterator[Array]:
        step = max(1, SLAB // self.block) * self.block
        for first in range(0, self.size, step):
            count = min(step, self.size - first)
            raw = rows_of(self.codes.stored, first // 2, -(-count // 2)).view(np.uint8)
            codes = unpacked(raw.reshape(1, -1), count, 4, self.codes.is_high_first)[0]
            scales = self.absmax(first // self.block, -(-count // self.block))
            yield make(codes, np.repeat(scales, self.block)[:count])


def cut(slabs: Iterator[Array], elements: int) -> Iterator[Array]:
    """Yield the elements of slabs in blocks of one size."""
    rest: list[Array] = []
    size = 0
    for slab in slabs:
        rest.append(slab)
        size += slab.size
        if size < elements:
            continue
        joined = np.concatenate(rest) if len(rest) > 1 else rest[0]
        whole = size - size % elements
        for first in range(0, whole, elements):
            yield joined[first : first + elements]
        rest, size = ([joined[whole:]], size - whole) if size > whole else ([], 0)
    if size:
        yield np.concatenate(rest)


@dataclasses.dataclass(frozen=True, eq=False)
class QuantizedTensor(Tensor):
    """A tensor whose elements lie in a file as codes and scales, under names of their own.

    Its dtype is float32, that of `read()`, whose values are rounded once from the exact ones.

    Attributes
    ----------
    packing : str
        What the layout is called: ``"nvfp4-pack-quantized"``, for example.
    stored : tuple of Tensor
        The tensors of the file that it consists of, codes first.
    axis : int
        The axis along which elements share a scale; -1 for tiles.
    scale_shape : tuple of int
        Of `scales`.
    """

    packing: str = ""
    stored: tuple[Tensor, ...] = ()
    axis: int = -1
    scale_shape: tuple[int, ...] = ()
    stored_scales: Tensor | None = dataclasses.field(default=None, repr=False)
    stored_tensor_scale: Tensor | None = dataclasses.field(default=None, repr=False)

    @property
    def is_coded(self) -> bool:
        """Never: what is read is values."""
        return False

    @property
    def stored_bytes(self) -> int:
        """The bytes of the codes and all scales."""
        return sum(tensor.nbytes for tensor in self.stored)

    @in_exact_state
    def values(self, max_bytes: int = 1 << 20) -> Iterator[Array]:
        """Yield the exact values as float64, in blocks of at most `max_bytes` bytes."""
        exact: Any = self.source
        blocks: Iterator[Array] = exact.exact_blocks(max(1, max_bytes // 8))
        return blocks

    def element_scales(self, max_bytes: int = 1 << 20) -> Iterator[Array]:
        """Yield what each element is multiplied by, as float64, in blocks like `values`."""
        source: Any = self.source
        blocks: Iterator[Array] = source.scale_blocks(max(1, max_bytes // 8))
        return blocks

    @property
    def codes(self) -> Array:
        """The elements' codes, as `lowprec.quantize` gives them, of the tensor's shape."""
        source: Any = self.source
        dtype = self.fmt.code_dtype if isinstance(self.fmt, BlockFormat) else np.dtype(np.uint8)
        whole = np.concatenate([np.empty(0, np.uint8), *source.code_blocks(SLAB)])
        if source.codes.offset:
            whole = (whole.astype(np.int16) - source.codes.offset).astype(np.int8)
        return whole.view(dtype).reshape(self.shape)

    @property
    def scales(self) -> Array:
        """The blocks' scales as stored: codes, but float32 and float64 numbers as such."""
        assert self.stored_scales is not None, "every quantized tensor has them"
        found = self.stored_scales.read()
        if found.dtype not in (np.float32, np.float64):
            found = found.view(f"u{found.dtype.itemsize}")
        grid: Any = self.source
        if isinstance(grid, Grid) and grid.is_transposed:
            found = np.swapaxes(found, -1, -2)
        return found.reshape(self.scale_shape)

    @property
    def tensor_scale(self) -> np.float32 | None:
        """The tensor's own scale as stored, which values are multiplied by or divided by."""
        if self.stored_tensor_scale is None:
            return None
        return np.float32(self.stored_tensor_scale.read().reshape(-1)[0])
