"""From arrays of any shape and layout to kernels, which take flat ones of their own dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lowprec.arithmetic.flags import Events
from lowprec.arrays.layouts import blocks_in_c_order, is_same_memory
from lowprec.common.processor_state import exact_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.formats import Format

    Array = np.ndarray[Any, Any]

_BLOCK = 1 << 14  # elements of a temporary


class ElementKernel(Protocol):
    """What computes an operation on flat arrays and returns the counts of `Events`."""

    @property
    def task(self) -> Any:
        """What is computed; ``task.source`` names the dtype of operands."""

    def __call__(
        self, operands: Sequence[Array], out: Array, key: int = 0, first: int = 0
    ) -> Array:
        """Compute `out`, whose first element has the index `first` in the caller's array."""


def refuse_nan(result: Array, operation: str, fmt: Format) -> None:
    """Raise if results are NaN, which the format has not."""
    wrong = np.isnan(result)
    if wrong.any():
        first = tuple(map(int, np.argwhere(wrong)[0]))
        raise ValueError(
            f"{operation} has {int(wrong.sum())} results of {result.size} that {fmt} has no code "
            f"for, first at index {first}; use a format with NaN, or other operands there"
        )


def _are_readable(operands: Sequence[Any], dtype: np.dtype[Any], out: Array) -> bool:
    """Whether a kernel can read operands of this dtype while it writes out."""
    for x in operands:
        if type(x) is not np.ndarray or x.dtype != dtype or x.shape != out.shape:
            return False
        flags = x.flags
        if not (flags.c_contiguous and flags.aligned):
            return False
        if x is not out and np.may_share_memory(x, out) and not is_same_memory(x, out):
            return False
    return True


def run(kernel: ElementKernel, arrays: Sequence[Array], out: Array, key: int) -> Array:
    """Hand contiguous arrays of the kernel's dtype over at once, others block by block."""
    source = np.dtype(kernel.task.source)
    if out.flags.carray and _are_readable(arrays, source, out):
        return kernel([x.reshape(-1) for x in arrays], out.reshape(-1), key)
    events = np.zeros(len(Events._fields), np.int64)
    if out.size:
        first = 0
        # NumPy widens what it puts into the buffers
        with exact_state(), blocks_in_c_order(arrays, out, source, _BLOCK) as blocks:
            for *operands, target in blocks:
                events += kernel(operands, target, key, first)
                first += target.size
    return events
