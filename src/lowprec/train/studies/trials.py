"""A trial of a search, and trials as a table: in a terminal and in Jupyter."""

from __future__ import annotations

import dataclasses
import html
import math
from typing import TYPE_CHECKING, Any

from lowprec.show.html_tables import table_html
from lowprec.show.pages import stylesheet
from lowprec.train.loss_scale import LossScale
from lowprec.train.running.json_values import plain
from lowprec.train.studies.columns import number
from lowprec.train.studies.spaces import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from lowprec.train.policy import Policy
    from lowprec.train.studies.runs import Run

_HEADINGS = ("policy", "learning rate", "loss scale", "{metric}", "skipped")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    learning_rate: The optimizer's.
    policy: With the loss scale of this trial, where scales were searched.
    run: What came of it.
    score: The metric at the end, on the part of the training set that was held out.
    settings: What was drawn from the space, by name; empty where none was given.
    """

    learning_rate: float
    policy: Policy
    run: Run
    score: float
    settings: Settings = dataclasses.field(default_factory=Settings)

    @property
    def loss_scale(self) -> float | None:
        """The scale at the first step; None without one."""
        scale = self.policy.loss_scale
        return scale.value if isinstance(scale, LossScale) else None

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as JSON holds it."""
        return {
            "policy": str(self.policy),
            "learning_rate": self.learning_rate,
            "loss_scale": self.loss_scale,
            "score": self.score if math.isfinite(self.score) else None,
            "diverged_at": self.run.diverged_at,
            "skipped_steps": len(self.run.skipped_steps),
            "settings": {name: plain(value) for name, value in self.settings.items()},
        }


def _headings(trials: Sequence[Trial], metric: str) -> list[str]:
    if trials and trials[0].settings:
        return [*(name.replace("_", " ") for name in trials[0].settings), metric, "skipped"]
    return [heading.format(metric=metric) for heading in _HEADINGS]


def _cells(trial: Trial) -> list[str]:
    scale = "–" if trial.loss_scale is None else f"{trial.loss_scale:,.12g}"
    chosen = [str(trial.policy), f"{trial.learning_rate:.2e}", scale]
    if trial.settings:
        chosen = [_setting(value) for value in trial.settings.values()]
    score = "diverged" if trial.run.diverged_at is not None else number(trial.score)
    return [*chosen, score, f"{len(trial.run.skipped_steps) or '–'}"]


def _setting(value: Any) -> str:
    """Return a setting in few characters."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.2e}" if 0 < abs(value) < 1e-2 else f"{value:.4g}"


def search_table(trials: Sequence[Trial], metric: str) -> Table:
    """Return the trials of a search as a table for a terminal, the best first."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for place, heading in enumerate(_headings(trials, metric)):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    for place, trial in enumerate(trials):
        table.add_row(*_cells(trial), style="dim" if trial.run.diverged_at is not None else "")
        if place == 0:
            table.rows[0].style = "bold green"
    return table


def search_fragment(trials: Sequence[Trial], metric: str) -> str:
    """Return the trials of a search as HTML with its own style, for Jupyter."""
    headings = [(heading, "") for heading in _headings(trials, metric)]
    rows = []
    for trial in trials:
        name, *cells = map(html.escape, _cells(trial))
        rows.append(
            f'<tr><th scope="row">{name}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>'
        )
    table = table_html(headings, f"<tbody>{''.join(rows)}</tbody>", "Trials")
    return f"<style>{stylesheet('comparison.css')}</style>{table}"
