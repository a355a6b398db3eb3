"""The door of block formats: arrays to scales and elements, and to the values of both.

Work is done in pieces of whole blocks that stay in the caches: scales of a piece are found, and
then its elements.
"""

from __future__ import annotations

import functools
import operator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec import formats
from lowprec.arrays.dask_arrays import is_chunked
from lowprec.arrays.direct import lies_in_place, pieces_of
from lowprec.arrays.layouts import check_out, is_same_memory, refuse_foreign_memory
from lowprec.arrays.sources import as_array, kernel_dtype
from lowprec.blocks.chunks import Place, round_chunks
from lowprec.blocks.formats import (
    NAMED,
    AnyFormatLike,
    BlockFormat,
    find_block_format,
    get_format,
)
from lowprec.blocks.layouts import Layout, as_view, layout_of
from lowprec.blocks.quantized import Quantized
from lowprec.common.processor_state import in_exact_state
from lowprec.common.randomness import draw_key
from lowprec.conversion import encode
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from lowprec.blocks.plans import BlockPlan
    from lowprec.common.randomness import RNGLike
    from lowprec.rounding import OverflowLike, RoundingLike

    Array = np.ndarray[Any, Any]

_PIECE = 1 << 16  # elements
_NOTHING = np.empty((0, 0, 0))
_NOTHING_FOUND = np.empty((1, 1, 1))
_NO_PLACE = np.zeros(4, np.int64)


@in_exact_state
def quantize(
    x: ArrayLike,
    fmt: AnyFormatLike,
    *,
    axis: int = -1,
    rounding: RoundingLike = "ties_to_even",
    rng: RNGLike = None,
    tensor_amax: Any = None,
) -> Quantized:
    """Round an array to a block format; return the codes of its elements and its scales.

    Parameters
    ----------
    x : array_like of real numbers, at least one axis
        float64, float32, float16, bfloat16, fp8, integers of at most 64 bits, bool; torch CPU
        tensors too. Largest magnitudes and quotients are exact from these.
    fmt : BlockFormat or str
        The block format.
    axis : int
        The axis along which elements share a scale. Tiles lie in the last two axes, and take none.
    rounding : Rounding or str
        How elements are rounded; scales are always rounded to nearest, ties to even. What exceeds
        the largest element becomes it, in every mode.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Where the stochastic modes draw one key from, as in `round_to`.
    tensor_amax : float, optional
        The largest magnitude of the whole tensor, for formats with a tensor scale; by default that
        of the finite elements of `x`. What exceeds it saturates.

    Raises
    ------
    TypeError
        If `fmt` is a format of single numbers, or `x` holds no real numbers.
    ValueError
        If the axis does not suit the array or the format, or if NaN or infinity stands in a block
        whose scale has no NaN.

    Notes
    -----
    A tensor scale that is a subnormal float32 number, from an `amax` below about 2**-115, has few
    bits: it may be so small that the tensor's largest elements saturate.

    Examples
    --------
    >>> q = quantize([1.0, 0.3, -0.7, 6.5, 7.0, 0.01], "mxfp4")
    >>> q.codes.tolist(), q.scales.tolist()
    ([2, 1, 9, 7, 7, 0], [127])
    >>> q.dequantize().tolist()
    [1.0, 0.5, -0.5, 6.0, 6.0, 0.0]

    References
    ----------
    OCP Microscaling Formats (MX) 1.0, section 6.3.
    """
    block_format = find_block_format(fmt)
    if block_format is None:
        raise TypeError(
            f"quantize makes blocks that share a scale, and {get_format(fmt)} is a format of "
            "single numbers; use encode or round_to, or a block format such as 'mxfp4'"
        )
    if is_chunked(x):
        raise TypeError(
            "quantize takes an array in memory, and this is a dask array; quantize its chunks with "
            "x.map_blocks, or round it lazily with round_to"
        )
    array = as_array(x)
    layout = layout_of(block_format, array.shape, axis)
    work = _work(block_format, array, rounding, rng, tensor_amax)
    codes = np.empty(array.shape, block_format.code_dtype)
    scales = np.empty(layout.scale_shape, block_format.scale_dtype)
    _run(work, array, layout, codes, scales)
    tensor_scale = np.float32(work.g) if block_format.tensor_scale else None
    return Quantized(codes, scales, tensor_scale, block_format, operator.index(axis), array.shape)


@in_exact_state
def round_blocks(
    x: Any,
    fmt: BlockFormat,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    rng: RNGLike = None,
    random_bits: int | None = None,
    out: Array | None = None,
    axis: int = -1,
    tensor_amax: Any = None,
) -> Any:
    """Return `round_to` of a block format: the values of `quantize`."""
    if Overflow(overflow) is not Overflow.IEEE or random_bits is not None:
        name, value = (
            ("overflow", overflow) if random_bits is None else ("random_bits", random_bits)
        )
        raise ValueError(
            f"{name} is {value!r}, but elements of a block format such as {fmt} always saturate "
            "and always draw 32 random bits; leave it away"
        )
    if is_chunked(x):
        if out is not None:
            raise TypeError("a dask array is rounded when it is computed; leave out= away")
        how: dict[str, Any] = {"rounding": rounding, "rng": rng}
        return round_chunks(x, fmt, round_placed, axis=axis, tensor_amax=tensor_amax, **how)
    array = as_array(x)
    layout = layout_of(fmt, array.shape, axis)
    single = kernel_dtype(array.dtype) == np.float32
    dtype = np.dtype(np.float32 if single else np.float64)
    if out is not None:
        check_out(out, array.shape, dtype)
        refuse_foreign_memory(out, array)
    work = _work(fmt, array, rounding, rng, tensor_amax)
    result = np.empty(array.shape, dtype) if out is None else out
    if (
        out is not None
        and np.may_share_memory(array, out)
        and not (is_same_memory(array, out) and array.strides == out.strides)
    ):
        array = array.copy()
    _run(work, array, layout, result, None)
    return result


def round_placed(
    x: Array, fmt: BlockFormat, mode: Rounding, axis: int, tensor_amax: Any, place: Place | None
) -> Array:
    """Round a chunk of a larger array, with the random bits of its place there."""
    if place is None:
        rounded: Array = round_blocks(x, fmt, rounding=mode, axis=axis, tensor_amax=tensor_amax)
        return rounded
    layout = layout_of(fmt, x.shape, axis)
    work = _work(fmt, x, mode, 0, tensor_amax)._replace(key=place.key, threads=1)
    single = kernel_dtype(x.dtype) == np.float32
    out = np.empty(x.shape, np.float32 if single else np.float64)
    for piece, where in layout.placed_pieces(place.start, place.shape) if x.size else ():
        _run_piece(work, x[piece], layout, where, piece, out[piece], None)
    return out


formats.enter_family(find_block_format, NAMED, round_blocks)


# Checks ------------------------------------------------------------------------------------------


class _Work(NamedTuple):
    """What one call does, checked."""

    fmt: BlockFormat
    plan: BlockPlan
    g: float
    mode: Rounding
    key: int
    threads: int


@functools.cache
def _compiled() -> tuple[Any, Any]:
    """Return the modules of plans and threads, which import Numba: at the first call."""
    from lowprec.blocks import plans
    from lowprec.kernels import threads

    return plans, threads


def _work(
    fmt: BlockFormat, x: Array, rounding: RoundingLike, rng: RNGLike, tensor_amax: Any
) -> _Work:
    plans, threads = _compiled()
    mode = Rounding(rounding)
    plan = plans.plan_of(fmt)
    if plan.refuses_nan:
        _refuse_nonfinite(x, fmt)
    g = 1.0
    if tensor_amax is not None:
        amax = checked_amax(tensor_amax, fmt)
        g = plans.scale_for_tensor(fmt, amax)
    elif fmt.tensor_scale:
        g = plans.scale_for_tensor(fmt, tensor_amax_of(x))
    key = draw_key(rng) if mode.is_stochastic else 0
    return _Work(fmt, plan, g, mode, key, threads.threads_for(x.size))


def checked_amax(amax: Any, fmt: BlockFormat) -> Fraction:
    """Return the largest magnitude that the caller tells of a tensor, exact."""
    if not fmt.tensor_scale:
        raise ValueError(
            f"tensor_amax is {amax!r}, but {fmt} has no tensor scale; leave tensor_amax away"
        )
    if isinstance(amax, str | bytes | complex):
        raise TypeError(f"tensor_amax is {amax!r}; pass a number")
    try:
        exact = Fraction(int(amax)) if isinstance(amax, int | np.integer) else Fraction(float(amax))
    except (OverflowError, ValueError):
        exact = Fraction(-1)
    if exact < 0:
        raise ValueError(
            f"tensor_amax is {amax!r}; it is the largest magnitude of a tensor: use a finite "
            "number of at least 0"
        )
    return exact


def _refuse_nonfinite(x: Array, fmt: BlockFormat) -> None:
    nans = infinities = 0
    if kernel_dtype(x.dtype).kind == "f" and x.dtype.kind not in "biu":
        for piece in pieces_of(x, _PIECE, kernel_dtype(x.dtype), "K"):
            nans += int(np.isnan(piece).sum())
            infinities += int(np.isinf(piece).sum())
    if nans + infinities:
        raise ValueError(
            f"{nans} of {x.size} elements are NaN and {infinities} are infinite, but the scale "
            f"{fmt.scale} of {fmt} has no NaN to mark their blocks with; replace them before, for "
            "example with numpy.nan_to_num, or use a scale such as 'float8_e4m3fn' or 'float32'"
        )


def tensor_amax_of(x: Array) -> Fraction:
    """Return the largest finite magnitude of an array, 0 where there is none; exact."""
    from lowprec.kernels.blocks.loops import make_amax

    source = kernel_dtype(x.dtype)
    if source.kind in "iu":
        return Fraction(max(abs(int(x.min())), abs(int(x.max()))) if x.size else 0)
    largest = make_amax(source.name)
    return Fraction(max(map(largest, pieces_of(x, _PIECE, source, "K")), default=0.0))


# Running -----------------------------------------------------------------------------------------


def _run(work: _Work, x: Array, layout: Layout, out: Array, scales: Array | None) -> None:
    """Write the elements, as codes or values, and where asked for the scales."""
    if not x.size or run_vectors(work, x, layout, out, scales):
        return
    limit = _PIECE * (4 * work.threads if work.threads > 1 else 1)
    for piece in layout.pieces(limit):
        part = None if scales is None else scales[layout.scales_of(piece)]
        if not _run_copied(work, x[piece], layout, out[piece], part):
            where = [layout.place_of(piece), *layout.steps]
            _run_piece(work, x[piece], layout, where, piece, out[piece], scales)


def _run_copied(work: _Work, x: Array, layout: Layout, out: Array, scales: Array | None) -> bool:
    """Convert a piece of other strides, or of narrower floats, through copies that vectors read."""
    if work.mode is not Rounding.TIES_TO_EVEN or kernel_dtype(x.dtype) != np.float32:
        return False
    target = np.empty(out.shape, out.dtype.newbyteorder("="))
    found = None if scales is None else np.empty(scales.shape, scales.dtype)
    source = np.ascontiguousarray(x, np.float32)
    if not run_vectors(work, source, layout._replace(shape=x.shape), target, found):
        return False
    out[...] = target
    if scales is not None:
        scales[...] = found
    return True


def run_vectors(work: _Work, x: Array, layout: Layout, out: Array, scales: Array | None) -> bool:
    """Convert an array of float32 whose columns are neighbours in memory, if a rule serves it."""
    if work.mode is not Rounding.TIES_TO_EVEN:
        return False
    if not lies_in_place(x, np.dtype(np.float32)) or not lies_in_place(out):
        return False
    plans, _ = _compiled()
    found = plans.vector_conversion(work.fmt, layout.tile, out.dtype, work.threads > 1)
    if found is None:
        return False
    flat, (down, across) = layout.flattened(x.shape), layout.tile
    if down == 1 and flat[2] % across == 0 and x.flags.c_contiguous and out.flags.c_contiguous:
        flat = 1, 1, x.size  # blocks follow one another, whatever the rows
    source, target = _as_rows(x, flat), _as_rows(out, flat)
    if source is None or target is None:
        return False
    blocks = _NOTHING_FOUND
    if scales is not None:
        blocks = np.empty(_count_of_blocks(flat, layout.tile))
    plan = work.plan
    found.convert(
        source, _NOTHING, found.tile, plan.kind, plan.rule, work.g, plan.largest, plan.grids,
        found.constants_for(work.g), blocks, target, _NO_PLACE, work.threads,
    )  # fmt: skip
    if scales is not None:
        scales[...] = scale_codes(blocks, work.fmt).reshape(scales.shape)
    return True


def _as_rows(array: Array, flat: tuple[int, int, int]) -> Array | None:
    """Return the array as (outer, rows, columns) if columns are neighbours, without a copy."""
    if not array.flags.c_contiguous and array.strides[-1] != array.itemsize:
        return None
    view = as_view(array, flat) if array.flags.c_contiguous or array.ndim < 3 else None
    return view if view is not None and view.strides[2] == view.itemsize else None


def _run_piece(
    work: _Work,
    x: Array,
    layout: Layout,
    where: list[int],
    piece: tuple[slice, ...],
    out: Array,
    scales: Array | None,
) -> None:
    from lowprec.kernels.blocks.elements import least_fractions
    from lowprec.kernels.blocks.loops import FOUR_OVER_SIX, make_elements, make_scales
    from lowprec.kernels.blocks.quotients import rounding_number

    flat = layout.flattened(x.shape)
    source, tails = _readable(x, flat)
    target = as_view(out, flat) if lies_in_place(out) else None
    result = np.empty(flat, out.dtype.newbyteorder("=")) if target is None else target
    found = np.empty(_count_of_blocks(flat, layout.tile))
    tile = np.array(layout.tile, np.int64)
    plan, parallel = work.plan, work.threads > 1
    find = make_scales(source.dtype.name, parallel)
    find(
        source, tails, tile, plan.kind, plan.rule, work.g, plan.largest, plan.grids, found,
        work.threads,
    )  # fmt: skip
    if plan.kind == FOUR_OVER_SIX:
        from lowprec.blocks.deciding import decide

        decide(found, x, layout, work.g)
    place = np.array(where, np.int64)
    write = make_elements(source.dtype.name, result.dtype.name, parallel)
    write(
        source, tails, tile, work.g, plan.grids, found, rounding_number(work.mode),
        least_fractions(work.mode), work.key, place, result, work.threads,
    )  # fmt: skip
    if target is None:
        out[...] = result.reshape(out.shape)
    if scales is not None:
        part = scales[layout.scales_of(piece)]
        part[...] = scale_codes(found, work.fmt).reshape(part.shape)


def scale_codes(scales: Array, fmt: BlockFormat) -> Array:
    """Return scales as they are stored: codes, or float32 numbers."""
    if fmt.scale_dtype == np.float32:
        return scales.astype(np.float32)
    codes: Array = encode(scales, fmt.scale)
    return codes


def _count_of_blocks(flat: tuple[int, int, int], tile: tuple[int, int]) -> tuple[int, int, int]:
    return flat[0], -(-flat[1] // tile[0]), -(-flat[2] // tile[1])


def _readable(x: Array, flat: tuple[int, int, int]) -> tuple[Array, Array]:
    """Return what a kernel reads: floats, and what integers of 64 bits have below their 53."""
    source = kernel_dtype(x.dtype)
    if source.kind in "iu":
        return _split(x.reshape(flat))
    if lies_in_place(x, source):
        view = as_view(x, flat)
        if view is not None:
            return view, _NOTHING
    return x.astype(source).reshape(flat), _NOTHING


def _split(x: Array) -> tuple[Array, Array]:
    """Return 64-bit integers as floats toward zero, and the magnitudes of the rest."""
    negative = x < 0
    bits = x.astype(np.uint64)
    magnitude = np.where(negative, ~bits + np.uint64(1), bits)
    cut = magnitude >> np.uint64(53) != 0
    rest = np.where(cut, magnitude & np.uint64(0x7FF), np.uint64(0))
    floats = (magnitude - rest).astype(np.float64)
    if not rest.any():
        return np.where(negative, -floats, floats), _NOTHING
    return np.where(negative, -floats, floats), rest.astype(np.float64)
