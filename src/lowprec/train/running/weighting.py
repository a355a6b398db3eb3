"""Weights in the loss: how much each class, or each sample, counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lowprec.train.losses import Loss

Array = np.ndarray[Any, Any]


def checked_weights(weights: Any) -> dict[int, float] | None:
    """Return class weights as a dictionary of numbers; None for none.

    Raises TypeError if it is not a mapping of classes to weights.
    Raises ValueError if a weight is negative or not finite.
    """
    if weights is None:
        return None
    if not isinstance(weights, Mapping):
        raise TypeError(
            f"class_weight is a {type(weights).__name__}; pass a weight for each class, as in "
            "class_weight={0: 1.0, 1: 5.0}"
        )
    found = {}
    for label, weight in weights.items():
        if int(label) != label or not 0 <= weight < math.inf:
            raise ValueError(
                f"class_weight={{{label!r}: {weight!r}}}: classes are integers from 0, weights "
                "finite and at least 0, as in class_weight={0: 1.0, 1: 5.0}"
            )
        found[int(label)] = float(weight)
    return found


def sample_weights(weights: Any, samples: int) -> Array | None:
    """Return the weight of each sample in float32; None for none.

    Raises ValueError if their number is another, or one is negative or not finite.
    """
    if weights is None:
        return None
    found = np.asarray(weights, np.float32)
    if found.size != samples or (found.ndim > 1 and found.shape != (samples, 1)):
        raise ValueError(
            f"sample_weight has shape {found.shape} and there are {samples} samples; pass one "
            f"number for each: shape ({samples},)"
        )
    wrong = np.flatnonzero(~((found >= 0) & (found < math.inf)))
    if wrong.size:
        raise ValueError(
            f"sample_weight holds {found.flat[wrong[0]]} in row {wrong[0]}; weights are finite and "
            "at least 0"
        )
    return found.reshape(samples)


def by_class(loss: Loss, weights: Mapping[int, float]) -> Loss:
    """Return the loss in which each sample counts as its class does: Σ wᵢ·lossᵢ / n, as in Keras.

    A class that is not named counts once. The gradient is that of `loss`, each row multiplied by
    its weight: it has its bits where all weights are 1.

    loss: A mean over samples.
    weights: By class.

    Examples
    --------
    >>> from lowprec.train import losses
    >>> twice = by_class(losses.sparse_categorical_crossentropy, {1: 2.0})
    >>> value, gradient = twice(np.array([0, 1]), np.zeros((2, 2), np.float32))
    >>> round(float(value), 4), gradient.tolist()  # (1 + 2)/2 · log 2
    (1.0397, [[-0.25, 0.25], [0.5, -0.5]])
    """

    def run(y_true: Array, y_pred: Array) -> tuple[float, Array]:
        classes = _classes(np.asarray(y_true), y_pred.shape)
        factors = np.array([weights.get(int(label), 1.0) for label in classes], np.float64)
        return _weighted(loss, y_true, y_pred, factors)

    return run


def by_sample(loss: Loss, weights: Array | None) -> Loss:
    """Return the loss in which each sample counts as its own weight says: Σ wᵢ·lossᵢ / n.

    Examples
    --------
    >>> from lowprec.train import losses
    >>> loss = by_sample(losses.mse, np.array([1.0, 3.0]))
    >>> value, gradient = loss(np.array([0.0, 0.0]), np.array([2.0, 1.0]))
    >>> value, gradient.tolist()  # (1·4 + 3·1)/2
    (3.5, [2.0, 3.0])
    """
    if weights is None:
        return loss
    factors = weights.astype(np.float64)
    return lambda y_true, y_pred: _weighted(loss, y_true, y_pred, factors)


def _weighted(loss: Loss, y_true: Array, y_pred: Array, factors: Array) -> tuple[float, Array]:
    value, gradient = loss(y_true, y_pred)
    if (factors == 1.0).all():
        return value, gradient
    total = 0.0
    for weight in np.unique(factors):  # a mean over samples is the sum of parts' means
        rows = factors == weight
        total += float(weight) * float(loss(y_true[rows], y_pred[rows])[0]) * int(rows.sum())
    shape = (len(factors), *(1,) * (gradient.ndim - 1))
    return total / len(factors), gradient * factors.astype(gradient.dtype).reshape(shape)


def _classes(y_true: Array, shape: tuple[int, ...]) -> Array:
    """Return each sample's class, from labels, rows of probabilities or answers 0 and 1."""
    if y_true.shape == shape and len(shape) > 1 and shape[-1] > 1:
        labels = y_true.argmax(axis=-1)
    else:
        labels = np.round(y_true).astype(np.int64)
    if labels.size != len(labels):
        raise ValueError(
            f"class_weight with targets of shape {y_true.shape}: a sample must have one class; "
            "drop class_weight"
        )
    return np.asarray(labels.reshape(-1))
