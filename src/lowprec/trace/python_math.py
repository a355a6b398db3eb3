"""The module math in a format."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.accumulation.accumulator import Accumulator
from lowprec.trace.functions.reductions import summed
from lowprec.trace.values import Traced, has_traced

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.trace.engine import Engine
    from lowprec.trace.entrance import Entrance


def _elementwise(function: Callable[[float], float]) -> Any:
    """Return a function of Python's for arrays, with a name."""

    def apply(x: Any) -> Any:
        with np.errstate(all="ignore"):
            values = [_defined(function, float(v)) for v in np.ravel(x)]
        return np.reshape(np.array(values, np.float64), np.shape(x))[()]

    apply.__name__ = function.__name__
    return apply


def _defined(function: Callable[[float], float], x: float) -> float:
    try:
        return function(x)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan


_SAME = """
    sqrt exp exp2 expm1 log2 log10 log1p sin cos tan sinh cosh tanh cbrt copysign fmod degrees
    radians
"""  # in math and in NumPy
_MATHS: dict[str, Any] = {name: getattr(np, name) for name in _SAME.split()} | {
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "fabs": np.absolute,
}
_MATHS |= {f.__name__: _elementwise(f) for f in (math.erf, math.erfc, math.gamma, math.lgamma)}


def _log(engine: Engine, x: Any, base: Any = None) -> Any:
    top = engine.elementwise(np.log, (x,), engine.site("log"))
    if base is None:
        return top
    return top / engine.elementwise(np.log, (base,), engine.site("log"))


def _hypot(engine: Engine, *xs: Any) -> Any:
    if len(xs) == 2:
        return engine.elementwise(np.hypot, xs, engine.site("hypot"))
    row = engine.stacked(xs, engine.site("hypot"))
    return engine.function(np.linalg.norm, (row,), {})


def _fsum(engine: Engine, items: Any) -> Any:
    """Return the exact sum rounded once."""
    site = engine.site("fsum")
    row = engine.stacked(list(items), site)
    kit = site.kit
    before = kit.accumulator
    try:
        if not kit.is_numpy:
            kit.accumulator = Accumulator(
                kit.fmt, order="exact", rounding=kit.rounding, overflow=kit.overflow, rng=kit.rng
            )
        return summed(engine, row, site)
    finally:
        kit.accumulator = before


def _frexp(engine: Engine, x: Any) -> Any:
    m, e = engine.function(np.frexp, (x,), {})
    return m, int(e)


_MATHS_OWN: dict[str, Callable[..., Any]] = {
    "log": _log,
    "hypot": _hypot,
    "fsum": _fsum,
    "frexp": _frexp,
    "pow": lambda engine, x, y: engine.powered(x, y, engine.site("power")),
    "dist": lambda engine, p, q: _hypot(engine, *[a - b for a, b in zip(p, q, strict=True)]),
    "prod": lambda engine, items, *, start=1: (
        engine.function(np.prod, (engine.stacked(list(items), engine.site("prod")),), {}) * start
    ),
    "ldexp": lambda engine, x, i: engine.function(np.ldexp, (x, i), {}),
    "modf": lambda engine, x: engine.function(np.modf, (x,), {}),
    "nextafter": lambda engine, x, y: engine.function(np.nextafter, (x, y), {}),
    "ulp": lambda engine, x: engine.function(np.spacing, (abs(x),), {}),
    "isnan": lambda engine, x: bool(np.isnan(x)),
    "isinf": lambda engine, x: bool(np.isinf(x)),
    "isfinite": lambda engine, x: bool(np.isfinite(x)),
    "isclose": lambda engine, a, b, *, rel_tol=1e-9, abs_tol=0.0: bool(
        abs(a - b) <= max(rel_tol * max(abs(a), abs(b)), abs_tol)
    ),
    "floor": lambda engine, x: x.__floor__(),
    "ceil": lambda engine, x: x.__ceil__(),
    "trunc": lambda engine, x: x.__trunc__(),
    "sumprod": lambda engine, p, q: engine.function(
        np.dot, (engine.array(list(p)), engine.array(list(q))), {}
    ),
}


def math_function(entrance: Entrance, function: Any) -> Callable[..., Any]:
    """Return what stands in front of a function of the module math."""
    name = function.__name__

    def call(*args: Any, **kwargs: Any) -> Any:
        if not entrance.is_here():
            return function(*args, **kwargs)
        args = tuple(list(a) if hasattr(a, "__next__") else a for a in args)
        if not any(has_traced(a) for a in args):
            return function(*args, **kwargs)
        engine = entrance.engine
        args = tuple(a.item() if type(a) is Traced and a.size == 1 else a for a in args)
        if name in _MATHS_OWN:
            return _MATHS_OWN[name](engine, *args, **kwargs)
        if name in _MATHS:
            return engine.elementwise(_MATHS[name], args, engine.site(name))
        return engine.refuse(function, args, kwargs)

    call.__name__ = call.__qualname__ = name
    return call
