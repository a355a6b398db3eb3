"""What lowprec promises of its speed, and how each promise is measured."""

from __future__ import annotations

import functools
import operator
import tempfile
from typing import TYPE_CHECKING, NamedTuple

import llvmlite.binding
import numpy as np
from peers import astype
from timing import Quartiles, in_fresh_interpreter, interleaved, threads
from workload import FIRST_CALL, FORMATS, LAZY, small_calls, workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from timing import Work
    from workload import Workload

    Make = Callable[[Workload], Work]
    Measure = Callable[[int, float], Quartiles]

SIZES = {"10⁶": 10**6, "10⁷": 10**7}
ONCE = {"measured": 10}
DIRECTED = ("toward_zero", "away_from_zero", "toward_positive", "toward_negative")
NUMPY = "import numpy, ml_dtypes"


class Promise(NamedTuple):
    """One row: a limit, and how to measure what it limits at each size, in so many seconds."""

    work: str
    limit: float
    unit: str
    measure: Measure
    sizes: dict[str, int] = SIZES
    at_least: bool = False

    def bound(self) -> str:
        """Write the limit."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g} {self.unit}"

    def is_met(self, figures: dict[str, Quartiles], tolerance: float) -> bool:
        """Whether every median is within the limit, widened by a fraction of it."""
        if self.at_least:
            return all(f.median >= self.limit * (1 - tolerance) for f in figures.values())
        return all(f.median <= self.limit * (1 + tolerance) for f in figures.values())


def promises() -> Iterator[Promise]:
    """List every row of the table."""
    has_f16c = llvmlite.binding.get_host_cpu_features().get("f16c", False)
    for fmt in ("bfloat16", "float16"):
        limit = 1.1 if has_f16c or fmt == "bfloat16" else 1.4
        yield Promise(f"encode {fmt}", limit, "× copy", ratio(copy, do("encode", fmt)))
    for fmt in ("bfloat16", "float16"):
        yield Promise(f"decode {fmt}", 1.2, "× copy", ratio(copy, do("decode", fmt)))
    for fmt in FORMATS:
        yield Promise(f"round_to {fmt}", 1.25, "× copy", ratio(copy, do("round_to", fmt)))
    for fmt in FORMATS[:3]:
        for mode in DIRECTED:
            measure = ratio(do("round_to", fmt), do("round_to", fmt, rounding=mode))
            yield Promise(f"round_to {fmt}, {mode}", 1.5, "× ties_to_even", measure)
    stochastic = do("round_to", "bfloat16", rounding="stochastic", rng=0)
    yield Promise("round_to bfloat16, stochastic", 3, "× copy", ratio(copy, stochastic))
    for fmt in FORMATS[2:]:
        cast = functools.partial(astype, fmt=fmt, task="encode")
        measure = ratio(do("encode", fmt), cast)  # of speeds
        yield Promise(f"encode {fmt}", 15, "× ml_dtypes", measure, at_least=True)
    for task, fmt in (("encode", "bfloat16"), ("decode", "bfloat16"), ("round_to", "float16")):
        measure = ratio(on_threads(2, do(task, fmt)), on_threads(1, do(task, fmt)))
        work = f"{task} {fmt}, two threads"
        yield Promise(work, 1.6, "× one thread", measure, {"10⁷": 10**7}, at_least=True)
    for task in ("encode", "decode", "round_to"):
        yield Promise(f"{task} bfloat16, 10 elements", 2.5, "µs", small_call(task), ONCE)
    yield Promise("import lowprec after numpy, ml_dtypes", 40, "ms", import_time, ONCE)
    yield Promise("first call, cold cache", 4, "× import numba", first_call("cold"), ONCE)
    yield Promise("first call, warm cache", 3, "× import numba", first_call("warm"), ONCE)


# Measuring ---------------------------------------------------------------------------------------

do = operator.methodcaller  # a task of a workload, such as do("encode", "bfloat16")
copy = do("copy")


def ratio(below: Make, above: Make) -> Measure:
    """Measure the time of one work over that of another, in turns on the same workload."""

    def measure(elements: int, seconds: float) -> Quartiles:
        load = workload(elements)
        times = interleaved([below(load), above(load)], seconds=seconds)
        return Quartiles.of(times[:, 1] / times[:, 0])

    return measure


def on_threads(count: int, make: Make) -> Make:
    """Let a work run on so many threads."""

    def make_threaded(load: Workload) -> Work:
        work = make(load)

        def run() -> None:
            with threads(count):
                work()

        return run

    return make_threaded


def small_call(task: str) -> Measure:
    """Time a call on 10 elements, in µs."""

    def measure(_: int, seconds: float) -> Quartiles:
        times = interleaved([small_calls()[task].call], seconds=seconds, repeats=100)
        return Quartiles.of(times * 1e6)

    return measure


def import_time(_: int, seconds: float) -> Quartiles:
    """Time the import in new processes that have NumPy and ml_dtypes, in ms."""
    times = [in_fresh_interpreter(f"import lowprec\n{LAZY}", after=NUMPY) for _ in range(9)]
    return Quartiles.of(np.array(times[1:]) * 1e3)  # the first may have written bytecode


def first_call(state: str) -> Measure:
    """Compare the first call in new processes with Numba's import, in new processes too."""

    def measure(_: int, seconds: float) -> Quartiles:
        ready = f"{NUMPY}\nimport lowprec"
        with tempfile.TemporaryDirectory() as folder:
            cache = folder if state == "warm" else None  # None: an empty one each time
            in_fresh_interpreter(FIRST_CALL, after=ready, cache=cache)
            pairs = [
                (
                    in_fresh_interpreter("import numba", after=NUMPY),
                    in_fresh_interpreter(FIRST_CALL, after=ready, cache=cache),
                )
                for _ in range(5)
            ]
        return Quartiles.of(np.array([call / numba_alone for numba_alone, call in pairs]))

    return measure
