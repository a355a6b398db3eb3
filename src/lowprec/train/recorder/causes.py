"""What goes wrong in a recorded run: one function a rule, each returns findings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.conversion import round_to
from lowprec.formats import Format, get_format
from lowprec.train.loss_scale import LossScale
from lowprec.train.recorder.scaling import GRADIENTS, advise_scale, is_harmed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lowprec.train.recorder.recorder import Recorder
    from lowprec.train.recorder.tracks import Tally, Track

__all__ = ["Finding"]

RED_ZEROS = 0.2
HEADROOM = 2.0
LOST = 0.8
SOME_LOST = 0.5
SHRUNK = 0.01
GAP = 0.05
SKIPS = 0.05
FIRST_SKIPS = 15  # while a dynamic scale finds its level
STARVED = 0.01
STUCK = 0.5
_WORDS = {
    "weight": "weights",
    "activation": "activations",
    "preactivation": "sums before the activation",
    "activation_gradient": "activation gradients",
    "weight_gradient": "weight gradients",
    "moment": "moments",
}


class Finding(NamedTuple):
    """Something that a rule found.

    Attributes
    ----------
    level : str
        ``red``, ``amber``, or ``note``: worth knowing, and no warning.
    rule : str
        The rule's name.
    text : str
        What was measured.
    cure : str
        What to do.
    """

    level: str
    rule: str
    text: str
    cure: str

    def __str__(self) -> str:
        return f"{self.text}: {self.cure}."


def name_of(recorder: Recorder, kind: str, name: str) -> str:
    """Return what to call a tensor in a sentence: ``Dense 2's weight gradients (1/kernel)``."""
    words = _WORDS.get(kind, f"{kind}s")
    prefix, _, rest = name.partition("/") if kind == "moment" else ("", "", name)
    layer, _, short = rest.partition("/")
    label = recorder.labels.get(layer)
    if prefix:
        words = f"{prefix.replace('_', ' ')}s"
    if label is None:
        return f"the {words} of {rest}"
    place = f" ({rest})" if short else ""
    return f"{label}'s {words}{place}" if layer.isdecimal() else f"the {words} of {label}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1f} %"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# Range -------------------------------------------------------------------------------------------


def not_finite(recorder: Recorder) -> Iterator[Finding]:
    """Tell what first became infinite or NaN, and whether too many steps were skipped."""
    for event in recorder.events:
        if not event.skipped:
            tensor = name_of(recorder, event.kind, event.name)
            text = f"{_capital(tensor)} stopped being finite at step {event.step}"
            if math.isfinite(event.value):
                fmt = recorder.track(event.kind, event.name).fmt
                text += f": {event.value:.6g} is beyond the {fmt.max:g} of {fmt}"
            yield Finding("red", "not finite", text, _cure_for(recorder, event.kind))
            return
    if recorder.skips > max(SKIPS * recorder.steps, FIRST_SKIPS):
        share = _percent(recorder.skips / recorder.steps)
        first = next(event for event in recorder.events if event.skipped)
        yield Finding(
            "amber",
            "not finite",
            f"{share} of the steps were skipped; the first tensor that was not finite, at step "
            f"{first.step}, was {name_of(recorder, first.kind, first.name)}",
            "start from a smaller loss scale, or look at what overflows without one",
        )


def _cure_for(recorder: Recorder, kind: str) -> str:
    if _starved_share(recorder) > STARVED:
        return "the update before it was enormous, for second moments were zero"
    if kind in ("moment", "update"):
        return "keep the optimizer's state in float32, as the mixed policies do"
    if kind in GRADIENTS and recorder.policy.loss_scale is None:
        return "scale the loss down, or use bfloat16, whose range is that of float32"
    return "scale the data, normalise the layers, or use bfloat16, whose range is that of float32"


def new_zeros(recorder: Recorder) -> Iterator[Finding]:
    """Tell the tensor of each kind that loses the most to zero, where the loss matters."""
    for kind in ("weight_gradient", "activation_gradient", "activation", "weight"):
        harmed = [(track, _harmed(track)) for track in recorder.of_kind(kind)]
        worst = max(
            ((track, rows) for track, rows in harmed if rows is not None),
            key=lambda pair: pair[1].new_zero_rate,
            default=None,
        )
        if worst is None:
            continue
        track, tally = worst
        scaled = recorder.policy.loss_scale is not None
        how = "" if scaled or kind not in GRADIENTS else " without scaling"
        others = sum(rows is not None for _, rows in harmed) - 1
        and_others = f", and {others} other{'s' * (others > 1)} with them" if others else ""
        level = "red" if tally.new_zero_rate > RED_ZEROS else "amber"
        yield Finding(
            level,
            "new zeros",
            f"{_capital(name_of(recorder, kind, track.name))}: {_percent(tally.new_zero_rate)} of "
            f"nonzero values vanish in {track.fmt}{how}{and_others}",
            _cure_for_zeros(recorder, kind),
        )


def _harmed(track: Track) -> Tally | None:
    """Return the rows in which zeros do harm, together, if these are a quarter or more."""
    rows = [row for row in track.rows if row.nonzero]
    bad = [row for row in rows if is_harmed(row.new_zero_rate, 10 ** (-row.sqnr_db / 20))]
    if not bad or 4 * len(bad) < len(rows):
        return None
    whole = bad[0]
    for row in bad[1:]:
        whole = whole.merge(row)
    return whole


def _cure_for_zeros(recorder: Recorder, kind: str) -> str:
    if kind in GRADIENTS:
        return str(advise_scale(recorder, recorder.policy.formats["gradients"]))
    return "scale the data or the initial weights up, or use bfloat16"


def headroom(recorder: Recorder) -> Iterator[Finding]:
    """Tell the tensor that comes closest to the maximum; a dynamic loss scale means to."""
    kinds = ["moment"]
    if not recorder.policy.tensor_scales:
        kinds += ["weight", "activation", "preactivation"]
    if not _is_dynamic(recorder) and not recorder.policy.tensor_scales:
        kinds += GRADIENTS
    tracks = [(track, track.whole) for track in recorder.of_kind(*kinds)]
    tight = [(track, whole) for track, whole in tracks if whole.headroom_bits < HEADROOM]
    if not tight:
        return
    track, whole = min(tight, key=lambda pair: pair[1].headroom_bits)
    tensor = _capital(name_of(recorder, track.kind, track.name))
    cure = "scale the data, or use bfloat16"
    if track.kind == "moment":
        cure = "keep the optimizer's state in float32, as the mixed policies do"
    elif track.kind in GRADIENTS and recorder.policy.loss_scale is not None:
        cure = "use a smaller loss scale"
    if whole["overflows"]:
        text = f"{tensor}: {whole['overflows']:.0f} values overflowed {track.fmt}"
        yield Finding("red", "headroom", f"{text}, the largest {whole['largest']:.4g}", cure)
        return
    text = f"{tensor} come within {max(whole.headroom_bits, 0):.1f} bits of {track.fmt}'s maximum"
    yield Finding("amber", "headroom", text, cure)


def _is_dynamic(recorder: Recorder) -> bool:
    scale = recorder.policy.loss_scale
    return isinstance(scale, LossScale) and not scale.is_static


def targets(recorder: Recorder) -> Iterator[Finding]:
    """Tell targets whose square overflows the format of the forward pass."""
    for track in recorder.of_kind("target"):
        root, largest = math.sqrt(track.fmt.max), track.whole["max_abs"]
        if largest > root:
            yield Finding(
                "amber",
                "targets",
                f"Targets reach {largest:g}, beyond the {root:.0f} whose square {track.fmt} holds: "
                f"a squared error computed in {track.fmt} is infinite while its gradients are "
                "finite",
                "compute the loss in float32, as here, and scale the targets",
            )


def offset(recorder: Recorder) -> Iterator[Finding]:
    """Tell a feature whose deviation is lost beside its mean."""
    found, fmt = recorder.facts.get("offset"), recorder.policy.formats["compute"]
    if found and found["ratio"] > 2.0**fmt.precision:
        yield Finding(
            "amber",
            "offset",
            f"Feature {found['feature']} has a mean {found['ratio']:.0f} times its deviation: "
            f"{fmt}, of {fmt.precision} bits, keeps nothing of what varies",
            'standardise the features: data.scaled("standard")',
        )


# Precision ---------------------------------------------------------------------------------------


def lost_updates(recorder: Recorder) -> Iterator[Finding]:
    """Tell that updates are lost, and whether that costs anything."""
    fmt = recorder.policy.formats["params"]
    changes = sum(track.whole["changes"] for track in recorder.of_kind("update"))
    lost = sum(track.whole["lost"] for track in recorder.of_kind("update"))
    share = lost / changes if changes else 0.0
    if share <= SOME_LOST or recorder.policy.update != "nearest" or recorder.is_broken:
        return
    text = f"{_percent(share)} of updates are lost in {fmt} weights"
    gap = loss_gap(recorder)
    if gap is None and share > LOST:
        cure = "whether that costs anything shows beside float32: pass reference="
        yield Finding("note", "lost updates", text, cure)
    elif gap is not None and gap > GAP:
        yield Finding(
            "red" if share > LOST else "amber",
            "lost updates",
            f"{text}, and the loss ends {_times(gap)} float32's",
            "keep float32 master weights, or round updates stochastically or with Kahan's sum",
        )


def _times(gap: float) -> str:
    return f"{100 * gap:.0f} % above" if gap < 2 else f"at {gap + 1:.3g} times"


def loss_gap(recorder: Recorder) -> float | None:
    """Return by how much the last loss exceeds the reference's, as a share; None without one."""
    losses = recorder.curves.get("loss", [])
    if not recorder.reference or not losses:
        return None
    reference = recorder.reference[min(len(losses), len(recorder.reference)) - 1]
    return losses[-1] / reference - 1 if reference > 0 else math.inf


def optimizer_numbers(recorder: Recorder) -> Iterator[Finding]:
    """Tell numbers of the optimizer that its formats do not hold."""
    numbers, state = recorder.facts.get("hyperparameters", {}), recorder.policy.formats["state"]
    yield from _epsilon(recorder, numbers, state)
    yield from _betas(recorder, numbers, state)
    yield from _decay(recorder, numbers)


def _epsilon(recorder: Recorder, numbers: dict[str, Any], state: Format) -> Iterator[Finding]:
    epsilon = numbers.get("epsilon")
    if epsilon and _rounded(epsilon, state) == 0:
        starved = _starved_share(recorder) > STARVED
        yield Finding(
            "amber" if starved else "note",
            "numbers of the optimizer",
            f"epsilon={epsilon:g} is 0 in {state}, whose smallest number is "
            f"{state.smallest_subnormal:.2g}",
            f"use epsilon={2.0 ** math.ceil(math.log2(state.smallest_normal)):.2g} or more, or "
            "keep the state in float32",
        )


def _betas(recorder: Recorder, numbers: dict[str, Any], state: Format) -> Iterator[Finding]:
    for word, moment in (("beta_2", "second_moment"), ("rho", "second_moment")):
        beta = numbers.get(word)
        if beta is None or beta >= 1 or _rounded(beta, state) != 1:
            continue
        tracks = [t for t in recorder.of_kind("moment") if t.name.startswith(moment)]
        changes = sum(track.whole["changes"] for track in tracks)
        stuck = sum(track.whole["lost"] for track in tracks) / changes if changes else 0.0
        gap = loss_gap(recorder) or 0.0
        yield Finding(
            "amber" if stuck > STUCK and gap > GAP else "note",
            "numbers of the optimizer",
            f"{word}={beta:g} is 1 in {state}: {_percent(stuck)} of the changes of second moments "
            "were lost, so that they hardly decay",
            "keep the state in float32, or use a smaller beta",
        )


def _decay(recorder: Recorder, numbers: dict[str, Any]) -> Iterator[Finding]:
    fmt = recorder.policy.formats["params"]
    decay, rate = numbers.get("weight_decay"), numbers.get("learning_rate")
    if not decay or not isinstance(rate, float) or recorder.policy.update != "nearest":
        return
    kept = 1 - rate * decay
    if _rounded(kept, fmt) == 1 and fmt != get_format("float32"):
        missed = 1 - kept**recorder.steps  # what float32 weights would have shrunk by
        yield Finding(
            "amber" if missed > SHRUNK else "note",
            "numbers of the optimizer",
            f"1 - rate · decay = {kept:.6g} is 1 in {fmt}: the weight decay of {decay:g} vanishes, "
            f"which would have shrunk weights by {_percent(missed)} in this run",
            "keep float32 master weights, or round updates stochastically or with Kahan's sum",
        )


def _rounded(value: float, fmt: Format) -> float:
    return float(round_to(float(value), fmt))


def _starved_share(recorder: Recorder) -> float:
    moving, starved = recorder.facts["starved"]
    return starved / moving if moving else 0.0


def starved_moments(recorder: Recorder) -> Iterator[Finding]:
    """Tell that second moments are zero where first are not."""
    share = _starved_share(recorder)
    if share > STARVED:
        state = recorder.policy.formats["state"]
        smallest = math.sqrt(state.smallest_subnormal)
        yield Finding(
            "red",
            "starved moments",
            f"{_percent(share)} of the second moments are zero in {state} where the first are not: "
            f"squares of gradients below {smallest:.2g} vanish, and epsilon alone divides",
            "keep the optimizer's state in float32, as the mixed policies do",
        )


def long_sums(recorder: Recorder) -> Iterator[Finding]:
    """Tell sums that are too long for their accumulator."""
    terms = recorder.facts.get("longest", 0)
    order, block = recorder.facts.get("order"), recorder.facts.get("block")
    if order not in ("sequential", "blocked"):
        return
    terms = math.ceil(terms / block) if order == "blocked" and block else terms
    fmt = recorder.policy.formats["accumulate"]
    if terms > 2**fmt.precision:
        yield Finding(
            "red" if terms > 4 * 2**fmt.precision else "amber",
            "long sums",
            f"Sums of {terms} terms are accumulated in {fmt}, whose {fmt.precision} bits stall "
            f"after {2**fmt.precision} equal ones",
            "accumulate in float32, or in blocks or pairs",
        )


def output_precision(recorder: Recorder) -> Iterator[Finding]:
    """Tell that the outputs' own rounding is most of the error."""
    outputs = [track for track in recorder.of_kind("activation") if track.name != "input"]
    errors = recorder.of_kind("error")
    if not outputs or not errors or not errors[0].length or recorder.is_broken:
        return
    last, error = outputs[-1].rows[-1], errors[0].rows[-1]
    if error.rms and last.noise_rms > error.rms / 2:
        fmt = outputs[-1].fmt
        yield Finding(
            "red",
            "precision of the outputs",
            f"The rounding of the outputs to {fmt} has an RMS of {last.noise_rms:.2g}, the error "
            f"that is left {error.rms:.2g}",
            "master weights will not help here: outputs themselves need more than "
            f"{fmt.precision} bits; centre the targets, or keep the last layer in float32",
        )
