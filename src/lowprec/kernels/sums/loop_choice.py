"""Which loop sums the rows of an array, and which its columns, for an accumulator."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.formats import Format, float32
from lowprec.kernels.magnitudes import Constants
from lowprec.kernels.products.matmul import DEPTH, make_multiply
from lowprec.kernels.products.steps import ProductPlan
from lowprec.kernels.products.vectors import FLOAT
from lowprec.kernels.sums.binades import binades_of, make_row_sums
from lowprec.kernels.sums.columns import make_column_sums
from lowprec.kernels.sums.exact_float32 import make_exact_rows
from lowprec.kernels.sums.orders import rounding_plan
from lowprec.kernels.sums.quick import make_quick_rows, quick_plan
from lowprec.kernels.sums.trees import make_trees, term_plan
from lowprec.rounding import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.rounding import Overflow

Array = np.ndarray[Any, Any]

#: modes in which sums of terms of either sign stay small, and change their binade all the time
_WANDERING = (Rounding.TOWARD_ZERO, Rounding.TO_ODD)
_LONGEST_BLOCK = 2048  # terms of an accumulator's block
_GLANCE = 256  # terms that tell whether all have one sign
_ONE = np.ones(1, np.float32)


class RowSums(NamedTuple):
    """A loop with its constants: it sums the rows of a contiguous matrix.

    steady: Makes the loop that takes a third of the time where sums of many terms keep their
    binade, as those of terms of one sign do, and twice as long where not; None if there is none.
    """

    order: str
    loop: Callable[..., None]
    constants: tuple[Array, ...]
    steady: Callable[[], RowSums] | None = None

    @property
    def takes_parts(self) -> bool:
        """Whether a row may come in parts: `sums` is what was summed before."""
        return self.order == "sequential"

    def add(self, x: Array, sums: Array, first: int, output: int, key: Any) -> None:
        """Add up rows, whose terms are numbered from `first` on and whose outputs from `output`."""
        if self.steady is not None and x.shape[1] > 4 * _GLANCE and _has_one_sign(x[0, :_GLANCE]):
            self.steady().add(x, sums, first, output, key)
        elif self.order == "sequential":
            self.loop(x, sums, *self.constants, first, output, key)
        elif self.order == "exact":
            self.loop(x, sums, *self.constants, output, key)
        else:
            self.loop(x, sums, *self.constants)


def _has_one_sign(x: Array) -> bool:
    return bool((x >= 0).all() or (x <= 0).all())


@functools.cache
def row_sums(
    order: str,
    fmt: Format,
    rounding: Rounding,
    overflow: Overflow,
    random_bits: int | None,
    source: str,
) -> RowSums | None:
    """Return the loop for terms of dtype `source`, float32 or float64; None where there is none."""
    if order not in ("sequential", "pairwise", "exact"):
        return None
    plan, constants = rounding_plan(fmt, rounding, overflow, random_bits)
    match order:
        case "sequential":
            binades = binades_of(fmt, rounding, overflow)
            if binades is None or random_bits is not None:  # they draw words in their own way
                return None
            quick = None
            if source == "float32" and (fmt.trailing_bits <= 3 or rounding in _WANDERING):
                quick = quick_plan(fmt, rounding, overflow)
            is_single = fmt == float32 and binades.most == 0
            fields = constants, np.array(binades, np.int64)

            @functools.cache
            def by_binades() -> RowSums:
                return RowSums(order, make_row_sums(source, plan, is_single), fields)

            if quick is None:
                return by_binades()
            steady = None if rounding in _WANDERING else by_binades
            return RowSums(order, make_quick_rows(plan, quick[0]), (constants, quick[1]), steady)
        case "pairwise":
            term = None if source != "float32" else term_plan(fmt, rounding, overflow)
            if term is None:
                return None
            return RowSums(order, make_trees(plan, term[0]), (constants, term[1]))
        case "exact" if source == "float32":
            return RowSums(order, make_exact_rows(plan), (constants,))
    return None


class Many(NamedTuple):
    """The loop over rows that lie one after the other, with its constants."""

    loop: Callable[..., None]
    constants: Array


class ColumnSums(NamedTuple):
    """The micro-kernels of a matrix product, with factors of 1: they sum a matrix's columns."""

    loop: Callable[..., None]
    block: int
    constants: Array
    many: Many | None  # for whole vectors of columns, summed in one sequence

    def add(self, x: Array, sums: Array) -> None:
        """Write the sums of the columns of a float32 matrix whose rows are contiguous."""
        columns = x.shape[1]
        whole = columns - columns % FEWEST_COLUMNS
        if self.many is not None and x.flags.c_contiguous:
            self.many.loop(x.reshape(-1), columns, sums[:whole], self.many.constants)
            x, sums = x[:, whole:], sums[whole:]
            if columns == whole:
                return
        ones = np.broadcast_to(_ONE, (1, len(x)))
        self.loop(ones, x, sums.reshape(1, -1), True, self.block, self.constants)


@functools.cache
def column_sums(
    order: str,
    block: int | None,
    formats: tuple[Format, Format],
    rounding: Rounding,
    overflow: Overflow,
) -> ColumnSums | None:
    """Return the micro-kernels for an accumulator, or None where there are none."""
    if order not in ("sequential", "blocked") or (block or 0) > _LONGEST_BLOCK:
        return None
    outer, inner = (term_plan(fmt, rounding, overflow) for fmt in formats)
    if outer is None or inner is None:
        return None
    end = outer[0] if order == "blocked" else ""
    nothing = np.zeros(len(Constants._fields), np.uint64)
    constants = np.stack([inner[1], outer[1] if end else nothing])
    many = None
    if not end:
        soon = quick_plan(formats[0], rounding, overflow) or inner
        many = Many(make_column_sums(inner[0], soon[0]), np.stack([inner[1], soon[1]]))
    multiply = make_multiply(ProductPlan(inner[0], end))
    return ColumnSums(multiply, block or DEPTH, constants, many)


#: how many columns make up for the start of the micro-kernels
FEWEST_COLUMNS = FLOAT.lanes
