"""Questions and orders: the values answer, and where the shadow would not, that is a decision."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace.functions.table import FUNCTIONS, implements
from lowprec.trace.values import Scalar, Traced, has_traced

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.trace.engine import Engine
    from lowprec.trace.places import Site


@implements(np.shape)
def _shape(engine: Engine, a: Any) -> Any:
    return a.shape if type(a) in (Traced, Scalar) else engine.array(a).shape


@implements(np.ndim)
def _ndim(engine: Engine, a: Any) -> Any:
    return len(_shape(engine, a))


@implements(np.size)
def _size(engine: Engine, a: Any, axis: Any = None) -> Any:
    shape = _shape(engine, a)
    return math.prod(shape) if axis is None else shape[axis]


for _function in (np.iscomplexobj,):
    FUNCTIONS[_function] = lambda engine, x: False
FUNCTIONS[np.isrealobj] = lambda engine, x: True
FUNCTIONS[np.isreal] = lambda engine, x: np.ones(np.shape(x), bool)
FUNCTIONS[np.iscomplex] = lambda engine, x: np.zeros(np.shape(x), bool)
FUNCTIONS[np.real] = FUNCTIONS[np.real_if_close] = lambda engine, val, *args: val
FUNCTIONS[np.imag] = lambda engine, val: np.zeros_like(val)
FUNCTIONS[np.result_type] = lambda engine, *args: np.dtype(np.float64)
FUNCTIONS[np.common_type] = lambda engine, *args: np.float64
FUNCTIONS[np.array_repr] = FUNCTIONS[np.array_str] = FUNCTIONS[np.array2string] = (
    lambda engine, a, *args, **kwargs: repr(a)
)


@implements(np.may_share_memory, np.shares_memory)
def _share_memory(engine: Engine, a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
    left = a.shadow if type(a) is Traced else a
    right = b.shadow if type(b) is Traced else b
    return np.may_share_memory(left, right)


_PLACES = (np.argmax, np.argmin)


def _decided(function: Any) -> Callable[..., Any]:
    """Return a handler for a question of NumPy's that the values answer."""

    def handler(engine: Engine, *args: Any, **kwargs: Any) -> Any:
        site = engine.site(function.__name__)
        engine.count(site, 1)
        sources = [x for x in args if type(x) in (Traced, Scalar)]
        answer = function(
            *_plain(args, "value", engine, site), **_plain(kwargs, "value", engine, site)
        )
        would = function(
            *_plain(args, "shadow", engine, site), **_plain(kwargs, "shadow", engine, site)
        )
        if function in _PLACES and np.shape(answer) == () and answer != would:
            flat = engine.reshaped(engine.array(args[0]), (-1,))
            sources = [flat[[answer, would]]]  # the two elements that changed places
        pairs = [(answer, would)] if not isinstance(answer, tuple) else zip(
            answer, would, strict=True
        )  # fmt: skip
        for a, b in pairs:
            if np.shape(a) != np.shape(b):
                engine.decide(np.asarray(True), site, sources)
            else:
                engine.decide(np.asarray(a != b), site, sources)
        return answer

    return handler


def _plain(x: Any, which: str, engine: Engine, site: Site) -> Any:
    """Return arguments as NumPy's; those of another format than the line's are converted."""
    kind = type(x)
    if kind is Traced or kind is Scalar:
        pair = engine.operand(x, site)
        return pair[0] if which == "value" else pair[1]
    if isinstance(x, tuple | list):
        return type(x)([_plain(item, which, engine, site) for item in x])
    if isinstance(x, dict):
        return {key: _plain(item, which, engine, site) for key, item in x.items()}
    if isinstance(x, float) and which == "value":
        return site.kit.enter_one(x)
    if isinstance(x, np.ndarray) and x.dtype.kind == "f" and which == "value":
        return engine.stored(site.kit.enter(x))
    return x


_QUESTIONS = """
    argmax argmin argsort argpartition nonzero flatnonzero argwhere count_nonzero any all
    array_equal array_equiv searchsorted digitize isin in1d isposinf isneginf nanargmax
    nanargmin lexsort
"""
for _name in _QUESTIONS.split():
    if hasattr(np, _name):
        FUNCTIONS[getattr(np, _name)] = _decided(getattr(np, _name))


def _closeness(function: Any) -> Callable[..., Any]:
    """Return a handler for which the tolerances do not enter the format."""

    def handler(engine: Engine, a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
        site = engine.site(function.__name__)
        engine.count(site, 1)
        (x, xs, source), (y, ys, other) = engine.operand(a, site), engine.operand(b, site)
        answer, would = function(x, y, *args, **kwargs), function(xs, ys, *args, **kwargs)
        engine.decide(np.asarray(answer != would), site, (source, other))
        return answer

    return handler


FUNCTIONS[np.isclose], FUNCTIONS[np.allclose] = _closeness(np.isclose), _closeness(np.allclose)


@implements(np.histogram)
def _histogram(engine: Engine, a: Any, bins: Any = 10, range: Any = None, **kwargs: Any) -> Any:  # noqa: A002
    site = engine.site("histogram")
    if kwargs:
        return engine.refuse(np.histogram, (a, bins, range), kwargs)
    array = engine.array(a, site)
    if isinstance(bins, str):
        return engine.refuse(np.histogram, (a, bins, range), kwargs)
    if isinstance(bins, list | tuple | np.ndarray):
        edges = engine.array(bins, site)
    else:
        first, last = (smallest(engine, array), largest(engine, array)) if range is None else range
        if first == last:
            first, last = first - 0.5, last + 0.5
        edges = engine.function(np.linspace, (first, last, int(bins) + 1), {})
    (x, xs, source), (at, at_s, _) = engine.operand(array, site), engine.operand(edges, site)
    counts = np.histogram(x, at)[0]
    engine.decide(counts != np.histogram(xs, at_s)[0], site, (source,))
    if type(bins) is np.ndarray or (isinstance(bins, list | tuple) and not has_traced(bins)):
        return counts, np.asarray(bins)
    return counts, edges


# Order ------------------------------------------------------------------------------------------


def axis_last(x: Traced, axis: Any, engine: Engine) -> tuple[Traced, int]:
    """Return an array and an axis of it: for None all elements in one dimension."""
    if axis is None:
        return engine.reshaped(x, (-1,)), 0
    return x, axis


@implements(np.sort)
def in_order(
    engine: Engine, a: Any, axis: Any = -1, kind: Any = None, order: Any = None, **kw: Any
) -> Any:
    """Return elements in ascending order: `numpy.sort`."""
    array, axis = axis_last(engine.array(a), axis, engine)
    site = engine.site("sort")
    engine.count(site, array.size)
    places = np.argsort(array.value, axis=axis, kind="stable")
    result = engine.moved(array, lambda v: np.take_along_axis(v, places, axis))
    steps = np.diff(result.shadow, axis=axis)
    engine.decide(steps < 0, site, (array,))
    return result


@implements(np.partition)
def _partition(engine: Engine, a: Any, kth: Any, axis: Any = -1, **kwargs: Any) -> Any:
    return in_order(engine, a, axis)


def _extreme(function: Any, choose: Any) -> Callable[..., Any]:
    def handler(
        engine: Engine, a: Any, axis: Any = None, keepdims: Any = False, initial: Any = None,
        where: Any = True,
    ) -> Any:  # fmt: skip
        array = engine.array(a)
        site = engine.site(function.__name__)
        if where is not True:
            fill = -math.inf if choose is np.argmax else math.inf
            array = engine.array(np.where(where, array, fill if initial is None else initial))
        engine.count(site, array.size)
        value = engine.operand(array, site)[0]
        if array.kit is not site.kit:
            array = engine.elementwise(np.positive, (array,), site)
        if isinstance(axis, tuple):
            rest = [d for d in range(array.ndim) if d not in [x % array.ndim for x in axis]]
            shape = [array.shape[d] for d in rest]
            moved = engine.moved(
                array, lambda v: np.moveaxis(v, rest, range(len(rest))).reshape([*shape, -1])
            )
            result = handler(engine, moved, -1)
            if keepdims:
                full = [1 if d not in rest else array.shape[d] for d in range(array.ndim)]
                result = np.reshape(result, full)
            return result
        would = function(array.shadow, axis=axis, keepdims=True)
        if axis is None:
            flat = engine.reshaped(array, (-1,))
            place = int(choose(np.ravel(value)))
            result = engine.reshaped(flat[place : place + 1], (1,) * array.ndim)
        else:
            places = np.expand_dims(choose(value, axis=axis), axis)
            result = engine.moved(array, lambda v: np.take_along_axis(v, places, axis))
        engine.decide(result.shadow != would, site, (array,))
        if not keepdims:
            result = engine.moved(
                result, lambda v: v.reshape(()) if axis is None else np.squeeze(v, axis)
            )
        if initial is not None and where is True:
            ufunc = np.maximum if choose is np.argmax else np.minimum
            result = engine.elementwise(ufunc, (result, initial), site)
        return engine.lowered(result)

    return handler


FUNCTIONS[np.max] = FUNCTIONS[np.amax] = _extreme(np.max, np.argmax)
FUNCTIONS[np.min] = FUNCTIONS[np.amin] = _extreme(np.min, np.argmin)
largest, smallest = FUNCTIONS[np.max], FUNCTIONS[np.min]


@implements(np.nanmax)
def _nanmax(engine: Engine, a: Any, axis: Any = None, **kwargs: Any) -> Any:
    return largest(engine, np.where(np.isnan(engine.array(a).value), -np.inf, a), axis, **kwargs)


@implements(np.nanmin)
def _nanmin(engine: Engine, a: Any, axis: Any = None, **kwargs: Any) -> Any:
    return smallest(engine, np.where(np.isnan(engine.array(a).value), np.inf, a), axis, **kwargs)


@implements(np.ptp)
def _ptp(engine: Engine, a: Any, axis: Any = None, keepdims: Any = False) -> Any:
    return largest(engine, a, axis, keepdims) - smallest(engine, a, axis, keepdims)


@implements(np.union1d)
def _union1d(engine: Engine, ar1: Any, ar2: Any) -> Any:
    return _unique(engine, np.append(engine.array(ar1), ar2))


@implements(np.setdiff1d)
def _setdiff1d(engine: Engine, ar1: Any, ar2: Any, assume_unique: bool = False) -> Any:
    kept = np.ravel(engine.array(ar1)) if assume_unique else _unique(engine, ar1)
    return kept[np.isin(kept, ar2, invert=True)]


@implements(np.unique)
def _unique(
    engine: Engine, ar: Any, return_index: bool = False, return_inverse: bool = False,
    return_counts: bool = False, axis: Any = None, **kwargs: Any,
) -> Any:  # fmt: skip
    array = engine.array(ar)
    if axis is not None:
        return engine.refuse(np.unique, (ar,), {"axis": axis})
    flat = engine.reshaped(array, (-1,))
    site = engine.site("unique")
    engine.count(site, flat.size)
    _, index, inverse, counts = np.unique(
        flat.value, return_index=True, return_inverse=True, return_counts=True
    )
    would = np.unique(flat.shadow)
    engine.decide(np.asarray(len(would) != len(index)), site, (flat,))
    found = flat[index]
    extra = [
        a
        for a, asked in zip(
            (index, inverse, counts), (return_index, return_inverse, return_counts), strict=True
        )
        if asked
    ]
    return (found, *extra) if extra else found
