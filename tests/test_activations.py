"""Activations: derivatives, extremes, and what torch computes."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from lowprec.train import activations
from lowprec.train.activations import ActivationFunction, get
from lowprec.train.gaussian import normal_distribution

NAMES = [
    "linear",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "swish",
    "mish",
    "softmax",
]
EVERY = pytest.mark.parametrize("name", NAMES)
BOUNDED_BELOW = {"sigmoid": 0, "tanh": -1, "relu": 0, "elu": -1, "gelu": 0, "swish": 0, "mish": 0}


def test_every_name_is_listed_here():
    assert list(activations.NAMED) == NAMES
    assert [get(name).name for name in NAMES] == NAMES


@EVERY
def test_backward_is_the_derivative(name):
    function, rng = get(name), np.random.default_rng(0)
    z = np.concatenate([rng.standard_normal((40, 5)), 6 * rng.standard_normal((40, 5))])
    dy = rng.standard_normal(z.shape)
    dz = function.backward(dy, z, function.forward(z))
    step, expected = 1e-5, np.empty_like(z)
    for column in range(5):  # softmax: a change in one column changes all
        moved = step * np.eye(5)[column]
        change = function.forward(z + moved) - function.forward(z - moved)
        expected[:, column] = (dy * change).sum(axis=1) / (2 * step)
    assert np.abs(dz - expected).max() <= 1e-9 * np.abs(expected).max() + 1e-10


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_stays_and_nothing_is_written_into(name, dtype):
    function = get(name)
    z, dy = np.linspace(-3, 3, 12, dtype=dtype).reshape(3, 4), np.ones((3, 4), dtype)
    for array in (z, dy):
        array.setflags(write=False)
    y = function.forward(z)
    y.setflags(write=False)
    assert y.dtype == function.backward(dy, z, y).dtype == dtype


@EVERY
def test_float32_is_accurate(name):
    function, rng = get(name), np.random.default_rng(0)
    z = (3 * rng.standard_normal((500, 6))).astype(np.float32)
    dy = rng.standard_normal(z.shape).astype(np.float32)
    y, exact = function.forward(z), function.forward(z.astype(np.float64))
    np.testing.assert_allclose(y, exact, rtol=5e-7, atol=3e-7)
    found = function.backward(dy, z, y)
    exact = function.backward(dy.astype(np.float64), z.astype(np.float64), exact)
    np.testing.assert_allclose(found, exact, rtol=2e-6, atol=1e-6)


@EVERY
def test_large_inputs_neither_overflow_nor_warn(name):
    function = get(name)
    z = np.array([[-1e18, -700, -100, 0, 100, 700, 1e18]], np.float32)
    y = function.forward(z)
    dz = function.backward(np.ones_like(z), z, y)
    assert np.isfinite(y).all()
    assert np.isfinite(dz).all()
    if name in BOUNDED_BELOW:
        assert y[0, 0] == BOUNDED_BELOW[name]
        assert dz[0, 0] == 0
    if name not in ("sigmoid", "tanh", "softmax"):
        slope = activations.SELU_SCALE if name == "selu" else 1
        np.testing.assert_allclose(y[0, -1], slope * 1e18, rtol=2e-7)


@EVERY
def test_nan_stays_nan(name):
    function, z = get(name), np.full((2, 2), np.nan, np.float32)
    assert np.isnan(function.forward(z)).all()


@EVERY
def test_rounding_is_skipped_only_where_values_stay_values(name):
    assert get(name).rounds == (name not in ("linear", "relu", "softmax"))


def test_softmax_is_a_distribution_whatever_is_added_to_all():
    z = np.random.default_rng(0).standard_normal((4, 3, 5))
    y = get("softmax").forward(z)
    np.testing.assert_allclose(y.sum(axis=-1), 1)
    np.testing.assert_allclose(get("softmax").forward(z + 1e3), y, rtol=1e-12)


def test_selu_keeps_mean_0_and_variance_1():
    z = np.random.default_rng(0).standard_normal(1_000_000)
    y = get("selu").forward(z)
    assert abs(y.mean()) < 0.005
    assert abs(y.var() - 1) < 0.01


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 2e-7), (np.float64, 4e-16)])
def test_the_normal_distribution_is_as_accurate_as_it_says(dtype, bound):
    z = np.concatenate([np.linspace(-40, 40, 4001), np.linspace(-1e-3, 1e-3, 101)]).astype(dtype)
    exact = np.array([math.erfc(-float(x) / math.sqrt(2)) / 2 for x in z])
    found = normal_distribution(z)
    assert found.dtype == dtype
    assert np.abs(found - exact).max() <= bound


def test_names_are_forgiving_about_spelling_alone():
    assert get(None) is activations.linear
    assert get("silu") is get("swish")
    with pytest.raises(
        ValueError, match=r"'Gelu' is not an activation; did you mean 'gelu'\? use one"
    ):
        get("Gelu")
    with pytest.raises(TypeError, match="a function alone does not say its derivative"):
        get(np.tanh)


def square(z):
    return z * z


def square_backward(dy, z, y):
    return 2 * z * dy


@pytest.mark.parametrize("function", [get("relu"), get("gelu")], ids=lambda f: f.name)
def test_named_activations_are_the_same_in_other_processes(function):
    assert pickle.loads(pickle.dumps(function)) is function


def test_an_activation_of_ones_own_serves_and_travels():
    own = ActivationFunction("relu", square, square_backward)
    assert get(own) is own
    assert pickle.loads(pickle.dumps(own)) == own


@EVERY
def test_values_and_gradients_are_those_of_torch(name):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    function, rng = get(name), np.random.default_rng(2)
    z = (3 * rng.standard_normal((300, 7))).astype(np.float32)
    dy = rng.standard_normal(z.shape).astype(np.float32)
    x = torch.tensor(z, requires_grad=True)
    options = {"softmax": {"dim": -1}, "leaky_relu": {"negative_slope": 0.2}}.get(name, {})
    theirs = x * 1 if name == "linear" else _of_torch(torch, name)(x, **options)
    theirs.backward(torch.tensor(dy))
    y = function.forward(z)
    tolerance = 2e-6 if name == "gelu" else 6e-7  # torch's 1 + erf(z) cancels where z is negative
    np.testing.assert_allclose(y, theirs.detach().numpy(), rtol=1e-6, atol=tolerance)
    np.testing.assert_allclose(function.backward(dy, z, y), x.grad.numpy(), rtol=3e-6, atol=2e-6)


def _of_torch(torch, name):
    if name in ("sigmoid", "tanh"):
        return getattr(torch, name)
    return getattr(torch.nn.functional, {"swish": "silu"}.get(name, name))
