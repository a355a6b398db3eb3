"""What a command shows: views on stdout, progress on stderr."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console, RenderableType

__all__ = ["console_on", "progress", "say", "show", "tell_written"]


def console_on(stream: Any) -> Console:
    """Return a console without any escape sequence where NO_COLOR is set or nobody looks."""
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


def tell_written(*paths: str | None) -> None:
    """Print which of the files that may have been asked for were written."""
    if written := [path for path in paths if path]:
        say(f"Wrote {', '.join(written)}")


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """Give a function that shows progress on stderr, or None where it would be in the way."""
    console = console_on(sys.stderr)
    if not console.is_terminal or os.environ.get("NO_COLOR"):
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(description: str, done: int, total: int) -> None:
            bar.update(task, description=description, completed=done, total=total)

        yield show
