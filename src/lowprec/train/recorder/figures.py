"""The pictures of the recorder's page: each returns SVG with its alternative text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.recorded_rows import LOWEST_EXPONENT
from lowprec.formats import Format, get_format
from lowprec.show.drawing import INK, LINE, MUTED, NARROW, colour, draw_twice, short_name
from lowprec.show.words import superscript
from lowprec.train.recorder.kinds import GRADIENTS
from lowprec.train.recorder.views import kind_name, short_label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lowprec.train.recorder.record import Record
    from lowprec.train.recorder.tracks import Tally, Track

_SHADE = (52, 136, 196)  # reads on light and dark pages
_FORMATS = tuple(map(get_format, ("float16", "float8_e4m3fn", "float8_e5m2")))
_MOST = 12  # tensors in one picture
_NO_SCALE = 2.0**-149  # where a scale that fell to 0 is drawn: float32 holds nothing smaller
_FEW = 30  # epochs whose values are marked: a line through one of them is none


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _power(exponent: float) -> str:
    return "1" if exponent == 0 else f"2{superscript(int(exponent))}"


# Heat maps ---------------------------------------------------------------------------------------


def heat_maps(recorder: Record, kind: str, tracks: list[Track], number: int = 0) -> str:
    """Draw where the numbers of tensors of a kind lie, by step, with the format's range."""
    names = ", ".join(short_label(recorder, track) for track in tracks)
    fmt = tracks[0].fmt
    words = f"Exponents of the {kind_name(kind)} by step, with the range of {fmt}: {names}. "
    words += "; ".join(_described(recorder, track) for track in tracks)
    name = f"heat-{kind}-{number}" if number else f"heat-{kind}"
    return draw_twice(name, f"{words}.", _draw_heat_maps, recorder, tracks)


def _described(recorder: Record, track: Track) -> str:
    low, high = track.whole.quantile(0.05), track.whole.quantile(0.95)
    name = short_label(recorder, track)
    if math.isnan(low):
        return f"{name} is all zeros"
    return f"most of {name} between {_power(math.floor(low))} and {_power(math.ceil(high))}"


def groups(tracks: Sequence[Track]) -> list[list[Track]]:
    """Return the tracks to draw together: kernels first, then biases and what else there is."""
    kept = [track for track in tracks if track.length and track.exponents.any()]
    if kept and kept[0].kind == "moment":
        kept.sort(key=lambda track: track.slot.kind)
    kernels = [track for track in kept if track.is_kernel]
    others = [track for track in kept if not track.is_kernel]
    return [
        part[at : at + _MOST] for part in (kernels, others) for at in range(0, len(part), _MOST)
    ]


def pick(tracks: Sequence[Track]) -> list[Track]:
    """Return the tracks of one picture: kernels rather than biases where there are many."""
    return next(iter(groups(tracks)), [])


def _draw_heat_maps(width: float, recorder: Record, tracks: list[Track]) -> Figure:
    columns = min(len(tracks), 2 if width <= NARROW else 4)
    rows = math.ceil(len(tracks) / columns)
    figure = _figure(width, 0.4 + (1.9 if tracks[0].kind == "moment" else 1.75) * rows)
    grid: Any = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    low, high = _window(tracks)
    for axes in grid.flat[len(tracks) :]:
        axes.axis("off")
    for number, (axes, track) in enumerate(zip(grid.flat, tracks, strict=False)):
        _draw_heat(axes, track, low, high)
        _draw_range(axes, track, recorder, low, high)
        title = short_label(recorder, track).replace(", ", "\n")
        axes.set_title(title, fontsize=9, loc="left", color=INK)
        if number + columns >= len(tracks):
            axes.set_xlabel("step")
            axes.tick_params(labelbottom=True)  # a shared axis has numbers in the last row only
    return figure


def _window(tracks: Sequence[Track]) -> tuple[int, int]:
    """Return the exponents to show: all that occur, and the range of a narrow format with them."""
    used = np.flatnonzero(sum(track.exponents.sum(axis=0) for track in tracks)) + LOWEST_EXPONENT
    fmt = tracks[0].fmt
    low, high = int(used[0]), int(used[-1]) + 1
    whole = sum(track.exponents.sum(axis=0) for track in tracks)
    share = np.cumsum(whole) / whole.sum()  # a few stray numbers do not stretch the axis
    low = max(low, int(np.searchsorted(share, 1e-4)) + LOWEST_EXPONENT - 2)
    if fmt.emin > -100:
        low, high = min(low, _floor(fmt) - 2), max(high, fmt.emax + 3)
    return low, max(high, low + 8)


def _floor(fmt: Format) -> int:
    return fmt.emin - fmt.trailing_bits if fmt.subnormals else fmt.emin


def _draw_heat(axes: Axes, track: Track, low: int, high: int) -> None:
    window = slice(low - LOWEST_EXPONENT, high - LOWEST_EXPONENT)
    counts = track.exponents[: track.length, window].astype(float).T
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    image = np.zeros((*shares.shape, 4))
    image[..., :3] = np.array(_SHADE) / 255
    image[..., 3] = np.sqrt(shares / max(shares.max(), 1e-9))
    first, last = track.field("first_step")[0], track.field("last_step")[-1]
    end = last + max((last - first) / max(track.length - 1, 1), 1)
    axes.imshow(
        image,
        origin="lower",
        aspect="auto",
        interpolation="none",
        extent=(first, end, low, high),
    )
    axes.set(xlim=(first, end), ylim=(low, high))
    _mark_powers(axes, low, high)
    axes.locator_params(axis="x", nbins=4)


def _mark_powers(axes: Axes, low: int, high: int) -> None:
    step = next(s for s in (2, 4, 8, 16, 32, 64, 128) if (high - low) / s <= 6)
    ticks = list(range(math.ceil(low / step) * step, high + 1, step))
    axes.set_yticks(ticks, [_power(k) for k in ticks])


def _draw_range(axes: Axes, track: Track, recorder: Record, low: int, high: int) -> None:
    """Draw the maximum and the smallest normal number as lines, the smallest number dashed.

    A loss scale of 2**k moves the range of gradients k binades down.
    """
    fmt, scales = track.fmt, recorder.scales
    if fmt.emin < -100:
        return
    if track.kind not in GRADIENTS or not scales:
        scales = [(0, 1.0)]
    steps = [step for step, _ in scales] + [max(recorder.steps, 1)]
    shifts = np.log2([scale or _NO_SCALE for _, scale in scales])
    for level, style in ((fmt.emax + 1, "-"), (fmt.emin, "-"), (_floor(fmt), (0, (3, 2)))):
        levels = level - np.append(shifts, shifts[-1])
        look: Any = {"color": colour(fmt.name), "linewidth": 1.1, "linestyle": style}
        axes.step(steps, levels, where="post", **look)
    axes.set_ylim(low, high)


# The tensor that the first finding is about ------------------------------------------------------


def lead(recorder: Record, track: Track, column: str) -> tuple[str, str] | None:
    """Return words and picture of one tensor: its size by step beside the limits of its format.

    column: ``range``, ``noise`` for its rounding errors, or ``lost`` for the share of lost changes.
    Returns: None where there is nothing to draw.
    """
    if column == "lost":
        words = "Share of the changes that rounding leaves without effect, by step."
        draw, has = _draw_lost_share, track.field("changes").any()
    elif column == "noise":
        words = (
            f"Root mean square by step: the numbers, and what rounding to {track.fmt} adds to them."
        )
        draw, has = _draw_noise, track.field("squares").any()
    else:
        words = _words_of_range(recorder, track)
        draw, has = _draw_sizes, track.exponents.any()
    if not has:
        return None
    alternative = f"{short_label(recorder, track)}, a tensor of {kind_name(track.kind)}. {words}"
    return words, draw_twice("lead", alternative, draw, recorder, track)


def _words_of_range(recorder: Record, track: Track) -> str:
    fmt = track.fmt
    words = "Magnitudes by step: the largest, and the middle half of them"
    if fmt.emin < -100:
        words += f"; {fmt} ends at {fmt.max:.3g}, far outside"
    else:
        words += (
            f". Lines: what {fmt} holds, from {fmt.smallest_subnormal:.2g} "
            f"({fmt.smallest_normal:.2g} in full precision) to {fmt.max:g}"
        )
        scaled = track.kind in GRADIENTS and any(s != 1 for _, s in recorder.scales)
        words += ", moved down by the loss scale" if scaled else ""
    at = _not_finite_from(recorder, track)
    return f"{words}; not finite from step {at:.0f} on." if at is not None else f"{words}."


def _not_finite_from(recorder: Record, track: Track) -> float | None:
    """Return the step at which a tensor first was not finite."""
    for event in recorder.events:
        if (event.kind, event.name) == (track.kind, track.name):
            return event.step
    wrong = track.field("nans") + track.field("infs") + track.field("overflows")
    places = np.flatnonzero(wrong)
    return float(track.field("first_step")[places[0]]) if places.size else None


def _draw_sizes(width: float, recorder: Record, track: Track) -> Figure:
    figure = _figure(width, 3.2)
    axes = figure.add_subplot()
    rows = [row for row in track.rows if row.exponents.any()]
    steps = [step for step, row in zip(track.steps, track.rows, strict=True) if row.exponents.any()]
    largest = [math.log2(row["max_abs"]) if row["max_abs"] else math.nan for row in rows]
    quarters = [[row.quantile(share) for row in rows] for share in (0.25, 0.5, 0.75)]
    shade = colour("bfloat16")
    marker = _marker(len(rows))
    axes.fill_between(steps, quarters[0], quarters[2], color=shade, alpha=0.25, linewidth=0)
    axes.plot(steps, quarters[1], color=shade, alpha=0.7, label="middle half", **marker)
    axes.plot(steps, largest, color=shade, linewidth=2, label="largest", **marker)
    low = min([value for value in quarters[0] if math.isfinite(value)], default=0.0)
    high = max([value for value in largest if math.isfinite(value)], default=1.0)
    fmt = track.fmt
    if fmt.emin >= -100:
        shift = math.log2(_scale_at(recorder, track, steps[-1]))
        low = min(low, _floor(fmt) - shift - 1)
        high = max(high, fmt.emax + 1 - shift)
    low, high = math.floor(low) - 1, math.ceil(high) + 2
    first, last = track.field("first_step")[0], track.field("last_step")[-1]
    _draw_range(axes, track, recorder, low, high)
    if fmt.emin >= -100:
        _name_limits(axes, track, recorder)
    at = _not_finite_from(recorder, track)
    if at is not None:
        last = max(last, at)
        axes.axvline(at, color=colour("float16"), linewidth=1.4)
        axes.text(
            at, high - 0.3, f" not finite: step {at:.0f} ", color=colour("float16"), va="top",
            ha="right" if at > (first + last) / 2 else "left", fontsize=9,
        )  # fmt: skip
    margin = 0.02 * max(last - first, 1)
    axes.set(xlim=(first - margin, last + margin), ylim=(low, high), xlabel="step")
    _mark_powers(axes, low, high)
    axes.legend(frameon=False, labelcolor="linecolor", loc="best", handlelength=1.4)
    return figure


def _marker(count: int) -> dict[str, Any]:
    """Return how points are marked: a line through one of them is none."""
    return {"marker": "o", "markersize": 3} if count <= _FEW else {}


def _scale_at(recorder: Record, track: Track, step: float) -> float:
    """Return the loss scale that a tensor was multiplied by at a step."""
    if track.kind not in GRADIENTS or not recorder.scales:
        return 1.0
    earlier = [scale for at, scale in recorder.scales if at <= step]
    return (earlier or [recorder.scales[0][1]])[-1] or _NO_SCALE


def _name_limits(axes: Axes, track: Track, recorder: Record) -> None:
    """Name the format's limits at the right of their lines."""
    fmt, shift = track.fmt, math.log2(_scale_at(recorder, track, recorder.steps))
    low, high = axes.get_ylim()
    limits = (
        (fmt.emax + 1, f"{fmt.max:g}"),
        (fmt.emin, f"{fmt.smallest_normal:.2g}"),
        (_floor(fmt), f"{fmt.smallest_subnormal:.2g}"),
    )
    for level, text in limits:
        if not low <= level - shift <= high:
            continue
        axes.annotate(
            text, (1.0, level - shift), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", color=colour(fmt.name), va="center", fontsize=8,
            annotation_clip=False,
        )  # fmt: skip


def _draw_noise(width: float, recorder: Record, track: Track) -> Figure:
    figure = _figure(width, 2.8)
    axes = figure.add_subplot()
    marker = _marker(track.length)
    rows = track.rows
    for label, values, shade in (
        ("the numbers", [row.rms for row in rows], colour("bfloat16")),
        ("rounding errors", [row.noise_rms for row in rows], colour("float16")),
    ):
        shown = [value if value > 0 else math.nan for value in values]
        axes.plot(track.steps, shown, color=shade, label=label, **marker)
    if track.field("squares").any():
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel="root mean square")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.legend(frameon=False, labelcolor="linecolor", handlelength=1.4)
    return figure


def _draw_lost_share(width: float, recorder: Record, track: Track) -> Figure:
    figure = _figure(width, 2.8)
    axes = figure.add_subplot()
    marker = _marker(track.length)
    shares = [100 * row.lost_rate for row in track.rows]
    axes.plot(track.steps, shares, color=colour("bfloat16"), linewidth=2, **marker)
    axes.set(ylim=(-2, 102), xlabel="step", ylabel="changes lost, %")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    return figure


# Curves ------------------------------------------------------------------------------------------


def learning_curves(recorder: Record) -> str:
    """Draw the loss by epoch, in training and validation, beside the reference's."""
    curves = recorder.curves
    last = ", ".join(
        f"{name} {curves[name][-1]:.4g}" for name in ("loss", "val_loss") if name in curves
    )
    epochs = len(curves["loss"])
    words = f"Learning curves over {epochs} epoch{'s' * (epochs > 1)}; they end at {last}."
    return draw_twice("curves", words, draw_curves, recorder)


def draw_curves(width: float, recorder: Record) -> Figure:
    """Draw the loss and metrics by step, with the skipped steps."""
    figure = _figure(width, 2.6)
    axes = figure.add_subplot()
    curves = recorder.curves
    shown: list[tuple[str, Sequence[float], str, str]] = [
        ("training", curves["loss"], colour("bfloat16"), "-"),
        ("validation", curves.get("val_loss", []), colour("float16"), "-"),
        ("training in float32", recorder.reference or [], MUTED, "--"),
    ]
    finite: list[float] = []
    for label, values, shade, style in shown:
        if len(values):
            lost = [epoch for epoch, v in enumerate(values, 1) if not math.isfinite(v)]
            axes.plot(
                range(1, len(values) + 1),
                values,
                style,
                color=shade,
                label=f"{label}, not finite from epoch {lost[0]}" if lost else label,
                marker="o" if len(values) <= _FEW else "",
                markersize=3,
            )
            finite += [v for v in values if math.isfinite(v)]
            if lost:
                _mark_end(axes, values, lost[0], shade)
    epochs = max(len(values) for _, values, _, _ in shown)
    margin = 0.5 if epochs == 1 else 0.02 * epochs
    axes.set_xlim(1 - margin, epochs + margin)
    if min(finite) > 0 and max(finite) > 30 * min(finite):
        axes.set_yscale("log")
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.legend(frameon=False, labelcolor="linecolor", handlelength=1.4)
    return figure


def _mark_end(axes: Axes, values: Sequence[float], epoch: int, shade: str) -> None:
    """Mark the epoch from which on a curve is not finite, at the level it had before."""
    before = [value for value in values[: epoch - 1] if math.isfinite(value)]
    wrong = "NaN" if math.isnan(values[epoch - 1]) else "∞"
    axes.axvline(epoch, color=shade, linewidth=0.9, linestyle=(0, (1, 2)))
    if before:
        axes.plot([epoch], [before[-1]], "X", color=shade, markersize=7)
        axes.annotate(
            f"{wrong} at {epoch}", (epoch, before[-1]), xytext=(5, 7), textcoords="offset points",
            color=shade, fontsize=8, annotation_clip=False,
        )  # fmt: skip


def loss_scales(recorder: Record) -> str:
    """Draw the loss scale by step, with all steps that were skipped."""
    events = {event.step for event in recorder.events if event.skipped}
    told = recorder.skipped_steps if "model" in recorder.facts else []
    skips = sorted(events | set(told))
    ends = recorder.scales[0][1], recorder.scales[-1][1]
    words = f"Loss scale from {ends[0]:g} to {ends[1]:g}; {recorder.skips} steps skipped"
    words += f", the first at step {skips[0]}." if skips else "."
    return draw_twice("scales", words, draw_scales, recorder, skips)


def draw_scales(width: float, recorder: Record, skips: list[int]) -> Figure:
    """Draw the loss scale by step, with the skipped steps."""
    figure = _figure(width, 2.0)
    axes = figure.add_subplot()
    steps, scales = zip(*recorder.scales, strict=True)
    exponents = np.log2([scale or _NO_SCALE for scale in (*scales, scales[-1])])
    axes.step([*steps, recorder.steps], exponents, where="post", color=colour("bfloat16"))
    at = np.interp(skips, steps, range(len(steps)))
    levels = [exponents[int(place)] for place in at]
    axes.plot(skips, levels, "x", color=colour("float16"), label="skipped")
    low, high = math.floor(min(exponents)) - 1, math.ceil(max(exponents)) + 1
    axes.set(ylim=(low, high), xlabel="step", ylabel="loss scale")
    _mark_powers(axes, low, high)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    if skips:
        axes.legend(frameon=False, labelcolor="linecolor")
    return figure


def lost_updates(recorder: Record) -> str:
    """Draw the share of lost updates by step, for each kernel."""
    tracks = pick(recorder.of_kind("update"))
    ends = "; ".join(
        f"{short_label(recorder, track)} {track.rows[-1].lost_rate:.0%} at the end"
        for track in tracks
    )
    return draw_twice(
        "lost", f"Share of lost updates by step: {ends}.", _draw_lost, recorder, tracks
    )


def _draw_lost(width: float, recorder: Record, tracks: list[Track]) -> Figure:
    figure = _figure(width, 2.6)
    axes = figure.add_subplot()
    shade = colour("bfloat16")
    for number, track in enumerate(tracks):
        shares = [100 * row.lost_rate for row in track.rows]
        strength = 1 - 0.5 * number / max(len(tracks) - 1, 1)
        axes.plot(
            track.steps, shares, color=shade, alpha=strength, label=short_label(recorder, track)
        )
    axes.set(ylim=(-2, 102), xlabel="step", ylabel="updates lost, %")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.legend(frameon=False, fontsize=8, ncols=1 if width <= NARROW else 3, labelcolor=INK)
    return figure


# Depth -------------------------------------------------------------------------------------------


def depth(recorder: Record, kind: str) -> str:
    """Draw how large the tensors of a kind are from layer to layer, and what formats hold."""
    tracks = [track for track in recorder.of_kind(kind) if track.exponents.any()]
    tracks = sorted((t for t in tracks if t.name != "input"), key=_depth_of)
    told = "; ".join(_described(recorder, track) for track in tracks)
    ranges = ", ".join(f"{short_name(f.name)} from {_power(_floor(f))}" for f in _FORMATS)
    words = f"Sizes of the {kind_name(kind)} through the layers: {told}. Formats hold {ranges}."
    return draw_twice(f"depth-{kind}", words, _draw_depth, recorder, tracks)


def _depth_of(track: Track) -> tuple[int, str]:
    return (int(track.name), "") if track.name.isdecimal() else (0, track.name)


def _draw_depth(width: float, recorder: Record, tracks: list[Track]) -> Figure:
    figure = _figure(width, 3.0)
    axes = figure.add_subplot()
    for place, track in enumerate(tracks):
        _draw_violin(axes, place, track.whole)
    axes.set_xticks(range(len(tracks)), [_tick(recorder, track) for track in tracks])
    if len(tracks) > (4 if width <= NARROW else 9):
        axes.tick_params(axis="x", rotation=60)
    low, high = _window(tracks)
    low = min(low, _floor(_FORMATS[0]) - 2)
    for fmt in _FORMATS:
        axes.hlines(
            _floor(fmt),
            -0.6,
            len(tracks) - 0.5,
            colour(fmt.name),
            linewidth=1.1,
            linestyle=(0, (3, 2)),
        )
        label = short_name(fmt.name).replace(" ", "\n")
        axes.text(
            len(tracks) - 0.45, _floor(fmt), label, color=colour(fmt.name), va="center", fontsize=8
        )
    room = 0.13 * len(tracks) * (2 if width <= NARROW else 1)  # for the names of the formats
    axes.set(xlim=(-0.6, len(tracks) - 0.5 + room), ylim=(low, high))
    _mark_powers(axes, low, high)
    return figure


def _tick(recorder: Record, track: Track) -> str:
    return recorder.label(track.name).replace(" ", "\n", 1)


def _draw_violin(axes: Axes, place: int, tally: Tally) -> None:
    """Draw a histogram of exponents upright, both ways from its place."""
    used = np.flatnonzero(tally.exponents)
    shares = tally.exponents[used] / tally.exponents.max()
    y = used + LOWEST_EXPONENT
    axes.barh(
        y + 0.5,
        0.8 * shares,
        height=1.0,
        left=place - 0.4 * shares,
        color=colour("bfloat16"),
        alpha=0.75,
        linewidth=0,
    )
    middle = tally.quantile(0.5)
    axes.plot([place - 0.42, place + 0.42], [middle, middle], color=INK, linewidth=1.2)
