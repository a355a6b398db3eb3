"""What a recorder that watched a model from outside has seen of it, and what it has not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.train.recorder.finding import Finding, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lowprec.train.recorder.record import Record

MANY = 0.05
SETTLED = 100
_NAMED = 5


def is_watched(recorder: Record) -> bool:
    """Whether the training ran elsewhere, and hooks handed over what they saw."""
    return "coverage" in recorder.facts


def sees_all(recorder: Record) -> bool:
    """Whether nothing of a training that was watched is unknown."""
    found = recorder.facts.get("coverage", {})
    return not found.get("unseen") and not found.get("notes")


def coverage(recorder: Record) -> list[str]:
    """Return in words what was seen and what was not; of lowprec's own training, in blocks only."""
    if not is_watched(recorder):
        return _blocks(recorder)
    found = recorder.facts["coverage"]
    unseen = found["unseen"]
    text = f"Seen: {found['seen']} of {found['of']} modules"
    if unseen:
        named = ", ".join(unseen[:_NAMED])
        more = f" and {len(unseen) - _NAMED} more" if len(unseen) > _NAMED else ""
        text += f"; {named}{more} not seen, so that what happens there is unknown"
    notes = [f"{note[:1].upper()}{note[1:]}." for note in found["notes"]]
    return [f"{text}.", *notes]


def _blocks(recorder: Record) -> list[str]:
    """Tell that tensors are recorded as layers hand them on, not as products take them."""
    policy = recorder.policy
    if not policy.has_blocks or not recorder.tracks:
        return []
    kinds = " and ".join(sorted({str(policy.compute), str(policy.gradients)}))
    text = (
        f"Tensors are recorded as float32, as layers hand them on: what quantizing the operands of "
        f"products in blocks of {kinds} did to them was not seen; lowprec.measure tells it of one "
        "array."
    )
    return [text]


def skipped(recorder: Record) -> Iterator[Finding]:
    """Tell steps that a loss scaler skipped in a training that was watched."""
    if not is_watched(recorder) or not recorder.skips:
        return
    share = recorder.skips / max(recorder.steps, 1)
    last = max((event.step for event in recorder.events if event.skipped), default=recorder.steps)
    since = recorder.steps - 1 - last
    level = "red" if share > MANY or since < SETTLED else "note"
    first = next((event for event in recorder.events if event.skipped), None)
    text = f"{recorder.skips} of {recorder.steps} steps ({percent(share)}) were skipped"
    if first is not None:
        kind = first.kind.replace("_", " ")
        text += f"; at step {first.step} the {kind} of {first.name} was the first not finite"
    yield Finding(
        level,
        "skipped steps",
        text,
        "a scaler that finds its level skips a few at first; if skips go on, start from a smaller "
        "scale, or look at what overflows without one",
    )
