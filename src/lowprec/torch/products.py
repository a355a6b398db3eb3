"""Products whose operands, sums and gradients are rounded, as functions that autograd knows.

Every product is made of three: `operand` rounds what goes in and the gradient that comes out,
`sums` multiplies, and `outcome` adds a bias, rounds, and rounds the gradient that arrives. So a
linear layer is y = ○compute(Σ x·W + b), and from g = ○gradients(arriving gradient) come
dx = ○gradients(Σ g·W), dW = ○gradients(Σ gᵀ·x) and db = ○gradients(Σ g): `lowprec.train`'s rule.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor

from lowprec.accumulation import Accumulator, matmul
from lowprec.blocks import BlockFormat
from lowprec.formats import Format, float32, named_formats
from lowprec.torch import operators
from lowprec.torch.cpu import as_array, as_it_lies
from lowprec.torch.door import round_to
from lowprec.train.numerics import numerics_of

if TYPE_CHECKING:
    from lowprec.rounding import RoundingLike
    from lowprec.train.policy import Policy

AnyFormat = Format | BlockFormat


class How(NamedTuple):
    """What a product does: the formats of its operands, its result and gradients, and its sums."""

    left: AnyFormat
    right: AnyFormat
    result: AnyFormat | None
    gradient: AnyFormat
    gradient_result: AnyFormat | None
    sums: Accumulator
    gradient_sums: Accumulator
    scaled: Policy | None = None  # rounds tensors under scales of their own
    gradient_rounding: RoundingLike = "ties_to_even"  # of block formats

    @property
    def is_blocked(self) -> bool:
        """Whether operands are quantized along the axis that is summed."""
        return any(isinstance(f, BlockFormat) for f in (self.left, self.right, self.gradient))


def how_of(policy: Policy) -> How:
    """Return what a policy's products do."""
    compute: Any = policy.compute
    gradient: Any = policy.gradients
    sums = policy.accumulator
    between = None if isinstance(compute, BlockFormat) else compute
    back = None if isinstance(gradient, BlockFormat) else gradient
    scaled = policy if policy.tensor_scales else None
    weights: Any = compute if policy.weights is None else policy.weights
    rounding: RoundingLike = (
        "stochastic" if policy.gradient_rounding == "stochastic" else "ties_to_even"
    )
    return How(compute, weights, between, gradient, back, sums, sums, scaled, rounding)


# Rounding ------------------------------------------------------------------------------------


def _rounded(x: torch.Tensor, fmt: AnyFormat | None, how: How, is_gradient: bool) -> torch.Tensor:
    """Round a tensor where its format is not a block format; those are for the sums to see."""
    x = x.detach().to(torch.float32)
    if fmt is None or isinstance(fmt, BlockFormat) or fmt == float32:
        return x
    if how.scaled is None:
        return round_to(x, fmt)
    if _has_no_numbers(x):
        return torch.empty_like(x)
    numerics = numerics_of(how.scaled)
    rounding = numerics.gradient if is_gradient else numerics.compute
    return torch.from_numpy(np.array(rounding(as_array(x))).reshape(x.shape))


def _has_no_numbers(x: torch.Tensor) -> bool:
    """Whether a tensor is a shape alone: on the meta device, or fake."""
    return x.is_meta or isinstance(x, FakeTensor)


class _Operand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, fmt: Any, how: How) -> torch.Tensor:
        ctx.how, ctx.dtype = how, x.dtype
        y = _rounded(x, fmt, how, is_gradient=False)
        return y.view_as(y)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        rounded = _rounded(g, ctx.how.gradient_result, ctx.how, is_gradient=True)
        return rounded.to(ctx.dtype), None, None


class _Outcome(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, bias: Any, dim: int, how: How) -> torch.Tensor:
        ctx.how, ctx.dim, ctx.has_bias = how, dim, bias is not None
        if bias is not None:
            shape = [1] * z.ndim
            shape[dim] = -1
            z = z + bias.view(shape)
        return _rounded(z, how.result, how, is_gradient=False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        is_plain = not isinstance(ctx.how.gradient, BlockFormat)
        if is_plain:
            g = _rounded(g, ctx.how.gradient, ctx.how, is_gradient=True)
        db = None
        if ctx.has_bias and ctx.needs_input_grad[1]:
            rows = g.movedim(ctx.dim, -1).reshape(-1, g.shape[ctx.dim])
            db = rows[0] if _has_no_numbers(g) else torch.from_numpy(_column_sums(as_array(rows)))
        return g, db, None, None


def _column_sums(g: Any) -> Any:
    from lowprec.train.layers.layer import column_sums

    return np.asarray(column_sums(g))


def operand(x: torch.Tensor, fmt: AnyFormat, how: How) -> torch.Tensor:
    """Round what goes into a product, and the gradient that comes out of it."""
    rounded: torch.Tensor = _Operand.apply(x, fmt, how)
    return rounded


def outcome(z: torch.Tensor, bias: torch.Tensor | None, how: How, dim: int = -1) -> torch.Tensor:
    """Add a bias along an axis in float32, round once, and round the gradient that arrives."""
    rounded: torch.Tensor = _Outcome.apply(z, bias, dim, how)
    return rounded


def rounded_both_ways(x: torch.Tensor, how: How) -> torch.Tensor:
    """Round a result that is not a product's, such as a norm's, and the gradient that arrives."""
    return outcome(x, None, how)


# Sums ----------------------------------------------------------------------------------------

_KNOWN: dict[str, Accumulator] = {}


@functools.lru_cache(256)
def _spell(sums: Accumulator) -> str:
    text = repr(sums)
    _KNOWN.setdefault(text, sums)
    return text


def _multiply(a: torch.Tensor, b: torch.Tensor, left: str, right: str, sums: str) -> torch.Tensor:
    how = _KNOWN[sums]
    if how.rng is None and _is_stochastic(how):
        how = dataclasses.replace(how, rng=operators.draw())
    product = matmul(as_it_lies(a), as_it_lies(b), inputs=(left, right), accumulator=how)
    return torch.from_numpy(np.ascontiguousarray(product, np.float32))


def _is_stochastic(how: Accumulator) -> bool:
    inner = how.inner
    return bool(getattr(how.rounding, "is_stochastic", False)) or (
        isinstance(inner, Accumulator) and _is_stochastic(inner)
    )


def _multiply_elsewhere(a: torch.Tensor, *how: Any) -> torch.Tensor:
    raise NotImplementedError(
        f"a is on {a.device}, where lowprec has no products; pass a.cpu() and b.cpu()"
    )


def _multiply_fake(a: torch.Tensor, b: torch.Tensor, *how: Any) -> torch.Tensor:
    shape = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return a.new_empty((*shape, a.shape[-2], b.shape[-1]), dtype=torch.float32)


operators.define("matmul(Tensor a, Tensor b, str left, str right, str sums) -> Tensor")
operators.implement("matmul", _multiply, "CPU")
operators.implement("matmul", _multiply_elsewhere, *operators.ACCELERATORS)
operators.register_fake("matmul", _multiply_fake)
_operator = torch.ops.lowprec.matmul.default


def _context(ctx: Any, inputs: Any, output: Any) -> None:
    a, b, *ctx.how = inputs
    ctx.save_for_backward(a, b)


def _gradients(ctx: Any, g: torch.Tensor) -> Any:
    """Return the gradients of both matrices: products of the same inputs and sums."""
    (a, b), (left, right, sums) = ctx.saved_tensors, ctx.how
    da = db = None
    if ctx.needs_input_grad[0]:
        da = _operator(g, b.mT, left, right, sums).sum_to_size(a.shape).to(a.dtype)
    if ctx.needs_input_grad[1]:
        db = _operator(a.mT, g, left, right, sums).sum_to_size(b.shape).to(b.dtype)
    return da, db, None, None, None


def _batch(info: Any, in_dims: Any, a: torch.Tensor, b: torch.Tensor, *how: Any) -> Any:
    """Multiply a batch as stacks of matrices, which broadcast."""
    depth = max(t.ndim - (dim is not None) for t, dim in zip((a, b), in_dims, strict=False))
    stacks = []
    for t, dim in zip((a, b), in_dims[:2], strict=True):
        t = t[None] if dim is None else t.movedim(dim, 0)
        stacks.append(t.reshape(t.shape[0], *[1] * (depth + 1 - t.ndim), *t.shape[1:]))
    return _operator(*stacks, *how), 0


operators.register_gradient("matmul", _gradients, _context)
operators.register_vmap("matmul", _batch)


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, how: How) -> torch.Tensor:
        ctx.how = how
        ctx.save_for_backward(a, b)
        left, right = _quantized(a, how.left, -1, how), _quantized(b, how.right, -2, how)
        return _multiplied(left, right, how.sums)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        (a, b), how = ctx.saved_tensors, ctx.how
        da = db = None
        sums, rounding = how.gradient_sums, how.gradient_rounding
        if ctx.needs_input_grad[0]:
            left = _quantized(g, how.gradient, -1, how, rounding)
            right = _quantized(b.mT, how.right, -2, how)
            da = _multiplied(left, right, sums).sum_to_size(a.shape)
        if ctx.needs_input_grad[1]:
            left = _quantized(a.mT, how.left, -1, how)
            right = _quantized(g, how.gradient, -2, how, rounding)
            db = _multiplied(left, right, sums).sum_to_size(b.shape)
        return da, db, None


Quantized = tuple[torch.Tensor, str]


def _multiplied(a: Quantized, b: Quantized, sums: Accumulator) -> torch.Tensor:
    return _operator(a[0], b[0], a[1], b[1], _spell(sums))


def _quantized(
    x: torch.Tensor,
    fmt: AnyFormat,
    axis: int,
    how: How,
    rounding: RoundingLike = "ties_to_even",
) -> Quantized:
    """Return an operand, in a block format along the axis that is summed, and its format's name."""
    if isinstance(fmt, BlockFormat):
        rounded = round_to(x, fmt, axis=-1 if fmt.is_tiled else axis, rounding=rounding)
        return rounded, "float32"
    # under a scale of its own a tensor exceeds its format; NaN passes where that has none
    keeps = how.scaled is None and fmt.has_nan and named_formats().get(fmt.name) == fmt
    return x, fmt.name if keeps else "float32"


def sums(a: torch.Tensor, b: torch.Tensor, how: How) -> torch.Tensor:
    """Multiply matrices or stacks of them; operands are rounded already."""
    product: torch.Tensor = _Sums.apply(a, b, how)
    return product
