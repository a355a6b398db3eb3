"""Elementary functions to any number of digits, for the few results that float64 cannot decide.

The question is always on which side of a number g, at most 25 significant bits long, f(x) lies.
`side` answers it exactly: algebraic functions are compared in fractions; the others are never equal
to g but for the few inputs that `_is_exact` lists, so that more and more digits (Ziv's strategy)
come to an end.

References
----------
Ziv (1991), "Fast evaluation of elementary mathematical functions with correctly rounded last bit";
Baker (1975), "Transcendental Number Theory", theorem 1.4 (Lindemann and Weierstrass: exp, log, sin,
cos, tan, their hyperbolic kin and the inverses of all these, of algebraic numbers) and 2.1 (Gelfond
and Schneider: powers); Shidlovskii (1989), "Transcendental Numbers", for erf.
"""

from __future__ import annotations

import functools
import math
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_DIGITS = 30  # float64 has decided what 14 digits can
_GUARD_DIGITS = 40  # beyond what any cancellation below takes from numbers of 24 bits


def side(name: str, x: float, g: float) -> int:
    """Return the sign of f(x) - g, exactly.

    Parameters
    ----------
    name : str
        The function.
    x : float
        A finite number of at most 24 significant bits, in the function's domain.
    g : float
        The number of at most 25 significant bits that is nearest to f(x).

    Returns
    -------
    int
        -1, 0 or 1.

    Examples
    --------
    >>> side("exp", 2.0**-30, 1.0), side("rsqrt", 0.25, 2.0), side("sin", 2.0**-9, 2.0**-9)
    (1, 0, -1)
    """
    if name in _ALGEBRAIC:
        return _ALGEBRAIC[name](Fraction(x), Fraction(g))
    if _is_exact(name, x, g):
        return 0
    return _ziv(name, (x,), g)


def power_side(x: float, y: float, g: float) -> int:
    """Return the sign of x**y - g, exactly, for positive x.

    Examples
    --------
    >>> power_side(9.0, 1.5, 27.0), power_side(3.0, 0.5, 1.75)
    (0, -1)
    """
    return 0 if _is_exact_power(x, y, g) else _ziv("power", (x, y), g)


def atan2_side(y: float, x: float, g: float) -> int:
    """Return the sign of atan2(y, x) - g, exactly, for finite x and y that are not zero.

    Examples
    --------
    >>> atan2_side(1.0, 2.0**20, 2.0**-20), atan2_side(1.0, -1.0, 2.25)
    (-1, 1)
    """
    return _ziv("atan2", (y, x), g)


def _sign(difference: Fraction | Decimal) -> int:
    return (difference > 0) - (difference < 0)


# Exact results -----------------------------------------------------------------------------------

_ALGEBRAIC: dict[str, Callable[[Fraction, Fraction], int]] = {
    "reciprocal": lambda x, g: _sign(1 / x - g),
    "rsqrt": lambda x, g: _sign(1 - x * g * g),
    "cbrt": lambda x, g: _sign(x - g**3),
}


def _is_exact(name: str, x: float, g: float) -> bool:
    """Whether f(x) is rational: g, then."""
    match name:
        case "exp2":
            return x.is_integer()
        case "log" | "acos":
            return x == 1
        case "log2":
            return math.frexp(x)[0] == 0.5
        case "log10":  # of whole powers of ten; the others are not binary fractions
            return g >= 0 and g.is_integer() and 10 ** int(g) == x
    return x == 0


def _is_exact_power(x: float, y: float, g: float) -> bool:
    """Whether x**y = g, in integers.

    With x = m·2**e and g = G·2**E, m and G odd, and y = n/k in lowest terms, this is m**n = G**k
    and e·n = E·k. For m > 1, n must be positive, or the result is not a binary fraction; G is then
    the n-th power, and m the k-th, of the same whole number, and both are at most 25 bits long.
    """
    (m, e), (n, k), (G, E) = _odd_part(x), y.as_integer_ratio(), _odd_part(g)
    if e * n != E * k:
        return False
    if m == 1 or G == 1:
        return m == G
    return 0 < n < 25 and k < 25 and m**n == G**k


def _odd_part(x: float) -> tuple[int, int]:
    """Return an odd integer m and an exponent e with x = m·2**e, for positive x."""
    n, d = x.as_integer_ratio()
    zeros = (n & -n).bit_length() - 1
    return n >> zeros, zeros - (d.bit_length() - 1)


# Digits ------------------------------------------------------------------------------------------


def _ziv(name: str, operands: tuple[float, ...], g: float) -> int:
    """Return the sign of f - g, which is not 0, from as many digits as it takes."""
    digits, bound = _FIRST_DIGITS, Decimal(g)
    exact = [Decimal(operand) for operand in operands]
    while True:
        context = Context(prec=digits + _GUARD_DIGITS, Emin=MIN_EMIN, Emax=MAX_EMAX)
        with localcontext(context):
            value = _VALUES[name](*exact)
            difference = value - bound
            if abs(difference) > abs(value).scaleb(-digits):
                return _sign(difference)
        digits *= 2


def _two() -> Decimal:
    return Decimal(2)


def _tanh(x: Decimal) -> Decimal:
    q = (2 * x).exp()
    return (q - 1) / (q + 1)


def _sinh(x: Decimal) -> Decimal:
    q = x.exp()
    return (q - 1 / q) / 2


def _cosh(x: Decimal) -> Decimal:
    q = x.exp()
    return (q + 1 / q) / 2


def _asin(x: Decimal) -> Decimal:
    if abs(x) == 1:
        return x * _pi() / 2
    return _atan(x / ((1 - x) * (1 + x)).sqrt())


def _acos(x: Decimal) -> Decimal:
    """Return the arc cosine as twice an arc tangent, so that nothing cancels near 1."""
    return _pi() if x == -1 else 2 * _atan(((1 - x) / (1 + x)).sqrt())


def _atan(x: Decimal) -> Decimal:
    """Return the arc tangent by its power series, of an angle halved until that converges."""
    if abs(x) > 1:
        return (_pi() / 2).copy_sign(x) - _atan(1 / x)
    halvings = 0
    while abs(x) > Decimal("0.1"):
        x /= 1 + (1 + x * x).sqrt()
        halvings += 1
    power = total = x
    n = 1
    while total + power / n != total or n == 1:
        n += 2
        power *= -x * x
        total += power / n
    angle: Decimal = total * 2**halvings
    return angle


def _atan2(y: Decimal, x: Decimal) -> Decimal:
    angle = _atan(y / x)
    return angle + _pi().copy_sign(y) if x < 0 else angle


def _erf(x: Decimal) -> Decimal:
    """Return erf(x) = 2/sqrt(pi)·exp(-x²)·(x + 2x³/3 + 4x⁵/15 + …), where nothing cancels."""
    term = total = x
    n = 1
    while total + term != total:
        n += 2
        term *= 2 * x * x / n
        total += term
    return 2 / _pi().sqrt() * (-x * x).exp() * total


def _sine(x: Decimal) -> Decimal:
    r, quadrant = _reduced(x)
    value = _series(r, 1 - quadrant % 2)
    return -value if quadrant in (2, 3) else value


def _cosine(x: Decimal) -> Decimal:
    r, quadrant = _reduced(x)
    value = _series(r, quadrant % 2)
    return -value if quadrant in (1, 2) else value


def _reduced(x: Decimal) -> tuple[Decimal, int]:
    """Return x less the nearest multiple of pi/2, and that multiple modulo 4."""
    with localcontext() as context:
        context.prec += max(x.adjusted(), 0)
        half_pi = _pi() / 2
        multiple = (x / half_pi).to_integral_value()
        r = x - multiple * half_pi
    return +r, int(multiple) % 4


def _series(r: Decimal, n: int) -> Decimal:
    """Return sin(r) for n = 1 and cos(r) for n = 0, |r| < 1, by their power series."""
    term = total = r if n else Decimal(1)
    while total + term != total:
        n += 2
        term *= -r * r / (n * (n - 1))
        total += term
    return total


def _pi() -> Decimal:
    """Return pi to the precision of the present context."""
    with localcontext() as context:
        context.prec += 10
        digits = context.prec
        value = Decimal(_scaled_pi(digits)).scaleb(-digits)
    return +value


@functools.lru_cache(maxsize=64)
def _scaled_pi(digits: int) -> int:
    """Return pi·10**digits to a unit or so: 16·arctan(1/5) - 4·arctan(1/239), Machin's formula."""
    unit = 10 ** (digits + 10)
    return (16 * _scaled_arctan(5, unit) - 4 * _scaled_arctan(239, unit)) // 10**10


def _scaled_arctan(n: int, unit: int) -> int:
    """Return arctan(1/n)·unit, each of its terms cut to an integer."""
    power = total = unit // n
    k = 1
    while power:
        power //= -n * n
        k += 2
        total += power // k
    return total


# Each within a relative 10**-(digits + 10) of f at a precision of digits + _GUARD_DIGITS.
_VALUES: dict[str, Callable[..., Decimal]] = {
    "exp": lambda x: x.exp(),
    "exp2": lambda x: (x * _two().ln()).exp(),
    "expm1": lambda x: x.exp() - 1,
    "log": lambda x: x.ln(),
    "log2": lambda x: x.ln() / _two().ln(),
    "log10": lambda x: x.log10(),
    "log1p": lambda x: (1 + x).ln(),
    "sin": _sine,
    "cos": _cosine,
    "tan": lambda x: _sine(x) / _cosine(x),
    "sinh": _sinh,
    "cosh": _cosh,
    "tanh": _tanh,
    "asin": _asin,
    "acos": _acos,
    "atan": _atan,
    "atan2": _atan2,
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "erf": _erf,
    "power": lambda x, y: (y * x.ln()).exp(),
}
