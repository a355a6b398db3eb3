"""Opening files, sets of shards and folders of them."""

from __future__ import annotations

import dataclasses
import errno
import functools
import glob
import itertools
import json
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowprec.tensors.checks import checked_name
from lowprec.tensors.kinds import readers
from lowprec.tensors.kinds.raw import Raw, read_raw
from lowprec.tensors.kinds.zarr import is_zarr, read_zarr
from lowprec.tensors.packings import folded
from lowprec.tensors.tensor import Tensors
from lowprec.tensors.writing import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lowprec.formats import FormatLike
    from lowprec.tensors.quantized import QuantizedTensor
    from lowprec.tensors.tensor import TensorFile

_BESIDE_WEIGHTS = re.compile(  # what a training keeps beside the model
    r"^(optimizer|scheduler|lr_scheduler|scaler|rng_state|random_states|training_args|trainer_state|"
    r"custom_checkpoint)",
    re.IGNORECASE,
)
_WEIGHTS = re.compile(r"^(model|pytorch_model|diffusion_pytorch_model|consolidated)\.[a-z]+$")
_SHARD = re.compile(r"(.*)-(\d{5,})-of-(\d{5,})(\.\w+)$")
_PARTS_OF_A_PIPELINE = "model_index.json"
_NAMED_FIRST = (".npy", ".npz", ".safetensors", ".pt")
_MOST_INDEX_BYTES = 100_000_000
_MOST_CONFIG_BYTES = 16_000_000


def open_tensors(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    fmt: FormatLike | None = None,
    shape: tuple[int, ...] | None = None,
    byteorder: str = "little",
) -> Tensors:
    """Open the tensors of a file or of a set of files, without reading their elements.

    Parameters
    ----------
    path : str or path, or a sequence of them
        A file ``.safetensors``, ``.npz``, ``.npy`` or, where torch is installed, one that
        ``torch.save`` wrote (``.pt``, ``.pth``, ``.ckpt``, ``.bin``); an index
        ``model.safetensors.index.json``, a pattern such as ``"model-*-of-*.safetensors"``, or a
        folder. Of a folder the files of one kind are taken, the first that is there of safetensors,
        NumPy's and torch's, and of safetensors with an index only those that it names; the log
        (``logging``, on stderr) names the files of tensors that are left. Also ``.gguf``,
        ``.onnx``, ``.h5``, ``.keras``, ``.zarr`` and ``.nc``, each where its library is installed.
    fmt : Format, str or dtype, optional
        Of files that say nothing of themselves: the format of their codes, which lie as bytes, or
        in ``.hex``, ``.txt`` and ``.csv`` as numbers in a text.
    shape : tuple of int, optional
        With `fmt`: the tensor's shape.
    byteorder : str
        With `fmt`: ``"little"`` or ``"big"``.

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
    if fmt is None and (shape is not None or byteorder != "little"):
        raise ValueError("shape and byteorder are for files of bare codes; say their format, fmt")
    say_what_is_left(path)
    return open_quietly(path, None if fmt is None else Raw.of(fmt, shape, byteorder))


def say_what_is_left(path: Any) -> None:
    """Log the `notes_on_folders`: Python shows them on stderr, unless a program says otherwise."""
    for note in notes_on_folders(path):
        logging.getLogger("lowprec.tensors").warning(note)


def open_quietly(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], raw: Raw | None = None
) -> Tensors:
    """Open tensors for a caller that shows `notes_on_folders` itself; see `open_tensors`."""
    paths, index = find_files(path)
    if isinstance(path, str | os.PathLike) and Path(path).is_dir():
        parts = folders_of_a_pipeline(Path(path))
        if parts and not is_zarr(Path(path)):
            return Tensors(tuple(file for part in parts for file in _part_of_pipeline(part)), None)
    return Tensors(read_model(paths, raw=raw), index)


def _part_of_pipeline(folder: Path) -> Iterator[TensorFile]:
    """Yield the files of one part, whose tensors have the part's name before their own."""
    for file in open_quietly(folder).files:
        named = (
            dataclasses.replace(tensor, name=f"{folder.name}/{tensor.name}")
            for tensor in file.tensors
        )
        yield file._replace(tensors=tuple(named))


def read_model(
    paths: Sequence[Path],
    wanted: Callable[[QuantizedTensor], bool] | None = None,
    raw: Raw | None = None,
) -> tuple[TensorFile, ...]:
    """Open the files of a model, in which each quantized tensor is one; see `folded`."""
    files = [read_file(path, raw) for path in paths]
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

    Raises OSError if nothing is there.
    Raises ValueError if shards are missing.
    """
    if not isinstance(path, str | os.PathLike):
        files = [file for one in path for file in find_files(one)[0]]
        if not files:
            raise ValueError("no files were named; give at least one")
        return files, _index_beside(files)
    place = Path(path)
    if place.name.endswith(index_suffixes()):
        return _indexed(place), place
    if is_zarr(place):
        return [place], None
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
    indexes = [path for suffix in index_suffixes() for path in sorted(folder.glob(f"*{suffix}"))]
    there = files_in_folder(folder)
    weights = [file for file in there if not _BESIDE_WEIGHTS.match(file.name)] or there
    in_folders = [kind for kind in readers().values() if kind.in_folders]
    for _, kinds in itertools.groupby(in_folders, lambda kind: kind.place):
        together = set(kinds)
        ends = tuple(kind.index_suffix for kind in together if kind.index_suffix)
        found = [path for path in indexes if path.name.endswith(ends)]
        if len(found) == 1:
            return _indexed(found[0]), found[0]
        files = [file for file in weights if readers()[suffix_of(file)] in together]
        whole = [file for file in files if _WEIGHTS.match(file.name)]
        if len(whole) == 1 and any(_WEIGHTS.match(f.name) is None for f in files):
            files = whole if (folder / "config.json").is_file() else files
        if files:
            _check_complete(files)
            return files, None
    parts = folders_of_a_pipeline(folder)
    if parts:
        return [file for part in parts for file in _in_folder(part)[0]], None
    raise FileNotFoundError(errno.ENOENT, "No files of tensors in this folder", str(folder))


def folders_of_a_pipeline(folder: Path) -> list[Path]:
    """Return the folders of a pipeline of diffusers that hold tensors; none of another folder."""
    if not (folder / _PARTS_OF_A_PIPELINE).is_file() or files_in_folder(folder):
        return []
    return [part for part in sorted(folder.iterdir()) if part.is_dir() and files_in_folder(part)]


def files_in_folder(folder: Path) -> list[Path]:
    """Return the files of a folder whose names are those of files of tensors, in order."""
    return sorted(file for file in folder.iterdir() if suffix_of(file) in readers())


def index_suffixes() -> tuple[str, ...]:
    """Return the ends of the names of indexes of shards."""
    return tuple(
        dict.fromkeys(kind.index_suffix for kind in readers().values() if kind.index_suffix)
    )


def suffix_of(path: Path) -> str:
    """Return the end of a name that tells the kind of file, in lower case."""
    name = path.name.lower()
    double = next((end for end in readers() if end.count(".") == 2 and name.endswith(end)), None)
    return double or path.suffix.lower()


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
    if is_zarr(folder):
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
    folder = files[0].parent
    for index in (path for end in index_suffixes() for path in sorted(folder.glob(f"*{end}"))):
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


def read_file(path: Path, raw: Raw | None = None) -> TensorFile:
    """Open one file; see `open_tensors`."""
    kind = readers().get(suffix_of(path))
    reader = read_zarr if is_zarr(path) else None if kind is None else kind.read
    if raw is not None:
        reader = functools.partial(read_raw, raw=raw)
    if reader is None:
        raise ValueError(
            f"{path} cannot be read: its name ends in neither .npy nor .npz, .safetensors, .pt, "
            f"{', '.join(end for end in readers() if end not in _NAMED_FIRST)}; of bare codes say "
            "what they are, as in --as bfloat16"
        )
    if is_zarr(path):
        return _read_named(reader, path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a folder", str(path))
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} cannot be read: it is not a regular file")
    return _read_named(reader, path)


def _read_named(reader: Callable[[Path], TensorFile], path: Path) -> TensorFile:
    try:
        return reader(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def write_index(index: Path, target: Path, targets: dict[Path, Path]) -> None:
    """Write the index of converted shards: that of the old ones, with new names and sizes.

    index, target: The old index and the new one.
    targets: The new shard of each old one.
    """
    content = json.loads(index.read_text(encoding="utf-8"))
    total = sum(tensor.nbytes for new in targets.values() for tensor in read_file(new).tensors)
    content["metadata"] = (content.get("metadata") or {}) | {"total_size": total}
    content["weight_map"] = {
        tensor.name: new.name for new in targets.values() for tensor in read_file(new).tensors
    }
    with replacing(target, overwrite=True) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())
