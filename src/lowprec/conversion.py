"""The door: round_to, encode, decode and cast.

Everything is checked here, once, and then handed to one kernel pass. Numba is imported with the
first conversion.
"""

from __future__ import annotations

import contextlib
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.chunked import is_chunked, map_chunks, pieces_in_c_order
from lowprec.formats import Format, FormatLike, float32, float64, get_format
from lowprec.rounding import Overflow, Rounding
from lowprec.sources import as_array, kernel_dtype, to_array

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

    from lowprec.kernels.plans import Kernel

    RNGLike = np.random.Generator | np.random.SeedSequence | int | None

__all__ = ["cast", "decode", "encode", "round_to"]

_BLOCK = 1 << 16  # elements of a temporary
_BUFFERED: Any = ("contig", "aligned", "nbo", "overlap_assume_elementwise")

RoundingLike = Rounding | str
OverflowLike = Overflow | str


class _Work(NamedTuple):
    """One kind of conversion, checked: from a source dtype to a result dtype by a kernel."""

    kernel: Kernel
    source: np.dtype[Any]  # what the kernel reads
    result: np.dtype[Any]
    is_stochastic: bool = False
    refuses: str = ""  # what has no code in the format
    is_simple: bool = True  # whether contiguous arrays may go to the kernel without another look


def round_to(
    x: ArrayLike,
    fmt: FormatLike,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    rng: RNGLike = None,
    random_bits: int | None = None,
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    """Round every element to a value of a format, once, from its exact value.

    Parameters
    ----------
    x : array_like of real numbers, any shape
        float64, float32, float16, bfloat16, fp8, integers of at most 64 bits, bool; torch CPU
        tensors too.
    fmt : Format, str or dtype
        The format to round to.
    rounding : Rounding or str
        ``ties_to_even`` (RNE), ``ties_to_away`` (RNA), ``ties_toward_zero`` (RNZ),
        ``toward_zero`` (RZ), ``away_from_zero`` (RA), ``toward_positive`` (RU),
        ``toward_negative`` (RD), ``to_odd`` (RO), ``stochastic`` (SR) or ``stochastic_equal``
        (SE).
    overflow : Overflow or str
        ``ieee``: to infinity (NaN in a format without infinities, ±max in one with neither);
        ``saturate``: finite values to ±max; ``saturate_finite``: infinities to ±max too.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Where the stochastic modes draw one key from. The result then depends on the key and on
        each element's index in C order alone.
    random_bits : int, optional
        Random bits per element of the stochastic modes, 1 to 32; by default 16 for float32 to
        bfloat16, where they make the probability exact, else 32.
    out : numpy.ndarray, optional
        Where to write: an array of the result's shape and dtype. It may be `x` itself.

    Returns
    -------
    numpy.ndarray of `x`'s shape, or a NumPy scalar if `x` is a scalar
        float64 for float64, integers, bool and Python numbers; float32 for narrower floats.

    Raises
    ------
    TypeError
        If `x` holds no real numbers, or numbers of more than 64 bits.
    ValueError
        If the result's dtype cannot hold the format's values, or if NaN goes to a format without
        NaN; nothing has been written then.

    Examples
    --------
    >>> float(round_to(0.1, "bfloat16"))
    0.10009765625
    >>> round_to([1 / 3, 1e5], "float16", rounding="toward_zero")
    array([3.33251953e-01, 6.55040000e+04])

    References
    ----------
    IEEE 754-2019, sections 4.3 and 7.4.
    """
    if type(x) is np.ndarray and type(out) is np.ndarray:
        work = _known.get((fmt, rounding, overflow, random_bits, x.dtype, "round"))
        if work is not None and work.is_simple and _run_simple(work, x, out):
            return out
    return _convert(x, fmt, rounding, overflow, random_bits, "round", rng, out)


def encode(
    x: ArrayLike,
    fmt: FormatLike,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    rng: RNGLike = None,
    random_bits: int | None = None,
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    """Round every element to a format and return the codes.

    Parameters
    ----------
    x, fmt, rounding, overflow, rng, random_bits, out
        As for `round_to`; `out` has dtype ``fmt.code_dtype``.

    Returns
    -------
    numpy.ndarray of ``fmt.code_dtype`` and of `x`'s shape, or a NumPy scalar if `x` is a scalar
        Codes, right-aligned. Any source may be encoded in any format.

    Raises
    ------
    TypeError, ValueError
        As for `round_to`.

    Examples
    --------
    >>> [hex(code) for code in encode([1.0, 65504, 1e-8], "float16")]
    ['0x3c00', '0x7bff', '0x0']
    """
    if type(x) is np.ndarray and type(out) is np.ndarray:
        work = _known.get((fmt, rounding, overflow, random_bits, x.dtype, "encode"))
        if work is not None and work.is_simple and _run_simple(work, x, out):
            return out
    return _convert(x, fmt, rounding, overflow, random_bits, "encode", rng, out)


def cast(
    x: ArrayLike,
    fmt: FormatLike,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    rng: RNGLike = None,
    random_bits: int | None = None,
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    """Round every element to a format and return an array of the format's own dtype.

    Parameters
    ----------
    x, fmt, rounding, overflow, rng, random_bits, out
        As for `round_to`; `out` has dtype ``fmt.dtype``.

    Returns
    -------
    numpy.ndarray of ``fmt.dtype`` (NumPy's or ml_dtypes'), or a scalar of it if `x` is a scalar

    Raises
    ------
    TypeError
        If the format has no dtype; `encode` returns its codes.
    ValueError
        As for `round_to`.

    Examples
    --------
    >>> cast([1.0, 0.1], "bfloat16").tolist()
    [1.0, 0.10009765625]
    """
    fmt = get_format(fmt)
    if fmt.dtype is None:
        raise TypeError(f"neither NumPy nor ml_dtypes has a dtype for {fmt!r}; use encode")
    codes: Any = None
    if out is not None:
        _check_out_is_array(out)
        if out.dtype != fmt.dtype:
            raise TypeError(f"out has dtype {out.dtype}; {fmt} needs {fmt.dtype}")
        codes = out.view(fmt.code_dtype)
    codes = _convert(x, fmt, rounding, overflow, random_bits, "encode", rng, codes)
    return codes.view(fmt.dtype) if out is None else out


def decode(
    codes: ArrayLike,
    fmt: FormatLike,
    *,
    dtype: np.dtype[Any] | type | str | None = None,
    out: np.ndarray[Any, Any] | None = None,
) -> Any:
    """Return the values that codes stand for; this is exact.

    Parameters
    ----------
    codes : array_like of integers, or of ``fmt.dtype``, any shape
        Codes, right-aligned.
    fmt : Format, str or dtype
        Their format.
    dtype : float32 or float64, optional
        The result's dtype; float32 where it holds every value of the format, else float64.
    out : numpy.ndarray, optional
        Where to write: an array of the result's shape and dtype.

    Returns
    -------
    numpy.ndarray of `codes`' shape, or a NumPy scalar if `codes` is a scalar
        Every NaN code gives the quiet NaN of its sign.

    Raises
    ------
    TypeError
        If codes are no integers.
    ValueError
        If a code has more bits than the format, or float32 is asked for and too narrow.

    Examples
    --------
    >>> decode([0x3DCD, 0x7F80], "bfloat16")
    array([0.10009766,        inf], dtype=float32)
    """
    if type(codes) is np.ndarray and type(out) is np.ndarray:
        work = _known.get((fmt, dtype, codes.dtype, "decode"))
        if work is not None and work.is_simple and _run_simple(work, codes, out):
            return out
    found = get_format(fmt)
    if is_chunked(codes):
        _refuse_out(out)
        result = _decoding_work(found, dtype).result
        return map_chunks(_decode_chunk, codes, result, with_place=False, asked=(found, result))
    array = _as_codes(codes, found)
    asked = (fmt, dtype, array.dtype, "decode")
    work = _known.get(asked) or _known.setdefault(asked, _decoding_work(found, dtype))
    return _run(work, array, out, _is_scalar(codes), 0)


# Checks ------------------------------------------------------------------------------------------

# Conversions that have been asked for, under the arguments as they were given: one look serves
# calls on small arrays, where parsing names again would take longer than the work.
_known: dict[Any, _Work] = {}


def _convert(
    x: Any,
    fmt: FormatLike,
    rounding: RoundingLike,
    overflow: OverflowLike,
    random_bits: int | None,
    task: str,
    rng: RNGLike,
    out: np.ndarray[Any, Any] | None,
) -> Any:
    if is_chunked(x):
        return _convert_chunks(x, fmt, rounding, overflow, random_bits, task, rng, out)
    array = as_array(x)
    asked = (fmt, rounding, overflow, random_bits, array.dtype, task)
    work = _known.get(asked) or _known.setdefault(asked, _conversion_work(*asked))
    key = draw_key(rng) if work.is_stochastic else 0
    return _run(work, array, out, _is_scalar(x), key)


def _is_scalar(x: Any) -> bool:
    return isinstance(x, int | float | np.generic)


def _conversion_work(
    fmt: FormatLike,
    rounding: RoundingLike,
    overflow: OverflowLike,
    random_bits: int | None,
    dtype: np.dtype[Any],
    task: str,
) -> _Work:
    """Check the arguments and find the kernel."""
    fmt, rounding, overflow = get_format(fmt), Rounding(rounding), Overflow(overflow)
    random_bits = _checked_random_bits(random_bits)
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

    kernel = conversion_kernel(fmt, source.name, result.name, rounding, overflow, random_bits)
    refuses = ""
    if not fmt.has_nan:
        refuses = "NaN" if fmt.signed else "NaN or negative"
    is_simple = source == dtype and not rounding.is_stochastic and not refuses
    return _Work(kernel, source, result, rounding.is_stochastic, refuses, is_simple)


def _decoding_work(fmt: Format, dtype: np.dtype[Any] | type | str | None) -> _Work:
    from lowprec.kernels.plans import decoding_kernel  # imports Numba

    if dtype is None:
        dtype = np.float32 if fmt.fits(float32) else np.float64
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"codes decode to float32 or float64, not {dtype}; use astype afterwards")
    if not fmt.fits(float32 if dtype == np.float32 else float64):
        raise ValueError(
            f"float32 cannot hold every value of {str(fmt)!r} (p={fmt.precision}, "
            f"emin={fmt.emin}, emax={fmt.emax}); use dtype='float64'"
        )
    kernel = decoding_kernel(fmt, dtype.name)
    # codes of a format that leaves bits unused must be looked at every time
    return _Work(kernel, fmt.code_dtype, dtype, is_simple=fmt.bits == 8 * fmt.code_dtype.itemsize)


def _checked_random_bits(random_bits: int | None) -> int | None:
    if random_bits is None:
        return None
    try:
        bits = operator.index(random_bits)
    except TypeError:
        raise TypeError(f"random_bits is {random_bits!r}; use an integer from 1 to 32") from None
    if not 1 <= bits <= 32:
        raise ValueError(f"random_bits is {bits}; use 1 to 32")
    return bits


def draw_key(rng: RNGLike) -> int:
    """Draw the key of one stochastic call."""
    generator = np.random.default_rng(rng)
    return int(generator.integers(0, 2**64 - 1, dtype=np.uint64, endpoint=True))


def _as_codes(codes: Any, fmt: Format) -> np.ndarray[Any, Any]:
    array = to_array(codes)
    if fmt.dtype is not None and array.dtype.newbyteorder("=") == fmt.dtype:
        return array.astype(fmt.dtype, copy=False).view(fmt.code_dtype)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(
            f"codes have dtype {array.dtype}; decode takes integers"
            + ("" if fmt.dtype is None else f" or {fmt.dtype}")
        )
    limit = (1 << fmt.bits) - 1
    has_room = array.dtype != fmt.code_dtype or fmt.bits < 8 * array.dtype.itemsize
    if has_room and array.size and not (int(array.min()) >= 0 and int(array.max()) <= limit):
        raise ValueError(
            f"codes run from {int(array.min()):#x} to {int(array.max()):#x}; {fmt} has {fmt.bits} "
            f"bits, so that codes are 0 to {limit:#x}"
        )
    return array.astype(fmt.code_dtype, copy=False)


def _check_out_is_array(out: Any) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is a {type(out).__name__}; pass a numpy.ndarray")


def _check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    _check_out_is_array(out)
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; the result has shape {shape}")
    if out.dtype != dtype:
        raise TypeError(f"out has dtype {out.dtype}; the result has dtype {dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; pass an array that may be written")


def refuse_specials(array: np.ndarray[Any, Any], what: str) -> None:
    """Raise if elements have no code, before anything is written."""
    count, first, position = 0, -1, 0
    flags: Any = ["external_loop", "buffered", "zerosize_ok"]
    blocks: Any = np.nditer(array, flags, order="C", buffersize=_BLOCK)
    for block in blocks:
        bad = (block != block) | ((block < 0) if "negative" in what else False)
        if first < 0 and bad.any():
            first = position + int(bad.argmax())
        count += int(bad.sum())
        position += block.size
    if count:
        index = tuple(map(int, np.unravel_index(first, array.shape)))
        raise ValueError(
            f"{count} of {array.size} elements are {what}, first at index {index}, which the "
            "format cannot hold; replace them before, for example with numpy.nan_to_num"
        )


# Running -----------------------------------------------------------------------------------------


def round_piece(
    piece: np.ndarray[Any, Any], fmt: Format, how: tuple[Rounding, Overflow], key: int, first: int
) -> np.ndarray[Any, Any]:
    """Round a contiguous piece of a larger array, whose index there is `first`; NaN stays NaN."""
    asked = (fmt, *how, None, piece.dtype, "round")
    work = _known.get(asked) or _known.setdefault(asked, _conversion_work(*asked))
    out = np.empty(piece.shape, work.result)
    work.kernel(piece.astype(work.source, copy=False), out, key, first)
    return out


def _convert_chunks(
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
    work = _conversion_work(*asked)
    options: dict[str, Any] = {"asked": asked}
    if work.is_stochastic:
        options["key"] = draw_key(rng)
    convert = _convert_placed if work.is_stochastic else _convert_chunk
    return map_chunks(convert, x, work.result, with_place=work.is_stochastic, **options)


def _refuse_out(out: Any) -> None:
    if out is not None:
        raise TypeError("a dask array is converted when it is computed; leave out= away")


def _convert_chunk(chunk: np.ndarray[Any, Any], *, asked: Any) -> Any:
    work = _known.get(asked) or _known.setdefault(asked, _conversion_work(*asked))
    with _counted_in(chunk):
        return _run(work, as_array(chunk), None, False, 0)


@contextlib.contextmanager
def _counted_in(chunk: np.ndarray[Any, Any]) -> Iterator[None]:
    """Say that a count and an index are those of a chunk, not of the whole array."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"in a chunk of shape {chunk.shape}, {error}") from None


def _decode_chunk(chunk: np.ndarray[Any, Any], *, asked: Any) -> Any:
    fmt, dtype = asked
    return decode(chunk, fmt, dtype=dtype)


def _convert_placed(
    chunk: np.ndarray[Any, Any], *, asked: Any, key: int, start: Any, shape: Any
) -> Any:
    """Convert a chunk with the random bits of its elements' places in the whole array."""
    work = _known.get(asked) or _known.setdefault(asked, _conversion_work(*asked))
    out = np.empty(chunk.shape, work.result)
    if work.refuses:
        with _counted_in(chunk):
            refuse_specials(chunk, work.refuses)
    source, target = np.ascontiguousarray(chunk, work.source).reshape(-1), out.reshape(-1)
    for first, last, place in pieces_in_c_order(chunk.shape, start, shape):
        work.kernel(source[first:last], target[first:last], key, place)
    return out


def _run_simple(work: _Work, x: np.ndarray[Any, Any], out: np.ndarray[Any, Any]) -> bool:
    """Run the usual case at once: one-dimensional contiguous arrays that do not overlap."""
    if not (
        x.ndim == 1
        and x.size == out.size
        and out.ndim == 1
        and out.dtype == work.result
        and x.flags.c_contiguous
        and x.flags.aligned
        and out.flags.carray
        and (x is out or not np.may_share_memory(x, out))
    ):
        return False
    work.kernel(x, out)
    return True


def _run(
    work: _Work, x: np.ndarray[Any, Any], out: np.ndarray[Any, Any] | None, scalar: bool, key: int
) -> Any:
    if out is None:
        result = np.empty_like(x, dtype=work.result, subok=False)
    else:
        _check_out(out, x.shape, work.result)
        result = out
    if work.refuses:
        refuse_specials(x, work.refuses)
    in_any_order = not work.is_stochastic and _is_transposed(x, result)
    source, target = (x.T, result.T) if in_any_order else (x, result)
    is_plain = source.flags.c_contiguous and source.flags.aligned and target.flags.carray
    if work.source == x.dtype and is_plain:
        if np.may_share_memory(source, target) and not _is_same_memory(source, target):
            source = source.copy()
        work.kernel(source.reshape(-1), target.reshape(-1), key)
    elif x.size:
        _run_blocks(work, x, result, key)
    return result[()] if scalar and out is None else result


def _is_transposed(x: np.ndarray[Any, Any], out: np.ndarray[Any, Any]) -> bool:
    """Whether both lie in memory in Fortran's order."""
    return x.ndim > 1 and x.flags.f_contiguous and out.flags.f_contiguous


def _is_same_memory(x: np.ndarray[Any, Any], out: np.ndarray[Any, Any]) -> bool:
    return x.itemsize == out.itemsize and x.ctypes.data == out.ctypes.data


def _run_blocks(work: _Work, x: np.ndarray[Any, Any], out: np.ndarray[Any, Any], key: int) -> None:
    """Convert block by block in C order, through buffers where memory or dtype asks for them."""
    blocks: Any = np.nditer(
        [x, out],
        flags=["external_loop", "buffered", "copy_if_overlap"],
        op_flags=[["readonly", *_BUFFERED], ["writeonly", *_BUFFERED]],
        op_dtypes=[work.source, work.result],
        order="C",
        buffersize=_BLOCK,
    )
    first = 0
    with blocks:
        for source, target in blocks:
            work.kernel(source, target, key, first)
            first += source.size
