"""Verdicts on policies: what the runs show, and what is likely behind it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lowprec.show.words import superscript
from lowprec.train.metrics import is_accuracy, is_better_high
from lowprec.train.running.outcome import TOLERANCE
from lowprec.train.studies.runs import account_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lowprec.train.running.outcome import Outcome
    from lowprec.train.studies.results import PolicyResult, PolicyResults
    from lowprec.train.studies.seed_statistics import Spread

TOLERATED_RISE = 0.03
"""The share by which a training loss may exceed float32's before it is told."""


def grade(result: PolicyResult) -> str:
    """Return in a word what became of a policy beside float32.

    Returns: ``diverged`` with any seed; ``baseline`` for float32 itself; with a single seed, which
        does not say what noise is, ``lagging`` where its outcome is red (`running.outcome`), else
        ``unknown``; ``same`` where the paired differences may be noise; ``lagging`` where they may,
        but most outcomes are red or more of float32's progress is lacking than noise and 5 %; else
        ``better`` or ``worse``. Noise is `PolicyResult.noise`.
    """
    if result.diverged:
        return "diverged"
    if result.is_baseline:
        return "baseline"
    difference = result.difference
    red = sum(outcome.is_red for outcome in result.outcomes)
    if difference.samples == 1 or not math.isfinite(difference.mean):
        return "lagging" if red else "unknown"
    if abs(difference.mean) <= result.noise:
        return "lagging" if 2 * red > len(result.runs) or _lags(result) else "same"
    return "better" if (difference.mean > 0) == is_better_high(result.metric) else "worse"


def _lags(result: PolicyResult) -> bool:
    """Return whether training lags behind float32's by more than noise and what is tolerated."""
    lag, tolerated = result.lag, TOLERANCE
    if lag is None:  # nobody noted the losses of the starts
        lag, tolerated = result.loss_rise, TOLERATED_RISE
    return lag.mean > max(lag.uncertainty, tolerated)


def comparison_in_words(comparison: PolicyResults) -> list[str]:
    """Return an entry for each policy, and advice on which to take where the runs allow it."""
    if _guesses(comparison):
        usual = comparison["float32"]
        words = (
            f"float32 itself has learned nothing: {usual.metric} {usual.spread.mean:.4f}, and "
            f"naming the most frequent class gives {comparison.facts['guessing']:.4f}. What a "
            "policy loses does not show before there is something to lose: train longer, or at "
            "another learning rate."
        )
        return [words]
    wide = comparison["float32"].runs
    failures = [failure for run in wide if (failure := account_of(run).failure)]
    if 2 * len(failures) > len(wide):
        words = (
            f"float32 itself fails with {len(failures)} of {_seeds(len(wide))}: it {failures[0]}. "
            "What a policy loses does not show before there is something to lose: train longer, or "
            "at another learning rate."
        )
        return [words]
    return [_on_policy(result, comparison) for result in comparison.results] + _advice(comparison)


def _guesses(comparison: PolicyResults) -> bool:
    usual, guessing = comparison["float32"], comparison.facts.get("guessing")
    if guessing is None or not is_accuracy(usual.metric):
        return False
    return bool(usual.spread.mean <= guessing)


def _on_policy(result: PolicyResult, comparison: PolicyResults) -> str:
    word = grade(result)
    text = _finding(result, word)
    if word in ("diverged", "lagging", "worse"):
        return f"{text} {likely_cause(result, comparison)}"
    return text


def _finding(result: PolicyResult, word: str) -> str:
    """Return what the runs show."""
    name, difference = result.policy, result.difference
    seeds = _seeds(len(result.runs))
    match word:
        case "baseline":
            return f"{name}: {result.metric} {_mean_and_sd(result.spread)} over {seeds}."
        case "diverged":
            return f"{name} fails: {_divergence(result)}."
        case "unknown":
            return (
                f"{name} ends {_signed(difference.mean)} beside float32; one seed cannot tell a "
                "loss from noise, more can."
            )
        case "same" if not any(result.differences):
            return f"{name} loses nothing: the same {result.metric} as float32 with every seed."
        case "same":
            return (
                f"{name} loses nothing measurable: {_signed(difference.mean)} ± "
                f"{difference.sd:.4f} beside float32 is within the noise of {seeds}; a change of "
                f"{result.noise:.4f} would have shown."
            )
        case "lagging" if result.lag is not None:
            red = [outcome for outcome in result.outcomes if outcome.is_red]
            return f"{name} trains worse, with {len(red)} of {seeds}: {_first_of(red, result)}"
        case "lagging":
            return (
                f"{name} trains worse: its training loss ends {result.loss_rise.mean:.0%} above "
                f"float32's, though {result.metric} ({_signed(difference.mean)} ± "
                f"{difference.sd:.4f}) does not show it."
            )
    return (
        f"{name} is {word} than float32 by {abs(difference.mean):.4f} ± {difference.sd:.4f}, "
        f"beyond the noise of {seeds}."
    )


def _first_of(red: list[Outcome], result: PolicyResult) -> str:
    """Return the first red outcome in words; the mean lag where no single one is red."""
    if red:
        return red[0].text
    assert result.lag is not None
    return f"{result.lag.mean:.0%} of float32's progress is lacking on average."


def _divergence(result: PolicyResult) -> str:
    steps = [run.diverged_at + 1 for run in result.diverged if run.diverged_at is not None]
    if not steps:
        skipped = max(len(run.skipped_steps) for run in result.diverged)
        return (
            f"{len(result.diverged)} of {_seeds(len(result.runs))} skipped more than half of their "
            f"steps, up to {skipped} of {result.runs[0].steps}"
        )
    count = f"{len(result.diverged)} of {_seeds(len(result.runs))} diverged"
    return f"{count}, the first at step {min(steps)} of {result.runs[0].steps}"


# Causes ------------------------------------------------------------------------------------------


def likely_cause(result: PolicyResult, comparison: PolicyResults) -> str:
    """Return what may be behind a policy's loss or divergence: a guess from formats and runs."""
    if comparison["float32"].diverged:
        return "float32 diverges: likely the learning rate is too high, whatever the format."
    if result.diverged:
        return _cause_of_divergence(result, comparison.facts["hyperparameters"])
    return _cause_of_loss(result, comparison["float32"].unchanged)


def _cause_of_divergence(result: PolicyResult, numbers: Mapping[str, Any]) -> str:
    formats = result.policy.formats
    state, epsilon = formats["state"], numbers.get("epsilon")
    weight = 1 - float(numbers.get("beta_2", 0.0))  # of a new square in its running mean
    lowest = math.sqrt(state.smallest_subnormal / 2 / weight)
    if epsilon is not None and lowest > epsilon:
        return (
            f"Likely the optimizer's state: from gradients below {_short(lowest)} the mean square "
            f"rounds to zero in {state}, and dividing by epsilon = {_short(epsilon)} alone makes "
            "the step enormous; keep the state in float32, as the mixed policies do."
        )
    narrow = [fmt for fmt in formats.values() if fmt.max < 2.0**20]
    if narrow and not result.policy.tensor_scales:
        return f"Likely an overflow: {narrow[0]} ends at {narrow[0].max:g}."
    return "Likely the learning rate is too high for so coarse a rounding."


def _cause_of_loss(result: PolicyResult, usually_unchanged: float) -> str:
    policy, formats, still = result.policy, result.policy.formats, result.unchanged
    params, gradients, compute = formats["params"], formats["gradients"], formats["compute"]
    if result.skipped_share > 0.1:
        return f"Likely the loss scale: {result.skipped_share:.0%} of the steps were skipped."
    if policy.update == "nearest" and params.precision < 24 and still > usually_unchanged + 0.02:
        least = f"2{superscript(-params.precision)}"
        return (
            f"Likely lost updates: to nearest in {params}, a step below {least} of a parameter "
            f"changes nothing; the last epoch left {still:.0%} of the parameters as they were "
            f"(float32: {usually_unchanged:.0%}). Stochastic or Kahan updates, or float32 "
            "parameters, cure it."
        )
    if gradients.emin > -100 and policy.loss_scale is None and not policy.tensor_scales:
        return (
            f"Likely gradients below {_short(gradients.smallest_subnormal)} became zero in "
            f"{gradients}; a loss scale brings them back."
        )
    return f"Likely the rounding to {compute} itself, to {compute.precision} significant bits."


# Advice ------------------------------------------------------------------------------------------


def _advice(comparison: PolicyResults) -> list[str]:
    """Return which policy holds with the narrowest arithmetic, and which with the least memory."""
    if len(comparison.results) == 1 or comparison.results[0].spread.samples == 1:
        return []
    holding = [r for r in comparison.results if grade(r) in ("baseline", "same", "better")]
    if not holding:
        return ["No policy holds here."]
    best, smallest, usual = min(holding, key=_width), min(holding, key=_size), comparison["float32"]
    if best.is_baseline:
        return ["Of these policies, none but float32 holds here."]
    narrowest = (
        f"Narrowest arithmetic that loses nothing measurable: {best.policy}, in {_bits(best)} "
        f"bits, with {best.memory.total:g} bytes a parameter (float32: {usual.memory.total:g})."
    )
    if smallest.is_baseline or smallest.memory.total == best.memory.total:
        return [narrowest]
    least = (
        f"Least memory that loses nothing measurable: {smallest.policy}, with "
        f"{smallest.memory.total:g} bytes a parameter, in {_bits(smallest)} bits."
    )
    return [narrowest, least]


def _bits(result: PolicyResult) -> int:
    return result.policy.formats["compute"].bits


def _width(result: PolicyResult) -> tuple[int, float]:
    return _bits(result), result.memory.total


def _size(result: PolicyResult) -> tuple[float, int]:
    return result.memory.total, _bits(result)


# Words -------------------------------------------------------------------------------------------


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _mean_and_sd(spread: Spread) -> str:
    return f"{spread.mean:.4f}" + ("" if spread.samples == 1 else f" ± {spread.sd:.4f}")


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _short(value: float) -> str:
    """Return a small number to one digit: 1e−8."""
    return f"{value:.0e}".replace("e-0", "e−").replace("e-", "e−")
