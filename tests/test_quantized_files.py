"""Quantized tensors of files mean their values: files that the libraries themselves have made."""

import json
import pickle
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import lowprec as lp
from lowprec.cli import main
from lowprec.tensors import convert, open_tensors, remote, write_tensors
from lowprec.tensors.request import ConversionRequest

DATA = Path(__file__).parent / "data" / "quantized"
VALUES = np.load(DATA / "values.npz")
NAMES = sorted(VALUES.files)
IN_BFLOAT16 = {"nvfp4", "fp8_channel", "int3_g32", "int4_g32", "int4_g96", "int8_g32"}
FORMATS = {
    "nvfp4": lp.nvfp4,
    "mxfp4": lp.mxfp4,
    "mxfp6": lp.mxfp6_e2m3,
    "mxfp8": lp.mxfp8_e4m3,
    "fp8_block": lp.fp8_128x128,
    "deepseek": lp.fp8_128x128,
    "gpt_oss": lp.mxfp4,
    "int8_channel": lp.int8_channel,
    "torchao_nvfp4": lp.nvfp4,
    "torchao_mxfp4": lp.mxfp4,
    "torchao_mxfp8": lp.mxfp8_e4m3,
}


def opened(name):
    return open_tensors(DATA / f"{name}.safetensors")["layer.weight"]


def exact(tensor):
    return np.concatenate([np.zeros(0), *tensor.values()]).reshape(tensor.shape)


@pytest.mark.parametrize("name", NAMES)
def test_one_tensor_has_the_values_that_its_library_gives(name):
    tensors = open_tensors(DATA / f"{name}.safetensors")
    assert list(tensors) == ["layer.weight"]
    tensor = tensors["layer.weight"]
    expected = VALUES[name]
    assert tensor.shape == expected.shape
    assert tensor.dtype == np.float32
    values = tensor.read()
    if name in IN_BFLOAT16:
        np.testing.assert_allclose(values, expected, rtol=2.0**-7)
    else:
        np.testing.assert_allclose(values, expected, rtol=2.0**-23)
    np.testing.assert_array_equal(exact(tensor).astype(np.float32), values)
    if name in FORMATS:
        assert tensor.fmt == FORMATS[name]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("bnb")])
def test_codes_and_scales_are_the_stored_parts(name):
    """Values follow from them exactly, as `Quantized.dequantize` and fractions have it."""
    tensor = opened(name)
    fmt, codes, scales = tensor.fmt, tensor.codes, tensor.scales
    assert codes.shape == tensor.shape
    if name in ("int4_zp", "torchao_int8"):
        return
    quantized = lp.Quantized(
        codes,
        scales if fmt.scale == lp.float32 else scales.astype(fmt.scale.code_dtype),
        None,
        fmt,
        tensor.axis,
        tensor.shape,
    )
    expected = quantized.dequantize("float64")
    if tensor.tensor_scale is not None:
        g = Fraction(float(tensor.tensor_scale))
        divides = name == "nvfp4"
        ratio = [
            Fraction(float(v)) / g if divides else Fraction(float(v)) * g
            for v in expected.reshape(-1)
        ]
        expected = np.array([float(v) for v in ratio]).reshape(expected.shape)
    found = exact(tensor)
    if isinstance(fmt.element, lp.IntegerFormat):  # which does not use the integer below -max_code
        unused = codes == -fmt.element.max_code - 1
        found, expected = found[~unused], expected[~unused]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("max_bytes", [8, 1000, 1 << 20])
def test_blocks_of_any_size_give_the_same(name, max_bytes):
    tensor = opened(name)
    whole = np.concatenate(list(tensor.values(max_bytes)))
    np.testing.assert_array_equal(whole.reshape(tensor.shape), exact(tensor))
    assert max(block.nbytes for block in tensor.values(max_bytes)) <= max_bytes
    scales = np.concatenate(list(tensor.element_scales(max_bytes)))
    assert scales.size == tensor.size


@pytest.mark.parametrize("name", NAMES)
def test_slabs_of_any_size_give_the_same(name, monkeypatch):
    expected = exact(opened(name))
    monkeypatch.setattr("lowprec.tensors.quantized.SLAB", 100)
    np.testing.assert_array_equal(exact(opened(name)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_conversion_rounds_the_exact_value_once(name, tmp_path):
    target = tmp_path / "out.safetensors"
    done = convert(DATA / f"{name}.safetensors", target, "bfloat16")
    assert (done.converted, done.unchanged) == (1, 0)
    found = open_tensors(target)
    assert list(found) == ["layer.weight"]
    np.testing.assert_array_equal(
        found["layer.weight"].read(), lp.cast(exact(opened(name)), "bfloat16")
    )


def test_what_is_not_converted_keeps_its_parts(tmp_path):
    source = tmp_path / "model.safetensors"
    stored = {
        t.name: t for file in [open_tensors(DATA / "nvfp4.safetensors")] for t in file.values()
    }
    tensor = stored["layer.weight"]
    write_tensors(
        source, {one.name: one for one in tensor.stored} | {"norm": np.float32([1.25, 3.7])}
    )
    target = tmp_path / "out.safetensors"
    convert(source, target, "float16", exclude="layer*")
    found = open_tensors(target)
    assert found["norm"].fmt == lp.float16
    np.testing.assert_array_equal(found["layer.weight"].codes, tensor.codes)
    np.testing.assert_array_equal(found["layer.weight"].scales, tensor.scales)


def test_codes_and_scales_in_two_shards_are_one_tensor(tmp_path):
    tensor = opened("deepseek")
    codes, scales = tensor.stored
    write_tensors(tmp_path / "m-00001-of-00002.safetensors", {"layer.weight_scale_inv": scales})
    write_tensors(tmp_path / "m-00002-of-00002.safetensors", {"layer.weight": codes})
    found = open_tensors(tmp_path / "m-*-of-*.safetensors")
    assert list(found) == ["layer.weight"]
    np.testing.assert_array_equal(found["layer.weight"].read(), tensor.read())
    convert(tmp_path / "m-*-of-*.safetensors", tmp_path / "out", "bfloat16")
    again = open_tensors(tmp_path / "out")
    np.testing.assert_array_equal(again["layer.weight"].read(), lp.cast(exact(tensor), "bfloat16"))


@pytest.mark.parametrize("name", NAMES)
def test_another_process_can_read_them(name, monkeypatch, tmp_path):
    monkeypatch.chdir(DATA)
    tensor = open_tensors(f"{name}.safetensors")["layer.weight"]
    parts, kept = remote.divide({"w": tensor}, 1 << 20)
    assert not kept
    told = pickle.dumps(parts[0].tensor)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(pickle.loads(told).read(), opened(name).read())


def test_compare_measures_values():
    tensors = open_tensors(DATA / "deepseek.safetensors")
    measured = lp.compare(tensors, ["bfloat16"]).measurements["layer.weight"]["bfloat16"]
    assert measured.max_abs == np.abs(exact(tensors["layer.weight"])).max()
    assert measured.count == tensors["layer.weight"].size


def test_diff_counts_in_steps_of_the_block_format():
    a = {"layer.weight": opened("nvfp4").read() * np.float32(1.001)}
    found = lp.diff(a, open_tensors(DATA / "nvfp4.safetensors"))
    assert found.fmt == lp.nvfp4
    assert found.max_ulps < 0.02


# What is not known -------------------------------------------------------------------------------


def unknown(path):
    rng = np.random.default_rng(0)
    tensors = {
        "a.qweight": rng.integers(0, 2**31, (16, 32)).astype("i4"),
        "a.qzeros": rng.integers(0, 2**31, (2, 4)).astype("i4"),
        "a.scales": rng.random((2, 32)).astype("f2"),
        "b.weight_packed": rng.integers(0, 255, (8, 10)).astype("u1"),
        "b.weight_scale": rng.random((8, 3)).astype("f4"),
        "c.input_scale": np.float32([0.5]),
        "norm.weight": np.float32([1, 2, 3]),
    }
    write_tensors(path, tensors)
    return tensors


def test_unknown_packings_are_named_and_left(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    tensors = unknown(path)
    found = open_tensors(path)
    assert {name for name, tensor in found.items() if tensor.left} == {
        *("a.qweight", "a.qzeros", "a.scales", "b.weight_packed", "b.weight_scale"),
        "c.input_scale",
    }
    assert "GPTQ" in found["a.scales"].left
    assert main(["compare", str(path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "norm.weight" in out
    assert "a.scales" not in out.partition("Left out")[0]
    left = sum(x.nbytes for name, x in tensors.items() if name != "norm.weight")
    assert f"Left out: 6 tensors, {left:,} bytes" in out
    target = tmp_path / "out.safetensors"
    convert(path, target, "bfloat16")
    again = open_tensors(target)
    assert again["a.scales"].dtype == np.float16
    assert again["norm.weight"].dtype == ml_dtypes.bfloat16


U1, I2, I4, F2, F4 = (np.dtype(kind) for kind in ("u1", "i2", "i4", "f2", "f4"))
E4, FNUZ = np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e4m3fnuz)
LEFT = {  # the parts of one module, as libraries name them
    "MLX": {"weight": ((8, 4), np.uint32), "scales": ((8, 1), F2), "biases": ((8, 1), F2)},
    "bitsandbytes' int8": {"weight": ((8, 8), np.int8), "SCB": (8, F4), "weight_format": ((), U1)},
    "EXL2": {"q_weight": ((8, 8), I4), "q_scale_max": (8, F2), "q_invperm": (8, I4)},
    "AQLM": {"codes": ((8, 8, 1), I2), "codebooks": ((1, 256, 1, 8), F2), "scales": ((8, 1), F2)},
    "QuIP#": {"Qidxs": ((8, 8), I2), "SU": (8, F2), "Wscale": ((), F2)},
    "HQQ": {"W_q": ((8, 8), U1), "scale": ((8, 1), F2), "zero": ((8, 1), F2)},
    "of a packing": {"B": ((8, 8), I4), "s": ((8, 1), F2)},
    "of a packing ": {"weight": ((8, 8), E4), "other_scale": ((8, 1), F2)},
    "of a packing  ": {"weight": ((8, 8), U1), "weight_scale": ((1,), F4)},
}


@pytest.mark.parametrize("packing", LEFT)
def test_what_stands_beside_codes_is_never_judged(packing, tmp_path):
    parts = {f"a.{name}": np.ones(shape, kind) for name, (shape, kind) in LEFT[packing].items()}
    others = {"a.bias": np.ones(8, "f4"), "b.weight": np.ones((8, 8), "f4")}
    others |= {"b.scale": np.ones(8, "f4"), "bn.num_batches_tracked": np.int64(3)}
    others |= {"swin.index": np.ones((8, 8), "i8"), "swin.table": np.ones((4, 8), "f4")}
    write_tensors(tmp_path / "m.safetensors", parts | others)
    found = open_tensors(tmp_path / "m.safetensors")
    assert {name for name, tensor in found.items() if tensor.left} == set(parts)
    assert all(packing.strip() in found[name].left for name in parts)


@pytest.mark.parametrize(
    ("codes", "scale", "shape"),
    [
        (("weight", (200, 160), E4), ("scale", (2, 2), F4), (128, 128)),  # DeepSeek's programs
        (("weight", (8, 6), E4), ("scale_weight", (), F4), (8, 6)),  # ComfyUI
        (("weight._data", (8, 6), np.dtype("i1")), ("weight._scale", (8, 1), F2), None),  # quanto
        (("weight", (4, 3, 3, 3), E4), ("weight_scale", (1,), F4), (3, 3)),  # a convolution
        (("weight", (6,), E4), ("weight_scale", (1,), F4), None),
        (("weight", (3, 4, 6), E4), ("weight_scale", (3,), F4), (4, 6)),  # a scale an expert
        (("weight", (4, 6), FNUZ), ("weight_scale", (4,), F4), None),
    ],
)
def test_codes_and_scales_of_other_names_and_shapes(codes, scale, shape, tmp_path):
    rng = np.random.default_rng(0)
    stored = rng.integers(-30, 30, codes[1]).astype("f4").astype(codes[2])
    scales = rng.random(scale[1]).astype(scale[2])
    parts = {f"a.{codes[0]}": stored, f"a.{scale[0]}": np.asarray(scales)}
    parts["scaled_fp8"] = np.zeros(0, E4)
    write_tensors(tmp_path / "m.safetensors", parts)
    found = open_tensors(tmp_path / "m.safetensors")
    assert set(found) == {"a.weight", "scaled_fp8"}
    assert found["scaled_fp8"].left
    tensor = found["a.weight"]
    assert tensor.fmt.block == shape
    wide = np.asarray(scales, "f8")
    if shape == (128, 128):
        wide = np.repeat(np.repeat(wide, 128, 0), 128, 1)[:200, :160]
    elif wide.size > 1:
        wide = wide.reshape(-1, *[1] * (stored.ndim - 1))
    np.testing.assert_array_equal(np.asarray(tensor), stored.astype("f8") * wide)
    assert lp.round_to(tensor, "bfloat16").shape == stored.shape


@pytest.mark.parametrize(
    ("dtype", "scale", "fmt"),
    [
        (ml_dtypes.float4_e2m1fn, ml_dtypes.float8_e8m0fnu, "mxfp4"),
        (ml_dtypes.float6_e2m3fn, ml_dtypes.float8_e8m0fnu, "mxfp6_e2m3"),
        (ml_dtypes.float4_e2m1fn, ml_dtypes.float8_e4m3fn, "nvfp4"),
    ],
)
def test_elements_that_share_bytes_have_scales(dtype, scale, fmt, tmp_path):
    x = np.linspace(-3, 3, 4 * 64).reshape(4, 64).astype("f4").astype(dtype)
    group = lp.get_format(fmt).block
    scales = np.full((4, 64 // group), 2.0, "f4").astype(scale)
    write_tensors(tmp_path / "m.safetensors", {"a.weight": x, "a.weight_scale": scales})
    tensor = open_tensors(tmp_path / "m.safetensors")["a.weight"]
    assert tensor.fmt == lp.get_format(fmt)
    np.testing.assert_array_equal(tensor.read(), x.astype("f4") * 2)


def test_the_count_of_what_is_left_stands_in_every_table(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"w": np.float32([1, 2]), "ids": np.arange(5)})
    page, figures = tmp_path / "t.html", tmp_path / "t.json"
    assert main(["compare", str(path), "--json", str(figures), "--html", str(page)]) == 0
    words = "Left out: 1 tensor, 40 bytes"
    assert words in capsys.readouterr().out
    assert words in page.read_text()
    assert json.loads(figures.read_text())["left_out"] == {
        "tensors": 1,
        "bytes": 40,
        "names": {"ids": "int64"},
    }


def test_shapes_that_do_not_agree_are_left_with_the_reason(tmp_path):
    codes, scales, in_all = opened("nvfp4").stored
    short = np.asarray(scales.read())[:, :-1]
    path = tmp_path / "m.safetensors"
    parts = {codes.name: codes, scales.name: short, in_all.name: in_all}
    write_tensors(path, parts)
    found = open_tensors(path)
    assert set(found) == set(parts)
    assert all(tensor.left for tensor in found.values())


@pytest.mark.parametrize(("kind", "bits"), [("F6_E2M3", 6), ("F6_E3M2", 6), ("F4", 4)])
def test_elements_that_share_bytes_are_read_and_written(kind, bits, tmp_path):
    fmt = lp.get_format(kind)
    x = lp.cast(np.random.default_rng(0).normal(size=(3, 8)), fmt)
    write_tensors(tmp_path / "a.safetensors", {"w": x})
    raw = (tmp_path / "a.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    info = json.loads(raw[8 : 8 + length])["w"]
    assert info["dtype"] == kind
    assert info["data_offsets"] == [0, 24 * bits // 8]
    stream = int.from_bytes(raw[8 + length :], "little")
    codes = [(stream >> (bits * i)) & ((1 << bits) - 1) for i in range(24)]
    assert codes == x.view(np.uint8).reshape(-1).tolist()
    np.testing.assert_array_equal(open_tensors(tmp_path / "a.safetensors")["w"].read(), x)


# Damaged and hostile files ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_wrong_shapes_dtypes_and_missing_parts_are_left_or_refused(name, tmp_path):
    """Whatever a header says of the parts, the rest of the file is read, in little memory."""
    raw = (DATA / f"{name}.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    rng = np.random.default_rng(len(name))
    stored = [key for key in header if key != "__metadata__"]
    kinds = {"U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E8M0": 1, "BF16": 2, "I32": 4, "F32": 4}
    for trial in range(30):
        changed = json.loads(json.dumps(header))
        key = stored[rng.integers(len(stored))]
        info = changed[key]
        begin, end = info["data_offsets"]
        kind = list(kinds)[rng.integers(len(kinds))]
        size, rest = divmod(end - begin, kinds[kind])
        if trial % 3 == 0 and not rest:
            info["dtype"] = kind
        width = kinds.get(info["dtype"])
        if width is None or (end - begin) % width:
            continue
        size = (end - begin) // width
        shapes = [[size], [1, size], [size, 1], [size, 1, 1], [1, 1, size, 1]]
        info["shape"] = shapes[rng.integers(len(shapes))]
        if trial % 5 == 0:
            changed[key + "_other"] = changed.pop(key)
        text = json.dumps(changed).encode()
        path = tmp_path / f"{trial}.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        try:
            for tensor in open_tensors(path).values():
                assert sum(block.size for block in tensor.values()) == tensor.size
        except ValueError as error:
            text = str(error)
            assert "\n" not in text


@pytest.mark.parametrize(
    "state",
    [
        b"{}",
        b"[",
        b'{"shape": [-1], "blocksize": 64}',
        b'{"shape": [30, 64], "blocksize": 0}',
        b'{"shape": [99999999999, 99999999999], "blocksize": 64}',
        b'{"shape": "ab", "blocksize": "c"}',
        b"[" * 60_000,
    ],
)
def test_damaged_states_of_bitsandbytes_are_left(state, tmp_path):
    stored = {tensor.name: tensor for tensor in opened("bnb_nf4").stored}
    key = next(name for name in stored if "quant_state" in name)
    path = tmp_path / "m.safetensors"
    write_tensors(path, stored | {key: np.frombuffer(state, np.uint8)})
    assert all(tensor.left for tensor in open_tensors(path).values())


def sparse(path, parts):
    """Write a header for tensors of zeros that take no place on the disk."""
    header, begin = {}, 0
    for name, kind, shape in parts:
        size = int(np.prod(shape)) * {"U8": 1, "F8_E4M3": 1, "F32": 4, "BF16": 2}[kind]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, begin + size]}
        begin += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + begin)
    return begin


def test_a_large_checkpoint_needs_no_more_memory_than_a_small_one(tmp_path):
    """Sparse files: 20 GB are opened and planned for, and read in part, each as its kind is."""
    resource = pytest.importorskip("resource")
    rows, columns = 1 << 16, 1 << 16
    path = tmp_path / "large.safetensors"
    size = sparse(
        path,
        [
            ("a_packed", "U8", [rows, columns // 2]),
            ("a_scale", "F8_E4M3", [rows, columns // 16]),
            ("a_global_scale", "F32", [1]),
            ("b", "F8_E4M3", [rows, columns]),
            ("b_scale_inv", "F32", [rows // 128, columns // 128]),
            ("c_blocks", "U8", [1 << 10, 1 << 10, 1 << 8, 16]),
            ("c_scales", "U8", [1 << 10, 1 << 10, 1 << 8]),
            ("d", "BF16", [rows + 8192, columns]),
        ],
    )
    assert size > 20e9
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tensors = open_tensors(path)
    assert [str(tensor.fmt) for tensor in tensors.values()] == [
        *("nvfp4", "fp8_128x128", "mxfp4", "bfloat16")
    ]
    how = ConversionRequest(lp.mxfp4, ("", ""), None, False, ("*",), ())
    for tensor in tensors.values():
        assert len(how.planned(tensor)) == (2 if len(tensor.shape) == 2 else 1)
        for i, block in enumerate(tensor.values()):
            assert not np.nan_to_num(block.astype("f4")).any()  # NaN: zeros over a scale of 0
            if i == 20:
                break
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # kilobytes


@pytest.mark.parametrize("fmt", ["nvfp4", "fp8_128x128", "int8_channel"])
def test_blocks_of_a_file_are_measured_and_compared_by_piece(fmt, tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    arrays = {"m": rng.normal(size=(150, 200)).astype("f4"), "empty": np.zeros((0, 3), "f4")}
    arrays |= {"e": lp.cast(rng.normal(size=(3, 150, 40)), "bfloat16"), "i": np.ones((4, 5), int)}
    write_tensors(tmp_path / "m.safetensors", arrays)
    tensors = open_tensors(tmp_path / "m.safetensors")
    whole = {name: lp.measure(x, fmt) for name, x in arrays.items()}
    apart = lp.diff(arrays, {name: x * 2 for name, x in arrays.items()}, fmt).to_dict()
    monkeypatch.setattr(type(tensors["m"]), "read", None)  # never all of it
    for name, tensor in tensors.items():
        assert lp.measure(tensor, fmt) == whole[name]
    doubled = {name: x * 2 for name, x in arrays.items()}
    assert lp.diff(tensors, doubled, fmt).to_dict() == apart


# Layouts whose libraries need a GPU: files written by their published names ----------------------


def test_modelopts_nvfp4_is_multiplied_by_its_second_scale(tmp_path):
    codes, scales, in_all = opened("nvfp4").stored
    parts = {
        "a.weight": codes,
        "a.weight_scale": scales,
        "a.weight_scale_2": np.float32(2.0**-13).reshape(()),
        "a.input_scale": np.float32(1.0).reshape(()),
    }
    write_tensors(tmp_path / "m.safetensors", parts)
    found = open_tensors(tmp_path / "m.safetensors")
    assert set(found) == {"a.weight", "a.input_scale"}
    assert found["a.weight"].fmt == lp.nvfp4
    g = float(in_all.read()[0])
    np.testing.assert_allclose(exact(found["a.weight"]), exact(opened("nvfp4")) * g * 2.0**-13)


@pytest.mark.parametrize(
    "names", [("w._rowwise_data", "w._rowwise_scale_inv"), ("w._data", "w._scale_inv")]
)
def test_transformer_engines_parts_are_one_tensor(names, tmp_path):
    codes, scales = opened("mxfp8").stored
    raw = np.asarray(codes.read()).view(np.uint8)
    write_tensors(tmp_path / "m.safetensors", {names[0]: raw, names[1]: scales})
    found = open_tensors(tmp_path / "m.safetensors")
    assert list(found) == ["w"]
    np.testing.assert_array_equal(found["w"].read(), opened("mxfp8").read())


def test_scales_that_are_padded_for_a_gpu_are_left(tmp_path):
    codes, _ = opened("mxfp8").stored
    raw = np.asarray(codes.read()).view(np.uint8)
    padded = np.zeros((128, 4), np.uint8)
    parts = {"w._rowwise_data": raw, "w._rowwise_scale_inv": padded}
    write_tensors(tmp_path / "m.safetensors", parts)
    assert all(tensor.left for tensor in open_tensors(tmp_path / "m.safetensors").values())


def test_fp4_of_experts_is_told_by_its_scales(tmp_path):
    codes, scales = opened("mxfp4").stored
    parts = {
        "w": np.asarray(codes.read()).view(np.int8),
        "w_scale_inv": np.asarray(scales.read()).view(ml_dtypes.float8_e8m0fnu),
    }
    write_tensors(tmp_path / "m.safetensors", parts)
    tensor = open_tensors(tmp_path / "m.safetensors")["w"]
    assert tensor.fmt == lp.mxfp4
    np.testing.assert_array_equal(tensor.read(), opened("mxfp4").read())
