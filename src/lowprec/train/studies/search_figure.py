"""The picture of a search: the score against each setting."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lowprec.show.standalone_figures import LINE, TRAINING, VALIDATION, light_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lowprec.train.studies.trials import Trial

_COLUMNS = 3


def search_figure(trials: Sequence[Trial], metric: str) -> Figure:
    """Draw the score of each trial against each of its settings.

    Raises ModuleNotFoundError without matplotlib, naming the extra to install.
    """
    settings = [_settings_of(trial) for trial in trials]
    names = list(settings[0])
    rows = math.ceil(len(names) / _COLUMNS)
    finite = [t.score for t in trials if t.run.diverged_at is None and math.isfinite(t.score)]
    with light_figure(2.9 * rows + 0.2) as figure:
        grid: Any = figure.add_gridspec(rows, min(len(names), _COLUMNS))
        for place, name in enumerate(names):
            axes = figure.add_subplot(grid[divmod(place, _COLUMNS)])
            values = [one[name] for one in settings]
            _draw(axes, name, values, trials, min(finite, default=0.0))
            if place % _COLUMNS == 0:
                axes.set_ylabel(metric)
    return figure


def _settings_of(trial: Trial) -> dict[str, Any]:
    if trial.settings:
        return dict(trial.settings)
    found = {"policy": str(trial.policy), "learning_rate": trial.learning_rate}
    return found | ({} if trial.loss_scale is None else {"loss_scale": trial.loss_scale})


def _draw(
    axes: Axes, name: str, values: Sequence[Any], trials: Sequence[Trial], lowest: float
) -> None:
    are_numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    labels = list(dict.fromkeys(map(str, values)))
    places = [float(v) if are_numbers else labels.index(str(v)) for v in values]
    for number, (place, trial) in enumerate(zip(places, trials, strict=True)):
        is_lost = trial.run.diverged_at is not None or not math.isfinite(trial.score)
        axes.plot(
            [place],
            [lowest if is_lost else trial.score],
            "x" if is_lost else "o",
            color=VALIDATION if is_lost or number == 0 else TRAINING,
            markersize=7 if number == 0 else 4.5,
            clip_on=False,
        )
    if not are_numbers:
        axes.set_xticks(range(len(labels)), [label[:12] for label in labels])
        axes.set_xlim(-0.5, len(labels) - 0.5)
    elif min(places) > 0 and max(places) >= 20 * min(places):
        axes.set_xscale("log")
    axes.set_title(name.replace("_", " "))
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
