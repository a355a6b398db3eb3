"""Functions that are not lowprec's: where one makes of finite numbers something that is not.

A user's loss or layer is also called with the same numbers in float64, and with numbers moved by a
little: where its value differs from that in float32 by more than 2⁻¹⁰, or stays where it was until
it jumps, it computes in less than float32.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.common.processor_state import in_its_state, is_lowprecs
from lowprec.show.words import superscript
from lowprec.train import losses, optimizers
from lowprec.train.layer_policies import layer_labels
from lowprec.train.model import Sequential
from lowprec.train.recorder.finding import percent
from lowprec.train.running.loop import fit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lowprec.train.layers.layer import Layer
    from lowprec.train.optimizing.optimizer import Optimizer

Array = np.ndarray[Any, Any]
DIFFERENCE = 2.0**-10
_MOVES = tuple(2.0**-k for k in range(16, 7, -2))  # of the numbers read, by which fp8 stands still
_STILL, _JUMPING = 0.5, 0.02  # the shares of a coarse result that stay, and that jump
_FEWEST = 4  # jumps
_JUMPS = (
    2.0**-13,
    0.5,
)  # beside the number that jumps: a larger one is a change of sign, or a mask


class Fault(NamedTuple):
    """A function of the user's that fails on finite numbers.

    Attributes
    ----------
    place : str
        Its name, or its layer's label.
    text : str
        What it makes of which arguments.
    is_coarse : bool
        Whether all is finite, but computed in less than float32.
    """

    place: str
    text: str
    is_coarse: bool = False


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
    optimizer = how["optimizer"]
    is_our_optimizer = hasattr(optimizers, optimizer.name)
    if is_ours and not layers and is_our_optimizer:
        return None
    spy = _Spy()
    watched_loss = loss if is_ours else spy.loss(loss)
    watched = [
        layer if is_lowprecs(type(layer)) else spy.layer(layer, label)
        for layer, label in zip(model.layers, layer_labels(model.layers), strict=True)
    ]
    spied = Sequential(watched, model.input_shape)
    changed = dict(how) | {"loss": watched_loss, "policy": "float32"}
    if not is_our_optimizer:
        changed["optimizer"] = spy.optimizer(optimizer)
    with contextlib.suppress(_Found):
        fit(spied, data, **changed, verbose=False)
    return spy.fault


class _Spy:
    """Calls functions of the user's, and looks at what they make of what."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.calls: dict[str, int] = {}

    def tell(self, place: str, text: str, *, is_coarse: bool = False) -> None:
        self.fault = Fault(place, text, is_coarse)
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
                self.compare(name, given, value, wide)
                self.move(name, y_pred, gradient, lambda moved: function(y_true, moved)[1])
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
                given = [x, *params.values()]
                spy.check(label, given, y, "activations")
                if spy.is_due(label) and x.dtype == np.float32:
                    again = functools.partial(_output, kind.forward, self, run)
                    if np.array_equal(again(params, x), y):  # nothing random, nothing remembered
                        wide = {name: _double(w) for name, w in params.items()}
                        spy.compare(label, given, y, again(wide, _double(x)))
                        spy.move(label, x, y, functools.partial(again, params))
                return y, saved

            def backward(self, params: Any, saved: Any, dy: Array, run: Any) -> Any:
                dx, grads = kind.backward(self, params, saved, dy, run)
                for found in (dx, *grads.values()):
                    if found is not None:
                        spy.check(label, [dy, *params.values()], found, "a gradient")
                return dx, grads

        fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer) if f.init}
        return Watched(**fields)

    def optimizer(self, optimizer: Optimizer) -> Optimizer:
        def update(gradients: Any, state: Any, *how: Any) -> Any:
            given = [array.copy() for array in (*gradients.values(), *state.values())]
            updates, state = optimizer.transform.update(gradients, state, *how)
            for made in updates.values():
                self.check(optimizer.name, given, made, "an update")
            return updates, state

        watched = optimizer.transform._replace(update=update, fused=None)
        return dataclasses.replace(optimizer, transform=watched)

    def check(self, place: str, given: list[Array], made: Any, what: str) -> None:
        """Tell what is not finite where all that was given is."""
        if np.isfinite(made).all() or not all(np.isfinite(x).all() for x in given):
            return
        wrong = np.asarray(made)[~np.isfinite(made)]
        self.tell(place, f"{place} makes {what} of {wrong.flat[0]} of {_range(given)}")

    def compare(self, place: str, given: list[Array], narrow: Any, wide: Any) -> None:
        """Tell a result that float64 arguments change, beside its size."""
        difference, size = np.linalg.norm(np.subtract(narrow, wide)), np.linalg.norm(wide)
        if not np.isfinite(size) or difference <= DIFFERENCE * size:
            return
        made = "makes activations that differ by"
        told = f"{made} {difference / size:.2g} of their size between float32 and float64"
        if np.ndim(wide) == 0:
            told = f"gives {narrow:.6g} in float32 and {wide:.6g} for the same numbers in float64"
        self.tell(place, f"{place} {told}, of {_range(given)}", is_coarse=True)

    def move(self, place: str, x: Array, made: Array, function: Callable[[Array], Array]) -> None:
        """Tell a result that mostly stays as it was where what is read moves, and jumps elsewhere.

        A function that computes in float32 follows: hardly any of its numbers stays.
        """
        signs = np.where(np.random.default_rng(0).random(x.shape) < 0.5, -1, 1).astype(np.float32)
        made = np.asarray(made)
        size = np.abs(made)
        counted = (size > 0) & np.isfinite(made)
        if not counted.any():
            return
        for move in _MOVES:
            with np.errstate(all="ignore"):
                below, above = (function(x * (1 + side * move * signs)) for side in (-1, 1))
                jumps = np.abs(above - below)[counted] / size[counted]
            stays = ((below == made) & (above == made))[counted]
            is_jump = (jumps > _JUMPS[0]) & (jumps <= _JUMPS[1])
            if stays.mean() > _STILL and is_jump.sum() > max(_FEWEST, _JUMPING * is_jump.size):
                self.tell(
                    place,
                    f"{place} computes in less than float32: where the numbers that it reads move "
                    f"by 2{superscript(round(np.log2(move)))} of themselves, "
                    f"{percent(stays.mean())} of what it makes stays as it was and the rest jumps, "
                    f"of {_range([x])}",
                    is_coarse=True,
                )


def _output(forward: Any, layer: Layer, run: Any, params: Any, x: Array) -> Array:
    with np.errstate(all="ignore"):
        made: Array = forward(layer, params, x, run)[0]
    return made


def _double(x: Array) -> Array:
    x = np.asarray(x)
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def _range(given: list[Array]) -> str:
    low = min(float(np.min(x)) for x in given if np.size(x))
    high = max(float(np.max(x)) for x in given if np.size(x))
    return f"finite numbers from {low:.4g} to {high:.4g}"
