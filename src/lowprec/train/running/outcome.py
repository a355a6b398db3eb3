"""What became of a training, beside the same training in float32: judged before any cause is told.

`Account` holds the numbers of one run; `judge` holds one account against another. Every verdict on
a training (`Recorder.verdict`, `compare_policies`, `train.diagnose`, the command line, the report)
is made here, so that no two of them contradict each other.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import TYPE_CHECKING, Any, Literal

from lowprec.train.metrics import is_validation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lowprec.train.running.history import History

Kind = Literal["healthy", "worse", "broken", "float32 too", "unknown"]
Reason = Literal[
    "",
    "not finite",
    "skipped",
    "float32 fails",
    "learns nothing",
    "progress",
    "ratio",
    "within noise",
    "floor",
]

TOLERANCE = 0.05
"""The share of float32's progress that a run may lack."""

RATIO = 2.0
"""How many times float32's loss an end may be where accuracy or error show it too."""

LOST_ACCURACY = 0.01
RISEN_ERROR = 1.1
LEARNT = 0.02
"""The share by which a loss must fall below the better of start and best constant prediction."""

DIVERGED = 10.0
"""How many times the start an epoch's loss must be for a training to diverge."""

_NOTHING = "learns nothing"
_FALLING = 0.1  # the share of its start by which a loss that still falls has fallen
_ERRORS = 3.0  # standard errors that tell a fall of the loss from noise
_LAST = 10  # the end is the mean of the last tenth of the steps


@dataclasses.dataclass(frozen=True)
class Account:
    """What one training came to: the numbers by which its outcome is judged.

    loss: Its loss, by name.
    end: The mean loss of the last tenth of the steps; NaN or infinite where one of them is; None
        where no loss is known.
    start: The float32 loss of the initial parameters, in training mode but without dropout.
    constant: The loss of the best constant prediction, of the targets that are trained on.
    epochs (tuple of float): The training loss by epoch.
    metrics: Accuracy or rmse of the last epoch, by their names in `History.history`.
    steps, skipped: All steps, and how many of them were skipped.
    is_finite: Whether the parameters are finite at the end.
    validation: The last loss of the validation data; None where there are none.
    deviation: The standard deviation of real targets.
    unit_roundoff: That of the format in which the outputs are computed.
    error: The standard error of `end`: how far batches alone may move it.
    """

    policy: str
    loss: str
    end: float | None
    start: float | None = None
    constant: float | None = None
    epochs: tuple[float, ...] = ()
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)
    steps: int = 0
    skipped: int = 0
    is_finite: bool = True
    deviation: float | None = None
    unit_roundoff: float = 2.0**-24
    error: float | None = None
    validation: float | None = None

    @classmethod
    def of(cls, history: History) -> Account:
        """Return the account of a finished training.

        history: What `fit` returned.
        """
        facts = history.facts
        return cls.made(
            policy=str(facts.get("policy", "float32")),
            loss=str(facts.get("loss", "")),
            curves=history.history,
            step_losses=history.step_losses,
            skipped_steps=history.skipped_steps,
            steps=len(history.loss_scales),
            params_are_finite=all(_is_finite_array(w) for w in history.params.values()),
            known=facts.get("outcome", {}),
        )

    @classmethod
    def made(
        cls,
        *,
        policy: str,
        loss: str,
        curves: Mapping[str, Sequence[float]],
        step_losses: Sequence[float],
        skipped_steps: Sequence[int],
        steps: int,
        params_are_finite: bool,
        known: Mapping[str, Any],
    ) -> Account:
        """Return an account from what a history or a recorder holds."""
        losses = tuple(curves.get("loss", ()))
        return cls(
            policy=policy,
            loss=loss,
            end=end_of(step_losses, skipped_steps) if step_losses else _last(curves, "loss"),
            start=known.get("start"),
            constant=known.get("constant"),
            epochs=losses,
            metrics=_last_metrics(curves),
            steps=steps,
            skipped=len(skipped_steps),
            is_finite=params_are_finite,
            deviation=known.get("deviation"),
            unit_roundoff=known.get("unit_roundoff", 2.0**-24),
            error=_error_of(step_losses, skipped_steps) if step_losses else None,
            validation=_last(curves, "val_loss"),
        )

    def up_to(
        self, step_losses: Sequence[float], skipped_steps: Sequence[int], epochs: int, steps: int,
        curves: Mapping[str, Sequence[float]],
    ) -> Account:  # fmt: skip
        """Return the account of the first epochs of this run, which are `steps` steps."""
        skipped = [step for step in skipped_steps if step < steps]
        return dataclasses.replace(
            self,
            end=end_of(step_losses[:steps], skipped),
            epochs=self.epochs[:epochs],
            metrics=_last_metrics({name: curve[:epochs] for name, curve in curves.items()}),
            validation=_last({"val_loss": curves.get("val_loss", ())[:epochs]}, "val_loss"),
            steps=steps,
            skipped=len(skipped),
        )

    @property
    def best_without_learning(self) -> float | None:
        """The better of the start and of the best constant prediction; None if neither is known."""
        known = [
            one for one in (self.start, self.constant) if one is not None and math.isfinite(one)
        ]
        return min(known) if known else None

    @property
    def ends_finite(self) -> bool:
        """Whether the losses, that of validation data too, and parameters are finite at the end."""
        return self.trains_finite and (self.validation is None or math.isfinite(self.validation))

    @property
    def trains_finite(self) -> bool:
        """The same without validation data."""
        return self.is_finite and (self.end is None or math.isfinite(self.end))

    @property
    def holds_in_validation(self) -> bool:
        """Whether what was learnt is more than the training data, as far as known."""
        if self.validation is None or self.constant is None:
            return True
        return self.validation < self.constant

    @property
    def is_mostly_skipped(self) -> bool:
        """Whether more than half of the steps were skipped."""
        return 2 * self.skipped > self.steps > 0

    @property
    def failure(self) -> str:
        """Say in a few words why this run taught nothing, by itself; empty if it did."""
        if not self.ends_finite:
            return "is not finite"
        if self.is_mostly_skipped:
            return f"skips {self.skipped} of {self.steps} steps"
        if self.start is not None and 0 < self.start < math.inf:
            highest = max(self.epochs, default=0.0)
            if not highest <= DIVERGED * self.start:
                return f"diverges, with a loss of {figure(highest)} in an epoch"
        return self._failure_at_the_end

    @property
    def ends_well(self) -> bool:
        """Whether this run learnt in the end; one that diverged for a time learnt at least half."""
        if not self.ends_finite or self.is_mostly_skipped or self._failure_at_the_end:
            return False
        best = self.best_without_learning
        return not self.failure or best is None or self.end is None or self.end < best / 2

    @property
    def still_falls(self) -> bool:
        """Whether a loss has fallen a long way, yet not below that of a constant prediction."""
        if self.failure != _NOTHING or self.start is None or self.end is None:
            return False
        return self.start - self.end > _FALLING * abs(self.start)

    @property
    def _failure_at_the_end(self) -> str:
        best = self.best_without_learning
        if best is None or self.end is None or 0 < self.steps < _LAST:  # so few teach nothing
            return ""
        if self.constant is not None and self.end == 0:  # no loss of lowprec's is less
            return ""
        fall = best - self.end
        if self.constant is None and self.error is not None:  # a user's loss may be shifted
            return "" if fall > min(LEARNT * abs(best), _ERRORS * self.error) else _NOTHING
        return "" if fall > LEARNT * abs(best) else _NOTHING


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a training.

    Attributes
    ----------
    kind : str
        ``healthy``; ``worse`` than float32; ``broken``: not finite, or mostly skipped;
        ``float32 too``: float32 fares no better; ``unknown`` without a reference and without a
        failure that shows by itself.
    start, end : float or None
        The loss of the initial parameters, and the mean loss of the last tenth of the steps.
    reference_end : float or None
        The same end of the reference.
    progress : float or None
        The share of the reference's fall of the loss that this run's fall is.
    metrics, reference_metrics : dict of str to float
        Accuracy or rmse of the last epoch.
    skipped, steps : int
        Skipped steps, and all.
    reason : str
        Which rule decided.
    level : str
        ``red``; ``amber``, within noise; ``note``; ``green``.
    text : str
        The outcome in a sentence, with its numbers.
    """

    kind: Kind
    start: float | None
    end: float | None
    reference_end: float | None
    progress: float | None
    metrics: Mapping[str, float] = dataclasses.field(hash=False)
    reference_metrics: Mapping[str, float] = dataclasses.field(hash=False)
    skipped: int
    steps: int
    reason: Reason = ""
    level: Literal["red", "amber", "note", "green"] = "green"
    text: str = ""

    @property
    def is_red(self) -> bool:
        """Whether something went wrong."""
        return self.level == "red"

    @property
    def gap(self) -> float:
        """The share of the reference's progress that is lacking; 0 where nothing is known."""
        return 0.0 if self.progress is None else 1 - self.progress

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain numbers and text."""
        found = dataclasses.asdict(dataclasses.replace(self, metrics=dict(self.metrics)))
        found["reference_metrics"] = dict(self.reference_metrics)
        return found


# Judging -----------------------------------------------------------------------------------------


def judge(mine: Account, reference: Account | None = None, tolerance: float = TOLERANCE) -> Outcome:
    """Return what became of a run, beside its reference where there is one.

    Parameters
    ----------
    mine : Account
        The run.
    reference : Account, optional
        The same run in float32: of the same seed, start and order of batches.
    tolerance : float
        The share of the reference's progress that may be lacking.

    Returns
    -------
    Outcome
        Its `text` says the numbers.

    Examples
    --------
    >>> wide = Account("float32", "mse", end=0.25, start=2.25, constant=2.0, steps=10)
    >>> narrow = Account("bfloat16", "mse", end=1.25, start=2.25, constant=2.0, steps=10)
    >>> found = judge(narrow, wide)
    >>> found.kind, found.progress, found.level
    ('worse', 0.5, 'red')
    """
    progress = _progress(mine, reference)
    found = Outcome(
        kind="unknown" if reference is None else "healthy",
        start=mine.start,
        end=mine.end,
        reference_end=None if reference is None else reference.end,
        progress=progress,
        metrics=dict(mine.metrics),
        reference_metrics={} if reference is None else dict(reference.metrics),
        skipped=mine.skipped,
        steps=mine.steps,
        level="note" if reference is None else "green",
    )
    kind, reason = _kind(mine, reference, progress, tolerance)
    if not kind:
        if reason:
            text = _floor_text(mine, reference)
            return dataclasses.replace(found, reason=reason, level="note", text=text)
        return dataclasses.replace(found, text=_quiet_text(mine, reference))
    text = _text(mine, reference, progress, reason)
    return dataclasses.replace(found, kind=kind, reason=reason, level="red", text=text)


def within_noise(outcome: Outcome, spread: Sequence[float]) -> Outcome:
    """Return an outcome that is no more than what rounding the start makes of the reference.

    outcome: Worse than the reference by a little.
    spread (sequence of float): The ends of the reference and of its copies from moved starts.
    """
    ends = ", ".join(map(figure, spread))
    text = (
        f"Within noise: the loss ends at {figure(outcome.end)}, and float32 ends at {ends} when "
        "its initial parameters move by half a unit roundoff."
    )
    return dataclasses.replace(
        outcome, kind="healthy", reason="within noise", level="amber", text=text
    )


def _kind(
    mine: Account, reference: Account | None, progress: float | None, tolerance: float
) -> tuple[Kind | None, Reason]:
    """Return what is red, and by which rule; the order of the rules is that of the contract."""
    holds = reference is None or reference.ends_well or reference.failure == _NOTHING
    broken: Kind = "broken" if holds else "float32 too"
    if not mine.ends_finite:
        return broken, "not finite"
    if mine.is_mostly_skipped:
        return broken, "skipped"
    its_failure = "" if reference is None else reference.failure
    if reference is not None and its_failure:
        if reference.still_falls and progress is not None and not progress >= 1 - tolerance:
            return "worse", "progress"
        return "float32 too", "float32 fails"
    if reference is not None:
        if _is_at_the_floor(mine, reference):
            return None, "floor"
        if progress is not None and not progress >= 1 - tolerance:
            return "worse", "progress"
        if _is_beyond_the_ratio(mine, reference):
            return "worse", "ratio"
    best = mine.best_without_learning
    if 0 < mine.steps < _LAST:
        return None, ""
    is_least = mine.constant is not None and mine.end == 0  # no loss of lowprec's is less
    if best is not None and mine.end is not None and mine.end >= best and not is_least:
        return "worse", "learns nothing"
    return None, ""


def _progress(mine: Account, reference: Account | None) -> float | None:
    """Return this run's fall of the loss as a share of the reference's."""
    if reference is None or mine.start is None or not mine.ends_finite:
        return None
    if mine.end is None or reference.end is None:
        return None
    its_start = mine.start if reference.start is None else reference.start
    fall, its_fall = mine.start - mine.end, its_start - reference.end
    if reference.loss and mine.loss and reference.loss != mine.loss:  # each beside its own start
        if not mine.start or not its_start:
            return None
        fall, its_fall = fall / abs(mine.start), its_fall / abs(its_start)
    if not math.isfinite(fall) or not math.isfinite(its_fall) or its_fall <= 0:
        return None
    return fall / its_fall


def _is_beyond_the_ratio(mine: Account, reference: Account) -> bool:
    if mine.end is None or reference.end is None:
        return False
    if not reference.end > 0 or not mine.end > RATIO * reference.end:
        return False
    if reference.loss and mine.loss and reference.loss != mine.loss:
        return False
    for name, its in reference.metrics.items():
        own = mine.metrics.get(name)
        if own is None:
            continue
        if "accuracy" in name and own < its - LOST_ACCURACY:
            return True
        if "rmse" in name and not own <= RISEN_ERROR * its:
            return True
    return False


def _is_at_the_floor(mine: Account, reference: Account) -> bool:
    """Return whether the error of a regression is below what its format can tell apart."""
    rmse = mine.metrics.get("rmse")
    if rmse is None or not mine.deviation or mine.end is None or reference.end is None:
        return False
    if mine.end <= reference.end:
        return False
    return rmse < mine.unit_roundoff * mine.deviation


# The end of a run --------------------------------------------------------------------------------


def end_of(step_losses: Sequence[float], skipped_steps: Sequence[int] = ()) -> float:
    """Return the mean loss of the last tenth of the steps.

    A loss that is not finite does no harm where its step was skipped: another counts instead. One
    that is finite counts, or batches whose loss is large would be left out for being skipped.

    Examples
    --------
    >>> end_of([9.0] * 18 + [1.0, 2.0]), end_of([1.0, math.inf], [1])
    (1.5, inf)
    """
    last = _last_tenth(step_losses, skipped_steps)
    if not last:
        return math.nan
    if not all(map(math.isfinite, last)):
        return sum(last)
    return math.fsum(last) / len(last)


def _last_tenth(step_losses: Sequence[float], skipped_steps: Sequence[int]) -> list[float]:
    first = len(step_losses) - max(1, math.ceil(len(step_losses) / _LAST))
    skipped = set(skipped_steps)
    last = range(first, len(step_losses))
    kept = [step_losses[i] for i in last if i not in skipped or math.isfinite(step_losses[i])]
    return kept or list(step_losses[first:])


def _error_of(step_losses: Sequence[float], skipped_steps: Sequence[int]) -> float | None:
    """Return the standard error of the end."""
    last = _last_tenth(step_losses, skipped_steps)
    if len(last) < 2 or not all(map(math.isfinite, last)):
        return None
    return statistics.stdev(last) / math.sqrt(len(last))


def _last_metrics(curves: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {
        name: float(values[-1])
        for name, values in curves.items()
        if values and ("accuracy" in name or "rmse" in name)
    }


def _last(curves: Mapping[str, Sequence[float]], name: str) -> float | None:
    return next((float(value) for value in reversed(curves.get(name, ()))), None)


def _is_finite_array(array: Any) -> bool:
    return bool((abs(array) < math.inf).all())


# Words -------------------------------------------------------------------------------------------


def figure(value: float | None) -> str:
    """Return a loss or a metric to four digits."""
    if value is None:
        return "an unknown loss"
    if math.isnan(value):
        return "NaN"
    return f"{value:.4g}".replace("-", "−")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %".replace("-", "−")


def _quiet_text(mine: Account, reference: Account | None) -> str:
    are = "step is" if mine.steps == 1 else "steps are"
    few = f"; {mine.steps} {are} too few to judge by" if 0 < mine.steps < _LAST else ""
    if reference is None:
        return f"the loss ends at {figure(mine.end)}{few}"
    return f"the loss ends at {figure(mine.end)}, float32's at {figure(reference.end)}{few}"


def _floor_text(mine: Account, reference: Account | None) -> str:
    its = "" if reference is None else f", float32's at {figure(reference.metrics.get('rmse'))}"
    return (
        f"the error ends at {figure(mine.metrics.get('rmse'))}{its}: below a unit roundoff of the "
        "targets' deviation, the format's own floor"
    )


def _text(mine: Account, reference: Account | None, progress: float | None, reason: Reason) -> str:
    """Return the red first sentence."""
    beside = "" if reference is None else f", float32's at {figure(reference.end)}"
    ends = f"the loss ends at {figure(mine.end)}{beside}"
    its_failure = "" if reference is None else reference.failure
    if reference is not None and reason in ("not finite", "skipped") and reference.ends_well:
        its_failure = ""
    too = f"; float32 {its_failure} too, so rounding is not the cause" if its_failure else ""
    if its_failure == _NOTHING and reason in ("not finite", "skipped"):
        too = "; float32 stays finite, but learns nothing: that is another fault"
    match reason:
        case "not finite":
            what = "the parameters are not finite"
            for name, own in (("validation loss", "validation"), ("loss", "end")):
                value = getattr(mine, own)
                if value is not None and not math.isfinite(value):
                    its = "" if reference is None else figure(getattr(reference, own))
                    its = its and f"; float32's ends at {its}"
                    what = f"the {name} ends at {figure(value)}, which is not finite{its}"
            return f"Broken: {what}{too}."
        case "skipped":
            return (
                f"Broken: {mine.skipped} of {mine.steps} steps were skipped, which teach nothing; "
                f"{ends}{too}."
            )
        case "float32 fails":
            return (
                f"Float32 fares no better, so rounding is not the cause: it {its_failure}"
                f"{_beside_constant(reference)}; here {ends}."
            )
        case "learns nothing":
            return f"Nothing is learnt: {ends}{_beside_constant(mine)}."
        case "progress":
            assert progress is not None
            made = "none" if progress <= 0 else _percent(progress)
            return (
                f"Worse than float32: {ends}; it made {made} of float32's progress from "
                f"{figure(mine.start)}{_beside_metrics(mine, reference)}."
            )
        case _:
            return f"Worse than float32: {ends}{_beside_metrics(mine, reference)}."


def _beside_constant(account: Account | None) -> str:
    if account is None:
        return ""
    start = f", starts at {figure(account.start)}" if account.start is not None else ""
    constant = account.constant
    if constant is None or constant == account.start:
        return start
    return f"{start} and the best constant prediction gives {figure(constant)}"


def _beside_metrics(mine: Account, reference: Account | None) -> str:
    """Return the first metric of both, the test set's before the training set's."""
    its = {} if reference is None else reference.metrics
    for name in sorted(its, key=lambda name: not is_validation(name)):
        if name in mine.metrics:
            return f"; {name} {figure(mine.metrics[name])}, float32's {figure(its[name])}"
    return ""
