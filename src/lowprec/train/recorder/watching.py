"""What looks at a training step from inside: one to record it, one to find out why it failed."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.conversion.door import round_to
from lowprec.formats import float32
from lowprec.train.numerics import tensor_exponent
from lowprec.train.recorder.listening import Heard, Listening, named_backward, named_forward

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lowprec.formats import Format
    from lowprec.train.recorder.recorder import Recorder

__all__ = ["Inquest", "Recording", "Watch"]

Array = np.ndarray[Any, Any]
Params = dict[str, Array]

_ROUNDED_IN_PASSES = (
    "weight",
    "activation",
    "preactivation",
    "activation_gradient",
    "weight_gradient",
)


class Watch(abc.ABC):
    """What the passes of one step call, beside the layers: the base, which only names tensors.

    Parameters
    ----------
    numerics : Listening
        What layers compute with.

    Attributes
    ----------
    numerics : Listening
        The same.
    """

    def __init__(self, numerics: Listening) -> None:
        self.numerics = numerics
        self.numerics.take()

    def inputs(self) -> None:
        """Look at the network's inputs, which were just rounded."""
        for before, after in self.numerics.take():
            self.see(Heard("activation", "input", before, after))

    def forward(self, layer: int, own: Mapping[str, Array], outputs: Array) -> None:
        """Look at a layer after its forward pass."""
        for heard in named_forward(self.numerics.take(), layer, own, outputs):
            self.see(heard)

    @abc.abstractmethod
    def loss(self, targets: Array, outputs: Array) -> None:
        """Look at what is to be learnt and at what the network gives."""

    def backward(self, layer: int, dx: Array | None, grads: Mapping[str, Array]) -> None:
        """Look at a layer after its backward pass; the loss counts as the layer after the last."""
        for heard in named_backward(self.numerics.take(), layer, dx, grads):
            self.see(heard)

    @abc.abstractmethod
    def see(self, heard: Heard) -> None:
        """Look at a tensor."""


class Recording(Watch):
    """Adds all that a step rounds to a recorder.

    Parameters
    ----------
    numerics : Listening
        What layers compute with.
    recorder : Recorder
        Where to.
    step : int
        Which step.
    scale : float
        The loss scale.
    """

    def __init__(self, numerics: Listening, recorder: Recorder, step: int, scale: float) -> None:
        super().__init__(numerics)
        self.recorder, self.step, self.scale = recorder, step, scale
        self._names: dict[int, str] = {}
        self._old: Params = {}

    def see(self, heard: Heard) -> None:
        """Add a tensor; only gradients carry the loss scale."""
        kind, name, before, after = heard
        track = self.recorder.track(kind, name)
        normal = track.fmt.smallest_normal
        if self.numerics.policy.tensor_scales and kind in _ROUNDED_IN_PASSES:
            normal = _scaled(normal, track.fmt, before)
        scale = self.scale if kind.endswith("gradient") else 1.0
        track.add(self.step, _single(before), _single(after), scale=scale, smallest_normal=normal)

    def inputs(self) -> None:
        """Look at the inputs, and once at how far each feature is from zero."""
        if self.numerics.rounded and "offset" not in self.recorder.facts:
            self.recorder.facts["offset"] = _offset(self.numerics.rounded[0][0])
        super().inputs()

    def loss(self, targets: Array, outputs: Array) -> None:
        """Add targets and errors where the targets are real numbers like the outputs."""
        self.recorder.facts["longest"] = self.numerics.longest
        if targets.dtype.kind != "f" or targets.size != outputs.size:
            return
        targets = _single(targets).reshape(-1)
        fmt = self.recorder.track("target", "targets").fmt
        self.see(Heard("target", "targets", targets, round_to(targets, fmt)))
        errors = _single(outputs).reshape(-1) - targets
        self.see(Heard("error", "errors", errors, errors))

    # The update ----------------------------------------------------------------------------------

    def store(self, state: Params) -> Callable[[Array], Array]:
        """Return what rounds the optimizer's state, which is now as it was before the update."""
        self._names = {id(array): name for name, array in state.items()}
        if self._rounds_state:
            self._old = {name: array.copy() for name, array in state.items()}
        return self._store

    @property
    def _rounds_state(self) -> bool:
        return self.numerics.policy.formats["state"] != float32

    def _store(self, array: Array) -> Array:
        stored = self.numerics.state(array)
        name = self._names.get(id(array))
        if name is not None:
            self.see(Heard("moment", name, array, stored))
            if self._old:
                old, new, wanted = map(_single, (self._old[name], stored, array))
                track = self.recorder.track("moment", name)
                track.add_changes(self.step, old, wanted - old, new, with_gaps=False)
        return stored

    def update(self, updates: Params, params: Params, state: Params) -> None:
        """Look at an update and at the weights as they were before it."""
        for name, update in updates.items():
            w = params[name]
            track = self.recorder.track("update", name)
            self.see(Heard("update", name, update, update))
            new = self.numerics.updated(w, update.copy())  # it takes the place of its argument
            track.add_changes(self.step, *map(_single, (w, update, new)))
        if self._rounds_state:
            self.recorder.add_starved(_starved(state))


class Inquest(Watch):
    """Finds the first tensor of a step that is not finite.

    Attributes
    ----------
    found : Heard or None
        That tensor.
    """

    def __init__(self, numerics: Listening) -> None:
        super().__init__(numerics)
        self.found: Heard | None = None

    def loss(self, targets: Array, outputs: Array) -> None:
        """Pass by: the loss is never checked."""

    def see(self, heard: Heard) -> None:
        """Keep the first that is not finite."""
        if self.found is None and not np.isfinite(heard.after).all():
            self.found = heard


def _single(x: Array) -> Array:
    return np.asarray(x, np.float32)


def _scaled(normal: float, fmt: Format, before: Array) -> float:
    """Return the smallest normal number of a tensor that is rounded under its own scale."""
    largest = float(np.abs(before).max(initial=0))
    return normal * 2.0 ** -tensor_exponent(fmt, largest) if 0 < largest < np.inf else normal


def _offset(x: Array) -> dict[str, float]:
    """Return the feature whose mean is largest beside its deviation, and that ratio."""
    columns = _single(x).astype(np.float64).reshape(-1, x.shape[-1])
    spread = columns.std(axis=0)
    moving = spread > 0
    if len(columns) < 2 or not moving.any():
        return {"feature": 0, "ratio": 0.0}
    ratios = np.abs(columns.mean(axis=0)[moving]) / spread[moving]
    worst = int(np.argmax(ratios))
    return {"feature": int(np.flatnonzero(moving)[worst]), "ratio": float(ratios[worst])}


def _starved(state: Params) -> tuple[int, int]:
    """Count first moments that are not zero, and how many of these have a second that is."""
    moving = starved = 0
    for name, first in state.items():
        second = state.get(name.replace("first_moment/", "second_moment/"))
        if name.startswith("first_moment/") and second is not None:
            nonzero = first != 0
            moving += int(nonzero.sum())
            starved += int((nonzero & (second == 0)).sum())
    return moving, starved
