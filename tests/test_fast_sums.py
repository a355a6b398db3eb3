"""Sums that are made fast: many terms, through many binades, as their definition says."""

import numpy as np
import pytest
from table import DETERMINISTIC
from test_accumulation import defined_sum

import lowprec as lp
from lowprec import Accumulator, Arithmetic

RNG = np.random.default_rng(8)
COUNT = 1100  # more than a block of every kernel has


def spread(low, high):
    """Draw numbers of both signs whose exponents lie between two."""
    signs = RNG.choice([-1.0, 1.0], COUNT)
    return (np.exp2(RNG.uniform(low, high, COUNT)) * signs).astype(np.float32)


TERMS = {
    "normal": RNG.standard_normal(COUNT).astype(np.float32),
    "one sign": np.abs(RNG.standard_normal(COUNT)).astype(np.float32),
    "one sign at first": np.sort(RNG.standard_normal(COUNT).astype(np.float32))[::-1].copy(),
    "ties": RNG.integers(-8, 8, COUNT).astype(np.float32) / 2,
    "spread": spread(-30, 8),
    "tiny": spread(-149, -120),
    "overflowing": spread(100, 127.9),
    "beside a midpoint": np.tile(np.float32([2.0**-60, 1 + 2.0**-8, -1, -(2.0**-60)]), COUNT // 4),
}


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("fmt", ["bfloat16", "float8_e5m2"])
def test_long_sequential_sums_are_their_definition(fmt, rounding):
    how = Accumulator(fmt, rounding=rounding)
    for name, terms in TERMS.items():
        expected = defined_sum(terms.tolist(), how)
        found = [lp.sum(terms, how), lp.sum(terms.astype(np.float64), how)]
        found.append(lp.sum(np.repeat(terms, 2)[::2], how))
        np.testing.assert_array_equal(np.float64(found), float(expected), err_msg=name)


@pytest.mark.parametrize("order", ["pairwise", "exact"])
@pytest.mark.parametrize("fmt", ["float32", "bfloat16"])
def test_long_sums_in_other_orders_are_their_definition(order, fmt):
    how = Accumulator(fmt, order)
    for name, terms in TERMS.items():
        expected = defined_sum(terms.tolist(), how)
        np.testing.assert_array_equal(float(lp.sum(terms, how)), float(expected), err_msg=name)


SIDE_BY_SIDE = [
    ("float32", "ties_to_even"),
    ("bfloat16", "ties_to_even"),
    ("float16", "ties_to_even"),
    ("float8_e4m3fn", "ties_to_away"),
    ("bfloat16", "to_odd"),
    ("float8_e5m2", "toward_zero"),
]


@pytest.mark.parametrize("columns", [16, 20, 100, 129])
@pytest.mark.parametrize(("fmt", "rounding"), SIDE_BY_SIDE)
def test_rows_side_by_side_are_summed_as_rows_are(fmt, rounding, columns):
    how = Accumulator(fmt, rounding=rounding)
    terms = np.stack(list(TERMS.values()))
    x = np.ascontiguousarray(terms[RNG.integers(0, len(terms), columns)].T)
    x[:70, 0], x[3, 1], x[4, 2], x[:70, 3] = -0.0, np.inf, np.nan, 3e38
    x.view(np.uint32)[5, 4] = 0xFFFFFFFF  # a NaN that a carry would turn into zero
    for rows in (x[:70], x):
        found = lp.sum(rows, how, axis=0)
        for dtype in (np.float32, np.float64):  # whose loops have nothing in common
            turned = np.ascontiguousarray(rows.T, dtype)
            expected = lp.sum(turned, how, axis=1)
            assert found.view(np.uint32).tolist() == expected.view(np.uint32).tolist()
        assert np.isnan(found[[2, 4]]).all()


@pytest.mark.parametrize("rounding", ["ties_to_even", "toward_positive"])
@pytest.mark.parametrize("operation", ["add", "multiply", "divide", "fma"])
def test_results_do_not_depend_on_where_arrays_begin(operation, rounding):
    arithmetic = Arithmetic("bfloat16", rounding=rounding)
    compute = getattr(arithmetic, operation)
    operands = [spread(-60, 60) for _ in range(3 if operation == "fma" else 2)]
    expected = compute(*operands).view(np.uint32).tolist()
    for start in range(1, 17, 3):
        out = np.empty(COUNT + 17, np.float32)[start : start + COUNT]
        compute(*operands, out=out)
        assert out.view(np.uint32).tolist() == expected
