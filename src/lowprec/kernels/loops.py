"""Loops that apply a rule to arrays: where the rules meet Numba.

A loop runs over contiguous one-dimensional arrays of the same size, whole vectors first and the
remainder one by one with the scalar form of the same rule. Input and output may be the same memory.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator
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
    optimizing_once,
    processor_has,
    types,
    undisturbed,
)
from lowprec.kernels.lanes import Lanes, minimum, select
from lowprec.kernels.magnitudes import Constants, Plan
from lowprec.kernels.philox import LANES, block_bits, element_bits
from lowprec.kernels.rules import convert, decode
from lowprec.kernels.threads import SHARED_FROM, thread_count

#: compile flags of every kernel; fastmath stays off because it loses NaN and -0, and a second
#: wrapper, for callers in C, would take a tenth of the time to compile
_compiled = functools.partial(numba.njit, nogil=True, error_model="numpy", no_cfunc_wrapper=True)


def kernel(function: Any = None, **options: Any) -> Any:
    """Let Numba compile a function that kernels call; used as a decorator.

    One that is made inside another function is named by what it reads from there: Numba names
    machine code by a function's name and a number that counts anew in every process, so that two
    kernels from the cache could both have an ``add_rows$37``, and one of them would serve both.
    """
    if function is None:
        return functools.partial(kernel, **options)
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    if cells:
        read = (getattr(getattr(x, "py_func", x), "__qualname__", repr(x)) for x in cells)
        digest = hashlib.sha256("|".join(read).encode()).hexdigest()[:16]
        function.__qualname__ += f"_{digest}"
    return _compiled(function, **options)


_CACHE_LINE = 64  # bytes
_STREAMING_FROM = 48 << 20  # bytes read and written: more than most caches hold
_AHEAD = 64 * _CACHE_LINE  # the next page, which the processor does not fetch by itself
_FIELDS = len(Constants._fields)


def _sources(room: Path) -> Iterator[Path]:
    """Yield the sources of a room; beside them lie thousands of files of Numba's cache."""
    for folder, folders, names in os.walk(room):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


# Numba's cache looks at the time stamp of one file, but a loop depends on all of these.
_FILES = sorted(_sources(Path(__file__).parent))
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
    with undisturbed(), optimizing_once():
        compiled = _compiled(named, parallel=parallel)
        compiled._cache = CacheByName(named)
        compiled.compile(signature)
        compiled.disable_compile()
        return compiled


@functools.cache  # keeps the kernel
def address_of(compiled: Any) -> int:
    """Return where the machine code of a kernel begins, to be called by `call_at`."""
    (result,) = compiled.overloads.values()
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


@intrinsic
def call_at(_: Any, address: Any, arguments: Any) -> Any:
    """Call the kernel at an address, which takes 64-bit integers and returns one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = cgutils.unpack_tuple(builder, args[1])
        kind = context.call_conv.get_function_type(types.int64, signature.args[1].types)
        result, error = (cgutils.alloca_once(builder, kind.args[i].pointee) for i in range(2))
        pointer = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(pointer, [result, error, *values])  # kernels raise no errors
        return builder.load(result)

    return types.int64(types.int64, types.UniTuple(types.int64, len(arguments))), generate


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
        struct = context.make_array(kind)(context, builder, array)
        self.data, self.size = struct.data, Lanes(builder, struct.nitems)

    def _pointer(self, index: Any, count: int) -> Any:
        address = self.builder.gep(self.data, [index])
        element = self.data.type.pointee
        vector = ir.VectorType(element, count) if count > 1 else element
        return self.builder.bitcast(address, vector.as_pointer())

    def prefetch(
        self, index: Any, count: int, backwards: bool = False, writes: bool = False
    ) -> None:
        """Have the elements a page beyond a vector, or before, fetched into the caches.

        What is to be written waits for its line otherwise, if the caches are full of others.
        """
        size = max(self.kind.dtype.bitwidth // 8 * count, 1)
        prefetch(self.builder, self.builder.gep(self.data, [index]), size, _AHEAD)

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


def prefetch(builder: Any, pointer: Any, size: int, ahead: int) -> None:
    """Have so many bytes, which lie some way ahead of an address, fetched into the caches."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    signature = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    function = get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    start = builder.bitcast(pointer, byte)
    for line in range(0, size, _CACHE_LINE):
        place = builder.gep(start, [ir.Constant(ir.IntType(64), ahead + line)])
        builder.call(function, [place, word(0), word(3), word(1)])  # to be read, soon


def apply_plan(x: Lanes, plan: Plan, fields: list[Any], random: Lanes | None = None) -> Lanes:
    """Return what a plan makes of lanes; `fields` are the values of `read_constants`."""
    c = Constants(*(Lanes(x.builder, v).resized(plan.word).splat(x.count) for v in fields))
    if plan.mode == "decode":
        return decode(x, plan, c)
    R = c.emin  # a deterministic mode looks at no random bits
    if random is not None:
        R = (random >> ((16 if draws_halves(plan) else 32) - plan.random_bits)).resized(plan.word)
    y = convert(x, plan, c, R)
    return y if plan.is_encoding else y.float_resized(64 if plan.target == "float64" else 32)


def read_constants(context: Any, builder: Any, kind: Any, array: Any, count: int) -> list[Any]:
    """Read so many constants from an array: registers, which no store can change."""
    data = context.make_array(kind)(context, builder, array).data
    return [builder.load(cgutils.gep_inbounds(builder, data, field)) for field in range(count)]


@intrinsic
def load_constants(_: Any, array: Any) -> Any:
    """Return the tuple of what `read_constants` reads, for loops to call."""
    result = types.UniTuple(types.uint64, _FIELDS)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        fields = read_constants(context, builder, signature.args[0], args[0], _FIELDS)
        return context.make_tuple(builder, result, fields)

    return result(array), generate


@intrinsic(prefer_literal=True)
def apply_rule(_: Any, x: Any, out: Any, i: Any, constants: Any, plan: Any, count: Any) -> Any:
    """Apply the rule to the `count` elements of `x` from i on."""
    work, lanes = kept(plan.literal_value), count.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = Elements(context, builder, signature.args[0], args[0])
        target = Elements(context, builder, signature.args[1], args[1])
        if lanes > 1:
            source.prefetch(args[2], lanes)
        fields = cgutils.unpack_tuple(builder, args[3], _FIELDS)
        target.store(apply_plan(source.load(args[2], lanes), work, fields), args[2])
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


# Loops ---------------------------------------------------------------------------------------
#
# To Numba a chunk of the work is one call: it takes longer over a line of a loop than LLVM.

Loop = Callable[..., None]


@functools.cache
def make_loop(plan: Plan, parallel: bool = False) -> Loop:
    """Return the loop for a plan: ``loop(x, out, constants, chunks)``.

    A stochastic one is ``loop(x, out, constants, chunks, key, first)``, where `first` is the index
    of ``x[0]`` in the array that the caller sees. A parallel loop cuts the work into `chunks`
    pieces and shares them among threads; another has one piece.
    """
    text = spell(plan)
    x = types.Array(from_dtype(np.dtype(plan.source)), 1, "C", readonly=True)
    out = types.Array(from_dtype(np.dtype(plan.target)), 1, "C")
    arguments = [x, out, types.Array(types.uint64, 1, "C"), types.int64]
    make = _make_parallel_loop if parallel else _make_loop
    if plan.random_bits:
        arguments += [types.uint64, types.int64]
        make = _make_random_parallel_loop if parallel else _make_random_loop
    return compile_as(text, make(text), types.void(*arguments), parallel)


def _make_loop(plan: str) -> Loop:
    def loop(x, out, constants, chunks):  # type: ignore[no-untyped-def]
        convert_chunk(x, out, constants, 0, 1, 0, 0, plan)

    return loop


def _make_parallel_loop(plan: str) -> Loop:
    def loop(x, out, constants, chunks):  # type: ignore[no-untyped-def]
        for k in numba.prange(chunks):
            convert_chunk(x, out, constants, k, chunks, 0, 0, plan)

    return loop


def _make_random_loop(plan: str) -> Loop:
    def loop(x, out, constants, chunks, key, first):  # type: ignore[no-untyped-def]
        convert_chunk(x, out, constants, 0, 1, key, first, plan)

    return loop


def _make_random_parallel_loop(plan: str) -> Loop:
    def loop(x, out, constants, chunks, key, first):  # type: ignore[no-untyped-def]
        for k in numba.prange(chunks):
            convert_chunk(x, out, constants, k, chunks, key, first, plan)

    return loop


def numbers(context: Any, builder: Any, kinds: Any, args: Any) -> list[Lanes]:
    """Return integers that Numba passes as 64 bits."""
    pairs = zip(args, kinds, strict=True)
    return [Lanes(builder, context.cast(builder, v, kind, types.int64)) for v, kind in pairs]


def chunk_bounds(size: Lanes, k: Lanes, chunks: Lanes, block: int) -> tuple[Lanes, Lanes]:
    """Return where chunk `k` of so many elements begins and ends: at multiples of a block."""
    begin, end = (place * size // chunks // block * block for place in (k, k + 1))
    return begin, select(k + 1 < chunks, end, size)


def to_cache_line(array: Elements, index: Lanes) -> Lanes:
    """Return how many elements from an index on lie before the next cache line."""
    address = array.builder.ptrtoint(array.builder.gep(array.data, [index.value]), ir.IntType(64))
    rest = (index.constant(0) - Lanes(array.builder, address)) & (_CACHE_LINE - 1)
    return rest // (array.kind.dtype.bitwidth // 8)


@contextlib.contextmanager
def steps(begin: Lanes, end: Lanes, size: int = 1) -> Iterator[Lanes]:
    """Write what is in the block once, for an index that takes steps of a size to an end."""
    step, values = begin.constant(size).value, (begin.value, end.value)
    with cgutils.for_range_slice(begin.builder, *values, step) as (index, _):
        yield Lanes(begin.builder, index)


@intrinsic(prefer_literal=True)
def convert_chunk(
    _: Any, x: Any, out: Any, constants: Any, k: Any, chunks: Any, key: Any, first: Any, plan: Any
) -> Any:
    """Apply a plan to chunk `k` of an array: whole vectors, and one by one what is beside them.

    Random bits come in blocks, which begin where the index in the caller's array is a multiple;
    what goes past the caches begins with a cache line.
    """
    work = kept(plan.literal_value)
    block = 2 * LANES if work.word < 128 else 1
    if work.random_bits:
        block = (8 if draws_halves(work) else 4) * LANES

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        source, target = (Elements(context, builder, kinds[n], args[n]) for n in range(2))
        fields = read_constants(context, builder, kinds[2], args[2], _FIELDS)
        k, chunks, key, first = numbers(context, builder, kinds[3:7], args[3:7])
        zero, size = k.constant(0), target.size
        head = minimum(size, to_cache_line(target, zero)) if work.streaming else zero
        begin, end = (head + place for place in chunk_bounds(size - head, k, chunks, 128))
        lower = select(k.equals(0), zero, begin)
        if work.random_bits:
            begin = minimum(end, begin + ((zero - first - begin) & (block - 1)))
        whole = end - (end - begin) % block if block > 1 else begin

        def convert_at(i: Lanes, count: int) -> None:
            groups: list[Lanes | None] = [None]
            if work.random_bits:
                draw = block_bits if count > 1 else (lambda *given: [element_bits(*given)])
                groups = [*draw(first + i, key, draws_halves(work))]
                count = min(count, LANES)
            elif count > 1:
                source.prefetch(i.value, count)
                if not work.streaming:
                    target.prefetch(i.value, count, writes=True)
            for number, bits in enumerate(groups):
                place = (i + number * LANES).value
                y = apply_plan(source.load(place, count), work, fields, bits)
                target.store(y, place, bool(work.streaming))

        state = swap_state(builder, ir.Constant(ir.IntType(64), EXACT_FLOATS))
        if block > 1:
            with steps(begin, whole, block) as i:
                convert_at(i, block)
        with steps(zero, begin - lower + (end - whole)) as i:
            convert_at(lower + i + select(i < begin - lower, zero, whole - begin), 1)
        swap_state(builder, state)
        if work.streaming:  # other threads see what was written past the caches
            builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(x, out, constants, k, chunks, key, first, plan), generate


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
        if x.size >= SHARED_FROM:
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
