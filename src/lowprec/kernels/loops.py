"""Loops that apply a rule to arrays: where the rules meet Numba.

A loop runs over contiguous one-dimensional arrays of the same size, whole vectors first and the
remainder one by one with the scalar form of the same rule. Input and output may be the same memory.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from lowprec.kernels.compiler import (
    CacheByName,
    cgutils,
    cpu_target,
    from_dtype,
    get_or_insert_function,
    intrinsic,
    ir,
    numba,
    processor_has,
    types,
    undisturbed,
)
from lowprec.kernels.lanes import Lanes
from lowprec.kernels.magnitudes import Constants, Plan
from lowprec.kernels.philox import LANES, block_bits, element_bits
from lowprec.kernels.rules import convert, decode
from lowprec.kernels.threads import thread_count

#: compile flags of every kernel; fastmath stays off because it loses NaN and -0
kernel = functools.partial(numba.njit, nogil=True, error_model="numpy")

_CACHE_LINE = 64  # bytes
_STREAMING_FROM = 48 << 20  # bytes read and written: more than most caches hold
_PARALLEL_FROM = 2_000_000  # elements; below, a busy machine takes more than threads give
_AHEAD = 64 * _CACHE_LINE  # the next page, which the processor does not fetch by itself
_FIELDS = len(Constants._fields)

# Numba's cache looks at the time stamp of one file, but a loop depends on all of these.
_FILES = sorted(Path(__file__).parent.rglob("*.py"))
_FINGERPRINT = hashlib.sha256(b"".join(file.read_bytes() for file in _FILES)).hexdigest()


def compile_as(name: str, function: Any, signature: Any, parallel: bool = False) -> Any:
    """Compile a function under a name of its own, for one signature and one kind of processor.

    Numba keeps what it compiles in files named after the function, and numbers them when one
    function has several versions. Processes that compile at the same time would pick the same
    number for different versions; with one version a name, they write the same thing. Machines
    of several kinds may share a folder, so the kind is part of the name. The name must say all that
    the function reads from around it.
    """
    what = f"{name}|{parallel}|{_processor()}|{_FINGERPRINT}"
    digest = hashlib.sha256(what.encode()).hexdigest()[:16]
    code, names, closure = function.__code__, function.__globals__, function.__closure__
    named = FunctionType(code, names, closure=closure)
    named.__qualname__ = re.sub(r"\W+", "_", f"{name[:80]}|{digest}")
    with undisturbed():
        compiled = kernel(parallel=parallel)(named)
        compiled._cache = CacheByName(named)
        compiled.compile(signature)
        compiled.disable_compile()
        return compiled


@functools.cache
def _processor() -> str:
    """Return the processor and the instructions that Numba compiles for."""
    return "|".join(cpu_target.target_context.codegen().magic_tuple())


def exact_floats(triple: str) -> int:
    """Return the state in which a processor rounds to nearest, flushes nothing and never traps.

    The state is MXCSR on x86-64, whose masks of traps are set bits, and FPCR on aarch64.
    """
    return 0x1F80 if is_x86_64(triple) else 0


def is_x86_64(triple: str) -> bool:
    """Whether LLVM's name of a machine is one of an x86-64."""
    return triple.startswith(("x86_64", "amd64"))


def is_aarch64(triple: str) -> bool:
    """Whether LLVM's name of a machine is one of a 64-bit ARM."""
    return triple.startswith(("aarch64", "arm64"))


def has_fused_steps() -> bool:
    """Whether the processor has fused multiply-adds on vectors, and converts them to float16."""
    is_arm = is_aarch64(cpu_target.target_context.codegen().magic_tuple()[0])
    return is_arm or processor_has("avx512f") or (processor_has("fma") and processor_has("f16c"))


#: what `swap_float_state` sets in kernels, on the machine that Numba compiles for
EXACT_FLOATS = exact_floats(cpu_target.target_context.codegen().magic_tuple()[0])


def directed_floats(triple: str) -> tuple[int, int] | None:
    """Return the exact states that round down and up instead, None where none can be set."""
    if is_x86_64(triple):
        return exact_floats(triple) | 1 << 13, exact_floats(triple) | 2 << 13
    return (2 << 22, 1 << 22) if is_aarch64(triple) else None


#: those two states on the machine that Numba compiles for
DIRECTED_FLOATS = directed_floats(cpu_target.target_context.codegen().magic_tuple()[0])


# Between Numba's values and lanes ------------------------------------------------------------


_KEPT: dict[str, Any] = {}


def keep(text: str, record: Any) -> str:
    """Keep a record under a text, which Numba takes as a constant; return the text."""
    assert _KEPT.setdefault(text, record) == record
    return text


def kept(text: str) -> Any:
    """Return the record of a text, which is never taken apart."""
    return _KEPT[text]


def plan_of(text: str) -> Plan | None:
    """Return the plan of a text; None where that names what the processor does by itself."""
    return _KEPT.get(text)


def spell(plan: tuple[Any, ...]) -> str:
    """Keep a plan under its fields, and return that text."""
    return keep("|".join(map(str, plan)), plan)


def draws_halves(plan: Plan) -> bool:
    """Whether random bits come from 16-bit halves of words."""
    return plan.random_bits <= 16


class Elements:
    """The `count` elements of an array that begin at `index`: a vector, or a scalar."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any) -> None:
        self.builder, self.kind = builder, kind
        self.data = context.make_array(kind)(context, builder, array).data

    def _pointer(self, index: Any, count: int) -> Any:
        address = self.builder.gep(self.data, [index])
        element = self.data.type.pointee
        vector = ir.VectorType(element, count) if count > 1 else element
        return self.builder.bitcast(address, vector.as_pointer())

    def prefetch(self, index: Any, count: int) -> None:
        """Have the elements a page beyond a vector fetched into the caches."""
        size = self.kind.dtype.bitwidth // 8
        byte, word = ir.IntType(8), ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), word, word, word])
        function = get_or_insert_function(self.builder.module, signature, "llvm.prefetch.p0")
        start = self.builder.bitcast(self.builder.gep(self.data, [index]), byte.as_pointer())
        for line in range(0, max(size * count, 1), _CACHE_LINE):
            place = self.builder.gep(start, [ir.Constant(ir.IntType(64), _AHEAD + line)])
            self.builder.call(function, [place, word(0), word(3), word(1)])  # to be read, soon

    def load(self, index: Any, count: int) -> Lanes:
        """Read so many elements."""
        pointer = self._pointer(index, count)
        return Lanes(self.builder, self.builder.load(pointer, align=self.kind.dtype.bitwidth // 8))

    def store(self, result: Lanes, index: Any, streaming: bool = False) -> None:
        """Write lanes, past the caches if asked; integers are cut to the elements' width."""
        if not result.is_float:
            result = result.resized(self.kind.dtype.bitwidth)
        pointer = self._pointer(index, result.count)
        size = self.kind.dtype.bitwidth // 8
        streaming = streaming and result.count > 1
        align = min(_CACHE_LINE, size * result.count) if streaming else size
        stored = self.builder.store(result.value, pointer, align=align)
        if streaming:
            one = ir.Constant(ir.IntType(32), 1)
            stored.set_metadata("nontemporal", self.builder.module.add_metadata([one]))


def apply_plan(x: Lanes, plan: Plan, fields: Any, random: Lanes | None = None) -> Lanes:
    """Return what a plan makes of lanes; `fields` is the tuple of `load_constants`."""
    scalars = [Lanes(x.builder, v) for v in cgutils.unpack_tuple(x.builder, fields, _FIELDS)]
    c = Constants(*(scalar.resized(plan.word).splat(x.count) for scalar in scalars))
    if plan.mode == "decode":
        return decode(x, plan, c)
    R = c.emin  # a deterministic mode looks at no random bits
    if random is not None:
        R = (random >> ((16 if draws_halves(plan) else 32) - plan.random_bits)).resized(plan.word)
    y = convert(x, plan, c, R)
    return y if plan.is_encoding else y.float_resized(64 if plan.target == "float64" else 32)


def constants_loader(count: int) -> Any:
    """Return what reads an array of so many constants into a tuple, for loops to call."""
    result = types.UniTuple(types.uint64, count)

    @intrinsic
    def load_constants(_: Any, array: Any) -> Any:
        """Read constants into a tuple: registers, which no store can change."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            addresses = [cgutils.gep_inbounds(builder, data, field) for field in range(count)]
            return context.make_tuple(builder, result, [builder.load(a) for a in addresses])

        return result(array), generate

    return load_constants


load_constants = constants_loader(_FIELDS)


@intrinsic(prefer_literal=True)
def apply_rule(_: Any, x: Any, out: Any, i: Any, constants: Any, plan: Any, count: Any) -> Any:
    """Apply the rule to the `count` elements of `x` from i on."""
    work, lanes = kept(plan.literal_value), count.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = Elements(context, builder, signature.args[0], args[0])
        target = Elements(context, builder, signature.args[1], args[1])
        if lanes > 1:
            source.prefetch(args[2], lanes)
        result = apply_plan(source.load(args[2], lanes), work, args[3])
        target.store(result, args[2], bool(work.streaming))
        return context.get_dummy_value()

    return types.void(x, out, i, constants, plan, count), generate


@intrinsic
def swap_float_state(_: Any, state: Any) -> Any:
    """Set how the processor rounds and treats subnormal numbers; return what was set before.

    Libraries compiled for speed, and torch on request, have it flush subnormal numbers to zero in
    every later computation of the thread. x86-64 and aarch64; elsewhere nothing is changed.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return swap_state(builder, args[0])

    return types.int64(types.int64), generate


def swap_state(builder: Any, state: Any) -> Any:
    """Write what `swap_float_state` does, for the machine that the module is for."""
    if is_x86_64(builder.module.triple):
        return _swap_mxcsr(builder, state)
    return _swap_fpcr(builder, state) if is_aarch64(builder.module.triple) else state


def _swap_mxcsr(builder: Any, state: Any) -> Any:
    word, address = ir.IntType(32), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [address])
    save, load = (
        cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}")
        for name in ("stmxcsr", "ldmxcsr")
    )
    slot = cgutils.alloca_once(builder, word)
    pointer = builder.bitcast(slot, address)
    builder.call(save, [pointer])
    before = builder.load(slot)
    builder.store(builder.trunc(state, word), slot)
    builder.call(load, [pointer])
    return builder.zext(before, state.type)


def _swap_fpcr(builder: Any, state: Any) -> Any:
    word = ir.IntType(64)
    read, write = (
        cgutils.get_or_insert_function(builder.module, kind, f"llvm.aarch64.{name}.fpcr")
        for name, kind in {
            "get": ir.FunctionType(word, []),
            "set": ir.FunctionType(ir.VoidType(), [word]),
        }.items()
    )
    before = builder.call(read, [])
    builder.call(write, [state])
    return before


@intrinsic
def finish_stores(_: Any) -> Any:
    """Let other threads see results that were written past the caches."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic(prefer_literal=True)
def apply_random_rule(
    _: Any, x: Any, out: Any, i: Any, constants: Any, index: Any, key: Any, plan: Any, count: Any
) -> Any:
    """Apply the rule to one element, or to a block, that has this index in the whole array."""
    work, is_block = kept(plan.literal_value), count.literal_value > 1

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = Elements(context, builder, signature.args[0], args[0])
        target = Elements(context, builder, signature.args[1], args[1])
        start, key_ = Lanes(builder, args[4]), Lanes(builder, args[5])
        draw = block_bits if is_block else (lambda *a: [element_bits(*a)])
        for group, bits in enumerate(draw(start, key_, draws_halves(work))):
            i = builder.add(args[2], ir.Constant(args[2].type, group * LANES))
            lanes = source.load(i, LANES if is_block else 1)
            target.store(apply_plan(lanes, work, args[3], bits), i)
        return context.get_dummy_value()

    return types.void(x, out, i, constants, index, key, plan, count), generate


# Loops ---------------------------------------------------------------------------------------

Loop = Callable[..., None]


@functools.cache
def make_loop(plan: Plan, parallel: bool = False) -> Loop:
    """Return the loop for a plan: ``loop(x, out, constants, chunks)``.

    A stochastic one is ``loop(x, out, constants, chunks, key, first)``, where `first` is the index
    of ``x[0]`` in the array that the caller sees. The work is cut into `chunks` pieces; a parallel
    loop shares them among threads.
    """
    text = spell(plan)
    x = types.Array(from_dtype(np.dtype(plan.source)), 1, "C", readonly=True)
    out = types.Array(from_dtype(np.dtype(plan.target)), 1, "C")
    arguments = [x, out, types.Array(types.uint64, 1, "C"), types.int64]
    if plan.random_bits:
        arguments += [types.uint64, types.int64]
        loop = _make_random_loop(text, 8 * LANES if draws_halves(plan) else 4 * LANES)
    else:
        vector = 1 if plan.word == 128 else 2 * LANES
        loop = _make_plain_loop(text, vector, bool(plan.streaming))
    return compile_as(text, loop, types.void(*arguments), parallel)


def _make_plain_loop(plan: str, vector: int, streaming: bool) -> Loop:
    def loop(x, out, constants, chunks):  # type: ignore[no-untyped-def]
        c = load_constants(constants)
        head = 0
        if streaming:  # which takes whole cache lines
            head = min(x.size, -out.ctypes.data % _CACHE_LINE // out.itemsize)
            state = swap_float_state(EXACT_FLOATS)
            for i in range(head):
                apply_rule(x, out, i, c, plan, 1)
            swap_float_state(state)
        size = x.size - head
        for k in numba.prange(chunks):
            begin = head + (k * size // chunks >> 7 << 7)
            end = head + ((k + 1) * size // chunks >> 7 << 7) if k + 1 < chunks else x.size
            whole = end - (end - begin) % vector
            state = swap_float_state(EXACT_FLOATS)
            for i in range(begin, whole, vector):
                apply_rule(x, out, i, c, plan, vector)
            for i in range(whole, end):
                apply_rule(x, out, i, c, plan, 1)
            swap_float_state(state)
            if streaming:
                finish_stores()

    return loop


def _make_random_loop(plan: str, block: int) -> Loop:
    def loop(x, out, constants, chunks, key, first):  # type: ignore[no-untyped-def]
        c = load_constants(constants)
        for k in numba.prange(chunks):
            begin = k * x.size // chunks >> 7 << 7
            end = (k + 1) * x.size // chunks >> 7 << 7 if k + 1 < chunks else x.size
            head = min(end, begin + -(first + begin) % block)
            whole = end - (end - head) % block
            state = swap_float_state(EXACT_FLOATS)
            for i in range(begin, head):
                apply_random_rule(x, out, i, c, first + i, key, plan, 1)
            for i in range(head, whole, block):
                apply_random_rule(x, out, i, c, first + i, key, plan, block)
            for i in range(whole, end):
                apply_random_rule(x, out, i, c, first + i, key, plan, 1)
            swap_float_state(state)

    return loop


# Kernels -------------------------------------------------------------------------------------


class Kernel:
    """A compiled loop with its constants, to be called on contiguous one-dimensional arrays."""

    __slots__ = ("constants", "loop", "plan")

    def __init__(self, plan: Plan, constants: np.ndarray[Any, Any]) -> None:
        self.plan = plan
        self.constants = constants
        self.loop = make_loop(plan)

    def __call__(self, x: Any, out: Any, key: int = 0, first: int = 0) -> None:
        """Convert `x` into `out`; `first` is the index of ``x[0]`` in the caller's array."""
        threads, loop = 1, self.loop
        if x.ndim != 1:
            x, out = x.reshape(-1), out.reshape(-1)
        if x.size >= _PARALLEL_FROM:
            threads = thread_count()
            loop = make_loop(self._plan_for(x, out), parallel=threads > 1)
        if self.plan.random_bits:
            loop(x, out, self.constants, threads, np.uint64(key), first)
        else:
            loop(x, out, self.constants, threads)

    def _plan_for(self, x: Any, out: Any) -> Plan:
        """Return the plan, streaming where results would only push other data out of the caches."""
        is_large = x.nbytes + out.nbytes >= _STREAMING_FROM
        if not is_large or self.plan.random_bits or np.may_share_memory(x, out):
            return self.plan
        return self.plan._replace(streaming=1)
