"""Operations at 10^3 … 10^7 elements, beside those of NumPy, ml_dtypes and torch.

A group holds one operation, format and size. `lowprec` counts events unless its row says otherwise;
`numpy` is NumPy's ufunc on arrays of the format's own dtype (ml_dtypes' for bfloat16 and fp8),
`float32` NumPy's ufunc on float32 arrays and `round_to` after it. Each row says which part of its
results is right to the bit and how far the worst one is from the exact result (`extra_info`).
lowprec's must all be right.
"""

import functools

import numpy as np
import pytest
from exactness import accuracy, operation
from recording import skip_without, timed_in_threads
from workload import workload

import lowprec as lp

SIZES = [10**k for k in range(3, 8)]
FORMATS = ["bfloat16", "float16", "float8_e4m3fn", "float32"]
ARITY = {"add": 2, "multiply": 2, "divide": 2, "sqrt": 1, "fma": 3, "remainder": 2}
WHO = [("lowprec", 1), ("lowprec", 2), ("lowprec without flags", 1)]
WHO += [("numpy", 1), ("float32", 1), ("torch", 1)]

UFUNCS = {"add": np.add, "multiply": np.multiply, "divide": np.divide, "sqrt": np.sqrt}
TORCH = {"add": "add", "multiply": "mul", "divide": "div", "sqrt": "sqrt"}


@functools.lru_cache(maxsize=1)
def operands(name, fmt, elements):
    """Return values of the format as float32, none a zero divisor or negative under a root."""
    x = lp.round_to(workload(elements).x, fmt)
    values = [x, np.roll(x, 1), np.roll(x, 2)][: ARITY[name]]
    if name in ("divide", "remainder"):
        values[1] = np.where(values[1] == 0, np.float32(1), values[1])
    return [np.abs(x)] if name == "sqrt" else values


@functools.lru_cache(maxsize=1)
def answers(name, fmt, elements):
    with np.errstate(all="ignore"):
        return operation(name, operands(name, fmt, elements), lp.get_format(fmt))


def lowprec_work(name, fmt, elements, flags):
    values = operands(name, fmt, elements)
    compute = getattr(lp.Arithmetic(fmt, flags=flags), name)
    return functools.partial(compute, *values, out=np.empty_like(values[0]))


def ufunc_work(name, values):
    """Apply NumPy's ufunc in the dtype of the values; a·b + c rounds twice."""
    out = np.empty_like(values[0])
    if name != "fma":
        return functools.partial(UFUNCS[name], *values, out=out)
    return lambda: np.add(np.multiply(*values[:2], out=out), values[2], out=out)


def numpy_work(name, fmt, elements):
    dtype = lp.get_format(fmt).dtype
    return ufunc_work(name, [x.astype(dtype) for x in operands(name, fmt, elements)])


def float32_work(name, fmt, elements):
    """Compute in float32, then round once more."""
    compute = ufunc_work(name, operands(name, fmt, elements))

    def work():
        result = compute()
        return lp.round_to(result, fmt, out=result)

    return work


def torch_work(name, fmt, elements):
    torch = skip_without("torch")
    if not hasattr(torch, fmt) or fmt.startswith("float8"):
        pytest.skip(f"torch computes nothing in {fmt}")
    dtype = getattr(torch, fmt)
    values = [torch.from_numpy(x).to(dtype) for x in operands(name, fmt, elements)]
    out = torch.empty_like(values[0])
    if name == "fma":
        return lambda: torch.addcmul(values[2], values[0], values[1], out=out)
    return lambda: getattr(torch, TORCH[name])(*values, out=out)


def work_of(who, name, fmt, elements):
    if who.startswith("lowprec"):
        return lowprec_work(name, fmt, elements, flags=who == "lowprec")
    if name == "remainder":
        pytest.skip(f"{who} has no IEEE remainder")
    return {"numpy": numpy_work, "float32": float32_work, "torch": torch_work}[who](
        name, fmt, elements
    )


@pytest.mark.parametrize(("who", "count"), WHO)
@pytest.mark.parametrize("elements", SIZES)
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", ARITY)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow to infinity in the peers
def test_operation(benchmark, name, fmt, elements, who, count):
    benchmark.group = f"{name} {fmt}, {elements:,} elements"
    work = work_of(who, name, fmt, elements)
    has_ufunc = name != "remainder"
    float32 = ufunc_work(name, operands(name, fmt, elements)) if has_ufunc else None
    result = timed_in_threads(benchmark, work, count, float32=float32)
    result = result.float().numpy() if who == "torch" else result
    found = accuracy(result, *answers(name, fmt, elements), lp.get_format(fmt))
    benchmark.extra_info.update(found)
    if who.startswith("lowprec"):
        assert found["bit_match"] == 1.0
