"""How arrays lie in memory: where results may be written, and blocks for kernels to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Array = np.ndarray[Any, Any]

__all__ = ["blocks_in_c_order", "check_is_array", "check_out", "is_same_memory"]

_BUFFERED: Any = ("contig", "aligned", "nbo", "overlap_assume_elementwise")


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
) -> Iterator[tuple[list[Array], Array, int]]:
    """Yield arrays that broadcast to `out` in blocks, through buffers where they must be.

    Parameters
    ----------
    arrays : sequence of ndarray
        What is read, of any layout and dtype; may overlap with `out`.
    out : ndarray
        What is written: every block that is yielded, before the next is asked for.
    source : dtype
        What `arrays` are read as.
    elements : int
        The most that a block has.

    Yields
    ------
    list of ndarray, ndarray, int
        Contiguous blocks of the arrays, the block to write, and its first index in C order.
    """
    blocks: Any = np.nditer(
        [*arrays, out],
        flags=["external_loop", "buffered", "copy_if_overlap"],
        op_flags=[["readonly", *_BUFFERED]] * len(arrays) + [["writeonly", *_BUFFERED]],
        op_dtypes=[source] * len(arrays) + [out.dtype],
        order="C",
        buffersize=elements,
    )
    first = 0
    with blocks:
        for *operands, target in blocks:
            yield operands, target, first
            first += target.size
