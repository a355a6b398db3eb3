"""Arrays of other libraries' files, read a slice at a time."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.tensors.sources import MadeInBlocks, native
from lowprec.tensors.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Sliced(MadeInBlocks):
    """Elements that are read by ``read(index)``, a tuple of integers and slices.

    read: Returns the elements of an index as an array.
    shape: Of all elements.
    dtype: Of what is read.
    """

    read: Callable[[tuple[Any, ...]], Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def blocks(self, elements: int) -> Iterator[Array]:
        """Yield all elements, in blocks of about this many, in C order."""
        if not math.prod(self.shape):
            return
        if not self.shape:
            yield self._checked(())
            return
        last = len(self.shape) - 1
        axis = next(i for i in range(last + 1) if i == last or self._inner(i) <= elements)
        step = max(1, elements // max(1, self._inner(axis)))
        for outer in np.ndindex(self.shape[:axis]):
            for first in range(0, self.shape[axis], step):
                yield self._checked((*outer, slice(first, min(first + step, self.shape[axis]))))

    def _inner(self, axis: int) -> int:
        return math.prod(self.shape[axis + 1 :])

    def _checked(self, index: tuple[Any, ...]) -> Array:
        try:
            found = np.asarray(self.read(index))
        except Exception as error:  # of any kind: what a library meets in a damaged file
            raise ValueError(f"its data are damaged: {_one_line(error)}") from None
        return native(found.astype(self.dtype, copy=False)).reshape(-1)


def left_out(name: str, reason: str) -> Tensor:
    """Return a tensor without elements, for an array that is left."""
    dtype = np.dtype(np.float32)
    nothing = Sliced(lambda index: np.empty(0), (0,), dtype)
    return Tensor(name, (0,), dtype, nothing, None, left=reason)


def _one_line(error: Exception) -> str:
    return f"{' '.join(str(error).split()) or type(error).__name__:.200}"


def missing_library(path: Any, kind: str, name: str, extra: str) -> ModuleNotFoundError:
    """Return the error of a file whose library is not installed."""
    return ModuleNotFoundError(
        f"{path} is {kind}, which is read through {name}, and {name} is not installed; "
        f"run: python -m pip install 'lowprec[{extra}]'",
        name=name,
    )
