"""Archives: named arrays and a JSON header in one .npz file, written whole or not at all.

`numpy.load` reads an archive too. Nothing is pickled: reading one never runs code.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.outputs import Kind
from lowprec.common.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]

MAGIC = "lowprec archive"
VERSION = 1
_HEADER = "header.json"


def write_archive(path: PathLike, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> None:
    """Write arrays and a header to a file that is complete or not there.

    The same content gives the same bytes.

    path: The file; one that exists is replaced. It gets exactly this name.
    arrays: Arrays of NumPy's own dtypes, of any shape.
    header: What JSON holds: text, numbers (NaN and infinity too), lists, dictionaries.
    Raises TypeError if JSON cannot hold the header or .npy an array.
    Raises OSError if the folder does not exist or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_archive(f"{folder}/a.npz", {"x/y": np.arange(3)}, {"seed": 1})
    ...     read_archive(f"{folder}/a.npz")
    ({'x/y': array([0, 1, 2])}, {'seed': 1})
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    envelope = {
        "kind": MAGIC,
        "version": VERSION,
        "arrays": list(arrays),
        "header": dict(header),
    }
    try:
        text = json.dumps(envelope)
    except (TypeError, ValueError) as error:
        raise TypeError(f"JSON cannot hold this header: {error}") from None
    for name, array in arrays.items():
        if array.dtype.kind not in "biufcSU" or array.dtype.isbuiltin == 2:
            raise TypeError(f"{name} holds {array.dtype}, which .npy cannot; store it as float32")
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(_HEADER), text)  # ZipInfo's date is a constant
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def read_archive(path: PathLike) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays and the header of a file that `write_archive` wrote, bit for bit.

    Returns arrays: In the order written.
    Returns header: The header, with lists where there were tuples.
    Raises FileNotFoundError if there is no such file.
    Raises ValueError if the file is damaged, was not written by `write_archive`, or by a newer
        version of it.
    """
    with Path(path).open("rb") as file:  # what fails from here on is not for want of a file
        try:
            with zipfile.ZipFile(file) as archive:
                envelope = json.loads(archive.read(_HEADER))
                _check_envelope(envelope)
                arrays = {name: _read_array(archive, name) for name in envelope["arrays"]}
        except _OtherVersionError as error:
            raise ValueError(f"{path} {error}") from None
        except _DAMAGE as error:
            raise ValueError(f"{path} is damaged or no archive of lowprec: {error}") from None
    return arrays, envelope["header"]


def in_folder(folder: str, arrays: Mapping[Any, Array]) -> dict[str, Array]:
    """Return arrays under the names that a folder of an archive gives them."""
    return {f"{folder}/{name}": array for name, array in arrays.items()}


def arrays_in(folder: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays of a folder of an archive, under their names in it."""
    start = f"{folder}/"
    return {n.removeprefix(start): array for n, array in arrays.items() if n.startswith(start)}


def archive_kind(content: str) -> Kind:
    """Return the kind of the archives whose header calls its content so: "history", "recorder".

    Only the header is read, so that a file of an older or newer version is known again too.
    """

    def wrote(path: Path) -> bool:
        try:
            with zipfile.ZipFile(path) as archive:
                envelope = json.loads(archive.read(_HEADER))
            return bool(envelope["kind"] == MAGIC and envelope["header"]["content"] == content)
        except _DAMAGE:
            return False

    return Kind(f"a {content} that lowprec saved", wrote)


class _OtherVersionError(Exception):
    """An archive is whole, but not for this version."""


_DAMAGE = (  # what zipfile, json and NumPy raise for bytes that are not theirs
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def _check_envelope(envelope: dict[str, Any]) -> None:
    if envelope["kind"] != MAGIC:
        raise ValueError(f"its header is that of a {envelope['kind']!r}")
    if envelope["version"] != VERSION:
        raise _OtherVersionError(
            f"has version {envelope['version']!r} of the file format and this lowprec reads "
            f"version {VERSION}; read it with the lowprec that wrote it"
        )


def _read_array(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(f"{name}.npy") as member:
        array: Array = np.lib.format.read_array(member, allow_pickle=False)
        return array
