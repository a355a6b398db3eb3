"""Which loss scales keep the gradients of a run within a format."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from lowprec.formats import Format, FormatLike, float32, float64, get_format
from lowprec.show.words import superscript
from lowprec.train.recorder.forecast import forecast

if TYPE_CHECKING:
    from lowprec.train.recorder.record import Record
    from lowprec.train.recorder.tracks import Tally

__all__ = [
    "GRADIENTS",
    "MARGIN",
    "TOLERATED_NOISE",
    "TOLERATED_ZEROS",
    "ScaleAdvice",
    "advise_scale",
    "is_harmed",
    "power",
]

GRADIENTS = ("activation_gradient", "weight_gradient")
MARGIN = 2
"""Bits that a recommended scale leaves below the maximum."""

TOLERATED_ZEROS = 0.01
TOLERATED_NOISE = 0.1
"""A tensor keeps its direction while noise over signal is no more: its cosine stays above 0.995."""

_CLEAN = 0.01  # noise over signal of a scale that is worth advising


@dataclasses.dataclass(frozen=True)
class ScaleAdvice:
    """Which loss scales keep the gradients of a run within a format; ``print`` it for words.

    Attributes
    ----------
    fmt : Format
        The format of the gradients.
    is_needed : bool
        Whether gradients lose what matters without a scale.
    low, high : float
        The smallest and the largest power of two that every recorded step allows; the smallest is
        at least 1, the largest at most 2¹²⁷: a loss scale is a float32 number.
    recommended : float
        The largest power of two that keeps every gradient two bits below the maximum; `low` where
        so much room cannot be spared, and 1 in a format of float32's range that needs none.
    caveat : str
        What the interval does not know: steps that were not recorded, or that the run failed.
    """

    fmt: Format
    is_needed: bool
    low: float
    high: float
    recommended: float
    caveat: str = ""

    @property
    def works(self) -> bool:
        """Whether there is a scale that works."""
        return self.low <= self.high

    def __str__(self) -> str:
        if not self.works:
            return (
                f"no loss scale keeps these gradients in {self.fmt}: their range is too wide; use "
                f"bfloat16 for gradients{self.caveat}"
            )
        low, high, recommended = map(power, (self.low, self.high, self.recommended))
        words = f"between {low} and {high} (recommended {recommended})"
        if self.is_needed:
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


def advise_scale(recorder: Record, fmt: FormatLike) -> ScaleAdvice:
    """Return which loss scales keep every gradient of a run within a format.

    Parameters
    ----------
    recorder : Record
        The run.
    fmt : Format, str or dtype
        The format of its gradients.

    Raises
    ------
    ValueError
        If no gradient was recorded.
    """
    chosen = get_format(fmt)
    tracks = recorder.of_kind(*GRADIENTS)
    largest = max((row["max_abs"] for track in tracks for row in track.rows), default=0.0)
    if not largest:
        what = (
            "that is not zero"
            if not any(t.whole["nans"] + t.whole["infs"] for t in tracks)
            else ("that is finite and not zero")
        )
        raise ValueError(
            f"no gradient was recorded {what}; record a training with fit(recorder=…), or "
            "observe weight_gradient and activation_gradient"
        )
    fits = math.floor(math.log2(min(chosen.max / largest, float64.max)))
    high = min(fits, float32.emax)  # loss scales are float32 numbers
    wholes = [track.whole for track in tracks]
    scales = range(min(high, 0), high + 1)
    low = next((k for k in scales if _keeps(wholes, chosen, k, _CLEAN)), high + 1)
    is_needed = not _keeps(wholes, chosen, 0, TOLERATED_NOISE)
    recommended = min(max(fits - MARGIN, low), max(high, low))
    if not is_needed and high >= 0 and chosen.emax >= float32.emax:
        recommended = 0
    return ScaleAdvice(
        chosen,
        is_needed=is_needed,
        low=2.0 ** max(low, 0) if high >= 0 else 2.0**low,
        high=2.0**high,
        recommended=2.0**recommended,
        caveat=_caveat(recorder),
    )


def _caveat(recorder: Record) -> str:
    """Say what an interval of scales does not know."""
    if recorder.is_broken or 2 * recorder.skips > recorder.steps > 0:
        return "; this run failed, and one that trains has other gradients"
    if 0 < recorder.recorded < recorder.steps:
        share = recorder.steps / recorder.recorded
        return f"; one step in {share:.0f} was recorded, and the others may need more room"
    return ""


def _keeps(tallies: list[Tally], fmt: Format, scale: int, noise: float) -> bool:
    told = [forecast(tally, fmt, scale) for tally in tallies]
    return not any(
        (one.new_zeros > TOLERATED_ZEROS and one.noise > noise) or one.headroom_bits < 0
        for one in told
    )
