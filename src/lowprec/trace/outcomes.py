"""What a trace says of each output and of each line."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from lowprec.trace.places import Event, Span, Unit, expression
from lowprec.trace.verdict import norm_of

Array = np.ndarray[Any, Any]


class Error(float):
    """The relative error of an output, in the 2-norm; `largest` is that of its worst element.

    Attributes
    ----------
    norm : float
        The 2-norm of result - reference, over that of the reference (over 1 where that is 0).
    largest : float
        The largest relative error of an element (absolute where the reference is 0).
    """

    norm: float
    largest: float

    def __new__(cls, norm: float, largest: float) -> Error:
        """Return the norm, with the largest beside."""
        error = super().__new__(cls, norm)
        error.norm, error.largest = norm, largest
        return error

    def __reduce__(self) -> Any:
        return Error, (self.norm, self.largest)

    def __repr__(self) -> str:
        return f"Error(norm={self.norm:.3g}, largest={self.largest:.3g})"


@dataclasses.dataclass(frozen=True)
class Output:
    """An array or a number that the program returned.

    Attributes
    ----------
    result, shadow, reference : ndarray or number
        As traced; float64 along the traced path; plain NumPy's.
    error : Error
        Of the result, against the reference.
    """

    result: Any
    shadow: Any
    reference: Any
    error: Error


@dataclasses.dataclass(frozen=True)
class Line:
    """What happened on a line, or by the rounding of an argument.

    Attributes
    ----------
    file, number, text : str, int or None, str
        Where it stands, and its source; an argument has no number, and its name as text.
    span : Span or None
        Of the expression that matters most: line, column, end_line, end_column; columns from 0.
    operations : int
        How many results were rounded.
    born, grown : list of float64 ndarray
        One for each output, of its shape: the part of result - shadow that was born here, and the
        part that was amplified here.
    events : list of Event
        Values that became infinite, NaN or zero.
    absorbed : int
        Additions of something that changed nothing.
    cancelled_bits : float
        The most bits that a subtraction cancelled of operands that carried error.
    decisions : int
        Comparisons, masks, integers and orders that differ in the shadow.
    format : Format
        What the line computed in.
    rounded, pure, float64_inside : bool
        Whether some function was float64's, rounded once; LAPACK's, by pure NumPy; or computed by
        code that the values left for (``leaks="round"``).
    """

    file: str
    number: int | None
    text: str
    span: Span | None
    operations: int
    born: list[Array]
    grown: list[Array]
    events: list[Event]
    absorbed: int
    cancelled_bits: float
    decisions: int
    format: Any
    rounded: bool = False
    pure: bool = False
    float64_inside: bool = False
    name: str = ""
    is_rounded: bool = False  # an argument, of which numbers changed on entry

    @property
    def expression(self) -> str:
        """The source of the expression that matters most."""
        return expression(self.file, self.span)


class Lines(dict[Any, Line]):
    """Lines by number of the function's file, or by ``(file, number)``."""

    def __missing__(self, key: Any) -> Line:
        if isinstance(key, tuple) and len(key) == 2:
            for line in self.values():
                if line.number == key[1] and line.file.endswith(str(key[0])):
                    return line
        raise KeyError(
            f"nothing was computed on line {key!r}; traced lines: {', '.join(map(str, self))}"
        )


def main_span(unit: Unit) -> Span | None:
    """Return the span of what matters most on a line."""
    if not unit.sites:
        return None
    site = max(
        unit.sites,
        key=lambda s: (
            s.has_event, s.has_decision, s.bits >= 1, max(s.weight, s.amplified), _length(s.span)
        ),
    )  # fmt: skip
    return site.span


def _length(span: Span | None) -> int:
    if span is None:
        return 0
    return span.end_column - span.column + 1000 * (span.end_line - span.line)


def scale_of(output: Output) -> float:
    """Return the norm that an output's errors are relative to."""
    of = output.shadow if output.reference is None else output.reference
    if np.shape(of) != np.shape(output.shadow):
        of = output.shadow
    size = norm_of(of)
    return size if size > 0 and math.isfinite(size) else 1.0


def error_of(value: Any, reference: Any) -> Error:
    """Return the error of a result against the reference."""
    if reference is None or np.shape(value) != np.shape(reference):
        return Error(math.inf, math.inf)
    try:
        x = np.ravel(np.asarray(value, np.float64))
        y = np.ravel(np.asarray(reference, np.float64))
    except (TypeError, ValueError):  # no numbers
        return Error(0.0, 0.0)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(all="ignore"):
        difference = np.where(same, 0.0, x - y)
        if not np.isfinite(difference).all():
            return Error(math.inf, math.inf)
        size = norm_of(np.where(np.isfinite(y), y, 0.0))
        relative = np.abs(difference) / np.where(y == 0, 1.0, np.abs(y))
    largest = float(np.max(relative, initial=0.0))
    return Error(norm_of(difference) / (size if size > 0 else 1.0), largest)
