"""Operations in fractions: what the arithmetic is held to.

An operation gives the exact result of float operands, as a float for zeros, infinities and NaN and
as a fraction otherwise; `oracle.round_exactly` rounds that once. A square root is replaced by a
fraction between the same two numbers of 400 bits. Events are told from the definitions in IEEE
754-2019, section 7.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import oracle

from lowprec import Format, Rounding

EVENTS = ("invalid", "divide_by_zero", "overflow", "underflow", "inexact")
Exact = float | Fraction


def _sign(x: float) -> float:
    return math.copysign(1.0, x)


def _is_zero(x: Exact) -> bool:
    return isinstance(x, float) and x == 0


def _product(a: float, b: float) -> Exact:
    if not (math.isfinite(a) and math.isfinite(b)) or 0 in (a, b):
        return a * b  # what float64 does with specials is not rounded
    return Fraction(a) * Fraction(b)


def _sum(a: Exact, b: Exact, rounding: str) -> Exact:
    if not (math.isfinite(a) and math.isfinite(b)):
        return float(a) + float(b)
    total = Fraction(a) + Fraction(b)
    if total:
        return total
    if _is_zero(a) and _is_zero(b) and _sign(float(a)) == _sign(float(b)):
        return a
    return -0.0 if rounding == "toward_negative" else 0.0


def _quotient(a: float, b: float) -> Exact:
    sign = _sign(a) * _sign(b)
    if math.isnan(a) or math.isnan(b) or (a == b == 0) or (math.isinf(a) and math.isinf(b)):
        return math.nan
    if b == 0 or math.isinf(a):
        return sign * math.inf
    if a == 0 or math.isinf(b):
        return sign * 0.0
    return Fraction(a) / Fraction(b)


def _root(a: float) -> Exact:
    if math.isnan(a) or a < 0:
        return math.nan
    if a == 0 or math.isinf(a):
        return a
    scaled = Fraction(a) * 4**400
    assert scaled.denominator == 1
    root = math.isqrt(scaled.numerator)
    is_exact = root * root == scaled.numerator
    return (root + Fraction(not is_exact, 2)) / 2**400


def _remainder(a: float, b: float) -> Exact:
    if math.isnan(a) or math.isnan(b) or math.isinf(a) or b == 0:
        return math.nan
    if math.isinf(b) or a == 0:
        return a if a == 0 else Fraction(a)
    left = Fraction(a) - round(Fraction(a) / Fraction(b)) * Fraction(b)  # ties go to even
    return left if left else math.copysign(0.0, a)


def _floor_of_quotient(a: float, b: float) -> Exact:
    """Return what Python's // gives, and IEEE 754's quotient where b is zero."""
    if math.isnan(a) or math.isnan(b) or b == 0:
        return _quotient(a, b)
    if math.isinf(a):
        return math.nan
    if a == 0 or _sign(a) == _sign(b):
        floor = 0 if math.isinf(b) else Fraction(a) // Fraction(b)
    else:
        floor = -1 if math.isinf(b) else Fraction(a) // Fraction(b)
    return Fraction(floor) if floor else _sign(a) * _sign(b) * 0.0


def _modulo(a: float, b: float) -> Exact:
    """Return what Python's % gives, in fractions."""
    if math.isnan(a) or math.isnan(b) or math.isinf(a) or b == 0:
        return math.nan
    if math.isinf(b) and a != 0:
        return Fraction(a) if _sign(a) == _sign(b) else b
    left = 0 if a == 0 else Fraction(a) % Fraction(b)
    return left if left else math.copysign(0.0, b)


def _selected(a: float, b: float, larger: bool) -> float:
    if math.isnan(a) or math.isnan(b):
        return math.nan
    if a == b:
        return a if (_sign(a) > 0) == larger else b
    return max(a, b) if larger else min(a, b)


def exact(operation: str, operands: tuple[float, ...], rounding: str) -> Exact:
    """Return the exact result; the sign of an exact zero depends on the mode."""
    match operation, operands:
        case "add", (a, b):
            return _sum(a, b, rounding)
        case "subtract", (a, b):
            return _sum(a, -b, rounding)
        case "multiply", (a, b):
            return _product(a, b)
        case "divide", (a, b):
            return _quotient(a, b)
        case "sqrt", (a,):
            return _root(a)
        case "fma", (a, b, c):
            return _sum(_product(a, b), c, rounding)
        case "remainder", (a, b):
            return _remainder(a, b)
        case "floor_divide", (a, b):
            return _floor_of_quotient(a, b)
        case "mod", (a, b):
            return _modulo(a, b)
        case "square", (a,):
            return _product(a, a)
        case "abs", (a,):
            return math.nan if math.isnan(a) else math.copysign(a, 1.0)
        case "negative", (a,):
            return math.nan if math.isnan(a) else -a
        case "minimum" | "maximum", (a, b):
            return _selected(a, b, operation == "maximum")
    raise AssertionError(operation)


class Outcome(NamedTuple):
    """The result of an operation and the events that it is counted under."""

    value: float
    events: frozenset[str]


def outcome(
    operation: str,
    operands: tuple[float, ...],
    fmt: Format,
    rounding: str = "ties_to_even",
    overflow: str = "ieee",
    flush_to_zero: bool = False,
    tininess: str = "before",
) -> Outcome:
    """Round the exact result of values of a format, and tell what happened."""
    result = exact(operation, operands, rounding)
    if operation in ("minimum", "maximum", "abs", "negative"):
        value = oracle.round_exactly(float(result), fmt)
        return Outcome(value, frozenset({"invalid"} if _has_no_code(result, fmt) else ()))
    is_tiny = isinstance(result, Fraction) and _is_tiny(result, fmt, rounding, tininess)
    rounded = result
    if is_tiny and flush_to_zero and not _has_no_code(result, fmt):
        rounded = math.copysign(0.0, result)
    value = oracle.round_exactly(rounded, fmt, rounding, overflow)
    events = set()
    if not any(map(math.isnan, operands)):
        if math.isnan(result) or _has_no_code(result, fmt):
            events.add("invalid")
        elif isinstance(result, Fraction):
            events = _events_of_rounding(result, value, is_tiny, fmt, rounding)
        elif math.isinf(result) and not any(map(math.isinf, operands)):
            events.add("divide_by_zero")
    return Outcome(value, frozenset(events))


def _is_tiny(result: Fraction, fmt: Format, rounding: str, tininess: str) -> bool:
    """Tell whether a number is tiny: itself, or rounded as if the exponent had no lower end."""
    size = abs(result)
    if tininess == "after":
        size = oracle.pick(size, fmt, Rounding(rounding), result < 0, bounded=False)
    return size < Fraction(fmt.smallest_normal)


def _has_no_code(result: Exact, fmt: Format) -> bool:
    return (result < 0 and not fmt.signed) or (result == 0 and not fmt.has_zero)


def _events_of_rounding(
    result: Fraction, value: float, is_tiny: bool, fmt: Format, rounding: str
) -> set[str]:
    events = set()
    if not math.isfinite(value) or Fraction(value) != result:
        events.add("inexact")
        if is_tiny:
            events.add("underflow")
    if oracle.pick(abs(result), fmt, Rounding(rounding), result < 0) > Fraction(fmt.max):
        events.add("overflow")
    return events


def flushed(x: float, fmt: Format) -> float:
    """Return an operand as denormals_are_zero takes it."""
    if not abs(x) < fmt.smallest_normal:
        return x
    return math.copysign(0.0, x if fmt.has_negative_zero else 1.0)
