"""How arrays lie in memory: where results may be written, and blocks for kernels to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    Array = np.ndarray[Any, Any]

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


def refuse_foreign_memory(out: Any, *operands: Array) -> None:
    """Raise if results written to `out` would change a torch tensor behind its back.

    Torch counts the changes of a tensor to know whether what backward has saved is still valid; one
    that NumPy makes is not counted. Memory that came through DLPack may be a tensor's too.

    out (ndarray): What will be written.
    *operands: What is read; of those that are a tensor's memory `out` must not share any.
    Raises ValueError if `out` is a tensor's memory.
    """
    if not isinstance(out, np.ndarray):
        return
    owner = _owner(out)
    if (
        _is_torchs(owner)
        or type(owner).__name__ == "PyCapsule"  # of DLPack, which does not say whose memory it is
        or any(_is_torchs(_owner(x)) and np.may_share_memory(out, x) for x in operands)
    ):
        raise ValueError(
            "out is the memory of a torch tensor, whose gradients would silently take the new "
            "values for the old; pass an array of NumPy's own, or use lowprec.torch"
        )


def _owner(array: Any) -> Any:
    """Return what keeps the memory of an array; None where that is an array."""
    while isinstance(array, np.ndarray | memoryview):
        array = array.base if isinstance(array, np.ndarray) else array.obj
    return array


def _is_torchs(x: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "torch" for kind in type(x).__mro__)


def is_same_memory(x: Array, out: Array) -> bool:
    """Whether arrays of one size lie in the same place, element on element."""
    return x.itemsize == out.itemsize and x.ctypes.data == out.ctypes.data


def blocks_in_c_order(
    arrays: Sequence[Array], out: Array, source: np.dtype[Any] | str, elements: int
) -> Any:
    """Return what iterates over blocks of arrays that broadcast to `out`, buffered if need be.

    arrays: What is read, of any layout and dtype; may overlap with `out`.
    source: What `arrays` are read as.
    elements: The most that a block has.
    Returns: To be used in a `with` statement. It yields contiguous blocks of the arrays and, last,
        the block to write before the next are asked for.
    """
    return np.nditer(
        [*arrays, out],
        flags=["external_loop", "buffered", "copy_if_overlap"],
        op_flags=[_READ] * len(arrays) + [_WRITE],
        op_dtypes=[source] * len(arrays) + [out.dtype],
        order="C",
        buffersize=elements,
    )
