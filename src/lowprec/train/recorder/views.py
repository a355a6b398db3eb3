"""A recorder in a terminal: its verdict, and a table of its tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from lowprec.train.recorder.scaling import is_harmed
from lowprec.train.recorder.verdict import graded

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from lowprec.train.recorder.record import Record
    from lowprec.train.recorder.tracks import Tally, Track

STYLES = {"healthy": "green", "red": "bold red", "amber": "yellow", "note": "dim"}
MARKS = {"healthy": "✓", "red": "✗", "amber": "▲", "note": "●"}  # told apart without colours
WORDS = {"healthy": "healthy", "red": "problem", "amber": "warning", "note": "note"}
_HIDDEN = ("target", "error")


_LEAST_DECIBELS = 6.0
_MOST_LOST = 0.8


class Column(NamedTuple):
    """A column of the table of tensors."""

    heading: str
    meaning: str
    text: Callable[[Tally], str]
    is_bad: Callable[[Tally], bool] = lambda tally: False  # whether the number is shown red
    shows: str = ""  # what of a tensor it is about: ``range``, ``noise`` or ``lost``


def _share(value: float) -> str:
    if not value:
        return "–"
    return f"{100 * value:.1f} %" if value >= 0.0005 else "< 0.1 %"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value else "–"


def _bits(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "–"


def _decibels(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.0f}" if math.isfinite(value) else "exact"


COLUMNS = (
    Column(
        "new zeros",
        "nonzero became zero; bold where more than 1 % did and a tenth of the norm with them",
        lambda t: _share(t.new_zero_rate),
        lambda t: is_harmed(t.new_zero_rate, 10 ** (-t.sqnr_db / 20)),
        "range",
    ),
    Column("subnormal", "became subnormal numbers", lambda t: _share(t.subnormal_rate)),
    Column(
        "overflows",
        "finite became infinite; with values that were infinite or NaN before; bold where any did",
        lambda t: _number(t["overflows"] + t["infs"] + t["nans"]),
        lambda t: t["overflows"] + t["infs"] + t["nans"] > 0,
        "range",
    ),
    Column(
        "headroom, bits",
        "doublings between the largest number and the maximum; bold below 0",
        lambda t: _bits(t.headroom_bits),
        lambda t: t.headroom_bits < 0,
        "range",
    ),
    Column(
        "SQNR, dB",
        "signal to quantisation noise; bold below 6, where noise is half of the signal",
        lambda t: _decibels(t.sqnr_db),
        lambda t: t.sqnr_db < _LEAST_DECIBELS,
        "noise",
    ),
    Column(
        "lost",
        "changes that rounding left without effect; bold above 80 %",
        lambda t: _share(t.lost_rate),
        lambda t: t.lost_rate > _MOST_LOST,
        "lost",
    ),
)


def kind_name(kind: str) -> str:
    """Return what tensors of a kind are called.

    Examples
    --------
    >>> kind_name("weight_gradient")
    'weight gradients'
    """
    return f"{kind.replace('_', ' ')}s"


def caption(recorder: Record) -> str:
    """Return in a line what was recorded."""
    facts = recorder.facts
    parts = [f"{recorder.recorded} of {recorder.steps} steps in {recorder.policy}"]
    if "model" in facts:
        first, highest = facts["hyperparameters"]["learning_rate"], facts["rates"][0]
        rate = f"up to {highest:g}" if highest > first else f"{first:g}"
        parts += [facts["data"], f"{facts['optimizer']}, learning rate {rate}"]
    return "; ".join(parts)


def recorder_view(recorder: Record) -> RenderableType:
    """Return verdict and table, for a terminal of 80 columns."""
    from rich.console import Group
    from rich.text import Text

    lines: list[RenderableType] = [
        Text.assemble(("Recorder", "bold"), f": {caption(recorder)}"),
        Text(),
    ]
    lines += [
        Text.assemble((f"{MARKS[level]} ", STYLES[level]), sentence)
        for level, sentence in graded(recorder)
    ]
    if recorder.tracks:
        lines += [Text(), _table(recorder)]
    return Group(*lines)


def _table(recorder: Record) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("tensor", overflow="fold")
    for column in COLUMNS:
        table.add_column(column.heading.replace(", ", ",\n"), justify="right", no_wrap=True)
    heading = ""
    for track in shown(recorder):
        if heading != (heading := heading_of(track)):
            table.add_row(f"[bold]{heading}[/bold]")
        whole = track.whole
        cells = (
            f"[bold red]{c.text(whole)}[/bold red]" if c.is_bad(whole) else c.text(whole)
            for c in COLUMNS
        )
        table.add_row(f"  {short_label(recorder, track)}", *cells)
    return table


def heading_of(track: Track) -> str:
    """Return what a table calls the tensors of a kind in a format."""
    return kind_name(track.kind) + ("" if track.kind == "update" else f" in {track.fmt}")


def short_label(recorder: Record, track: Track) -> str:
    """Return a tensor's name for a table: ``Dense 2 (1/kernel)``."""
    if track.kind == "moment":
        return f"{track.slot.kind.replace('_', ' ')}, {recorder.label(track.slot.parameter)}"
    return recorder.label(track.name)


def shown(recorder: Record) -> list[Track]:
    """Return the tracks that tables and pictures show, kind by kind."""
    kinds = dict.fromkeys(kind for kind, _ in recorder.tracks if kind not in _HIDDEN)
    order = [track for kind in kinds for track in recorder.of_kind(kind)]
    return [track for track in order if track.length]
