"""Aligned sums: the loops of `lowprec.kernels.products`, made ready for an accumulator."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.accumulation.accumulator import result_dtype
from lowprec.conversion.door import round_to
from lowprec.formats import Format, float16, float32, float64
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.accumulation.accumulator import Accumulator

    Array = np.ndarray[Any, Any]
    Rule = tuple[str, Array]  # a plan of the last rounding, and its constants

_SIDE, _DEPTH = 512, 128  # rows or columns, and terms, that are taken apart at once


class Aligned(NamedTuple):
    """An aligned accumulator and its loops."""

    how: Accumulator
    inputs: tuple[Format, Format]
    general: Rule
    on_vectors: Rule | None  # where float32 holds what a group needs
    has_values: bool  # whether it holds products of the operands themselves

    @classmethod
    @functools.lru_cache(256)
    def of(cls, how: Accumulator, formats: tuple[Format, Format]) -> Aligned:
        """Prepare for products of these two formats."""
        from lowprec.kernels.products import aligned_groups as kernels  # imports Numba
        from lowprec.kernels.sums.orders import rounding_plan

        assert isinstance(how.rounding, Rounding)
        assert isinstance(how.overflow, Overflow)
        assert how.block is not None
        assert how.fraction_bits is not None
        fmt, modes = how.formats[0], (how.rounding, how.overflow)
        on_vectors = None
        if fmt.fits(float32) and kernels.has_exact_terms(*formats, how.block, how.fraction_bits):
            on_vectors = kernels.group_plan(fmt, *modes)
        has_values = kernels.has_exact_values(*formats)
        return cls(
            how, formats, rounding_plan(fmt, *modes, on_vectors=True), on_vectors, has_values
        )

    def addend(self, c: Array) -> Array:
        """Return addends as they enter: of float32 as they are, of float16 rounded to it."""
        fmt = self.how.formats[0]
        if not fmt.fits(float32):
            return np.asarray(round_to(c, float64 if c.dtype == np.float64 else float32))
        return np.asarray(round_to(c, float16 if fmt == float16 else float32))

    def multiply(
        self, a: Array, b: Array, c: Array | None, out: Array, read: Callable[..., Array]
    ) -> None:
        """Set `out` to the sums of products of two matrices, which begin with c.

        ``read(part, fmt)`` gives values of the two formats, in float32 or float64.
        """
        assert self.how.block is not None
        from lowprec.kernels.products.aligned_groups import WIDTH

        length = max(1, min(self.how.block, a.shape[1]))
        depth = max(1, _DEPTH // length) * length
        dtype = result_dtype(self.how.formats[0])
        for j in range(0, out.shape[1], _SIDE):
            for i in range(0, out.shape[0], _SIDE):
                target = out[i : i + _SIDE, j : j + _SIDE]
                rows, columns = target.shape
                sums = np.zeros((rows + rows % 2, -(-columns // WIDTH) * WIDTH), dtype)
                filled = sums[:rows, :columns]
                if c is not None:
                    filled[...] = c[i : i + _SIDE, j : j + _SIDE]
                for k in range(0, a.shape[1], depth):
                    left = read(a[i : i + _SIDE, k : k + depth], self.inputs[0])
                    right = read(b[k : k + depth, j : j + _SIDE], self.inputs[1])
                    self._add(left, right, sums, filled, length)
                target[...] = filled

    def _add(self, a: Array, b: Array, sums: Array, filled: Array, length: int) -> None:
        """Add products to the sums, which have room for whole vectors."""
        is_finite = bool(np.isfinite(a).all() and np.isfinite(b).all())
        if self.on_vectors is None or not is_finite:
            self._add_generally(a, b, filled, filled, is_finite)
            return
        before = filled.copy()
        doubts = self._add_on_vectors(a, b, sums, length)
        if doubts.any():
            rows = np.repeat(doubts.any(axis=1), 2)[: len(a)]
            again = np.empty((np.count_nonzero(rows), b.shape[1]), filled.dtype)
            self._add_generally(a[rows], b, before[rows], again, is_finite)
            filled[rows] = again

    def _add_on_vectors(self, a: Array, b: Array, sums: Array, length: int) -> Array:
        """Return what is in doubt, by pairs of rows and panels of columns."""
        from lowprec.kernels.products.aligned_groups import HEIGHT, WIDTH, make_groups

        assert self.on_vectors is not None
        plan, constants = self.on_vectors
        terms = -(-a.shape[1] // length) * length
        left = self._split(a, 0, (1, len(sums), terms), is_single=True)
        right = self._split(b, 1, (sums.shape[1] // WIDTH, terms, WIDTH), is_single=True)
        doubts = np.zeros((len(sums) // HEIGHT, len(right[0])), np.bool_)
        parts = (left[0][0], left[1][0], *right)
        make_groups(plan, self.has_values)(*parts, sums, doubts, length, *self._limits, constants)
        return doubts

    def _add_generally(self, a: Array, b: Array, c: Array, out: Array, is_finite: bool) -> None:
        from lowprec.kernels.products.aligned import COLUMNS, make_aligned

        plan, constants = self.general
        (sa,), (ea,) = self._split(a, 0, (1, *a.shape))
        factors = [np.empty((0, 0))] * 2 if is_finite else [a.astype(float), b.astype(float)]
        begin, sums = c.astype(float), np.empty(out.shape)
        for j in range(0, b.shape[1], COLUMNS):
            part = slice(j, j + COLUMNS)
            (sb,), (eb,) = self._split(b[:, part], 1, (1, *b[:, part].shape))
            operands = sa, ea, sb, eb, factors[0], factors[1][:, part]
            limits = self.how.block, *self._limits, constants
            make_aligned(plan)(*operands, begin[:, part], sums[:, part], *limits)
        out[...] = sums

    @property
    def _limits(self) -> tuple[Any, ...]:
        return self.how.fraction_bits, self.how.lowest_exponent, self.how.formats[0].emin

    def _split(
        self, x: Array, which: int, shape: tuple[int, ...], is_single: bool = False
    ) -> tuple[Array, Array]:
        """Return significands, or values, and exponents of an operand, in panels."""
        from lowprec.kernels.products.aligned import NO_EXPONENT, make_split

        s = np.zeros(shape, np.float32 if is_single else np.float64)
        e = np.full(shape, NO_EXPONENT, np.int32 if is_single else np.int64)
        source = "float32" if x.itemsize == 4 else "float64"
        split = make_split(source, is_single, is_single and self.has_values)
        split(x, self.inputs[which].emin, s, e)
        return s, e
