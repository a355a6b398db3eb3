"""Laws of `round_to`, `encode` and `decode`: one table of formats, one list of laws."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import oracle
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from table import (
    CODED,
    DETERMINISTIC,
    FLOAT32,
    FLOAT64,
    FORMATS,
    LISTED,
    MODES,
    PAIRS,
    SOME,
    STOCHASTIC,
    WIDE,
    assert_same,
    coded_deterministic_modes,
    coded_modes,
    each,
    name,
    points,
    policies,
    same,
    sources,
)

import lowprec as lp
from lowprec import Specials
from lowprec.kernels.scalar import scalar_rounder

ODD_MODES = [mode for mode in DETERMINISTIC if mode not in ("toward_positive", "toward_negative")]

every_format = pytest.mark.parametrize("fmt", FORMATS, ids=name)
every_pair = pytest.mark.parametrize(("fmt", "dtype"), PAIRS, ids=name)
every_mode = each("rounding", MODES)
every_deterministic_mode = each("rounding", DETERMINISTIC)


def some_codes(fmt):
    """Return every code of a format of up to 16 bits, else some of each kind."""
    if fmt.bits <= 16:
        return np.arange(2**fmt.bits).astype(fmt.code_dtype)
    rng = np.random.default_rng(1)
    ends = [0, 1, fmt.max_code, 2**fmt.trailing_bits, 2**fmt.trailing_bits - 1]
    ends = np.array([e + s for e in ends for s in (0, fmt.sign_mask)], np.uint64)
    drawn = rng.integers(0, 2**fmt.bits, 5000, np.uint64, endpoint=False)
    return np.concatenate([ends, drawn]).astype(fmt.code_dtype)


def widest(fmt):
    """Return the source dtype that holds every value of the format."""
    return sources(fmt)[-1]


# One rounding --------------------------------------------------------------------------------


@every_deterministic_mode
@pytest.mark.parametrize(("fmt", "dtype"), [(f, d) for f, d in PAIRS if f in LISTED], ids=name)
def test_round_to_is_the_neighbour_that_the_mode_picks(fmt, dtype, rounding):
    x = points(fmt, dtype)
    found = oracle.Found(x, fmt)
    for overflow in policies(fmt):
        y = lp.round_to(x, fmt, rounding=rounding, overflow=overflow)
        assert y.dtype == dtype
        assert_same(y, found.pick(rounding, overflow), x)


@every_deterministic_mode
@pytest.mark.parametrize(("fmt", "dtype"), [(f, d) for f, d in PAIRS if f in WIDE], ids=name)
def test_wide_formats_round_to_the_exact_neighbour(fmt, dtype, rounding):
    x = points(fmt, dtype)[::19]
    for overflow in policies(fmt):
        y = lp.round_to(x, fmt, rounding=rounding, overflow=overflow)
        exact = [oracle.round_exactly(float(v), fmt, rounding, overflow) for v in x]
        assert_same(y, exact, x)


@every_deterministic_mode
@pytest.mark.parametrize("fmt", WIDE, ids=name)
@given(code=st.floats(0, 1), offset=st.sampled_from([-1, 0, 1]), half=st.booleans())
@example(code=0.0, offset=0, half=True)
@example(code=1.0, offset=0, half=True)
@example(code=1.0, offset=1, half=True)
def test_wide_formats_turn_at_their_midpoints(fmt, rounding, code, offset, half):
    below, above = (oracle.magnitude(int(code * fmt.max_code) + i, fmt) for i in (0, 1))
    turn = (below + above) / 2 if half else below
    x = float(min(turn, Fraction(np.finfo(float).max)))
    for _ in range(abs(offset)):
        x = math.nextafter(x, offset * math.inf)
    for signed in (x, -x):
        y = lp.round_to(np.float64(signed), fmt, rounding=rounding)
        assert_same(y, oracle.round_exactly(signed, fmt, rounding))


@every_mode
@every_pair
def test_results_are_values_of_the_format(fmt, dtype, rounding):
    y = lp.round_to(points(fmt, dtype), fmt, rounding=rounding, rng=0)
    finite = np.abs(y[np.isfinite(y)].astype(np.float64))
    assert (finite <= fmt.max).all()
    assert fmt.has_infinity or not np.isinf(y).any()
    assert fmt.has_nan or not np.isnan(y).any()
    if fmt in LISTED:
        assert np.isin(finite, oracle.table(fmt).values).all()
    else:
        assert all(oracle.round_exactly(float(v), fmt) == v for v in finite[::20])


@every_mode
@every_pair
def test_values_are_fixed(fmt, dtype, rounding):
    values = lp.decode(some_codes(fmt), fmt, dtype=dtype)
    values = values[~np.isnan(values)]
    for overflow in policies(fmt)[:2]:
        y = lp.round_to(values, fmt, rounding=rounding, overflow=overflow, rng=0)
        assert_same(y, values, values)


@every_deterministic_mode
@every_pair
def test_rounding_is_monotone(fmt, dtype, rounding):
    y = lp.round_to(points(fmt, dtype), fmt, rounding=rounding)
    numbers = np.flatnonzero(~np.isnan(y))
    inside = y[numbers[0] : numbers[-1] + 1]
    is_scale = not fmt.has_zero  # its zeros are NaN, between NaN and numbers
    assert is_scale or not np.isnan(inside).any()
    inside = inside[~np.isnan(inside)]
    assert (inside[1:] >= inside[:-1]).all()


@each("rounding", ODD_MODES)
@pytest.mark.parametrize(("fmt", "dtype"), [(f, d) for f, d in PAIRS if f.signed], ids=name)
def test_rounding_is_odd(fmt, dtype, rounding):
    x = points(fmt, dtype)
    y, mirrored = (lp.round_to(v, fmt, rounding=rounding) for v in (x, -x))
    assert (same(mirrored, -y) | ((y == 0) & (not fmt.has_negative_zero))).all()


@pytest.mark.parametrize(("fmt", "dtype"), [(f, d) for f, d in PAIRS if f.signed], ids=name)
def test_toward_negative_mirrors_toward_positive(fmt, dtype):
    x = points(fmt, dtype)
    for overflow in policies(fmt):
        up = lp.round_to(-x, fmt, rounding="toward_positive", overflow=overflow)
        down = lp.round_to(x, fmt, rounding="toward_negative", overflow=overflow)
        assert (same(down, -up) | ((down == 0) & (not fmt.has_negative_zero))).all()


@every_format
def test_directed_modes_enclose(fmt):
    x = points(fmt, widest(fmt))
    x = x[np.abs(x) <= fmt.max]
    x = x if fmt.has_zero else x[x >= fmt.smallest_subnormal]
    x = x if fmt.signed else x[x >= 0]
    down, up, inward, outward = (
        lp.round_to(x, fmt, rounding=mode)
        for mode in ("toward_negative", "toward_positive", "toward_zero", "away_from_zero")
    )
    assert (down <= x).all()
    assert (up >= x).all()
    assert (np.abs(inward) <= np.abs(x)).all()
    assert (np.abs(outward) >= np.abs(x)).all()
    nearest = lp.round_to(x, fmt)
    assert ((nearest == down) | (nearest == up)).all()
    assert (np.abs(nearest - x) <= np.minimum(x - down, up - x)).all()


# Codes ---------------------------------------------------------------------------------------


@each("rounding", coded_modes)
@every_format
def test_decode_inverts_encode(fmt, rounding):
    for dtype in sources(fmt):
        x = points(fmt, dtype)
        for overflow in policies(fmt):
            how = {"rounding": rounding, "overflow": overflow, "rng": 3}
            codes = lp.encode(x, fmt, **how)
            assert codes.dtype == fmt.code_dtype
            assert_same(lp.decode(codes, fmt, dtype=dtype), lp.round_to(x, fmt, **how), x)


@each("rounding", coded_deterministic_modes)
@pytest.mark.parametrize("fmt", LISTED, ids=name)
def test_codes_are_the_oracles(fmt, rounding):
    x = points(fmt, FLOAT64)  # encode has no limit on its source
    found = oracle.Found(x, fmt)
    for overflow in policies(fmt):
        codes = lp.encode(x, fmt, rounding=rounding, overflow=overflow)
        expected = oracle.encode(found.pick(rounding, overflow), fmt)
        np.testing.assert_array_equal(codes, expected)


@every_format
def test_every_code_but_nan_round_trips(fmt):
    codes = some_codes(fmt)
    values = lp.decode(codes, fmt)
    if not fmt.subnormals and fmt.has_zero:
        field = codes & fmt.code_dtype.type(fmt.sign_mask - 1 if fmt.signed else 2**fmt.bits - 1)
        codes = codes[(field == 0) | (field >= 2**fmt.trailing_bits)]
        values = lp.decode(codes, fmt)
    numbers = ~np.isnan(values)
    assert numbers.any()
    np.testing.assert_array_equal(lp.encode(values[numbers], fmt), codes[numbers])


@pytest.mark.parametrize("fmt", LISTED, ids=name)
def test_codes_decode_to_the_table(fmt):
    codes = np.arange(oracle.finite_codes(fmt)).astype(fmt.code_dtype)
    expected = np.array([float(oracle.magnitude(int(code), fmt)) for code in codes])
    assert_same(lp.decode(codes, fmt), expected, codes)
    if fmt.signed:
        negative = lp.decode(codes | fmt.code_dtype.type(fmt.sign_mask), fmt)
        numbers = ~np.isnan(negative)  # -0 is NaN in FNUZ
        mirrored = -expected if fmt.has_negative_zero else 0 - expected
        assert_same(negative[numbers], mirrored[numbers], codes[numbers])
        assert numbers.all() or not fmt.has_negative_zero


@every_format
def test_codes_beyond_the_finite_ones_are_specials(fmt):
    top = 2 ** (fmt.exponent_bits + fmt.trailing_bits)
    beyond = np.arange(oracle.finite_codes(fmt), min(top, oracle.finite_codes(fmt) + 1000))
    values = lp.decode(beyond.astype(fmt.code_dtype), fmt)
    assert np.isnan(values[fmt.has_infinity * 1 :]).all()
    assert not fmt.has_infinity or values[0] == math.inf


@every_format
def test_decode_gives_float32_where_it_holds_every_value(fmt):
    expected = FLOAT32 if FLOAT32 in sources(fmt) else FLOAT64
    assert lp.decode(some_codes(fmt)[:4], fmt).dtype == expected
    assert lp.decode(some_codes(fmt)[:4], fmt, dtype=np.float64).dtype == FLOAT64


@each("rounding", coded_modes)
@pytest.mark.parametrize("fmt", [f for f in FORMATS if f.dtype], ids=name)
def test_cast_is_encode_seen_as_the_dtype(fmt, rounding):
    x = points(fmt, FLOAT64)
    y = lp.cast(x, fmt, rounding=rounding, rng=5)
    assert y.dtype == fmt.dtype
    codes = lp.encode(x, fmt, rounding=rounding, rng=5)
    np.testing.assert_array_equal(y.view(fmt.code_dtype), codes)


# Specials ------------------------------------------------------------------------------------


@each("rounding", coded_modes)
@pytest.mark.parametrize("fmt", [f for f in FORMATS if f.has_nan], ids=name)
def test_nan_becomes_the_canonical_quiet_nan(fmt, rounding):
    patterns = np.array([0x7FF0000000000001, 0x7FF8000000000000, 0x7FFFFFFFFFFFFFFF], np.uint64)
    for sign in (0, 1):
        x = (patterns | np.uint64(sign << 63)).view(np.float64)
        codes = lp.encode(x, fmt, rounding=rounding, rng=0)
        has_sign = fmt.has_negative_zero
        expected = fmt.nan_code | (fmt.sign_mask if sign and has_sign else 0)
        assert codes.tolist() == [expected] * 3
        y = lp.round_to(x, fmt, rounding=rounding, rng=0)
        assert np.isnan(y).all()
        if has_sign:
            assert (y.view(np.uint64) == 0x7FF8000000000000 | sign << 63).all()


@every_mode
@every_format
def test_nan_is_never_hidden(fmt, rounding):
    x = np.array([1.0, 2.0, np.nan, 1.0, -np.nan])
    for overflow in policies(fmt):
        if fmt.has_nan:
            y = lp.round_to(x, fmt, rounding=rounding, overflow=overflow, rng=0)
            assert np.isnan(y[[2, 4]]).all()
            continue
        assert_nan_is_refused(x, fmt, rounding, overflow)


def assert_nan_is_refused(x, fmt, rounding, overflow):
    for verb in (lp.round_to, lp.encode)[: 1 + ((fmt, rounding) in CODED)]:
        out = np.full(5, 7, FLOAT64 if verb is lp.round_to else fmt.code_dtype)
        with pytest.raises(ValueError, match=r"\b2\b") as error:
            verb(x, fmt, rounding=rounding, overflow=overflow, rng=0, out=out)
        assert "NaN" in str(error.value)
        assert (out == 7).all(), "raised before anything is written"


def test_nan_into_a_format_without_counts_and_locates():
    x = np.zeros((300, 500), np.float32)
    x[100, 7] = x[200, 3] = x[299, 499] = np.nan
    with pytest.raises(ValueError, match=r"\b3\b.*\b100, 7\b"):
        lp.round_to(x, "float4_e2m1fn")
    with pytest.raises(ValueError, match=r"\b3\b"):
        lp.round_to(x.T, "float4_e2m1fn", out=x.T)
    assert np.isnan(x).sum() == 3


@every_mode
@pytest.mark.parametrize("fmt", [f for f in FORMATS if f.has_zero], ids=name)
def test_zero_keeps_its_sign_where_the_format_has_one(fmt, rounding):
    y = lp.round_to(np.array([0.0, -0.0]), fmt, rounding=rounding, rng=0)
    assert (y == 0).all()
    assert np.signbit(y).tolist() == [False, fmt.has_negative_zero]
    tiny = np.array([-fmt.smallest_subnormal / 4, fmt.smallest_subnormal / 4])
    if fmt.signed and fmt.smallest_subnormal > 1e-300:
        y = lp.round_to(tiny, fmt, rounding="toward_zero")
        assert np.signbit(y).tolist() == [fmt.has_negative_zero, False]


@every_mode
@pytest.mark.parametrize("fmt", [f for f in FORMATS if not f.signed], ids=name)
def test_negatives_become_nan_in_an_unsigned_format(fmt, rounding):
    x = np.array([-1.0, -np.inf, -1e-30])
    if not fmt.has_nan:
        with pytest.raises(ValueError, match="3"):
            lp.round_to(x, fmt, rounding=rounding, rng=0)
        return
    for overflow in policies(fmt):
        y = lp.round_to(x, fmt, rounding=rounding, overflow=overflow, rng=0)
        assert np.isnan(y).all()


@pytest.mark.parametrize("rounding", SOME)
def test_scale_has_neither_sign_nor_zero(rounding):
    fmt = lp.float8_e8m0fnu
    zeros = lp.encode([0.0, -0.0, -1.0, -1e-45], fmt, rounding=rounding, rng=0)
    assert zeros.tolist() == [0xFF] * 4
    tiny = lp.encode([1e-45, 5e-324, 2.0**-128], fmt, rounding=rounding, rng=0)
    assert tiny.tolist() == [0] * 3, "tiny positives become the smallest value"


def test_scale_ties_go_to_the_larger_power_of_two():
    x = [1.5, 3.0, 6.0, 1.5 * 2.0**-127, 1.5 * 2.0**126]
    assert lp.round_to(x, "float8_e8m0fnu").tolist() == [2, 4, 8, 2.0**-126, 2.0**127]
    assert lp.round_to(1.4999, "float8_e8m0fnu") == 1
    assert np.isnan(lp.round_to(1.5 * 2.0**127, "float8_e8m0fnu"))


def test_precision_one_ties_go_to_the_even_exponent_field():
    fmt = lp.Format("b8p1sf", 7, 1, specials=Specials.FNUZ, bias=64)
    x = [1.5, 3.0, 6.0, -1.5, 1.5 * fmt.smallest_normal, fmt.smallest_normal / 2, 0.0]
    least = fmt.smallest_normal  # field 1, odd
    for source in (np.float32, np.float64):
        y = lp.round_to(np.array(x, source), fmt).tolist()
        assert y == [1, 4, 4, -1, 2 * least, 0, 0]
        y = lp.round_to(np.array(x, source), fmt, rounding="to_odd").tolist()
        assert y == [2, 2, 8, -2, least, least, 0]
    assert lp.round_to(np.array([3, 6, 12]), fmt).tolist() == [4, 4, 16]


@pytest.mark.parametrize("fmt", [f for f in FORMATS if f.has_zero and not f.subnormals], ids=name)
def test_without_subnormals_zero_is_even_and_smallest_normal_odd(fmt):
    least = fmt.smallest_normal
    assert fmt.smallest_subnormal == least
    half, eps = least / 2, least * 2.0**-40
    x = np.array([eps, half - eps, half, half + eps, least - eps, least])

    def gives_least(rounding):
        y = lp.round_to(x, fmt, rounding=rounding)
        assert np.isin(y, [0, least]).all()
        return (y == least).tolist()

    assert gives_least("ties_to_even") == [0, 0, 0, 1, 1, 1]
    assert gives_least("ties_to_away") == [0, 0, 1, 1, 1, 1]
    assert gives_least("ties_toward_zero") == [0, 0, 0, 1, 1, 1]
    assert gives_least("toward_zero") == [0, 0, 0, 0, 0, 1]
    assert gives_least("to_odd") == [1, 1, 1, 1, 1, 1]
    field = np.arange(2 ** min(fmt.trailing_bits, 10)).astype(fmt.code_dtype)
    assert (lp.decode(field, fmt) == 0).all(), "codes with exponent 0 decode to zero"


# Overflow ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_e4m3fn_overflows_beyond_the_midpoint_to_480(dtype):
    x = np.array([448, 464, 465, 479, 480, -464, -465, 1e30], dtype)
    nan = np.nan
    for overflow, expected in {
        "ieee": [448, 448, nan, nan, nan, -448, nan, nan],
        "infinite": [448, 448, nan, nan, nan, -448, nan, nan],
        "saturate": [448, 448, 448, 448, 448, -448, -448, 448],
        "saturate_finite": [448, 448, 448, 448, 448, -448, -448, 448],
    }.items():
        assert_same(lp.round_to(x, "float8_e4m3fn", overflow=overflow), expected, x)


def test_float16_overflows_from_65520():
    x = [65519.99, 65520, -65520, 70000]
    assert_same(lp.round_to(x, "float16"), [65504, np.inf, -np.inf, np.inf])
    assert_same(lp.round_to(x, "float16", rounding="ties_toward_zero")[:2], [65504, 65504])
    assert_same(lp.round_to(x, "float16", overflow="saturate"), [65504, 65504, -65504, 65504])


@every_format
def test_modes_away_from_the_overflow_give_max(fmt):
    x = np.finfo(np.float64).max  # every format's own, or beyond
    for overflow in policies(fmt):
        is_beyond = overflow == "infinite" and fmt.emax < 1023  # else x lies below the next value
        beyond = np.inf if fmt.has_infinity else np.nan
        top = beyond if is_beyond else fmt.max
        for rounding in ("toward_zero", "to_odd", "toward_negative"):
            assert_same(lp.round_to(x, fmt, rounding=rounding, overflow=overflow), top)
        if fmt.signed:
            for rounding in ("toward_zero", "to_odd", "toward_positive"):
                assert_same(lp.round_to(-x, fmt, rounding=rounding, overflow=overflow), -top)


@pytest.mark.parametrize("fmt", [f for f in FORMATS if not f.has_nan], ids=name)
def test_infinite_overflow_is_refused_where_there_is_neither_infinity_nor_nan(fmt):
    for call in (
        lambda: lp.round_to([1.0], fmt, overflow="infinite"),
        lambda: lp.encode([1.0], fmt, overflow="infinite"),
        lambda: lp.measure([1.0], fmt, overflow="infinite"),
        lambda: lp.inspect(1.0, fmt, overflow="infinite"),
        lambda: lp.Arithmetic(fmt, overflow="infinite"),
        lambda: lp.Accumulator(fmt, overflow="infinite"),
        lambda: scalar_rounder(fmt, overflow="infinite"),
    ):
        with pytest.raises(ValueError, match=f"{fmt.name}.*'saturate'"):
            call()


def test_infinite_overflow_is_an_infinity_in_every_mode():
    x = np.array([65504, 65504.5, 65519, 65536, 1e30, -65504.5, -65536, np.inf])
    top, inf = 65504, np.inf
    for rounding, expected in {
        "toward_zero": [top, top, top, inf, inf, -top, -inf, inf],
        "to_odd": [top, top, top, inf, inf, -top, -inf, inf],
        "toward_positive": [top, inf, inf, inf, inf, -top, -inf, inf],
        "toward_negative": [top, top, top, inf, inf, -inf, -inf, inf],
        "ties_to_even": [top, top, top, inf, inf, -top, -inf, inf],
    }.items():
        for dtype in (np.float32, np.float64):
            how = {"rounding": rounding, "overflow": "infinite"}
            assert_same(lp.round_to(x.astype(dtype), "float16", **how), expected, x)
    assert lp.Overflow("infinite") is lp.Overflow.INFINITE


@every_mode
@pytest.mark.parametrize("fmt", [f for f in FORMATS if f.emax < 1023], ids=name)
def test_infinite_input_follows_the_policy(fmt, rounding):
    x = np.array([np.inf, -np.inf] if fmt.signed else [np.inf])
    top = np.copysign(fmt.max, x)
    nan = np.full_like(x, np.nan)
    kinds = {Specials.IEEE: x, Specials.P3109: x, Specials.FINITE: top}
    beyond = kinds.get(fmt.specials, nan)
    for overflow, expected in {
        "ieee": beyond,
        **({"infinite": beyond} if fmt.has_nan else {}),
        "saturate": x if fmt.has_infinity else top,
        "saturate_finite": top,
    }.items():
        got = lp.round_to(x, fmt, rounding=rounding, overflow=overflow, rng=0)
        assert_same(got, expected, x)


@each("rounding", STOCHASTIC)
@pytest.mark.parametrize("fmt", [f for f in LISTED if f.emax < 1023], ids=name)
def test_stochastic_overflow_begins_at_max_and_is_certain_from_the_next(fmt, rounding):
    following = float(oracle.table(fmt).values[-1])
    size = 400
    certain = lp.round_to(np.full(size, following * 1.25), fmt, rounding=rounding, rng=1)
    exact = lp.round_to(np.full(size, following), fmt, rounding=rounding, rng=1)
    between = lp.round_to(np.full(size, (fmt.max + following) / 2), fmt, rounding=rounding, rng=1)
    inside = lp.round_to(np.full(size, fmt.max), fmt, rounding=rounding, rng=1)
    beyond = oracle.round_to([following], fmt)[0]
    assert same(certain, beyond).all()
    assert same(exact, beyond).all()
    assert (inside == fmt.max).all()
    if fmt.specials is not Specials.FINITE:
        overflowed = same(between, beyond)
        assert 120 < overflowed.sum() < 280
        assert (between[~overflowed] == fmt.max).all()
