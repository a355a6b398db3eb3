"""Files of tensors, written by block, whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from lowprec.common.outputs import NEVER_REPLACED, exists_error
from lowprec.common.processor_state import in_exact_state
from lowprec.common.whole_files import target_of
from lowprec.tensors.bits import packed
from lowprec.tensors.checks import checked_name, refuse_duplicates
from lowprec.tensors.kinds.safetensors import DTYPES, METADATA, PACKED
from lowprec.tensors.sources import Viewed, as_tensor, bytes_of
from lowprec.tensors.storage import with_notes
from lowprec.tensors.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

_REGISTERED = 2  # dtypes that a package has added to NumPy, which NumPy's files do not know
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@in_exact_state
def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, npt.ArrayLike | Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write arrays, or tensors of other files, block by block.

    Parameters
    ----------
    path : str or path
        The file, ``.safetensors``, ``.npz`` or ``.npy``. It appears when all of it is written.
    tensors : mapping of str to array_like or Tensor
        What to write. bfloat16 and fp8, of which NumPy's files know nothing, become codes in
        ``.npz`` files, with a note that `open_tensors` understands.
    metadata : mapping of str to str, optional
        Texts to keep beside them; not in ``.npy``.
    overwrite : bool
        Whether a file that exists may be replaced.

    Raises
    ------
    FileExistsError
        If the file exists and may not be replaced.
    ValueError
        If this kind of file cannot hold such tensors.
    TypeError
        If the metadata are not texts.

    Examples
    --------
    >>> import tempfile
    >>> from lowprec.tensors import open_tensors
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(f"{folder}/w.npz", {"w": [[1, 2]]}, {"by": "me"})
    ...     tensors = open_tensors(f"{folder}/w.npz")
    ...     print(tensors["w"].read().tolist(), tensors.metadata["by"])
    [[1, 2]] me
    """
    named = [
        dataclasses.replace(x, name=name) if isinstance(x, Tensor) else as_tensor(name, x)
        for name, x in tensors.items()
    ]
    write_file(Path(path), named, metadata or {}, overwrite=overwrite)


def write_file(
    path: Path, tensors: Sequence[Tensor], metadata: Mapping[str, str], *, overwrite: bool
) -> None:
    """Write tensors to a file of the kind that its name tells; see `write_tensors`."""
    write, stored = WRITERS.get(path.suffix.lower()), checked_file(path, tensors, metadata)
    assert write is not None, "checked"
    with replacing(path, overwrite=overwrite) as file:
        write(file, stored, with_notes(metadata, stored))


def checked_file(
    path: Path, tensors: Sequence[Tensor], metadata: Mapping[str, str]
) -> list[Tensor]:
    """Return tensors as a file of this name holds them; nothing is read or written.

    Raises ValueError if the file cannot hold them; it names the file.
    Raises TypeError if the metadata are not texts.
    """
    suffix = path.suffix.lower()
    try:
        if suffix not in WRITERS:
            raise ValueError(f"use a name in {', '.join(WRITERS)}")
        refuse_duplicates(checked_name(tensor.name) for tensor in tensors)
        _check_texts(path, tensors, metadata)
        if suffix == ".npy":
            _check_npy(tensors)
        return [storable(tensor, suffix) for tensor in tensors]
    except ValueError as error:
        raise ValueError(f"{path} cannot be written: {error}") from None


def _check_npy(tensors: Sequence[Tensor]) -> None:
    if len(tensors) != 1:
        raise ValueError(f".npy files hold one array, not {len(tensors)}; write .npz")
    (tensor,) = tensors
    if tensor.is_coded or storable(tensor, ".npy").is_coded:
        raise ValueError(
            f".npy files know no {tensor.fmt} and no scales; write .safetensors or .npz"
        )


def _check_texts(path: Path, tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> None:
    """Refuse what would be written and then not be understood."""
    if path.suffix.lower() != ".npy" and any(tensor.name == METADATA for tensor in tensors):
        raise ValueError(
            f"{METADATA!r} is where {path.suffix} files keep their texts; give the tensor another "
            "name"
        )
    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"metadata {key!r:.50}: {text!r:.50} is not a pair of texts; use texts")


# What a kind of file can hold --------------------------------------------------------------------


def storable(tensor: Tensor, suffix: str) -> Tensor:
    """Return a tensor as this kind of file holds it: under its dtype, or as codes.

    Raises ValueError if the file can hold neither.
    """
    has_dtype = tensor.dtype in _NAMES
    if suffix != ".safetensors":
        has_dtype = tensor.dtype.isbuiltin != _REGISTERED
    bits = PACKED.get(_NAMES.get(tensor.dtype, ""))
    if bits and suffix == ".safetensors":
        has_dtype = bool(tensor.shape) and tensor.shape[-1] * bits % 8 == 0  # whole bytes
    if has_dtype and not tensor.dtype.hasobject:
        return tensor
    if tensor.fmt is None:
        raise ValueError(f"{suffix} files have no dtype for {tensor.name!r}, of {tensor.dtype}")
    codes = tensor.fmt.code_dtype
    return dataclasses.replace(tensor, dtype=codes, source=Viewed(tensor.source, codes))


# Kinds of files ----------------------------------------------------------------------------------


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


def _write_npz(file: BinaryIO, tensors: Sequence[Tensor], texts: dict[str, str]) -> None:
    if texts:
        note = np.frombuffer(json.dumps(texts).encode(), np.uint8)
        tensors = [*tensors, as_tensor(METADATA, note)]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for tensor in tensors:
            with archive.open(f"{tensor.name}.npy", "w", force_zip64=True) as member:
                _write_array(member, tensor)


def _write_npy(file: BinaryIO, tensors: Sequence[Tensor], texts: dict[str, str]) -> None:
    _write_array(file, tensors[0])


def _write_array(stream: Any, tensor: Tensor) -> None:
    descr = np.lib.format.dtype_to_descr(tensor.dtype)
    header = {"descr": descr, "fortran_order": False, "shape": tensor.shape}
    np.lib.format.write_array_header_1_0(stream, header)
    for block in tensor.blocks():
        stream.write(bytes_of(block))


WRITERS: dict[str, Callable[[Any, Sequence[Tensor], dict[str, str]], None]] = {
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
    ".npy": _write_npy,
}


# Whole or not at all -----------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Give a file to write, which takes the name once it is complete and on the disk.

    Until then it is called ``.NAME.partial``. A process that is killed leaves that behind, and the
    next one that writes the same file begins it anew.

    Raises FileExistsError if the file exists and may not be replaced.
    Raises BlockingIOError if another process is writing it.
    """
    target = target_of(path)
    _check_free(target, overwrite)
    partial = target.with_name(f".{target.name}.partial")
    with open(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b") as file:
        _lock(file, partial)
        try:
            file.truncate()
            yield file
            file.flush()
            os.fsync(file.fileno())
            _check_free(target, overwrite)
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    _sync_folder(target.parent)


def _check_free(target: Path, overwrite: bool) -> None:
    if target.exists() and not (overwrite and target.is_file()):
        raise exists_error(target, NEVER_REPLACED)


def _lock(file: BinaryIO, partial: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_mine = os.path.samestat(os.fstat(file.fileno()), partial.stat())
    except (BlockingIOError, FileNotFoundError):
        is_mine = False
    if not is_mine:
        raise BlockingIOError(errno.EAGAIN, "another process is writing it", str(partial))


def _sync_folder(folder: Path) -> None:
    """Have the new name itself written to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
