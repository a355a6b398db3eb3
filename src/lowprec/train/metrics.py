"""Metrics: what a batch of predictions is worth in a number that people read.

A metric is a mean over samples and a last step, so that batches of unequal sizes give the same
number as all the data at once.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import in_exact_state
from lowprec.train import losses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Averages", "Metric", "accuracy", "binary_accuracy", "for_loss", "mae", "rmse"]

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A mean over a batch, with a name and a last step.

    Calling it with `y_true` and `y_pred` gives its value for them.

    Attributes
    ----------
    name : str
        Its key in `History.history`; ``"val_" + name`` on the test set.
    mean : callable
        ``(y_true, y_pred) -> float``: what is averaged over samples.
    finish : callable
        What the average becomes in the end.

    Examples
    --------
    >>> rmse(np.array([0.0, 0.0]), np.array([1.0, 7.0]))
    5.0
    """

    name: str
    mean: Callable[[Array, Array], float]
    finish: Callable[[float], float] = float

    @in_exact_state
    def __call__(self, y_true: Array, y_pred: Array) -> float:
        """Return the metric of these predictions."""
        return self.finish(self.mean(y_true, y_pred))


def _sparse_accuracy(y_true: Array, y_pred: Array) -> float:
    return float((np.argmax(y_pred, axis=-1) == np.reshape(y_true, y_pred.shape[:-1])).mean())


def _one_hot_accuracy(y_true: Array, y_pred: Array) -> float:
    return float((np.argmax(y_pred, axis=-1) == np.argmax(y_true, axis=-1)).mean())


def _binary_accuracy(y_true: Array, y_pred: Array) -> float:
    return float(((y_pred > 0) == (np.reshape(y_true, y_pred.shape) > 0.5)).mean())


def _mean_absolute_error(y_true: Array, y_pred: Array) -> float:
    return losses.mae(y_true, y_pred)[0]


def _mean_squared_error(y_true: Array, y_pred: Array) -> float:
    return losses.mse(y_true, y_pred)[0]


accuracy = Metric("accuracy", _sparse_accuracy)
"""The share of samples whose largest output is that of the labelled class."""

one_hot_accuracy = Metric("accuracy", _one_hot_accuracy)
"""The same for labels as rows of probabilities."""

binary_accuracy = Metric("accuracy", _binary_accuracy)
"""The share of logits on the side of 0 where the label is: above for labels above ½."""

mae = Metric("mae", _mean_absolute_error)
"""The mean absolute error."""

rmse = Metric("rmse", _mean_squared_error, math.sqrt)
"""The root of the mean squared error."""

_OF_LOSS: tuple[tuple[losses.Loss, tuple[Metric, ...]], ...] = (
    (losses.mean_squared_error, (mae, rmse)),
    (losses.mean_absolute_error, (mae, rmse)),
    (losses.huber, (mae, rmse)),
    (losses.binary_crossentropy, (binary_accuracy,)),
    (losses.categorical_crossentropy, (one_hot_accuracy,)),
    (losses.sparse_categorical_crossentropy, (accuracy,)),
)


def for_loss(loss: str | losses.Loss) -> tuple[Metric, ...]:
    """Return the metrics that a loss is reported with: none for a function of your own.

    Examples
    --------
    >>> [metric.name for metric in for_loss("mse")]
    ['mae', 'rmse']
    >>> [metric.name for metric in for_loss("sparse_categorical_crossentropy")]
    ['accuracy']
    """
    function = losses.get(loss)
    return next((found for known, found in _OF_LOSS if known is function), ())


class Averages:
    """The loss and the metrics of the batches so far, each batch weighted by its samples.

    Parameters
    ----------
    metrics : sequence of Metric
        What to report beside the loss.

    Examples
    --------
    >>> averages = Averages([mae])
    >>> averages.add(2.0, np.array([0.0, 0.0]), np.array([1.0, 2.0]))
    >>> averages.add(5.0, np.array([0.0]), np.array([6.0]))
    >>> averages.result()
    {'loss': 3.0, 'mae': 3.0}
    """

    def __init__(self, metrics: Sequence[Metric] = ()) -> None:
        self.metrics = tuple(metrics)
        self.samples = 0
        self.sums = [0.0] * (1 + len(self.metrics))

    @in_exact_state
    def add(self, loss: float, y_true: Array, y_pred: Array) -> None:
        """Add a batch: its mean loss, and its metrics from targets and predictions."""
        count = len(y_pred)
        self.samples += count
        self.sums[0] += count * loss
        for place, metric in enumerate(self.metrics, 1):
            self.sums[place] += count * metric.mean(y_true, y_pred)

    @in_exact_state
    def result(self) -> dict[str, float]:
        """Return the means by name, the loss first; NaN before the first batch."""
        loss, *values = (s / self.samples if self.samples else math.nan for s in self.sums)
        return {"loss": loss} | {
            metric.name: metric.finish(value)
            for metric, value in zip(self.metrics, values, strict=True)
        }
