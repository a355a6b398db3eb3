"""The IEEE events of operations: which lanes of a result each happened in.

`x` is an exact result rounded to odd, `y` that result in the format (see `operations`).

References
----------
IEEE 754-2019, section 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.kernels.lanes import Lanes
from lowprec.kernels.operations.rules import (
    coded_bits,
    infinity,
    is_tiny,
    magnitude_bits,
    side_of,
)
from lowprec.kernels.rules import convert

if TYPE_CHECKING:
    from lowprec.kernels.magnitudes import Constants
    from lowprec.kernels.operations.rules import Limits, OperationPlan

#: in the order in which kernels count them
EVENTS = ("invalid", "divide_by_zero", "overflow", "underflow", "inexact")

Events = dict[str, Lanes]  # in which lanes an event happened; nowhere if it is missing


def leaves_range(x: Lanes, how: OperationPlan, c: Constants, limits: Limits) -> Lanes:
    """Return where anything but `inexact` may have happened.

    Most operations in most formats only ever round. What is left to do for each result is then one
    comparison of x and y, and this one.
    """
    bits = coded_bits(x, how)
    first = limits.smallest_normal if how.may_underflow else bits.constant(_first_code(how))
    return (bits - first) >= (c.threshold - first)


def is_exceptional(x: Lanes, how: OperationPlan) -> Lanes:
    """Return where x is infinite, NaN or without a code for its sign."""
    first = _first_code(how)
    return (coded_bits(x, how) - first) >= infinity(x) - first


def _first_code(how: OperationPlan) -> int:
    """Return the bits of the least magnitude that has a code: zero, in all but one kind."""
    return int(how.plan.variant.is_scale)


def range_events(
    x: Lanes, inexact: Lanes, R: Lanes, how: OperationPlan, c: Constants, limits: Limits
) -> Events:
    """Return where finite numbers overflow and underflow."""
    bits = magnitude_bits(x)
    return {
        "overflow": overflows(x, bits, R, how, c, limits),
        "underflow": inexact & is_tiny(x, R, how, c, limits),
    }


def every_event(
    operands: list[Lanes],
    x: Lanes,
    inexact: Lanes,
    R: Lanes,
    how: OperationPlan,
    c: Constants,
    limits: Limits,
) -> Events:
    """Return where each event happened. Underflow is tiny and inexact (see `is_tiny`)."""
    is_nan = x.is_nan()
    invalid = ~operands[0].is_nan()
    for operand in operands[1:]:
        invalid = invalid & ~operand.is_nan()
    bits = magnitude_bits(x)
    finite = bits < infinity(x)
    invalid = invalid & is_nan
    if not how.has_sign:  # negative numbers become NaN
        has_no_code = x < 0.0
        if how.plan.variant.is_scale:
            has_no_code = x <= 0.0
        invalid, finite = invalid | has_no_code, finite & ~has_no_code
    inexact = finite & inexact
    events = range_events(x, inexact, R, how, c, limits)
    events["overflow"] = events["overflow"] & finite
    events |= {"invalid": invalid, "inexact": inexact}
    if how.operation in ("divide", "floor_divide"):
        a, b = operands
        is_pole = b.equals(0.0) & (magnitude_bits(a) < infinity(a))
        events["divide_by_zero"] = is_pole & bits.equals(infinity(x))
    return events


def overflows(
    x: Lanes, bits: Lanes, R: Lanes, how: OperationPlan, c: Constants, limits: Limits
) -> Lanes:
    """Return where x, rounded as if the exponent were unbounded, exceeds the largest number."""
    if how.plan.random_bits:  # ask the rule itself, with infinity for the overflows
        above = bits.constant(infinity(x))
        c = c._replace(overflow_positive=above, overflow_negative=above)
        return magnitude_bits(convert(x, how.plan, c, R)).equals(infinity(x))
    return bits >= side_of(x, how, limits.overflow_positive, limits.overflow_negative)
