"""Files ``.npy``, and the members of ``.npz`` files that are the same: a header, then elements."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import warnings
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from lowprec.tensors.checks import checked_name, checked_size
from lowprec.tensors.file_kind import FileKind
from lowprec.tensors.sources import FileRange, Stamp, bytes_of, in_c_order, let_go_of, native
from lowprec.tensors.tensor import Tensor, TensorFile, format_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

_MOST_HEADER_BYTES = 10_000  # as in NumPy, whose reader must not be fed more
_REGISTERED = 2  # `isbuiltin` of dtypes that a package has added to NumPy
_RELEASE = 32 << 20  # bytes after which mapped pages are given back


class Header(NamedTuple):
    """What stands before the elements."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    length: int  # of the header itself, in bytes

    @property
    def size(self) -> int:
        """How many elements follow."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class FortranRange:
    """Elements that lie in Fortran's order in a file."""

    place: FileRange
    shape: tuple[int, ...]

    def blocks(self, elements: int) -> Iterator[npt.NDArray[Any]]:
        """Yield all elements in C order, in blocks of this many."""
        mapped = self.array_in_place()
        seen = 0
        for block in in_c_order(mapped, elements):
            yield block
            seen += block.nbytes
            if seen >= _RELEASE:
                let_go_of(mapped)
                seen = 0

    def array_in_place(self) -> npt.NDArray[Any]:
        """Return all elements as an array in Fortran's order."""
        return self.place.array().reshape(self.shape, order="F")

    def array(self) -> npt.NDArray[Any]:
        """Return all elements in a row, in C order."""
        return native(self.array_in_place()).reshape(-1)


def read_npy(path: Path) -> TensorFile:
    """Read the header of a file and check it against the file's size.

    Raises ValueError if the file is damaged or was made to deceive, or holds objects.
    """
    with path.open("rb") as file:
        stamp = Stamp.of(file)
        header = read_header(file)
    size = header.size * header.dtype.itemsize
    if header.length + size != stamp.size:
        kind = "cut short" if header.length + size > stamp.size else "followed by other data"
        raise ValueError(
            f"its data were {kind}: its header tells {size:,} bytes, and there are "
            f"{stamp.size - header.length:,}"
        )
    place = FileRange(path, header.length, header.dtype, header.size, stamp)
    in_c_order = not header.is_fortran or len(header.shape) < 2
    source = place if in_c_order else FortranRange(place, header.shape)
    dtype = header.dtype.newbyteorder("=")
    name = checked_name(path.stem)
    return TensorFile(path, (Tensor(name, header.shape, dtype, source, format_of(dtype)),), {})


def read_header(stream: IO[bytes]) -> Header:
    """Read a header from where a stream stands.

    Raises ValueError if it is damaged, or tells of a dtype that is not of plain elements.
    """
    magic = stream.read(8)
    if len(magic) < 8 or magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3):
        raise ValueError("it does not begin as .npy files do")
    width = 2 if magic[6] == 1 else 4
    field = stream.read(width)
    length = int.from_bytes(field, "little")
    if length > _MOST_HEADER_BYTES:
        raise ValueError(f"its header has {length:,} bytes; {_MOST_HEADER_BYTES:,} are allowed")
    content = stream.read(length)
    if len(field) < width or len(content) < length:
        raise ValueError("its header was cut short")
    shape, is_fortran, dtype = _parse(field + content, width)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which could run any program")
    if dtype.names is not None:
        raise ValueError(
            f"it holds records with the fields {', '.join(dtype.names)}; save each field, as in "
            f"x[{dtype.names[0]!r}], in a file of its own, or all in an .npz file"
        )
    if dtype.kind == "V":
        raise ValueError(
            f"it holds {dtype}, bytes without a meaning, as NumPy saves bfloat16 and other "
            f"ml_dtypes (np.load(path).view('u{dtype.itemsize}') are its codes); save it as "
            "float32, or write it with lowprec.tensors.write_tensors to an .npz file"
        )
    checked_size("the array", shape, dtype.itemsize)
    return Header(shape, is_fortran, dtype, 8 + width + length)


def _parse(text: bytes, width: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Let NumPy read a header of at most a few thousand bytes."""
    versions = {2: np.lib.format.read_array_header_1_0, 4: np.lib.format.read_array_header_2_0}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            return versions[width](io.BytesIO(text))
    except Exception as error:
        fp8 = re.search(rb"'descr': '([<|]f1)'", text)
        if fp8:
            raise ValueError(
                f"it holds {fp8[1].decode()}, as NumPy saves ml_dtypes' float8_e5m2 and does not "
                "read again; save it as float32, or write it with lowprec.tensors.write_tensors to "
                "an .npz file"
            ) from None
        raise ValueError(f"its header is damaged ({error!s:.200})") from None


# Writing -----------------------------------------------------------------------------------------


def _write_npy(file: BinaryIO, tensors: Sequence[Tensor], texts: dict[str, str]) -> None:
    write_array(file, tensors[0])


def write_array(stream: Any, tensor: Tensor) -> None:
    """Write a header and the elements."""
    descr = np.lib.format.dtype_to_descr(tensor.dtype)
    header = {"descr": descr, "fortran_order": False, "shape": tensor.shape}
    np.lib.format.write_array_header_1_0(stream, header)
    for block in tensor.blocks():
        stream.write(bytes_of(block))


def has_dtype(tensor: Tensor) -> bool:
    """Whether NumPy's files know the dtype: not one that a package has added to NumPy."""
    return tensor.dtype.isbuiltin != _REGISTERED


def _check(tensors: Sequence[Tensor]) -> None:
    if len(tensors) != 1:
        raise ValueError(f".npy files hold one array, not {len(tensors)}; write .npz")
    (tensor,) = tensors
    if tensor.is_coded or (tensor.fmt is not None and not has_dtype(tensor)):
        raise ValueError(
            f".npy files know no {tensor.fmt} and no scales; write .safetensors or .npz"
        )


KINDS = (
    FileKind(
        (".npy",),
        read_npy,
        place=1,
        write=_write_npy,
        has_dtype=has_dtype,
        check=_check,
        keeps_texts=False,
    ),
)
