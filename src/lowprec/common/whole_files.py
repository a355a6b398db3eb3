"""Files written whole or not at all: nobody ever sees half of one.

Files of tensors, which may be huge, are written by `lowprec.tensors.writing.replacing` instead: it
lets one process at a time write, so that one that is killed leaves a single partial file behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Give a temporary file to write, which takes the name once it is complete and on the disk.

    path: The file; one that exists is replaced. It gets exactly this name, and a link is followed.
    Raises OSError if the folder does not exist or cannot be written.
    """
    target = target_of(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def target_of(path: str | os.PathLike[str]) -> Path:
    """Return the file that a path leads to; FileNotFoundError if there is no folder for it."""
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(target.parent))
    return target


def write_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file (UTF-8) so that nobody ever sees half of it.

    What is not a regular file, such as ``/dev/stdout``, is written directly.

    path: The file to write; one that exists is replaced.
    text: All of its content.
    Raises OSError if the folder does not exist or cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8")
        return
    with whole_file(target) as file:
        file.write(text.encode())
