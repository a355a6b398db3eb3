"""What leaves the range of a format: one function a rule, each returns findings."""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING

from lowprec.formats import float32
from lowprec.train.loss_scale import LossScale
from lowprec.train.recorder.coverage import is_watched
from lowprec.train.recorder.finding import Finding, capital, name_of, percent, starved_share
from lowprec.train.recorder.kinds import GRADIENTS, KINDS, layer_of
from lowprec.train.recorder.operations import Operation, WrongOperand
from lowprec.train.recorder.precision_causes import STARVED
from lowprec.train.recorder.scaling import advise_scale, harmed_rows
from lowprec.train.recorder.tracks import Tally
from lowprec.train.recorder.watching import SQUARES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lowprec.formats import Format
    from lowprec.train.recorder.kinds import Event
    from lowprec.train.recorder.record import Record
    from lowprec.train.recorder.tracks import Track

RED_ZEROS = 0.2
HEADROOM = 2.0
SKIPS = 0.05
GROWN = 256.0
_DIVERGES = "float32 would overflow too: lower the learning rate, clip gradients, or scale the data"
_STORED = {"moment": ("state", "the state is"), "update": ("params", "weights are")}
FIRST_SKIPS = 15  # while a dynamic scale finds its level


def not_finite(recorder: Record) -> Iterator[Finding]:
    """Tell what first became infinite or NaN, and whether too many steps were skipped."""
    for event in recorder.events:
        if not event.skipped:
            is_weight = event.kind == "update" and made_of(recorder, event)[0] == "rounding"
            tensor = name_of(recorder, "weight" if is_weight else event.kind, event.name)
            text = f"{capital(tensor)} stopped being finite at step {event.step}"
            if math.isfinite(event.value):
                fmt = recorder.track(event.kind, event.name).fmt
                text += f": {event.value:.6g} is beyond the {fmt.max:g} of {fmt}"
            elif event.kind in _STORED and made_of(recorder, event)[0] == "rounding":
                part, stored = _STORED[event.kind]
                fmt = recorder.policy_at(event.kind, event.name).formats[part]
                text += f": beyond the {fmt.max:g} of {fmt}, in which {stored} stored"
            elif made_of(recorder, event)[0] == "rounding":  # seen from outside
                fmt = recorder.format_of(event.kind, event.name)
                is_narrow = fmt.emax < float32.emax
                text += f": beyond the {fmt.max:g} of {fmt}" if is_narrow else ": out of range"
            text += _arithmetic_of(recorder, event)
            tensor_of = (event.kind, event.name)
            yield Finding("red", "not finite", text, _cure_for(recorder, event), tensor_of)
            return
    yield from _validation(recorder)
    yield from _observed_not_finite(recorder)
    if is_watched(recorder):
        return  # whose skipped steps have a rule of their own
    is_mostly_skipped = 2 * recorder.skips > recorder.steps
    if is_mostly_skipped or recorder.skips > max(SKIPS * recorder.steps, FIRST_SKIPS):
        text = f"{percent(recorder.skips / recorder.steps)} of the steps were skipped"
        first = next((event for event in recorder.events if event.skipped), None)
        if first is not None:
            tensor = name_of(recorder, first.kind, first.name)
            text += f"; the first tensor that was not finite, at step {first.step}, was {tensor}"
            text += _arithmetic_of(recorder, first)
        made, operation = ("rounding", None) if first is None else made_of(recorder, first)
        yield Finding(
            "amber",
            "not finite",
            text,
            _cure_for(recorder, first)
            if first is not None
            and (
                operation
                or made == "NaN"
                or first.kind not in GRADIENTS  # which alone carry the loss scale
                or _narrow_sums(recorder, first)
            )
            else _DIVERGES
            if recorder.outcome.kind == "float32 too"
            else _cure_for_skips(recorder),
            None if first is None else (first.kind, first.name),
        )


def _cure_for_skips(recorder: Record) -> str:
    """Return what to do where the loss scale makes steps be skipped."""
    values = [value for _, value in recorder.scales]
    grown = sum(now > before for before, now in itertools.pairwise(values))
    if _is_dynamic(recorder) and 2 * grown >= recorder.skips:
        return (
            "the loss scale grows back each time: let it grow less often (growth_interval) or by "
            "less (growth_factor), or use loss_scale='dynamic'"
        )
    return "start from a smaller loss scale, or look at what overflows without one"


def _validation(recorder: Record) -> Iterator[Finding]:
    """Tell that validation alone is not finite, of which no tensor is recorded."""
    outcome = recorder.outcome
    if outcome.reason != "not finite" or recorder.is_broken or not math.isfinite(outcome.end or 0):
        return
    fmt = recorder.policy.formats["compute"]
    limit = f"the {fmt.max:g} of {fmt}" if fmt.emax < float32.emax else "the range of float32"
    yield Finding(
        "red",
        "not finite",
        "Training is finite, validation is not: its data, or what the network makes of them, are "
        f"beyond {limit}",
        "look for outliers in the validation data, or scale them"
        + (", or use bfloat16, whose range is that of float32" * (fmt.emax < float32.emax)),
    )


def _narrow_sums(recorder: Record, event: Event) -> Format | None:
    """Return the format that products are accumulated in, if it can make a tensor not finite.

    The tensor is one that a product made of finite numbers, and the range is less than float32's.
    """
    made, operation = made_of(recorder, event)
    layer = layer_of(event.kind, event.name)
    if event.kind == "activation_gradient":  # the layer behind made it
        layer = "0" if layer == "input" else str(int(layer) + 1) if layer.isdecimal() else ""
    if made == "rounding" or operation or event.kind in ("weight", "moment", "update"):
        return None
    if not any(("weight", f"{layer}/{name}") in recorder.tracks for name in ("kernel", "weight")):
        return None
    sums = recorder.policy_at("weight", f"{layer}/kernel").accumulator
    narrow = [fmt for fmt in sums.formats if fmt.emax < float32.emax]
    return narrow[0] if narrow else None


def _observed_not_finite(recorder: Record) -> Iterator[Finding]:
    """Tell a tensor from elsewhere that was not finite, unless its steps were skipped."""
    if "model" in recorder.facts or recorder.skips or recorder.events:
        return
    for track in recorder.tracks.values():
        for row in track.rows:
            wrong = row["nans"] + row["infs"]
            if not wrong:
                continue
            kind = "NaN" if row["nans"] else "infinite"
            share = "all" if wrong == row["count"] else f"{percent(wrong / row['count'])} of"
            text = (
                f"{capital(name_of(recorder, track.kind, track.name))}: {share} values are {kind} "
                f"at step {row['first_step']:.0f}"
            )
            before = "look at the data and at what was computed before: nothing returns from there"
            cure = f"{before}, whatever the format"
            if not row["nans"] and track.fmt.emax < float32.emax:
                cure = (
                    f"if they were finite before they became {track.fmt}, which ends at "
                    f"{track.fmt.max:g}, scale the data, or use bfloat16, whose range is that of "
                    f"float32; else {before}"
                )
            yield Finding("red", "not finite", text, cure, (track.kind, track.name))
            return


def made_of(recorder: Record, event: Event) -> tuple[str, Operation | None]:
    """Return what made a tensor not finite, as `made_by` names it, and the operation if known."""
    usual = ["infinity" if math.isinf(event.value) else "rounding"]
    made, *told = recorder.facts.get("made", {}).get(str(event.step), usual)
    if not any(told):
        return made, None
    words, *wrong = told  # a record of an earlier lowprec has the words alone
    return made, Operation(words, WrongOperand(*wrong) if wrong else WrongOperand.UNKNOWN)


def _arithmetic_of(recorder: Record, event: Event) -> str:
    """Say that arithmetic made a tensor not finite, and by which operation, as far as known."""
    made, operation = made_of(recorder, event)
    if made == "rounding":
        return ""
    if (fmt := _narrow_sums(recorder, event)) is not None:
        return f": a sum in {fmt}, in which products are accumulated, left its range"
    if made == "given":
        return ": what it read was not finite already"
    what = "an infinity" if made == "infinity" else made
    by = f" ({operation.words})" if operation else ""
    return f": arithmetic made {what} of finite numbers{by}"


def _is_to_blame(recorder: Record, fmt: Format) -> bool:
    """Return whether a format's range can be the cause, rather than the training itself."""
    return fmt.emax < float32.emax and all(map(math.isfinite, recorder.reference or ()))


def _cure_for_divergence(
    recorder: Record, fmt: Format, kind: str, name: str, largest: float
) -> str | None:
    """Return what to do where the training diverges, or seems to; None where the range is to blame.

    It seems to where a tensor grew, no reference tells whether it does in float32, and neither
    moments in a narrow range nor a loss scale explain the growth.
    """
    if not _is_to_blame(recorder, fmt):
        return _DIVERGES
    is_narrow = recorder.policy.formats["state"].emax < float32.emax
    is_scaled = kind in GRADIENTS and recorder.policy.loss_scale is not None
    track = recorder.tracks.get((kind, name))
    if recorder.reference or is_narrow or is_scaled or track is None or name == "input":
        return None
    first = next((row["max_abs"] for row in track.rows if row["max_abs"]), math.inf)
    if not GROWN * first <= largest < math.inf:
        return None
    return (
        f"they grew {float(f'{largest / first:.2g}'):,.0f}-fold, as where training diverges: lower "
        "the learning rate or clip gradients, or pass reference= to see whether float32 trains"
    )


def _cure_for(recorder: Record, event: Event) -> str:
    kind = event.kind
    made, operation = made_of(recorder, event)
    if made != "rounding" and _narrow_sums(recorder, event) is not None:
        return "accumulate in float32 or bfloat16, or scale the data"
    if made == "given":
        return "look at the data, and at what is computed before it"
    if operation or made == "NaN":
        return (operation.wrong if operation else WrongOperand.UNKNOWN).cure
    if starved_share(recorder) > STARVED:
        return "the update before it was enormous, for second moments were zero"
    if kind == "update" and made == "rounding":
        return "keep float32 or bfloat16 master weights"
    fmt = recorder.policy.formats.get(KINDS[kind], float32)
    if cure := _cure_for_divergence(recorder, fmt, kind, event.name, event.value):
        return cure
    if kind in ("moment", "update"):
        return "keep the optimizer's state in float32, as the mixed policies do"
    if kind in GRADIENTS and recorder.policy.loss_scale is None:
        return "scale the loss down, or use bfloat16, whose range is that of float32"
    return "scale the data, normalise the layers, or use bfloat16, whose range is that of float32"


def new_zeros(recorder: Record) -> Iterator[Finding]:
    """Tell the tensor of each kind that loses the most to zero, where the loss matters."""
    yield from _vanished_inside(recorder)
    for kind in ("weight_gradient", "activation_gradient", "activation", "weight", "moment"):
        tracks = recorder.of_kind(kind)
        if kind == "moment":  # squares have a rule of their own
            tracks = [track for track in tracks if track.slot.kind not in SQUARES]
        harmed = [(track, _harmed(track)) for track in tracks]
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
            f"{capital(name_of(recorder, kind, track.name))}: {percent(tally.new_zero_rate)} of "
            f"nonzero values vanish in {track.fmt}{how}{and_others}",
            _cure_for_zeros(recorder, track),
            (kind, track.name),
        )


def _vanished_inside(recorder: Record) -> Iterator[Finding]:
    """Tell a kernel whose gradients are all zero, for what reaches its layer vanishes in it."""
    for track in recorder.of_kind("weight_gradient"):
        layer, _, short = track.name.partition("/")
        whole, fmt = track.whole, track.fmt
        if short != "kernel" or not layer.isdecimal() or not whole["zeros"] or fmt == float32:
            continue
        before = "input" if layer == "0" else str(int(layer) - 1)
        around = [("activation", before), ("activation", layer), ("activation_gradient", layer)]
        wholes = [recorder.tracks[one].whole for one in around if one in recorder.tracks]
        moves = all(one["zeros"] + one["new_zeros"] < one["count"] for one in wholes)
        if whole["zeros"] == whole["count"] and moves and len(wholes) == len(around):
            yield Finding(
                "red",
                "new zeros",
                f"{capital(name_of(recorder, track.kind, track.name))} are all 0, though the "
                f"gradients that reach the layer are not: they vanish in it, rounded to {fmt}",
                "scale the loss, or keep the gradients of that layer in float32",
                (track.kind, track.name),
            )


def _harmed(track: Track) -> Tally | None:
    """Return the rows in which zeros do harm, together, if these are a quarter or more."""
    rows = harmed_rows(track)
    return functools.reduce(Tally.merge, rows) if rows else None


def _cure_for_zeros(recorder: Record, track: Track) -> str:
    if track.kind == "moment":
        return "keep the optimizer's state in float32, as the mixed policies do"
    if recorder.policy.tensor_scales:
        return (
            "one scale for the whole tensor cannot hold its range, nor can a loss scale: scale by "
            "block, or use bfloat16"
        )
    if track.kind in GRADIENTS:
        return str(advise_scale(recorder, track.fmt))
    return "scale the data or the initial weights up, or use bfloat16"


def headroom(recorder: Record) -> Iterator[Finding]:
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
    tensor = capital(name_of(recorder, track.kind, track.name))
    cure = "scale the data, or use bfloat16"
    if track.kind == "moment":
        cure = "keep the optimizer's state in float32, as the mixed policies do"
    elif track.kind in GRADIENTS and recorder.policy.loss_scale is not None:
        cure = "use a smaller loss scale"
    if whole["overflows"]:
        where = track.fmt, track.kind, track.name
        cure = _cure_for_divergence(recorder, *where, whole["largest"]) or cure
        text = f"{tensor}: {whole['overflows']:.0f} values overflowed {track.fmt}"
        text += f", the largest {whole['largest']:.4g}"
        yield Finding("red", "headroom", text, cure, (track.kind, track.name))
        return
    text = f"{tensor} come within {max(whole.headroom_bits, 0):.1f} bits of {track.fmt}'s maximum"
    yield Finding("amber", "headroom", text, cure, (track.kind, track.name))


def _is_dynamic(recorder: Record) -> bool:
    scale = recorder.policy.loss_scale
    return isinstance(scale, LossScale) and not scale.is_static


def targets(recorder: Record) -> Iterator[Finding]:
    """Tell targets whose square overflows the format of the forward pass."""
    is_own = not recorder.facts.get("is_users_loss", True)  # and computed in float32
    if is_own and recorder.reference_account is not None:
        return
    for track in recorder.of_kind("target"):
        root, largest = math.sqrt(track.fmt.max), track.whole["max_abs"]
        as_here = ", as lowprec's own losses are" if "model" in recorder.facts else ""
        if largest > root:
            yield Finding(
                "amber",
                "targets",
                f"Targets reach {largest:g}, beyond the {root:.0f} whose square {track.fmt} holds: "
                f"a squared error computed in {track.fmt} is infinite while its gradients are "
                "finite",
                f"compute the loss in float32{as_here}, or scale the targets",
                (track.kind, track.name),
            )
