"""The IEEE events of operations: which lanes of a result each happened in.

`x` is an exact result rounded to odd, `y` that result in the format (see `operations`).

References
----------
IEEE 754-2019, section 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.kernels.lanes import Lanes, select
from lowprec.kernels.operations import INFINITY, SIGN, magnitude
from lowprec.kernels.rules import Constants, convert

if TYPE_CHECKING:
    from lowprec.kernels.operations import Limits, Task

__all__ = ["EVENTS", "every_event", "usual_events"]

#: in the order in which kernels count them
EVENTS = ("invalid", "divide_by_zero", "overflow", "underflow", "inexact")

Events = dict[str, Lanes]  # in which lanes an event happened; nowhere if it is missing


def usual_events(x: Lanes, y: Lanes, task: Task, c: Constants, limits: Limits) -> Events:
    """Return where each event happened, if `rare` tells that no other did.

    Most operations in most formats only ever round. What is left to do for each result is then one
    comparison of x and y; that with the threshold is also the conversion rule's.
    """
    bits, least = x.as_integers(), c.threshold
    if task.plan.variant.startswith("scale"):  # zero has no code either
        bits, least = bits - 1, least - 1
    elif not task.plan.variant.startswith("unsigned"):  # negative numbers have no code there
        bits = bits & (SIGN - 1)
    events = {"rare": bits >= least}  # NaN, infinite, without a code, perhaps too large
    if task.is_exact:
        return events
    events["inexact"] = ~y.equals(x)
    if task.may_underflow:
        underflow = events["inexact"] & (magnitude(x).as_integers() < limits.smallest_normal)
        if task.often_tiny:
            events["underflow"] = underflow
        else:
            events["rare"] = events["rare"] | underflow
    return events


def every_event(
    operands: list[Lanes], x: Lanes, y: Lanes, R: Lanes, task: Task, c: Constants, limits: Limits
) -> Events:
    """Return where each event happened. Underflow is tiny before rounding, and inexact."""
    is_nan = x.is_nan()
    invalid = ~operands[0].is_nan()
    for operand in operands[1:]:
        invalid = invalid & ~operand.is_nan()
    bits = x.as_integers() & (SIGN - 1)
    finite = bits < INFINITY
    invalid = invalid & is_nan
    if task.plan.variant.startswith(("unsigned", "scale")):  # negative numbers become NaN
        has_no_code = x < 0.0
        if task.plan.variant.startswith("scale"):
            has_no_code = x <= 0.0
        invalid, finite = invalid | has_no_code, finite & ~has_no_code
    inexact = finite & ~y.equals(x)
    underflow = inexact & (bits < limits.smallest_normal)
    overflow = finite & overflows(x, bits, R, task, c, limits)
    events = {"invalid": invalid, "overflow": overflow, "underflow": underflow, "inexact": inexact}
    if task.operation == "divide":
        a, b = operands
        is_pole = b.equals(0.0) & (magnitude(a).as_integers() < INFINITY)
        events["divide_by_zero"] = is_pole & bits.equals(INFINITY)
    return events


def overflows(x: Lanes, bits: Lanes, R: Lanes, task: Task, c: Constants, limits: Limits) -> Lanes:
    """Return where x, rounded as if the exponent were unbounded, exceeds the largest number."""
    if task.plan.random_bits:  # ask the rule itself, with infinity for the overflows
        infinity = bits.constant(INFINITY)
        c = c._replace(overflow_positive=infinity, overflow_negative=infinity)
        y = convert(x, task.plan, c, R)
        return (y.as_integers() & (SIGN - 1)).equals(INFINITY)
    if task.plan.mode in ("toward_positive", "toward_negative"):
        return bits >= select(x < 0.0, limits.overflow_negative, limits.overflow_positive)
    return bits >= limits.overflow_positive
