"""Two recorders made one: the halves of a resumed run, or runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from lowprec.train.recorder.following import MOST_EVENTS
from lowprec.train.recorder.record import Record

if TYPE_CHECKING:
    from lowprec.train.recorder.tracks import Track

R = TypeVar("R", bound=Record)


def merge(one: R, other: R) -> R:
    """Return a recorder of both; see `Recorder.merge`."""
    if one.policy != other.policy:
        raise ValueError(
            f"one recorder is of {one.policy}, the other of {other.policy}: their tensors "
            "were rounded to different formats; read them one by one"
        )
    earlier, later = sorted((other, one), key=lambda recorder: recorder.steps)
    reference = later.reference or earlier.reference
    merged = type(one)(one.every, policy=one.policy, reference=reference)
    merged.facts = _merged_facts(one.facts, other.facts)
    merged.labels = one.labels | other.labels
    merged.events = sorted({*one.events, *other.events})[:MOST_EVENTS]
    merged.scales = sorted({*one.scales, *other.scales})
    merged.steps, merged.curves = later.steps, later.curves
    merged.step_losses, merged.skipped_steps = later.step_losses, later.skipped_steps
    merged.reference_account = later.reference_account or earlier.reference_account
    merged.recorded = one.recorded + other.recorded
    merged.skips = one.skips + other.skips
    merged.tracks = _merged_tracks(one.tracks, other.tracks)
    return merged


def _merged_facts(mine: dict[str, Any], its: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of both: counts and sums of rates add up."""
    starved = [a + b for a, b in zip(mine["starved"], its["starved"], strict=True)]
    (highest, total), (its_highest, its_total) = mine["rates"], its["rates"]
    rates = [max(highest, its_highest), total + its_total]
    return mine | its | {"starved": starved, "rates": rates}


def _merged_tracks(
    mine: dict[tuple[str, str], Track], its: dict[tuple[str, str], Track]
) -> dict[tuple[str, str], Track]:
    both = {key: track.merge(its[key]) for key, track in mine.items() if key in its}
    return mine | its | both
