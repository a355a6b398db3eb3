"""The search: what became of a training, which part is to blame and where, each by experiment."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import is_lowprecs
from lowprec.formats import float32
from lowprec.train.callbacks import LambdaCallback
from lowprec.train.diagnosis import cures as candidates
from lowprec.train.diagnosis import places as where
from lowprec.train.diagnosis.bench import Bench, Run, gap_of, rescues
from lowprec.train.diagnosis.diagnosis import Experiment
from lowprec.train.diagnosis.parts import (
    PARTS,
    explicit,
    narrow_parts,
    only,
    widened,
    wider,
)
from lowprec.train.diagnosis.user_code import Fault, find_fault
from lowprec.train.recorder.kinds import account_of_reference, layer_of
from lowprec.train.recorder.learning_causes import place_of
from lowprec.train.running.outcome import (
    Account,
    figure,
    judge,
    within_noise,
)
from lowprec.train.running.training import initial_params

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.train.policy import Policy
    from lowprec.train.running.history import History

_ROWS = 100  # recorded steps of the failing run, about


class Search:
    """One diagnosis in progress."""

    def __init__(
        self, bench: Bench, reference: History | Sequence[float] | None, tolerance: float
    ) -> None:
        self.bench, self.tolerance = bench, tolerance
        self.given = account_of_reference(reference)
        self.policy: Policy = explicit(bench.how["policy"], bench.model.layers)
        self.float32 = widened(self.policy, PARTS)
        self.experiments: list[Experiment] = []
        self.noise = 0.0
        self.cause: list[str] = []
        self.places: list[str] = []
        self.also: list[str] = []  # other parts that rescue alone
        self.fault: Fault | None = None
        self.without: candidates.Candidate | None = None  # the callback at fault
        self.place_of_cure: str | None = None  # what the cheapest cure changes

    # Experiments ---------------------------------------------------------------------------------

    def note(self, name: str, run: Run | None, is_rescue: bool | None = None) -> None:
        """Keep what an experiment came to, once."""
        if run is None or any(one.name == name for one in self.experiments):
            return
        account = run.account
        steps = 0 if account is None else account.steps
        end = None if account is None else account.end
        self.experiments.append(Experiment(name, end, is_rescue, steps))

    def rescued(self, run: Run | None, reference: Account | None = None) -> bool | None:
        """Return whether a training wins back what was lost; None if it was not made."""
        if run is None:
            return None
        its = self.reference if reference is None else reference
        return rescues(run.account, its, self.outcome, self.lost, self.noise)

    def try_policies(self, wanted: Sequence[tuple[str, Policy]]) -> list[bool | None]:
        """Return whether each of these policies rescues; float32 itself does."""
        known = self.wide
        new = [pair for pair in wanted if known is None or pair[1] != self.float32]
        runs = iter(self.bench.run_all([(name, {"policy": policy}) for name, policy in new]))
        answers: list[bool | None] = []
        for name, policy in wanted:
            is_known = known is not None and policy == self.float32
            run = known if is_known else next(runs)
            answers.append(True if is_known else self.rescued(run))
            self.note(name, run, answers[-1])
        return answers

    # The outcome ---------------------------------------------------------------------------------

    def find_outcome(self) -> None:
        """Train as it is and in float32, and judge."""
        bench = self.bench
        steps = bench.whole * max(1, len(getattr(bench.data, "x_train", ())) // 32)
        every = max(1, steps // _ROWS)
        narrow = bench.run("as it is", must=True, every=every)
        assert narrow is not None
        if narrow.error is not None or narrow.account is None:
            raise narrow.error or ValueError("the training came to nothing")
        self.narrow, self.mine = narrow, narrow.account
        self.note("as it is", narrow)
        wide = None
        if self.given is None:
            wide = bench.run("float32", must=True, policy=self.float32)
            self.note("float32", wide)
            assert wide is not None
            if wide.error is not None or wide.account is None:
                raise wide.error or ValueError("the training came to nothing")
            self.reference = wide.account
        else:
            self.reference = self.given
            if self.given.start is None and len(self.given.epochs) != len(self.mine.epochs):
                raise ValueError(
                    f"reference holds {len(self.given.epochs)} losses, and this training has "
                    f"{len(self.mine.epochs)} epochs; pass one an epoch, or what fit returned"
                )
        self.wide = wide
        common = min(len(self.mine.epochs), len(self.reference.epochs))
        if wide is not None and (mine := narrow.first(common)) and (its := wide.first(common)):
            self.mine, self.reference = mine, its  # one of them may have stopped early
        self.outcome = judge(self.mine, self.reference, self.tolerance)
        self.look_at_noise()
        self.tell_recorder()
        self.lost = gap_of(self.mine, self.reference, self.outcome.reason)
        if self.outcome.is_red:
            self.shorten()

    def tell_recorder(self) -> None:
        """Give the recorder the reference, by which its rules know what did harm."""
        recorder = self.narrow.recorder
        assert recorder is not None
        recorder.reference, recorder.reference_account = list(self.reference.epochs), self.reference
        if recorder.outcome.kind != self.outcome.kind:  # another tolerance, or noise, decided
            recorder.reference = recorder.reference_account = None

    def look_at_noise(self) -> None:
        """Train float32 twice more from moved starts, to tell a small gap from noise."""
        outcome = self.outcome
        is_small = outcome.reason == "progress" and outcome.gap < 3 * self.tolerance
        if not is_small and outcome.reason != "ratio":
            return
        try:
            start = initial_params(self.bench.model, self.bench.data, self.bench.how)
        except (AttributeError, TypeError):  # data that cannot be looked at twice
            return
        fmt: Any = getattr(self.policy.compute, "element", self.policy.compute)  # of a block format
        half = max(fmt.unit_roundoff / 2, float32.unit_roundoff)  # or nothing would move
        moved = []
        for seed in (1, 2):
            rng = np.random.default_rng(seed)
            moved.append(
                {
                    name: (w * (1 + half * rng.choice([-1.0, 1.0], w.shape))).astype(w.dtype)
                    for name, w in start.items()
                }
            )
        wanted = [
            (f"float32 from a moved start ({i})", {"policy": self.float32, "params": params})
            for i, params in enumerate(moved, 1)
        ]
        runs = self.bench.run_all(wanted)
        ends = [self.reference.end]
        for (name, _), run in zip(wanted, runs, strict=True):
            self.note(name, run)
            if run is not None and run.account is not None:
                ends.append(run.account.end)
        known = [end for end in ends if end is not None and math.isfinite(end)]
        if len(known) < 2 or outcome.end is None or self.reference.end is None:
            return
        spread = max(known) - min(known)
        if abs(outcome.end - self.reference.end) <= spread:
            self.outcome = within_noise(outcome, known)
            return
        highest = dataclasses.replace(self.reference, end=max(known))
        self.noise = gap_of(highest, self.reference, outcome.reason)

    def shorten(self) -> None:
        """Let experiments be a beginning of the training where the whole would take too long."""
        bench = self.bench
        trainings = len(narrow_parts(self.policy)) + 4
        each = max(self.narrow.seconds, 1e-3)
        if bench.seconds_left > trainings * each or self.wide is None:
            return
        share = max(bench.seconds_left, 0.0) / (trainings * each)
        most = max(1, int(bench.whole * share))
        for epochs in range(1, most + 1):
            mine, its = self.narrow.first(epochs), self.wide.first(epochs)
            if mine is None or its is None or epochs >= bench.whole:
                return
            outcome = judge(mine, its, self.tolerance)
            if outcome.is_red and outcome.kind == self.outcome.kind:
                bench.epochs, bench.longest = epochs, each * epochs / bench.whole
                self.reference = its
                self.lost = gap_of(mine, its, outcome.reason)
                return

    # The cause -----------------------------------------------------------------------------------

    def find_cause(self) -> None:
        """Find the part that rescues alone, else parts together, else the user's code."""
        parts = narrow_parts(self.policy)
        if self.outcome.kind == "float32 too" or not parts:
            self.look_at_user_code()
            self.cause = ["user code" if self.fault is not None else "not precision"]
            return
        wanted = [(f"{part} wide", widened(self.policy, [part])) for part in parts]
        answers = self.try_policies(wanted)
        rescuing = [part for part, answer in zip(parts, answers, strict=True) if answer]
        self.also = rescuing[1:]
        if rescuing:
            self.cause = rescuing[:1]
            return
        if None not in answers:  # else nobody knows that none suffices alone
            self.cause = self.several_parts(parts)
        if self.cause:
            return
        self.look_at_user_code()
        if self.fault is not None:
            self.cause = ["user code"]
        elif None in answers:
            self.cause = []
        else:
            self.cause = ["not precision"]

    def several_parts(self, parts: list[str]) -> list[str]:
        """Return the parts that fail each alone, if these widened rescue; else the first pair."""
        alone = [(f"{part} alone as it is", only(self.policy, part)) for part in parts]
        answers = self.try_policies(alone)
        failing = [part for part, is_fine in zip(parts, answers, strict=True) if is_fine is False]
        if 1 < len(failing) <= len(parts):
            name = f"{'+'.join(failing)} wide"
            if self.try_policies([(name, widened(self.policy, failing))])[0]:
                return failing
        for pair in itertools.combinations(parts, 2):
            name = f"{'+'.join(pair)} wide"
            if self.try_policies([(name, widened(self.policy, pair))])[0]:
                return list(pair)
        return []

    def look_at_user_code(self) -> None:
        """Find a loss, layer, optimizer or callback of the user's that is at fault."""
        bench = self.bench
        self.fault = find_fault(bench.model, bench.data, bench.how)
        callbacks = [*(bench.how.get("callbacks") or ())]
        for one in callbacks if self.fault is None else ():
            if is_lowprecs(type(one)) and not isinstance(one, LambdaCallback):
                continue
            name, others = type(one).__name__, [other for other in callbacks if other is not one]
            policy = self.float32 if self.outcome.kind == "float32 too" else self.policy
            run = bench.run(f"without {name}", policy=policy, callbacks=others)
            is_rescue = self.rescued(run)
            self.note(f"without {name}", run, is_rescue)
            if run is not None and run.account is not None and is_rescue:
                end = figure(run.account.end)
                self.fault = Fault(name, f"without {name}, a callback, the loss ends at {end}")
                self.without = candidates.without_callback(others)
                return

    # The place -----------------------------------------------------------------------------------

    def find_place(self) -> None:
        """Find the least set of layers, or the parameter, that decides."""
        parts = [
            p for p in self.cause if p in ("gradients", "accumulate", "state", "params", "compute")
        ]
        if not parts or len(parts) < len(self.cause):
            return
        layers = self.bench.model.layers
        every = where.candidates(layers, parts)

        def decides(some: Sequence[str]) -> bool | None:
            name = f"{'+'.join(parts)} wide in {where.named(some, layers)}"
            keys = where.keys(some, layers)
            return self.try_policies([(name, wider(self.policy, parts, keys))])[0]

        self.places = where.least(every, decides)
        (*_, last) = self.places
        if len(self.places) == 1 and last.isdecimal() and set(parts) <= {"params", "state"}:
            names = [f"{last}/{short}" for short in layers[int(last)].trained]
            found = [name for name in names if len(names) > 1 and decides([name])]
            self.places = found[:1] or self.places

    def first_not_finite(self) -> str | None:
        """Return the first tensor that was not finite, if it lies in the place found."""
        recorder = self.narrow.recorder
        if recorder is None or self.outcome.reason not in ("not finite", "skipped"):
            return None
        if self.outcome.reason == "not finite" and self.mine.trains_finite:
            return None  # validation alone shows it, and no step
        from lowprec.train.recorder.finding import name_of

        for event in recorder.events:
            layer = layer_of(event.kind, event.name)
            if not self.places or layer in self.places or layer == "input":
                return f"{name_of(recorder, event.kind, event.name)} at step {event.step}"
        return None

    # Words ---------------------------------------------------------------------------------------

    def cause_in_words(self) -> str | None:
        """Return the cause as `Diagnosis` has it."""
        return "+".join(self.cause) or None

    def place_in_words(self) -> str | None:
        """Return the place as `Diagnosis` has it."""
        if self.fault is not None:
            return self.fault.place if self.outcome.is_red else None
        first = self.first_not_finite()
        if first is not None and self.cause != ["not precision"]:
            return first.partition(" at step ")[0]
        if self.cause == ["not precision"] and self.narrow.recorder is not None:
            return place_of(self.narrow.recorder) or self.place_of_cure
        if not self.places:
            return None
        return where.named(self.places, self.bench.model.layers)
