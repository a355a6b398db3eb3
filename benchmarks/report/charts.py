"""Charts of benchmark results: cost against size, from the caches to memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lowprec.show.drawing import FILL, INK, LINE, MUTED, NARROW, colour, draw_twice
from lowprec.show.words import superscript

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmarks.report.results import Results, Row

__all__ = ["cost_chart"]

_BLUE, _ORANGE, _GREEN, _PURPLE = (
    colour(name) for name in ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")
)
_STYLES = {
    "lowprec": ("-", _BLUE),
    "lowprec without flags": (":", _BLUE),
    "numpy": ("-", _ORANGE),
    "ml_dtypes": ("-", INK),
    "numpy float32 + round_to": ("--", _ORANGE),
    "torch": ("-", _GREEN),
    "jax": ("-", _PURPLE),
    "gfloat": ("--", MUTED),
    "pychop": (":", MUTED),
}

Line = tuple[str, list[int], list[float]]


def cost_chart(results: Results, kind: str) -> str:
    """Draw nanoseconds an element against elements, a panel for each of up to three works.

    Parameters
    ----------
    results : Results
        What was measured.
    kind : str
        Which rows.

    Returns
    -------
    str
        SVG for wide and for narrow screens; nothing where no work was measured at three sizes.
    """
    panels = _panels(results, kind)
    if not panels:
        return ""
    sizes = sorted({size for lines in panels.values() for _, at, _ in lines for size in at})
    floor = [(n, each / n * 1e9) for n in sizes if (each := results.floor(n)) is not None]
    words = "; ".join(f"{title}: {', '.join(who for who, *_ in panels[title])}" for title in panels)
    label = f"Cost an element against size. {words}. The shaded part is below a float32 copy."
    name = kind.replace(" ", "-")
    return draw_twice(f"cost-{name}", label, _draw, panels, floor)


def _panels(results: Results, kind: str) -> Mapping[str, list[Line]]:
    """Choose works that were measured at three sizes or more, and their lines."""
    rows = [row for row in results.of(kind) if row.threads == 1 and row.elements]
    titles = dict.fromkeys((row.work, row.fmt) for row in rows if row.who == "lowprec")
    chosen: dict[str, list[Line]] = {}
    for work, fmt in titles:
        lines = _lines([row for row in rows if (row.work, row.fmt) == (work, fmt)])
        if lines and lines[0][0] == "lowprec" and len(lines[0][1]) >= 3 and len(chosen) < 3:
            chosen[work if fmt in work else f"{work} {fmt}"] = lines
    return chosen


def _lines(rows: Sequence[Row]) -> list[Line]:
    """Return a line for each library: memory given where it has such rows, else new memory."""
    lines = []
    for who in dict.fromkeys(row.who for row in rows):
        own = [row for row in rows if row.who == who]
        given = [row for row in own if row.allocation == "preallocated"] or own
        points = sorted((row.elements or 0, row.nanoseconds or 0.0) for row in given)
        lines.append((who, [n for n, _ in points], [each for _, each in points]))
    return sorted(lines, key=lambda line: line[0] != "lowprec")


def _draw(width: float, panels: Mapping[str, list[Line]], floor: list[tuple[int, float]]) -> Figure:
    from matplotlib.figure import Figure

    columns = 1 if width <= NARROW else len(panels)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(width, 2.9 * rows + 0.6), layout="constrained")
    grid = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    costs = [each for lines in panels.values() for *_, each in lines]
    lowest = min(value for each in [*costs, [value for _, value in floor]] for value in each)
    for axes, (title, lines) in zip(grid, panels.items(), strict=True):
        _panel(axes, title, lines, floor, lowest / 2)
    for axes in grid[::columns]:
        axes.set_ylabel("nanoseconds an element")
    for axes in grid[-columns:]:
        axes.set_xlabel("elements")
    keys: dict[str, Any] = {}
    for axes in grid:
        handles, labels = axes.get_legend_handles_labels()
        keys |= dict(zip(labels, handles, strict=True))
    figure.legend(
        keys.values(),
        keys.keys(),
        loc="outside lower center",
        ncols=2 if width <= NARROW else 5,
        frameon=False,
        fontsize=9,
        labelcolor=MUTED,
    )
    return figure


def _panel(
    axes: Axes, title: str, lines: Sequence[Line], floor: list[tuple[int, float]], bottom: float
) -> None:
    axes.set_title(title, size=10, loc="left", color=INK)
    for who, at, each in lines:
        style, ink = _STYLES.get(who, ("-.", MUTED))
        width = 2.2 if who == "lowprec" else 1.2
        axes.plot(at, each, style, color=ink, linewidth=width, marker="o", markersize=3, label=who)
    axes.set_xscale("log")
    axes.set_yscale("log")
    if floor:
        sizes, copies = zip(*floor, strict=True)
        axes.fill_between(sizes, bottom, copies, color=FILL, linewidth=0, zorder=0)
        axes.plot(sizes, copies, color=MUTED, linewidth=1, label="float32 copy (the floor)")
    axes.set_ylim(bottom=bottom)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(_power)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)


def _power(value: float, _: Any) -> str:
    return f"10{superscript(round(math.log10(value)))}" if value > 0 else ""
