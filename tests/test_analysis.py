"""measure, compare and advise against their definitions, taken literally in exact fractions."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import tracemalloc
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import oracle
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from table import CUSTOM, POLICIES, coded_deterministic_modes, each, policies

import lowprec as lp
from lowprec import Format
from lowprec.analysis import compare, measure
from lowprec.analysis.advice import advise
from lowprec.analysis.counting import BLOCK

if TYPE_CHECKING:
    from lowprec.analysis.measurement import Measurement

FORMATS = [f for f in [*lp.named_formats().values(), *CUSTOM] if f.exponent_bits <= 9]
COUNTS = ("count", "zeros", "new_zeros", "subnormals", "overflows", "nans", "infs", "measured")


# The definitions -----------------------------------------------------------------------------


def define(x: Any, fmt: Format, rounding: str = "ties_to_even", overflow: str = "ieee") -> Any:
    """Return what DESIGN says of these numbers, one by one and exactly."""
    unbounded = without_end(fmt)
    found: dict[str, Any] = dict.fromkeys(COUNTS, 0)
    relative, ulps, signal, noise, exponents = [], [], [Fraction(0)], [Fraction(0)], {}
    magnitudes = []
    for number in x.ravel().tolist():
        found["count"] += 1
        if not math.isfinite(number):
            found["nans" if math.isnan(number) else "infs"] += 1
            continue
        y = oracle.round_exactly(number, fmt, rounding, overflow)
        magnitudes.append(abs(Fraction(number)))
        found["zeros"] += number == 0
        lost = not math.isfinite(y)
        lost |= not abs(oracle.round_exactly(number, unbounded, rounding)) <= fmt.max
        found["overflows"] += lost
        if number == 0:
            continue
        size = magnitudes[-1]
        exponent = floor_log2(size)
        exponents[exponent] = exponents.get(exponent, 0) + 1
        if lost:
            continue
        found["measured"] += 1
        found["new_zeros"] += y == 0
        found["subnormals"] += 0 < abs(y) < fmt.smallest_normal
        error = abs(Fraction(y) - Fraction(number))
        relative.append(error / size)
        ulps.append(error / spacing(exponent, fmt))
        signal.append(size**2)
        noise.append(error**2)
    nonzero = [size for size in magnitudes if size]
    found |= {
        "max_abs": float(max(magnitudes, default=0)),
        "min_abs": float(min(nonzero)) if nonzero else math.inf,
        "max_relative_error": max(relative, default=0),
        "max_ulp_error": max(ulps, default=0),
        "relative_error_sum": sum(relative),
        "signal": sum(signal),
        "noise": sum(noise),
        "exponent_histogram": exponents,
    }
    return found


def without_end(fmt: Format) -> Format:
    """Return a format that goes on where this one ends, with the same ties."""
    if fmt == lp.float8_e8m0fnu:  # whose ties are its own, whatever its bias
        return dataclasses.replace(fmt, bias=0)
    return dataclasses.replace(fmt, exponent_bits=fmt.exponent_bits + 1, signed=True, zero=None)


def floor_log2(size: Fraction) -> int:
    guess = size.numerator.bit_length() - size.denominator.bit_length()
    return guess if Fraction(2) ** guess <= size else guess - 1


def spacing(exponent: int, fmt: Format) -> Fraction:
    if exponent < fmt.emin and not fmt.subnormals:
        return Fraction(2) ** fmt.emin
    return Fraction(2) ** (max(exponent, fmt.emin) - fmt.trailing_bits)


def close(found: Any, expected: Any, tolerance: float = 1e-12) -> bool:
    return abs(Fraction(found) - Fraction(expected)) <= Fraction(tolerance) * abs(
        Fraction(expected)
    )


def assert_defined(measured: Measurement, expected: dict[str, Any]) -> None:
    for name in (*COUNTS, "max_abs", "min_abs", "exponent_histogram"):
        assert getattr(measured, name) == expected[name], name
    for name in ("max_relative_error", "max_ulp_error"):
        if expected[name] < 2**900:
            assert close(getattr(measured, name), expected[name], 1e-15), name
    if expected["max_relative_error"] < 2**900:
        assert close(measured.relative_error_sum, expected["relative_error_sum"])
    for name in ("signal", "noise"):
        assert close(getattr(measured, name), expected[name]), name


def edges(fmt: Format) -> np.ndarray[Any, Any]:
    """Return the places where a definition turns, and the doubles beside them."""
    last = math.ldexp(1.0, fmt.emax - fmt.trailing_bits)
    points = [fmt.max, fmt.max + last / 4, fmt.max + last / 2, fmt.max + last, 2 * fmt.max]
    points += [fmt.smallest_normal, fmt.smallest_normal - fmt.smallest_subnormal / 2, 1.0, 1 / 3]
    points += [k * fmt.smallest_subnormal / 4 for k in (1, 2, 3, 4, 6)]
    points += [5e-324, 1e-300, 1e300, 0.0, math.inf]
    sides = [p for x in points for p in (np.nextafter(x, 0), x, np.nextafter(x, math.inf))]
    return np.array([*sides, *np.negative(sides), math.nan])


# measure -------------------------------------------------------------------------------------


@each("rounding", coded_deterministic_modes)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_edges_are_measured_as_defined(fmt, rounding):
    x = edges(fmt)
    for overflow in policies(fmt):
        measured = measure(x, fmt, rounding=rounding, overflow=overflow)
        assert_defined(measured, define(x, fmt, rounding, overflow))


@given(
    hnp.arrays(np.float64, st.integers(0, 20), elements=st.floats(width=64)),
    st.sampled_from(FORMATS),
)
@example(np.array([5e-324, 1.7e308, -0.0, np.nan]), lp.float16)
def test_float64_is_measured_as_defined(x, fmt):
    assert_defined(measure(x, fmt), define(x, fmt))


@given(
    hnp.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32)),
    st.sampled_from(FORMATS),
)
def test_float32_is_measured_as_defined(x, fmt):
    assert_defined(measure(x, fmt), define(x, fmt))


@given(
    st.sampled_from([np.int8, np.uint8, np.int32, np.int64, np.uint64]).flatmap(
        lambda dtype: hnp.arrays(dtype, st.integers(0, 20))
    ),
    st.sampled_from([*FORMATS, Format("e7m8", 7, 9), Format("e7m52", 7, 53)]),
)
@example(np.array([2**53 + 1, 2**63 - 1, -(2**63), -1]), lp.bfloat16)
@example(np.array([2**64 - 2**54 - 1, 2**64 - 2**54], np.uint64), Format("e7m8", 7, 9))
@example(np.array([2**64 - 2**10 - 1, 2**64 - 2**10], np.uint64), Format("e7m52", 7, 53))
def test_integers_are_measured_from_their_exact_value(x, fmt):
    expected = define(x, fmt)
    assert_defined(measure(x, fmt), expected)


def test_a_block_format_leaves_later_measurements_as_they_were():
    x = edges(lp.float32)
    before = measure(x, "float32")
    measure(np.ones(64), "mxfp4")
    assert measure(x, "float32") == before
    assert before.subnormals > 0


def test_an_integer_beyond_float64_keeps_its_error():
    measured = measure(np.array([2**60 + 1]), lp.float64)
    assert measured.noise == 1
    assert measured.max_ulp_error == 2.0**-8


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, ml_dtypes.float8_e4m3fn, bool])
def test_narrow_dtypes_are_measured_as_the_numbers_they_are(dtype):
    x = np.array([0.0, 1.0, -2.5, 448.0, 0.015625]).astype(dtype)
    assert measure(x, "float8_e5m2") == measure(x.astype(np.float64), "float8_e5m2")


def test_a_value_that_merely_rounds_to_the_largest_is_no_overflow():
    for policy in POLICIES:
        measured = measure([65519.999], "float16", overflow=policy)
        assert (measured.overflows, measured.measured) == (0, 1)
        assert measure([65520.0], "float16", overflow=policy).overflows == 1
    assert measure([65535.0], "float16", rounding="toward_zero").overflows == 0
    assert measure([65536.0], "float16", rounding="toward_zero").overflows == 1
    assert measure([464.0, -464.0, 465.0], "float8_e4m3fn").overflows == 1


def test_nothing_to_measure_has_no_error():
    for x in ([], [0.0, -0.0], [np.nan, np.nan], [1e9], np.zeros((0, 3))):
        measured = measure(x, "float16")
        assert (measured.measured, measured.max_relative_error, measured.max_ulp_error) == (0, 0, 0)
        assert math.isnan(measured.mean_relative_error)
        assert math.isnan(measured.sqnr_db)
    empty = measure([], "float16")
    assert (empty.max_abs, empty.min_abs, empty.headroom_bits) == (0, math.inf, math.inf)
    assert empty.exponent_histogram == {}


def test_exact_values_have_no_noise():
    measured = measure([1.0, -0.5], "bfloat16")
    assert measured.sqnr_db == math.inf
    assert measured.mean_relative_error == 0


def test_nan_is_counted_where_the_format_has_none():
    measured = measure([np.nan, 1.0, np.inf, -np.nan], "float4_e2m1fn")
    assert (measured.nans, measured.infs, measured.measured, measured.lost) == (2, 1, 1, 3)


def test_negatives_are_lost_in_an_unsigned_format():
    assert measure([-1.0, 0.0, 2.0], "float8_e8m0fnu").overflows == 2
    finite = Format("unsigned", 4, 4, lp.Specials.FINITE, signed=False)
    assert measure([-1.0, 0.0, 2.0, np.nan], finite).overflows == 1


def test_headroom_is_signed():
    assert measure([65504.0 / 4], "float16").headroom_bits == 2
    assert measure([65504.0 * 2], "float16").headroom_bits == -1
    assert measure([5e-324], "bfloat16").headroom_bits == pytest.approx(1074 + 128, abs=0.1)


def test_squares_of_any_float64_are_counted():
    wide = Format("e11m4", 11, 5)
    for x in ([1e300, 3e299], [1e-300, 3.3e-301], [1.1e150, 1.1e-170, 1.1], [5e-324, 1.7e308]):
        measured, expected = measure(x, wide), define_wide(x, wide)
        assert close(measured.signal, expected[0])
        assert close(measured.noise, expected[1])
    for scale in (2.0**-1000, 2.0**-520, 2.0**990):
        scaled = measure([1.03 * scale, 1.7 * scale], wide)
        assert scaled.sqnr_db == pytest.approx(measure([1.03, 1.7], wide).sqnr_db, rel=1e-12)


def define_wide(x: list[float], fmt: Format) -> tuple[Fraction, Fraction]:
    pairs = [(Fraction(v), Fraction(oracle.round_exactly(v, fmt))) for v in x]
    return sum((a**2 for a, _ in pairs), Fraction(0)), sum(
        ((a - b) ** 2 for a, b in pairs), Fraction(0)
    )


def test_the_signal_to_noise_ratio_is_that_of_the_sums():
    x = np.random.default_rng(0).standard_normal(1000)
    y = x.astype(np.float16).astype(np.float64)
    expected = 10 * math.log10(np.sum(x**2) / np.sum((y - x) ** 2))
    measured = measure(x, "float16")
    assert measured.sqnr_db == pytest.approx(expected, rel=1e-12)
    assert measured.mean_relative_error == pytest.approx(
        np.mean(np.abs(y - x) / np.abs(x)), rel=1e-12
    )


def layouts(x: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    spaced = np.zeros((x.shape[0], 3 * x.shape[1]), x.dtype)[:, ::3]
    spaced[:] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    return {
        "transposed": np.asfortranarray(x),
        "strided": spaced,
        "reversed": x[::-1, ::-1][::-1, ::-1],
        "foreign bytes": x.astype(x.dtype.newbyteorder()),
        "read-only": read_only,
        "torch-like list": x,
    }


def test_layout_and_blocks_make_no_difference():
    x = np.random.default_rng(1).standard_normal((3, BLOCK // 2 + 7)).astype(np.float32)
    whole = measure(x, "float8_e4m3fn")
    for name, same in layouts(x).items():
        other = measure(same, "float8_e4m3fn")
        for field in (*COUNTS, "max_abs", "min_abs", "max_relative_error", "exponent_histogram"):
            assert getattr(other, field) == getattr(whole, field), (name, field)
        assert close(other.relative_error_sum, whole.relative_error_sum, 1e-15)


def test_no_temporary_grows_with_the_data():
    x = np.ones((1000, 2000), np.float32).T
    measure(x[:10], "float16")
    tracemalloc.start()
    measure(x, "float16")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6  # x has 8 MB


def test_stochastic_measurements_follow_the_generator():
    x = np.random.default_rng(2).standard_normal(40_000)
    first, again = (measure(x, "bfloat16", rounding="stochastic", rng=7) for _ in range(2))
    assert first == again
    assert first != measure(x, "bfloat16", rounding="stochastic", rng=8)
    assert 0.5 < first.max_ulp_error < 1


# Merging -------------------------------------------------------------------------------------


@given(
    hnp.arrays(np.float64, st.integers(0, 30), elements=st.floats(width=64)),
    st.integers(0, 30),
    st.integers(0, 30),
    st.sampled_from([lp.bfloat16, lp.float16, lp.float8_e4m3fn, lp.float8_e8m0fnu]),
)
def test_any_split_merges_to_the_whole(x, i, j, fmt):
    i, j = sorted((i, j))
    a, b, c = (measure(part, fmt) for part in (x[:i], x[i:j], x[j:]))
    whole = measure(x, fmt)
    for merged in ((a + b) + c, a + (b + c), c + a + b):
        for name in (*COUNTS, "max_abs", "min_abs", "max_relative_error", "max_ulp_error"):
            assert getattr(merged, name) == getattr(whole, name), name
        assert list(merged.exponent_histogram.items()) == list(whole.exponent_histogram.items())
        for name in ("relative_error_sum", "signal", "noise"):
            assert close(getattr(merged, name), getattr(whole, name)), name
    assert (a + b) + c == a + (b + c) == (c + b) + a


def test_means_keep_twelve_digits_over_many_parts():
    x = np.random.default_rng(3).lognormal(0, 8, 200_000)
    parts = [measure(part, "float16") for part in np.array_split(x, 500)]
    merged, whole = parts[0], measure(x, "float16")
    for part in parts[1:]:
        merged = merged.merge(part)
    kept = x[x < 65520]
    exact = math.fsum(np.abs(kept.astype(np.float16).astype(float) - kept) / kept) / kept.size
    for measured in (merged, whole):
        assert measured.mean_relative_error == pytest.approx(exact, rel=1e-12)
        assert measured.sqnr_db == pytest.approx(whole.sqnr_db, rel=1e-12)


def test_different_measurements_do_not_merge():
    one = measure([1.0], "float16")
    for other in (measure([1.0], "bfloat16"), measure([1.0], "float16", rounding="RZ")):
        with pytest.raises(ValueError, match="cannot merge a measurement of"):
            one.merge(other)
    with pytest.raises(TypeError):
        one + 1


def test_measurements_are_values():
    assert hash(measure([1.0], "float16")) == hash(measure([1.0], "float16"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        measure([1.0], "float16").count = 2


# compare -------------------------------------------------------------------------------------


def test_compare_measures_every_array_in_every_format():
    arrays = {"w <1>": np.array([0.1, 1e9]), "b": np.zeros(3)}
    table = compare(arrays, ["bfloat16", lp.float16])
    assert table.measurements["w <1>"]["float16"] == measure(arrays["w <1>"], "float16")
    assert list(table.measurements) == ["w <1>", "b"]
    data = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert data["w <1>"]["float16"]["overflows"] == 1
    assert data["b"]["bfloat16"]["sqnr_db"] is None


def test_compare_takes_one_array_and_one_format():
    assert compare([1.0, 2.0], "float16").measurements == {
        "x": {"float16": measure([1, 2.0], "float16")}
    }


def test_views_escape_names_and_show_losses():
    from rich.console import Console

    table = compare({"w <1> [red]": [0.1, 1e9]}, ["bfloat16", "float16"])
    for view in (table._repr_html_(), table.to_html()):
        assert "w &lt;1&gt; [red]" in view
        assert "<td class=loss>1</td>" in view
    assert table.to_html().startswith("<!doctype html>")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert "w <1> [red]" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_table_of_the_longest_names_fits_a_terminal_and_tells_its_units():
    pytest.importorskip("rich", reason="tables in a terminal need rich")
    from lowprec.show.text import as_text

    table = compare({"w": [0.1]}, lp.named_formats())
    names, units, *rows = as_text(table.__rich__(), width=80).splitlines()
    assert names.endswith("SQNR  headroom")
    assert units.split() == ["dB", "bits"]
    assert len(units) == len(names)
    assert len(rows) == 2 + len(lp.named_formats())  # none is broken


# advise --------------------------------------------------------------------------------------


def test_what_holds_holds():
    advice = advise([1 / 3, 2e-3], formats=["bfloat16", "float16", "float8_e5m2"])
    assert advice.holding == (lp.bfloat16, lp.float16)
    assert advice.formats[2].measured.max_relative_error > advice.tolerance


@given(
    hnp.arrays(
        np.float64,
        st.integers(1, 12),
        elements=st.floats(-1e30, 1e30).map(lambda v: v if abs(v) > 1e-200 else 0.0),
    ),
    st.sampled_from([lp.float16, lp.float8_e4m3fn, lp.float8_e5m2, lp.bfloat16]),
)
@example(np.array([119716.0, 625.0]), lp.float16)
@example(np.array([2e-11, 3e-3]), lp.float16)
def test_a_scale_does_what_the_advice_says(x, fmt):
    (advice,) = advise(x, formats=[fmt]).formats
    if advice.scale is None:
        return
    assert math.frexp(advice.scale)[0] == 0.5
    scaled = measure(x * advice.scale, fmt)
    told = advice.scaled
    for name in ("new_zeros", "overflows", "subnormals", "max_relative_error", "max_ulp_error"):
        assert getattr(told, name) == getattr(scaled, name), name
    assert (scaled.lost, scaled.max_relative_error) < (
        advice.measured.lost,
        advice.measured.max_relative_error,
    )


def test_a_scale_is_found_wherever_one_brings_all_into_the_normal_range():
    for exponent in (-40, -20, 0, 12, 30):
        x = np.array([1.0, 1.7, 2.0**20]) * 2.0**exponent
        (advice,) = advise(x, formats=["float16"]).formats
        assert advice.holds_scaled
        assert advice.holds == (advice.scale is None)


@pytest.mark.parametrize("bias", [-600, 600])
@pytest.mark.parametrize("x", [[5e-324, 1e-300], [1e-200], [1.0], [1e300]])
def test_a_scale_is_a_power_of_two_that_float64_holds(bias, x):
    fmt = Format("far", 4, 4, bias=bias)
    advice = advise(x, formats=[fmt]).formats[0]
    if advice.scale is not None:
        assert math.frexp(advice.scale)[0] == 0.5
        assert advice.scaled == measure(x, dataclasses.replace(fmt, bias=advice.scaled.fmt.bias))
        assert advice.scaled.fmt.bias - bias == math.log2(advice.scale)


@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float8_e5m2", "float32", "e8m0"])
@pytest.mark.parametrize(
    "x",
    [
        [1e-310],
        [5e-324, 3e-323],
        [1e-310, -7e-308, 2e-309],
        [1.7e308],
        [1.7e308, 1e307, -1.5e308],
        [2.0**-1022, 2.0**-1030],
    ],
)
def test_a_scale_is_found_for_numbers_that_only_float64_holds(x, fmt):
    x = np.array(x)
    x = np.abs(x) if fmt == "e8m0" else x
    advice = advise(x, [fmt], tolerance=0.5).formats[0]
    with np.errstate(all="ignore"):
        powers = [k for k in range(-1074, 1024) if (np.ldexp(np.ldexp(x, k), -k) == x).all()]
    best = min(powers, key=lambda k: (*_badness(np.ldexp(x, k), fmt), abs(k)))
    if advice.scale is None:
        assert _badness(x, fmt)[0] <= _badness(np.ldexp(x, best), fmt)[0]
        return
    told = _badness(np.ldexp(x, int(math.log2(advice.scale))), fmt)
    assert told[0] == _badness(np.ldexp(x, best), fmt)[0]
    assert told == (advice.scaled.lost, advice.scaled.max_relative_error)
    assert "multiplied by 2" in str(advice)


def _badness(x, fmt):
    measured = measure(x, fmt)
    return measured.lost, measured.max_relative_error


def test_a_tiny_number_has_a_scale_in_bfloat16():
    scale = advise([1e-310]).scales["bfloat16"]
    assert 2.0**903 <= scale <= 2.0**1023
    assert measure([1e-310 * scale], "bfloat16").lost == 0
    assert advise([1e-310], formats="bfloat16").formats[0].holds_scaled


def test_a_scale_of_a_dask_array_beyond_float64_is_that_of_the_array():
    dask_array = pytest.importorskip("dask.array")
    x = np.array([1e-310, -3e-309, 0.0, 2e-308])
    chunked = dask_array.from_array(x, chunks=2)
    assert advise(chunked).scales == advise(x).scales


@pytest.mark.parametrize("fmt", ["float16", lp.float16, np.float16, np.dtype("float16"), "torch"])
def test_one_format_stands_for_itself_where_several_may_be_asked_for(fmt):
    if fmt == "torch":
        fmt = pytest.importorskip("torch", reason="torch is not installed").float16
    assert list(compare([1.0], fmt).measurements["x"]) == ["float16"]
    assert [advice.fmt for advice in advise([1.0], formats=fmt).formats] == [lp.float16]


def test_advice_speaks():
    advice = advise(np.array([119716.0, 625.0]), formats=["bfloat16", "float16"])
    words = str(advice)
    assert "bfloat16 keeps every value within" in words
    assert "float16 loses 1 of 2 values to overflow: it ends at 65,504, they at 119,716" in words
    assert "multiplied by 2⁻¹ it keeps" in words
    assert advice.scales == {"float16": 0.5}
    assert json.loads(json.dumps(advice.to_dict()))["formats"]["float16"]["holds"] is False


def test_advice_needs_a_tolerance():
    with pytest.raises(ValueError, match="use a positive one"):
        advise([1.0], tolerance=0)


def test_a_stochastic_measurement_is_that_of_round_to():
    x = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    rounded = lp.round_to(x, "bfloat16", rounding="stochastic", rng=3).astype(np.float64)
    measured = lp.measure(x, "bfloat16", rounding="stochastic", rng=3)
    exact = x.astype(np.float64)
    expected = np.mean(np.abs((rounded - exact) / exact))
    assert measured.mean_relative_error == pytest.approx(expected, rel=1e-12)


def test_formats_of_one_name_are_not_compared():
    with pytest.raises(ValueError, match="two formats are called 'a'"):
        lp.compare([1.0], [lp.Format("a", 6, 9), lp.Format("a", 6, 8)])


def test_tables_and_advice_read_well_at_a_prompt():
    assert "bfloat16" in repr(lp.compare([0.1], "bfloat16"))
    assert repr(lp.advise([0.25], formats="float16")) == "float16 keeps every value exactly"
