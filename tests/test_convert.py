"""Converting files: the numbers are cast's, all else stays, and nothing is ever half-written."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import ml_dtypes
import numpy as np
import pytest
from test_cli import in_terminal, run
from test_hostile_files import PEAK
from test_tensors import assert_same_bits, joined, write_shards

import lowprec as lp
from lowprec.cli import main
from lowprec.tensors import convert, open_tensors, tensor_seed, write_tensors

FORMATS = [f for f in lp.named_formats().values() if f.has_nan]
NUMBERS = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1 / 3, -2.5, 65519.0, 65520.0, 3e38, 1e-45, 1e-8, 464.5]
)


def sample(dtype, size=5000):
    """Return random numbers of many magnitudes, and special ones."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(size) * 10.0 ** rng.integers(-9, 6, size)
    with np.errstate(over="ignore"):
        return np.concatenate([NUMBERS, x]).astype(dtype)


def assert_stored_as(tensor, codes, fmt):
    assert tensor.fmt == fmt
    assert_same_bits(joined(tensor).view(fmt.code_dtype), codes)


# Numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [".safetensors", ".npz"])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_every_format_is_stored_and_understood(tmp_path, fmt, kind):
    arrays = {"a": sample("f4"), "b": sample("f8").reshape(-1, 1), "e": np.zeros((0, 3), "f4")}
    write_tensors(tmp_path / f"x{kind}", arrays)
    convert(tmp_path / f"x{kind}", tmp_path / f"y{kind}", fmt)
    found = open_tensors(tmp_path / f"y{kind}")
    for name, array in arrays.items():
        assert_stored_as(found[name], lp.encode(array, fmt), fmt)
        values = np.concatenate([[], *found[name].values()])
        expected = lp.decode(lp.encode(array, fmt), fmt).reshape(-1).astype(float)
        np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ml_dtypes.bfloat16, "f1"])
@pytest.mark.parametrize("mode", ["ties_to_even", "toward_zero", "to_odd"])
@pytest.mark.parametrize("overflow", ["ieee", "saturate"])
def test_a_conversion_is_a_cast(tmp_path, dtype, mode, overflow):
    dtype = ml_dtypes.float8_e5m2 if dtype == "f1" else dtype
    x = sample(dtype)
    how = {"rounding": mode, "overflow": overflow}
    np_kind = np.dtype(dtype).isbuiltin != 2
    path = tmp_path / ("x.npy" if np_kind else "x.safetensors")
    np.save(path, x) if np_kind else write_tensors(path, {"x": x})
    for fmt in (lp.bfloat16, lp.float8_e4m3fn, lp.get_format("e6m9")):
        convert(path, tmp_path / "y.safetensors", fmt, overwrite=True, **how)
        found = open_tensors(tmp_path / "y.safetensors")["x"]
        assert_stored_as(found, lp.encode(x, fmt, **how), fmt)


def test_a_format_of_ones_own_is_understood(tmp_path):
    mine = lp.Format("mine", 4, 4, lp.Specials.FNUZ, bias=9)
    write_tensors(tmp_path / "x.npz", {"x": sample("f4")})
    convert(tmp_path / "x.npz", tmp_path / "y.npz", mine)
    found = open_tensors(tmp_path / "y.npz")["x"]
    assert found.fmt.name == "mine"
    assert_stored_as(found, lp.encode(sample("f4"), mine), mine)


def test_torch_reads_its_own_casts(tmp_path):
    torch = pytest.importorskip("torch", reason="compares with torch")
    package = pytest.importorskip("safetensors.torch", reason="the package")
    x = torch.from_numpy(sample("f4"))
    state = {"w": x[:5012].reshape(-1, 7)[:, :6].contiguous(), "h": x.half(), "n": torch.arange(5)}
    package.save_file(state, tmp_path / "x.safetensors", {"format": "pt"})
    torch.save(state, tmp_path / "x.pt")
    for name in ("bfloat16", "float16", "float8_e5m2", "float8_e4m3fn"):
        kind = getattr(torch, name)
        how = {"overflow": "saturate"} if name == "float8_e4m3fn" else {}
        for source in ("x.safetensors", "x.pt"):
            convert(tmp_path / source, tmp_path / "y.safetensors", name, overwrite=True, **how)
            found = package.load_file(tmp_path / "y.safetensors")
            assert set(found) == set(state)
            assert torch.equal(found["n"], state["n"])
            for key in ("w", "h"):
                expected = state[key].to(kind)
                assert found[key].dtype == kind
                assert found[key].shape == expected.shape
                is_nan = expected.isnan()  # whose bits torch chooses otherwise
                assert torch.equal(found[key].isnan(), is_nan)
                bits = torch.int16 if kind.itemsize == 2 else torch.int8
                same = found[key].view(bits) == expected.view(bits)
                assert bool((same | is_nan).all())


def test_fp4_is_packed_as_torch_packs_it(tmp_path):
    torch = pytest.importorskip("torch", reason="compares with torch")
    package = pytest.importorskip("safetensors.torch", reason="the package")
    x = np.float32([[0.5, 1, 1.5, 2], [-0.5, -1, -1.5, -6]])
    write_tensors(tmp_path / "x.safetensors", {"even": x, "odd": x[:, :3]})
    convert(tmp_path / "x.safetensors", tmp_path / "y.safetensors", "float4_e2m1fn")
    found = package.load_file(tmp_path / "y.safetensors")
    assert found["even"].dtype == torch.float4_e2m1fn_x2
    assert found["even"].view(torch.uint8).tolist() == [[0x21, 0x43], [0xA9, 0xFB]]
    assert found["odd"].dtype == torch.uint8
    for name, tensor in open_tensors(tmp_path / "y.safetensors").items():
        values = np.concatenate([block.astype(float) for block in tensor.values()])
        width = 4 if name == "even" else 3
        assert values.tolist() == x[:, :width].reshape(-1).tolist()


def test_stochastic_bits_depend_on_seed_name_and_index_alone(tmp_path):
    x = np.random.default_rng(2).standard_normal(300_001).astype("f4")
    write_tensors(tmp_path / "one.safetensors", {"a": x, "b": x})
    write_tensors(tmp_path / "other.npz", {"b": x})
    how = {"rounding": "stochastic", "rng": 5}
    for fmt in (lp.bfloat16, lp.float8_e4m3fn):
        convert(
            tmp_path / "one.safetensors", tmp_path / "y.safetensors", fmt, overwrite=True, **how
        )
        convert(tmp_path / "other.npz", tmp_path / "z.npz", fmt, overwrite=True, **how)
        found = open_tensors(tmp_path / "y.safetensors")
        for name in "ab":
            seed = tensor_seed(5, name)
            expected = lp.encode(x, fmt, rounding="stochastic", rng=seed)
            assert_stored_as(found[name], expected, fmt)
        assert joined(found["a"]).tobytes() != joined(found["b"]).tobytes()
        assert_stored_as(open_tensors(tmp_path / "z.npz")["b"], expected, fmt)


# Scales --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [".safetensors", ".npz"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_scales_fill_the_range_and_are_undone(tmp_path, kind, dtype):
    rng = np.random.default_rng(3)
    spread = {"small": -20, "large": 30, "one": 0, "tiny": -140 if dtype == "f4" else -1060}
    arrays = {
        name: (rng.standard_normal((30, 40)) * 2.0**k).astype(dtype) for name, k in spread.items()
    }
    arrays["zero"], arrays["none"] = np.zeros(3, dtype), np.zeros(0, dtype)
    arrays["infinite"] = np.array([np.inf, np.nan, 1.0], dtype)
    write_tensors(tmp_path / f"x{kind}", arrays)
    convert(tmp_path / f"x{kind}", tmp_path / f"y{kind}", "float8_e4m3fn", scale=True)
    found = open_tensors(tmp_path / f"y{kind}")
    assert list(found) == list(arrays)
    for name, tensor in found.items():
        x = arrays[name].astype(float).reshape(-1)
        stored = lp.decode(joined(tensor).view(np.uint8), "float8_e4m3fn", dtype=float).reshape(-1)
        with np.errstate(over="ignore"):
            expected = lp.round_to(x / tensor.scale, "float8_e4m3fn")
        np.testing.assert_array_equal(stored, expected)
        values = np.concatenate([[], *tensor.values()])
        np.testing.assert_array_equal(values, stored * tensor.scale)
        largest = np.max(np.abs(x), where=np.isfinite(x), initial=0)
        if name in ("small", "large", "one"):
            assert 224 < largest / tensor.scale <= 448


@pytest.mark.parametrize("bias", [-600, 600])
def test_scales_of_a_format_far_from_1_are_powers_of_two_that_float64_holds(tmp_path, bias):
    x = np.array([5e-324, 1e-200, 1.0, 1e300])
    write_tensors(tmp_path / "x.npz", {str(i): x[i : i + 1] for i in range(4)})
    convert(tmp_path / "x.npz", tmp_path / "y.npz", lp.Format("far", 4, 4, bias=bias), scale=True)
    found = open_tensors(tmp_path / "y.npz")
    assert all(math.frexp(tensor.scale)[0] == 0.5 for tensor in found.values())
    assert sum(np.concatenate(list(t.values()))[0] > 0 for t in found.values()) >= 2


def test_compare_understands_scales_and_codes(tmp_path):
    x = np.random.default_rng(4).standard_normal(1000).astype("f4") * 1e-6
    write_tensors(tmp_path / "x.safetensors", {"x": x})
    convert(tmp_path / "x.safetensors", tmp_path / "y.npz", "float6_e2m3fn", scale=True)
    tensors = open_tensors(tmp_path / "y.npz")
    assert joined(tensors["x"]).dtype == np.uint8
    measured = lp.compare(tensors, "bfloat16").measurements["x"]["bfloat16"]
    assert measured.max_abs == pytest.approx(np.abs(x).max(), rel=0.07)
    assert measured.lost == 0


# What stays ----------------------------------------------------------------------------------


def test_names_order_metadata_and_integers_stay(tmp_path):
    arrays = {
        "z.weight": sample("f4", 7),
        "ids": np.arange(9).reshape(3, 3),
        "a": sample("f2", 3),
        "mask": np.array([True, False, True]),
        "c": np.complex64([1j]),
        "u": np.uint8([1, 2]),
    }
    for kind in (".safetensors", ".npz"):
        path, target = tmp_path / f"x{kind}", tmp_path / f"y{kind}"
        write_tensors(path, arrays, {"format": "pt", "who": "me"})
        done = convert(path, target, "bfloat16")
        found = open_tensors(target)
        assert list(found) == list(arrays)
        assert found.metadata | {"format": "pt", "who": "me"} == found.metadata
        for name in ("ids", "mask", "c", "u"):
            assert_same_bits(joined(found[name]), arrays[name])
        assert (done.converted, done.unchanged, done.files) == (2, 4, (target,))
        assert (done.bytes_read, done.bytes_written) == (
            os.stat(path).st_size,
            os.stat(target).st_size,
        )


def test_patterns_choose_what_is_converted(tmp_path):
    names = ["layer.0.w", "layer.0.norm", "layer.1.w", "head"]
    write_tensors(tmp_path / "x.safetensors", {name: np.float32([0.1]) for name in names})
    convert(
        tmp_path / "x.safetensors",
        tmp_path / "y.safetensors",
        "bfloat16",
        include=["layer.*"],
        exclude=["*.norm"],
    )
    found = open_tensors(tmp_path / "y.safetensors")
    assert [found[name].dtype.name for name in names] == [
        "bfloat16",
        "float32",
        "bfloat16",
        "float32",
    ]


def test_one_pattern_needs_no_list(tmp_path):
    path, target = tmp_path / "x.npz", tmp_path / "y.npz"
    write_tensors(path, {"head.w": [0.1], "norm.w": [0.1]})
    convert(path, target, "float16", exclude="norm.*")
    assert [t.dtype.name for t in open_tensors(target).values()] == ["float16", "float64"]
    convert(path, target, "float16", include="norm.*", overwrite=True)
    assert [t.dtype.name for t in open_tensors(target).values()] == ["float64", "float16"]


def test_nan_without_a_code_is_counted_and_nothing_is_written(tmp_path):
    x = np.ones((100, 70), "f4")
    x[3, 5] = x[99, 69] = np.nan
    write_tensors(tmp_path / "x.safetensors", {"ok": np.ones(3), "bad": x})
    reason = r"2 of 7,000 elements of 'bad' are NaN, first at index \(3, 5\)"
    with pytest.raises(ValueError, match=reason):
        convert(tmp_path / "x.safetensors", tmp_path / "y.safetensors", "float4_e2m1fn")
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_a_file_is_replaced_only_on_request(tmp_path):
    path, target = tmp_path / "x.npz", tmp_path / "y.npz"
    write_tensors(path, {"x": [0.1]})
    target.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        convert(path, target, "float16")
    assert target.read_bytes() == b"precious"
    convert(path, target, "float16", overwrite=True)
    before = path.stat().st_size
    done = convert(path, path, "float16", overwrite=True)
    assert (done.bytes_read, done.bytes_written) == (before, path.stat().st_size)
    assert done.bytes_written < before, "the size of what was read, not of what replaced it"
    assert open_tensors(path)["x"].dtype == np.float16
    assert path.read_bytes() == target.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["x.npz", "y.npz"]


# Sets of shards ------------------------------------------------------------------------------


def test_shards_keep_their_names_and_get_an_index(tmp_path):
    source, target = tmp_path / "model", tmp_path / "out"
    source.mkdir()
    arrays = write_shards(source)
    convert(source, target, "bfloat16")
    assert sorted(os.listdir(target)) == sorted(os.listdir(source))
    found = open_tensors(target)
    for name, array in arrays.items():
        expected = lp.cast(array, "bfloat16") if array.dtype.kind == "f" else array
        assert_same_bits(joined(found[name]), expected)
    old, new = (
        json.loads((folder / "model.safetensors.index.json").read_text())
        for folder in (source, target)
    )
    assert new["weight_map"] == old["weight_map"]
    assert new["metadata"] == {"total_size": found.nbytes, "by": "me"}
    with pytest.raises(FileExistsError):
        convert(source, target, "bfloat16")
    convert(source, target, "float16", overwrite=True)
    assert open_tensors(target)["layer.1.w"].dtype == np.float16
    with pytest.raises(ValueError, match="would replace itself"):
        convert(source, source, "float16", overwrite=True)


def test_a_folder_is_not_given_the_name_of_a_file(tmp_path):
    write_shards(tmp_path)
    pattern = str(tmp_path / "model-*.safetensors")
    with pytest.raises(ValueError, match=r"out\.safetensors is the name of a file"):
        convert(pattern, tmp_path / "out.safetensors", "bfloat16")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("to", "how", "refused"),
    [
        ("e6m9", {}, r"b\.npy cannot be written: \.npy files know no e6m9"),
        ("float16", {"scale": True}, r"b\.npy cannot be written: \.npy files know .* no scales"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_before_any_is(tmp_path, to, how, refused):
    np.savez(tmp_path / "a.npz", a=np.arange(3.0))
    np.save(tmp_path / "b.npy", np.arange(4.0))
    files = [tmp_path / "a.npz", tmp_path / "b.npy"]
    with pytest.raises(ValueError, match=refused):
        convert(files, tmp_path / "out", to, **how)
    assert not (tmp_path / "out").exists()
    convert(files[:1], tmp_path / "out.npz", to, **how)


def test_a_file_that_cannot_be_read_leaves_nothing_to_go_on_with(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.arange(3.0))
    (tmp_path / "b.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"b\.npz cannot be read"):
        convert([tmp_path / "a.npz", tmp_path / "b.npz"], tmp_path / "out", "bfloat16")
    assert not (tmp_path / "out").exists()


def test_nothing_is_no_model(tmp_path):
    for call in (open_tensors, lambda files: convert(files, tmp_path / "y.npz", "bfloat16")):
        with pytest.raises(ValueError, match="no files were named"):
            call([])


def test_shards_that_the_shell_has_listed_get_an_index_too(tmp_path):
    write_shards(tmp_path)
    convert(sorted(tmp_path.glob("*.safetensors")), tmp_path / "out", "bfloat16")
    assert len(list((tmp_path / "out").glob("*.index.json"))) == 1


class Stopped(Exception):
    pass


def stop_at(name):
    """Return a progress function that ends the run when it comes to this file."""

    def progress(description, done, total):
        assert 0 <= done <= total
        if description == name:
            raise Stopped

    return progress


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(tmp_path):
    source, target = tmp_path / "model", tmp_path / "out"
    source.mkdir()
    write_shards(source)
    shards = sorted(path.name for path in source.glob("*.safetensors"))
    how = {"rounding": "stochastic"}  # with a seed that nobody knows, and that must be the same
    with pytest.raises(Stopped):
        convert(source, target, "bfloat16", progress=stop_at(shards[2]), **how)
    assert sorted(os.listdir(target)) == [".lowprec-convert.json", *shards[:2]]
    first = (target / shards[0]).stat()
    with pytest.raises(ValueError, match=r"another conversion into .* was cut off"):
        convert(source, target, "float16")
    (target / shards[1]).write_bytes(b"damaged since")
    done = convert(source, target, "bfloat16", **how)
    assert [path.name for path in done.skipped] == shards[:1]
    assert [path.name for path in done.files] == shards[1:]
    assert (target / shards[0]).stat().st_mtime_ns == first.st_mtime_ns
    assert sorted(os.listdir(target)) == sorted(os.listdir(source))


@pytest.mark.parametrize(
    "seed",
    [
        np.int64(5),
        np.random.SeedSequence(np.array([5, 2**40])),
        np.random.SeedSequence([5, 6]).spawn(2)[1],
        [5, 6],
    ],
    ids=["integer", "array", "spawned", "list"],
)
def test_any_seed_survives_a_run_that_was_cut_off(tmp_path, seed):
    source, target = tmp_path / "model", tmp_path / "out"
    source.mkdir()
    write_shards(source)
    shards = sorted(source.glob("*.safetensors"))
    how = {"rounding": "stochastic"}
    with pytest.raises(Stopped):
        convert(source, target, "bfloat16", rng=seed, progress=stop_at(shards[1].name), **how)
    for other in (7, np.random.SeedSequence(7), None):
        with pytest.raises(ValueError, match=r"another conversion into .* was cut off"):
            convert(source, target, "bfloat16", rng=other, **how)
    convert(source, target, "bfloat16", rng=seed, **how)
    for shard in shards:
        convert(shard, tmp_path / "alone.npz", "bfloat16", rng=seed, overwrite=True, **how)
        for name, tensor in open_tensors(tmp_path / "alone.npz").items():
            together = open_tensors(target)[name]
            assert joined(together).tobytes() == joined(tensor).tobytes()


def test_a_shard_whose_source_has_changed_is_converted_again(tmp_path):
    source, target = tmp_path / "model", tmp_path / "out"
    source.mkdir()
    write_shards(source)
    shards = sorted(path.name for path in source.glob("*.safetensors"))
    with pytest.raises(Stopped):
        convert(source, target, "bfloat16", progress=stop_at(shards[2]))
    os.utime(source / shards[0], ns=(0, 0))
    done = convert(source, target, "bfloat16")
    assert [path.name for path in done.skipped] == shards[1:2]


# Processes -----------------------------------------------------------------------------------

CONVERT = """
import sys
from lowprec.tensors import convert
convert(sys.argv[1], sys.argv[2], "float16", overwrite=len(sys.argv) > 3)
"""


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2])
def test_a_process_that_is_killed_leaves_no_half_of_a_file(tmp_path, delay):
    source, target = tmp_path / "model", tmp_path / "out"
    source.mkdir()
    arrays = {f"layer.{k}": sample("f4", 2_000_000) for k in range(2)}
    names = [f"m-{k:05}-of-00004.safetensors" for k in range(1, 5)]
    for k, name in enumerate(names):
        write_tensors(source / name, {f"{k}.{key}": x for key, x in arrays.items()})
    process = subprocess.Popen([sys.executable, "-c", CONVERT, str(source), str(target)])
    while process.poll() is None and not (target / f".{names[1]}.partial").exists():
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    complete = sorted(path.name for path in target.glob("*.safetensors"))
    assert len(complete) >= 1
    for name in complete:
        assert all(
            tensor.read().dtype == np.float16 for tensor in open_tensors(target / name).values()
        )
    done = subprocess.run([sys.executable, "-c", CONVERT, str(source), str(target), "again"])
    assert done.returncode == 0
    assert sorted(os.listdir(target)) == names
    expected = lp.cast(arrays["layer.1"], "float16")
    for k, name in enumerate(names):
        assert_same_bits(joined(open_tensors(target / name)[f"{k}.layer.1"]), expected)


def test_memory_is_bounded_however_large_the_tensor(tmp_path):
    path = tmp_path / "x.safetensors"
    size = 300 << 20
    header = {"a": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)  # a hole, which reads as zeros
    write_tensors(tmp_path / "small.safetensors", {"a": np.zeros(1 << 20, "f4")})
    program = f"""
import lowprec as lp
from lowprec.tensors import convert, open_tensors
{PEAK}
def work(path):
    lp.compare(open_tensors(path), "bfloat16")
    target = {str(tmp_path / "y.safetensors")!r}
    convert(path, target, "bfloat16", rounding="SR", overwrite=True)
work({str(tmp_path / "small.safetensors")!r})  # compiles
before = peak()
work({str(path)!r})
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 60 << 20


def test_progress_reaches_the_end(tmp_path):
    write_tensors(tmp_path / "x.npz", {"x": sample("f4", 600_000), "n": np.arange(10)})
    for scale in (False, True):
        told = []
        convert(
            tmp_path / "x.npz",
            tmp_path / "y.npz",
            "float8_e4m3fn",
            scale=scale,
            overwrite=True,
            progress=lambda *step: told.append(step),  # noqa: B023
        )
        assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
        if not scale:
            assert told[-1][1] == told[-1][2]


# The command line ----------------------------------------------------------------------------


def test_the_command_converts_and_compares(tmp_path, capsys):
    path, target = str(tmp_path / "x.safetensors"), str(tmp_path / "y.safetensors")
    write_tensors(path, {"w": sample("f4"), "bias": np.float32([0.1]), "n": np.arange(3)})
    how = ["--rounding", "stochastic", "--rng", "3", "--exclude", "b*"]
    assert main(["convert", path, "--to", "bfloat16", "-o", target, *how]) == 0
    shown = capsys.readouterr().out
    assert "1 tensor converted to bfloat16, 2 unchanged" in shown
    assert "bytes became" in shown
    assert "wrote y.safetensors" in shown
    found = open_tensors(target)
    expected = lp.cast(sample("f4"), "bfloat16", rounding="SR", rng=tensor_seed(3, "w"))
    assert_same_bits(joined(found["w"]), expected)
    assert found["bias"].dtype == np.float32
    assert main(["compare", target, "--formats", "float16,bfloat16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  bfloat16  holds 2 of 2: nothing lost") for line in lines)
    assert any(line.startswith("- w: float16 loses") for line in lines)


def test_the_command_fails_in_one_line(tmp_path, capsys):
    path, target = str(tmp_path / "x.npz"), str(tmp_path / "y.npz")
    write_tensors(path, {"w": [np.nan, 1.0]})
    for arguments, message in [
        ([path, "--to", "float4_e2m1fn", "-o", target], "1 of 2 elements of 'w' are NaN"),
        ([path, "--to", "float16", "-o", path], "(--overwrite)"),
        ([path, "--to", "float16", "-o", str(tmp_path / "y.csv")], "use a name in"),
        ([path + "x", "--to", "float16", "-o", target], "ends in neither"),
        ([str(tmp_path / "no.npz"), "--to", "float16", "-o", target], "No such file"),
        ([path, "--to", "float16", "-o", str(tmp_path / "a" / "y.npz")], "no such folder"),
    ]:
        assert main(["convert", *arguments]) == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.count("\n") == 1
        assert message in shown.err
    assert os.listdir(tmp_path) == ["x.npz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.npz", "-o", "y.npz"], "required: --to"),
        (["x.npz", "--to", "float16"], "required: -o/--output"),
        (["x.npz", "--to", "float61", "-o", "y.npz"], "unknown format"),
        (["x.npz", "--to", "float16", "-o", "y.npz", "--rng", "1"], "draws no random bits"),
        (["x.npz", "--to", "float16", "-o", "y.npz", "--rng", "-1"], "is negative"),
    ],
)
def test_wrong_usage_of_convert_is_code_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(["convert", *arguments])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_many_tensors_are_shown_worst_first(tmp_path, capsys):
    arrays = {f"layer.{k}": np.float32([1.0, 2.0**-k]) for k in range(40)}
    write_tensors(tmp_path / "x.safetensors", arrays)
    page = tmp_path / "x.html"
    arguments = [str(tmp_path / "x.safetensors"), "--formats", "float16,bfloat16"]
    assert main(["compare", *arguments, "--html", str(page)]) == 0
    text = capsys.readouterr().out
    assert "These are the worst 20 of 40" in text
    assert "  float16   holds 25 of 40: loses small values in 15" in text
    assert "and 7 more" in text
    lines = text.splitlines()
    assert lines.pop() == f"Wrote {page}", "a path is never broken"
    assert max(map(len, lines)) <= 80
    html = page.read_text()
    assert "Summary, worst first" in html
    assert all(f"layer.{k} " in html for k in range(40))


@pytest.mark.parametrize("command", ["compare", "convert"])
def test_progress_is_drawn_on_a_terminal_alone(tmp_path, command):
    path = str(tmp_path / "x.safetensors")
    write_tensors(path, {"w": sample("f4", 1_000_000)})
    arguments = [command, path]
    if command == "convert":
        arguments += ["--to", "bfloat16", "-o", str(tmp_path / "y.npz")]
    ended = run(*arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    shown = in_terminal(*arguments, *(["--overwrite"] if command == "convert" else []))
    assert "━" in shown
    assert " MB" in shown or " bytes" in shown
