"""Tables in HTML, and what their columns mean; each scrolls sideways where a page is narrower."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def table_html(headings: Iterable[tuple[str, str]], bodies: str, label: str, kind: str = "") -> str:
    """Return a table with its head.

    headings: What stands over each column, and what that means; "" where it needs no words.
    bodies: The rows, in one ``tbody`` or several.
    label: What the table is called for those who hear the page.
    kind: A class of the style sheet, beside that of all tables.
    """
    head = "".join(
        f'<th scope="col"{f" title={_quoted(meaning)}" if meaning else ""}>{html.escape(name)}</th>'
        for name, meaning in headings
    )
    return (
        f'<div class="{f"lowprec-comparison {kind}".strip()}" tabindex="0" role="region" '
        f"aria-label={_quoted(label)}><table><thead><tr>{head}</tr></thead>{bodies}</table></div>"
    )


def legend_html(columns: Iterable[tuple[str, str]]) -> str:
    """Return what each column means, as a list."""
    items = (f"<li><b>{html.escape(c)}</b>: {html.escape(meaning)}</li>" for c, meaning in columns)
    return f'<ul class="legend">{"".join(items)}</ul>'


def _quoted(text: str) -> str:
    return f'"{html.escape(text)}"'
