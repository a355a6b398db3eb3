"""Pictures of recorders as figures of their own, for notebooks and papers."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.recorded_rows import LOWEST_EXPONENT
from lowprec.show.standalone_figures import INK, MUTED, TRAINING, VALIDATION, light_figure
from lowprec.show.words import superscript
from lowprec.train.recorder.tracks import Tally
from lowprec.train.recorder.views import kind_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lowprec.formats import Format
    from lowprec.train.recorder.record import Record


def histogram_figure(recorder: Record, kind: str, fmt: Format) -> Figure:
    """Draw the exponents of all tensors of a kind, with what a format cannot hold shaded.

    kind: The kind of tensors.
    Raises ModuleNotFoundError without matplotlib, naming the extra to install.
    Raises ValueError if no number of this kind that is not zero was recorded.
    """
    tallies = [track.whole for track in recorder.of_kind(kind) if track.exponents.any()]
    if not tallies:
        raise ValueError(f"no {kind_name(kind)} were recorded that are not zero")
    whole = functools.reduce(Tally.merge, tallies)
    with light_figure(3.4) as figure:
        _draw_histogram(figure.add_subplot(), whole, fmt, kind)
    return figure


def _draw_histogram(axes: Axes, whole: Tally, fmt: Format, kind: str) -> None:
    used = np.flatnonzero(np.cumsum(whole.exponents) > 2e-3 * whole.exponents.sum())
    last = np.flatnonzero(whole.exponents)[-1]
    places = np.arange(used[0], last + 1)  # a few stray numbers do not stretch the axis
    shares = 100 * whole.exponents[places] / whole.exponents.sum()
    exponents = places + LOWEST_EXPONENT
    floor = fmt.emin - fmt.trailing_bits
    lost, coarse = whole.below(floor - 1), whole.below(fmt.emin) - whole.below(floor - 1)
    axes.bar(exponents + 0.5, shares, width=0.9, color=TRAINING)
    left = min(float(exponents[0]), floor - 4) - 0.5
    axes.axvspan(left, floor - 1, color=VALIDATION, alpha=0.28, linewidth=0)
    axes.axvspan(floor - 1, fmt.emin, color=VALIDATION, alpha=0.12, linewidth=0)
    right, top = max(exponents[-1] + 2, fmt.emin + 4), 1.3 * shares.max()
    for end, height, words in (
        (floor - 1, top, f"become 0 in {fmt}: {lost:.0%}"),
        (fmt.emin, 0.91 * top, f"subnormal: {coarse:.0%}"),
    ):
        beside = "right" if end - left > (right - left) / 3 else "left"
        axes.text(end - 0.3, height, words, ha=beside, va="top", color=INK)
    axes.set(xlim=(left, right), ylim=(0, 1.05 * top))
    ticks = [k for k in range(-160, 128, 8) if left <= k <= exponents[-1] + 2]
    axes.set_xticks(ticks, ["1" if k == 0 else f"2{superscript(k)}" for k in ticks])
    axes.set_ylabel("numbers, %")
    axes.set_title(f"Magnitudes of the {kind_name(kind)}")


def starts_figure(found: Mapping[str, Mapping[str, Record]], kind: str = "activation") -> Figure:
    """Draw how large tensors are from layer to layer, for each start and format.

    found: By the initializer, then the format: what `lowprec.train.recorder.starts.record_starts`
        returns.
    kind: The kind of tensors.
    """
    formats = list(next(iter(found.values())))
    every = [recorder for by_format in found.values() for recorder in by_format.values()]
    lows = [track.whole.quantile(0.01) for recorder in every for track in recorder.of_kind(kind)]
    low = min(-32.0, *(value - 4 for value in lows if value == value))  # NaN: all zeros
    with light_figure(0.6 + 1.75 * len(found)) as figure:
        grid: Any = figure.subplots(
            len(found), len(formats), sharex=True, sharey=True, squeeze=False
        )
        for axes, (start, by_format) in zip(grid, found.items(), strict=True):
            for panel, (name, recorder) in zip(axes, by_format.items(), strict=True):
                _draw_start(panel, recorder, kind, low)
                if panel in grid[0]:
                    panel.set_title(name)
            axes[0].set_ylabel(start)
        for panel in grid[-1]:
            panel.set_xlabel("layer")
    return figure


def _draw_start(axes: Axes, recorder: Record, kind: str, low: float) -> None:
    tracks = sorted(
        (track for track in recorder.of_kind(kind) if track.name.isdecimal()),
        key=lambda track: int(track.name),
    )
    fmt = tracks[0].fmt
    for place, track in enumerate(tracks, 1):
        whole = track.whole
        if not whole.exponents.any():
            axes.text(place, 0, "0", ha="center", va="center", color=VALIDATION, weight="bold")
            continue
        used = np.flatnonzero(whole.exponents)
        shares = 0.9 * whole.exponents[used] / whole.exponents.max()
        y = used + LOWEST_EXPONENT + 0.5
        axes.barh(y, shares, height=1.0, left=place - shares / 2, color=TRAINING, linewidth=0)
        if whole.new_zero_rate > 0.005:
            axes.text(
                place, y[0] - 2, f"{whole.new_zero_rate:.0%}", ha="center", va="top",
                color=VALIDATION, fontsize=8,
            )  # fmt: skip
    for level in (fmt.emin - fmt.trailing_bits, fmt.emax + 1):
        axes.axhline(level, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
    axes.set(xlim=(0.4, len(tracks) + 0.6), ylim=(low, 20), xticks=range(1, len(tracks) + 1))
    ticks = [k for k in range(-160, 17, 16) if k >= low]
    axes.set_yticks(ticks, [f"2{superscript(k)}" if k else "1" for k in ticks])
