"""From arrays of any shape and layout to kernels, which take flat ones of their own dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lowprec.arithmetic.flags import Events
from lowprec.arrays.direct import parts_in_c_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.formats import Format

    Array = np.ndarray[Any, Any]

BLOCK = 1 << 14  # elements of a temporary


class ElementKernel(Protocol):
    """What computes an operation on flat arrays and returns the counts of `Events`."""

    @property
    def how(self) -> Any:
        """What is computed; ``how.source`` names the dtype of operands."""

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


def run(kernel: ElementKernel, arrays: Sequence[Array], out: Array, key: int) -> Array:
    """Hand contiguous arrays of the kernel's dtype over at once, others block by block."""
    events = np.zeros(len(Events._fields), np.int64)
    parts = parts_in_c_order(arrays, out, np.dtype(kernel.how.source), BLOCK)
    for operands, target, first in parts:
        events += kernel(operands, target, key, first)
    return events
