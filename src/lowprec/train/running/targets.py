"""Targets beside predictions: brought into one shape and dtype, or refused with the row."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def floating(y_pred: Array) -> Array:
    """Return predictions in the dtype that the loss is computed in."""
    y_pred = np.asarray(y_pred)
    return y_pred if y_pred.dtype == np.float64 else y_pred.astype(np.float32, copy=False)


def alike(y_true: Array, y_pred: Array) -> tuple[Array, Array]:
    """Return both in one dtype and shape; (n,) against (n, 1) must not become (n, n)."""
    y_true, y_pred = np.asarray(y_true), floating(y_pred)
    if y_true.shape != y_pred.shape:
        if _without_last_one(y_true.shape) != _without_last_one(y_pred.shape):
            raise ValueError(
                f"targets of shape {y_true.shape} do not fit predictions of shape {y_pred.shape}; "
                "the last layer needs as many units as there are targets of a sample"
            )
        y_true = y_true.reshape(y_pred.shape)
    return y_true.astype(y_pred.dtype, copy=False), y_pred


def _without_last_one(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape


def check_probabilities(y_true: Array, name: str) -> None:
    """Refuse labels outside 0 … 1 in the name of a loss, with the first such row."""
    if y_true.size and not (y_true.min() >= 0 and y_true.max() <= 1):
        wrong = ~((y_true >= 0) & (y_true <= 1))
        row = int(np.argwhere(wrong)[0][0])
        raise ValueError(
            f"row {row} of the labels holds {float(y_true[wrong][0]):g}; {name} takes labels "
            "from 0 to 1"
        )


def integer_labels(y_true: Array, shape: tuple[int, ...]) -> Array:
    """Return labels as one vector of integers, one for each row of logits of the given shape."""
    labels = np.asarray(y_true)
    if labels.shape == shape and len(shape) > 1 and shape[-1] > 1:
        raise ValueError(
            f"labels of shape {labels.shape} do not fit logits of shape {shape}; "
            "sparse_categorical_crossentropy takes one class number for each row of logits; for "
            "one-hot rows use categorical_crossentropy: "
            "loss='categorical_crossentropy', or y = y.argmax(axis=-1)"
        )
    if labels.dtype.kind not in "iub":
        raise TypeError(
            f"labels are {labels.dtype}; sparse_categorical_crossentropy takes integers: pass "
            "y.astype(int), or use categorical_crossentropy for rows of probabilities"
        )
    if len(shape) < 2 or labels.shape not in (shape[:-1], (*shape[:-1], 1)):
        raise ValueError(
            f"labels of shape {labels.shape} do not fit logits of shape {shape}; "
            "sparse_categorical_crossentropy takes one class number for each row of logits; for "
            "one-hot rows use categorical_crossentropy"
        )
    return labels.reshape(-1).astype(np.intp, copy=False)


def class_numbers(y_true: Array, shape: tuple[int, ...]) -> Array:
    """Return labels as one vector of class numbers for logits of the given shape."""
    labels = integer_labels(y_true, shape)
    if labels.size and not (labels.min() >= 0 and labels.max() < shape[-1]):
        row = int(np.argmax((labels < 0) | (labels >= shape[-1])))
        raise ValueError(
            f"label {labels[row]} in row {row} is not one of the {shape[-1]} classes, which are "
            f"counted from 0 to {shape[-1] - 1}; number the classes from 0 or give the last layer "
            "more units"
        )
    return labels
