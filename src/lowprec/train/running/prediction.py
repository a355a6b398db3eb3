"""What a network makes of data: evaluate and predict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import in_exact_state_but_users_code, in_its_state
from lowprec.common.randomness import draw_key
from lowprec.train import losses
from lowprec.train import metrics as _metrics
from lowprec.train.dataset import array_of
from lowprec.train.numerics import numerics_of
from lowprec.train.policy import Policy, get_policy
from lowprec.train.running import passes
from lowprec.train.running.feeding import Validation, inputs_of, is_regression
from lowprec.train.running.history import target_scale_of
from lowprec.train.running.logits import trained_network
from lowprec.train.running.weighting import by_sample, sample_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import ArrayLike

    from lowprec.common.randomness import RNGLike
    from lowprec.train.losses import Loss
    from lowprec.train.network import Network

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
    metrics: Iterable[Any] = (),
    batch_size: int | None = None,
    sample_weight: ArrayLike | None = None,
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
    metrics : iterable of str, Metric or callable
        As for `fit`.
    batch_size : int, optional
        How many samples to compute at once.
    sample_weight : array_like, shape (samples,), optional
        How much each sample counts in the loss; in a metric each counts once.

    Returns
    -------
    dict of str to float
        ``loss``, and the metrics; without any that are asked for ``accuracy``, or ``mae`` and
        ``rmse``. Where targets were scaled in training, `y` and the metrics are in the targets' own
        units, and the loss is of scaled ones.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((1,)), train.Dense(1)])
    >>> evaluate(model, {"0/kernel": [[2.0]], "0/bias": [1.0]}, [[1.0]], [[4.0]], loss="mse")
    {'loss': 1.0, 'mae': 1.0, 'rmse': 1.0}
    """
    run = trained_network(model, loss, get_policy(policy))
    x = numerics_of(run.policy).array(array_of("x", inputs_of(model, x)))
    y = array_of("y", y)
    if is_regression(loss) and y.dtype.kind in "iub":
        y = y.astype(np.float32)
    model.check_inputs(x)
    checked = model.check_params(params, numerics_of(run.policy).dtype, x.shape[1:])
    reported = _metrics.get_all(metrics, loss) or _metrics.for_loss(loss)
    if not reported and len(x):
        reported = metrics_for(y)
    units = target_scale_of(params)
    own_units = None if units is None else units.own
    return evaluate_pieces(
        run.network,
        checked,
        Validation((x, y, sample_weights(sample_weight, len(x)))).pieces(batch_size),
        in_its_state(losses.get(loss)),
        reported,
        run.policy,
        _metrics.Reading(loss, run.activation, own_units),
        (lambda targets: targets) if units is None else units.scaled,
    )


def evaluate_pieces(
    model: Network,
    params: Params,
    pieces: Iterable[tuple[Array, Array, Array | None]],
    loss: Loss,
    reported: tuple[_metrics.Metric, ...],
    policy: Policy,
    reading: _metrics.Reading,
    in_loss: Callable[[Array], Array],
) -> dict[str, float]:
    """Return the loss, penalties included, and the metrics of checked arguments.

    model, params, loss, policy: What is run: its outputs are what the loss reads.
    pieces: The samples, their targets in their own units, and how much each counts in the loss.
    reading: What becomes of outputs before a metric reads them.
    in_loss: What becomes of targets before the loss reads them.
    """
    numerics = numerics_of(policy)
    averages = _metrics.Averages(reported, reading)
    for x, y, weights in pieces:
        outputs = passes.run_forward(model, params, numerics.array(x), numerics, False, ()).outputs
        with np.errstate(all="ignore"):
            value = by_sample(loss, weights)(in_loss(y), outputs)[0]
            averages.add(value, y, outputs)
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
    batch_size: int | None = None,
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
        Inputs; a vector where the network has one feature.
    policy : Policy or str
        The formats.
    training : bool
        Whether dropout drops (Monte Carlo dropout), and batches are normalised by themselves.
    samples : int, optional
        How many times to compute the outputs, each with its own dropout.
    batch_size : int, optional
        How many samples to compute at once, where batches do not matter: outside of training.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Where dropout draws from.

    Returns
    -------
    numpy.ndarray, or tuple of two
        The outputs: probabilities where the model ends in softmax or sigmoid, targets in their own
        units where they were scaled in training. With `samples`, their mean and standard deviation.

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
    inputs = numerics.array(array_of("x", inputs_of(model, x)))
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: use 1 or more")
    model.check_inputs(inputs)
    checked = model.check_params(params, numerics.dtype, inputs.shape[1:])
    key, units = draw_key(rng) if training else 0, target_scale_of(params)

    def once(number: int) -> Array:
        size = len(inputs) if training else batch_size or _EVALUATED
        pieces = [
            passes.run_forward(
                model, checked, inputs[i : i + size], numerics, training, (key, number)
            ).outputs
            for i in range(0, max(len(inputs), 1), max(size, 1))
        ]
        outputs = np.concatenate(pieces)
        return outputs if units is None else units.own(outputs)

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


def metrics_for(targets: Array) -> tuple[_metrics.Metric, ...]:
    """Return the metrics that suit the targets, for a loss of the user's own."""
    if targets.dtype.kind == "i":
        return (_metrics.shape_accuracy,) if targets.size and targets.max() > 0 else ()
    return (_metrics.mae, _metrics.rmse)
