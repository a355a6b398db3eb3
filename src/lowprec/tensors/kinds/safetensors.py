"""Files ``.safetensors``: a header in JSON, then the elements of every tensor.

The format is read here and not by its own package, which would map whole files, and knows bfloat16
and fp8 only beside torch or JAX.

References
----------
https://huggingface.co/docs/safetensors: eight bytes with the header's length, the header, and data
without gaps between them.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import ml_dtypes
import numpy as np

from lowprec.tensors.bits import packed, unpacked
from lowprec.tensors.checks import checked_name, checked_size
from lowprec.tensors.file_kind import FileKind
from lowprec.tensors.sources import FileRange, MadeInBlocks, Stamp, bytes_of
from lowprec.tensors.storage import apply_notes
from lowprec.tensors.tensor import Tensor, TensorFile, format_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

METADATA = "__metadata__"
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F4": np.dtype(ml_dtypes.float4_e2m1fn),
    "F6_E2M3": np.dtype(ml_dtypes.float6_e2m3fn),
    "F6_E3M2": np.dtype(ml_dtypes.float6_e3m2fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "C64": np.dtype("<c8"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
}
"""The dtypes of the format."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}

PACKED = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
"""The bits of elements that share bytes: the first in the lowest bits, as BlockFormats pack."""

_MOST_HEADER_BYTES = 100_000_000  # as in the package
_MOST_HEADER_PARTS = 4_000_000  # which take some 100 bytes each, once read


@dataclasses.dataclass(frozen=True)
class PackedBits(MadeInBlocks):
    """Codes of four or six bits one after the other, the first in the lowest bits of a byte."""

    packed: FileRange
    dtype: np.dtype[Any]
    bits: int

    def blocks(self, elements: int) -> Iterator[npt.NDArray[Any]]:
        """Yield all elements, in blocks of about this many."""
        unit = self.bits // 2  # bytes of four codes of six bits, and of four of four
        for block in self.packed.blocks(max(1, elements // 4) * unit):
            codes = unpacked(block.reshape(1, -1), block.size * 8 // self.bits, self.bits)
            yield codes.reshape(-1).view(self.dtype)


def read_safetensors(path: Path) -> TensorFile:
    """Read the header of a file and check it against the file's size.

    Raises ValueError if the file is damaged or was made to deceive.
    """
    with path.open("rb") as file:
        stamp = Stamp.of(file)
        header, begin = _read_header(file, stamp.size)
    metadata = _checked_metadata(header.pop(METADATA, {}))
    infos = {checked_name(name): _Info.of(name, info) for name, info in header.items()}
    _check_offsets(infos, stamp.size - begin)
    tensors = [info.tensor(name, path, begin, stamp) for name, info in infos.items()]
    return TensorFile(path, apply_notes(metadata, tensors), metadata)


def _read_header(file: Any, size: int) -> tuple[dict[str, Any], int]:
    """Return the header and where the data begin."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError(f"its header has {length:,} bytes, the file only {size:,}")
    if length > _MOST_HEADER_BYTES:
        raise ValueError(f"its header has {length:,} bytes; {_MOST_HEADER_BYTES:,} are allowed")
    content = file.read(length)
    parts = sum(map(content.count, (b",", b"[", b"{")))
    if parts > _MOST_HEADER_PARTS:
        raise ValueError(f"its header has {parts:,} parts; {_MOST_HEADER_PARTS:,} are allowed")
    try:
        header = json.loads(content.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"its header is not the JSON of a .safetensors file ({error})") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not the JSON object of a .safetensors file")
    return header, 8 + length


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        name = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {name!r:.100} is there twice")
    return content


def _checked_metadata(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError(f"its {METADATA} is not a map of texts")
    return metadata


@dataclasses.dataclass(frozen=True)
class _Info:
    """What the header says of one tensor."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    size: int
    begin: int
    end: int
    bits: int | None  # of elements that share bytes

    @classmethod
    def of(cls, name: str, info: Any) -> _Info:
        """Check what the header says."""
        try:
            kind, shape, (begin, end) = info["dtype"], info["shape"], info["data_offsets"]
        except (TypeError, KeyError, ValueError):
            raise ValueError(f"what its header says of {name!r:.100} is damaged") from None
        if not isinstance(kind, str) or kind not in DTYPES:
            raise ValueError(
                f"{name!r:.100} has dtype {kind!r:.100}; known are {', '.join(DTYPES)}"
            )
        if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
            raise ValueError(
                f"{name!r:.100} lies from {begin!r:.50} to {end!r:.50}; offsets ascend"
            )
        dtype = DTYPES[kind]
        size = checked_size(name, shape, dtype.itemsize)
        expected, rest = divmod(size * PACKED.get(kind, 8 * dtype.itemsize), 8)
        if expected != end - begin or rest:
            raise ValueError(
                f"{name!r:.100} of shape {shape!r:.100} and dtype {kind} takes {expected:,} bytes, "
                f"but has {end - begin:,}"
            )
        return cls(dtype, tuple(shape), size, begin, end, PACKED.get(kind))

    def tensor(self, name: str, path: Path, begin: int, stamp: Stamp) -> Tensor:
        """Return the tensor, for data that begin there."""
        kind = np.dtype(np.uint8) if self.bits else self.dtype
        size = self.end - self.begin if self.bits else self.size
        place = FileRange(path, begin + self.begin, kind, size, stamp)
        source = PackedBits(place, self.dtype, self.bits) if self.bits else place
        return Tensor(name, self.shape, self.dtype, source, format_of(self.dtype))


def _check_offsets(infos: dict[str, _Info], size: int) -> None:
    """Refuse data that overlap, leave gaps or end elsewhere than the file."""
    in_order = sorted(infos.items(), key=lambda item: (item[1].begin, item[1].end))
    last = max((info.end for info in infos.values()), default=0)
    if last > size:
        raise ValueError(f"its data end {last - size:,} bytes too early: the file was cut short")
    if (infos and in_order[0][1].begin) or last < size:
        raise ValueError(f"its tensors leave bytes unused: {last:,} of {size:,} are told")
    for (name, info), (other, following) in itertools.pairwise(in_order):
        if following.begin < info.end:
            raise ValueError(f"{name!r:.100} and {other!r:.100} share bytes of the file")
        if following.begin > info.end:
            raise ValueError(f"there is a gap between {name!r:.100} and {other!r:.100}")


# Writing -----------------------------------------------------------------------------------------


def _write_safetensors(file: BinaryIO, tensors: Sequence[Tensor], texts: dict[str, str]) -> None:
    assert sys.byteorder == "little", "the format is little-endian"
    header: dict[str, Any] = {METADATA: texts} if texts else {}
    header |= {tensor.name: None for tensor in tensors}
    # Wide elements first, as the safetensors package has it, so that each lies at a multiple of
    # its width; the header keeps the order of the names.
    laid_out = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
    begin = 0
    for tensor in laid_out:
        kind = _NAMES[tensor.dtype]
        end = begin + tensor.size * PACKED.get(kind, 8 * tensor.dtype.itemsize) // 8
        info = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
        header[tensor.name], begin = info, end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in laid_out:
        bits = PACKED.get(_NAMES[tensor.dtype])
        for block in tensor.blocks():
            file.write(bytes_of(packed(block.view(np.uint8), bits) if bits else block))


def _has_dtype(tensor: Tensor) -> bool:
    bits = PACKED.get(_NAMES.get(tensor.dtype, ""))
    if bits:
        return bool(tensor.shape) and tensor.shape[-1] * bits % 8 == 0  # whole bytes
    return tensor.dtype in _NAMES


KINDS = (
    FileKind(
        (".safetensors",),
        read_safetensors,
        place=0,
        index_suffix=".safetensors.index.json",
        write=_write_safetensors,
        has_dtype=_has_dtype,
    ),
)
