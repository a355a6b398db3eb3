"""One tensor, rounded to a format while it is read."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.conversion.door import decode, encode
from lowprec.conversion.requests import round_piece, without_code
from lowprec.exact.number import floor_log2_ratio
from lowprec.formats import Format, float32, get_format
from lowprec.rounding import Overflow, Rounding
from lowprec.tensors.sources import MadeInBlocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from lowprec.tensors.tensor import Tensor

    Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Converted(MadeInBlocks):
    """The elements of a tensor, rounded as they are read."""

    tensor: Tensor
    coding: Format
    dtype: np.dtype[Any]
    modes: tuple[Rounding, Overflow]
    key: int

    def blocks(self, elements: int) -> Iterator[Array]:
        """Yield all codes, in blocks of this many, in the format's dtype if it has one."""
        first = 0
        for block in self.tensor.values(elements * self.tensor.dtype.itemsize):
            yield self._encode(_widened(block, self.coding), first).view(self.dtype)
            first += block.size

    def _encode(self, block: Array, first: int) -> Array:
        rounding, overflow = self.modes
        try:
            if rounding.is_stochastic:
                block = round_piece(block, self.coding, self.modes, self.key, first)
                rounding = Rounding.TIES_TO_EVEN  # which leaves values of the format alone
            codes: Array = encode(block, self.coding, rounding=rounding, overflow=overflow)
        except ValueError:
            raise _refusal(self.tensor, self.coding) from None
        return codes


def _widened(block: Array, fmt: Format) -> Array:
    """Return the same numbers in a dtype that kernels read, and that holds the format's values."""
    if block.dtype.itemsize < 4:
        block = decode(block, get_format(block.dtype))
    return block if fmt.fits(float32) else block.astype(np.float64, copy=False)


def _refusal(tensor: Tensor, fmt: Format) -> ValueError:
    """Return the error that counts what the format has no code for."""
    count, first, seen = 0, 0, 0
    for block in tensor.values():
        wide = _widened(block, fmt)
        bad = np.isnan(wide) if fmt.signed else ~(wide >= 0)
        if bad.any() and not count:
            first = seen + int(bad.argmax())
        count, seen = count + int(bad.sum()), seen + block.size
    index = tuple(map(int, np.unravel_index(first, tensor.shape)))
    kind = without_code(fmt)
    assert kind is not None
    return ValueError(
        f"{count:,} of {seen:,} elements of {tensor.name!r} are {kind.value}, first at index "
        f"{index}; "
        f"{fmt} has no code for them: replace them, or leave the tensor out (exclude)"
    )


def scale_for(tensor: Tensor, fmt: Format) -> float:
    """Return the inverse of the largest power of two by which the tensor may be multiplied."""
    largest = max(map(_largest, tensor.values()), default=0.0)
    if largest == 0.0:
        return 1.0
    exponent = floor_log2_ratio(fmt.max, largest)
    # what float64 can express: the values of the scaled format, and the inverse itself
    exponent = min(max(exponent, fmt.emax - 1023, -1023), fmt.emin + 1022, 1074)
    return math.ldexp(1.0, -exponent)


def _largest(block: Array) -> float:
    """Return the largest finite magnitude, 0 where there is none."""
    magnitudes = np.abs(_widened(block, float32))
    largest = np.fmax.reduce(magnitudes, initial=0.0)
    if largest == np.inf:
        largest = np.max(magnitudes, where=magnitudes < np.inf, initial=0.0)
    return float(largest)
