"""Values that become one another are not held, however small their relative errors."""

import numpy as np
import pytest

from lowprec import advise, compare, measure

STAMPS = 1_700_000_000 + np.arange(0, 86400, 10)
CITY = 52.3 + np.random.default_rng(0).normal(0, 0.4, 6000)


@pytest.mark.parametrize("x", [STAMPS, CITY, CITY.astype(np.float32)[::-1]], ids=str)
def test_values_that_collapse_are_not_held(x):
    found = measure(x, "bfloat16")
    assert found.collapses
    assert found.max_relative_error < 0.01
    assert found.variation.distinct > 8 * found.variation.left
    told = str(advise(x, "bfloat16"))
    assert " left" in told
    assert "subtract the mean" in told
    assert "multiplied by" not in told
    assert advise(x, "bfloat16").holding == ()


def test_time_stamps_become_one_value():
    assert measure(STAMPS, "bfloat16").variation[:2] == (8640, 1)
    assert "8,640" in repr(compare({"time": STAMPS}, ["bfloat16"])) or "8640" in repr(
        compare({"time": STAMPS}, ["bfloat16"]).to_dict()
    )
    centred = STAMPS - STAMPS.mean()
    assert not measure(centred, "bfloat16").collapses


def test_the_largest_error_is_in_the_datas_own_units():
    from lowprec import round_to

    error = np.abs(round_to(CITY, "bfloat16") - CITY).max()
    assert measure(CITY, "bfloat16").variation.max_error == error


@pytest.mark.parametrize(
    "x",
    [
        np.random.default_rng(1).normal(0, 1, 100_000),
        np.random.default_rng(1).normal(0, 0.02, 10_000).astype(np.float32),
        np.random.default_rng(1).uniform(1, 2, 5000),
        np.zeros(1000),
        np.full(1000, 1.5),
        np.repeat([0.0, 1.0, 2.0], 1000),
        np.arange(10) + 1e6,
    ],
    ids=["normal", "embedding", "binade", "zeros", "constant", "labels", "few"],
)
@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float8_e4m3fn", "float32"])
def test_what_does_not_collapse_is_left_alone(x, fmt):
    assert not measure(x, fmt).collapses


def test_merging_keeps_what_collapsed():
    whole = measure(STAMPS[:4000], "bfloat16") + measure(STAMPS[4000:], "bfloat16")
    assert whole.collapses
    assert whole == measure(STAMPS, "bfloat16")
