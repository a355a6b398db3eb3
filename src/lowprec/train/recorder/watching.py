"""What looks at a training step from inside: one to record it, one to find out why it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.conversion.door import round_to
from lowprec.formats import float32
from lowprec.train.numerics import tensor_exponent
from lowprec.train.optimizing.state import Slot
from lowprec.train.recorder.kinds import GRADIENTS, UnitNoise
from lowprec.train.recorder.operations import Operation, operation_guessed, operation_heard
from lowprec.train.recorder.tracks import Seen, tally
from lowprec.train.running.listening import Heard
from lowprec.train.running.watch import StepWatch, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lowprec.formats import Format
    from lowprec.train.numerics import Numerics
    from lowprec.train.optimizing.state import State
    from lowprec.train.recorder.record import Record
    from lowprec.train.running.listening import Listening

Array = np.ndarray[Any, Any]
Params = dict[str, Array]

_KEPT = 1 << 18  # numbers that wait to be counted, at most: more would leave the caches
_ROUNDED_IN_PASSES = (
    "weight",
    "activation",
    "preactivation",
    "activation_gradient",
    "weight_gradient",
)


class Recording(StepWatch):
    """Adds all that a step rounds to a recorder.

    numerics: What layers compute with.
    """

    def __init__(self, numerics: Listening, recorder: Record, step: int, scale: float) -> None:
        super().__init__(numerics)
        self.recorder, self.step, self.scale = recorder, step, scale
        self._tracks = recorder.tracks
        self._seen: list[Seen] = []  # what is not counted yet
        self._size = 0  # of that
        self._slots: dict[int, Slot] = {}
        self._old: State = {}
        self._rounds_state = False
        self._at: Callable[[str], Numerics] = lambda name: self.numerics
        self._is_scaled = numerics.policy.tensor_scales

    def see(self, heard: Heard) -> None:
        """Add a tensor; only gradients carry the loss scale."""
        kind, name, before, after = heard
        track = self._tracks.get((kind, name)) or self.recorder.track(kind, name)
        normal = None
        if self._is_scaled and kind in _ROUNDED_IN_PASSES:
            normal = _scaled(track.fmt.smallest_normal, track.fmt, before)
        scale = self.scale if kind in GRADIENTS else 1.0
        self._seen.append(Seen(track, before, after, scale, normal))
        self._size += before.size
        if self._size > _KEPT:
            self.settle()
        if kind == "activation" and self._looks_at_units:
            self.recorder.add_unit_noise(name, unit_noise(before, after))

    def settle(self) -> None:
        """Count what was seen: from now on its arrays may change."""
        tally(self.step, self._seen)
        self._seen, self._size = [], 0

    @property
    def _looks_at_units(self) -> bool:
        """Whether to look at single units: at the first recorded steps, then at ever fewer."""
        count = self.recorder.recorded
        return count & (count - 1) == 0

    def inputs(self) -> None:
        """Look at the inputs, and once at how far each feature is from zero."""
        if self.numerics.rounded and "offset" not in self.recorder.facts:
            self.recorder.facts["offset"] = _offset(self.numerics.rounded[0][0])
        super().inputs()

    def loss(self, targets: Array, outputs: Array) -> None:
        """Add targets and errors where the targets are real numbers like the outputs."""
        self.recorder.facts["longest"] = self.numerics.longest
        if targets.dtype.kind == "f" and targets.size == outputs.size:
            targets = _single(targets).reshape(-1)
            fmt = self.recorder.track("target", "targets").fmt
            self.see(Heard("target", "targets", targets, round_to(targets, fmt)))
            errors = _single(outputs).reshape(-1) - targets
            self.see(Heard("error", "errors", errors, errors))
        self.settle()

    # The update ----------------------------------------------------------------------------------

    def store(
        self, state: State, at: Callable[[str], Numerics] | None = None
    ) -> Callable[[Array], Array]:
        """Return what rounds the optimizer's state, which is now as it was before the update.

        `at` gives the numerics of a parameter, where they are not those of the policy.
        """
        self._at = at or (lambda name: self.numerics)
        self._slots = {id(array): slot for slot, array in state.items()}
        formats = (self._at(slot.parameter).policy.formats["state"] for slot in state)
        self._rounds_state = any(fmt != float32 for fmt in formats)
        if self._rounds_state:
            self._old = {slot: array.copy() for slot, array in state.items()}
        return self._store

    def _store(self, array: Array) -> Array:
        slot = self._slots.get(id(array))
        stored = (self.numerics if slot is None else self._at(slot.parameter)).state(array)
        if slot is not None:
            self.see(Heard("moment", slot, array, stored))
            if self._old:
                old, track = self._old[slot], self.recorder.track("moment", slot)
                self._seen.append(Seen(track, array - old, old=old, new=stored, has_gaps=False))
            if stored is not array:  # which then takes its place
                self.settle()
        return stored

    def update(
        self,
        updates: Params,
        params: Params,
        state: State,
        at: Callable[[str], Numerics] | None = None,
        sums: Params | None = None,
    ) -> Params:
        """Look at an update and at the weights as they were before it; return their sums.

        Each is rounded to nearest; `sums` are theirs, where they are known.
        """
        found = {} if sums is None else sums
        for name, update in updates.items():
            w = params[name]
            if sums is None:
                numerics = self.numerics if at is None else at(name)
                is_plain = numerics.stores_float32  # else the sum would take the update's place
                found[name] = w + update if is_plain else numerics.updated(w, update.copy())
            track = self.recorder.track("update", name)
            self._seen.append(Seen(track, update, update, old=w, new=found[name]))
        self.settle()
        if self._rounds_state:
            self.recorder.add_starved(_starved(state, updates))
        return found


class Inquest(Watch):
    """Finds the first tensor of a step that is not finite.

    found (Heard or None): That tensor.
    operation: What arithmetic made it; None where that is not known.
    is_rounded_away: Whether rounding within the layer made it.
    """

    def __init__(self, numerics: Listening) -> None:
        super().__init__(numerics)
        self.found: Heard | None = None
        self.operation: Operation | None = None
        self.is_rounded_away = False
        self._read: tuple[Array, ...] = ()  # what the layer, or the loss, reads
        self._errors: list[Operation] = []  # NumPy's, since the last tensor that was finite

    def hears(self, error: str, flag: int) -> None:
        """Note a floating-point error, with the line of code that made it."""
        if error in ("divide by zero", "invalid value") and self.found is None:
            self._errors.append(operation_heard(error))

    def inputs(self) -> None:
        """Look at the inputs; the first layer reads them."""
        if self.numerics.rounded:
            self._read = (self.numerics.rounded[0][1],)
        super().inputs()

    def forward(self, layer: int, own: Mapping[str, Array], outputs: Array) -> None:
        """Look at what a layer wrote; the next one reads it."""
        super().forward(layer, own, outputs)
        if self.found is None and not np.isfinite(outputs).all():  # a layer that rounds nothing
            self.see(Heard("activation", str(layer), outputs, outputs))
        self._read = (outputs,)

    def backward(self, layer: int, dx: Array | None, grads: Mapping[str, Array]) -> None:
        """Look at a layer; what it rounds on the way to its gradients may be the first."""
        if self.found is None:
            self.is_rounded_away = any(
                np.isfinite(before).all() and not np.isfinite(after).all()
                for before, after in self.numerics.rounded
            )
        super().backward(layer, dx, grads)

    def loss(self, targets: Array, outputs: Array) -> None:
        """Note what the loss reads; its value is never checked."""
        if targets.dtype.kind == "f" and targets.size == outputs.size:
            self._read = (outputs, np.reshape(targets, outputs.shape))

    def settle(self) -> None:
        """Nothing that was seen waits."""

    def see(self, heard: Heard) -> None:
        """Keep the first that is not finite, and what made it."""
        if self.found is not None:
            return
        if np.isfinite(heard.after).all():
            self._errors.clear()
            return
        self.found = heard
        if not np.isfinite(heard.before).all():
            heard_first = next(iter(self._errors), None)
            self.operation = heard_first or operation_guessed(self._read, heard.before)


def unit_noise(before: Array, after: Array) -> UnitNoise:
    """Return what rounding leaves of how single units vary; units with infinities count as sound.

    before, after: Activations, units along the last axis.
    """
    if before.ndim < 2 or len(before) < _FEW_SAMPLES:
        return UnitNoise()
    x = before.reshape(-1, before.shape[-1]).astype(np.float64)
    with np.errstate(all="ignore"):
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        noise = np.sqrt(np.square(after.reshape(x.shape) - x).mean(axis=0))
        is_hidden = np.isfinite(noise) & (noise > deviation / 2)
        is_offset = np.abs(mean) > 2 * deviation
    moving = deviation > 0
    if not moving.any():
        return UnitNoise()
    sizes = np.abs(x).max(axis=0)
    largest, median = int(sizes.argmax()), float(np.median(sizes))
    return UnitNoise(
        float((is_hidden & is_offset)[moving].mean()),
        float((is_hidden & ~is_offset)[moving].mean()),
        largest,
        float(sizes[largest]) / median if median else 1.0,
    )


_FEW_SAMPLES = 8


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


SQUARES = ("second_moment", "sum_of_squares", "infinity_norm")  # what an optimizer divides by


def _starved(state: State, updates: Params) -> tuple[int, int]:
    """Count the numbers whose gradient is not zero, and how many of them are divided by zero.

    A gradient is not zero where the first moment is not, or the update where there is no moment.
    """
    moving = starved = 0
    for name, update in updates.items():
        first = state.get(Slot("first_moment", name), update)
        for kind in SQUARES:
            squares = state.get(Slot(kind, name))
            if squares is not None:
                moving += int(np.count_nonzero(first))
                if np.count_nonzero(squares) < squares.size:
                    starved += int(np.count_nonzero((first != 0) & (squares == 0)))
    return moving, starved
