"""Quantized layouts are written as other programs read them, whole, resumable, and by block."""

import json

import numpy as np
import pytest

import lowprec as lp
from lowprec.cli import main
from lowprec.tensors import convert, open_tensors, write_tensors

LAYOUTS = ["nvfp4", "mxfp4", "mxfp6_e2m3", "mxfp8_e4m3", "fp8_128x128"]
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(0, 0.05, (140, 96)).astype("f4")


def model(folder):
    folder.mkdir()
    shards = {
        "model-00001-of-00002.safetensors": {
            "model.embed_tokens.weight": RNG.normal(size=(50, 96)).astype("f4"),
            "model.layers.0.q_proj.weight": WEIGHT,
            "model.layers.0.q_proj.bias": np.zeros(140, "f4"),
        },
        "model-00002-of-00002.safetensors": {
            "model.layers.0.up_proj.weight": lp.cast(WEIGHT[:64], "bfloat16"),
            "model.layers.0.odd.weight": np.ones((4, 33), "f4"),
            "model.norm.weight": np.ones(96, "f4"),
            "lm_head.weight": np.ones((50, 96), "f4"),
        },
    }
    for name, tensors in shards.items():
        write_tensors(folder / name, tensors)
    index = {key: name for name, tensors in shards.items() for key in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / "config.json").write_text(json.dumps({"hidden_size": 96}))
    return folder


@pytest.mark.parametrize("fmt", LAYOUTS)
def test_what_is_written_is_what_quantize_gives(fmt, tmp_path, monkeypatch):
    monkeypatch.setattr("lowprec.tensors.layouts.SLAB", 1000)
    write_tensors(tmp_path / "a.safetensors", {"w": WEIGHT, "ids": np.arange(3)})
    done = convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", fmt)
    assert (done.converted, done.unchanged) == (1, 1)
    tensor = open_tensors(tmp_path / "b.safetensors")["w"]
    expected = lp.quantize(WEIGHT, fmt)
    assert tensor.fmt == lp.get_format(fmt)
    np.testing.assert_array_equal(tensor.codes, expected.codes)
    np.testing.assert_array_equal(tensor.scales, expected.scales)
    if expected.tensor_scale is None:
        np.testing.assert_array_equal(tensor.read(), expected.dequantize())
    else:
        assert tensor.tensor_scale == np.float32(1 / float(expected.tensor_scale))
        np.testing.assert_allclose(tensor.read(), expected.dequantize(), rtol=2.0**-22)


def test_rules_of_scales_are_written_in_the_same_layout(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"w": WEIGHT})
    for fmt in ("mxfp4:rceil", "nvfp4_46"):
        target = tmp_path / f"{fmt.partition(':')[0]}.safetensors"
        convert(tmp_path / "a.safetensors", target, fmt)
        np.testing.assert_array_equal(
            open_tensors(target)["w"].codes, lp.quantize(WEIGHT, fmt).codes
        )


@pytest.mark.parametrize("fmt", LAYOUTS)
def test_a_model_has_a_config_and_an_index_that_are_true(fmt, tmp_path):
    source, target = model(tmp_path / "model"), tmp_path / "out"
    convert(source, target, fmt)
    config = json.loads((target / "config.json").read_text())
    assert config["hidden_size"] == 96
    quantized = config["quantization_config"]
    left = quantized.get("ignore", quantized.get("modules_to_not_convert"))
    assert {"lm_head", "model.embed_tokens"} <= set(left)
    assert "model.layers.0.q_proj" not in left
    index = json.loads((target / "model.safetensors.index.json").read_text())
    stored = {}
    for file in target.glob("*.safetensors"):
        from lowprec.tensors.opening import read_file

        stored |= {tensor.name: file.name for tensor in read_file(file).tensors}
    assert index["weight_map"] == stored
    tensors = open_tensors(target)
    assert tensors["model.layers.0.q_proj.weight"].fmt == lp.get_format(fmt)
    assert tensors["lm_head.weight"].fmt == lp.float32
    assert tensors["model.norm.weight"].fmt == lp.float32
    again = tmp_path / "again"
    convert(target, again, "bfloat16")
    assert json.loads((again / "config.json").read_text()) == {"hidden_size": 96}
    found = open_tensors(again)
    assert set(found) == set(open_tensors(source))
    exact = np.concatenate(list(tensors["model.layers.0.q_proj.weight"].values()))
    np.testing.assert_array_equal(
        found["model.layers.0.q_proj.weight"].read().reshape(-1), lp.cast(exact, "bfloat16")
    )


def test_names_that_are_asked_for_are_quantized(tmp_path):
    source = model(tmp_path / "model")
    convert(source, tmp_path / "out", "mxfp4", include="lm_head*")
    found = open_tensors(tmp_path / "out")
    assert found["lm_head.weight"].fmt == lp.mxfp4
    assert found["model.layers.0.q_proj.weight"].fmt == lp.float32


def test_a_run_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    source = model(tmp_path / "model")
    convert(source, tmp_path / "whole", "nvfp4")
    from lowprec.tensors import converting

    write, calls = converting.write_file, []

    def failing(path, *args, **how):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(path, *args, **how)

    monkeypatch.setattr(converting, "write_file", failing)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", "nvfp4")
    monkeypatch.undo()
    done = convert(source, tmp_path / "out", "nvfp4")
    assert len(done.skipped) == 1
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"to": "int4_g32"}, "no layout that other programs read"),
        ({"to": "mxfp4", "rounding": "stochastic"}, "deterministic rounding"),
        ({"to": "mxfp4", "scale": True}, "finds its own scales"),
        ({}, "say what to convert to"),
    ],
)
def test_what_layouts_do_not_hold_is_refused(how, words, tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"w": WEIGHT})
    with pytest.raises(ValueError, match=words):
        convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", **how)


def test_quantized_layouts_are_of_safetensors(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"w": WEIGHT})
    with pytest.raises(ValueError, match=r"are of \.safetensors"):
        convert(tmp_path / "a.safetensors", tmp_path / "b.npz", "mxfp4")
    assert not (tmp_path / "b.npz").exists()


@pytest.mark.parametrize("rows", [256, 140])
def test_the_experts_of_one_tensor_are_written_in_tiles(rows, tmp_path, capsys, monkeypatch):
    """As transformers has them; layouts of rows hold matrices alone, which the command says."""
    monkeypatch.setattr("lowprec.tensors.layouts.SLAB", 128 * 200)
    experts = RNG.normal(size=(3, rows, 200)).astype("f4")
    source = tmp_path / "model"
    source.mkdir()
    name = "experts.gate_up_proj"
    write_tensors(source / "model.safetensors", {name: experts, "q.weight": WEIGHT})
    (source / "config.json").write_text("{}")
    convert(source, tmp_path / "fp8", "fp8_128x128")
    stored = open_tensors(tmp_path / "fp8")[name].stored
    assert [(one.name, one.shape) for one in stored] == [
        (name, experts.shape),
        (f"{name}_scale_inv", (3, -(-rows // 128), 2)),
    ]
    expected = lp.quantize(experts, "fp8_128x128")
    np.testing.assert_array_equal(open_tensors(tmp_path / "fp8")[name].codes, expected.codes)
    np.testing.assert_array_equal(stored[1].read(), expected.scales)
    assert main(["convert", str(source), "--to", "mxfp4", "-o", str(tmp_path / "fp4")]) == 0
    assert "1 weights stay as they are" in capsys.readouterr().err
    assert open_tensors(tmp_path / "fp4")[name].fmt == lp.float32


def test_a_single_file_that_keeps_its_name_gets_a_config(tmp_path, capsys):
    source = tmp_path / "model"
    source.mkdir()
    write_tensors(source / "model.safetensors", {"q.weight": WEIGHT})
    (source / "config.json").write_text('{"hidden_size": 96}')
    file, target = str(source / "model.safetensors"), tmp_path / "out" / "model.safetensors"
    target.parent.mkdir()
    assert main(["convert", file, "--to", "mxfp4", "-o", str(target)]) == 0
    assert not capsys.readouterr().err
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["hidden_size"] == 96
    assert config["quantization_config"]["format"] == "mxfp4-pack-quantized"
    for other in ("elsewhere.safetensors", "model/quantized.safetensors"):
        assert main(["convert", file, "--to", "mxfp4", "-o", str(tmp_path / other)]) == 0
        assert "no config.json tells" in capsys.readouterr().err
    assert not (tmp_path / "config.json").exists()
    assert (source / "config.json").read_text() == '{"hidden_size": 96}'


def test_a_config_tells_which_layers_lost_their_packing(tmp_path):
    source = model(tmp_path / "model")
    convert(source, tmp_path / "out", "mxfp4")
    some = "*q_proj.weight"
    with pytest.raises(ValueError, match=r"config\.json tells of one"):
        convert(tmp_path / "out", tmp_path / "mixed", "nvfp4", include=some)
    convert(tmp_path / "out", tmp_path / "part", "bfloat16", include=some)
    config = json.loads((tmp_path / "part" / "config.json").read_text())["quantization_config"]
    assert "model.layers.0.q_proj" in config["ignore"]
    assert open_tensors(tmp_path / "part")["model.layers.0.up_proj.weight"].fmt == lp.mxfp4


def test_the_command_writes_a_layout(tmp_path, capsys):
    source = model(tmp_path / "model")
    assert main(["convert", str(source), "--to", "nvfp4", "-o", str(tmp_path / "out")]) == 0
    assert "2 tensors converted to nvfp4, 5 unchanged" in capsys.readouterr().out
    assert main(["diff", str(source), str(tmp_path / "out"), "--tolerance", "0.51"]) == 0


@pytest.mark.parametrize("fmt", ["nvfp4", "mxfp4", "mxfp6_e2m3", "mxfp8_e4m3"])
def test_compressed_tensors_reads_the_same_values(fmt, tmp_path):
    pytest.importorskip("compressed_tensors")
    safetensors = pytest.importorskip("safetensors.torch")
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    source = model(tmp_path / "model")
    convert(source, tmp_path / "out", fmt)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    scheme = QuantizationConfig.model_validate(config).config_groups["group_0"]
    stored = safetensors.load_file(tmp_path / "out" / "model-00001-of-00002.safetensors")
    layer = "model.layers.0.q_proj.weight"
    state = {f"weight{k[len(layer) :]}": v for k, v in stored.items() if k.startswith(layer)}
    reader = BaseCompressor.get_value_from_registry(config["format"])
    theirs = reader.decompress(state, scheme)["weight"].float().numpy()
    ours = open_tensors(tmp_path / "out")[layer].read()
    if fmt == "nvfp4":  # it computes in bfloat16
        np.testing.assert_allclose(theirs, ours, rtol=2.0**-7)
    else:
        np.testing.assert_array_equal(theirs, ours)


def test_transformers_reads_the_same_values_of_tiles(tmp_path):
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    weights = {"experts.gate_up_proj": RNG.normal(size=(3, 256, 128)).astype("f4")}
    weights["q.weight"] = RNG.normal(size=(256, 384)).astype("f4")
    write_tensors(tmp_path / "a.safetensors", weights)
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "fp8_128x128")
    stored = safetensors.load_file(tmp_path / "b.safetensors")
    read = Fp8Dequantize(None)._dequantize_one
    for name in weights:
        theirs = read(stored[name], stored[f"{name}_scale_inv"], output_dtype=torch.float32)
        ours = open_tensors(tmp_path / "b.safetensors")[name].read()
        np.testing.assert_array_equal(theirs.numpy(), ours)
