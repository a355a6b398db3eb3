"""The scalar rules inside a user's own compiled function agree with `round_to`."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from table import DETERMINISTIC, FLOAT64, FORMATS, POLICIES, assert_same, name, points

import lowprec as lp
from lowprec.kernels import scalar_rounder


def looped(rounder):
    """Return a user's function that rounds an array element by element."""

    @numba.njit
    def round_all(x):
        y = np.empty_like(x)
        for i in range(x.size):
            y[i] = rounder(x[i])
        return y

    return round_all


@pytest.mark.parametrize("fmt", FORMATS, ids=name)
def test_scalar_rounder_is_round_to(fmt):
    x = points(fmt, FLOAT64)
    assert_same(looped(scalar_rounder(fmt))(x), lp.round_to(x, fmt), x)


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("fmt", ["bfloat16", "float8_e4m3fn"])
def test_scalar_rounder_knows_every_mode(fmt, rounding):
    x = points(lp.get_format(fmt), FLOAT64)
    rounder = scalar_rounder(fmt, rounding=rounding)
    assert_same(looped(rounder)(x), lp.round_to(x, fmt, rounding=rounding), x)


@pytest.mark.parametrize("overflow", POLICIES)
def test_scalar_rounder_knows_every_policy(overflow):
    x = np.array([1e9, -1e9, np.inf, -np.inf, 470.0, np.nan])
    for fmt in ("float16", "float8_e4m3fn"):
        rounder = scalar_rounder(fmt, overflow=overflow)
        assert_same(looped(rounder)(x), lp.round_to(x, fmt, overflow=overflow), x)


def test_a_user_accumulates_in_bfloat16():
    rounder = scalar_rounder("bfloat16")

    @numba.njit
    def total(x):
        s = 0.0
        for v in x:
            s = rounder(s + v)
        return s

    ones = np.ones(1000)
    assert total(ones) == 256, "256 + 1 is a tie, and 256 is even"
    assert total.py_func(ones[:10]) == 10, "it can be called from Python too"
