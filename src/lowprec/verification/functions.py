"""Checks of the elementary functions: every code, against mpmath as far as it takes.

A value that mpmath gives to a few hundred bits is cut to 40, and a bit that says whether anything
followed. Where what follows is too close to nothing for mpmath's own error, more bits are asked
for; where 800 do not suffice the value is taken for a short number, which has to be proved by the
inverse function, in fractions. The integer oracle then rounds, in every mode.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.kernels.oracle.integers import code_fields, rule_of
from lowprec.kernels.oracle.loops import rounder
from lowprec.verification.checks import Check, Part, in_modes
from lowprec.verification.codes import CODES, operand_bits
from lowprec.verification.operations import Judge
from lowprec.verification.samples import edges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lowprec.formats import Format
    from lowprec.rounding import Rounding

Array = np.ndarray[Any, Any]

_BLOCK = 1 << 10  # codes between two reports of progress
_KEPT = 40  # bits of a significand that is cut off
_DOUBT = 12  # bits by which mpmath may be wrong, and much more than it is
_BITS = (120, 320, 800)  # to work with; 2**-133 and its sine need 280

_ODD = ("sin", "tan", "sinh", "tanh", "asin", "atan", "erf", "cbrt", "reciprocal")
_EVEN = ("cos", "cosh")
#: beyond, functions are monotone and within 2**-500 of their limits: no format can tell
CLAMPS = {"exp": 400, "exp2": 600.5, "expm1": 400, "sigmoid": 400, "tanh": 200, "erf": 20}
CLAMPS |= {"sinh": 400, "cosh": 400}
_POSITIVE = ("log", "log2", "log10", "rsqrt")  # the domain
_UP_TO_ONE = ("asin", "acos")  # the domain
_KEEP_ZERO = ("sin", "tan", "sinh", "tanh", "asin", "atan", "erf", "expm1", "log1p", "cbrt")
_AT_INFINITY = {
    "exp": (0.0, math.inf),
    "exp2": (0.0, math.inf),
    "expm1": (-1.0, math.inf),
    "log": (math.nan, math.inf),
    "log2": (math.nan, math.inf),
    "log10": (math.nan, math.inf),
    "log1p": (math.nan, math.inf),
    "sin": (math.nan, math.nan),
    "cos": (math.nan, math.nan),
    "tan": (math.nan, math.nan),
    "sinh": (-math.inf, math.inf),
    "cosh": (math.inf, math.inf),
    "tanh": (-1.0, 1.0),
    "asin": (math.nan, math.nan),
    "acos": (math.nan, math.nan),
    "atan": (-math.pi / 2, math.pi / 2),  # which is not exact, and is computed
    "sigmoid": (0.0, 1.0),
    "erf": (-1.0, 1.0),
    "cbrt": (-math.inf, math.inf),
    "rsqrt": (math.nan, 0.0),
    "reciprocal": (-0.0, 0.0),
}
FUNCTIONS = tuple(_AT_INFINITY)

_FORMULAS: dict[str, Callable[[Any, Any], Any]] = {
    "exp2": lambda mpmath, x: mpmath.power(2, x),
    "log2": lambda mpmath, x: mpmath.log(x, 2),
    "sigmoid": lambda mpmath, x: 1 / (1 + mpmath.exp(-x)),
    "rsqrt": lambda mpmath, x: 1 / mpmath.sqrt(x),
    "reciprocal": lambda mpmath, x: 1 / x,
}
#: whether y is f(x), told by the inverse; for the other functions, only f(0) is a short number
_INVERSES: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "exp2": lambda x, y: x.denominator == 1 and Fraction(2) ** int(x) == y,
    "log": lambda x, y: x == 1 and y == 0,
    "acos": lambda x, y: x == 1 and y == 0,
    "log2": lambda x, y: y.denominator == 1 and Fraction(2) ** int(y) == x,
    "log10": lambda x, y: y.denominator == 1 and Fraction(10) ** int(y) == x,
    "cbrt": lambda x, y: y**3 == x,
    "rsqrt": lambda x, y: y * y * x == 1,
    "reciprocal": lambda x, y: y * x == 1,
}


class Truth(NamedTuple):
    """A value of a function: a number cut off, or zero, infinity or NaN as a float."""

    negative: bool = False
    significand: int = 0
    exponent: int = 0
    special: float | None = None
    events: int = 0  # the bits of the integer oracle: 1 invalid, 2 divide_by_zero


def function_check(
    fmt: Format, functions: Sequence[str], roundings: Sequence[Rounding], sample: int | None
) -> Check:
    """Return the check of functions of one operand.

    fmt: A format that the integer oracle knows.
    functions: Some of `FUNCTIONS`.
    roundings: Deterministic modes.
    sample: How many codes to draw, besides the edges of the format; None for all.
    """
    codes = np.arange(1 << fmt.bits)
    if sample is not None and sample < codes.size:
        drawn = np.random.default_rng(fmt.bits).choice(codes, sample, replace=False)
        codes = np.union1d(drawn, edges(fmt))
    every = 1 << fmt.bits
    extent = f"all {every:,}" if codes.size == every else f"{codes.size:,} of {every:,}"
    what = functions[0] if len(functions) == 1 else "elementary"
    return Check(
        f"{fmt} {what}",
        f"{extent} operands of {', '.join(functions)}, {in_modes(roundings)}: "
        "the exact result rounded once, and the events",
        codes.size * len(functions) * len(roundings),
        codes.size == every,
        functools.partial(_run, fmt, tuple(functions), tuple(roundings), codes.astype(CODES)),
        None if importlib.util.find_spec("mpmath") else "mpmath",
    )


def _run(
    fmt: Format, names: Sequence[str], roundings: Sequence[Rounding], codes: Array, threads: int
) -> Iterator[Part]:
    """Yield one part for each mode of each block; mpmath computes in one thread."""
    for function in names:
        judges = [Judge(fmt, function, rounding) for rounding in roundings]
        for start in range(0, codes.size, _BLOCK):
            block = codes[start : start + _BLOCK]
            operands = operand_bits(fmt)[block].view(np.float32)
            truths = [true_value(function, x) for x in operands.tolist()]
            for judge in judges:
                expected, events = rounded(truths, fmt, judge.rounding)
                yield judge.hear([block], [operands], expected, events)


# Truth -------------------------------------------------------------------------------------------


def true_value(function: str, x: float) -> Truth:
    """Return f(x) as 40 bits and a sticky bit for those that follow.

    Examples
    --------
    >>> true_value("reciprocal", -4.0)
    Truth(negative=True, significand=1, exponent=-2, special=None, events=0)
    >>> true_value("log", -1.0)
    Truth(negative=False, significand=0, exponent=0, special=nan, events=1)
    """
    if math.isnan(x):
        return Truth(special=math.nan)
    if math.isinf(x) and function == "atan":
        return _value(function, x)
    if math.isinf(x):
        return _limit(_AT_INFINITY[function][x > 0])
    if x == 0 and function in _KEEP_ZERO:
        return Truth(special=x)
    pole = -1.0 if function == "log1p" else 0.0
    if x == pole and function in (*_POSITIVE, "log1p", "reciprocal"):
        is_odd = function in ("rsqrt", "reciprocal")
        return Truth(special=math.copysign(math.inf, x) if is_odd else -math.inf, events=2)
    if (function in _POSITIVE or function == "log1p") and x < pole:
        return Truth(special=math.nan, events=1)
    if function in _UP_TO_ONE and abs(x) > 1:
        return Truth(special=math.nan, events=1)
    clamp = CLAMPS.get(function, math.inf)
    clamped = min(max(x, -clamp), clamp)
    if function in _ODD + _EVEN:
        found = _positive_value(function, abs(clamped))
        return found._replace(negative=found.negative ^ (x < 0 and function in _ODD))
    return _value(function, clamped)


def _limit(value: float) -> Truth:
    """Return the value at an infinity, which is exact, or invalid."""
    if abs(value) == 1:
        return Truth(value < 0, 1)
    return Truth(special=value, events=int(math.isnan(value)))


@functools.lru_cache(maxsize=1 << 16)
def _positive_value(function: str, x: float) -> Truth:
    """Remember values that a function repeats for negative numbers."""
    return _value(function, x)


def _value(function: str, x: float) -> Truth:
    mpmath = importlib.import_module("mpmath")
    formula = _FORMULAS.get(function, lambda mpmath, x: getattr(mpmath, function)(x))
    for bits in _BITS:
        with mpmath.workprec(bits):
            negative, significand, exponent, _ = formula(mpmath, mpmath.mpf(x))._mpf_
        found = cut(int(significand), int(exponent), bits)
        if found is not None:
            return Truth(bool(negative), *found)
    return _short(function, x, bool(negative), int(significand), int(exponent))


def cut(significand: int, exponent: int, bits: int) -> tuple[int, int] | None:
    """Return 40 bits and a sticky bit; None where the sticky bit is not certain."""
    lost = significand.bit_length() - _KEPT
    if lost <= 0:
        return None
    rest = significand & ((1 << lost) - 1)
    doubt = 1 << max(significand.bit_length() - bits + _DOUBT, 0)
    if rest <= doubt or (1 << lost) - rest <= doubt:
        return None
    return (significand >> lost) << 1 | 1, exponent + lost - 1


def _short(function: str, x: float, negative: bool, significand: int, exponent: int) -> Truth:
    """Return the short number that a value seems to be, and prove that it is."""
    lost = max(significand.bit_length() - _KEPT, 0)
    kept = significand + (1 << lost >> 1) >> lost
    value = (-1) ** negative * kept * Fraction(2) ** (exponent + lost)
    is_true = _INVERSES.get(function, _is_at_zero)
    if not is_true(Fraction(x), value):
        raise ArithmeticError(f"{function}({x!r}) is too near to {float(value)!r} to be cut off")
    return Truth(negative, kept, exponent + lost) if kept else Truth(special=0.0)


def _is_at_zero(x: Fraction, y: Fraction) -> bool:
    return x == 0


# Rounding ----------------------------------------------------------------------------------------


def rounded(truths: Sequence[Truth], fmt: Format, rounding: Rounding) -> tuple[Array, Array]:
    """Return the codes of true values in a mode, and how often the events happen."""
    signs, significands, exponents = (
        np.array([truth[place] for truth in truths], np.int64) for place in range(3)
    )
    codes, events = np.empty(len(truths), CODES), np.zeros(5, np.int64)
    plain = significands != 0
    found = np.empty(int(plain.sum()), CODES)
    f = code_fields(fmt)
    rounder()(signs[plain], significands[plain], exponents[plain] - f.lowest, found, events, f,
              rule_of(rounding))  # fmt: skip
    codes[plain] = found
    for place in np.flatnonzero(~plain).tolist():
        codes[place] = _special_code(truths[place].special, fmt)
        events[0] += truths[place].events & 1
        events[1] += truths[place].events >> 1
    return codes, events


def _special_code(value: float | None, fmt: Format) -> int:
    assert value is not None, "only special values have no significand"
    f = code_fields(fmt)
    if math.isnan(value):
        return f.nan
    sign = int(math.copysign(1.0, value) < 0) << f.width
    return sign | (f.max_code + 1 if math.isinf(value) else 0)
