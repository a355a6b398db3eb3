"""The trials of a search as a table: in a terminal and in Jupyter."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from lowprec.analysis.comparison import stylesheet
from lowprec.train.studies.columns import number

if TYPE_CHECKING:
    from rich.table import Table

    from lowprec.train.studies.searching import SearchResult, Trial

__all__ = ["search_fragment", "search_table"]

_HEADINGS = ("policy", "learning rate", "loss scale", "{metric}", "skipped")


def _trial(trial: Trial) -> list[str]:
    scale = "–" if trial.loss_scale is None else f"{trial.loss_scale:,.12g}"
    score = "diverged" if trial.run.diverged_at is not None else number(trial.score)
    skipped = len(trial.run.skipped_steps)
    return [str(trial.policy), f"{trial.learning_rate:.2e}", scale, score, f"{skipped or '–'}"]


def search_table(found: SearchResult) -> Table:
    """Return the trials of a search as a table for a terminal, the best first."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for place, heading in enumerate(_HEADINGS):
        table.add_column(
            heading.format(metric=found.metric), justify="right" if place else "left", no_wrap=True
        )
    for place, trial in enumerate(found.trials):
        table.add_row(*_trial(trial), style="dim" if trial.run.diverged_at is not None else "")
        if place == 0:
            table.rows[0].style = "bold green"
    return table


def search_fragment(found: SearchResult) -> str:
    """Return the trials of a search as HTML with its own style, for Jupyter."""
    headings = "".join(
        f'<th scope="col">{html.escape(heading.format(metric=found.metric))}</th>'
        for heading in _HEADINGS
    )
    rows = []
    for trial in found.trials:
        name, *cells = map(html.escape, _trial(trial))
        rows.append(
            f'<tr><th scope="row">{name}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>'
        )
    return (
        f"<style>{stylesheet('comparison.css')}</style>"
        f'<div class="lowprec-comparison"><table><thead><tr>{headings}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
