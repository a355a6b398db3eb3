"""The blocks of a row that one rule converts, on vectors: one after the other, until it cannot.

A block is some rows of one vector that share a scale, or as many columns of rows as a vector has
lanes, each with its own. To Numba all of it is one call: nothing is left for it to compile.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.kernels.blocks.vector_facts import LONG, ONE, BlockRule, Fields
from lowprec.kernels.blocks.vector_rules import RULES, AmaxRule, PowerRule, joined
from lowprec.kernels.compiler import cgutils, intrinsic, ir, types
from lowprec.kernels.lanes import Lanes, maximum, select
from lowprec.kernels.loops import address_of, compile_as, kept, prefetch, spell

if TYPE_CHECKING:
    from collections.abc import Callable

_IN_BATCH = 8  # blocks of one row, whose scales are found side by side
_MAGNITUDE, _SIGN = 0x7FFFFFFF, 1 << 31
_INDEX = ir.IntType(64)


@functools.cache
def blocks_by_vectors(rule: BlockRule) -> int:
    """Return the address of ``convert(x, out, scale, x_step, out_step, rows, count, constants)``.

    It converts up to `count` blocks, or vectors of columns, and returns how many: the next one is
    not for its rule. All arguments are integers: the addresses of the first block, of its result
    and of its scale as float64, which is written only with codes; the distances of a block's rows
    in bytes, and their number; the address of what `BlockConstants.array` returns.
    """
    text = spell(rule)

    def convert(x, out, scale, x_step, out_step, rows, count, constants):  # type: ignore[no-untyped-def]
        return _convert_blocks(x, out, scale, x_step, out_step, rows, count, constants, text)

    signature = types.int64(*[types.int64] * 8)
    return address_of(compile_as(f"blocks by vectors: {text}", convert, signature))


@intrinsic(prefer_literal=True)
def _convert_blocks(
    _: Any, x: Any, out: Any, scale: Any, x_step: Any, out_step: Any, rows: Any, count: Any,
    constants: Any, rule: Any,
) -> Any:  # fmt: skip
    plan = kept(rule.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        blocks, count, done = _Blocks(builder, plan, args), args[6], _INDEX(0)
        if plan.rows == ONE:
            done = _while(builder, done, count, _IN_BATCH, blocks.convert_batch)
        return _while(builder, done, count, 1, blocks.convert)

    arguments = x, out, scale, x_step, out_step, rows, count, constants
    return types.int64(*arguments, rule), generate


def _while(builder: Any, start: Any, end: Any, step: int, body: Callable[[Any], Any]) -> Any:
    """Write what takes steps to an end for as long as they succeed; return how far it came."""
    before, (head, inside, done) = builder.block, map(builder.append_basic_block, "hid")
    builder.branch(head)
    builder.position_at_end(head)
    i = builder.phi(start.type)
    i.add_incoming(start, before)
    following = builder.add(i, start.type(step))
    builder.cbranch(builder.icmp_signed("<=", following, end), inside, done)
    builder.position_at_end(inside)
    succeeds = body(i)
    i.add_incoming(following, builder.block)
    builder.cbranch(succeeds, head, done)
    builder.position_at_end(done)
    return i


class _Blocks:
    """Neighbouring blocks in memory, and the rule that converts them."""

    def __init__(self, builder: Any, plan: BlockRule, args: Any) -> None:
        self.builder, self.plan = builder, plan
        self.x, self.out, self.scale, x_step, out_step, self.rows, _, constants = args[:8]
        self.fields = Fields(builder, constants)
        self.width = 32 if plan.target == "float32" else 8 * np.dtype(plan.target).itemsize
        sizes = 4 * plan.lanes, self.width // 8 * plan.lanes  # of vectors
        self.steps = tuple(map(_INDEX, sizes)) if plan.rows in (ONE, LONG) else (x_step, out_step)
        per_block = self.rows if plan.rows == LONG else _INDEX(1)
        self.distances = [builder.mul(_INDEX(size), per_block) for size in sizes]

    def _vectors(self, i: Any) -> tuple[_VectorRows, _VectorRows]:
        """Return the rows of block `i` and those of its result."""
        ends = zip((self.x, self.out), self.distances, self.steps, (32, self.width), strict=True)
        source, target = (
            _VectorRows(
                self.builder,
                self.builder.add(start, self.builder.mul(i, distance)),
                step,
                ir.IntType(width),
                self.plan.lanes,
            )
            for start, distance, step, width in ends
        )
        return source, target

    def convert(self, i: Any) -> Any:
        """Convert block `i`; return whether the rule serves."""
        source, target = self._vectors(i)
        work = RULES[self.plan.kind](self.plan, self.fields, self._largest(source))
        serves = work.serves
        if serves.count > 1:
            serves = serves.count_true().equals(serves.count)
        with self.builder.if_then(serves.value):
            self._store_scales(i, work)
            self._each_row(lambda r: self._convert_row(source, target, r, work))
        return serves.value

    def convert_batch(self, i: Any) -> Any:
        """Convert so many blocks of one row from `i` on; return whether the rule serves all."""
        source, target = self._vectors(i)
        rows = [_INDEX(r) for r in range(_IN_BATCH)]
        amax = joined([_reduced(source.load(r) & _MAGNITUDE) for r in rows])
        work = RULES[self.plan.kind](self.plan, self.fields, amax)
        serves = work.serves.count_true().equals(_IN_BATCH)
        with self.builder.if_then(serves.value):
            self._store_scales(i, work)
            for number, r in enumerate(rows):
                self._convert_row(source, target, r, work.of_block(number))
        return serves.value

    def _store_scales(self, i: Any, work: PowerRule | AmaxRule) -> None:
        if self.plan.target == "float32":
            return
        b, scales = self.builder, work.scale()
        size = _INDEX(8 * self.plan.lanes if self.plan.is_column else 8)
        place = b.add(self.scale, b.mul(i, size))
        b.store(scales.value, b.inttoptr(place, scales.value.type.as_pointer()), align=8)

    def _convert_row(
        self, source: _VectorRows, target: _VectorRows, r: Any, work: PowerRule | AmaxRule
    ) -> None:
        u = source.load(r)

        def store(magnitude: Lanes) -> None:
            result = _with_sign(magnitude, u, self.plan, self.fields)
            target.store(result.resized(self.width), r)

        if not self.plan.is_quick:
            store(work.round(u & _MAGNITUDE))
            return
        assert isinstance(work, AmaxRule)
        found, is_sure = work.quick(u & _MAGNITUDE)
        all_sure = is_sure.count_true().equals(self.plan.lanes)
        with self.builder.if_else(all_sure.value) as (then, otherwise):
            with then:
                store(found)
            with otherwise:
                store(work.round(u & _MAGNITUDE))

    def _each_row(self, body: Callable[[Any], None]) -> None:
        if self.plan.rows == ONE:
            body(_INDEX(0))
            return
        with cgutils.for_range(self.builder, self.rows) as loop:
            body(loop.index)

    def _largest(self, source: _VectorRows) -> Lanes:
        """Return the bits of the largest magnitude: of all, or of each lane."""
        builder, lanes = self.builder, self.plan.lanes
        nothing = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        slot = cgutils.alloca_once_value(builder, nothing)
        builder.store(nothing, slot)

        def grow(r: Any) -> None:
            if self.plan.is_column:  # rows are far apart: the processor does not see what comes
                prefetch(builder, source.at(r), 4 * lanes, 4 * lanes)
            a = source.load(r) & _MAGNITUDE
            builder.store(maximum(a, Lanes(builder, builder.load(slot))).value, slot)

        self._each_row(grow)
        found = Lanes(builder, builder.load(slot))
        return found if self.plan.is_column else _reduced(found)


class _VectorRows:
    """Rows of vectors in memory, so many bytes apart."""

    def __init__(self, builder: Any, address: Any, step: Any, element: ir.Type, lanes: int) -> None:
        self.builder, self.address, self.step = builder, address, step
        self.pointer = ir.VectorType(element, lanes).as_pointer()
        self.align = element.width // 8

    def at(self, r: Any) -> Any:
        b = self.builder
        place = b.add(self.address, b.mul(r, self.step))
        return b.inttoptr(place, self.pointer)

    def load(self, r: Any) -> Lanes:
        return Lanes(self.builder, self.builder.load(self.at(r), align=self.align))

    def store(self, lanes: Lanes, r: Any) -> None:
        self.builder.store(lanes.value, self.at(r), align=self.align)


def _reduced(lanes: Lanes) -> Lanes:
    """Return the largest of unsigned lanes."""
    builder, kind = lanes.builder, lanes.value.type
    signature = ir.FunctionType(ir.IntType(32), [kind])
    name = f"llvm.vector.reduce.umax.v{lanes.count}i32"
    reduce = cgutils.get_or_insert_function(builder.module, signature, name)
    return Lanes(builder, builder.call(reduce, [lanes.value]))


def _with_sign(magnitude: Lanes, u: Lanes, rule: BlockRule, c: Fields) -> Lanes:
    """Give a magnitude, of a float or a code, the sign of the float32 with the bits u."""
    negative = u >= _SIGN
    if rule.style == 2 and rule.target != "float32":
        return select(negative, magnitude.constant(0) - magnitude, magnitude)
    sign = u & _SIGN
    if rule.target != "float32":
        sign = sign >> c.sign_shift.resized(32).splat(u.count)
    if rule.style != 0:
        sign = select(magnitude.equals(0), sign.constant(0), sign)
    return magnitude | sign
