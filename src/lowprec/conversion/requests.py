"""Conversions that were asked for: checked once, kept, and run on arrays of any layout.

Numba is imported with the first one.
"""

from __future__ import annotations

import contextlib
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.arrays.dask_arrays import map_chunks, pieces_in_c_order
from lowprec.arrays.direct import NoCode, Work, keep, kept, lies_flat, parts_in_c_order, pieces_of
from lowprec.arrays.layouts import check_out
from lowprec.arrays.sources import as_array, kernel_dtype, to_array
from lowprec.common.processor_state import in_exact_state
from lowprec.common.randomness import draw_key
from lowprec.formats import (
    NAMED,
    Format,
    FormatLike,
    float32,
    float64,
    get_format,
)
from lowprec.rounding import Overflow, Rounding, checked_overflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lowprec.common.randomness import RNGLike
    from lowprec.rounding import OverflowLike, RoundingLike

    Array = np.ndarray[Any, Any]

_BLOCK = 1 << 16  # elements of a temporary


def conversion_work(*asked: Any) -> Work:
    """Return the work for a format, rounding, overflow, random bits, a dtype and a task.

    The task is "round" or "encode".
    """
    return kept(asked) or keep(asked, _conversion_work(*asked))


def decoding_work(
    fmt: FormatLike, dtype: np.dtype[Any] | type | str | None, source: np.dtype[Any]
) -> Work:
    """Return the work that decodes codes of dtype `source` to `dtype`."""
    asked = (fmt, dtype, source, "decode")
    return kept(asked) or keep(asked, _decoding_work(fmt, dtype))


# Checks ------------------------------------------------------------------------------------------


@in_exact_state
def _conversion_work(
    fmt: FormatLike,
    rounding: RoundingLike,
    overflow: OverflowLike,
    random_bits: int | None,
    dtype: np.dtype[Any],
    task: str,
) -> Work:
    """Check the arguments and find the kernel."""
    fmt, rounding = get_format(fmt), Rounding(rounding)
    overflow = checked_overflow(overflow, fmt)
    random_bits = checked_random_bits(random_bits)
    source = kernel_dtype(dtype)
    result = fmt.code_dtype
    if task == "round":
        result = np.dtype(np.float32 if source == np.float32 else np.float64)
        if not fmt.fits(get_format(result)):
            raise ValueError(
                f"{result} cannot hold every value of {str(fmt)!r} (p={fmt.precision}, "
                f"emin={fmt.emin}, emax={fmt.emax}); pass x as float64"
            )
    from lowprec.kernels.plans import conversion_kernel  # imports Numba
    from lowprec.kernels.specials import has_nan

    kernel = conversion_kernel(fmt, source.name, result.name, rounding, overflow, random_bits)
    refuses = without_code(fmt)
    is_refused = has_nan if refuses is NoCode.NAN and source.kind == "f" else None
    is_simple = source == dtype and (refuses is None or is_refused is not None)
    return Work(kernel, source, result, rounding.is_stochastic, refuses, is_simple, is_refused)


@in_exact_state
def _decoding_work(fmt: FormatLike, dtype: np.dtype[Any] | type | str | None) -> Work:
    from lowprec.kernels.plans import decoding_kernel  # imports Numba

    fmt = get_format(fmt)
    if dtype is None:
        dtype = np.float32 if fmt.fits(float32) else np.float64
    try:
        dtype = np.dtype(dtype)
    except (TypeError, ValueError):
        raise TypeError(f"dtype is {dtype!r}; use float32 or float64") from None
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"codes decode to float32 or float64, not {dtype}; use astype afterwards")
    if not fmt.fits(float32 if dtype == np.float32 else float64):
        raise ValueError(
            f"float32 cannot hold every value of {str(fmt)!r} (p={fmt.precision}, "
            f"emin={fmt.emin}, emax={fmt.emax}); use dtype='float64'"
        )
    kernel = decoding_kernel(fmt, dtype.name)
    # codes of a format that leaves bits unused must be looked at every time
    return Work(kernel, fmt.code_dtype, dtype, is_simple=fmt.bits == 8 * fmt.code_dtype.itemsize)


def checked_random_bits(random_bits: int | None, most: int = 32) -> int | None:
    """Return how many random bits are asked for, None for as many as suit."""
    if random_bits is None:
        return None
    try:
        bits = operator.index(random_bits)
    except TypeError:
        raise TypeError(
            f"random_bits is {random_bits!r}; use an integer from 1 to {most}"
        ) from None
    if not 1 <= bits <= most:
        raise ValueError(f"random_bits is {bits}; use 1 to {most}")
    return bits


def as_codes(codes: Any, fmt: Format) -> Array:
    """Return codes, of any integers or of the format's dtype, in ``fmt.code_dtype``."""
    array = to_array(codes)
    _refuse_other_than_codes(array, fmt)
    if _has_its_dtype(array, fmt):
        return array.astype(fmt.dtype, copy=False).view(fmt.code_dtype)
    if array.dtype.kind == "i" and 8 * array.dtype.itemsize == fmt.bits:
        array = array.view(fmt.code_dtype)  # bit patterns, as torch's view(torch.int16) gives them
    limit = (1 << fmt.bits) - 1
    has_room = array.dtype != fmt.code_dtype or fmt.bits < 8 * array.dtype.itemsize
    if has_room and array.size and not (int(array.min()) >= 0 and int(array.max()) <= limit):
        raise ValueError(
            f"codes run from {int(array.min()):#x} to {int(array.max()):#x}; {fmt} has {fmt.bits} "
            f"bits, so that codes are 0 to {limit:#x}"
        )
    return array.astype(fmt.code_dtype, copy=False)


def _has_its_dtype(codes: Any, fmt: Format) -> bool:
    return fmt.dtype is not None and codes.dtype.newbyteorder("=") == fmt.dtype


def _refuse_other_than_codes(codes: Any, fmt: Format) -> None:
    """Raise if an array, of NumPy or dask, holds neither integers nor values of the format."""
    has_meaning = codes.dtype.names is not None or codes.dtype.name in NAMED
    if codes.dtype.kind == "V" and not has_meaning and not _has_its_dtype(codes, fmt):
        raise TypeError(
            f"codes have dtype {codes.dtype}, bytes without a meaning; pass "
            f"x.view('u{codes.dtype.itemsize}')"
        )
    if codes.dtype.kind not in "iu" and not _has_its_dtype(codes, fmt) and codes.size:
        raise TypeError(
            f"codes have dtype {codes.dtype}; decode takes integers"
            + ("" if fmt.dtype is None else f" or {fmt.dtype}")
        )


def without_code(fmt: Format) -> NoCode | None:
    """Return what the format has no code for, None where it has codes for everything."""
    if fmt.has_nan:
        return None
    return NoCode.NAN if fmt.signed else NoCode.NAN_OR_NEGATIVE


def refuse_specials(array: Array, what: NoCode | None) -> None:
    """Raise if elements are what the format has no code for, by `without_code`."""
    if what is not None:
        _refuse_specials(array, what)


@in_exact_state
def _refuse_specials(array: Array, what: NoCode) -> None:
    if lies_flat(array) and array.dtype.name in ("float32", "float64") and what is NoCode.NAN:
        from lowprec.kernels.specials import has_nan  # imports Numba

        if not has_nan(array):
            return
    elif array.size and array.dtype.kind in "biuf" and array.dtype.isnative:
        with np.errstate(invalid="ignore"):
            least = array.min()  # NaN if there is one
        if least >= 0 or (least < 0 and what is NoCode.NAN):
            return
    count, first, position = 0, -1, 0
    for block in pieces_of(array, _BLOCK):
        with np.errstate(invalid="ignore"):  # ml_dtypes compares NaN with the hardware's flag
            bad = block != block if what is NoCode.NAN else ~(block >= 0)
        if first < 0 and bad.any():
            first = position + int(bad.argmax())
        count += int(bad.sum())
        position += block.size
    if count:
        index = tuple(map(int, np.unravel_index(first, array.shape)))
        raise ValueError(
            f"{count} of {array.size} elements are {what.value}, first at index {index}, which the "
            "format cannot hold; replace them before, for example with numpy.nan_to_num"
        )


# Running -----------------------------------------------------------------------------------------


def run(work: Work, x: Array, out: Array | None, scalar: bool, key: int) -> Any:
    """Convert an array of any layout, into `out` if that is given."""
    if out is None:
        result = np.empty_like(x, dtype=work.result, subok=False)
    else:
        check_out(out, x.shape, work.result)
        result = out
    refuse_specials(x, work.refuses)
    in_any_order = not work.is_stochastic and _is_transposed(x, result)
    source, target = (x.T, result.T) if in_any_order else (x, result)
    for (part,), place, first in parts_in_c_order([source], target, work.source, _BLOCK):
        work.kernel(part, place, key, first)
    return result[()] if scalar and out is None else result


def _is_transposed(x: Array, out: Array) -> bool:
    """Whether both lie in memory in Fortran's order."""
    return x.ndim > 1 and x.flags.f_contiguous and out.flags.f_contiguous


@in_exact_state
def round_piece(
    piece: Array, fmt: Format, how: tuple[Rounding, Overflow], key: int, first: int
) -> Array:
    """Round a contiguous piece of a larger array, whose index there is `first`; NaN stays NaN."""
    work = conversion_work(fmt, *how, None, piece.dtype, "round")
    out = np.empty(piece.shape, work.result)
    work.kernel(piece.astype(work.source, copy=False), out, key, first)
    return out


# Chunks of dask arrays ---------------------------------------------------------------------------


def convert_chunks(
    x: Any,
    fmt: FormatLike,
    rounding: RoundingLike,
    overflow: OverflowLike,
    random_bits: int | None,
    task: str,
    rng: RNGLike,
    out: Any,
) -> Any:
    """Convert a dask array lazily, to the bits that one array in memory would get."""
    _refuse_out(out)
    asked = (get_format(fmt), Rounding(rounding), Overflow(overflow), random_bits, x.dtype, task)
    work = conversion_work(*asked)
    options: dict[str, Any] = {"asked": asked}
    if work.is_stochastic:
        options["key"] = draw_key(rng)
    convert = _convert_placed if work.is_stochastic else _convert_chunk
    return map_chunks(convert, x, work.result, with_place=work.is_stochastic, **options)


def decode_chunks(
    codes: Any, fmt: FormatLike, dtype: np.dtype[Any] | type | str | None, out: Any
) -> Any:
    """Decode a dask array lazily."""
    _refuse_out(out)
    fmt = get_format(fmt)
    _refuse_other_than_codes(codes, fmt)
    result = decoding_work(fmt, dtype, fmt.code_dtype).result
    return map_chunks(_decode_chunk, codes, result, with_place=False, fmt=fmt, result=result)


def _refuse_out(out: Any) -> None:
    if out is not None:
        raise TypeError("a dask array is converted when it is computed; leave out= away")


def _convert_chunk(chunk: Array, *, asked: Any) -> Any:
    work = conversion_work(*asked)
    with _counted_in(chunk):
        return run(work, as_array(chunk), None, False, 0)


@contextlib.contextmanager
def _counted_in(chunk: Array) -> Iterator[None]:
    """Say that a count and an index are those of a chunk, not of the whole array."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"in a chunk of shape {chunk.shape}, {error}") from None


def _decode_chunk(chunk: Array, *, fmt: Format, result: np.dtype[Any]) -> Any:
    work = decoding_work(fmt, result, fmt.code_dtype)
    return run(work, as_codes(chunk, fmt), None, False, 0)


@in_exact_state
def _convert_placed(chunk: Array, *, asked: Any, key: int, start: Any, shape: Any) -> Any:
    """Convert a chunk with the random bits of its elements' places in the whole array."""
    work = conversion_work(*asked)
    out = np.empty(chunk.shape, work.result)
    with _counted_in(chunk):
        refuse_specials(chunk, work.refuses)
    source, target = np.ascontiguousarray(chunk, work.source).reshape(-1), out.reshape(-1)
    for first, last, place in pieces_in_c_order(chunk.shape, start, shape):
        work.kernel(source[first:last], target[first:last], key, place)
    return out
