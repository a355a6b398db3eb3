"""Progress in bytes: how fast files are read, and how long that will take."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from lowprec.cli.terminal import console_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["transfer_progress"]


@contextlib.contextmanager
def transfer_progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """Give a function ``show(what, bytes_done, bytes_in_all)`` that draws on stderr.

    It is None where nobody looks, or NO_COLOR asks for plain text.
    """
    console = console_on(sys.stderr)
    if not console.is_terminal or os.environ.get("NO_COLOR"):
        yield None
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("opening", total=None)

        def show(description: str, done: int, total: int) -> None:
            bar.update(task, description=description, completed=done, total=total)

        yield show
