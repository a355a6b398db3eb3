"""HTML snippets for Jupyter: text is escaped, styles are inline, light and dark themes both read.

Colours are used as backgrounds with white letters (contrast 4.5 or more); all other text takes the
colour of the page.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

COLOURS = {"sign": "#b0413e", "exponent": "#2e7d4f", "trailing": "#2f6db3"}
_NAMES = {"trailing": "trailing significand"}


def bits_html(fields: dict[str, str]) -> str:
    """Return bits as coloured cells, one group a field, each named with its width below.

    fields: What stands in the cells, a character each, by field: sign, exponent, trailing.
    Returns: HTML.
    """
    groups = []
    for name, cells in fields.items():
        squares = "".join(
            f'<span style="display:inline-block;width:1.05em;margin:1px;text-align:center;'
            f'border-radius:2px;background:{COLOURS[name]};color:#fff">{html.escape(cell)}</span>'
            for cell in cells
        )
        label = f"{_NAMES.get(name, name)}&nbsp;{len(cells)}"
        groups.append(
            f'<span style="display:inline-block;vertical-align:top;margin-right:.5em">'
            f'<span style="font-family:monospace">{squares}</span><br>'
            f'<small style="opacity:.75">{label}</small></span>'
        )
    return f'<div style="line-height:1.5;margin:.3em 0">{"".join(groups)}</div>'


def card(heading: str, note: str, bits: str, lines: Iterable[tuple[str, str]]) -> str:
    """Return a heading, a note, the HTML of bits, and lines of a label and a text each.

    Returns: A ``div`` that needs nothing from outside.
    """
    cell = (
        "padding:.1em 1em .1em 0;text-align:left;vertical-align:top;border:none;"
        "background:none;color:inherit;font-size:inherit"
    )
    label_style = f"{cell};opacity:.75;white-space:nowrap"
    text_style = f"{cell};font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere"
    table = "".join(
        f'<tr style="background:none"><td style="{label_style}">{html.escape(label)}</td>'
        f'<td style="{text_style}">{html.escape(text)}</td></tr>'
        for label, text in lines
    )
    return (
        f'<div style="max-width:60em"><b>{html.escape(heading)}</b> '
        f'<span style="opacity:.75">&nbsp;{html.escape(note)}</span>{bits}'
        f'<table style="border-collapse:collapse;border:none;margin:0">{table}</table></div>'
    )
