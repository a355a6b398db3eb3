"""Throughput: a line for each work and format, ours beside the peers'."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING

from benchmarks.report.words import duration, number, share, short
from lowprec.show.words import superscript

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.report.results import Results, Row

__all__ = ["TITLES", "Headline", "accuracy", "columns", "headline", "kinds", "notes"]

TITLES = {
    "conversion": "Conversions",
    "rounding mode": "Rounding by mode",
    "operation": "Operations",
    "function": "Elementary functions",
    "sum": "Sums by accumulator",
    "dot": "Inner products by accumulator",
    "product": "Matrix products by accumulator",
    "training step": "A training step",
    "latency": "Latency",
    "agreement": "Hard cases: ties, subnormal numbers, overflow",
    "file": "Files",
    "other": "Others",
}
_UNTIMED = ("range", "precision", "goal")
_WHOLE = ("latency", "training step", "product", "file")  # costs that are not by the element


def kinds(results: Results) -> list[str]:
    """Return the kinds of rows: those with a title in the order of titles, then others."""
    found = results.kinds
    titled = [kind for kind in TITLES if kind in found]
    return titled + [kind for kind in found if kind not in TITLES and kind not in _UNTIMED]


@dataclasses.dataclass(frozen=True)
class Headline:
    """Our row of a work and format at its largest size, beside the peers' of the same size."""

    work: str
    size: str
    each: str
    copy: str
    float32: str
    right: str
    peers: str
    rows: tuple[Row, ...]


def headline(results: Results, kind: str) -> list[Headline]:
    """Return a line for each work and format: ours, and how many times as long the peers take.

    One thread; memory given where there is such a row.
    """
    rows = [row for row in results.of(kind) if row.threads == 1]
    lines = []
    for (work, fmt), found in itertools.groupby(
        sorted(rows, key=lambda row: _order(rows, row)), lambda row: (row.work, row.fmt)
    ):
        group = list(found)
        lines.append(_line(results, work, fmt, _ours(group), group))
    return lines


def _order(rows: Sequence[Row], row: Row) -> int:
    return next(i for i, one in enumerate(rows) if (one.work, one.fmt) == (row.work, row.fmt))


def _ours(group: Sequence[Row]) -> Row:
    """Return our row of the largest size, memory given if there is one; else another's."""
    own = [row for row in group if row.who == "lowprec"] or group
    size = max(row.elements or 0 for row in own)
    own = [row for row in own if (row.elements or 0) == size]
    return next((row for row in own if row.allocation == "preallocated"), own[0])


def _line(results: Results, work: str, fmt: str, ours: Row, group: Sequence[Row]) -> Headline:
    is_by_call = ours.elements is None or ours.kind in _WHOLE
    words = work if not fmt or fmt in work else f"{work} {fmt}"
    return Headline(
        words if ours.who == "lowprec" else f"{words} ({ours.who})",
        "" if is_by_call else _size(ours.elements or 0),
        duration(ours.seconds.median) if is_by_call else f"{number(ours.nanoseconds)} ns",
        "" if is_by_call else short(ours.copy_ratio),
        short(*results.float32_ratio(ours)),
        accuracy(ours),
        ", ".join(_beside(row, ours) for row in group if _is_comparable(row, ours)),
        tuple(group),
    )


def _is_comparable(row: Row, ours: Row) -> bool:
    same = (row.elements, row.allocation) == (ours.elements, ours.allocation)
    return row is not ours and (same or row.allocation == "")


def _beside(row: Row, ours: Row) -> str:
    """Return how many times as long a row takes as ours, and its accuracy where it differs."""
    told = accuracy(row)
    is_as_right = told in ("", "100 %", "exact", accuracy(ours))
    text = f"{row.who} {short(row.seconds.over(ours.seconds))}×"
    return text if is_as_right else f"{text} ({told})"


def _size(elements: int) -> str:
    power = math.log10(elements)
    return f"10{superscript(round(power))}" if power.is_integer() else f"{elements:,}"


def accuracy(row: Row) -> str:
    """Return how right a row's results are: the share right to the bit, or an error."""
    if "bit_match" in row.facts:
        return share(row.facts["bit_match"])
    if "figures" not in row.facts:
        return ""
    error = next(iter(row.facts["figures"].values()))
    return "broke" if error is None else f"{error:.0e}" if error else "exact"


def columns(lines: Sequence[Headline]) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of a table of lines, without columns that say nothing."""
    is_by_call = not any(line.size for line in lines)
    headings = ["work", "elements", "a call" if is_by_call else "time each"]
    headings += ["× copy", "× float32", "right, or error", "others, over ours"]
    table = [
        [line.work, line.size, line.each, line.copy, line.float32, line.right, line.peers]
        for line in lines
    ]
    shown = [k for k in range(len(headings)) if any(row[k] not in ("", "–") for row in table)]
    return [headings[k] for k in shown], [[row[k] for k in shown] for row in table]


def notes(lines: Iterable[Headline]) -> list[str]:
    """Return where the semantics of rows beside ours differ."""
    told = [(row.who, row.facts.get("note")) for line in lines for row in line.rows]
    grouped: dict[str, list[str]] = {}
    for who, note in dict.fromkeys(told):
        if note:
            grouped.setdefault(str(note), []).append(who)
    return [f"{', '.join(dict.fromkeys(who))}: {note}." for note, who in grouped.items()]
