"""Tensors from elsewhere, such as a hook in PyTorch or JAX, and what rounding does to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.arrays.sources import as_array
from lowprec.conversion.door import round_to
from lowprec.train.recorder.kinds import as_float32
from lowprec.train.recorder.tracks import Seen, tally

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from lowprec.formats import Format
    from lowprec.train.recorder.record import Record
    from lowprec.train.recorder.tracks import Track

Array = np.ndarray[Any, Any]


def observe(
    recorder: Record,
    step: int,
    kind: str,
    name: str,
    array: ArrayLike,
    scale: float,
    parameter: ArrayLike | None,
) -> None:
    """Add a tensor to its track; see `Recorder.observe`."""
    found = rounded(recorder.track(kind, name), _as_array(array), scale)
    tally(step, [found])
    if parameter is not None:
        w = as_float32(_as_array(parameter))
        _observe_changes(recorder, step, found.track, found.before, w)


def rounded(track: Track, source: Array, scale: float) -> Seen:
    """Return a tensor as its track rounds it."""
    return Seen(track, as_float32(source), _rounded(source, track.fmt), scale)


def _observe_changes(recorder: Record, step: int, track: Track, update: Array, w: Array) -> None:
    """Add which changes of a parameter an update makes, and which rounding loses."""
    if w.shape != update.shape:
        raise ValueError(
            f"the update of {track.name} has shape {update.shape}, its parameter {w.shape}; "
            "pass the parameter that it is added to"
        )
    stored = recorder.policy.formats["params"]
    with np.errstate(all="ignore"):
        old = _rounded(w, stored)
        tally(step, [Seen(track, update, old=old, new=_rounded(old + update, stored))])


def _rounded(x: Array, fmt: Format) -> Array:
    """Round; NaN stays NaN in a format without NaN too: what is looked at is never refused."""
    missing = np.isnan(x) if x.dtype.kind == "f" and not fmt.has_nan else None
    if missing is None or not missing.any():
        return np.asarray(round_to(x, fmt), np.float32)
    y = np.asarray(round_to(np.where(missing, x.dtype.type(0), x), fmt), np.float32)
    return np.where(missing, np.float32(np.nan), y)


_ENOUGH = 20  # losses, before a run is held against its first


def observe_step(
    recorder: Record,
    step: int,
    loss: float | None,
    loss_scale: float | None,
    skipped: bool | None,
) -> None:
    """Note what became of a step; see `Recorder.observe_step`."""
    if loss_scale is not None and (not recorder.scales or recorder.scales[-1][1] != loss_scale):
        recorder.scales.append((step, float(loss_scale)))
    told = recorder.facts.setdefault("told", {"loss": -1, "skip": -1})  # the last steps told
    if loss is not None and step > told["loss"]:
        told["loss"] = step
        recorder.step_losses.append(float(loss))
        if len(recorder.step_losses) == _ENOUGH:
            recorder.facts.setdefault("outcome", {})["start"] = recorder.step_losses[0]
    if skipped and step > told["skip"]:
        told["skip"] = step
        recorder.skips += 1
        if told["loss"] == step:  # the loss of a skipped step does no harm
            recorder.skipped_steps.append(len(recorder.step_losses) - 1)


def _as_array(x: ArrayLike) -> Array:
    """Return real numbers from anywhere as an array; also of a torch tensor that is trained."""
    return as_array(x.detach() if hasattr(x, "detach") else x)
