"""Checks of functions of two operands: atan2, power by mpmath, hypot by integers."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.verification.checks import Check, Part, in_modes
from lowprec.verification.codes import CODES, operand_bits
from lowprec.verification.functions import Truth, cut, rounded
from lowprec.verification.operations import Judge
from lowprec.verification.samples import draw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lowprec.formats import Format
    from lowprec.rounding import Rounding

Array = np.ndarray[Any, Any]

_BLOCK = 1 << 10  # pairs between two reports of progress
_BITS = (120, 320, 800)  # of mpmath; what follows y/x in atan2 needs 560
_ROOT_BITS = 60  # and more, of an integer square root
_KEPT = 40  # bits of a root that is cut off
_FAR = 600  # octaves from 1: no format of 16 bits can tell
_MOST = 1 << 16  # pairs of a full run


def pair_check(
    fmt: Format, functions: Sequence[str], roundings: Sequence[Rounding], sample: int | None
) -> Check:
    """Return the check of functions of two operands.

    fmt: A format that the integer oracle knows.
    functions: Some of `PAIRED_FUNCTIONS`.
    roundings: Deterministic modes.
    sample: How many pairs to draw; None for 65,536, which are all of a format of 8 bits.
    """
    every = 1 << 2 * fmt.bits
    count = min(_MOST if sample is None else -(-sample // 4) * 4, every)
    is_exhaustive = count == every
    extent = f"all {every:,}" if is_exhaustive else f"{count:,} of {every:,}"
    what = functions[0] if len(functions) == 1 else "pairs"
    return Check(
        f"{fmt} {what}",
        f"{extent} pairs of {', '.join(functions)}, {in_modes(roundings)}: "
        "the exact result rounded once, and the events",
        count * len(functions) * len(roundings),
        is_exhaustive,
        functools.partial(_run, fmt, tuple(functions), tuple(roundings), count),
        None if importlib.util.find_spec("mpmath") else "mpmath",
    )


def _run(
    fmt: Format, names: Sequence[str], roundings: Sequence[Rounding], count: int, threads: int
) -> Iterator[Part]:
    """Yield one part for each mode of each block; mpmath computes in one thread."""
    codes = _codes(fmt, count)
    for function in names:
        judges = [Judge(fmt, function, rounding) for rounding in roundings]
        for start in range(0, count, _BLOCK):
            block = [np.ascontiguousarray(part[start : start + _BLOCK]) for part in codes]
            operands = [operand_bits(fmt)[part].view(np.float32) for part in block]
            rows = zip(*(x.tolist() for x in operands), strict=True)
            truths = [true_pair_value(function, *row) for row in rows]
            for judge in judges:
                expected, events = rounded(truths, fmt, judge.rounding)
                yield judge.hear(block, operands, expected, events)


def _codes(fmt: Format, count: int) -> list[Array]:
    if count == 1 << 2 * fmt.bits:
        every = np.arange(count)
        return [(every >> fmt.bits).astype(CODES), (every % (1 << fmt.bits)).astype(CODES)]
    return draw(fmt, 2, count, np.random.default_rng([fmt.bits, 2]))


# Truth -------------------------------------------------------------------------------------------


def true_pair_value(function: str, a: float, b: float) -> Truth:
    """Return f(a, b) as 40 bits and a sticky bit for those that follow.

    Examples
    --------
    >>> true_pair_value("hypot", 3.0, -4.0)
    Truth(negative=False, significand=5, exponent=0, special=None, events=0)
    >>> true_pair_value("atan2", -0.0, 1.0)
    Truth(negative=False, significand=0, exponent=0, special=-0.0, events=0)
    """
    return _TRUTHS[function](a, b)


def _hypotenuse(a: float, b: float) -> Truth:
    """Take the root of an integer: of the sum of two squares of dyadic fractions."""
    if math.isinf(a) or math.isinf(b):
        return Truth(special=math.inf)
    if math.isnan(a) or math.isnan(b):
        return Truth(special=math.nan)
    square = Fraction(a) ** 2 + Fraction(b) ** 2
    if not square:
        return Truth(special=0.0)
    places = square.denominator.bit_length() - 1
    radicand, places = square.numerator << places % 2, places + places % 2
    root = math.isqrt(radicand)
    if root * root == radicand:
        zeros = max(root.bit_length() - _ROOT_BITS, 0)
        if root % (1 << zeros) == 0:
            return Truth(False, root >> zeros, zeros - places // 2)
    more = max(2 * _ROOT_BITS - radicand.bit_length(), 0) // 2 + 1
    root = math.isqrt(radicand << 2 * more)
    lost = root.bit_length() - _KEPT
    return Truth(False, root >> lost << 1 | 1, lost - 1 - more - places // 2)


def _angle(y: float, x: float) -> Truth:
    if math.isnan(x) or math.isnan(y):
        return Truth(special=math.nan)
    negative = math.copysign(1.0, y) < 0
    is_left = math.copysign(1.0, x) < 0
    y, x = abs(y), abs(x)
    if not is_left and (y == 0 or (math.isinf(x) and not math.isinf(y))):
        return Truth(special=-0.0 if negative else 0.0)
    if math.isinf(x):
        x, y = 1.0, float(math.isinf(y))
    elif math.isinf(y):
        x, y = 0.0, 1.0
    return _cut_angle(y, -x if is_left else x, y == 0)._replace(negative=negative)


def _cut_angle(y: float, x: float, is_pi: bool) -> Truth:
    """Return an angle from 0 to pi that is irrational; -0.0 as x is taken for 0."""
    mpmath = importlib.import_module("mpmath")
    for bits in _BITS:
        with mpmath.workprec(bits):
            angle = mpmath.pi + 0 if is_pi else mpmath.atan2(mpmath.mpf(y), mpmath.mpf(x))
            _, significand, exponent, _ = angle._mpf_
        found = cut(int(significand), int(exponent), bits)
        if found is not None:
            return Truth(False, *found)
    raise ArithmeticError(f"atan2({y!r}, {x!r}) is too near to a short number to be cut off")


def _power(x: float, y: float) -> Truth:
    """Return x**y with the special cases of IEEE 754-2019, section 9.2.1."""
    if y == 0 or x == 1:
        return Truth(False, 1)
    if math.isnan(x) or math.isnan(y):
        return Truth(special=math.nan)
    is_whole = y.is_integer()
    if x < 0 and math.isfinite(x) and math.isfinite(y) and not is_whole:
        return Truth(special=math.nan, events=1)
    negative = math.copysign(1.0, x) < 0 and is_whole and y % 2 == 1
    x = abs(x)
    if x == 1:
        return Truth(negative, 1)
    if x == 0 or math.isinf(x) or math.isinf(y):
        size = math.inf if (x > 1) == (y > 0) else 0.0
        is_pole = x == 0 and y < 0 and math.isfinite(y)
        return Truth(special=-size if negative else size, events=2 * is_pole)
    octaves = y * math.log2(x)
    if abs(octaves) > _FAR:
        return Truth(negative, 3, int(math.copysign(_FAR, octaves)))
    return _cut_power(x, y)._replace(negative=negative)


def _cut_power(x: float, y: float) -> Truth:
    """Return a power of a positive number, proved in fractions where mpmath cannot cut it."""
    mpmath = importlib.import_module("mpmath")
    for bits in _BITS:
        with mpmath.workprec(bits):
            _, significand, exponent, _ = mpmath.power(mpmath.mpf(x), mpmath.mpf(y))._mpf_
        found = cut(int(significand), int(exponent), bits)
        if found is not None:
            return Truth(False, *found)
    n, k = y.as_integer_ratio()
    whole, place = int(significand), int(exponent)
    if (whole * Fraction(2) ** place) ** k != Fraction(x) ** n:
        raise ArithmeticError(f"power({x!r}, {y!r}) is too near to a short number to be cut off")
    lost = max(whole.bit_length() - _KEPT, 0)
    if whole % (1 << lost) == 0:
        return Truth(False, whole >> lost, place + lost)
    return Truth(False, whole >> lost << 1 | 1, place + lost - 1)


_TRUTHS: dict[str, Callable[[float, float], Truth]] = {
    "atan2": _angle,
    "hypot": _hypotenuse,
    "power": _power,
}
PAIRED_FUNCTIONS = tuple(_TRUTHS)
