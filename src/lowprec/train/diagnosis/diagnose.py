"""diagnose: the outcome, the part, the place and the cure of a training, each by experiment."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import is_lowprecs
from lowprec.common.randomness import draw_key
from lowprec.train import optimizers
from lowprec.train.callbacks import LambdaCallback
from lowprec.train.diagnosis import cures as candidates
from lowprec.train.diagnosis import places as where
from lowprec.train.diagnosis.bench import Bench, Run, gap_of, rescues
from lowprec.train.diagnosis.diagnosis import Cure, Diagnosis, Experiment
from lowprec.train.diagnosis.evidence import evidence
from lowprec.train.diagnosis.parts import (
    PARTS,
    explicit,
    narrow_parts,
    only,
    widened,
    wider,
)
from lowprec.train.diagnosis.user_code import Fault, find_fault
from lowprec.train.policy import Policy, get_policy
from lowprec.train.recorder.kinds import account_of_reference, layer_of
from lowprec.train.recorder.learning_causes import place_of
from lowprec.train.running.outcome import (
    TOLERANCE,
    Account,
    figure,
    judge,
    within_noise,
)
from lowprec.train.running.training import initial_params

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor

    from lowprec.common.randomness import RNGLike
    from lowprec.train.losses import Loss
    from lowprec.train.model import Sequential
    from lowprec.train.optimizing.optimizer import Optimizer
    from lowprec.train.running.history import History

_ROWS = 100  # recorded steps of the failing run, about


def diagnose(
    model: Sequential,
    data: Any,
    *,
    loss: str | Loss,
    optimizer: Optimizer | str,
    policy: Policy | str,
    reference: History | Sequence[float] | None = None,
    tolerance: float = TOLERANCE,
    budget: float | None = 60.0,
    executor: Executor | None = None,
    epochs: int = 1,
    rng: RNGLike = 0,
    progress: Callable[[str, int], None] | None = None,
    **fit_arguments: Any,
) -> Diagnosis:
    """Find out what became of a training, what part of its policy is to blame, where, and the cure.

    The training is made under the policy and in float32. Where it ends worse, each part of the
    policy is made wide alone, then layers alone, and each cure is tried: what is said was shown by
    a training. The same seed and the same experiments give the same diagnosis, through any
    executor.

    Parameters
    ----------
    model, data, loss, optimizer, policy, epochs, rng
        As for `fit`.
    reference : History or sequence of float, optional
        The same training in float32, or its loss by epoch; by default it is made here.
    tolerance : float
        The share of float32's progress that may be lacking.
    budget : float or None
        Seconds for all trainings, in this order: the outcome, the parts, one cure, the place, the
        other cures. What was not made is named. None makes all.
    executor : concurrent.futures.Executor, optional
        What trainings are submitted to: threads, processes or a cluster's client.
    progress : callable, optional
        Called as ``progress(description, done)`` after each training.
    **fit_arguments
        All other arguments of `fit` but ``recorder``, ``resume`` and ``verbose``.

    Returns
    -------
    Diagnosis
        It prints as its verdict.

    Raises
    ------
    ValueError
        If the arguments do not fit each other, `budget` is negative, or `tolerance` no share.
    TypeError
        If ``recorder``, ``resume`` or ``verbose`` is passed, or what `fit` does not take.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((4,)), train.Dense(3)])
    >>> how = {"loss": "sparse_categorical_crossentropy", "optimizer": train.SGD(1e-3)}
    >>> data = train.data.iris().scaled("standard")
    >>> found = diagnose(model, data, policy="bfloat16", epochs=60, budget=None, **how)
    >>> found.cause
    'params'
    """
    for word in ("recorder", "resume", "verbose"):
        if word in fit_arguments:
            raise TypeError(
                f"diagnose has no argument {word!r}: it trains anew, and records itself"
            )
    if budget is not None and not budget >= 0:
        raise ValueError(f"budget={budget}: seconds are 0 or more, and None makes everything")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance={tolerance} is no share of the progress; use one as 0.05")
    how = {
        "loss": loss,
        "optimizer": optimizers.get(optimizer),
        "policy": get_policy(policy),
        "epochs": epochs,
        "rng": _seed(rng),
        **fit_arguments,
    }
    bench = Bench(model, data, how, budget=budget, executor=executor, progress=progress)
    return _Search(bench, reference, tolerance).diagnosis()


def _seed(rng: RNGLike) -> RNGLike:
    """Return a seed that gives every training the same randomness."""
    return rng if isinstance(rng, int | np.integer) else draw_key(rng)


class _Search:
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
        self.rescuing: dict[str, Account] = {}  # parts that rescue alone, in their order
        self.fault: Fault | None = None
        self.without: candidates.Candidate | None = None  # the callback at fault
        self.place_of_cure: str | None = None  # what the cheapest cure changes

    # Experiments ---------------------------------------------------------------------------------

    def note(self, name: str, run: Run | None, is_rescue: bool | None = None) -> None:
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

    def diagnosis(self) -> Diagnosis:
        """Make the experiments in their order, and say what they show."""
        self.find_outcome()
        found: list[Cure] = []
        if self.outcome.is_red:
            self.find_cause()
            self.try_one_cure()
            self.find_place()
            found = self.try_cures()
        elif self.bench.seconds_left > self.bench.longest:  # float32 has the same user's code
            self.fault = find_fault(self.bench.model, self.bench.data, self.bench.how)
        told = self.verdict(found)
        return Diagnosis(
            self.outcome,
            self.cause_in_words(),
            self.place_in_words(),
            found,
            self.experiments,
            [sentence for _, sentence in told],
            self.narrow.recorder,
            tuple(topic for topic, _ in told),
        )

    def find_outcome(self) -> None:
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
        half = self.policy.formats["compute"].unit_roundoff / 2
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
                self.outcome_of_short = outcome
                self.reference = its
                self.lost = gap_of(mine, its, outcome.reason)
                return

    # The cause -----------------------------------------------------------------------------------

    def find_cause(self) -> None:
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

    # Cures ---------------------------------------------------------------------------------------

    def try_one_cure(self) -> None:
        """Train with cures until one rescues: before the place is looked for, should time run out.

        Where parts of the policy are the cause, the surest cure comes first.
        """
        wanted = self.candidates()
        if self.cause and self.cause not in (["not precision"], ["user code"]):
            wanted.reverse()  # the whole part is the dearest
        with self.at_full_length():
            for one in wanted:
                (run,) = self.bench.run_all([(one.code, one.changes)])
                if run is None or ((cure := self.judged(one, run)) is not None and cure.rescues):
                    break

    def try_cures(self) -> list[Cure]:
        """Return what all cures that there was time for came to, those that rescue first."""
        wanted = self.candidates()
        with self.at_full_length():
            runs = self.bench.run_all([(one.code, one.changes) for one in wanted])
            judged = [
                (self.judged(one, run), _learnt(run.account))
                for one, run in zip(wanted, runs, strict=True)
                if run is not None
            ]
        told = [(cure, learnt) for cure, learnt in judged if cure is not None]
        found = [cure for cure, _ in told]
        if self.cause == ["not precision"]:
            found = _without_poor(told)
        places = {one.code: one.place for one in wanted}
        self.place_of_cure = next((places[cure.code] for cure in found if cure.rescues), None)
        return sorted(found, key=lambda cure: not cure.rescues)  # else the cheapest first

    @contextlib.contextmanager
    def at_full_length(self) -> Iterator[None]:
        """Train whole, though other experiments may be a beginning of the training."""
        kept = self.bench.epochs, self.reference, self.lost
        if self.bench.epochs != self.bench.whole:
            self.bench.epochs = self.bench.whole
            if self.wide is not None and self.wide.account is not None:
                self.reference = self.wide.account
                self.lost = gap_of(self.mine, self.reference, self.outcome.reason)
        yield
        self.bench.epochs, self.reference, self.lost = kept

    def judged(self, one: candidates.Candidate, run: Run) -> Cure | None:
        """Return a cure with what its training came to; None where that cannot be told."""
        its: Account | None = self.reference
        is_other_data = one.changes_data and self.outcome.kind != "float32 too"
        if is_other_data:
            name = f"{one.code} in float32"
            wide = self.bench.run(name, policy=self.float32, **one.changes)
            self.note(name, wide)
            its = None if wide is None else wide.account
        if its is None or run.account is None:
            self.note(one.code, run, False)
            return None
        is_rescue = bool(self.rescued(run, its))
        if is_other_data:  # nor may it cost elsewhere
            mine = dataclasses.replace(run.account, start=self.reference.start)
            is_rescue &= not judge(mine, self.reference, self.tolerance).is_red
        self.note(one.code, run, is_rescue)
        beside = None if self.outcome.kind == "float32 too" else its
        return Cure(one.code, judge(run.account, beside, self.tolerance), is_rescue)

    def candidates(self) -> list[candidates.Candidate]:
        """Return what to try, each once."""
        bench = self.bench
        optimizer = bench.how["optimizer"]
        found: list[candidates.Candidate]
        if self.without is not None:
            found = [self.without]
        elif self.fault is not None:
            found = list(
                candidates.of_user_code(
                    self.fault.place, bench.model, bench.data, bench.how["loss"]
                )
            )
        elif self.cause == ["not precision"]:
            found = list(candidates.of_training(optimizer, bench.model, bench.data))
            if self.reference.still_falls:
                longer = 4 * bench.whole
                found.append(
                    candidates.Candidate(
                        f"epochs={longer}", {"epochs": longer}, place="the number of epochs"
                    )
                )
        else:
            blamed = [*self.cause, *(p for p in getattr(self, "also", ()) if p not in self.cause)]
            found = list(
                candidates.of_precision(
                    self.cause or blamed,
                    self.places,
                    self.policy,
                    optimizer,
                    bench.model,
                    bench.data,
                    self.narrow.recorder,
                )
            )
            found += [
                candidates.Candidate(
                    candidates.policy_code(
                        policy := widened(self.policy, [part]), bench.model.layers
                    ),
                    {"policy": policy},
                )
                for part in getattr(self, "also", ())
            ]
        as_it_is = candidates.policy_code(self.policy, bench.model.layers)
        return list({one.code: one for one in found if one.code != as_it_is}.values())

    # Words ---------------------------------------------------------------------------------------

    def cause_in_words(self) -> str | None:
        return "+".join(self.cause) or None

    def place_in_words(self) -> str | None:
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

    def verdict(self, found: list[Cure]) -> list[tuple[str, str]]:
        """Return the sentences, each after what it is about."""
        outcome = self.outcome
        told = [("outcome", outcome.text if outcome.is_red else self.quiet_words())]
        if outcome.is_red:
            told += [*self.cause_sentences(found), *self.cure_sentences(found)]
        return told + [("not made", words) for words in self.left_out_words()]

    def quiet_words(self) -> str:
        outcome = self.outcome
        if outcome.level == "amber":
            return outcome.text
        if self.fault is not None:
            return f"The outcome is that of float32 ({outcome.text}), but {self.fault.text}."
        if outcome.level == "note":
            return f"As well as the format can: {outcome.text}."
        return f"Nothing to worry about: {outcome.text}."

    def cause_sentences(self, found: list[Cure]) -> list[tuple[str, str]]:
        words = self.cause_in_words()
        if self.fault is not None:
            return [("cause", f"User code is the cause: {self.fault.text}.")]
        if words is None:
            words = "The cause was not found in the time given; pass budget=None for all of it."
            return [("cause", words)]
        if words == "not precision":
            words = f"No part of the policy is the cause{self.other_cause(found)}."
            return [("cause", words)]
        which = f"{words} {'alone' if len(self.cause) == 1 else 'together'} in float32"
        if words in ("loss scale", "tensor scales"):
            words, which = f"the {words}", f"a training without the {words}"
        shown = next(
            (e for e in self.experiments if e.name == f"{'+'.join(self.cause)} wide" and e.rescues),
            None,
        )
        end = "" if shown is None else f" (the loss ends at {figure(shown.end)})"
        length = self.shown_on(shown)
        first_words = f"The cause is {words}: {which} wins back what was lost{end}{length}."
        told = [("cause", first_words)]
        recorder = self.narrow.recorder
        if recorder is not None:
            seen = evidence(recorder, self.cause, self.places)
            told += [("cause", f"{seen}.")] if seen else []
        if (place := self.place_in_words()) is not None:
            first = self.first_not_finite()
            told.append(("place", f"It happens in {first or place}."))
        return told

    def shown_on(self, experiment: Experiment | None) -> str:
        if experiment is None or not self.mine.steps or experiment.steps >= self.mine.steps:
            return ""
        return f", shown on the first {experiment.steps} of {self.mine.steps} steps"

    def other_cause(self, found: list[Cure]) -> str:
        """Say what keeps float32 from learning, by the cure that helps."""
        recorder = self.narrow.recorder
        if recorder is not None:
            causes = [f for f in recorder.findings if f.rule in ("no learning", "not finite")]
            if causes:
                return f". {causes[0].text}"
        best = next((cure for cure in found if cure.rescues), None)
        if best is None:
            return "; labels that cannot be learnt from these inputs would look like this"
        return f": {best.code} learns, to a loss of {figure(best.outcome.end)}"

    def cure_sentences(self, found: list[Cure]) -> list[tuple[str, str]]:
        good = [cure for cure in found if cure.rescues]
        bad = [cure for cure in found if not cure.rescues]
        told = []
        if good:
            words = ", or ".join(
                f"{c.code} (the loss ends at {figure(c.outcome.end)})" for c in good
            )
            told.append(("cure", f"Use {words}."))
        elif bad:
            words = "None of the cures that were tried rescues this training."
            told.append(("no cure", words))
        if bad:
            words = ", ".join(f"{c.code} ({figure(c.outcome.end)})" for c in bad)
            told.append(("no cure", f"Tried, and no cure: {words}."))
        return told

    def left_out_words(self) -> list[str]:
        missing = list(dict.fromkeys(self.bench.left_out))
        if not missing:
            return []
        names = "; ".join(missing[:6]) + ("; …" if len(missing) > 6 else "")
        return [f"Not made in the time given: {names}. Pass budget=None to make all."]


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
