"""One real number, infinity or NaN, exactly: read from Python, NumPy or text, and written out."""

from __future__ import annotations

import decimal
import math
import re
from decimal import Decimal
from fractions import Fraction
from numbers import Rational
from typing import NamedTuple

import numpy as np

_TEXT = re.compile(r"([+-]?)(?![+-])(\S+)")
_HEXADECIMAL = re.compile(r"0x(?=[\da-f.]*[\da-f])([\da-f]*)\.?([\da-f]*)(?:p([+-]?\d+))?")
_EXPONENT = re.compile(r"[ep]([+-]?\d+)$")
_EXACT = decimal.Context(prec=1200, traps=[decimal.Inexact])  # float64 needs at most 767 digits
_LARGEST_EXPONENT = 5000  # of ten or of two: keeps a slip such as 1e999999999 from taking hours


class Number(NamedTuple):
    """A sign and an exact magnitude, so that -0 and the sign of NaN are not lost."""

    negative: bool
    magnitude: Fraction | float  # a Fraction, math.inf or math.nan

    @property
    def value(self) -> Fraction | None:
        """The exact value, or None for infinities and NaN."""
        if not isinstance(self.magnitude, Fraction):
            return None
        return -self.magnitude if self.negative else self.magnitude

    @property
    def is_nan(self) -> bool:
        """Whether this is not a number."""
        return self.magnitude is math.nan

    @property
    def is_infinite(self) -> bool:
        """Whether this is plus or minus infinity."""
        return self.magnitude == math.inf

    @property
    def decimal(self) -> str:
        """The value with all its decimal digits (finite ones must be dyadic), or inf or nan."""
        sign = "-" if self.negative else ""
        if not isinstance(self.magnitude, Fraction):
            return f"{sign}{self.magnitude}"
        n, d = self.magnitude.as_integer_ratio()
        return sign + str(_EXACT.divide(Decimal(n), Decimal(d))).lower()

    @property
    def hexadecimal(self) -> str:
        """The value as `float.hex` writes it (finite ones must be dyadic), normalised and short."""
        sign = "-" if self.negative else ""
        if not isinstance(self.magnitude, Fraction):
            return f"{sign}{self.magnitude}"
        if self.magnitude == 0:
            return f"{sign}0x0p+0"
        e = floor_log2(self.magnitude)
        n, d = (self.magnitude / Fraction(2) ** e - 1).as_integer_ratio()
        digits = (d.bit_length() + 2) // 4  # d = 2**b, four of the b bits to a digit
        point = f".{n * 16**digits // d:0{digits}x}" if digits else ""
        return f"{sign}0x1{point}p{e:+d}"


def read_number(x: object) -> Number:
    """Read a Python or NumPy number or a string without rounding it.

    x: A string is what it says: ``"0.1"`` is 1/10, where the float 0.1 is the double nearest to it.
        Decimal, hexadecimal (``"0x1.8p-3"``), ``"1/3"``, ``"nan"`` and ``"-inf"`` are read.
    Returns: The exact value with its sign.
    Raises ValueError if a string is not a number, or an exponent is beyond ±5000.
    Raises TypeError if `x` is not a real number.

    Examples
    --------
    >>> read_number("0.1").value, read_number(0.5).value, read_number("-0")
    (Fraction(1, 10), Fraction(1, 2), Number(negative=True, magnitude=Fraction(0, 1)))
    """
    if isinstance(x, str):
        return _read_text(x)
    if isinstance(x, np.ndarray) and x.ndim == 0:
        return read_number(x[()])
    if isinstance(x, Decimal):
        return _read_text(str(x).replace("sNaN", "NaN"))
    if isinstance(x, Rational):  # integers too; int() because numpy.int64 would overflow later
        return Number(bool(x < 0), abs(Fraction(int(x.numerator), int(x.denominator))))
    if isinstance(x, float | np.generic) and not isinstance(x, np.complexfloating):
        return _read_float(x)
    raise TypeError(
        f"{x!r} is a {type(x).__name__}; pass one real number, or a string such as '0.1'"
    )


def _read_float(x: float | np.generic) -> Number:
    narrow = x if isinstance(x, float | np.floating) else float(x)
    negative = bool(np.signbit(narrow))
    if narrow != narrow:
        return Number(negative, math.nan)
    if abs(narrow) == math.inf:
        return Number(negative, math.inf)
    return Number(negative, abs(Fraction(*narrow.as_integer_ratio())))


def _read_text(text: str) -> Number:
    match = _TEXT.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a number; write 0.1, 0x1.8p-3, 1/3, nan or -inf")
    negative, body = match[1] == "-", match[2]
    if body in ("inf", "infinity"):
        return Number(negative, math.inf)
    if body == "nan":
        return Number(negative, math.nan)
    exponent = None if body.startswith("0x") and "p" not in body else _EXPONENT.search(body)
    if exponent and abs(int(exponent[1])) > _LARGEST_EXPONENT:
        raise ValueError(
            f"{text!r} has an exponent beyond ±{_LARGEST_EXPONENT}; "
            "use 1e400 or 1e-400, which every format rounds alike"
        )
    hexadecimal = _HEXADECIMAL.fullmatch(body)
    if hexadecimal:
        whole, fraction, power = hexadecimal.groups(default="0")
        scale = Fraction(2) ** (int(power) - 4 * len(fraction))
        return Number(negative, int(whole + fraction, 16) * scale)
    try:
        return Number(negative, Fraction(body))
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"{text!r} is not a number; write 0.1, 0x1.8p-3, 1/3, nan or -inf"
        ) from None


def floor_log2(magnitude: Fraction) -> int:
    """Return the exponent e of a positive number: ``2**e <= magnitude < 2**(e + 1)``."""
    e = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    return e if magnitude >= Fraction(2) ** e else e - 1


def floor_log2_ratio(numerator: float, denominator: float) -> int:
    """Return the same of a quotient of positive floats, which itself need not be a float."""
    (m, e), (n, f) = math.frexp(numerator), math.frexp(denominator)
    return e - f - (m < n)
