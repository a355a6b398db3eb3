"""exp, log, tanh and their like, of which training is made: accuracy and special values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lowprec.kernels import functions

mpmath = pytest.importorskip("mpmath", reason="the oracle")

ONE = mpmath.mpf(1)
TRUE = {
    "exp": mpmath.exp,
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: ONE / (ONE + mpmath.exp(-x)),
    "elu": lambda x: x if x > 0 else mpmath.expm1(x),
    "softplus_tanh": lambda x: mpmath.tanh(mpmath.log1p(mpmath.exp(x))),
}
INF, NAN = math.inf, math.nan
SPECIAL = {
    "exp": [(INF, INF), (-INF, 0.0), (0.0, 1.0), (-0.0, 1.0), (1e4, INF), (-1e4, 0.0)],
    "expm1": [(INF, INF), (-INF, -1.0), (0.0, 0.0), (-0.0, -0.0), (1e4, INF), (-1e4, -1.0)],
    "log": [(INF, INF), (0.0, -INF), (-0.0, -INF), (1.0, 0.0), (-1.0, NAN), (-INF, NAN)],
    "log1p": [(INF, INF), (-1.0, -INF), (0.0, 0.0), (-0.0, -0.0), (-2.0, NAN), (-INF, NAN)],
    "tanh": [(INF, 1.0), (-INF, -1.0), (0.0, 0.0), (-0.0, -0.0), (1e4, 1.0)],
    "sigmoid": [(INF, 1.0), (-INF, 0.0), (0.0, 0.5), (1e4, 1.0), (-1e4, 0.0)],
    "elu": [(INF, INF), (-INF, -1.0), (0.0, 0.0), (-0.0, -0.0), (3.5, 3.5), (-1e4, -1.0)],
    "softplus_tanh": [(INF, 1.0), (-INF, 0.0), (0.0, 0.6), (1e4, 1.0), (-1e4, 0.0)],
}


def arguments(name, count):
    rng = np.random.default_rng(6)
    parts = [rng.normal(size=count) * size for size in (1e-6, 0.1, 1, 10)]
    parts += [10.0 ** rng.uniform(-30, 1.5, count), rng.uniform(0.5, 2, count)]
    x = np.concatenate(parts)
    if name == "log":
        x = np.abs(x)
    return x[x > -0.999] if name == "log1p" else x


def errors(name, x, precision):
    """Return the errors in units in the last place, for results that are normal numbers."""
    found = []
    with mpmath.workprec(300):
        for argument, y in zip(x.tolist(), getattr(functions, name)(x).tolist(), strict=True):
            true = TRUE[name](mpmath.mpf(argument))
            if true != 0 and abs(true) > np.finfo(x.dtype).smallest_normal:
                unit = mpmath.mpf(2) ** (
                    int(mpmath.floor(mpmath.log(abs(true), 2))) + 1 - precision
                )
                found.append(float(abs(mpmath.mpf(y) - true) / unit))
    return found


@pytest.mark.parametrize("name", TRUE)
def test_float32_is_correctly_rounded_but_for_near_ties(name):
    found = errors(name, arguments(name, 60).astype(np.float32), 24)
    assert len(found) > 200
    assert max(found) < 0.5 + 2**-10


@pytest.mark.parametrize("name", TRUE)
def test_float64_is_good_to_two_units(name):
    assert max(errors(name, arguments(name, 40), 53)) < 2.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TRUE)
def test_special_values(name, dtype):
    cases = [*SPECIAL[name], (NAN, NAN)]
    x = np.array([case[0] for case in cases], dtype)
    expected = np.array([case[1] for case in cases], dtype)
    found = getattr(functions, name)(x)
    np.testing.assert_array_equal(found, expected)
    signed = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[signed], np.signbit(expected)[signed])


def test_subnormal_results_and_arguments():
    x = np.float32([-88, -100, -103.9, -104.1])
    expected = np.exp(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(functions.exp(x), expected)
    tiny = np.array([5e-324, -5e-324, 1e-310, -2e-309])
    for name in ("expm1", "log1p", "tanh", "elu"):
        np.testing.assert_array_equal(getattr(functions, name)(tiny), tiny)
    assert functions.log(np.array([5e-324]))[0] == pytest.approx(-744.4400719213812, rel=1e-15)
    assert functions.exp(np.array([-745.0]))[0] == 5e-324


def test_shapes_and_dtypes_stay():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    for array in (x, x.T, x[::2], np.float32(1), np.empty((0, 3), np.float32)):
        found = functions.tanh(array)
        assert found.shape == np.shape(array)
        assert found.dtype == np.float32
    assert functions.exp([0, 1]).dtype == np.float64
    np.testing.assert_array_equal(functions.exp(x.T), functions.exp(x).T)
