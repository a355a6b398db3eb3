"""The verdict in words: the outcome first, then its causes, each with a level."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lowprec.train.recorder.coverage import coverage, sees_all
from lowprec.train.recorder.finding import name_of, percent
from lowprec.train.recorder.kinds import KIND_WORDS
from lowprec.train.recorder.precision_causes import lost_share
from lowprec.train.recorder.rules import findings

if TYPE_CHECKING:
    from lowprec.train.recorder.finding import Finding
    from lowprec.train.recorder.record import Record
    from lowprec.train.running.outcome import Outcome

_MOST_NAMED = 3
_FEW = 0.01  # of the updates
_HOW = (
    "train.diagnose(model, data, …) with the arguments of this fit trains with one part, one layer "
    "and one cure at a time, and names those that decide"
)


class Told(NamedTuple):
    """A sentence of the verdict."""

    level: str
    text: str
    finding: Finding | None = None  # what it tells


def verdict(recorder: Record) -> list[str]:
    """Return what happened and what to do, in sentences: the outcome, then the findings."""
    return [sentence for _, sentence in graded(recorder)]


def graded(recorder: Record) -> list[tuple[str, str]]:
    """Return the sentences of the verdict, each after its level.

    Levels are ``red``, ``amber`` and ``note``, or ``healthy`` where all is well. What was seen of a
    model that was watched from outside comes last.
    """
    return [(one.level, one.text) for one in told(recorder)]


def told(recorder: Record) -> list[Told]:
    """Return the sentences of the verdict with the findings that they tell."""
    return [*_told(recorder), *(Told("note", sentence) for sentence in coverage(recorder))]


def _told(recorder: Record) -> list[Told]:
    if not recorder.tracks and not recorder.step_losses:
        words = "Nothing was recorded: give the recorder to fit(recorder=…), or observe tensors."
        return [Told("note", words)]
    outcome, found = recorder.outcome, findings(recorder)
    if outcome.is_red:
        return _of_failure(recorder, outcome, found)
    rest = [Told(finding.level, str(finding), finding) for finding in found]
    if outcome.kind == "healthy" and sees_all(recorder):
        return [_of_health(recorder, outcome), *rest]
    if any(finding.level != "note" or finding.column == "lost" for finding in found):
        return rest  # changes are lost, without a reference: nobody knows whether to worry
    return [Told("note", _without_reference(recorder)), *rest]


def _of_failure(recorder: Record, outcome: Outcome, found: list[Finding]) -> list[Told]:
    """Return the red outcome with its first cause, the other findings, and where to look."""
    causes = [finding for finding in found if finding.level != "note"]
    first = causes[0] if causes else None
    words = outcome.text.removesuffix(".")
    if first is not None:
        words += f". {first}"
    elif outcome.kind == "float32 too":
        words += "."
    else:
        words += f"; no rule explains it{_most_changed(recorder)}."
    rest = [finding for finding in found if finding is not first]
    others = [Told(finding.level, str(finding), finding) for finding in rest]
    how = [] if "model" not in recorder.facts else [Told("note", f"To find the cause: {_HOW}.")]
    return [Told("red", words, first), *others, *how]


def _of_health(recorder: Record, outcome: Outcome) -> Told:
    """Return the first sentence of a run that does what its reference does."""
    missing = unseen(recorder)
    seen = f"{_steps(recorder)} in {recorder.policy}"
    if outcome.level == "note":
        return Told("note", f"As well as the format can: {outcome.text}.")
    if missing:
        words = (
            f"The outcome is that of float32 ({outcome.text}), but not every kind of tensor was "
            f"seen in {seen}: {', '.join(missing)} were not."
        )
        return Told("note", words)
    words = f"Nothing to worry about: {outcome.text}, and {seen} show no loss that matters"
    users = recorder.facts.get("users_code")
    if users:
        words += f"; code of yours ({', '.join(users)}) was not looked at"
    return Told("healthy", f"{words}.")


def _without_reference(recorder: Record) -> str:
    seen = {track.kind for track in recorder.tracks.values()}
    kinds = ", ".join(words for kind, words in KIND_WORDS.items() if kind in seen) or "losses alone"
    missing = unseen(recorder)
    not_seen = f" Not seen: {', '.join(missing)}." if missing else ""
    is_wide = all(fmt.name == "float32" for fmt in recorder.policy.formats.values())
    is_wide &= not recorder.policy.has_blocks
    how = "" if is_wide else "; pass reference= to hold the outcome against float32"
    lost = lost_share(recorder)
    what = f"{percent(lost)} of updates are lost in weights" if lost > _FEW else "Nothing was lost"
    return (
        f"{what} in what was recorded ({kinds}; {_steps(recorder)} in "
        f"{recorder.policy}){how}.{not_seen}"
    )


def _steps(recorder: Record) -> str:
    plural = "" if recorder.recorded == 1 else "s"
    return f"{recorder.recorded} recorded step{plural} of {recorder.steps}"


def unseen(recorder: Record) -> list[str]:
    """Return the kinds of tensors that the training has and that were not seen, in words."""
    return [words for kind, words in KIND_WORDS.items() if recorder.lacks(kind)]


def _most_changed(recorder: Record) -> str:
    """Name the tensors whose rounding errors are largest beside themselves."""
    noise = []
    for track in recorder.of_kind("weight", "activation", "weight_gradient", "moment"):
        whole = track.whole
        if whole["noise"] and whole["squares"]:
            noise.append((whole["noise"] / whole["squares"], track))
    worst = sorted(noise, key=lambda pair: pair[0], reverse=True)[:_MOST_NAMED]
    if not worst:
        return ""
    names = ", ".join(name_of(recorder, track.kind, track.name) for _, track in worst)
    return f"; the tensors that rounding changed most are {names}"
