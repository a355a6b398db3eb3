"""A diagnosis in sentences: outcome, cause, place, cures, and what was not made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.train.diagnosis.evidence import evidence
from lowprec.train.running.outcome import (
    figure,
)

if TYPE_CHECKING:
    from lowprec.train.diagnosis.diagnosis import Cure, Experiment
    from lowprec.train.diagnosis.search import Search


def sentences_of(search: Search, found: list[Cure]) -> list[tuple[str, str]]:
    """Return the sentences, each after what it is about."""
    outcome = search.outcome
    told = [("outcome", outcome.text if outcome.is_red else _quiet_words(search))]
    if outcome.is_red:
        told += [*_cause_sentences(search, found), *_cure_sentences(search, found)]
    return told + [("not made", words) for words in _left_out_words(search)]


def _quiet_words(search: Search) -> str:
    outcome = search.outcome
    if outcome.level == "amber":
        return outcome.text
    if search.fault is not None:
        return f"The outcome is that of float32 ({outcome.text}), but {search.fault.text}."
    if outcome.level == "note":
        return f"As well as the format can: {outcome.text}."
    return f"Nothing to worry about: {outcome.text}."


def _cause_sentences(search: Search, found: list[Cure]) -> list[tuple[str, str]]:
    words = search.cause_in_words()
    if search.fault is not None:
        return [("cause", f"User code is the cause: {search.fault.text}.")]
    if words is None:
        words = "The cause was not found in the time given; pass budget=None for all of it."
        return [("cause", words)]
    if words == "not precision":
        words = f"No part of the policy is the cause{_other_cause(search, found)}."
        return [("cause", words)]
    which = f"{words} {'alone' if len(search.cause) == 1 else 'together'} in float32"
    if words in ("loss scale", "tensor scales"):
        words, which = f"the {words}", f"a training without the {words}"
    shown = next(
        (e for e in search.experiments if e.name == f"{'+'.join(search.cause)} wide" and e.rescues),
        None,
    )
    end = "" if shown is None else f" (the loss ends at {figure(shown.end)})"
    length = _shown_on(search, shown)
    first_words = f"The cause is {words}: {which} wins back what was lost{end}{length}."
    told = [("cause", first_words)]
    recorder = search.narrow.recorder
    if recorder is not None:
        seen = evidence(recorder, search.cause, search.places)
        told += [("cause", f"{seen}.")] if seen else []
    if (place := search.place_in_words()) is not None:
        first = search.first_not_finite()
        told.append(("place", f"It happens in {first or place}."))
    return told


def _shown_on(search: Search, experiment: Experiment | None) -> str:
    if experiment is None or not search.mine.steps or experiment.steps >= search.mine.steps:
        return ""
    return f", shown on the first {experiment.steps} of {search.mine.steps} steps"


def _other_cause(search: Search, found: list[Cure]) -> str:
    """Say what keeps float32 from learning, by the cure that helps."""
    recorder = search.narrow.recorder
    if recorder is not None:
        causes = [f for f in recorder.findings if f.rule in ("no learning", "not finite")]
        if causes:
            return f". {causes[0].text}"
    best = next((cure for cure in found if cure.rescues), None)
    if best is None:
        return "; labels that cannot be learnt from these inputs would look like this"
    return f": {best.code} learns, to a loss of {figure(best.outcome.end)}"


def _cure_sentences(search: Search, found: list[Cure]) -> list[tuple[str, str]]:
    good = [cure for cure in found if cure.rescues]
    bad = [cure for cure in found if not cure.rescues]
    told = []
    if good:
        words = ", or ".join(f"{c.code} (the loss ends at {figure(c.outcome.end)})" for c in good)
        told.append(("cure", f"Use {words}."))
    elif bad:
        words = "None of the cures that were tried rescues this training."
        told.append(("no cure", words))
    if bad:
        words = ", ".join(f"{c.code} ({figure(c.outcome.end)})" for c in bad)
        told.append(("no cure", f"Tried, and no cure: {words}."))
    return told


def _left_out_words(search: Search) -> list[str]:
    missing = list(dict.fromkeys(search.bench.left_out))
    if not missing:
        return []
    names = "; ".join(missing[:6]) + ("; …" if len(missing) > 6 else "")
    return [f"Not made in the time given: {names}. Pass budget=None to make all."]
