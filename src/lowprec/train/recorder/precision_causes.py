"""What a format's precision loses, and the optimizer with it: one function a rule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lowprec.conversion.door import round_to
from lowprec.formats import Format, float32, get_format
from lowprec.train.recorder.coverage import is_watched
from lowprec.train.recorder.finding import Finding, capital, name_of, percent, starved_share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lowprec.train.recorder.record import Record
    from lowprec.train.recorder.tracks import Track

LOST = 0.8
SOME_LOST = 0.5
SHRUNK = 0.01
STARVED = 0.01
STUCK = 0.5
_SOME_DROWNED = 0.25  # of the units
_COARSE = 16  # spacings an update, of which the rounding is four times as large
_OUTLIER = 64  # times the median unit: six of the few bits that narrow formats have


def offset(recorder: Record) -> Iterator[Finding]:
    """Tell a feature whose deviation is lost beside its mean."""
    found, fmt = recorder.facts.get("offset"), recorder.format_of("activation", "input")
    if found and found["ratio"] > 2.0**fmt.precision:
        yield Finding(
            "amber",
            "offset",
            f"Feature {found['feature']} has a mean {found['ratio']:.0f} times its deviation: "
            f"{fmt}, of {fmt.precision} bits, keeps nothing of what varies",
            'standardise the features: data.scaled("standard")',
        )


def lost_updates(recorder: Record) -> Iterator[Finding]:
    """Tell that updates are lost, and whether that costs anything."""
    yield from _noisy_updates(recorder)
    gathers = costs(recorder) and recorder.policy.update == "kahan"
    how = ("nearest", "kahan") if gathers else ("nearest",)
    tracks = [track for track in recorder.of_kind("update") if _rounds_to(recorder, track, *how)]
    share = _share_of_lost(tracks)
    whose, worst = "", max(tracks, key=lambda track: track.whole["lost"], default=None)
    if share <= SOME_LOST:  # a bias whose every update is lost hides behind kernels
        share, worst = _worst_tensor(recorder, tracks)
        whose = f", in a tenth of the run, of {recorder.label(worst.name)}" if worst else ""
    if share <= SOME_LOST or worst is None or recorder.is_broken:
        return
    fmt, tensor = _stored_in(recorder, worst), ("update", worst.name)
    text = f"{percent(share)} of updates are lost in {fmt} weights{whose}"
    is_costly = costs(recorder)
    if is_costly and share > LOST and _rounds_to(recorder, worst, "kahan"):
        text += f", and Kahan's sum, in {fmt.precision} bits too, does not gather them"
        cure = "keep float32 master weights, or bfloat16 ones with Kahan's sum"
        yield Finding("red", "lost updates", text, cure, tensor, "lost")
    elif _rounds_to(recorder, worst, "kahan"):
        return  # what is lost in one step comes in a later one
    elif is_costly is None:
        cure = _where_it_costs(
            recorder,
            "keep float32 master weights, or round updates stochastically or with Kahan's sum",
        )
        level = ("red" if share > LOST else "amber") if is_watched(recorder) else "note"
        yield Finding(level, "lost updates", text, cure, tensor, "lost")
    elif is_costly:
        yield Finding(
            "red" if share > LOST else "amber",
            "lost updates",
            text,
            "keep float32 master weights, or round updates stochastically or with Kahan's sum",
            tensor,
            "lost",
        )


def _noisy_updates(recorder: Record) -> Iterator[Finding]:
    """Tell a weight whose updates are far below a spacing, rounded stochastically, at a cost."""
    worst, steps = None, float(_COARSE)
    for track in recorder.of_kind("update") if costs(recorder) else ():
        weight = recorder.tracks.get(("weight", track.name))
        if weight is None or not track.whole.rms or not _rounds_to(recorder, track, "stochastic"):
            continue
        spacings = weight.whole.rms * _stored_in(recorder, track).eps / track.whole.rms
        if spacings > steps:
            worst, steps = track, spacings
    if worst is not None:
        fmt = _stored_in(recorder, worst)
        yield Finding(
            "amber",
            "lost updates",
            f"A spacing of {fmt} is about {steps:.2g} times an update of "
            f"{recorder.label(worst.name)}: rounded stochastically, updates become noise",
            f"keep weights in more than {fmt.precision} bits",
            ("update", worst.name),
            "lost",
        )


def _where_it_costs(recorder: Record, cure: str) -> str:
    """Return a cure with the condition under which it is one, where nobody knows whether it is."""
    if costs(recorder) is not None:
        return cure
    return f"if the loss falls behind float32's (pass reference= to see), {cure}"


def lost_share(recorder: Record) -> float:
    """Return the share of updates that are lost for good, in weights narrower than float32."""
    return _share_of_lost(
        [
            track
            for track in recorder.of_kind("update")
            if _rounds_to(recorder, track, "nearest")
            and _stored_in(recorder, track).precision < float32.precision
        ]
    )


def _share_of_lost(tracks: list[Track]) -> float:
    wholes = [track.whole for track in tracks]
    changes = sum(whole["changes"] for whole in wholes)
    return sum(whole["lost"] for whole in wholes) / changes if changes else 0.0


def _stored_in(recorder: Record, track: Track) -> Format:
    return recorder.policy_at("update", track.name).formats["params"]


def _rounds_to(recorder: Record, track: Track, *how: str) -> bool:
    return recorder.policy_at("update", track.name).update in how


def _worst_tensor(recorder: Record, tracks: list[Track]) -> tuple[float, Track | None]:
    """Return the largest share of lost updates in a tenth of the run, and whose it is.

    A tensor counts where the lost updates are most of its updates by their squares, or more than
    `LOST` of the whole run.
    """
    worst, whose = 0.0, None
    for track in tracks:
        precision = _stored_in(recorder, track).precision
        if track.lost_at(precision)[1] <= SOME_LOST and track.whole.lost_rate <= LOST:
            continue
        share = max((tenth.lost_rate for tenth in track.tenths), default=0.0)
        if share > max(worst, LOST):
            worst, whose = share, track
    return worst, whose


def costs(recorder: Record) -> bool | None:
    """Return whether the run ends worse than its reference; None without one."""
    if recorder.reference_account is None:
        return None
    outcome = recorder.outcome
    return outcome.is_red and outcome.kind != "float32 too"


def optimizer_numbers(recorder: Record) -> Iterator[Finding]:
    """Tell numbers of the optimizer that its formats do not hold."""
    numbers, state = recorder.facts.get("hyperparameters", {}), recorder.policy.formats["state"]
    states = [state, *(track.fmt for track in recorder.of_kind("moment"))]
    yield from _epsilon(recorder, numbers, max(states, key=lambda fmt: fmt.smallest_subnormal))
    yield from _betas(recorder, numbers)
    yield from _decay(recorder, numbers)


def _epsilon(recorder: Record, numbers: dict[str, Any], state: Format) -> Iterator[Finding]:
    epsilon = numbers.get("epsilon")
    if epsilon and _rounded(epsilon, state) == 0:
        starved = starved_share(recorder) > STARVED
        if costs(recorder) and not starved:
            return
        yield Finding(
            "amber" if starved else "note",
            "numbers of the optimizer",
            f"epsilon={epsilon:g} is 0 in {state}, whose smallest number is "
            f"{state.smallest_subnormal:.2g}",
            f"use epsilon={2.0 ** math.ceil(math.log2(state.smallest_normal)):.2g} or more, or "
            "keep the state in float32",
        )


_AVERAGES = {  # what each number makes decay: the optimizer's state, and its name in a sentence
    "beta_1": {"first_moment": "first moments"},
    "beta_2": {"second_moment": "second moments", "infinity_norm": "infinity norms"},
    "rho": {"second_moment": "second moments"},
    "momentum": {"momentum": "momentum buffers"},
}


def _betas(recorder: Record, numbers: dict[str, Any]) -> Iterator[Finding]:
    for word, averages in _AVERAGES.items():
        beta = numbers.get(word, 1)
        moments = [t for t in recorder.of_kind("moment") if t.slot.kind in averages]
        tracks = [t for t in moments if beta < 1 and _rounded(beta, t.fmt) == 1]
        if not tracks:
            continue
        state = max((t.fmt for t in tracks), key=lambda fmt: fmt.eps)
        kind = averages[tracks[0].slot.kind]
        changes = sum(track.whole["changes"] for track in tracks)
        stuck = sum(track.whole["lost"] for track in tracks) / changes if changes else math.nan
        if stuck < SHRUNK:
            continue  # the average is taken in float32, and its changes are large enough
        told = f"whether the {kind} hardly decay was not seen"
        if changes:
            slow = ", so that they hardly decay" if stuck > STUCK else ""
            told = f"{percent(stuck)} of the changes of {kind} were lost{slow}"
        yield Finding(
            "red" if stuck > STUCK and costs(recorder) else "note",
            "numbers of the optimizer",
            f"{word}={beta:g} is 1 in {state}: {told}",
            _where_it_costs(recorder, "keep the state in float32, or use a smaller beta"),
            column="lost",
        )


def _decay(recorder: Record, numbers: dict[str, Any]) -> Iterator[Finding]:
    fmt = recorder.policy.formats["params"]
    decay, (highest, total) = numbers.get("weight_decay"), recorder.facts["rates"]
    # with momentum, or divided by a root mean square, a penalty's gradient is no such factor
    is_factor = recorder.facts.get("optimizer") in ("AdamW", "SGD") and not numbers.get("momentum")
    if not decay or not highest or not is_factor or recorder.policy.update != "nearest":
        return
    kept = 1 - highest * decay
    if _rounded(kept, fmt) == 1 and fmt != get_format("float32"):
        missed = -math.expm1(-total * decay)  # what float32 weights would have shrunk by
        yield Finding(
            "amber" if missed > SHRUNK else "note",
            "numbers of the optimizer",
            f"1 - rate · decay = {kept:.6g} is 1 in {fmt}: the weight decay of {decay:g} vanishes, "
            f"which would have shrunk weights by {percent(missed)} in this run",
            "keep float32 master weights, or round updates stochastically or with Kahan's sum",
        )


def _rounded(value: float, fmt: Format) -> float:
    return float(round_to(float(value), fmt))


def starved_moments(recorder: Record) -> Iterator[Finding]:
    """Tell that second moments are zero where first are not."""
    share, when = starved_share(recorder), ""
    most = recorder.facts.get("starved_most", 0.0)
    if share <= STARVED < most and (costs(recorder) or recorder.is_broken):
        share, when = most, " in one step"  # one is enough where epsilon alone divides
    if share > STARVED:
        worst = _starving(recorder)
        state = recorder.policy.formats["state"] if worst is None else worst.fmt
        smallest = math.sqrt(state.smallest_subnormal)
        epsilon = recorder.facts.get("hyperparameters", {}).get("epsilon", 0)
        is_costly = costs(recorder)
        level = "amber"
        if recorder.is_broken or is_costly or _rounded(epsilon, state) == 0:
            level = "red"
        yield Finding(
            level,
            "starved moments",
            f"{percent(share)} of {_divisors(recorder, state)}{when}: squares of gradients below "
            f"{smallest:.2g} vanish, and epsilon alone divides",
            "keep the optimizer's state in float32, as the mixed policies do",
            None if worst is None else ("moment", worst.name),
        )


def _starving(recorder: Record) -> Track | None:
    """Return the tensor of the state that loses the most to zero."""
    moments = recorder.of_kind("moment")
    return max(moments, key=lambda track: track.whole.new_zero_rate, default=None)


def _divisors(recorder: Record, state: Format) -> str:
    """Say what an optimizer divides by, and that it is zero."""
    kinds = {track.slot.kind for track in recorder.of_kind("moment")}
    if "first_moment" in kinds or not kinds:
        return f"the second moments are zero in {state} where the first are not"
    names = "sums of squares" if "sum_of_squares" in kinds else "mean squares"
    return f"the {names} are zero in {state} where gradients are not"


def stalled_state(recorder: Record) -> Iterator[Finding]:
    """Tell averages and sums of the optimizer that no longer change, by tensor and by tenth."""
    least = STUCK / 2 if costs(recorder) else STUCK
    worst: tuple[float, Track] | None = None
    for track in recorder.of_kind("moment"):
        if track.fmt == float32:
            continue
        share = max((tenth.lost_rate for tenth in track.tenths), default=0.0)
        if track.whole["overflows"] or track.whole["infs"]:  # what is infinite stalls of itself
            continue
        if share > least and (worst is None or share > worst[0]):
            worst = share, track
    if worst is not None:
        share, track = worst
        yield Finding(
            "red" if costs(recorder) else "note",
            "stalled state",
            f"{capital(name_of(recorder, 'moment', track.name))}: {percent(share)} of the changes "
            f"are lost in {track.fmt} in a tenth of the run, so that they stall",
            _where_it_costs(recorder, "keep the optimizer's state in float32"),
            ("moment", track.name),
            "lost",
        )


def noisy_units(recorder: Record) -> Iterator[Finding]:
    """Tell a layer whose rounding errors hide what varies in its units, as an offset makes them."""
    noisy = recorder.facts.get("noisy_units", {})
    name = max(noisy, key=lambda one: float(noisy[one]), default=None)
    if name is None or noisy[name] <= SOME_LOST:
        return
    track = recorder.tracks["activation", name]
    whole = track.whole
    yield Finding(
        "red" if costs(recorder) else "amber",
        "noise beside the deviation",
        f"{capital(name_of(recorder, 'activation', name))} lie around {whole.mean:.4g}, and in "
        f"{percent(noisy[name])} of the units rounding to {track.fmt} is more than half of what "
        "varies",
        "keep that layer in float32, or take the offset away: centre its inputs, or start its "
        "biases from zeros",
        ("activation", name),
        "noise",
    )


def drowned_units(recorder: Record) -> Iterator[Finding]:
    """Tell a layer of which one unit sets the scale, so that rounding hides the others."""
    if not recorder.policy.tensor_scales:
        return
    drowned = recorder.facts.get("drowned_units", {})
    name = max(drowned, key=lambda one: float(drowned[one][0]), default=None)
    if name is None:
        return
    share, largest, times = drowned[name]
    if share <= _SOME_DROWNED or times < _OUTLIER:
        return
    track = recorder.tracks["activation", name]
    unit, of = "feature", ""
    cure = 'standardise the features: data.scaled("standard"), or scale by block'
    if name != "input":
        unit, of = "unit", f" of {name_of(recorder, 'activation', name)}"
        cure = "normalise before that layer, scale by block, or keep it in float32"
    yield Finding(
        "red" if costs(recorder) else "amber",
        "one unit sets the scale",
        f"{capital(unit)} {largest}{of} is {times:,.0f} times as large as the median {unit} and "
        f"sets the scale of them all: in {percent(share)} of the {unit}s rounding to {track.fmt} "
        "is more than half of what varies",
        cure,
        ("activation", name),
        "noise",
    )


def colliding_inputs(recorder: Record) -> Iterator[Finding]:
    """Tell a feature of whole numbers that the inputs' format does not tell apart."""
    found = recorder.facts.get("collisions")
    if not found or recorder.policy.tensor_scales:
        return
    fmt = recorder.format_of("activation", "input")
    yield Finding(
        "red" if costs(recorder) else "note",
        "colliding inputs",
        f"Feature {found['feature']} holds whole numbers up to {found['largest']:.10g}, and "
        f"{fmt}, of {fmt.precision} bits, tells those beyond {2**fmt.precision} no longer apart: "
        f"of {found['distinct']:,} distinct values {found['left']:,} "
        f"{'is' if found['left'] == 1 else 'are'} left",
        _cure_for_collisions(fmt, found),
        ("activation", "input"),
        "noise",
    )


def _cure_for_collisions(fmt: Format, found: dict[str, Any]) -> str:
    float16 = get_format("float16")
    finer = f"take float16, exact to {2**float16.precision}"
    is_enough = fmt.precision < float16.precision and found["largest"] <= 2**float16.precision
    wide = 'keep the inputs in float32: Policy(layers={"inputs": {"compute": "float32"}})'
    if found["is_offset"]:
        return f'standardise the features: data.scaled("standard"), or {wide}'
    return f"{finer}, or {wide}" if is_enough else wide


def long_sums(recorder: Record) -> Iterator[Finding]:
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


def output_precision(recorder: Record) -> Iterator[Finding]:
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
            ("activation", outputs[-1].name),
            "noise",
        )
