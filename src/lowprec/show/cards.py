"""HTML snippets for Jupyter: text is escaped, styles are inline, light and dark themes both read.

Colours are used as backgrounds with white letters (contrast 4.5 or more); all other text takes the
colour of the page.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from lowprec.report.inspections import rows, title
from lowprec.report.tables import decades, figure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowprec.exact.inspection import Inspection
    from lowprec.formats import Format

__all__ = ["COLOURS", "bits_html", "format_html", "inspection_html"]

COLOURS = {"sign": "#b0413e", "exponent": "#2e7d4f", "trailing": "#2f6db3"}
_NAMES = {"trailing": "trailing significand"}
_SPECIALS = {
    "ieee": "±infinity and NaN",
    "fn": "no infinity; NaN is all ones",
    "fnuz": "no infinity, no -0; one NaN",
    "finite": "neither infinity nor NaN",
}


def bits_html(fields: dict[str, str]) -> str:
    """Return bits as coloured cells, one group a field, each named with its width below.

    Parameters
    ----------
    fields : dict of str to str
        What stands in the cells, a character each, by field: sign, exponent, trailing.

    Returns
    -------
    str
        HTML.
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


def format_html(fmt: Format) -> str:
    """Return a format's bit layout and key figures.

    Parameters
    ----------
    fmt : Format
        The format.

    Returns
    -------
    str
        A ``div`` that needs nothing from outside.
    """
    widths = {"sign": int(fmt.signed), "exponent": fmt.exponent_bits, "trailing": fmt.trailing_bits}
    cells = {name: name[0] * width for name, width in widths.items() if width}
    summary = f"{fmt.bits} bits, bias {fmt.bias}, {_SPECIALS[fmt.specials.value]}"
    figures = [
        ("precision", f"{fmt.precision} bit{'s' if fmt.precision > 1 else ''}"),
        ("max", figure(fmt.max)),
        ("smallest normal", figure(fmt.smallest_normal)),
        ("smallest subnormal", figure(fmt.smallest_subnormal) if fmt.subnormals else "none"),
        ("eps", figure(fmt.eps)),
        ("dynamic range", f"{decades(fmt):.1f} decades"),
    ]
    return _card(fmt.name, summary, bits_html(cells), figures)


def inspection_html(inspection: Inspection) -> str:
    """Return an inspected number: its bits, value, rounding error and neighbours.

    Parameters
    ----------
    inspection : Inspection
        What `lowprec.inspect` returned.

    Returns
    -------
    str
        A ``div`` that needs nothing from outside.
    """
    bits = bits_html(inspection.fields)
    note = inspection.code_text if inspection.given is not None else ""
    return _card(title(inspection), note, bits, rows(inspection))


def _card(heading: str, note: str, bits: str, lines: Iterable[tuple[str, str]]) -> str:
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
