"""Kinds of tensors and events, and what recorders take in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.common.names import one_of
from lowprec.train.optimizing.state import Slot
from lowprec.train.running.history import History
from lowprec.train.running.outcome import Account

if TYPE_CHECKING:
    from collections.abc import Sequence


Array = np.ndarray[Any, Any]

KINDS = {
    "weight": "compute",
    "activation": "compute",
    "preactivation": "compute",
    "activation_gradient": "gradients",
    "weight_gradient": "gradients",
    "moment": "state",
    "update": "float32",
    "target": "compute",
    "error": "float32",
}
"""The kinds of tensors, and which of the policy's formats each is rounded to."""

KIND_WORDS = {
    "weight": "weights",
    "activation": "activations",
    "activation_gradient": "activation gradients",
    "weight_gradient": "weight gradients",
    "moment": "optimizer state",
    "update": "updates",
}
"""The kinds of tensors that every training has, as a sentence names them."""


GRADIENTS = ("activation_gradient", "weight_gradient")
"""The kinds that carry the loss scale."""


class Event(NamedTuple):
    """A step that was skipped, or the first after which the weights were not finite.

    step: Which, counted from 0.
    skipped: Whether it was skipped: then it did no harm.
    kind, name: The first tensor of the step that was not finite.
    value: The magnitude that was too large for the format; infinity where arithmetic made it, not
        rounding.
    """

    step: int
    skipped: bool
    kind: str
    name: str
    value: float


class UnitNoise(NamedTuple):
    """What rounding leaves of how the single units of a layer vary.

    offset: The share of the units that vary whose rounding errors exceed half their deviation, and
        whose mean, of more than two deviations, makes the spacing so large.
    drowned: The share of those whose errors do although their mean is near zero.
    largest: The unit of the largest magnitude.
    times: That magnitude beside the median of all units' largest.
    """

    offset: float = 0.0
    drowned: float = 0.0
    largest: int = 0
    times: float = 1.0


def layer_of(kind: str, name: str) -> str:
    """Return the layer that a tensor of a kind belongs to, as names say it: a number, ``input``."""
    return (Slot.of(name).parameter if kind == "moment" else name).partition("/")[0]


def kind_of(name: str) -> str:
    """Return the kind of this name; ValueError says which are near."""
    return one_of(name, KINDS, "kind of tensor")


def labels_of(layers: Sequence[Any]) -> dict[str, str]:
    """Return what to call each layer: its class and its number among those of this class."""
    labels = {"input": "the inputs", "targets": "the targets", "errors": "the errors"}
    counts: dict[str, int] = {}
    for i, layer in enumerate(layers):
        kind = type(layer).__name__
        counts[kind] = counts.get(kind, 0) + 1
        labels[str(i)] = f"{kind} {counts[kind]}"
    return labels


def losses_of(reference: History | Sequence[float] | None) -> list[float] | None:
    """Return the loss by epoch of a history, or the losses that are given."""
    if reference is None:
        return None
    curves = getattr(reference, "history", None)
    losses: Any = reference if curves is None else curves["loss"]
    return [float(loss) for loss in losses]


def account_of_reference(reference: History | Sequence[float] | None) -> Account | None:
    """Return by what a reference is judged; of mere losses only their ends are known."""
    if reference is None:
        return None
    if isinstance(reference, History):
        return Account.of(reference)
    losses = tuple(float(loss) for loss in reference)
    if not losses:
        raise ValueError(
            "reference=[] holds no loss; pass what fit returned for float32, or its losses by epoch"
        )
    return Account("float32", "", end=losses[-1], epochs=losses)


def as_float32(x: Array) -> Array:
    """Return an array as contiguous float32, what leaves its range as its first or last number.

    So no zero or infinity appears that was not there, and what rounding makes of it is told apart.
    """
    with np.errstate(over="ignore", under="ignore"):
        y = np.ascontiguousarray(x, np.float32)
    if x.dtype == np.float64:
        ends = np.finfo(np.float32)
        y = np.where((y == 0) & (x != 0), np.copysign(ends.smallest_subnormal, y), y)
        y = np.where(np.isinf(y) & np.isfinite(x), np.copysign(ends.max, y), y)
    return y


def made_by(before: Array) -> str:
    """Return what made a tensor not finite: rounding, or arithmetic an infinity or NaN."""
    if np.isfinite(before).all():
        return "rounding"
    return "NaN" if np.isnan(before).any() and not np.isinf(before).any() else "infinity"


def largest(before: Array) -> float:
    """Return the largest magnitude; infinity where the tensor was not finite before rounding."""
    return float(np.abs(before).max()) if np.isfinite(before).all() else np.inf
