"""float64 numbers that stand in for exact results: they round to a format as those would.

A *stand-in* for a real number lies on the same side of every number of at most 25 significant bits,
or is equal to it. These are all values of the formats with p <= 24, all midpoints between them and
all powers of two, so that rounding the stand-in, in every deterministic mode, and asking whether it
is inexact, tiny or too large, gives what the exact result would.

float64 computes f(x) within a relative 2**-45 (NumPy and the C library stay far below that, which
is tested). Results farther than this from every number of 25 bits are stand-ins as they are. The
others, one in 2**20 and those near which f has a reason to lie, are decided exactly: near x = 0 and
where f levels off, by the next term of its series, else with as many digits as it takes
(`decimals`).

References
----------
Boldo and Melquiond (2008), "Emulation of FMA and correctly rounded sums: proved algorithms using
rounding to odd": why such numbers may be rounded again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.arithmetic.elementary.decimals import atan2_side, power_side, side
from lowprec.kernels.operations.undecided import make_marker

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]

_LOW = np.uint64((1 << 28) - 1)  # bits of a float64 significand below the first 25
_HALF = np.uint64(1 << 27)
_MARGIN = np.uint64(256)  # 2**-45 relative, in units of the last place

# What stands in for results too large or too small for float64: no number of 25 bits either
_HUGE = math.ldexp(1 + 2.0**-25, 1000)
_TINY = math.ldexp(1 + 2.0**-25, -1000)
_BOUNDS = np.array([_TINY, _HUGE]).view(np.uint64)


class StandIns(NamedTuple):
    """Stand-ins for results, and where there is no finite result for finite or infinite operands.

    `values` holds infinities where they are exact (functions of infinities, poles), and NaN.
    """

    values: Array  # float64
    invalid: Array  # bool: NaN that does not come from a NaN operand
    divide_by_zero: Array  # bool: infinities that come from finite operands


# Functions in float64 ----------------------------------------------------------------------------


def _by_library(function: Callable[[float], float], at_infinity: float) -> Callable[[Array], Array]:
    """Make an array function of a function of the C library, for finite numbers."""
    over = np.frompyfunc(function, 1, 1)

    def evaluate(x: Array) -> Array:
        y: Array = np.where(np.isnan(x), x, np.copysign(at_infinity, x))
        y[np.isfinite(x)] = over(x[np.isfinite(x)])
        return y

    return evaluate


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    y: Array = np.where(x < 0, small, 1) / (1 + small)
    return y


# The C library reduces large arguments of sin, cos and tan exactly; not all of NumPy's versions do.
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sin": _by_library(math.sin, math.nan),
    "cos": _by_library(math.cos, math.nan),
    "tan": _by_library(math.tan, math.nan),
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sigmoid": _sigmoid,
    "erf": _by_library(math.erf, 1.0),
    "cbrt": np.cbrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
}
_POLES = {"log": 0, "log2": 0, "log10": 0, "log1p": -1, "rsqrt": 0, "reciprocal": 0}
_EXPONENTIALS = ("exp", "exp2", "sigmoid")  # never 0 at a finite x


# Where f comes close to a number of 25 bits, on a known side and never reaching it -------------


class _Tail(NamedTuple):
    """A stretch of nonzero x where f(x) is within 2**-26, relative, of `limit`, on one side."""

    holds: Callable[[Array], Array]
    limit: Callable[[Array], Array]
    direction: Callable[[Array], Array]  # sign of f(x) - limit


def _near_zero(size: float) -> Callable[[Array], Array]:
    return lambda x: np.abs(x) < size


def _constant(value: float) -> Callable[[Array], Array]:
    return lambda x: np.full_like(x, value)


def _beyond(size: float) -> Callable[[Array], Array]:
    return lambda x: np.abs(x) > size


_TAILS: dict[str, list[_Tail]] = {
    "exp": [_Tail(_near_zero(2.0**-27), _constant(1), np.sign)],  # 1 + x + …
    "exp2": [_Tail(_near_zero(2.0**-27), _constant(1), np.sign)],
    "expm1": [  # x + x²/2 + …, and -1 + exp(x)
        _Tail(_near_zero(2.0**-27), np.positive, _constant(1)),
        _Tail(lambda x: x < -20, _constant(-1), _constant(1)),
    ],
    "log1p": [_Tail(_near_zero(2.0**-27), np.positive, _constant(-1))],  # x - x²/2 + …
    "sin": [_Tail(_near_zero(2.0**-13), np.positive, lambda x: -np.sign(x))],  # x - x³/6 + …
    "cos": [_Tail(_near_zero(2.0**-13), _constant(1), _constant(-1))],  # 1 - x²/2 + …
    "tan": [_Tail(_near_zero(2.0**-13), np.positive, np.sign)],  # x + x³/3 + …
    "sinh": [_Tail(_near_zero(2.0**-13), np.positive, np.sign)],  # x + x³/6 + …
    "cosh": [_Tail(_near_zero(2.0**-13), _constant(1), _constant(1))],  # 1 + x²/2 + …
    "asin": [_Tail(_near_zero(2.0**-13), np.positive, np.sign)],  # x + x³/6 + …
    "atan": [_Tail(_near_zero(2.0**-13), np.positive, lambda x: -np.sign(x))],  # x - x³/3 + …
    "tanh": [  # x - x³/3 + …, and ±(1 - 2·exp(-2|x|) + …)
        _Tail(_near_zero(2.0**-13), np.positive, lambda x: -np.sign(x)),
        _Tail(_beyond(10), np.sign, lambda x: -np.sign(x)),
    ],
    "sigmoid": [  # 1/2 + x/4 - …, and 1 - exp(-x) + …
        _Tail(_near_zero(2.0**-26), _constant(0.5), np.sign),
        _Tail(lambda x: x > 20, _constant(1), _constant(-1)),
    ],
    "erf": [_Tail(_beyond(4.5), np.sign, lambda x: -np.sign(x))],
}


# Stand-ins ---------------------------------------------------------------------------------------


@np.errstate(all="ignore")  # its events are counted by `invalid` and its like, not by NumPy
def unary(name: str, x: Array) -> StandIns:
    """Return stand-ins for f(x).

    Parameters
    ----------
    name : str
        One of `FUNCTIONS`.
    x : numpy.ndarray of float64, shape (n,)
        Numbers of at most 24 significant bits, not beyond 2**±500, zeros, infinities and NaN.

    Returns
    -------
    StandIns
        Three arrays of shape (n,).

    Examples
    --------
    >>> found = unary("exp", np.array([0.0, 2.0**-100, -1e30, np.inf]))
    >>> [float(value).hex() for value in found.values]
    ['0x1.0000000000000p+0', '0x1.0000000000001p+0', '0x1.0000008000000p-1000', 'inf']
    """
    y = np.asarray(FUNCTIONS[name](x), np.float64)
    at_pole = (x == _POLES[name]) if name in _POLES else np.zeros(x.shape, np.bool_)
    invalid = np.isnan(y) & ~np.isnan(x)
    y[np.isnan(y)] = np.nan  # without a sign
    between = np.isfinite(x) & ~at_pole & ~invalid
    if name in _EXPONENTIALS:
        y[between] = np.maximum(y[between], _TINY)
    y[between] = np.clip(y[between], -_HUGE, _HUGE)
    hard = np.flatnonzero(between & _is_near_grid(y))
    for tail in _TAILS.get(name, []):
        here = hard[tail.holds(x[hard]) & (x[hard] != 0)]
        y[here] = _beside(tail.limit(x[here]), tail.direction(x[here]))
        hard = np.setdiff1d(hard, here, assume_unique=True)
    nearest = _nearest_on_grid(y[hard])
    sides = [side(name, *pair) for pair in zip(x[hard].tolist(), nearest.tolist(), strict=True)]
    y[hard] = _beside(nearest, np.array(sides, np.float64))
    return StandIns(y, invalid, at_pole)


@np.errstate(all="ignore")
def power(x: Array, y: Array, out: Array | None = None) -> StandIns:
    """Return stand-ins for x**y, with the special cases of IEEE 754-2019, section 9.2.1.

    Parameters
    ----------
    x, y : numpy.ndarray of float64, shape (n,)
        As for `unary`.
    out : numpy.ndarray of float64, shape (n,), optional
        Memory for the stand-ins.

    Returns
    -------
    StandIns
        Three arrays of shape (n,).

    Examples
    --------
    >>> found = power(np.array([-2.0, 0.0, 9.0, -1.0]), np.array([-3.0, -1.0, 0.5, 0.5]))
    >>> found.values, found.invalid, found.divide_by_zero
    (array([-0.125,    inf,  3.   ,    nan]), array([False, False, False,  True]), array([False,  True, False, False]))
    """  # noqa: E501
    z, marks = np.power(x, y, out=out), np.empty(x.shape, np.bool_)
    invalid, divide_by_zero = np.zeros((2, *x.shape), np.bool_)
    if make_marker()(x, y, z, marks, _LOW, _MARGIN, *_BOUNDS):
        at = np.flatnonzero(marks)
        found = _special_powers(x[at], y[at])
        z[at], invalid[at], divide_by_zero[at] = found
    return StandIns(z, invalid, divide_by_zero)


def _special_powers(x: Array, y: Array) -> StandIns:
    """Return stand-ins for powers that float64 does not decide, or of special operands."""
    z = np.power(x, y)
    divide_by_zero = (x == 0) & (y < 0) & np.isfinite(y)
    invalid = np.isnan(z) & ~np.isnan(x) & ~np.isnan(y)
    z[np.isnan(z)] = np.nan
    between = np.isfinite(x) & np.isfinite(y) & (x != 0) & (y != 0) & ~invalid
    at = np.flatnonzero(between)
    z[at] = np.copysign(_positive_power(np.abs(x[at]), y[at], np.abs(z[at])), z[at])
    return StandIns(z, invalid, divide_by_zero)


def _positive_power(x: Array, y: Array, z: Array) -> Array:
    """Return stand-ins for x**y, `z` being what float64 gives; x positive and y not 0."""
    z = np.clip(z, _TINY, _HUGE)
    hard = np.flatnonzero(_is_near_grid(z))
    x, y, nearest = x[hard], y[hard], _nearest_on_grid(z[hard])
    significand, exponent = np.frexp(x)
    result = np.full_like(x, np.nan)  # NaN: not decided yet
    whole = (significand == 0.5) & ((exponent - 1) * y == np.rint((exponent - 1) * y))
    result[whole] = nearest[whole]  # a power of two
    is_short = significand * 2.0**13 == np.rint(significand * 2.0**13)
    exact = (y == 1) | (y == 2) | (is_short & ((y == 3) | (y == 4)))  # at most 53 bits
    product = np.where(y > 1, x * x, x)
    product *= np.where(y == 3, x, np.where(y == 4, product, 1))
    result[exact] = product[exact]
    tail = np.isnan(result) & (np.abs(y * np.log2(x)) < 2.0**-27)  # 1 + y·log(x) + …
    result[tail] = _beside(nearest[tail], np.sign(y[tail]) * np.sign(x[tail] - 1))
    left = np.flatnonzero(np.isnan(result))
    cases = list(zip(x[left].tolist(), y[left].tolist(), nearest[left].tolist(), strict=True))
    sides = {case: power_side(*case) for case in set(cases)}
    result[left] = _beside(nearest[left], np.array([sides[case] for case in cases], np.float64))
    z[hard] = result
    return z


@np.errstate(all="ignore")
def hypot(x: Array, y: Array, out: Array | None = None) -> StandIns:
    """Return stand-ins for sqrt(x² + y²), infinite where an operand is, beside NaN too.

    Squares are exact, and so is what their sum leaves out: its sign beside the square of a number
    of 25 bits decides.

    Parameters
    ----------
    x, y : numpy.ndarray of float64, shape (n,)
        As for `unary`.
    out : numpy.ndarray of float64, shape (n,), optional
        Memory for the stand-ins.

    Returns
    -------
    StandIns
        Three arrays of shape (n,).

    Examples
    --------
    >>> hypot(np.array([3.0, 1.0, np.inf]), np.array([-4.0, 2.0**-30, np.nan])).values
    array([ 5.,  1., inf])
    """
    x, y = np.abs(x), np.abs(y)
    larger, smaller = np.maximum(x, y) ** 2, np.minimum(x, y) ** 2
    total = larger + smaller
    left = smaller - (total - larger)
    z = np.sqrt(total, out=out)
    z[np.isnan(z)] = np.nan
    hard = np.flatnonzero(np.isfinite(z) & _is_near_grid(z))
    nearest = _nearest_on_grid(z[hard])
    z[hard] = _beside(nearest, (total[hard] - nearest * nearest) + left[hard])
    z[np.isinf(x) | np.isinf(y)] = np.inf
    nowhere = np.zeros(z.shape, np.bool_)
    return StandIns(z, nowhere, nowhere)


@np.errstate(all="ignore")
def atan2(y: Array, x: Array, out: Array | None = None) -> StandIns:
    """Return stand-ins for the angle of the point (x, y), as IEEE 754-2019, section 9.2.1, has it.

    Parameters
    ----------
    y, x : numpy.ndarray of float64, shape (n,)
        As for `unary`.
    out : numpy.ndarray of float64, shape (n,), optional
        Memory for the stand-ins.

    Returns
    -------
    StandIns
        Three arrays of shape (n,).

    Examples
    --------
    >>> angles = atan2(np.array([1.0, -0.0, 3.0]), np.array([1.0, 2.0, 3 * 2.0**40])).values
    >>> [angle.hex() for angle in angles.tolist()]
    ['0x1.921fb54442d18p-1', '-0x0.0p+0', '0x1.fffffffffffffp-41']
    """
    z = np.arctan2(y, x, out=out)
    z[np.isnan(z)] = np.nan
    between = np.isfinite(x) & np.isfinite(y) & (x != 0) & (y != 0)
    hard = np.flatnonzero(between & _is_near_grid(z))
    z[hard] = _angles_beside_grid(y[hard], x[hard], _nearest_on_grid(z[hard]))
    nowhere = np.zeros(z.shape, np.bool_)
    return StandIns(z, nowhere, nowhere)


def _angles_beside_grid(y: Array, x: Array, nearest: Array) -> Array:
    """Return stand-ins for angles, the numbers of 25 bits nearest to them being known.

    With q = y/x positive and small the angle is q - q³/3 + …. The product of x and a number of 25
    bits is exact: q is that number, or differs from it by more than 2**-50 of itself.
    """
    size = np.abs(nearest)
    left = np.sign(y - nearest * x)
    is_on_grid = (x > 0) & (left == 0) & (size < 2.0**-12)
    is_decided = (x > 0) & (left != 0) & (size < 2.0**-26)
    sides = np.where(is_on_grid, -np.sign(y), left)
    others = np.flatnonzero(~(is_on_grid | is_decided))
    cases = list(zip(y[others].tolist(), x[others].tolist(), nearest[others].tolist(), strict=True))
    found = {case: atan2_side(*case) for case in set(cases)}
    sides[others] = [found[case] for case in cases]
    return _beside(nearest, sides)


BINARY: dict[str, Callable[..., StandIns]] = {
    "power": power,
    "atan2": atan2,
    "hypot": hypot,
}
NAMES = (*FUNCTIONS, *BINARY)


def _is_near_grid(y: Array) -> Array:
    """Return where a number of 25 bits may lie between y and the exact result."""
    return ((y.view(np.uint64) + _MARGIN) & _LOW) <= np.uint64(2) * _MARGIN


def _nearest_on_grid(y: Array) -> Array:
    """Return the numbers of 25 bits nearest to y."""
    return ((y.view(np.uint64) + _HALF) & ~_LOW).view(np.float64)


def _beside(y: Array, direction: Array) -> Array:
    """Return y itself where `direction` is 0, else the float64 next to it on that side."""
    return np.where(direction == 0, y, np.nextafter(y, np.copysign(np.inf, direction)))
