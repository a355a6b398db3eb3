"""Verdicts in words: what the measurements of tensors in several formats add up to.

Nothing here is written for a particular tensor. One threshold is stated, the tolerance that the
advice was asked for with; all else is whether values are lost. A format holds a tensor if nothing
is lost that matters and no relative error exceeds the tolerance. Where formats are compared, each
is judged against what it can do: an error of one rounding in its normal range is no loss.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.analysis import advice as advising
from lowprec.analysis.advice import (
    NO_SCALE,
    Advice,
    FormatAdvice,
    describe,
    is_far_from_zero,
    remedy,
)
from lowprec.formats import Format
from lowprec.show.words import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lowprec.analysis.measurement import Measurement
    from lowprec.blocks.formats import AnyFormat

    Rows = Mapping[str, Mapping[str, Measurement]]  # by tensor, then by format


class Standing(NamedTuple):
    """How one format fares over several tensors."""

    fmt: AnyFormat
    holding: int
    total: int
    words: str


def standing(fmt: AnyFormat, advice: Sequence[FormatAdvice]) -> Standing:
    """Count what `fmt` does to several tensors; one that loses in two ways counts in both."""
    failures = {
        "overflows in": sum(one.measured.lost > one.measured.new_zeros for one in advice),
        "loses small values in": sum(
            one.measured.new_zeros > 0 and not one.holds for one in advice
        ),
        "too coarse in": sum(grade(one) == "coarse" for one in advice),
        "makes values equal in": sum(grade(one) == "collapsed" for one in advice),
    }
    words = ", ".join(f"{text} {count}" for text, count in failures.items() if count)
    return Standing(fmt, sum(one.holds for one in advice), len(advice), words or "nothing lost")


def grade(advice: FormatAdvice) -> str:
    """Return exact, held, coarse, collapsed, zeros or overflows: the worst that happens."""
    measured = advice.measured
    if advice.holds:
        return "exact" if measured.max_relative_error == 0 else "held"
    if measured.lost:
        return "zeros" if measured.lost == measured.new_zeros else "overflows"
    if measured.collapses:
        return "collapsed"
    return "coarse"


def cell(advice: FormatAdvice) -> str:
    """Return what happens in a few words: every kind of loss, else the largest relative error."""
    return ", ".join(cell_lines(advice))


def cell_lines(advice: FormatAdvice) -> list[str]:
    """Return the words of `cell`, a kind of loss each, the worst first."""
    measured = advice.measured
    fmt = measured.fmt
    end = "∞" if fmt.has_infinity else "NaN" if fmt.has_nan else "max"
    counts = {
        f"→ {end}": measured.overflows,
        f"∞ → {end}": 0 if fmt.has_infinity else measured.infs,
        "NaN refused": 0 if fmt.has_nan else measured.nans,
        "→ 0": measured.new_zeros,
    }
    lost = [f"{count:,} {words}" for words, count in counts.items() if count]
    variation = measured.variation if measured.collapses else None
    if not lost and variation is not None:
        return [f"{variation.distinct:,} → {variation.left:,} values"]
    return lost or [percent(measured.max_relative_error)]


def advice_in_words(advice: Sequence[FormatAdvice]) -> list[str]:
    """Return the verdict on one tensor: a paragraph on 16 bits, another on 8.

    advice: What `advise` said of the tensor in each format.
    Returns: Paragraphs of a few sentences.
    """
    sixteen = [one for one in advice if one.fmt.bits == 16]
    eight = [one for one in advice if one.fmt.bits < 16]
    holding = sorted((one for one in sixteen if one.holds), key=_noise)
    sentences = []
    if len(holding) > 1:
        sentences.append(_compared(holding))
    elif holding:
        sentences.append(f"Take {holding[0].fmt}: it {describe(holding[0])}.")
    else:
        sentences.append("No 16-bit format holds this tensor as it is.")
    sentences += [f"{one.fmt} {describe(one)}." for one in sixteen if not one.holds]
    in_eight = [f"{one.fmt} {describe(one)}." for one in eight]
    return [" ".join(words) for words in (sentences, in_eight) if words]


def _noise(advice: FormatAdvice) -> float:
    return -math.inf if math.isnan(advice.measured.sqnr_db) else -advice.measured.sqnr_db


def _compared(holding: Sequence[FormatAdvice]) -> str:
    """Compare formats that all hold the tensor, the one with least noise first."""
    best, last = holding[0].measured, holding[-1].measured
    names = " and ".join(str(one.fmt) for one in holding)
    if not last.noise:
        return f"{names} keep every value exactly."
    if not best.noise:
        return f"{best.fmt} keeps every value exactly; {last.fmt} {describe(holding[-1])}."
    gain = best.sqnr_db - last.sqnr_db
    return (
        f"{names} both hold it: {best.fmt} is {gain:.0f} dB finer "
        f"({best.sqnr_db:.0f} against {last.sqnr_db:.0f} dB)."
    )


# Several tensors ------------------------------------------------------------------------------

TOLERANCE = 0.01
_WORDS = {
    "exact": "exact",
    "held": "held",
    "coarse": "too coarse",
    "collapsed": "values collapse",
    "zeros": "loses small",
    "overflows": "overflows",
}


class Shortfall(NamedTuple):
    """What one format does to one tensor that it does not hold."""

    tensor: str
    fmt: str
    words: str


def rule(tolerance: float | None = None) -> str:
    """Return what counts as holding, in words."""
    if tolerance is not None:
        return f"held: nothing lost that matters, every relative error within {percent(tolerance)}"
    return (
        f"held: nothing lost that matters, every relative error within {percent(TOLERANCE)} or "
        "one rounding of the format"
    )


def tolerance_for(fmt: AnyFormat, tolerance: float | None = None) -> float:
    """Return up to which relative error a format holds: as asked, else by what it can do."""
    if tolerance is not None:
        return tolerance
    if not isinstance(fmt, Format):
        return TOLERANCE
    return max(TOLERANCE, float(fmt.unit_roundoff))


def verdict_word(measured: Measurement, tolerance: float | None = None) -> str:
    """Return the verdict on one tensor in one format, in a word or two."""
    return _WORDS[grade(_advised(measured, tolerance))]


def holds(measured: Measurement, tolerance: float | None = None) -> bool:
    """Whether a format holds a tensor, by what is asked or by what the format can do."""
    return _advised(measured, tolerance).holds


def standings(rows: Rows, tolerance: float | None = None) -> list[Standing]:
    """Return how each format fares, in ascending order of the tensors that it holds."""
    by_format: dict[str, list[FormatAdvice]] = {}
    for row in rows.values():
        for name, measured in row.items():
            by_format.setdefault(name, []).append(_advised(measured, tolerance))
    counted = [standing(advice[0].fmt, advice) for advice in by_format.values()]
    return sorted(counted, key=lambda one: (one.holding, one.fmt.bits))


def advise(x: Any, formats: Iterable[AnyFormat]) -> Advice:
    """Return what `lowprec.advise` says of an array, each format judged against what it can do."""
    each = [advising.advise(x, fmt, tolerance=tolerance_for(fmt)).formats[0] for fmt in formats]
    return Advice(TOLERANCE, tuple(each))


def shortfalls(rows: Rows, tolerance: float | None = None) -> list[Shortfall]:
    """Return the tensors that are not held, by format, the greatest loss first."""
    failed = [
        (name, measured)
        for name, row in rows.items()
        for measured in row.values()
        if not holds(measured, tolerance)
    ]
    failed.sort(key=lambda pair: _badness(pair[1]), reverse=True)
    return [
        Shortfall(name, str(m.fmt), _told(m, rows[name].values(), tolerance)) for name, m in failed
    ]


def _told(measured: Measurement, row: Iterable[Measurement], tolerance: float | None = None) -> str:
    """Return what a format does to a tensor, and what to do."""
    others = [one for one in row if one is not measured]
    cure = remedy(measured, tolerance_for(measured.fmt, tolerance), others)
    words = describe(_advised(measured, tolerance))
    if not is_far_from_zero(measured):  # no scale was sought yet
        words = words.removesuffix(f"; {NO_SCALE}")
    return f"{words}; {cure}" if cure else words


def worst_first(rows: Rows) -> list[str]:
    """Return the names of all tensors, the most harmed first."""
    badness = {
        name: sorted(map(_badness, row.values()), reverse=True) for name, row in rows.items()
    }
    return sorted(rows, key=badness.__getitem__, reverse=True)


def _badness(measured: Measurement) -> tuple[float, float]:
    """Return what share is lost, and the largest relative error of the rest."""
    return measured.lost / max(1, measured.count), measured.max_relative_error


def _advised(measured: Measurement, tolerance: float | None = None) -> FormatAdvice:
    return FormatAdvice(measured.fmt, tolerance_for(measured.fmt, tolerance), measured)
