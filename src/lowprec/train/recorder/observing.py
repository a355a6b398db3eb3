"""Tensors from elsewhere, such as a hook in PyTorch or JAX, and what rounding does to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.arrays.sources import as_array
from lowprec.conversion.door import round_to
from lowprec.train.recorder.kinds import as_float32

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from lowprec.train.recorder.recorder import Recorder
    from lowprec.train.recorder.tracks import Track

__all__ = ["observe"]

Array = np.ndarray[Any, Any]


def observe(
    recorder: Recorder,
    step: int,
    kind: str,
    name: str,
    array: ArrayLike,
    scale: float,
    parameter: ArrayLike | None,
) -> None:
    """Add a tensor to its track; see `Recorder.observe`."""
    source = _as_array(array)
    before, track = as_float32(source), recorder.track(kind, name)
    after = np.asarray(round_to(source, track.fmt), np.float32)
    track.add(step, before, after, scale=scale)
    if parameter is not None:
        _observe_changes(recorder, step, track, before, as_float32(_as_array(parameter)))


def _observe_changes(recorder: Recorder, step: int, track: Track, update: Array, w: Array) -> None:
    """Add which changes of a parameter an update makes, and which rounding loses."""
    if w.shape != update.shape:
        raise ValueError(
            f"the update of {track.name} has shape {update.shape}, its parameter {w.shape}; "
            "pass the parameter that it is added to"
        )
    stored = recorder.policy.formats["params"]
    with np.errstate(all="ignore"):
        old = round_to(w, stored)
        track.add_changes(step, old, update, round_to(old + update, stored))


def _as_array(x: ArrayLike) -> Array:
    """Return real numbers from anywhere as an array; also of a torch tensor that is trained."""
    return as_array(x.detach() if hasattr(x, "detach") else x)
