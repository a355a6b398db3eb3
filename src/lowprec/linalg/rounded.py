"""The operations of the algorithms: those of `Arithmetic`, or inner products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.accumulation.accumulator import Accumulator, AccumulatorLike, as_accumulator
from lowprec.accumulation.products import matmul
from lowprec.arithmetic.arithmetic import Arithmetic
from lowprec.arrays.sources import as_array
from lowprec.conversion.door import round_to
from lowprec.formats import Format, FormatLike, get_format

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from lowprec.rounding import OverflowLike, RoundingLike

Array = np.ndarray[Any, Any]


class Rounded(NamedTuple):
    """Operations in a format; inner products by an accumulator where there is one."""

    fmt: Format
    arithmetic: Arithmetic
    accumulator: Accumulator | None

    @classmethod
    def of(
        cls,
        fmt: FormatLike,
        rounding: RoundingLike,
        overflow: OverflowLike,
        accumulator: AccumulatorLike | None,
    ) -> Rounded:
        """Check what was asked for."""
        arithmetic = Arithmetic(fmt, rounding=rounding, overflow=overflow, flags=False)
        how = None if accumulator is None else as_accumulator(accumulator)
        return cls(get_format(fmt), arithmetic, how)

    def entered(self, x: Array) -> Array:
        """Return a copy whose elements are values of the format."""
        arithmetic = self.arithmetic
        values: Array = round_to(
            np.array(x, np.float64),
            self.fmt,
            rounding=arithmetic.rounding,
            overflow=arithmetic.overflow,
        )
        return values.astype(self.dtype)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of results."""
        return np.dtype(np.asarray(self.arithmetic.add(0.0, 0.0)).dtype)

    def minus_product(self, c: Array, a: Array, b: Array) -> Array:
        """Return c - a·b with two roundings: of the product, then of the difference."""
        difference: Array = self.arithmetic.subtract(c, self.arithmetic.multiply(a, b))
        return difference

    def minus_inner(self, c: Array, a: Array, b: Array) -> Array:
        """Return c - a @ b: the accumulator begins with c and adds (-a[k])·b[k] in order of k."""
        assert self.accumulator is not None
        if not a.shape[-1]:
            return c
        sums = matmul(-a, b, c=c, inputs=self.fmt, accumulator=self.accumulator, output=self.fmt)
        return np.asarray(sums, self.dtype)


def as_matrix(a: ArrayLike, *, square: bool = False) -> Array:
    """Return a matrix of finite numbers, or raise ValueError."""
    array = as_array(a)
    if array.ndim != 2 or (square and array.shape[0] != array.shape[1]):
        kind = "a square matrix" if square else "a matrix"
        raise ValueError(f"a has shape {array.shape}; pass {kind}")
    return array
