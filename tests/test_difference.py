"""Two arrays or models against each other: steps by a sorted table of values, figures by hand."""

import bisect
import dataclasses
import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest

import lowprec as lp
from lowprec.cli import main
from lowprec.tensors import convert, open_tensors, write_tensors
from lowprec.testing import assert_close

FORMATS = [
    *("float8_e4m3fn", "float8_e5m2", "float8_e3m4", "float6_e2m3fn", "float4_e2m1fn"),
    *("float8_e4m3fnuz", "float8_e8m0fnu", "float16", "bfloat16"),
    lp.Format("flat", exponent_bits=4, precision=4, subnormals=False),
]


def values_of(fmt):
    """Return the finite values of a format that are not negative, in order, as fractions."""
    fmt = lp.get_format(fmt)
    decoded = lp.decode(np.arange(1 << fmt.bits, dtype=fmt.code_dtype), fmt, dtype="float64")
    return sorted({Fraction(float(v)) for v in decoded if math.isfinite(v) and v >= 0})


def place(x, values):
    """Return the index of a number in the table, with its part of the way to the next value."""
    x = Fraction(float(x))
    if x < 0:
        return -place(-x, values)
    i = bisect.bisect_right(values, x) - 1
    if i + 1 == len(values):
        return i + (x - values[i]) / (values[i] - values[i - 1])
    return i + (x - values[i]) / (values[i + 1] - values[i])


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_the_distance_is_the_number_of_steps(fmt):
    values = values_of(fmt)
    rng = np.random.default_rng(0)
    exact = np.array([float(v) for v in values])
    x = rng.choice(exact, 60)
    y = rng.choice(exact, 60)
    if lp.get_format(fmt).signed:
        x, y = x * rng.choice([-1.0, 1.0], 60), y * rng.choice([-1.0, 1.0], 60)
    for a, b in zip(x, y, strict=True):
        expected = abs(place(a, values) - place(b, values))
        assert lp.diff([a], [b], fmt).max_ulps == expected


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_a_number_between_values_counts_by_its_place(fmt):
    values = values_of(fmt)
    for low, high in list(itertools.pairwise(values))[:300]:
        between = float((low + 3 * high) / 4)
        assert lp.diff([between], [float(low)], fmt).max_ulps == 0.75
        assert lp.diff([float(high)], [between], fmt).max_ulps == 0.25


@pytest.mark.parametrize("fmt", ["float8_e4m3fn", "float16", "bfloat16", "tfloat32"])
def test_one_rounding_to_nearest_is_at_most_half_a_step(fmt):
    x = np.random.default_rng(1).normal(size=4096).astype("f4")
    found = lp.diff(x, lp.round_to(x, fmt), fmt)
    assert 0.49 < found.max_ulps <= 0.5
    found = lp.diff(x, lp.round_to(x, fmt, rounding="to_odd"), fmt)
    assert 0.9 < found.max_ulps < 1


def test_steps_of_float32_and_float64_are_those_of_their_patterns():
    rng = np.random.default_rng(2)
    for dtype, bits in (("f4", "i4"), ("f8", "i8")):
        x = rng.normal(size=500).astype(dtype)
        y = (x.view(bits) + rng.integers(-1000, 1000, 500).astype(bits)).view(dtype)
        expected = np.abs(x.view(bits) - y.view(bits)).max()
        assert lp.diff(x, y).max_ulps == expected


def test_what_is_the_same_and_what_is_not():
    x = np.array([1.0, np.nan, 0.0, -np.inf, 5.0, np.nan, 3.0, np.inf])
    y = np.array([1.0, np.nan, -0.0, -np.inf, 5.0, 1.0, np.inf, -np.inf])
    found = lp.diff(x, y, "bfloat16")
    assert (found.count, found.equal, found.unbounded) == (8, 4, 3)
    assert found.max_ulps == found.max_abs == found.max_rel == math.inf
    assert found.first.index == (2,)
    assert math.copysign(1, found.first.y) == -1
    assert found.worst.index == (5,)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["max_ulps"] is None
    assert data["worst"]["x"] == "nan"


def test_a_zero_that_becomes_a_number_is_infinitely_far_by_its_ratio_alone():
    found = lp.diff([0.0, 1.0], [2.0**-133, 1.0], "bfloat16")
    assert (found.max_ulps, found.max_abs, found.max_rel) == (1, 2.0**-133, math.inf)


def test_errors_and_percentiles_are_numpys():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(7, 33))
    y = x * (1 + rng.choice([0, 1e-3, -2e-3], x.shape))
    found = lp.diff(x, y, "float16")
    distance = np.abs(y - x)
    assert found.max_abs == distance.max()
    assert found.max_rel == (distance / np.abs(x)).max()
    for share, value in found.percentiles["abs"].items():
        assert value == pytest.approx(np.percentile(distance, float(share)), rel=1e-12)
    for share, value in found.percentiles["rel"].items():
        assert value == pytest.approx(np.percentile(distance / np.abs(x), float(share)), rel=1e-12)


def test_percentiles_of_many_elements_are_good_to_a_tenth_of_a_percent():
    x = np.random.default_rng(4).normal(size=1_500_000).astype("f4")
    y = lp.round_to(x, "bfloat16")
    found = lp.diff(x, y)
    distance = np.abs(y.astype("f8") - x)
    for share, value in found.percentiles["abs"].items():
        assert value == pytest.approx(np.percentile(distance, float(share)), rel=1e-3)


def test_first_and_worst_are_by_index_and_name():
    x = np.zeros((3, 4))
    y = x.copy()
    y[1, 2], y[2, 1], y[2, 3] = 1, 3, 3
    found = lp.diff(x, y, "float32")
    assert found.first.index == (1, 2)
    assert (found.worst.index, found.worst.y) == ((2, 1), 3.0)
    named = lp.diff({"a": x, "b": x}, {"a": x, "b": y})
    assert (named.worst.name, named.first.name, named.count) == ("b", "b", 24)
    assert named.tensors["a"].worst is None


def test_missing_extra_and_shapes():
    found = lp.diff({"a": [1.0], "b": [1.0], "c": [1.0, 2.0]}, {"b": [1.0], "c": [1.0], "d": [2]})
    assert found.missing == ("a",)
    assert found.extra == ("d",)
    assert found.shapes == {"c": ((2,), (1,))}
    assert found.count == found.equal == 1
    assert not found.within(math.inf)
    alone = lp.diff(np.zeros(3), np.zeros((3, 1)))
    assert alone.count == 0
    assert alone.shapes == {"x": ((3,), (3, 1))}


def test_the_narrower_format_counts():
    x = np.float32([1.0, 1.0])
    y = np.float16([1.0, 1 + 2.0**-9])
    assert lp.diff(x, y).fmt == lp.float16
    assert lp.diff(x, y).max_ulps == 2
    assert lp.diff(lp.cast(x, "bfloat16"), y).fmt == lp.bfloat16


def test_integers_of_64_bits_are_compared_exactly():
    found = lp.diff(np.array([2**53 + 1, -7]), np.array([2**53, -7]))
    assert (found.equal, found.max_abs) == (1, 1)
    assert lp.diff(np.array([2**63 + 5], "u8"), np.array([2**63], "u8")).max_ulps == 5
    assert lp.diff(np.array([2**53 + 1]), np.array([2.0**53])).equal == 0
    assert lp.diff(np.array([-1]), np.array([2**64 - 1], "u8")).equal == 0


@pytest.mark.parametrize("fmt", ["mxfp8_e4m3:rceil", "nvfp4", "int4_g32", "fp8_128x128"])
def test_steps_of_block_formats_are_those_of_elements_times_scales(fmt):
    x = np.random.default_rng(5).normal(size=(40, 64)).astype("f4")
    assert 0.4 < lp.diff(x, lp.round_to(x, fmt), fmt).max_ulps <= 0.50001
    q = lp.quantize(x, fmt)
    codes = q.codes.copy()
    codes[7, 9] = codes[7, 9] - 1 if codes[7, 9] > 1 else codes[7, 9] + 1
    found = lp.diff(q.dequantize(), dataclasses.replace(q, codes=codes).dequantize(), fmt)
    assert found.worst.index == (7, 9)


def test_arrays_and_mappings_do_not_mix():
    with pytest.raises(TypeError, match="two arrays, or two mappings"):
        lp.diff({"a": [1]}, [1])


def test_blocks_of_files_give_what_arrays_give(tmp_path):
    x = np.random.default_rng(6).normal(size=(300, 1001)).astype("f4")
    y = lp.cast(x, "bfloat16")
    write_tensors(tmp_path / "a.npz", {"w": x})
    write_tensors(tmp_path / "b.safetensors", {"w": y})
    a, b = open_tensors(tmp_path / "a.npz"), open_tensors(tmp_path / "b.safetensors")
    assert (
        lp.diff(a, b).tensors["w"].to_dict() == lp.diff({"w": x}, {"w": y}).tensors["w"].to_dict()
    )


# The command -------------------------------------------------------------------------------------


@pytest.fixture
def models(tmp_path):
    rng = np.random.default_rng(7)
    tensors = {f"layers.{i}.w": rng.normal(size=(8, 16)).astype("f4") for i in range(3)}
    write_tensors(tmp_path / "a.safetensors", tensors | {"ids": np.arange(4)})
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "float8_e4m3fn")
    return str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")


def test_the_command_tells_and_exits_by_the_tolerance(models, capsys, tmp_path):
    assert main(["diff", *models]) == 0
    assert "one rounding to nearest" in " ".join(capsys.readouterr().out.split())
    assert main(["diff", *models, "--tolerance", "0.5"]) == 0
    assert main(["diff", *models, "--tolerance", "0.01"]) == 1
    assert "0.01 allowed" in capsys.readouterr().err
    page, figures = tmp_path / "d.html", tmp_path / "d.json"
    assert main(["diff", *models, "--json", str(figures), "--html", str(page)]) == 0
    data = json.loads(figures.read_text())
    assert data["count"] == 3 * 128 + 4
    assert set(data["tensors"]) == {"layers.0.w", "layers.1.w", "layers.2.w", "ids"}
    assert "layers.2.w" in page.read_text()
    assert main(["diff", *models, "--json", models[0]]) == 1
    assert "is a file that is read" in capsys.readouterr().err


def test_a_tolerance_asks_for_every_tensor(models, capsys, tmp_path):
    write_tensors(tmp_path / "c.safetensors", {"ids": np.arange(4)})
    other = str(tmp_path / "c.safetensors")
    assert main(["diff", models[0], other]) == 0
    assert main(["diff", models[0], other, "--tolerance", "inf"]) == 1
    assert "not every tensor was compared" in capsys.readouterr().err
    assert main(["diff", models[0], other, "--tolerance", "0", "--include", "ids"]) == 0
    assert main(["diff", models[0], other, "--include", "idz"]) == 1
    assert "did you mean 'ids'" in capsys.readouterr().err


def test_single_arrays_of_two_names_are_compared(tmp_path, capsys):
    np.save(tmp_path / "one.npy", np.float32([1, 2]))
    np.save(tmp_path / "two.npy", np.float32([1, 2]))
    paths = [str(tmp_path / "one.npy"), str(tmp_path / "two.npy")]
    assert main(["diff", *paths, "--tolerance", "0"]) == 0
    assert "all are the same" in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["60", "80"])
def test_no_line_is_longer_than_the_terminal(models, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["diff", *models]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= int(columns)


# The assertion -----------------------------------------------------------------------------------


def test_close_values_are_close():
    x = np.random.default_rng(8).normal(size=100)
    assert_close(lp.round_to(x, "bfloat16"), x, "bfloat16", ulps=0.5)
    assert_close([np.nan, np.inf, 0.0], [np.nan, np.inf, -0.0], "bfloat16", ulps=0)
    assert_close({"a": [1.0]}, {"a": [1.0]}, "float16", ulps=0)


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        (1 + 2.0**-7, "1 ulps of bfloat16, and 0.25 is allowed: one rounding"),
        (1 + 2.0**-8, "one rounding to nearest"),
        (1 + 2.0**-6, "two roundings"),
        (1 + 2.0**-5, "more than two roundings"),
        (np.inf, "NaN or infinite"),
    ],
)
def test_the_message_says_how_many_roundings(actual, words):
    with pytest.raises(AssertionError, match=r"at \[1\]") as caught:
        assert_close([2.0, actual], [2.0, 1.0], "bfloat16", ulps=0.25)
    assert words in str(caught.value)


def test_the_worst_elements_come_first():
    with pytest.raises(AssertionError) as caught:
        assert_close([1.0, 1.5, 2.0], [1.0, 1.25, 1.0], "float16", ulps=1)
    lines = str(caught.value).splitlines()
    assert lines[1].startswith("  at [2]: actual 2.0, expected 1.0")
    assert lines[2].startswith("  at [1]: actual 1.5, expected 1.25")


def test_other_names_and_shapes_are_not_close():
    with pytest.raises(AssertionError, match=r"shape \(2,\), and \(1,\) is expected"):
        assert_close([1.0, 2.0], [1.0], "float16")
    with pytest.raises(AssertionError, match="missing: b"):
        assert_close({"a": [1.0]}, {"a": [1.0], "b": [1.0]}, "float16")
    with pytest.raises(AssertionError, match="not expected: b"):
        assert_close({"a": [1.0], "b": [1.0]}, {"a": [1.0]}, "float16")


@pytest.mark.parametrize("ulps", [-1, np.nan])
def test_a_tolerance_is_a_number_from_0_on(ulps):
    with pytest.raises(ValueError, match="from 0 on"):
        assert_close([1.0], [1.0], "float16", ulps=ulps)
