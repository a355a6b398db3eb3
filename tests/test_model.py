"""Sequential: names, shapes, mistakes, the summary."""

from __future__ import annotations

import pickle
from io import StringIO

import numpy as np
import pytest

import lowprec as lp
from lowprec.train.layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Input,
    MaxPooling2D,
)
from lowprec.train.model import Sequential

LAYERS = (Dense(8, activation="relu"), BatchNormalization(), Dropout(0.5), Dense(3))
MODEL = Sequential([Input((4,)), *LAYERS])
X = np.random.default_rng(0).standard_normal((5, 4))


def test_parameters_are_numbered_by_layer_and_input_is_not_counted():
    params = MODEL.init(0)
    assert {name: w.shape for name, w in params.items()} == {
        "0/kernel": (4, 8),
        "0/bias": (8,),
        "1/gamma": (8,),
        "1/beta": (8,),
        "1/moving_mean": (8,),
        "1/moving_variance": (8,),
        "3/kernel": (8, 3),
        "3/bias": (3,),
    }
    assert list(params) == list(MODEL.parameter_shapes())
    assert {w.dtype for w in params.values()} == {np.dtype(np.float32)}


def test_a_seed_gives_the_same_parameters_and_later_layers_change_none_before():
    first, again = MODEL.init(3), MODEL.init(np.random.default_rng(3))
    longer = Sequential([MODEL.layers[0], *LAYERS[1:], Dense(2)], input_shape=(4,)).init(3)
    for name, w in first.items():
        np.testing.assert_array_equal(w, again[name])
        np.testing.assert_array_equal(w, longer[name])
    assert (first["0/kernel"] != MODEL.init(4)["0/kernel"]).any()


def test_input_and_input_shape_say_the_same():
    assert Sequential(LAYERS, input_shape=(4,)) == MODEL
    bare = Sequential(LAYERS)
    for name, w in bare.init(0, input_shape=(4,)).items():
        np.testing.assert_array_equal(w, MODEL.init(0)[name])
    assert bare.shapes((4,)) == MODEL.shapes() == [(4,), (8,), (8,), (8,), (3,)]


def test_images_travel_through_a_network():
    model = Sequential(
        [
            Input((9, 8, 1)),
            Conv2D(4, 3, padding="same", activation="relu"),
            MaxPooling2D(),
            Conv2D(5, 2, strides=2),
            Flatten(),
            Dense(10, activation="softmax"),
        ]
    )
    assert model.shapes()[1:] == [(9, 8, 4), (4, 4, 4), (2, 2, 5), (20,), (10,)]
    x = np.random.default_rng(0).standard_normal((3, 9, 8, 1))
    for policy in ("float32", "mixed_bfloat16", "mixed_float8"):
        y = model.apply(model.init(0), x, policy=policy)
        assert y.shape == (3, 10)
        np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-5)


def test_apply_is_the_layers_one_after_the_other():
    params = MODEL.init(0)
    h = np.maximum(X.astype(np.float32) @ params["0/kernel"], 0) / np.float32(np.sqrt(1.001))
    np.testing.assert_allclose(MODEL.apply(params, X), h @ params["3/kernel"], rtol=1e-4, atol=1e-6)
    rounded = MODEL.apply(params, X, policy="mixed_bfloat16")
    np.testing.assert_array_equal(rounded, lp.round_to(rounded, "bfloat16"))
    np.testing.assert_allclose(rounded, MODEL.apply(params, X), atol=0.05)


def test_dropout_happens_in_training_alone_and_depends_on_the_seed():
    params = MODEL.init(0)
    np.testing.assert_array_equal(MODEL.apply(params, X, rng=1), MODEL.apply(params, X, rng=2))
    one, same, other = (MODEL.apply(params, X, training=True, rng=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_a_model_prints_as_the_call_that_makes_it():
    names = {layer.__name__: layer for layer in (Dense, BatchNormalization, Dropout, Input)}
    assert eval(repr(MODEL), names | {"Sequential": Sequential}) == MODEL
    assert repr(Sequential([Dense(3)])) == "Sequential([Dense(3)])"


def test_a_model_is_a_value():
    assert hash(MODEL) == hash(Sequential([Input((4,)), *LAYERS]))
    assert pickle.loads(pickle.dumps(MODEL)) == MODEL


def with_params(**changes):
    params = MODEL.init(0) | changes
    return {name: w for name, w in params.items() if w is not None}


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "needs layers, as in", lambda: Sequential([])),
        (ValueError, "needs layers", lambda: Sequential([Input((3,))])),
        (
            TypeError,
            r"Dense is a kind of layer, .* write Dense\(...\)",
            lambda: Sequential([Dense]),
        ),
        (TypeError, "'relu' is not a layer", lambda: Sequential([Dense(3), "relu"])),
        (ValueError, "put it first", lambda: Sequential([Dense(3), Input((3,))])),
        (ValueError, "leave one out", lambda: Sequential([Input((3,)), Dense(3)], (3,))),
        (TypeError, r"use Input\(\(64,\)\)", lambda: Input(64)),
        (ValueError, "use sizes of 1 or more", lambda: Input((None or 0, 3))),
        (
            ValueError,
            "layer 1: Conv2D.* takes images",
            lambda: Sequential([Input((8,)), Dense(3), Conv2D(4, 3)]),
        ),
        (ValueError, r"begin the model with Input", lambda: Sequential([Dense(3)]).init(0)),
        (
            ValueError,
            r"samples have shape \(5,\), .* \(4,\)",
            lambda: MODEL.init(0, input_shape=(5,)),
        ),
        (
            ValueError,
            r"samples have shape \(5,\)",
            lambda: MODEL.apply(MODEL.init(0), np.ones((2, 5))),
        ),
        (ValueError, r"write x\[numpy.newaxis\]", lambda: MODEL.apply(MODEL.init(0), np.ones(4))),
        (
            ValueError,
            "'0/kernl' is not a parameter",
            lambda: MODEL.apply(with_params(**{"0/kernl": X}), X),
        ),
        (
            ValueError,
            "'3/bias' is missing",
            lambda: MODEL.apply(with_params(**{"3/bias": None}), X),
        ),
        (
            ValueError,
            r"'0/kernel' has shape \(5, 4\); this model's has \(4, 8\)",
            lambda: MODEL.apply(with_params(**{"0/kernel": X}), X),
        ),
    ],
)
def test_mistakes_are_named(error, message, call):
    with pytest.raises(error, match=message):
        call()


# The summary -------------------------------------------------------------------------------------


def test_the_summary_counts_parameters_and_bytes():
    summary = MODEL.summary()
    counts = [line.parameters for line in summary.lines]
    assert counts == [40, 32, 0, 27]
    assert summary.parameters == sum(w.size for w in MODEL.init(0).values()) == 99
    assert summary.trained == 99 - 16  # the moving statistics
    text = repr(summary)
    assert "Parameters:    99 (396.00 B in float32, 198.00 B in 16 bits)" in text
    assert "Not trainable: 16 (64.00 B in float32, 32.00 B in 16 bits)" in text
    assert "(None, 8)" in text
    assert "Dense(8, activation='relu')" in text


def test_frozen_layers_are_not_trainable_in_the_summary():
    summary = Sequential([Input((4,)), Dense(8, trainable=False), Dense(3)]).summary()
    assert [line.trained for line in summary.lines] == [0, 27]


def test_large_models_have_large_units():
    text = repr(Sequential([Dense(2000)]).summary(input_shape=(1000,)))
    assert "2,002,000 (7.64 MB in float32, 3.82 MB in 16 bits)" in text


def test_the_summary_shows_in_terminals_and_in_jupyter():
    from rich.console import Console

    model = Sequential([Input((2,)), Activation("tanh"), Dense(1)])
    console = Console(file=StringIO(), width=60)
    console.print(model.summary())
    page = model.summary()._repr_html_()
    for text in (console.file.getvalue(), page.replace("&#x27;", "'")):
        assert "Activation('tanh')" in text
        assert "(None, 1)" in text
