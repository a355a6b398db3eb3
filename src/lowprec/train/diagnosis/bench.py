"""The bench: trainings that differ from the one diagnosed by one change each, and their ends."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.train.recorder.recorder import Recorder
from lowprec.train.running.loop import fit
from lowprec.train.running.outcome import Account, Outcome, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

WON = 0.9
"""The share of what was lost that a part or cure must win back."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training of the bench came to.

    Attributes
    ----------
    account : Account or None
        The numbers by which it is judged; None where it could not be run.
    step_losses, skipped_steps, curves
        As in `History`.
    seconds : float
        How long it took.
    recorder : Recorder or None
        What it recorded.
    error : Exception or None
        Why it could not be run.
    """

    account: Account | None
    step_losses: list[float] = dataclasses.field(default_factory=list)
    skipped_steps: list[int] = dataclasses.field(default_factory=list)
    curves: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    recorder: Recorder | None = None
    error: Exception | None = None

    def first(self, epochs: int) -> Account | None:
        """Return the account of the first epochs alone."""
        total = len(self.curves.get("loss", ()))
        if self.account is None or epochs >= total:
            return self.account
        steps = len(self.step_losses) * epochs // total
        return self.account.up_to(self.step_losses, self.skipped_steps, epochs, steps, self.curves)


class FitArguments(NamedTuple):
    """What an executor is given: the arguments of `fit`."""

    model: Any
    data: Any
    how: dict[str, Any]
    every: int  # record one step in so many; 0 records nothing


def train(asked: FitArguments) -> Run:
    """Train as asked; a training that cannot be run says why."""
    began = time.perf_counter()
    recorder = Recorder(asked.every) if asked.every else None
    how = dict(asked.how)
    if how.get("callbacks"):
        how["callbacks"] = copy.deepcopy(list(how["callbacks"]))  # each run has its own
    try:
        history = fit(asked.model, asked.data, **how, recorder=recorder, verbose=False)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
        return Run(None, error=error)
    return Run(
        Account.of(history),
        list(history.step_losses),
        list(history.skipped_steps),
        {name: list(values) for name, values in history.history.items()},
        time.perf_counter() - began,
        recorder,
    )


class Bench:
    """Runs experiments, keeps what they came to, and knows how much time is left.

    model, data, how: The arguments of `fit` of the training that is diagnosed.
    budget: Seconds for everything; None for no limit.
    executor: What trainings are submitted to.
    progress: Called as ``progress(description, done)`` after each training.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        how: Mapping[str, Any],
        *,
        budget: float | None,
        executor: Executor | None = None,
        progress: Callable[[str, int], None] | None = None,
    ) -> None:
        self.model, self.data, self.how = model, data, dict(how)
        self.budget, self.executor, self.progress = budget, executor, progress
        self.began = time.perf_counter()
        self.epochs: int = self.how["epochs"]
        self.done = 0
        self.longest = 0.0
        self.left_out: list[str] = []
        self._kept: dict[Any, Run] = {}
        self._named: list[Any] = []  # what keys name by identity: it lives as long as they do

    @property
    def seconds_left(self) -> float:
        """How much of the budget is left."""
        if self.budget is None:
            return float("inf")
        return self.budget - (time.perf_counter() - self.began)

    @property
    def whole(self) -> int:
        """How many epochs the diagnosed training has."""
        epochs: int = self.how["epochs"]
        return epochs

    def run(self, name: str, *, must: bool = False, every: int = 0, **changes: Any) -> Run | None:
        """Return what one training came to; None where no time is left for it."""
        return self.run_all([(name, changes)], must=must, every=every)[0]

    def run_all(
        self,
        wanted: Sequence[tuple[str, dict[str, Any]]],
        *,
        must: bool = False,
        every: int = 0,
    ) -> list[Run | None]:
        """Return what trainings came to, in the order given; None for those without time.

        wanted: A name for each, and the arguments of `fit` that it changes.
        must: Whether to run them whatever the time.
        every: Record one step in so many.
        """
        jobs: list[Any] = []
        for name, changes in wanted:
            key = self._key(changes, every)
            self._named.append(changes)
            if key in self._kept:
                jobs.append(self._kept[key])
            elif not must and self.seconds_left < self.longest * self._times(changes):
                self.left_out.append(name)
                jobs.append(None)
            elif self.executor is not None:
                jobs.append(
                    (name, key, self.executor.submit(train, self._arguments(changes, every)))
                )
            else:
                jobs.append(self._keep(name, key, train(self._arguments(changes, every))))
        return [
            self._keep(job[0], job[1], job[2].result()) if isinstance(job, tuple) else job
            for job in jobs
        ]

    def _times(self, changes: dict[str, Any]) -> float:
        """Return how many times as long as the others a training is."""
        times: float = changes.get("epochs", self.epochs) / max(self.epochs, 1)
        return times

    def _arguments(self, changes: dict[str, Any], every: int) -> FitArguments:
        how = self.how | {"epochs": self.epochs} | changes
        model, data = how.pop("model", self.model), how.pop("data", self.data)
        return FitArguments(model, data, how, every)

    def _key(self, changes: dict[str, Any], every: int) -> Any:
        told = tuple(
            sorted((name, str(value) if name == "policy" else id(value)) for name, value in
                   changes.items())
        )  # fmt: skip
        return self.epochs, told, bool(every)

    def _keep(self, name: str, key: Any, run: Run) -> Run:
        self._kept[key] = run
        self.done += 1
        if len(run.curves.get("loss", ())) <= self.epochs:  # of a longer one more is known
            self.longest = max(self.longest, run.seconds)
        if self.progress is not None:
            self.progress(name, self.done)
        return run


# What counts as a rescue -------------------------------------------------------------------------


def gap_of(account: Account | None, reference: Account, measure: str) -> float:
    """Return how much is lost beside the reference, in the measure in which the loss was seen.

    account: Of the run.
    reference: Of float32 on the same data.
    measure: ``ratio`` for the logarithm of the loss, else the share of the progress.
    Returns: 0 for no loss; in progress 1 is all there is, and more counts as 1.
    """
    if account is None:
        return 1.0
    outcome = judge(account, reference)
    if outcome.reason in ("not finite", "skipped"):
        return 1.0 if measure != "ratio" else float("inf")
    if measure == "ratio":
        if not account.end or not reference.end or reference.end <= 0 or account.end <= 0:
            return 0.0 if account.end == reference.end else float("inf")
        return max(0.0, math.log(account.end / reference.end))
    if outcome.progress is None:
        return 1.0 if outcome.is_red else 0.0
    return min(max(outcome.gap, 0.0), 1.0)


def rescues(
    account: Account | None, reference: Account, outcome: Outcome, lost: float, noise: float = 0.0
) -> bool:
    """Return whether a run wins back what was lost.

    Parameters
    ----------
    account : Account or None
        Of the run with a change.
    reference : Account
        Of float32 on the same data.
    outcome : Outcome
        Of the run that is diagnosed.
    lost : float
        Its `gap_of`.
    noise : float
        The spread of float32 itself, in the same measure.
    """
    if account is None or not account.ends_finite or account.is_mostly_skipped:
        return False
    if outcome.kind == "float32 too":  # then a change must teach what float32 does not
        return not account.failure and account.holds_in_validation
    measure = outcome.reason
    if measure in ("not finite", "skipped") and reference.failure:  # then to be as good is enough
        if reference.ends_well and not account.ends_well:
            return False
        return account.end is None or reference.end is None or account.end <= 1.1 * reference.end
    if measure != "ratio" and judge(account, reference).reason == "learns nothing":
        return False
    return gap_of(account, reference, measure) <= max((1 - WON) * lost, noise)
