"""One step of an operation's loop: a vector of 8 or 32 elements.

The functions that loops call, `apply` and its siblings, return how many results of the vector are
inexact; the loop adds these up in a register. What happens less often is added to memory at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowprec.kernels.compiler import cgutils, get_or_insert_function, intrinsic, ir, types
from lowprec.kernels.lanes import Lanes
from lowprec.kernels.loops import Elements, constants_loader, keep, kept, spell
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


def plan_to_text(how: OperationPlan) -> str:
    """Spell a plan as a string, which Numba can treat as a constant, and remember it."""
    switches = "".join(str(int(field)) for field in how if isinstance(field, bool))
    text = f"{how.operation}|{switches}|{how.source}|{how.target}|{spell(how.plan)}"
    return keep(text, how)


# Between Numba's arrays and lanes ----------------------------------------------------------------


class _Elements:
    """The `count` elements of an array from i on, or those of them that a mask chooses."""

    def __init__(
        self, context: Any, builder: Any, kind: Any, array: Any, i: Any, count: int,
        mask: Lanes | None = None,
    ) -> None:  # fmt: skip
        data = context.make_array(kind)(context, builder, array).data
        self.builder, self.mask, self.kind = builder, mask, kind.dtype
        self.vector = ir.VectorType(data.type.pointee, count)
        self.pointer = builder.bitcast(builder.gep(data, [i]), self.vector.as_pointer())
        self.size = kind.dtype.bitwidth // 8  # bytes of an element, to which arrays are aligned

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


load_constants = constants_loader(_FIELDS)


def _unpack(builder: Any, fields: Any, how: OperationPlan) -> tuple[Constants, Limits]:
    values = cgutils.unpack_tuple(builder, fields, _FIELDS)
    lanes = [Lanes(builder, v).resized(how.width).splat(how.lanes) for v in values]
    n = len(Constants._fields)
    return Constants(*lanes[:n]), Limits(*lanes[n:])


def _mask_of(builder: Any, i: Any, lower: Any, upper: Any, count: int) -> Lanes:
    """Return which of the `count` elements from i on lie in [lower, upper)."""
    start = Lanes(builder, lower)
    places = (Lanes(builder, i) - start).splat(count) + start.ramp(count)
    return places < (Lanes(builder, upper) - start).splat(count)  # below 0 is large: unsigned


# Computing and counting --------------------------------------------------------------------------


def _compute_vector(
    context: Any,
    builder: Any,
    kinds: Any,
    args: Any,
    how: OperationPlan,
    mask: Lanes | None = None,
    words: Lanes | None = None,
) -> Any:
    """Compute a vector of elements and count their events; return how many are inexact."""
    i, fields, counts, k = args[4:8]
    constants, limits = _unpack(builder, fields, how)
    R = constants.emin  # a deterministic mode looks at no random bits
    if words is not None:
        R = (words >> (32 - how.plan.random_bits)).resized(64)
    arity = OPERATIONS[how.operation][0]

    def elements(n: int) -> _Elements:
        return _Elements(context, builder, kinds[n], args[n], i, how.lanes, mask)

    if mask is None:
        for n in range(arity):
            Elements(context, builder, kinds[n], args[n]).prefetch(i, how.lanes)
    loaded = [elements(n).load() for n in range(arity)]
    operands = read_operands(loaded, how, constants, limits)
    x = compute(operands, how)
    y = round_result(x, how, constants, limits, R)
    result = y.float_resized(kinds[3].dtype.bitwidth)
    elements(3).store(result)
    if not how.counts:
        return ir.Constant(_COUNT, 0)
    inexact = is_inexact(operands, x, y, how)
    seen = _Counters(context.make_array(kinds[6])(context, builder, counts).data, k, mask)
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
    return total


class _Counters:
    """The places in memory where chunk `k` counts events, in the lanes that the mask chooses."""

    def __init__(self, counts: Any, k: Any, mask: Lanes | None) -> None:
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
            place = Lanes(event.builder, self.k) * COUNTERS + EVENTS.index(name)
            address = event.builder.gep(self.counts, [place.value])
            total = event.builder.add(event.builder.load(address), self.count(event))
            event.builder.store(total, address)


# Functions for loops -----------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def apply(
    _: Any, a: Any, b: Any, c: Any, out: Any, i: Any, constants: Any, counts: Any, k: Any, work: Any
) -> Any:
    """Apply an operation to a vector of elements from i on."""
    how = kept(work.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _compute_vector(context, builder, signature.args, args, how)

    return types.int64(a, b, c, out, i, constants, counts, k, work), generate


@intrinsic(prefer_literal=True)
def apply_masked(
    _: Any, a: Any, b: Any, c: Any, out: Any, i: Any, constants: Any, counts: Any, k: Any,
    lower: Any, upper: Any, work: Any,
) -> Any:  # fmt: skip
    """Apply an operation to those of the elements that lie in [lower, upper)."""
    how = kept(work.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = _mask_of(builder, args[4], args[8], args[9], how.lanes)
        return _compute_vector(context, builder, signature.args, args, how, mask)

    return types.int64(a, b, c, out, i, constants, counts, k, lower, upper, work), generate


@intrinsic(prefer_literal=True)
def apply_randomly(
    _: Any, a: Any, b: Any, c: Any, out: Any, i: Any, constants: Any, counts: Any, k: Any,
    lower: Any, upper: Any, words: Any, j: Any, work: Any,
) -> Any:  # fmt: skip
    """Do so with a vector of random words from j on."""
    how = kept(work.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = _mask_of(builder, args[4], args[8], args[9], how.lanes)
        words, j = signature.args[10], args[11]
        drawn = _Elements(context, builder, words, args[10], j, how.lanes).load()
        return _compute_vector(context, builder, signature.args, args, how, mask, drawn)

    return types.int64(
        a, b, c, out, i, constants, counts, k, lower, upper, words, j, work
    ), generate


@intrinsic
def draw_words(_: Any, words: Any, index: Any, key: Any) -> Any:
    """Fill an array with the 64 random words of the block of elements that begins at `index`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        drawn = block_bits(Lanes(builder, args[1]), Lanes(builder, args[2]), from_halves=False)
        for n, group in enumerate(drawn):
            address = builder.gep(data, [ir.Constant(ir.IntType(64), n * group.count)])
            pointer = builder.bitcast(address, group.value.type.as_pointer())
            builder.store(group.value, pointer, align=4)
        return context.get_dummy_value()

    return types.void(words, index, key), generate
