"""A second opinion: the operations on integers alone, to which `lowprec verify` holds the library.

Nothing here is shared with the kernels that it judges. Those compute in float64, round to odd and
convert; here a code is taken apart into a sign, a significand and an exponent, the exact result is
formed in 64-bit integers, and one shift rounds it. Functions have no branches, so that LLVM makes
vectors of them.

A number is ``significand · 2**exponent`` units, a unit being the smallest subnormal number. How to
round is a table of truth: bit ``8·negative + 4·odd + 2·half + rest`` of a *rule* says whether the
magnitude goes up, where `odd` is the last bit kept, `half` the first bit lost, and `rest` whether
any bit after it is set. Bit 16 says whether zero, as the sum of opposite numbers, is negative.

References
----------
IEEE 754-2019, sections 3.4, 4.3, 5.4.1, 6 and 7; Muller et al., Handbook of Floating-Point
Arithmetic, 2nd edition, chapter 7.
"""

from __future__ import annotations

from typing import Any, NamedTuple, assert_never

import numpy as np

from lowprec.formats import Format, Specials
from lowprec.kernels.compiler import intrinsic, ir, types
from lowprec.kernels.loops import kernel
from lowprec.rounding import Rounding

_LONGEST = 11  # bits of a significand: a product has 22
_WIDTH = 24  # bits of a normalised addend: a product, and two more
_DISTANCE = 36  # beyond which an addend only tells that it is there; 61 bits in all
_QUOTIENT = 2 * _LONGEST + 2  # at least 13 bits, whatever is divided by whatever
_RADICAND = 30  # places, or 29: 41 bits at most, and a root of 15 at least
_NOWHERE = -(1 << 20)  # the exponent of zero, where numbers are aligned by their leading bits
_FARTHEST = 62  # to the right goes every bit
_WHOLE = 50  # places: quotients of numbers so far apart are integers of at most 61 bits
_SHORT = 40  # places, where they are farther apart: what follows is more than one and not the next

_inlined = kernel(forceinline=True)  # or LLVM keeps the calls, and makes no vectors

_INVALID, _BY_ZERO, _OVERFLOW, _UNDERFLOW, _INEXACT = 1, 2, 4, 8, 16


class CodeFields(NamedTuple):
    """Where a format has what, as integers."""

    trailing: int  # bits of the significand that are stored
    width: int  # bits of a magnitude, which is also the place of the sign
    lowest: int  # exponent of the smallest subnormal number
    max_code: int
    infinity: int  # its code, -1 where there is none
    nan: int  # the canonical one


def code_fields(fmt: Format) -> CodeFields:
    """Return the layout of a format.

    Raises
    ------
    ValueError
        If the format is of a kind that this oracle knows nothing of.
    """
    kinds = (Specials.IEEE, Specials.FN)
    if not (fmt.signed and fmt.subnormals and fmt.specials in kinds):
        raise ValueError(
            f"no integer oracle for {str(fmt)!r}: it knows signed formats with subnormal numbers "
            "and NaN, IEEE's or those that end in fn; try float16, bfloat16 or float8_e4m3fn"
        )
    infinity, nan = fmt.infinity_code, fmt.nan_code
    return CodeFields(
        fmt.trailing_bits,
        fmt.bits - 1,
        fmt.emin - fmt.trailing_bits,
        fmt.max_code,
        -1 if infinity is None else infinity,
        -1 if nan is None else nan,
    )


def rule_of(rounding: Rounding) -> int:
    """Return the table of truth of a deterministic rounding mode.

    Examples
    --------
    >>> f"{rule_of(Rounding.TIES_TO_EVEN):016b}"  # up from .11, and from .10 after an odd bit
    '1100100011001000'
    """
    table = sum(
        _goes_up(rounding, place >> 3, place >> 2 & 1, place >> 1 & 1, place & 1) << place
        for place in range(16)
    )
    return table | (rounding is Rounding.TOWARD_NEGATIVE) << 16


def _goes_up(rounding: Rounding, negative: int, odd: int, half: int, rest: int) -> int:
    match rounding:
        case Rounding.TIES_TO_EVEN:
            return half & (odd | rest)
        case Rounding.TIES_TO_AWAY:
            return half
        case Rounding.TIES_TOWARD_ZERO:
            return half & rest
        case Rounding.TOWARD_ZERO:
            return 0
        case Rounding.AWAY_FROM_ZERO:
            return half | rest
        case Rounding.TOWARD_POSITIVE:
            return (half | rest) & (1 - negative)
        case Rounding.TOWARD_NEGATIVE:
            return (half | rest) & negative
        case Rounding.TO_ODD:
            return (half | rest) & (1 - odd)
        case Rounding.STOCHASTIC | Rounding.STOCHASTIC_EQUAL:
            raise ValueError(f"{rounding.value!r} draws random bits; use a deterministic mode")
        case _:
            assert_never(rounding)


# Taking apart and putting together ---------------------------------------------------------------


@intrinsic
def _bit_length(_: Any, x: Any) -> Any:
    """Return how many bits a non-negative integer has; 0 for 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zeros = builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))
        return builder.sub(ir.Constant(ir.IntType(64), 64), zeros)

    return types.int64(types.int64), generate


@_inlined
def _unpack(code: int, f: Any) -> tuple[int, int, int]:
    """Return the sign, the significand and the exponent of a finite number."""
    magnitude = code & ((1 << f.width) - 1)
    field = magnitude >> f.trailing
    is_normal = np.int64(field > 0)
    significand = (magnitude & ((1 << f.trailing) - 1)) | (is_normal << f.trailing)
    return code >> f.width, significand, field - is_normal


@_inlined
def _is_infinite(code: int, f: Any) -> Any:
    return (code & ((1 << f.width) - 1)) == f.infinity


@_inlined
def _is_nan(code: int, f: Any) -> Any:
    magnitude = code & ((1 << f.width) - 1)
    return (magnitude > f.max_code) & (magnitude != f.infinity)


@_inlined
def round_number(
    negative: int, significand: int, exponent: int, f: Any, rule: int
) -> tuple[int, int]:
    """Return the code and the events of a number that is not zero.

    The unit of the last place is that of the p leading bits, or of the subnormal numbers. A carry
    out of the significand arrives in the exponent field, where it belongs.
    """
    length = _bit_length(significand)
    lost = max(length - 1 - f.trailing, -exponent)
    right = min(max(lost, 0), _FARTHEST)
    wide = significand << max(-lost, 0)
    kept = wide >> right
    middle = (1 << right) >> 1
    half = np.int64((wide & middle) != 0)
    rest = np.int64((wide & (((1 << right) - 1) ^ middle)) != 0)
    place = (negative << 3) | ((kept & 1) << 2) | (half << 1) | rest
    code = ((exponent + lost) << f.trailing) + kept + ((rule >> place) & 1)
    overflows = code > f.max_code
    # whoever rounds odd.11 up has gone beyond the largest number: to infinity, or NaN
    beyond = f.max_code + ((rule >> ((negative << 3) | 7)) & 1)
    is_inexact = ((half | rest) != 0) | overflows
    is_tiny = length + exponent <= f.trailing
    events = _OVERFLOW if overflows else 0
    events |= _INEXACT if is_inexact else 0
    events |= _UNDERFLOW if is_tiny & is_inexact else 0
    return (negative << f.width) | (beyond if overflows else code), events


@_inlined
def _infinity(negative: int, f: Any) -> Any:
    """Return the code of infinity, or of the signed NaN that stands for it."""
    return (negative << f.width) | (f.max_code + 1)


# Operations --------------------------------------------------------------------------------------


@_inlined
def _sum(s: int, x: int, e: int, t: int, y: int, h: int, f: Any, rule: int) -> tuple[int, int]:
    """Add (-1)**s · x · 2**e and (-1)**t · y · 2**h, of at most 22 bits each.

    Leading bits are brought to the same place. Then of numbers more than 36 places apart the lesser
    lies between zero and the last bit of the greater, and is as good as any that does.
    """
    up, away = _WIDTH - _bit_length(x), _WIDTH - _bit_length(y)
    x, e = x << up, (e - up if x != 0 else _NOWHERE)
    y, h = y << away, (h - away if y != 0 else _NOWHERE)
    top = max(e, h)
    x = x << (_DISTANCE - min(top - e, _DISTANCE))
    y = y << (_DISTANCE - min(top - h, _DISTANCE))
    total = (-x if s else x) + (-y if t else y)
    code, events = round_number(np.int64(total < 0), abs(total), top - _DISTANCE, f, rule)
    zero = s if s == t else (rule >> 16) & 1  # IEEE 754-2019, section 6.3
    is_zero = total == 0
    return ((zero << f.width) if is_zero else code), (0 if is_zero else events)


@_inlined
def _special(
    code: int, events: int, is_infinite: Any, negative: int, invalid: Any, unknown: Any, f: Any
) -> tuple[int, int]:
    """Put infinity, and NaN without a sign, where they belong; NaN from NaN is not an event."""
    code = _infinity(negative, f) if is_infinite else code
    code = f.nan if invalid | unknown else code
    events = 0 if is_infinite | unknown else events
    return code, (_INVALID if invalid & (not unknown) else events)


@_inlined
def _add(a: int, b: int, c: int, f: Any, rule: int) -> tuple[int, int]:
    s, x, e = _unpack(a, f)
    t, y, h = _unpack(b, f)
    code, events = _sum(s, x, e, t, y, h, f, rule)
    first, second = _is_infinite(a, f), _is_infinite(b, f)
    invalid = first & second & (s != t)
    unknown = _is_nan(a, f) | _is_nan(b, f)
    return _special(code, events, first | second, s if first else t, invalid, unknown, f)


@_inlined
def _subtract(a: int, b: int, c: int, f: Any, rule: int) -> tuple[int, int]:
    return _add(a, b ^ (1 << f.width), c, f, rule)


@_inlined
def _multiply(a: int, b: int, c: int, f: Any, rule: int) -> tuple[int, int]:
    s, x, e = _unpack(a, f)
    t, y, h = _unpack(b, f)
    negative = s ^ t
    code, events = round_number(negative, x * y, e + h + f.lowest, f, rule)
    is_zero = (x == 0) | (y == 0)
    code, events = ((negative << f.width) if is_zero else code), (0 if is_zero else events)
    infinite = _is_infinite(a, f) | _is_infinite(b, f)
    unknown = _is_nan(a, f) | _is_nan(b, f)
    return _special(code, events, infinite, negative, infinite & is_zero, unknown, f)


@_inlined
def _divide(a: int, b: int, c: int, f: Any, rule: int) -> tuple[int, int]:
    s, x, e = _unpack(a, f)
    t, y, h = _unpack(b, f)
    negative = s ^ t
    dividend, divisor = np.uint64(x << _QUOTIENT), np.uint64(max(y, 1))
    quotient = dividend // divisor
    remains = np.int64(quotient * divisor != dividend)
    exponent = e - h - _QUOTIENT - 1 - f.lowest
    code, events = round_number(negative, (np.int64(quotient) << 1) | remains, exponent, f, rule)
    first, second = _is_infinite(a, f), _is_infinite(b, f)
    is_zero = (x == 0) | second
    code, events = ((negative << f.width) if is_zero else code), (0 if is_zero else events)
    by_zero = (y == 0) & (not first)
    invalid = (first & second) | ((x == 0) & (y == 0))
    unknown = _is_nan(a, f) | _is_nan(b, f)
    code, events = _special(code, events, first | by_zero, negative, invalid, unknown, f)
    return code, (_BY_ZERO if by_zero & (x != 0) & (not unknown) else events)


@_inlined
def _fma(a: int, b: int, c: int, f: Any, rule: int) -> tuple[int, int]:
    s, x, e = _unpack(a, f)
    t, y, h = _unpack(b, f)
    u, z, g = _unpack(c, f)
    negative = s ^ t
    code, events = _sum(negative, x * y, e + h + f.lowest, u, z, g, f, rule)
    first, second = _is_infinite(a, f) | _is_infinite(b, f), _is_infinite(c, f)
    invalid = first & (((x == 0) | (y == 0)) | (second & (negative != u)))
    unknown = _is_nan(a, f) | _is_nan(b, f) | _is_nan(c, f)
    sign = negative if first else u
    return _special(code, events, first | second, sign, invalid, unknown, f)


@_inlined
def _integer_root(x: int) -> int:
    """Return the largest integer whose square does not exceed x, of at most 42 bits."""
    root = 0
    for place in range(20, -1, -1):
        grown = root | (1 << place)
        root = grown if grown * grown <= x else root
    return root


@_inlined
def _sqrt(a: int, b: int, c: int, f: Any, rule: int) -> tuple[int, int]:
    s, x, e = _unpack(a, f)
    places = _RADICAND - ((e + f.lowest) & 1)  # an even exponent is left
    root = _integer_root(x << places)
    remains = np.int64(root * root != x << places)
    exponent = ((e + f.lowest - places) >> 1) - 1 - f.lowest
    code, events = round_number(0, (root << 1) | remains, exponent, f, rule)
    is_zero = x == 0
    code, events = ((s << f.width) if is_zero else code), (0 if is_zero else events)
    invalid = (s != 0) & (x != 0)
    return _special(code, events, _is_infinite(a, f), 0, invalid, _is_nan(a, f), f)


@_inlined
def _square(a: int, b: int, c: int, f: Any, rule: int) -> tuple[int, int]:
    return _multiply(a, a, c, f, rule)


@_inlined
def _abs(a: int, b: int, c: int, f: Any, rule: int) -> tuple[int, int]:
    return (f.nan if _is_nan(a, f) else a & ((1 << f.width) - 1)), 0


@_inlined
def _negative(a: int, b: int, c: int, f: Any, rule: int) -> tuple[int, int]:
    return (f.nan if _is_nan(a, f) else a ^ (1 << f.width)), 0


@_inlined
def _floor_divide(a: int, b: int, c: int, f: Any, rule: int) -> tuple[int, int]:
    """Divide integers; below zero what remains makes one more of the magnitude."""
    s, x, e = _unpack(a, f)
    t, y, h = _unpack(b, f)
    negative, apart = s ^ t, e - h
    first, second = _is_infinite(a, f), _is_infinite(b, f)
    up = _SHORT if apart > _WHOLE else max(apart, 0)
    dividend, divisor = (
        np.uint64(x << up),
        np.uint64(max(y, 1) << min(max(-apart, 0), _LONGEST + 1)),
    )
    quotient = np.int64(0) if second else np.int64(dividend // divisor)
    remains = np.int64(x != 0) if second else np.int64(dividend % divisor != 0)
    beyond = np.int64(0) if second else max(apart - up, 0)
    whole = (quotient + (negative & remains)) << 1
    significand = whole if beyond == 0 else (quotient << 1) | remains
    code, events = round_number(negative, significand, beyond - 1 - f.lowest, f, rule)
    is_zero = significand == 0
    code, events = ((negative << f.width) if is_zero else code), (0 if is_zero else events)
    by_zero = y == 0
    invalid = (first & (not by_zero)) | (by_zero & (x == 0))
    unknown = _is_nan(a, f) | _is_nan(b, f)
    code, events = _special(code, events, by_zero, negative, invalid, unknown, f)
    is_pole = by_zero & (x != 0) & (not first) & (not unknown)
    return code, (_BY_ZERO if is_pole else events)


@_inlined
def _power_of_two_modulo(exponent: int, y: int) -> int:
    """Return 2**exponent modulo y, of at most 12 bits, by squaring."""
    power, factor = 1 % y, 2 % y
    for place in range(9):
        power = power * factor % y if (exponent >> place) & 1 else power
        factor = factor * factor % y
    return power


@_inlined
def _mod(a: int, b: int, c: int, f: Any, rule: int) -> tuple[int, int]:
    s, x, e = _unpack(a, f)
    t, y, h = _unpack(b, f)
    first, second = _is_infinite(a, f), _is_infinite(b, f)
    divisor = max(y, 1)
    above = x * _power_of_two_modulo(max(e - h, 0), divisor) % divisor
    below = x % (divisor << min(max(h - e, 0), _SHORT))
    left, lowest = (above if e >= h else below), min(e, h)
    is_zero = (x == 0) if second else (left == 0)
    # what is left has the sign of a: b is added where its own is another
    code, events = _sum(t, y, h, s, left, lowest, f, rule)
    same, _ = round_number(s, left, lowest, f, rule)
    same = a if second else same
    code, events = (same if s == t else code), (0 if s == t else events)
    code, events = ((t << f.width) if is_zero else code), (0 if is_zero else events)
    infinite = second & (s != t) & (not is_zero)
    unknown = _is_nan(a, f) | _is_nan(b, f)
    return _special(code, events, infinite, t, first | (y == 0), unknown, f)


@_inlined
def _remainder(a: int, b: int, c: int, f: Any, rule: int) -> tuple[int, int]:
    """Divide by twice b, which keeps whether the quotient by b is odd; then take the nearer of two.

    What is left of a has the sign of a, or the other one where b goes once more into it.
    """
    s, x, e = _unpack(a, f)
    _, y, h = _unpack(b, f)
    first, second = _is_infinite(a, f), _is_infinite(b, f)
    double, lowest = 2 * max(y, 1), min(e, h)
    above = x * _power_of_two_modulo(max(e - h, 0), double) % double
    up = min(max(h - e, 0), _SHORT)
    below = x % (double << up)
    size = (double << (0 if e >= h else up)) >> 1
    left = above if e >= h else below
    odd = left >= size
    left = left - size if odd else left
    is_more = (2 * left > size) | ((2 * left == size) & odd)
    code, events = round_number(s ^ is_more, size - left if is_more else left, lowest, f, rule)
    is_kept = second | (left == 0)
    zero_or_a = a if second else (s << f.width)
    code, events = (zero_or_a if is_kept else code), (0 if is_kept else events)
    unknown = _is_nan(a, f) | _is_nan(b, f)
    return _special(code, events, False, s, first | (y == 0), unknown, f)


@_inlined
def _place(code: int, f: Any) -> Any:
    """Return where a number stands in the order of all; -0 comes before +0."""
    magnitude = code & ((1 << f.width) - 1)
    return ~magnitude if code >> f.width else magnitude


@_inlined
def _minimum(a: int, b: int, c: int, f: Any, rule: int) -> tuple[int, int]:
    unknown = _is_nan(a, f) | _is_nan(b, f)
    return (f.nan if unknown else a if _place(a, f) < _place(b, f) else b), 0


@_inlined
def _maximum(a: int, b: int, c: int, f: Any, rule: int) -> tuple[int, int]:
    unknown = _is_nan(a, f) | _is_nan(b, f)
    return (f.nan if unknown else b if _place(a, f) < _place(b, f) else a), 0


#: by name: the number of operands, and the rule ``f(a, b, c, layout, rule) -> code, events``
OPERATIONS: dict[str, tuple[int, Any]] = {
    "add": (2, _add),
    "subtract": (2, _subtract),
    "multiply": (2, _multiply),
    "divide": (2, _divide),
    "fma": (3, _fma),
    "sqrt": (1, _sqrt),
    "remainder": (2, _remainder),
    "minimum": (2, _minimum),
    "maximum": (2, _maximum),
    "square": (1, _square),
    "abs": (1, _abs),
    "negative": (1, _negative),
    "floor_divide": (2, _floor_divide),
    "mod": (2, _mod),
}


@_inlined
def encode(source: int, g: Any, f: Any, rule: int) -> int:
    """Convert a code of the layout g to one of f; NaN keeps its sign and nothing else."""
    s, x, e = _unpack(source, g)
    code, _ = round_number(s, x, e + g.lowest - f.lowest, f, rule)
    code = (s << f.width) if x == 0 else code
    code = _infinity(s, f) if _is_infinite(source, g) else code
    return ((s << f.width) | f.nan) if _is_nan(source, g) else code
