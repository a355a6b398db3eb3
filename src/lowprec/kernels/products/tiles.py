"""Tiles of a matrix product: accumulators in registers while k runs.

A tile is some rows by some vectors of columns of the result, so that every output keeps its own
order in k. Rows beyond the last are computed as the last one, and give it the same values again;
lanes beyond the last column are neither read nor written.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lowprec.kernels.compiler import cgutils, intrinsic, types
from lowprec.kernels.lanes import Lanes, select
from lowprec.kernels.loops import kept
from lowprec.kernels.magnitudes import Constants
from lowprec.kernels.products.double_rounding import (
    Quick,
    begin_watch,
    end_watch,
    has_doubt,
    quick_step,
    with_sign_of,
)
from lowprec.kernels.products.steps import (
    HALF,
    TERM,
    ProductPlan,
    constants_of,
    product_step,
    start_of,
    step,
)
from lowprec.kernels.products.vectors import INTEGER, Vectors, choose, clamped, element_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@intrinsic(prefer_literal=True)
def tile(
    _: Any,
    left: Any,
    right: Any,
    target: Any,
    strides: Any,
    size: Any,
    is_first: Any,
    constants: Any,
    shifts: Any,
    plans: Any,
    heights: Any,
    widths: Any,
) -> Any:
    """Add ``terms`` products to the outputs at an address; return how many rows were done.

    `left` and `right` are addresses of the first factors, `strides` the distances in bytes of
    left's rows, left's columns, right's rows and the target's rows, `size` is (rows, columns,
    terms) of what is left to do. The first of the ``heights`` that is filled by more than half
    serves; columns fill at most ``widths`` vectors, or twice as many of one row. ``plans`` is a
    `ProductPlan`, spelled; `shifts` say whether to try its quick steps, and the powers of two that
    scale their factors.
    """
    plan = kept(plans.literal_value)
    tall: tuple[int, ...] = kept(heights.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        work = _Tile(builder, args, plan)
        result = cgutils.alloca_once(builder, INTEGER)
        lanes = work.element.lanes

        def compute(height: int) -> None:
            builder.store(INTEGER(height), result)
            widest = widths.literal_value * (2 if height == 1 else 1)
            cases = [
                (lanes * (width - 1), partial(work.compute, height, width))
                for width in range(widest, 0, -1)
            ]
            choose(builder, work.size[1], cases)

        choose(builder, work.size[0], [(height // 2, partial(compute, height)) for height in tall])
        return builder.load(result)

    arguments = left, right, target, strides, size, is_first, constants, shifts
    return types.int64(*arguments, plans, heights, widths), generate


class _Tile:
    """The arguments of `tile` as values of LLVM."""

    def __init__(self, builder: Any, args: Any, plan: ProductPlan) -> None:
        self.builder = builder
        self.inner, self.outer, self.given, self.quick = plan
        self.element = element_of(plan.inner == HALF)
        self.left, self.right, self.target = args[:3]
        strides = cgutils.unpack_tuple(builder, args[3], 4)
        self.left_row, self.left_column, self.right_row, self.target_row = strides
        self.size = cgutils.unpack_tuple(builder, args[4], 3)
        self.is_first = Lanes(builder, args[5])
        self.shifts = cgutils.unpack_tuple(builder, args[7], 3)
        self.fields = cgutils.unpack_tuple(builder, args[6], 2)

    def compute(self, height: int, width: int) -> None:
        """Generate a tile of so many rows and vectors."""
        b, (rows, columns, _) = self.builder, self.size
        vectors = Vectors(b, self.element, width, columns)
        places = [INTEGER(0), *(clamped(b, INTEGER(row), rows) for row in range(1, height))]
        starts = [b.add(self.left, b.mul(row, self.left_row)) for row in places]
        targets = [b.add(self.target, b.mul(row, self.target_row)) for row in places]
        nothing = [self._splat(start_of(self.inner))] * (height * width)
        begin = nothing if self.outer else self._kept(vectors, targets)
        totals = self._sums(starts, vectors, begin)
        if self.outer:
            totals = self._add_block(totals, self._kept(vectors, targets))
        nan = totals[0].as_integers().constant(self.element.nan).as_floats()
        values = [select(total.is_nan(), nan, total).value for total in totals]
        for row, target in enumerate(targets):
            vectors.store(values[row * width : (row + 1) * width], target)

    def _splat(self, number: float) -> Lanes:
        return Lanes(self.builder, self.element.kind(number)).splat(self.element.lanes)

    def _kept(self, vectors: Vectors, targets: list[Any]) -> list[Lanes]:
        """Return what the outputs are so far: a zero that adds nothing before the first terms."""
        zero = self._splat(start_of(self.outer or self.inner))
        olds = [Lanes(self.builder, old) for target in targets for old in vectors.load(target)]
        return [select(self.is_first, zero, old) for old in olds]

    def _constants(self, which: int, plan: str) -> Constants | None:
        values = cgutils.unpack_tuple(self.builder, self.fields[which], len(Constants._fields))
        return constants_of(self.builder, values, plan, self.element.lanes)

    def _add_block(self, totals: list[Lanes], kept: list[Lanes]) -> list[Lanes]:
        c = self._constants(1, self.outer)
        pairs = zip(totals, kept, strict=True)
        return [step(total, self._splat(1.0), old, self.outer, c, TERM) for total, old in pairs]

    def _sums(self, starts: list[Any], vectors: Vectors, begin: list[Lanes]) -> list[Lanes]:
        """Generate the loop over k, and if its steps are quick, another one for where it fails."""
        terms = self.size[2]
        if self.quick is None:
            return self._run_terms(starts, vectors, begin, terms)[0]
        b, kind = self.builder, self.quick
        fast, slow, done = (b.append_basic_block(name) for name in ("fast", "slow", "summed"))
        may_try, left, right = self.shifts
        may_try = b.and_(b.icmp_signed("!=", may_try, INTEGER(0)), (Lanes(b, terms) > 1).value)
        b.cbranch(may_try, fast, slow)
        b.position_at_end(fast)
        is_bfloat16, is_wide = kind is Quick.BFLOAT16, kind is Quick.WIDE
        if is_bfloat16:
            right = begin_watch(b, right)
        shift = b.add(left, right)
        scales = self._scale(left) if is_bfloat16 else None, self._scale(right), shift
        last: list[tuple[Lanes, Lanes]] = []
        if is_wide:
            quick, _ = self._run_terms(starts, vectors, begin, terms, (None, None, shift))
        elif is_bfloat16:
            state = [z * self._scale(shift) for z in begin]
            quick, _ = self._run_terms(starts, vectors, state, terms, scales)
        else:
            state = [z * self._scale(shift) for z in begin]
            all_but_one = b.sub(terms, INTEGER(1))
            state, places = self._run_terms(starts, vectors, state, all_but_one, scales)
            quick = []
            for at, x, y in self._factors(starts, vectors, places, scales[:2]):
                total, s = self._quick_step(x, y, state[at], shift), x.fused(y, state[at])
                quick.append(with_sign_of(s, total) if kind is Quick.NARROW else total)
                last.append((s, state[at]))
        has_failed = has_doubt(begin, quick, last, kind, vectors)
        if is_bfloat16:
            has_failed = end_watch(b, has_failed)
        if not is_wide:
            quick = [total * self._scale(b.neg(shift)) for total in quick]
        quick_end = b.basic_block
        b.cbranch(has_failed, slow, done)
        b.position_at_end(slow)
        exact, _ = self._run_terms(starts, vectors, begin, terms)
        exact_end = b.basic_block
        b.branch(done)
        b.position_at_end(done)
        totals = []
        for one, other in zip(quick, exact, strict=True):
            phi = b.phi(self.element.vector)
            phi.add_incoming(one.value, quick_end)
            phi.add_incoming(other.value, exact_end)
            totals.append(Lanes(b, phi))
        return totals

    def _scale(self, shift: Any) -> Lanes:
        bits = Lanes(self.builder, self.builder.add(shift, INTEGER(127))).resized(32) << 23
        return bits.as_floats().splat(self.element.lanes)

    def _quick_step(self, x: Lanes, y: Lanes, z: Lanes, shift: Any) -> Lanes:
        assert self.quick is not None
        many = Lanes(self.builder, shift).resized(32).splat(self.element.lanes)
        c = self._constants(0, self.inner)
        return quick_step(x, y, z, c, many, self.quick, self.given.are_exact)

    def _factors(
        self,
        starts: list[Any],
        vectors: Vectors,
        places: list[Any],
        scales: tuple[Lanes | None, Lanes | None] = (None, None),
    ) -> Iterator[tuple[int, Lanes, Lanes]]:
        """Generate the factors of a term: with the number of a sum, what it multiplies."""
        b, (left, right) = self.builder, scales
        columns = [Lanes(b, column) for column in vectors.load(places[2])]
        columns = [y if right is None else y * right for y in columns]
        for row, start in enumerate(starts):
            pointer = b.inttoptr(b.add(start, places[1]), self.element.kind.as_pointer())
            x = Lanes(b, b.load(pointer, align=self.element.bytes)).splat(self.element.lanes)
            x = x if left is None else x * left
            for at, y in enumerate(columns, row * vectors.count):
                yield at, x, y

    def _run_terms(
        self,
        starts: list[Any],
        vectors: Vectors,
        begin: list[Lanes],
        terms: Any,
        quick: tuple[Lanes | None, Lanes | None, Any] | None = None,
    ) -> tuple[list[Lanes], list[Any]]:
        """Generate a loop over k; `starts` are the addresses of each row's first factor.

        Steps are quick ones where there are scales of factors, and their shift. Sums stay in
        registers. Return them, and the places of the next term.
        """
        b, c = self.builder, self._constants(0, self.inner)
        before = b.basic_block
        loop, done = b.append_basic_block("terms"), b.append_basic_block("ended")
        b.branch(loop)
        b.position_at_end(loop)
        places = [b.phi(INTEGER) for _ in range(3)]  # in k, in a row of left, in right
        phis = [b.phi(lanes.value.type) for lanes in begin]
        state = [Lanes(b, phi) for phi in phis]
        scales = (None, None) if quick is None else quick[:2]
        for at, x, y in self._factors(starts, vectors, places, scales):
            if quick is None:
                state[at] = product_step(x, y, state[at], self.inner, c, self.given)
            else:
                state[at] = self._quick_step(x, y, state[at], quick[2])
        distances = INTEGER(1), self.left_column, self.right_row
        following = [b.add(*pair) for pair in zip(places, distances, strict=True)]
        for phi, start, value in zip(
            [*places, *phis],
            [INTEGER(0), INTEGER(0), self.right, *(lanes.value for lanes in begin)],
            [*following, *(lanes.value for lanes in state)],
            strict=True,
        ):
            phi.add_incoming(start, before)
            phi.add_incoming(value, b.basic_block)
        b.cbranch(b.icmp_signed("<", following[0], terms), loop, done)
        b.position_at_end(done)
        return state, following
