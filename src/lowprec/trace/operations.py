"""What NumPy's universal functions are in a format, and how error passes through each.

One table says for each function of NumPy which method of `Arithmetic` computes it, and one how the
error of its operands becomes error of its result. The slopes are secants between the shadow and the
traced value, so that shares sum to the error whatever its size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.arithmetic.arithmetic import Arithmetic

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]

# NumPy's function -> the method of Arithmetic that is it. A method that Arithmetic has not is
# float64's result, rounded once.
_SAME = """
    add subtract multiply divide sqrt square negative floor_divide minimum maximum exp exp2
    expm1 log log2 log10 log1p sin cos tan sinh cosh tanh hypot cbrt reciprocal power erf
"""
METHODS: dict[str, str] = {name: name for name in _SAME.split()} | {
    "absolute": "abs",
    "fabs": "abs",
    "remainder": "mod",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arctan2": "atan2",
    "float_power": "power",
    "expit": "sigmoid",  # of SciPy
}
_HAS = {name for name in METHODS.values() if hasattr(Arithmetic, name)}

# Their result is a value of the format whenever their operands are: nothing is rounded.
_EXACT = """
    absolute fabs negative positive floor ceil trunc rint sign copysign minimum maximum fmin fmax
    fmod heaviside conjugate
"""
EXACT = frozenset(_EXACT.split())
_COMPARISONS = """
    less less_equal greater greater_equal equal not_equal logical_and logical_or logical_xor
    logical_not
"""
COMPARISONS = frozenset(_COMPARISONS.split())
# They ask what kind of number it is, and change nothing.
QUESTIONS = frozenset(["isnan", "isinf", "isfinite", "signbit"])
SELECTIONS = frozenset(["minimum", "maximum", "fmin", "fmax"])


def method_of(name: str) -> str | None:
    """Return the method of `Arithmetic` that a function of NumPy is, None if there is none."""
    method = METHODS.get(name)
    return method if method in _HAS else None


class ErrorPass(NamedTuple):
    """How the error of one operand becomes error of the result.

    slope (float or ndarray): Times the operand's error, the result's.
    kept (float or ndarray): The part of it that the operation carries: 1, or less where the
        relative error grows.
    """

    slope: Any
    kept: Any


def _carried(condition: Any) -> Any:
    """Return the part of a relative error that is carried, from the condition of the operation."""
    return 1.0 / np.maximum(1.0, condition)


_LEAST = 5e-324  # so that nothing is divided by 0


def _of_sum(sign: float) -> Callable[..., list[ErrorPass]]:
    def passes(x: Any, xs: Any, y: Any, ys: Any, zs: Any) -> list[ErrorPass]:
        sizes = np.add(np.abs(xs), np.abs(ys))
        kept = np.abs(zs)
        kept /= np.maximum(sizes, _LEAST, out=sizes if np.ndim(sizes) else None)
        return [ErrorPass(1.0, kept), ErrorPass(sign, kept)]

    return passes


def _of_product(x: Any, xs: Any, y: Any, ys: Any, zs: Any) -> list[ErrorPass]:
    return [ErrorPass(_middle(y, ys), 1.0), ErrorPass(_middle(x, xs), 1.0)]


def _of_quotient(x: Any, xs: Any, y: Any, ys: Any, zs: Any) -> list[ErrorPass]:
    product = np.multiply(y, ys)  # float64, as the shadow is
    along_x, along_y = _middle(y, ys), _middle(x, xs)
    return [
        ErrorPass(np.divide(along_x, product), 1.0),
        ErrorPass(-np.divide(along_y, product), 1.0),
    ]


def _middle(x: Any, xs: Any) -> Any:
    """Return the mean of value and shadow, in float64."""
    middle = np.add(x, xs, dtype=np.float64)
    middle *= 0.5
    return middle


def _of_square(x: Any, xs: Any, zs: Any) -> list[ErrorPass]:
    return [ErrorPass(x + xs, 1.0)]


# Their slopes and what they keep are finite where operands are.
TAME = frozenset(("add", "subtract", "multiply", "square", "negative", "positive"))

# Derivatives where secants have no width.
_DERIVATIVES: dict[str, Callable[[Any, Any], Any]] = {
    "exp": lambda x, z: z,
    "exp2": lambda x, z: z * np.log(2.0),
    "expm1": lambda x, z: z + 1,
    "log": lambda x, z: 1 / x,
    "log2": lambda x, z: 1 / (x * np.log(2.0)),
    "log10": lambda x, z: 1 / (x * np.log(10.0)),
    "log1p": lambda x, z: 1 / (1 + x),
    "sin": lambda x, z: np.cos(x),
    "cos": lambda x, z: -np.sin(x),
    "tan": lambda x, z: 1 + z * z,
    "tanh": lambda x, z: 1 - z * z,
    "sinh": lambda x, z: np.cosh(x),
    "cosh": lambda x, z: np.sinh(x),
    "arcsin": lambda x, z: 1 / np.sqrt(1 - x * x),
    "arccos": lambda x, z: -1 / np.sqrt(1 - x * x),
    "arctan": lambda x, z: 1 / (1 + x * x),
    "sqrt": lambda x, z: 0.5 / z,
    "cbrt": lambda x, z: z / (3 * x),
    "reciprocal": lambda x, z: -z * z,
    "absolute": lambda x, z: np.sign(x),
    "fabs": lambda x, z: np.sign(x),
}
_NARROW = 1e-9  # relative width below which a secant is noise
_STEP = 1e-6


def _secant(at: Callable[[Any], Any], x: Any, xs: Any, zx: Any, zs: Any, derivative: Any) -> Any:
    """Return (f(x) - f(xs)) / (x - xs), the derivative where x and xs are too near."""
    width = x - xs
    is_narrow = np.abs(width) <= _NARROW * np.abs(xs)
    if np.all(is_narrow):
        return derivative() if callable(derivative) else derivative
    slope = (zx - zs) / np.where(is_narrow, 1.0, width)
    if np.any(is_narrow):
        slope = np.where(is_narrow, derivative() if callable(derivative) else derivative, slope)
    return slope


def _difference(at: Callable[[Any], Any], xs: Any) -> Any:
    step = _STEP * np.maximum(np.abs(xs), 1e-30)
    return (at(xs + step) - at(xs - step)) / (2 * step)


def _of_one(ufunc: Any, x: Any, xs: Any, zs: Any) -> list[ErrorPass]:
    known = _DERIVATIVES.get(ufunc.__name__)

    def derivative() -> Any:
        return known(xs, zs) if known is not None else _difference(ufunc, xs)

    slope = _secant(ufunc, x, xs, ufunc(x), zs, derivative)
    return [ErrorPass(slope, _carried(np.abs(slope * xs / zs)))]


def _of_two(ufunc: Any, x: Any, xs: Any, y: Any, ys: Any, zs: Any) -> list[ErrorPass]:
    """Pass from (xs, ys) to (x, y) along both ways and take the mean."""
    corner_x, corner_y, both = ufunc(x, ys), ufunc(xs, y), ufunc(x, y)
    first = _secant(ufunc, x, xs, corner_x, zs, lambda: _difference(lambda v: ufunc(v, ys), xs))
    second = _secant(ufunc, x, xs, both, corner_y, lambda: _difference(lambda v: ufunc(v, y), xs))
    along_x = 0.5 * (first + second)
    first = _secant(ufunc, y, ys, corner_y, zs, lambda: _difference(lambda v: ufunc(xs, v), ys))
    second = _secant(ufunc, y, ys, both, corner_x, lambda: _difference(lambda v: ufunc(x, v), ys))
    along_y = 0.5 * (first + second)
    return [
        ErrorPass(along_x, _carried(np.abs(along_x * xs / zs))),
        ErrorPass(along_y, _carried(np.abs(along_y * ys / zs))),
    ]


_OWN: dict[str, Callable[..., list[ErrorPass]]] = {
    "add": _of_sum(1.0),
    "subtract": _of_sum(-1.0),
    "multiply": _of_product,
    "divide": _of_quotient,
    "square": _of_square,
    "negative": lambda x, xs, zs: [ErrorPass(-1.0, 1.0)],
    "positive": lambda x, xs, zs: [ErrorPass(1.0, 1.0)],
}


def passes(ufunc: Any, operands: list[Array], shadows: list[Array], result: Any) -> list[ErrorPass]:
    """Return how the error of each operand passes to the result.

    Parameters
    ----------
    ufunc : numpy.ufunc
        The function, of one or two operands.
    operands, shadows : list of ndarray
        The operands as traced (converted to the line's format), and in the shadow (float64).
    result : float64 ndarray
        The function of the shadows.
    """
    own = _OWN.get(ufunc.__name__)
    if own is not None:
        return own(*[v for pair in zip(operands, shadows, strict=True) for v in pair], result)
    wide = [np.asarray(v, np.float64) for v in operands]
    if len(wide) == 1:
        return _of_one(ufunc, wide[0], shadows[0], result)
    return _of_two(ufunc, wide[0], shadows[0], wide[1], shadows[1], result)
