"""Aligned sums: the loops of `lowprec.kernels.products.aligned`, made ready for an accumulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.conversion.door import round_to
from lowprec.formats import Format, float16, float32, float64
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.accumulation.accumulator import Accumulator

    Array = np.ndarray[Any, Any]

_SIDE = 512  # rows of an operand that are taken apart at once


class Aligned(NamedTuple):
    """An aligned accumulator and its loops."""

    how: Accumulator
    emins: tuple[int, int]  # of the factors
    width: Any
    loop: Callable[..., None]
    constants: Array

    @classmethod
    def of(cls, how: Accumulator, formats: tuple[Format, Format]) -> Aligned:
        """Prepare for products of these two formats."""
        from lowprec.kernels.products import aligned as kernels  # imports Numba
        from lowprec.kernels.sums.orders import rounding_plan

        assert isinstance(how.rounding, Rounding)
        assert isinstance(how.overflow, Overflow)
        assert how.block is not None
        assert how.fraction_bits is not None
        first, second = formats
        plan, constants = rounding_plan(how.formats[0], how.rounding, how.overflow)
        width = kernels.width_of(formats, how.block, how.fraction_bits)
        loop = kernels.make_aligned(width, plan)
        return cls(how, (first.emin, second.emin), width, loop, constants)

    def addend(self, c: Array) -> Array:
        """Return addends as they enter: of float32 as they are, of float16 rounded to it."""
        fmt = self.how.formats[0]
        if not fmt.fits(float32):
            return widened(np.asarray(round_to(c, float64 if c.dtype == np.float64 else float32)))
        return widened(np.asarray(round_to(c, float16 if fmt == float16 else float32)))

    def multiply(self, a: Array, b: Array, c: Array | None, out: Array) -> None:
        """Set `out`, of float64, to the sums of products of two matrices, which begin with c.

        The operands hold values of the two formats, in float32 or float64.
        """
        from lowprec.kernels.products.aligned import COLUMNS

        rows, columns = out.shape
        for j in range(0, columns, COLUMNS):
            right = b[:, j : j + COLUMNS]
            sb, eb = self._split(right, self.emins[1])
            for i in range(0, rows, _SIDE):
                left, target = a[i : i + _SIDE], out[i : i + _SIDE, j : j + COLUMNS]
                sa, ea = self._split(left, self.emins[0])
                start = np.zeros(target.shape) if c is None else c[i : i + _SIDE, j : j + COLUMNS]
                self._run((sa, ea, sb, eb), left, right, start, target)

    def _run(self, parts: tuple[Array, ...], a: Array, b: Array, c: Array, out: Array) -> None:
        how, empty = self.how, np.empty((0, 0))
        specials = (empty, empty)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            specials = (widened(a), widened(b))
        limits = (how.block, how.fraction_bits, how.lowest_exponent, how.formats[0].emin)
        self.loop(*parts, *specials, c, out, *limits, self.constants)

    def _split(self, x: Array, emin: int) -> tuple[Array, Array]:
        from lowprec.kernels.products.aligned import make_split

        s = np.empty(x.shape, self.width.float)
        e = np.empty(x.shape, self.width.exponent)
        make_split(x.dtype.name, self.width)(x, emin, s, e)
        return s, e


def widened(x: Array) -> Array:
    """Return a matrix of float32 or float64 as contiguous float64, subnormal numbers kept."""
    from lowprec.kernels.products.aligned import make_widen

    out = np.empty(x.shape)
    make_widen(x.dtype.name)(x.reshape(x.shape), out)
    return out
