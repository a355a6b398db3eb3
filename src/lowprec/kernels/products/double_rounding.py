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
product. Factors are scaled by powers of two so that this is the smallest normal number of float32:
what is below it the processor flushes to zero, and raises a flag, which is looked at once, at the
end. Then the steps are made again, as `steps` makes them. A sum that overflows ends as infinity or
NaN, and is made again too.

Wide formats
------------
A format with float32's exponents and any precision rounds sums to odd. Operands whose products have
no bits below the smallest normal number have no subnormal sums, and those that overflow are seen as
above.

Narrow formats
--------------
Let a format have precision p, t = p - 1, and products at most 23 - p bits. By the first case above,
with 2**(e-p) for the distance of z and m, the second rounding goes wrong only if z has bits below
2**(e-23). But z is a multiple of 2**(emin-t). So it never does if emin - t >= emax - 23, and
else where all products are less than 2**(emin-t+24). An exponent that is at least emin rounds
subnormal numbers too. In the last binade the format may overflow; factors are scaled so
that there the step itself overflows, to infinity or NaN, which stays. Of zero the sign is lost, but
for the last step's; where that adds two zeros it is not known. A format without infinity and NaN
ends at its largest number, and where that is small, zeros are many: then every step keeps the sign,
and none is in doubt.

Rounding by a factor
--------------------
Let K = 2**(23-t) and r be (1-K)·s, rounded. The last bit of K·s weighs 2**(e-t), and so does that
of r, so that K·s + r is s rounded to it. Where s < 2**e·K/(K-1) the last bit of r is finer, but
there s rounds to 2**e all the same if t <= 10. A tie goes to an even r, and K·s is even where s is
a tie. An s of less than 1.5·2**emin is rounded as if that were multiplied by K.
"""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, Any

from lowprec.formats import Format, bfloat16, float32
from lowprec.kernels.compiler import cgutils, cpu_target, intrinsic, ir, processor_has, types
from lowprec.kernels.lanes import Lanes, maximum, minimum, select
from lowprec.kernels.loops import EXACT_FLOATS, is_x86_64, kernel, swap_state
from lowprec.kernels.products.odd import fma_to_odd
from lowprec.kernels.products.vectors import FLOAT, INTEGER, Vectors
from lowprec.rounding import Overflow, Rounding, is_usual

if TYPE_CHECKING:
    from lowprec.kernels.magnitudes import Constants

_FIELD = 0x7F800000  # the bits of float32's exponent
_TRAILING, _ALL = 23, 255
_LONGEST = 11  # the bits of a format that a factor rounds to
_LARGER, _SMALLER = 3, 2  # of two magnitudes, with the first sign: AVX-512's VRANGEPS
_HAS_FLAGS = is_x86_64(cpu_target.target_context.codegen().magic_tuple()[0])
_FLUSHING, _UNDERFLOW = 1 << 15, 1 << 4  # bits of MXCSR: tiny results become 0, some did


class Quick(enum.Enum):
    """Which steps are made first, before those that are always right."""

    BFLOAT16 = "bfloat16"
    WIDE = "wide"  # rounded to odd; right unless a sum overflows
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
        is_known = is_usual(rounding, overflow) and inputs.fits(bfloat16) and _HAS_FLAGS
        return Quick.BFLOAT16 if is_known else None
    if fmt.emin == float32.emin and fmt.emax == float32.emax and fmt.signed and fmt.subnormals:
        return Quick.WIDE if 1 < fmt.precision <= _LONGEST else None
    if not (_is_narrow(inputs, fmt) and fmt.signed and fmt.precision < _LONGEST):
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


def quick_step(
    x: Lanes, y: Lanes, z: Lanes, c: Constants | None, shift: Lanes, kind: Quick, is_exact: bool
) -> Lanes:
    """Return ○(x·y + z) unless it is doubtful, of values that are scaled by 2**shift."""
    s = fma_to_odd(x, y, z, is_exact) if kind is Quick.WIDE else x.fused(y, z)
    if c is None:
        return _rounded_by(s.constant(2.0**16), s, s)
    t = c.trailing_bits
    factor = (t.constant(127 + 23) - t) << _TRAILING
    if kind is Quick.WIDE:
        return _rounded_by(factor.as_floats(), s, s)
    emin = (c.emin + shift) << _TRAILING
    if processor_has("avx512dq"):
        size = _range(s, (emin | 1 << (_TRAILING - 1)).as_floats(), _LARGER)
        total = _rounded_by(factor.as_floats(), size, s)
    else:
        size = maximum(s.as_integers() & _FIELD, emin).as_floats()
        total = _rounded_by((factor | 1 << (_TRAILING - 1)).as_floats().negated(), size, s)
    if kind is not Quick.BOUNDED:
        return total
    largest = c.overflow_positive.as_floats()
    total = with_sign_of(s, total)
    if processor_has("avx512dq"):
        return _range(total, largest, _SMALLER)
    total = select(total > largest, largest, total)
    return select(total < largest.negated(), largest.negated(), total)


def _rounded_by(factor: Lanes, size: Lanes, s: Lanes) -> Lanes:
    """Return s rounded to the last bit that factor·size has room for; of zero the sign is lost."""
    return size.fused(factor, size.fused(factor.negated(), s))


def _range(x: Lanes, y: Lanes, which: int) -> Lanes:
    word, mask = ir.IntType(32), ir.IntType(16)
    signature = ir.FunctionType(FLOAT.vector, [FLOAT.vector] * 2 + [word, FLOAT.vector, mask, word])
    name = "llvm.x86.avx512.mask.range.ps.512"
    function = cgutils.get_or_insert_function(x.builder.module, signature, name)
    undisturbed = [word(which), x.value, mask(0xFFFF), word(4)]
    return Lanes(x.builder, x.builder.call(function, [x.value, y.value, *undisturbed]))


def begin_watch(builder: Any, shift: Any) -> Any:
    """Let the processor flush and forget its flags; return the shift that steps after that need."""
    swap_state(builder, INTEGER(EXACT_FLOATS | _FLUSHING))
    return _after(builder, shift)


def end_watch(builder: Any, has_failed: Any) -> Any:
    """Return whether steps failed, as was seen, or were flushed; and flush no more."""
    state = _after(builder, builder.zext(has_failed, INTEGER))
    flags = builder.and_(swap_state(builder, INTEGER(EXACT_FLOATS)), INTEGER(_UNDERFLOW))
    return builder.icmp_unsigned("!=", builder.or_(state, flags), INTEGER(0))


def _after(builder: Any, value: Any) -> Any:
    """Return a value that to the compiler is another one: it cannot move what needs it."""
    kind = ir.FunctionType(value.type, [value.type])
    return builder.asm(kind, "", "=r,0", [value], True)


def with_sign_of(s: Lanes, total: Lanes) -> Lanes:
    """Return a total, of s or zero, with the sign of s."""
    return (total.as_integers() | (s.as_integers() & (1 << 31))).as_floats()


def has_doubt(
    begin: list[Lanes],
    ends: list[Lanes],
    last: list[tuple[Lanes, Lanes]],
    kind: Quick,
    vectors: Vectors,
) -> Any:
    """Return whether steps went wrong perhaps: by overflow, or to a zero of some sign.

    `last` are the last steps' sums of float32 and their addends, if the sign of zeros is theirs.
    """
    builder = ends[0].builder
    if kind is Quick.BOUNDED:
        return builder.icmp_unsigned("!=", INTEGER(0), INTEGER(0))
    doubts = []
    for i, (before, end) in enumerate(zip(begin, ends, strict=True)):
        doubt = (end - end).is_nan()
        if kind is Quick.NARROW:
            s, z = last[i]
            doubt = doubt | (s.equals(0.0) & z.equals(0.0))
        elif kind is not Quick.ONE_ZERO:
            doubt = doubt | (end.equals(0.0) & before.as_integers().equals(0x80000000))
        doubts.append(vectors.only_filled(doubt, i % vectors.count))
    every = functools.reduce(Lanes.__or__, doubts)
    flags = builder.bitcast(every.value, ir.IntType(every.count))
    return builder.icmp_unsigned("!=", flags, flags.type(0))


@kernel
def bfloat16_shifts(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int, int]:
    """Return whether to try quick steps, and the powers of two that scale each operand.

    `a` and `b` are the extremes of their exponents. Scaled factors are normal numbers, and so is
    an accumulator that no step doubts.
    """
    largest, smallest = a[0] + b[0] - 2 * 127, a[1] + b[1] - 2 * 127
    shift = -126 - (largest + 2 - 24)
    right = max(shift, -126 - (b[1] - 127), -126)
    left = shift - right
    if (
        max(a[0], b[0]) == _ALL
        or min(a[1], b[1]) == 1
        or smallest - 2 * 7 < -126
        or shift < -126
        or a[1] - 127 + left < -126
    ):
        return 0, 0, 0
    return 1, left, right


@kernel
def wide_shifts(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int, int]:
    """Return whether to try quick steps, and no scale."""
    has_small_products = a[1] + b[1] - 2 * 127 - 2 * _TRAILING < -126
    return int(max(a[0], b[0]) < _ALL and not has_small_products), 0, 0


@kernel
def narrow_shifts(
    largest_a: int, largest_b: int, trailing: int, emin: int, threshold: int, is_bounded: bool
) -> tuple[int, int, int]:
    """Return whether no step of a narrow format goes wrong, and the scale at which it overflows.

    Operands have these largest exponents.
    """
    last = threshold >> _TRAILING
    e = min(largest_a + largest_b - 2 * 127 + 2 + 127, last)  # products are less than 2**(e-127)
    may_try = max(largest_a, largest_b) < _ALL and emin - trailing >= e - _TRAILING
    return int(may_try), 0, 0 if is_bounded else 128 + 127 - last - (_TRAILING - trailing)


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
