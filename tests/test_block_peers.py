"""Block formats beside other libraries: bit for bit, but for their errors, which are pinned."""

from __future__ import annotations

import numpy as np
import pytest

import lowprec as lp

torch = pytest.importorskip("torch", reason="torch is not installed")
mx = pytest.importorskip(
    "torchao.prototype.mx_formats.mx_tensor",
    reason="torchao is not installed (pip install --no-deps torchao==0.18)",
    exc_type=ImportError,
)

BLOCKS = 12_000
RULES = ["floor", "rceil", "ceil", "even"]
ELEMENTS = {
    "mxfp8_e4m3": torch.float8_e4m3fn,
    "mxfp8_e5m2": torch.float8_e5m2,
    "mxfp6_e2m3": "fp6_e2m3",
    "mxfp6_e3m2": "fp6_e3m2",
    "mxfp4": torch.float4_e2m1fn_x2,
}


def torchao(x, base, rule):
    """Return torchao's codes and scales of blocks of 32."""
    mode = mx.ScaleCalculationMode(rule)
    scales, codes = mx.to_mx(torch.from_numpy(x), ELEMENTS[base], 32, mode)
    codes = codes.view(torch.uint8)
    if base == "mxfp4":
        codes = mx.unpack_uint4(codes)
    return codes.numpy().reshape(x.shape), scales.view(torch.uint8).numpy().reshape(len(x), -1)


def blocks(base):
    """Return blocks whose largest magnitudes lie at and around every rule's thresholds."""
    rng = np.random.default_rng(sum(map(ord, base)))
    fmt = lp.get_format(base)
    top, t = fmt.element.max, fmt.element.trailing_bits
    significands = [1.0, 1.5, top / 2 ** np.floor(np.log2(top)), 2 - 2.0 ** -(t + 1)]
    amax = np.exp2(rng.integers(-135, 127, BLOCKS)) * rng.choice(significands, BLOCKS)
    amax[::3] = np.exp2(rng.uniform(-147, 127.9, len(amax[::3])))
    amax = amax.astype(np.float32)
    amax = (amax.view(np.uint32) + rng.integers(-1, 2, BLOCKS).astype(np.uint32)).view(np.float32)
    assert np.isfinite(amax).all()
    x = (rng.uniform(-1, 1, (BLOCKS, 32)) * amax[:, None]).astype(np.float32)
    x[::2] = np.round(x[::2] / amax[::2, None] * 64) / 64 * amax[::2, None]
    x[:, 0] = amax * rng.choice([-1, 1], BLOCKS)
    return x


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("base", ELEMENTS)
def test_torchao_agrees_but_for_its_three_errors(base, rule):
    x = blocks(base)
    ours = lp.quantize(x, f"{base}:{rule}")
    codes, scales = torchao(x, base, rule)
    differs = (scales != ours.scales).ravel()
    amax = np.abs(x).max(1).astype(np.float64)
    if rule == "rceil":  # first error: a float32 log2 takes what is just above M·2**e for it
        bound = ours.fmt.element.max * np.exp2(scales.ravel()[differs] - 127.0)
        assert (scales.ravel()[differs] == ours.scales.ravel()[differs] - 1.0).all()
        assert (amax[differs] > bound).all()
        assert (amax[differs] < bound * (1 + 2.0**-15)).all()
        assert differs.any()
    else:
        assert not differs.any()
    # second and third: where the stored scale is 2**-127
    kept = ~differs & (ours.scales.ravel() != 0)
    assert kept.sum() > 10_000
    np.testing.assert_array_equal(codes[kept], ours.codes[kept])


def test_torchaos_log2_clips_what_is_just_above():
    x = np.zeros((1, 32), np.float32)
    x[0, 0] = np.nextafter(np.float32(448 * 2**5), np.float32(np.inf))
    assert torchao(x, "mxfp8_e4m3", "rceil")[1].item() == 127 + 5
    assert lp.quantize(x, "mxfp8_e4m3:rceil").scales.item() == 127 + 6


@pytest.mark.parametrize("rule", ["floor", "ceil", "even"])
def test_torchao_divides_by_another_scale_than_it_stores(rule):
    """Code 0 stands for 2**-127; its division replaces that by 2**-126, and half comes back."""
    x = np.zeros((1, 32), np.float32)
    x[0, 0] = 2.0**-119
    codes, scales = torchao(x, "mxfp8_e4m3", rule)
    assert scales.item() == 0
    stored = lp.decode(codes, "float8_e4m3fn")[0, 0] * 2.0**-127
    assert stored == 2.0**-120
    assert lp.round_to(x, f"mxfp8_e4m3:{rule}")[0, 0] == 2.0**-119


def test_torchao_zeroes_a_block_of_normal_numbers():
    x = np.zeros((1, 32), np.float32)
    x[0, 0] = float.fromhex("0x1.f00002p-125")
    codes, scales = torchao(x, "mxfp8_e4m3", "rceil")
    assert scales.item() == 0
    assert not codes.any()
    rounded = lp.round_to(x, "mxfp8_e4m3:rceil")[0, 0]
    assert abs(float(rounded) / float(x[0, 0]) - 1) <= 2.0**-4


def test_gfloat_agrees_with_the_floor_rule():
    gfloat = pytest.importorskip("gfloat", reason="gfloat is not installed")
    formats = pytest.importorskip("gfloat.formats")
    pairs = {
        "mxfp8_e4m3": formats.format_info_mxfp8_e4m3,
        "mxfp8_e5m2": formats.format_info_mxfp8_e5m2,
        "mxfp6_e2m3": formats.format_info_mxfp6_e2m3,
        "mxfp6_e3m2": formats.format_info_mxfp6_e3m2,
        "mxfp4": formats.format_info_mxfp4_e2m1,
        "mxint8": formats.format_info_mxint8,
    }
    rng = np.random.default_rng(5)
    for base, info in pairs.items():
        for row in rng.standard_normal((12, 32)) * np.exp2(rng.integers(-20, 20, (12, 1))):
            scale = gfloat.compute_scale_amax(info.etype.emax, row)
            theirs = gfloat.quantize_block(info, row, gfloat.compute_scale_amax)
            ours = lp.quantize(row, base)
            assert scale == 2.0 ** (int(ours.scales[0]) - 127)
            np.testing.assert_array_equal(theirs, ours.dequantize("float64"), err_msg=base)
