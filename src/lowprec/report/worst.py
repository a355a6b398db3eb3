"""A comparison in short: how many tensors each format holds, and where it does worst.

A format holds a tensor if nothing is lost and no relative error exceeds the tolerance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lowprec.analysis.advice import FormatAdvice, describe, percent
from lowprec.analysis.judgement import Tally, grade, tally

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowprec.analysis.measurement import Measurement
    from lowprec.analysis.measuring import Comparison

__all__ = ["TOLERANCE", "Finding", "findings", "rule", "tallies", "verdict_word", "worst_first"]

TOLERANCE = 0.01
_WORDS = {
    "exact": "exact",
    "held": "held",
    "coarse": "too coarse",
    "zeros": "loses small",
    "overflows": "overflows",
}


class Finding(NamedTuple):
    """What one format does to one tensor that it does not hold."""

    tensor: str
    fmt: str
    words: str


def rule() -> str:
    """Return what counts as holding, in words."""
    return f"held: nothing lost, every relative error within {percent(TOLERANCE)}"


def verdict_word(measured: Measurement) -> str:
    """Return the verdict on one tensor in one format, in a word or two."""
    return _WORDS[grade(_advice(measured))]


def tallies(comparison: Comparison) -> list[Tally]:
    """Return how each format fares, the one that holds the fewest tensors first."""
    by_format: dict[str, list[FormatAdvice]] = {}
    for row in comparison.measurements.values():
        for name, measured in row.items():
            by_format.setdefault(name, []).append(_advice(measured))
    counted = [tally(advice[0].fmt, advice) for advice in by_format.values()]
    return sorted(counted, key=lambda one: (one.holding, one.fmt.bits))


def findings(comparison: Comparison) -> list[Finding]:
    """Return the tensors that are not held, by format, the greatest loss first."""
    failed = [
        (name, measured)
        for name, row in comparison.measurements.items()
        for measured in row.values()
        if not _advice(measured).holds
    ]
    failed.sort(key=lambda pair: _badness(pair[1]), reverse=True)
    return [Finding(name, m.fmt.name, describe(_advice(m))) for name, m in failed]


def worst_first(comparison: Comparison) -> list[str]:
    """Return the names of all tensors, the one that suffers most first."""
    rows = comparison.measurements
    return sorted(rows, key=lambda name: _row_badness(rows[name].values()), reverse=True)


def _row_badness(row: Iterable[Measurement]) -> list[tuple[float, float]]:
    return sorted(map(_badness, row), reverse=True)


def _badness(measured: Measurement) -> tuple[float, float]:
    """Return what share is lost, and the largest relative error of the rest."""
    return measured.lost / max(1, measured.count), measured.max_relative_error


def _advice(measured: Measurement) -> FormatAdvice:
    return FormatAdvice(measured.fmt, TOLERANCE, measured)
