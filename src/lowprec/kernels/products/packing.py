"""Packing: a block of the right operand laid out as tiles read it, row by row in whole vectors."""

from __future__ import annotations

from functools import partial
from typing import Any

from lowprec.kernels.compiler import cgutils, intrinsic, ir, types
from lowprec.kernels.products.vectors import (
    FLOAT,
    INTEGER,
    Element,
    Vectors,
    choose,
    clamped,
    element_of,
)


@intrinsic(prefer_literal=True)
def pack(_: Any, source: Any, strides: Any, size: Any, panel: Any, widths: Any, bits: Any) -> Any:
    """Copy a block of (terms, columns) from one address to another, where it becomes a panel.

    Rows of the panel are as many whole vectors as they fill, at most ``widths``; it needs room for
    a vector's lanes of rows more. `strides` are in bytes. Elements are floats of so many ``bits``;
    of float16, rows or columns of the block must be contiguous.
    """
    element = element_of(bits.literal_value == 16)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pair, shape = (cgutils.unpack_tuple(builder, args[i], 2) for i in (1, 2))
        _Block(builder, element, args[0], pair, shape, args[3]).copy(widths.literal_value)
        return context.get_dummy_value()

    return types.void(source, strides, size, panel, widths, bits), generate


class _Block:
    """The arguments of `pack` as values of LLVM."""

    def __init__(
        self, builder: Any, element: Element, source: Any, strides: Any, size: Any, panel: Any
    ) -> None:
        self.builder, self.element, self.source, self.panel = builder, element, source, panel
        (self.row, self.column), (self.terms, self.columns) = strides, size

    def copy(self, widths: int) -> None:
        """Generate the copy by how the block lies: in rows, in columns, or otherwise."""
        b, lanes = self.builder, self.element.lanes
        limits = [(lanes * (width - 1), width) for width in range(widths, 0, -1)]
        rows = [(limit, partial(self._copy_rows, width)) for limit, width in limits]
        others = [(limit, partial(self._copy_rows, width, True)) for limit, width in limits]
        with b.if_else(self._is_contiguous(self.column)) as (then, otherwise):
            with then:
                choose(b, self.columns, rows)
            with otherwise, b.if_else(self._is_contiguous(self.row)) as (then, otherwise):
                with then:
                    self._copy_columns()
                with otherwise:
                    if self.element is FLOAT:  # of float16 there are no gathers
                        choose(b, self.columns, others)

    def _is_contiguous(self, stride: Any) -> Any:
        return self.builder.icmp_signed("==", stride, INTEGER(self.element.bytes))

    def _place(self, row: Any, distance: Any) -> Any:
        return self.builder.add(self.panel, self.builder.mul(row, distance))

    def _copy_rows(self, width: int, is_apart: bool = False) -> None:
        b = self.builder
        vectors = Vectors(b, self.element, width, self.columns)
        distance = INTEGER(width * self.element.lanes * self.element.bytes)
        with cgutils.for_range(b, self.terms) as loop:
            source = b.add(self.source, b.mul(loop.index, self.row))
            values = vectors.gather(source, self.column) if is_apart else vectors.load(source)
            vectors.store(values, self._place(loop.index, distance), whole=True)

    def _copy_columns(self) -> None:
        """Transpose squares of contiguous columns; the last one is repeated."""
        b, side = self.builder, self.element.lanes
        size = INTEGER(side * self.element.bytes)
        distance = b.mul(self._squares(self.columns), size)
        with cgutils.for_range(b, self._squares(self.columns)) as across:
            j = b.mul(across.index, INTEGER(side))
            with cgutils.for_range(b, self._squares(self.terms)) as down:
                k = b.mul(down.index, INTEGER(side))
                part = Vectors(b, self.element, 1, b.sub(self.terms, k))
                first = b.add(self.source, b.mul(k, self.row))
                columns = []
                for lane in range(side):
                    column = clamped(b, b.add(j, INTEGER(lane)), self.columns)
                    columns += part.load(b.add(first, b.mul(column, self.column)))
                panel = b.add(self._place(k, distance), b.mul(across.index, size))
                for lane, row in enumerate(_transposed(b, columns)):
                    place = b.add(panel, b.mul(INTEGER(lane), distance))
                    part.store([row], place, whole=True)

    def _squares(self, count: Any) -> Any:
        side = INTEGER(self.element.lanes)
        return self.builder.sdiv(self.builder.add(count, INTEGER(self.element.lanes - 1)), side)


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose a square of vectors: exchange blocks of 1, 2, 4, … elements between them."""
    side, size = len(rows), 1
    while size < side:
        lanes = range(side)
        low = [lane if not lane & size else side + lane - size for lane in lanes]
        high = [lane + size if not lane & size else side + lane for lane in lanes]
        kind = ir.VectorType(ir.IntType(32), side)
        orders = [ir.Constant(kind, order) for order in (low, high)]
        rows = [
            builder.shuffle_vector(rows[i & ~size], rows[i | size], orders[bool(i & size)])
            for i in lanes
        ]
        size *= 2
    return rows
