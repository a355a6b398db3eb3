"""What the failing run recorded of the parts that experiments found guilty, in a sentence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lowprec.train.recorder.finding import capital, name_of, percent
from lowprec.train.recorder.kinds import layer_of
from lowprec.train.recorder.rules import findings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.train.recorder.finding import Finding
    from lowprec.train.recorder.record import Record
    from lowprec.train.recorder.tracks import Track

_RULES_OF = {  # which rule explains which part
    "loss scale": ("not finite", "new zeros"),
    "gradients": ("new zeros", "headroom", "not finite"),
    "accumulate": ("not finite", "long sums"),
    "state": (
        "starved moments",
        "numbers of the optimizer",
        "stalled state",
        "headroom",
        "not finite",
    ),
    "params": ("lost updates", "numbers of the optimizer", "not finite"),
    "compute": (
        "precision of the outputs",
        "noise beside the deviation",
        "one unit sets the scale",
        "offset",
        "colliding inputs",
        "headroom",
        "new zeros",
        "not finite",
    ),
}
_BY_RANGE = ("headroom", "new zeros")  # rules that look at tensors of all parts
_KINDS_OF = {
    "loss scale": ("activation_gradient", "weight_gradient"),
    "gradients": ("activation_gradient", "weight_gradient"),
    "state": ("moment",),
    "params": ("update",),
    "compute": ("activation", "preactivation", "weight"),
}
_LEAST = 0.001  # noise beside a tensor's size that is worth telling


def evidence(record: Record, cause: Sequence[str], places: Sequence[str]) -> str | None:
    """Return what a rule found of these parts, else what rounding did to them in these places."""
    found = [one for one in findings(record) if any(_explains(one, part) for part in cause)]
    if record.outcome.reason == "not finite":  # then before what is merely coarse
        found.sort(key=lambda one: one.rule != "not finite")
    if found:
        return found[0].text
    told = [words for part in cause if (words := _seen(record, part, places))]
    return "; ".join(told) or None


def _explains(finding: Finding, part: str) -> bool:
    if finding.rule not in _RULES_OF.get(part, ()):
        return False
    kind = finding.tensor[0] if finding.tensor else None
    return finding.rule not in _BY_RANGE or kind in _KINDS_OF.get(part, ())


def _seen(record: Record, part: str, places: Sequence[str]) -> str | None:
    """Return the tensor of a part that rounding changed most, and how."""
    layers = {place.partition("/")[0] for place in places}
    tracks = [
        track
        for track in record.of_kind(*_KINDS_OF.get(part, ()))
        if not layers or _layer(track) in layers
    ]
    if part == "params":
        worst = max(tracks, key=lambda track: track.whole.lost_rate, default=None)
        if worst is None or not worst.whole["lost"]:
            return None
        fmt = record.policy_at("update", worst.name).formats["params"]
        return (
            f"{percent(worst.whole.lost_rate)} of the updates of {record.label(worst.name)} leave "
            f"it as it was in {fmt}"
        )
    noise, worst = max(
        ((_noise(track), track) for track in tracks), key=lambda pair: pair[0], default=(0.0, None)
    )
    if worst is None or noise < _LEAST:
        return None
    whole = worst.whole
    shares = {"vanish": whole.new_zero_rate, "become subnormal": whole.subnormal_rate}
    also = [f"{percent(share)} of its numbers {what}" for what, share in shares.items() if share]
    words = f"rounding to {worst.fmt} changes them by {percent(noise)} of their size"
    tensor = capital(name_of(record, worst.kind, worst.name))
    return ": ".join([tensor, "; ".join([words, *also])])


def _layer(track: Track) -> str:
    layer = layer_of(track.kind, track.name)
    return "inputs" if layer == "input" else layer


def _noise(track: Track) -> float:
    whole = track.whole
    return math.sqrt(whole["noise"] / whole["squares"]) if whole["squares"] else 0.0
