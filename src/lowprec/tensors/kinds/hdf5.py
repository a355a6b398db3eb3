"""HDF5: ``.h5``, ``.hdf5``, and the weights in Keras' ``.keras``; read through h5py."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

from lowprec.tensors.checks import checked_name, checked_size, endless_claim
from lowprec.tensors.file_kind import FileKind
from lowprec.tensors.sliced import Sliced, left_out, missing_library
from lowprec.tensors.tensor import Tensor, TensorFile, format_of

if TYPE_CHECKING:
    from pathlib import Path

_WEIGHTS = "model.weights.h5"
_MOST_BYTES = 8 << 30


def read_hdf5(path: Path) -> TensorFile:
    """Read which data sets a file has; their elements are read by slice.

    Raises ModuleNotFoundError without h5py.
    Raises ValueError if the file is damaged, or refers to other files.
    """
    path.open("rb").close()
    return _read(path, path)


def read_keras(path: Path) -> TensorFile:
    """Read the weights of a model that Keras saved; its program is not read.

    Keras stores them uncompressed: they are read where they lie, and packed ones into memory.
    """
    try:
        archive = zipfile.ZipFile(path)
        info = archive.getinfo(_WEIGHTS)
        size = path.stat().st_size
        if info.file_size > min(_MOST_BYTES, 1040 * size) and info.compress_type:
            raise ValueError(f"its weights claim {info.file_size:,} bytes, the file {size:,}")
        content: Any = archive.open(info)
        if info.compress_type:
            content = io.BytesIO(content.read())
    except ValueError:
        raise
    except Exception as error:  # of many kinds, as the damage is
        raise ValueError(
            f"it is not an archive of Keras with {_WEIGHTS} ({error!s:.100})"
        ) from None
    return _read(path, content)


def _read(path: Path, place: Any) -> TensorFile:
    try:
        import h5py
    except ModuleNotFoundError:
        raise missing_library(path, "a file of HDF5", "h5py", "hdf5") from None
    try:
        file = h5py.File(place, "r")
        found: list[tuple[str, Any]] = []

        def note(name: str, item: Any) -> None:  # links to other files are not followed
            if isinstance(item, h5py.Dataset):
                found.append((name, item))

        file.visititems(note)
    except Exception as error:  # OSError, RuntimeError, KeyError: as the damage is
        raise ValueError(f"h5py does not read it ({' '.join(str(error).split()):.200})") from None
    tensors = tuple(_tensor(name, item) for name, item in found)
    if not tensors:
        raise ValueError("it holds no data sets")
    return TensorFile(path, tensors, {})


def _tensor(name: str, item: Any) -> Tensor:
    name = checked_name(name)
    try:
        shape, dtype = tuple(item.shape or ()), item.dtype
        elsewhere = item.external is not None or item.is_virtual
        stored = item.id.get_storage_size()
    except Exception as error:
        raise ValueError(f"{name!r:.100} is damaged: {error!s:.200}") from None
    size = checked_size(name, tuple(map(int, shape)), max(1, dtype.itemsize)) * dtype.itemsize
    source = Sliced(item.__getitem__, shape, dtype.newbyteorder("="))
    tensor = Tensor(name, shape, dtype.newbyteorder("="), source, format_of(dtype))
    if elsewhere:
        raise ValueError(f"{name!r:.100} has its elements in another file, which is not read")
    if item.shape is None or dtype.kind not in "fiub" or dtype.itemsize > 8:
        return left_out(name, f"not of real numbers: {dtype}")
    if reason := endless_claim(size, stored):
        return left_out(name, reason)
    return tensor


KINDS = (
    FileKind((".h5", ".hdf5"), read_hdf5, place=5),
    FileKind((".keras",), read_keras, place=5),
)
