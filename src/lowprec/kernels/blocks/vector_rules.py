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

from lowprec.kernels.blocks.vector_facts import FEW, BlockRule, Fields
from lowprec.kernels.compiler import ir
from lowprec.kernels.lanes import Lanes, maximum, minimum, select

_INFINITY = 0x7F800000
_ONE = 127 << 23
_FIELD = 2047 << 52
_LEAST_QUICK, _MOST_QUICK = (127 - 90) << 23, (127 + 90) << 23  # of divisors as float32
_BIAS = 1023


class PowerRule:
    """Elements on a grid that e moves."""

    def __init__(self, rule: BlockRule, c: Fields, amax: Lanes) -> None:
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

    def of_block(self, i: int) -> PowerRule:
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


class AmaxRule:
    """A scale amax/(M·g), rounded to its format, and the divisor d = s·g."""

    def __init__(self, rule: BlockRule, c: Fields, amax: Lanes) -> None:
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

    def of_block(self, i: int) -> AmaxRule:
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


class FewRule(AmaxRule):
    """Elements told apart by thresholds."""

    def prepare(self) -> None:
        """Find the thresholds, and for values the multiples of the divisor between them."""
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
        """Return what magnitudes become: float32 bits, or codes."""
        self.prepare()
        result = f.constant(0)
        for i, threshold in enumerate(self.thresholds):
            grown = self.values[i + 1] if self.rule.target == "float32" else f.constant(i + 1)
            result = select(f >= threshold, grown, result)
        return result


class QuotientRule(AmaxRule):
    """Elements from float64 quotients."""

    def prepare(self) -> None:
        """Have the divisor and the elements' grid in every lane."""
        n, c = self.rule.lanes, self.c
        self.divisors = spread(self.d, n)
        self.lowest, self.top = c.emin.splat(n), c.top.splat(n)
        self.dropped, self.max_code = c.dropped.splat(n), c.max_code.splat(n)

    def round(self, f: Lanes) -> Lanes:
        """Return what magnitudes become: float32 bits, or codes."""
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


RULES: dict[str, type[PowerRule | AmaxRule]] = {
    "power": PowerRule,
    "few": FewRule,
    "quotient": QuotientRule,
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
