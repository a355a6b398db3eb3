"""Elementary functions at 10^3 … 10^7 elements, beside those of NumPy, ml_dtypes and torch.

Rows as in test_operations.py. lowprec looks results up for formats of at most 16 bits; those of
float32 are computed one by one, and so timed for small arrays only. mpmath gives the right answers,
and lowprec must give them all.
"""

import functools

import numpy as np
import pytest
from exactness import accuracy, elementary
from recording import skip_without, timed_in_threads
from workload import workload

import lowprec as lp

FORMATS = ["bfloat16", "float16", "float8_e4m3fn", "float32"]
SIZES = [10**k for k in range(3, 8)]
CASES = [(fmt, n) for fmt in FORMATS for n in SIZES if fmt != "float32" or n <= 10**4]
FUNCTIONS = ["exp", "log", "sin", "tanh", "rsqrt"]
WHO = [("lowprec", 1), ("lowprec", 2), ("numpy", 1), ("float32", 1), ("torch", 1)]


@functools.lru_cache(maxsize=1)
def operand(name, fmt, elements):
    """Return values of the format as float32, in the function's domain."""
    x = lp.round_to(workload(elements).x, fmt)
    return np.where(x == 0, np.float32(1), np.abs(x)) if name in ("log", "rsqrt") else x


@functools.lru_cache(maxsize=1)
def answers(name, fmt, elements):
    x = operand(name, fmt, elements).astype(np.float64)
    distinct, places = np.unique(x, return_inverse=True)
    right, wide = elementary(name, lp.get_format(fmt), distinct.tobytes())
    right = right[places]
    if name in ("sin", "tanh"):  # odd functions: zeros have the sign of the operand
        right = np.where(right == 0, np.copysign(right, x), right)
    return right, wide[places]


def numpy_function(name):
    if name == "rsqrt":
        return lambda x, out: np.divide(x.dtype.type(1), np.sqrt(x, out=out), out=out)
    return getattr(np, name)


def work_of(who, name, fmt, elements):
    x = operand(name, fmt, elements)
    if who == "lowprec":
        return functools.partial(getattr(lp.Arithmetic(fmt), name), x, out=np.empty_like(x))
    if who == "torch":
        return torch_work(name, fmt, x)
    compute = numpy_function(name)
    if who == "numpy":
        narrow = x.astype(lp.get_format(fmt).dtype)
        return functools.partial(compute, narrow, out=np.empty_like(narrow))
    out = np.empty_like(x)
    return lambda: lp.round_to(compute(x, out=out), fmt, out=out)


def torch_work(name, fmt, x):
    torch = skip_without("torch")
    if fmt.startswith("float8"):
        pytest.skip(f"torch computes nothing in {fmt}")
    narrow = torch.from_numpy(x).to(getattr(torch, fmt))
    return functools.partial(getattr(torch, name), narrow, out=torch.empty_like(narrow))


@pytest.mark.parametrize(("who", "count"), WHO)
@pytest.mark.parametrize(("fmt", "elements"), CASES)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow to infinity in the peers
def test_elementary(benchmark, name, fmt, elements, who, count):
    skip_without("mpmath")  # which knows the right answers
    benchmark.group = f"{name} {fmt}, {elements:,} elements"
    work, x = work_of(who, name, fmt, elements), operand(name, fmt, elements)
    float32 = functools.partial(numpy_function(name), x, out=np.empty_like(x))
    result = timed_in_threads(benchmark, work, count, float32=float32)
    result = result.float().numpy() if who == "torch" else result
    found = accuracy(result, *answers(name, fmt, elements), lp.get_format(fmt))
    benchmark.extra_info.update(found)
    if who == "lowprec":
        assert found["bit_match"] == 1.0
