"""Layers: gradients against differences, values against torch, roundings against exact sums."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest

import lowprec as lp
from lowprec import train
from lowprec.train import activations, layers
from lowprec.train.layers import (
    Activation,
    AlphaDropout,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    Layer,
    LayerNormalization,
    MaxPooling2D,
    Reshape,
    Run,
)
from lowprec.train.layers.layer import column_sums
from lowprec.train.numerics import numerics_of
from lowprec.train.policy import Policy, get_policy
from lowprec.train.regularizers import L2, MaxNorm
from lowprec.train.running.listening import Listening

FLOAT64 = Policy(params="float64", compute="float64", accumulate="float64")
POLICIES = ["float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16"]
SMOOTH = [name for name in activations.NAMED if name not in ("linear", "relu")]

CASES = [  # layers and one sample's shape
    (Dense(3), (4,)),
    (Dense(1, use_bias=False), (1,)),
    (Dense(5, activation="relu"), (3,)),
    (Dense(5, activation="tanh"), (2, 3)),
    (Dense(4, activation="softmax", use_bias=False), (3,)),
    (Conv2D(2, 1), (3, 4, 3)),
    (Conv2D(3, 3), (5, 7, 2)),
    (Conv2D(2, (2, 3), strides=(2, 1)), (5, 6, 1)),
    (Conv2D(2, 3, padding="same", activation="relu"), (4, 5, 2)),
    (Conv2D(2, (4, 2), strides=2, padding="same", activation="swish"), (5, 7, 2)),
    (Conv2D(1, 2, strides=3, padding="same", use_bias=False), (7, 5, 2)),
    (Conv2D(2, 5, strides=2, padding="same"), (3, 2, 1)),
    (MaxPooling2D(), (4, 6, 2)),
    (MaxPooling2D(3), (7, 5, 1)),
    (MaxPooling2D(3, strides=2), (7, 5, 2)),
    (MaxPooling2D((2, 3), strides=(1, 2), padding="same"), (5, 6, 2)),
    (MaxPooling2D(2, strides=3, padding="same"), (7, 5, 1)),
    (AveragePooling2D(), (4, 6, 2)),
    (AveragePooling2D(3, strides=2, padding="same"), (7, 5, 2)),
    (GlobalAveragePooling2D(), (3, 5, 2)),
    (GlobalMaxPooling2D(keepdims=True), (3, 4, 2)),
    (Flatten(), (2, 3, 2)),
    (Reshape((3, -1)), (2, 3, 2)),
    (BatchNormalization(), (3,)),
    (BatchNormalization(center=False), (2, 3, 2)),
    (BatchNormalization(scale=False, epsilon=0.1), (4,)),
    (BatchNormalization(trainable=False), (4,)),
    (LayerNormalization(), (5,)),
    (LayerNormalization(center=False, epsilon=0.1), (2, 4)),
    (LayerNormalization(scale=False), (2, 2, 3)),
    (Dropout(0.3), (20,)),
    (AlphaDropout(0.2), (20,)),
    *((Activation(name), (6,)) for name in activations.NAMED),
]
LAYERS = pytest.mark.parametrize(("layer", "shape"), CASES, ids=repr)


def drawn(layer, shape, policy, samples=3, seed=0):
    """Return parameters far from 0 (variances positive), and a batch of values of compute."""
    numerics, rng = numerics_of(get_policy(policy)), np.random.default_rng(seed)
    params = {}
    for name, initial in layer.init(shape, rng).items():
        sign = 1 if name == "moving_variance" else rng.choice([-1, 1], initial.shape)
        params[name] = numerics.params(numerics.array(sign * rng.uniform(0.3, 1.5, initial.shape)))
    x = rng.standard_normal((samples, *shape))
    return params, numerics.compute(numerics.array(x))


def a_run(policy, training=True):
    return Run(numerics_of(get_policy(policy)), training, lambda: np.random.default_rng(7))


def both_passes(layer, params, x, policy, training=True, dy=None):
    """Return outputs, dx and gradients for a dy that is not a special case."""
    run = a_run(policy, training)
    y, saved = layer.forward(params, x, run)
    if dy is None:
        dy = np.random.default_rng(1).standard_normal(y.shape)
    dy = run.numerics.gradient(run.numerics.array(dy))
    dx, gradients = layer.backward(params, saved, dy, run)
    return y, dx, gradients


def differences(function, x, step=1e-5):
    """Return the central differences of a function of an array, element by element."""
    result = np.empty_like(x)
    for index in np.ndindex(x.shape):
        values = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            values.append(function(moved))
        result[index] = (values[0] - values[1]) / (2 * step)
    return result


def assert_derivative(found, expected):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-8 * max(1, np.abs(expected).max())


# Gradients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@LAYERS
def test_backward_is_the_derivative(layer, shape, training):
    params, x = drawn(layer, shape, FLOAT64)
    y, dx, gradients = both_passes(layer, params, x, FLOAT64, training)
    weights = np.random.default_rng(1).standard_normal(y.shape)

    def loss(x=x, **changed):
        y, _ = layer.forward(params | changed, x, a_run(FLOAT64, training))
        return np.sum(weights * y)

    assert y.dtype == np.float64
    assert_derivative(dx, differences(loss, x))
    for name, gradient in gradients.items():
        assert_derivative(
            gradient, differences(lambda w, name=name: loss(**{name: w}), params[name])
        )
    assert set(gradients) == (set(layer.trained) if layer.trainable else set())


@LAYERS
def test_frozen_layers_have_the_same_input_gradient_and_no_others(layer, shape):
    params, x = drawn(layer, shape, "mixed_bfloat16")
    frozen = dataclasses.replace(layer, trainable=False)
    _, dx, gradients = both_passes(frozen, params, x, "mixed_bfloat16", training=False)
    assert gradients == {}
    np.testing.assert_array_equal(dx, both_passes(layer, params, x, "mixed_bfloat16", False)[1])
    assert frozen.regularizers == frozen.constraints == {}


@LAYERS
def test_an_input_gradient_that_nobody_wants_changes_nothing_else(layer, shape):
    params, x = drawn(layer, shape, "float32")
    run = a_run("float32")
    y, saved = layer.forward(params, x, run)
    _, expected = layer.backward(params, saved, np.ones_like(y), run)
    run.wants_input_gradient = False
    _, gradients = layer.backward(params, saved, np.ones_like(y), run)
    assert set(gradients) == set(expected)
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, expected[name])


@LAYERS
def test_nothing_given_is_written_into(layer, shape):
    params, x = drawn(layer, shape, "float32")
    run = a_run("float32")
    given = {"x": x, **params}
    for array in given.values():
        array.setflags(write=False)
    y, saved = layer.forward(params, x, run)
    dy = np.ones_like(y)
    dy.setflags(write=False)
    layer.backward(params, saved, dy, run)


@LAYERS
def test_float32_stays_float32_and_shapes_are_as_said(layer, shape):
    params, x = drawn(layer, shape, "float32")
    y, dx, gradients = both_passes(layer, params, x, "float32")
    assert y.shape == (3, *layer.output_shape(shape))
    assert {array.dtype for array in (y, dx, *gradients.values())} == {np.dtype(np.float32)}
    assert {name: g.shape for name, g in gradients.items()} == {
        name: params[name].shape for name in layer.trained
    }


@LAYERS
def test_an_empty_batch_has_no_outputs(layer, shape):
    params, x = drawn(layer, shape, "float32")
    y, _ = layer.forward(params, x[:0], a_run("float32", training=False))
    assert y.shape == (0, *layer.output_shape(shape))


# Roundings ---------------------------------------------------------------------------------------


def bfloat16_product(x, kernel, bias):
    """Return x · kernel + bias by its definition: a fused float32 sum, rounded once at last."""
    result = np.empty((len(x), kernel.shape[1]), np.float32)
    for i, j in np.ndindex(result.shape):
        total = np.float32(0)
        for a, b in zip(x[i], kernel[:, j], strict=True):
            exact = float(a) * float(b) + float(total)
            assert Fraction(float(a)) * Fraction(float(b)) + Fraction(float(total)) == exact
            total = np.float32(exact)
        result[i, j] = total + np.float32(bias[j])
    return lp.round_to(result, "bfloat16")


def test_dense_is_one_rounding_of_the_float32_sum():
    layer = Dense(6)
    params, x = drawn(layer, (9,), "mixed_bfloat16", samples=5)
    y, _, _ = both_passes(layer, params, x, "mixed_bfloat16")
    kernel, bias = (lp.round_to(params[name], "bfloat16") for name in ("kernel", "bias"))
    np.testing.assert_array_equal(y, bfloat16_product(x, kernel, bias))
    twice = lp.round_to(lp.round_to(x @ kernel, "bfloat16") + bias, "bfloat16")
    assert (y != twice).any()  # this test can see a second rounding


def test_dense_gradients_are_one_rounding_of_products_of_rounded_factors():
    layer = Dense(6)
    params, x = drawn(layer, (9,), "mixed_bfloat16", samples=5)
    dy = lp.round_to(np.random.default_rng(5).standard_normal((5, 6), np.float32), "bfloat16")
    _, dx, gradients = both_passes(layer, params, x, "mixed_bfloat16", dy=dy)
    kernel = lp.round_to(params["kernel"], "bfloat16")
    zeros = np.zeros(9)
    np.testing.assert_array_equal(dx, bfloat16_product(dy, kernel.T, zeros))
    np.testing.assert_array_equal(gradients["kernel"], bfloat16_product(x.T, dy, zeros))
    exact = dy.astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(gradients["bias"], lp.round_to(exact, "bfloat16"), rtol=2**-8)


def test_a_convolution_is_the_dense_layer_on_its_windows():
    layer = Conv2D(4, (2, 3), activation="relu")
    params, x = drawn(layer, (4, 5, 3), "mixed_bfloat16")
    y, _, gradients = both_passes(layer, params, x, "mixed_bfloat16", dy=np.ones((3, 3, 3, 4)))
    places = list(itertools.product(range(3), range(3)))
    windows = np.stack([x[:, i : i + 2, j : j + 3].reshape(3, -1) for i, j in places], axis=1)
    flat = {"kernel": params["kernel"].reshape(-1, 4), "bias": params["bias"]}
    rows, _, expected = both_passes(
        Dense(4, activation="relu"), flat, windows, "mixed_bfloat16", dy=np.ones((3, 9, 4))
    )
    np.testing.assert_array_equal(y.reshape(rows.shape), rows)
    np.testing.assert_array_equal(gradients["kernel"].reshape(-1, 4), expected["kernel"])
    np.testing.assert_array_equal(gradients["bias"], expected["bias"])


@pytest.mark.parametrize("policy", [*POLICIES, "mixed_float8"])
@pytest.mark.parametrize("name", activations.NAMED)
def test_an_activation_within_a_layer_is_an_activation_layer_after_it(name, policy):
    params, x = drawn(Dense(5), (4,), policy)
    fused = both_passes(Dense(5, activation=name), params, x, policy)
    run = a_run(policy)
    z, saved = Dense(5).forward(params, x, run)
    y, dz, _ = both_passes(Activation(name), {}, z, policy)
    dx, gradients = Dense(5).backward(params, saved, dz, run)
    np.testing.assert_array_equal(fused[0], y)
    np.testing.assert_array_equal(fused[1], dx)
    for parameter, gradient in gradients.items():
        np.testing.assert_array_equal(fused[2][parameter], gradient)


@pytest.mark.parametrize("policy", POLICIES[1:])
@LAYERS
def test_outputs_are_values_of_compute_and_gradients_of_their_format(layer, shape, policy):
    params, x = drawn(layer, shape, policy)
    y, dx, gradients = both_passes(layer, params, x, policy)
    formats = get_policy(policy).formats
    if getattr(layer, "activation", None) != "softmax":
        np.testing.assert_array_equal(y, lp.round_to(y, formats["compute"]))
    for gradient in (dx, *gradients.values()):
        np.testing.assert_array_equal(gradient, lp.round_to(gradient, formats["gradients"]))


def test_softmax_stays_in_float32():
    x = lp.round_to(np.random.default_rng(0).standard_normal((3, 5), np.float32), "bfloat16")
    y, _, _ = both_passes(Activation("softmax"), {}, x, "mixed_bfloat16")
    np.testing.assert_array_equal(y, both_passes(Activation("softmax"), {}, x, "float32")[0])
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("layer", [BatchNormalization(), LayerNormalization()], ids=repr)
def test_a_normalisation_rounds_once_at_its_end(layer):
    params, x = drawn(layer, (7,), "mixed_bfloat16", samples=20)
    y, dx, _ = both_passes(layer, params, x, "mixed_bfloat16")
    dy = lp.round_to(np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype), "bfloat16")
    exact, exact_dx, _ = both_passes(layer, params, x, "float32", dy=dy)
    np.testing.assert_array_equal(y, lp.round_to(exact, "bfloat16"))
    np.testing.assert_array_equal(dx, lp.round_to(exact_dx, "bfloat16"))


# What single layers do ---------------------------------------------------------------------------


def test_batch_normalisation_keeps_moving_averages_in_training_alone():
    layer = BatchNormalization(momentum=0.75)
    params, x = drawn(layer, (2, 3), "mixed_float16", samples=9)
    run = a_run("mixed_float16")
    layer.forward(params, x, run)
    batch = {"moving_mean": x.mean(axis=(0, 1)), "moving_variance": x.var(axis=(0, 1))}
    assert set(run.updates) == set(layer.statistics) == set(batch)
    for name, value in batch.items():
        expected = 0.75 * params[name] + 0.25 * value
        np.testing.assert_allclose(run.updates[name], expected, rtol=1e-6)
        assert (run.updates[name] != lp.round_to(run.updates[name], "float16")).any()
    for idle, training in ((layer, False), (dataclasses.replace(layer, trainable=False), True)):
        run = a_run("mixed_float16", training)
        idle.forward(params, x, run)
        assert run.updates == {}


def test_batch_normalisation_makes_a_batch_normal():
    layer = BatchNormalization(epsilon=0.0, center=False, scale=False)
    params, x = drawn(layer, (3,), "float32", samples=50)
    y, _, _ = both_passes(layer, params, 1000 + x, "float32")
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(y.var(axis=0), 1, rtol=1e-4)


def test_batch_normalisation_of_many_pixels_is_accurate():
    x = 100 + np.random.default_rng(0).standard_normal((64, 40, 40, 2)).astype(np.float32)
    layer = BatchNormalization(momentum=0.0)
    run = a_run("float32")
    layer.forward(layer.init((40, 40, 2), np.random.default_rng(0)), x, run)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(run.updates["moving_mean"], exact.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(run.updates["moving_variance"], exact.var(axis=(0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("layer", [Dropout(0.25), AlphaDropout(0.25)], ids=repr)
def test_dropout_keeps_mean_and_spares_inference(layer):
    x = np.random.default_rng(0).standard_normal((500, 400)).astype(np.float32)
    assert layer.forward({}, x, a_run("float32", training=False))[0] is x
    assert dataclasses.replace(layer, rate=0).forward({}, x, a_run("float32"))[0] is x
    y, _, _ = both_passes(layer, {}, x, "float32")
    assert abs(y.mean()) < 0.01


def test_dropout_zeros_and_scales():
    x = np.ones((500, 400), np.float32)
    y, dx, _ = both_passes(Dropout(0.2), {}, x, "mixed_bfloat16", dy=x)
    assert set(np.unique(y)) == {0, 1.25}
    np.testing.assert_array_equal(y, dx)
    assert abs((y == 0).mean() - 0.2) < 0.005


def test_alpha_dropout_keeps_the_variance():
    x = np.random.default_rng(0).standard_normal((500, 400)).astype(np.float32)
    y, _, _ = both_passes(AlphaDropout(0.3), {}, x, "float32")
    assert abs(y.var() - 1) < 0.02


def test_dropout_depends_on_the_generator_alone():
    x = np.ones((20, 30))
    first, *others = (
        both_passes(Dropout(0.5), {}, numerics_of(get_policy(policy)).array(x), policy)[0] != 0
        for policy in ("float32", "float16", FLOAT64)
    )
    for other in others:
        np.testing.assert_array_equal(first, other)
    run = dataclasses.replace(a_run(FLOAT64), rng=lambda: np.random.default_rng(8))
    assert (first != (Dropout(0.5).forward({}, x, run)[0] != 0)).any()


def test_pooling_gives_a_tied_gradient_to_the_first():
    x = np.zeros((1, 2, 2, 1), np.float32)
    _, dx, _ = both_passes(MaxPooling2D(), {}, x, "float32", dy=np.ones((1, 1, 1, 1), np.float32))
    assert dx.reshape(-1).tolist() == [1, 0, 0, 0]


def test_pooling_shows_nan():
    x = np.zeros((1, 2, 2, 1), np.float32)
    x[0, 1, 0] = np.nan
    y, dx, _ = both_passes(MaxPooling2D(), {}, x, "float32", dy=np.full((1, 1, 1, 1), np.nan, "f"))
    assert np.isnan(y).all()
    assert np.isnan(dx).any()


# The user's side ---------------------------------------------------------------------------------


@LAYERS
def test_a_layer_prints_as_the_call_that_makes_it(layer, shape):
    assert eval(repr(layer), vars(layers) | vars(activations)) == layer


@LAYERS
def test_layers_travel_to_other_processes(layer, shape):
    other = pickle.loads(pickle.dumps(layer))
    assert other == layer
    if isinstance(layer, Activation):
        assert other.function is layer.function


def test_regularizers_and_constraints_are_found_by_parameter():
    layer = Dense(3, kernel_regularizer=L2(0.5), bias_regularizer="l1", kernel_constraint=MaxNorm())
    assert layer.regularizers["kernel"] == L2(0.5)
    assert layer.regularizers["bias"].l1 == 0.01
    assert layer.constraints == {"kernel": MaxNorm(2.0)}
    assert dataclasses.replace(layer, use_bias=False).regularizers == {"kernel": L2(0.5)}


def test_a_layer_of_ones_own_needs_two_methods():
    @dataclasses.dataclass(frozen=True, repr=False)
    class Double(Layer):
        def forward(self, params, x, run):
            return 2 * x, None

        def backward(self, params, saved, dy, run):
            return 2 * dy, {}

    y, dx, gradients = both_passes(Double(), {}, np.ones((2, 3)), FLOAT64, dy=np.ones((2, 3)))
    assert (y == 2).all()
    assert (dx == 2).all()
    assert gradients == {}
    assert repr(Double(trainable=False)) == "Double(trainable=False)"
    with pytest.raises(NotImplementedError, match="Layer has no forward pass; define forward"):
        Layer().forward({}, y, a_run(FLOAT64))
    with pytest.raises(NotImplementedError, match="define backward"):
        Layer().backward({}, None, y, a_run(FLOAT64))


@dataclasses.dataclass(frozen=True, repr=False)
class Shift(Layer):
    """A layer of one's own, whose gradient is what `gradient` makes of the right one."""

    gradient: object = None

    parameters: ClassVar = ("by",)
    by_initializer: ClassVar = "zeros"

    def parameter_shapes(self, shape):
        return {"by": shape}

    def forward(self, params, x, run):
        return x + params["by"], None

    def backward(self, params, saved, dy, run):
        return dy, self.gradient(dy.sum(axis=0))


def shifted(gradient, optimizer="sgd"):
    model = train.Sequential([train.Input((3,)), Shift(gradient)])
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    how = {"loss": "mse", "optimizer": optimizer, "batch_size": 2, "verbose": False}
    return train.fit(model, (x, 2 * x), **how).params["0/by"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_a_gradient_of_ones_own_layer_may_have_any_dtype_and_strides(optimizer):
    expected = shifted(lambda g: {"by": g}, optimizer)
    spread = np.zeros(6, np.float32)
    for same in (
        lambda g: {"by": g.astype(np.float64)},
        lambda g: {"by": g.tolist()},
        lambda g: {"by": np.add(g, 0, out=spread[::2])},
    ):
        np.testing.assert_array_equal(shifted(same, optimizer), expected)


@pytest.mark.parametrize("wrong", [lambda g: {"by": g[:2]}, lambda g: {"to": g}])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_gradient_that_fits_no_parameter_is_named(wrong, optimizer):
    with pytest.raises(ValueError, match=r"its parameters are 'by' of shape \(3,\): return"):
        shifted(wrong, optimizer)


MISTAKES = {
    "Dense's units: 0; use 1 or more": lambda: Dense(0),
    "did you mean 'relu'": lambda: Dense(3, activation="rleu"),
    "did you mean 'tanh'": lambda: Activation("tahn"),
    "did you mean 'he_normal'": lambda: Dense(3, kernel_initializer="he_norml"),
    "did you mean 'l2'": lambda: Conv2D(3, 3, kernel_regularizer="l22"),
    "Conv2D's filters: -1": lambda: Conv2D(-1, 3),
    "Conv2D's kernel_size: 0": lambda: Conv2D(1, (0, 3)),
    "Conv2D's strides: .1, 2, 3.; use one number": lambda: Conv2D(1, 3, strides=(1, 2, 3)),
    "did you mean 'same'": lambda: Conv2D(1, 3, padding="sam"),
    "MaxPooling2D's pool_size: -2": lambda: MaxPooling2D(-2),
    "MaxPooling2D's strides: 0": lambda: MaxPooling2D(2, strides=0),
    "'full' is not a padding": lambda: MaxPooling2D(padding="full"),
    "Dropout's rate is 1; use a probability": lambda: Dropout(1),
    "AlphaDropout's rate is -0.1": lambda: AlphaDropout(-0.1),
    "LayerNormalization's epsilon is -1": lambda: LayerNormalization(epsilon=-1),
    "BatchNormalization's momentum is 2": lambda: BatchNormalization(momentum=2),
    r"Conv2D\(1, \(3, 3\)\) takes images .* add the channel": lambda: Conv2D(1, 3).output_shape(
        (28, 28)
    ),
    r"larger than images of \(2, 5\); use padding='same'": lambda: Conv2D(1, 3).output_shape(
        (2, 5, 1)
    ),
    "takes images of shape": lambda: MaxPooling2D().output_shape((28,)),
    "AveragePooling2D's pool_size: 0": lambda: AveragePooling2D(0),
    r"GlobalMaxPooling2D\(\) takes images": lambda: GlobalMaxPooling2D().output_shape((7, 7)),
    r"\(4,\), which are 4 numbers": lambda: Reshape((3, -1)).output_shape((4,)),
    "one axis alone may be -1": lambda: Reshape((-1, -1)),
    "target_shape: 0": lambda: Reshape((0, 3)),
    r"Dense\(2\) takes samples of one axis or more": lambda: Dense(2).output_shape(()),
    r"BatchNormalization\(\) takes samples": lambda: BatchNormalization().output_shape(()),
    r"kernel_initializer of Dense\(2, .* returned shape \(1,\), not \(3, 2\)": lambda: Dense(
        2, kernel_initializer=lambda shape, rng: [1.0]
    ).init((3,), np.random.default_rng(0)),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message):
    with pytest.raises(ValueError, match=message):
        MISTAKES[message]()


# torch -------------------------------------------------------------------------------------------


def torch_layer(torch, layer, params, x):
    """Compute what a layer computes, with torch and its layouts: channels second, units first."""
    f = torch.nn.functional
    match layer:
        case Dense():
            return f.linear(x, params["kernel"].T, params.get("bias"))
        case Conv2D():
            return _as_channels_last(
                f.conv2d(
                    _torch_padded(torch, layer, layer.kernel_size, layer.strides, x, 0.0),
                    params["kernel"].permute(3, 2, 0, 1),
                    params.get("bias"),
                    layer.strides,
                )
            )
        case MaxPooling2D():
            strides = layer.strides or layer.pool_size
            padded = _torch_padded(torch, layer, layer.pool_size, strides, x, -np.inf)
            return _as_channels_last(f.max_pool2d(padded, layer.pool_size, strides))
        case LayerNormalization():
            return f.layer_norm(
                x, x.shape[-1:], params.get("gamma"), params.get("beta"), layer.epsilon
            )
        case _:
            rows = x.reshape(-1, x.shape[-1])
            mean, variance = params["moving_mean"].detach(), params["moving_variance"].detach()
            y = f.batch_norm(
                rows,
                mean,
                variance,
                params.get("gamma"),
                params.get("beta"),
                True,
                eps=layer.epsilon,
            )
            return y.reshape(x.shape)


def _as_channels_last(x):
    return x.permute(0, 2, 3, 1)


def _torch_padded(torch, layer, size, strides, x, value):
    """Return images with channels second and the border that Keras documents for "same"."""
    missing = [0, 0]
    if layer.padding == "same":
        for axis, (length, window, stride) in enumerate(
            zip(x.shape[1:3], size, strides, strict=True)
        ):
            overhang = window - (length % stride or stride)
            missing[axis] = max(0, overhang)
    (down, across) = missing
    sides = (across // 2, across - across // 2, down // 2, down - down // 2)
    return torch.nn.functional.pad(x.permute(0, 3, 1, 2), sides, value=value)


TORCH_CASES = [
    (layer, shape)
    for layer, shape in CASES
    if isinstance(layer, Dense | Conv2D | MaxPooling2D | BatchNormalization | LayerNormalization)
    and getattr(layer, "activation", None) is None
    and layer.trainable
]


@pytest.mark.parametrize(("layer", "shape"), TORCH_CASES, ids=repr)
def test_values_and_gradients_are_those_of_torch(layer, shape):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    params, x = drawn(layer, shape, "float32", samples=6)
    y, dx, gradients = both_passes(layer, params, x, "float32")
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    theirs = {name: torch.tensor(w, requires_grad=True) for name, w in params.items()}
    its_x = torch.tensor(x, requires_grad=True)
    its_y = torch_layer(torch, layer, theirs, its_x)
    its_y.backward(torch.tensor(dy))
    pairs = [(y, its_y.detach()), (dx, its_x.grad)]
    pairs += [(gradient, theirs[name].grad) for name, gradient in gradients.items()]
    for found, expected in pairs:
        scale = float(expected.abs().max())
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=2e-6 * scale)


@pytest.mark.parametrize("rows", [1, 2, 9, 128])
@pytest.mark.parametrize("columns", [1, 2, 3, 16, 17, 100])
def test_column_sums_have_the_bits_of_numpys(rows, columns):
    x = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    x[0, 0] = -0.0
    x[1:, 0] = -0.0
    for terms in (x, x * np.float32(1e30), x[:, ::-1], np.asfortranarray(x), x.astype(np.float64)):
        assert column_sums(terms).tobytes() == terms.sum(axis=0).tobytes()


@pytest.mark.parametrize("policy", [*POLICIES, "mixed_float8"], ids=str)
@pytest.mark.parametrize("activation", ["linear", "relu"])
@np.errstate(all="ignore")
def test_a_dense_layer_has_the_bits_of_its_steps_made_one_by_one(policy, activation):
    steps = Run(Listening(get_policy(policy)), True, lambda: np.random.default_rng(7))
    together = Run(numerics_of(get_policy(policy)), True, steps.rng)
    rng = np.random.default_rng(0)
    for rows, inputs, units in itertools.product((1, 33), (1, 70), (1, 2, 45)):
        params, x = drawn(Dense(units, activation=activation), (inputs,), policy, rows)
        dy = together.numerics.gradient(rng.standard_normal((rows, units)).astype(np.float32))
        for special in (None, np.nan, np.inf, -np.inf, -0.0, 1e-41, 3e38):
            for array in (x, dy, params["kernel"], params["bias"]):
                if special is not None:
                    array.reshape(-1)[rng.integers(array.size)] = special
            for trainable, wants in itertools.product((True, False), repeat=2):
                layer = Dense(units, activation=activation, trainable=trainable)
                found = []
                for run in (steps, together):
                    run.wants_input_gradient = wants
                    y, saved = layer.forward(params, x, run)
                    dx, gradients = layer.backward(params, saved, dy, run)
                    found.append([y, np.empty(0) if dx is None else dx, *gradients.values()])
                assert [a.tobytes() for a in found[0]] == [b.tobytes() for b in found[1]]


@pytest.mark.parametrize("policy", [*POLICIES, "mixed_float8", FLOAT64], ids=str)
def test_a_product_of_gradients_is_rounded_once_and_changes_nothing_else(policy):
    numerics = numerics_of(get_policy(policy))
    a, b = (numerics.array(np.random.default_rng(n).standard_normal((9, 9))) for n in (1, 2))
    before = a.copy(), b.copy()
    expected = numerics.gradient(numerics.matmul(a.T, b))
    assert numerics.gradient_product(a.T, b).tobytes() == expected.tobytes()
    assert (a == before[0]).all()
    assert (b == before[1]).all()
