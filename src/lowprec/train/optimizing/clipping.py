"""Gradient clipping: the first part of an optimizer, where gradients are already unscaled."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.train.optimizing.transforms import Transform, each

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowprec.train.optimizing.state import State
    from lowprec.train.optimizing.transforms import Params, Step, Store

Array = np.ndarray[Any, Any]


def clip_by_value(limit: float) -> Transform:
    """Clip every gradient's elements to [-limit, limit]; NaN stays."""
    return each(functools.partial(_clip_by_value, limit=limit))


def _clip_by_value(g: Array, step: Step, *, limit: float) -> None:
    np.clip(g, -limit, limit, out=g)


def clip_by_norm(limit: float) -> Transform:
    """Clip each gradient's own Euclidean norm to `limit`: `clip_by_global_norm`, one by one."""
    return each(functools.partial(_clip_by_norm, limit=limit))


def _clip_by_norm(g: Array, step: Step, *, limit: float) -> None:
    _shrink([g], limit)


def clip_by_global_norm(limit: float) -> Transform:
    """Clip the Euclidean norm of all gradients together to `limit`.

    As in PyTorch, gradients are multiplied by ``min(1, limit / (norm + 1e-6))``; here in float64,
    where the squares of float32 gradients do not overflow, and rounded once. A norm that is
    infinite or NaN stays visible: as in PyTorch it makes zeros and NaN of the gradients.

    Examples
    --------
    >>> from lowprec.train.optimizing.transforms import as_it_is
    >>> clip = clip_by_global_norm(1.0)
    >>> gradients = {"0/bias": np.float32([3.0]), "1/bias": np.float32([4.0])}
    >>> clip.update(gradients, {}, {}, 1, 0.1, as_it_is)[0]
    {'0/bias': array([0.5999999], dtype=float32), '1/bias': array([0.79999983], dtype=float32)}
    """
    return Transform(_keep_nothing, functools.partial(_clip_by_global_norm, limit))


def _keep_nothing(params: Params) -> State:
    return {}


def _clip_by_global_norm(
    limit: float,
    gradients: Params,
    state: State,
    params: Params,
    step: int,
    rate: float,
    store: Store,
) -> tuple[Params, State]:
    _shrink(gradients.values(), limit)
    return gradients, state


def _shrink(arrays: Iterable[Array], limit: float) -> None:
    """Multiply arrays by what brings their common norm to the limit, unless it is below."""
    squares = sum(float(np.square(g, dtype=np.float64).sum()) for g in arrays)
    factor = float(np.minimum(limit / (math.sqrt(squares) + 1e-6), 1.0))
    if factor != 1:
        for g in arrays:  # in float64, for the factor may be too small for float32
            np.multiply(g, factor, out=g, dtype=np.float64, casting="same_kind")
