"""Every turn of every format of at most 16 bits, and every float32 there is.

The first part tries every value, every midpoint between values and what lies one source ulp to
either side of each, from float32 and float64, in every deterministic mode. The second tries all
2**32 patterns of float32. By default it takes one in 64 of them, in blocks with a varying offset,
and all patterns around the steps; the whole takes well under a minute a format:

    python -m pytest tests/test_exhaustive.py -m slow

``LOWPREC_EXHAUSTIVE="float8_e5m2:toward_zero e6m9:to_odd" python -m pytest …`` asks for others.
"""

from __future__ import annotations

import os
from functools import cache

import numba
import numpy as np
import oracle
import pytest
from table import (
    CODED,
    DETERMINISTIC,
    SMALL_PAIRS,
    assert_same,
    coded_deterministic_modes,
    each,
    name,
    policies,
    turning_points,
)

import lowprec as lp

CASES = [
    case.partition(":")[::2]
    for case in os.environ.get("LOWPREC_EXHAUSTIVE", "bfloat16 float16 float8_e4m3fn").split()
]
BLOCK = 2**24  # patterns at once


@pytest.fixture
def one_thread():
    """Leave parallel loops, whose compilation would take minutes, to the tests that follow."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


@cache
def found(fmt, dtype):
    return oracle.Found(turning_points(fmt, dtype), fmt)


@pytest.mark.usefixtures("one_thread")
@each("rounding", DETERMINISTIC)
@pytest.mark.parametrize(("fmt", "dtype"), SMALL_PAIRS, ids=name)
def test_every_midpoint_and_value_and_their_neighbours(fmt, dtype, rounding):
    x = turning_points(fmt, dtype)
    expected = found(fmt, dtype).pick(rounding)
    y = lp.round_to(x, fmt, rounding=rounding)
    assert y.dtype == dtype
    assert_same(y, expected, x)
    if (fmt, rounding) in CODED:
        codes = lp.encode(x, fmt, rounding=rounding)
        assert_same(lp.decode(codes, fmt), expected, x)


@pytest.mark.usefixtures("one_thread")
@each("rounding", coded_deterministic_modes)
@pytest.mark.parametrize(("fmt", "dtype"), SMALL_PAIRS, ids=name)
def test_every_turn_under_the_other_policies(fmt, dtype, rounding):
    x = turning_points(fmt, dtype)
    for overflow in policies(fmt)[1:]:
        y = lp.round_to(x, fmt, rounding=rounding, overflow=overflow)
        assert_same(y, found(fmt, dtype).pick(rounding, overflow), x)


def floats(start: int, stop: int, step: int = 1) -> np.ndarray:
    """Return the float32 of the patterns ``range(start, stop, step)``."""
    return np.arange(start, stop, step, dtype=np.uint32).view(np.float32)


def assert_bits(actual: np.ndarray, expected: np.ndarray, x: np.ndarray) -> None:
    """Fail unless all bits agree, those of NaN included."""
    if not np.array_equal(actual.view(np.uint32), expected.view(np.uint32)):
        assert_same(actual, expected, x)
        raise AssertionError("only bits of NaN differ")


@pytest.mark.parametrize(("fmt", "rounding"), CASES)
def test_one_in_64_float32_patterns_and_all_around_the_steps(fmt, rounding):
    how = {"rounding": rounding or "ties_to_even"}
    stairs = oracle.Staircase(lp.get_format(fmt), **how)
    offsets = np.random.default_rng(64).integers(0, 64, 2**32 // BLOCK)
    for block, offset in enumerate(offsets.tolist()):
        sample = block * BLOCK + offset, (block + 1) * BLOCK, 64
        x = floats(*sample)
        assert_bits(lp.round_to(x, fmt, **how), stairs.over(*sample), x)
    around = np.unique((stairs.starts[:, None] + np.arange(-2, 3)).clip(0, 2**32 - 1))
    expected = stairs.results[np.searchsorted(stairs.starts, around, "right") - 1]
    x = around.astype(np.uint32).view(np.float32)
    assert_bits(lp.round_to(x, fmt, **how), expected, x)


@pytest.mark.slow
@pytest.mark.parametrize(("fmt", "rounding"), CASES)
def test_every_float32_pattern(fmt, rounding):
    how = {"rounding": rounding or "ties_to_even"}
    stairs = oracle.Staircase(lp.get_format(fmt), **how)
    out = np.empty(BLOCK, np.float32)
    for start in range(0, 2**32, BLOCK):
        x = floats(start, start + BLOCK)
        assert_bits(lp.round_to(x, fmt, out=out, **how), stairs.over(start, start + BLOCK), x)
