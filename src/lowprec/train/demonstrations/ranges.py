"""Numbers that leave the range of float16."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from lowprec.conversion.door import round_to
from lowprec.formats import float16
from lowprec.train import data as datasets
from lowprec.train import losses
from lowprec.train.demonstrations.demonstration import Demonstration, network, recorded
from lowprec.train.initializers import RandomNormal
from lowprec.train.layers import Dense, Input
from lowprec.train.model import Sequential
from lowprec.train.optimizers import SGD, Adam
from lowprec.train.policy import Policy
from lowprec.train.recorder.kinds import GRADIENTS
from lowprec.train.recorder.scaling import power
from lowprec.train.recorder.tracks import Tally
from lowprec.train.running.prediction import predict

Array = np.ndarray[Any, Any]

_CROSSENTROPY = "sparse_categorical_crossentropy"
_SMALL = 2.0**-18


def small_crossentropy(y_true: Array, y_pred: Array) -> tuple[float, Array]:
    """Cross-entropy times a small weight, as where one loss among several is."""
    value, gradient = losses.get(_CROSSENTROPY)(y_true, y_pred)
    return value * _SMALL, gradient * np.float32(_SMALL)


def small_loss() -> Demonstration:
    """Show that the gradients of a small loss vanish in float16 unless the loss is scaled."""
    digits = datasets.digits()
    model = network(digits, [100, 100])
    how: dict[str, Any] = {"loss": small_crossentropy, "optimizer": Adam(1e-3, epsilon=1e-12)}
    how |= {"epochs": 10}
    plain, recorder = recorded(model, digits, policy="compute=float16", **how)
    advice = recorder.loss_scale()
    policy = Policy(compute="float16", loss_scale=advice.recommended)
    wide, _ = recorded(model, digits, policy="float32", **how)
    scaled, cured = recorded(model, digits, policy=policy, reference=wide, **how)
    worst = max(recorder.of_kind(*GRADIENTS), key=lambda track: track.whole.new_zero_rate)
    share = worst.whole.new_zero_rate
    accuracies = [history.history["val_accuracy"][-1] for history in (plain, scaled)]
    return Demonstration(
        "Gradient underflow by a small loss",
        share,
        f"{share:.0%} of a tensor's gradients vanish and the test accuracy is {accuracies[0]:.3f}, "
        f"but {accuracies[1]:.3f} with the recommended loss scale of "
        f"{power(advice.recommended)}.",
        "new zeros",
        recorder,
        cured,
    )


def float16_adam() -> Demonstration:
    """Show that Adam's second moments vanish in float16, and epsilon with them."""
    digits = datasets.digits()
    model = network(digits, [100, 100])
    how: dict[str, Any] = {"loss": _CROSSENTROPY, "optimizer": Adam(1e-3), "epochs": 3}
    _, recorder = recorded(model, digits, policy="float16", every=1, **how)
    wide, _ = recorded(model, digits, policy="float32", **how)
    mixed = "params=float16,compute=float16,state=float32"
    _, cured = recorded(model, digits, policy=mixed, reference=wide, every=1, **how)
    step = recorder.events[0].step
    moving, starved = recorder.facts["starved"]
    return Demonstration(
        "float16 Adam and its epsilon",
        float(step),
        f"At step {step} nothing is finite any more: {starved / moving:.0%} of the second moments "
        f"were zero where the first were not, and epsilon = 1e-8 is {round_to(1e-8, float16):g} in "
        "float16.",
        "starved moments",
        recorder,
        cured,
    )


def large_targets() -> Demonstration:
    """Show that squared errors beyond 256 overflow float16, though their gradients do not."""
    diabetes = datasets.diabetes().scaled("standard")
    model = network(diabetes, [])
    how: dict[str, Any] = {"loss": "mse", "optimizer": SGD(0.01), "epochs": 40}
    policy = "compute=float16"
    history, recorder = recorded(model, diabetes, policy=policy, **how)
    start = model.init(np.random.default_rng(0))
    outputs = predict(model, start, diabetes.x_train, policy=policy)
    errors = outputs.reshape(-1) - diabetes.y_train.reshape(-1)
    squares = round_to(errors**2, float16)
    gradients = round_to(2 * errors / len(errors), float16)
    share = float(np.isinf(squares).mean())
    return Demonstration(
        "Overflow of raw regression targets",
        share,
        f"{share:.1%} of the squared errors at the start are infinite in float16, so their mean "
        f"is; all {gradients.size} gradients are finite, the largest "
        f"{np.abs(gradients).max():.2f}. "
        f"With the loss in float32 training goes on, to an RMSE of "
        f"{history.history['val_rmse'][-1]:.1f}.",
        "targets",
        recorder,
    )


def gradient_histogram() -> Demonstration:
    """Show where the gradients of a deep network lie, and how many float16 cannot hold."""
    digits = datasets.digits()
    small = RandomNormal(stddev=0.01)
    hidden = [Dense(100, activation="tanh", kernel_initializer=small) for _ in range(5)]
    model = Sequential([Input((64,)), *hidden, Dense(10, kernel_initializer=small)])
    how: dict[str, Any] = {"loss": _CROSSENTROPY, "optimizer": SGD(0.01), "epochs": 4}
    _, recorder = recorded(model, digits, policy="compute=float16", **how)
    tracks = recorder.of_kind("activation_gradient")
    whole = functools.reduce(Tally.merge, [track.whole for track in tracks])
    zeros = whole.below(-25)
    return Demonstration(
        "The gradient histogram",
        zeros,
        f"{zeros:.0%} of the activation gradients of a 5 × 100 tanh network that starts from "
        f"weights of 0.01 lie below float16's range and become zero, "
        f"{whole.below(-14) - zeros:.0%} more become subnormal numbers.",
        "new zeros",
        recorder,
    )
