"""Differences, convolutions, interpolation and polynomials, written with traced operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.conversion.neighbours import next_down, next_up, ulp
from lowprec.trace.functions.reductions import matrix_product
from lowprec.trace.functions.table import FUNCTIONS, implements

if TYPE_CHECKING:
    from lowprec.trace.engine import Engine
    from lowprec.trace.values import Traced


@implements(np.diff)
def _diff(
    engine: Engine, a: Any, n: int = 1, axis: int = -1, prepend: Any = np._NoValue,
    append: Any = np._NoValue,
) -> Any:  # fmt: skip
    array: Any = engine.array(a)
    if prepend is not np._NoValue or append is not np._NoValue:
        thin = [1 if d == axis % array.ndim else size for d, size in enumerate(array.shape)]
        ends = [None if e is np._NoValue else engine.array(e) for e in (prepend, append)]
        before, after = (e if e is None or e.ndim else np.broadcast_to(e, thin) for e in ends)
        parts = [part for part in (before, array, after) if part is not None]
        array = np.concatenate(parts, axis=axis)
    for _ in range(n):
        rows = engine.moved(array, lambda v: np.moveaxis(v, axis, 0))
        steps = rows[1:] - rows[:-1]
        array = engine.moved(engine.array(steps), lambda v: np.moveaxis(v, 0, axis))
    return array


@implements(np.ediff1d)
def _ediff1d(engine: Engine, ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    steps = _diff(engine, engine.reshaped(engine.array(ary), (-1,)))
    parts = [to_begin, steps, to_end]
    return np.concatenate([np.ravel(engine.array(p)) for p in parts if p is not None])


@implements(np.gradient)
def _gradient(engine: Engine, f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    array = engine.array(f)
    if axis is None and array.ndim > 1 and len(varargs) in (0, 1, array.ndim):
        steps = varargs if len(varargs) == array.ndim else (*varargs, *varargs)[:1] * array.ndim
        return tuple(
            _gradient(engine, array, *steps[d : d + 1], axis=d, edge_order=edge_order)
            for d in range(array.ndim)
        )
    if edge_order != 1 or len(varargs) > 1:
        return engine.refuse(np.gradient, (f, *varargs), {})
    place = -1 if axis is None else axis
    rows = engine.moved(array, lambda v: np.moveaxis(v, place, 0))
    step: Any = varargs[0] if varargs else 1.0
    if np.ndim(step):
        return engine.refuse(np.gradient, (f, *varargs), {})
    inner = (rows[2:] - rows[:-2]) / (2.0 * step)
    first, last = (rows[1:2] - rows[0:1]) / step, (rows[-1:] - rows[-2:-1]) / step
    made = np.concatenate([first, inner, last])
    return engine.moved(engine.array(made), lambda v: np.moveaxis(v, 0, place))


@implements(np.trapezoid)
def _trapezoid(engine: Engine, y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    array = engine.moved(engine.array(y), lambda v: np.moveaxis(v, axis, -1))
    steps: Any = dx
    if x is not None:
        places = engine.array(x)
        steps = _diff(engine, places, axis=axis if places.ndim == array.ndim else -1)
    return np.sum(steps * (array[..., 1:] + array[..., :-1]) / 2.0, axis=-1)


def _windows(engine: Engine, a: Any, v: Any, mode: str) -> Any:
    x, kernel = engine.array(a), engine.array(v)
    if len(kernel) > len(x):
        x, kernel = kernel, x
    n, k = len(x), len(kernel)
    widths = {"full": (k - 1, k - 1), "valid": (0, 0), "same": ((k - 1) // 2 + (k - 1) % 2, 0)}
    if mode == "same":
        full = matrix_product(
            engine, _slid(engine, x, k, (k - 1, k - 1)), kernel[::-1], engine.site("convolve")
        )
        start = (k - 1) // 2
        return full[start : start + n]
    return matrix_product(
        engine, _slid(engine, x, k, widths[mode]), kernel[::-1], engine.site("convolve")
    )


def _slid(engine: Engine, x: Traced, k: int, widths: tuple[int, int]) -> Traced:
    return engine.array(
        engine.moved(
            x, lambda v: np.array(np.lib.stride_tricks.sliding_window_view(np.pad(v, widths), k))
        )
    )


@implements(np.convolve)
def _convolve(engine: Engine, a: Any, v: Any, mode: str = "full") -> Any:
    return _windows(engine, a, v, mode)


@implements(np.correlate)
def _correlate(engine: Engine, a: Any, v: Any, mode: str = "valid") -> Any:
    return _windows(engine, engine.array(a), engine.array(v)[::-1], mode)


@implements(np.interp)
def _interp(
    engine: Engine,
    x: Any,
    xp: Any,
    fp: Any,
    left: Any = None,
    right: Any = None,
    period: Any = None,
) -> Any:
    if period is not None:
        return engine.refuse(np.interp, (x, xp, fp), {"period": period})
    at, places, values = engine.array(x), engine.array(xp), engine.array(fp)
    flat = engine.reshaped(at, (-1,))
    k = np.clip(np.searchsorted(places, flat, side="right") - 1, 0, len(places) - 2)
    slope = (values[k + 1] - values[k]) / (places[k + 1] - places[k])
    made = slope * (flat - places[k]) + values[k]
    made = np.where(flat < places[0], values[0] if left is None else left, made)
    made = np.where(flat >= places[-1], values[-1], made)
    made = np.where(flat > places[-1], values[-1] if right is None else right, made)
    return engine.lowered(np.reshape(made, at.shape))


@implements(np.polyval)
def _polyval(engine: Engine, p: Any, x: Any) -> Any:
    coefficients = engine.array(p)
    result: Any = np.zeros_like(engine.array(x))
    for c in coefficients:
        result = result * x + c
    return engine.lowered(result)


@implements(np.vander)
def _vander(engine: Engine, x: Any, N: Any = None, increasing: bool = False) -> Any:
    array = engine.array(x)
    n = len(array) if N is None else N
    columns: list[Any] = [np.ones_like(array)]
    for _ in range(n - 1):
        columns.append(columns[-1] * array)
    return np.stack(columns if increasing else columns[::-1], axis=1)


@implements(np.clip)
def _clip(
    engine: Engine, a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None,  # noqa: A002
    max: Any = None, **kwargs: Any,  # noqa: A002
) -> Any:  # fmt: skip
    low = min if a_min is None else a_min
    high = max if a_max is None else a_max
    result = engine.array(a)
    if low is not None:
        result = np.maximum(result, low)
    if high is not None:
        result = np.minimum(result, high)
    return engine.lowered(result)


if hasattr(np._core.umath, "clip"):  # type: ignore[attr-defined]
    FUNCTIONS[np._core.umath.clip] = (  # type: ignore[attr-defined]
        lambda engine, a, low, high, site=None, **kwargs: _clip(engine, a, low, high)
    )


@implements(np.round, np.around)
def _round(engine: Engine, a: Any, decimals: int = 0) -> Any:
    array = engine.array(a)
    scale = 10.0 ** abs(decimals)
    if decimals == 0:
        result = np.rint(array)
    elif decimals > 0:
        result = np.rint(array * scale) / scale
    else:
        result = np.rint(array / scale) * scale
    return engine.lowered(result)


@implements(np.fix)
def _fix(engine: Engine, x: Any) -> Any:
    return np.trunc(x)


@implements(np.sinc)
def _sinc(engine: Engine, x: Any) -> Any:
    y: Any = np.pi * np.where(np.equal(x, 0), 1.0e-20, x)
    return engine.lowered(np.sin(y) / y)


@implements(np.modf)
def _modf(engine: Engine, x: Any, site: Any = None, **kwargs: Any) -> Any:
    whole = np.trunc(x)
    return x - whole, whole


@implements(np.divmod)
def _divmod(engine: Engine, x: Any, y: Any, site: Any = None, **kwargs: Any) -> Any:
    return np.floor_divide(x, y), np.remainder(x, y)


@implements(np.ldexp)
def _ldexp(engine: Engine, x: Any, n: Any, site: Any = None, **kwargs: Any) -> Any:
    site = engine.site("ldexp") if site is None else site
    taken = engine.operand(engine.array(x, site), site)
    z = site.kit.enter(np.ldexp(np.asarray(taken[0], np.float64), n))
    scale = np.ldexp(1.0, n)
    flows = [(lambda part: part * scale, 1.0)]
    return engine.linear(z, np.ldexp(taken[1], n), [taken], flows, site, "ldexp", int(np.size(z)))


@implements(np.frexp)
def _frexp(engine: Engine, x: Any, site: Any = None, **kwargs: Any) -> Any:
    array = engine.array(x)
    exponents = np.frexp(array.value)[1]
    if np.any(exponents != np.frexp(array.shadow)[1]):
        engine.decide(exponents != np.frexp(array.shadow)[1], engine.site("frexp"), (array,))
    return _ldexp(engine, x, -exponents), exponents[()]


@implements(np.nextafter)
def _nextafter(engine: Engine, x: Any, y: Any, site: Any = None, **kwargs: Any) -> Any:
    """Return the format's neighbour of x towards y; the shadow takes the same step."""
    site = engine.site("nextafter") if site is None else site
    (a, shadow, source), (b, _, _) = engine.operand(x, site), engine.operand(y, site)
    fmt = site.kit.fmt
    z = np.where(np.equal(a, b), b, np.where(np.greater(b, a), next_up(a, fmt), next_down(a, fmt)))
    z = np.where(np.isnan(a) | np.isnan(b), np.nan, z)
    steps = np.asarray(z, np.float64) - a
    taken, flows = [(a, shadow, source)], [(lambda part: part, 1.0)]
    return engine.linear(z, shadow + steps, taken, flows, site, "nextafter", int(np.size(z)))


@implements(np.spacing)
def _spacing(engine: Engine, x: Any, site: Any = None, **kwargs: Any) -> Any:
    site = engine.site("spacing") if site is None else site
    value, _, _ = engine.operand(x, site)
    found = np.asarray(ulp(value, site.kit.fmt), np.float64)
    return engine.lowered(engine.array_from(found, site.unit, site.kit))


@implements(np.linspace)
def _linspace(
    engine: Engine, start: Any, stop: Any, num: int = 50, endpoint: bool = True,
    retstep: bool = False, dtype: Any = None, axis: int = 0, **kwargs: Any,
) -> Any:  # fmt: skip
    if np.ndim(start) or np.ndim(stop):
        return engine.refuse(np.linspace, (start, stop), kwargs)
    parts = num - 1 if endpoint else num
    step = (stop - start) / max(parts, 1)
    made = engine.array(np.arange(num, dtype=np.float64)) * step + start
    if endpoint and num > 1:
        made[-1] = stop
    return (made, step) if retstep else made


@implements(np.geomspace)
def _geomspace(
    engine: Engine, start: Any, stop: Any, num: int = 50, endpoint: bool = True,
    dtype: Any = None, axis: int = 0,
) -> Any:  # fmt: skip
    ratio = np.log10(engine.array(stop) / start)
    made = np.power(10.0, _linspace(engine, 0.0, ratio, num, endpoint)) * start
    if endpoint and num > 1:
        made[-1] = stop
    return made


@implements(np.logspace)
def _logspace(
    engine: Engine, start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10.0,
    dtype: Any = None, axis: int = 0,
) -> Any:  # fmt: skip
    return np.power(engine.array(base), _linspace(engine, start, stop, num, endpoint))
