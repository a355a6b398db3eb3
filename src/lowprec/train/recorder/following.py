"""How a recorder follows a training: what it notes of it, and where numbers cease to be finite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import is_lowprecs
from lowprec.conversion.door import round_to
from lowprec.formats import float32
from lowprec.train import losses
from lowprec.train.layer_policies import layer_labels
from lowprec.train.optimizing.state import Slot
from lowprec.train.recorder.kinds import Event, largest, made_by
from lowprec.train.running.json_values import plain

Array = np.ndarray[Any, Any]

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lowprec.train.recorder.record import Record
    from lowprec.train.recorder.watching import Inquest
    from lowprec.train.running.passes import Pass
    from lowprec.train.running.training import Training
    from lowprec.train.running.watch import Watch

MOST_EVENTS = 50
"""How many events a recorder keeps."""


def check_goes_on(recorder: Record, training: Training) -> None:
    """Refuse a training that is not the one, or its continuation, that a recorder holds."""
    if "model" in recorder.facts and recorder.policy != training.policy:
        raise ValueError(
            f"this recorder holds a run in {recorder.policy}, and this one is in "
            f"{training.policy}; use a new Recorder"
        )
    if training.seen < recorder.steps:
        raise ValueError(
            f"this recorder holds {recorder.steps} steps already, and this run is at step "
            f"{training.seen}; use a new Recorder, or resume the run that it holds"
        )


def facts_of(training: Training) -> dict[str, Any]:
    """Return what is trained how, as JSON holds it."""
    numbers = {**training.optimizer.hyperparameters, "learning_rate": training.optimizer.rate(0)}
    layers = training.model.layers
    return {
        "model": repr(training.model),
        "optimizer": training.optimizer.name,
        "hyperparameters": {name: plain(value) for name, value in numbers.items()},
        "loss": training.loss_name,
        "is_users_loss": (is_users := training.loss is not losses.get(training.told[0])),
        "users_code": ["the loss"] * is_users
        + [
            label
            for label, layer in zip(layer_labels(layers), layers, strict=True)
            if not is_lowprecs(type(layer))
        ],
        "data": training.data.summary,
        "batch_size": training.batch_size,
        "order": training.policy.accumulator.order,
        "block": training.policy.accumulator.block,
        "kinds": _kinds_of(training),
        "outcome": training.known,
        "collisions": _collisions(training),
    }


_ROWS, _COLUMNS = 1 << 13, 64  # of the inputs that are looked at, at most
_KEPT = 0.9  # the share of distinct whole numbers that is left where they do not collide


def _collisions(training: Training) -> dict[str, Any] | None:
    """Return the feature of whole numbers of which rounding leaves the smallest share distinct.

    None where no feature of a table in memory loses a tenth of them.
    """
    x = getattr(getattr(training.feed, "data", None), "x_train", None)
    places = training.places
    fmt = (training.policy if places is None else places.inputs).formats["compute"]
    if x is None or x.ndim != 2 or fmt == float32:
        return None
    worst, found = _KEPT, None
    for feature in range(min(x.shape[1], _COLUMNS)):
        column = x[:_ROWS, feature]
        largest = float(np.abs(column).max(initial=0.0))
        if not 2.0**fmt.precision < largest <= fmt.max or (column != np.rint(column)).any():
            continue
        distinct = np.unique(column)
        left = np.unique(np.asarray(round_to(distinct, fmt))).size
        if left < worst * distinct.size:
            worst = left / distinct.size
            found = {
                "feature": feature,
                "largest": largest,
                "distinct": distinct.size,
                "left": left,
                "is_offset": bool(abs(distinct.mean(dtype=float)) > 4 * distinct.std(dtype=float)),
            }
    return found


def _kinds_of(training: Training) -> list[str]:
    """Return the kinds of tensors that a training has."""
    layers = training.model.layers
    trained = [layer for layer in layers if layer.trained]
    kinds = ["activation"]
    kinds += ["weight"] if any(hasattr(layer, "function") for layer in trained) else []
    kinds += ["weight_gradient", "update"] if trained else []
    kinds += ["activation_gradient"] if trained else []
    return kinds + (["moment"] if training.state else [])


def first_not_finite(
    training: Training, repeat: Callable[[Watch], Pass], inquest: Inquest, *, skipped: bool
) -> tuple[Event | None, list[str]]:
    """Return the first tensor of the last step that is not finite; `repeat` runs its passes again.

    With it comes what made it so (`made_by`), and the operation as far as that is known.

    training: After the step.
    repeat: Runs the step's passes under a watch.
    inquest: The watch: it finds what layers round.
    skipped: Whether the step was skipped.
    """
    found = repeat(inquest)
    if inquest.found is not None:
        kind, name, before, _ = inquest.found
        made = ["rounding" if inquest.is_rounded_away else made_by(before)]
        if (operation := inquest.operation) is not None and not inquest.is_rounded_away:
            made += [operation.words, operation.wrong.value]
        return Event(training.seen, skipped, kind, name, largest(before)), made
    # such as the gradients of penalties, and what the optimizer made
    unheard: dict[str, Mapping[Any, Array]] = {
        "weight_gradient": found.gradients,
        "moment": training.state,
        "update": training.params,
    }
    for kind, arrays in unheard.items():
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                is_rounding = _has_left_its_range(training, kind, name, array)
                event = Event(training.seen, skipped, kind, name, np.inf)
                return event, ["rounding" if is_rounding else made_by(array)]
    return None, []


def _has_left_its_range(training: Training, kind: str, name: str, array: Array) -> bool:
    """Return whether numbers that are stored are infinite because their format ends below float32.

    A number that is NaN in a format with infinities was not too large.
    """
    part = {"moment": "state", "update": "params"}.get(kind)
    parameter = Slot.of(name).parameter if kind == "moment" else name
    if part is None or "/" not in parameter:
        return False
    policy = training.policy if training.places is None else training.places.of(parameter)
    fmt = policy.formats[part]
    return fmt.emax < float32.emax and (not fmt.has_infinity or not np.isnan(array).any())
