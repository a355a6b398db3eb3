"""What a network makes of data: evaluate and predict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import in_exact_state_but_users_code, in_its_state
from lowprec.common.randomness import draw_key
from lowprec.train import losses, metrics
from lowprec.train.dataset import Dataset
from lowprec.train.numerics import numerics_of
from lowprec.train.policy import Policy, get_policy
from lowprec.train.running import passes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from lowprec.common.randomness import RNGLike
    from lowprec.train.losses import Loss
    from lowprec.train.network import Network

__all__ = ["evaluate", "evaluate_batches", "metrics_for", "predict"]

Array = np.ndarray[Any, Any]
Params = dict[str, Array]
_EVALUATED = 1024  # samples at once


@in_exact_state_but_users_code
def evaluate(
    model: Network,
    params: Mapping[str, ArrayLike],
    x: ArrayLike,
    y: ArrayLike,
    *,
    loss: str | Loss,
    policy: Policy | str = "float32",
) -> dict[str, float]:
    """Return the loss and the metrics of a network on data, as after training.

    Parameters
    ----------
    model : Sequential
        The network.
    params : dict of str to array_like
        Its parameters.
    x, y : array_like, shapes (samples, ...)
        Inputs and targets.
    loss : str or callable
        As for `fit`.
    policy : Policy or str
        The formats of the forward pass.

    Returns
    -------
    dict of str to float
        ``loss``, and ``accuracy`` or ``mae`` and ``rmse``.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((1,)), train.Dense(1)])
    >>> evaluate(model, {"0/kernel": [[2.0]], "0/bias": [1.0]}, [[1.0]], [[4.0]], loss="mse")
    {'loss': 1.0, 'mae': 1.0, 'rmse': 1.0}
    """
    passes.refuse_softmax(model, loss)
    found = get_policy(policy)
    x, y = numerics_of(found).array(x), np.asarray(y)
    model.check_inputs(x)
    checked = model.check_params(params, numerics_of(found).dtype, x.shape[1:])
    reported = metrics.for_loss(loss)
    if not reported and len(x):
        reported = metrics_for(Dataset(x, y, x, y))
    return evaluate_batches(model, checked, x, y, in_its_state(losses.get(loss)), reported, found)


def evaluate_batches(
    model: Network,
    params: Params,
    x: Array,
    y: Array,
    loss: Loss,
    reported: tuple[metrics.Metric, ...],
    policy: Policy,
) -> dict[str, float]:
    """Return the loss, penalties included, and the metrics of checked arguments."""
    numerics = numerics_of(policy)
    averages = metrics.Averages(reported)
    for start in range(0, len(x), _EVALUATED):
        rows = slice(start, start + _EVALUATED)
        inputs = numerics.array(x[rows])
        outputs = passes.run_forward(model, params, inputs, numerics, False, ()).outputs
        with np.errstate(all="ignore"):
            averages.add(loss(y[rows], outputs)[0], y[rows], outputs)
    found = averages.result()
    found["loss"] += passes.penalty(model, params)
    return found


@in_exact_state_but_users_code
def predict(
    model: Network,
    params: Mapping[str, ArrayLike],
    x: ArrayLike,
    *,
    policy: Policy | str = "float32",
    training: bool = False,
    samples: int | None = None,
    rng: RNGLike = None,
) -> Any:
    """Return the outputs of a network; with `samples`, their mean and spread over dropout.

    Parameters
    ----------
    model : Sequential
        The network.
    params : dict of str to array_like
        Its parameters.
    x : array_like, shape (samples, ...)
        Inputs.
    policy : Policy or str
        The formats.
    training : bool
        Whether dropout drops (Monte Carlo dropout), and batches are normalised by themselves.
    samples : int, optional
        How many times to compute the outputs, each with its own dropout.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Where dropout draws from.

    Returns
    -------
    numpy.ndarray, or tuple of two
        The outputs, logits for a classifier; with `samples`, their mean and standard deviation.

    Raises
    ------
    ValueError
        If `samples` is asked for without `training`, when all samples would be equal.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((1,)), train.Dropout(0.5), train.Dense(1)])
    >>> params = {"1/kernel": [[1.0]], "1/bias": [3.0]}
    >>> predict(model, params, [[1.0]])
    array([[4.]], dtype=float32)
    >>> mean, spread = predict(model, params, [[1.0]], training=True, samples=1000, rng=0)
    >>> round(float(mean[0, 0]), 1), round(float(spread[0, 0]), 1)  # of 3 and 5
    (4.0, 1.0)

    References
    ----------
    Gal and Ghahramani (2016), Dropout as a Bayesian Approximation, ICML.
    """
    found = get_policy(policy)
    numerics = numerics_of(found)
    inputs = numerics.array(x)
    model.check_inputs(inputs)
    checked = model.check_params(params, numerics.dtype, inputs.shape[1:])
    key = draw_key(rng) if training else 0

    def once(number: int) -> Array:
        size = len(inputs) if training else _EVALUATED
        pieces = [
            passes.run_forward(
                model, checked, inputs[i : i + size], numerics, training, (key, number)
            ).outputs
            for i in range(0, max(len(inputs), 1), max(size, 1))
        ]
        return np.concatenate(pieces)

    if samples is None:
        return once(0)
    if not training or samples < 1:
        raise ValueError(
            f"samples={samples} with training={training}; Monte Carlo dropout needs training=True "
            "and at least 1 sample"
        )
    mean = once(0).astype(np.float64)
    squares = np.zeros_like(mean)  # of deviations, as Welford sums them: nothing cancels
    for number in range(1, samples):
        outputs = once(number)
        deviation = outputs - mean
        mean += deviation / (number + 1)
        squares += deviation * (outputs - mean)
    spread = np.sqrt(squares / samples)
    return mean.astype(numerics.dtype), spread.astype(numerics.dtype)


def metrics_for(data: Dataset) -> tuple[metrics.Metric, ...]:
    """Return the metrics that suit the targets, for a loss of the user's own."""
    if data.is_classification:
        return (metrics.accuracy,) if (data.classes or 0) > 1 else ()
    return (metrics.mae, metrics.rmse)
