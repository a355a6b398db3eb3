"""Operations that make of finite numbers what is not finite: which it was, and what prevents it."""

from __future__ import annotations

import enum
import linecache
import re
import sys
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class WrongOperand(enum.Enum):
    """What was wrong with an operand."""

    LOG_OF_ZERO = "log of zero"
    NEGATIVE = "negative"
    DIVISOR = "divisor"
    UNKNOWN = "unknown"

    @property
    def cure(self) -> str:
        """What keeps the operation from making NaN or an infinity: no rate and no clip does."""
        return _CURES[self]


_CURES = {
    WrongOperand.LOG_OF_ZERO: (
        "keep the argument of the logarithm above 0, as np.log(np.maximum(x, 1e-6)) does"
    ),
    WrongOperand.NEGATIVE: "keep the argument at or above 0, as np.sqrt(np.maximum(x, 0)) does",
    WrongOperand.DIVISOR: "add a small number to the divisor, as x / (y + 1e-6) does",
    WrongOperand.UNKNOWN: (
        "look at what is computed there: 0/0, log 0, 0·∞ and ∞ - ∞ are NaN in every format"
    ),
}


class Operation(NamedTuple):
    """An operation as a sentence names it, such as ``log of 0 in loss: return np.log(p)``."""

    words: str
    wrong: WrongOperand


_NAMES = {"sqrt": "square root", "power": "power"}  # of what else than log takes a line to tell


def operation_heard(error: str) -> Operation:
    """Return the operation of the line of code that made NumPy's floating-point error."""
    frame: Any = sys._getframe(2)
    while frame is not None and "numpy" in frame.f_code.co_filename.replace("\\", "/").split("/"):
        frame = frame.f_back
    if frame is None:
        return Operation(error, WrongOperand.UNKNOWN)
    code = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    words, wrong = _in_line(code, of_zero=error == "divide by zero") or (
        error,
        WrongOperand.UNKNOWN,
    )
    return Operation(f"{words} in {frame.f_code.co_name}: {code}" if code else words, wrong)


def _in_line(code: str, *, of_zero: bool) -> Operation | None:
    """Return what a line of code divides by zero, or makes of an operand out of its domain."""
    if re.search(r"log\w*\(", code):
        if of_zero:
            return Operation("log of 0", WrongOperand.LOG_OF_ZERO)
        return Operation("log of a negative number", WrongOperand.NEGATIVE)
    named = next((name for word, name in _NAMES.items() if f"{word}(" in code), None)
    if named is not None and not of_zero:
        return Operation(f"{named} of a negative number", WrongOperand.NEGATIVE)
    if of_zero:
        return Operation("division by 0", WrongOperand.DIVISOR)
    return Operation("0/0", WrongOperand.DIVISOR) if "/" in code or "divide(" in code else None


def operation_guessed(read: tuple[Array, ...], made: Array) -> Operation | None:
    """Guess the operation from what was read and made where the result is not finite."""
    if not read or not all(np.isfinite(x).all() for x in read):
        return None
    wrong = ~np.isfinite(made)
    if len(read) == 2:  # a loss
        return _of_a_loss(*read, wrong)
    x = read[0]
    if x.shape != made.shape:
        return None
    at, values = x[wrong], made[wrong]
    if not at.any():
        if (values == -np.inf).all():
            return Operation("log of 0", WrongOperand.LOG_OF_ZERO)
        return Operation("division by 0 or 0/0", WrongOperand.DIVISOR)
    if np.isnan(values).all() and (at < 0).all():
        return Operation("square root or log of a negative number", WrongOperand.NEGATIVE)
    if (at <= 0).all():
        return Operation("log of 0 and of negative numbers", WrongOperand.LOG_OF_ZERO)
    return None


def _of_a_loss(outputs: Array, targets: Array, wrong: Array) -> Operation | None:
    """Guess what a loss did by what it read where its gradient is not finite."""
    words = None
    if (outputs == targets).all():
        words = "0/0, as the predictions equal the targets"
    elif wrong.shape == outputs.shape and not targets[wrong].any():
        words = "division by 0, where the targets are 0"
    elif wrong.shape == outputs.shape and not outputs[wrong].any():
        words = "division by 0, where the predictions are 0"
    return None if words is None else Operation(words, WrongOperand.DIVISOR)
