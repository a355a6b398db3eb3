"""An operation on a chunk of arrays, in steps of 8 or 32 elements: a vector.

How many results are inexact is added up in a register. What happens less often is added to memory
at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowprec.kernels.compiler import cgutils, get_or_insert_function, intrinsic, ir, types
from lowprec.kernels.lanes import Lanes, select
from lowprec.kernels.loops import (
    EXACT_FLOATS,
    Elements,
    chunk_bounds,
    keep,
    kept,
    numbers,
    read_constants,
    spell,
    steps,
    swap_state,
    to_cache_line,
)
from lowprec.kernels.magnitudes import Constants
from lowprec.kernels.operations.events import (
    EVENTS,
    every_event,
    is_exceptional,
    leaves_range,
    range_events,
)
from lowprec.kernels.operations.rules import (
    OPERATIONS,
    Limits,
    OperationPlan,
    compute,
    computed_in_halves,
    is_inexact,
    read_operands,
    round_result,
)
from lowprec.kernels.philox import block_bits

if TYPE_CHECKING:
    from collections.abc import Sequence

COUNTERS = 8  # places for a thread's event counts: a cache line
_FIELDS = len(Constants._fields) + len(Limits._fields)
_COUNT = ir.IntType(64)
_ALIGNED_FROM = 1024  # elements
_BLOCK = 64  # elements whose random words are drawn at once


def plan_to_text(how: OperationPlan) -> str:
    """Spell a plan as a string, which Numba can treat as a constant, and remember it."""
    switches = "".join(str(int(field)) for field in how if isinstance(field, bool))
    text = f"{how.operation}|{switches}|{how.source}|{how.target}|{spell(how.plan)}"
    return keep(text, how)


# Between Numba's arrays and lanes ----------------------------------------------------------------


class _Vector:
    """The `count` elements of an array from i on, or those of them that a mask chooses."""

    def __init__(self, array: Elements, i: Lanes, count: int, mask: Lanes | None) -> None:
        self.builder, self.mask, self.kind = array.builder, mask, array.kind.dtype
        self.vector = ir.VectorType(array.data.type.pointee, count)
        address = self.builder.gep(array.data, [i.value])
        self.pointer = self.builder.bitcast(address, self.vector.as_pointer())
        self.size = self.kind.bitwidth // 8  # bytes of an element, to which arrays are aligned

    def load(self) -> Lanes:
        """Read them; 0 where the mask is not set."""
        if self.mask is None:
            return Lanes(self.builder, self.builder.load(self.pointer, align=self.size))
        nothing = ir.Constant(self.vector, None)
        operands = [self.pointer, self._alignment, self.mask.value, nothing]
        return Lanes(self.builder, self._call("load", self.vector, operands))

    def store(self, y: Lanes) -> None:
        """Write them."""
        if self.mask is None:
            self.builder.store(y.value, self.pointer, align=self.size)
        else:
            operands = [y.value, self.pointer, self._alignment, self.mask.value]
            self._call("store", ir.VoidType(), operands)

    @property
    def _alignment(self) -> Any:
        return ir.Constant(ir.IntType(32), self.size)

    def _call(self, action: str, result: Any, operands: Sequence[Any]) -> Any:
        letter = "f" if isinstance(self.kind, types.Float) else "i"
        name = f"llvm.masked.{action}.v{self.vector.count}{letter}{self.kind.bitwidth}.p0"
        signature = ir.FunctionType(result, [operand.type for operand in operands])
        function = get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, operands)


def _mask_of(i: Lanes, lower: Lanes, upper: Lanes, count: int) -> Lanes:
    """Return which of the `count` elements from i on lie in [lower, upper)."""
    places = (i - lower).splat(count) + lower.ramp(count)
    return places < (upper - lower).splat(count)  # below 0 is large: unsigned


# Computing and counting --------------------------------------------------------------------------


class _Step:
    """Computes vectors of elements, and counts their events in the place of chunk `k`."""

    def __init__(
        self, how: OperationPlan, arrays: list[Elements], fields: list[Any], counts: Any, k: Lanes
    ) -> None:
        self.how, self.counts, self.k, self.builder = how, counts, k, k.builder
        *self.sources, self.target = arrays
        self.sources = self.sources[: OPERATIONS[how.operation][0]]
        lanes = [Lanes(self.builder, v).resized(how.width).splat(how.lanes) for v in fields]
        n = len(Constants._fields)
        self.constants, self.limits = Constants(*lanes[:n]), Limits(*lanes[n:])
        self.inexact = cgutils.alloca_once_value(self.builder, ir.Constant(_COUNT, 0))

    def run(self, i: Lanes, mask: Lanes | None = None, words: Lanes | None = None) -> None:
        """Compute the elements from i on that a mask chooses, or all."""
        how, constants, limits = self.how, self.constants, self.limits
        R = constants.emin  # a deterministic mode looks at no random bits
        if words is not None:
            R = (words >> (32 - how.plan.random_bits)).resized(64)
        if mask is None:
            for source in self.sources:
                source.prefetch(i.value, how.lanes)
            self.target.prefetch(i.value, how.lanes, writes=True)
        loaded = [_Vector(source, i, how.lanes, mask).load() for source in self.sources]
        if how.in_halves:
            _Vector(self.target, i, how.lanes, mask).store(computed_in_halves(loaded, how))
            return
        operands = read_operands(loaded, how, constants, limits)
        x = compute(operands, how)
        y = round_result(x, how, constants, limits, R)
        result = y.float_resized(self.target.kind.dtype.bitwidth)
        _Vector(self.target, i, how.lanes, mask).store(result)
        if not how.counts:
            return
        inexact = is_inexact(operands, x, y, how)
        seen = _Counters(self.counts, self.k, mask)
        if mask is not None and words is None:  # seldom: a second path would only be compiled
            events = every_event(operands, x, inexact, R, how, constants, limits)
            self._count(seen.count(events.pop("inexact")))
            seen.add(events)
            return
        builder = self.builder
        usual = ir.Constant(_COUNT, 0) if how.is_exact else seen.count(inexact)
        before = builder.block
        with builder.if_then(seen.any(leaves_range(x, how, constants, limits)), likely=False):
            with builder.if_else(seen.any(is_exceptional(x, how))) as (exceptional, ordinary):
                with exceptional:
                    events = every_event(operands, x, inexact, R, how, constants, limits)
                    corrected = seen.count(events.pop("inexact"))
                    seen.add(events)
                    first = builder.block
                with ordinary:
                    seen.add(range_events(x, inexact, R, how, constants, limits))
                    second = builder.block
            within = builder.phi(_COUNT)
            within.add_incoming(corrected, first)
            within.add_incoming(usual, second)
            after = builder.block
        total = builder.phi(_COUNT)
        total.add_incoming(usual, before)
        total.add_incoming(within, after)
        self._count(total)

    def _count(self, number: Any) -> None:
        total = self.builder.add(self.builder.load(self.inexact), number)
        self.builder.store(total, self.inexact)

    def finish(self) -> None:
        """Write down how many results were inexact."""
        place = (self.k * COUNTERS + EVENTS.index("inexact")).value
        self.builder.store(self.builder.load(self.inexact), self.builder.gep(self.counts, [place]))


class _Counters:
    """The places in memory where chunk `k` counts events, in the lanes that the mask chooses."""

    def __init__(self, counts: Any, k: Lanes, mask: Lanes | None) -> None:
        self.counts, self.k, self.mask = counts, k, mask

    def count(self, event: Lanes) -> Any:
        """Return in how many of the lanes an event happened."""
        return (event if self.mask is None else event & self.mask).count_true().value

    def any(self, event: Lanes) -> Any:
        """Return whether it happened in one of them."""
        return Lanes(event.builder, self.count(event)).differs(0).value

    def add(self, events: dict[str, Lanes]) -> None:
        """Add how often each event happened."""
        for name, event in events.items():
            place = self.k * COUNTERS + EVENTS.index(name)
            address = event.builder.gep(self.counts, [place.value])
            total = event.builder.add(event.builder.load(address), self.count(event))
            event.builder.store(total, address)


# Chunks ------------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def compute_chunk(
    _: Any, a: Any, b: Any, c: Any, out: Any, constants: Any, counts: Any, k: Any, chunks: Any,
    key: Any, first: Any, work: Any,
) -> Any:  # fmt: skip
    """Apply an operation to chunk `k` of arrays."""
    how = kept(work.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        arrays = [Elements(context, builder, kinds[n], args[n]) for n in range(4)]
        fields = read_constants(context, builder, kinds[4], args[4], _FIELDS)
        places = context.make_array(kinds[5])(context, builder, args[5]).data
        k, chunks, key, first = numbers(context, builder, kinds[6:10], args[6:10])
        bounds = chunk_bounds(arrays[-1].size, k, chunks, _BLOCK)
        step = _Step(how, arrays, fields, places, k)
        state = swap_state(builder, ir.Constant(ir.IntType(64), EXACT_FLOATS))
        if how.plan.random_bits:
            _draw_and_compute(step, *bounds, key, first)
        else:
            _compute(step, *bounds)
        swap_state(builder, state)
        step.finish()
        return context.get_dummy_value()

    return types.void(a, b, c, out, constants, counts, k, chunks, key, first, work), generate


def _compute(step: _Step, begin: Lanes, end: Lanes) -> None:
    """Compute whole vectors, and with a mask those before, in large arrays, and behind.

    Large arrays begin with a part of a vector, so that no other one lies on two cache lines.
    """
    builder, lanes, first = begin.builder, step.how.lanes, begin
    head = to_cache_line(step.target, begin)
    begin += select((head <= lanes) & (end - begin >= _ALIGNED_FROM), head, 0)
    whole = end - (end - begin) % lanes
    with steps(begin, whole, lanes) as i:
        step.run(i)
    place = cgutils.alloca_once_value(builder, select(first < begin, first, whole).value)
    ask, go_on, done = (builder.append_basic_block(f"masked.{n}") for n in ("if", "do", "end"))
    builder.branch(ask)
    builder.position_at_end(ask)
    i = Lanes(builder, builder.load(place))
    builder.cbranch((i < end).value, go_on, done)
    builder.position_at_end(go_on)
    step.run(i, _mask_of(i, i, select(i < begin, begin, end), lanes))
    builder.store(whole.value, place)
    builder.cbranch(i.equals(whole).value, done, ask)
    builder.position_at_end(done)


def _draw_and_compute(step: _Step, begin: Lanes, end: Lanes, key: Lanes, first: Lanes) -> None:
    """Compute vectors with the random words of the blocks that they lie in."""
    builder, lanes = begin.builder, step.how.lanes
    room = cgutils.alloca_once(builder, ir.IntType(32), size=_BLOCK)
    start = (first + begin) // _BLOCK * _BLOCK
    with steps(start, first + end, _BLOCK) as block:
        for n, group in enumerate(block_bits(block, key, from_halves=False)):
            address = builder.gep(room, [ir.Constant(_COUNT, n * group.count)])
            builder.store(
                group.value, builder.bitcast(address, group.value.type.as_pointer()), align=4
            )
        with steps(block.constant(0), block.constant(_BLOCK), lanes) as j:
            i = block - first + j
            kind = ir.VectorType(ir.IntType(32), lanes).as_pointer()
            words = builder.load(builder.bitcast(builder.gep(room, [j.value]), kind), align=4)
            step.run(i, _mask_of(i, begin, end, lanes), Lanes(builder, words))
