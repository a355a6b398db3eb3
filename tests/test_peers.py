"""Agreement with ml_dtypes, NumPy, torch, gfloat and SoftFloat, bit for bit but for NaN's bits.

Where a peer is wrong, a test states what it gives and what is right, so that we learn when it
changes.
"""

from __future__ import annotations

import gfloat
import ml_dtypes
import numpy as np
import pytest
from gfloat import RoundMode, formats
from softfloat_peer import RoundingMode, softfloat
from table import FLOAT32, FLOAT64, assert_same, name, turning_points

import lowprec as lp

ML_DTYPES = [
    fmt
    for fmt in lp.named_formats().values()
    if hasattr(ml_dtypes, fmt.name) and fmt != lp.float8_e8m0fnu
]
X64 = 1 + 2**-8 + 2**-40  # just above a tie of bfloat16, by less than float32 can tell
N64 = 16973823  # likewise


# ml_dtypes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ML_DTYPES, ids=name)
def test_ml_dtypes_rounds_float32_alike(fmt):
    x = turning_points(fmt, FLOAT32)
    with np.errstate(over="ignore"):
        expected = x.astype(fmt.dtype)
    ours = lp.cast(x, fmt)
    numbers = ~np.isnan(expected)
    assert (numbers == ~np.isnan(ours)).all()
    actual, expected = (y.view(fmt.code_dtype)[numbers] for y in (ours, expected))
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("fmt", [*ML_DTYPES, lp.float8_e8m0fnu], ids=name)
def test_ml_dtypes_decodes_every_code_alike(fmt):
    codes = np.arange(2**fmt.bits).astype(fmt.code_dtype)
    assert_same(lp.decode(codes, fmt), codes.view(fmt.dtype).astype(np.float32), codes)


@pytest.mark.parametrize("fmt", [f for f in ML_DTYPES if f.has_nan], ids=name)
def test_ml_dtypes_gives_nan_the_same_code(fmt):
    x = np.array([np.nan, -np.nan], np.float32)
    codes = x.astype(fmt.dtype).view(fmt.code_dtype)
    assert lp.encode(x, fmt).tolist() == codes.tolist()


def test_ml_dtypes_scale_agrees_from_normal_float32():
    x = turning_points(lp.float8_e8m0fnu, FLOAT32)
    x = x[(x >= 2.0**-126) | (x <= 0)]
    codes = x.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)
    np.testing.assert_array_equal(lp.encode(x, "float8_e8m0fnu"), codes)


def test_ml_dtypes_scale_rounds_subnormal_float32_up():
    x = np.float32(1.25 * 2.0**-127)
    assert float(x.astype(ml_dtypes.float8_e8m0fnu)) == 2.0**-126
    assert lp.round_to(x, "float8_e8m0fnu") == 2.0**-127, "the nearer"


def test_ml_dtypes_rounds_float64_and_int64_twice():
    assert np.float64(X64).astype(ml_dtypes.bfloat16) == 1.0
    assert lp.round_to(X64, "bfloat16") == 1.0078125
    assert np.int64(N64).astype(ml_dtypes.bfloat16) == 17039360
    assert lp.round_to(N64, "bfloat16") == 16908288


@pytest.mark.parametrize("fmt", ML_DTYPES, ids=name)
def test_ml_dtypes_rounds_float64_twice_into_every_format(fmt):
    x = turning_points(fmt, FLOAT64)
    with np.errstate(over="ignore"):
        twice = lp.round_to(x.astype(np.float32), fmt)
        theirs = x.astype(fmt.dtype).astype(np.float32)
        ours = lp.cast(x, fmt).astype(np.float32)
    assert_same(theirs, twice, x)
    assert (theirs != ours).any()


# NumPy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=name)
def test_numpy_float16_rounds_alike(dtype):
    x = turning_points(lp.float16, dtype)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    ours = lp.cast(x, "float16")
    assert ours.dtype == np.float16
    np.testing.assert_array_equal(ours.view(np.uint16), expected.view(np.uint16))


def test_numpy_float16_decodes_every_code_alike():
    codes = np.arange(2**16).astype(np.uint16)
    with np.errstate(invalid="ignore"):  # signalling NaN
        expected = codes.view(np.float16).astype(np.float32)
    assert_same(lp.decode(codes, "float16"), expected, codes)


def test_numpy_float32_rounds_alike():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**64, 200_000, np.uint64, endpoint=False).view(np.float64)
    x = np.concatenate([x, rng.standard_normal(1000) * 2.0 ** rng.integers(-152, 129, 1000)])
    with np.errstate(all="ignore"):
        expected = x.astype(np.float32)
    assert_same(lp.cast(x, "float32"), expected, x)


def test_numpy_float16_keeps_the_payload_of_nan():
    payload = np.array([0x7FC12345], np.uint32).view(np.float32)
    assert payload.astype(np.float16).view(np.uint16)[0] != 0x7E00
    assert lp.encode(payload, "float16")[0] == 0x7E00, "the canonical quiet NaN"


# torch ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is an optional peer")


TORCH = {
    "bfloat16": "ieee",
    "float16": "ieee",
    "float8_e5m2": "ieee",
    "float8_e5m2fnuz": "ieee",
    "float8_e4m3fnuz": "ieee",
    "float8_e4m3fn": "saturate",
}


@pytest.mark.parametrize(("fmt", "overflow"), TORCH.items())
def test_torch_rounds_float32_alike(torch, fmt, overflow):
    x = turning_points(lp.get_format(fmt), FLOAT32)
    theirs = torch.from_numpy(x.copy()).to(getattr(torch, fmt)).to(torch.float32).numpy()
    assert_same(lp.round_to(x, fmt, overflow=overflow), theirs, x)


def test_torch_saturates_float8_e4m3fn_infinities_too_but_not_float8_e5m2(torch):
    x = torch.tensor([465.0, -1e9, np.inf])
    assert x.to(torch.float8_e4m3fn).float().tolist() == [448, -448, 448]
    assert (x * 1e9).to(torch.float8_e5m2).float().tolist() == [np.inf, -np.inf, np.inf]
    assert np.isnan(lp.round_to(x, "float8_e4m3fn")).all()
    assert lp.round_to(x, "float8_e4m3fn", overflow="saturate").tolist() == [448, -448, 448]


def test_torch_rounds_float64_and_int64_twice(torch):
    assert torch.tensor(X64, dtype=torch.float64).bfloat16() == 1
    assert lp.round_to(torch.tensor(X64, dtype=torch.float64), "bfloat16") == 1.0078125
    assert torch.tensor(N64).bfloat16() == 17039360
    assert lp.round_to(torch.tensor(N64), "bfloat16") == 16908288
    x = 2049 + 2.0**-40
    assert torch.tensor(x, dtype=torch.float64).half() == 2048
    assert lp.round_to(x, "float16") == 2050


# gfloat --------------------------------------------------------------------------------------

GFLOAT = {
    "bfloat16": formats.format_info_bfloat16,
    "float16": formats.format_info_binary16,
    "float8_e5m2": formats.format_info_ocp_e5m2,
    "float8_e4m3fn": formats.format_info_ocp_e4m3,
    "float6_e3m2fn": formats.format_info_ocp_e3m2,
    "float6_e2m3fn": formats.format_info_ocp_e2m3,
    "float4_e2m1fn": formats.format_info_ocp_e2m1,
}
GFLOAT_MODES = {
    "ties_to_even": RoundMode.TiesToEven,
    "ties_to_away": RoundMode.TiesToAway,
    "toward_zero": RoundMode.TowardZero,
    "toward_positive": RoundMode.TowardPositive,
    "toward_negative": RoundMode.TowardNegative,
}


@pytest.mark.parametrize("overflow", ["ieee", "saturate_finite"])
@pytest.mark.parametrize("rounding", GFLOAT_MODES)
@pytest.mark.parametrize("fmt", GFLOAT)
def test_gfloat_rounds_float64_alike(fmt, rounding, overflow):
    info, saturate = GFLOAT[fmt], overflow == "saturate_finite"
    if not (info.num_nans or saturate):
        pytest.skip("gfloat refuses formats that have neither infinities nor NaN unless saturating")
    x = turning_points(lp.get_format(fmt), FLOAT64)
    x = np.random.default_rng(0).choice(x, min(x.size, 20_000), replace=False)
    with np.errstate(over="ignore", invalid="ignore"):
        theirs = gfloat.round_ndarray(info, x, GFLOAT_MODES[rounding], saturate)
    assert_same(lp.round_to(x, fmt, rounding=rounding, overflow=overflow), theirs, x)


@pytest.mark.parametrize("fmt", GFLOAT)
def test_gfloat_decodes_every_code_alike(fmt):
    info = GFLOAT[fmt]
    codes = np.arange(2**info.k).astype(lp.get_format(fmt).code_dtype)
    theirs = np.array([gfloat.decode_float(info, int(code)).fval for code in codes[::7]])
    assert_same(lp.decode(codes[::7], fmt), theirs, codes[::7])


# SoftFloat -----------------------------------------------------------------------------------

SOFTFLOAT_MODES = {
    "ties_to_even": RoundingMode.NEAR_EVEN,
    "ties_to_away": RoundingMode.NEAR_MAX_MAG,
    "toward_zero": RoundingMode.MIN_MAG,
    "toward_negative": RoundingMode.MIN,
    "toward_positive": RoundingMode.MAX,
}


@pytest.mark.parametrize("rounding", SOFTFLOAT_MODES)
@pytest.mark.parametrize("source", [softfloat.Float32, softfloat.Float64])
def test_softfloat_rounds_to_float16_alike(source, rounding):
    dtype = FLOAT32 if source is softfloat.Float32 else FLOAT64
    x = np.random.default_rng(0).choice(turning_points(lp.float16, dtype), 5000)
    softfloat.set_rounding_mode(SOFTFLOAT_MODES[rounding])
    try:
        theirs = [source.from_float(float(v)).to_f16().to_float() for v in x]
    finally:
        softfloat.set_rounding_mode(RoundingMode.NEAR_EVEN)
    assert_same(lp.round_to(x, "float16", rounding=rounding), theirs, x)


@pytest.mark.parametrize("rounding", SOFTFLOAT_MODES)
def test_softfloat_rounds_64_bit_integers_to_float64_alike(rounding):
    x = np.random.default_rng(0).integers(-(2**63), 2**63, 3000)
    softfloat.set_rounding_mode(SOFTFLOAT_MODES[rounding])
    try:
        theirs = [softfloat.Int64.from_int(int(v)).to_f64().to_float() for v in x]
    finally:
        softfloat.set_rounding_mode(RoundingMode.NEAR_EVEN)
    assert_same(lp.round_to(x, "float64", rounding=rounding), theirs, x)
