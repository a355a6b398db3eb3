"""The figures of a comparison of policies: learning curves, and the memory of a parameter.

Colours are those of the compute format; policies of one colour differ in their dashes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.show.drawing import INK, LINE, MUTED, NARROW, canvas, colour, draw_twice
from lowprec.show.standalone_figures import light, light_figure
from lowprec.train.metrics import is_validation

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lowprec.train.studies.results import PolicyResult, PolicyResults


_DASHES: Any = ["-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2, 2, 2))]


def _looks(comparison: PolicyResults) -> list[tuple[PolicyResult, str, Any]]:
    """Return each result with the placeholder of its colour and its dashes."""
    uses: Counter[str] = Counter()
    found = []
    for result in comparison.results:
        shade = colour(result.policy.formats["compute"].name)
        found.append((result, shade, _DASHES[uses[shade] % len(_DASHES)]))
        uses[shade] += 1
    return found


# Learning curves ---------------------------------------------------------------------------------


def curves(comparison: PolicyResults) -> str:
    """Draw the learning curves as SVG for a page."""
    ends = "; ".join(
        f"{result.policy} ends at {result.spread.mean:.3g}" for result in comparison.results
    )
    epochs = comparison.facts["epochs"]
    alternative = f"Learning curves over {epochs} epochs, {comparison.metric}: {ends}."
    return draw_twice("curves", alternative, _new_curves, comparison)


def _new_curves(width: float, comparison: PolicyResults) -> Figure:
    from matplotlib.figure import Figure

    is_wide = width > NARROW
    names = _panels(comparison)
    height = 2.6 * (-(-len(names) // 2) if is_wide else len(names)) + 0.7
    figure = Figure(figsize=(width, height), layout="constrained")
    _draw_curves(figure, comparison, is_wide, lambda placeholder: placeholder)
    return figure


def curves_figure(comparison: PolicyResults) -> Figure:
    """Return the learning curves as a figure of its own, in the colours of the light page.

    Raises ModuleNotFoundError without matplotlib, naming the extra to install.
    """
    with light_figure(2.8 * -(-len(_panels(comparison)) // 2) + 0.6) as figure:
        _draw_curves(figure, comparison, True, light)
    return figure


def _panels(comparison: PolicyResults) -> list[str]:
    """Return the values to show: loss and metric, each in training and validation."""
    history = comparison.results[0].runs[0].history
    metric = comparison.metric.removeprefix("val_")
    names = [f"{part}{name}" for name in dict.fromkeys(["loss", metric]) for part in ("", "val_")]
    return [name for name in names if name in history]


def _draw_curves(
    figure: Figure, comparison: PolicyResults, is_wide: bool, shade: Callable[[str], str]
) -> None:
    names = _panels(comparison)
    columns = 2 if is_wide else 1
    layout: Any = figure.get_layout_engine()
    layout.set(h_pad=0.08)
    grid: Any = figure.add_gridspec(-(-len(names) // columns), columns)
    panels: dict[str, Axes] = {}
    for place, name in enumerate(names):
        beside = panels.get(name.removeprefix("val_"))
        panels[name] = figure.add_subplot(grid[place // columns, place % columns], sharey=beside)
        _draw_panel(panels[name], comparison, name, shade)
        if place >= len(names) - columns:
            panels[name].set_xlabel("epoch", color=shade(MUTED))
    lines = panels[names[0]].get_lines()
    labels = [_label(result) for result in comparison.results]
    is_short = max(map(len, labels)) < 30
    legend: Any = {"frameon": False, "fontsize": 9, "ncols": columns * (1 + is_short)}
    figure.legend(lines, labels, loc="outside upper left", handlelength=2.4, **legend)


def _label(result: PolicyResult) -> str:
    count = len(result.diverged)
    return str(result.policy) + (f" ({count} of {len(result.runs)} diverged)" if count else "")


def _draw_panel(
    axes: Axes, comparison: PolicyResults, name: str, shade: Callable[[str], str]
) -> None:
    """Draw a value by epoch: the mean over the seeds, and a band from the least to the most."""
    finite = []
    widths = np.linspace(4, 1.2, len(comparison.results))  # curves that agree can all be seen
    for (result, placeholder, dashes), width in zip(_looks(comparison), widths, strict=True):
        values = np.array([run.history[name] for run in result.runs])
        values = np.where(np.isfinite(values), values, np.nan)
        epochs = np.arange(1, values.shape[1] + 1)
        style: Any = {"color": shade(placeholder), "linestyle": dashes, "linewidth": width}
        axes.plot(epochs, values.mean(axis=0), **style)
        band: Any = {"color": shade(placeholder), "alpha": 0.13, "linewidth": 0}
        axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), **band)
        finite.append(values[np.isfinite(values)])
    shown = np.concatenate(finite)
    if shown.size and 0 < 20 * shown.min() < shown.max():
        axes.set_yscale("log")
    part = "validation" if is_validation(name) else "training"
    axes.set_title(f"{part}: {name.removeprefix('val_')}", loc="left", fontsize=10)
    _mark_axes(axes, len(epochs), shade)


def _mark_axes(axes: Axes, epochs: int, shade: Callable[[str], str]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(1, max(epochs, 1.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.tick_params(axis="y", which="both", length=0)
    axes.grid(axis="y", color=shade(LINE), linewidth=0.6)
    axes.set_axisbelow(True)


# Memory ------------------------------------------------------------------------------------------


def memory(comparison: PolicyResults) -> str:
    """Draw the bytes of a parameter as SVG for a page: parameter, state and copy."""
    words = "; ".join(f"{result.policy} {result.memory}" for result in comparison.results)
    alternative = f"Bytes a parameter: stored, optimizer's state, copy to compute with: {words}."
    return draw_twice("memory", alternative, _draw_memory, comparison)


def _draw_memory(width: float, comparison: PolicyResults) -> Figure:
    count = len(comparison.results)
    figure, axes = canvas(width, 0.5 + 0.5 * count)
    for row, (result, shade, _) in enumerate(_looks(comparison)):
        left = 0.0
        for size, alpha in zip(result.memory, (1.0, 0.55, 0.25), strict=True):
            axes.barh(-row, size, left=left, height=0.4, color=shade, alpha=alpha, linewidth=0)
            left += size
        axes.text(0, 0.24 - row, str(result.policy), va="bottom", size=9, color=shade)
        axes.text(left, -row, f" {left:g}", va="center", size=9, color=INK)
    widest = max(result.memory.total for result in comparison.results)
    axes.set(yticks=[], ylim=(0.7 - count, 0.7), xlim=(0, 1.08 * widest))
    axes.set_xlabel("bytes a parameter")
    return figure
