"""Where randomness comes from: None is fresh everywhere, the functions of training begin at 0."""

import inspect

import numpy as np
import pytest

import lowprec as lp
from lowprec import tensors, train

X = np.linspace(0, 1, 300)
DATA = train.Dataset(np.eye(8, 4), [0, 1] * 4, np.eye(2, 4), [0, 1])
MODEL = train.Sequential([train.Input((4,)), train.Dense(3), train.Dropout(0.5), train.Dense(2)])
PARAMS = MODEL.init(0)
LOSS = {"loss": "sparse_categorical_crossentropy"}
FIT = {**LOSS, "optimizer": "sgd", "verbose": False}


def kernel(params):
    return params["0/kernel"].tobytes()


DRAWS = {
    "round_to": lambda rng: lp.round_to(X, "bfloat16", rounding="SR", rng=rng).tobytes(),
    "encode": lambda rng: lp.encode(X, "bfloat16", rounding="SE", rng=rng).tobytes(),
    "Arithmetic": lambda rng: lp.Arithmetic("bfloat16", rounding="SR", rng=rng).exp(X).tobytes(),
    "Accumulator": lambda rng: (
        lp.sum(X.reshape(-1, 1) + X, lp.Accumulator("bfloat16", rounding="SR", rng=rng), 0)
    ).tobytes(),
    "measure": lambda rng: lp.measure(X, "bfloat16", rounding="SR", rng=rng).sqnr_db,
    "init": lambda rng: kernel(MODEL.init(rng)),
    "apply": lambda rng: MODEL.apply(PARAMS, np.eye(64, 4), training=True, rng=rng).tobytes(),
    "predict": lambda rng: train.predict(
        MODEL, PARAMS, np.eye(64, 4), training=True, samples=3, rng=rng
    )[0].tobytes(),
    "fit": lambda rng: kernel(train.fit(MODEL, DATA, **FIT, rng=rng).params),
    "split": lambda rng: (
        DATA.split(0.5, rng=rng).x_train.tobytes()
        + b"".join(DATA.split(0.5, rng=rng).x_train.tobytes() for _ in range(20))
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_none_is_fresh_and_a_seed_is_repeated(name):
    draw = DRAWS[name]
    assert draw(None) != draw(None)
    assert draw(3) == draw(3) == draw(np.random.SeedSequence(3))


@pytest.mark.parametrize(
    "function",
    [
        train.fit,
        train.gradients,
        train.search,
        train.find_learning_rate,
        train.Dataset.split,
        train.data.digits,
        train.data.iris,
    ],
    ids=lambda function: function.__qualname__,
)
def test_functions_of_training_begin_at_0(function):
    assert inspect.signature(function).parameters["rng"].default == 0


@pytest.mark.parametrize(
    "function",
    [lp.round_to, lp.encode, lp.cast, lp.Arithmetic, lp.Accumulator, lp.measure, tensors.convert],
    ids=lambda function: function.__qualname__,
)
def test_rounding_is_fresh_by_default(function):
    assert inspect.signature(function).parameters["rng"].default is None


def test_the_attribute_is_fmt_everywhere():
    for holder in (
        lp.Arithmetic("bfloat16"),
        lp.Accumulator("bfloat16"),
        lp.inspect(1, "bfloat16"),
        lp.measure([1.0], "bfloat16"),
        lp.advise([1.0], "bfloat16").formats[0],
        tensors.as_tensor("x", lp.cast([1.0], "bfloat16")),
    ):
        assert holder.fmt is lp.bfloat16
        assert not hasattr(holder, "format")
