"""One step of an operation's loop: eight elements, with vector instructions.

The functions that loops call, `apply` and its siblings, return how often each of `USUAL` happened
in the eight; the loop adds these up in registers. What happens rarely is added to memory at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowprec.kernels.compiler import cgutils, get_or_insert_function, intrinsic, ir, types
from lowprec.kernels.lanes import Lanes
from lowprec.kernels.loops import constants_loader, to_text
from lowprec.kernels.operation_events import EVENTS, every_event, usual_events
from lowprec.kernels.operations import (
    OPERATIONS,
    Limits,
    Task,
    compute,
    read_operand,
    round_result,
)
from lowprec.kernels.philox import block_bits
from lowprec.kernels.rules import Constants

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "COUNTERS",
    "USUAL",
    "apply",
    "apply_masked",
    "apply_randomly",
    "draw_words",
    "load_constants",
    "task_to_text",
]

COUNTERS = 8  # places for a thread's event counts: a cache line
USUAL = ("underflow", "inexact")  # events that are counted in registers

_LANES = 8
_FIELDS = len(Constants._fields) + len(Limits._fields)
_COUNT = ir.IntType(64)
_TALLY = types.UniTuple(types.int64, len(USUAL))

_tasks: dict[str, Task] = {}


def task_to_text(task: Task) -> str:
    """Spell a task as a string, which Numba can treat as a constant, and remember it."""
    switches = "".join(str(int(field)) for field in task if isinstance(field, bool))
    text = f"{task.operation}|{switches}|{task.source}|{task.target}|{to_text(task.plan)}"
    assert _tasks.setdefault(text, task) == task
    return text


# Between Numba's arrays and lanes ----------------------------------------------------------------


class _Eight:
    """The elements i, …, i + 7 of an array, or those of them that a mask chooses."""

    def __init__(
        self, context: Any, builder: Any, kind: Any, array: Any, i: Any, mask: Lanes | None
    ) -> None:
        data = context.make_array(kind)(context, builder, array).data
        self.builder, self.mask, self.kind = builder, mask, kind.dtype
        self.vector = ir.VectorType(data.type.pointee, _LANES)
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
        name = f"llvm.masked.{action}.v{_LANES}{letter}{self.kind.bitwidth}.p0"
        signature = ir.FunctionType(result, [operand.type for operand in operands])
        function = get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, operands)


load_constants = constants_loader(_FIELDS)


def _unpack(builder: Any, fields: Any) -> tuple[Constants, Limits]:
    values = cgutils.unpack_tuple(builder, fields, _FIELDS)
    lanes = [Lanes(builder, value).splat(_LANES) for value in values]
    n = len(Constants._fields)
    return Constants(*lanes[:n]), Limits(*lanes[n:])


def _mask_of(builder: Any, i: Any, lower: Any, upper: Any) -> Lanes:
    """Return which of the elements i, …, i + 7 lie in [lower, upper)."""
    start = Lanes(builder, lower)
    places = (Lanes(builder, i) - start).splat(_LANES) + start.ramp(_LANES)
    return places < (Lanes(builder, upper) - start).splat(_LANES)  # below 0 is large: unsigned


# Computing and counting --------------------------------------------------------------------------


def _counted(event: Lanes | None, mask: Lanes | None) -> Any:
    """Return in how many of the lanes an event happened."""
    if event is None:
        return ir.Constant(_COUNT, 0)
    return (event if mask is None else event & mask).count_true().value


def _compute_eight(
    context: Any,
    builder: Any,
    kinds: Any,
    args: Any,
    task: Task,
    mask: Lanes | None = None,
    words: Lanes | None = None,
) -> Any:
    """Compute the elements from `i` on and count their events."""
    out, i, fields, counts, k = args[3:8]
    constants, limits = _unpack(builder, fields)
    R = constants.emin  # a deterministic mode looks at no random bits
    if words is not None:
        R = (words >> (32 - task.plan.random_bits)).resized(64)
    arity = OPERATIONS[task.operation][0]
    loaded = [_Eight(context, builder, kinds[n], args[n], i, mask).load() for n in range(arity)]
    operands = [read_operand(x, task, constants, limits) for x in loaded]
    x = compute(operands, task)
    y = round_result(x, task, constants, limits, R)
    result = y.float_resized(kinds[3].dtype.bitwidth)
    _Eight(context, builder, kinds[3], out, i, mask).store(result)
    if not task.flags or task.selects:
        return context.make_tuple(builder, _TALLY, [ir.Constant(_COUNT, 0)] * len(USUAL))
    usual = usual_events(x, y, task, constants, limits)
    tally = [_counted(usual.get(name), mask) for name in USUAL]
    before, has_rare = builder.block, Lanes(builder, _counted(usual["rare"], mask)).differs(0)
    with builder.if_then(has_rare.value, likely=False):
        every = every_event(operands, x, y, R, task, constants, limits)
        instead = [_counted(every[name], mask) for name in USUAL]
        _add_to_memory(context.make_array(kinds[6])(context, builder, counts).data, k, mask, every)
        within = builder.block
    for place, (often, seldom) in enumerate(zip(tally, instead, strict=True)):
        tally[place] = builder.phi(_COUNT)
        tally[place].add_incoming(often, before)
        tally[place].add_incoming(seldom, within)
    return context.make_tuple(builder, _TALLY, tally)


def _add_to_memory(counts: Any, k: Any, mask: Lanes | None, events: dict[str, Lanes]) -> None:
    """Add to the counts of chunk `k` how often each event that is not usual happened."""
    for name, event in events.items():
        if name not in USUAL:
            chunk = Lanes(event.builder, k) * COUNTERS
            address = event.builder.gep(counts, [(chunk + EVENTS.index(name)).value])
            total = event.builder.add(event.builder.load(address), _counted(event, mask))
            event.builder.store(total, address)


# Functions for loops -----------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def apply(
    _: Any, a: Any, b: Any, c: Any, out: Any, i: Any, constants: Any, counts: Any, k: Any, work: Any
) -> Any:
    """Apply an operation to the elements i, …, i + 7."""
    task = _tasks[work.literal_value]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _compute_eight(context, builder, signature.args, args, task)

    return _TALLY(a, b, c, out, i, constants, counts, k, work), generate


@intrinsic(prefer_literal=True)
def apply_masked(
    _: Any, a: Any, b: Any, c: Any, out: Any, i: Any, constants: Any, counts: Any, k: Any,
    lower: Any, upper: Any, work: Any,
) -> Any:  # fmt: skip
    """Apply an operation to those of the elements that lie in [lower, upper)."""
    task = _tasks[work.literal_value]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = _mask_of(builder, args[4], args[8], args[9])
        return _compute_eight(context, builder, signature.args, args, task, mask)

    return _TALLY(a, b, c, out, i, constants, counts, k, lower, upper, work), generate


@intrinsic(prefer_literal=True)
def apply_randomly(
    _: Any, a: Any, b: Any, c: Any, out: Any, i: Any, constants: Any, counts: Any, k: Any,
    lower: Any, upper: Any, words: Any, j: Any, work: Any,
) -> Any:  # fmt: skip
    """Do so with the random words j, …, j + 7."""
    task = _tasks[work.literal_value]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = _mask_of(builder, args[4], args[8], args[9])
        drawn = _Eight(context, builder, signature.args[10], args[10], args[11], None).load()
        return _compute_eight(context, builder, signature.args, args, task, mask, drawn)

    return _TALLY(a, b, c, out, i, constants, counts, k, lower, upper, words, j, work), generate


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
