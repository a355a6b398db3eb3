"""Products whose operands, sums and gradients are rounded, as functions that autograd knows.

Every product is made of three: `operand` rounds what goes in and the gradient that comes out,
`sums` multiplies, and `outcome` adds a bias, rounds, and rounds the gradient that arrives. So a
linear layer is y = ○compute(Σ x·W + b), and from g = ○gradients(arriving gradient) come
dx = ○gradients(Σ g·W), dW = ○gradients(Σ gᵀ·x) and db = ○gradients(Σ g): `lowprec.train`'s rule.
Functions take plain values, so that every kind of tracing takes them; gradients are products again.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import torch

from lowprec.accumulation import Accumulator, matmul
from lowprec.blocks import BlockFormat
from lowprec.formats import Format, float32, get_format, named_formats
from lowprec.rounding import Overflow, Rounding
from lowprec.torch import blocks, operators
from lowprec.torch.cpu import as_array, as_it_lies, round_tensor
from lowprec.torch.gradients import differentiably, is_plain
from lowprec.torch.requests import constant, spell_request
from lowprec.train.layers.layer import column_sums
from lowprec.train.numerics import numerics_of
from lowprec.train.policy import Policy, get_policy

AnyFormat = Format | BlockFormat


class Factor(NamedTuple):
    """A factor of a product, or the gradient that its backward products multiply."""

    rounded: str = ""  # the request by which its elements are rounded first; empty: by none
    blocks: str = ""  # the block format that it is quantized to along the axis that is summed
    rounding: str = "ties_to_even"  # of block formats
    values: str = "float32"  # the format whose values it then has


class Sums(NamedTuple):
    """How products are summed."""

    spelled: str
    draws: bool  # whether random bits


class How(NamedTuple):
    """What a product does: to its operands, its result and gradients, and how it sums."""

    left: Factor
    right: Factor
    result: str
    gradient: Factor
    gradient_result: str
    sums: Sums
    gradient_sums: Sums
    scaled: str = ""  # the policy that rounds tensors under scales of their own


_KEPT: dict[int, tuple[Policy | str, How]] = {}
_POLICIES: dict[str, Policy] = {}
_SUMS: dict[str, Accumulator] = {}


@constant
def how_of(policy: Policy | str) -> How:
    """Return what a policy's products do; kept by the object, for a policy takes long to hash."""
    kept = _KEPT.get(id(policy))
    if kept is None or kept[0] is not policy:
        if len(_KEPT) >= 256:
            _KEPT.clear()
        kept = _KEPT[id(policy)] = policy, _how_of(get_policy(policy))
    return kept[1]


def _how_of(policy: Policy) -> How:
    compute: Any = policy.compute
    gradient: Any = policy.gradients
    weights: Any = compute if policy.weights is None else policy.weights
    rounding = "stochastic" if policy.gradient_rounding == "stochastic" else "ties_to_even"
    between = None if isinstance(compute, BlockFormat) else compute
    back = None if isinstance(gradient, BlockFormat) else gradient
    how = make_how(compute, weights, between, gradient, back, policy.accumulator, rounding=rounding)
    if not policy.tensor_scales:
        return how
    spelled = repr(policy)
    _POLICIES.setdefault(spelled, policy)
    # under a scale of its own a tensor exceeds its format
    left, right = how.left._replace(values="float32"), how.right._replace(values="float32")
    gradient = how.gradient._replace(values="float32")
    return how._replace(left=left, right=right, gradient=gradient, scaled=spelled)


def make_how(
    left: AnyFormat,
    right: AnyFormat,
    result: AnyFormat | None,
    gradient: AnyFormat,
    gradient_result: AnyFormat | None,
    sums: Accumulator,
    gradient_sums: Accumulator | None = None,
    rounding: str = "ties_to_even",
) -> How:
    """Return what a product does, from formats and accumulators."""
    how = _spell_sums(sums)
    return How(
        _factor(left),
        _factor(right),
        _request(result),
        _factor(gradient, rounding),
        _request(gradient_result),
        how,
        how if gradient_sums is None else _spell_sums(gradient_sums),
    )


def _factor(fmt: AnyFormat, rounding: str = "ties_to_even") -> Factor:
    if isinstance(fmt, BlockFormat):
        blocks.block_format(fmt)  # kept for the operators
        return Factor(blocks=repr(fmt), rounding=rounding)
    is_known = named_formats().get(fmt.name) == fmt
    return Factor(_request(fmt), values=fmt.name if is_known else "float32")


def _request(fmt: AnyFormat | None) -> str:
    if fmt is None or fmt == float32:
        return ""
    if isinstance(fmt, BlockFormat):
        raise ValueError(
            f"a result is rounded element by element, and {fmt} is a block format; use "
            f"lowprec.torch.round_to(result, {str(fmt)!r}) afterwards"
        )
    return spell_request(fmt, Rounding.TIES_TO_EVEN, Overflow.IEEE, None)


def _spell_sums(sums: Accumulator) -> Sums:
    text = repr(sums)
    _SUMS.setdefault(text, sums)
    return Sums(text, sums.rng is None and _is_stochastic(sums))


def _is_stochastic(how: Accumulator) -> bool:
    inner = how.inner
    return bool(getattr(how.rounding, "is_stochastic", False)) or (
        isinstance(inner, Accumulator) and _is_stochastic(inner)
    )


# Rounding ------------------------------------------------------------------------------------


def _rounded(x: torch.Tensor, request: str, scaled: str, is_gradient: bool) -> torch.Tensor:
    """Return float32: rounded where a request or a policy says how."""
    if not request:
        return x.to(torch.float32)
    if scaled:
        result: torch.Tensor = _round_scaled(x, scaled, is_gradient)
        return result
    if is_plain(x):
        return round_tensor(x, request, torch.float32, 0)
    return operators.round_to(x, request, torch.float32)


class _RoundBothWays(torch.autograd.Function):
    """Rounding of a tensor, and of its gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: torch.Tensor, forth: str, back: str, scaled: str, is_gradient: bool
    ) -> torch.Tensor:
        y = _rounded(x, forth, scaled, is_gradient)
        return y.view_as(y) if y is x else y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, _, ctx.back, ctx.scaled, _ = inputs
        ctx.dtype = x.dtype

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        g = _round_both_ways(g, ctx.back, "", ctx.scaled, True)
        return g.to(ctx.dtype), None, None, None, None


class _AddBias(torch.autograd.Function):
    """A float32 sum with a bias along an axis, whose gradient is summed as training does."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: torch.Tensor, bias: torch.Tensor, dim: int) -> torch.Tensor:
        shape = [1] * z.ndim
        shape[dim] = -1
        return z + bias.view(shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, _, ctx.dim = inputs

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        return g, _sum_each_column(g, ctx.dim) if ctx.needs_input_grad[1] else None, None


class _SumColumns(torch.autograd.Function):
    """Sums over all axes but one, as training forms them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: torch.Tensor, dim: int) -> torch.Tensor:
        columns: torch.Tensor = _sum_columns(g, dim)
        return columns

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.shape, ctx.dim = inputs[0].shape, inputs[1]

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        shape = [1] * len(ctx.shape)
        shape[ctx.dim] = -1
        return g.view(shape).expand(ctx.shape), None


_round_both_ways = differentiably(_RoundBothWays)
_add_bias = differentiably(_AddBias)
_sum_each_column = differentiably(_SumColumns)


def operand(x: torch.Tensor, factor: Factor, how: How) -> torch.Tensor:
    """Round what goes into a product, and the gradient that comes out of it."""
    rounded: torch.Tensor = _round_both_ways(
        x, factor.rounded, how.gradient_result, how.scaled, False
    )
    return rounded


def outcome(z: torch.Tensor, bias: torch.Tensor | None, how: How, dim: int = -1) -> torch.Tensor:
    """Add a bias along an axis in float32, round once, and round the gradient that arrives."""
    z = z if bias is None else _add_bias(z, bias, dim)
    rounded: torch.Tensor = _round_both_ways(z, how.result, how.gradient.rounded, how.scaled, False)
    return rounded


def rounded_both_ways(x: torch.Tensor, how: How) -> torch.Tensor:
    """Round a result that is not a product's, such as a norm's, and the gradient that arrives."""
    return outcome(x, None, how)


# Operators -----------------------------------------------------------------------------------


def _one_by_one(operator: Any) -> Any:
    """Return the rule of vmap that calls an operator for each example."""

    def run(info: Any, in_dims: Any, x: torch.Tensor, *how: Any) -> Any:
        return torch.stack([operator(one, *how) for one in x.movedim(in_dims[0], 0)]), 0

    return run


def _scaled_rounding(x: torch.Tensor, policy: str, is_gradient: bool) -> torch.Tensor:
    numerics = numerics_of(_POLICIES[policy])
    rounding = numerics.gradient if is_gradient else numerics.compute
    array = np.ascontiguousarray(as_array(x), np.float32)
    return torch.from_numpy(np.array(rounding(array)).reshape(x.shape))


operators.define("round_scaled(Tensor x, str policy, bool is_gradient) -> Tensor")
operators.implement("round_scaled", _scaled_rounding, "CPU")
operators.register_fake("round_scaled", lambda x, *how: x.new_empty(x.shape, dtype=torch.float32))
_round_scaled = torch.ops.lowprec.round_scaled.default
operators.register_vmap("round_scaled", _one_by_one(_round_scaled))


def _columns_summed(g: torch.Tensor, dim: int) -> torch.Tensor:
    rows = g.movedim(dim, -1).flatten(0, -2) if g.ndim > 1 else g[None]
    return torch.from_numpy(np.asarray(column_sums(as_array(rows))))


operators.define("sum_columns(Tensor g, int dim) -> Tensor")
operators.implement("sum_columns", _columns_summed, "CPU")
operators.register_fake("sum_columns", lambda g, dim: g.new_empty((g.shape[dim],)))
_sum_columns = torch.ops.lowprec.sum_columns.default
operators.register_vmap("sum_columns", _one_by_one(_sum_columns))


def _multiply(
    a: torch.Tensor,
    b: torch.Tensor,
    left: str,
    right: str,
    sums: str,
    key: torch.Tensor | None = None,
) -> torch.Tensor:
    how = _SUMS[sums]
    if key is not None:
        how = dataclasses.replace(how, rng=operators.as_key(key))
    x, y = as_it_lies(a), as_it_lies(b)
    inputs = (_format_of_values(x, left), _format_of_values(y, right))
    product = matmul(x, y, inputs=inputs, accumulator=how)
    return torch.from_numpy(np.ascontiguousarray(product, np.float32))


def _format_of_values(x: np.ndarray[Any, Any], fmt: str) -> str:
    """Return the format whose values an array holds: float32 where it has no NaN, and `x` has."""
    return "float32" if not get_format(fmt).has_nan and np.isnan(x).any() else fmt


def _multiply_elsewhere(a: torch.Tensor, *how: Any) -> torch.Tensor:
    raise NotImplementedError(
        f"a is on {a.device}, where lowprec has no products; pass a.cpu() and b.cpu()"
    )


def _multiply_fake(a: torch.Tensor, b: torch.Tensor, *how: Any) -> torch.Tensor:
    shape = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return a.new_empty((*shape, a.shape[-2], b.shape[-1]), dtype=torch.float32)


operators.define(
    "matmul(Tensor a, Tensor b, str left, str right, str sums, Tensor? key=None) -> Tensor"
)
operators.implement("matmul", _multiply, "CPU")
operators.implement("matmul", _multiply_elsewhere, *operators.ACCELERATORS)
operators.register_fake("matmul", _multiply_fake)
_operator = torch.ops.lowprec.matmul.default


def _context(ctx: Any, inputs: Any, output: Any) -> None:
    a, b, *ctx.how, key = inputs
    ctx.draws = key is not None
    ctx.save_for_backward(a, b)


def _gradients(ctx: Any, g: torch.Tensor) -> Any:
    """Return the gradients of both matrices: products of the same inputs and sums."""
    (a, b), (left, right, sums) = ctx.saved_tensors, ctx.how
    da = db = None

    def product(x: torch.Tensor, y: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        z = _operator(x, y, left, right, sums, operators.draw_key() if ctx.draws else None)
        return z.sum_to_size(like.shape).to(like.dtype)

    if ctx.needs_input_grad[0]:
        da = product(g, b.mT, a)
    if ctx.needs_input_grad[1]:
        db = product(a.mT, g, b)
    return da, db, None, None, None, None


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


# Sums ----------------------------------------------------------------------------------------


class _Product(NamedTuple):
    """What `_Sums` takes beside its matrices: the words of three factors and two kinds of sums."""

    left: Factor
    right: Factor
    gradient: Factor
    sums: Sums
    gradient_sums: Sums

    def flat(self) -> tuple[Any, ...]:
        """Return plain values."""
        return (*self.left, *self.right, *self.gradient, *self.sums, *self.gradient_sums)

    @classmethod
    def read(cls, words: Any) -> _Product:
        """Read what `flat` returned."""
        left, right, gradient = (Factor(*words[i : i + 4]) for i in (0, 4, 8))
        return cls(left, right, gradient, Sums(*words[12:14]), Sums(*words[14:]))


class _Sums(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a: torch.Tensor, b: torch.Tensor, words: tuple[Any, ...]) -> torch.Tensor:
        how = _Product.read(words)
        left, right = _quantized(a, how.left, -1), _quantized(b, how.right, -2)
        key = operators.draw_key() if how.sums.draws else None
        arguments = (left, right, how.left.values, how.right.values, how.sums.spelled, key)
        if is_plain(a) and is_plain(b):
            return _multiply(*arguments)
        product: torch.Tensor = _operator(*arguments)
        return product

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        a, b, ctx.words = inputs
        ctx.save_for_backward(a, b)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        (a, b), how = ctx.saved_tensors, _Product.read(ctx.words)
        back, da, db = how._replace(sums=how.gradient_sums), None, None
        if ctx.needs_input_grad[0]:
            words = back._replace(left=how.gradient).flat()
            da = _sum_products(g, b.mT, words).sum_to_size(a.shape)
        if ctx.needs_input_grad[1]:
            words = back._replace(right=how.gradient).flat()
            db = _sum_products(a.mT, g, words).sum_to_size(b.shape)
        return da, db, None


_sum_products = differentiably(_Sums)


def _quantized(x: torch.Tensor, factor: Factor, axis: int) -> torch.Tensor:
    """Return an operand, in a block format along the axis that is summed."""
    if not factor.blocks:
        return x
    return blocks.round_along(x, factor.blocks, axis, factor.rounding)


def sums(a: torch.Tensor, b: torch.Tensor, how: How) -> torch.Tensor:
    """Multiply matrices or stacks of them; operands are rounded already."""
    words = _Product(how.left, how.right, how.gradient, how.sums, how.gradient_sums).flat()
    product: torch.Tensor = _sum_products(a, b, words)
    return product
