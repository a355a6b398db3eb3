"""Where results go: one rule for every command and function that writes a file.

An output is never an input. A file that exists is replaced only if lowprec wrote it as the same
kind of result, or if the caller says ``overwrite=True`` (``--overwrite``). Both are looked at
before the work begins, so that neither the work nor the file is lost.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.common.whole_files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_HEAD = 4096  # bytes of a page in which its generator stands
_OVERWRITE = "overwrite=True (--overwrite)"

PathLike = str | os.PathLike[str]


class Kind(NamedTuple):
    """A kind of result.

    words: What a file of this kind is, with its article: "a page of lowprec report".
    wrote: Whether lowprec wrote this file, which exists, as such a result.
    """

    words: str
    wrote: Callable[[Path], bool]


class Output(NamedTuple):
    """A file that a command or a function is about to write.

    Attributes
    ----------
    path : str or path
        The file.
    kind : Kind
        What will stand in it.
    asked : str
        The option or parameter that names it, for errors; as "--html".
    """

    path: PathLike
    kind: Kind
    asked: str = "the output"


def check_outputs(
    outputs: Iterable[Output], inputs: Iterable[PathLike] = (), *, overwrite: bool = False
) -> None:
    """Raise unless every output may be written; nothing is written here.

    outputs: The files to be written. What is not a regular file, as ``/dev/stdout``, may always be.
    inputs: The files that are read. None of them may be an output, also not under another name or
        through a symbolic or a hard link.
    overwrite: Whether a file that exists may be replaced although lowprec did not write it as such.
    Raises ValueError if an output is an input, or two outputs are one file.
    Raises OSError if a file exists that may not be replaced; if a folder does not exist or cannot
        be written.
    """
    read, earlier = list(inputs), list[Output]()
    for output in outputs:
        path = Path(output.path)
        for source in read:
            if is_same_file(path, source):
                raise ValueError(
                    f"{output.asked} {path} is a file that is read ({source}), and would replace "
                    "it; give another name"
                )
        for other in earlier:
            if is_same_file(path, other.path):
                raise ValueError(
                    f"{output.asked} {path} and {other.asked} {other.path} are one file; give two "
                    "names"
                )
        earlier.append(output)
        _check_place(path)
        if path.is_file() and not overwrite and not output.kind.wrote(path):
            raise exists_error(path, output.kind)


def exists_error(path: Path, kind: Kind) -> FileExistsError:
    """Return the error that says that a file exists, and how it may be replaced."""
    unlike = f" and is not {kind.words}" if kind.words else ""
    message = f"it exists{unlike}; give another name, or replace it with {_OVERWRITE}"
    return FileExistsError(errno.EEXIST, message, str(path))


NEVER_REPLACED = Kind("", lambda path: False)
"""Files that lowprec does not know again: none is replaced unasked."""


def is_same_file(one: PathLike, other: PathLike) -> bool:
    """Whether two names lead to one file, which need not exist.

    Examples
    --------
    >>> is_same_file("a/../b.npz", "b.npz"), is_same_file("a.npz", "b.npz")
    (True, False)
    """
    try:
        return os.path.samefile(one, other)  # hard links too
    except OSError:
        return Path(one).resolve() == Path(other).resolve()


def _check_place(path: Path) -> None:
    """Raise unless a file of this name can be written."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder; name a file in it", str(path))
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(folder))
    if not os.access(folder, os.W_OK) and (path.is_file() or not path.exists()):
        raise PermissionError(errno.EACCES, "this folder cannot be written", str(folder))


# Writing -----------------------------------------------------------------------------------------


def write_output(output: Output, text: str, *, overwrite: bool = False) -> None:
    """Write a text (UTF-8) to an output that may be written, whole or not at all.

    output: Where to; `check_outputs` is asked again, as time has passed.
    text: All of its content.
    overwrite: As for `check_outputs`.
    Raises OSError: As for `check_outputs`.
    """
    check_outputs([output], overwrite=overwrite)
    write_atomically(output.path, text)


# Kinds -------------------------------------------------------------------------------------------


def generator_tag(of: str) -> str:
    """Return the element by which lowprec knows a page again.

    Examples
    --------
    >>> generator_tag("lowprec report")
    '<meta name="generator" content="lowprec report">'
    """
    return f'<meta name="generator" content="{of}">'


def page_kind(of: str) -> Kind:
    """Return the kind of the HTML pages that bear ``generator_tag(of)`` in their head."""
    tag = generator_tag(of).encode()

    def wrote(path: Path) -> bool:
        with path.open("rb") as file:
            return tag in file.read(_HEAD)

    return Kind(f"a page of {of}", wrote)


def json_kind(words: str, has_its_shape: Callable[[Any], bool]) -> Kind:
    """Return the kind of the JSON files whose content has a shape.

    words: What such a file is, with its article.
    has_its_shape: Whether a content, read by `json.loads`, is one that lowprec writes; it may raise
        LookupError, TypeError, ValueError or AttributeError for one that is not.
    """

    def wrote(path: Path) -> bool:
        try:
            return bool(has_its_shape(json.loads(path.read_text(encoding="utf-8"))))
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
            return False

    return Kind(words, wrote)
