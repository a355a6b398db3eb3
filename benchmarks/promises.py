"""What lowprec promises of its speed, and how each promise is measured."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import llvmlite.binding
from measures import (
    copy,
    do,
    first_call,
    flags_cost,
    import_time,
    numpy_product,
    on_threads,
    product,
    ratio,
    rounding_product,
    small_call,
    torch_loop,
    training_step,
)
from peers import astype
from training_steps import in_numpy, in_torch, ours
from workload import FORMATS

from lowprec import Accumulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from measures import Measure
    from timing import Quartiles

SIZES = {"10⁶": 10**6, "10⁷": 10**7}
ONCE = {"measured": 10}
DIRECTED = ("toward_zero", "away_from_zero", "toward_positive", "toward_negative")


class Promise(NamedTuple):
    """One row: a limit, and how to measure what it limits at each size, in so many seconds."""

    work: str
    limit: float
    unit: str
    measure: Measure
    sizes: dict[str, int] = SIZES
    at_least: bool = False
    needs: tuple[str, ...] = ()

    def bound(self) -> str:
        """Write the limit."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g} {self.unit}"

    def is_met(self, figures: dict[str, Quartiles], tolerance: float) -> bool:
        """Whether every median is within the limit, widened by a fraction of it."""
        if self.at_least:
            return all(f.median >= self.limit * (1 - tolerance) for f in figures.values())
        return all(f.median <= self.limit * (1 + tolerance) for f in figures.values())


def promises() -> Iterator[Promise]:
    """List every row that can be measured here: peers may be missing."""
    return (promise for promise in _all() if all(map(find_spec, promise.needs)))


def missing() -> list[str]:
    """Name the packages for want of which rows are left out."""
    needed = {package for promise in _all() for package in promise.needs}
    return sorted(package for package in needed if find_spec(package) is None)


def _all() -> Iterator[Promise]:
    for part in (conversions, latencies, operations, products, training_steps):
        yield from part()


def conversions() -> Iterator[Promise]:
    """List what conversions may take."""
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


def latencies() -> Iterator[Promise]:
    """List what small calls, the import and the first call may take."""
    for task in ("encode", "decode", "round_to"):
        yield Promise(f"{task} bfloat16, 10 elements", 2.5, "µs", small_call(task), ONCE)
    yield Promise("import lowprec after numpy, ml_dtypes", 40, "ms", import_time, ONCE)
    yield Promise("first call, cold cache", 4, "× import numba", first_call("cold"), ONCE)
    yield Promise("first call, warm cache", 3, "× import numba", first_call("warm"), ONCE)


def operations() -> Iterator[Promise]:
    """List what counting events may add."""
    for fmt in ("bfloat16", "float16"):
        for name in ("add", "multiply", "divide", "sqrt", "fma", "remainder"):
            work = f"{name} {fmt}, counting events"
            yield Promise(work, 1.25, "× without", flags_cost(name, fmt), {"measured": 10**6})


PRODUCTS = {
    "float16": ("float16", Accumulator("float16"), 6),
    "bfloat16": ("bfloat16", Accumulator("bfloat16"), 9),
    "blocked": ("float16", Accumulator("float16", "blocked", 16, "float32"), 6),
    "float32": ("float32", Accumulator("float32"), 1.5),
}
BLAS = ("threadpoolctl",)  # holds NumPy's products to one thread
SMALL = [(128, 784, 100), (32, 784, 10)]


def products() -> Iterator[Promise]:
    """List what matrix products with a rounded accumulator may take."""
    square = (256, 256, 256)
    numpy = "× NumPy float32"
    for name, (fmt, how, limit) in PRODUCTS.items():
        mine = rounding_product(fmt, how)
        turned = rounding_product(fmt, how, transposed=True)
        shapes = [square, *SMALL] if name == "float32" else [square]
        for shape in shapes:
            work = f"matmul {'×'.join(map(str, shape))}, {name}"
            against = product(numpy_product, mine, shape, fmt)
            yield Promise(work, limit, numpy, against, ONCE, needs=BLAS)
        measure = product(mine, turned, square, fmt)
        yield Promise(f"matmul {name}, transposed", 1.2, "× plain", measure, ONCE, needs=BLAS)
    for name in ("float16", "bfloat16"):
        fmt, how, _ = PRODUCTS[name]
        measure = product(rounding_product(fmt, how), torch_loop(fmt), square, fmt)
        unit = "× torch's loop"
        yield Promise(
            f"matmul {name}", 8, unit, measure, ONCE, at_least=True, needs=(*BLAS, "torch")
        )


def training_steps() -> Iterator[Promise]:
    """List what a training step in mixed precision may take."""
    for policy in ("mixed_bfloat16", "mixed_float16"):
        for optimizer in ("SGD", "Adam"):
            mine = functools.partial(ours, policy, optimizer)
            work = f"step {policy}, {optimizer}"
            measure = training_step(functools.partial(in_numpy, optimizer), mine)
            yield Promise(work, 1.3, "× NumPy float32", measure, ONCE, needs=BLAS)
            measure = training_step(functools.partial(in_torch, optimizer), mine)
            yield Promise(work, 1, "× torch float32", measure, ONCE, needs=(*BLAS, "torch"))
