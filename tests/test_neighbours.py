"""`next_up`, `next_down` and `ulp` against the table of values."""

from __future__ import annotations

import math

import numpy as np
import oracle
import pytest
from table import LISTED, assert_same, name, points, sources

import lowprec as lp

signed_formats = pytest.mark.parametrize("fmt", [f for f in LISTED if f.signed], ids=name)


def ladder(fmt):
    """Return every value in order, one zero, infinities where there are some."""
    values = oracle.table(fmt).values[:-1]
    values = np.append(values, math.inf) if fmt.has_infinity else values
    return np.concatenate([-values[:0:-1], values])


@signed_formats
def test_next_up_climbs_every_value(fmt):
    values = ladder(fmt)
    x = values.astype(sources(fmt)[0])
    np.testing.assert_array_equal(lp.next_up(x[:-1], fmt), values[1:])
    np.testing.assert_array_equal(lp.next_down(x[1:], fmt), values[:-1])


@signed_formats
def test_next_down_mirrors_next_up(fmt):
    x = points(fmt, sources(fmt)[0])
    assert_same(np.abs(lp.next_down(-x, fmt)), np.abs(lp.next_up(x, fmt)), x)


@signed_formats
def test_next_up_of_what_is_no_value_is_the_least_value_above(fmt):
    values = ladder(fmt)
    x = points(fmt, sources(fmt)[0])
    x = x[(x > values[0]) & (x < values[-1])]
    above = values[np.searchsorted(values, x, "right")]
    below = values[np.searchsorted(values, x, "left") - 1]
    np.testing.assert_array_equal(lp.next_up(x, fmt), above)
    np.testing.assert_array_equal(lp.next_down(x, fmt), below)


@pytest.mark.parametrize("fmt", [f for f in LISTED if f.precision > 1], ids=name)
def test_ulp_is_the_spacing_above(fmt):
    values = oracle.table(fmt).values[:-1]
    spacing = np.diff(values)
    x = values[:-1].astype(sources(fmt)[0])
    inside = x >= fmt.smallest_normal  # without subnormals, 0 and the first value are far apart
    np.testing.assert_array_equal(lp.ulp(x[inside], fmt), spacing[inside])
    assert lp.ulp(1.0, fmt) == fmt.eps or fmt.emax < 0 or fmt.emin > 0


def test_below_a_scale_there_is_its_smallest_value_above_and_nothing_below():
    tiny = np.array([2.0**-200, 2.0**-128])
    assert (lp.next_up(tiny, "float8_e8m0fnu") == 2.0**-127).all()
    assert np.isnan(lp.next_down(tiny, "float8_e8m0fnu")).all()


def test_tensors_have_neighbours():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = torch.ones(2, dtype=torch.bfloat16)
    assert lp.next_up(x, "float8_e4m3fn").tolist() == [1.125, 1.125]
    assert lp.ulp(x, "float8_e4m3fn").tolist() == [0.125, 0.125]


SMALL = [fmt for fmt in LISTED if fmt.bits <= 9]


@pytest.mark.parametrize("fmt", SMALL, ids=name)
def test_neighbours_of_any_number_are_found_in_the_list_of_values(fmt):
    values = np.array(ladder(fmt) if fmt.signed else oracle.table(fmt).values[:-1])
    between = (values[1:] + values[:-1]) / 2
    x = np.concatenate([values, between, [3 * fmt.max, 1.01 * fmt.max, fmt.smallest_subnormal / 2]])
    if fmt.signed:
        x = np.concatenate([x, -x])
    finite = np.unique(values[np.isfinite(values)])
    for number, above, below in zip(
        x.tolist(), lp.next_up(x, fmt).tolist(), lp.next_down(x, fmt).tolist(), strict=True
    ):
        greater, less = finite[finite > number], finite[finite < number]
        if greater.size:
            assert above == greater[0], f"next_up({number})"
        if less.size:
            assert below == less[-1], f"next_down({number})"


def test_infinity_has_a_neighbour_on_its_inner_side():
    for fmt in SMALL:
        assert lp.next_down(np.inf, fmt) == fmt.max
        if fmt.signed:
            assert lp.next_up(-np.inf, fmt) == -fmt.max


def test_neighbours_of_large_integers_are_exact():
    x = np.array([2**62 + 1, 2**62, -(2**62) - 1, 2**53 + 1])
    assert lp.next_up(x, "float64").tolist() == [
        2.0**62 + 1024,
        2.0**62 + 1024,
        -(2.0**62),
        2.0**53 + 2,
    ]
    assert lp.next_down(x, "float64").tolist() == [
        2.0**62,
        2.0**62 - 512,
        -(2.0**62) - 1024,
        2.0**53,
    ]


def test_the_spacing_at_infinity_is_infinite_in_every_format():
    for fmt in LISTED:
        assert lp.ulp(np.inf, fmt) == np.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fmt", LISTED, ids=name)
def test_a_special_number_changes_no_other_spacing(fmt, dtype):
    """Arrays of finite numbers have a way of their own."""
    if not fmt.fits(lp.float32 if dtype is np.float32 else lp.float64):
        pytest.skip(f"{np.dtype(dtype)} does not hold {fmt}")
    bits = np.random.default_rng(8).integers(0, 2**63, 3000).astype(f"u{np.dtype(dtype).itemsize}")
    x = bits.view(dtype)
    with np.errstate(over="ignore"):
        ends = np.array([0.0, fmt.smallest_subnormal, fmt.smallest_normal, fmt.max]).astype(dtype)
    x = np.concatenate([x[np.isfinite(x)], ends])
    x = np.abs(x) if not fmt.signed else np.concatenate([x, -ends])
    x = x[np.isfinite(x)]
    assert_same(lp.ulp(x, fmt), lp.ulp(np.append(x, dtype(np.inf)), fmt)[:-1], x)
    assert lp.ulp(x[:0], fmt).shape == (0,)
