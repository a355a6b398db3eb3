"""Which loss scales keep the gradients of a run within a format."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from lowprec.formats import Format, FormatLike, float32, float64, get_format
from lowprec.show.words import superscript
from lowprec.train.recorder.forecast import forecast
from lowprec.train.recorder.kinds import GRADIENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.train.recorder.record import Record
    from lowprec.train.recorder.tracks import Tally, Track

MARGIN = 2
"""Bits that a recommended scale leaves below the maximum."""

TOLERATED_ZEROS = 0.01
TOLERATED_NOISE = 0.1
"""A tensor keeps its direction while noise over signal is no more: its cosine stays above 0.995."""

_CLEAN = 0.01  # noise over signal of a scale that is worth advising
_SOME = 4  # a tensor is harmed where one in so many of its rows is


@dataclasses.dataclass(frozen=True)
class ScaleAdvice:
    """Which loss scales keep the gradients of a run within a format; ``print`` it for words.

    Attributes
    ----------
    fmt : Format
        The format of the gradients.
    is_needed : bool
        Whether gradients lose what matters without a scale, or did under the scale of the run.
    low, high : float
        The smallest and the largest power of two that every recorded step allows; the smallest is
        at least 1, the largest at most 2¹²⁷: a loss scale is a float32 number. Where `low` exceeds
        `high` there is no such scale.
    recommended : float
        1 where no scale is needed; else the largest power of two that keeps every gradient two bits
        below the maximum, and `low` where so much room cannot be spared.
    caveat : str
        What the interval does not know: steps that were not recorded, or that the run failed.
    follows : bool
        Whether each recorded step has a scale, though one for all may not exist: then a dynamic
        scale follows them.
    """

    fmt: Format
    is_needed: bool
    low: float
    high: float
    recommended: float
    caveat: str = ""
    follows: bool = True

    @property
    def works(self) -> bool:
        """Whether there is a scale that works."""
        return self.low <= self.high

    def __str__(self) -> str:
        low, high, recommended = map(power, (self.low, self.high, self.recommended))
        if not self.works and self.follows:
            return (
                f"no static loss scale keeps the gradients of all steps in {self.fmt}, as some "
                f"need {low} and others allow {high}: use a dynamic one, loss_scale='dynamic', or "
                f"bfloat16 for gradients{self.caveat}"
            )
        if not self.works:
            return (
                f"no loss scale keeps these gradients in {self.fmt}: their range is too wide; use "
                f"bfloat16 for gradients{self.caveat}"
            )
        if self.is_needed:
            words = f"between {low} and {high} (recommended {recommended})"
            return f"use a loss scale {words}{self.caveat}"
        return (
            f"no loss scale is needed in {self.fmt}; every recorded step allows one between {low} "
            f"and {high}{self.caveat}"
        )


def power(value: float) -> str:
    """Return a power of two as text.

    Examples
    --------
    >>> power(1024.0)
    '2¹⁰'
    """
    return f"2{superscript(round(math.log2(value)))}"


def is_harmed(new_zeros: float, noise: float) -> bool:
    """Return whether a tensor lost what matters: numbers became zero, and its direction with them.

    Zeros alone may be harmless: of the gradients of a softmax most are tiny and tell nothing.
    """
    return new_zeros > TOLERATED_ZEROS and noise > TOLERATED_NOISE


def harmed_rows(track: Track) -> list[Tally]:
    """Return the rows in which what became zero did harm, if these are a quarter or more."""
    rows = [row for row in track.rows if row.nonzero]
    return _enough([r for r in rows if is_harmed(r.new_zero_rate, 10 ** (-r.sqnr_db / 20))], rows)


def _enough(bad: list[Tally], rows: Sequence[Tally]) -> list[Tally]:
    return bad if bad and _SOME * len(bad) >= len(rows) else []


def advise_scale(record: Record, fmt: FormatLike) -> ScaleAdvice:
    """Return which loss scales keep every gradient of a run within a format.

    The verdict on gradients that vanish prints what this returns.

    fmt: The format of its gradients.
    Raises ValueError if no gradient was recorded that a scale could be told from.
    """
    chosen = get_format(fmt)
    tracks = record.of_kind(*GRADIENTS)
    rows = [row for track in tracks for row in track.rows if row["max_abs"]]
    if not rows:
        raise ValueError(_without_gradients(tracks))
    fits = [math.floor(math.log2(min(chosen.max / r["max_abs"], float64.max))) for r in rows]
    high = min(*fits, float32.emax)  # loss scales are float32 numbers
    is_needed = any(_needs_scale(record, track, chosen) for track in tracks)
    lows = [_lowest(row, chosen, most) for row, most in zip(rows, fits, strict=True)]
    low = max(lows) if is_needed or high < 0 else 0
    recommended = min(max(min(fits) - MARGIN, low), max(high, low))
    if not is_needed and high >= 0:
        recommended = 0
    return ScaleAdvice(
        chosen,
        is_needed=is_needed,
        low=2.0**low,
        high=2.0**high,
        recommended=2.0**recommended,
        caveat=_caveat(record),
        follows=_each_step_has_one(rows, lows, fits),
    )


def _each_step_has_one(rows: list[Tally], lows: list[int], fits: list[int]) -> bool:
    """Return whether all tensors of a step allow some scale together, step by step."""
    by_step: dict[float, tuple[int, int]] = {}
    for row, low, most in zip(rows, lows, fits, strict=True):
        least, largest = by_step.get(row["first_step"], (low, most))
        by_step[row["first_step"]] = max(least, low), min(largest, most)
    return all(low <= most for low, most in by_step.values())


def _without_gradients(tracks: Sequence[Track]) -> str:
    wrong = any(track.whole["nans"] + track.whole["infs"] for track in tracks)
    what = "is finite and not zero" if wrong else "is not zero"
    return (
        f"no gradient was recorded that {what}, so that no loss scale can be told; record a "
        "training with fit(recorder=…), or observe weight_gradient and activation_gradient"
    )


def _needs_scale(record: Record, track: Track, fmt: Format) -> bool:
    """Return whether a tensor is harmed without a scale: measured where it was, else forecast."""
    if track.fmt == fmt and harmed_rows(track):
        return True
    if track.fmt == fmt and record.policy.loss_scale is None and not record.policy.tensor_scales:
        return False
    rows = [row for row in track.rows if row["max_abs"]]
    return bool(_enough([r for r in rows if not _keeps(r, fmt, 0, TOLERATED_NOISE)], rows))


def _lowest(row: Tally, fmt: Format, most: int) -> int:
    """Return the exponent of the smallest scale that keeps some steps' tensor; most + 1 if none."""
    scales = range(min(most, 0), min(most, float32.emax) + 1)
    return next((k for k in scales if _keeps(row, fmt, k, _CLEAN)), most + 1)


def _keeps(row: Tally, fmt: Format, scale: int, noise: float) -> bool:
    told = forecast(row, fmt, scale)
    return not (told.new_zeros > TOLERATED_ZEROS and told.noise > noise)


def _caveat(record: Record) -> str:
    """Say what an interval of scales does not know."""
    words = ""
    if record.is_broken or 2 * record.skips > record.steps > 0 or record.outcome.is_red:
        words += "; this run failed, and one that trains has other gradients"
    if 0 < record.recorded < record.steps:
        share = record.steps / record.recorded
        words += f"; one step in {share:.0f} was recorded, and the others may need more room"
    return words
