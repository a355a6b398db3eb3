"""One rounding from any source: integers of 64 bits, bool, float16, bfloat16, fp8."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import oracle
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from table import (
    DETERMINISTIC,
    FLOAT32,
    FLOAT64,
    FORMATS,
    RARE,
    SOME,
    STOCHASTIC,
    admissible,
    assert_same,
    name,
)

import lowprec as lp

INTEGERS = [np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
NARROW = [
    np.dtype(getattr(ml_dtypes, n, None) or getattr(np, n))
    for n in (fmt.name for fmt in lp.named_formats().values())
    if hasattr(ml_dtypes, n) or n == "float16"
]
# integers with a sign into an unsigned FINITE format are errors
TARGETS = [fmt for fmt in FORMATS if fmt.has_nan or fmt.signed]
ONE_OF_A_KIND = [
    lp.bfloat16,
    lp.float16,
    lp.float32,
    lp.float64,
    lp.float8_e4m3fn,
    lp.float8_e4m3fnuz,
    lp.float8_e8m0fnu,
    lp.float4_e2m1fn,
    *(fmt for fmt in FORMATS if fmt.name in ("bfloat16_no_subnormals", "unsigned_e4m4fn")),
]

ANY = [lp.bfloat16, lp.float16, lp.float32, lp.float64]

every_mode = pytest.mark.parametrize("rounding", DETERMINISTIC)
bits64 = st.integers(0, 2**64 - 1) | st.integers(0, 63).map(lambda k: (1 << k) - 1)


def integers(dtype, fmt):
    """Return integers of a dtype: its ends, random ones, and those around turns of the format."""
    info = np.iinfo(dtype)
    rng = np.random.default_rng(info.bits)
    drawn = rng.integers(info.min, info.max, 60, dtype, endpoint=True)
    shifted = drawn >> rng.integers(0, info.bits, 60).astype(dtype)
    near = []
    for value in np.concatenate([drawn[:8], shifted[:20]]):
        turn = int(_turn_near(abs(int(value)), fmt))
        near += [s * (turn + d) for d in (-1, 0, 1) for s in (1, -1)]
    near = [n for n in near if info.min <= n <= info.max]
    ends = [info.min, info.min + 1, 0, 1, info.max - 1, info.max]
    x = np.concatenate([drawn, shifted, np.array(near + ends, dtype)])
    return x if fmt.has_nan or fmt.has_zero else x[x != 0]


def _turn_near(n, fmt):
    """Return the midpoint of the format's binade that starts the interval with n, as a fraction."""
    below, above, _ = oracle.neighbours(Fraction(max(n, 1)), fmt)
    return (below + above) / 2


@pytest.mark.parametrize("fmt", TARGETS, ids=name)
def test_integers_of_every_width_are_rounded_once(fmt):
    for dtype in INTEGERS:
        x = integers(dtype, fmt)
        y = lp.round_to(x, fmt)
        assert y.dtype == FLOAT64
        assert_same(y, [oracle.round_exactly(int(v), fmt) for v in x], x)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize(
    ("fmt", "rounding"),
    [(f, m) for f in ONE_OF_A_KIND for m in DETERMINISTIC if f not in RARE or m in SOME],
    ids=name,
)
def test_64_bit_integers_are_rounded_once_in_every_mode(fmt, dtype, rounding):
    x = integers(dtype, fmt)
    exact = [oracle.round_exactly(int(v), fmt, rounding) for v in x]
    assert_same(lp.round_to(x, fmt, rounding=rounding), exact, x)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("fmt", ONE_OF_A_KIND, ids=name)
def test_64_bit_integers_are_encoded_once(fmt, dtype):
    for rounding in ("ties_to_even", "toward_negative"):
        x = integers(dtype, fmt)
        exact = [oracle.round_exactly(int(v), fmt, rounding) for v in x]
        codes = lp.encode(x, fmt, rounding=rounding)
        assert_same(lp.decode(codes, fmt, dtype=np.float64), exact, x)


@given(bits=bits64, rounding=st.sampled_from(DETERMINISTIC), fmt=st.sampled_from(ANY))
@example(bits=16973823, rounding="ties_to_even", fmt=lp.bfloat16)
@example(bits=2**63, rounding="ties_to_even", fmt=lp.float64)  # the most negative int64
@example(bits=2**53 + 1, rounding="ties_to_even", fmt=lp.float64)
@example(bits=2**64 - 1, rounding="toward_zero", fmt=lp.float32)
def test_any_64_bit_integer_is_rounded_once(bits, rounding, fmt):
    unsigned = np.array([bits], np.uint64)
    for x in (unsigned, unsigned.view(np.int64)):
        exact = oracle.round_exactly(int(x[0]), fmt, rounding)
        assert_same(lp.round_to(x, fmt, rounding=rounding), [exact], x)


def test_int64_near_a_bfloat16_tie():
    x = np.array([16973823, -16973823])
    assert lp.round_to(x, "bfloat16").tolist() == [16908288, -16908288]
    assert lp.round_to(x.astype(np.uint64), "bfloat16")[0] == 16908288


@pytest.mark.parametrize("fmt", [lp.bfloat16, lp.float8_e4m3fn, lp.float64], ids=name)
def test_bool_is_0_and_1(fmt):
    y = lp.round_to(np.array([True, False]), fmt)
    assert y.dtype == FLOAT64
    assert y.tolist() == [1.0, 0.0]


def every_value(dtype):
    """Return every number of a narrow dtype, NaN included."""
    bits = lp.get_format(dtype).bits
    return np.arange(2**bits).astype(f"uint{8 * dtype.itemsize}").view(dtype)


@every_mode
@pytest.mark.parametrize("dtype", NARROW, ids=name)
def test_narrow_floats_are_rounded_once_from_every_value(dtype, rounding):
    x = every_value(dtype)
    with np.errstate(invalid="ignore"):
        exact = x.astype(np.float64)
    for fmt in (lp.bfloat16, lp.float16, lp.float8_e4m3fn, lp.float6_e2m3fn, lp.get_format("e6m9")):
        keep = ~np.isnan(exact) | fmt.has_nan
        y = lp.round_to(x[keep], fmt, rounding=rounding)
        assert y.dtype == FLOAT32
        assert_same(y, oracle.round_to(exact[keep], fmt, rounding), exact[keep])


@pytest.mark.parametrize("dtype", NARROW, ids=name)
def test_narrow_floats_are_what_they_are_as_float32(dtype):
    x = every_value(dtype)
    assert lp.round_to(x, "float32").dtype == FLOAT32
    with np.errstate(invalid="ignore"):
        assert_same(lp.round_to(x, "float32"), x.astype(np.float32))


def test_float16_max_goes_to_a_bfloat16_that_float16_could_not_hold():
    y = lp.round_to(np.float16(65504), "bfloat16")
    assert y == 65536
    assert y.dtype == FLOAT32


def test_float64_never_passes_through_float32():
    x = 1 + 2**-8 + 2**-40
    assert lp.round_to(x, "bfloat16") == 1.0078125
    assert lp.cast(x, "bfloat16") == 1.0078125
    assert lp.encode(x, "bfloat16") == 0x3F81


@pytest.mark.parametrize("rounding", STOCHASTIC)
@pytest.mark.parametrize("fmt", [lp.bfloat16, lp.float16, lp.float8_e5m2], ids=name)
def test_stochastic_integers_are_rounded_as_their_float64(fmt, rounding):
    x = np.random.default_rng(0).integers(-(2**53), 2**53, 4000)
    how = {"rounding": rounding, "rng": 9, "random_bits": 32}
    assert_same(lp.round_to(x, fmt, **how), lp.round_to(x.astype(np.float64), fmt, **how), x)


def test_float64_and_float32_give_the_same_values():
    for fmt in (lp.bfloat16, lp.float16, lp.float8_e3m4):
        x = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
        x = admissible(x * np.float32(2) ** np.arange(-20, 20).repeat(125), fmt)
        assert_same(lp.round_to(x, fmt), lp.round_to(x.astype(np.float64), fmt), x)
