"""What rich shows, as plain text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


def as_text(view: RenderableType, width: int = 100) -> str:
    """Return a view as plain text in this number of columns, without trailing blanks."""
    from rich.console import Console

    buffer = io.StringIO()
    # In Jupyter a console would show its output there, and leave the buffer empty.
    Console(file=buffer, width=width, color_system=None, force_jupyter=False).print(view)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())
