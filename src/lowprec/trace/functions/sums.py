"""Sums, means and other reductions, and running ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace.functions.choices import axis_last, largest, smallest
from lowprec.trace.functions.reductions import averaged, running_sum, summed
from lowprec.trace.functions.table import FUNCTIONS, implements

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.trace.engine import Engine
    from lowprec.trace.places import Site
    from lowprec.trace.values import Traced


@implements(np.sum)
def _sum(
    engine: Engine, a: Any, axis: Any = None, dtype: Any = None,
    keepdims: Any = False, initial: Any = None, where: Any = True,
) -> Any:  # fmt: skip
    array = engine.array(a)
    _check_dtype(dtype)
    if where is not True:
        array = engine.array(np.where(where, array, 0.0))
    result = summed(engine, array, engine.site("sum"), _axis(axis), bool(keepdims))
    return result if initial is None else result + initial


def _axis(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


def _check_dtype(dtype: Any) -> None:
    if dtype is not None and np.dtype(dtype).kind != "f":
        raise TypeError(
            f"dtype={dtype!r} of traced values: formats hold real numbers; leave dtype out"
        )


def _terms(array: Traced, axis: Any) -> int:
    if axis is None:
        return array.size
    axes = axis if isinstance(axis, tuple) else (axis,)
    return math.prod(array.shape[d] for d in axes)


@implements(np.mean)
def _mean(
    engine: Engine, a: Any, axis: Any = None, dtype: Any = None,
    keepdims: Any = False, where: Any = True,
) -> Any:  # fmt: skip
    array = engine.array(a)
    axis = _axis(axis)
    _check_dtype(dtype)
    if where is True:
        return averaged(engine, array, engine.site("mean"), axis, bool(keepdims))
    count = np.sum(np.broadcast_to(where, array.shape), axis=axis, keepdims=keepdims)
    return _sum(engine, array, axis, dtype, keepdims, None, where) / count


@implements(np.average)
def _average(
    engine: Engine, a: Any, axis: Any = None, weights: Any = None, returned: bool = False,
    keepdims: Any = False,
) -> Any:  # fmt: skip
    array = engine.array(a)
    if weights is None:
        mean = _mean(engine, array, axis, keepdims=keepdims)
        return (mean, float(_terms(array, axis))) if returned else mean
    w = engine.array(weights)
    if w.shape != array.shape:
        shape = [1] * array.ndim
        shape[axis] = -1
        w = engine.moved(engine.reshaped(w, shape), lambda v: np.broadcast_to(v, array.shape))
    scale = _sum(engine, w, axis, keepdims=keepdims)
    mean = _sum(engine, array * w, axis, keepdims=keepdims) / scale
    return (mean, scale) if returned else mean


@implements(np.var)
def _var(
    engine: Engine, a: Any, axis: Any = None, dtype: Any = None, ddof: Any = 0,
    keepdims: Any = False, where: Any = True, mean: Any = None, correction: Any = None,
) -> Any:  # fmt: skip
    array = engine.array(a)
    axis = _axis(axis)
    middle = _mean(engine, array, axis, dtype, True, where) if mean is None else mean
    deviations = array - middle
    squares = deviations * deviations
    less = ddof if correction is None else correction
    if where is True and not less:
        return _mean(engine, squares, axis, dtype, keepdims)
    total = _sum(engine, squares, axis, dtype, keepdims, None, where)
    count: Any = _terms(array, axis)
    if where is not True:
        count = np.sum(np.broadcast_to(where, array.shape), axis=axis, keepdims=keepdims)
    return total / np.maximum(count - less, 0)


@implements(np.std)
def _std(engine: Engine, a: Any, *args: Any, **kwargs: Any) -> Any:
    return np.sqrt(_var(engine, a, *args, **kwargs))


def _without_nan(function: Callable[..., Any]) -> Callable[..., Any]:
    def handler(engine: Engine, a: Any, axis: Any = None, *args: Any, **kwargs: Any) -> Any:
        kept = ~np.isnan(engine.array(a).value)
        return function(engine, a, axis, *args, where=kept, **kwargs)

    return handler


FUNCTIONS[np.nansum] = _without_nan(_sum)
FUNCTIONS[np.nanmean] = _without_nan(_mean)
FUNCTIONS[np.nanvar] = _without_nan(_var)
FUNCTIONS[np.nanstd] = _without_nan(_std)


@implements(np.prod)
def product(
    engine: Engine, a: Any, axis: Any = None, dtype: Any = None,
    keepdims: Any = False, initial: Any = None, where: Any = True,
) -> Any:  # fmt: skip
    """Return the product of elements, in order, every step rounded: `numpy.prod`."""
    array = engine.array(a)
    if where is not True:
        array = engine.array(np.where(where, array, 1.0))
    result = _folded(engine, np.multiply, array, axis, keepdims)
    return result if initial is None else result * initial


def rows_of(engine: Engine, array: Traced, axis: Any) -> Any:
    """Return an array with the axis (or axes) that is reduced in front."""
    if axis is None:
        return engine.reshaped(array, (-1,))
    if isinstance(axis, tuple):
        rest = [d for d in range(array.ndim) if d not in [x % array.ndim for x in axis]]
        shape = [array.shape[d] for d in rest]
        front = [x % array.ndim for x in sorted(axis)]
        return engine.moved(array, lambda v: np.transpose(v, front + rest).reshape([-1, *shape]))
    return engine.moved(array, lambda v: np.moveaxis(v, axis, 0))


def _folded(engine: Engine, ufunc: Any, array: Traced, axis: Any, keepdims: Any) -> Any:
    rows = rows_of(engine, array, axis)
    site = engine.site(ufunc.__name__)
    if len(rows) == 0:
        if ufunc.identity is None:
            raise ValueError(f"zero-size array to reduction operation {ufunc.__name__}")
        shape = rows.shape[1:]
        result: Any = engine.array_from(np.full(shape, float(ufunc.identity)), site.unit, site.kit)
    else:
        result = rows[0]
    for k in range(1, len(rows)):
        result = engine.applied(ufunc, (result, rows[k]), {}, site, None)
    if keepdims:
        axes = range(array.ndim) if axis is None else np.atleast_1d(axis) % array.ndim
        shape = tuple(1 if d in list(axes) else n for d, n in enumerate(array.shape))
        result = np.reshape(engine.array(result), shape)
    return engine.lowered(result)


def _accumulated(engine: Engine, ufunc: Any, array: Traced, axis: int) -> Any:
    rows = engine.moved(array, lambda v: np.moveaxis(v, axis, 0))
    site = engine.site(ufunc.__name__)
    made: list[Any] = [rows[0]] if len(rows) else []
    for k in range(1, len(rows)):
        made.append(engine.applied(ufunc, (made[-1], rows[k]), {}, site, None))
    if not made:
        return engine.copied(array, array.value, array.shadow, lambda v: v)
    stack = engine.stacked(made, site)
    return engine.moved(stack, lambda v: np.moveaxis(v, 0, axis))


@implements(np.cumsum, *([np.cumulative_sum] if hasattr(np, "cumulative_sum") else []))
def _cumsum(
    engine: Engine, a: Any, axis: Any = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    _check_dtype(dtype)
    if include_initial:
        return engine.refuse(np.cumulative_sum, (a,), {"axis": axis, "include_initial": True})
    return running_sum(engine, a, engine.site("cumsum"), axis)


@implements(np.cumprod, *([np.cumulative_prod] if hasattr(np, "cumulative_prod") else []))
def _cumprod(
    engine: Engine, a: Any, axis: Any = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    if include_initial:
        return engine.refuse(np.cumulative_prod, (a,), {"axis": axis, "include_initial": True})
    array, axis = axis_last(engine.array(a), axis, engine)
    return _accumulated(engine, np.multiply, array, axis)


def _filling_nan(function: Callable[..., Any], fill: float) -> Callable[..., Any]:
    def handler(engine: Engine, a: Any, *args: Any, **kwargs: Any) -> Any:
        array = engine.array(a)
        return function(engine, np.where(np.isnan(array.value), fill, array), *args, **kwargs)

    return handler


FUNCTIONS[np.nanprod] = _without_nan(product)
FUNCTIONS[np.nancumsum] = _filling_nan(_cumsum, 0.0)
FUNCTIONS[np.nancumprod] = _filling_nan(_cumprod, 1.0)


def _reduce(
    engine: Engine, ufunc: Any, site: Site, array: Any, axis: Any = 0, dtype: Any = None,
    keepdims: Any = False, initial: Any = None, where: Any = True, **kwargs: Any,
) -> Any:  # fmt: skip
    own = {np.add: _sum, np.multiply: product, np.maximum: largest, np.minimum: smallest}.get(ufunc)
    if own is _sum or own is product:
        return own(engine, array, axis, dtype, keepdims, initial, where)
    if own is not None:
        return own(engine, array, axis, keepdims, initial, where)
    if where is not True or initial is not None:
        return engine.refuse(ufunc, (array,), {})
    return _folded(engine, ufunc, engine.array(array), axis, keepdims)


def _accumulate(
    engine: Engine, ufunc: Any, site: Site, array: Any, axis: int = 0, **kwargs: Any
) -> Any:
    if ufunc is np.add:
        return running_sum(engine, array, site, axis)
    return _accumulated(engine, ufunc, engine.array(array), axis)


def _outer(engine: Engine, ufunc: Any, site: Site, a: Any, b: Any, **kwargs: Any) -> Any:
    left, right = engine.array(a, site), engine.array(b, site)
    tall = engine.reshaped(left, left.shape + (1,) * right.ndim)
    return engine.applied(ufunc, (tall, right), {}, site, None)


def _reduceat(
    engine: Engine, ufunc: Any, site: Site, array: Any, indices: Any, axis: int = 0, **kwargs: Any
) -> Any:
    rows = engine.moved(engine.array(array), lambda v: np.moveaxis(v, axis, 0))
    ends = [*list(indices)[1:], len(rows)]
    made = [
        _reduce(engine, ufunc, site, rows[i:j], 0) if j > i else rows[i]
        for i, j in zip(indices, ends, strict=True)
    ]
    stack = engine.stacked(made, site)
    return engine.moved(stack, lambda v: np.moveaxis(v, 0, axis))


def _at(engine: Engine, ufunc: Any, site: Site, array: Any, indices: Any, *others: Any) -> None:
    numbers = np.arange(array.size).reshape(array.shape)[indices]
    targets = np.ravel(numbers)
    flat = engine.reshaped(array, (-1,))
    if not np.may_share_memory(flat.value, array.value):
        raise TypeError(f"{ufunc.__name__}.at of an array that is not contiguous; use a copy of it")
    values = [
        engine.reshaped(
            engine.moved(engine.array(o, site), lambda v: np.broadcast_to(v, np.shape(numbers))),
            (-1,),
        )
        for o in others
    ]
    left = np.arange(targets.size)
    while left.size:  # each round takes the first of every target that is left, in order
        _, first = np.unique(targets[left], return_index=True)
        now = left[np.sort(first)]
        made = engine.applied(
            ufunc, (flat[targets[now]], *[v[now] for v in values]), {}, site, None
        )
        flat[targets[now]] = made
        left = np.setdiff1d(left, now)


FUNCTIONS |= {
    "reduce": _reduce,
    "accumulate": _accumulate,
    "outer": _outer,
    "reduceat": _reduceat,
    "at": _at,
}
