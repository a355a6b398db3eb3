"""Files ``.npz``: ZIP archives of ``.npy`` members, read as streams however they are packed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np

from lowprec.tensors.checks import checked_name, refuse_duplicates
from lowprec.tensors.file_kind import FileKind
from lowprec.tensors.kinds.npy import FortranRange, Header, has_dtype, read_header, write_array
from lowprec.tensors.kinds.safetensors import METADATA
from lowprec.tensors.sources import FileRange, Stamp, as_tensor, bytes_of, fill, native
from lowprec.tensors.storage import apply_notes
from lowprec.tensors.tensor import BLOCK_BYTES, Tensor, TensorFile, format_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

_DEFLATE_LIMIT = 1040  # how many bytes one byte can become; more is a lie
_MOST_DIRECTORY_BYTES = 64 << 20
_MOST_METADATA_BYTES = 16 << 20
_END = b"PK\x05\x06"
# zipfile raises the last two for members that are encrypted or packed in ways it does not know
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)


@dataclasses.dataclass(frozen=True)
class Member:
    """A member of an archive, unpacked as it is read."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    header: Header

    def blocks(self, elements: int) -> Iterator[npt.NDArray[Any]]:
        """Yield all elements, in blocks of this many, in C order."""
        if self.header.is_fortran and len(self.header.shape) > 1:
            yield from self._unpacked_blocks(elements)
        else:
            yield from self._stored_blocks(elements)

    def _stored_blocks(self, elements: int) -> Iterator[npt.NDArray[Any]]:
        size, dtype = self.header.size, self.header.dtype
        with _clear_errors(self.info.filename), self.archive.open(self.info) as stream:
            stream.read(self.header.length)
            for first in range(0, size, elements):
                block = np.empty(min(elements, size - first), dtype)
                fill(stream, block)
                yield native(block)
            if stream.read(1):  # which also has the checksum compared
                raise ValueError(f"{self.info.filename!r} goes on behind its array")

    def _unpacked_blocks(self, elements: int) -> Iterator[npt.NDArray[Any]]:
        """Yield elements in C order from a temporary file that holds them in Fortran's."""
        with tempfile.NamedTemporaryFile() as file:
            for block in self._stored_blocks(max(1, BLOCK_BYTES // self.header.dtype.itemsize)):
                file.write(bytes_of(block))
            file.flush()
            dtype = self.header.dtype.newbyteorder("=")
            stamp = Stamp.of(file)
            place = FileRange(Path(file.name), 0, dtype, self.header.size, stamp)
            yield from FortranRange(place, self.header.shape).blocks(elements)

    def array(self) -> npt.NDArray[Any]:
        """Return all elements, unpacked."""
        dtype = self.header.dtype.newbyteorder("=")
        whole, first = np.empty(self.header.size, dtype), 0
        for block in self.blocks(max(1, BLOCK_BYTES // max(1, dtype.itemsize))):
            whole[first : first + block.size] = block
            first += block.size
        return whole


def read_npz(path: Path) -> TensorFile:
    """Read the headers of all members, and check them against what the archive says.

    Raises ValueError if the file is damaged or was made to deceive, or holds objects or nothing.
    """
    with path.open("rb") as file:
        size = Stamp.of(file).size
        _check_directory(file, size)
    with _clear_errors("the archive"):
        archive = zipfile.ZipFile(path)
    _check_members(archive.infolist(), size)
    members = [_member(archive, info) for info in archive.infolist()]
    if members and all(isinstance(member.source, _UnreadableMember) for member in members):
        raise ValueError(members[0].left)
    metadata = _read_metadata(members)
    tensors = [tensor for tensor in members if not (metadata and tensor.name == METADATA)]
    if not tensors:
        raise ValueError("it holds no arrays")
    return TensorFile(path, apply_notes(metadata, tensors), metadata)


def _check_directory(file: IO[bytes], size: int) -> None:
    """Refuse an archive whose list of members would fill the memory."""
    file.seek(max(0, size - 65557))  # the longest comment, and the record before it
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise ValueError("it is damaged or no .npz file: it does not end as ZIP archives do")
    length = int.from_bytes(tail[at + 12 : at + 16], "little")
    if length == 0xFFFFFFFF and tail[max(0, at - 76) : at][:4] == b"PK\x06\x06":
        length = int.from_bytes(tail[at - 36 : at - 28], "little")
    if length > min(size, _MOST_DIRECTORY_BYTES):
        raise ValueError(
            f"it is damaged: its list of members has {length:,} bytes, the file {size:,}, and "
            f"{_MOST_DIRECTORY_BYTES:,} are allowed"
        )


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    refuse_duplicates(member.filename for member in members)
    if sum(member.compress_size for member in members) > size:
        raise ValueError("its members share bytes of the file, as those of a ZIP bomb do")
    for member in members:
        name = checked_name(member.filename)
        if not name.endswith(".npy"):
            raise ValueError(f"it holds {name!r:.100}, which is not an .npy member")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name!r:.100} is packed otherwise than NumPy does")
        if member.file_size > _DEFLATE_LIMIT * member.compress_size + 1024:
            raise ValueError(
                f"{name!r:.100} claims {member.file_size:,} bytes, which its "
                f"{member.compress_size:,} cannot become"
            )


@dataclasses.dataclass(frozen=True)
class _UnreadableMember:
    """A member that cannot be read, which matters to those alone who ask for it."""

    reason: str

    def blocks(self, elements: int) -> Iterator[npt.NDArray[Any]]:
        """Raise ValueError."""
        raise ValueError(self.reason)

    def array(self) -> npt.NDArray[Any]:
        """Raise ValueError."""
        raise ValueError(self.reason)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    """Return a member; one that is damaged or holds objects is refused when it is read."""
    try:
        return _read_member(archive, info)
    except ValueError as error:
        name = info.filename.removesuffix(".npy")
        source = _UnreadableMember(f"{archive.filename} cannot be read: {error}")
        return Tensor(name, (0,), np.dtype(np.float32), source, None, left=str(error))


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    with _clear_errors(info.filename), archive.open(info) as stream:
        try:
            header = read_header(stream)
        except ValueError as error:
            raise ValueError(f"member {info.filename!r}: {error}") from None
    claimed = header.length + header.size * header.dtype.itemsize
    if claimed != info.file_size:
        raise ValueError(
            f"{info.filename!r:.100} has {info.file_size:,} bytes, and its header tells {claimed:,}"
        )
    dtype = header.dtype.newbyteorder("=")
    name = info.filename.removesuffix(".npy")
    return Tensor(name, header.shape, dtype, Member(archive, info, header), format_of(dtype))


def _read_metadata(members: list[Tensor]) -> dict[str, str]:
    """Return the texts of lowprec's own member `__metadata__`, which others do not write."""
    for tensor in members:
        is_text = tensor.name == METADATA and tensor.dtype == np.uint8
        if is_text and tensor.nbytes <= _MOST_METADATA_BYTES:
            try:
                metadata = json.loads(tensor.read().tobytes())
            except (ValueError, RecursionError):
                return {}
            texts = metadata.values() if isinstance(metadata, dict) else [None]
            return metadata if all(isinstance(text, str) for text in texts) else {}
    return {}


@contextlib.contextmanager
def _clear_errors(what: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise ValueError(
            f"{what} is damaged, or this is not an .npz file: {error!s:.200}"
        ) from None


# Writing -----------------------------------------------------------------------------------------


def _write_npz(file: BinaryIO, tensors: Sequence[Tensor], texts: dict[str, str]) -> None:
    if texts:
        note = np.frombuffer(json.dumps(texts).encode(), np.uint8)
        tensors = [*tensors, as_tensor(METADATA, note)]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for tensor in tensors:
            with archive.open(f"{tensor.name}.npy", "w", force_zip64=True) as member:
                write_array(member, tensor)


KINDS = (FileKind((".npz",), read_npz, place=1, write=_write_npz, has_dtype=has_dtype),)
