"""Folders and archives of zarr, read through zarr, chunk by chunk."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

from lowprec.tensors.checks import checked_name, checked_size, endless_claim
from lowprec.tensors.file_kind import FileKind
from lowprec.tensors.sliced import Sliced, left_out, missing_library
from lowprec.tensors.tensor import Tensor, TensorFile, format_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SIGNS = ("zarr.json", ".zgroup", ".zarray")
_CODECS = {
    *("blosc", "zstd", "zlib", "gzip", "lz4", "bz2", "lzma", "bytes", "transpose", "crc32c"),
    *(
        "delta",
        "shuffle",
        "fixedscaleoffset",
        "quantize",
        "bitround",
        "packbits",
        "sharding_indexed",
    ),
    *("crc32", "adler32", "fletcher32", "astype"),
}
_METADATA = ("zarr.json", ".zarray", ".zmetadata")
_MOST_METADATA = 1 << 26  # bytes
_MOST_CHUNK = 1 << 30


def is_zarr(path: Path) -> bool:
    """Whether a folder is one of zarr's."""
    return path.is_dir() and any((path / name).is_file() for name in _SIGNS)


def read_zarr(path: Path) -> TensorFile:
    """Read which arrays a folder has; only codecs that unpack numbers are run.

    Raises ModuleNotFoundError without zarr.
    Raises ValueError if it is damaged, or asks for a codec that could run a program.
    """
    try:
        import zarr
    except ModuleNotFoundError:
        raise missing_library(path, "a folder of zarr", "zarr", "zarr") from None
    _check_codecs(path)
    try:
        store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else path
        top = zarr.open(store, mode="r")
        found = (
            [(path.name.partition(".")[0], top)]
            if isinstance(top, zarr.Array)
            else list(_arrays(zarr, top))
        )
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"zarr does not read it ({' '.join(str(error).split()):.200})") from None
    files = path.rglob("*") if path.is_dir() else [path]
    stored = sum(file.stat().st_size for file in files if file.is_file())
    tensors = tuple(_tensor(name, array, stored) for name, array in found)
    if not tensors:
        raise ValueError("it holds no arrays")
    return TensorFile(path, tensors, {})


def _arrays(zarr: Any, group: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > 30:
        raise ValueError("its groups lie more than 30 deep")
    for name, item in group.members():
        if isinstance(item, zarr.Array):
            yield f"{prefix}{name}", item
        else:
            yield from _arrays(zarr, item, f"{prefix}{name}/", depth + 1)


def _metadata(path: Path) -> Iterator[tuple[str, str]]:
    """Return the names and texts of what describes arrays, in a folder or an archive."""
    if path.is_dir():
        for place in path.rglob("*"):
            if place.name in _METADATA and place.is_file():
                name = str(place.relative_to(path))
                is_small = place.stat().st_size <= _MOST_METADATA
                yield name, place.read_text(encoding="utf-8") if is_small else ""
        return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.rpartition("/")[2] in _METADATA:
                with archive.open(entry) as stream:
                    content = stream.read(_MOST_METADATA + 1)
                text = content.decode("utf-8") if len(content) <= _MOST_METADATA else ""
                yield entry.filename, text


def _check_codecs(path: Path) -> None:
    """Refuse codecs that lowprec does not know, before anything is unpacked: pickle is one."""
    try:
        for place, text in _metadata(path):
            try:
                content = json.loads(text)
            except (ValueError, RecursionError):
                content = None
            if not isinstance(content, dict):
                raise ValueError(f"{place:.100} is damaged")
            for codec in _codecs(content):
                name = str(codec).removeprefix("numcodecs.")
                if name not in _CODECS:
                    raise ValueError(f"it is packed with {codec!r:.50}, a codec that is not run")
    except (ValueError, FileNotFoundError):
        raise
    except Exception as error:  # of many kinds: what an archive's damage makes of it
        raise ValueError(f"it is damaged ({error!s:.100})") from None


def _codecs(content: Any) -> Iterator[Any]:
    """Return all codecs that metadata names at any depth: it may hold that of other arrays."""
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            for key, value in item.items():
                waiting.append(value)
                if key in ("compressor", "filters", "codecs", "index_codecs"):
                    for entry in value if isinstance(value, list) else [value] if value else ():
                        is_named = isinstance(entry, dict)
                        yield entry.get("id", entry.get("name")) if is_named else entry


def _tensor(name: str, array: Any, stored: int) -> Tensor:
    name = checked_name(name)
    shape, dtype = tuple(map(int, array.shape)), array.dtype
    size = checked_size(name, shape, max(1, dtype.itemsize)) * dtype.itemsize
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        return left_out(name, f"not of real numbers: {dtype}")
    chunk = checked_size(name, tuple(map(int, array.chunks)), dtype.itemsize) * dtype.itemsize
    if chunk > _MOST_CHUNK:
        raise ValueError(
            f"{name!r:.100} has chunks of {chunk:,} bytes; {_MOST_CHUNK:,} are allowed"
        )
    if reason := endless_claim(size, stored):
        return left_out(name, reason)
    native = dtype.newbyteorder("=")
    return Tensor(name, shape, native, Sliced(array.__getitem__, shape, native), format_of(dtype))


KINDS = (FileKind((".zarr", ".zarr.zip"), read_zarr, place=6, in_folders=False),)
