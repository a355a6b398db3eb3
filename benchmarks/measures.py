"""How promises are measured: as ratios of works that run in turns, or in new processes."""

from __future__ import annotations

import functools
import operator
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import numba
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


def operands_of(load: Workload, name: str, fmt: str, kind: str) -> list[np.ndarray]:
    """Return operands: values of the format, other numbers, or what overflows and underflows."""
    x = load.x if kind == "others" else lp.round_to(load.x, fmt)
    if kind == "extreme":
        limits = lp.get_format(fmt)
        large, small = np.float32(limits.max) / 4, np.float32(limits.smallest_normal) * 4
        x = np.where(x > 0, np.copysign(large, np.roll(x, 3)), small)
    other = np.roll(np.where(x == 0, np.float32(1), x), 1)
    if kind == "extreme" and name != "divide":
        other = x.copy()
    found = [x, other, np.roll(x, 2)][: ARITY.get(name, 2)]
    found = [np.abs(x)] if name == "sqrt" else found
    return [lp.round_to(v, fmt) if kind == "extreme" else v for v in found]


ARITY = {"sqrt": 1, "fma": 3}


def arithmetic(name: str, fmt: str, *, operands: str = "values", flags: bool = False) -> Make:
    """Return what computes an operation, of values of the format or of other numbers."""

    def make(load: Workload) -> Work:
        compute = getattr(lp.Arithmetic(fmt, flags=flags), name)
        values = operands_of(load, name, fmt, operands)
        return functools.partial(compute, *values, out=np.empty_like(values[0]))

    return make


TORCH = {"add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "sqrt": "sqrt"}


def torch_operation(name: str, fmt: str) -> Make:
    """Return torch's own operation on tensors of the format, which move half the bytes."""

    def make(load: Workload) -> Work:
        import torch

        torch.set_num_threads(1)
        values = operands_of(load, name, fmt, "values")
        tensors = [torch.from_numpy(x).to(getattr(torch, fmt)) for x in values]
        out = torch.empty_like(tensors[0])
        return functools.partial(getattr(torch, TORCH[name]), *tensors, out=out)

    return make


def flags_cost(name: str, fmt: str, *, operands: str = "values") -> Measure:
    """Compare an operation that counts events with one that does not."""
    how = {"operands": operands}
    return ratio(arithmetic(name, fmt, **how), arithmetic(name, fmt, flags=True, **how))


def elementary(name: str, fmt: str) -> Make:
    """Return what computes an elementary function of positive values."""

    def make(load: Workload) -> Work:
        x = lp.round_to(np.abs(load.x) + np.float32(0.125), fmt)
        values = [x, lp.round_to(np.roll(load.x, 1), fmt)] if name == "power" else [x]
        compute = getattr(lp.Arithmetic(fmt, flags=False), name)
        return functools.partial(compute, *values, out=np.empty_like(x))

    return make


def numpy_power(fmt: str) -> Make:
    """Return NumPy's power in float64, of the same operands."""

    def make(load: Workload) -> Work:
        x = lp.round_to(np.abs(load.x) + np.float32(0.125), fmt).astype(np.float64)
        y = lp.round_to(np.roll(load.x, 1), fmt).astype(np.float64)
        return functools.partial(_quiet_power, x, y, np.empty_like(x))

    return make


@np.errstate(all="ignore")
def _quiet_power(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    np.power(x, y, out=out)


def measuring(fmt: str) -> Make:
    """Return what measures a format."""
    return lambda load: functools.partial(lp.measure, load.x, fmt)


@numba.njit
def add_one_by_one(x: np.ndarray) -> np.float32:
    """Add float32 in C order, as a loop in C does."""
    total = np.float32(0)
    for i in range(x.size):
        total += x[i]
    return total


def normal_terms(elements: int) -> np.ndarray:
    """Draw the terms of sums."""
    return np.random.default_rng(0).standard_normal(elements, np.float32)


def scalar_sum(load: Workload) -> Work:
    """Return the scalar loop over as many float32 terms."""
    return functools.partial(add_one_by_one, normal_terms(load.x.size))


def summing(how: lp.Accumulator, *, terms: str = "N(0, 1)", rows: int = 0) -> Make:
    """Return what sums a row of terms, or as many in rows that lie side by side."""

    def make(load: Workload) -> Work:
        x = normal_terms(load.x.size)
        x = np.abs(x) if terms.startswith("|") else x
        if not rows:
            return functools.partial(lp.sum, x, how)
        whole = x[: x.size // rows * rows].reshape(-1, rows)
        return functools.partial(lp.sum, whole, how, axis=0)

    return make


def beside_busy_loops(make: Make) -> Measure:
    """Compare two threads with one while two other processes keep the processors busy."""

    def measure(elements: int, seconds: float) -> Quartiles:
        load = workload(elements)
        works = [on_threads(count, make)(load) for count in (1, 2)]
        loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
        try:
            return ratio_of(works[0], works[1], seconds)
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()

    return measure


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


def small_call(task: str, below: str = "") -> Measure:
    """Time a call on 10 elements, in µs, or as a ratio to another call."""

    def measure(_: int, seconds: float) -> Quartiles:
        names = [below, task] if below else [task]
        works = [small_calls()[name].call for name in names]
        times = interleaved(works, seconds=seconds, repeats=100)
        return Quartiles.of(times[:, 1] / times[:, 0] if below else times * 1e6)

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
