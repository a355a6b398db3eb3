"""How arrays lie in memory: where results may be written, and blocks for kernels to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    Array = np.ndarray[Any, Any]

__all__ = ["blocks_in_c_order", "check_is_array", "check_out", "is_same_memory"]

_BUFFERED = ("contig", "aligned", "nbo", "overlap_assume_elementwise")
_READ: Any = ["readonly", *_BUFFERED]
_WRITE: Any = ["writeonly", *_BUFFERED]


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless results of this shape and dtype can be written to `out`."""
    check_is_array(out)
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; the result has shape {shape}")
    if out.dtype != dtype:
        raise TypeError(f"out has dtype {out.dtype}; the result has dtype {dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; pass an array that may be written")


def check_is_array(out: Any) -> None:
    """Raise unless `out` is an array."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is a {type(out).__name__}; pass a numpy.ndarray")


def is_same_memory(x: Array, out: Array) -> bool:
    """Whether arrays of one size lie in the same place, element on element."""
    return x.itemsize == out.itemsize and x.ctypes.data == out.ctypes.data


def blocks_in_c_order(
    arrays: Sequence[Array], out: Array, source: np.dtype[Any] | str, elements: int
) -> Any:
    """Return what iterates over blocks of arrays that broadcast to `out`, buffered if need be.

    Parameters
    ----------
    arrays : sequence of ndarray
        What is read, of any layout and dtype; may overlap with `out`.
    out : ndarray
        What is written.
    source : dtype
        What `arrays` are read as.
    elements : int
        The most that a block has.

    Returns
    -------
    numpy.nditer
        To be used in a `with` statement. It yields contiguous blocks of the arrays and, last, the
        block to write before the next are asked for.
    """
    return np.nditer(
        [*arrays, out],
        flags=["external_loop", "buffered", "copy_if_overlap"],
        op_flags=[_READ] * len(arrays) + [_WRITE],
        op_dtypes=[source] * len(arrays) + [out.dtype],
        order="C",
        buffersize=elements,
    )
