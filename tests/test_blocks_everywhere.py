"""Block formats wherever a format goes: measuring, advice, products, dask, the command line."""

from __future__ import annotations

import io
import json
import math

import block_oracle
import numpy as np
import pytest
from rich.console import Console
from test_blocks import NAMED, ODD, assert_bits, name

import lowprec as lp
from lowprec import cli

ALL = [*NAMED, *ODD]


def sample(seed=0, shape=(12, 70)):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * np.exp2(rng.integers(-5, 5, shape))).astype(np.float32)


# Measuring ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("fmt", ALL, ids=name)
def test_measurements_count_what_the_oracle_counts(fmt, axis):
    if fmt.is_tiled and axis == 0:
        pytest.skip("tiles take no axis")
    x = sample(1, (5, 40))
    x[1, 3], x[2, 5] = 0.0, 1e-30
    if fmt.scale.has_nan:
        x[3, 7], x[4, 39] = np.nan, np.inf
    m = lp.measure(x, fmt, axis=axis)
    expected = block_oracle.quantize(x.astype(np.float64), fmt, axis)
    y = expected.values
    finite = np.isfinite(x)
    kept = finite & np.isfinite(y) & (x != 0)
    assert m.fmt == fmt
    assert (m.count, m.nans, m.infs) == (200, int(np.isnan(x).sum()), int(np.isinf(x).sum()))
    assert m.overflows == int((finite & np.isnan(y)).sum())
    assert m.new_zeros == int((kept & (y == 0)).sum())
    assert m.measured == int(kept.sum())
    blocks = block_oracle.blocks(x.shape, fmt, axis)
    assert m.blocks == len(blocks)
    top = float(block_oracle.largest(fmt.element))
    clipped = 0
    for block, s in zip(blocks, expected.scales, strict=True):
        if not math.isnan(s):
            clipped += sum(abs(float(x[i])) > top * s * expected.g for i in block)
    assert m.clipped == clipped
    if not kept.any():
        assert math.isnan(m.sqnr_db)
        return
    error = np.abs(x[kept].astype(np.float64) - y[kept])
    signal = (x[kept].astype(np.float64) ** 2).sum()
    assert m.sqnr_db == pytest.approx(10 * math.log10(signal / (error**2).sum()), rel=1e-6)
    assert m.max_relative_error == pytest.approx((error / np.abs(x[kept])).max(), rel=1e-6)
    if not clipped:
        assert m.max_ulp_error <= 0.5 or fmt.element.bits > 12


def test_scales_that_were_clamped_are_counted():
    x = np.ones((4, 32), np.float32)
    x[0] = 2.0**-140
    x[1] = 0.0
    m = lp.measure(x, "mxfp4")
    assert (m.blocks, m.clamped_blocks, m.clamped_share) == (4, 1, 0.25)
    assert lp.measure(x.astype(np.float64) * 1e300, "mxfp8_e4m3").clamped_blocks == 3
    assert lp.measure(x[2:], "nvfp4").clamped_blocks == 0
    x[2] = 2.0**-30
    assert lp.measure(x[2:], "nvfp4").clamped_blocks == 2
    huge = lp.measure([[1e40] * 16], "nvfp4", tensor_amax=1.0)
    assert (huge.clamped_blocks, huge.clipped) == (1, 16)


def test_measurements_of_blocks_merge_and_are_data():
    x = sample(2, (8, 64))
    whole = lp.measure(x, "mxfp4")
    parts = lp.measure(x[:3], "mxfp4") + lp.measure(x[3:], "mxfp4")
    assert parts == whole
    data = json.loads(json.dumps(whole.to_dict()))
    assert data["format"] == "mxfp4"
    assert data["blocks"] == 16
    assert data["clipped"] == whole.clipped
    with pytest.raises(ValueError, match="merge"):
        whole + lp.measure(x, "mxfp4:rceil")


def test_comparisons_list_block_formats_beside_formats():
    x = {"w": sample(3), "b": sample(4, (7,))}
    formats = ["bfloat16", "mxfp4", "mxfp4:rceil", "nvfp4", "float16"]
    table = lp.compare(x, formats)
    assert list(table.measurements["w"]) == formats
    assert table.measurements["w"]["mxfp4:rceil"].clipped == 0
    assert table.measurements["w"]["bfloat16"] == lp.measure(x["w"], "bfloat16")
    assert table.measurements["b"]["nvfp4"] == lp.measure(x["b"], "nvfp4")
    for text in (repr(table), table._repr_html_(), table.to_html()):
        assert "mxfp4:rceil" in text
    json.dumps(table.to_dict())


def test_advice_tells_what_clips_and_proposes_no_scale():
    x = np.array([1.0, 1.5, -1.9, 1.25] * 8, np.float32)
    advice = lp.advise(x, formats=["mxfp4", "mxfp8_e4m3:rceil", "float16"], tolerance=0.07)
    assert "clipped" in str(advice)
    assert set(map(str, advice.holding)) == {"mxfp8_e4m3:rceil", "float16"}
    assert advice.scales == {}
    json.dumps(advice.to_dict())
    x[3] = np.nan
    assert "beside NaN" in str(lp.advise(x, formats="mxfp4"))


# Products ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs",
    [("mxfp8_e4m3", "mxfp8_e5m2"), ("nvfp4", "nvfp4_2d"), ("mxfp4", "bfloat16"), "mxfp4:rceil"],
)
def test_each_operand_is_quantized_along_the_summed_axis(inputs):
    a, b = sample(5, (6, 70)), sample(6, (70, 9))
    fa, fb = (inputs, inputs) if isinstance(inputs, str) else inputs
    x = lp.round_to(a, fa)
    if isinstance(lp.get_format(fb), lp.Format) or lp.get_format(fb).is_tiled:
        y = lp.round_to(b, fb)
    else:
        y = lp.round_to(b, fb, axis=0)
    expected = lp.matmul(x, y, inputs="float32")
    assert_bits(lp.matmul(a, b, inputs=inputs), expected)
    assert_bits(lp.matmul(np.asfortranarray(a), b, inputs=inputs), expected)
    assert_bits(lp.dot(a, b, inputs=inputs), expected)
    stacked = lp.matmul(np.stack([a, -a]), b, inputs=inputs, accumulator="float16")
    assert_bits(stacked[0], lp.matmul(x, y, inputs="float32", accumulator="float16"))
    vector = lp.matmul(a[0], b[:, 0], inputs="mxfp4")
    assert vector == lp.matmul(
        lp.round_to(a[0], "mxfp4"), lp.round_to(b[:, 0], "mxfp4"), inputs="float32"
    )


def test_two_plain_formats_serve_as_well():
    a, b = sample(7, (4, 33)), sample(8, (33, 5))
    expected = lp.matmul(lp.round_to(a, "bfloat16"), lp.round_to(b, "float16"), inputs="float32")
    assert_bits(lp.matmul(a, b, inputs=("bfloat16", "float16")), expected)
    lists = lp.matmul(a.tolist(), b.tolist(), inputs=("mxfp4", "mxfp4"))
    assert_bits(lists, lp.matmul(a, b, inputs="mxfp4"))
    with pytest.raises(ValueError, match="one for a and one for b"):
        lp.matmul(a, b, inputs=("mxfp4",))


# Dask --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ["ties_to_even", "stochastic"])
@pytest.mark.parametrize("fmt", [f for f in ALL if f.scale.has_nan], ids=name)
def test_dask_arrays_get_the_bits_of_one_array(fmt, rounding):
    da = pytest.importorskip("dask.array", reason="dask is not installed")
    x = sample(9, (2, 4, 6, 64))
    amax = 100.0 if fmt.tensor_scale else None
    for axis in (-1,) if fmt.is_tiled else (-1, 0, 1, 2):
        unit = [1, 1, 1, 1]
        size = fmt.block
        if fmt.is_tiled:
            unit[2:] = size
        else:
            unit[axis] = x.shape[axis] if size is None else size
        chunks = tuple(
            max(u, min(3 * u, n // 2 // u * u)) for u, n in zip(unit, x.shape, strict=True)
        )
        options = {"axis": axis, "rounding": rounding, "rng": 5, "tensor_amax": amax}
        lazy = lp.round_to(da.from_array(x, chunks=chunks), fmt, **options)
        assert lazy.dtype == np.float32
        assert_bits(lazy.compute(scheduler="synchronous"), lp.round_to(x, fmt, **options))


def test_dask_chunks_that_cut_blocks_are_refused():
    da = pytest.importorskip("dask.array", reason="dask is not installed")
    x = da.from_array(sample(10, (4, 96)), chunks=(2, 40))
    with pytest.raises(ValueError, match=r"rechunk\(\{1: 64\}\)"):
        lp.round_to(x, "mxfp4")
    with pytest.raises(ValueError, match="tensor_amax"):
        lp.round_to(x.rechunk({1: 96}), "nvfp4")
    with pytest.raises(TypeError, match="map_blocks"):
        lp.quantize(x, "mxfp4")
    good = x.rechunk({1: 64})
    assert lp.round_to(good, "mxfp4").compute().shape == (4, 96)
    assert lp.measure(good, "mxfp4").compute() == lp.measure(np.asarray(x), "mxfp4")
    table = lp.compare({"x": good}, ["bfloat16", "mxfp4"]).compute()
    assert table.measurements["x"]["mxfp4"].blocks == 12


# Command line ------------------------------------------------------------------------------------


def test_formats_lists_them(capsys, monkeypatch):
    for columns in ("60", "80", "120"):
        monkeypatch.setenv("COLUMNS", columns)
        cli.main(["formats"])
        text = capsys.readouterr().out
        assert all(str(fmt) in text for fmt in NAMED)
        assert max(map(len, text.splitlines())) <= int(columns)


def test_compare_takes_them(capsys, tmp_path):
    np.save(tmp_path / "x.npy", sample(11))
    out = tmp_path / "fit.json"
    formats = "bfloat16,mxfp8_e4m3,nvfp4,mxfp4:rceil"
    cli.main(["compare", str(tmp_path / "x.npy"), "--formats", formats, "--json", str(out)])
    data = json.loads(out.read_text())
    (row,) = data.values()
    assert list(row) == formats.split(",")
    assert row["nvfp4"]["blocks"] == 12 * 5
    with pytest.raises(SystemExit):
        cli.main(["inspect", "1.0", "--format", "mxfp4"])
    assert "block format" in capsys.readouterr().err


def test_comparisons_show_what_blocks_clip_and_clamp():
    x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    rows = {"usual": x, "tiny": x * np.float32(1e-39)}
    with_blocks = lp.compare(rows, ["bfloat16", "mxfp4"])
    page, text = with_blocks.to_html(), shown(with_blocks, 80)
    clipped = with_blocks.measurements["usual"]["mxfp4"].clipped
    assert clipped > 0
    assert f"<td class=loss>{clipped:,}</td>" in page
    assert with_blocks.measurements["tiny"]["mxfp4"].clamped_share == 1
    assert "<td class=loss>100 %</td>" in page
    assert page.count("of block formats: ") == 4  # titles and legend
    assert "clipped" in text
    assert "clamped" in text
    without = lp.compare(rows, ["bfloat16", "float16"])
    assert "clipped" not in without.to_html() + shown(without, 120)
    narrow = shown(with_blocks, 50)
    assert max(map(len, narrow.splitlines())) <= 50
    assert "clamped" in narrow.partition("Left out for want of room: ")[2]


def shown(view, width):
    console = Console(width=width, color_system=None, file=io.StringIO())
    console.print(view)
    return console.file.getvalue()
