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
    is_doubtful,
    is_narrow_doubtful,
    last_step,
    least_of,
    narrow_step,
    watched_step,
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
    limit: Any,
    plans: Any,
    heights: Any,
    widths: Any,
) -> Any:
    """Add ``terms`` products to the outputs at an address; return how many rows were done.

    `left` and `right` are addresses of the first factors, `strides` the distances in bytes of
    left's rows, left's columns, right's rows and the target's rows, `size` is (rows, columns,
    terms) of what is left to do. The first of the ``heights`` that is filled by more than half
    serves; columns fill at most ``widths`` vectors, or twice as many of one row. ``plans`` is a
    `ProductPlan`, spelled; `limit` belongs to steps that are watched.
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

    arguments = left, right, target, strides, size, is_first, constants, limit
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
        self.is_first, self.limit = Lanes(builder, args[5]), Lanes(builder, args[7])
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
            return self._run_terms(starts, vectors, begin, None, terms)[0]
        b = self.builder
        fast, slow, done = (b.append_basic_block(name) for name in ("fast", "slow", "summed"))
        may_try = (self.limit > 0) & (Lanes(b, terms) > 1)
        b.cbranch(may_try.value, fast, slow)
        b.position_at_end(fast)
        if self.quick is Quick.BFLOAT16:
            start = [*begin, least_of(begin)]
            (*quick, least), _ = self._run_terms(starts, vectors, start, self.quick, terms)
            has_failed = is_doubtful(begin, quick, least, self.limit, vectors)
        else:
            start = [*begin, begin[0].as_integers().constant(0)]
            all_but_one = b.sub(terms, INTEGER(1))
            (*before, most), places = self._run_terms(
                starts, vectors, start, self.quick, all_but_one
            )
            c = self._constants(0, self.inner)
            assert c is not None
            last = partial(last_step, c=c, kind=self.quick)
            factors = self._factors(starts, vectors, places)
            ends = [last(x, y, before[at], most) for at, x, y in factors]
            quick = [total for total, _, _ in ends]
            has_failed = is_narrow_doubtful(ends, c, self.quick, vectors)
        quick_end = b.basic_block
        b.cbranch(has_failed, slow, done)
        b.position_at_end(slow)
        exact = self._run_terms(starts, vectors, begin, None, terms)[0]
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

    def _factors(
        self, starts: list[Any], vectors: Vectors, places: list[Any]
    ) -> Iterator[tuple[int, Lanes, Lanes]]:
        """Generate the factors of a term: with the number of a sum, what it multiplies."""
        b = self.builder
        columns = [Lanes(b, column) for column in vectors.load(places[2])]
        for row, start in enumerate(starts):
            pointer = b.inttoptr(b.add(start, places[1]), self.element.kind.as_pointer())
            x = Lanes(b, b.load(pointer, align=self.element.bytes)).splat(self.element.lanes)
            for at, y in enumerate(columns, row * vectors.count):
                yield at, x, y

    def _run_terms(
        self,
        starts: list[Any],
        vectors: Vectors,
        begin: list[Lanes],
        quick: Quick | None,
        terms: Any,
    ) -> tuple[list[Lanes], list[Any]]:
        """Generate a loop over k; `starts` are the addresses of each row's first factor.

        A state of sums, and of what quick steps have seen, stays in registers. Return it, and the
        places of the next term.
        """
        b, c = self.builder, self._constants(0, self.inner)
        before = b.basic_block
        loop, done = b.append_basic_block("terms"), b.append_basic_block("ended")
        b.branch(loop)
        b.position_at_end(loop)
        places = [b.phi(INTEGER) for _ in range(3)]  # in k, in a row of left, in right
        phis = [b.phi(lanes.value.type) for lanes in begin]
        state = [Lanes(b, phi) for phi in phis]
        for at, x, y in self._factors(starts, vectors, places):
            if quick is None:
                state[at] = product_step(x, y, state[at], self.inner, c, self.given)
            elif quick is Quick.BFLOAT16:
                state[at], state[-1] = watched_step(x, y, state[at], state[-1])
            else:
                assert c is not None
                state[at], state[-1] = narrow_step(x, y, state[at], state[-1], c, quick)
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
