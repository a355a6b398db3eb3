"""Tensors of files under names that tell them apart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from lowprec.analysis.comparison import LeftOut
from lowprec.tensors.opening import (
    files_in_folder,
    find_files,
    folders_of_a_pipeline,
    is_shard,
    open_quietly,
)
from lowprec.tensors.selection import selected_names
from lowprec.tensors.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowprec.tensors import TensorFile, Tensors
    from lowprec.tensors.kinds.raw import Raw

_ARRAY_FILES = (".npy", ".npz")


class Named(dict[str, Tensor]):
    """Tensors by name, and what was left out of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.left_out: dict[str, LeftOut] = {}


def name_tensors(paths: Iterable[str], raw: Raw | None = None) -> Named:
    """Open the tensors of files under names that tell them apart; no element is read yet.

    paths: What `lowprec.tensors.open_tensors` takes. Nothing in a file is executed. What no
        conversion touches, integers for example, is left out of models, not of NumPy's files.
    raw: What bare codes are.
    Returns: A dictionary: ``weights.npy``, ``grads.npz:name`` or, of a model's only file or set of
        shards, the name alone; with the folder where two files have one name.
    Raises OSError if a file does not exist.
    Raises ValueError if a file is damaged or of another kind, holds no array, or one that is not of
        real numbers.
    """
    opened = [tensors for path in dict.fromkeys(paths) for tensors in _sets(path, raw)]
    files = [file for tensors in opened for file in tensors.files]
    uses = Counter(file.path.name for file in files)
    is_model = len(opened) == 1 and files[0].path.suffix not in _ARRAY_FILES
    arrays = Named()
    for file in files:
        label = file.path.name if uses[file.path.name] == 1 else str(file.path)
        for tensor in file.tensors:
            whole = f"{label}:{tensor.name}"
            name = label if file.path.suffix == ".npy" else tensor.name if is_model else whole
            if reason := _reason_to_leave(file, tensor):
                arrays.left_out[name] = LeftOut(tensor.nbytes, reason)
                continue
            _check_is_real(name, tensor)
            arrays[name] = tensor
    if files and not arrays:
        raise ValueError(f"{files[0].path} holds no tensors of real numbers")
    return arrays


def paired_tensors(
    one: str,
    other: str,
    include: Iterable[str],
    exclude: Iterable[str],
    raw: Raw | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Open the tensors of two models, or of two files of one array each, under common names.

    one, other: What `lowprec.tensors.open_tensors` takes.
    include, exclude: Patterns of names to take, and of those of them to leave.
    Returns: A file of a single array is paired with another whatever their names are.
    Raises OSError, ValueError: As for `name_tensors`; if a pattern matches no name.
    """
    sides = [dict(open_quietly(path, raw)) for path in (one, other)]
    if raw is not None or all(Path(path).suffix.lower() == ".npy" for path in (one, other)):
        name = next(iter(sides[0]))
        sides[1] = {name: next(iter(sides[1].values()))}
    names = list(dict.fromkeys(name for side in sides for name in side))
    chosen = set(selected_names(names, tuple(include), tuple(exclude)))
    for side in sides:
        for name in chosen & set(side):
            _check_is_real(name, side[name])
    left, right = ({k: v for k, v in side.items() if k in chosen} for side in sides)
    return left, right


def _sets(path: str, raw: Raw | None) -> list[Tensors]:
    """Open what a path stands for: one model, or files that share a folder and nothing else."""
    files, index = find_files(path)
    is_set = index is not None or all(map(is_shard, files)) or files == [Path(path)]
    if Path(path).is_dir() and not is_set and not folders_of_a_pipeline(Path(path)):
        return [open_quietly(file, raw) for file in files]
    return [open_quietly(path, raw)]


def input_files(paths: Iterable[str]) -> list[Path]:
    """Return every file that belongs to what is read: shards, indexes, all tensors of a folder."""
    found: list[Path] = []
    for path in paths:
        files, index = find_files(path)
        found += [*files, *([index] if index else [])]
        if Path(path).is_dir():
            found += files_in_folder(Path(path))
    return list(dict.fromkeys(found))


def _reason_to_leave(file: TensorFile, tensor: Tensor) -> str:
    """Return why a tensor is not measured; nothing where it is, as all of NumPy's files are."""
    if tensor.left:
        return tensor.left
    if tensor.fmt is None and file.path.suffix not in _ARRAY_FILES:
        return str(tensor.dtype)
    return ""


def _check_is_real(name: str, tensor: Tensor) -> None:
    if tensor.fmt is None and tensor.dtype.kind not in "iub":
        raise ValueError(f"{name} holds {tensor.dtype}; lowprec measures arrays of real numbers")
