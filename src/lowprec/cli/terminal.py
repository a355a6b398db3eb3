"""What a command shows: views on stdout, progress on stderr."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from rich.console import Console, RenderableType
    from rich.progress import ProgressColumn


def console_on(stream: Any) -> Console:
    """Return a console, without escape sequences if NO_COLOR is set or there is no terminal."""
    from rich.console import Console

    return Console(file=stream, color_system=None if os.environ.get("NO_COLOR") else "auto")


def show(view: RenderableType) -> None:
    """Print a view; by way of a text, so that a broken pipe reaches `main`."""
    console = console_on(sys.stdout)
    with console.capture() as capture:
        console.print(view)
    encoding = sys.stdout.encoding or "utf-8"
    for line in capture.get().encode(encoding, "replace").decode(encoding).splitlines():
        print(line.rstrip())


def say(text: str, indent: str = "") -> None:
    """Print a sentence: whole into a file or a pipe, between words on a terminal's lines."""
    if sys.stdout.isatty():
        text = textwrap.fill(
            text,
            shutil.get_terminal_size().columns,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    print(text)


def note(text: str) -> None:
    """Print a sentence on stderr about what a command does."""
    print("lowprec: note:", text, file=sys.stderr)


def tell_written(*paths: str | None) -> None:
    """Print which of the files that may have been asked for were written."""
    if written := [path for path in paths if path]:
        say(f"Wrote {', '.join(written)}")


@contextlib.contextmanager
def progress(
    columns: Callable[[], Sequence[ProgressColumn | str]] = tuple,
    *,
    begin: str = "",
    restarts: bool = False,
    lines: bool = False,
) -> Iterator[Callable[[str, int, int], None] | None]:
    """Give a function ``show(what, done, in_all)`` that draws a bar on stderr.

    Where stderr is not a terminal, or NO_COLOR asks for plain text, it prints lines or is None.

    Parameters
    ----------
    columns : callable
        Returns what the bar consists of, and imports it only now; rich's own columns if nothing.
    begin : str
        What is shown before the first call.
    restarts : bool
        Whether rate and time left begin anew when `what` changes.
    lines : bool
        Whether each tenth of the work is a line where there is no bar.
    """
    console = console_on(sys.stderr)
    if not console.is_terminal or os.environ.get("NO_COLOR"):
        yield _tenths(begin) if lines else None
        return
    from rich.progress import Progress

    with Progress(*columns(), console=console, transient=True) as bar:
        task = bar.add_task(begin, total=None)

        def show(what: str, done: int, in_all: int) -> None:
            if restarts and bar.tasks[0].description != what:
                bar.reset(task, total=in_all, description=what)
            bar.update(task, description=what, completed=done, total=in_all)

        yield show


def _tenths(begin: str) -> Callable[[str, int, int], None]:
    """Return what prints a line on stderr now, and when another tenth of the work is done."""
    told = 0

    def show(what: str, done: int, in_all: int) -> None:
        nonlocal told
        if (tenths := 10 * done // in_all) > told:
            told = tenths
            print(f"{10 * tenths:3} % {what}", file=sys.stderr, flush=True)

    print(f"{0:3} % {begin}", file=sys.stderr, flush=True)
    return show


def transfer_progress() -> AbstractContextManager[Callable[[str, int, int], None] | None]:
    """Give what `progress` does, for bytes: how fast files are read, how long that will take."""
    return progress(_transfer_columns, begin="opening")


def _transfer_columns() -> list[ProgressColumn | str]:
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = [BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    return ["{task.description}", *columns]
