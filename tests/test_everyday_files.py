"""Files as people have them: torch's older forms, training folders, and other libraries' kinds."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest

import lowprec as lp
from lowprec.cli import main
from lowprec.tensors import open_tensors, write_tensors

X = np.random.default_rng(0).normal(size=(6, 8)).astype("f4")


def values(path, name, **how):
    tensor = open_tensors(path, **how)[name]
    blocks = np.concatenate([*tensor.values(max_bytes=64)]).reshape(tensor.shape)
    np.testing.assert_array_equal(tensor.read(), blocks)
    return blocks


# torch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["old.pt", "checkpoint.pth.tar", "model.PTH"])
@pytest.mark.parametrize("is_archive", [True, False])
def test_both_of_torchs_forms_are_read(name, is_archive, tmp_path):
    torch = pytest.importorskip("torch")
    content = {"state_dict": {"w": torch.tensor(X)}, "epoch": 3}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=is_archive)
    np.testing.assert_array_equal(values(tmp_path / name, "state_dict.w"), X)


def test_the_older_form_runs_no_program(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "m.pt"
    path.write_bytes(pickle.dumps({"w": io.BytesIO(b"a")}))
    with pytest.raises(ValueError, match="torch does not load it as tensors alone"):
        open_tensors(path)


@pytest.mark.parametrize("is_archive", [False, True])
def test_arrays_of_numpy_beside_tensors_are_read(is_archive, tmp_path):
    torch = pytest.importorskip("torch")
    content = {"w": torch.ones(2), "mean": X, "best": np.float64(0.5), "name": np.array(["a"])}
    content["objects"] = np.array([{}, 1], dtype=object)
    path = tmp_path / "a.pth.tar"
    torch.save(content, path, _use_new_zipfile_serialization=is_archive)
    if is_archive:
        with pytest.raises(ValueError, match="does not load it as tensors alone"):
            open_tensors(path)
    del content["objects"], content["name"]
    torch.save(content, path, _use_new_zipfile_serialization=is_archive)
    found = open_tensors(path)
    assert list(found) == ["w", "mean"]
    np.testing.assert_array_equal(found["mean"].read(), X)


def test_an_archive_of_a_version_to_come_is_torchs_to_judge(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    content = bytearray((tmp_path / "a.pt").read_bytes())
    entry = content.rindex(b"PK\1\2")
    content[entry + 6] = 228  # the version that is needed to unpack
    (tmp_path / "a.pt").write_bytes(content)
    assert open_tensors(tmp_path / "a.pt")["w"].shape == (2,)  # torch does not ask for it


def test_what_is_not_torchs_is_refused_in_one_line(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "weights.bin").write_bytes(bytes([21, 0, 1, 2]) * 50)
    with pytest.raises(ValueError, match=r"another program's .* as in --as bfloat16"):
        open_tensors(tmp_path / "weights.bin")
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps({"w": X}))
    with pytest.raises(ValueError, match=r"pickled arrays save with numpy\.savez"):
        open_tensors(tmp_path / "a.ckpt")


@pytest.mark.filterwarnings("ignore")
def test_programs_are_refused_with_the_line_that_helps(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "m.jit"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    with pytest.raises(ValueError, match=r"torch\.save\(torch\.jit\.load\('m\.jit'\)\.state_dict"):
        open_tensors(path)


# Folders ----------------------------------------------------------------------------------------


def test_of_a_training_folder_the_weights_are_the_model(tmp_path, caplog):
    write_tensors(tmp_path / "model.safetensors", {"w": X})
    write_tensors(tmp_path / "optimizer.safetensors", {"exp_avg": X})
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        (tmp_path / name).write_bytes(b"x")
    assert list(open_tensors(tmp_path)) == ["w"]
    assert "training_args.bin" in caplog.text or "more left" in caplog.text


def test_torchs_weights_are_the_model_where_the_optimizer_is_of_another_kind(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.tensor(X)}, tmp_path / "pytorch_model.bin")
    write_tensors(tmp_path / "optimizer.safetensors", {"exp_avg": X})
    assert list(open_tensors(tmp_path)) == ["w"]


def test_torchs_index_names_its_shards(tmp_path):
    torch = pytest.importorskip("torch")
    shards = {f"w{i}": f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)}
    for key, name in shards.items():
        torch.save({key: torch.tensor(X)}, tmp_path / name)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    assert set(open_tensors(tmp_path)) == set(open_tensors(index)) == set(shards)


def test_the_parts_of_a_pipeline_are_named_by_their_folders(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    for part in ("unet", "vae"):
        (tmp_path / part).mkdir()
        write_tensors(tmp_path / part / "diffusion_pytorch_model.safetensors", {"w": X})
    assert set(open_tensors(tmp_path)) == {"unet/w", "vae/w"}
    assert main(["compare", str(tmp_path), "--formats", "bfloat16"]) == 0


# npz --------------------------------------------------------------------------------------------


def test_one_bad_member_does_not_refuse_the_others(tmp_path, capsys):
    path = tmp_path / "a.npz"
    np.savez(path, w=X, labels=np.array([{"a": 1}], dtype=object))
    tensors = open_tensors(path)
    np.testing.assert_array_equal(tensors["w"].read(), X)
    with pytest.raises(ValueError, match="pickled objects"):
        tensors["labels"].read()
    assert main(["compare", str(path)]) == 0
    assert "Left out: 1 tensor" in capsys.readouterr().out


# Other libraries' files -------------------------------------------------------------------------


def test_gguf(tmp_path):
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "m.gguf"
    wide = np.random.default_rng(1).normal(size=(4, 256)).astype("f4")
    kinds = [gguf.GGMLQuantizationType[k] for k in ("Q8_0", "Q4_0", "Q5_1", "BF16", "F16", "F32")]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("tokens", ["a", "b"])
    packed = {kind.name: gguf.quants.quantize(wide, kind) for kind in kinds}
    for kind in kinds:
        writer.add_tensor(kind.name, packed[kind.name], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors = open_tensors(path)
    assert tensors["BF16"].fmt == lp.bfloat16
    for kind in kinds:
        expected = gguf.quants.dequantize(packed[kind.name], kind)
        assert tensors[kind.name].shape == (4, 256)
        np.testing.assert_array_equal(values(path, kind.name).astype("f4"), expected)


def test_onnx(tmp_path):
    onnx = pytest.importorskip("onnx")
    named = {"w": X, "ids": np.arange(4), "h": X.astype("f2"), "b": lp.cast(X, "bfloat16")}
    tensors = [onnx.numpy_helper.from_array(x, name) for name, x in named.items()]
    graph = onnx.helper.make_graph([], "g", [], [], initializer=tensors)
    model = onnx.helper.make_model(graph)
    onnx.save(model, tmp_path / "m.onnx")
    for name, x in named.items():
        np.testing.assert_array_equal(values(tmp_path / "m.onnx", name), x)
    onnx.save(model, tmp_path / "e.onnx", save_as_external_data=True, location="e.data",
              size_threshold=0)  # fmt: skip
    np.testing.assert_array_equal(values(tmp_path / "e.onnx", "w"), X)


def test_onnx_names_begin_as_those_of_torch_do(tmp_path):
    """A slash before the name of a node is not a folder; quantized initializers are one tensor."""
    onnx = pytest.importorskip("onnx")
    codes = np.uint8([[0, 128, 255]])
    parts = {"w_quantized": codes, "w_scale": np.float32(0.5), "w_zero_point": np.uint8(130)}
    parts |= {"/model/stft/Constant_output_0": X, "v_quantized": codes.astype("i1")}
    parts |= {"v_scale": np.float32([2, 3, 4])}  # along which axis, the file does not say
    stored = [onnx.numpy_helper.from_array(np.asarray(x), name) for name, x in parts.items()]
    graph = onnx.helper.make_graph([], "g", [], [], initializer=stored)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "a.onnx")
    found = open_tensors(tmp_path / "a.onnx")
    assert {name for name in found if not found[name].left} == {"w", "model/stft/Constant_output_0"}
    assert found["w"].read().tolist() == [[-65.0, -1.0, 62.5]]
    assert found["w"].codes.tolist() == [[-128, 0, 127]]


def test_hdf5_and_keras(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("layer/kernel", data=X, chunks=(2, 3), compression="gzip")
        file.create_dataset("step", data=7)
        file.create_dataset("names", data=[b"a"])
    np.testing.assert_array_equal(values(tmp_path / "a.h5", "layer/kernel"), X)
    tensors = open_tensors(tmp_path / "a.h5")
    assert tensors["step"].read() == 7
    assert tensors["names"].left
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.write(tmp_path / "a.h5", "model.weights.h5")
    np.testing.assert_array_equal(values(tmp_path / "m.keras", "layer/kernel"), X)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", [2, 3])
def test_zarr(tmp_path, version):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    group.create_array("deep/w", data=X, chunks=(2, 3))
    np.testing.assert_array_equal(values(tmp_path / "a.zarr", "deep/w"), X)
    assert main(["compare", str(tmp_path / "a.zarr")]) == 0


def test_netcdf(tmp_path):
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(tmp_path / "a.nc", "w") as data:
        data.createDimension("y", 6)
        data.createDimension("x", 8)
        data.createVariable("t", "f4", ("y", "x"), fill_value=-999)[:] = X
        packed = data.createVariable("p", "i2", ("y", "x"), fill_value=-32768)
        packed.scale_factor, packed.add_offset = 0.01, 273.15
        packed[:] = np.ma.masked_where(X > 1, 280 + X)
    np.testing.assert_array_equal(values(tmp_path / "a.nc", "t"), X)
    found = values(tmp_path / "a.nc", "p")
    np.testing.assert_array_equal(np.isnan(found), X > 1)
    np.testing.assert_allclose(found[X <= 1], 280 + X[X <= 1], atol=0.006)


# Bare codes -------------------------------------------------------------------------------------


def test_bytes_are_what_the_caller_says(tmp_path, capsys):
    codes = lp.encode(X, "bfloat16")
    (tmp_path / "w.bin").write_bytes(codes.tobytes())
    (tmp_path / "b.bin").write_bytes(codes.astype(">u2").tobytes())
    expected = lp.round_to(X, "bfloat16")
    found = values(tmp_path / "w.bin", "w", fmt="bfloat16", shape=(6, 8))
    np.testing.assert_array_equal(found.astype("f4"), expected)
    found = values(tmp_path / "b.bin", "b", fmt="bfloat16", byteorder="big")
    np.testing.assert_array_equal(found.astype("f4"), expected.reshape(-1))
    raw = ["--as", "bfloat16", "--shape", "6,8"]
    assert main(["compare", str(tmp_path / "w.bin"), *raw, "--formats", "float16"]) == 0
    assert "48 numbers" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "b.bin"), "--as", "bfloat16", "--byteorder", "big",
                 "--to", "float32", "-o", str(tmp_path / "o.npy")]) == 0  # fmt: skip
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), expected.reshape(-1))
    with pytest.raises(ValueError, match="another number"):
        open_tensors(tmp_path / "w.bin", fmt="bfloat16", shape=(7, 8))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.hex", "3F80 4000\n// a comment\nC049"),
        ("a.txt", "0x3f80, 0x4000 # two\n0xc049"),
        ("a.csv", "16256,16384\n0xC049\n"),
    ],
)
def test_codes_in_a_text(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    found = open_tensors(tmp_path / name, fmt="bfloat16")["a"].read()
    assert found.astype("f4").tolist() == [1.0, 2.0, -3.140625]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [("a.hex", "zz", "is not a code in base 16"), ("a.csv", "65536", "is not a code of bfloat16")],
)
def test_what_is_no_code_is_refused(name, text, words, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        open_tensors(tmp_path / name, fmt="bfloat16")


# Damaged and hostile files ------------------------------------------------------------------------


def made(kind, folder):
    """Write a small file of a kind; return its path."""
    path = folder / f"a.{kind}"
    if kind == "gguf":
        gguf = pytest.importorskip("gguf")
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_array("tokens", ["a", "b"])
        writer.add_tensor("w", X)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    elif kind == "onnx":
        onnx = pytest.importorskip("onnx")
        one = onnx.numpy_helper.from_array(X, "w")
        graph = onnx.helper.make_graph([], "g", [], [], initializer=[one])
        onnx.save(onnx.helper.make_model(graph), path)
    elif kind == "h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file.create_dataset("w", data=X, chunks=(2, 3), compression="gzip")
    elif kind == "keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(made("h5", folder), "model.weights.h5")
    elif kind == "pt":
        torch = pytest.importorskip("torch")
        content = {"w": torch.tensor(X), "v": [torch.ones(3, dtype=torch.bfloat16)]}
        torch.save(content, path, _use_new_zipfile_serialization=False)
    elif kind == "zarr.zip":
        zarr = pytest.importorskip("zarr")
        with zarr.storage.ZipStore(path, mode="w") as store:
            zarr.create_array(store, name="w", data=X, chunks=(2, 3))
    else:
        netcdf = pytest.importorskip("netCDF4")
        form = "NETCDF3_CLASSIC" if kind == "nc" else "NETCDF4"
        with netcdf.Dataset(path, "w", format=form) as data:
            data.createDimension("x", 48)
            data.createVariable("w", "f4", ("x",))[:] = X.reshape(-1)
    return path


KINDS = ["gguf", "onnx", "h5", "keras", "nc", "nc4", "pt", "zarr.zip"]


@pytest.mark.filterwarnings("ignore::UserWarning:zarr", "ignore::UserWarning:zipfile")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused_in_one_line(kind, tmp_path):
    path = made(kind, tmp_path)
    whole = path.read_bytes()
    rng, refusals = np.random.default_rng(0), []
    for trial in range(60):
        content = bytearray(whole)
        if trial % 3 == 0:
            content = content[: rng.integers(len(content))]
        else:
            for place in rng.integers(0, min(len(content), 2000), 4):
                content[place] = rng.integers(256)
        broken = tmp_path / f"{trial}.{kind}"
        broken.write_bytes(content)
        try:
            for tensor in open_tensors(broken).values():
                if not tensor.left and tensor.nbytes < 1 << 20:
                    list(tensor.values())
        except (ValueError, OSError) as error:
            refusals.append(str(error))
    assert refusals
    assert not [text for text in refusals if "\n" in text or len(text) > 700]


def test_endless_lists_in_a_header_are_refused(tmp_path):
    pytest.importorskip("gguf")
    path = tmp_path / "a.gguf"
    head = b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little")
    key = (1).to_bytes(8, "little") + b"k" + (9).to_bytes(4, "little")
    endless = (4).to_bytes(4, "little") + (2**60).to_bytes(8, "little")
    path.write_bytes(head + (1).to_bytes(8, "little") + key + endless)
    with pytest.raises(ValueError, match="more than fit in it"):
        open_tensors(path)


def test_elements_in_other_files_are_not_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(400))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("w", (100,), "f4", external=[(str(secret), 0, 400)])
    with pytest.raises(ValueError, match="in another file"):
        open_tensors(tmp_path / "a.h5")
    onnx = pytest.importorskip("onnx")
    one = onnx.numpy_helper.from_array(X, "w")
    one.ClearField("raw_data")
    one.data_location = onnx.TensorProto.EXTERNAL
    entry = one.external_data.add()
    entry.key, entry.value = "location", "../secret"
    graph = onnx.helper.make_graph([], "g", [], [], initializer=[one])
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "m.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(ValueError, match="a path out of its folder"):
        open_tensors(tmp_path / "deep" / "m.onnx")


@pytest.mark.parametrize("kind", ["h5", "nc", "zarr"])
def test_claims_of_endless_zeros_are_left(kind, tmp_path):
    path, shape, chunks = tmp_path / f"a.{kind}", (10**6, 10**6), (100, 100)
    if kind == "h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file.create_dataset("w", shape, "f4", chunks=chunks)
    elif kind == "nc":
        netcdf = pytest.importorskip("netCDF4")
        with netcdf.Dataset(path, "w") as data:
            data.createDimension("x", 10**6)
            data.createVariable("w", "f4", ("x", "x"), chunksizes=chunks)
    else:
        zarr = pytest.importorskip("zarr")
        zarr.open_group(path, mode="w").create_array("w", shape=shape, chunks=chunks, dtype="f4")
    assert "are told" in open_tensors(path)["w"].left


def test_lists_of_a_netcdf_header_are_within_the_file(tmp_path):
    """The library would take memory for all of them before it reads one."""
    path = made("nc", tmp_path)
    content = bytearray(path.read_bytes())
    content[12:16] = (2**31 - 1).to_bytes(4, "big")  # how many dimensions there are
    path.write_bytes(content)
    with pytest.raises(ValueError, match="2,147,483,647 entries, more than fit in it"):
        open_tensors(path)


@pytest.mark.parametrize("is_archive", [False, True])
@pytest.mark.parametrize("place", [".zarray", ".zmetadata", "zarr.json"])
def test_codecs_that_run_programs_are_not_run(tmp_path, place, is_archive):
    """Neither where an array is described, nor in what repeats the descriptions of others."""
    pytest.importorskip("zarr")
    head = {"zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "<f4", "fill_value": 0,
            "order": "C", "compressor": None, "filters": [{"id": "pickle"}]}  # fmt: skip
    entries = {".zgroup": {"zarr_format": 2}}
    if place == ".zarray":
        entries["w/.zarray"] = head
    elif place == ".zmetadata":
        entries["w/.zarray"] = head | {"filters": None}
        entries[place] = {"metadata": {"w/.zarray": head}, "zarr_consolidated_format": 1}
    else:
        array = {"node_type": "array", "codecs": [{"name": "numcodecs.pickle"}]}
        inside = {"kind": "inline", "must_understand": False, "metadata": {"w": array}}
        group = {"zarr_format": 3, "node_type": "group", "consolidated_metadata": inside}
        entries = {place: group}
    path = tmp_path / ("a.zarr.zip" if is_archive else "a.zarr")
    if is_archive:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, json.dumps(content))
    else:
        for name, content in entries.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="codec that is not run"):
        open_tensors(path)


def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch):
    path = made("h5", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lowprec\[hdf5\]'"):
        open_tensors(path)
