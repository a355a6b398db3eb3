"""Goals, range and precision: what was found, by row and format."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from benchmarks.report.results import Quartiles
from benchmarks.report.words import share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.report.results import Results, Row

__all__ = ["Goal", "Matrix", "experiments", "extents", "goals", "ranges", "worst_errors"]


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


class Matrix(NamedTuple):
    """Cells by row and format, with what stands behind each row."""

    formats: Sequence[str]
    rows: Mapping[str, Sequence[str]]
    notes: Mapping[str, str]


def _matrix(rows: Sequence[Row], cells: Mapping[tuple[str, str], str]) -> Matrix:
    formats = list(dict.fromkeys(row.fmt for row in rows))
    table = {
        work: [cells.get((work, fmt), "") for fmt in formats]
        for work in dict.fromkeys(row.work for row in rows)
    }
    notes = {row.work: str(row.facts.get("source", "")) for row in rows}
    return Matrix(formats, table, notes)


def ranges(results: Results) -> Matrix:
    """Return which share of each data set each format keeps within an ulp."""
    rows = results.of("range")
    kept = "share within 1 ulp"
    return _matrix(rows, {(r.work, r.fmt): share(r.facts["figures"][kept]) for r in rows})


def worst_errors(results: Results) -> Matrix:
    """Return the largest relative error of each data set in each format."""
    rows = results.of("range")
    return _matrix(rows, {(row.work, row.fmt): _worst(row) for row in rows})


def _worst(row: Row) -> str:
    worst = row.facts["figures"]["worst relative error"]
    return "overflows" if worst is None else f"{worst:.1g}"


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
