"""Terminal tables of formats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lowprec.formats import Format

__all__ = ["decades", "figure", "formats_table"]


def decades(fmt: Format) -> float:
    """Return the dynamic range, ``log10(max / smallest_subnormal)``."""
    return math.log10(fmt.max) - math.log10(fmt.smallest_subnormal)


def figure(value: float) -> str:
    """Return a number exactly where eight characters do, else to three digits."""
    exact = f"{value:.17g}"
    return exact if len(exact) <= 8 else f"{value:.3g}"


_COLUMNS: dict[str, tuple[int, Callable[[Format], str]]] = {
    # heading: the narrowest terminal that has room for it, and what stands there
    "bits": (0, lambda fmt: str(fmt.bits)),
    "w": (0, lambda fmt: str(fmt.exponent_bits)),
    "p": (0, lambda fmt: str(fmt.precision)),
    "specials": (96, lambda fmt: fmt.specials.value),
    "max": (0, lambda fmt: figure(fmt.max)),
    "smallest normal": (78, lambda fmt: figure(fmt.smallest_normal)),
    "smallest subnormal": (
        54,
        lambda fmt: figure(fmt.smallest_subnormal) if fmt.subnormals else "–",
    ),
    "eps": (62, lambda fmt: figure(fmt.eps)),
    "decades": (70, lambda fmt: f"{decades(fmt):.1f}"),
}


def formats_table(formats: Iterable[Format], width: int = 80) -> Table:
    """Return the family as a table, one format a line.

    Parameters
    ----------
    formats : iterable of Format
        What to list.
    width : int
        Columns of the terminal; a narrow one is spared some of the table's.

    Returns
    -------
    rich.table.Table
        `w` is the width of the exponent field, `p` the precision with the leading bit, and decades
        the dynamic range ``log10(max / smallest_subnormal)``.
    """
    shown = {heading: text for heading, (room, text) in _COLUMNS.items() if width >= room}
    padding = (0, 1 if width >= 110 else 0)
    table = Table(box=box.SIMPLE_HEAD, padding=padding, pad_edge=False, show_edge=False)
    table.add_column("format", style="bold", no_wrap=True)
    for heading in shown:
        table.add_column(
            heading,
            justify="left" if heading == "specials" else "right",
            min_width=max(map(len, heading.split())),
        )
    for fmt in formats:
        table.add_row(fmt.name, *(text(fmt) for text in shown.values()))
    return table
