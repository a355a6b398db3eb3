"""Functions that are not lowprec's: where one makes of finite numbers something that is not.

A user's loss or layer is also called with the same numbers in float64: where its value differs
from that in float32 by more than 2⁻¹⁰, it computes in less than float32.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.common.processor_state import in_its_state, is_lowprecs
from lowprec.train import losses
from lowprec.train.layer_policies import layer_labels
from lowprec.train.model import Sequential
from lowprec.train.running.loop import fit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lowprec.train.layers.layer import Layer

Array = np.ndarray[Any, Any]
DIFFERENCE = 2.0**-10
_STEPS = 400  # that are looked at, at most


class Fault(NamedTuple):
    """A function of the user's that fails on finite numbers.

    Attributes
    ----------
    place : str
        Its name, or its layer's label.
    text : str
        What it makes of which arguments.
    """

    place: str
    text: str


class _Found(Exception):
    """A fault was found: the training need not go on."""


def find_fault(model: Sequential, data: Any, how: Mapping[str, Any]) -> Fault | None:
    """Return the first fault of a function of the user's in a float32 training.

    data (Dataset): What it is trained on.
    how: The arguments of `fit`; its policy is set to float32.
    """
    loss = losses.get(how["loss"])
    is_ours = in_its_state(loss) is loss
    layers = [layer for layer in model.layers if not is_lowprecs(type(layer))]
    if is_ours and not layers:
        return None
    spy = _Spy()
    watched_loss = loss if is_ours else spy.loss(loss)
    watched = [
        layer if is_lowprecs(type(layer)) else spy.layer(layer, label)
        for layer, label in zip(model.layers, layer_labels(model.layers), strict=True)
    ]
    spied = Sequential(watched, model.input_shape)
    changed = dict(how) | {"loss": watched_loss, "policy": "float32"}
    with contextlib.suppress(_Found):
        fit(spied, data, **changed, verbose=False)
    return spy.fault


class _Spy:
    """Calls functions of the user's, and looks at what they make of what."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.calls: dict[str, int] = {}

    def tell(self, place: str, text: str) -> None:
        self.fault = Fault(place, text)
        raise _Found

    def is_due(self, name: str) -> bool:
        """Return whether to compare this call with float64: the first ones, then ever fewer."""
        count = self.calls[name] = self.calls.get(name, 0) + 1
        return count & (count - 1) == 0

    def loss(self, function: Any) -> Any:
        name = getattr(function, "__name__", type(function).__name__)

        def watched(y_true: Array, y_pred: Array) -> tuple[float, Array]:
            value, gradient = function(y_true, y_pred)
            given = [y_pred, *([y_true] if np.asarray(y_true).dtype.kind == "f" else [])]
            self.check(name, given, value, "a loss")
            self.check(name, given, gradient, "a gradient")
            if self.is_due(name) and y_pred.dtype == np.float32:
                wide, _ = function(_double(y_true), _double(y_pred))
                self.compare(name, given, float(value), float(wide))
            return value, gradient

        watched.__module__ = "user"  # it stays the user's, and runs in the user's state
        return watched

    def layer(self, layer: Layer, label: str) -> Layer:
        spy, kind = self, type(layer)

        class Watched(kind):  # type: ignore[valid-type, misc]
            __module__ = "user"
            __qualname__ = __name__ = kind.__name__

            def forward(self, params: Any, x: Array, run: Any) -> tuple[Array, Any]:
                y, saved = kind.forward(self, params, x, run)
                spy.check(label, [x, *params.values()], y, "activations")
                return y, saved

            def backward(self, params: Any, saved: Any, dy: Array, run: Any) -> Any:
                dx, grads = kind.backward(self, params, saved, dy, run)
                for found in (dx, *grads.values()):
                    if found is not None:
                        spy.check(label, [dy, *params.values()], found, "a gradient")
                return dx, grads

        fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer) if f.init}
        return Watched(**fields)

    def check(self, place: str, given: list[Array], made: Any, what: str) -> None:
        """Tell what is not finite where all that was given is."""
        if np.isfinite(made).all() or not all(np.isfinite(x).all() for x in given):
            return
        wrong = np.asarray(made)[~np.isfinite(made)]
        self.tell(place, f"{place} makes {what} of {wrong.flat[0]} of {_range(given)}")

    def compare(self, place: str, given: list[Array], narrow: float, wide: float) -> None:
        if not math.isfinite(wide):
            return
        if abs(narrow - wide) > DIFFERENCE * abs(wide):
            self.tell(
                place,
                f"{place} gives {narrow:.6g} in float32 and {wide:.6g} for the same numbers in "
                f"float64, of {_range(given)}",
            )


def _double(x: Array) -> Array:
    x = np.asarray(x)
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def _range(given: list[Array]) -> str:
    low = min(float(np.min(x)) for x in given if np.size(x))
    high = max(float(np.max(x)) for x in given if np.size(x))
    return f"finite numbers from {low:.4g} to {high:.4g}"
