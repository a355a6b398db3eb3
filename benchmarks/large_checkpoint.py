"""What compare and convert take for a checkpoint of gigabytes: peak memory and megabytes a second.

    python benchmarks/large_checkpoint.py 0.01 1 4

writes a synthetic checkpoint of each size into a temporary folder, runs both commands on it in
processes of their own, prints a table, and removes all of it. The estimate for a terabyte, a start
and a constant rate, comes from two sizes and is checked against the third. The files have been
written just before, so that what fits in memory is read from there ("warm").
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.tensors import Tensor, write_tensors
from lowprec.tensors.tensor import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

GIGA = 10**9
LIMIT = 600 << 20
COMPARE = "compare {source} --formats bfloat16"
WORKS = {
    "write half as many bytes": None,
    "compare, one format": COMPARE,
    "compare, three formats": COMPARE + ",float16,float8_e4m3fn",
    "convert to bfloat16": "convert {source} --to bfloat16 -o {target}",
    "convert to float8_e4m3fn, scaled": "convert {source} --to float8_e4m3fn --scale -o {target}",
    "convert to bfloat16, stochastic": (
        "convert {source} --to bfloat16 --rounding stochastic --rng 0 -o {target}"
    ),
}


class Repeated:
    """Weights of any number made from a few that are repeated."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.few = np.random.default_rng(0).standard_normal(BLOCK_BYTES, np.float32) * 0.02

    def blocks(self, elements: int) -> Iterator[np.ndarray]:
        """Yield all elements, so many at a time."""
        for first in range(0, self.size, elements):
            yield self.few[: min(elements, self.size - first)]

    def array(self) -> np.ndarray:
        """Return all elements, which nobody asks for."""
        return np.resize(self.few, self.size)


def write_checkpoint(path: Path, size: int) -> None:
    """Write float32 tensors of about so many bytes in all, most of them in eight large ones."""
    large = Repeated(size // 4 // 8)
    shape, dtype = (large.size,), np.dtype(np.float32)
    tensors: dict[str, Any] = {}
    for k in range(8):
        name = f"layers.{k}.weight"
        tensors[name] = Tensor(name, shape, dtype, large)
        tensors[f"layers.{k}.bias"] = np.full(4096, 0.1, dtype)
    write_tensors(path, tensors, {"format": "pt"})


class Cost(NamedTuple):
    """What a process took."""

    seconds: float
    processor_seconds: float
    peak: int


def write_half(source: Path, target: Path) -> None:
    """Write half as many bytes as the source has: what any conversion to 16 bits must."""
    block = bytes(BLOCK_BYTES // 2)
    with target.open("wb", buffering=0) as file:
        for _ in range(source.stat().st_size // BLOCK_BYTES):
            file.write(block)
        os.fsync(file.fileno())


def run(work: str | None, source: Path, target: Path) -> Cost:
    """Run a command on one thread, or write half the file's bytes where there is none."""
    start = time.perf_counter()
    if work is None:
        before = time.process_time()
        write_half(source, target)
        busy = time.process_time() - before
        return Cost(time.perf_counter() - start, busy, 0)
    arguments = work.format(source=source, target=target).split()
    environment = os.environ | {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lowprec", *arguments]
    actions = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(sys.executable, command, environment, file_actions=actions)
    _, status, usage = os.wait4(process, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"lowprec {' '.join(arguments)} failed")
    seconds = time.perf_counter() - start
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)


def measure(size: int, folder: Path) -> dict[str, Cost]:
    """Run all works on a checkpoint of so many bytes; print a line for each."""
    source, target = folder / "model.safetensors", folder / "out.safetensors"
    write_checkpoint(source, size)
    costs = {}
    for name, work in WORKS.items():
        costs[name] = cost = run(work, source, target)
        target.unlink(missing_ok=True)
        rate, busy = size / cost.seconds / 1e6, size / max(cost.processor_seconds, 1e-9) / 1e6
        peak = f"{cost.peak / 2**20:6.0f} MB" if cost.peak else "        –"
        print(
            f"{size / GIGA:4.1f} GB  {name:34} {cost.seconds:7.2f} s {rate:7.0f} MB/s; "
            f"{cost.processor_seconds:6.2f} s of a core {busy:7.0f} MB/s; peak {peak}",
            flush=True,
        )
        assert cost.peak < LIMIT, f"{name} took {cost.peak:,} bytes of memory"
    source.unlink()
    return costs


def estimate(name: str, costs: dict[int, dict[str, Cost]]) -> str:
    """Say what a terabyte takes a core: a start and a constant rate, from the first two sizes.

    The largest size checks the estimate. Processor time is what a busy machine leaves alone.
    """
    tiny, small, *_, large = sorted(costs)
    start = costs[tiny][name].processor_seconds
    rate = (small - tiny) / (costs[small][name].processor_seconds - start)
    told = start + (large - tiny) / rate
    found = costs[large][name].processor_seconds
    minutes = 1e12 / ((large - tiny) / (found - start)) / 60
    return (
        f"{name:34} told {told:6.2f} s, found {found:6.2f} s ({found / told - 1:+4.0%}); "
        f"1 TB: {minutes:5.1f} min by 1 worker, {minutes / 100:5.2f} min by 100"
    )


def main() -> None:
    """Measure each size, and estimate a terabyte."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=float, default=[0.01, 1, 4], help="gigabytes")
    parser.add_argument("--folder", help="where to write (default: the temporary folder)")
    options = parser.parse_args()
    sizes = [int(size * GIGA) for size in options.sizes]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        costs = {size: measure(size, Path(folder)) for size in sizes}
    if len(sizes) > 2:
        print(
            f"\nProcessor time of {max(sizes) / GIGA:g} GB as the smaller sizes tell, and as found:"
        )
        for name in WORKS:
            print(estimate(name, costs))


if __name__ == "__main__":
    main()
