"""A named tensor, wherever its elements lie: its shape, its dtype and its elements by block."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from lowprec.conversion.door import decode
from lowprec.formats import Format, get_format, scaled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from lowprec.blocks.formats import AnyFormat

    Array = npt.NDArray[Any]

BLOCK_BYTES = 1 << 20
"""Bytes that are read at a time: they fit in a core's cache and outweigh the call."""


class Source(Protocol):
    """Where elements come from: one-dimensional, in C order, in native byte order."""

    def blocks(self, elements: int) -> Iterator[Array]:
        """Yield all elements, in blocks of this many, each time into an array of its own."""

    def array(self) -> Array:
        """Return all elements as one array, mapped into memory where the file allows it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A named tensor that has not been read yet.

    Attributes
    ----------
    name : str
        Its name in the file.
    shape : tuple of int
        Its shape.
    dtype : numpy.dtype
        Of its elements as they are stored; ml_dtypes' for bfloat16 and fp8.
    source : Source
        Where the elements come from.
    fmt : Format, BlockFormat or None
        The format of its numbers; None for integers, bool and complex numbers, and for what is
        left. A format that has no dtype of its own, or none in this kind of file, is stored as
        unsigned codes. A block format is that of a tensor that lies as codes and scales.
    scale : float
        The power of two that stored values are to be multiplied by.
    left : str
        Why its numbers are not measured or converted, where that is so: it belongs to a packing
        that lowprec does not know, for example.
    part_of : str
        Of what is left: the quantized tensor that it is a part of, where that is known.

    Examples
    --------
    >>> import numpy as np
    >>> from lowprec.tensors import as_tensor
    >>> tensor = as_tensor("w", np.arange(6.0).reshape(2, 3))
    >>> tensor.shape, tensor.size, tensor.fmt
    ((2, 3), 6, float64)
    >>> [block.tolist() for block in tensor.blocks(max_bytes=32)]
    [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0]]
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    source: Source = dataclasses.field(repr=False)
    fmt: AnyFormat | None = None
    scale: float = 1.0
    left: str = dataclasses.field(default="", repr=False)
    part_of: str = dataclasses.field(default="", repr=False)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes its elements take as arrays."""
        return self.size * self.dtype.itemsize

    @property
    def is_coded(self) -> bool:
        """Whether what is stored must be decoded or scaled to be the numbers it stands for."""
        return isinstance(self.fmt, Format) and (self.scale != 1.0 or self.dtype != self.fmt.dtype)

    @property
    def coding(self) -> Format | None:
        """The format whose codes are stored, the scale being part of its bias."""
        return scaled(self.fmt, self.scale) if isinstance(self.fmt, Format) else None

    def blocks(self, max_bytes: int = BLOCK_BYTES) -> Iterator[Array]:
        """Yield the elements as they are stored, in C order, as one-dimensional arrays.

        Parameters
        ----------
        max_bytes : int
            The most that a block may take, but a block has one element at least.

        Yields
        ------
        ndarray of `dtype`, shape (n,)

        Raises
        ------
        ValueError
            If the file is damaged or has changed since it was opened.
        """
        return self.source.blocks(max(1, max_bytes // max(1, self.dtype.itemsize)))

    def values(self, max_bytes: int = BLOCK_BYTES) -> Iterator[Array]:
        """Yield the numbers that the elements stand for: decoded, and the scale undone.

        Parameters
        ----------
        max_bytes : int
            The most that a block may take as it is stored.

        Yields
        ------
        ndarray, shape (n,)
            Of `dtype`; of float32 or float64 where codes are stored.
        """
        coding = self.coding
        for block in self.blocks(max_bytes):
            if self.is_coded and coding is not None:
                yield decode(block.view(coding.code_dtype), coding)
            else:
                yield block

    def __lowprec_blocks__(self) -> Iterator[Array]:
        return self.values()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return all `values`, exact, for `numpy.asarray` and what takes arrays."""
        if copy is False:
            raise ValueError(f"{self.name!r} lies in a file and is read; leave copy=False away")
        blocks = list(self.values())
        whole = np.concatenate(blocks) if blocks else np.zeros(0, self.dtype)
        return whole.reshape(self.shape).astype(dtype or whole.dtype, copy=False)

    def read(self) -> Array:
        """Return the whole tensor, as stored; mapped into memory where the file allows it."""
        return self.source.array().reshape(self.shape)


class TensorFile(NamedTuple):
    """One file: its tensors in order, and the texts that it keeps beside them."""

    path: Path
    tensors: tuple[Tensor, ...]
    metadata: dict[str, str]


class Tensors(Mapping[str, Tensor]):
    """The tensors of a file, or of a set of shards, by name.

    Attributes
    ----------
    files : tuple of TensorFile
        The files, in order.
    index : Path or None
        The index file of a set of shards.

    Raises
    ------
    ValueError
        If two shards hold tensors of one name.
    """

    def __init__(self, files: tuple[TensorFile, ...], index: Path | None = None) -> None:
        self.files, self.index = files, index
        self._by_name: dict[str, Tensor] = {}
        for file in files:
            for tensor in file.tensors:
                if tensor.name in self._by_name:
                    raise ValueError(f"{file.path} holds {tensor.name!r}, as another shard does")
                self._by_name[tensor.name] = tensor

    @property
    def metadata(self) -> dict[str, str]:
        """The texts that the first file keeps beside its tensors."""
        return self.files[0].metadata if self.files else {}

    @property
    def nbytes(self) -> int:
        """How many bytes all elements take."""
        return sum(tensor.nbytes for tensor in self._by_name.values())

    def __getitem__(self, name: str) -> Tensor:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        names = ", ".join(file.path.name for file in self.files[:3])
        more = ", …" if len(self.files) > 3 else ""
        return f"<{len(self)} tensors, {self.nbytes:,} bytes, in {names}{more}>"


def format_of(dtype: np.dtype[Any]) -> Format | None:
    """Return the format of a float dtype, NumPy's or ml_dtypes'; None for all others."""
    if dtype.kind not in "fV":
        return None
    try:
        return get_format(dtype)
    except (ValueError, TypeError):
        return None
