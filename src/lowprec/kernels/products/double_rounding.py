"""Steps in half the time, watched: exact, or known to be doubtful.

bfloat16
--------
A step s = x·y + z rounded to float32 and then to bfloat16 is rounded twice. Let x, y and z have 8
significant bits each, so that the product p has 16 at most. Then the second rounding goes wrong
only if p lies halfway between two neighbours in bfloat16, and 0 < |z| <= 2**(e-24), where
2**e <= |p + z| < 2**(e+1). For it can go wrong only where s is such a midpoint m, of 9 bits, and
not p + z itself: 0 < |p + z - m| <= 2**(e-24). So p or z has bits below 2**(e-23).

- If p has, |p| <= 255²·2**(e-24) < 2**(e-8) - 2**(e-24), and |z| > 2**(e-1), so that z and m are
  multiples of 2**(e-8). The nearest one to p is 0; but z is not m, which has a bit more.
- If only z has, |z| <= 255·2**(e-24), and |p| > 2**(e-1), so that p and m are multiples of
  2**(e-16). Either p = m, which is the case above, or their distance is one of these units; then p
  is an odd number of them, of 16 bits, so that |p| + |z| < 2**e.

So a sum is doubtful only if an accumulator, 0 apart, was smaller than 2**-24 of the largest
product. The least one is watched along k and looked at once, at the end; then the steps are made
again, as `steps` makes them. Where operands are so small that sums might be subnormal, the limit is
0, and no step is watched.

Narrow formats
--------------
Let a format have precision p, t = p - 1, and products at most 23 - p bits. By the first case above,
with 2**(e-p) for the distance of z and m, the second rounding goes wrong only if z has bits below
2**(e-23). But z is a multiple of 2**(emin-t). So it never does if emin - t >= emax - 23, and
else where all products are less than 2**(emin-t+24). An exponent that is at least emin rounds
subnormal numbers too. What is watched is the largest exponent: in the last binade the format may
overflow. Of zero the sign is lost, but for the last step's; where that adds two zeros it is not
known. A format without infinity and NaN ends at its largest number, and where that is small, zeros
are many: then every step keeps the sign, and none is in doubt.
"""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, Any

from lowprec.formats import Format, bfloat16, float16
from lowprec.kernels.compiler import cgutils, intrinsic, ir, types
from lowprec.kernels.lanes import Lanes, maximum, minimum, select
from lowprec.kernels.loops import kernel
from lowprec.kernels.products.vectors import FLOAT, INTEGER, Vectors
from lowprec.rounding import Overflow, Rounding, is_usual

if TYPE_CHECKING:
    from lowprec.kernels.magnitudes import Constants

_FIELD = 0x7F800000  # the bits of float32's exponent
_TRAILING, _ALL = 23, 255
_RAISE = 1.5 * 2.0**16  # what is added is a multiple of two units in the last place of bfloat16


class Quick(enum.Enum):
    """Which steps are made first, before those that are always right."""

    BFLOAT16 = "bfloat16"
    NARROW = "narrow"  # right unless a sum is in the format's last binade
    ONE_ZERO = "narrow, one zero"  # so, in a format without -0
    BOUNDED = "bounded"  # right: sums end at the largest number


def quick_steps(
    inputs: Format, fmt: Format, rounding: Rounding, overflow: Overflow
) -> Quick | None:
    """Return the quick steps for sums in a format of products of another, None where none are."""
    if rounding is not Rounding.TIES_TO_EVEN:
        return None
    if fmt == bfloat16:
        is_known = is_usual(rounding, overflow) and inputs.fits(bfloat16)
        return Quick.BFLOAT16 if is_known else None
    if not (_is_narrow(inputs, fmt) and fmt.signed) or fmt == float16:
        return None
    if fmt.has_nan:
        return Quick.ONE_ZERO if fmt.has_nan_at_negative_zero else Quick.NARROW
    return None if inputs.has_nan or inputs.has_infinity else Quick.BOUNDED


def steps_are_innocuous(inputs: Format, fmt: Format) -> bool:
    """Whether rounding the float32 nearest to a step rounds the step, in every nearest mode."""
    return _is_narrow(inputs, fmt) and fmt.emin - fmt.trailing_bits >= fmt.emax - _TRAILING


def _is_narrow(inputs: Format, fmt: Format) -> bool:
    has_room = fmt.emin - fmt.trailing_bits >= -100 and fmt.emax <= 100
    has_short_products = 2 * inputs.precision <= _TRAILING - fmt.precision
    return has_room and has_short_products and fmt.subnormals and fmt.precision > 1


def narrow_step(
    x: Lanes, y: Lanes, z: Lanes, most: Lanes, c: Constants, kind: Quick
) -> tuple[Lanes, Lanes]:
    """Return ○(x·y + z) unless it is doubtful, and the largest exponent field so far.

    1.5·2**(e+23-t) added to s, and taken off again, leaves what the format holds.
    """
    s = x.fused(y, z)
    t = c.trailing_bits
    raise_ = ((t.constant(127 + 23) - t) << 23 | 0x400000).as_floats()
    field = maximum(s.as_integers() & _FIELD, c.emin << _TRAILING)
    scale = field.as_floats()
    total = scale.fused(raise_.negated(), scale.fused(raise_, s))
    if kind is not Quick.BOUNDED:
        return total, maximum(most, field)
    largest = c.overflow_positive.as_floats()
    total = with_sign_of(s, total)
    total = select(total > largest, largest, total)
    return select(total < largest.negated(), largest.negated(), total), most


def watched_step(x: Lanes, y: Lanes, z: Lanes, least: Lanes) -> tuple[Lanes, Lanes]:
    """Return ○(x·y + z) unless it is doubtful, and the least exponent field but 0 so far, less one.

    1.5·2**(e+16) added to s, and taken off again, leaves what bfloat16 holds. An overflow leaves
    infinity or NaN; of zero the sign is lost.
    """
    s = x.fused(y, z)
    field = s.as_integers() & _FIELD
    raised = field.as_floats().fused(s.constant(_RAISE), s)
    return field.as_floats().fused(s.constant(-_RAISE), raised), minimum(least, field - 1)


def least_of(sums: list[Lanes]) -> Lanes:
    """Return the least exponent field but 0 in each lane of sums, less one."""
    return functools.reduce(minimum, [(total.as_integers() & _FIELD) - 1 for total in sums])


def is_doubtful(
    begin: list[Lanes], sums: list[Lanes], least: Lanes, limit: Lanes, vectors: Vectors
) -> Any:
    """Return whether steps went wrong perhaps: below the limit, by overflow, or to -0."""
    doubts = least < limit.resized(32).splat(least.count)
    for i, (before, total) in enumerate(zip(begin, sums, strict=True)):
        was_nothing = before.as_integers().equals(0x80000000)
        doubt = (total - total).is_nan() | (total.equals(0.0) & was_nothing)
        doubts = doubts | vectors.only_filled(doubt, i % vectors.count)
    builder = doubts.builder
    flags = builder.bitcast(doubts.value, ir.IntType(doubts.count))
    return builder.icmp_unsigned("!=", flags, flags.type(0))


def with_sign_of(s: Lanes, total: Lanes) -> Lanes:
    """Return a total, of s or zero, with the sign of s."""
    return (total.as_integers() | (s.as_integers() & (1 << 31))).as_floats()


def last_step(
    x: Lanes, y: Lanes, z: Lanes, most: Lanes, c: Constants, kind: Quick
) -> tuple[Lanes, Lanes, Lanes]:
    """Return `narrow_step`, where a zero has its sign, and in which lanes that is not known.

    The sign of a sum of zeros is that of earlier ones, perhaps.
    """
    total, most = narrow_step(x, y, z, most, c, kind)
    s = x.fused(y, z)
    if kind is not Quick.NARROW:
        return total, most, z < z
    return with_sign_of(s, total), most, s.equals(0.0) & z.equals(0.0)


def is_narrow_doubtful(
    ends: list[tuple[Lanes, Lanes, Lanes]], c: Constants, kind: Quick, vectors: Vectors
) -> Any:
    """Return whether steps went wrong perhaps: in the last binade, or to a zero of some sign.

    `ends` are what `last_step` returned for each sum.
    """
    most = functools.reduce(maximum, [each for _, each, _ in ends])
    last = c.threshold >> _TRAILING << _TRAILING
    doubts = most < most if kind is Quick.BOUNDED else most >= last
    for i, (_, _, has_doubt) in enumerate(ends):
        doubts = doubts | vectors.only_filled(has_doubt, i % vectors.count)
    builder = doubts.builder
    flags = builder.bitcast(doubts.value, ir.IntType(doubts.count))
    return builder.icmp_unsigned("!=", flags, flags.type(0))


@kernel
def limit_of(a: tuple[int, int], b: tuple[int, int]) -> int:
    """Return what `least` must reach, for operands whose exponents have these extremes, or 0."""
    largest, smallest = a[0] + b[0], a[1] + b[1]  # exponents and twice float32's bias, 127
    limit = max(largest - 2 * 127 + 2 - 24 + 127, 1 + 8)  # accumulators have normal last bits
    has_small_products = smallest - 2 * 127 - 2 * 7 < -126
    if has_small_products or a[0] == _ALL or b[0] == _ALL or limit > _ALL:
        return 0
    return (limit << _TRAILING) - 1


@kernel
def are_in_range(largest_a: int, largest_b: int, trailing: int, emin: int, threshold: int) -> bool:
    """Whether no step of a narrow format goes wrong, for operands of these largest exponents."""
    e = largest_a + largest_b - 2 * 127 + 2 + 127  # products are less than 2**(e-127)
    e = min(e, threshold >> _TRAILING)
    return max(largest_a, largest_b) < _ALL and emin - trailing >= e - _TRAILING


@intrinsic
def extremes(_: Any, source: Any, strides: Any, size: Any) -> Any:
    """Return the largest and the smallest exponent field of a matrix at an address, zeros apart.

    A subnormal number counts as the smallest normal one, as do all if there is nothing but zeros.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b = builder
        (row, column), (rows, columns) = (cgutils.unpack_tuple(b, args[i], 2) for i in (1, 2))
        is_turned = b.icmp_signed("==", row, INTEGER(FLOAT.bytes))
        down, along, count, length = (
            b.select(is_turned, *pair)
            for pair in ((column, row), (row, column), (columns, rows), (rows, columns))
        )
        zero = Lanes(b, ir.IntType(32)(0)).splat(FLOAT.lanes)
        most, least = (cgutils.alloca_once_value(b, start.value) for start in (zero, ~zero))

        def look(values: Any) -> None:
            bits = Lanes(b, values).as_integers() & 0x7FFFFFFF
            b.store(maximum(Lanes(b, b.load(most)), bits).value, most)
            b.store(minimum(Lanes(b, b.load(least)), bits - 1).value, least)

        vectors = b.sdiv(b.add(length, INTEGER(FLOAT.lanes - 1)), INTEGER(FLOAT.lanes))
        with cgutils.for_range(b, count) as outer, cgutils.for_range(b, vectors) as inner:
            first = b.mul(inner.index, INTEGER(FLOAT.lanes))
            part = Vectors(b, FLOAT, 1, b.sub(length, first))
            place = b.add(args[0], b.add(b.mul(outer.index, down), b.mul(first, along)))
            with b.if_else(b.icmp_signed("==", along, INTEGER(FLOAT.bytes))) as (then, otherwise):
                with then:
                    look(part.load(place)[0])
                with otherwise:
                    look(part.gather(place, along)[0])
        largest = _reduced(b, b.load(most), maximum) >> _TRAILING
        smallest = maximum((_reduced(b, b.load(least), minimum) + 1) >> _TRAILING, 1)
        fields = [value.resized(64).value for value in (largest, smallest)]
        return context.make_tuple(b, signature.return_type, fields)

    return types.UniTuple(types.int64, 2)(source, strides, size), generate


def _reduced(builder: Any, vector: Any, rule: Any) -> Lanes:
    lanes = [builder.extract_element(vector, ir.IntType(32)(i)) for i in range(FLOAT.lanes)]
    return functools.reduce(rule, [Lanes(builder, lane) for lane in lanes])
