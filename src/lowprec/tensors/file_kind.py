"""What a kind of file says of itself: its names, how it is read and written, what it can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lowprec.tensors.tensor import Tensor, TensorFile


class FileKind(NamedTuple):
    """A kind of file, entered by standing in `KINDS` of a module of `lowprec.tensors.kinds`.

    suffixes: The ends of its names, in lower case.
    read: Opens a file.
    place: Among the kinds. Of a folder the files of the first place that is there are taken.
    in_folders: Whether a folder is looked through for its files.
    index_suffix: The end of the name of an index of shards; "" where there is none.
    write: Writes tensors and texts; None where files are only read.
    has_dtype: Of what is written: whether elements lie under their dtype, or as codes.
    check: Of what is written: raises ValueError where the file cannot hold these tensors.
    keeps_texts: Of what is written: whether texts are kept, under the name `METADATA`.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Path], TensorFile]
    place: int
    in_folders: bool = True
    index_suffix: str = ""
    write: Callable[[BinaryIO, Sequence[Tensor], dict[str, str]], None] | None = None
    has_dtype: Callable[[Tensor], bool] = lambda tensor: True
    check: Callable[[Sequence[Tensor]], Any] = lambda tensors: None
    keeps_texts: bool = True
