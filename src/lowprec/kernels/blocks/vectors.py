"""Faster rules for blocks of float32, a vector of elements at a time, to nearest with ties to even.

Three rules; each gives the bits of `quotients`, or says that it cannot, whereupon that serves:

``power``  scales that are powers of two. The grid of a block is the elements' grid moved by e, so
           that nothing is divided: the adder rounds x itself, as in `twins.round_by_addition`.
``few``    elements of at most 8 magnitudes, any other scale. A threshold is a midpoint times the
           divisor d, exact in float64; the least float32 that is past it tells all others. The
           element is how many thresholds |x| reaches.
``quotient``  other elements and scales. |x|/d in float64 lies on the same side of a midpoint as the
           exact quotient, because a midpoint times d has at most 53 bits.

Scales that are not powers of two round amax/(M·g), a float64 quotient, for the same reason. A block
is some rows of one vector that share a scale, or as many columns of rows as a vector has lanes.
"""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.kernels.blocks.loops import find_scale, write_elements
from lowprec.kernels.compiler import cgutils, from_dtype, intrinsic, ir, numba, types
from lowprec.kernels.lanes import Lanes, maximum, minimum, select
from lowprec.kernels.loops import EXACT_FLOATS, compile_as, kept, spell, swap_float_state

if TYPE_CHECKING:
    from collections.abc import Callable

ONE, SEVERAL, LONG = "one", "several", "long"  #: rows of vectors in a block
_BATCH = "batch"  # so many blocks of one row, whose scales are found side by side
_IN_BATCH = 8
FEW = 8  #: magnitudes that the rule ``few`` takes at most

_INFINITY, _MAGNITUDE, _SIGN = 0x7F800000, 0x7FFFFFFF, 1 << 31
_ONE = 127 << 23
_FIELD = 2047 << 52
_LEAST_QUICK, _MOST_QUICK = (127 - 90) << 23, (127 + 90) << 23  # of divisors as float32
_NARROW = 16  # columns that are converted at once where there are fewer than a group has
_BIAS = 1023


class BlockConstants(NamedTuple):
    """What a rule knows of its format at run time: unsigned integers of 64 bits.

    Exponents are given as they are added to the bits of a float: of float32 in the rule ``power``,
    else of float64.
    """

    lowest: int = 0  # of amax, as float32 bits: below, and from lowest + span on, another rule
    span: int = 0
    grows: int = 0  # added to amax, it carries where a rule takes the larger power
    emax: int = 0
    emin: int = 0
    dropped: int = 0  # bits of a float's significand below the elements'
    top: int = 0  # bits of M
    max_code: int = 0
    sign_shift: int = 0  # from a float's sign to a code's
    zero_scale: int = 0  # float64 bits of the scale of a block of zeros
    divisor: int = 0  # float64 bits of M·g
    tensor: int = 0  # float64 bits of g
    scale_emin: int = 0
    scale_dropped: int = 0
    scale_top: int = 0  # float64 bits of the largest scale
    scale_least: int = 0  # and of the smallest positive one
    quick_emin: int = 0  # of few and quotient: emin, dropped and top as added to float32
    quick_dropped: int = 0
    quick_top: int = 0
    middles: tuple[int, ...] = ()  # of few: float64 bits of the midpoints, and of the values
    values: tuple[int, ...] = ()

    def array(self) -> np.ndarray[Any, Any]:
        """Return them as kernels read them."""
        fixed = [int(field) & (1 << 64) - 1 for field in self[:-2]]
        few = [*self.middles, *[_FIELD] * (FEW - len(self.middles))]
        few += [*self.values, *[0] * (FEW - len(self.values))]
        return np.array(fixed + few, np.uint64)


_FIXED = len(BlockConstants._fields) - 2


class BlockRule(NamedTuple):
    """What a kernel knows when it is compiled."""

    kind: str  # power, few or quotient
    is_column: bool  # each lane has a scale of its own
    rows: str  # of vectors in a block: one; several in memory; or a long row, cut into many
    lanes: int
    style: int  # as in Grid
    target: str  # float32, or the dtype of codes
    strict: int = 0  # of few: bit i says that midpoint i belongs to the smaller element
    is_quick: int = 0  # of few and quotient: 1 if float32 may try before


class _Fields:
    """The constants as LLVM values, loaded once where the loop begins."""

    def __init__(self, builder: Any, values: list[Any]) -> None:
        self.lanes = [Lanes(builder, value) for value in values]

    def __getattr__(self, name: str) -> Lanes:
        return self.lanes[BlockConstants._fields.index(name)]

    def few(self, name: str) -> list[Lanes]:
        start = _FIXED + (FEW if name == "values" else 0)
        return self.lanes[start : start + FEW]


# Rules ------------------------------------------------------------------------------------------


class _Power:
    """Elements on a grid that e moves."""

    def __init__(self, rule: BlockRule, c: _Fields, amax: Lanes) -> None:
        self.rule, self.c = rule, c

        def field(name: str) -> Lanes:
            return getattr(c, name).resized(32).splat(amax.count)

        self.is_zero = amax.equals(0)
        a = select(self.is_zero, amax.constant(_ONE), amax)
        self.serves = (a - field("lowest")) < field("span")
        self.e = ((a + field("grows")) & _INFINITY) - field("emax")
        n = rule.lanes
        self.lowest = spread(self.e + field("emin"), n)
        self.top = spread(self.e + (field("top") - _ONE), n)
        self.dropped = c.dropped.resized(32).splat(n)
        self.max_code = c.max_code.resized(32).splat(n)

    def of_block(self, i: int) -> _Power:
        """Return the rule of one of several blocks whose scales were found side by side."""
        one, n = copy.copy(self), self.rule.lanes
        one.lowest, one.top = (element(part, i).splat(n) for part in (self.lowest, self.top))
        return one

    def scale(self) -> Lanes:
        """Return the scales as float64 bits."""
        bits = ((self.e >> 23).resized(64) + (_BIAS - 127)) << 52
        return select(self.is_zero, self.c.zero_scale.splat(bits.count), bits)

    def round(self, f: Lanes) -> Lanes:
        """Return what magnitudes become: float32 bits, or codes."""
        exponent = maximum(f & _INFINITY, self.lowest)
        c = (exponent + (self.dropped << 23)).as_floats()
        s = f.as_floats() + c
        if self.rule.target == "float32":
            return minimum((s - c).as_integers(), self.top)
        code = ((exponent - self.lowest) >> self.dropped) + (s.as_integers() - c.as_integers())
        return minimum(code, self.max_code)


class _Amax:
    """A scale amax/(M·g), rounded to its format, and the divisor d = s·g."""

    def __init__(self, rule: BlockRule, c: _Fields, amax: Lanes) -> None:
        self.rule, self.c = rule, c
        n = amax.count
        self.is_zero = amax.equals(0)
        self.serves = amax < _INFINITY
        v = widened(amax) / c.divisor.as_floats().splat(n)
        exponent = maximum(v.as_integers() & _FIELD, c.scale_emin.splat(n))
        place = (exponent + (c.scale_dropped << 52).splat(n)).as_floats()
        s = minimum(((v + place) - place).as_integers(), c.scale_top.splat(n))
        s = select(s.equals(0), c.scale_least.splat(n), s)
        self.s = select(self.is_zero, s.constant(0), s)
        d = s.as_floats() * c.tensor.as_floats().splat(n)
        self.d = select(self.is_zero, d.constant(1.0), d)
        if rule.is_quick:
            self._prepare_quick()

    def _prepare_quick(self) -> None:
        """Take d apart into two float32 numbers, and invert it."""
        n, d = self.rule.lanes, self.d
        high = d.float_resized(32)
        low = (d - high.float_resized(64)).float_resized(32)
        inverse = (d.constant(1.0) / d).float_resized(32)
        is_usual = (high.as_integers() - _LEAST_QUICK) < _MOST_QUICK - _LEAST_QUICK
        self.is_usual = spread(is_usual, n)
        self.high, self.low, self.inverse = (spread(part, n) for part in (high, low, inverse))

    def quick(self, f: Lanes) -> tuple[Lanes, Lanes]:
        """Return what `round` does, from float32 quotients, and in which lanes that is sure.

        A quotient is off by less than 2**-22; where a little more and a little less become the same
        element, so does the exact quotient.
        """
        c, n = self.c, self.rule.lanes
        lowest = c.quick_emin.resized(32).splat(n)
        dropped = c.quick_dropped.resized(32).splat(n)
        top = c.quick_top.resized(32).splat(n)
        v = f.as_floats() * self.inverse
        v = minimum(v.as_integers(), top + (1 << 23)).as_floats()
        found = []
        for factor in (1.0 - 2.0**-21, 1.0 + 2.0**-21):
            u = v * factor
            exponent = maximum(u.as_integers() & _INFINITY, lowest)
            place = (exponent + (dropped << 23)).as_floats()
            found.append((exponent, place, u + place))
        (_, place, s), (exponent, other, t) = found
        less, q = minimum((s - place).as_integers(), top), minimum((t - other).as_integers(), top)
        is_sure = less.equals(q) & self.is_usual
        if self.rule.target == "float32":
            q = q.as_floats()
            return q.fused(self.high, q * self.low).as_integers(), is_sure
        code = ((exponent - lowest) >> dropped) + (t.as_integers() - other.as_integers())
        return minimum(code, c.max_code.resized(32).splat(n)), is_sure

    def of_block(self, i: int) -> _Amax:
        """Return the rule of one of several blocks whose scales were found side by side."""
        one, n = copy.copy(self), self.rule.lanes
        one.d = element(self.d, i)
        if self.rule.is_quick:
            one.is_usual = element(self.is_usual, i).splat(n)
            parts = self.high, self.low, self.inverse
            one.high, one.low, one.inverse = (element(part, i).splat(n) for part in parts)
        return one

    def prepare(self) -> None:
        """Find what elements are compared with."""
        raise NotImplementedError

    def round(self, f: Lanes) -> Lanes:
        """Return what magnitudes become: float32 bits, or codes."""
        raise NotImplementedError

    def scale(self) -> Lanes:
        """Return the scales as float64 bits."""
        return select(self.is_zero, self.c.zero_scale.splat(self.s.count), self.s)


class _Few(_Amax):
    """Elements told apart by thresholds."""

    def prepare(self) -> None:
        n = self.rule.lanes
        middles, values = self.c.few("middles"), self.c.few("values")
        if self.d.count > 1:
            parts = [
                self._threshold(middle.as_floats().splat(n) * self.d, i)
                for i, middle in enumerate(middles[:-1])
            ]
            self.thresholds = parts
            self.values = [
                (value.as_floats().splat(n) * self.d).float_resized(32).as_integers()
                for value in values
            ]
            return
        d = self.d.splat(FEW)
        bits = self._threshold(joined(middles).as_floats() * d, None)
        self.thresholds = [element(bits, i).splat(n) for i in range(FEW - 1)]
        if self.rule.target == "float32":
            products = (joined(values).as_floats() * d).float_resized(32).as_integers()
            self.values = [element(products, i).splat(n) for i in range(FEW)]

    def _threshold(self, exact: Lanes, i: int | None) -> Lanes:
        """Return the bits of the least float32 past a threshold, or at it where that counts."""
        near = exact.float_resized(32)
        back = near.float_resized(64)
        if i is None:
            flags = ir.Constant(
                ir.VectorType(ir.IntType(1), FEW), [self.rule.strict >> k & 1 for k in range(FEW)]
            )
            is_below = (back < exact) | (back.equals(exact) & Lanes(exact.builder, flags))
        else:
            is_below = back <= exact if self.rule.strict >> i & 1 else back < exact
        bits = near.as_integers()
        return select(is_below, bits + 1, bits)

    def round(self, f: Lanes) -> Lanes:
        self.prepare()
        result = f.constant(0)
        for i, threshold in enumerate(self.thresholds):
            grown = self.values[i + 1] if self.rule.target == "float32" else f.constant(i + 1)
            result = select(f >= threshold, grown, result)
        return result


class _Quotient(_Amax):
    """Elements from float64 quotients."""

    def prepare(self) -> None:
        n, c = self.rule.lanes, self.c
        self.divisors = spread(self.d, n)
        self.lowest, self.top = c.emin.splat(n), c.top.splat(n)
        self.dropped, self.max_code = c.dropped.splat(n), c.max_code.splat(n)

    def round(self, f: Lanes) -> Lanes:
        self.prepare()
        v = widened(f) / self.divisors
        exponent = maximum(v.as_integers() & _FIELD, self.lowest)
        c = (exponent + (self.dropped << 52)).as_floats()
        s = v + c
        if self.rule.target == "float32":
            q = minimum((s - c).as_integers(), self.top).as_floats()
            return (q * self.divisors).float_resized(32).as_integers()
        code = ((exponent - self.lowest) >> self.dropped) + (s.as_integers() - c.as_integers())
        return minimum(code, self.max_code).resized(32)


_RULES: dict[str, type[_Power | _Amax]] = {
    "power": _Power,
    "few": _Few,
    "quotient": _Quotient,
}


def spread(lanes: Lanes, count: int) -> Lanes:
    """Return a scalar in as many lanes, a vector as it is."""
    return lanes.splat(count) if lanes.count == 1 else lanes


def widened(bits: Lanes) -> Lanes:
    """Return float32 bits as float64 numbers."""
    return bits.as_floats().float_resized(64)


def joined(scalars: list[Lanes]) -> Lanes:
    """Return a vector of scalars."""
    builder = scalars[0].builder
    vector = ir.Constant(ir.VectorType(scalars[0].value.type, len(scalars)), ir.Undefined)
    for i, scalar in enumerate(scalars):
        vector = builder.insert_element(vector, scalar.value, ir.Constant(ir.IntType(32), i))
    return Lanes(builder, vector)


def element(vector: Lanes, i: int) -> Lanes:
    """Return one element of a vector."""
    b = vector.builder
    return Lanes(b, b.extract_element(vector.value, ir.Constant(ir.IntType(32), i)))


def _with_sign(magnitude: Lanes, u: Lanes, rule: BlockRule, c: _Fields) -> Lanes:
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


# One block, or one vector of columns -------------------------------------------------------------

_BYTES = ir.IntType(8).as_pointer()
_INDEX = ir.IntType(64)


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


@intrinsic(prefer_literal=True)
def convert_block(
    _: Any, x: Any, out: Any, steps: Any, rows: Any, scale: Any, constants: Any, rule: Any
) -> Any:
    """Convert one block, or a vector of columns; return whether the rule serves.

    `x` and `out` are addresses, `steps` the distances of their rows in bytes, `scale` the address
    for the scale or scales as float64, which are written only with codes.
    """
    plan = kept(rule.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        step, out_step = cgutils.unpack_tuple(builder, args[2], 2)
        fields = _Fields(builder, cgutils.unpack_tuple(builder, args[5], _FIXED + 2 * FEW))
        width = 32 if plan.target == "float32" else 8 * np.dtype(plan.target).itemsize
        source = _VectorRows(builder, args[0], step, ir.IntType(32), plan.lanes)
        target = _VectorRows(builder, args[1], out_step, ir.IntType(width), plan.lanes)
        if plan.rows == _BATCH:
            amax = joined([_reduced(source.load(_INDEX(r)) & _MAGNITUDE) for r in range(_IN_BATCH)])
        else:
            amax = _largest(builder, source, args[3], plan)
        work = _RULES[plan.kind](plan, fields, amax)
        serves = work.serves
        if serves.count > 1:
            serves = serves.count_true().equals(serves.count)
        with builder.if_then(serves.value):
            if plan.target != "float32":
                scales = work.scale()
                pointer = builder.inttoptr(args[4], scales.value.type.as_pointer())
                builder.store(scales.value, pointer, align=8)

            def convert_row(r: Any, work: _Power | _Amax = work) -> None:
                u = source.load(r)

                def store(magnitude: Lanes) -> None:
                    result = _with_sign(magnitude, u, plan, fields)
                    target.store(result.resized(width), r)

                if not plan.is_quick:
                    store(work.round(u & _MAGNITUDE))
                    return
                assert isinstance(work, _Amax)
                found, is_sure = work.quick(u & _MAGNITUDE)
                all_sure = is_sure.count_true().equals(plan.lanes)
                with builder.if_else(all_sure.value) as (then, otherwise):
                    with then:
                        store(found)
                    with otherwise:
                        store(work.round(u & _MAGNITUDE))

            if plan.rows == _BATCH:
                for r in range(_IN_BATCH):
                    convert_row(_INDEX(r), work.of_block(r))
            else:
                _each_row(builder, args[3], plan, convert_row)
        return serves.value

    return types.boolean(x, out, steps, rows, scale, constants, rule), generate


def _each_row(builder: Any, rows: Any, plan: BlockRule, body: Callable[[Any], None]) -> None:
    if plan.rows == ONE:
        body(ir.Constant(_INDEX, 0))
        return
    with cgutils.for_range(builder, rows) as loop:
        body(loop.index)


def _largest(builder: Any, source: _VectorRows, rows: Any, plan: BlockRule) -> Lanes:
    """Return the bits of the largest magnitude: of all, or of each lane."""
    kind = ir.VectorType(ir.IntType(32), plan.lanes)
    if plan.rows == ONE:
        lanes = source.load(ir.Constant(_INDEX, 0)) & _MAGNITUDE
    else:
        slot = cgutils.alloca_once_value(builder, ir.Constant(kind, [0] * plan.lanes))
        builder.store(ir.Constant(kind, [0] * plan.lanes), slot)

        def grow(r: Any) -> None:
            if plan.is_column:  # rows are far apart, and the processor does not see what comes next
                prefetch(builder, source.at(r), 4 * plan.lanes)
            a = source.load(r) & _MAGNITUDE
            builder.store(maximum(a, Lanes(builder, builder.load(slot))).value, slot)

        _each_row(builder, rows, plan, grow)
        lanes = Lanes(builder, builder.load(slot))
    return lanes if plan.is_column else _reduced(lanes)


def _reduced(lanes: Lanes) -> Lanes:
    """Return the largest of unsigned lanes."""
    builder, kind = lanes.builder, lanes.value.type
    signature = ir.FunctionType(ir.IntType(32), [kind])
    name = f"llvm.vector.reduce.umax.v{lanes.count}i32"
    reduce = cgutils.get_or_insert_function(builder.module, signature, name)
    return Lanes(builder, builder.call(reduce, [lanes.value]))


def prefetch(builder: Any, pointer: Any, size: int) -> None:
    """Ask for as many bytes that lie behind as many at an address."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    start = builder.bitcast(pointer, byte)
    for line in range(size, 2 * size, 64):
        place = builder.gep(start, [ir.Constant(ir.IntType(64), line)])
        builder.call(function, [place, word(0), word(3), word(1)])


@intrinsic
def load_fields(_: Any, array: Any) -> Any:
    """Read the constants into a tuple: registers, which no store can change."""
    result = types.UniTuple(types.uint64, _FIXED + 2 * FEW)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        count = _FIXED + 2 * FEW
        addresses = [cgutils.gep_inbounds(builder, data, field) for field in range(count)]
        return context.make_tuple(builder, result, [builder.load(a) for a in addresses])

    return result(array), generate


# All blocks --------------------------------------------------------------------------------------


@functools.cache
def make_conversion(rule: BlockRule, parallel: bool = False) -> Callable[..., None]:
    """Return ``convert(x, tails, tile, kind, power, g, m, grids, constants, scales, out, chunks)``.

    `x` and `out` have columns that are neighbours in memory. Scales are written with codes alone.
    """
    text, lanes, is_column = spell(rule), rule.lanes, rule.is_column
    narrow, in_batch = min(lanes, _NARROW), _IN_BATCH
    batch_text = spell(rule._replace(rows=_BATCH))
    narrow_text = spell(rule._replace(lanes=narrow))
    as_codes = rule.target != "float32"
    is_long, is_one = rule.rows == LONG, rule.rows == ONE
    width = lanes if is_column else 1  # blocks that are converted at once

    def convert(  # type: ignore[no-untyped-def]
        x, tails, tile, kind, power, g, m, grids, constants, scales, out, place, chunks
    ):
        down, across = tile[0], tile[1]
        below = -(-x.shape[1] // down)
        beside = -(-x.shape[2] // across)
        groups = -(-beside // width)
        total = x.shape[0] * below * groups
        steps = (x.strides[1], out.strides[1])
        batch = (4 * lanes, out.itemsize * lanes)
        whole, out_size = x.shape[2] // lanes, out.itemsize * lanes
        if is_long:
            steps = (4 * lanes, out.itemsize * lanes)
        x_address, out_address = np.int64(x.ctypes.data), np.int64(out.ctypes.data)
        scale_address = np.int64(scales.ctypes.data)
        fields = load_fields(constants)
        for k in numba.prange(chunks):
            state = swap_float_state(EXACT_FLOATS)
            first, last = k * total // chunks, (k + 1) * total // chunks
            j = first % groups
            i = first // groups % below
            o = first // groups // below
            done = first
            while done < last:
                if is_one and j < whole:  # whole blocks in a row, until one is not served
                    run = min(last - done, whole - j)
                    at = x_address + o * x.strides[0] + i * x.strides[1] + 4 * lanes * j
                    out_at = out_address + o * out.strides[0] + i * out.strides[1]
                    out_at += out.itemsize * lanes * j
                    s_at = scale_address + 8 * ((o * scales.shape[1] + i) * scales.shape[2] + j)
                    t = 0
                    while t + in_batch <= run:
                        if not convert_block(at, out_at, batch, 1, s_at, fields, batch_text):
                            break
                        at += batch[0] * in_batch
                        out_at += batch[1] * in_batch
                        s_at += 8 * in_batch
                        t += in_batch
                    while t < run:
                        if not convert_block(at, out_at, steps, 1, s_at, fields, text):
                            break
                        at += 4 * lanes
                        out_at += out_size
                        s_at += 8
                        t += 1
                    done += t
                    j += t
                    if j == groups:
                        j = 0
                        i += 1
                        if i == below:
                            i = 0
                            o += 1
                    if t == run:
                        continue
                done += 1
                top, bottom = i * down, min(i * down + down, x.shape[1])
                row = x_address + o * x.strides[0] + top * x.strides[1]
                out_row = out_address + o * out.strides[0] + top * out.strides[1]
                scale_row = scale_address + 8 * (o * scales.shape[1] + i) * scales.shape[2]
                b, end = j * width, min(j * width + width, beside)
                rows, count, served = (
                    bottom - top,
                    min(end * across, x.shape[2]) - b * across,
                    False,
                )
                if is_long:
                    rows = count // lanes
                if count == lanes or (is_long and count % lanes == 0):
                    at, out_at = row + 4 * b * across, out_row + out.itemsize * b * across
                    served = convert_block(at, out_at, steps, rows, scale_row + 8 * b, fields, text)
                while b < end and not served:
                    left, right = b * across, min(b * across + across, x.shape[2])
                    if is_column and end - b >= narrow:  # fewer columns than a group has
                        at, out_at, s_at = (
                            row + 4 * b,
                            out_row + out.itemsize * b,
                            scale_row + 8 * b,
                        )
                        if convert_block(at, out_at, steps, rows, s_at, fields, narrow_text):
                            b += narrow
                            continue
                    s = find_scale(x, tails, o, top, bottom, left, right, kind, power, g, m, grids)
                    if as_codes:
                        scales[o, i, b] = s
                    write_elements(
                        x, tails, o, top, bottom, left, right, s * g, 0, np.uint64(0), place,
                        grids[0], as_codes, out,
                    )  # fmt: skip
                    b += 1
                j += 1
                if j == groups:
                    j = 0
                    i += 1
                    if i == below:
                        i = 0
                        o += 1
            swap_float_state(state)

    source = types.Array(types.float32, 3, "A", readonly=True)
    target = types.Array(from_dtype(np.dtype(rule.target)), 3, "A")
    doubles = types.Array(types.float64, 3, "C")
    integers = types.Array(types.int64, 1, "C")
    signature = types.void(
        source, doubles, integers, types.int64, integers, types.float64, types.float64,
        types.Array(types.int64, 2, "C"), types.Array(types.uint64, 1, "C"), doubles, target,
        integers, types.int64,
    )  # fmt: skip
    return compile_as(f"blocks by vectors: {text}", convert, signature, parallel)
