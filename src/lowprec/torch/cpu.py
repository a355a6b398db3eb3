"""Tensors on the CPU as the kernels' arrays: without a copy, and of any strides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lowprec.common.processor_state import in_exact_state
from lowprec.conversion.requests import as_codes, decoding_work, refuse_specials, run
from lowprec.torch.dtypes import FORMAT_OF, INTEGERS, read, spell
from lowprec.torch.requests import NARROW, VIEW, Steps, steps_for

if TYPE_CHECKING:
    from lowprec.arrays.direct import Work

Array = np.ndarray[Any, Any]


def round_tensor(x: torch.Tensor, how: str, result: torch.dtype, key: int) -> torch.Tensor:
    """Round a CPU tensor, or encode it where `result` is a dtype of codes."""
    steps = steps_for(how, x.dtype, result)
    out = torch.empty_like(x, dtype=result)
    if steps.is_simple and x.is_contiguous() and not x.is_neg():
        assert steps.round is not None
        source, target = x.detach().numpy().reshape(-1), out.numpy().reshape(-1)
        steps.round.kernel(source, target, key)
        return out
    _write(steps, x, out, key)
    return out


def round_in_place(x: torch.Tensor, how: str, key: int) -> None:
    """Round a CPU tensor where it lies; elements that share memory get one result."""
    steps = steps_for(how, x.dtype, x.dtype)
    if x.is_neg():
        x.copy_(round_tensor(x, how, x.dtype, key))
        return
    _write(steps, x, x, key)


@in_exact_state
def _write(steps: Steps, x: torch.Tensor, out: torch.Tensor, key: int) -> None:
    x = x.detach().resolve_neg()
    if x.dtype in NARROW:  # torch's own conversion loses the sign of float16's NaN
        x = decode_tensor(x.view(VIEW[x.dtype.itemsize]), spell(FORMAT_OF[x.dtype]), steps.working)
    elif x.dtype not in INTEGERS:
        x = x.to(steps.working)
    source, target = x.numpy(), out.detach().view(steps.seen_as).numpy()
    refuse_specials(source, steps.refuses)
    if steps.encode is None:
        assert steps.round is not None
        if target.dtype != steps.round.result:
            np.copyto(target, _run(steps.round, source, None, key))  # exact
            return
        _run(steps.round, source, target, key)
        return
    if steps.round is not None:
        source = _run(steps.round, source, None, key)
    _run(steps.encode, source, target, key)


def _run(work: Work, source: Array, target: Array | None, key: int) -> Any:
    """Run a conversion, NaN passing; in memory's order where random bits need no other."""
    if not work.is_stochastic and source.ndim > 1 and not source.flags.c_contiguous:
        order = np.argsort([-abs(stride) for stride in source.strides], kind="stable")
        source = source.transpose(order)
        target = None if target is None else target.transpose(order)
        result = run(work._replace(refuses=None), source, target, False, key)
        return result.transpose(np.argsort(order))
    return run(work._replace(refuses=None), source, target, False, key)


def decode_tensor(codes: torch.Tensor, fmt: str, dtype: torch.dtype) -> torch.Tensor:
    """Return the values of codes of a format."""
    array = as_codes(codes.detach().numpy(), read(fmt))
    out = torch.empty_like(codes, dtype=dtype)
    target = out.numpy()
    _run(decoding_work(read(fmt), target.dtype, array.dtype), array, target, 0)
    return out


@in_exact_state
def as_array(x: torch.Tensor) -> Array:
    """Return the numbers of a CPU tensor as a contiguous array, float32 or wider."""
    return np.ascontiguousarray(as_it_lies(x))


@in_exact_state
def as_it_lies(x: torch.Tensor) -> Array:
    """Return the numbers of a CPU tensor as an array with its strides, float32 or wider."""
    if not x.is_cpu:
        raise NotImplementedError(
            f"a tensor is on {x.device}, where lowprec cannot do this; pass x.cpu() and move the "
            "result"
        )
    x = x.detach().resolve_neg()
    if x.dtype in NARROW:
        x = decode_tensor(x.view(VIEW[x.dtype.itemsize]), spell(FORMAT_OF[x.dtype]), torch.float32)
    numbers: Array = x.numpy()
    return numbers
