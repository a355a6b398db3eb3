"""Tensors of files: what one library wrote, lowprec reads, and the other way round, bit for bit."""

import json
import os
import zipfile

import ml_dtypes
import numpy as np
import pytest

import lowprec as lp
from lowprec.tensors import Tensors, as_tensor, open_tensors, write_tensors
from lowprec.tensors.kinds.safetensors import DTYPES
from lowprec.tensors.naming import name_tensors

RNG = np.random.default_rng(0)
KINDS = [".safetensors", ".npz"]


def sample(dtype, shape=(3, 4)):
    """Return an array of random bits, so that NaN, infinities and -0 are among them."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape))
    if dtype.kind == "b":
        return RNG.integers(0, 2, shape).astype(bool)
    if dtype in (ml_dtypes.float6_e2m3fn, ml_dtypes.float6_e3m2fn):
        return RNG.integers(0, 64, shape, np.uint8).view(dtype)
    if dtype == ml_dtypes.float4_e2m1fn:
        return RNG.integers(0, 16, shape, np.uint8).view(dtype)
    return np.frombuffer(RNG.bytes(size * dtype.itemsize), dtype).reshape(shape)


def joined(tensor, max_bytes=1 << 20):
    """Return all blocks of a tensor as one array of its shape."""
    blocks = list(tensor.blocks(max_bytes))
    assert all(block.ndim == 1 and block.dtype == tensor.dtype for block in blocks)
    whole = np.concatenate([np.empty(0, tensor.dtype), *blocks])
    return whole.reshape(tensor.shape)


def assert_same_bits(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


# Reading and writing -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_every_dtype_is_read_back_bit_for_bit(tmp_path, kind, dtype):
    arrays = {
        "a": sample(dtype),
        "b/c.weight": sample(dtype, (5, 2)),
        "empty": sample(dtype, (0, 2)),
        "0-d": sample(dtype, ()),
    }
    path = tmp_path / f"x{kind}"
    write_tensors(path, arrays, {"format": "pt"})
    tensors = open_tensors(path)
    assert list(tensors) == list(arrays)
    assert tensors.metadata["format"] == "pt"
    for name, array in arrays.items():
        codes = tensors[name].dtype
        assert_same_bits(joined(tensors[name]), array.view(codes))
        assert_same_bits(np.asarray(tensors[name].read()), array.view(codes))


@pytest.mark.parametrize("kind", [*KINDS, ".npy"])
@pytest.mark.parametrize("max_bytes", [1, 7, 64, 4096])
def test_blocks_of_any_size_make_the_same_tensor(tmp_path, kind, max_bytes):
    array = sample(np.float32, (7, 11, 3))
    path = tmp_path / f"x{kind}"
    write_tensors(path, {"x": array})
    tensor = open_tensors(path)["x"]
    assert all(block.nbytes <= max(4, max_bytes) for block in tensor.blocks(max_bytes))
    assert_same_bits(joined(tensor, max_bytes), array)


def test_the_safetensors_package_reads_what_is_written(tmp_path):
    safetensors = pytest.importorskip("safetensors", reason="the reference reader")
    from safetensors.numpy import load_file

    path = tmp_path / "x.safetensors"
    arrays = {
        name: sample(dtype, (3, 5)) for name, dtype in [("z", "i1"), ("a", "f8"), ("m", "u2")]
    }
    write_tensors(path, arrays, {"format": "np", "note": "ü"})
    for name, array in load_file(path).items():
        assert_same_bits(array, arrays[name])
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"format": "np", "note": "ü"}
        assert set(file.keys()) == set(arrays)


def test_numpy_reads_what_is_written(tmp_path):
    arrays = {"x": sample("f4"), "n": np.arange(6).reshape(2, 3), "s": np.float64(2.5)}
    write_tensors(tmp_path / "x.npz", arrays)
    with np.load(tmp_path / "x.npz") as archive:
        assert archive.files == list(arrays)
        for name, array in arrays.items():
            assert_same_bits(archive[name], np.asarray(array))
    write_tensors(tmp_path / "x.npy", {"any": arrays["x"]})
    assert_same_bits(np.load(tmp_path / "x.npy"), arrays["x"])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("layout", ["C", "F", "big"])
def test_what_numpy_wrote_is_read_in_any_layout(tmp_path, save, layout):
    array = RNG.standard_normal((40, 50, 3)).astype("f4")
    kept = array.astype(">f4") if layout == "big" else np.array(array, order=layout)
    save(tmp_path / "x.npz", x=kept)
    np.save(tmp_path / "x.npy", kept)
    for path in (tmp_path / "x.npz", tmp_path / "x.npy"):
        tensor = open_tensors(path)["x"]
        assert_same_bits(joined(tensor, 1000), array)
        assert_same_bits(np.ascontiguousarray(tensor.read()), array)


def test_what_torch_wrote_with_safetensors_is_read(tmp_path):
    torch = pytest.importorskip("torch", reason="compares with torch")
    save_file = pytest.importorskip("safetensors.torch", reason="the package").save_file
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 8, generator=generator)
    kinds = ["bfloat16", "float16", "float64", "float8_e4m3fn", "float8_e5m2", "float8_e5m2fnuz"]
    tensors = {kind: x.to(getattr(torch, kind)) for kind in kinds}
    tensors["int64"] = torch.arange(6)
    tensors["fp4"] = torch.arange(12, dtype=torch.uint8).reshape(3, 4).view(torch.float4_e2m1fn_x2)
    save_file(tensors, tmp_path / "x.safetensors", {"format": "pt"})
    found = open_tensors(tmp_path / "x.safetensors")
    for kind in kinds:
        expected = tensors[kind].view(torch.uint8).numpy().tobytes()
        assert joined(found[kind]).tobytes() == expected, kind
        assert found[kind].fmt == lp.get_format(kind)
    assert joined(found["int64"]).tolist() == list(range(6))
    codes = joined(found["fp4"]).view(np.uint8)
    assert codes.shape == (3, 8)
    assert codes[0].tolist() == [0, 0, 1, 0, 2, 0, 3, 0]  # lower half first


def test_a_torch_state_dict_is_read_without_running_anything(tmp_path):
    torch = pytest.importorskip("torch", reason="torch's own files")
    weight = torch.arange(6.0).reshape(2, 3).to(torch.bfloat16)
    content = {"model": {"w": weight, "t": weight.T}, "step": 3, "list": [torch.ones(2)]}
    torch.save(content, tmp_path / "x.pt")
    tensors = open_tensors(tmp_path / "x.pt")
    assert list(tensors) == ["model.w", "model.t", "list.0"]
    assert tensors["model.w"].dtype == ml_dtypes.bfloat16
    assert joined(tensors["model.t"], 4).astype(float).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_numbers_without_a_dtype_of_the_file_are_codes_that_are_understood(tmp_path):
    x = RNG.standard_normal(100).astype("f4")
    brains = lp.cast(x, "bfloat16")
    write_tensors(tmp_path / "x.npz", {"w": brains, "n": np.arange(3)})
    with np.load(tmp_path / "x.npz") as archive:
        assert archive["w"].dtype == np.uint16
    tensors = open_tensors(tmp_path / "x.npz")
    assert list(tensors) == ["w", "n"]
    assert tensors["w"].fmt == lp.bfloat16
    assert_same_bits(np.concatenate(list(tensors["w"].values())), brains.astype("f4"))


def test_a_file_that_changes_while_it_is_open_is_not_read(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.ones(1000))
    tensor = open_tensors(path)["x"]
    os.truncate(path, 5000)
    for read in (tensor.read, lambda: list(tensor.blocks())):
        with pytest.raises(ValueError, match=r"x\.npy has changed since it was opened"):
            read()


def test_a_tensor_cannot_be_written_where_it_has_no_place(tmp_path):
    with pytest.raises(ValueError, match="hold one array, not 2"):
        write_tensors(tmp_path / "x.npy", {"a": [1], "b": [2]})
    with pytest.raises(ValueError, match="know no bfloat16"):
        write_tensors(tmp_path / "x.npy", {"a": np.ones(2, ml_dtypes.bfloat16)})
    with pytest.raises(ValueError, match="have no dtype for 'a'"):
        write_tensors(tmp_path / "x.safetensors", {"a": np.array(["words"])})
    with pytest.raises(ValueError, match="use a name in"):
        write_tensors(tmp_path / "x.csv", {"a": [1]})
    write_tensors(tmp_path / "x.npy", {"a": [1]})
    with pytest.raises(FileExistsError):
        write_tensors(tmp_path / "x.npy", {"a": [2]})
    write_tensors(tmp_path / "x.npy", {"a": [2]}, overwrite=True)
    assert np.load(tmp_path / "x.npy") == 2
    assert os.listdir(tmp_path) == ["x.npy"]


@pytest.mark.parametrize("kind", [".safetensors", ".npz"])
def test_what_could_not_be_read_back_is_not_written(tmp_path, kind):
    path = tmp_path / f"x{kind}"
    with pytest.raises(ValueError, match=r"'__metadata__' is where .* keep their texts"):
        write_tensors(path, {"__metadata__": [1], "a": [2]})
    for texts in ({"steps": 7}, {7: "steps"}):
        with pytest.raises(TypeError, match=r"metadata .*7.* use texts"):
            write_tensors(path, {"a": [2]}, texts)
    assert os.listdir(tmp_path) == []


def test_two_processes_do_not_write_one_file(tmp_path):
    from lowprec.tensors.writing import replacing

    path = tmp_path / "x.npy"
    with replacing(path, overwrite=False) as file:
        file.write(b"first")
        with pytest.raises(BlockingIOError, match="another process is writing it"):
            write_tensors(path, {"a": [1]})
    assert path.read_bytes() == b"first"


# Shards --------------------------------------------------------------------------------------


def write_shards(folder, count=3, index=True):
    """Write a model of `count` shards with two tensors each; return all arrays."""
    arrays, weight_map = {}, {}
    for k in range(1, count + 1):
        name = f"model-{k:05}-of-{count:05}.safetensors"
        shard = {f"layer.{k}.w": sample("f4", (4, 5)), f"layer.{k}.n": np.arange(k)}
        write_tensors(folder / name, shard, {"format": "pt"})
        arrays |= shard
        weight_map |= dict.fromkeys(shard, name)
    if index:
        content = {"metadata": {"total_size": 1, "by": "me"}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return arrays


@pytest.mark.parametrize("how", ["index", "folder", "pattern", "list"])
def test_a_set_of_shards_is_one_mapping(tmp_path, how):
    arrays = write_shards(tmp_path, index=how in ("index", "folder"))
    pattern = str(tmp_path / "model-*-of-*.safetensors")
    path = {
        "index": tmp_path / "model.safetensors.index.json",
        "folder": tmp_path,
        "pattern": pattern,
        "list": sorted(tmp_path.glob("*.safetensors")),
    }[how]
    tensors = open_tensors(path)
    assert list(tensors) == list(arrays)
    assert len(tensors.files) == 3
    for name, array in arrays.items():
        assert_same_bits(joined(tensors[name]), array)
    assert (tensors.index is not None) == (how in ("index", "folder"))


def test_a_folder_with_a_model_is_that_model(tmp_path):
    """Arrays that lie beside it are not."""
    np.save(tmp_path / "random_state.npy", np.ones(3))
    np.savez(tmp_path / "losses.npz", loss=np.ones(3))
    arrays = write_shards(tmp_path, index=False)
    assert list(open_tensors(tmp_path)) == list(arrays)


def test_a_missing_shard_is_named(tmp_path):
    write_shards(tmp_path)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    for path in (str(tmp_path / "model-*.safetensors"), tmp_path):
        with pytest.raises(FileNotFoundError, match=r"model-00002-of-00003\.safetensors"):
            open_tensors(path)


def test_shards_do_not_share_names(tmp_path):
    for k in (1, 2):
        write_tensors(tmp_path / f"m{k}.safetensors", {"w": [k]})
    with pytest.raises(ValueError, match="holds 'w', as another shard does"):
        open_tensors(str(tmp_path / "m*.safetensors"))


def test_an_index_does_not_lead_elsewhere(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    for name in ("../x.safetensors", "/etc/passwd", "a/b.safetensors", 3):
        index.write_text(json.dumps({"weight_map": {"w": name}}))
        with pytest.raises(ValueError, match=r"path out of its folder|not a file beside|printed"):
            open_tensors(index)
    for text in ("", "[]", "{}", '{"weight_map": 1}', "[" * 10_000):
        index.write_text(text)
        with pytest.raises(ValueError, match="is not an index of shards"):
            open_tensors(index)


# Names ---------------------------------------------------------------------------------------


def test_names_tell_files_apart(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "x.npy", [1.0])
    np.savez(tmp_path / "g.npz", small=[1.0])
    write_tensors(tmp_path / "m.safetensors", {"w": [1.0]})
    paths = [str(tmp_path / p) for p in ("a/x.npy", "b/x.npy", "g.npz", "m.safetensors")]
    assert list(name_tensors(paths)) == [*paths[:2], "g.npz:small", "m.safetensors:w"]
    assert list(name_tensors(paths[3:])) == ["w"]
    assert list(name_tensors(paths[2:3])) == ["g.npz:small"]


def test_files_are_mapped_not_read(tmp_path):
    write_tensors(tmp_path / "m.safetensors", {"w": np.arange(5.0)})
    np.save(tmp_path / "x.npy", np.arange(5.0))
    for path, name in ((tmp_path / "m.safetensors", "w"), (tmp_path / "x.npy", "x")):
        array = open_tensors(path)[name].read()
        assert isinstance(array, np.memmap)
        assert array.tolist() == [0, 1, 2, 3, 4]


def test_tensors_describe_themselves():
    tensors = Tensors(())
    assert repr(tensors) == "<0 tensors, 0 bytes, in >"
    assert tensors.metadata == {}
    assert "float32" in repr(as_tensor("x", np.float32([1])))


def test_a_stored_member_is_checked_against_its_checksum(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.arange(1000))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[3000] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    tensor = open_tensors(tmp_path / "x.npz")["x"]
    with pytest.raises(ValueError, match="damaged"):
        list(tensor.blocks())


def test_measuring_a_tensor_is_measuring_its_array(tmp_path):
    x = RNG.standard_normal((300, 500)).astype("f4")
    arrays = {"x": x, "b": x.astype(ml_dtypes.bfloat16), "n": np.arange(10), "h": x.astype("f2")}
    write_tensors(tmp_path / "m.safetensors", arrays)
    formats = ["float16", "float8_e4m3fn", "float6_e2m3fn"]
    table = lp.compare(open_tensors(tmp_path / "m.safetensors"), formats)
    for name, array in arrays.items():
        for fmt in formats:
            found, whole = table.measurements[name][fmt], lp.measure(array, fmt)
            for field in ("count", "lost", "subnormals", "max_ulp_error", "exponent_histogram"):
                assert getattr(found, field) == getattr(whole, field), (name, fmt, field)
            assert found.sqnr_db == pytest.approx(whole.sqnr_db, rel=1e-12)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, ml_dtypes.float8_e5m2])
def test_counting_codes_is_measuring_each_number(dtype):
    x = sample(dtype, (300_000,))
    for fmt in ("float16", "float8_e4m3fn", "float8_e8m0fnu", "bfloat16"):
        counted = lp.measure(x, fmt)
        single = lp.measure(lp.decode(x, x.dtype, dtype=np.float64), fmt)
        for field in ("count", "zeros", "nans", "infs", "lost", "subnormals", "measured"):
            assert getattr(counted, field) == getattr(single, field), field
        for field in ("max_abs", "min_abs", "max_relative_error", "max_ulp_error"):
            assert getattr(counted, field) == getattr(single, field), field
        assert counted.exponent_histogram == single.exponent_histogram
        for field in ("relative_error_sum", "signal", "noise"):
            found, expected = getattr(counted, field), getattr(single, field)
            assert abs(found - expected) <= expected * 1e-12, field


def test_members_are_reproducible(tmp_path):
    for name in ("a.npz", "b.npz"):
        write_tensors(tmp_path / name, {"x": [1.0, 2.0]})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert zipfile.ZipFile(tmp_path / "a.npz").testzip() is None


def test_the_integers_of_a_model_are_not_compared(tmp_path):
    arrays = {"w": np.float32([1.0]), "ids": np.arange(3), "mask": np.array([True])}
    write_tensors(tmp_path / "m.safetensors", arrays | {"c": np.complex64([1j])})
    write_tensors(tmp_path / "m.npz", arrays)
    assert list(name_tensors([str(tmp_path / "m.safetensors")])) == ["w"]
    assert list(name_tensors([str(tmp_path / "m.npz")])) == ["m.npz:w", "m.npz:ids", "m.npz:mask"]
    write_tensors(tmp_path / "n.safetensors", {"ids": np.arange(3)})
    with pytest.raises(ValueError, match=r"n\.safetensors holds no tensors of real numbers"):
        name_tensors([str(tmp_path / "n.safetensors")])
