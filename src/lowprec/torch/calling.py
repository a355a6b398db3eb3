"""Products for those who call them: `matmul`, `linear`, `conv2d` and `attention`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowprec.accumulation.accumulator import as_accumulator
from lowprec.blocks import BlockFormat, get_format
from lowprec.torch import functions
from lowprec.torch.dtypes import check_tensor
from lowprec.torch.products import How, how_of, make_how, operand, outcome, sums
from lowprec.torch.requests import constant

if TYPE_CHECKING:
    import torch

    from lowprec.accumulation import Accumulator
    from lowprec.formats import FormatLike
    from lowprec.train.policy import Policy


def matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    inputs: FormatLike | tuple[FormatLike, FormatLike] = ("bfloat16", "bfloat16"),
    accumulator: Accumulator | FormatLike = "float32",
    output: FormatLike | None = None,
    bias: torch.Tensor | None = None,
    backward: tuple[FormatLike, Accumulator | FormatLike] | None = None,
) -> torch.Tensor:
    """Multiply matrices as `lowprec.matmul` does, differentiably.

    Parameters
    ----------
    a, b : torch.Tensor
        Matrices, stacks of them that broadcast, or vectors, on the CPU.
    inputs : Format, str or dtype, or two of them
        What elements of `a` and of `b` are rounded to; a block format is taken along the axis that
        is summed.
    accumulator : Accumulator, or Format, str or dtype
        How products are summed.
    output : Format, str or dtype, optional
        What the sums are rounded to at last.
    bias : torch.Tensor, optional
        What is added to the sums in float32, along the last axis, before `output` is rounded to.
    backward : tuple of a format and an Accumulator, optional
        The gradient's format, to which arriving and leaving gradients are rounded, and how both
        backward products are summed; by default as forward: the arriving gradient is rounded as
        `a` is, those that leave as `output` says.

    Returns
    -------
    torch.Tensor of float32

    Examples
    --------
    >>> import torch
    >>> a, b = torch.ones(1, 4000), torch.ones(4000, 1)
    >>> matmul(a, b, accumulator="float16").item()
    2048.0
    """
    check_tensor(a)
    _check(b, bias)
    how = _how(inputs, accumulator, output, backward)
    x, w = operand(a, how.left, how), operand(b, how.right, how)
    lifted, deep = (x[None] if x.ndim == 1 else x), (w[:, None] if w.ndim == 1 else w)
    z = sums(lifted, deep, how)
    z = z.squeeze(-2) if x.ndim == 1 else z
    return outcome(z.squeeze(-1) if w.ndim == 1 else z, bias, how)


@constant
def _how(inputs: Any, accumulator: Any, output: Any, backward: Any) -> How:
    pair = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs, inputs)
    if len(pair) != 2:
        raise ValueError(
            f"inputs are {len(pair)} formats; use one, or two: that of a and that of b"
        )
    left, right = get_format(pair[0]), get_format(pair[1])
    result = None if output is None else get_format(output)
    sums = as_accumulator(accumulator)
    if backward is None:
        return make_how(left, right, result, left, result, sums)
    gradient, back_sums = backward
    gradient = get_format(gradient)
    back = None if isinstance(gradient, BlockFormat) else gradient
    return make_how(left, right, result, gradient, back, sums, as_accumulator(back_sums))


def _check(w: torch.Tensor, b: torch.Tensor | None) -> None:
    check_tensor(w)
    if b is not None:
        check_tensor(b)


def linear(
    x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None, *, policy: Policy | str
) -> torch.Tensor:
    """Return x · wᵀ + b along the last axis, as an emulated `torch.nn.Linear` computes it.

    Parameters
    ----------
    x : torch.Tensor, shape (..., inputs)
        Inputs.
    w : torch.Tensor, shape (outputs, inputs)
        Weights.
    b : torch.Tensor, shape (outputs,), optional
        Bias.
    policy : lowprec.train.Policy or str
        The formats.

    Returns
    -------
    torch.Tensor of float32, shape (..., outputs)
    """
    check_tensor(x)
    _check(w, b)
    return functions.linear(how_of(policy), x, w, b)


def conv2d(
    x: torch.Tensor,
    w: torch.Tensor,
    b: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    policy: Policy | str,
) -> torch.Tensor:
    """Convolve images, with the arguments of `torch.nn.functional.conv2d` and a policy.

    Windows are unfolded, channels first, and multiplied by the kernel.

    Parameters
    ----------
    x : torch.Tensor, shape (samples, channels, height, width)
        Images.
    w : torch.Tensor, shape (filters, channels / groups, height, width)
        Kernel.
    b : torch.Tensor, shape (filters,), optional
        Bias.
    stride, padding, dilation, groups
        As for `torch.nn.functional.conv2d`.
    policy : lowprec.train.Policy or str
        The formats.

    Returns
    -------
    torch.Tensor of float32
    """
    check_tensor(x)
    _check(w, b)
    how = how_of(policy)
    return functions.convolution(how, x, w, b, stride, padding, dilation, groups)


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    policy: Policy | str,
    causal: bool = False,
) -> torch.Tensor:
    """Return softmax(q · kᵀ / √width) · v.

    Operands are rounded, scores and softmax computed in float32, the weights and the result
    rounded: as fused attention in narrow formats does.

    Parameters
    ----------
    q, k, v : torch.Tensor, shape (..., tokens, width)
        Queries, keys and values.
    policy : lowprec.train.Policy or str
        The formats.
    causal : bool
        Whether a token sees those up to itself alone.

    Returns
    -------
    torch.Tensor of float32, shape (..., tokens, width)
    """
    for tensor in (q, k, v):
        check_tensor(tensor)
    return functions.attention(how_of(policy), q, k, v, is_causal=causal)
