"""Losses: what a batch of predictions costs, and how each prediction should change.

A loss is a function ``(y_true, y_pred) -> (value, gradient)``: the mean over the batch as a Python
float, and its gradient with respect to ``y_pred``. It is computed in float32, or in float64 where
``y_pred`` is float64; only the mean is summed in float64. The cross-entropies take logits, so
that softmax and sigmoid never overflow. What is not finite is a result, not an error: an
overflowing loss is inf or NaN.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lowprec.common.names import named
from lowprec.common.processor_state import in_exact_state
from lowprec.train.exponentials import crossentropy, exp, log1p, softmax_and_logarithm, tanh
from lowprec.train.running.targets import (
    alike,
    check_probabilities,
    class_numbers,
    floating,
    integer_labels,
)

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Hinge",
    "Huber",
    "LogCosh",
    "Loss",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "SparseCategoricalCrossentropy",
    "binary_crossentropy",
    "categorical_crossentropy",
    "get",
    "hinge",
    "huber",
    "log_cosh",
    "mae",
    "mape",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "mse",
    "msle",
    "sparse_categorical_crossentropy",
    "takes_logits",
]

Array = np.ndarray[Any, Any]
Loss = Callable[[Array, Array], tuple[float, Array]]

_LEAST = 1e-7  # Keras' epsilon
_silent = np.errstate(over="ignore", invalid="ignore", divide="ignore")


# Regression --------------------------------------------------------------------------------------


@in_exact_state
@_silent
def mean_squared_error(y_true: Array, y_pred: Array) -> tuple[float, Array]:
    """Return the mean of (y_pred - y_true)² over the batch and the outputs.

    Parameters
    ----------
    y_true : ndarray of shape (n, outputs)
        The targets; shape (n,) serves for one output.
    y_pred : ndarray of shape (n, outputs)
        The predictions, float32 (or float64).

    Returns
    -------
    value : float
        The loss.
    gradient : ndarray
        With respect to `y_pred`, of its shape and dtype.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> mean_squared_error(np.array([1.0, 2.0]), np.array([[2.0], [2.0]], np.float32))
    (0.5, array([[1.],
           [0.]], dtype=float32))
    """
    y_true, y_pred = alike(y_true, y_pred)
    error = y_pred - y_true
    value = _mean(error * error)
    error *= 2 / error.size
    return value, error


@in_exact_state
@_silent
def mean_absolute_error(y_true: Array, y_pred: Array) -> tuple[float, Array]:
    """Return the mean of abs(y_pred - y_true); its gradient is 0 where they are equal.

    Parameters, results and errors as in `mean_squared_error`.

    Examples
    --------
    >>> value, gradient = mean_absolute_error(np.array([1.0, 2.0]), np.array([3.0, 2.0]))
    >>> value, gradient.tolist()
    (1.0, [0.5, 0.0])
    """
    y_true, y_pred = alike(y_true, y_pred)
    error = y_pred - y_true
    value = _mean(np.abs(error))
    gradient = np.sign(error)
    gradient /= error.size
    return value, gradient


@in_exact_state
@_silent
def huber(y_true: Array, y_pred: Array, delta: float = 1.0) -> tuple[float, Array]:
    """Return the mean Huber loss: e²/2 up to abs(e) = `delta`, then delta·(abs(e) - delta/2).

    Parameters, results and errors as in `mean_squared_error`; for another `delta` pass
    ``functools.partial(huber, delta=2.0)`` as the loss.

    Examples
    --------
    >>> value, gradient = huber(np.array([0.0, 0.0]), np.array([0.5, 3.0]))
    >>> value, gradient.tolist()
    (1.3125, [0.25, 0.5])
    """
    if not delta > 0:
        raise ValueError(
            f"delta is {delta!r}; it must be positive: the largest error that counts squared"
        )
    y_true, y_pred = alike(y_true, y_pred)
    error = y_pred - y_true
    gradient = np.clip(error, -delta, delta)
    value = _mean(
        gradient * (error - gradient / 2)
    )  # both cases are c·(e - c/2) for e clipped to c
    gradient /= error.size
    return value, gradient


@in_exact_state
@_silent
def log_cosh(y_true: Array, y_pred: Array) -> tuple[float, Array]:
    """Return the mean of log(cosh(e)), e = y_pred - y_true: e²/2 if small, abs(e) - log 2 if large.

    Parameters, results and errors as in `mean_squared_error`.

    Examples
    --------
    >>> value, gradient = log_cosh(np.array([0.0, 0.0]), np.array([0.0, 1.0]))
    >>> round(value, 5), gradient.round(5).tolist()
    (0.21689, [0.0, 0.3808])
    """
    y_true, y_pred = alike(y_true, y_pred)
    error = y_pred - y_true
    size = np.abs(error)
    value = _mean(size + log1p(exp(-2 * size))) - math.log(2)
    gradient = tanh(error)
    gradient /= error.size
    return value, gradient


@in_exact_state
@_silent
def mean_absolute_percentage_error(y_true: Array, y_pred: Array) -> tuple[float, Array]:
    """Return 100 times the mean of abs(y_pred - y_true) / abs(y_true), that at least 1e-7.

    Parameters, results and errors as in `mean_squared_error`.

    Examples
    --------
    >>> value, gradient = mean_absolute_percentage_error(np.array([2.0, 4.0]), np.array([3.0, 4.0]))
    >>> value, gradient.tolist()
    (25.0, [25.0, 0.0])
    """
    y_true, y_pred = alike(y_true, y_pred)
    error = (y_pred - y_true) / np.maximum(np.abs(y_true), _LEAST)
    value = 100 * _mean(np.abs(error))
    gradient = np.sign(error)
    gradient *= 100 / error.size
    gradient /= np.maximum(np.abs(y_true), _LEAST)
    return value, gradient


@in_exact_state
@_silent
def mean_squared_logarithmic_error(y_true: Array, y_pred: Array) -> tuple[float, Array]:
    """Return the mean of (log(1 + y_pred) - log(1 + y_true))², of numbers that are at least 1e-7.

    The gradient of a prediction below is 0. Parameters, results and errors as in
    `mean_squared_error`.

    Examples
    --------
    >>> value, gradient = mean_squared_logarithmic_error(np.array([0.0]), np.array([1.0]))
    >>> round(value, 6), gradient.round(6).tolist()
    (0.480453, [0.693147])
    """
    y_true, y_pred = alike(y_true, y_pred)
    error = log1p(np.maximum(y_pred, _LEAST)) - log1p(np.maximum(y_true, _LEAST))
    value = _mean(error * error)
    error *= 2 / error.size
    error /= 1 + y_pred
    error[y_pred < _LEAST] = 0
    return value, error


# Classification ----------------------------------------------------------------------------------


@in_exact_state
@_silent
def hinge(y_true: Array, y_pred: Array) -> tuple[float, Array]:
    """Return the mean of max(1 - y_true · y_pred, 0), for labels -1 and 1, or 0 and 1 for them.

    Parameters, results and errors as in `mean_squared_error`; `y_pred` are outputs such as tanh's.

    Examples
    --------
    >>> value, gradient = hinge(np.array([0, 1]), np.array([0.5, 3.0]))
    >>> value, gradient.tolist()
    (0.75, [0.5, 0.0])
    """
    y_true, y_pred = alike(y_true, y_pred)
    if ((y_true == 0) | (y_true == 1)).all():
        y_true = 2 * y_true - 1
    margin = 1 - y_true * y_pred
    value = _mean(np.maximum(margin, 0))
    gradient = np.negative(y_true)
    gradient[margin <= 0] = 0
    gradient[np.isnan(margin)] = np.nan
    gradient /= margin.size
    return value, gradient


@in_exact_state
@_silent
def binary_crossentropy(y_true: Array, y_pred: Array) -> tuple[float, Array]:
    """Return the mean of -log of the probability, sigmoid(y_pred), of the true answer.

    Parameters
    ----------
    y_true : ndarray of shape (n, outputs) or (n,)
        Labels 0 and 1, or probabilities in between.
    y_pred : ndarray of shape (n, outputs)
        Logits.

    Returns
    -------
    value : float
        The loss, max(z, 0) - z·y + log(1 + exp(-abs(z))) on average: finite for any finite logits.
    gradient : ndarray
        (sigmoid(z) - y) / z.size.

    Raises
    ------
    ValueError
        If the shapes do not fit or a label is outside 0 … 1.

    Examples
    --------
    >>> value, gradient = binary_crossentropy(np.array([1, 0]), np.array([1000.0, 1000.0]))
    >>> value, gradient.tolist()
    (500.0, [0.0, 0.5])
    """
    y_true, logits = alike(y_true, y_pred)
    check_probabilities(y_true, "binary_crossentropy")
    tail = exp(-np.abs(logits))
    value = _mean(np.maximum(logits, 0) - logits * y_true + log1p(tail))
    gradient = np.where(logits >= 0, 1, tail) / (1 + tail)
    gradient -= y_true
    gradient /= gradient.size
    return value, gradient


@in_exact_state
@_silent
def categorical_crossentropy(y_true: Array, y_pred: Array) -> tuple[float, Array]:
    """Return the mean over the batch of -Σ y_true·log softmax(y_pred).

    Parameters
    ----------
    y_true : ndarray of shape (n, classes)
        A probability for each class: one-hot rows, or smoothed ones.
    y_pred : ndarray of shape (n, classes)
        Logits.

    Returns
    -------
    value : float
        The loss.
    gradient : ndarray
        (softmax(y_pred) - y_true) / n.

    Raises
    ------
    ValueError
        If the shapes differ, or a row of `y_true` is not a distribution.

    Examples
    --------
    >>> value, gradient = categorical_crossentropy(np.array([[0, 1]]), np.array([[0.0, 0.0]]))
    >>> round(value, 6), gradient.tolist()
    (0.693147, [[0.5, -0.5]])
    """
    logits = floating(y_pred)
    y_true = np.asarray(y_true)
    if logits.ndim < 2 or y_true.shape != logits.shape:
        raise ValueError(
            f"labels of shape {y_true.shape} do not fit logits of shape {logits.shape}; "
            "categorical_crossentropy takes a row of probabilities for each sample; for integer "
            "labels use sparse_categorical_crossentropy: loss='sparse_categorical_crossentropy'"
        )
    y_true = y_true.astype(logits.dtype, copy=False)
    check_probabilities(y_true, "categorical_crossentropy")
    mass = y_true.sum(axis=-1, keepdims=True)
    if y_true.size and not np.abs(mass - 1).max() <= 1e-3:
        row = int(np.abs(mass - 1).reshape(-1).argmax())
        raise ValueError(
            f"row {row} of the labels sums to {mass.reshape(-1)[row]:g}; the probabilities of the "
            "classes must sum to 1; for several answers at once use binary_crossentropy"
        )
    probabilities, logarithms = softmax_and_logarithm(logits)
    rows = logits.size // logits.shape[-1]
    value = -float(np.sum(y_true * logarithms, dtype=np.float64)) / rows
    probabilities *= mass
    probabilities -= y_true
    probabilities /= rows
    return value, probabilities


@in_exact_state
@_silent
def sparse_categorical_crossentropy(y_true: Array, y_pred: Array) -> tuple[float, Array]:
    """Return the mean over the batch of -log softmax(y_pred) at the true class.

    Parameters
    ----------
    y_true : ndarray of int, of shape (n,) or (n, 1)
        The number of each sample's class, from 0.
    y_pred : ndarray of shape (n, classes)
        Logits.

    Returns
    -------
    value : float
        The loss: finite for any finite logits.
    gradient : ndarray
        (softmax(y_pred) - one_hot(y_true)) / n.

    Raises
    ------
    TypeError
        If the labels are not integers.
    ValueError
        If the shapes do not fit or a label is not a class.

    Examples
    --------
    >>> value, gradient = sparse_categorical_crossentropy(np.array([1]), np.array([[0.0, 0.0]]))
    >>> round(value, 6), gradient.tolist()
    (0.693147, [[0.5, -0.5]])
    """
    logits = floating(y_pred)
    labels = integer_labels(y_true, logits.shape)
    flat = logits.reshape(labels.size, logits.shape[-1])
    at_once = crossentropy(flat, labels)
    if at_once is not None:
        return at_once[0], at_once[1].reshape(logits.shape)
    labels = class_numbers(y_true, logits.shape)
    probabilities, logarithms = softmax_and_logarithm(flat)
    rows = np.arange(labels.size)
    value = -_mean(logarithms[rows, labels])
    probabilities[rows, labels] -= 1
    probabilities /= labels.size
    return value, probabilities.reshape(logits.shape)


def _mean(terms: Array) -> float:
    return float(terms.mean(dtype=np.float64))


# By name -----------------------------------------------------------------------------------------

mse, mae = mean_squared_error, mean_absolute_error
mape, msle = mean_absolute_percentage_error, mean_squared_logarithmic_error

LOSSES: dict[str, Loss] = {
    "mse": mean_squared_error,
    "mean_squared_error": mean_squared_error,
    "mae": mean_absolute_error,
    "mean_absolute_error": mean_absolute_error,
    "huber": huber,
    "huber_loss": huber,
    "log_cosh": log_cosh,
    "logcosh": log_cosh,
    "mape": mean_absolute_percentage_error,
    "mean_absolute_percentage_error": mean_absolute_percentage_error,
    "msle": mean_squared_logarithmic_error,
    "mean_squared_logarithmic_error": mean_squared_logarithmic_error,
    "hinge": hinge,
    "binary_crossentropy": binary_crossentropy,
    "categorical_crossentropy": categorical_crossentropy,
    "sparse_categorical_crossentropy": sparse_categorical_crossentropy,
}


def get(loss: str | Loss) -> Loss:
    """Return the loss of that name; a function of your own is returned as it is.

    Parameters
    ----------
    loss : str or callable
        A name in Keras' spelling, or a function ``(y_true, y_pred) -> (value, gradient)``.

    Returns
    -------
    callable
        The function.

    Raises
    ------
    ValueError
        If no loss has that name.
    TypeError
        If it is neither a name nor a function.

    Examples
    --------
    >>> get("mse") is mean_squared_error
    True
    """
    if isinstance(loss, str):
        try:
            return named(loss, LOSSES, "loss")
        except ValueError as error:
            own = "or a function (y_true, y_pred) -> (value, gradient)"
            raise ValueError(f"{error}, {own}") from None
    if isinstance(loss, KerasLoss):
        raise TypeError(f"{loss!r} makes a loss; write loss={loss!r}()")
    if callable(loss):
        return loss
    raise TypeError(
        f"a loss is a name or a function (y_true, y_pred) -> (value, gradient), not {loss!r}"
    )


def without_options(loss: str | Loss) -> Loss:
    """Return a loss as it is without options, such as Huber's delta.

    Examples
    --------
    >>> without_options(Huber(delta=2.0)) is huber
    True
    """
    found = get(loss)
    inner = getattr(found, "func", None) if isinstance(found, functools.partial) else None
    return found if inner is None else get(inner)


def takes_logits(loss: str | Loss) -> bool:
    """Return whether a loss applies softmax or sigmoid itself, so that a model must not.

    Examples
    --------
    >>> takes_logits("sparse_categorical_crossentropy"), takes_logits("mse")
    (True, False)
    """
    return without_options(loss) in (
        binary_crossentropy,
        categorical_crossentropy,
        sparse_categorical_crossentropy,
    )


# As Keras' classes --------------------------------------------------------------------------------


class KerasLoss:
    """A loss as a class of Keras: called, it gives the function.

    Examples
    --------
    >>> MeanSquaredError() is mean_squared_error
    True
    """

    def __init__(self, name: str, loss: Loss, options: tuple[str, ...] = ()) -> None:
        self._name, self._loss, self._options = name, loss, options

    def __repr__(self) -> str:
        """Return the name."""
        return self._name

    def __call__(self, *arguments: Any, name: str | None = None, **options: Any) -> Loss:
        """Return the function.

        *arguments, **options: ``delta`` of Huber's loss; ``from_logits`` of a cross-entropy, which
            has no influence: a softmax or sigmoid at the model's end is trained through its logits.
        name: Taken for Keras' sake.
        Raises TypeError: For other options of Keras'.
        """
        options |= dict(zip(self._options, arguments, strict=False))
        if len(arguments) > len(self._options) or isinstance(
            options.get("from_logits"), np.ndarray
        ):
            raise TypeError(f"{self._name} is made first: write {self._name}()(y_true, y_pred)")
        if options.pop("reduction", None) not in (None, "sum_over_batch_size", "mean"):
            raise TypeError(f"{self._name} is a mean over the batch; drop reduction")
        if options.get("label_smoothing", 0.0) == 0.0:
            options.pop("label_smoothing", None)
        unknown = [option for option in options if option not in self._options]
        if "label_smoothing" in unknown:
            raise TypeError(
                "label_smoothing is of the targets: y = (1 - s) * to_categorical(y) + s / classes"
            )
        if unknown:
            known = ", ".join(self._options) or "none"
            raise TypeError(f"{self._name} has no option {unknown[0]!r}; it has {known}")
        options.pop("from_logits", None)
        return functools.partial(self._loss, **options) if options else self._loss


MeanSquaredError = KerasLoss("MeanSquaredError", mean_squared_error)
MeanAbsoluteError = KerasLoss("MeanAbsoluteError", mean_absolute_error)
Huber = KerasLoss("Huber", huber, ("delta",))
LogCosh = KerasLoss("LogCosh", log_cosh)
MeanAbsolutePercentageError = KerasLoss(
    "MeanAbsolutePercentageError", mean_absolute_percentage_error
)
MeanSquaredLogarithmicError = KerasLoss(
    "MeanSquaredLogarithmicError", mean_squared_logarithmic_error
)
Hinge = KerasLoss("Hinge", hinge)
BinaryCrossentropy = KerasLoss("BinaryCrossentropy", binary_crossentropy, ("from_logits",))
CategoricalCrossentropy = KerasLoss(
    "CategoricalCrossentropy", categorical_crossentropy, ("from_logits",)
)
SparseCategoricalCrossentropy = KerasLoss(
    "SparseCategoricalCrossentropy", sparse_categorical_crossentropy, ("from_logits",)
)
