"""The door: rounding, codes and values of tensors; checked once, then one operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from lowprec.formats import Format, float32, get_format
from lowprec.torch import blocks, cpu, operators
from lowprec.torch.dtypes import (
    DTYPE_OF,
    FORMAT_OF,
    INTEGERS,
    check_tensor,
    holds,
    result_dtype,
)
from lowprec.torch.gradients import Round, is_plain, pass_back
from lowprec.torch.requests import (
    cast_dtype,
    check_request,
    code_dtype,
    constant,
    spell_request,
)

if TYPE_CHECKING:
    from lowprec.blocks.formats import AnyFormatLike
    from lowprec.formats import FormatLike
    from lowprec.rounding import OverflowLike, RoundingLike


class Resolved(NamedTuple):
    """What a call asks for, checked: plain values, which every kind of tracing takes."""

    how: str
    dtype: torch.dtype
    is_stochastic: bool
    limit: float | None = None  # beyond it, gradients are cut off
    gradient: str = ""  # how gradients are rounded
    block_gradient: str = ""  # the same where to a block format


_kept: dict[Any, Resolved | blocks.ResolvedBlocks] = {}


@constant
def _resolve(
    fmt: Any,
    rounding: Any,
    overflow: Any,
    random_bits: Any,
    strict: bool,
    gradient: Any,
    source: torch.dtype,
    dtype: Any,
) -> Any:
    """Return what a call asks for, kept: `Resolved`, or that of `blocks` for a block format."""
    asked = (fmt, rounding, overflow, random_bits, strict, gradient, source, dtype)
    try:
        return _kept.get(asked) or _kept.setdefault(asked, _resolved(*asked))
    except TypeError:  # of a list, say, which has no hash
        return _resolved(*asked)


def _resolved(
    fmt: FormatLike,
    rounding: RoundingLike,
    overflow: OverflowLike,
    random_bits: int | None,
    strict: bool,
    gradient: str | FormatLike | None,
    source: torch.dtype,
    dtype: torch.dtype | str | None,
) -> Resolved | blocks.ResolvedBlocks:
    is_code = dtype == "codes"
    how_asked = (rounding, overflow, random_bits, strict, gradient, source, dtype)
    blocked = None if is_code else blocks.resolve_blocks(fmt, *how_asked)
    if blocked is not None:
        return blocked
    asked = check_request(fmt, rounding, overflow, random_bits, strict)
    how = spell_request(*asked)
    if source not in FORMAT_OF and source not in INTEGERS:
        return Resolved(how, torch.float32, False)  # refused in full words
    result = code_dtype(asked.fmt) if is_code else result_dtype(source, asked.fmt, dtype)
    limit = None
    if isinstance(gradient, str) and gradient == "clip":
        limit = asked.fmt.max
        if source in FORMAT_OF:
            limit = min(limit, FORMAT_OF[source].max)
    spelled, is_block = blocks.spell_gradient(gradient)
    back = ("", spelled) if is_block else (spelled, "")
    return Resolved(how, result, asked.rounding.is_stochastic, limit, *back)


class _RoundHere(torch.autograd.Function):
    """Rounding in place."""

    @staticmethod
    def forward(
        x: torch.Tensor,
        key: torch.Tensor | None,
        how: str,
        beyond: torch.Tensor | None,
        gradient: str,
    ) -> torch.Tensor:
        operators.round_to_(x, how, key)
        return x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, _, _, beyond, ctx.gradient = inputs
        ctx.mark_dirty(x)
        ctx.dtype, ctx.is_cut = x.dtype, beyond is not None
        ctx.save_for_backward(*[] if beyond is None else [beyond])

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        if ctx.is_cut:
            (beyond,) = ctx.saved_tensors
            g = torch.where(beyond, 0, g)
        return pass_back(g, ctx.gradient, ctx.dtype), None, None, None, None


# torch's own `apply` binds arguments to the signature, for default values that this class has not:
# 20 microseconds. What it calls in the end takes them as they are.
_apply_plainly = super(torch.autograd.Function, Round).apply


def _key(is_stochastic: bool, generator: torch.Generator | None) -> torch.Tensor | None:
    return operators.draw_key(generator) if is_stochastic else None


def round_to(
    x: torch.Tensor,
    fmt: AnyFormatLike,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    gradient: str | AnyFormatLike | None = None,
    generator: torch.Generator | None = None,
    random_bits: int | None = None,
    strict: bool = False,
    axis: int = -1,
    dtype: torch.dtype | None = None,
    tensor_amax: float | None = None,
) -> torch.Tensor:
    """Round every element to a value of a format, once, from its exact value.

    Differentiable, also twice, and under ``torch.compile``, ``torch.export``, ``torch.func`` and
    ``vmap``.

    Parameters
    ----------
    x : torch.Tensor of any shape and strides
        float64, float32, float16, bfloat16, fp8, integers or bool, on the CPU. On other devices
        float32 alone, in the deterministic modes, to formats that float32 holds.
    fmt : Format, BlockFormat, str or dtype
        The format to round to. In a block format elements share a scale; under `vmap` each example
        has blocks and a tensor scale of its own.
    rounding, overflow : str
        As for `lowprec.round_to`.
    gradient : None, "clip", Format, BlockFormat or str
        What becomes of the gradient: passed as it arrives (straight-through), set to zero where
        ``|x| > fmt.max`` (in a block format: beyond the largest element times its scales), or
        rounded to a format, ties to even, saturating.
    generator : torch.Generator, optional
        Where the stochastic modes draw the key of a call; by default torch's CPU generator, which
        ``torch.manual_seed`` seeds. The result depends on the key and on each element's index in
        C order alone; under `vmap` the index runs on over the whole batch. Inside
        ``torch.compile(fullgraph=True)`` torch 2.13 takes no generator as an argument: leave it
        away there.
    random_bits : int, optional
        As for `lowprec.round_to`.
    strict : bool
        Whether NaN that goes to a format without NaN is an error; otherwise it stays NaN, so that
        a training goes on.
    axis : int
        Along which axis the blocks of a block format lie.
    dtype : torch.dtype, optional
        The result's; by default that of `x` where it holds every value of the format, else float32
        or float64; float64 for integers. Values of block formats are float32 or float64.
    tensor_amax : float, optional
        The largest magnitude of the whole tensor, for block formats with a tensor scale.

    Returns
    -------
    torch.Tensor
        Of the strides of ``torch.empty_like(x)``.

    Raises
    ------
    TypeError
        If `x` is sparse, nested, complex or quantized.
    ValueError
        If `dtype` does not hold the format; with `strict`, if NaN has no code.
    NotImplementedError
        If that conversion does not exist on the device of `x`.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([0.1, 1e5], requires_grad=True)
    >>> y = round_to(x, "float16")
    >>> y.tolist()
    [0.0999755859375, inf]
    >>> y.sum().backward()
    >>> x.grad.tolist()
    [1.0, 1.0]

    References
    ----------
    IEEE 754-2019, sections 4.3 and 7.4. Bengio, Léonard, Courville (2013), for the
    straight-through gradient.
    """
    try:
        source = x.dtype
        r = _resolve(fmt, rounding, overflow, random_bits, strict, gradient, source, dtype)
    except AttributeError:
        check_tensor(x)
        raise
    if isinstance(r, blocks.ResolvedBlocks):
        return blocks.round_blocks(x, r, axis, generator, tensor_amax)
    if axis != -1 or tensor_amax is not None or r.block_gradient:
        if not r.block_gradient or tensor_amax is not None:
            _refuse_blocks(axis, tensor_amax, fmt)
        rounded = round_to(
            x, fmt, rounding=rounding, overflow=overflow, generator=generator,
            random_bits=random_bits, strict=strict, dtype=dtype,
        )  # fmt: skip
        return blocks.pass_back_in_blocks(rounded, r.block_gradient, axis)
    if is_plain(x) and source in _REAL:
        if not (x.requires_grad and torch.is_grad_enabled()):
            key = operators.draw(generator) if r.is_stochastic else 0
            return cpu.round_tensor(x, r.how, r.dtype, key)
        drawn = _key(r.is_stochastic, generator)
        return _apply_plainly(x, drawn, r.how, r.dtype, r.limit, r.gradient)
    check_tensor(x)
    drawn = _key(r.is_stochastic, generator)
    return Round.apply(x, drawn, r.how, r.dtype, r.limit, r.gradient)


_REAL = frozenset([*FORMAT_OF, *INTEGERS])


def _refuse_blocks(axis: int, tensor_amax: Any, fmt: Any) -> None:
    name = "axis" if tensor_amax is None else "tensor_amax"
    value = axis if tensor_amax is None else tensor_amax
    raise ValueError(
        f"{name}={value} tells of blocks that share a scale, and {fmt} is not a block format; "
        f"leave {name} away"
    )


def round_to_(
    x: torch.Tensor,
    fmt: AnyFormatLike,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    gradient: str | AnyFormatLike | None = None,
    generator: torch.Generator | None = None,
    random_bits: int | None = None,
    strict: bool = False,
    axis: int = -1,
    tensor_amax: float | None = None,
) -> torch.Tensor:
    """Round every element in place, and return the tensor.

    Parameters
    ----------
    x : torch.Tensor
        A tensor whose dtype holds every value of the format.
    fmt, rounding, overflow, gradient, generator, random_bits, strict, axis, tensor_amax
        As for `round_to`.

    Returns
    -------
    torch.Tensor
        `x` itself.

    Raises
    ------
    ValueError
        If the dtype of `x` does not hold the format.
    RuntimeError
        If `x` is a leaf that needs a gradient, outside of ``torch.no_grad()``, or several of its
        elements share memory.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([0.1, 0.2])
    >>> round_to_(x, "bfloat16") is x, x.tolist()
    (True, [0.10009765625, 0.2001953125])
    """
    check_tensor(x)
    r = _resolve(fmt, rounding, overflow, random_bits, strict, gradient, x.dtype, None)
    if x.dtype != r.dtype:
        raise ValueError(
            f"x has dtype {x.dtype}, which does not hold every value of {fmt}; use round_to, whose "
            "result has a dtype that does"
        )
    needs_gradient = x.requires_grad and torch.is_grad_enabled()
    if needs_gradient and x.is_leaf:
        raise RuntimeError(
            "x is a leaf that needs a gradient, so it cannot be changed in place; round it inside "
            "torch.no_grad(), or use round_to"
        )
    if is_plain(x) and torch._debug_has_internal_overlap(x) == 1:
        raise RuntimeError(
            "several elements of x share memory, as after expand(); round x.clone() instead"
        )
    if (
        isinstance(r, blocks.ResolvedBlocks)
        or r.block_gradient
        or axis != -1
        or tensor_amax is not None
    ):
        options: dict[str, Any] = {"rounding": rounding, "overflow": overflow, "strict": strict}
        options |= {"gradient": gradient, "generator": generator, "random_bits": random_bits}
        source = x.clone() if needs_gradient else x  # kept for the gradient as it was
        return x.copy_(round_to(source, fmt, axis=axis, tensor_amax=tensor_amax, **options))
    key = _key(r.is_stochastic, generator)
    if not needs_gradient:
        operators.round_to_(x, r.how, key)
        return x
    beyond = None if r.limit is None else x.detach().abs() > r.limit
    return _RoundHere.apply(x, key, r.how, beyond, r.gradient)


def encode(
    x: torch.Tensor,
    fmt: FormatLike,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    generator: torch.Generator | None = None,
    random_bits: int | None = None,
) -> torch.Tensor:
    """Round every element to a format and return the codes, right-aligned.

    Parameters
    ----------
    x, fmt, rounding, overflow, generator, random_bits
        As for `round_to`; on the CPU.

    Returns
    -------
    torch.Tensor of unsigned integers, of the shape of `x`

    Raises
    ------
    TypeError
        As for `round_to`.
    ValueError
        If NaN goes to a format that has no code for it.

    Examples
    --------
    >>> import torch
    >>> encode(torch.tensor([1.0, 65504, 1e-8]), "float16")
    tensor([15360, 31743,     0], dtype=torch.uint16)
    """
    check_tensor(x)
    r = _resolve(fmt, rounding, overflow, random_bits, False, None, x.dtype, "codes")
    return operators.encode(x.detach(), r.how, r.dtype, _key(r.is_stochastic, generator))


def cast(
    x: torch.Tensor,
    fmt: FormatLike,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    generator: torch.Generator | None = None,
    random_bits: int | None = None,
) -> torch.Tensor:
    """Round every element to a format and return a tensor of torch's dtype for it.

    Parameters
    ----------
    x, fmt, rounding, overflow, generator, random_bits
        As for `round_to`.

    Returns
    -------
    torch.Tensor
        Of the format's dtype, differentiable as ``x.to(dtype)`` is; the codes of `encode` where
        torch has no dtype for the format.

    Raises
    ------
    TypeError
        As for `round_to`.
    ValueError
        If NaN goes to a format that has no code for it.

    Examples
    --------
    >>> import torch
    >>> cast(torch.tensor([0.1, 465.0]), "float8_e4m3fn", overflow="saturate")
    tensor([1.0156e-01, 4.4800e+02], dtype=torch.float8_e4m3fn)
    """
    found = cast_dtype(get_format(fmt))
    options: dict[str, Any] = {"rounding": rounding, "overflow": overflow}
    options |= {"generator": generator, "random_bits": random_bits}
    if found in INTEGERS:
        return encode(x, fmt, **options)
    return round_to(x, fmt, dtype=found, **options)


def decode(
    codes: torch.Tensor, fmt: FormatLike, *, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Return the values that codes stand for; this is exact.

    Parameters
    ----------
    codes : torch.Tensor of integers, or of torch's dtype for the format
        Codes, right-aligned, on the CPU.
    fmt : Format, str or dtype
        Their format.
    dtype : torch.float32 or torch.float64, optional
        The result's; float32 where it holds every value of the format.

    Returns
    -------
    torch.Tensor of the shape of `codes`

    Raises
    ------
    TypeError
        If `codes` are not codes, or another dtype is asked for.
    ValueError
        If a code has more bits than the format, or float32 does not hold the format.

    Examples
    --------
    >>> import torch
    >>> decode(torch.tensor([0x3DCD, 0x7F80]), "bfloat16")
    tensor([0.1001,    inf])
    """
    found = get_format(fmt)
    if not isinstance(codes, torch.Tensor):
        raise TypeError(f"codes are a {type(codes).__name__}; pass a torch.Tensor")
    result = dtype or (torch.float32 if found.fits(float32) else torch.float64)
    if result not in (torch.float32, torch.float64):
        raise TypeError(f"codes decode to float32 or float64, not {result}; use .to() afterwards")
    if not holds(result, found):
        raise ValueError(f"float32 does not hold every value of {found}; use dtype=torch.float64")
    own = DTYPE_OF.get(found)
    if codes.dtype == own:
        codes = codes.detach().view(code_dtype(found))
    elif codes.dtype not in INTEGERS or codes.dtype == torch.bool:
        other = f" or {own}" if own else ""
        raise TypeError(f"codes have dtype {codes.dtype}; decode takes integers{other}")
    return operators.decode(codes, spell_format(found), result)


def spell_format(fmt: Format) -> str:
    """Spell a format for an operator."""
    from lowprec.torch.dtypes import spell

    return spell(fmt)
