"""``lowprec formats``: the family as a table."""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from lowprec.blocks import named_block_formats
from lowprec.cli.terminal import console_on, show
from lowprec.formats import named_formats
from lowprec.show.words import figure

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from lowprec.blocks import BlockFormat
    from lowprec.cli.arguments import Add
    from lowprec.formats import Format

    _Columns = dict[str, tuple[int, Callable[[Any], str]]]

PLACE = 1  #: among the commands


def register(add: Add) -> None:
    """Add the command."""
    add("formats", _formats, "list the family of formats", "lowprec formats")


def _formats(options: argparse.Namespace) -> None:
    console = console_on(sys.stdout)
    show(formats_table(named_formats().values(), console.width))
    show(block_formats_table(named_block_formats().values(), console.width))


_COLUMNS: _Columns = {
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
    "decades": (70, lambda fmt: f"{fmt.decades:.1f}"),
}


def formats_table(formats: Iterable[Format], width: int = 80) -> Table:
    """Return the family as a table, one format a line.

    width: Columns of the terminal; a narrow one is spared some of the table's.
    Returns: `w` is the width of the exponent field, `p` the precision with the leading bit, and
        decades the dynamic range ``log10(max / smallest_subnormal)``.
    """
    return _table("format", formats, _COLUMNS, width, ("specials",))


def _table(
    kind: str, formats: Iterable[Any], columns: _Columns, width: int, texts: tuple[str, ...]
) -> Table:
    """Return a line a format; `texts` are the headings of columns that hold no numbers."""
    shown = {heading: text for heading, (room, text) in columns.items() if width >= room}
    padding = (0, 1 if width >= 110 else 0)
    table = Table(box=box.SIMPLE_HEAD, padding=padding, pad_edge=False, show_edge=False)
    table.add_column(kind, style="bold", no_wrap=True)
    for heading in shown:
        justify: Any = "left" if heading in texts else "right"
        table.add_column(heading, justify=justify, min_width=max(map(len, heading.split())))
    for fmt in formats:
        table.add_row(str(fmt), *(text(fmt) for text in shown.values()))
    return table


_BLOCK_COLUMNS: _Columns = {
    "bits": (0, lambda fmt: f"{fmt.bits_per_value:.3f}".rstrip("0").rstrip(".")),
    "elements": (0, operator.attrgetter("element_in_words")),
    "block": (60, operator.attrgetter("block_in_words")),
    "scale": (70, lambda fmt: str(fmt.scale)),
    "rule": (92, lambda fmt: fmt.rule.value),
    "tensor": (100, lambda fmt: "float32" if fmt.tensor_scale else "–"),
}


def block_formats_table(formats: Iterable[BlockFormat], width: int = 80) -> Table:
    """Return block formats as a table, one a line.

    width: Columns of the terminal; a narrow one is spared some of the table's.
    Returns: Bits are those of a value with its share of the scale; tensor is the tensor's own
        scale.
    """
    texts = ("elements", "block", "scale", "rule", "tensor")
    return _table("block format", formats, _BLOCK_COLUMNS, width, texts)
