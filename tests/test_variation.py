"""Values that become one another are not held, however small their relative errors."""

import numpy as np
import pytest

from lowprec import advise, compare, measure, round_to

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


EMBEDDING = np.random.default_rng(0).normal(0, 0.02, (1000, 64)).astype(np.float32)


def test_small_values_are_judged_beside_the_tensors_size():
    """Of N(0, 0.02²) float16 makes some subnormal, and keeps the rest eight times as finely."""
    advice = advise(EMBEDDING, ["bfloat16", "float16"])
    assert measure(EMBEDDING, "float16").max_relative_error > 0.01
    assert [str(fmt) for fmt in advice.holding] == ["bfloat16", "float16"]
    assert "beside the tensor's size of 0.02" in str(advice)
    assert advice.scales == {}


@pytest.mark.parametrize(
    "x",
    [
        [1e-9, 1.0],  # half of the values vanish
        np.r_[np.full(950, 1.0), np.full(50, 1e-9)],  # one in twenty
        np.r_[EMBEDDING.reshape(-1), 1e9],  # one overflows
        EMBEDDING * 1e-4,  # all are small
        np.r_[np.full(10_000, 1.3e-7), 1.0],  # small, but they are the tensor
    ],
    ids=["half", "many", "overflow", "all small", "few large"],
)
def test_what_is_lost_beside_no_size_is_not_held(x):
    assert advise(x, "float16").holding == ()


def test_a_format_is_judged_against_what_it_can_do():
    table = compare({"a": [1 / 3, 0.7], "b": [1e9, 1.0]}, ["float8_e5m2"])
    assert "float8_e5m2  holds 1 of 2: overflows in 1" in repr(table)
    assert table.to_dict()["a"]["float8_e5m2"]["verdict"] == "held"
    assert advise([1 / 3], "float8_e5m2", tolerance=0.01).holding == ()  # when it is asked for


def test_compare_prints_the_scale_and_the_cure():
    rows = {
        "small": np.float32([1e-9, 3e-9]),
        "wide": np.float32([1e-9, 1.0, 1e9]),
        "time": STAMPS,
        "fine": [1.0, 2.0],
    }
    words = " ".join(repr(compare(rows, ["bfloat16", "float16"])).split())
    assert "small: float16 loses 2 of 2 values to zero; multiply by 2¹², or take bfloat16" in words
    assert "no scale helps, as the values span 60 binades; take bfloat16" in words
    assert "subtract the mean, 1.70004e+09" in words
    assert not measure(rows["small"] * 2**12, "float16").lost


def test_advice_says_that_no_scale_helps():
    assert "no scale helps" in str(advise(STAMPS, "float16"))
    assert "no scale helps" in str(advise([1e-9, 65504.0], "float16"))


def test_columns_are_judged_one_by_one():
    columns = {"time": STAMPS, "small": np.full(100, 1e-9), "fine": np.ones(3)}
    found = advise(columns, "float16")
    assert list(found) == list(columns)
    assert {name: bool(one.holding) for name, one in found.items()} == {
        "time": False, "small": False, "fine": True,
    }  # fmt: skip
    assert "fine: float16 keeps every value exactly" in str(found)
    assert measure(columns, "bfloat16")["time"].collapses
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    frame = pandas.DataFrame({"a": [1.0, 1e9], "b": [1.0, 2.0]})
    assert advise(frame, "float16")["a"].scales == {"float16": 2.0**-14}
    assert measure(frame, "float16")["a"].overflows == 1


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_time_stamps_collapse_in_float32_too(is_shuffled):
    """Spacings of 128 seconds: a day of stamps ten seconds apart leaves 676 values of 8640."""
    stamps = 1.7e9 + 10.0 * np.arange(8640)
    if is_shuffled:
        stamps = np.random.default_rng(0).permutation(stamps)
    found = measure(stamps, "float32").variation
    assert (found.distinct, found.left) == (8640, np.unique(stamps.astype(np.float32)).size)
    exact = measure(stamps, "float64")
    assert not exact.collapses
    assert exact.variation[:2] == (8640, 8640)


def test_a_long_record_of_seconds_collapses_though_its_sample_is_spread():
    found = measure(1.7e9 + np.arange(500_000.0), "float32").variation
    assert found is not None
    assert 8 * found.left < found.distinct


def test_values_that_collapse_have_a_column_of_their_own():
    stamps = 1.7e9 + 10.0 * np.arange(8640)
    lines = str(compare(stamps, ["bfloat16", "float16"])).splitlines()
    assert "distinct" in lines[0]
    place = lines[0].index("distinct") + len("distinct")
    row = next(line for line in lines if line.startswith("  bfloat16"))
    assert row[:place].split()[-1] == "1"
    assert "distinct" not in str(compare(np.linspace(1, 2, 50), ["bfloat16"])).splitlines()[0]


@pytest.mark.parametrize("fmt", ["mxfp4", "nvfp4", "mxint8", "int8_channel", "fp8_128x128"])
def test_values_collapse_in_blocks_too(fmt):
    stamps = (1.7e9 + np.arange(8640) * 10.0).reshape(90, 96)
    found = measure(stamps, fmt).variation
    assert found.distinct == stamps.size
    assert found.left == np.unique(round_to(stamps, fmt)).size
    assert "distinct values" in str(advise(stamps, fmt))
    drawn = np.random.default_rng(0).standard_normal((90, 96))
    for sound in (drawn, np.ones((90, 96)), drawn[:0], drawn[:, :3]):
        assert not measure(sound, fmt).collapses


@pytest.mark.parametrize("rounding", ["ties_to_even", "toward_zero", "away_from_zero"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16, np.float16], ids=str)
@pytest.mark.parametrize("fmt", ["bfloat16", "float8_e4m3fn", "float4_e2m1fn", "float8_e8m0fnu"])
def test_distinct_values_mean_and_largest_error_are_always_counted(fmt, dtype, rounding):
    x = (np.random.default_rng(0).normal(0, 40, (37, 11)) * 10).astype(dtype)[:, ::2]
    given = x.astype(np.float64)
    wide = given[given >= 0] if fmt == "float8_e8m0fnu" else given.ravel()
    y = round_to(wide, fmt, rounding=rounding)
    found = measure(x, fmt, rounding=rounding).variation
    assert (found.distinct, found.left) == (np.unique(wide).size, np.unique(y).size)
    assert (found.mean, found.deviation) == pytest.approx((wide.mean(), wide.std()), rel=1e-12)
    finite = np.isfinite(y)
    assert found.max_error == np.abs(y - wide)[finite].max()
    told = compare({"x": x}, [fmt]).to_dict()["x"][fmt]["variation"]
    assert (told["distinct"], told["max_error"]) == (
        found.distinct, measure(x, fmt).variation.max_error,
    )  # fmt: skip


def test_what_is_counted_follows_no_later_change_of_the_array_and_merges():
    x = np.arange(1000.0)
    whole = measure(x, "float16")
    halves = measure(x[:500], "float16") + measure(x[500:], "float16")
    x[:] = 0
    assert whole.variation == halves.variation
    assert whole.variation[:3] == (1000, 1000, 499.5)
    assert measure([np.nan, np.inf], "float16").variation is None
    assert measure([1.0], "float16", rounding="stochastic", rng=0).variation is None


def test_of_a_large_array_a_sample_is_counted():
    found = measure(np.arange(1_000_000.0), "float16").variation
    assert found.distinct == 1 << 14
    assert found.mean == pytest.approx(499_999.5, rel=1e-3)


def test_chunks_of_dask_are_counted_together():
    dask = pytest.importorskip("dask.array", reason="needs dask")
    stamps = dask.from_array(STAMPS.astype(np.float64), chunks=3000)
    found = measure(stamps, "bfloat16").compute()
    assert found.collapses
    assert found.variation[:2] == (8640, 1)
