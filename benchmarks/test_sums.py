"""Sums and inner products by accumulator, beside NumPy's and torch's float32.

A row notes its ratio to a float32 copy of the terms and to NumPy's float32 sum or product, measured
in turns, and the relative error of its result against the exact sum of the same terms, which
`math.fsum` computes; the products of 16-bit numbers are exact in float64. lowprec's sums must keep
the a-priori bound of `error_bound`.
"""

import functools
import math

import numpy as np
import pytest
from recording import skip_without, timed_in_threads

import lowprec as lp
from lowprec import Accumulator, error_bound

SIZES = [10**k for k in range(3, 9)]
HOW = {
    "float32": Accumulator("float32"),
    "float16": Accumulator("float16"),
    "bfloat16": Accumulator("bfloat16"),
    "bfloat16, pairwise": Accumulator("bfloat16", "pairwise"),
    "bfloat16, kahan": Accumulator("bfloat16", "kahan"),
    "bfloat16, blocked": Accumulator("bfloat16", "blocked", 128, "float32"),
    "bfloat16, stochastic": Accumulator("bfloat16", rounding="stochastic", rng=0),
    "float32, exact": Accumulator("float32", "exact"),
    "float32, blas": Accumulator("float32", "blas"),
}
WHO = [("lowprec", name, count) for name in HOW for count in (1, 2)]
WHO += [("numpy", "float32", 1), ("numpy", "float16", 1), ("torch", "bfloat16", 1)]
NOTES = {
    "numpy": "sums in vector lanes and pairwise, in an order of its own",
    "torch": "sums in float32 in an order of its own, and rounds once",
}
ROW = 100  # terms of a row where rows are summed: their sums can go to threads


@functools.lru_cache(maxsize=2)
def terms(elements):
    """Draw bfloat16 numbers of both signs near 1, so that every format above holds them."""
    x = np.random.default_rng(0).standard_normal(elements, np.float32)
    return lp.round_to(np.where(np.abs(x) < 2**-6, np.float32(1), x), "bfloat16")


@functools.lru_cache(maxsize=2)
def exact(elements, is_product):
    """Return the exact sum of the terms, or of their products, and that of the magnitudes."""
    x = terms(elements).astype(np.float64)
    x = x * np.roll(x, 1) if is_product else x
    return math.fsum(x), math.fsum(np.abs(x))


def judge(benchmark, result, elements, is_product, bound):
    """Note how far a sum is from the exact one, and hold ours to its bound."""
    right, size = exact(elements, is_product)
    error = abs(float(result) - right)
    told = error / size if math.isfinite(error) else None  # JSON has no infinity
    benchmark.extra_info["figures"] = {"error over Σ|x|": told}
    if bound is not None and np.isfinite(bound):
        assert error <= bound * size


def facts(kind, how, who, elements):
    return {
        "kind": kind,
        "work": f"{kind}, {how}",
        "format": how.partition(",")[0],
        "who": who,
        "dtype": "float32" if who == "lowprec" or how == "float32" else how,
        "bytes": elements * (4 if kind == "sum" else 8),
        "allocation": "allocated",
        "note": NOTES.get(who, ""),
    }


@pytest.mark.parametrize(("who", "how", "count"), WHO)
@pytest.mark.parametrize("elements", SIZES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy.float16 overflows
def test_sum(benchmark, elements, who, how, count):
    benchmark.group = f"sum, {elements:,} terms"
    x = terms(elements)
    float32 = functools.partial(np.sum, x, dtype=np.float32)
    work, bound = float32, None
    if who == "lowprec":
        work, bound = functools.partial(lp.sum, x, HOW[how]), error_bound(elements, HOW[how])
    elif how == "float16":
        work = functools.partial(np.sum, x.astype(np.float16), dtype=np.float16)
    elif who == "torch":
        torch = skip_without("torch")
        work = functools.partial(torch.sum, torch.from_numpy(x).bfloat16(), dtype=torch.bfloat16)
    told = facts("sum", how, who, elements)
    result = timed_in_threads(benchmark, work, count, elements=elements, float32=float32, **told)
    judge(benchmark, result, elements, False, bound)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("how", ["float32", "bfloat16", "bfloat16, kahan"])
@pytest.mark.parametrize("elements", SIZES)
def test_sum_of_rows(benchmark, elements, how, count):
    benchmark.group = f"sums of rows of {ROW}, {elements:,} terms"
    x = terms(elements).reshape(-1, ROW)
    told = facts("sum", how, "lowprec", elements) | {"work": f"sums of rows, {how}"}
    work = functools.partial(lp.sum, x, HOW[how], axis=1)
    float32 = functools.partial(np.sum, x, axis=1)
    result = timed_in_threads(benchmark, work, count, elements=elements, float32=float32, **told)
    wide = x.astype(np.float64)
    sizes = np.abs(wide).sum(axis=1)
    errors = np.abs(result - wide.sum(axis=1)) / sizes  # float64's own error is far below
    benchmark.extra_info["figures"] = {"largest error over Σ|x|": float(errors.max())}
    assert errors.max() <= error_bound(ROW, HOW[how])


@pytest.mark.parametrize(("who", "how", "count"), [row for row in WHO if row[2] == 1])
@pytest.mark.parametrize("elements", SIZES)
def test_dot(benchmark, elements, who, how, count):
    benchmark.group = f"dot, {elements:,} terms"
    x = terms(elements)
    y = np.roll(x, 1)
    float32 = functools.partial(np.dot, x, y)
    work, bound = float32, None
    if who == "lowprec":
        work = functools.partial(lp.dot, x, y, inputs="bfloat16", accumulator=HOW[how])
        bound = error_bound(elements, HOW[how])
    elif how == "float16":
        work = functools.partial(np.dot, x.astype(np.float16), y.astype(np.float16))
    elif who == "torch":
        torch = skip_without("torch")
        work = functools.partial(torch.dot, *(torch.from_numpy(v).bfloat16() for v in (x, y)))
    told = facts("dot", how, who, elements)
    result = timed_in_threads(benchmark, work, count, elements=elements, float32=float32, **told)
    judge(benchmark, result, elements, True, bound)
