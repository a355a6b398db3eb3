"""From arrays of any shape and layout to kernels, which take flat ones of their own dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lowprec.flags import Events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.formats import Format

    Array = np.ndarray[Any, Any]

__all__ = ["ElementKernel", "check_out", "is_simple", "refuse_nan", "run"]

_BLOCK = 1 << 14  # elements of a temporary
_BUFFERED: Any = ("contig", "aligned", "nbo", "overlap_assume_elementwise")


class ElementKernel(Protocol):
    """What computes an operation on flat arrays and returns the counts of `Events`."""

    @property
    def task(self) -> Any:
        """What is computed; ``task.source`` names the dtype of operands."""

    def __call__(
        self, operands: Sequence[Array], out: Array, key: int = 0, first: int = 0
    ) -> Array:
        """Compute `out`, whose first element has the index `first` in the caller's array."""


# Checks ------------------------------------------------------------------------------------------


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless results of this shape and dtype can be written to `out`."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is a {type(out).__name__}; pass a numpy.ndarray")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; the result has shape {shape}")
    if out.dtype != dtype:
        raise TypeError(f"out has dtype {out.dtype}; the result has dtype {dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; pass an array that may be written")


def refuse_nan(result: Array, operation: str, fmt: Format) -> None:
    """Raise if results are NaN, which the format has not."""
    wrong = np.isnan(result)
    if wrong.any():
        first = tuple(map(int, np.argwhere(wrong)[0]))
        raise ValueError(
            f"{operation} has {int(wrong.sum())} results of {result.size} that {fmt} has no code "
            f"for, first at index {first}; use a format with NaN, or other operands there"
        )


# Running -----------------------------------------------------------------------------------------


def is_simple(operands: Sequence[Any], out: Any, result: np.dtype[Any]) -> bool:
    """Whether these are flat arrays that the kernel takes as they are."""
    return (
        type(out) is np.ndarray
        and out.ndim == 1
        and out.dtype == result
        and out.flags.carray
        and _are_readable(operands, operands[0].dtype, out)
    )


def _are_readable(operands: Sequence[Any], dtype: np.dtype[Any], out: Array) -> bool:
    """Whether a kernel can read operands of this dtype while it writes out."""
    for x in operands:
        if type(x) is not np.ndarray or x.dtype != dtype or x.shape != out.shape:
            return False
        flags = x.flags
        if not (flags.c_contiguous and flags.aligned):
            return False
        if x is not out and np.may_share_memory(x, out) and not _is_same_memory(x, out):
            return False
    return True


def _is_same_memory(x: Array, out: Array) -> bool:
    return x.itemsize == out.itemsize and x.ctypes.data == out.ctypes.data


def run(kernel: ElementKernel, arrays: Sequence[Array], out: Array, key: int) -> Array:
    """Hand contiguous arrays of the kernel's dtype over at once, others block by block."""
    source = np.dtype(kernel.task.source)
    if out.flags.carray and _are_readable(arrays, source, out):
        return kernel([x.reshape(-1) for x in arrays], out.reshape(-1), key)
    if out.size:
        return _run_blocks(kernel, arrays, out, key)
    return np.zeros(len(Events._fields), np.int64)


def _run_blocks(kernel: ElementKernel, arrays: Sequence[Array], out: Array, key: int) -> Array:
    """Compute block by block in C order, through buffers where shape or dtype asks for them."""
    count = len(arrays)
    blocks: Any = np.nditer(
        [*arrays, out],
        flags=["external_loop", "buffered", "copy_if_overlap"],
        op_flags=[["readonly", *_BUFFERED]] * count + [["writeonly", *_BUFFERED]],
        op_dtypes=[kernel.task.source] * count + [out.dtype],
        order="C",
        buffersize=_BLOCK,
    )
    first = 0
    events = np.zeros(len(Events._fields), np.int64)
    with blocks:
        for *operands, target in blocks:
            events += kernel(operands, target, key, first)
            first += target.size
    return events
