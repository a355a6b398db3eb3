"""Spacing and neighbours of numbers in a format, for arrays."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from lowprec.arrays.sources import as_array
from lowprec.common.processor_state import in_exact_state
from lowprec.conversion.door import decode, encode, round_to
from lowprec.formats import Format, FormatLike, float32, float64, get_format
from lowprec.rounding import Rounding

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from lowprec.arrays.types import Array, Real, Scalar


@overload
def ulp(x: Scalar, fmt: FormatLike) -> Real: ...
@overload
def ulp(x: ArrayLike, fmt: FormatLike) -> Array: ...
@in_exact_state
def ulp(x: ArrayLike, fmt: FormatLike) -> Any:
    """Return the spacing of the format's values in the binade of each number.

    Parameters
    ----------
    x : array_like of real numbers, any shape
        Not necessarily values of the format.
    fmt : Format, str or dtype
        The format.

    Returns
    -------
    numpy.ndarray of `x`'s shape, or a NumPy scalar if `x` is a scalar
        ``2**(e - p + 1)`` for numbers from ``2**e`` up to ``2**(e+1)``, with e at most emax; the
        smallest positive value below the normal numbers; infinity for infinities and NaN for NaN,
        as `math.ulp`. The dtype is that of `round_to`.

    Examples
    --------
    >>> ulp([1.0, 1000.0, 0.0], "bfloat16").tolist()
    [0.0078125, 4.0, 9.183549615799121e-41]
    """
    if type(x) is np.ndarray and x.size:
        spacing = _spacing_of_finite(x, fmt)
        if spacing is not None:
            return spacing
    return _spacing_of_any(x, get_format(fmt))


class _BinadeBits(NamedTuple):
    """What `_spacing_of_finite` knows of a dtype and a format: bits of powers of two."""

    integers: np.dtype[Any]  # as wide as the floats
    field: Any  # the bits of an exponent, which an infinity has all
    least: Any  # of the least normal number of the format
    most: Any  # of its largest binade
    spacing: Any  # at 1


@functools.lru_cache(256)
def _binades(dtype: np.dtype[Any], fmt: FormatLike) -> _BinadeBits | None:
    """Return the binades where numbers of a dtype have codes; None where some have none."""
    fmt = get_format(fmt)
    source = {"float32": float32, "float64": float64}.get(dtype.name)
    has_all = fmt.signed and fmt.has_zero and fmt.has_nan and fmt.subnormals
    if source is None or not (dtype.isnative and has_all and fmt.fits(source)):
        return None
    if fmt.emin < source.emin:
        return None
    integers = np.dtype(f"i{dtype.itemsize}")
    powers = np.array([np.inf, 2.0**fmt.emin, 2.0**fmt.emax], dtype)
    field, least, most = powers.view(integers)
    return _BinadeBits(integers, field, least, most, dtype.type(2.0**-fmt.trailing_bits))


def _spacing_of_finite(x: Array, fmt: FormatLike) -> Array | None:
    """Return the spacing at each number; None if one is infinite or NaN, or has no code."""
    try:
        binades = _binades(x.dtype, fmt)
    except TypeError:  # what cannot be hashed; the general way says what is wrong with it
        return None
    if binades is None:
        return None
    powers = x.view(binades.integers) & binades.field
    if np.maximum.reduce(powers, axis=None) == binades.field:
        return None
    powers = np.maximum(np.minimum(powers, binades.most), binades.least)
    spacing: Array = np.asarray(powers).view(x.dtype) * binades.spacing
    return np.asarray(spacing)


@np.errstate(all="ignore")  # subnormal results and NaN are not errors of the caller's
def _spacing_of_any(x: ArrayLike, fmt: Format) -> Any:
    is_scalar, x = np.isscalar(x), as_array(x)
    value = np.asarray(round_to(x, fmt, rounding="toward_zero", overflow="saturate"))
    _, exponent = np.frexp(value)  # in [1/2, 1): one more than the exponent
    spacing = np.ldexp(value.dtype.type(1), exponent - fmt.precision)
    spacing = np.where(np.abs(value) < fmt.smallest_normal, fmt.smallest_subnormal, spacing)
    unbounded = np.isinf(x) if x.dtype.kind not in "biu" else np.False_
    spacing = np.where(np.isnan(value), value, np.where(unbounded, np.inf, spacing))
    spacing = spacing.astype(value.dtype, copy=False)
    return spacing[()] if is_scalar else spacing


@overload
def next_up(x: Scalar, fmt: FormatLike) -> Real: ...
@overload
def next_up(x: ArrayLike, fmt: FormatLike) -> Array: ...
def next_up(x: ArrayLike, fmt: FormatLike) -> Any:
    """Return the least value of the format that is greater than each number.

    Parameters
    ----------
    x : array_like of real numbers, any shape
        Not necessarily values of the format.
    fmt : Format, str or dtype
        The format.

    Returns
    -------
    numpy.ndarray of `x`'s shape, or a NumPy scalar if `x` is a scalar
        Beyond `max` there is infinity; NaN in a format without infinities, `max` in one with
        neither. The dtype is that of `round_to`.

    Examples
    --------
    >>> next_up([1.0, 65504.0], "float16").tolist()
    [1.0009765625, inf]

    References
    ----------
    IEEE 754-2019, section 5.3.1.
    """
    return _next(x, get_format(fmt), +1)


@overload
def next_down(x: Scalar, fmt: FormatLike) -> Real: ...
@overload
def next_down(x: ArrayLike, fmt: FormatLike) -> Array: ...
def next_down(x: ArrayLike, fmt: FormatLike) -> Any:
    """Return the greatest value of the format that is less than each number.

    Parameters
    ----------
    x : array_like of real numbers, any shape
        Not necessarily values of the format.
    fmt : Format, str or dtype
        The format.

    Returns
    -------
    numpy.ndarray of `x`'s shape, or a NumPy scalar if `x` is a scalar
        Mirrors `next_up`.

    Examples
    --------
    >>> float(next_down(1.0, "bfloat16"))
    0.99609375
    """
    return _next(x, get_format(fmt), -1)


@in_exact_state
@np.errstate(all="ignore")
def _next(x: ArrayLike, fmt: Format, direction: int) -> Any:
    is_scalar, x = np.isscalar(x), as_array(x)
    toward = Rounding.TOWARD_POSITIVE if direction > 0 else Rounding.TOWARD_NEGATIVE
    dtype = np.asarray(round_to(x.reshape(-1)[:0], fmt)).dtype
    codes = np.asarray(encode(x, fmt, rounding=toward, overflow="saturate_finite"))
    value = _ordinal(decode(codes, fmt, dtype="float64"))
    low, high = map(_ordinal, _enclosure(x))
    if direction > 0:
        is_beyond = np.where(low == high, value > high, value >= high)
    else:
        is_beyond = np.where(low == high, value < low, value <= low)
    codes = np.where(is_beyond, codes, _step(codes, fmt, direction))
    result = decode(codes.astype(fmt.code_dtype, copy=False), fmt, dtype=dtype)
    return result[()] if is_scalar else result


def _ordinal(x: ArrayLike) -> np.ndarray[Any, Any]:
    """Return integers in the order of float64 numbers: comparing floats may flush subnormals."""
    bits = np.asarray(x, np.float64).view(np.int64)
    magnitude = bits & np.int64(2**63 - 1)
    return np.where(bits < 0, -magnitude, magnitude)


def _enclosure(x: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the nearest float64 numbers below and above; the same where float64 holds x."""
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
        below = np.asarray(round_to(x, "float64", rounding="toward_negative"))
        return below, np.asarray(round_to(x, "float64", rounding="toward_positive"))
    exact = x.astype(np.float64)
    return exact, exact


def _step(codes: np.ndarray[Any, Any], fmt: Format, direction: int) -> np.ndarray[Any, Any]:
    """Move codes by one value: the codes of one sign count up, away from zero."""
    sign_mask = codes.dtype.type(fmt.sign_mask)
    is_negative = (codes & sign_mask) != 0
    magnitude = (codes & ~sign_mask).astype(np.int64)
    ordinal = np.where(is_negative, -magnitude, magnitude)
    moved = ordinal + direction
    if fmt.has_zero and not fmt.subnormals:  # codes between 0 and the smallest normal are zeros
        smallest = 1 << fmt.trailing_bits
        past_zero = np.where(ordinal == 0, direction * smallest, 0)
        moved = np.where(np.abs(moved) < smallest, past_zero, moved)
    becomes_negative = (moved < 0) | ((moved == 0) & (ordinal < 0) & fmt.has_negative_zero)
    sign = np.where(becomes_negative, np.uint64(fmt.sign_mask), np.uint64(0))
    beyond = fmt.max_code if fmt.nan_code is None else fmt.infinity_code or fmt.nan_code
    reached = np.abs(moved)
    reached = np.where(reached > fmt.max_code, beyond, reached).astype(np.uint64) | sign
    if not fmt.signed:  # below the least value there is none
        reached = np.where(moved < 0, np.uint64(fmt.nan_code or 0), reached)
    is_nan = magnitude > (fmt.infinity_code or fmt.max_code)
    if fmt.nan_code == fmt.sign_mask:
        is_nan |= codes == sign_mask
    return np.where(is_nan, codes, reached)
