"""Opening files, sets of shards and folders of them."""

from __future__ import annotations

import errno
import glob
import json
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowprec.tensors.checks import checked_name
from lowprec.tensors.kinds.npy import read_npy
from lowprec.tensors.kinds.npz import read_npz
from lowprec.tensors.kinds.safetensors import read_safetensors
from lowprec.tensors.kinds.torch import read_torch
from lowprec.tensors.packings import folded
from lowprec.tensors.tensor import Tensors
from lowprec.tensors.writing import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowprec.tensors.quantized import QuantizedTensor
    from lowprec.tensors.tensor import TensorFile

INDEX_SUFFIX = ".safetensors.index.json"
_READERS: dict[str, Callable[[Path], TensorFile]] = {
    ".safetensors": read_safetensors,
    ".npz": read_npz,
    ".npy": read_npy,
    ".pt": read_torch,
    ".pth": read_torch,
    ".ckpt": read_torch,
    ".bin": read_torch,
}
_TOGETHER = (  # of a folder, the first of these that is there; the other files are left
    (".safetensors",),
    (".npz", ".npy"),
    (".pt", ".pth", ".ckpt", ".bin"),
)
_SHARD = re.compile(r"(.*)-(\d{5,})-of-(\d{5,})(\.\w+)$")
_MOST_INDEX_BYTES = 100_000_000
_MOST_CONFIG_BYTES = 16_000_000


def open_tensors(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Tensors:
    """Open the tensors of a file or of a set of files, without reading their elements.

    Parameters
    ----------
    path : str or path, or a sequence of them
        A file ``.safetensors``, ``.npz``, ``.npy`` or, where torch is installed, one that
        ``torch.save`` wrote (``.pt``, ``.pth``, ``.ckpt``, ``.bin``); an index
        ``model.safetensors.index.json``, a pattern such as ``"model-*-of-*.safetensors"``, or a
        folder. Of a folder the files of one kind are taken, the first that is there of safetensors,
        NumPy's and torch's, and of safetensors with an index only those that it names; the log
        (``logging``, on stderr) names the files of tensors that are left.

    Returns
    -------
    Tensors
        A mapping of names to `Tensor`, whose elements are read when they are asked for.

    Raises
    ------
    OSError
        If a file is not there or cannot be read.
    ValueError
        If a file is damaged, of no known kind, or was made to deceive; if shards are missing.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from lowprec.tensors import open_tensors, write_tensors
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(f"{folder}/model.safetensors", {"w": np.float32([1.5, -2])})
    ...     tensors = open_tensors(f"{folder}/model.safetensors")
    ...     print(tensors["w"], [block.tolist() for block in tensors["w"].blocks()])
    Tensor(name='w', shape=(2,), dtype=dtype('float32'), fmt=float32, scale=1.0) [[1.5, -2.0]]
    """
    say_what_is_left(path)
    return open_quietly(path)


def say_what_is_left(path: Any) -> None:
    """Log the `notes_on_folders`: Python shows them on stderr, unless a program says otherwise."""
    for note in notes_on_folders(path):
        logging.getLogger("lowprec.tensors").warning(note)


def open_quietly(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Tensors:
    """Open tensors for a caller that shows `notes_on_folders` itself; see `open_tensors`."""
    paths, index = find_files(path)
    return Tensors(read_model(paths), index)


def read_model(
    paths: Sequence[Path], wanted: Callable[[QuantizedTensor], bool] | None = None
) -> tuple[TensorFile, ...]:
    """Open the files of a model, in which each quantized tensor is one; see `folded`."""
    files = [read_file(path) for path in paths]
    config = quantization_config(paths[0].parent) if paths else {}
    return folded(files, config) if wanted is None else folded(files, config, wanted)


def quantization_config(folder: Path) -> dict[str, Any]:
    """Return what the model's config.json says of its packing; nothing where there is none."""
    content = model_config(folder)
    found = content.get("quantization_config") or content.get("compression_config")
    return found if isinstance(found, dict) else {}


def model_config(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's config.json; nothing where there is none to be read."""
    path = folder / "config.json"
    try:
        if path.stat().st_size > _MOST_CONFIG_BYTES:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def find_files(path: Any) -> tuple[list[Path], Path | None]:
    """Return the files that a path, a pattern or a folder stands for, and their index if any.

    Raises
    ------
    OSError
        If nothing is there.
    ValueError
        If shards are missing.
    """
    if not isinstance(path, str | os.PathLike):
        files = [file for one in path for file in find_files(one)[0]]
        if not files:
            raise ValueError("no files were named; give at least one")
        return files, _index_beside(files)
    place = Path(path)
    if place.name.endswith(INDEX_SUFFIX):
        return _indexed(place), place
    if place.is_dir():
        return _in_folder(place)
    if not place.exists() and glob.has_magic(str(path)):
        files = [Path(name) for name in sorted(glob.glob(str(path)))]
        if not files:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        _check_complete(files)
        return files, _index_beside(files)
    return [place], None


def _indexed(index: Path) -> list[Path]:
    """Return the shards that an index file names, in order."""
    if index.stat().st_size > _MOST_INDEX_BYTES:
        raise ValueError(f"{index} has {index.stat().st_size:,} bytes, too many for an index")
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        names = sorted(set(content["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index} is not an index of shards: {error}") from None
    for name in names:
        if Path(checked_name(name)).name != name:
            raise ValueError(f"{index} names {name!r:.100}, which is not a file beside it")
    return [index.with_name(name) for name in names]


def _in_folder(folder: Path) -> tuple[list[Path], Path | None]:
    indexes = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    if len(indexes) == 1:
        return _indexed(indexes[0]), indexes[0]
    there = files_in_folder(folder)
    for kinds in _TOGETHER:
        files = [file for file in there if file.suffix.lower() in kinds]
        if files:
            _check_complete(files)
            return files, None
    raise FileNotFoundError(errno.ENOENT, "No files of tensors in this folder", str(folder))


def files_in_folder(folder: Path) -> list[Path]:
    """Return the files of a folder whose names are those of files of tensors, in order."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _READERS)


def is_shard(file: Path) -> bool:
    """Whether a file's name is that of a shard: ``model-00001-of-00003.safetensors``."""
    return _SHARD.match(file.name) is not None


def notes_on_folders(path: Any) -> list[str]:
    """Return a sentence for each folder of whose files of tensors some are left."""
    if not isinstance(path, str | os.PathLike):
        return [note for one in path for note in notes_on_folders(one)]
    folder = Path(path)
    if not folder.is_dir():
        return []
    taken, _ = _in_folder(folder)
    left = [file for file in files_in_folder(folder) if file not in taken]
    if not left:
        return []
    sentence = (
        f"of the folder {folder}, {_names(taken)} {_verb(taken)} taken and {_names(left)} left; to "
        "take others, name the files themselves"
    )
    return [sentence]


def _names(files: list[Path]) -> str:
    """Return the names of a few files, or of the first and how many more there are."""
    names = [file.name for file in files]
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3:,} more"
    return ", ".join(names)


def _verb(files: list[Path]) -> str:
    return "is" if len(files) == 1 else "are"


def _index_beside(files: list[Path]) -> Path | None:
    """Return the index of exactly these shards, where there is one beside them."""
    if len({file.parent for file in files}) != 1:
        return None
    for index in sorted(files[0].parent.glob(f"*{INDEX_SUFFIX}")):
        if sorted(_indexed(index)) == sorted(files):
            return index
    return None


def _check_complete(files: list[Path]) -> None:
    """Refuse sets such as model-00001-of-00003 in which a shard is missing."""
    names = {file.name for file in files}
    for file in files:
        match = _SHARD.match(file.name)
        if match is None or int(match[3]) > 100_000:
            continue
        stem, width, total, suffix = match[1], len(match[2]), match[3], match[4]
        for number in range(1, int(total) + 1):
            name = f"{stem}-{number:0{width}}-of-{total}{suffix}"
            if name not in names:
                raise FileNotFoundError(
                    errno.ENOENT, "A shard is missing", str(file.with_name(name))
                )


def read_file(path: Path) -> TensorFile:
    """Open one file; see `open_tensors`."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path} cannot be read: its name ends in neither .npy nor .npz, .safetensors, .pt"
        )
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a folder", str(path))
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} cannot be read: it is not a regular file")
    try:
        return reader(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def write_index(index: Path, target: Path, targets: dict[Path, Path]) -> None:
    """Write the index of converted shards: that of the old ones, with new names and sizes.

    Parameters
    ----------
    index, target : Path
        The old index and the new one.
    targets : dict of Path to Path
        The new shard of each old one.
    """
    names = {path.name: new.name for path, new in targets.items()}
    content = json.loads(index.read_text(encoding="utf-8"))
    total = sum(tensor.nbytes for new in targets.values() for tensor in read_file(new).tensors)
    content["metadata"] = (content.get("metadata") or {}) | {"total_size": total}
    content["weight_map"] = {key: names[name] for key, name in content["weight_map"].items()}
    with replacing(target, overwrite=True) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())
