"""Cures, trained one by one: the surest before the place is looked for, then the others."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import TYPE_CHECKING

from lowprec.train.diagnosis import cures as candidates
from lowprec.train.diagnosis.bench import Run, gap_of
from lowprec.train.diagnosis.diagnosis import Cure
from lowprec.train.diagnosis.parts import (
    widened,
)
from lowprec.train.running.outcome import (
    Account,
    judge,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lowprec.train.diagnosis.search import Search


def try_one_cure(search: Search) -> None:
    """Train with cures until one rescues: before the place is looked for, should time run out.

    Where parts of the policy are the cause, the surest cure comes first.
    """
    wanted = _candidates(search)
    if search.cause and search.cause not in (["not precision"], ["user code"]):
        wanted.reverse()  # the whole part is the dearest
    with _at_full_length(search):
        for one in wanted:
            (run,) = search.bench.run_all([(one.code, one.changes)])
            if run is None or ((cure := _judged(search, one, run)) is not None and cure.rescues):
                break


def try_cures(search: Search) -> list[Cure]:
    """Return what all cures that there was time for came to, those that rescue first."""
    wanted = _candidates(search)
    with _at_full_length(search):
        runs = search.bench.run_all([(one.code, one.changes) for one in wanted])
        judged = [
            (_judged(search, one, run), _learnt(run.account))
            for one, run in zip(wanted, runs, strict=True)
            if run is not None
        ]
    told = [(cure, learnt) for cure, learnt in judged if cure is not None]
    found = [cure for cure, _ in told]
    if search.cause == ["not precision"]:
        found = _without_poor(told)
        poor = {cure.code for cure in found if not cure.rescues}
        search.experiments[:] = [
            one._replace(rescues=False) if one.name in poor else one for one in search.experiments
        ]
    places = {one.code: one.place for one in wanted}
    search.place_of_cure = next((places[cure.code] for cure in found if cure.rescues), None)
    return sorted(found, key=lambda cure: not cure.rescues)  # else the cheapest first


@contextlib.contextmanager
def _at_full_length(search: Search) -> Iterator[None]:
    """Train whole, though other experiments may be a beginning of the training."""
    kept = search.bench.epochs, search.reference, search.lost
    if search.bench.epochs != search.bench.whole:
        search.bench.epochs = search.bench.whole
        if search.wide is not None and search.wide.account is not None:
            search.reference = search.wide.account
            search.lost = gap_of(search.mine, search.reference, search.outcome.reason)
    yield
    search.bench.epochs, search.reference, search.lost = kept


def _judged(search: Search, one: candidates.Candidate, run: Run) -> Cure | None:
    """Return a cure with what its training came to; None where that cannot be told."""
    its: Account | None = search.reference
    is_other_data = one.changes_data and search.outcome.kind != "float32 too"
    if is_other_data:
        name = f"{one.code} in float32"
        wide = search.bench.run(name, policy=search.float32, **one.changes)
        search.note(name, wide)
        its = None if wide is None else wide.account
    if its is None or run.account is None:
        search.note(one.code, run, False)
        return None
    is_rescue = bool(search.rescued(run, its))
    if is_other_data:  # nor may it cost elsewhere
        mine = dataclasses.replace(run.account, start=search.reference.start)
        is_rescue &= not judge(mine, search.reference, search.tolerance).is_red
    search.note(one.code, run, is_rescue)
    beside = None if search.outcome.kind == "float32 too" else its
    return Cure(one.code, judge(run.account, beside, search.tolerance), is_rescue)


def _candidates(search: Search) -> list[candidates.Candidate]:
    """Return what to try, each once."""
    bench = search.bench
    optimizer = bench.how["optimizer"]
    found: list[candidates.Candidate]
    if search.without is not None:
        found = [search.without]
    elif search.fault is not None:
        found = list(
            candidates.of_user_code(search.fault.place, bench.model, bench.data, bench.how["loss"])
        )
    elif search.cause == ["not precision"]:
        found = list(candidates.of_training(optimizer, bench.model, bench.data))
        if search.reference.still_falls:
            longer = 4 * bench.whole
            found.append(
                candidates.Candidate(
                    f"epochs={longer}", {"epochs": longer}, place="the number of epochs"
                )
            )
    else:
        blamed = [*search.cause, *(p for p in search.also if p not in search.cause)]
        found = list(
            candidates.of_precision(
                search.cause or blamed,
                search.places,
                search.policy,
                optimizer,
                bench.model,
                bench.data,
                search.narrow.recorder,
            )
        )
        found += [
            candidates.Candidate(
                candidates.policy_code(
                    policy := widened(search.policy, [part]), bench.model.layers
                ),
                {"policy": policy},
            )
            for part in search.also
        ]
    as_it_is = candidates.policy_code(search.policy, bench.model.layers)
    return list({one.code: one for one in found if one.code != as_it_is}.values())


def _without_poor(found: list[tuple[Cure, float]]) -> list[Cure]:
    """Return cures of which those that learn less than half of what the best learns are none."""
    best = max((learnt for cure, learnt in found if cure.rescues), default=0.0)
    return [cure._replace(rescues=cure.rescues and 2 * learnt >= best) for cure, learnt in found]


def _learnt(account: Account | None) -> float:
    """Return how far a loss falls below what it is without learning, as a share of that."""
    best = None if account is None else account.best_without_learning
    if account is None or not best or account.end is None or not math.isfinite(account.end):
        return 0.0
    return (best - account.end) / abs(best)
