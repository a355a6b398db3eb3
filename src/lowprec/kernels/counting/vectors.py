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

LANES = 16
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
