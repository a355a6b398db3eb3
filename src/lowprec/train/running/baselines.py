"""What a loss is without learning: at the initial parameters, and for the best constant prediction.

A run whose loss ends no better than both has learnt nothing, whatever its format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.train import losses
from lowprec.train.numerics import numerics_of
from lowprec.train.policy import get_policy
from lowprec.train.running import passes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lowprec.train.losses import Loss
    from lowprec.train.network import Network

Array = np.ndarray[Any, Any]
Params = dict[str, Array]

BATCHES = 20
"""How many batches the loss of a start is the mean of, at most."""

_QUANTILES = 33
_STEPS = 60  # halvings of an interval: to the last bit of float64


def start_loss(
    model: Network,
    params: Params,
    batches: Iterable[tuple[Array, Array, Loss]],
    *,
    is_float64: bool = False,
) -> float:
    """Return the float32 loss of parameters in training mode, but without dropout.

    Normalisation uses each batch's own statistics, for moving ones are not trained yet.

    params: Its parameters, before any policy rounds them.
    batches: The mean is taken over these.
    is_float64: Whether to compute in float64 instead, as the run does.
    Returns: With the regularizers' penalties; NaN or infinite where a batch's loss is.
    """
    numerics = numerics_of(get_policy("float64" if is_float64 else "float32"))
    params = {name: numerics.array(w) for name, w in params.items()}
    values = []
    for x, y, loss in batches:
        x = numerics.array(x)
        outputs = passes.run_forward(model, params, x, numerics, True, (0,), is_plain=True).outputs
        with np.errstate(all="ignore"):
            values.append(float(loss(y, outputs)[0]))
    if not values:
        return float("nan")
    with np.errstate(all="ignore"):
        return float(np.mean(values)) + passes.penalty(model, params)


def constant_loss(loss: Loss, targets: Array) -> float | None:
    """Return the loss of the best prediction that is the same for every sample.

    That is the class frequencies for a cross-entropy, the mean for a mean square, the median for a
    mean absolute error; for Huber's loss it is found by bisection, for relative and logarithmic
    errors and the hinge it is the best quantile of each column.

    loss: One of `lowprec.train.losses`.
    targets: What is trained on.
    Returns: None for a loss of the user's, of which nothing is known.

    Examples
    --------
    >>> constant_loss(losses.get("mse"), np.array([0.0, 2.0]))
    1.0
    >>> round(constant_loss(losses.get("sparse_categorical_crossentropy"), np.array([0, 1])), 4)
    0.6931
    """
    rule = _RULES.get(loss)
    if not targets.size or (rule is None and loss not in _OF_QUANTILES):
        return None
    return _best_quantile(loss, targets) if rule is None else float(rule(targets))


def _best_quantile(loss: Loss, targets: Array) -> float:
    columns = _columns(targets)
    quantiles = np.quantile(columns, np.linspace(0, 1, _QUANTILES), axis=0)
    with np.errstate(all="ignore"):
        values = [
            [float(loss(column[:, None], np.full((len(column), 1), one))[0]) for one in choices]
            for column, choices in zip(columns.T, quantiles.T, strict=True)
        ]
    return float(np.mean(np.min(values, axis=1)))


def deviation_of(targets: Array) -> float | None:
    """Return the standard deviation of real targets; None for labels."""
    if targets.dtype.kind != "f" or not targets.size:
        return None
    return float(np.sqrt(_columns(targets).var(axis=0).mean()))


def _columns(targets: Array) -> Array:
    return targets.reshape(len(targets), -1).astype(np.float64)


def _entropy(shares: Array) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def _class_frequencies(targets: Array) -> float:
    labels = targets.reshape(-1).astype(np.int64)
    return _entropy(np.bincount(labels) / labels.size)


def _mean_distribution(targets: Array) -> float:
    rows = targets.reshape(-1, targets.shape[-1]).astype(np.float64)
    return _entropy(rows.mean(axis=0))


def _binary(targets: Array) -> float:
    share = _columns(targets).mean(axis=0)
    return float(np.mean([_entropy(np.array([p, 1 - p])) for p in share]))


def _mean_square(targets: Array) -> float:
    return float(_columns(targets).var(axis=0).mean())


def _mean_absolute(targets: Array) -> float:
    columns = _columns(targets)
    return float(np.abs(columns - np.median(columns, axis=0)).mean())


def _huber(targets: Array) -> float:
    columns = _columns(targets)
    low, high = columns.min(axis=0), columns.max(axis=0)
    for _ in range(_STEPS):  # the mean of the clipped errors falls as the constant rises
        middle = (low + high) / 2
        is_below = np.clip(columns - middle, -1, 1).mean(axis=0) > 0
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    error = columns - (low + high) / 2
    clipped = np.clip(error, -1, 1)
    return float((clipped * (error - clipped / 2)).mean())


_RULES: dict[Callable[..., Any], Callable[[Array], float]] = {
    losses.sparse_categorical_crossentropy: _class_frequencies,
    losses.categorical_crossentropy: _mean_distribution,
    losses.binary_crossentropy: _binary,
    losses.mean_squared_error: _mean_square,
    losses.mean_absolute_error: _mean_absolute,
    losses.huber: _huber,
}
_OF_QUANTILES = (
    losses.mean_absolute_percentage_error, losses.mean_squared_logarithmic_error, losses.log_cosh,
    losses.hinge,
)  # fmt: skip
