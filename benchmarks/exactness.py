"""Right answers, made otherwise than lowprec makes them, and how far a result is from them."""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

import lowprec as lp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Array = np.ndarray[Any, Any]

_WIDE: dict[str, Any] = {
    "add": np.add,
    "multiply": np.multiply,
    "divide": np.divide,
    "sqrt": np.sqrt,
    "fma": lambda a, b, c: a * b + c,
    "remainder": lambda a, b: np.frompyfunc(math.remainder, 2, 1)(a, b).astype(np.float64),
}


def nearest(x: Fraction, fmt: lp.Format) -> float:
    """Round a fraction to the format, ties to even, in integers."""
    if x == 0:
        return 0.0
    exponent = abs(x.numerator).bit_length() - x.denominator.bit_length()
    exponent -= abs(x) < Fraction(2) ** exponent
    step = Fraction(2) ** (max(exponent, fmt.emin) - fmt.trailing_bits)
    value = float(round(x / step) * step)  # `round` goes to even
    if abs(value) <= fmt.max:
        return value
    return math.copysign(math.inf, value) if fmt.has_infinity else math.nan


def operation(name: str, operands: Sequence[Array], fmt: lp.Format) -> tuple[Array, Array]:
    """Return the results of an operation, ties to even, and those of float64.

    float64 has 53 >= 2·24 + 2 bits, so that to round its + × ÷ √ again is innocuous (Figueroa
    1995); its remainder is exact. A sum a·b + c that float64 rounds next to where the format's
    rounding turns is decided in fractions.
    """
    operands = [x.astype(np.float64) for x in operands]
    wide = _WIDE[name](*operands)
    right = lp.round_to(wide, fmt)
    if name == "fma":
        below, above = (lp.round_to(np.nextafter(wide, far), fmt) for far in (-np.inf, np.inf))
        for i in np.flatnonzero((below != above) & _is_rounded(operands, wide)):
            a, b, c = (Fraction(float(x[i])) for x in operands)
            right[i] = nearest(a * b + c, fmt)
    return right, wide


def _is_rounded(operands: Sequence[Array], wide: Array) -> Array:
    """Return where a·b + c is not the float64 `wide`; the product is exact in float64."""
    a, b, c = operands
    product = a * b
    part = wide - product
    return (product - (wide - part)) + (c - part) != 0


@functools.lru_cache(maxsize=8)
def elementary(name: str, fmt: lp.Format, operands: bytes) -> tuple[Array, Array]:
    """Return the results of a function for float64 operands, ties to even, and as float64s.

    mpmath computes them with 160 bits, far more than tell results from midpoints.
    """
    import mpmath

    functions = {"rsqrt": lambda x: 1 / mpmath.sqrt(x)}
    function = functions.get(name) or getattr(mpmath, name)
    with mpmath.workprec(160):
        exact = [_as_fraction(function(mpmath.mpf(x))) for x in np.frombuffer(operands).tolist()]
    right = np.array([nearest(x, fmt) for x in exact])
    return right, np.array([float(x) for x in exact])


def _as_fraction(x: Any) -> Fraction:
    sign, significand, exponent, _ = x._mpf_
    return Fraction((-1) ** sign * int(significand)) * Fraction(2) ** exponent


def rounded(x: Array, fmt: lp.Format, rounding: str = "ties_to_even") -> Array:
    """Round numbers as the format is defined: to a whole multiple of its spacing there.

    Every step is exact in float64, for sources of at most 24 bits. What is too large becomes
    infinite, or NaN in a format without infinities, which is what modes to nearest do.
    """
    x = np.asarray(x, np.float64)
    steps = np.maximum(np.frexp(x)[1] - 1, fmt.emin) - fmt.trailing_bits
    with np.errstate(invalid="ignore"):
        result = np.ldexp(_WHOLE[rounding](np.ldexp(x, -steps)), steps)
    too_large = np.abs(result) > fmt.max
    return np.where(too_large, np.copysign(np.inf, x) if fmt.has_infinity else np.nan, result)


def _away(whole: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Apply a rule for magnitudes to numbers of both signs."""
    return lambda s: np.copysign(whole(np.abs(s)), s)


def _to_odd(s: Array) -> Array:
    whole = np.floor(s)
    return np.where((s != whole) & (np.remainder(whole, 2) == 0), whole + 1, whole)


_WHOLE: dict[str, Callable[[Array], Array]] = {
    "ties_to_even": np.rint,
    "ties_to_away": _away(lambda s: np.floor(s + 0.5)),
    "ties_toward_zero": _away(lambda s: np.ceil(s - 0.5)),
    "toward_zero": np.trunc,
    "away_from_zero": _away(np.ceil),
    "toward_positive": np.ceil,
    "toward_negative": np.floor,
    "to_odd": _away(_to_odd),
}


def accuracy(result: Array, right: Array, wide: Array, fmt: lp.Format) -> dict[str, float]:
    """Tell how far results are from the exact ones.

    Parameters
    ----------
    result : ndarray
        What was computed.
    right : ndarray of float64
        The exact results, rounded once.
    wide : ndarray of float64
        The exact results, as close as float64 has them.
    fmt : Format
        Whose ulps errors are told in.

    Returns
    -------
    dict of str to float
        The share that is right to the bit, NaN for NaN; over the finite results for which the
        right one is finite the largest error in ulps of the right one and, where the exact one is
        not zero, the mean relative error; the shares that became the format's largest value, or
        zero, and should not have been.
    """
    result = np.asarray(result).astype(np.float64)
    both_nan = np.isnan(result) & np.isnan(right)
    same = (result == right) & (np.signbit(result) == np.signbit(right)) | both_nan
    finite = np.isfinite(result) & np.isfinite(right)
    errors = np.abs(result[finite] - wide[finite])
    sizes = np.abs(wide[finite])
    is_saturated = np.isfinite(wide) & ~np.isfinite(right) & (np.abs(result) == fmt.max)
    relative = errors[sizes > 0] / sizes[sizes > 0]
    return {
        "bit_match": float(np.mean(same)),
        "max_ulp_error": float(np.max(errors / lp.ulp(right[finite], fmt), initial=0)),
        "mean_relative_error": float(np.mean(relative)) if relative.size else 0.0,
        "saturated": float(np.mean(is_saturated)),
        "new_zeros": float(np.mean((result == 0) & (wide != 0))),
    }
