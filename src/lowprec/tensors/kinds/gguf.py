"""Files ``.gguf`` of llama.cpp: read through gguf, which knows all its packings."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

import ml_dtypes
import numpy as np

from lowprec.formats import float32
from lowprec.tensors.checks import checked_name, checked_size, refuse_duplicates
from lowprec.tensors.file_kind import FileKind
from lowprec.tensors.sliced import Sliced, missing_library
from lowprec.tensors.sources import FileRange, Stamp, let_go_of
from lowprec.tensors.tensor import Tensor, TensorFile, format_of

if TYPE_CHECKING:
    from pathlib import Path

_PLAIN = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F64": np.dtype("<f8"),
    "I8": np.dtype("<i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_DEEPEST, _MOST = 8, 10_000_000


def read_gguf(path: Path) -> TensorFile:
    """Read the header of a file; its quantized tensors are read as float32 values.

    Raises ModuleNotFoundError without gguf.
    Raises ValueError if the file is damaged or was made to deceive.
    """
    with path.open("rb") as file:
        stamp = Stamp.of(file)
        _check_header(file, stamp.size)
    try:
        import gguf
    except ModuleNotFoundError:
        raise missing_library(path, "a file of llama.cpp", "gguf", "gguf") from None
    try:
        reader = gguf.GGUFReader(path)
        found = [(t.name, t.tensor_type, [int(n) for n in t.shape], t) for t in reader.tensors]
    except Exception as error:  # of many kinds, where the header is damaged
        raise ValueError(f"its header is damaged ({error!s:.200})") from None
    refuse_duplicates(name for name, *_ in found)
    tensors = [
        _tensor(gguf, path, stamp, checked_name(name), kind, tuple(reversed(shape)), tensor)
        for name, kind, shape, tensor in found
    ]
    if not tensors:
        raise ValueError("it holds no tensors")
    return TensorFile(path, tuple(tensors), {})


def _tensor(
    gguf: Any, path: Path, stamp: Stamp, name: str, kind: Any, shape: tuple[int, ...], found: Any
) -> Tensor:
    offset, size = int(found.data_offset), int(found.n_bytes)
    if offset < 0 or offset + size > stamp.size:
        raise ValueError(f"{name!r:.100} lies beyond the end of the file")
    dtype = _PLAIN.get(kind.name)
    if dtype is not None:
        count = checked_size(name, shape, dtype.itemsize)
        if count * dtype.itemsize != size:
            raise ValueError(f"{name!r:.100} of shape {shape} has {size:,} bytes")
        place = FileRange(path, offset, dtype, count, stamp)
        return Tensor(name, shape, dtype.newbyteorder("="), place, format_of(dtype))
    block, width = gguf.GGML_QUANT_SIZES[kind]
    columns = shape[-1] if shape else 0
    rows = checked_size(name, shape, 4) // max(1, columns)
    if columns % block or rows * columns // block * width != size:
        raise ValueError(f"{name!r:.100} of shape {shape} and {kind.name} has {size:,} bytes")
    row_bytes = columns // block * width
    place = FileRange(path, offset, np.dtype(np.uint8), size, stamp)
    read = functools.partial(_decoded, gguf.quants.dequantize, kind, place, row_bytes)
    source = Sliced(read, (rows, columns), np.dtype(np.float32))
    try:
        gguf.quants.dequantize(np.zeros((1, width), np.uint8), kind)
    except NotImplementedError:
        reason = f"packed as {kind.name}, which gguf does not unpack"
        return Tensor(name, shape, np.dtype(np.float32), source, None, left=reason)
    return Tensor(name, shape, np.dtype(np.float32), source, float32)


def _decoded(
    dequantize: Any, kind: Any, place: FileRange, row_bytes: int, index: tuple[Any, ...]
) -> Any:
    """Return the values of some rows, or of a part of one."""
    rows = index[0] if isinstance(index[0], slice) else slice(index[0], index[0] + 1)
    mapped = place.array()
    packed = mapped[rows.start * row_bytes : rows.stop * row_bytes]
    values = dequantize(np.array(packed).reshape(-1, row_bytes), kind)
    let_go_of(mapped)
    return values[0][index[1]] if len(index) > 1 else values


# The header, walked before the library counts endless lists one by one ---------------------------


def _check_header(file: BinaryIO, size: int) -> None:
    if file.read(4) != b"GGUF":
        raise ValueError("it does not begin as .gguf files do")
    version, tensors, pairs = struct.unpack("<IQQ", _exactly(file, 20))
    if version not in (2, 3):
        raise ValueError(f"it has version {version} or big-endian numbers; 2 and 3 are read")
    if tensors > min(size // 24, _MOST) or pairs > min(size // 12, _MOST):
        raise ValueError(f"it claims {tensors:,} tensors and {pairs:,} texts, more than fit in it")
    for _ in range(pairs):
        _skip_text(file, size)
        _skip_value(file, size, _number(file, "<I"), 0)
    for _ in range(tensors):
        _skip_text(file, size)
        axes = _number(file, "<I")
        if axes > 8:
            raise ValueError(f"a tensor has {axes:,} axes")
        _exactly(file, 8 * axes + 12)


def _skip_value(file: BinaryIO, size: int, kind: int, depth: int) -> None:
    if kind == _STRING:
        _skip_text(file, size)
    elif kind == _ARRAY:
        inner, count = struct.unpack("<IQ", _exactly(file, 12))
        width = _WIDTHS.get(inner)
        if depth > _DEEPEST or count * (width or 8) > size:
            raise ValueError(f"a list of its header claims {count:,} entries, more than fit in it")
        if width is not None:
            file.seek(count * width, 1)
            return
        for _ in range(count):
            _skip_value(file, size, inner, depth + 1)
    elif kind in _WIDTHS:
        _exactly(file, _WIDTHS[kind])
    else:
        raise ValueError(f"its header has a value of the unknown kind {kind}")


def _skip_text(file: BinaryIO, size: int) -> None:
    length = _number(file, "<Q")
    if length > size - file.tell():
        raise ValueError(f"a text of its header claims {length:,} bytes, more than fit in it")
    file.seek(length, 1)


def _number(file: BinaryIO, layout: str) -> int:
    value: int = struct.unpack(layout, _exactly(file, struct.calcsize(layout)))[0]
    return value


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise ValueError("its header was cut short")
    return content


KINDS = (FileKind((".gguf",), read_gguf, place=3),)
