"""Block formats, held to their definition in fractions at every edge, and to the laws."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle
from fractions import Fraction

import block_oracle
import ml_dtypes
import numpy as np
import oracle
import pytest
from table import DETERMINISTIC, each

import lowprec as lp
from lowprec import BlockFormat, Format, IntegerFormat, ScaleRule, Specials
from lowprec.blocks import quantizing

E8M0, E4M3 = lp.float8_e8m0fnu, lp.float8_e4m3fn
NAMED = list(lp.named_block_formats().values())
RULES = ["floor", "ceil", "rceil", "even"]
ODD = [
    BlockFormat("block1", E4M3, 1, E8M0, "floor"),
    BlockFormat("block3", lp.float8_e5m2, 3, E8M0, "rceil"),
    BlockFormat("block5_bfloat16", lp.float6_e2m3fn, 5, lp.bfloat16, "amax"),
    BlockFormat("float16_scale", lp.float6_e3m2fn, 7, lp.float16, "amax"),
    BlockFormat("tile_2x3", lp.float4_e2m1fn, (2, 3), E8M0, "even"),
    BlockFormat("tile_1x4", E4M3, (1, 4), E4M3, "amax", tensor_scale=True),
    BlockFormat("axis_e8m0", lp.float8_e5m2fnuz, None, E8M0, "ceil"),
    BlockFormat("fnuz", lp.float8_e4m3fnuz, 4, lp.float8_e4m3fnuz, "amax"),
    BlockFormat("e5m2_scale", lp.float8_e3m4, 6, lp.float8_e5m2, "amax", tensor_scale=True),
    BlockFormat("bfloat16_elements", lp.bfloat16, 8, E8M0, "rceil"),
    BlockFormat("float16_elements", lp.float16, 8, lp.float32, "amax", tensor_scale=True),
    BlockFormat("int4_e8m0", IntegerFormat("int4", 4, 2), 8, E8M0, "even"),
    BlockFormat("int2", IntegerFormat("int2", 2), 4, lp.float32, "amax"),
    BlockFormat("int16", IntegerFormat("int16", 16, 3), 9, lp.float32, "amax", True),
    BlockFormat("int12_rceil", IntegerFormat("int12", 12, 5), 6, E8M0, "rceil"),
    BlockFormat(
        "small_scale", lp.float8_e4m3, 4, Format("e4m0", 4, 1, Specials.FN, signed=False), "floor"
    ),
    BlockFormat(
        "finite_power",
        lp.float8_e5m2,
        4,
        Format("e5m0", 5, 1, Specials.FINITE, signed=False),
        "ceil",
    ),
    BlockFormat(
        "unsigned_scale", E4M3, 4, Format("ue5m3", 5, 4, Specials.FN, signed=False), "amax"
    ),
    BlockFormat(
        "no_subnormals",
        Format("e4m3ftz", 4, 4, Specials.FN, subnormals=False),
        6,
        Format("e4m3ftz", 4, 4, Specials.FN, subnormals=False),
        "amax",
        tensor_scale=True,
    ),
    BlockFormat("no_subnormals_power", Format("e3m2ftz", 3, 3, subnormals=False), 5, E8M0, "even"),
    BlockFormat("e4m1", Format("e4m1", 4, 2, Specials.FN), 4, E8M0, "rceil"),
    BlockFormat("biased", Format("e3m3b-20", 3, 4, bias=-20), 4, E8M0, "floor"),
    BlockFormat("biased_up", Format("e3m3b60", 3, 4, bias=60), 4, lp.bfloat16, "amax"),
    BlockFormat("finite_scale", lp.float4_e2m1fn, 4, lp.float6_e2m3fn, "amax", True),
    BlockFormat("powers", Format("b8p1sf", 7, 1, Specials.FNUZ, bias=64), 4, E8M0, "rceil"),
    BlockFormat("powers_even", Format("e3m0", 3, 1, Specials.FINITE), 5, E8M0, "even"),
    BlockFormat("powers_amax", Format("e4m0", 4, 1, Specials.FN), 4, lp.bfloat16, "amax", True),
]
FOUR_RULES = [
    dataclasses.replace(fmt, rule=rule)
    for fmt, rule in itertools.product(NAMED[:6], RULES)
    if fmt.rule.value != rule
]
ALL = [*NAMED, *ODD]


def name(fmt):
    return str(fmt)


def bits(x):
    x = np.asarray(x)
    return x.view(f"u{x.dtype.itemsize}")


def assert_bits(actual, expected):
    """Compare bits, all NaN being one."""
    assert actual.dtype == expected.dtype
    assert np.array_equal(np.isnan(actual), np.isnan(expected))
    kept = ~np.isnan(expected)
    np.testing.assert_array_equal(bits(actual)[kept], bits(expected)[kept])


def check(x, fmt, axis=-1, rounding="ties_to_even", rng=None, draw=None, tensor_amax=None):
    """Compare codes, scales, tensor scale and values with the oracle."""
    expected = block_oracle.quantize(x, fmt, axis, rounding, draw, tensor_amax)
    options = {"axis": axis, "rounding": rounding, "rng": rng, "tensor_amax": tensor_amax}
    q = lp.quantize(x, fmt, **options)
    y = lp.round_to(x, fmt, **options)
    np.testing.assert_array_equal(q.codes.astype(np.int64), expected.codes)
    scales = block_oracle.expected_scales(expected, fmt, q.scales.shape)
    np.testing.assert_array_equal(q.scales, scales)
    if fmt.tensor_scale:
        assert q.tensor_scale == expected.g
        assert type(q.tensor_scale) is np.float32
    else:
        assert q.tensor_scale is None
    assert_bits(y, expected.values)
    assert_bits(q.dequantize(y.dtype), y)
    nan = np.isnan(y)
    assert not np.signbit(y[nan]).any()


def edges(fmt, dtype):
    """Return magnitudes where a rule changes its mind, each with its neighbours of the dtype."""
    top = float(fmt.element.max)
    m = fmt.element.trailing_bits
    found = []
    for e in (-140, -120, -1, 3, 110, 120):
        for significand in (1.0, top / 2 ** math.floor(math.log2(top)), 2 - 2.0 ** -(m + 1), 1.5):
            found.append(significand * 2.0**e)
    found += [fmt.scale.max * top, fmt.scale.smallest_subnormal * top, 449.0, 2.0**-126, 1e-45]
    with np.errstate(over="ignore", under="ignore"):
        middle = np.array(found).astype(dtype)
        around = [np.nextafter(middle, dtype(0)), middle, np.nextafter(middle, dtype(np.inf))]
    values = np.concatenate(around)
    return values[np.isfinite(values)]


def edge_blocks(fmt, dtype, seed=0):
    """Return an array of blocks, each with one of the edges as its largest magnitude."""
    rng = np.random.default_rng(seed)
    tops = edges(fmt, dtype)
    width = 4 if fmt.block is None or fmt.is_tiled else min(fmt.block, 6)
    x = rng.uniform(-1, 1, (len(tops), width)) * tops[:, None]
    x[:, 0] = tops * rng.choice([-1, 1], len(tops))
    x[::3, -1:] = 0.0
    x[1::3, -1:] = -0.0
    x[::5, 1:2] *= 2.0**-9
    if fmt.element.trailing_bits and width > 2:
        x[::4, 2] = x[::4, 0] * 0.25
    return x.astype(dtype)


# The formats -------------------------------------------------------------------------------------


def test_names_and_spellings():
    assert lp.get_format("mxfp4") is lp.mxfp4
    assert lp.get_format(" MXFP4 ") is lp.mxfp4
    assert lp.get_format("mxfp4:floor") is lp.mxfp4
    assert lp.get_format("mxfp4:rceil") == dataclasses.replace(lp.mxfp4, rule="rceil")
    assert lp.get_format("nvfp4:four_over_six") is lp.nvfp4_46
    assert lp.get_format("nvfp4_46:amax") is lp.nvfp4
    assert lp.get_format(lp.BlockFormat("mine", "e2m1fn", 32, "e8m0fnu", "floor")) is lp.mxfp4
    for fmt in [*NAMED, *FOUR_RULES]:
        assert lp.get_format(repr(fmt)) == fmt
        assert lp.get_format(str(fmt)) == fmt
    assert "BlockFormat('block1'" in repr(ODD[0])


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("mxfp5", "did you mean.*mxfp"),
        ("mxfp4:rcel", "did you mean.*rceil"),
        ("mxfp4:amax", "needs"),
        ("fp8_1x128:floor", "needs"),
        ("bfloat16:floor", "block format alone"),
        ("mxfp8_e4m3:four_over_six", "needs|that of"),
    ],
)
def test_other_spellings_are_refused(spelling, message):
    with pytest.raises(ValueError, match=message):
        lp.get_format(spelling)


def test_equality_ignores_the_name_and_formats_hash_and_pickle():
    for fmt in ALL:
        other = dataclasses.replace(fmt, name="other")
        assert other == fmt
        assert hash(other) == hash(fmt)
        again = pickle.loads(pickle.dumps(fmt))
        assert again == fmt
        assert again.name == fmt.name
        assert hash(again) == hash(fmt)
    assert len({*NAMED}) == len(NAMED)
    assert IntegerFormat("a", 8) == IntegerFormat("b", 8) != IntegerFormat("a", 8, 6)


def test_bits_per_value():
    expected = {
        "mxfp8_e4m3": 8.25, "mxfp8_e5m2": 8.25, "mxfp6_e2m3": 6.25, "mxfp6_e3m2": 6.25,
        "mxfp4": 4.25, "mxint8": 8.25, "nvfp4": 4.5, "nvfp4_2d": 4 + 8 / 256, "nvfp4_46": 4.5,
        "fp8_1x128": 8.25, "fp8_128x128": 8 + 32 / 16384, "int8_channel": 8.0, "int4_g32": 5.0,
    }  # fmt: skip
    assert {fmt.name: fmt.bits_per_value for fmt in NAMED} == expected


def test_named_formats_are_attributes():
    for fmt in NAMED:
        assert getattr(lp, fmt.name) is fmt


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("float8_e4m3fn", 32, "float8_e4m3fn", "floor"), "needs an unsigned scale of precision 1"),
        (("float8_e4m3fn", 32, "float8_e8m0fnu", "amax"), "needs a scale with more"),
        (("float8_e4m3fn", 16, "float8_e4m3fn", "four_over_six", True), "float4_e2m1fn"),
        (("float4_e2m1fn", 16, "float8_e4m3fn", "four_over_six", False), "tensor_scale=True"),
        (("float4_e2m1fn", 16, "float32", "four_over_six", True), "float8_e4m3fn"),
        (("float8_e8m0fnu", 16, "float32", "amax"), "no sign"),
        ((Format("u", 4, 4, signed=False), 16, "float32", "amax"), "no sign"),
        (("float4_e2m1fn", 0, "float32", "amax"), "at least 1"),
        (("float4_e2m1fn", (16, 0), "float32", "amax"), "at least 1"),
        (("float4_e2m1fn", (16,), "float32", "amax"), "two numbers"),
        (("float4_e2m1fn", 16, "float64", "amax"), "float32 does not hold"),
        (("float64", 16, "float32", "amax"), "significand bits"),
        (("float4_e2m1fn", 16, "float8_e8m0fnu", "floor", True), "tensor scale"),
        (("float4_e2m1fn", 16, "float8_e8m0fnu", "flor"), "did you mean 'floor'"),
    ],
)
def test_what_is_no_format_is_refused_at_construction(fields, message):
    with pytest.raises(ValueError, match=message):
        BlockFormat("wrong", *fields)


@pytest.mark.parametrize("wrong", [1, 17])
def test_integers_have_2_to_16_bits(wrong):
    with pytest.raises(ValueError, match="2 to 16"):
        IntegerFormat("int", wrong)


# The oracle --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fmt", [*ALL, *FOUR_RULES], ids=name)
def test_every_edge_is_as_the_oracle_says(fmt, dtype):
    check(edge_blocks(fmt, dtype), fmt)


@each("rounding", DETERMINISTIC)
@pytest.mark.parametrize("fmt", ALL, ids=name)
def test_every_mode_is_as_the_oracle_says(fmt, rounding):
    check(edge_blocks(fmt, np.float32, 1)[::7], fmt, rounding=rounding)


@each("axis", [0, -1, -2])
@pytest.mark.parametrize("fmt", [fmt for fmt in ALL if not fmt.is_tiled], ids=name)
def test_any_axis_and_short_blocks(fmt, axis):
    x = np.random.default_rng(2).standard_normal((3, 7, 9)).astype(np.float32)
    check(x, fmt, axis)


@pytest.mark.parametrize("fmt", ALL, ids=name)
def test_scales_that_elements_meet_halfway(fmt):
    """Elements at midpoints times the scale, which float32 holds where scales are powers of two."""
    rng = np.random.default_rng(3)
    x = rng.integers(-64, 65, (12, 33 if not fmt.is_tiled else 5)).astype(np.float32) / 8
    check(x, fmt)


@each("source", [np.int64, np.uint64, np.int32, np.int8, np.bool_, np.float16])
@pytest.mark.parametrize("fmt", ALL, ids=name)
def test_sources_are_read_exactly(fmt, source):
    rng = np.random.default_rng(4)
    if source is np.float16:
        x = rng.standard_normal((4, 9)).astype(np.float16)
    elif source is np.bool_:
        x = rng.random((4, 9)) < 0.3
    else:
        info = np.iinfo(source)
        x = rng.integers(info.min, info.max, (6, 9), dtype=source, endpoint=True)
        x[1] = [info.max, info.max - 1, info.min, info.min + 1, 0, 1, 2, 3, 5]
        x[2] >>= np.array(7).astype(source)
        x[3:5] = np.array(info.max).astype(source) // np.array(3).astype(source) + np.arange(
            -4, 5
        ).astype(source)
    check(x, fmt)


def test_integers_beyond_float64_decide_exactly():
    """2**60 + 1 exceeds M·2**e by one part in 2**60, which float64 does not see."""
    x = np.array([[7 * 2**58, 1], [7 * 2**58 + 1, 1], [7 * 2**58 - 1, 1]])
    assert lp.quantize(x, "mxfp8_e4m3:rceil").scales.ravel().tolist() == [179, 180, 179]
    check(x, lp.get_format("mxfp8_e4m3:rceil"))
    tie = np.array([[2**62, 5 * 2**58, 5 * 2**58 + 1, 5 * 2**58 - 1]])
    check(tie, lp.mxfp4)
    check(tie, lp.mxfp4, rounding="toward_positive")


def draws(key, size):
    """Recover the 32 random bits of each element from what bfloat16 makes of it."""
    low = np.zeros(size, np.int64)  # R >= low
    for bit in reversed(range(32)):
        threshold = low + (1 << bit)
        x = 1 + threshold * 2.0**-39  # bfloat16's eps is 2**-7
        y = lp.round_to(x, "bfloat16", rounding="stochastic", rng=key)
        low = np.where(y > 1, low, threshold)
    return low


@each("rounding", ["stochastic", "stochastic_equal"])
@pytest.mark.parametrize("fmt", ALL, ids=name)
def test_stochastic_elements_follow_law_5_exactly(fmt, rounding):
    x = edge_blocks(fmt, np.float32, 5)[::4]
    words = draws(7, x.size)
    check(x, fmt, rounding=rounding, rng=7, draw=lambda i: int(words[i]))
    y = x.astype(np.float64) * (1 + 2.0**-40)
    check(y, fmt, rounding=rounding, rng=7, draw=lambda i: int(words[i]))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_random_bits_are_those_of_the_index_in_c_order(axis):
    x = np.random.default_rng(6).standard_normal((6, 5, 7)).astype(np.float32)
    words = draws(11, x.size)
    check(x, lp.mxfp4, axis, "stochastic", 11, lambda i: int(words[i]))
    whole = lp.round_to(x, "mxfp4", axis=axis, rounding="stochastic", rng=11)
    for layout in (np.asfortranarray(x), np.stack([x, x], -1)[..., 0], x[::-1].copy()[::-1]):
        assert_bits(
            np.ascontiguousarray(
                lp.round_to(layout, "mxfp4", axis=axis, rounding="stochastic", rng=11)
            ),
            whole,
        )


SPECIALS = [np.nan, -np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("fmt", ALL, ids=name)
def test_nan_and_infinity_mark_their_block(fmt):
    x = np.random.default_rng(8).standard_normal((5, 12)).astype(np.float32)
    x[[0, 1, 3, 4], [0, 5, 11, 6]] = SPECIALS
    if not fmt.scale.has_nan:
        out = np.full_like(x, 7)
        with pytest.raises(ValueError, match="2 of 60 elements are NaN and 2 are infinite"):
            lp.round_to(x, fmt, out=out)
        assert (out == 7).all()
        with pytest.raises(ValueError, match="2 of 60"):
            lp.quantize(x, fmt)
        return
    check(x, fmt)
    check(x.astype(np.float64), fmt)
    codes = lp.quantize(np.full(3, np.inf), fmt if not fmt.is_tiled else lp.mxfp4).codes
    assert not codes.any()


@pytest.mark.parametrize("fmt", ALL, ids=name)
def test_zero_tiny_huge_and_tensor_amax(fmt):
    x = np.zeros((4, 9), np.float32)
    x[1] = -0.0
    check(x, fmt)
    x[2, 3] = 1e-45
    check(x, fmt)
    check(x[2:], fmt)
    x[3, 1:] = np.float32(3.4028234e38)
    check(x, fmt)
    check(-x.astype(np.float64) * 1e200, fmt)
    check(x.astype(np.float64) * 1e-300, fmt)
    if fmt.tensor_scale:
        for amax in (0, 1e-300, 1.0, 7, 1e39, 10**30, np.float32(3.5)):
            check(x[:3] + np.float32(0.1), fmt, tensor_amax=amax)
            check(x * 1e-38, fmt, tensor_amax=amax)


VECTORS = [
    *[
        lp.get_format(f"{base}:{rule}")
        for base in ("mxfp8_e4m3", "mxfp4", "mxint8")
        for rule in RULES
    ],
    *[fmt for fmt in NAMED if fmt != lp.nvfp4_46],
    BlockFormat("of_16", lp.float8_e4m3fnuz, 16, lp.float8_e5m2, "amax", tensor_scale=True),
    BlockFormat("of_48", lp.float6_e2m3fn, 48, lp.bfloat16, "amax"),
    BlockFormat("int3", IntegerFormat("int3", 3, 1), 32, lp.float16, "amax", tensor_scale=True),
    BlockFormat("tile_4x32", lp.float8_e5m2fnuz, (4, 32), E8M0, "even"),
    BlockFormat("bfloat16_of_64", lp.bfloat16, 64, E8M0, "rceil"),
]


@pytest.mark.parametrize("fmt", VECTORS, ids=name)
def test_vectors_give_the_bits_of_the_exact_rule(fmt, monkeypatch):
    """Whole blocks of float32 go to vectors; here they meet the rule that the oracle judges."""
    rng = np.random.default_rng(22)
    tops = edges(fmt, np.float32)
    width = 144 if fmt.is_tiled else 96
    x = rng.uniform(-1, 1, (len(tops), width)).astype(np.float32) * tops[:, None]
    x[:, ::16] = (tops * rng.choice([-1, 1], len(tops)))[:, None]
    steps = rng.integers(-64, 65, (40, width)).astype(np.float32) / 8
    special = rng.standard_normal((6, width)).astype(np.float32)
    special[0, 5], special[1, 40], special[2, 70] = np.nan, np.inf, -np.inf
    special[3], special[4], special[5, :64] = 0.0, -0.0, 1e-45
    x = np.concatenate([x, steps, special])
    axes = (-1,) if fmt.is_tiled else (-1, 0)
    amax = 3e38 if fmt.tensor_scale else None
    cases = [(a, axis) for a in (x, x[:, :83], x[5:40].copy()) for axis in axes]
    found = [
        (
            lp.quantize(a, fmt, axis=axis, tensor_amax=amax),
            lp.round_to(a, fmt, axis=axis, tensor_amax=amax),
        )
        for a, axis in cases
    ]
    monkeypatch.setattr(quantizing, "run_vectors", lambda *_: False)
    for (a, axis), (q, y) in zip(cases, found, strict=True):
        expected = lp.quantize(a, fmt, axis=axis, tensor_amax=amax)
        np.testing.assert_array_equal(q.codes, expected.codes)
        np.testing.assert_array_equal(q.scales, expected.scales)
        assert_bits(y, lp.round_to(a, fmt, axis=axis, tensor_amax=amax))


@pytest.mark.parametrize("fmt", [lp.mxfp4, lp.mxint8, lp.nvfp4_46, lp.fp8_1x128], ids=name)
def test_every_mode_gives_rows_in_vectors_the_bits_of_elements_one_by_one(fmt):
    """Arrays in Fortran's order, whose rows are not contiguous, meet the readable rule."""
    rng = np.random.default_rng(24)
    x = rng.standard_normal((12, 150)) * 2.0 ** rng.integers(-9, 9, (12, 1))
    x[0, ::3], x[1], x[2, 5], x[3] = -0.0, 0.0, 1e-320, np.arange(150) / 16
    x[4, :16], x[5, :8] = np.nextafter(2.0 ** np.arange(16), 0), 5e-324
    for array in (x, x.astype(np.float32)):
        apart = np.asfortranarray(array)
        for rounding in lp.Rounding:
            how = {"rounding": rounding, "rng": 5}
            found, expected = lp.quantize(array, fmt, **how), lp.quantize(apart, fmt, **how)
            np.testing.assert_array_equal(found.codes, expected.codes)
            np.testing.assert_array_equal(found.scales, expected.scales)
            assert_bits(lp.round_to(array, fmt, **how), lp.round_to(apart, fmt, **how))


@pytest.mark.parametrize("fmt", VECTORS, ids=name)
def test_whole_blocks_are_as_the_oracle_says(fmt):
    rng = np.random.default_rng(23)
    shape = (2, 33) if fmt.is_tiled else (2, 3 * (fmt.block or 32))
    x = (rng.standard_normal(shape) * 2.0 ** rng.integers(-9, 9, shape)).astype(np.float32)
    check(x, fmt)
    if not fmt.is_tiled:
        check(x.T.copy(), fmt, axis=0)


def test_four_over_six_at_ties_of_the_two_errors():
    """Single nonzero elements, and small integers, make many exact ties: six's scale wins."""
    rng = np.random.default_rng(9)
    x = np.zeros((300, 16), np.float32)
    x[np.arange(300), rng.integers(0, 16, 300)] = rng.integers(1, 40, 300)
    x[100:] += rng.integers(-3, 4, (200, 16))
    check(x, lp.nvfp4_46)
    check(x * np.float32(1e-30), lp.nvfp4_46)
    check(x.astype(np.float64) * (1 + 2.0**-50), lp.nvfp4_46)
    check(x.astype(np.int64) * (2**57 + 1), lp.nvfp4_46)
    wide = x.astype(np.float64)
    wide[:, ::3] *= 1e-300
    check(wide, lp.nvfp4_46)
    check(wide, lp.nvfp4_46, tensor_amax=1e-200)


# Worked numbers ----------------------------------------------------------------------------------

WORKED = {
    1.0: ["-8 -8 -8 -8", "-2 -2 -2 -2", "-4 -4 -4 -4", "-2 -2 -2 -2"],
    1.75: ["-8 -8 -7 -8", "-2 -2 -1 -2", "-4 -4 -3 -4", "-2 -1 -1 -1"],
    1.9375: ["-8 -7 -7 -7", "-2 -1 -1 -1", "-4 -3 -3 -3", "-2 -1 -1 -1"],
    6.5: ["-6 -6 -5 -6", "0 0 1 0", "-2 -2 -1 -2", "0 1 1 0"],
    449.0: ["0 1 1 0", "6 6 7 6", "4 5 5 4", "6 7 7 7"],
}


@pytest.mark.parametrize("amax", WORKED)
def test_worked_exponents(amax):
    for base, row in zip(
        ["mxfp8_e4m3", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4"], WORKED[amax], strict=True
    ):
        for rule, e in zip(["floor", "rceil", "ceil", "even"], row.split(), strict=True):
            q = lp.quantize(np.array([amax, 0.1], np.float32), f"{base}:{rule}")
            assert int(q.scales[0]) - 127 == int(e), (base, rule)


@pytest.mark.parametrize(
    ("fmt", "expected"),
    [
        ("mxfp8_e4m3", [1, 0.3125, -0.6875, 6.5, 7, 0.009765625]),
        ("mxfp6_e2m3", [1, 0.25, -0.75, 6.5, 7, 0]),
        ("mxfp6_e3m2", [1, 0.3125, -0.75, 6, 7, 0.015625]),
        ("mxfp4", [1, 0.5, -0.5, 6, 6, 0]),
        ("mxfp4:rceil", [1, 0, -1, 6, 8, 0]),
    ],
)
def test_worked_block(fmt, expected):
    x = np.array([1, 0.3, -0.7, 6.5, 7, 0.01] + [0] * 26, np.float32)
    assert lp.round_to(x, fmt)[:6].tolist() == expected


def test_worked_mxint8():
    y = lp.round_to([1, -0.3, 0.7, 1.99], "mxint8")
    assert y.tolist() == [1, -0.296875, 0.703125, 1.984375]


SQNR = {
    "mxfp8_e4m3": 30.64, "mxfp8_e4m3:rceil": 31.53, "mxfp6_e2m3": 30.94, "mxfp4": 18.79,
    "mxfp4:even": 19.03, "mxfp4:ceil": 16.83, "nvfp4": 20.44, "nvfp4_46": 21.22,
    "fp8_1x128": 31.80, "int4_g32": 20.27, "mxint8": 41.66,
}  # fmt: skip


@pytest.mark.parametrize("fmt", SQNR)
def test_worked_sqnr(fmt):
    x = np.random.default_rng(0).standard_normal(2**20).astype(np.float32)
    signal = x.astype(np.float64)
    noise = signal - lp.round_to(x, fmt)
    assert f"{10 * np.log10((signal**2).sum() / (noise**2).sum()):.2f}" == f"{SQNR[fmt]:.2f}"


# Laws --------------------------------------------------------------------------------------------


def sample(fmt, seed, shape=(8, 48)):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-6, 6, shape))
    return x.astype(np.float32)


@pytest.mark.parametrize("fmt", ALL, ids=name)
def test_law_1_dequantize_inverts_quantize(fmt):
    for x in (sample(fmt, 10), sample(fmt, 10).astype(np.float64), sample(fmt, 1, (3, 0))):
        y = lp.round_to(x, fmt)
        assert_bits(lp.quantize(x, fmt).dequantize(y.dtype), y)


@pytest.mark.parametrize("fmt", [fmt for fmt in ALL if fmt.scale == E8M0], ids=name)
def test_law_2_rounding_twice_is_rounding_once(fmt):
    for x in (sample(fmt, 11).astype(np.float64), edge_blocks(fmt, np.float64)):
        y = lp.round_to(x, fmt)
        kept = np.isfinite(y).all(-1)
        assert_bits(lp.round_to(y[kept], fmt), y[kept])


@pytest.mark.parametrize("fmt", [f for f in ALL if f.scale == E8M0], ids=name)
def test_law_3_powers_of_two_commute(fmt):
    x = sample(fmt, 12).astype(np.float64)
    for j in (-20, 3, 17):
        assert_bits(lp.round_to(x * 2.0**j, fmt), lp.round_to(x, fmt) * 2.0**j)


@each("rounding", ["RNE", "RNA", "RNZ", "RZ", "RA", "RO", "stochastic", "stochastic_equal"])
@pytest.mark.parametrize("fmt", ALL, ids=name)
def test_law_4_signs_are_symmetric(fmt, rounding):
    x = sample(fmt, 13)
    y, z = (lp.round_to(a, fmt, rounding=rounding, rng=3) for a in (x, -x))
    np.testing.assert_array_equal(-z, y)


@pytest.mark.parametrize("rounding", ["ties_to_even", "toward_positive"])
@pytest.mark.parametrize("fmt", [f for f in ALL if not f.is_tiled], ids=name)
def test_law_5_permuting_inside_a_block_permutes_the_result(fmt, rounding):
    x = sample(fmt, 14)
    size = x.shape[1] if fmt.block is None else min(fmt.block, x.shape[1])
    order = np.arange(x.shape[1])
    for start in range(0, x.shape[1], size):
        order[start : start + size] = np.random.default_rng(start).permutation(
            order[start : start + size]
        )
    y = lp.round_to(x, fmt, rounding=rounding)
    assert_bits(lp.round_to(x[:, order], fmt, rounding=rounding), y[:, order])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "base", ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4", "mxint8"]
)
def test_law_6_which_rules_clip(base, rule):
    fmt = lp.get_format(f"{base}:{rule}")
    x = edges(fmt, np.float64)
    x = x[(x > 2.0**-90) & (x < 2.0**90)][:, None]
    scale = lp.quantize(x, fmt).scales.astype(np.float64) - 127
    clips = x > fmt.element.max * 2.0**scale
    if rule in ("ceil", "rceil"):
        assert not clips.any()
    if rule == "floor":
        assert clips.any() == (math.frexp(fmt.element.max)[0] < 1 - 2.0**-24)
    assert ((np.abs(lp.round_to(x, fmt)) < x) >= clips).all()


@pytest.mark.parametrize("fmt", ALL, ids=name)
def test_law_7_the_error_is_at_most_half_a_step(fmt):
    x = sample(fmt, 15).astype(np.float64)
    q = lp.quantize(x, fmt)
    y = q.dequantize("float64")
    for block in block_oracle.blocks(x.shape, fmt, -1):
        at = tuple(np.array(block).T)
        values, rounded = x[at], y[at]
        index = tuple(i // u for i, u in zip(block[0], _units(fmt, x.shape), strict=True))
        s = Fraction(float(_scale_value(q, index))) * Fraction(
            1 if q.tensor_scale is None else float(q.tensor_scale)
        )
        top = block_oracle.largest(fmt.element)
        for v, r in zip(values, rounded, strict=True):
            a = abs(Fraction(float(v)))
            if a <= top * s:
                assert abs(a - abs(Fraction(float(r)))) <= _step(a / s, fmt.element) * s / 2


def _units(fmt, shape):
    if fmt.is_tiled:
        return fmt.block
    return 1, shape[1] if fmt.block is None else fmt.block


def _scale_value(q, index):
    s = q.scales[index]
    return s if q.fmt.scale == lp.float32 else lp.decode(s, q.fmt.scale, dtype=np.float64)


def _step(q, element):
    if isinstance(element, IntegerFormat):
        return 1 / Fraction(2) ** element.fraction_bits
    below, above, _ = oracle.neighbours(q, element) if q else (0, 1, 0)
    return above - below if above != below else Fraction(element.smallest_subnormal)


def test_law_8_square_tiles_commute_with_transposition():
    x = sample(lp.nvfp4_2d, 16, (64, 48))
    assert_bits(lp.round_to(x.T, "nvfp4_2d"), lp.round_to(x, "nvfp4_2d").T)
    q, t = lp.quantize(x, "nvfp4_2d"), lp.quantize(x.T, "nvfp4_2d")
    np.testing.assert_array_equal(q.codes.T, t.codes)
    np.testing.assert_array_equal(q.scales.T, t.scales)
    assert (lp.round_to(x.T, "nvfp4") != lp.round_to(x, "nvfp4").T).any()
    assert_bits(lp.round_to(x.T, "nvfp4"), lp.round_to(x, "nvfp4", axis=0).T)


@pytest.mark.parametrize("fmt", ALL, ids=name)
def test_law_9_layouts_and_places_change_no_bit(fmt):
    x = sample(fmt, 17, (6, 10, 40))
    y = lp.round_to(x, fmt)
    for z in (np.asfortranarray(x), x[:, ::-1].copy()[:, ::-1], np.repeat(x, 2, 0)[::2]):
        assert_bits(lp.round_to(z, fmt), y)
        out = np.empty((6, 40, 10), np.float32).transpose(0, 2, 1)
        assert lp.round_to(z, fmt, out=out) is out
        assert_bits(np.ascontiguousarray(out), y)
    inplace = x.copy()
    assert lp.round_to(inplace, fmt, out=inplace) is inplace
    assert_bits(inplace, y)
    shifted = np.empty(x.size + 1, np.float32)
    shifted[:-1] = x.ravel()
    lp.round_to(shifted[:-1].reshape(x.shape), fmt, out=shifted[1:].reshape(x.shape))
    assert_bits(shifted[1:].reshape(x.shape), y)
    bytes_swapped = x.astype(">f4")
    assert_bits(lp.round_to(bytes_swapped, fmt), y)
    single, double = lp.round_to(x, fmt), lp.round_to(x.astype(np.float64), fmt)
    np.testing.assert_array_equal(single, double.astype(np.float32))
    unaligned = np.frombuffer(b"x" + x.tobytes(), np.uint8)[1:].view(np.float32)
    assert_bits(lp.round_to(unaligned.reshape(x.shape), fmt), y)


@each("axis", [0, 1, 2])
@pytest.mark.parametrize("fmt", [f for f in ALL if not f.is_tiled], ids=name)
def test_law_9_large_arrays_are_cut_where_blocks_end(fmt, axis):
    x = np.random.default_rng(18).standard_normal((37, 70, 61)).astype(np.float32)
    y = lp.round_to(x, fmt, axis=axis, tensor_amax=5 if fmt.tensor_scale else None)
    moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    rows = [
        lp.round_to(row, fmt, tensor_amax=5 if fmt.tensor_scale else None)
        for row in moved.reshape(-1, moved.shape[-1])[::97]
    ]
    expected = np.ascontiguousarray(np.moveaxis(y, axis, -1)).reshape(-1, moved.shape[-1])[::97]
    assert_bits(np.stack(rows), expected)


@pytest.mark.parametrize("element", [E4M3, lp.float4_e2m1fn, lp.float6_e2m3fn, lp.float8_e5m2])
@pytest.mark.parametrize("rule", RULES)
def test_law_10_blocks_of_one_make_no_new_zero(element, rule):
    fmt = BlockFormat("alone", element, 1, E8M0, rule)
    x = np.exp2(np.random.default_rng(19).uniform(-110, 110, 4000))
    assert (lp.round_to(x, fmt) != 0).all()


# The door ----------------------------------------------------------------------------------------


def test_shapes_of_codes_and_scales():
    x = np.ones((5, 70, 33), np.float32)
    shapes = {
        ("mxfp4", -1): (5, 70, 2), ("mxfp4", 1): (5, 3, 33), ("mxfp4", 0): (1, 70, 33),
        ("nvfp4_2d", -1): (5, 5, 3), ("int8_channel", -1): (5, 70, 1),
        ("int8_channel", 0): (1, 70, 33), ("fp8_128x128", -1): (5, 1, 1),
    }  # fmt: skip
    for (fmt, axis), shape in shapes.items():
        q = lp.quantize(x, fmt, axis=axis)
        assert q.scales.shape == shape
        assert q.codes.shape == x.shape == q.shape
        assert q.codes.dtype == q.fmt.element.code_dtype
        assert q.axis == axis
    assert lp.quantize(x, "fp8_1x128").scales.dtype == np.float32
    assert lp.quantize(x, "int8_channel").codes.dtype == np.int8
    assert lp.quantize(x, ODD[13]).codes.dtype == np.int16


@each("shape", [(0, 5), (5, 0), (0, 0), (3, 0, 2)])
@pytest.mark.parametrize("fmt", ALL, ids=name)
def test_empty_arrays_give_empty_results(fmt, shape):
    q = lp.quantize(np.zeros(shape, np.float32), fmt)
    assert q.codes.shape == shape == q.dequantize().shape == lp.round_to(np.zeros(shape), fmt).shape
    assert q.scales.size == 0 or 0 in shape
    assert q.bits_per_value == fmt.bits_per_value
    q.pack()
    if not fmt.is_tiled and fmt.block is None:
        assert lp.quantize(np.zeros((5, 0)), fmt).scales.shape == (5, 0)


def test_a_single_number_is_refused():
    for verb in (lp.quantize, lp.round_to):
        for fmt in ("mxfp4", "nvfp4_2d"):
            with pytest.raises(ValueError, match="no axis"):
                verb(1.0, fmt)
    with pytest.raises(ValueError, match="two axes"):
        lp.quantize([1.0], "nvfp4_2d")
    with pytest.raises(ValueError, match="leave axis away"):
        lp.quantize(np.ones((3, 3)), "nvfp4_2d", axis=0)
    with pytest.raises(ValueError, match="axis is 2"):
        lp.quantize(np.ones((3, 3)), "mxfp4", axis=2)


def test_options_of_the_other_kind_are_refused():
    x = np.ones(3, np.float32)
    for options in ({"overflow": "saturate"}, {"random_bits": 8}):
        with pytest.raises(ValueError, match=next(iter(options))):
            lp.round_to(x, "mxfp4", **options)
    for options in ({"axis": 0}, {"tensor_amax": 1.0}):
        for out in (None, x):
            with pytest.raises(ValueError, match=next(iter(options))):
                lp.round_to(x, "bfloat16", out=out, **options)
    with pytest.raises(ValueError, match="tensor_amax"):
        lp.round_to(x, "mxfp4", tensor_amax=1.0)
    for amax in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="tensor_amax"):
            lp.quantize(x, "nvfp4", tensor_amax=amax)


def test_verbs_of_single_numbers_name_quantize():
    for verb in (lp.encode, lp.cast, lp.decode):
        for fmt in ("mxfp4", lp.mxfp4, "mxfp4:rceil", ODD[0]):
            with pytest.raises(TypeError, match="quantize"):
                verb(np.zeros(3, np.uint8), fmt)
    for use in (lp.ulp, lp.next_up, lp.inspect):
        with pytest.raises(TypeError, match="block format"):
            use(1.0, "mxfp4")
    with pytest.raises(TypeError, match="encode"):
        lp.quantize([1.0], "bfloat16")


def test_out_is_checked():
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="shape"):
        lp.round_to(x, "mxfp4", out=np.ones(6, np.float32))
    with pytest.raises(TypeError, match="float64"):
        lp.round_to(x, "mxfp4", out=np.ones((2, 3)))


def test_results_dtypes():
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        assert lp.round_to(np.ones(4, dtype), "mxfp4").dtype == np.float32
    for x in (np.ones(4), [1, 2], np.ones(4, np.int8), np.ones(4, bool)):
        assert lp.round_to(x, "mxfp4").dtype == np.float64
    with pytest.raises(TypeError, match="float32 or float64"):
        lp.quantize([1.0], "mxfp4").dequantize("float16")


def test_float32_becomes_infinite_beyond_its_range_alone():
    x = np.array([3.4e38, 1.0, -3.4e38], np.float32)
    y = lp.round_to(x, "mxfp4:ceil")
    q = lp.quantize(x, "mxfp4:ceil")
    wide = q.dequantize("float64")
    assert y.tolist() == [math.inf, 0.0, -math.inf]
    assert wide.tolist() == [2.0**128, 0.0, -(2.0**128)]


@pytest.mark.parametrize("fmt", ALL, ids=name)
def test_packing_puts_the_first_element_in_the_low_bits(fmt):
    x = sample(fmt, 20, (3, 7))
    q = lp.quantize(x, fmt)
    packed = q.pack()
    width = fmt.element.bits
    assert ("tensor_scale" in packed) == fmt.tensor_scale
    np.testing.assert_array_equal(packed["scales"], q.scales)
    if width == 8 * q.codes.itemsize:
        np.testing.assert_array_equal(packed["codes"], q.codes)
        return
    assert packed["codes"].shape == (3, -(-7 * width // 8))
    assert packed["codes"].dtype == np.uint8
    for row, codes in zip(packed["codes"], q.codes, strict=True):
        number = int.from_bytes(row.tobytes(), "little")
        mask = (1 << width) - 1
        assert [number >> (width * i) & mask for i in range(7)] == [int(c) & mask for c in codes]
        assert number >> (width * 7) == 0


def test_packing_of_the_usual_widths():
    codes = lp.quantize([1.0, 0.5, 6.0, -6.0], "mxfp4").pack()["codes"]
    assert codes.tolist() == [0x12, 0xF7]
    six = lp.quantize(np.array([1.0, 2.0, 4.0, -7.5]), "mxfp6_e2m3").pack()["codes"]
    a, b, c, d = (int(v) for v in lp.quantize([1.0, 2.0, 4.0, -7.5], "mxfp6_e2m3").codes)
    assert int.from_bytes(six.tobytes(), "little") == a | b << 6 | c << 12 | d << 18


def test_sizes():
    x = np.ones((4, 40), np.float32)
    q = lp.quantize(x, "nvfp4")
    assert q.nbytes == 160 + 12 + 4
    assert q.bits_per_value == (160 * 4 + 12 * 8 + 32) / 160
    assert "nvfp4" in repr(q)
    assert "(4, 40)" in repr(q)


def test_a_format_written_down_by_a_user_is_taken_everywhere():
    mine = BlockFormat("mine", "float6_e3m2fn", 8, "bfloat16", ScaleRule.AMAX)
    x = sample(mine, 21, (3, 16))
    check(x, mine)
    assert lp.get_format(mine) is mine


@pytest.mark.parametrize("fmt", ALL, ids=name)
def test_views_say_what_a_format_and_an_array_are(fmt):
    page = fmt._repr_html_()
    for word in (str(fmt), fmt.rule.value, f"{fmt.bits_per_value:.6g} bits"):
        assert word in page
    x = np.ones((3, 40), np.float32)
    assert "(3, 40)" in lp.quantize(x, fmt)._repr_html_()
    assert "none" in lp.quantize(np.zeros((2, 0)), fmt)._repr_html_()
