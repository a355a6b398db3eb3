"""The rules of operations: operands in, one rounding.

Operands are values of the format, held exactly in float64. An operation computes float64's rounding
of the exact result together with the sign of what that left out, and from both the exact result
*rounded to odd*: its 53 leading bits, the last of which is set if anything follows. A format of at
most 24 bits never sees the difference: the conversion rule then rounds once, in every mode. With
`r` random bits, r at most 52 - p, the fraction that a stochastic mode compares is untouched too.

For formats of at most 11 bits float32 takes the place of float64 in the deterministic modes, and
less than half the time (see `suffices_float32`). There a result comes about in one of four ways:

- To nearest in float16, sums and products are the instruction of a processor that has one.
- To nearest, float32's own rounding serves: of twice the format's bits and two, rounding once more
  gives what one rounding gives. Only what float32 leaves out is gone, which `inexact` counts:
  `is_inexact` finds it again.
- Where the processor takes a direction from the instruction, an operation is made twice, rounded
  down and up. Where the two differ they are neighbours, one of them odd, and that is the result.
- Otherwise what is left out is computed, as in float64.

Results of a format with float32's own exponents may leave float32's normal numbers, where it has
fewer bits; a vector that does so is computed the second way.

Letters: `a`, `b`, `c` operands; `x` the exact result rounded to odd; `y` that result in the format.

References
----------
Figueroa: When is double rounding innocuous? (SIGNUM Newsletter, 1995). Boldo, Melquiond: Emulation
of FMA and correctly rounded sums: proved algorithms using rounding to odd (IEEE Transactions on
Computers, 2008), theorem 3. Knuth: TAOCP 2, section 4.2.2, theorem B (the error of a sum). IEEE
754-2019, sections 5.3.1, 5.4.1, 6.2, 6.3, 7 and 9.6.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.kernels.lanes import Lanes, select
from lowprec.kernels.magnitudes import ANY
from lowprec.kernels.rules import convert
from lowprec.rounding import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.formats import Format
    from lowprec.kernels.magnitudes import Constants, Plan

_INFINITY = {32: 0xFF << 23, 64: 0x7FF << 52}
_NAN = {16: 0x3F << 9, 32: 0x1FF << 22, 64: 0xFFF << 51}
_TRAILING = {32: 23, 64: 52}
_NORMAL = 1 << 23  # bits of float32's smallest normal number
_LONGEST = 11  # bits of a significand: float32's 24 are twice as many and two
_SELECTIONS = ("minimum", "maximum", "abs", "negative")  # that give an operand, but for its sign


class Limits(NamedTuple):
    """What an operation knows of the format beside `Constants`: magnitudes, as a float's bits."""

    smallest_normal: Any
    overflow_positive: Any  # the least positive x that overflows, in a deterministic mode
    overflow_negative: Any  # the magnitude of the least negative one
    normal_positive: Any  # the least positive x that is not tiny, before or after rounding
    normal_negative: Any  # the magnitude of the least negative one


class OperationPlan(NamedTuple):
    """What the kernel of an operation knows when it is compiled."""

    operation: str
    plan: Plan  # how operands and x are rounded: between floats of one width, as wide as the word
    source: str  # dtype of operands: float32 or float64
    target: str  # dtype of results
    converts: bool  # whether operands are rounded first; stochastic ones never are
    fits: bool  # whether every sum of two values is a float of that width
    is_wide: bool  # whether results may leave the normal numbers of float32, which holds them
    is_paired: bool  # whether the processor rounds operations in directions: float32, AVX-512
    flush_to_zero: bool
    denormals_are_zero: bool
    flags: bool  # whether to count events
    draws_tininess: bool  # whether the same random bits decide which x is tiny: after rounding
    in_halves: bool = False  # whether the processor's own arithmetic in float16 serves

    @property
    def width(self) -> int:
        """Bits of the floats that hold operands and x."""
        return self.plan.word

    @property
    def lanes(self) -> int:
        """How many elements are computed at a time: one 512-bit vector of float64, two of float32.

        Two share the counting of events; in float64, sums of large arrays take longer so.
        """
        return 32 if self.width == 32 else 8

    @property
    def selects(self) -> bool:
        """Whether the result is one of the operands, but for its sign: nothing is rounded."""
        return self.operation in _SELECTIONS

    @property
    def has_sign(self) -> bool:
        """Whether negative numbers have codes."""
        return self.plan.variant.has_sign

    @property
    def counts(self) -> bool:
        """Whether events are counted; what is not rounded has one where it loses its sign."""
        return self.flags and not (self.selects and self.has_sign)

    @property
    def keeps_subnormals(self) -> bool:
        """Whether every multiple of the format's smallest number below the normal ones remains."""
        return not (self.flush_to_zero or self.plan.variant.flushes)

    @property
    def is_nearest(self) -> bool:
        """Whether it is known that the mode takes the nearest value."""
        return self.plan.mode != ANY and Rounding(self.plan.mode).is_nearest

    @property
    def gives_negative_zero(self) -> bool:
        """Whether x - x is -0; a loop for any mode does not serve the one that says so."""
        return self.plan.mode != ANY and Rounding(self.plan.mode).gives_negative_zero

    @property
    def rounds_twice(self) -> bool:
        """Whether float32's nearest to an exact result may take its place."""
        return self.width == 32 and self.is_nearest

    @property
    def is_exact(self) -> bool:
        """Whether no result needs rounding."""
        return self.operation == "remainder" and self.keeps_subnormals

    @property
    def may_underflow(self) -> bool:
        """Whether a tiny result may be inexact; a sum is a multiple of the smallest number."""
        is_multiple = self.operation in ("add", "subtract", "remainder", "mod")
        return not (is_multiple and self.keeps_subnormals)


def suffices_float32(fmt: Format, operation: str, is_paired: bool, rounding: Rounding) -> bool:
    """Whether an operation in float32 gives the results that one in float64 gives.

    Products of 11 bits are exact in 24, and so are the remainders of quotients, roots and sums, if
    nothing leaves float32's exponents: values between 2**-32 and 2**32 give quotients from 2**-64
    on, whose remainders are multiples of 2**-119.

    With float32's own exponents, formats of at most 8 bits need operations in two directions; then
    a - y·b, for a result y, is a multiple of 2**-148. No exact result of two operands is nearer to
    2**128 than 2**103, so that float32's largest number, odd, stands for all that overflow; an fma
    is, and where an overflow begins at 2**128 takes float64.
    """
    if fmt.precision > _LONGEST or not fmt.has_zero or operation in ("floor_divide", "mod"):
        return False
    if not is_wide(fmt):
        return True
    if fmt.precision > 8 or fmt.emax > 127 or fmt.emin - fmt.trailing_bits < -133:
        return False
    if operation in ("remainder", *_SELECTIONS):
        return True
    begins_at_power = not rounding.is_nearest
    return is_paired and not (operation == "fma" and fmt.emax == 127 and begins_at_power)


def is_wide(fmt: Format) -> bool:
    """Whether quotients and products of values may leave float32's normal numbers."""
    lowest = math.frexp(fmt.smallest_subnormal)[1] - 1
    return lowest < -32 or fmt.emax >= 32


# Operations --------------------------------------------------------------------------------------


def to_odd(rounded: Lanes, error: Lanes, sign: Lanes | None = None) -> Lanes:
    """Return rounded + error, where error is less than half an ulp, rounded to odd.

    Where the error points toward zero, truncation is one step down; then the last bit tells that
    the result is inexact. `sign` turns the error around where its sign bit is set. An error of NaN,
    which infinities have, changes nothing.
    """
    bits = rounded.as_integers()
    signs = bits ^ error.as_integers()
    if sign is not None:
        signs = signs ^ sign.as_integers()
    odd = (bits - (signs >> (bits.bits - 1))) | 1
    return select(error.differs(0.0), odd, bits).as_floats()


def in_both_directions(operation: str, how: OperationPlan, a: Lanes, *others: Lanes) -> Lanes:
    """Return an operation's exact result rounded to odd: of the results rounded down and up.

    Where those are one number, or zeros, which are even, the first is right: -0 is what x - x gives
    toward_negative alone.
    """
    up = a.in_direction(operation, "toward_positive", *others)
    down = a.in_direction(operation, "toward_negative", *others)
    first, second = (down, up) if how.gives_negative_zero else (up, down)
    return select((second.as_integers() & 1).equals(0), first, second)


def in_range_or(x: Lanes, compute_again: Callable[[], Lanes], how: OperationPlan) -> Lanes:
    """Return x, or what a function gives for a vector that leaves float32's normal numbers."""
    if not how.is_wide:
        return x
    is_outside = (magnitude_bits(x) - (_NORMAL + 1)) >= infinity(x) - (_NORMAL + 1)
    return either(is_outside, compute_again, x)


def either(condition: Lanes, compute_again: Callable[[], Lanes], x: Lanes) -> Lanes:
    """Return x, or if a condition holds in a lane of the vector, what a function gives."""
    builder, before = x.builder, x.builder.block
    with builder.if_then((condition.count_true() > 0).value, likely=False):
        again = compute_again()
        after = builder.block
    result = builder.phi(x.value.type)
    result.add_incoming(x.value, before)
    result.add_incoming(again.value, after)
    return Lanes(builder, result)


def add(a: Lanes, b: Lanes, how: OperationPlan) -> Lanes:
    """Return a + b, exact or rounded to odd."""
    if how.is_paired and (how.flags or not how.rounds_twice) and not how.fits:
        return in_both_directions("add", how, a, b)
    total = a + b
    if how.gives_negative_zero:
        signs_differ = (a.as_integers() ^ b.as_integers()) >= sign_bit(a)
        total = select(total.equals(0.0) & signs_differ, -0.0, total)
    if how.fits or (how.rounds_twice and not how.flags):
        return total
    shift = total - a
    return to_odd(total, (a - (total - shift)) + (b - shift))


def subtract(a: Lanes, b: Lanes, how: OperationPlan) -> Lanes:
    """Return a - b, exact or rounded to odd."""
    return add(a, negated(b), how)


def multiply(a: Lanes, b: Lanes, how: OperationPlan) -> Lanes:
    """Return a·b, exact or rounded to odd."""
    product = a * b  # exact: twice the format's bits
    return in_range_or(product, lambda: in_both_directions("mul", how, a, b), how)


def square(a: Lanes, how: OperationPlan) -> Lanes:
    """Return a·a, exact or rounded to odd."""
    return multiply(a, a, how)


def divide(a: Lanes, b: Lanes, how: OperationPlan) -> Lanes:
    """Return a/b rounded to odd."""
    if how.is_wide and not how.rounds_twice:
        return in_both_directions("div", how, a, b)
    quotient = a / b
    if how.rounds_twice:
        return in_range_or(quotient, lambda: in_both_directions("div", how, a, b), how)
    return to_odd(quotient, left_of_quotient(quotient, a, b), b)


def divide_to_odd(a: Lanes, b: Lanes) -> Lanes:
    """Return a / b rounded to odd, where what the nearest quotient leaves of a is exact."""
    quotient = a / b
    return to_odd(quotient, left_of_quotient(quotient, a, b), b)


def left_of_quotient(quotient: Lanes, a: Lanes, b: Lanes) -> Lanes:
    """Return a - q·b, which is exact."""
    return negated(quotient).fused(b, a)


def sqrt(a: Lanes, how: OperationPlan) -> Lanes:
    """Return the square root rounded to odd."""
    if how.is_wide and not how.rounds_twice:
        return in_both_directions("sqrt", how, a)
    root = a.square_root()
    return root if how.rounds_twice else to_odd(root, left_of_quotient(root, a, root))


def fma(a: Lanes, b: Lanes, c: Lanes, how: OperationPlan) -> Lanes:
    """Return a·b + c rounded to odd."""
    if how.is_paired:
        return in_both_directions("vfmadd", how, a, b, c)
    return add(a * b, c, how._replace(fits=False, flags=True))


def remainder(a: Lanes, b: Lanes, how: OperationPlan) -> Lanes:
    """Return a - n·b with n the integer nearest to a/b, of two the even one; exact.

    With a and b of p bits, a/b is a multiple of 1/2 or farther than 2**-(p + 1) from any
    (relatively, if it is small): a quotient of P bits is on the same side, as long as it is below
    2**(P - p - 1). So is float32's for 11 bits below 2**12, and float64's for 24 below 2**28.
    """
    quotient = a / b
    to_integer = 1.5 * 2.0 ** _TRAILING[a.bits]  # what is added is rounded, ties to even
    n = (quotient + to_integer) - to_integer
    left = left_of_quotient(n, a, b)
    sign = select(left.equals(0.0), a.as_integers() & sign_bit(a), 0)
    near = (left.as_integers() | sign).as_floats()
    limit = 2.0**12 if a.bits == 32 else 2.0**28
    is_far = ~((magnitude(quotient) < limit) & (magnitude(b) < math.inf))  # NaN is far as well
    if a.bits == 64:
        return either(is_far, lambda: _remainder_of_far(a, b), near)

    def in_float64() -> Lanes:
        return remainder(a.float_resized(64), b.float_resized(64), how).float_resized(32)

    return either(is_far, in_float64, near)


def _remainder_of_far(a: Lanes, b: Lanes) -> Lanes:
    """Return the remainder of any operands.

    What is left of |a| by 2|b| lies between 0 and 2|b|: at most two steps of |b| remain.
    """
    sign, size = a.as_integers() & sign_bit(a), magnitude(b)
    left = magnitude(a).truncated_remainder(size + size)
    first = select(left + left > size, left - size, left)
    second = select((left + left > size) & (first + first >= size), first - size, first)
    return (second.as_integers() ^ sign).as_floats()


def floor_divide(a: Lanes, b: Lanes, how: OperationPlan) -> Lanes:
    """Return the floor of a/b rounded to odd, in float64; of infinite a NaN, as in NumPy.

    No integer below 2**52 is odd among numbers of 53 bits: a quotient rounded to odd has the floor
    of the exact one. Beyond, the floor of what the quotient leaves is added to it.
    """
    quotient = a / b
    left = left_of_quotient(quotient, a, b)
    near = to_odd(quotient, left, b).rounded_down()
    size = magnitude(quotient)
    is_far = (size >= 2.0**52) & (size < math.inf)

    def with_far() -> Lanes:
        rest = divide_to_odd(left, b).rounded_down()
        return select(is_far, add(quotient, rest, how._replace(fits=False)), near)

    floor = either(is_far, with_far, near)
    # of a number by an infinity of the other sign: zero, though the quotient is less
    is_less = quotient.equals(0.0) & a.differs(0.0) & (quotient.as_integers() >= sign_bit(a))
    floor = select(is_less, -1.0, floor)
    return select(magnitude(a).equals(math.inf) & b.differs(0.0), a - a, floor)


def mod(a: Lanes, b: Lanes, how: OperationPlan) -> Lanes:
    """Return a - floor(a/b)·b rounded to odd, in float64; zero has the sign of b.

    What division leaves if its quotient is truncated is exact. Where its sign is not that of b, b
    is added. Quotients below 2**28 have products with b of at most 52 bits.
    """
    size, divisor = magnitude(a), magnitude(b)
    quotient = size / divisor
    whole = divide_to_odd(size, divisor).rounded_down()
    near = left_of_quotient(whole, size, divisor)
    is_far = ~((quotient < 2.0**28) & (divisor < math.inf))  # NaN is far as well
    left = either(is_far, lambda: size.truncated_remainder(divisor), near)
    left = (left.as_integers() | (a.as_integers() & sign_bit(a))).as_floats()
    signs_differ = (a.as_integers() ^ b.as_integers()) >= sign_bit(a)
    turned = select(signs_differ, add(left, b, how._replace(fits=False)), left)
    zero = (b.as_integers() & sign_bit(b)).as_floats()
    return select(left.equals(0.0), zero, turned)


def rounded(a: Lanes, how: OperationPlan) -> Lanes:
    """Return a, which is an exact result, or stands for one."""
    return a


def absolute(a: Lanes, how: OperationPlan) -> Lanes:
    """Return |a|."""
    return magnitude(a)


def negative(a: Lanes, how: OperationPlan) -> Lanes:
    """Return -a."""
    return negated(a)


def minimum(a: Lanes, b: Lanes, how: OperationPlan) -> Lanes:
    """Return the smaller of both; -0 is less than +0."""
    zero = (a.as_integers() | b.as_integers()).as_floats()  # -0 is less than +0
    return _one_of(a, b, a < b, zero)


def maximum(a: Lanes, b: Lanes, how: OperationPlan) -> Lanes:
    """Return the larger of both; -0 is less than +0."""
    zero = (a.as_integers() & b.as_integers()).as_floats()
    return _one_of(a, b, a > b, zero)


def _one_of(a: Lanes, b: Lanes, first: Lanes, of_equals: Lanes) -> Lanes:
    """Choose one of two numbers; NaN if one of them is (section 9.6)."""
    chosen = select(a.equals(b), of_equals, select(first, a, b))
    return select(a.is_nan(), a, select(b.is_nan(), b, chosen))


OPERATIONS: dict[str, tuple[int, Callable[..., Lanes]]] = {
    "add": (2, add),
    "subtract": (2, subtract),
    "multiply": (2, multiply),
    "divide": (2, divide),
    "sqrt": (1, sqrt),
    "fma": (3, fma),
    "remainder": (2, remainder),
    "minimum": (2, minimum),
    "maximum": (2, maximum),
    "square": (1, square),
    "round": (1, rounded),
    "abs": (1, absolute),
    "negative": (1, negative),
    "floor_divide": (2, floor_divide),
    "mod": (2, mod),
}


def sign_bit(x: Lanes) -> int:
    """Return the sign among the bits of a float."""
    return 1 << (x.bits - 1)


def infinity(x: Lanes) -> int:
    """Return the bits of positive infinity, as wide as x."""
    return _INFINITY[x.bits]


def negated(x: Lanes) -> Lanes:
    """Return -x."""
    return (x.as_integers() ^ sign_bit(x)).as_floats()


def magnitude_bits(x: Lanes) -> Lanes:
    """Return the bits of floats without their sign, which are ordered as the magnitudes are."""
    return x.as_integers() & (sign_bit(x) - 1)


def coded_bits(x: Lanes, how: OperationPlan) -> Lanes:
    """Return the bits of magnitudes; negative numbers are beyond all where they have no code."""
    return magnitude_bits(x) if how.has_sign else x.as_integers()


def magnitude(x: Lanes) -> Lanes:
    """Return floats without their sign."""
    return magnitude_bits(x).as_floats()


# Before and after --------------------------------------------------------------------------------


def read_operands(xs: list[Lanes], how: OperationPlan, c: Constants, limits: Limits) -> list[Lanes]:
    """Return operands as values of the format."""
    xs = [x.float_resized(how.width) for x in xs]
    if how.converts and how.plan.twin == "aligned":
        xs = _converted_if_need_be(xs, how, c)
    elif how.converts:  # what NaN is does not matter: results have one of their own
        xs = [convert(x, how.plan, c, c.emin, nan_is_canonical=True) for x in xs]
    if not how.denormals_are_zero:
        return xs
    return [flushed(x, magnitude_bits(x) < limits.smallest_normal, how) for x in xs]


def _converted_if_need_be(xs: list[Lanes], how: OperationPlan, c: Constants) -> list[Lanes]:
    """Convert a vector of each operand unless all are values: none has a bit that is rounded off.

    A deterministic mode looks at no random bits.
    """
    builder, before = xs[0].builder, xs[0].builder.block
    bits = functools.reduce(operator.or_, [x.as_integers() for x in xs])
    has_more = (bits & ((1 << how.plan.shift) - 1)).differs(0)
    with builder.if_then((has_more.count_true() > 0).value, likely=False):
        converted = [convert(x, how.plan, c, c.emin) for x in xs]
        after = builder.block
    values = []
    for x, y in zip(xs, converted, strict=True):
        value = builder.phi(x.value.type)
        value.add_incoming(x.value, before)
        value.add_incoming(y.value, after)
        values.append(Lanes(builder, value))
    return values


def is_tiny(x: Lanes, R: Lanes, how: OperationPlan, c: Constants, limits: Limits) -> Lanes:
    """Return where x is tiny: less than the smallest normal number, before or after rounding.

    After rounding means that the exponent is taken as unbounded below. Then 2x, where the format
    still has its full precision, is rounded as x is: up to twice that number, or not.
    """
    bits = magnitude_bits(x)
    if not how.draws_tininess:
        return bits < side_of(x, how, limits.normal_positive, limits.normal_negative)
    c = c._replace(max_code=c.max_code.constant((1 << (how.width - 1)) - 1))
    twice = magnitude_bits(convert(x + x, how.plan, c, R))
    least_normal = limits.smallest_normal + (1 << _TRAILING[how.width])
    return (bits < limits.smallest_normal) & (twice < least_normal)


def side_of(x: Lanes, how: OperationPlan, positive: Lanes, negative: Lanes) -> Lanes:
    """Return the limit for the sign of x; to nearest both are one number."""
    if how.is_nearest:
        return positive
    return select(x < 0.0, negative, positive)


def flushed(x: Lanes, tiny: Lanes, how: OperationPlan) -> Lanes:
    """Return zero of the same sign, if the format has it, where x is tiny.

    Negative numbers that have no code stay, and become NaN.
    """
    bits = x.as_integers()
    zero = bits.constant(0) if how.plan.variant.is_fnuz else bits & sign_bit(x)
    if not how.has_sign:
        tiny = tiny & (bits < sign_bit(x))
    return select(tiny, zero, bits).as_floats()


def compute(operands: list[Lanes], how: OperationPlan) -> Lanes:
    """Return x; NaN without a sign, chosen among integers, for LLVM takes any NaN for another."""
    x = OPERATIONS[how.operation][1](*operands, how)
    return select(x.is_nan(), _NAN[x.bits], x.as_integers()).as_floats()


def round_result(x: Lanes, how: OperationPlan, c: Constants, limits: Limits, R: Lanes) -> Lanes:
    """Return y, in a float as wide as x."""
    if how.flush_to_zero and not how.selects:
        x = flushed(x, is_tiny(x, R, how, c, limits), how)
    y = convert(x, how.plan, c, R, nan_is_canonical=True)
    if not how.plan.variant.is_fnuz:
        return y
    # conversion gives the one NaN the sign of its code; that of an operation has none
    return select(x.is_nan(), x.as_integers(), y.as_integers()).as_floats()


def computed_in_halves(loaded: list[Lanes], how: OperationPlan) -> Lanes:
    """Return y of float32 operands, of which float16's own instruction rounds the exact result."""
    a, b = (x.to_half(how.plan.mode).as_floats() for x in loaded)
    y = {"add": a + b, "subtract": a - b, "multiply": a * b}[how.operation]
    return select(y.is_nan(), _NAN[16], y.as_integers()).as_floats().float_resized(32)


def is_inexact(operands: list[Lanes], x: Lanes, y: Lanes, how: OperationPlan) -> Lanes:
    """Return where y, a number, is not the exact result that was rounded to x.

    A float32 to nearest may be y though the exact result is not; what y leaves of the operands
    is exact.
    """
    inexact = ~y.equals(x)
    if not how.rounds_twice or how.operation not in ("divide", "sqrt"):
        return inexact
    left = left_of_quotient(y, operands[0], operands[1] if how.operation == "divide" else y)
    return inexact | left.differs(0.0)
