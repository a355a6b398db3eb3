"""What tables and the page say of benchmark results: cells, by row and column."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

from lowprec.advice import superscript
from lowprec.report.benchmarks.results import Quartiles, Results, Row, largest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "TITLES",
    "Goal",
    "Headline",
    "Matrix",
    "accuracy",
    "caveats",
    "cost",
    "experiments",
    "extents",
    "goals",
    "headline",
    "notes",
    "number",
    "ranges",
    "share",
    "tell",
]

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
_BUSY = 0.75  # of a processor by other work


def number(value: float | None) -> str:
    """Return a number to three digits, without needless zeros or exponents.

    Examples
    --------
    >>> number(0.12345), number(12345.6), number(1.5e-9), number(None)
    ('0.123', '12,346', '1.5e-09', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    if 1000 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def tell(figure: Quartiles) -> str:
    """Return a median between its quartiles.

    Examples
    --------
    >>> from lowprec.report.benchmarks import Quartiles
    >>> tell(Quartiles(0.781, 0.8, 0.83)), tell(Quartiles(19, 20.04, 21))
    ('0.80 [0.78, 0.83]', '20.0 [19.0, 21.0]')
    """
    decimals = _decimals(figure.median)
    return f"{figure.median:.{decimals}f} [{figure.low:.{decimals}f}, {figure.high:.{decimals}f}]"


def _decimals(value: float) -> int:
    return 2 if value < 10 else 1 if value < 100 else 0


def short(figure: Quartiles | None, is_in_turns: bool = True) -> str:
    """Return a median alone, after ≈ where it was not measured in turns."""
    if figure is None:
        return "–"
    text = f"{figure.median:.{_decimals(figure.median)}f}"
    return text if is_in_turns else f"≈ {text}"


def cost(results: Results) -> list[str]:
    """Return the date, the machine and the versions."""
    machine = results.machine
    versions = machine.get("versions") or {"Python": machine.get("python_version", "?")}
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    cores = machine.get("logical_processors")
    where = results.processor + (f", {cores} logical processors" if cores else "")
    return [f"Measured {results.date[:16].replace('T', ' ')} on {where}.", f"{told}."]


def caveats(results: Results) -> list[str]:
    """Return what makes the figures doubtful."""
    load = results.machine.get("load_average_before")
    if load is None or load < _BUSY:
        return []
    words = f"The machine was busy (load average {load:.1f} before the run)"
    return [f"{words}: times and ratios are doubtful, errors are not."]


# Goals -------------------------------------------------------------------------------------------


class Goal(NamedTuple):
    """A promise: its limit, and what was measured at each size."""

    work: str
    bound: str
    figures: Mapping[str, Quartiles]
    is_met: bool

    @property
    def met(self) -> str:
        """Whether it was met, in a word."""
        return "yes" if self.is_met else "NO"


def goals(results: Results) -> list[Goal]:
    """Return the promises that were measured."""
    return [
        Goal(
            row.work,
            str(row.facts["bound"]),
            {size: Quartiles(**figure) for size, figure in row.facts["measured"].items()},
            bool(row.facts["is_met"]),
        )
        for row in results.of("goal")
    ]


# Range and precision -----------------------------------------------------------------------------


class Matrix(NamedTuple):
    """Cells by row and format, with what stands behind each row."""

    formats: Sequence[str]
    rows: Mapping[str, Sequence[str]]
    notes: Mapping[str, str]


def _matrix(rows: Iterable[Row], cells: Mapping[tuple[str, str], str]) -> Matrix:
    rows = list(rows)
    formats = list(dict.fromkeys(row.fmt for row in rows))
    table = {
        work: [cells.get((work, fmt), "") for fmt in formats]
        for work in dict.fromkeys(row.work for row in rows)
    }
    notes = {row.work: str(row.facts.get("source", "")) for row in rows}
    return Matrix(formats, table, notes)


def share(value: float) -> str:
    """Return a share in percent that says 100 % only where it is all of them.

    Examples
    --------
    >>> share(1.0), share(0.99999), share(0.5), share(0.00001), share(0.0)
    ('100 %', '> 99.9 %', '50.0 %', '< 0.1 %', '0 %')
    """
    if value in (0.0, 1.0):
        return f"{value:.0%}".replace("%", " %")
    if value > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if value < 0.001 else f"{100 * value:.1f} %"


def ranges(results: Results, figure: str = "share within 1 ulp") -> Matrix:
    """Return which share of each data set each format keeps, under its binades and decades."""
    rows = results.of("range")
    cells = {(row.work, row.fmt): _range_cell(row, figure) for row in rows}
    return _matrix(rows, cells)


def _range_cell(row: Row, figure: str) -> str:
    value = row.facts["figures"].get(figure)
    if figure == "share within 1 ulp":
        return share(value)
    return number(value)


def extents(results: Results) -> dict[str, tuple[str, str]]:
    """Return the dynamic range of each format, in binades and in decades."""
    return {
        row.fmt: (f"{told['binades']:.0f}", f"{told['decades']:.1f}")
        for row in results.of("range")
        if "binades" in (told := row.facts["figures"])
    }


def experiments(results: Results) -> Matrix:
    """Return the figure of each classic algorithm in each format."""
    rows = results.of("precision")
    cells = {(row.work, row.fmt): _outcome(row) for row in rows}
    return _matrix(rows, cells)


def _outcome(row: Row) -> str:
    (value,) = row.facts["figures"].values()
    if value is None:
        return "broke"
    return f"{value:.1f}" if row.facts.get("more_is_better") else f"{value:.0e}"


# Throughput --------------------------------------------------------------------------------------


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
    if kind in _UNTIMED:
        return []
    rows = [row for row in results.of(kind) if row.threads == 1]
    lines = []
    for (work, fmt), found in itertools.groupby(
        sorted(rows, key=lambda row: _order(rows, row)), lambda row: (row.work, row.fmt)
    ):
        group = list(found)
        ours = _ours(group)
        if ours is not None:
            lines.append(_line(results, work, fmt, ours, group))
    return lines


def _order(rows: Sequence[Row], row: Row) -> int:
    return next(i for i, one in enumerate(rows) if (one.work, one.fmt) == (row.work, row.fmt))


def _ours(group: Iterable[Row]) -> Row | None:
    own = [row for row in largest(group) if row.who == "lowprec"]
    size = max((row.elements or 0 for row in own), default=0)
    own = [row for row in own if (row.elements or 0) == size]
    return next((row for row in own if row.allocation == "preallocated"), own[0] if own else None)


def _line(results: Results, work: str, fmt: str, ours: Row, group: Sequence[Row]) -> Headline:
    beside = [
        row
        for row in group
        if row is not ours and row.elements == ours.elements and row.allocation == ours.allocation
    ]
    peers = ", ".join(f"{row.who} {short(row.seconds.over(ours.seconds))} ×" for row in beside)
    words = work if fmt in ("", "float32") or fmt in work else f"{work} {fmt}"
    each = ours.nanoseconds
    per_call = f"{number(ours.seconds.median * 1e6)} µs a call"
    return Headline(
        words,
        _size(ours),
        per_call if each is None or ours.kind in _WHOLE else f"{each:.3g}",
        "" if ours.kind in _WHOLE else short(ours.copy_ratio),
        short(*results.float32_ratio(ours)),
        accuracy(ours),
        peers,
        tuple(group),
    )


_WHOLE = ("latency", "training step", "product", "file")  # costs that are not by the element


def _size(row: Row) -> str:
    """Return a power of ten as such; what is measured by the call has no size."""
    if row.elements is None or row.kind in _WHOLE:
        return ""
    power = math.log10(row.elements)
    return f"10{superscript(round(power))}" if power.is_integer() else f"{row.elements:,}"


def accuracy(row: Row) -> str:
    """Return how right a row's results are: the share right to the bit, or an error."""
    if "bit_match" in row.facts:
        return share(row.facts["bit_match"])
    figures = row.facts.get("figures") or {}
    errors = [value for value in figures.values() if value is not None]
    return "" if not errors else "exact" if errors[0] == 0 else f"{errors[0]:.0e}"


def notes(lines: Iterable[Headline]) -> list[str]:
    """Return where the semantics of rows beside ours differ."""
    told = [(row.who, row.facts.get("note")) for line in lines for row in line.rows]
    grouped: dict[str, list[str]] = {}
    for who, note in dict.fromkeys(told):
        if note:
            grouped.setdefault(str(note), []).append(who)
    return [f"{', '.join(dict.fromkeys(who))}: {note}." for note, who in grouped.items()]
