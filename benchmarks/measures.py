"""How promises are measured: as ratios of works that run in turns, or in new processes."""

from __future__ import annotations

import functools
import operator
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
from timing import Quartiles, in_fresh_interpreter, interleaved, threads
from workload import FIRST_CALL, LAZY, small_calls, workload

import lowprec as lp

if TYPE_CHECKING:
    from collections.abc import Callable

    from timing import Work
    from workload import Workload

    Make = Callable[[Workload], Work]
    Measure = Callable[[int, float], Quartiles]

NUMPY = "import numpy, ml_dtypes"

do = operator.methodcaller  # a task of a workload, such as do("encode", "bfloat16")
copy = do("copy")


def ratio(below: Make, above: Make) -> Measure:
    """Measure the time of one work over that of another, in turns on the same workload."""

    def measure(elements: int, seconds: float) -> Quartiles:
        load = workload(elements)
        return ratio_of(below(load), above(load), seconds)

    return measure


def ratio_of(below: Work, above: Work, seconds: float) -> Quartiles:
    """Return the quartiles of the time of one work over that of another, in turns."""
    times = interleaved([below, above], seconds=seconds)
    return Quartiles.of(times[:, 1] / times[:, 0])


def flags_cost(name: str, fmt: str) -> Measure:
    """Compare an operation that counts events with one that does not."""

    def make(load: Workload, flags: bool) -> Work:
        x = lp.round_to(load.x, fmt)
        other = np.where(x == 0, np.float32(1), np.roll(x, 1))
        operands = [x, other, np.roll(x, 2)][: {"sqrt": 1, "fma": 3}.get(name, 2)]
        operands = [np.abs(x)] if name == "sqrt" else operands
        compute = getattr(lp.Arithmetic(fmt, flags=flags), name)
        return functools.partial(compute, *operands, out=np.empty_like(x))

    return ratio(lambda load: make(load, False), lambda load: make(load, True))


def product(
    below: Callable[..., Any], above: Callable[..., Any], shape: tuple[int, int, int], fmt: str
) -> Measure:
    """Compare two ways to multiply matrices of values of a format, on one BLAS thread."""

    def measure(_: int, seconds: float) -> Quartiles:
        from threadpoolctl import threadpool_limits

        rng = np.random.default_rng(0)
        m, k, n = shape
        draws = rng.standard_normal((m, k)), rng.standard_normal((k, n))
        a, b = (lp.round_to(x.astype(np.float32), fmt) for x in draws)
        with threadpool_limits(1):
            return ratio_of(below(a, b), above(a, b), seconds)

    return measure


def rounding_product(fmt: str, how: lp.Accumulator, *, transposed: bool = False) -> Any:
    """Return what multiplies by an accumulator, perhaps transposed operands."""

    def make(a: np.ndarray, b: np.ndarray) -> Work:
        if transposed:
            a, b = np.asfortranarray(a), np.asfortranarray(b)
        return functools.partial(lp.matmul, a, b, inputs=fmt, accumulator=how)

    return make


def numpy_product(a: np.ndarray, b: np.ndarray) -> Work:
    """Return NumPy's float32 product."""
    return lambda: a @ b


def torch_loop(fmt: str) -> Any:
    """Return the loop over k of whole matrices in torch, rounded after every step."""

    def make(a: np.ndarray, b: np.ndarray) -> Work:
        import torch

        left, right = (torch.from_numpy(x) for x in (a, b))

        def loop() -> Any:
            total = torch.zeros(len(a), b.shape[1])
            for k in range(len(b)):
                total += left[:, k, None] * right[k]
                total = total.to(getattr(torch, fmt)).float()
            return total

        return loop

    return make


def training_step(below: Callable[[], Work], above: Callable[[], Work]) -> Measure:
    """Compare two training steps, on one BLAS thread."""

    def measure(_: int, seconds: float) -> Quartiles:
        from training_steps import one_blas_thread

        with one_blas_thread():
            return ratio_of(below(), above(), seconds)

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
