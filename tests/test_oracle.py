"""The oracle deserves belief: its two forms agree, and peers agree where they are right."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import oracle
import pytest
from table import (
    DETERMINISTIC,
    FLOAT32,
    LISTED,
    admissible,
    assert_same,
    name,
    points,
    policies,
    sources,
    turning_points,
)

import lowprec as lp


@pytest.mark.parametrize("fmt", LISTED, ids=name)
def test_search_and_exact_division_agree(fmt):
    rng = np.random.default_rng(0)
    for rounding in DETERMINISTIC:
        for overflow in policies(fmt):
            x = rng.choice(points(fmt, sources(fmt)[-1]), 25)
            exact = [oracle.round_exactly(float(v), fmt, rounding, overflow) for v in x]
            assert_same(oracle.round_to(x, fmt, rounding, overflow), exact, x)


@pytest.mark.parametrize("fmt", [f for f in LISTED if f.dtype], ids=name)
def test_table_is_what_the_dtype_decodes(fmt):
    values, _, _, codes = oracle.table(fmt)
    with np.errstate(over="ignore"):
        assert_same(codes[:-1].astype(fmt.code_dtype).view(fmt.dtype).astype(float), values[:-1])


@pytest.mark.parametrize("fmt", [f for f in LISTED if f.dtype and f != lp.float8_e8m0fnu], ids=name)
def test_dtype_rounds_float32_to_the_same_codes(fmt):
    x = turning_points(fmt, FLOAT32)
    with np.errstate(over="ignore"):
        codes = x.astype(fmt.dtype).view(fmt.code_dtype)
    np.testing.assert_array_equal(oracle.encode(oracle.round_to(x, fmt), fmt), codes)


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("fmt", [lp.bfloat16, lp.float8_e4m3fn, lp.float8_e8m0fnu], ids=name)
def test_staircase_is_the_search(fmt, rounding):
    start, step = 12345, 65521
    patterns = np.arange(start, 2**32, step, dtype=np.uint32)
    with np.errstate(invalid="ignore"):
        x = patterns.view(np.float32).astype(np.float64)
    expected = oracle.round_to(x, fmt, rounding)
    assert_same(oracle.Staircase(fmt, rounding).over(start, 2**32, step), expected, x)


def test_staircase_turns_where_the_midpoint_is():
    one, step = 0x3F800000, 1 << 16  # bfloat16 keeps the upper half of a float32 pattern
    stairs = oracle.Staircase(lp.bfloat16)
    tie_to_one, tie_to_next = one + step // 2, one + step + step // 2
    near = stairs.over(tie_to_one - 1, tie_to_one + 2)
    assert near.tolist() == [1.0, 1.0, 1.0078125]
    near = stairs.over(tie_to_next - 1, tie_to_next + 2)
    assert near.tolist() == [1.0078125, 1.015625, 1.015625]


def test_fractions_reach_beyond_float64():
    assert oracle.round_exactly(16973823, lp.bfloat16) == 16908288
    assert oracle.round_exactly(2**64 - 1, lp.float64) == 2.0**64
    assert oracle.round_exactly(2**53 + 1, lp.float64) == 2.0**53


def test_admissible_points_have_a_result():
    x = np.array([np.nan, -1.0, 0.0, 1.0])
    assert admissible(x, lp.float8_e4m3fn) is x
    assert admissible(x, lp.float4_e2m1fn).tolist() == [-1.0, 0.0, 1.0]


def test_overflow_as_ofp8_says():
    x = [448, 464, 465, -465, np.inf]
    got = oracle.round_to(x, lp.float8_e4m3fn)
    assert_same(got, [448, 448, np.nan, np.nan, np.nan])
    assert_same(
        oracle.round_to(x, lp.float8_e4m3fn, overflow="saturate"), [448, 448, 448, -448, 448]
    )
    assert np.isnan(ml_dtypes.float8_e4m3fn(465))
