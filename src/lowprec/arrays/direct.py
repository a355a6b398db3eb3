"""What every request asks first: whether arrays may go to a kernel as they lie.

Conversion, arithmetic and sums ask it here, at every call, before anything else. A kernel reads
aligned memory in C order and of its own dtype, and writes to memory that overlaps with none it
reads, or is the same. What may not go as it lies goes the general way: block by block, through
`layouts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]


def place_for(operands: tuple[Any, ...], out: Any, dtype: np.dtype[Any]) -> Array | None:
    """Return where a kernel may write what it makes of operands, or None if they must be looked at.

    Parameters
    ----------
    operands : tuple of ndarray
        What is read; the first is an array of the dtype that the kernel reads.
    out : ndarray or None
        Where the caller wants results; a new array by default.
    dtype : numpy.dtype
        Of the results.

    Returns
    -------
    numpy.ndarray or None
        `out` or a new array, if every operand has the shape and dtype of the first, lies in C order
        and shares no memory with `out` unless it is `out`.
    """
    first = operands[0]
    shape, kind = first.shape, first.dtype
    for x in operands:
        if x is not first and (
            type(x) is not np.ndarray or x.shape != shape or x.dtype is not kind
        ):
            return None
        flags = x.flags
        if not (flags.c_contiguous and flags.aligned):
            return None
    if out is None:
        return np.empty(shape, dtype)
    if type(out) is not np.ndarray or out.shape != shape or out.dtype != dtype:
        return None
    base, flags = out.base, out.flags  # memory of others, which they may hold unseen, is not ours
    if not flags.carray or not (base is None or (type(base) is np.ndarray and base.base is None)):
        return None
    for x in operands:
        if x is not out and not (base is None and x.base is None) and np.may_share_memory(x, out):
            return None
    return out


def as_ones(numbers: tuple[Any, ...]) -> tuple[Array, ...] | None:
    """Return Python's or NumPy's floats as arrays of one element, None if there are others."""
    kind = type(numbers[0])
    if kind is not float and kind is not np.float32:
        return None
    if len(numbers) == 1:
        return (np.array(numbers),)
    for x in numbers:
        if type(x) is not kind:
            return None
    return tuple([np.array((x,)) for x in numbers])
