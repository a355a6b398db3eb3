"""How many significand bits of a field carry real information, and rounding to them.

A bit carries information where it tells about the same bit of the neighbour: the mutual information
of the two, over all pairs of neighbours along an axis. Bits of noise tell nothing.

References
----------
Klöwer, Razinger, Dominguez, Düben and Palmer, "Compressing atmospheric data into its real
information content", Nature Computational Science 1 (2021), 713-724; computed as in xbitinfo.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.arrays.sources import as_array
from lowprec.common.processor_state import in_exact_state
from lowprec.formats import get_format

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from lowprec.formats import Format

    Array = np.ndarray[Any, Any]

PIECE = 1 << 20  # pairs of neighbours
_NOISE = 1.5  # a bit of less information than this times that of the last bits has none
_LAST = 4
_DTYPES = ("float16", "float32", "float64")


@in_exact_state
def keepbits(x: npt.ArrayLike, information: float = 0.99, *, axis: int | None = None) -> int:
    """Return how many significand bits hold this share of a field's real information.

    Parameters
    ----------
    x : array_like of float16, float32 or float64
        A field whose neighbours resemble each other: a temperature on a grid, a series in time.
        Pairs of neighbours of which one is NaN or infinite are left out.
    information : float
        The share of information to keep, from 0 to 1; 1 keeps all bits.
    axis : int, optional
        The axis along which elements are neighbours. By default each axis is tried, and the
        largest number of bits returned.

    Returns
    -------
    int
        From 0 to 10, 23 or 52: bits after the leading one, for `bitround`.

    Raises
    ------
    ValueError
        If the share is none, or no bit tells about its neighbour: in a constant, for example.
    TypeError
        If `x` has another dtype.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> field = np.sin(np.linspace(0, 20, 10_000)) + rng.normal(0, 0.01, 10_000)
    >>> keepbits(field), keepbits(field, information=1.0)
    (3, 52)
    """
    if not 0 <= information <= 1:
        raise ValueError(f"information is {information}; use a share from 0 to 1, as 0.99")
    array = _checked(x)
    if array.ndim == 0:
        raise ValueError("a single number has no neighbours; pass an array")
    if axis is None:
        axes = [i for i, size in enumerate(array.shape) if size > 1]
    else:
        axes = [range(array.ndim)[operator.index(axis)]] if -array.ndim <= axis < array.ndim else []
        if not axes:
            raise ValueError(
                f"axis is {axis}, but the array has {array.ndim} axes; use {-array.ndim} to "
                f"{array.ndim - 1}"
            )
    fmt = get_format(array.dtype)
    if information == 1:
        return fmt.trailing_bits
    found = [_keepbits_along(array, i, information, fmt) for i in axes]
    if not any(bits is not None for bits in found):
        raise ValueError(
            "no bit tells about the same bit of its neighbour: x is constant, or noise alone, "
            "along the axis; choose the number of bits for bitround yourself"
        )
    return max(bits for bits in found if bits is not None)


@in_exact_state
def bitround(x: npt.ArrayLike, bits: int) -> Any:
    """Round to a number of significand bits, as `keepbits` advises; the dtype stays.

    Numbers whose last bits are zero compress well. NaN and infinities stay.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, any shape
        What is rounded, once, ties to even.
    bits : int
        How many bits after the leading one are kept: 0 to 10, 23 or 52.

    Returns
    -------
    numpy.ndarray of `x`'s shape and dtype, or a NumPy scalar if `x` is a scalar

    Raises
    ------
    ValueError
        If the dtype has fewer bits.

    Examples
    --------
    >>> bitround([1.1, 3.14159], 4).tolist()
    [1.125, 3.125]
    """
    array = _checked(x)
    fmt = get_format(array.dtype)
    count = operator.index(bits)
    if not 0 <= count <= fmt.trailing_bits:
        raise ValueError(
            f"{count} bits are to be kept, but {array.dtype} has {fmt.trailing_bits} after the "
            f"leading one; use 0 to {fmt.trailing_bits}"
        )
    rounded = _rounded_patterns(array, fmt.trailing_bits - count)
    return rounded[()] if np.isscalar(x) else rounded


def _rounded_patterns(x: Array, dropped: int) -> Array:
    """Round the last bits of patterns away, ties to even; a carry goes on into the exponent."""
    native = x.astype(x.dtype.newbyteorder("="))
    if not dropped:
        return native
    pattern = native.view(f"u{native.dtype.itemsize}")
    kind = pattern.dtype.type
    odd = (pattern >> kind(dropped)) & kind(1)
    moved = (pattern + (odd + kind((1 << (dropped - 1)) - 1))) >> kind(dropped) << kind(dropped)
    return np.where(np.isfinite(native), moved.view(native.dtype), native)


def _checked(x: npt.ArrayLike) -> Array:
    array = as_array(x)
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"x has dtype {array.dtype}; use one of {', '.join(_DTYPES)}")
    return array


def _keepbits_along(x: Array, axis: int, information: float, fmt: Format) -> int | None:
    """Return the number of bits for one axis; None where no bit has information."""
    found = information_of_bits(x, axis)
    found = np.where(found > found[-_LAST:].max() * _NOISE, found, 0.0)
    total = found.sum()
    if not total:
        return None
    enough = np.cumsum(found) / total > information
    # where rounding errors hide the last step, the last bit with information decides
    last = int(enough.argmax()) if enough.any() else int(np.flatnonzero(found)[-1])
    return max(last + 1 - (fmt.bits - fmt.trailing_bits), 0)


def information_of_bits(x: Array, axis: int) -> Array:
    """Return the mutual information of neighbours for each bit, the sign first, in bits."""
    bits = 8 * x.dtype.itemsize
    counts = np.zeros((bits, 3), np.int64)  # both are 1, the first, the second
    total = 0
    for here, there in _neighbours(np.moveaxis(x, axis, -1)):
        both = np.isfinite(here) & np.isfinite(there)
        a, b = _with_signed_exponent(here[both]), _with_signed_exponent(there[both])
        total += a.size
        for i in range(bits):
            bit = a.dtype.type(1 << (bits - 1 - i))
            one, other = (a & bit) != 0, (b & bit) != 0
            counts[i] += [np.count_nonzero(one & other), one.sum(), other.sum()]
    if not total:
        return np.zeros(bits)
    together, first, second = counts.T
    table = np.array(
        [[total - first - second + together, second - together], [first - together, together]]
    )
    share = table / total
    apart = share.sum(0, keepdims=True) * share.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(share > 0, share * np.log(share / apart), 0.0)
    found: Array = terms.sum((0, 1)) / np.log(2)
    return found


def _neighbours(x: Array) -> Iterator[tuple[Array, Array]]:
    """Yield pairs of neighbours along the last axis, a piece at a time."""
    if x.ndim == 1:
        for start in range(0, max(x.size - 1, 0), PIECE):
            part = x[start : start + PIECE + 1]
            yield part[:-1], part[1:]
        return
    rows = max(1, PIECE // max(1, x[:1].size))
    for start in range(0, x.shape[0], rows):
        part = x[start : start + rows]
        yield part[..., :-1].reshape(-1), part[..., 1:].reshape(-1)


def _with_signed_exponent(x: Array) -> Array:
    """Return patterns whose exponent is a sign and a magnitude: so 1.9 resembles 2.1 more."""
    fmt = get_format(x.dtype)
    code = np.dtype(f"u{x.dtype.itemsize}")
    pattern = x.astype(x.dtype.newbyteorder("="), copy=False).view(code).astype(np.uint64)
    width = np.uint64(fmt.trailing_bits)
    field = np.uint64(((1 << fmt.exponent_bits) - 1) << fmt.trailing_bits)
    exponent = ((pattern & field) >> width).astype(np.int64) - (1 - fmt.emin)
    magnitude = np.abs(exponent).astype(np.uint64) << width
    sign = np.uint64(1 << (fmt.bits - 2))
    signed = magnitude | np.where(exponent < 0, sign, np.uint64(0))
    result: Array = ((pattern & ~field) | signed).astype(code)
    return result
