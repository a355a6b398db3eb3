"""The door: round_to, encode, decode and cast.

Everything is checked once, and then handed to one kernel pass.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, overload
from typing import cast as cast_type

import numpy as np

from lowprec.arrays.dask_arrays import is_chunked
from lowprec.arrays.direct import run_kept
from lowprec.arrays.layouts import check_is_array, refuse_foreign_memory
from lowprec.arrays.sources import as_array, is_scalar
from lowprec.common.randomness import draw_key
from lowprec.conversion.requests import (
    as_codes,
    conversion_work,
    convert_chunks,
    decode_chunks,
    decoding_work,
    run,
)
from lowprec.formats import FormatLike, FormatOfBlocks, family_format, get_format, round_family

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from lowprec.arrays.types import Array, Real, Scalar
    from lowprec.common.randomness import RNGLike
    from lowprec.rounding import OverflowLike, RoundingLike

_FLOAT64 = np.dtype(np.float64)  # of Python's floats
_family_format = functools.lru_cache(1024)(family_format)


def _blocks(fmt: Any) -> Any:
    """Return the block format that is meant; None where each number stands alone."""
    try:
        return _family_format(fmt)
    except TypeError:  # of a list, say, which get_format explains
        get_format(fmt)
        raise


@overload
def round_to(
    x: Scalar,
    fmt: FormatLike | FormatOfBlocks,
    *,
    rounding: RoundingLike = ...,
    overflow: OverflowLike = ...,
    rng: RNGLike = ...,
    random_bits: int | None = ...,
    out: None = ...,
    axis: int = ...,
    tensor_amax: float | None = ...,
) -> Real: ...
@overload
def round_to(
    x: ArrayLike,
    fmt: FormatLike | FormatOfBlocks,
    *,
    rounding: RoundingLike = ...,
    overflow: OverflowLike = ...,
    rng: RNGLike = ...,
    random_bits: int | None = ...,
    out: Array | None = ...,
    axis: int = ...,
    tensor_amax: float | None = ...,
) -> Array: ...
def round_to(
    x: ArrayLike,
    fmt: FormatLike | FormatOfBlocks,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    rng: RNGLike = None,
    random_bits: int | None = None,
    out: np.ndarray[Any, Any] | None = None,
    axis: int = -1,
    tensor_amax: float | None = None,
) -> Any:
    """Round every element to a value of a format, once, from its exact value.

    Parameters
    ----------
    x : array_like of real numbers, any shape
        float64, float32, float16, bfloat16, fp8, integers of at most 64 bits, bool; torch CPU
        tensors too.
    fmt : Format, BlockFormat, str or dtype
        The format to round to. In a block format elements share a scale; the result is
        ``quantize(x, fmt).dequantize()``, in float64 where `x` is.
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
        Where to write: an array of the result's shape and dtype. It may be `x` itself, but not the
        memory of a torch tensor.
    axis : int
        Of block formats: the axis along which elements share a scale.
    tensor_amax : float, optional
        Of block formats with a tensor scale: the largest magnitude of the whole tensor.

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
    if axis == -1 and tensor_amax is None:
        dtype = getattr(x, "dtype", _FLOAT64)
        result = run_kept((fmt, rounding, overflow, random_bits, dtype, "round"), x, rng, out)
        if result is not None:
            return result
    blocks = _blocks(fmt)
    if blocks is not None:
        options = {"rounding": rounding, "overflow": overflow, "random_bits": random_bits}
        given = {"rng": rng, "out": out, "axis": axis, "tensor_amax": tensor_amax}
        return round_family(x, blocks, **options, **given)
    plain = cast_type("FormatLike", fmt)
    if axis != -1 or tensor_amax is not None:
        name, value = ("axis", axis) if axis != -1 else ("tensor_amax", tensor_amax)
        raise ValueError(
            f"{name} is {value!r}, but in {get_format(plain)} each number stands alone; leave "
            f"{name} away, or use a block format such as 'mxfp4'"
        )
    return _convert(x, plain, rounding, overflow, random_bits, "round", rng, out)


@overload
def encode(
    x: Scalar,
    fmt: FormatLike,
    *,
    rounding: RoundingLike = ...,
    overflow: OverflowLike = ...,
    rng: RNGLike = ...,
    random_bits: int | None = ...,
    out: None = ...,
) -> np.unsignedinteger[Any]: ...
@overload
def encode(
    x: ArrayLike,
    fmt: FormatLike,
    *,
    rounding: RoundingLike = ...,
    overflow: OverflowLike = ...,
    rng: RNGLike = ...,
    random_bits: int | None = ...,
    out: Array | None = ...,
) -> Array: ...
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
    dtype = getattr(x, "dtype", _FLOAT64)
    result = run_kept((fmt, rounding, overflow, random_bits, dtype, "encode"), x, rng, out)
    if result is not None:
        return result
    return _convert(x, fmt, rounding, overflow, random_bits, "encode", rng, out)


@overload
def cast(
    x: Scalar,
    fmt: FormatLike,
    *,
    rounding: RoundingLike = ...,
    overflow: OverflowLike = ...,
    rng: RNGLike = ...,
    random_bits: int | None = ...,
    out: None = ...,
) -> np.number[Any]: ...
@overload
def cast(
    x: ArrayLike,
    fmt: FormatLike,
    *,
    rounding: RoundingLike = ...,
    overflow: OverflowLike = ...,
    rng: RNGLike = ...,
    random_bits: int | None = ...,
    out: Array | None = ...,
) -> Array: ...
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
    if out is None:
        dtype = getattr(x, "dtype", _FLOAT64)
        codes = run_kept((fmt, rounding, overflow, random_bits, dtype, "encode"), x, rng, None)
        if codes is not None:
            return codes.view(fmt.dtype)
    if out is not None:
        check_is_array(out)
        if out.dtype != fmt.dtype:
            raise TypeError(f"out has dtype {out.dtype}; {fmt} needs {fmt.dtype}")
        codes = out.view(fmt.code_dtype)
    codes = _convert(x, fmt, rounding, overflow, random_bits, "encode", rng, codes)
    return codes.view(fmt.dtype) if out is None else out


@overload
def decode(
    codes: Scalar,
    fmt: FormatLike,
    *,
    dtype: np.dtype[Any] | type | str | None = ...,
    out: None = ...,
) -> Real: ...
@overload
def decode(
    codes: ArrayLike,
    fmt: FormatLike,
    *,
    dtype: np.dtype[Any] | type | str | None = ...,
    out: Array | None = ...,
) -> Array: ...
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
        If codes are not integers.
    ValueError
        If a code has more bits than the format, or float32 is asked for and too narrow.

    Examples
    --------
    >>> decode([0x3DCD, 0x7F80], "bfloat16")
    array([0.10009766,        inf], dtype=float32)
    """
    source = getattr(codes, "dtype", None)
    result = run_kept((fmt, dtype, source, "decode"), codes, None, out)
    if result is not None:
        return result
    if is_chunked(codes):
        return decode_chunks(codes, fmt, dtype, out)
    array = as_codes(codes, get_format(fmt))
    refuse_foreign_memory(out, array)
    work = decoding_work(fmt, dtype, array.dtype)
    return run(work, array, out, is_scalar(codes), 0)


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
        return convert_chunks(x, fmt, rounding, overflow, random_bits, task, rng, out)
    array = as_array(x)
    refuse_foreign_memory(out, array)
    work = conversion_work(fmt, rounding, overflow, random_bits, array.dtype, task)
    key = draw_key(rng) if work.is_stochastic else 0
    return run(work, array, out, is_scalar(x), key)
