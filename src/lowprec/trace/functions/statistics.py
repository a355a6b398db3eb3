"""Quantiles, covariances, and functions along an axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace.functions.choices import in_order
from lowprec.trace.functions.sums import rows_of
from lowprec.trace.functions.table import implements
from lowprec.trace.values import has_traced

if TYPE_CHECKING:
    from lowprec.trace.engine import Engine


@implements(np.median)
def _median(
    engine: Engine, a: Any, axis: Any = None, overwrite_input: bool = False, keepdims: bool = False
) -> Any:
    return _quantile(engine, a, 0.5, axis, keepdims=keepdims)


@implements(np.percentile)
def _percentile(engine: Engine, a: Any, q: Any, *args: Any, **kwargs: Any) -> Any:
    return _quantile(engine, a, np.true_divide(q, 100), *args, **kwargs)


@implements(np.quantile)
def _quantile(
    engine: Engine, a: Any, q: Any, axis: Any = None, overwrite_input: bool = False,
    method: str = "linear", keepdims: bool = False, **kwargs: Any,
) -> Any:  # fmt: skip
    array = engine.array(a)
    if method != "linear" or has_traced(q) or any(v is not None for v in kwargs.values()):
        return engine.refuse(np.quantile, (a, q), {"method": method, **kwargs})
    rows = rows_of(engine, array, axis)
    ordered = in_order(engine, rows, 0)
    made = []
    for part in np.ravel(q):
        place = float(part) * (len(ordered) - 1)
        low = math.floor(place)
        high, rest = min(low + 1, len(ordered) - 1), place - low
        below, above = ordered[low], ordered[high]
        if rest == 0.5:
            made.append((below + above) / 2)
        else:
            made.append(below + (above - below) * rest if rest else below)
    nowhere = np.isnan(engine.array(ordered[-1]).value)  # NaN is ordered last
    if nowhere.any():
        made = [engine.lowered(engine.array(np.where(nowhere, np.nan, m))) for m in made]
    result: Any = made[0] if np.ndim(q) == 0 else np.stack([engine.array(m) for m in made])
    if keepdims:
        axes = range(array.ndim) if axis is None else np.atleast_1d(axis) % array.ndim
        shape = [1 if d in list(axes) else n for d, n in enumerate(array.shape)]
        result = np.reshape(engine.array(result), [*np.shape(q), *shape])
    return result


@implements(np.cov)
def _cov(
    engine: Engine, m: Any, y: Any = None, rowvar: bool = True, bias: bool = False,
    ddof: Any = None, **kwargs: Any,
) -> Any:  # fmt: skip
    if kwargs:
        return engine.refuse(np.cov, (m, y), kwargs)
    x: Any = engine.array(np.atleast_2d(m))
    if not rowvar and x.shape[0] != 1:
        x = x.T
    if y is not None:
        x = np.concatenate([x, np.atleast_2d(engine.array(y))])
    n = x.shape[1] - ((0 if bias else 1) if ddof is None else ddof)
    deviations = x - np.mean(x, axis=1, keepdims=True)
    return engine.lowered(np.squeeze(np.matmul(deviations, deviations.T) / n))


@implements(np.corrcoef)
def _corrcoef(engine: Engine, x: Any, y: Any = None, rowvar: bool = True) -> Any:
    c = _cov(engine, x, y, rowvar)
    if np.ndim(c) == 0:
        return c / c
    d = np.sqrt(np.diagonal(c))
    return c / d[:, None] / d[None, :]


@implements(np.apply_along_axis)
def _apply_along_axis(
    engine: Engine, func1d: Any, axis: int, arr: Any, *args: Any, **kwargs: Any
) -> Any:
    array = engine.moved(engine.array(arr), lambda v: np.moveaxis(v, axis, -1))
    shape = array.shape[:-1]
    rows = engine.reshaped(array, (-1, array.shape[-1]))
    made = [func1d(rows[k], *args, **kwargs) for k in range(len(rows))]
    if not has_traced(made):
        return np.reshape(made, shape)
    stack = engine.stacked(made, engine.site("apply_along_axis"))
    whole = engine.reshaped(stack, shape + stack.shape[1:])
    if stack.ndim > 1:
        return engine.moved(whole, lambda v: np.moveaxis(v, -1, axis))
    return whole
