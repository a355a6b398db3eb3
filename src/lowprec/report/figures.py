"""The figures of the report: bit layouts, ranges, precision, histograms, throughput.

Every function returns SVG with its alternative text; `drawing` says how it fits a page.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.formats import Format, get_format
from lowprec.show.drawing import (
    INK,
    LINE,
    MUTED,
    NARROW,
    PAGE,
    canvas,
    colour,
    draw_once,
    draw_twice,
    mark_decades,
    short_name,
)
from lowprec.show.words import superscript, times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lowprec.analysis.measurement import Measurement
    from lowprec.report.throughput import Timing

# Bit layouts -------------------------------------------------------------------------------------


def bit_layouts(formats: Sequence[Format]) -> str:
    """Draw each format's bits: sign, exponent, trailing significand."""
    words = "; ".join(
        f"{f.name}: 1 sign, {f.exponent_bits} exponent, {f.trailing_bits} significand bits"
        for f in formats
    )
    return draw_twice("bits", f"Bit layouts. {words}.", _draw_layouts, formats)


def _draw_layouts(width: float, formats: Sequence[Format]) -> Figure:
    figure, axes = canvas(width, 0.15 + 0.52 * len(formats))
    most = max(fmt.bits for fmt in formats)
    for row, fmt in enumerate(formats):
        y = -row
        fields = [(1, 0.0), (fmt.exponent_bits, 0.85), (fmt.trailing_bits, 0.35)]
        start = 0
        for count, strength in fields:
            face, edge = (colour(fmt.name), PAGE) if strength else ("none", colour(fmt.name))
            for bit in range(start, start + count):
                axes.add_patch(_box(bit, y, face, strength or 1.0, edge))
            start += count
        summary = f"{fmt.bits} bits = 1 + {fmt.exponent_bits} + {fmt.trailing_bits}"
        axes.text(0, y + 0.47, fmt.name, va="bottom", weight="bold", color=colour(fmt.name))
        axes.text(most, y + 0.47, summary, va="bottom", ha="right", color=MUTED)
    axes.set(xlim=(-0.1, most + 0.1), ylim=(-len(formats) + 0.9, 0.9))
    axes.axis("off")
    return figure


def _box(x: float, y: float, face: str, alpha: float, edge: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(
        (x + 0.06, y), 0.88, 0.4, facecolor=face, alpha=alpha, edgecolor=edge, linewidth=0.8
    )


# Range -------------------------------------------------------------------------------------------


def ranges(formats: Sequence[Format], data: Mapping[str, Measurement]) -> str:
    """Draw the range of each format and of each data set on one logarithmic axis."""
    words = [f"{f.name} {f.smallest_subnormal:.2g} to {f.max:.2g}" for f in formats]
    words += [f"{name} {m.min_abs:.2g} to {m.max_abs:.2g}" for name, m in data.items()]
    return draw_twice("ranges", f"Ranges: {'; '.join(words)}.", _draw_ranges, formats, data)


def _draw_ranges(
    width: float, formats: Sequence[Format], data: Mapping[str, Measurement]
) -> Figure:
    rows = len(formats) + len(data)
    figure, axes = canvas(width, 0.6 + 0.37 * rows)
    frame = get_format("float16")
    low, high = math.log10(frame.smallest_subnormal), math.log10(frame.max)
    axes.axvspan(low, high, color=colour(frame.name), alpha=0.1, linewidth=0)
    for row, fmt in enumerate(formats):
        _range_bar(axes, -row, fmt)
        axes.text(math.log10(fmt.max), 0.25 - row, fmt.name, ha="right", color=colour(fmt.name))
    for row, (name, m) in enumerate(data.items(), len(formats)):
        ends = [math.log10(m.min_abs), math.log10(m.max_abs)]
        axes.plot(ends, [-row - 0.3] * 2, color=INK, linewidth=1.6)
        for end in ends:
            shade = INK if low <= end <= high else colour(frame.name)
            axes.plot(end, -row - 0.3, "o", color=shade, markersize=4)
        beside: Any = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "size": 9}
        axes.annotate(name, (ends[1], -row - 0.3), **beside)
    axes.axhline(0.35 - len(formats), color=LINE, linewidth=0.8)
    axes.set(yticks=[], ylim=(-rows + 0.3, 0.8))
    mark_decades(axes, -46, 39, 10)
    axes.set_xlabel("magnitude")
    return figure


def _range_bar(axes: Axes, y: float, fmt: Format) -> None:
    subnormal, normal, top = (
        math.log10(v) for v in (fmt.smallest_subnormal, fmt.smallest_normal, fmt.max)
    )
    axes.barh(y, top - normal, left=normal, height=0.26, color=colour(fmt.name))
    axes.barh(
        y, normal - subnormal, left=subnormal, height=0.26, color=colour(fmt.name), alpha=0.35
    )


# Precision ---------------------------------------------------------------------------------------


def precision(formats: Sequence[Format]) -> str:
    """Draw the largest relative error of rounding against magnitude, measured with `round_to`."""
    words = "; ".join(
        f"{f.name} stays at {f.unit_roundoff:.2g} from {f.smallest_normal:.2g} to {f.max:.2g}"
        for f in formats
    )
    alternative = f"Largest relative error against magnitude, a saw-tooth: {words}."
    return draw_twice(
        "precision", alternative, _draw_precision, [(f, *saw_tooth(f)) for f in formats]
    )


def saw_tooth(fmt: Format, low: int = -31, high: int = 20) -> tuple[Any, Any]:
    """Return magnitudes halfway between values of the format, and the relative errors there.

    These are the worst places, up to sixteen a binade from 2**low to 2**high or the largest value.
    An error of 1 means that the number became zero.
    """
    from lowprec.conversion.door import round_to

    x = 2.0 ** (np.arange(16 * low, 16 * high) / 16 + 1e-9)
    below = round_to(x, fmt, rounding="toward_zero")
    above = round_to(x, fmt, rounding="away_from_zero")
    middles = np.unique((below + above)[above <= fmt.max] / 2)
    error = np.abs(round_to(middles, fmt) - middles) / middles
    return np.insert(middles, 0, 2.0**low), np.insert(error, 0, error[0])


def _draw_precision(width: float, curves: Sequence[tuple[Format, Any, Any]]) -> Figure:
    figure, axes = canvas(width, 3.9)
    for fmt, x, error in curves:
        x, error = np.log10(x), np.log10(error)
        axes.plot(x, error, color=colour(fmt.name), linewidth=1.4)
        if fmt.max < 10.0**6:  # beyond its largest value a format overflows
            axes.plot([x[-1]] * 2, [error[-1], 0.12], ":", color=colour(fmt.name), linewidth=1.4)
        crowded = any(1 < other.unit_roundoff / fmt.unit_roundoff < 8 for other, _, _ in curves)
        level, side = (fmt.unit_roundoff / 2, "top") if crowded else (fmt.unit_roundoff, "bottom")
        text: Any = {"color": colour(fmt.name), "weight": "bold", "va": side}
        axes.text(
            0.02, math.log10(level) + (-0.06 if crowded else 0.05), short_name(fmt.name), **text
        )
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_yticks([-4, -3, -2, -1, 0], ["0.01 %", "0.1 %", "1 %", "10 %", "100 %"])
    axes.set_ylim(-4, 0.2)
    mark_decades(axes, -9, 6, 3)
    axes.set_xlabel("magnitude")
    return figure


# Histograms --------------------------------------------------------------------------------------

_LOWEST, _HIGHEST = -38, 22  # exponents shown


def histogram(name: str, key: str, formats: Sequence[Format], measured: Measurement) -> str:
    """Draw how a data set's magnitudes are spread over binades, above each format's range."""
    counts = measured.exponent_histogram
    span = f"from 2**{min(counts)} to 2**{max(counts)}" if counts else "all zero"
    alternative = f"{name}: magnitudes {span}, over the ranges of {', '.join(map(str, formats))}."
    return draw_once(key, alternative, NARROW, _draw_histogram, formats, measured)


def _draw_histogram(width: float, formats: Sequence[Format], measured: Measurement) -> Figure:
    figure, axes = canvas(width, 1.85)
    counts = measured.exponent_histogram
    peak = max(counts.values(), default=1)
    heights = [max(n / peak, 0.03) for n in counts.values()]  # a single value is seen
    axes.bar([e + 0.5 for e in counts], heights, 0.86, color=INK)
    frame = get_format("float16")
    low, high = math.log2(frame.smallest_subnormal), math.log2(frame.max)
    axes.axvspan(low, high, color=colour(frame.name), alpha=0.1, linewidth=0)
    for row, fmt in enumerate(formats):
        y = -0.14 - 0.17 * row
        for low, high, alpha in (
            (fmt.emin - fmt.trailing_bits, fmt.emin, 0.35),
            (fmt.emin, fmt.emax + 1, 1.0),
        ):
            low, high = max(low, _LOWEST), min(high, _HIGHEST)
            axes.barh(y, high - low, left=low, height=0.1, color=colour(fmt.name), alpha=alpha)
    axes.set(xlim=(_LOWEST, _HIGHEST), ylim=(-0.14 - 0.17 * len(formats), 1.05), yticks=[])
    ticks = range(-30, 21, 10)
    axes.set_xticks(ticks, ["1" if k == 0 else f"2{superscript(k)}" for k in ticks])
    return figure


# Throughput --------------------------------------------------------------------------------------


def throughput(timings: Sequence[Timing]) -> str:
    """Draw times as ratios to a float32 copy, with ml_dtypes beside where it has the operation."""
    words = "; ".join(f"{t.operation} {t.fmt.name} {times(t.ratio)}" for t in timings)
    return draw_twice(
        "throughput", f"Time over a float32 copy: {words}.", _draw_throughput, timings
    )


def _draw_throughput(width: float, timings: Sequence[Timing]) -> Figure:
    figure, axes = canvas(width, 0.7 + 0.36 * len(timings))
    y = 0.0
    ticks: list[tuple[float, str]] = []
    for previous, timing in zip([None, *timings], timings, strict=False):
        y -= 1.0 if previous is None or previous.operation == timing.operation else 1.5
        _throughput_bars(axes, y, timing)
        ticks.append((y, f"{timing.operation} {short_name(timing.fmt.name)}"))
    axes.axvline(1, color=INK, linewidth=1, zorder=0)
    axes.set_xscale("log")
    positions = [0.5, 1, 2, 5, 10, 20, 50, 100] if width > NARROW else [1, 10, 100]
    axes.set_xticks(positions, [f"{v:g}×" for v in positions])
    axes.set_xticks([], minor=True)
    slowest = max(max(t.ratio, t.peer_ratio or 0) for t in timings)
    axes.set(xlim=(0.2, slowest * 2.2), ylim=(y - 0.7, -0.3))
    axes.set_yticks([p for p, _ in ticks], [label for _, label in ticks])
    axes.set_xlabel("time of a float32 copy (logarithmic)")
    return figure


def _throughput_bars(axes: Axes, y: float, timing: Timing) -> None:
    bars = [(timing.ratio, 0.2, 1.0)]
    if timing.peer_ratio is not None:
        bars.append((timing.peer_ratio, -0.2, 0.35))
    for ratio, shift, alpha in bars:
        axes.barh(y + shift, ratio, height=0.36, color=colour(timing.fmt.name), alpha=alpha)
        over = {"facecolor": PAGE, "linewidth": 0, "pad": 0.3}  # hides the line at 1
        text: Any = {"va": "center", "size": 8, "color": MUTED, "bbox": over}
        axes.text(ratio * 1.06, y + shift, times(ratio), **text)
