"""What each policy would lose in a training that was recorded in float32."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lowprec.conversion.door import round_to
from lowprec.formats import Format, float32
from lowprec.train.loss_scale import LossScale
from lowprec.train.memory import bytes_with_state
from lowprec.train.numerics import tensor_exponent
from lowprec.train.policy import get_policies, named_policies
from lowprec.train.recorder.forecast import Forecast, forecast
from lowprec.train.recorder.kinds import GRADIENTS, KIND_WORDS
from lowprec.train.recorder.predictions import Prediction, WhatIf
from lowprec.train.recorder.scaling import advise_scale

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowprec.train.policy import Policy
    from lowprec.train.recorder.record import Record
    from lowprec.train.recorder.tracks import Track

FAILS = 1.0
"""The damage from which on a training is expected to fail."""

_STARVED = 0.01  # of second moments: from here on Adam's steps are enormous
_STUCK_AVERAGE = 0.05  # what an average that does not decay costs


def what_if(recorder: Record, policies: Iterable[Policy | str] | Policy | str | None) -> WhatIf:
    """Predict what each policy would lose.

    Parameters
    ----------
    recorder : Record
        A run in float32.
    policies : iterable of Policy or str, optional
        The policies; by default the named ones without block formats.

    Raises
    ------
    ValueError
        If the run is in another policy, or a policy has block formats: the blocks of operands are
        not recorded, so what they would lose is not known.
    """
    if any(fmt != float32 for fmt in recorder.policy.formats.values()):
        raise ValueError(
            f"this run was recorded in {recorder.policy}: its rounding hides what other formats "
            "would keep; record one in float32"
        )
    named = [policy for policy in named_policies().values() if not policy.has_blocks]
    chosen = named if policies is None else get_policies(policies)
    for policy in chosen:
        if policy.has_blocks:
            raise ValueError(
                f"{policy} quantizes operands in blocks, which are not recorded: what it would "
                "lose is not known; train in it, as compare_policies does"
            )
    found = [_predict(recorder, policy) for policy in chosen]
    return WhatIf(tuple(sorted(found, key=_rank)), _sureness(recorder, found))


def _rank(one: Prediction) -> tuple[bool, float, int, float]:
    is_unknown = math.isnan(one.damage)
    return is_unknown, 0.0 if is_unknown else one.damage, one.bits, one.cost


def _sureness(recorder: Record, found: list[Prediction]) -> str:
    """Say from how much the predictions are told, what was not seen, and what none can know."""
    words = (
        f"Told from the exponents of {recorder.recorded} of {recorder.steps} steps in float32: "
        "what one step loses, each tensor's noise within about 1 dB; how losses add up over a "
        "training is not predicted, so train the best few, as compare_policies does."
    )
    missing = [text for kind, text in KIND_WORDS.items() if recorder.lacks(kind)]
    if missing and any(one.unknown for one in found):
        words += f" Not seen, and so unknown (?): {', '.join(missing)}."
    unseen = recorder.facts.get("coverage", {}).get("unseen")
    if unseen:
        words += f" Of {len(unseen)} modules nothing was seen, and they count for nothing."
    if recorder.outcome.is_red:
        words += " This float32 run failed itself, and one that trains has other numbers."
    return words


def _predict(recorder: Record, policy: Policy) -> Prediction:
    formats = policy.formats
    states = len({t.slot.kind for t in recorder.of_kind("moment")})
    return Prediction(
        policy,
        _forward(recorder, policy),
        _backward(recorder, policy),
        _update(recorder, policy),
        _state(recorder, formats["state"]),
        bytes_with_state(policy, states).total,
        formats["compute"].bits,
    )


def _forward(recorder: Record, policy: Policy) -> float:
    if policy.formats["compute"] == float32:
        return 0.0
    if recorder.lacks("activation") or recorder.lacks("weight"):
        return math.nan
    tracks = recorder.of_kind("weight", "activation", "preactivation")
    relative = _mean([_told(track, policy, 0, policy.formats["compute"]) for track in tracks])
    return max(relative, _of_outputs(recorder, policy.formats["compute"]))


def _of_outputs(recorder: Record, fmt: Format) -> float:
    """Return the outputs' own rounding beside the error that training leaves in float32."""
    outputs = [track for track in recorder.of_kind("activation") if track.name != "input"]
    errors = recorder.of_kind("error")
    if not outputs or not errors:
        return 0.0
    last, error = outputs[-1].rows[-1], errors[0].rows[-1]
    noise = forecast(last, fmt).noise * last.rms
    return noise / error.rms if error.rms else math.inf if noise else 0.0


def _backward(recorder: Record, policy: Policy) -> float:
    fmt, scale = policy.formats["gradients"], policy.loss_scale
    if fmt == float32:
        return 0.0
    if any(recorder.lacks(kind) for kind in GRADIENTS):
        return math.nan
    k = 0
    if isinstance(scale, LossScale):
        k = _exponent_of(recorder, scale, fmt)
    return _mean([_told(track, policy, k, fmt) for track in recorder.of_kind(*GRADIENTS)])


def _exponent_of(recorder: Record, scale: LossScale, fmt: Format) -> int:
    """Return the exponent of the loss scale under which most of a training would run.

    A dynamic one grows over the steps of the run, and backs off to what the gradients allow.
    """
    grown = math.log2(scale.value) if scale.value > 0 else -math.inf
    if scale.is_static:
        return round(grown)
    try:
        allowed = math.log2(advise_scale(recorder, fmt).high)
    except ValueError:  # gradients that are all zero, or not finite
        return 0
    grown += math.log2(scale.growth_factor) * (recorder.steps // scale.growth_interval)
    return round(max(min(grown, allowed), math.log2(scale.minimum) if scale.minimum else -149))


def _told(track: Track, policy: Policy, scale: int, fmt: Format) -> Forecast:
    whole = track.whole
    if policy.tensor_scales and whole["max_abs"]:
        scale = tensor_exponent(fmt, whole["max_abs"])
    return forecast(whole, fmt, scale)


def _mean(told: list[Forecast]) -> float:
    """Return the root mean square of the noises; infinity where anything overflows."""
    if any(one.headroom_bits < 0 for one in told):
        return math.inf
    return math.sqrt(sum(one.noise**2 for one in told) / len(told)) if told else 0.0


def _update(recorder: Record, policy: Policy) -> float:
    fmt = policy.formats["params"]
    tracks = recorder.of_kind("update")
    if fmt == float32 or policy.update == "kahan":
        return 0.0
    if recorder.lacks("update") or not any(track.gaps.any() for track in tracks):
        return math.nan if recorder.lacks("update") or tracks else 0.0
    squares = sum(track.gaps[1].sum() for track in tracks)
    lost = sum(track.lost_at(fmt.precision)[1] * track.gaps[1].sum() for track in tracks)
    share = float(lost / squares) if squares else 0.0
    if policy.update == "stochastic":  # nothing is lost on average; noise remains
        return 2.0**-fmt.precision * math.sqrt(1 + share)
    return share


def _state(recorder: Record, fmt: Format) -> float:
    if fmt == float32:
        return 0.0
    if recorder.lacks("moment"):
        return math.nan
    numbers: dict[str, Any] = recorder.facts.get("hyperparameters", {})
    damage = 0.0
    for word in ("beta_2", "rho"):
        if numbers.get(word) and float(round_to(float(numbers[word]), fmt)) == 1:
            damage = _STUCK_AVERAGE
    for track in recorder.of_kind("moment"):
        told = forecast(track.whole, fmt)
        if told.headroom_bits < 0:
            return math.inf
        if track.slot.kind == "second_moment" and told.new_zeros > _STARVED:
            return math.inf
    return damage
