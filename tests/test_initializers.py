"""Initializers, regularizers and constraints: Keras' formulas, stated again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lowprec.train import initializers, regularizers
from lowprec.train.initializers import Constant, RandomNormal, VarianceScaling, fans
from lowprec.train.regularizers import L1, L1L2, L2, MaxNorm

SHAPE = (300, 200)
VARIANCES = {
    "glorot_uniform": 2 / 500,
    "glorot_normal": 2 / 500,
    "he_uniform": 2 / 300,
    "he_normal": 2 / 300,
    "lecun_uniform": 1 / 300,
    "lecun_normal": 1 / 300,
}
EVERY = pytest.mark.parametrize("name", initializers.NAMED)


def rng(seed=0):
    return np.random.default_rng(seed)


@EVERY
def test_weights_are_float32_and_depend_on_the_seed_alone(name):
    draw = initializers.get(name)
    weights = draw(SHAPE, rng())
    assert weights.dtype == np.float32
    assert weights.shape == SHAPE
    np.testing.assert_array_equal(weights, draw(SHAPE, rng()))
    assert np.array_equal(weights, draw(SHAPE, rng(1))) == (name in ("zeros", "ones"))


@pytest.mark.parametrize("name", VARIANCES)
def test_variance_is_scaled_by_the_fan(name):
    weights = initializers.get(name)(SHAPE, rng()).astype(np.float64)
    deviation = math.sqrt(VARIANCES[name])
    assert abs(weights.mean()) < 0.02 * deviation
    assert abs(weights.std() / deviation - 1) < 0.01
    bound = math.sqrt(3) if name.endswith("uniform") else 2 / 0.87962566
    assert 0.99 * bound * deviation < np.abs(weights).max() <= bound * deviation * (1 + 1e-6)


def test_truncation_leaves_the_shape_of_the_normal_distribution():
    weights = VarianceScaling()((250, 400), rng()) * math.sqrt(250) * 0.87962566
    within = (np.abs(weights) < 1).mean()
    assert abs(within - math.erf(math.sqrt(0.5)) / math.erf(math.sqrt(2))) < 0.005


def test_untruncated_normal_has_its_tail():
    weights = VarianceScaling(distribution="untruncated_normal")(SHAPE, rng()) * math.sqrt(300)
    assert abs((np.abs(weights) > 2).mean() - math.erfc(math.sqrt(2))) < 0.003


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((), (1, 1)), ((7,), (7, 7)), ((4, 6), (4, 6)), ((3, 5, 2, 8), (30, 120))],
)
def test_fans_are_counted_as_in_keras(shape, expected):
    assert fans(shape) == expected


def test_random_normal_has_the_deviation_that_was_asked_for():
    weights = initializers.random_normal(0.01)(SHAPE, rng())
    assert abs(weights.std() - 0.01) < 2e-4
    assert abs(RandomNormal(0.01, mean=3.0)(SHAPE, rng()).mean() - 3) < 1e-3


def test_constants_are_constant():
    assert set(initializers.zeros((2, 3), rng()).flat) == {0}
    assert set(initializers.ones((2, 3), rng()).flat) == {1}
    assert set(Constant(0.5)((2, 3), rng()).flat) == {0.5}


def test_a_function_is_an_initializer():
    def halves(shape, rng):
        return np.full(shape, 0.5)

    assert initializers.get(halves) is halves
    assert initializers.get(initializers.he_normal) is initializers.get("he_normal")


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "did you mean 'glorot_normal'", lambda: initializers.get("glorot_nomal")),
        (TypeError, "None is not an initializer", lambda: initializers.get(None)),
        (TypeError, "is not an initializer; use a name", lambda: initializers.get(RandomNormal)),
        (ValueError, "scale is -1; use a positive", lambda: VarianceScaling(-1)),
        (ValueError, "did you mean 'fan_in'", lambda: VarianceScaling(mode="fanin")),
        (ValueError, "did you mean 'uniform'", lambda: VarianceScaling(distribution="unifom")),
        (ValueError, "stddev is -1; use 0 or more", lambda: RandomNormal(-1)),
        (ValueError, "l2 is -0.5; use a finite", lambda: L2(-0.5)),
        (ValueError, "l1 is inf; use a finite", lambda: L1(math.inf)),
        (ValueError, "did you mean 'l1_l2'", lambda: regularizers.get("l1l2")),
        (TypeError, "0.01 is not a regularizer", lambda: regularizers.get(0.01)),
        (ValueError, "max_value is 0; use a positive norm", lambda: MaxNorm(0)),
    ],
)
def test_mistakes_are_named(error, message, call):
    with pytest.raises(error, match=message):
        call()


# Penalties ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [L1(0.3), L2(0.7), L1L2(0.2, 0.5), L1L2()], ids=repr)
def test_a_penalty_is_the_sum_of_magnitudes_and_squares(penalty):
    w = rng().standard_normal((4, 5))
    expected = sum(penalty.l1 * abs(x) + penalty.l2 * x * x for x in w.flat)
    assert math.isclose(penalty.value(w), expected, rel_tol=1e-12)
    gradient = penalty.gradient(w)
    for index in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[index] = 1e-6
        slope = (penalty.value(w + step) - penalty.value(w - step)) / 2e-6
        assert math.isclose(gradient[index], slope, rel_tol=1e-7, abs_tol=1e-8)


def test_penalties_keep_float32_and_do_not_write():
    w = np.array([1e20, -2.0, 0.0], np.float32)
    w.setflags(write=False)
    gradient = L1L2(0.5, 0.25).gradient(w)
    assert gradient.dtype == np.float32
    assert gradient[1:].tolist() == [-1.5, 0.0]
    assert math.isclose(L2(1.0).value(w), 1e40, rel_tol=1e-6)  # beyond float32


def test_named_penalties_have_the_factor_of_keras():
    assert regularizers.get("l1") == L1(0.01)
    assert regularizers.get("l2") == L2(0.01)
    assert regularizers.get("l1_l2") == L1L2(0.01, 0.01)
    assert regularizers.get(None) is None


def test_max_norm_bounds_columns_and_leaves_the_others_their_bits():
    w = rng().standard_normal((6, 50)).astype(np.float32)
    bound = 2.0
    constrained = MaxNorm(bound)(w)
    norms = np.sqrt((w.astype(np.float64) ** 2).sum(axis=0))
    is_within = norms <= bound * (1 - 1e-6)
    assert 0 < is_within.sum() < 50
    assert constrained.dtype == np.float32
    np.testing.assert_array_equal(constrained[:, is_within], w[:, is_within])
    by_keras = w * (np.clip(norms, 0, bound) / (1e-7 + norms))
    np.testing.assert_allclose(constrained, by_keras, rtol=1e-6)


def test_max_norm_of_a_convolution_takes_three_axes():
    w = np.ones((3, 3, 2, 4))
    constrained = MaxNorm(1.0, axis=(0, 1, 2))(w)
    np.testing.assert_allclose((constrained**2).sum(axis=(0, 1, 2)), 1)
    assert (MaxNorm(1.0)(np.zeros((2, 3))) == 0).all()
