"""What 16-bit training does, on digits: the failures happen, and the remedies remedy them.

64-100-100-10, ReLU, batches of 32, inputs in 0…1, five seeds: the classic experiments of mixed
precision in the small. Thresholds are those that lowprec promises, not fits to one run.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from lowprec import train

pytest.importorskip("sklearn", reason="scikit-learn holds the digits")

SEEDS = range(5)
CROSSENTROPY = "sparse_categorical_crossentropy"


def network():
    hidden = [train.Dense(100, activation="relu") for _ in range(2)]
    return train.Sequential([train.Input((64,)), *hidden, train.Dense(10)])


def small_loss(y_true, y_pred):
    """Cross-entropy times 2**-20, which puts most gradients below float16's range."""
    value, gradient = train.losses.sparse_categorical_crossentropy(y_true, y_pred)
    return value * 2.0**-20, gradient * np.float32(2.0**-20)


@cache
def runs(policy, rate=1e-3, epochs=10):
    return [
        train.fit(
            network(),
            train.data.digits(),
            loss=CROSSENTROPY,
            optimizer=train.Adam(rate),
            policy=policy,
            epochs=epochs,
            rng=seed,
        )
        for seed in SEEDS
    ]


def mean_of_last(histories, name):
    return np.mean([history.history[name][-1] for history in histories])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_as_good_as_float32(policy):
    mixed, plain = runs(policy), runs("float32")
    assert mean_of_last(plain, "val_accuracy") > 0.94
    accuracies = [mean_of_last(found, "val_accuracy") for found in (mixed, plain)]
    assert abs(accuracies[0] - accuracies[1]) <= 0.005
    losses = [mean_of_last(found, "loss") for found in (mixed, plain)]
    assert abs(losses[0] / losses[1] - 1) <= 0.03


def test_float8_with_tensor_scales_learns():
    assert mean_of_last(runs("mixed_float8"), "val_accuracy") > 0.93


def test_pure_bfloat16_loses_small_updates():
    assert all(h.history["val_accuracy"][-1] < 0.35 for h in runs("bfloat16", rate=1e-4))


@pytest.mark.parametrize("policy", ["bfloat16_stochastic", "bfloat16_kahan"])
def test_stochastic_and_kahan_updates_bring_them_back(policy):
    remedied, plain = runs(policy, rate=1e-4), runs("float32", rate=1e-4)
    difference = mean_of_last(remedied, "val_accuracy") - mean_of_last(plain, "val_accuracy")
    assert abs(difference) <= 0.01


@pytest.mark.parametrize("seed", SEEDS)
def test_pure_float16_adam_with_a_small_epsilon_is_not_finite_within_three_steps(seed):
    data = train.data.digits()
    first = train.Dataset(data.x_train[:96], data.y_train[:96], data.x_test, data.y_test)
    history = train.fit(
        network(),
        first,
        loss=CROSSENTROPY,
        optimizer=train.Adam(1e-3, epsilon=1e-7),
        policy="float16",
        rng=seed,
    )
    assert len(history.loss_scales) == 3
    assert not np.isfinite(history.history["loss"][-1])


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_a_small_loss_vanishes_in_float16_and_dynamic_scaling_restores_it(optimizer):
    make = {"Adam": lambda: train.Adam(1e-3), "SGD": lambda: train.SGD(2.0**17)}[optimizer]

    def accuracy(policy):
        found = train.fit(
            network(),
            train.data.digits(),
            loss=small_loss,
            optimizer=make(),
            policy=policy,
            epochs=10,
        )
        return found.history["val_accuracy"][-1]

    assert accuracy("compute=float16") <= 0.20
    assert accuracy("mixed_float16") > 0.9
