"""A comparison of policies as a table: in a terminal, in Jupyter, on a page."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from lowprec.show.html_tables import legend_html, table_html
from lowprec.show.pages import stylesheet
from lowprec.train.studies.columns import shown_columns
from lowprec.train.studies.verdicts import comparison_in_words, grade

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from lowprec.train.studies.columns import Column
    from lowprec.train.studies.results import PolicyResult, PolicyResults


def caption(comparison: PolicyResults) -> str:
    """Return in a line what was trained."""
    facts = comparison.facts
    seeds, epochs = len(facts["seeds"]), facts["epochs"]
    words = (
        f"{facts['data']}; {facts['optimizer']}({facts['learning_rate']}), "
        f"{epochs} epoch{'s' if epochs > 1 else ''}, batch {facts['batch_size']}, "
        f"{seeds} seed{'s' if seeds > 1 else ''}"
    )
    return words + ("; float32 added to compare with" if comparison.baseline_added else "")


# In a terminal -----------------------------------------------------------------------------------

_STYLES = {
    "diverged": "bold red",
    "worse": "red",
    "lagging": "yellow",
    "same": "green",
    "better": "green",
}


def comparison_view(comparison: PolicyResults) -> RenderableType:
    """Return the comparison for a terminal of 80 columns: a table, then the verdict."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    sentences = Table.grid(padding=(0, 1, 0, 0))
    for sentence in comparison_in_words(comparison):
        sentences.add_row("•", Text(sentence))
    head = Text(caption(comparison), "dim")
    return Group(head, Text(), policies_table(comparison), Text(), sentences)


def policies_table(comparison: PolicyResults) -> Table:
    """Return the table alone, for a terminal of 80 columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    columns = [column for _, column in shown_columns(comparison) if column.brief]
    table.add_column("policy", no_wrap=True)
    for column in columns:
        heading = column.brief.format(metric=comparison.metric)
        table.add_column(heading, justify="right", min_width=min(len(heading), 5))
    for result in comparison.results:
        style = _STYLES.get(grade(result), "bold")
        cells = [_narrow((column.brief_text or column.text)(result)) for column in columns]
        name = str(result.policy).replace(",", ",\n")  # one of the user's own is long
        table.add_row(Text(name, style), *cells)
    return table


def _narrow(text: str) -> str:
    """Return a cell without what a narrow column can do without."""
    return text.replace("± 0.", "±.").replace("± ", "±").replace(" %", "%")


# In HTML -----------------------------------------------------------------------------------------


def comparison_fragment(comparison: PolicyResults) -> str:
    """Return the comparison as HTML with its own style, for Jupyter."""
    return (
        f"<style>{stylesheet('comparison.css')}</style>"
        f"<p>{html.escape(caption(comparison))}</p>"
        f"{policies_table_html(comparison)}{verdict_html(comparison)}"
    )


def policies_table_html(comparison: PolicyResults) -> str:
    """Return the bare table, for pages that have the style already."""
    columns = shown_columns(comparison)
    headings = [("policy", ""), *((heading, column.meaning) for heading, column in columns)]
    rows = "".join(_row(result, columns) for result in comparison.results)
    return table_html(headings, f"<tbody>{rows}</tbody>", "Policies", "policies")


def _row(result: PolicyResult, columns: list[tuple[str, Column]]) -> str:
    cells = []
    for heading, column in columns:
        text = column.text(result)
        kind = " class=loss" if heading == "diverged" and text != "–" else ""
        cells.append(f"<td{kind}>{html.escape(text)}</td>")
    name = html.escape(str(result.policy)).replace(",", ",<br>")  # one of the user's own is long
    return f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>'


def policies_legend(comparison: PolicyResults) -> str:
    """Return what each column means."""
    shown = shown_columns(comparison)
    return legend_html((heading, column.meaning) for heading, column in shown)


def verdict_html(comparison: PolicyResults) -> str:
    """Return the verdict as a list."""
    sentences = comparison_in_words(comparison)
    count = len(comparison.results)
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences[:count])
    advice = "".join(f"<p><b>{html.escape(sentence)}</b></p>" for sentence in sentences[count:])
    return f'<ul class="verdict">{items}</ul>{advice}'
