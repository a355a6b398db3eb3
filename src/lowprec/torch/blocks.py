"""Block formats for tensors: rounding that autograd knows, and the codes and scales of blocks.

The operators are ``lowprec::round_blocks``, ``::quantize`` and ``::clips``; a format is spelled by
its repr, and one of the caller's own is kept by that name.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from lowprec import blocks, conversion
from lowprec.blocks import quantizing
from lowprec.blocks.layouts import layout_of
from lowprec.common.processor_state import in_exact_state
from lowprec.formats import family_format, get_format
from lowprec.rounding import Overflow, Rounding
from lowprec.torch import operators
from lowprec.torch.cpu import as_array
from lowprec.torch.dtypes import INTEGERS, check_tensor
from lowprec.torch.gradients import pass_back
from lowprec.torch.requests import constant, spell_request

if TYPE_CHECKING:
    from lowprec.blocks import BlockFormat
    from lowprec.blocks.formats import AnyFormatLike
    from lowprec.rounding import RoundingLike

_KNOWN: dict[str, BlockFormat] = {}


def block_format(fmt: Any) -> BlockFormat | None:
    """Return the block format that is meant, kept for the operators; None for any other."""
    try:
        found: BlockFormat | None = family_format(fmt)
    except TypeError:  # of a list, say, which get_format explains
        return None
    return None if found is None else _KNOWN.setdefault(repr(found), found)


# On the CPU ----------------------------------------------------------------------------------


def _options(axis: int, amax: float | None, rounding: str, key: torch.Tensor | None) -> Any:
    rng = None if key is None else operators.as_key(key)
    return {"axis": axis, "tensor_amax": amax, "rounding": rounding, "rng": rng}


def _without_lost(array: Any, fmt: BlockFormat) -> tuple[Any, Any]:
    """Return numbers that the format's scales can stand for, and where others were, or None."""
    if fmt.has_nan or np.isfinite(array).all():
        return array, None
    lost = ~np.isfinite(array)
    return np.where(lost, array.dtype.type(0), array), lost


def _round(
    x: torch.Tensor,
    fmt: str,
    axis: int,
    amax: float | None,
    rounding: str,
    dtype: torch.dtype,
    key: torch.Tensor | None = None,
    strict: bool = False,
) -> torch.Tensor:
    found, lost, array = _KNOWN[fmt], None, as_array(x)
    if not strict:
        array, lost = _without_lost(array, found)
    options = _options(axis, amax, rounding, key)
    rounded = np.asarray(conversion.round_to(array, found, **options))
    if lost is not None:
        rounded[lost] = np.nan
    result, out = torch.from_numpy(rounded), torch.empty_like(x, dtype=dtype)
    has_its_layout = out.stride() == result.stride() and result.dtype == dtype
    return result if has_its_layout else out.copy_(result)


def _natural_dtype(source: torch.dtype) -> torch.dtype:
    """Return the dtype of values of blocks: float64 for float64 and integers, else float32."""
    return torch.float64 if source == torch.float64 or source in INTEGERS else torch.float32


def _quantize(
    x: torch.Tensor,
    fmt: str,
    axis: int,
    amax: float | None,
    rounding: str,
    key: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q = blocks.quantize(as_array(x), _KNOWN[fmt], **_options(axis, amax, rounding, key))
    scale = 1.0 if q.tensor_scale is None else float(q.tensor_scale)
    return torch.from_numpy(q.codes), torch.from_numpy(q.scales), torch.tensor(scale)


@in_exact_state
def _clips(x: torch.Tensor, fmt: str, axis: int, amax: float | None) -> torch.Tensor:
    """Return where a magnitude is beyond the largest element times its scales."""
    found = _KNOWN[fmt]
    array, _ = _without_lost(as_array(x), found)
    q = blocks.quantize(array, found, axis=axis, tensor_amax=amax)
    limits = q.scale_values() * found.element.max
    limits *= 1.0 if q.tensor_scale is None else float(q.tensor_scale)
    for i, unit in enumerate(layout_of(found, array.shape, axis).units):
        limits = limits.repeat(unit, axis=i)
    beyond = np.abs(array) > limits[tuple(slice(size) for size in array.shape)]
    return torch.from_numpy(np.ascontiguousarray(beyond))


def _elsewhere(x: torch.Tensor, *how: Any) -> torch.Tensor:
    raise NotImplementedError(
        f"x is on {x.device}, where lowprec has no block formats; pass x.cpu() and move the result"
    )


# Shapes, gradients and batches ---------------------------------------------------------------


def _round_fake(x: torch.Tensor, *how: Any) -> torch.Tensor:
    return torch.empty_like(x, dtype=how[4])


def _quantize_fake(
    x: torch.Tensor, fmt: str, axis: int, *how: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    found = _KNOWN[fmt]
    codes: torch.dtype = getattr(torch, found.code_dtype.name)
    scales: torch.dtype = getattr(torch, found.scale_dtype.name)
    shape = layout_of(found, tuple(x.shape), axis).scale_shape
    return (
        x.new_empty(x.shape, dtype=codes),
        x.new_empty(shape, dtype=scales),
        x.new_empty((), dtype=torch.float32),
    )


def _clips_fake(x: torch.Tensor, *how: Any) -> torch.Tensor:
    return x.new_empty(x.shape, dtype=torch.bool)


def _context(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.dtype = inputs[0].dtype


def _gradient(ctx: Any, gradient: torch.Tensor) -> Any:
    return gradient.to(ctx.dtype), None, None, None, None, None, None, None


def _batch_of(operator: Any) -> Any:
    """Return the rule of vmap: a batch at once, or one by one where each has a tensor scale."""

    def run(
        info: Any, in_dims: Any, x: torch.Tensor, fmt: str, axis: int, amax: Any, *how: Any
    ) -> Any:
        if any(dim is not None for dim in in_dims[1:]):
            raise NotImplementedError("a batch of keys; draw one key a call, outside of vmap")
        x = x.movedim(in_dims[0], 0)
        if not _KNOWN[fmt].tensor_scale or amax is not None:
            result = operator(x, fmt, axis + 1 if axis >= 0 else axis, amax, *how)
            if not isinstance(result, tuple):
                return result, 0
            codes, scales, scale = result
            return (codes, scales, scale.expand(x.shape[0])), (0, 0, 0)
        results = []
        for i, one in enumerate(x):
            own = [a + i if isinstance(a, torch.Tensor) else a for a in how]  # a key each
            results.append(operator(one, fmt, axis, amax, *own))
        if isinstance(results[0], tuple):
            return tuple(map(torch.stack, zip(*results, strict=True))), (0, 0, 0)
        return torch.stack(results), 0

    return run


def _define(name: str, schema: str, cpu: Any, fake: Any) -> Any:
    operators.define(f"{name}(Tensor x, str fmt, int axis, float? tensor_amax{schema}")
    operators.implement(name, cpu, "CPU")
    operators.implement(name, _elsewhere, *operators.ACCELERATORS)
    operators.register_fake(name, fake)
    operator = getattr(torch.ops.lowprec, name).default
    operators.register_vmap(name, _batch_of(operator))
    return operator


_round_blocks = _define(
    "round_blocks",
    ", str rounding, ScalarType dtype, Tensor? key=None, bool strict=False) -> Tensor",
    _round,
    _round_fake,
)
operators.register_gradient("round_blocks", _gradient, _context)
_quantize_blocks = _define(
    "quantize",
    ", str rounding, Tensor? key=None) -> (Tensor, Tensor, Tensor)",
    _quantize,
    _quantize_fake,
)
_clips_blocks = _define("clips", ") -> Tensor", _clips, _clips_fake)


# Rounding ------------------------------------------------------------------------------------


class ResolvedBlocks(NamedTuple):
    """What a call asks for, checked: plain values, which every kind of tracing takes."""

    fmt: str
    rounding: str
    dtype: torch.dtype
    gradient: str  # how gradients are rounded; empty where they are not
    is_block_gradient: bool
    is_cut: bool  # whether gradients of clipped elements are cut off
    strict: bool
    is_stochastic: bool


class _RoundBlocks(torch.autograd.Function):
    """Rounding, whose gradient passes as if there were none, cut off, or rounded itself."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: torch.Tensor,
        key: torch.Tensor | None,
        axis: int,
        amax: float | None,
        fmt: str,
        rounding: str,
        dtype: torch.dtype,
        gradient: str,
        is_block_gradient: bool,
        is_cut: bool,
        strict: bool,
    ) -> torch.Tensor:
        rounded: torch.Tensor = _round_blocks(x, fmt, axis, amax, rounding, dtype, key, strict)
        return rounded

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, _, ctx.axis, ctx.amax, ctx.fmt, _, _, *how, _ = inputs
        ctx.gradient, ctx.is_block_gradient, ctx.is_cut = how
        ctx.dtype = x.dtype
        if ctx.is_cut:
            ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        if ctx.is_cut:
            (x,) = ctx.saved_tensors
            g = torch.where(_clips_blocks(x, ctx.fmt, ctx.axis, ctx.amax), 0, g)
        if ctx.is_block_gradient:
            return _nearest(g, ctx.gradient, ctx.axis).to(ctx.dtype), *[None] * 10
        return pass_back(g, ctx.gradient, ctx.dtype), *[None] * 10


def _nearest(g: torch.Tensor, fmt: str, axis: int) -> torch.Tensor:
    dtype = _natural_dtype(g.dtype)
    how = (fmt, "ties_to_even", dtype, "", False, False, False)
    rounded: torch.Tensor = _RoundBlocks.apply(g, None, axis, None, *how)
    return rounded


class _PassBack(torch.autograd.Function):
    """The identity, whose gradient is rounded to a block format."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, gradient: str, axis: int) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.gradient, ctx.axis = inputs
        ctx.dtype = x.dtype

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        return _nearest(g, ctx.gradient, ctx.axis).to(ctx.dtype), None, None


def pass_back_in_blocks(x: torch.Tensor, gradient: str, axis: int) -> torch.Tensor:
    """Return the tensor; its gradient is rounded to a block format on the way back."""
    check_axes(x.ndim, gradient, axis)
    passed: torch.Tensor = _PassBack.apply(x, gradient, axis)
    return passed


def resolve_blocks(
    fmt: Any,
    rounding: Any,
    overflow: Any,
    random_bits: Any,
    strict: bool,
    gradient: Any,
    source: torch.dtype,
    dtype: Any,
) -> ResolvedBlocks | None:
    """Check what `round_to` is asked for; None where the format is not a block format."""
    found = block_format(fmt)
    if found is None:
        return None
    mode = Rounding(rounding)
    if Overflow(overflow) is not Overflow.IEEE or random_bits is not None:
        conversion.round_to([0.0], found, overflow=overflow, random_bits=random_bits)  # refuses
    if dtype not in (None, torch.float32, torch.float64):
        raise ValueError(
            f"values of {found} are float32 or float64 here, not {dtype}; use .to({dtype}) "
            "afterwards, which rounds once more where that dtype is narrower"
        )
    result = dtype or _natural_dtype(source)
    spelled, is_block = spell_gradient(gradient)
    is_cut = gradient == "clip"
    return ResolvedBlocks(
        repr(found), mode.value, result, spelled, is_block, is_cut, strict, mode.is_stochastic
    )


def spell_gradient(gradient: Any) -> tuple[str, bool]:
    """Return how gradients are rounded, empty where they are not, and whether in blocks."""
    if gradient is None or (isinstance(gradient, str) and gradient == "clip"):
        return "", False
    back = block_format(gradient)
    if back is not None:
        return repr(back), True
    try:
        fmt = get_format(gradient)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"gradient is {gradient!r}; use None, 'clip' or a format: {error}"
        ) from None
    return spell_request(fmt, Rounding.TIES_TO_EVEN, Overflow.SATURATE, None), False


def round_blocks(
    x: torch.Tensor,
    how: ResolvedBlocks,
    axis: int,
    generator: torch.Generator | None,
    tensor_amax: float | None,
) -> torch.Tensor:
    """Round a tensor to a block format."""
    check_tensor(x)
    check_axes(x.ndim, how.fmt, axis)
    amax = None if tensor_amax is None else _checked_amax(tensor_amax, how.fmt)
    *plain, is_stochastic = how
    key = operators.draw_key(generator) if is_stochastic else None
    rounded: torch.Tensor = _RoundBlocks.apply(x, key, axis, amax, *plain)
    return rounded


def round_along(x: torch.Tensor, fmt: str, axis: int, rounding: str) -> torch.Tensor:
    """Round along an axis, or in tiles, without a gradient; NaN passes."""
    place = _axis_or_tiles(fmt, axis)
    key = operators.draw_key() if rounding != "ties_to_even" else None
    rounded: torch.Tensor = _round_blocks(
        x, fmt, place, None, rounding, _natural_dtype(x.dtype), key
    )
    return rounded


@constant
def _axis_or_tiles(fmt: str, axis: int) -> int:
    return -1 if _KNOWN[fmt].is_tiled else axis


@constant
def _checked_amax(amax: Any, fmt: str) -> float:
    quantizing.checked_amax(amax, _KNOWN[fmt])
    return float(amax)


@constant
def check_axes(ndim: int, fmt: str, axis: int) -> None:
    """Raise unless blocks may lie along that axis of a tensor of so many axes."""
    layout_of(_KNOWN[fmt], (1,) * ndim, axis)


# Codes and scales ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Quantized:
    """A tensor in a block format; made by `quantize`.

    Attributes
    ----------
    codes : torch.Tensor
        The elements: unsigned codes of a format, right-aligned, or integers.
    scales : torch.Tensor
        The codes of the scales, but float32 numbers where scales are float32; of the tensor's
        shape with the axis of blocks divided by their size, rounded up.
    tensor_scale : torch.Tensor or None
        The tensor's own scale, float32, 0-d.
    fmt : lowprec.BlockFormat
        The format.
    axis : int
        The axis along which elements share a scale; -1 for tiles.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    tensor_scale: torch.Tensor | None
    fmt: BlockFormat
    axis: int

    @property
    def shape(self) -> torch.Size:
        """The tensor's shape."""
        return self.codes.shape

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the values: element times scale times tensor scale, exact, then rounded once.

        Parameters
        ----------
        dtype : torch.float32 or torch.float64, optional
            The result's dtype, float32 by default.

        Raises
        ------
        TypeError
            If another dtype is asked for.
        """
        if dtype not in (None, torch.float32, torch.float64):
            raise TypeError(
                f"values are torch.float32 or torch.float64, not {dtype!r}; use .to() afterwards"
            )
        name = "float64" if dtype == torch.float64 else "float32"
        return torch.from_numpy(self._in_numpy().dequantize(name))

    def pack(self) -> dict[str, torch.Tensor]:
        """Return the tensors with no bit unused between codes, as `lowprec.Quantized.pack`."""
        packed = {}
        for name, value in self._in_numpy().pack().items():
            packed[name] = torch.from_numpy(np.ascontiguousarray(value).reshape(np.shape(value)))
        return packed

    @property
    def nbytes(self) -> int:
        """The bytes that the tensors take."""
        return self._in_numpy().nbytes

    @property
    def bits_per_value(self) -> float:
        """Bits of elements, of all the scales there are, and of the tensor's, for each value."""
        return self._in_numpy().bits_per_value

    def _in_numpy(self) -> blocks.Quantized:
        scale = None if self.tensor_scale is None else np.float32(self.tensor_scale.item())
        codes, scales = self.codes.numpy(), self.scales.numpy()
        return blocks.Quantized(codes, scales, scale, self.fmt, self.axis, tuple(codes.shape))

    def __repr__(self) -> str:
        return repr(self._in_numpy())


def quantize(
    x: torch.Tensor,
    fmt: AnyFormatLike,
    axis: int = -1,
    *,
    rounding: RoundingLike = "ties_to_even",
    generator: torch.Generator | None = None,
    tensor_amax: float | None = None,
) -> Quantized:
    """Round a tensor to a block format; return the codes of its elements and its scales.

    Parameters
    ----------
    x : torch.Tensor, at least one axis
        On the CPU.
    fmt : BlockFormat or str
        The block format.
    axis : int
        The axis along which elements share a scale. Tiles lie in the last two axes, and take none.
    rounding : Rounding or str
        How elements are rounded; scales are rounded to nearest, ties to even.
    generator : torch.Generator, optional
        Where the stochastic modes draw one key from, by default torch's CPU generator.
    tensor_amax : float, optional
        The largest magnitude of the whole tensor, for formats with a tensor scale.

    Returns
    -------
    Quantized
        Its tensors carry no gradient; `round_to` of the format is differentiable.

    Raises
    ------
    TypeError
        If `fmt` is a format of single numbers, or `x` holds no real numbers.
    ValueError
        As for `lowprec.quantize`.

    Examples
    --------
    >>> import torch
    >>> q = quantize(torch.tensor([1.0, 0.3, -0.7, 6.5, 7.0, 0.01]), "mxfp4")
    >>> q.codes, q.scales
    (tensor([2, 1, 9, 7, 7, 0], dtype=torch.uint8), tensor([127], dtype=torch.uint8))
    >>> q.dequantize().tolist()
    [1.0, 0.5, -0.5, 6.0, 6.0, 0.0]

    References
    ----------
    OCP Microscaling Formats (MX) 1.0, section 6.3.
    """
    check_tensor(x)
    found = block_format(fmt)
    if found is None:
        raise TypeError(
            f"quantize makes blocks that share a scale, and {blocks.get_format(fmt)} is a format "
            "of single numbers; use encode or round_to, or a block format such as 'mxfp4'"
        )
    check_axes(x.ndim, repr(found), axis)
    mode = Rounding(rounding)
    key = operators.draw_key(generator) if mode.is_stochastic else None
    amax = None if tensor_amax is None else _checked_amax(tensor_amax, repr(found))
    how = (repr(found), axis, amax, mode.value, key)
    codes, scales, scale = _quantize_blocks(x.detach(), *how)
    return Quantized(codes, scales, scale if found.tensor_scale else None, found, axis)
