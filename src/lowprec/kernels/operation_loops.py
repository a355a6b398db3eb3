"""Loops that apply an operation to arrays, and the kernels made of them.

A loop runs over contiguous one-dimensional arrays of the same size, eight elements at a time; what
remains at the end is done by the same code with the missing lanes masked. The result may be the
memory of an operand.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from lowprec.formats import Format, float32, get_format
from lowprec.kernels.lanes import Lanes
from lowprec.kernels.loops import EXACT_FLOATS, compile_as, swap_float_state, to_text
from lowprec.kernels.operations import (
    EVENTS,
    OPERATIONS,
    Limits,
    Task,
    compute,
    count_events,
    is_inexact,
    is_rare,
    read_operand,
    round_result,
)
from lowprec.kernels.philox import block_bits
from lowprec.kernels.plans import conversion_plan, float_bits, overflow_threshold
from lowprec.kernels.rules import Constants
from lowprec.kernels.threads import thread_count
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["OperationKernel", "operation_kernel"]

_LANES = 8
_COUNTERS = 8  # places for a thread's event counts: a cache line
_FIELDS = len(Constants._fields) + len(Limits._fields)
_PARALLEL_FROM = 50_000  # elements

_tasks: dict[str, Task] = {}


def task_to_text(task: Task) -> str:
    """Spell a task as a string, which Numba can treat as a constant, and remember it."""
    switches = (task.converts, task.fits, task.flush_to_zero, task.denormals_are_zero, task.flags)
    shape = "".join(str(int(switch)) for switch in switches)
    text = f"{task.operation}|{shape}|{task.source}|{task.target}|{to_text(task.plan)}"
    assert _tasks.setdefault(text, task) == task
    return text


# Between Numba's arrays and lanes ----------------------------------------------------------------


def _masked(kind: Any, builder: Any, array: Any, i: Any, action: str) -> tuple[Any, Any, Any]:
    """Return the function that loads or stores eight elements, their address and alignment."""
    element = array.data.type.pointee
    vector = ir.VectorType(element, _LANES)
    address = builder.bitcast(builder.gep(array.data, [i]), vector.as_pointer())
    mask = ir.VectorType(ir.IntType(1), _LANES)
    index = ir.IntType(32)
    if action == "load":
        signature = ir.FunctionType(vector, [address.type, index, mask, vector])
    else:
        signature = ir.FunctionType(ir.VoidType(), [vector, address.type, index, mask])
    bits = kind.dtype.bitwidth
    letter = "f" if isinstance(kind.dtype, types.Float) else "i"
    name = f"llvm.masked.{action}.v{_LANES}{letter}{bits}.p0"
    function = get_or_insert_function(builder.module, signature, name)
    return function, address, ir.Constant(index, bits // 8)


def _load(context: Any, builder: Any, kind: Any, value: Any, i: Any, mask: Lanes) -> Lanes:
    array = context.make_array(kind)(context, builder, value)
    function, address, alignment = _masked(kind, builder, array, i, "load")
    vector = function.function_type.return_type
    nothing = ir.Constant(vector, None)
    return Lanes(builder, builder.call(function, [address, alignment, mask.value, nothing]))


def _store(
    context: Any, builder: Any, kind: Any, value: Any, i: Any, mask: Lanes, y: Lanes
) -> None:
    array = context.make_array(kind)(context, builder, value)
    function, address, alignment = _masked(kind, builder, array, i, "store")
    builder.call(function, [y.value, address, alignment, mask.value])


@intrinsic
def _load_constants(_: Any, array: Any) -> Any:
    """Read all constants into a tuple: registers, which no store can change."""
    result = types.UniTuple(types.uint64, _FIELDS)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        addresses = [cgutils.gep_inbounds(builder, data, field) for field in range(_FIELDS)]
        return context.make_tuple(builder, result, [builder.load(a) for a in addresses])

    return result(array), generate


def _unpack(builder: Any, fields: Any) -> tuple[Constants, Limits]:
    values = cgutils.unpack_tuple(builder, fields, _FIELDS)
    lanes = [Lanes(builder, value).splat(_LANES) for value in values]
    n = len(Constants._fields)
    return Constants(*lanes[:n]), Limits(*lanes[n:])


def _add_counts(counters: Any, k: Any, mask: Lanes, events: Mapping[str, Lanes | None]) -> None:
    """Add to the counts of thread `k` in how many of the lanes each event happened."""
    builder = mask.builder
    first = builder.mul(k, ir.Constant(k.type, _COUNTERS))
    for name, event in events.items():
        if event is not None:
            place = ir.Constant(k.type, EVENTS.index(name))
            address = builder.gep(counters, [builder.add(first, place)])
            total = Lanes(builder, builder.load(address)) + (event & mask).count_true()
            builder.store(total.value, address)


def _compute_lanes(
    context: Any, builder: Any, signature: Any, args: Any, task: Task, words: Lanes | None
) -> None:
    """Compute eight elements from `i` on, of those the ones from `lower` up to `upper`."""
    out, i, lower, upper, fields, counts, k = args[3:10]
    kinds = signature.args
    first, start, stop = (Lanes(builder, value) for value in (i, lower, upper))
    places = (first - start).splat(_LANES) + first.ramp(_LANES)
    mask = places < (stop - start).splat(_LANES)  # unsigned: places before the start are large
    constants, limits = _unpack(builder, fields)
    R = constants.emin  # a deterministic mode looks at no random bits
    if words is not None:
        R = (words >> (32 - task.plan.random_bits)).resized(64)
    arity = OPERATIONS[task.operation][0]
    loaded = [_load(context, builder, kinds[n], args[n], i, mask) for n in range(arity)]
    operands = [read_operand(x, task, constants, limits) for x in loaded]
    x = compute(operands, task)
    y = round_result(x, task, constants, limits, R)
    result = y.float_resized(kinds[3].dtype.bitwidth)
    _store(context, builder, kinds[3], out, i, mask, result)
    if not task.flags or task.selects:
        return
    counters = context.make_array(kinds[8])(context, builder, counts).data
    rare = (is_rare(x, task, limits) & mask).count_true()
    with builder.if_else((rare > 0).value) as (then, otherwise):
        with then:
            events = count_events(operands, x, y, R, task, constants, limits)
            _add_counts(counters, k, mask, dict(zip(EVENTS, events, strict=True)))
        with otherwise:
            _add_counts(counters, k, mask, {"inexact": is_inexact(x, y)})


@intrinsic(prefer_literal=True)
def _apply(
    _: Any, a: Any, b: Any, c: Any, out: Any, i: Any, lower: Any, upper: Any,
    constants: Any, counts: Any, k: Any, work: Any,
) -> Any:  # fmt: skip
    """Apply an operation to the elements at i, …, i + 7 that lie in [lower, upper)."""
    task = _tasks[work.literal_value]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _compute_lanes(context, builder, signature, args, task, None)
        return context.get_dummy_value()

    return types.void(a, b, c, out, i, lower, upper, constants, counts, k, work), generate


@intrinsic(prefer_literal=True)
def _apply_randomly(
    _: Any, a: Any, b: Any, c: Any, out: Any, i: Any, lower: Any, upper: Any,
    constants: Any, counts: Any, k: Any, words: Any, j: Any, work: Any,
) -> Any:  # fmt: skip
    """Do so with the random words j, …, j + 7."""
    task = _tasks[work.literal_value]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[10])(context, builder, args[10]).data
        vector = ir.VectorType(ir.IntType(32), _LANES).as_pointer()
        address = builder.bitcast(builder.gep(data, [args[11]]), vector)
        random = Lanes(builder, builder.load(address, align=4))
        _compute_lanes(context, builder, signature, args, task, random)
        return context.get_dummy_value()

    return types.void(a, b, c, out, i, lower, upper, constants, counts, k, words, j, work), generate


@intrinsic
def _draw_words(_: Any, words: Any, index: Any, key: Any) -> Any:
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


# Loops -------------------------------------------------------------------------------------------


@functools.cache
def _make_loop(task: Task, parallel: bool = False) -> Callable[..., None]:
    """Return the loop for a task: ``loop(a, b, c, out, constants, counts, chunks)``.

    An operation of fewer operands does not look at `b` or `c`. A stochastic loop takes a key and
    the index of the first element in the array that the caller sees, too.
    """
    text = task_to_text(task)
    operand = types.Array(from_dtype(np.dtype(task.source)), 1, "C", readonly=True)
    out = types.Array(from_dtype(np.dtype(task.target)), 1, "C")
    constants, counts = types.Array(types.uint64, 1, "C"), types.Array(types.int64, 1, "C")
    arguments = [operand, operand, operand, out, constants, counts, types.int64]
    if task.plan.random_bits:
        arguments += [types.uint64, types.int64]
    loop = _make_random_loop(text) if task.plan.random_bits else _make_plain_loop(text)
    return compile_as(text, loop, types.void(*arguments), parallel)


def _make_plain_loop(work: str) -> Callable[..., None]:
    def loop(a, b, c, out, constants, counts, chunks):  # type: ignore[no-untyped-def]
        fields = _load_constants(constants)
        for k in numba.prange(chunks):
            begin = k * out.size // chunks >> 6 << 6
            end = (k + 1) * out.size // chunks >> 6 << 6 if k + 1 < chunks else out.size
            state = swap_float_state(EXACT_FLOATS)
            for i in range(begin, end, 8):
                _apply(a, b, c, out, i, begin, end, fields, counts, k, work)
            swap_float_state(state)

    return loop


def _make_random_loop(work: str) -> Callable[..., None]:
    def loop(a, b, c, out, constants, counts, chunks, key, first):  # type: ignore[no-untyped-def]
        fields = _load_constants(constants)
        for k in numba.prange(chunks):
            begin = k * out.size // chunks >> 6 << 6
            end = (k + 1) * out.size // chunks >> 6 << 6 if k + 1 < chunks else out.size
            words = np.empty(64, np.uint32)
            state = swap_float_state(EXACT_FLOATS)
            for block in range((first + begin) >> 6 << 6, first + end, 64):
                _draw_words(words, block, key)
                for j in range(0, 64, 8):
                    i = block - first + j
                    _apply_randomly(a, b, c, out, i, begin, end, fields, counts, k, words, j, work)
            swap_float_state(state)

    return loop


# Kernels -----------------------------------------------------------------------------------------


class OperationKernel:
    """A compiled operation of a format, to be called on contiguous one-dimensional arrays."""

    __slots__ = ("constants", "has_second", "loop", "task")

    def __init__(self, task: Task, constants: np.ndarray[Any, Any]) -> None:
        self.task = task
        self.has_second = OPERATIONS[task.operation][0] > 1
        self.constants = constants
        self.loop = _make_loop(task)

    def __call__(
        self, operands: Sequence[Any], out: Any, key: int = 0, first: int = 0
    ) -> np.ndarray[Any, Any]:
        """Compute `out`; return how often each of `EVENTS` happened.

        `first` is the index of ``out[0]`` in the caller's array.
        """
        arrays = (operands[0], operands[self.has_second], operands[-1], out, self.constants)
        threads = thread_count() if out.size >= _PARALLEL_FROM else 1
        if threads == 1:
            counts = np.zeros(len(EVENTS), np.int64)
            self._run(self.loop, (*arrays, counts, 1), key, first)
            return counts
        counts = np.zeros((threads, _COUNTERS), np.int64)
        loop = _make_loop(self.task, parallel=True)
        self._run(loop, (*arrays, counts.reshape(-1), threads), key, first)
        return counts.sum(axis=0)[: len(EVENTS)]

    def _run(self, loop: Any, arguments: tuple[Any, ...], key: int, first: int) -> None:
        if self.task.plan.random_bits:
            loop(*arguments, np.uint64(key), first)
        else:
            loop(*arguments)


@functools.cache
def operation_kernel(
    operation: str,
    fmt: Format,
    source: str,
    rounding: Rounding,
    overflow: Overflow,
    *,
    operands_are_values: bool = False,
    flush_to_zero: bool = False,
    denormals_are_zero: bool = False,
    flags: bool = True,
) -> OperationKernel:
    """Return the kernel of an operation on operands of dtype `source`."""
    r = min(32, 52 - fmt.precision) if rounding.is_stochastic else None
    plan, constants = conversion_plan(fmt, "float64", "float64", rounding, overflow, r)
    task = Task(
        operation,
        plan,
        source,
        target="float32" if fmt.fits(float32) else "float64",
        converts=not operands_are_values and not _holds_values_only(fmt, source, overflow),
        fits=_has_exact_sums(fmt),
        flush_to_zero=flush_to_zero,
        denormals_are_zero=denormals_are_zero,
        flags=flags,
    )
    smallest = float_bits(fmt.smallest_normal, 64)
    above, below = (_least_overflow(fmt, rounding, negative) for negative in (False, True))
    limits = Limits(smallest, above, below, min(above, below) - smallest)
    fields = np.concatenate([constants, np.array(limits, np.uint64)])
    return OperationKernel(task, fields)


def _has_exact_sums(fmt: Format) -> bool:
    """Whether the sum of two values always has at most the 53 bits of float64."""
    lowest = math.frexp(fmt.smallest_subnormal)[1] - 1
    return fmt.emax + 2 - lowest <= 53


def _holds_values_only(fmt: Format, source: str, overflow: Overflow) -> bool:
    """Whether every number of the dtype is a value of the format."""
    return (
        get_format(source).fits(fmt)
        and fmt.has_infinity
        and (overflow is not Overflow.SATURATE_FINITE)
    )


def _least_overflow(fmt: Format, rounding: Rounding, negative: bool) -> int:
    """Return the float64 bits of the least magnitude that rounds beyond `max`.

    The exponent is taken as unbounded then (IEEE 754-2019, section 7.4).
    """
    following = float_bits(fmt.max + math.ldexp(fmt.eps, fmt.emax), 64)
    match rounding:
        case Rounding.TIES_TO_EVEN | Rounding.TIES_TO_AWAY | Rounding.TIES_TOWARD_ZERO:
            return overflow_threshold(fmt, rounding, 64)
        case Rounding.TO_ODD if not (fmt.max_code & 1 or fmt.precision == 1):
            return float_bits(fmt.max, 64) + 1
        case Rounding.AWAY_FROM_ZERO:
            return float_bits(fmt.max, 64) + 1
        case Rounding.TOWARD_POSITIVE | Rounding.TOWARD_NEGATIVE:
            goes_away = negative == (rounding is Rounding.TOWARD_NEGATIVE)
            return float_bits(fmt.max, 64) + 1 if goes_away else following
        case Rounding.STOCHASTIC | Rounding.STOCHASTIC_EQUAL:
            return float_bits(fmt.max, 64) + 1  # it may; the rule decides
    return following
