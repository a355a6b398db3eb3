"""What lowprec promises of its speed, and how each promise is measured."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import blocks
import llvmlite.binding
from measures import (
    arithmetic,
    beside_busy_loops,
    copy,
    do,
    elementary,
    first_call,
    flags_cost,
    import_time,
    measuring,
    numpy_power,
    numpy_product,
    on_threads,
    product,
    ratio,
    rounding_product,
    scalar_sum,
    small_call,
    summing,
    torch_loop,
    torch_operation,
    training_step,
)
from peers import astype
from tracing import traced
from training_steps import in_numpy, in_torch, ours, ten_steps
from workload import FORMATS

from lowprec import Accumulator, tensor_core
from lowprec.train import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from measures import Measure
    from timing import Quartiles

SIZES = {"10⁵": 10**5, "10⁶": 10**6, "10⁷": 10**7}  # all columns
OUT_OF_CACHE = {"10⁶": 10**6, "10⁷": 10**7}
LARGE, MILLION = {"10⁷": 10**7}, {"10⁶": 10**6}
ONCE = {"measured": 10}
DIRECTED = ("toward_zero", "away_from_zero", "toward_positive", "toward_negative")


class Promise(NamedTuple):
    """One row: a limit, and how to measure what it limits at each size, in so many seconds."""

    work: str
    limit: float
    unit: str
    measure: Measure
    sizes: dict[str, int] = OUT_OF_CACHE
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
    parts = (
        conversions,
        block_formats,
        latencies,
        operations,
        sums,
        products,
        training_steps,
        bridges,
    )
    for part in (*parts, traces):
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
    for fmt in ("float6_e3m2fn", "float6_e2m3fn", "float4_e2m1fn"):
        measure = ratio(do("round_to", "float8_e4m3fn"), do("round_to", fmt))
        yield Promise(f"round_to {fmt}, without NaN", 1.3, "× float8_e4m3fn", measure)
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
    for task, fmt in (("encode", "bfloat16"), ("round_to", "mxfp4")):
        work = f"{task} {fmt} beside two busy loops, two threads"
        measure = beside_busy_loops(do(task, fmt))
        yield Promise(work, 1.2, "× one thread", measure, {"10⁶": 10**6})
    yield Promise("measure bfloat16", 8, "× copy", ratio(copy, measuring("bfloat16")), LARGE)


#: the most µs that a call on 10 contiguous float32 elements, or on Python's scalars, may take
CALLS = {
    "round_to, out": 1.5,
    "encode, out": 1.5,
    "decode, out": 1.5,
    "round_to": 2,
    "encode": 2,
    "decode": 2,
    "round_to, scalar": 2,
    "add, out": 2.5,
    "add": 3,
    "add, scalars": 3,
    "sum": 6,
    "dot": 6,
    "ulp": 6,
    "measure": 30,
}


def block_formats() -> Iterator[Promise]:
    """List what block formats may take."""
    for fmt, limit in (("mxfp8_e4m3", 3), ("mxfp4", 3), ("nvfp4", 5)):
        yield Promise(f"round_to {fmt}", limit, "× copy", ratio(copy, do("round_to", fmt)))
        yield Promise(f"quantize {fmt}", limit, "× copy", ratio(copy, blocks.quantized(fmt)))
        measure = ratio(blocks.along(-1, fmt), blocks.along(0, fmt))
        yield Promise(f"round_to {fmt}, first axis", 2, "× last axis", measure)
        measure = ratio(blocks.quantized(fmt), blocks.torchao(fmt))  # of speeds
        needs = ("torch", "torchao")
        yield Promise(f"quantize {fmt}", 5, "× torchao", measure, at_least=True, needs=needs)


def latencies() -> Iterator[Promise]:
    """List what small calls, the import and the first call may take."""
    for call, limit in CALLS.items():
        yield Promise(f"{call} bfloat16, 10 elements", limit, "µs", small_call(call), ONCE)
    measure = small_call("round_to, stochastic", "round_to")
    yield Promise("round_to bfloat16, 10 elements, stochastic", 2, "× nearest", measure, ONCE)
    yield Promise("import lowprec after numpy, ml_dtypes", 20, "ms", import_time, ONCE)
    yield Promise("first call, cold cache", 4, "× import numba", first_call("cold"), ONCE)
    yield Promise("first call, warm cache", 2.6, "× import numba", first_call("warm"), ONCE)


BASIC = ("add", "subtract", "multiply", "divide", "sqrt")
UNARY = ("exp", "log", "tanh", "sigmoid", "erf", "rsqrt")


def operations() -> Iterator[Promise]:
    """List what operations may take, and what counting events may add."""
    sizes = {"10⁵": 10**5, "10⁶": 10**6}
    for fmt in ("bfloat16", "float16"):
        for name in BASIC:
            theirs = torch_operation(name, fmt)
            for operands, limit in (("values", 1), ("others", 2)):
                measure = ratio(theirs, arithmetic(name, fmt, operands=operands))
                work = f"{name} {fmt}, of {operands}"
                yield Promise(work, limit, "× torch", measure, sizes, needs=("torch",))
        for name, limit in (("fma", 2), ("remainder", 6)):
            measure = ratio(arithmetic("multiply", fmt), arithmetic(name, fmt))
            yield Promise(f"{name} {fmt}", limit, "× multiply", measure, sizes)
        for name in (*BASIC, "fma", "remainder"):
            work = f"{name} {fmt}, counting events"
            yield Promise(work, 1.25, "× without", flags_cost(name, fmt), MILLION)
        for name in ("multiply", "divide", "fma"):
            work = f"{name} {fmt}, counting overflows and underflows"
            measure = flags_cost(name, fmt, operands="extreme")
            yield Promise(work, 1.25, "× without", measure, MILLION)
        for name in UNARY:
            measure = ratio(copy, elementary(name, fmt))
            yield Promise(f"{name} {fmt}", 6, "× copy", measure, MILLION)
        measure = ratio(numpy_power(fmt), elementary("power", fmt))
        yield Promise(f"power {fmt}", 2, "× NumPy float64", measure, MILLION)


NARROW = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")
OTHER_MODES = (*DIRECTED, "ties_to_away", "ties_toward_zero", "to_odd")


def sums() -> Iterator[Promise]:
    """List what sums may take, in a scalar float32 loop's time for as many terms."""

    def promise(work: str, limit: float, how: Accumulator, **options: Any) -> Promise:
        measure = ratio(scalar_sum, summing(how, **options))
        return Promise(f"sum {work}", limit, "× scalar loop", measure, MILLION)

    yield promise("float32", 1.3, Accumulator("float32"))
    for fmt in NARROW:
        for terms in ("N(0, 1)", "|N(0, 1)|"):
            yield promise(f"{fmt}, {terms}", 6, Accumulator(fmt), terms=terms)
    for mode in OTHER_MODES:
        yield promise(f"bfloat16, {mode}", 8, Accumulator("bfloat16", rounding=mode))
    for fmt in ("float32", "bfloat16", "float16"):
        for rows in (16, 1000):
            yield promise(f"{fmt}, {rows} rows side by side", 0.6, Accumulator(fmt), rows=rows)
        yield promise(f"{fmt}, pairwise", 1.5, Accumulator(fmt, "pairwise"))
        yield promise(f"{fmt}, exact", 2, Accumulator(fmt, "exact"))
        yield promise(f"{fmt}, kahan", 40, Accumulator(fmt, "kahan"))
    for fmt in ("bfloat16", "float16"):
        how = Accumulator(fmt, rounding="stochastic", rng=0)
        yield promise(f"{fmt}, stochastic", 12, how)


PRODUCTS = {
    "float16": ("float16", Accumulator("float16"), 6),
    "bfloat16": ("bfloat16", Accumulator("bfloat16"), 9),
    "blocked": ("float16", Accumulator("float16", "blocked", 16, "float32"), 6),
    "float32": ("float32", Accumulator("float32"), 1.5),
    **{
        fmt: (fmt, Accumulator(fmt), limit)
        for fmt, limit in (("float8_e4m3fn", 6), ("float8_e5m2", 6), ("float4_e2m1fn", 9))
    },
}
#: accumulators of float16 that take more than one rounding a step, or draw for it
OTHER_SUMS = {
    "unfused float16": (Accumulator("float16", fused=False), 10),
    "stochastic float16, 16 random bits": (
        Accumulator("float16", rounding="stochastic", random_bits=16, rng=0),
        30,
    ),
}
TENSOR_CORES = (
    ("h100", "float16"),
    ("h100", "float8_e4m3fn"),
    ("a100", "bfloat16"),
    ("h100", "tfloat32"),
    ("a100", "tfloat32"),
    ("v100", "float16"),
)
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
    for name, (how, limit) in OTHER_SUMS.items():
        measure = product(numpy_product, rounding_product("float16", how), square, "float16")
        yield Promise(f"matmul 256×256×256, {name}", limit, numpy, measure, ONCE, needs=BLAS)
    for unit, fmt in TENSOR_CORES:
        mine = rounding_product(fmt, tensor_core(unit, fmt))
        work = f"matmul 256×256×256, tensor core {unit} {fmt}"
        against = product(numpy_product, mine, square, fmt)
        yield Promise(work, 25, numpy, against, ONCE, needs=BLAS)
    for name in ("float16", "bfloat16"):
        fmt, how, _ = PRODUCTS[name]
        measure = product(rounding_product(fmt, how), torch_loop(fmt), square, fmt)
        unit = "× torch's loop"
        yield Promise(
            f"matmul {name}", 8, unit, measure, ONCE, at_least=True, needs=(*BLAS, "torch")
        )


def training_steps() -> Iterator[Promise]:
    """List what a training step in mixed precision, and recording one in ten, may take."""
    for policy in ("mixed_bfloat16", "mixed_float16"):
        for optimizer in ("SGD", "Adam"):
            mine = functools.partial(ours, policy, optimizer)
            work = f"step {policy}, {optimizer}"
            measure = training_step(functools.partial(in_numpy, optimizer), mine)
            yield Promise(work, 1.15, "× NumPy float32", measure, ONCE, needs=BLAS)
            measure = training_step(functools.partial(in_torch, optimizer), mine)
            yield Promise(work, 1, "× torch float32", measure, ONCE, needs=(*BLAS, "torch"))
            alone, recorded = (
                functools.partial(_ten_steps, policy, optimizer, every) for every in (None, 10)
            )
            work = f"ten steps of digits {policy}, {optimizer}, one recorded"
            measure = training_step(alone, recorded)
            yield Promise(work, 1.25, "× unrecorded", measure, ONCE, needs=BLAS)


def _ten_steps(policy: str, optimizer: str, every: int | None) -> Any:
    recorder = None if every is None else Recorder(every)
    return ten_steps("digits", policy, optimizer, recorder)


def traces() -> Iterator[Promise]:
    """List what a traced program may take beside NumPy float64."""
    one, small, large = {"1": 1}, {"10": 10, "10³": 1000}, {"10⁵": 10**5}
    yield Promise("trace of numbers, an operation", 3, "µs", traced("µs", budget=False), one)
    yield Promise("trace of arrays, an operation", 25, "µs", traced("µs", budget=False), small)
    yield Promise("trace", 15, "× NumPy float64", traced("times", budget=False), large)
    measure = traced("times", budget=True)
    yield Promise("trace with shares of error, six lines", 60, "× NumPy float64", measure, large)


def bridges() -> Iterator[Promise]:
    """List what the bridges to torch and JAX may take."""
    if find_spec("torch") is None:
        return
    import torch_bridge

    for name, (limit, unit, at_least, needs, _) in torch_bridge.ROWS.items():

        def measure(_: int, seconds: float, name: str = name) -> Quartiles:
            return torch_bridge.measured(name, seconds)

        yield Promise(name, limit, unit, measure, ONCE, at_least, ("torch", *needs))
