"""Files: arrays read with clear errors, output written whole or not at all."""

from __future__ import annotations

import errno
import secrets
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    import numpy.typing as npt

__all__ = ["read_arrays", "write_atomically"]


def write_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file (UTF-8) so that nobody ever sees half of it.

    The text goes to a temporary file in the same folder, which then takes the name. What is no
    regular file, such as ``/dev/stdout``, is written directly.

    Parameters
    ----------
    path : str or path
        The file to write; one that exists is replaced.
    text : str
        All of its content.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8")
        return
    target = target.resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(target.parent))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def read_arrays(paths: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of .npy files (memory-mapped) and .npz files by name.

    Parameters
    ----------
    paths : iterable of str
        The files. Pickled objects are refused.

    Returns
    -------
    dict of str to ndarray
        ``weights.npy`` or ``grads.npz:name``; with the folder where two files have one name.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    ValueError
        If a file is damaged or of another kind, holds no array, or one that is not of real numbers.
    """
    files = [Path(path) for path in dict.fromkeys(paths)]
    uses = Counter(path.name for path in files)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for path in files:
        label = path.name if uses[path.name] == 1 else str(path)
        try:
            arrays |= _read(path, label)
        except (EOFError, zipfile.BadZipFile, zlib.error, SyntaxError) as error:
            raise ValueError(f"{path} is damaged or no {path.suffix} file: {error}") from None
        except ValueError as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
    for name, array in arrays.items():
        _check_is_real(name, array)
    return arrays


def _read(path: Path, label: str) -> dict[str, npt.NDArray[Any]]:
    match path.suffix.lower():
        case ".npy":
            return {label: np.lib.format.open_memmap(path, mode="r")}
        case ".npz":
            with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
                if not archive.files:
                    raise ValueError("it holds no arrays")
                return {f"{label}:{name}": archive[name] for name in archive.files}
    raise ValueError("its name ends in neither .npy nor .npz")


def _check_is_real(name: str, array: npt.NDArray[Any]) -> None:
    if array.dtype.kind == "V":
        raise ValueError(
            f"{name} holds {array.dtype}, bytes without a meaning, as NumPy saves bfloat16 and "
            "other ml_dtypes; save it as float32"
        )
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} holds {array.dtype}; lowprec measures arrays of real numbers")
