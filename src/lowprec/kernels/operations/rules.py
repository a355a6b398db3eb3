"""The rules of operations: operands in, one rounding.

Operands are values of the format, held exactly in float64. An operation computes float64's rounding
of the exact result together with the sign of what that left out, and from both the exact result
*rounded to odd*: its 53 leading bits, the last of which is set if anything follows. A format of at
most 24 bits never sees the difference: the conversion rule then rounds once, in every mode. With
`r` random bits, r at most 52 - p, the fraction that a stochastic mode compares is untouched too.

For formats of few bits and few exponents, such as float16 and float8_e4m3fn, float32 takes the
place of float64 in the deterministic modes, and half the time (see `suffices_float32`).

Letters: `a`, `b`, `c` operands; `x` the exact result rounded to odd; `y` that result in the format.

References
----------
Boldo, Melquiond: Emulation of FMA and correctly rounded sums: proved algorithms using rounding to
odd (IEEE Transactions on Computers, 2008), theorem 3. Knuth: TAOCP 2, section 4.2.2, theorem B
(the error of a sum). IEEE 754-2019, sections 5.3.1, 5.4.1, 6.2, 6.3, 7 and 9.6.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.kernels.lanes import Lanes, select
from lowprec.kernels.rules import Constants, Plan, convert
from lowprec.rounding import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.formats import Format

__all__ = [
    "OPERATIONS",
    "Limits",
    "Task",
    "coded_bits",
    "compute",
    "infinity",
    "is_tiny",
    "magnitude",
    "magnitude_bits",
    "read_operand",
    "round_result",
    "suffices_float32",
]

_INFINITY = {32: 0xFF << 23, 64: 0x7FF << 52}
_NAN = {32: 0x1FF << 22, 64: 0xFFF << 51}
_TO_INTEGER = 1.5 * 2.0**52  # what is added to this is rounded to an integer, ties to even


class Limits(NamedTuple):
    """What an operation knows of the format beside `Constants`: magnitudes, as a float's bits."""

    smallest_normal: Any
    overflow_positive: Any  # the least positive x that overflows, in a deterministic mode
    overflow_negative: Any  # the magnitude of the least negative one
    normal_positive: Any  # the least positive x that is not tiny, before or after rounding
    normal_negative: Any  # the magnitude of the least negative one


class Task(NamedTuple):
    """What a kernel knows of its work when it is compiled."""

    operation: str
    plan: Plan  # how operands and x are rounded: between floats of one width, as wide as the word
    source: str  # dtype of operands: float32 or float64
    target: str  # dtype of results
    converts: bool  # whether operands are rounded first; stochastic ones never are
    fits: bool  # whether every sum of two values is a float of that width
    flush_to_zero: bool
    denormals_are_zero: bool
    flags: bool  # whether to count events
    draws_tininess: bool  # whether the same random bits decide which x is tiny: after rounding

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
        """Whether the result is one of the operands, so that nothing is rounded or counted."""
        return self.operation in ("minimum", "maximum")

    @property
    def keeps_subnormals(self) -> bool:
        """Whether every multiple of the format's smallest number below the normal ones remains."""
        return not (self.flush_to_zero or self.plan.variant.endswith("flush"))

    @property
    def is_exact(self) -> bool:
        """Whether no result needs rounding."""
        return self.operation == "remainder" and self.keeps_subnormals

    @property
    def may_underflow(self) -> bool:
        """Whether a tiny result may be inexact; a sum is a multiple of the smallest number."""
        is_multiple = self.operation in ("add", "subtract", "remainder")
        return not (is_multiple and self.keeps_subnormals)


def suffices_float32(fmt: Format, operation: str) -> bool:
    """Whether an operation in float32 gives results rounded to odd, as one in float64 does.

    Products of 12 bits are exact in 24, and so are the remainders of quotients, roots and sums, if
    nothing leaves float32's exponents: values between 2**-32 and 2**32 give quotients from 2**-64
    on, whose remainders are multiples of 2**-119.
    """
    lowest = math.frexp(fmt.smallest_subnormal)[1] - 1
    return (
        fmt.has_zero
        and fmt.precision <= 12
        and lowest >= -32
        and fmt.emax < 32
        and operation != "remainder"
    )


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


def add(a: Lanes, b: Lanes, task: Task) -> Lanes:
    total = a + b
    if Rounding(task.plan.mode).gives_negative_zero:
        signs_differ = (a.as_integers() ^ b.as_integers()) >= sign_bit(a)
        total = select(total.equals(0.0) & signs_differ, -0.0, total)
    if task.fits:
        return total
    shift = total - a
    return to_odd(total, (a - (total - shift)) + (b - shift))


def subtract(a: Lanes, b: Lanes, task: Task) -> Lanes:
    return add(a, negated(b), task)


def multiply(a: Lanes, b: Lanes, task: Task) -> Lanes:
    return a * b  # exact: twice the format's bits


def divide(a: Lanes, b: Lanes, task: Task) -> Lanes:
    quotient = a / b
    remainder = negated(quotient).fused(b, a)  # exact
    return to_odd(quotient, remainder, b)


def sqrt(a: Lanes, task: Task) -> Lanes:
    root = a.square_root()
    return to_odd(root, negated(root).fused(root, a))  # the remainder is exact


def fma(a: Lanes, b: Lanes, c: Lanes, task: Task) -> Lanes:
    return add(a * b, c, task._replace(fits=False))


def remainder(a: Lanes, b: Lanes, task: Task) -> Lanes:
    """Return a - n·b with n the integer nearest to a/b, of two the even one; exact, as a double.

    With a and b of 24 bits, a/b is a multiple of 1/2 or farther than 2**-25 from any (relatively,
    if it is small): float64's quotient is on the same side, as long as it is below 2**28.
    """
    quotient = a / b
    n = (quotient + _TO_INTEGER) - _TO_INTEGER
    left = negated(n).fused(b, a)
    sign = select(left.equals(0.0), a.as_integers() & sign_bit(a), 0)
    near = (left.as_integers() | sign).as_floats()
    is_far = ~((magnitude(quotient) < 2.0**28) & (magnitude(b) < math.inf))  # NaN is far as well
    before, builder = near.builder.block, near.builder
    with builder.if_then((is_far.count_true() > 0).value, likely=False):
        far = _remainder_of_far(a, b)
        after = builder.block
    result = builder.phi(near.value.type)
    result.add_incoming(near.value, before)
    result.add_incoming(far.value, after)
    return Lanes(builder, result)


def _remainder_of_far(a: Lanes, b: Lanes) -> Lanes:
    """Return the remainder of any operands.

    What is left of |a| by 2|b| lies between 0 and 2|b|: at most two steps of |b| remain.
    """
    sign, size = a.as_integers() & sign_bit(a), magnitude(b)
    left = magnitude(a).truncated_remainder(size + size)
    first = select(left + left > size, left - size, left)
    second = select((left + left > size) & (first + first >= size), first - size, first)
    return (second.as_integers() ^ sign).as_floats()


def minimum(a: Lanes, b: Lanes, task: Task) -> Lanes:
    zero = (a.as_integers() | b.as_integers()).as_floats()  # -0 is less than +0
    return _one_of(a, b, a < b, zero)


def maximum(a: Lanes, b: Lanes, task: Task) -> Lanes:
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
}


def sign_bit(x: Lanes) -> int:
    """Return the sign among the bits of a float."""
    return 1 << (x.bits - 1)


def infinity(x: Lanes) -> int:
    """Return the bits of positive infinity, as wide as x."""
    return _INFINITY[x.bits]


def negated(x: Lanes) -> Lanes:
    return (x.as_integers() ^ sign_bit(x)).as_floats()


def magnitude_bits(x: Lanes) -> Lanes:
    """Return the bits of floats without their sign, which are ordered as the magnitudes are."""
    return x.as_integers() & (sign_bit(x) - 1)


def coded_bits(x: Lanes, task: Task) -> Lanes:
    """Return the bits of magnitudes; negative numbers are beyond all where they have no code."""
    has_sign = not task.plan.variant.startswith(("unsigned", "scale"))
    return magnitude_bits(x) if has_sign else x.as_integers()


def magnitude(x: Lanes) -> Lanes:
    """Return floats without their sign."""
    return magnitude_bits(x).as_floats()


# Before and after --------------------------------------------------------------------------------


def read_operand(x: Lanes, task: Task, c: Constants, limits: Limits) -> Lanes:
    """Return an operand as a value of the format."""
    x = x.float_resized(task.width)
    if task.converts:
        x = convert(x, task.plan, c, c.emin)  # a deterministic mode looks at no random bits
    if not task.denormals_are_zero:
        return x
    return flushed(x, magnitude_bits(x) < limits.smallest_normal, task)


def is_tiny(x: Lanes, R: Lanes, task: Task, c: Constants, limits: Limits) -> Lanes:
    """Return where x is tiny: less than the smallest normal number, before or after rounding.

    After rounding means that the exponent is taken as unbounded below. Then 2x, where the format
    still has its full precision, is rounded as x is: up to twice that number, or not.
    """
    bits = magnitude_bits(x)
    if not task.draws_tininess:
        return bits < select(x < 0.0, limits.normal_negative, limits.normal_positive)
    c = c._replace(max_code=c.max_code.constant((1 << (task.width - 1)) - 1))
    twice = magnitude_bits(convert(x + x, task.plan, c, R))
    least_normal = limits.smallest_normal + (1 << {32: 23, 64: 52}[task.width])
    return (bits < limits.smallest_normal) & (twice < least_normal)


def flushed(x: Lanes, tiny: Lanes, task: Task) -> Lanes:
    """Return zero of the same sign, if the format has it, where x is tiny.

    Negative numbers that have no code stay, and become NaN.
    """
    bits = x.as_integers()
    zero = bits.constant(0) if task.plan.variant.startswith("fnuz") else bits & sign_bit(x)
    if task.plan.variant.startswith(("unsigned", "scale")):
        tiny = tiny & (bits < sign_bit(x))
    return select(tiny, zero, bits).as_floats()


def compute(operands: list[Lanes], task: Task) -> Lanes:
    """Return x; NaN without a sign."""
    x = OPERATIONS[task.operation][1](*operands, task)
    return select(x.is_nan(), x.as_integers().constant(_NAN[x.bits]).as_floats(), x)


def round_result(x: Lanes, task: Task, c: Constants, limits: Limits, R: Lanes) -> Lanes:
    """Return y, in a float as wide as x."""
    if task.flush_to_zero and not task.selects:
        x = flushed(x, is_tiny(x, R, task, c, limits), task)
    return convert(x, task.plan, c, R)
