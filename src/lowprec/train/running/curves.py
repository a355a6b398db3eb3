"""The curves of a training as a figure of its own, in the colours of the report's light page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.show.standalone_figures import LINE, TRAINING, VALIDATION, light_figure
from lowprec.train.metrics import is_validation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def history_figure(
    curves: Mapping[str, Sequence[float]], loss_scales: Sequence[float], skipped: Sequence[int]
) -> Figure:
    """Draw the loss and the first metric by epoch, and the loss scale by step if there is one.

    curves (mapping of str to sequence of float): A value an epoch by name, that of validation under
        ``val_`` and the name.
    loss_scales (sequence of float): The loss scale of each step, 1 without one.
    skipped: The steps that were skipped.
    Returns: Training and validation in one panel for each; skipped steps are marked on the loss
        scale.
    Raises ModuleNotFoundError without matplotlib, naming the extra to install.
    Raises ValueError if no epoch was trained.
    """
    if not any(curves.values()):
        raise ValueError("no epoch was trained, so there are no curves; train at least one")
    names = [name for name in curves if not is_validation(name)][:2]
    scaled = any(scale != 1 for scale in loss_scales)
    with light_figure(5.4 if scaled else 3.4) as figure:
        grid: Any = figure.add_gridspec(
            1 + scaled, max(len(names), 1), height_ratios=[5, 3][: 1 + scaled]
        )
        for column, name in enumerate(names):
            _draw_curves(figure.add_subplot(grid[0, column]), curves, name)
        if scaled:
            _draw_scale(figure.add_subplot(grid[1, :]), loss_scales, skipped)
    return figure


def _draw_curves(axes: Axes, curves: Mapping[str, Sequence[float]], name: str) -> None:
    """Draw a value by epoch, in training and in validation."""
    from matplotlib.ticker import MaxNLocator

    pairs = (name, "training", TRAINING), (f"val_{name}", "validation", VALIDATION)
    shown: list[float] = []
    for key, label, shade in pairs:
        values = curves.get(key, [])
        if values:
            lost = [epoch for epoch, value in enumerate(values, 1) if not math.isfinite(value)]
            label += f", not finite from epoch {lost[0]}" if lost else ""
            style: Any = {"marker": "o" if len(values) <= 30 else "", "markersize": 3.5}
            axes.plot(
                range(1, len(values) + 1), values, color=shade, label=label, clip_on=False, **style
            )
            shown += values
    if _spans_decades(shown):
        axes.set_yscale("log")
    if not any(map(math.isfinite, shown)):
        axes.set_yticks([])  # matplotlib's own would be about 0
    axes.set_title(name)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    epochs = len(curves[name])
    axes.set_xlim(0.5 if epochs == 1 else 1, max(epochs, 1.5))
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, labelcolor="linecolor", handlelength=1.2)


def _spans_decades(values: Sequence[float]) -> bool:
    """Return whether values are best seen on a logarithmic axis: all positive, far apart."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > 100 * min(finite)


def _draw_scale(axes: Axes, loss_scales: Sequence[float], steps: Sequence[int]) -> None:
    """Draw the loss scale by step, with the skipped steps."""
    scales = np.array(loss_scales)
    axes.step(np.arange(len(scales)), scales, where="post", color=TRAINING)
    if steps:
        skipped = np.array(steps)
        label = f"{len(skipped)} step{'s' if len(skipped) > 1 else ''} skipped"
        axes.plot(skipped, scales[skipped], "x", color=VALIDATION, markersize=6, label=label)
        axes.legend(frameon=False, labelcolor="linecolor", handlelength=1.2)
    axes.set_yscale("log", base=2)
    axes.set_title("loss scale")
    axes.set_xlabel("step")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
