"""Micro-kernels for matrix products: accumulators in registers, vectorised over outputs.

A tile of the result, some rows by some vectors of 16 columns, stays in registers while k runs, so
that every output keeps its own order. Columns of the right operand are packed in panels as wide as
a tile; the left operand is read where it lies.

One step is a fused multiply-add of float32, rounded once: to nearest if the accumulator is float32,
else to odd. Of its 24 bits a narrower format needs two less at least, so that rounding them is
rounding the exact sum. All this needs AVX-512; without it the general kernel serves.

References
----------
Boldo, Melquiond (2008), "Emulation of a FMA and correctly rounded sums: proved algorithms using
rounding to odd"; Goto, van de Geijn (2008), "Anatomy of high-performance matrix multiplication".
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lowprec.formats import Format, bfloat16, float16, float32
from lowprec.kernels.lanes import Lanes, minimum, select
from lowprec.kernels.loops import (
    EXACT_FLOATS,
    compile_as,
    from_text,
    load_constants,
    swap_float_state,
    to_text,
)
from lowprec.kernels.plans import conversion_plan, fits_float32_words, processor_has
from lowprec.kernels.rules import Constants, convert
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["make_multiply", "make_pack", "panel_size", "step_plan"]

LANES, _WIDE = 16, 32
_I64, _I32, _FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_DOWNWARD, _UPWARD = 9, 10  # rounding of AVX-512's instructions, without exceptions
_NEAREST = "nearest"
_NAN = 0x7FC00000


def step_plan(fmt: Format, rounding: Rounding, overflow: Overflow) -> tuple[str, Any] | None:
    """Return the rule that rounds a step to a format, as text, and its constants.

    None where these kernels cannot: they need AVX-512, a mode that draws nothing and knows one
    zero for x - x, and a format that is float32 or has two bits less.
    """
    nothing = np.zeros(len(Constants._fields), np.uint64)
    is_usual = rounding is Rounding.TIES_TO_EVEN and overflow is Overflow.IEEE
    if not processor_has("avx512f"):
        return None
    if is_usual and fmt in (float32, float16, bfloat16):
        return {float32: _NEAREST, float16: "float16", bfloat16: "bfloat16"}[fmt], nothing
    if (
        rounding.is_stochastic
        or rounding is Rounding.TOWARD_NEGATIVE
        or fmt.precision > 22
        or not fits_float32_words(fmt)
    ):
        return None
    plan, constants = conversion_plan(fmt, "float32", "float32", rounding, overflow)
    return to_text(plan), constants


# One step ----------------------------------------------------------------------------------------


def _fma(x: Lanes, y: Lanes, z: Lanes, direction: int) -> Lanes:
    signature = ir.FunctionType(_VECTOR, [_VECTOR] * 3 + [_I32])
    function = cgutils.get_or_insert_function(
        x.builder.module, signature, "llvm.x86.avx512.vfmadd.ps.512"
    )
    mode = ir.Constant(_I32, direction)
    return Lanes(x.builder, x.builder.call(function, [x.value, y.value, z.value, mode]))


def fma_between(x: Lanes, y: Lanes, z: Lanes) -> tuple[Lanes, Lanes]:
    """Return the bits of x·y + z rounded toward zero in float32, and a last bit: if it is inexact.

    Where the results of rounding down and up differ, they are neighbours of one sign, and so
    differ in the last bit. Opposite zeros, which an exact x - x gives, do not.
    """
    down, up = (_fma(x, y, z, mode).as_integers() for mode in (_DOWNWARD, _UPWARD))
    return minimum(down, up), down ^ up


def fma_to_odd(x: Lanes, y: Lanes, z: Lanes) -> Lanes:
    """Return x·y + z rounded to odd in float32."""
    smaller, differs = fma_between(x, y, z)
    return (smaller | (differs & 1)).as_floats()


def fma_to_bfloat16(x: Lanes, y: Lanes, z: Lanes) -> Lanes:
    """Return x·y + z rounded to nearest, ties to even; a NaN must not have all its bits set.

    An inexact sum that looks like a tie is more than that.
    """
    smaller, differs = fma_between(x, y, z)
    goes_up = ((smaller >> 16) | differs) & 1
    return ((smaller + 0x7FFF + goes_up) & 0xFFFF0000).as_floats()


def step(x: Lanes, y: Lanes, z: Lanes, plan: str, c: Constants | None) -> Lanes:
    """Return ○(x·y + z)."""
    if plan == _NEAREST:
        return x.fused(y, z)
    if plan == "bfloat16":
        return fma_to_bfloat16(x, y, z)
    s = fma_to_odd(x, y, z)
    if plan == "float16":
        return s.float_resized(16).float_resized(32)
    assert c is not None
    return convert(s, from_text(plan), c, c.emin)


# Tiles -------------------------------------------------------------------------------------------


class _Matrix:
    """A two-dimensional array of float32 with strides in bytes."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any) -> None:
        made = context.make_array(kind)(context, builder, array)
        self.builder, self.strides = builder, cgutils.unpack_tuple(builder, made.strides, 2)
        self.shape = cgutils.unpack_tuple(builder, made.shape, 2)
        self.data = builder.ptrtoint(made.data, _I64)

    def clamped(self, i: Any, more: int, axis: int = 0) -> Any:
        """Return ``i + more``, or the last index of the axis if there is none so large."""
        i = self.builder.add(i, _I64(more))
        last = self.builder.sub(self.shape[axis], _I64(1))
        return self.builder.select(self.builder.icmp_signed("<", i, last), i, last)

    def address(self, i: Any, j: Any) -> Any:
        builder = self.builder
        down = builder.mul(i, self.strides[0])
        return builder.add(self.data, builder.add(down, builder.mul(j, self.strides[1])))


def _load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=4)


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=4)


def _constants(builder: Any, fields: Any) -> Constants:
    values = cgutils.unpack_tuple(builder, fields, len(Constants._fields))
    return Constants(*(Lanes(builder, v).resized(32).splat(LANES) for v in values))


@intrinsic(prefer_literal=True)
def tile(
    _: Any,
    a: Any,
    panels: Any,
    c: Any,
    at: Any,
    terms: Any,
    is_first: Any,
    constants: Any,
    plans: Any,
    height: Any,
    width: Any,
) -> Any:
    """Add ``terms`` products to a tile of `c`.

    `at` is (row of a, column of a, index in panel, row of c, column of c). The plans are those of
    a step, and of adding the sum of a block to `c`, empty where there are no blocks.
    """
    inner, _, outer = plans.literal_value.partition("&")
    rows, vectors = height.literal_value, width.literal_value // LANES

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        left = _Matrix(context, builder, signature.args[0], args[0])
        target = _Matrix(context, builder, signature.args[2], args[2])
        i, k, p, ci, cj = cgutils.unpack_tuple(builder, args[3], 5)
        data = context.make_array(signature.args[1])(context, builder, args[1]).data
        fields = cgutils.unpack_tuple(builder, args[6], 2)
        starts, places = [], []
        for row in range(rows):  # rows beyond the last are computed as the last one, and not kept
            starts.append(left.address(left.clamped(i, row), k))
            for v in range(vectors):
                place = target.address(builder.add(ci, _I64(row)), builder.add(cj, _I64(v * LANES)))
                places.append(place)
        nothing = Lanes(builder, _FLOAT(-0.0)).splat(LANES)

        def kept() -> list[Lanes]:
            is_first = Lanes(builder, args[5])
            olds = [Lanes(builder, _load(builder, place, _VECTOR)) for place in places]
            return [select(is_first, nothing, old) for old in olds]

        right = builder.ptrtoint(builder.gep(data, [p]), _I64)
        begin = [nothing] * len(places) if outer else kept()
        c = _constants(builder, fields[0]) if "|" in inner else None
        steps = starts, left.strides[1], right, vectors
        totals = _run_terms(builder, args[4], steps, begin, inner, c)
        if outer:
            c = _constants(builder, fields[1]) if "|" in outer else None
            one = Lanes(builder, _FLOAT(1.0)).splat(LANES)
            pairs = zip(totals, kept(), strict=True)
            totals = [step(total, one, old, outer, c) for total, old in pairs]
        nan = nothing.as_integers().constant(_NAN).as_floats()
        for total, place in zip(totals, places, strict=True):
            _store(builder, select(total.is_nan(), nan, total).value, place)
        return context.get_dummy_value()

    return types.void(a, panels, c, at, terms, is_first, constants, plans, height, width), generate


def _run_terms(
    builder: Any, terms: Any, steps: Any, begin: list[Lanes], plan: str, c: Constants | None
) -> list[Lanes]:
    """Generate the loop over k; sums stay in registers.

    `steps` are the addresses of each row's first element, their distance to the next ones, the
    address of the panel and its width in vectors.
    """
    starts, stride, right, vectors = steps
    before = builder.basic_block
    loop, done = builder.append_basic_block("terms"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    count, offset, here = builder.phi(_I64), builder.phi(_I64), builder.phi(_I64)
    sums = [builder.phi(_VECTOR) for _ in begin]
    columns = [
        Lanes(builder, _load(builder, builder.add(here, _I64(4 * LANES * v)), _VECTOR))
        for v in range(vectors)
    ]
    totals = []
    for row, start in enumerate(starts):
        x = Lanes(builder, _load(builder, builder.add(start, offset), _FLOAT)).splat(LANES)
        for v, y in enumerate(columns):
            totals.append(step(x, y, Lanes(builder, sums[row * vectors + v]), plan, c))
    width = _I64(4 * LANES * vectors)
    following = [
        builder.add(phi, distance)
        for phi, distance in zip((count, offset, here), (_I64(1), stride, width), strict=True)
    ]
    zero, end = _I64(0), builder.basic_block
    for phi, start, value in zip(
        [count, offset, here, *sums],
        [zero, zero, right, *(lanes.value for lanes in begin)],
        [*following, *(lanes.value for lanes in totals)],
        strict=True,
    ):
        phi.add_incoming(start, before)
        phi.add_incoming(value, end)
    builder.cbranch(builder.icmp_signed("<", following[0], terms), loop, done)
    builder.position_at_end(done)
    return totals


# Packing -----------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def copy_row(_: Any, b: Any, k: Any, j: Any, panels: Any, at: Any, how: Any) -> Any:
    """Copy 16 elements of row k, from column j on, into a panel.

    They are ``contiguous``, or ``any``: then far apart, or fewer, when the last one is repeated.
    """
    is_contiguous = how.literal_value == "contiguous"

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = _Matrix(context, builder, signature.args[0], args[0])
        data = context.make_array(signature.args[3])(context, builder, args[3]).data
        place = builder.ptrtoint(builder.gep(data, [args[4]]), _I64)
        if is_contiguous:
            row = _load(builder, source.address(args[1], args[2]), _VECTOR)
        else:
            row = ir.Constant(_VECTOR, ir.Undefined)
            for lane in range(LANES):
                address = source.address(args[1], source.clamped(args[2], lane, 1))
                element = _load(builder, address, _FLOAT)
                row = builder.insert_element(row, element, _I32(lane))
        _store(builder, row, place)
        return context.get_dummy_value()

    return types.void(b, k, j, panels, at, how), generate


@intrinsic(prefer_literal=True)
def copy_transposed(_: Any, b: Any, k: Any, j: Any, panels: Any, at: Any, width: Any) -> Any:
    """Copy 16 rows of 16 elements into a panel, from columns that are contiguous in memory."""
    distance = 4 * width.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = _Matrix(context, builder, signature.args[0], args[0])
        data = context.make_array(signature.args[3])(context, builder, args[3]).data
        place = builder.ptrtoint(builder.gep(data, [args[4]]), _I64)
        columns = [
            _load(builder, source.address(args[1], source.clamped(args[2], lane, 1)), _VECTOR)
            for lane in range(LANES)
        ]
        for k, row in enumerate(_transposed(builder, columns)):
            _store(builder, row, builder.add(place, _I64(k * distance)))
        return context.get_dummy_value()

    return types.void(b, k, j, panels, at, width), generate


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose 16 vectors of 16: four times, exchange blocks of 1, 2, 4 and 8 between them."""
    for size in (1, 2, 4, 8):
        lanes = range(LANES)
        low = [lane if not lane & size else LANES + lane - size for lane in lanes]
        high = [lane + size if not lane & size else LANES + lane for lane in lanes]
        index = [ir.Constant(ir.VectorType(_I32, LANES), order) for order in (low, high)]
        rows = [
            builder.shuffle_vector(rows[i & ~size], rows[i | size], index[bool(i & size)])
            for i in range(LANES)
        ]
    return rows


def _pack(b, panels):  # type: ignore[no-untyped-def]
    """Copy a matrix into panels of 32 columns, and of 16 at last if they do, row after row.

    Columns beyond the last hold anything. `panels` has room for 16 rows more.
    """
    terms, columns = b.shape
    for j in range(0, columns, _WIDE):
        width = _WIDE if columns - j > LANES else LANES
        for s in range(j, j + width, LANES):
            at = j * terms + s - j
            whole = 0
            if b.strides[0] == 4 and b.strides[1] != 4:
                whole = terms - terms % LANES
            for k in range(0, whole, LANES):
                if width == LANES:
                    copy_transposed(b, k, s, panels, at + k * width, LANES)
                else:
                    copy_transposed(b, k, s, panels, at + k * width, _WIDE)
            for k in range(whole, terms):
                if b.strides[1] == 4 and s + LANES <= columns:
                    copy_row(b, k, s, panels, at + k * width, "contiguous")
                else:
                    copy_row(b, k, s, panels, at + k * width, "any")


@functools.cache
def make_pack() -> Callable[..., None]:
    """Return ``pack(b, panels)``, compiled."""
    source = types.Array(types.float32, 2, "A", readonly=True)
    return compile_as("pack", _pack, types.void(source, types.Array(types.float32, 1, "C")))


def panel_size(terms: int, columns: int) -> int:
    """Return how many float32 the panels of a matrix take."""
    return terms * (-(-columns // LANES) * LANES) + LANES * _WIDE


# Products ----------------------------------------------------------------------------------------


@functools.cache
def make_multiply(plans: str, height: int) -> Callable[..., None]:
    """Return the loop that adds ``a @ b`` to `c`, where `b` is packed.

    ``multiply(a, panels, c, block, is_first, constants, scratch)``; a tile at the edge of
    `c` is computed in `scratch`.
    """
    wide = _WIDE

    def multiply(a, panels, c, block, is_first, constants, scratch):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        fields = (load_constants(constants[0]), load_constants(constants[1]))
        rows, terms = a.shape
        columns = c.shape[1]
        for j in range(0, columns, wide):
            is_wide = columns - j > LANES
            width = wide if is_wide else LANES
            for i in range(0, rows, height):
                is_whole = j + width <= columns and i + height <= rows
                if not is_whole and not is_first:
                    for r in range(min(height, rows - i)):
                        for s in range(min(width, columns - j)):
                            scratch[r, s] = c[i + r, j + s]
                for k in range(0, terms, block):
                    count = min(block, terms - k)
                    first = is_first and k == 0
                    if is_whole:
                        at = (i, k, j * terms + k * width, i, j)
                        if is_wide:
                            tile(a, panels, c, at, count, first, fields, plans, height, wide)
                        else:
                            tile(a, panels, c, at, count, first, fields, plans, height, LANES)
                    else:
                        at = (i, k, j * terms + k * width, 0, 0)
                        if is_wide:
                            tile(a, panels, scratch, at, count, first, fields, plans, height, wide)
                        else:
                            tile(a, panels, scratch, at, count, first, fields, plans, height, LANES)
                if not is_whole:
                    for r in range(min(height, rows - i)):
                        for s in range(min(width, columns - j)):
                            c[i + r, j + s] = scratch[r, s]
        swap_float_state(floats)

    matrix = types.Array(types.float32, 2, "A", readonly=True)
    signature = types.void(
        matrix,
        types.Array(types.float32, 1, "C"),
        types.Array(types.float32, 2, "A"),
        types.int64,
        types.boolean,
        types.Array(types.uint64, 2, "C"),
        types.Array(types.float32, 2, "A"),
    )
    return compile_as(f"multiply|{height}|{plans}", multiply, signature)
