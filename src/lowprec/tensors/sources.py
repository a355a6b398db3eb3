"""Where elements come from: a range of a file, a stream, an array.

Files are read into fresh blocks, not mapped: pages that have been looked at would count as this
process's memory until the end, and a file cut short meanwhile would end the process.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.arrays.direct import lies_flat, pieces_of
from lowprec.arrays.sources import to_array
from lowprec.tensors.tensor import Tensor, format_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from lowprec.tensors.tensor import Source

    Array = npt.NDArray[Any]


class Stamp(NamedTuple):
    """The size, time and identity of a file, by which a change is noticed."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: IO[bytes]) -> Stamp:
        """Take the stamp of an open file."""
        status = os.fstat(file.fileno())
        return cls(status.st_size, status.st_mtime_ns)


@dataclasses.dataclass(frozen=True)
class FileRange:
    """Elements that lie one after the other in a file, from `offset` on."""

    path: Path
    offset: int
    dtype: np.dtype[Any]  # as it stands in the file, foreign byte order included
    size: int
    stamp: Stamp

    def __reduce__(self) -> tuple[Any, ...]:
        """Name the file absolutely: another process may be in another folder."""
        path = self.path.absolute()
        return FileRange, (path, self.offset, self.dtype, self.size, self.stamp)

    def blocks(self, elements: int) -> Iterator[Array]:
        """Yield all elements, in blocks of this many."""
        with self.path.open("rb", buffering=0) as file:
            self._check(file)
            file.seek(self.offset)
            for first in range(0, self.size, elements):
                block = np.empty(min(elements, self.size - first), self.dtype)
                fill(file, block)
                yield native(block)

    def array(self) -> Array:
        """Return all elements, mapped into memory."""
        with self.path.open("rb") as file:
            self._check(file)
            if not self.size:
                return np.empty(0, self.dtype)
            mapped = np.memmap(file, self.dtype, "r", self.offset, shape=(self.size,))
        return native(mapped)

    def _check(self, file: IO[bytes]) -> None:
        if Stamp.of(file) != self.stamp:
            raise ValueError(f"{self.path} has changed since it was opened; open it again")


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Elements of an array, of any layout, in C order."""

    whole: Array

    def blocks(self, elements: int) -> Iterator[Array]:
        """Yield all elements, in blocks of this many."""
        return in_c_order(self.whole, elements)

    def array(self) -> Array:
        """Return all elements in a row."""
        return native(self.whole).reshape(-1)


class MadeInBlocks:
    """Elements that are made a block at a time."""

    dtype: Any
    blocks: Any  # yields all elements, in blocks of about this many

    def array(self) -> Array:
        """Return all elements."""
        whole: Array = np.concatenate([np.empty(0, self.dtype), *self.blocks(1 << 18)])
        return whole


@dataclasses.dataclass(frozen=True)
class Viewed:
    """The elements of another source under another dtype of their size."""

    source: Source
    dtype: np.dtype[Any]

    def blocks(self, elements: int) -> Iterator[Array]:
        """Yield all elements, in blocks of this many."""
        return (block.view(self.dtype) for block in self.source.blocks(elements))

    def array(self) -> Array:
        """Return all elements."""
        return self.source.array().view(self.dtype)


def let_go_of(mapped: Any) -> None:
    """Have the pages of a file's mapping, which have been read, not count as memory in use."""
    while isinstance(mapped, np.ndarray):
        mapped = mapped.base
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)


def in_c_order(x: Array, elements: int) -> Iterator[Array]:
    """Yield the elements of an array of any layout in C order, in blocks of this many."""
    is_flat = lies_flat(x)
    for block in pieces_of(x, elements):
        yield block if is_flat else block.copy()  # the iterator uses its buffer again


def as_tensor(name: str, x: npt.ArrayLike) -> Tensor:
    """Return an array as a tensor, so that it may be written beside others.

    Parameters
    ----------
    name : str
        Its name.
    x : array_like
        Its elements; torch CPU tensors too.
    """
    array = to_array(x)
    dtype = array.dtype.newbyteorder("=")
    return Tensor(name, array.shape, dtype, ArraySource(array), format_of(dtype))


@dataclasses.dataclass(frozen=True)
class _CountedSource:
    """Another source, which tells how many bytes have been read."""

    source: Source
    tell: Callable[[int], None]

    def blocks(self, elements: int) -> Iterator[Array]:
        """Yield all elements, in blocks of this many."""
        for block in self.source.blocks(elements):
            yield block
            self.tell(block.nbytes)

    def array(self) -> Array:
        """Return all elements."""
        return self.source.array()


def watched(tensor: Tensor, tell: Callable[[int], None]) -> Tensor:
    """Return a tensor that calls ``tell(bytes)`` after every block it yields."""
    return dataclasses.replace(tensor, source=_CountedSource(tensor.source, tell))


def watched_together(
    tensors: dict[str, Tensor], what: str, progress: Callable[[str, int, int], None]
) -> dict[str, Tensor]:
    """Return tensors that call ``progress(what, bytes_done, bytes_in_all)`` as they are read."""
    total = sum(tensor.nbytes for tensor in tensors.values())
    done = 0

    def tell(size: int) -> None:
        nonlocal done
        done += size
        progress(what, done, total)

    return {name: watched(tensor, tell) for name, tensor in tensors.items()}


def native(block: Array) -> Array:
    """Return the same numbers in this machine's byte order."""
    return block if block.dtype.isnative else block.astype(block.dtype.newbyteorder("="))


def bytes_of(block: Any) -> memoryview:
    """Return the bytes of a contiguous array of any dtype."""
    return memoryview(block.view(np.uint8))


def fill(file: Any, block: Array) -> None:
    """Read a whole block from a file or stream.

    Raises ValueError if the data end before.
    """
    rest = bytes_of(block)
    while rest:
        count = file.readinto(rest)
        if not count:
            raise ValueError(f"its data end {len(rest):,} bytes too early")
        rest = rest[count:]
