"""Files of tensors, written by block, whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lowprec.common.outputs import NEVER_REPLACED, exists_error
from lowprec.common.processor_state import in_exact_state
from lowprec.common.whole_files import target_of
from lowprec.tensors.checks import checked_name, refuse_duplicates
from lowprec.tensors.kinds import writers
from lowprec.tensors.kinds.safetensors import METADATA
from lowprec.tensors.sources import Viewed, as_tensor
from lowprec.tensors.storage import with_notes
from lowprec.tensors.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt


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
    stored = checked_file(path, tensors, metadata)
    write = writers()[path.suffix.lower()].write
    assert write is not None, "writers have it"
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
        kind = writers().get(suffix)
        if kind is None:
            raise ValueError(f"use a name in {', '.join(writers())}")
        refuse_duplicates(checked_name(tensor.name) for tensor in tensors)
        if kind.keeps_texts and any(tensor.name == METADATA for tensor in tensors):
            raise ValueError(
                f"{METADATA!r} is where {path.suffix} files keep their texts; give the tensor "
                "another name"
            )
        _check_texts(metadata)
        kind.check(tensors)
        return [storable(tensor, suffix) for tensor in tensors]
    except ValueError as error:
        raise ValueError(f"{path} cannot be written: {error}") from None


def _check_texts(metadata: Mapping[str, str]) -> None:
    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"metadata {key!r:.50}: {text!r:.50} is not a pair of texts; use texts")


# What a kind of file can hold --------------------------------------------------------------------


def storable(tensor: Tensor, suffix: str) -> Tensor:
    """Return a tensor as this kind of file holds it: under its dtype, or as codes.

    Raises ValueError if the file can hold neither.
    """
    if writers()[suffix].has_dtype(tensor) and not tensor.dtype.hasobject:
        return tensor
    if tensor.fmt is None:
        raise ValueError(f"{suffix} files have no dtype for {tensor.name!r}, of {tensor.dtype}")
    codes = tensor.fmt.code_dtype
    return dataclasses.replace(tensor, dtype=codes, source=Viewed(tensor.source, codes))


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
