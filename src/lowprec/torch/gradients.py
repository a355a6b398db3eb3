"""Rounding as a function that autograd, functorch and the compiler know."""

from __future__ import annotations

from typing import Any

import torch

from lowprec.torch import cpu, operators
from lowprec.torch.requests import gradient_dtype

_PLAIN = (torch.Tensor, torch.nn.Parameter)


def is_plain(x: Any) -> bool:
    """Whether nothing looks on: no transform, no tracing and no tensor of another kind.

    Then the kernel may be called without the operator, whose dispatch takes longer than the work
    on a small tensor.
    """
    return (
        type(x) in _PLAIN
        and not torch.compiler.is_compiling()
        and x.is_cpu
        and x.layout is torch.strided
        and not x.is_nested
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._functorch.peek_interpreter_stack() is None
        and not torch._C._functorch.is_legacy_batchedtensor(x)  # of is_grads_batched
        and torch._C._get_tracing_state() is None
    )


def differentiably(function: type[torch.autograd.Function]) -> Any:
    """Return what applies a function to plain tensors, in a node of the graph where one is needed.

    torch's own `apply` binds arguments to the signature, for default values that these classes have
    not: 20 microseconds. What it calls in the end takes them as they are.
    """
    apply_plainly = super(torch.autograd.Function, function).apply

    def run(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        if not is_plain(x):
            result: torch.Tensor = function.apply(x, *rest)
        elif torch.is_grad_enabled() and (
            x.requires_grad or any(isinstance(y, torch.Tensor) and y.requires_grad for y in rest)
        ):
            result = apply_plainly(x, *rest)
        else:
            result = function.forward(x, *rest)
        return result

    return run


def _run(x: torch.Tensor, how: str, dtype: torch.dtype, key: torch.Tensor | None) -> torch.Tensor:
    if is_plain(x):
        return cpu.round_tensor(x, how, dtype, operators.as_key(key))
    return operators.round_to(x, how, dtype, key)


class Round(torch.autograd.Function):
    """Rounding, whose gradient passes as if there were none, cut off, or rounded itself."""

    @staticmethod
    def forward(  # noqa: D102
        x: torch.Tensor,
        key: torch.Tensor | None,
        how: str,
        dtype: torch.dtype,
        limit: float | None,
        gradient: str,
    ) -> torch.Tensor:
        return _run(x, how, dtype, key)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: D102
        x, _, _, _, ctx.limit, ctx.gradient = inputs
        ctx.dtype = x.dtype
        if ctx.limit is not None:
            ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:  # noqa: D102
        if ctx.limit is not None:
            (x,) = ctx.saved_tensors
            g = torch.where(x.abs() > ctx.limit, 0, g)
        return pass_back(g, ctx.gradient, ctx.dtype), None, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: torch.Tensor, *rest: Any) -> Any:  # noqa: D102
        if in_dims[0] is not None:
            x = x.movedim(in_dims[0], 0)
        return Round.apply(x, *rest), 0


def pass_back(g: torch.Tensor, gradient: str, dtype: torch.dtype) -> torch.Tensor:
    """Return a gradient in the dtype of the source, rounded first where `gradient` says how."""
    if gradient:
        held = gradient_dtype(gradient, g.dtype)
        g = Round.apply(g, None, gradient, held, None, "")
    return g.to(dtype)
