"""The libraries beside us, asked for the same work.

Each function takes a workload, a format, a task (encode, decode or round_to) and whether to write
into new memory, and returns a call without arguments. Its result is an array of the format or of
its codes (encode), or of float32 values.
"""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from recording import skip_without

import lowprec as lp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from timing import Work
    from workload import Workload

TASKS = ("encode", "decode", "round_to")


def lowprec(load: Workload, fmt: str, task: str, allocate: bool = False) -> Work:
    """Return our own work."""
    if not allocate:
        return getattr(load, task)(fmt)
    operand = lp.encode(load.x, fmt) if task == "decode" else load.x
    return functools.partial(getattr(lp, task), operand, fmt)


def astype(load: Workload, fmt: str, task: str, allocate: bool = False) -> Work:
    """NumPy's casts: to its own float16, to ml_dtypes' bfloat16 and fp8."""
    dtype = lp.get_format(fmt).dtype
    if allocate:
        narrow = load.x.astype(dtype)
        return _allocating(
            task,
            lambda: load.x.astype(dtype),
            lambda: narrow.astype(np.float32),
            lambda: load.x.astype(dtype).astype(np.float32),
        )
    copy = functools.partial(np.copyto, casting="unsafe")
    return _casts(task, copy, load.x, np.zeros(load.x.shape, dtype), load.y)


def torch(load: Workload, fmt: str, task: str, allocate: bool = False) -> Work:
    """Torch's casts on the CPU."""
    torch = skip_without("torch")
    x, y = torch.from_numpy(load.x), torch.from_numpy(load.y)
    dtype = getattr(torch, fmt)
    if allocate:
        narrow = x.to(dtype)
        return _allocating(
            task, lambda: x.to(dtype), lambda: narrow.float(), lambda: x.to(dtype).float()
        )
    return _casts(task, torch.Tensor.copy_, x, torch.zeros(x.shape, dtype=dtype), y)


def jax(load: Workload, fmt: str, task: str, allocate: bool = True) -> Work:
    """JAX's casts on the CPU, compiled, on one thread (benchmarks/conftest.py sees to that)."""
    jax = skip_without("jax")
    dtype = lp.get_format(fmt).dtype
    x = jax.numpy.asarray(load.x)
    narrow = x.astype(dtype)
    compute, operand = {
        "encode": (lambda v: v.astype(dtype), x),
        "decode": (lambda v: v.astype(np.float32), narrow),
        "round_to": (
            # without the barrier XLA may leave the narrowing out
            lambda v: jax.lax.optimization_barrier(v.astype(dtype)).astype(np.float32),
            x,
        ),
    }[task]
    compiled = jax.jit(compute)
    return lambda: compiled(operand).block_until_ready()


def gfloat(load: Workload, fmt: str, task: str, allocate: bool = True) -> Work:
    """Gfloat's array functions; its encode alone rounds toward zero, its decode gives float64."""
    gfloat = skip_without("gfloat")
    skip_without("gfloat.formats")
    names = {"float16": "binary16", "float8_e4m3fn": "ocp_e4m3", "float8_e5m2": "ocp_e5m2"}
    info = getattr(gfloat.formats, f"format_info_{names.get(fmt, fmt)}")
    codes = lp.encode(load.x, fmt)
    return _allocating(
        task,
        lambda: gfloat.encode_ndarray(info, gfloat.round_ndarray(info, load.x)).astype(codes.dtype),
        lambda: gfloat.decode_ndarray(info, codes).astype(np.float32),
        lambda: gfloat.round_ndarray(info, load.x).astype(np.float32),
    )


def pychop(load: Workload, fmt: str, task: str, allocate: bool = True) -> Work:
    """Pychop's rounding, on its NumPy back end."""
    pychop = skip_without("pychop")
    pychop.backend("numpy")
    chosen = lp.get_format(fmt)
    chop = pychop.Chop(exp_bits=chosen.exponent_bits, sig_bits=chosen.trailing_bits, rmode=1)

    def work() -> Any:
        with np.errstate(all="ignore"):
            return chop(load.x)

    return work


def qtorch(load: Workload, fmt: str, task: str, allocate: bool = True) -> Work:
    """QPyTorch's rounding on the CPU; it compiles itself when it is first imported."""
    torch = skip_without("torch")
    quant = skip_without("qtorch.quant")
    chosen = lp.get_format(fmt)
    x = torch.from_numpy(load.x)
    bits = chosen.exponent_bits, chosen.trailing_bits
    return lambda: quant.float_quantize(x, *bits, rounding="nearest")


def _casts(task: str, copy: Callable[[Any, Any], object], x: Any, narrow: Any, y: Any) -> Work:
    """Encode by copying into an array of the format, decode by copying out of it."""
    copies = {
        "encode": [(narrow, x)],
        "decode": [(y, narrow)],
        "round_to": [(narrow, x), (y, narrow)],
    }[task]
    copy(narrow, x)  # what decode reads
    result = copies[-1][0]

    def work() -> Any:
        for target, source in copies:
            copy(target, source)
        return result

    return work


def _allocating(task: str, encode: Work, decode: Work, round_to: Work) -> Work:
    return dict(zip(TASKS, (encode, decode, round_to), strict=True))[task]


class Peer(NamedTuple):
    """A library: how it is asked, what for, and what differs in what it means."""

    make: Callable[..., Work]
    tasks: tuple[str, ...] = TASKS
    allocations: tuple[str, ...] = ("preallocated", "allocated")
    threads: tuple[int, ...] = (1,)
    most: int = 10**8  # elements: beyond, it would take minutes
    notes: Mapping[str, str] = MappingProxyType({})  # by format or task, or for all under ""

    def note(self, fmt: str, task: str = "") -> str:
        """Return what differs in a task and format."""
        return "; ".join(self.notes[key] for key in (fmt, task, "") if self.notes.get(key))


PEERS = {
    "lowprec": Peer(lowprec, threads=(1, 2)),
    "astype": Peer(astype, notes={"round_to": "round_to is two casts"}),
    "torch": Peer(
        torch,
        threads=(1, 2),
        notes={"round_to": "round_to is two casts", "float8_e4m3fn": "saturates"},
    ),
    "jax": Peer(jax, allocations=("allocated",)),
    "gfloat": Peer(gfloat, allocations=("allocated",), most=10**5),
    "pychop": Peer(pychop, ("round_to",), ("allocated",), most=10**5),
    "qtorch": Peer(
        qtorch, ("round_to",), ("allocated",), notes={"": "ties go away from zero; saturates"}
    ),
}


def name(who: str, fmt: str) -> str:
    """Name whose work a cast is: NumPy has float16, ml_dtypes brings the other formats."""
    return ("numpy" if fmt == "float16" else "ml_dtypes") if who == "astype" else who


def values(result: Any, fmt: str) -> np.ndarray:
    """Return what a result means, in float64; codes are read by ml_dtypes or NumPy."""
    array = result.float().numpy() if hasattr(result, "numpy") else np.asarray(result)
    if array.dtype.kind == "u":
        array = array.view(lp.get_format(fmt).dtype)
    return array.astype(np.float64)
