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
