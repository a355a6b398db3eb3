"""Megabytes a second through files: read, compare and convert, beside a plain read and a copy.

The files are warm: they have just been written. ``extra_info`` holds the rate of each row.
"""

import os

import ml_dtypes
import numpy as np
import pytest
from timing import threads

import lowprec as lp
from lowprec.tensors import convert, open_tensors, write_tensors

MEGABYTES = 64
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Return a checkpoint of each kind and dtype, of so many megabytes."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    paths = {}
    for name, dtype in DTYPES.items():
        size = (MEGABYTES << 20) // np.dtype(dtype).itemsize
        x = (rng.standard_normal(size, np.float32) * 0.02).astype(dtype)
        for kind in ("safetensors", "npz"):
            paths[name, kind] = folder / f"{name}.{kind}"
            write_tensors(paths[name, kind], {"w": x, "b": x[:1000]})
    return paths


def timed(benchmark, group, path, work):
    """Time the work on one thread, and note how fast the file went through."""
    benchmark.group = group
    with threads(1):
        work()
        result = benchmark(work)
    if benchmark.stats is not None:
        rate = os.path.getsize(path) / benchmark.stats.stats.median / 1e6
        benchmark.extra_info["MB/s"] = round(rate)
    return result


READERS = [(who, kind) for kind in ("safetensors", "npz") for who in ("plain read", "lowprec")]
READERS += [("safetensors", "safetensors")]  # the package reads its own kind of file


@pytest.mark.parametrize(("who", "kind"), READERS)
def test_read(benchmark, checkpoints, who, kind):
    path = checkpoints["float32", kind]

    def plain():
        buffer = np.empty(1 << 20, np.uint8)
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def by_block():
        return sum(block.size for x in open_tensors(path).values() for block in x.blocks())

    def by_the_package():
        return sum(x.size for x in load_file(path).values())

    if who == "safetensors":
        load_file = pytest.importorskip("safetensors.numpy", reason="the package").load_file
    work = {"plain read": plain, "lowprec": by_block, "safetensors": by_the_package}[who]
    found = timed(benchmark, f"read float32 .{kind}, {MEGABYTES} MB", path, work)
    assert found in (None, (MEGABYTES << 18) + 1000)


@pytest.mark.parametrize("formats", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_compare(benchmark, checkpoints, dtype, formats):
    path = checkpoints[dtype, "safetensors"]
    chosen = ["float8_e4m3fn", "bfloat16", "float16"][:formats]
    group = f"compare {dtype} .safetensors, {MEGABYTES} MB"
    table = timed(benchmark, group, path, lambda: lp.compare(open_tensors(path), chosen))
    measured = table.measurements["w"]["float8_e4m3fn"]
    assert measured.count == (MEGABYTES << 20) // np.dtype(DTYPES[dtype]).itemsize


@pytest.mark.parametrize("to", ["copy", "bfloat16", "float16", "float8_e4m3fn"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_convert(benchmark, checkpoints, tmp_path, dtype, to):
    path, target = checkpoints[dtype, "safetensors"], tmp_path / "out.safetensors"

    def copy():
        with path.open("rb", buffering=0) as source, target.open("wb", buffering=0) as file:
            while block := source.read(1 << 20):
                file.write(block)
            os.fsync(file.fileno())

    def work():
        return convert(path, target, to, overwrite=True)

    group = f"convert {dtype} .safetensors, {MEGABYTES} MB"
    timed(benchmark, group, path, copy if to == "copy" else work)
    found, before = (open_tensors(file)["w"].read() for file in (target, path))
    expected = before if to == "copy" else lp.cast(before, to)
    assert found.tobytes() == expected.tobytes()
