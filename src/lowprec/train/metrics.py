"""Metrics: what a batch of predictions is worth in a number that people read.

A metric is a mean over samples and a last step, so that batches of unequal sizes give the same
number as all the data at once.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.common.names import named
from lowprec.common.processor_state import in_exact_state, in_its_state
from lowprec.train import activations, keras_words, losses
from lowprec.train.running.targets import alike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Array = np.ndarray[Any, Any]

OUTPUTS, PROBABILITIES, PREDICTIONS = "outputs", "probabilities", "predictions"


@dataclasses.dataclass(frozen=True)
class Metric:
    """A mean over a batch, with a name and a last step.

    Calling it with `y_true` and `y_pred` gives its value for them.

    Attributes
    ----------
    name : str
        Its key in `History.history`; ``"val_" + name`` on the test set.
    mean : callable
        ``(y_true, y_pred) -> float``, or an array of numbers: what is averaged over samples.
    finish : callable
        What the average becomes in the end.
    reads : {"outputs", "probabilities", "predictions"}
        What `y_pred` is: the outputs that the loss reads (logits for a cross-entropy), the
        probabilities of those logits, or what `predict` gives.
    merge : callable, optional
        ``(samples, average, more samples, their average) -> average``, where the mean of two
        averages is not that of all samples.
    is_better_high : bool
        Whether large values are good.

    Examples
    --------
    >>> rmse(np.array([0.0, 0.0]), np.array([1.0, 7.0]))
    5.0
    """

    name: str
    mean: Callable[[Array, Array], Any]
    finish: Callable[[Any], float] = float
    reads: str = OUTPUTS
    merge: Callable[[int, Any, int, Any], Any] | None = None
    is_better_high: bool = False

    @in_exact_state
    def __call__(self, y_true: Array, y_pred: Array) -> float:
        """Return the metric of these predictions."""
        return self.finish(self.mean(y_true, y_pred))


# Classification ----------------------------------------------------------------------------------


def _sparse_accuracy(y_true: Array, y_pred: Array) -> float:
    return float((np.argmax(y_pred, axis=-1) == np.reshape(y_true, y_pred.shape[:-1])).mean())


def _one_hot_accuracy(y_true: Array, y_pred: Array) -> float:
    return float((np.argmax(y_pred, axis=-1) == np.argmax(y_true, axis=-1)).mean())


def _binary_accuracy(y_true: Array, y_pred: Array, threshold: float = 0.0) -> float:
    return float(((y_pred > threshold) == (np.reshape(y_true, y_pred.shape) > 0.5)).mean())


def _accuracy_by_shape(y_true: Array, y_pred: Array) -> float:
    """Return the accuracy that targets of this shape ask for: predictions are not logits."""
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_pred.ndim < 2 or y_pred.shape[-1] == 1:
        return _binary_accuracy(y_true, y_pred, 0.5)
    if y_true.shape == y_pred.shape:
        return _one_hot_accuracy(y_true, y_pred)
    return _sparse_accuracy(y_true, y_pred)


def _class_of(y_true: Array, shape: tuple[int, ...]) -> Array:
    """Return the class of each row, whether labels are numbers or rows of probabilities."""
    labels = np.asarray(y_true)
    if labels.shape == shape:
        return np.asarray(labels.argmax(axis=-1))
    return labels.reshape(shape[:-1])


def _top_k(y_true: Array, y_pred: Array, k: int) -> float:
    labels = _class_of(y_true, y_pred.shape)
    own = np.take_along_axis(y_pred, labels[..., None].astype(np.intp), axis=-1)
    # NaN is above nothing: a sample whose own output is NaN is wrong
    return float(((y_pred > own).sum(axis=-1) < k)[~np.isnan(own[..., 0])].sum() / labels.size)


def _decisions(y_true: Array, y_pred: Array) -> tuple[Array, Array]:
    """Return what is positive in truth and what is said to be, by a probability above ½."""
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_pred.ndim >= 2 and y_pred.shape[-1] > 1 and y_true.shape != y_pred.shape:
        is_true = _class_of(y_true, y_pred.shape)[..., None] == np.arange(y_pred.shape[-1])
    else:
        is_true = np.reshape(y_true, y_pred.shape) > 0.5
    return is_true, y_pred > 0.5


def _hits_and_said(y_true: Array, y_pred: Array) -> Array:
    is_true, said = _decisions(y_true, y_pred)
    return np.array([(is_true & said).sum(), said.sum()]) / len(said)


def _hits_and_true(y_true: Array, y_pred: Array) -> Array:
    is_true, said = _decisions(y_true, y_pred)
    return np.array([(is_true & said).sum(), is_true.sum()]) / len(said)


def _share(counts: Array) -> float:
    """Return the first over the second; 0, as Keras has it, of nothing."""
    return float(counts[0] / counts[1]) if counts[1] else 0.0


_THRESHOLDS = np.array([-1e-7, *(np.arange(1, 199) / 199), 1 + 1e-7])  # Keras' 200


def _hits_above(y_true: Array, y_pred: Array) -> Array:
    """Return, by threshold, the shares of the samples that are true, and false, and above it."""
    is_true, _ = _decisions(y_true, y_pred)
    edges = np.searchsorted(_THRESHOLDS, np.asarray(y_pred, np.float64).ravel())  # NaN above all
    counts = [np.bincount(edges[is_true.ravel() == kind], minlength=201) for kind in (True, False)]
    return np.array([count[::-1].cumsum()[::-1][1:] for count in counts]) / len(y_pred)


def _area(hits: Array) -> float:
    """Return the area below the rate of true positives over false ones; 0 without either."""
    of_true, of_false = hits / np.maximum(hits[:, :1], np.finfo(float).tiny)
    return float(((of_false[:-1] - of_false[1:]) * (of_true[:-1] + of_true[1:])).sum() / 2)


# Regression --------------------------------------------------------------------------------------


def _mean_absolute_error(y_true: Array, y_pred: Array) -> float:
    return losses.mae(y_true, y_pred)[0]


def _mean_squared_error(y_true: Array, y_pred: Array) -> float:
    return losses.mse(y_true, y_pred)[0]


def _percentage(y_true: Array, y_pred: Array) -> float:
    return losses.mape(y_true, y_pred)[0]


def _squared_logarithm(y_true: Array, y_pred: Array) -> float:
    return losses.msle(y_true, y_pred)[0]


class _TargetSpread(NamedTuple):
    """By output: the targets' mean, their mean square about it, and the mean squared error."""

    mean: Array
    square: Array
    error: Array


def _spread(y_true: Array, y_pred: Array) -> _TargetSpread:
    y_true, y_pred = alike(y_true, y_pred)
    y = y_true.astype(np.float64).reshape(len(y_true), -1)
    error = y - y_pred.astype(np.float64).reshape(y.shape)
    mean = y.mean(axis=0)
    return _TargetSpread(mean, np.square(y - mean).mean(axis=0), np.square(error).mean(axis=0))


def _merged_spread(n: int, a: _TargetSpread, m: int, b: _TargetSpread) -> _TargetSpread:
    """Return the spread of n and m samples together, as Chan, Golub and LeVeque merge them."""
    part = m / (n + m)
    apart = b.mean - a.mean
    return _TargetSpread(
        a.mean + apart * part,
        a.square + (b.square - a.square) * part + np.square(apart) * part * (1 - part),
        a.error + (b.error - a.error) * part,
    )


def _r2(spread: _TargetSpread) -> float:
    """Return the mean over the outputs of 1 - error/variance; of a constant target 1 or 0."""
    with np.errstate(all="ignore"):
        varied = 1 - spread.error / spread.square
    constant = np.where(spread.error == 0, 1.0, 0.0)
    return float(np.where(spread.square > 0, varied, constant).mean())


accuracy = Metric("accuracy", _sparse_accuracy, is_better_high=True)
"""The share of samples whose largest output is that of the labelled class."""

one_hot_accuracy = Metric("accuracy", _one_hot_accuracy, is_better_high=True)
"""The same for labels as rows of probabilities."""

binary_accuracy = Metric("accuracy", _binary_accuracy, is_better_high=True)
"""The share of logits on the side of 0 where the label is: above for labels above ½."""

shape_accuracy = Metric("accuracy", _accuracy_by_shape, reads=PREDICTIONS, is_better_high=True)
"""The accuracy that the targets' shape asks for, of predictions that are not logits."""

precision = Metric("precision", _hits_and_said, _share, PROBABILITIES, is_better_high=True)
"""Of the probabilities above ½, the share that is right; 0 if there are none."""

recall = Metric("recall", _hits_and_true, _share, PROBABILITIES, is_better_high=True)
"""Of the true answers, the share that has a probability above ½; 0 if there are none."""

auc = Metric("auc", _hits_above, _area, PROBABILITIES, is_better_high=True)
"""The area below the ROC curve through 200 thresholds from 0 to 1, as Keras has it."""

mape = Metric("mape", _percentage)
"""The mean absolute error in percent of the target."""

msle = Metric("msle", _squared_logarithm)
"""The mean squared error of log(1 + y)."""

mae = Metric("mae", _mean_absolute_error)
"""The mean absolute error."""

mse = Metric("mse", _mean_squared_error)
"""The mean squared error."""

rmse = Metric("rmse", _mean_squared_error, math.sqrt)
"""The root of the mean squared error: √(Σe²/n)."""

r2 = Metric("r2", _spread, _r2, merge=_merged_spread, is_better_high=True)
"""The coefficient of determination, 1 - Σe²/Σ(y - ȳ)², averaged over the outputs."""


def top_k(k: int = 5, name: str | None = None) -> Metric:
    """Return the share of samples whose class is among the k largest outputs.

    Parameters
    ----------
    k : int
        How many outputs count.
    name : str, optional
        The metric's name; by default ``top_5_accuracy``, with the number.

    Raises
    ------
    ValueError
        If k is less than 1.

    Examples
    --------
    >>> top_k(2)(np.array([0]), np.array([[0.3, 0.5, 0.2]]))
    1.0
    """
    if k < 1:
        raise ValueError(f"top_k({k}): use 1 or more")
    mean = functools.partial(_top_k, k=k)
    return Metric(name or f"top_{k}_accuracy", mean, is_better_high=True)


def for_loss(loss: str | losses.Loss) -> tuple[Metric, ...]:
    """Return the metrics that a loss is reported with: none for a function of your own.

    Examples
    --------
    >>> [metric.name for metric in for_loss("mse")]
    ['mae', 'rmse']
    >>> [metric.name for metric in for_loss("sparse_categorical_crossentropy")]
    ['accuracy']
    """
    function = losses.without_options(loss)
    return next((found for known, found in _OF_LOSS if known is function), ())


_OF_LOSS: tuple[tuple[losses.Loss, tuple[Metric, ...]], ...] = (
    (losses.mean_squared_error, (mae, rmse)),
    (losses.mean_absolute_error, (mae, rmse)),
    *((loss, (mae, rmse)) for loss in (losses.huber, losses.log_cosh, losses.mape, losses.msle)),
    (losses.hinge, (shape_accuracy,)),
    (losses.binary_crossentropy, (binary_accuracy,)),
    (losses.categorical_crossentropy, (one_hot_accuracy,)),
    (losses.sparse_categorical_crossentropy, (accuracy,)),
)

# By name -----------------------------------------------------------------------------------------

_top_five = top_k()
_NAMED: dict[str, Metric] = {
    "mae": mae,
    "mean_absolute_error": mae,
    "mse": mse,
    "mean_squared_error": mse,
    "rmse": rmse,
    "root_mean_squared_error": rmse,
    "r2": r2,
    "r2_score": r2,
    "mape": mape,
    "mean_absolute_percentage_error": mape,
    "msle": msle,
    "mean_squared_logarithmic_error": msle,
    "auc": auc,
    "AUC": auc,
    "precision": precision,
    "recall": recall,
    "binary_accuracy": binary_accuracy,
    "categorical_accuracy": one_hot_accuracy,
    "sparse_categorical_accuracy": accuracy,
    "top_k": _top_five,
    "top-k": _top_five,
    "top_k_accuracy": _top_five,
    "top_k_categorical_accuracy": _top_five,
    "sparse_top_k_categorical_accuracy": _top_five,
}
_ACCURACIES = ("accuracy", "acc")
_TOP = re.compile(r"top[_-](\d+)(?:_accuracy)?")


def get(
    metric: str | Metric | Callable[[Array, Array], Any], loss: str | losses.Loss = "mse"
) -> Metric:
    """Return the metric of a name, under that name, or the metric that a function computes.

    Parameters
    ----------
    metric : str, Metric or callable
        accuracy (or acc), which the loss decides; top_k (5) or top_3; mae, mape, mse, msle, rmse,
        r2, precision, recall, auc, or Keras' longer names. A function ``(y_true, y_pred)`` returns
        a number or one for each sample; it is given what `predict` gives, and is averaged over
        samples.
    loss : str or callable
        What is trained with.

    Raises
    ------
    ValueError
        If there is none of that name.
    TypeError
        If it is neither.

    Examples
    --------
    >>> get("root_mean_squared_error")(np.array([0.0, 0.0]), np.array([1.0, 7.0]))
    5.0
    >>> get("acuracy")
    Traceback (most recent call last):
        ...
    ValueError: 'acuracy' is not a metric; did you mean 'accuracy'? use one of accuracy, mae, ...
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, NamedMetric):
        return dataclasses.replace(get(metric.metric, loss), name=metric.name)
    if isinstance(metric, KerasMetric):
        raise TypeError(f"{metric!r} makes a metric; write metrics=[{metric!r}()]")
    if isinstance(metric, str):
        if found := _TOP.fullmatch(metric):
            return top_k(int(found[1]), metric)
        if metric in _ACCURACIES:
            suited = for_loss(loss) if losses.takes_logits(loss) else ()
            return dataclasses.replace(suited[0] if suited else shape_accuracy, name=metric)
        table = dict.fromkeys(_ACCURACIES, accuracy) | _NAMED
        chosen = named(metric, table, "metric")
        if chosen is binary_accuracy and not losses.takes_logits(loss):
            mean = functools.partial(_binary_accuracy, threshold=0.5)
            chosen = dataclasses.replace(chosen, mean=mean)
        return dataclasses.replace(chosen, name=metric)
    if callable(metric) and not isinstance(metric, type):
        own = getattr(metric, "func", metric)  # of a partial function
        name = str(getattr(own, "__name__", type(own).__name__))
        mean = functools.partial(_mean_of, in_its_state(metric))
        return Metric(name, mean, reads=PREDICTIONS)
    raise TypeError(
        f"{metric!r} is not a metric; pass a name such as 'accuracy', or a function of "
        "(y_true, y_pred)"
    )


VALIDATION = "val_"
"""What the names of values on the test set begin with, as in Keras."""


def is_validation(name: str) -> bool:
    """Return whether a value of a history is that on the test set."""
    return name.startswith(VALIDATION)


def is_better_high(name: str) -> bool:
    """Return whether large values of a curve of a history are good.

    Of a function of your own the name tells: one that has "acc" in it is an accuracy, as in Keras.

    Examples
    --------
    >>> [is_better_high(name) for name in ("val_accuracy", "r2", "top_3", "loss", "val_rmse")]
    [True, True, True, False, False]
    """
    known = _known(name)
    return "acc" in name if known is None else known.is_better_high


def is_accuracy(name: str) -> bool:
    """Return whether a curve of a history is the share of samples that were told right."""
    known = _known(name)
    return "acc" in name if known is None else known.is_better_high and known.finish is float


def _known(name: str) -> Metric | None:
    own = name.removeprefix(VALIDATION)
    return get(own) if own in _NAMED or _TOP.fullmatch(own) else None


def listed(metrics: Iterable[Any] | str | None) -> tuple[Any, ...]:
    """Return metrics as a tuple: none, one alone or several."""
    if metrics is None:
        return ()
    if isinstance(metrics, str | NamedMetric) or callable(metrics):
        return (metrics,)
    return tuple(metrics)


def get_all(metrics: Iterable[Any] | str | None, loss: str | losses.Loss) -> tuple[Metric, ...]:
    """Return several metrics; one alone serves too.

    Raises
    ------
    ValueError
        If two have one name.
    """
    found = tuple(get(metric, loss) for metric in listed(metrics))
    names = [metric.name for metric in found]
    for name in names:
        if names.count(name) > 1 or name == "loss":
            raise ValueError(
                f"metrics={names}: {name!r} is there twice; the history keeps one curve a name"
            )
    return found


def _mean_of(function: Callable[[Array, Array], Any], y_true: Array, y_pred: Array) -> float:
    return float(np.mean(np.asarray(function(y_true, y_pred), np.float64)))


# As Keras' classes -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class NamedMetric:
    """A metric under a name of one's own.

    Parameters
    ----------
    metric : str
        As for `get`.
    name : str
        Its key in the history.
    """

    metric: str
    name: str


class KerasMetric:
    """A metric as a class of Keras: called, it gives the name that `get` knows.

    Examples
    --------
    >>> RootMeanSquaredError(), MeanAbsoluteError(name="error")
    ('root_mean_squared_error', NamedMetric(metric='mean_absolute_error', name='error'))
    """

    def __init__(self, name: str, metric: str) -> None:
        self._name, self._metric = name, metric

    def __repr__(self) -> str:
        """Return the name."""
        return self._name

    def __call__(
        self, k: int = 5, *, name: str | None = None, threshold: float | None = None
    ) -> str | NamedMetric:
        """Return what `compile` takes.

        k: Of the top k.
        name: Its key in the history.
        threshold: A half: above it is a yes.
        """
        if threshold not in (None, 0.5):
            raise ValueError(
                f"threshold={threshold}: {self._name} says yes above a half; a function of "
                "(y_true, y_pred) may say otherwise"
            )
        if name is None and k == 5:
            return self._metric
        return NamedMetric(self._metric if k == 5 else f"top_{k}", name or self._metric)


MeanSquaredError = KerasMetric("MeanSquaredError", "mean_squared_error")
MeanAbsoluteError = KerasMetric("MeanAbsoluteError", "mean_absolute_error")
RootMeanSquaredError = KerasMetric("RootMeanSquaredError", "root_mean_squared_error")
MeanAbsolutePercentageError = KerasMetric(
    "MeanAbsolutePercentageError", "mean_absolute_percentage_error"
)
MeanSquaredLogarithmicError = KerasMetric(
    "MeanSquaredLogarithmicError", "mean_squared_logarithmic_error"
)
AUC = KerasMetric("AUC", "auc")
R2Score = KerasMetric("R2Score", "r2_score")
Precision = KerasMetric("Precision", "precision")
Recall = KerasMetric("Recall", "recall")
BinaryAccuracy = KerasMetric("BinaryAccuracy", "binary_accuracy")
CategoricalAccuracy = KerasMetric("CategoricalAccuracy", "categorical_accuracy")
SparseCategoricalAccuracy = KerasMetric("SparseCategoricalAccuracy", "sparse_categorical_accuracy")
TopKCategoricalAccuracy = KerasMetric("TopKCategoricalAccuracy", "top_k_categorical_accuracy")
SparseTopKCategoricalAccuracy = KerasMetric(
    "SparseTopKCategoricalAccuracy", "sparse_top_k_categorical_accuracy"
)


# Over batches ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Reading:
    """What becomes of a network's outputs before a metric reads them.

    Attributes
    ----------
    loss : str or callable
        What reads the outputs themselves.
    activation : ActivationFunction or None
        The function that the network ends in, where the outputs are its logits.
    own_units : callable or None
        Turns predictions of scaled targets into the targets' own units.
    """

    loss: str | losses.Loss = "mse"
    activation: activations.ActivationFunction | None = None
    own_units: Callable[[Array], Array] | None = None

    def of(self, reads: str, outputs: Array) -> Array:
        """Return the outputs as a metric wants them."""
        if self.own_units is not None:
            return self.own_units(outputs)
        if reads == PREDICTIONS and self.activation is not None:
            return self.activation.forward(outputs)
        if reads == PROBABILITIES and losses.takes_logits(self.loss):
            is_binary = losses.get(self.loss) is losses.binary_crossentropy
            return activations.get("sigmoid" if is_binary else "softmax").forward(outputs)
        return outputs


class Averages:
    """The loss and the metrics of the batches so far, each batch weighted by its samples.

    Parameters
    ----------
    metrics : sequence of Metric
        What to report beside the loss.
    reading : Reading
        What becomes of outputs before a metric reads them.

    Examples
    --------
    >>> averages = Averages([mae])
    >>> averages.add(2.0, np.array([0.0, 0.0]), np.array([1.0, 2.0]))
    >>> averages.add(5.0, np.array([0.0]), np.array([6.0]))
    >>> averages.result()
    {'loss': 3.0, 'mae': 3.0}
    """

    def __init__(self, metrics: Sequence[Metric] = (), reading: Reading | None = None) -> None:
        self.metrics = tuple(metrics)
        self.reading = Reading() if reading is None else reading
        self.samples = 0
        self.sums: list[Any] = [0.0] * (1 + len(self.metrics))

    @in_exact_state
    def add(self, loss: float, y_true: Array, y_pred: Array) -> None:
        """Add a batch: its mean loss, and its metrics from targets and outputs."""
        count = len(y_pred)
        before, self.samples = self.samples, self.samples + count
        self.sums[0] += count * loss
        for place, metric in enumerate(self.metrics, 1):
            mean = metric.mean(y_true, self.reading.of(metric.reads, y_pred))
            if metric.merge is None:
                self.sums[place] += count * mean
            elif count:
                sofar = self.sums[place]
                self.sums[place] = metric.merge(before, sofar, count, mean) if before else mean

    @in_exact_state
    def result(self) -> dict[str, float]:
        """Return the means by name, the loss first; NaN before the first batch."""
        if not self.samples:
            return {"loss": math.nan} | {metric.name: math.nan for metric in self.metrics}
        found = {"loss": self.sums[0] / self.samples}
        for metric, total in zip(self.metrics, self.sums[1:], strict=True):
            found[metric.name] = metric.finish(
                total if metric.merge is not None else total / self.samples
            )
        return found


def __getattr__(name: str) -> object:
    """Say what stands for something of Keras'."""
    raise keras_words.no_attribute(__name__, name, keras_words.IN_METRICS)
