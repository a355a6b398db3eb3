"""What rounding did to vectors of float32 numbers, counted without a branch for usual ones.

Classes of numbers are told apart by their bits, as integers of 32 bits; errors are float64, in
which the squares and quotients of all float32 numbers are normal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.kernels.compiler import cgutils, intrinsic, ir, types
from lowprec.kernels.lanes import Lanes, maximum, minimum, select
from lowprec.kernels.loops import Elements

if TYPE_CHECKING:
    from collections.abc import Callable

LANES, TABLES = 16, 8
ABOVE_LARGEST = (1 << 31) + (1 << 23)  # infinity plus this, and NaN, wrap to less than this
INFINITY = 0xFF << 23  # bits of float32
_SIGN = 1 << 31
_INFINITY, _TWICE_BIAS = 0x7FF << 52, 2046 << 52  # bits of float64


class _Register:
    """A number, or one a lane, that a loop changes; LLVM takes the place in memory away."""

    def __init__(self, first: Lanes) -> None:
        self.builder = first.builder
        self.slot = cgutils.alloca_once(self.builder, first.value.type)
        self.builder.store(first.value, self.slot)

    def read(self) -> Lanes:
        return Lanes(self.builder, self.builder.load(self.slot))

    def add(self, term: Lanes) -> None:
        self.change(Lanes.__add__, term)

    def change(self, merge: Callable[[Lanes, Lanes], Lanes], other: Lanes) -> None:
        self.builder.store(merge(self.read(), other).value, self.slot)


class _LimitsInLanes(NamedTuple):
    """What is known of the format, in every lane: magnitudes as bits of float32."""

    overflow_positive: Lanes
    overflow_negative: Lanes
    smallest_normal: Lanes
    per_floor: Lanes  # float64: the spacing below the smallest normal number, inverted


class _VectorTally:
    """What is gathered in one pass over two arrays."""

    def __init__(self, builder: Any, limits: _LimitsInLanes) -> None:
        self.limits = limits
        bits, none = limits.smallest_normal, Lanes(builder, ir.Constant(ir.IntType(64), 0))
        self.counts = [_Register(none) for _ in range(7)]
        self.largest, self.smallest = map(_Register, (bits.constant(0), bits.constant(INFINITY)))
        nothing = limits.per_floor.constant(0.0)
        self.sums = [_Register(nothing) for _ in range(3)]
        self.errors = [_Register(nothing.as_integers()) for _ in range(2)]

    def add(self, x: Lanes, y: Lanes) -> None:
        """Add a vector of numbers and what they became, which has their sign or is zero."""
        limits, word = self.limits, x.as_integers()
        bits, rounded = word & (_SIGN - 1), y.as_integers() & (_SIGN - 1)
        least = select(word >= _SIGN, limits.overflow_negative, limits.overflow_positive)
        lost = (rounded >= INFINITY) | (bits >= least)
        finite, counted = bits < INFINITY, (bits - 1) < INFINITY - 1  # not zero either
        kept, is_small = counted & ~lost, rounded < limits.smallest_normal
        self.largest.change(maximum, select(finite, bits, 0))
        self.smallest.change(minimum, select(counted, bits, INFINITY))
        with x.builder.if_then((~kept | is_small).count_true().differs(0).value):
            zero = rounded.equals(0)
            events = [bits.equals(0), kept & zero, kept & is_small & ~zero, finite & lost]
            events += [bits > INFINITY, bits.equals(INFINITY), ~kept]
            for count, event in zip(self.counts, events, strict=True):
                count.add(event.count_true())
        self._add_errors(bits, rounded, kept)

    def _add_errors(self, bits: Lanes, rounded: Lanes, kept: Lanes) -> None:
        a, z = (part.as_floats().float_resized(64) for part in (bits, rounded))
        error = ((a - z).as_integers() & ((1 << 63) - 1)).as_floats()
        binade = a.as_integers() & _INFINITY
        per_binade = (binade.constant(_TWICE_BIAS) - binade).as_floats()
        is_normal = bits >= self.limits.smallest_normal
        ulps = error * select(is_normal, per_binade, self.limits.per_floor)
        terms = (error / a, a * a, error * error, ulps)
        relative, square, noise, ulps = (select(kept, term, 0.0) for term in terms)
        for total, term in zip(self.sums, (relative, square, noise), strict=True):
            total.add(term)
        for largest, size in zip(self.errors, (relative, ulps), strict=True):
            largest.change(maximum, size.as_integers())


@intrinsic
def tally_vectors(
    _: Any, values: Any, rounded: Any, limits: Any, per_floor: Any, counts: Any, extrema: Any,
    sums: Any, errors: Any,
) -> Any:  # fmt: skip
    """Tally whole vectors of two arrays.

    `limits` holds bits of float32: the least positive and negative magnitudes that overflow, and
    the smallest normal number. Written are `counts`, in the order of `statistics.COUNTS`, but the
    last is of numbers that have no error; to `extrema` each lane's largest bits and smallest; to
    `sums` Σ of relative errors, of x² and of (y - x)² in each lane; and to `errors` the bits of the
    largest relative errors and of the largest in units of the spacing.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        index = ir.IntType(64)

        def elements(n: int) -> Elements:
            return Elements(context, builder, signature.args[n], args[n])

        def write(n: int, registers: list[_Register]) -> None:
            target = elements(n)
            for place, register in enumerate(registers):
                lanes = register.read()
                if isinstance(target.kind.dtype, types.Float) and not lanes.is_float:
                    lanes = lanes.as_floats()
                target.store(lanes, index(place * lanes.count))

        known = (elements(2).load(index(n), 1).splat(LANES) for n in range(3))
        per_floor_ = Lanes(builder, args[3]).splat(LANES)
        tally = _VectorTally(builder, _LimitsInLanes._make((*known, per_floor_)))
        x, y = elements(0), elements(1)
        size = context.make_array(signature.args[0])(context, builder, args[0]).nitems
        with cgutils.for_range(builder, builder.udiv(size, index(LANES))) as loop:
            i = builder.mul(loop.index, index(LANES))
            x.prefetch(i, LANES)
            tally.add(x.load(i, LANES), y.load(i, LANES))
        write(4, tally.counts)
        write(5, [tally.largest, tally.smallest])
        write(6, tally.sums)
        write(7, tally.errors)
        return context.get_dummy_value()

    return types.void(values, rounded, limits, per_floor, counts, extrema, sums, errors), generate


@intrinsic
def count_vectors(_: Any, x: Any, y: Any, normal: Any, found: Any, bins: Any, sums: Any) -> Any:
    """Count whole vectors of float32 numbers, x before and y after rounding, lane by lane.

    `found` holds six vectors of integers, which go on: how many x are 0, and how many y are 0, are
    below the bits `normal`, and are not finite; the largest finite |x| plus `ABOVE_LARGEST`, and
    the smallest |x| that is not 0 minus 1. `bins` are `TABLES` of 256, which go on: how many x have
    an exponent, as it is stored; neighbours go to different tables, so that none waits for one. To
    `sums`, three vectors, go Σx, Σx² and Σ(x - y)² over what is finite after rounding.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        index = ir.IntType(64)
        before, after, kept, tables, totals = (
            Elements(context, builder, signature.args[n], args[n]) for n in (0, 1, 3, 4, 5)
        )
        places = [index(LANES * k) for k in range(6)]
        counts = [_Register(kept.load(place, LANES)) for place in places]
        least = Lanes(builder, args[2]).splat(LANES)
        nothing = Lanes(builder, ir.Constant(ir.DoubleType(), 0.0)).splat(LANES)
        added = [_Register(nothing) for _ in range(3)]
        vectors = (before.size >> LANES.bit_length() - 1).value

        def count(at: Any, is_rounded: bool) -> None:
            x = before.load(at, LANES)
            y = after.load(at, LANES) if is_rounded else x
            a, b = (z.as_integers() & (_SIGN - 1) for z in (x, y))
            # the sign of a difference says which is less: cheaper than to compare
            for register, event in zip(
                counts, (a - 1, b - 1, b - least, b + (1 << 23)), strict=False
            ):
                register.add(event >> 31)
            counts[4].change(maximum, a + ABOVE_LARGEST)
            counts[5].change(minimum, a - 1)
            finite = b < INFINITY
            u = select(finite, x, 0.0).float_resized(64)
            added[0].add(u)
            added[1].add(u * u)
            if is_rounded:
                error = u - select(finite, y, 0.0).float_resized(64)
                added[2].add(error * error)
            for lane in range(LANES):  # in the shadow of the vectors
                bits = before.load(builder.add(at, index(lane)), 1).as_integers()
                exponent = ((bits >> 23 & 255) + lane % TABLES * 256).resized(64).value
                tables.store(tables.load(exponent, 1) + 1, exponent)

        is_same = builder.icmp_unsigned("==", before.data, after.data)
        with builder.if_else(is_same) as branches:
            for is_rounded, branch in enumerate(branches):
                with branch, cgutils.for_range(builder, vectors) as loop:
                    count(builder.mul(loop.index, index(LANES)), bool(is_rounded))
        for target, registers in ((kept, counts), (totals, added)):
            for register, place in zip(registers, places, strict=False):
                target.store(register.read(), place)
        return context.get_dummy_value()

    return types.void(x, y, normal, found, bins, sums), generate


@intrinsic
def add_pair(_: Any, pairs: Any, place: Any, size: Any) -> Any:
    """Add 1 and a number to the pair of float64 at a place."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = Elements(context, builder, signature.args[0], args[0])
        first = builder.mul(args[1], ir.IntType(64)(2))
        kind = ir.VectorType(ir.DoubleType(), 2)
        ones, second = ir.Constant(kind, [1.0, 1.0]), ir.IntType(32)(1)
        term = Lanes(builder, builder.insert_element(ones, args[2], second))
        target.store(target.load(first, 2) + term, first)
        return context.get_dummy_value()

    return types.void(pairs, place, size), generate
