"""NumPy's functions in a format: a table from each to what it is for traced values.

A handler takes the engine and the function's arguments. Functions that only move elements are
listed; functions that compute are written with traced operations, so that each of their roundings
is one of the line that called them.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace.engine import has_traced
from lowprec.trace.values import Scalar, Traced, is_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowprec.trace.engine import Engine
    from lowprec.trace.places import Site

Array = np.ndarray[Any, Any]

FUNCTIONS: dict[Any, Callable[..., Any]] = {}
EXACTLY: set[str] = set()  # functions that move or choose, and round nothing
MARKED: set[str] = set()  # functions of LAPACK, by pure NumPy versions


def _implements(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def enter(handler: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            FUNCTIONS[function] = handler
        return handler

    return enter


# Functions that move elements of their first argument --------------------------------------------

_MOVES = [
    "reshape",
    "ravel",
    "transpose",
    "swapaxes",
    "moveaxis",
    "rollaxis",
    "squeeze",
    "expand_dims",
    "flip",
    "fliplr",
    "flipud",
    "rot90",
    "roll",
    "tile",
    "repeat",
    "broadcast_to",
    "diagonal",
    "diag",
    "tril",
    "triu",
    "take",
    "delete",
    "resize",
    "diagflat",
    "matrix_transpose",
    "take_along_axis",
    "permute_dims",
]


def _moves(function: Any) -> Callable[..., Any]:
    def handler(engine: Engine, array: Any, *args: Any, **kwargs: Any) -> Any:
        return engine.lowered(
            engine.moved(engine.array(array), lambda a: function(a, *args, **kwargs))
        )

    return handler


for _name in _MOVES:
    if hasattr(np, _name):
        FUNCTIONS[getattr(np, _name)] = _moves(getattr(np, _name))
        EXACTLY.add(_name)
if hasattr(np.linalg, "matrix_transpose"):
    FUNCTIONS[np.linalg.matrix_transpose] = _moves(np.linalg.matrix_transpose)


def gathered(
    engine: Engine, arrays: Sequence[Any], move: Callable[..., Array], site: Site
) -> Traced:
    """Return elements of several arrays in one; what `move` makes of zeros is 0.

    `move` is given the elements' numbers instead of the elements, from 1 on.
    """
    parts = [engine.array(a, site) for a in arrays]
    numbers, first = [], 1
    for part in parts:
        numbers.append(np.arange(first, first + part.size).reshape(part.shape))
        first += part.size
    order = np.asarray(move(*numbers), np.int64)

    def pool(pieces: Sequence[Any]) -> Array:
        return np.concatenate([np.zeros(1), *[np.ravel(piece) for piece in pieces]])

    kits = {id(part.kit): part.kit for part in parts if part.size}
    kit = next(iter(kits.values())) if len(kits) == 1 else None
    value = pool([p.value for p in parts])[order]
    if all(p.value.dtype == engine.dtype for p in parts):
        value = value.astype(engine.dtype)
    result = Traced(
        engine, value, pool([p.shadow for p in parts])[order], engine._store(np.empty(0), kit)
    )
    result.store.shadow = result.shadow
    if engine.budget:
        for which in ("born", "grown"):
            kept = getattr(result.store, which)
            shares = [p.parts(which) for p in parts]
            for unit in {u: None for share in shares for u in share}:
                pieces = [
                    s.get(unit, np.zeros(p.shape)) for s, p in zip(shares, parts, strict=True)
                ]
                kept[unit] = pool(pieces)[order]
    if engine.has_lost:
        origins = [p.origins() for p in parts]
        if any(o is not None for o in origins):
            pieces = [
                np.full(p.shape, -1) if o is None else o
                for o, p in zip(origins, parts, strict=True)
            ]
            flat = np.concatenate([[-1], *[np.ravel(piece) for piece in pieces]])
            result.store.origin = flat[order].astype(np.int32)
    return result


def _joins(function: Any) -> Callable[..., Any]:
    def handler(engine: Engine, arrays: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("dtype", None)
        out = kwargs.pop("out", None)
        site = engine.site(function.__name__)
        rows = list(arrays)
        result = gathered(engine, rows, lambda *n: function(n, *args, **kwargs), site)
        return result if out is None else _into(engine, out, result)

    return handler


for _name in ("concatenate", "stack", "vstack", "hstack", "dstack", "column_stack", "concat"):
    if hasattr(np, _name):
        FUNCTIONS[getattr(np, _name)] = _joins(getattr(np, _name))
        EXACTLY.add(_name)

EXACTLY |= {
    "where",
    "select",
    "choose",
    "append",
    "insert",
    "pad",
    "split",
    "array_split",
    "hsplit",
    "vsplit",
    "dsplit",
    "meshgrid",
    "broadcast_arrays",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "block",
    "copy",
    "copyto",
    "put",
    "place",
    "putmask",
    "fill_diagonal",
    "compress",
    "extract",
    "sort",
    "unique",
    "partition",
    "max",
    "min",
    "amax",
    "amin",
    "argmax",
    "argmin",
    "argsort",
    "argpartition",
    "searchsorted",
    "digitize",
    "count_nonzero",
    "nonzero",
    "flatnonzero",
    "argwhere",
    "any",
    "all",
    "array_equal",
    "array_equiv",
    "allclose",
    "isclose",
    "shape",
    "ndim",
    "size",
    "real",
    "imag",
    "nan_to_num",
    "zeros_like",
    "ones_like",
    "empty_like",
    "full_like",
    "clip",
    "isnan",
    "isfinite",
    "isinf",
    "signbit",
    "sign",
    "floor",
    "ceil",
    "trunc",
    "rint",
    "copysign",
    "histogram",
    "bincount",
}


def _into(engine: Engine, out: Any, result: Any) -> Any:
    if isinstance(out, tuple):
        out = out[0]
    out[...] = result
    return out


@_implements(np.block)
def _block(engine: Engine, arrays: Any) -> Any:
    if not isinstance(arrays, list):
        return engine.array(arrays)
    flat: list[Any] = []

    def number(item: Any) -> Any:
        if isinstance(item, list):
            return [number(i) for i in item]
        flat.append(item)
        return len(flat) - 1

    shape = number(arrays)
    site = engine.site("block")

    def move(*numbers: Any) -> Any:
        def fill(item: Any) -> Any:
            return [fill(i) for i in item] if isinstance(item, list) else numbers[item]

        return np.block(fill(shape))

    return gathered(engine, flat, move, site)


@_implements(np.where)
def _where(engine: Engine, condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None or y is None:
        return _nonzero(engine, condition)
    mask = _mask(engine, condition)

    def move(a: Any, b: Any) -> Any:
        return np.where(mask, a, b)

    return gathered(engine, [x, y], move, engine.site("where"))


def _mask(engine: Engine, condition: Any) -> Any:
    if type(condition) is Traced or type(condition) is Scalar:
        return engine.compared(np.not_equal, condition, 0.0, engine.site("where"))
    return np.asarray(condition, bool)


@_implements(np.select)
def _select(engine: Engine, condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    result: Any = engine.array(default)
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = np.where(condition, choice, result)
    return result


@_implements(np.piecewise)
def _piecewise(engine: Engine, x: Any, condlist: Any, funclist: Any, *args: Any, **kw: Any) -> Any:
    masks = [np.asarray(c, bool) for c in condlist]
    if len(funclist) == len(masks) + 1:
        masks.append(~np.any(masks, axis=0))
    result: Any = np.zeros_like(engine.array(x))
    for mask, f in zip(masks, funclist, strict=True):
        result[mask] = f(x[mask], *args, **kw) if callable(f) else f
    return result


@_implements(np.choose)
def _choose(engine: Engine, a: Any, choices: Any, out: Any = None, mode: str = "raise") -> Any:
    site = engine.site("choose")
    return gathered(engine, list(choices), lambda *n: np.choose(a, n, mode=mode), site)  # type: ignore[call-overload]


@_implements(np.append)
def _append(engine: Engine, arr: Any, values: Any, axis: Any = None) -> Any:
    site = engine.site("append")
    return gathered(engine, [arr, values], lambda a, b: np.append(a, b, axis), site)


@_implements(np.insert)
def _insert(engine: Engine, arr: Any, obj: Any, values: Any, axis: Any = None) -> Any:
    site = engine.site("insert")
    return gathered(engine, [arr, values], lambda a, b: np.insert(a, obj, b, axis), site)


@_implements(np.pad)
def _pad(engine: Engine, array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Any:
    site = engine.site("pad")
    if mode not in ("constant", "edge", "wrap", "reflect", "symmetric", "empty"):
        return engine.refuse(np.pad, (array, pad_width, mode), kwargs)
    constant = kwargs.pop("constant_values", 0)
    if (
        mode == "constant"
        and np.ndim(constant) == 0
        and not (is_number(constant) and type(constant) is not Scalar and constant == 0)
    ):
        return gathered(
            engine,
            [array, constant],
            lambda a, c: np.pad(a, pad_width, "constant", constant_values=int(c)),
            site,
        )
    return gathered(engine, [array], lambda a: np.pad(a, pad_width, mode, **kwargs), site)


def _splits(function: Any) -> Callable[..., Any]:
    def handler(engine: Engine, array: Any, *args: Any, **kwargs: Any) -> Any:
        whole = engine.array(array)
        values = function(whole.value, *args, **kwargs)
        shadows = function(whole.shadow, *args, **kwargs)
        return [whole.view_of(v, s) for v, s in zip(values, shadows, strict=True)]

    return handler


for _name in ("split", "array_split", "hsplit", "vsplit", "dsplit", "unstack"):
    if hasattr(np, _name):
        FUNCTIONS[getattr(np, _name)] = _splits(getattr(np, _name))


@_implements(np.meshgrid)
def _meshgrid(engine: Engine, *xi: Any, **kwargs: Any) -> Any:
    site = engine.site("meshgrid")
    return [
        gathered(engine, xi, lambda *n, k=k: np.meshgrid(*n, **kwargs)[k], site)
        for k in range(len(xi))
    ]


@_implements(np.broadcast_arrays)
def _broadcast_arrays(engine: Engine, *args: Any, subok: bool = False) -> Any:
    shape = np.broadcast_shapes(*(np.shape(a) for a in args))
    return tuple(engine.moved(engine.array(a), lambda v: np.broadcast_to(v, shape)) for a in args)


def _at_least(function: Any) -> Callable[..., Any]:
    def handler(engine: Engine, *arrays: Any) -> Any:
        made = [engine.moved(engine.array(a), function) for a in arrays]
        return made[0] if len(made) == 1 else tuple(made)

    return handler


for _name in ("atleast_1d", "atleast_2d", "atleast_3d"):
    FUNCTIONS[getattr(np, _name)] = _at_least(getattr(np, _name))


@_implements(np.copy)
def _copy(engine: Engine, a: Any, order: str = "K", subok: bool = False) -> Any:
    array = engine.array(a)
    return engine.copied(array, array.value, array.shadow, lambda v: v)


@_implements(np.copyto)
def _copyto(
    engine: Engine, dst: Any, src: Any, casting: str = "same_kind", where: Any = True
) -> None:
    new = src if type(src) in (Traced, Scalar) else engine.array(src)
    if where is True:
        dst[...] = new
        return
    mask = np.broadcast_to(np.asarray(where, bool), dst.shape)
    new = engine.moved(engine.array(new), lambda a: np.broadcast_to(a, dst.shape))
    dst[mask] = new[mask]


@_implements(np.put)
def _put(engine: Engine, a: Any, ind: Any, v: Any, mode: str = "raise") -> None:
    places = np.unravel_index(np.asarray(ind), a.shape)
    a[places] = v


@_implements(np.putmask, np.place)
def _putmask(engine: Engine, a: Any, mask: Any, values: Any) -> None:
    new = engine.array(values)
    mask = np.asarray(mask, bool)
    if new.ndim == 0 or new.size == 1:
        a[mask] = new
    else:
        a[mask] = engine.moved(new, lambda v: np.resize(v, a.shape))[mask]


@_implements(np.fill_diagonal)
def _fill_diagonal(engine: Engine, a: Any, val: Any, wrap: bool = False) -> None:
    n = min(a.shape)
    a[(np.arange(n),) * a.ndim] = val


@_implements(np.compress)
def _compress(engine: Engine, condition: Any, a: Any, axis: Any = None, out: Any = None) -> Any:
    return engine.moved(engine.array(a), lambda v: np.compress(condition, v, axis))


@_implements(np.extract)
def _extract(engine: Engine, condition: Any, arr: Any) -> Any:
    return engine.moved(engine.array(arr), lambda v: np.extract(condition, v))


def _filled(value: float | None) -> Callable[..., Any]:
    def handler(engine: Engine, prototype: Any, *args: Any, **kwargs: Any) -> Any:
        args_ = list(args)
        fill: Any = args_.pop(0) if value is None and args_ else kwargs.get("fill_value", value)
        dtype = kwargs.get("dtype", args_[0] if args_ else None)
        shape = kwargs.get("shape")
        shape = np.shape(prototype) if shape is None else shape
        if dtype is not None and np.dtype(dtype).kind in "iub":
            return np.full(shape, fill, dtype)
        if dtype is not None and np.dtype(dtype).kind != "f":
            raise TypeError(f"dtype={dtype!r}: formats hold real numbers; use float")
        site = engine.site("constant")
        if is_number(fill) and type(fill) is not Scalar and float(fill) == 0.0:
            return engine.fresh(np.zeros(shape, engine.dtype), np.zeros(shape), site.kit)
        return gathered(engine, [fill], lambda n: np.broadcast_to(n, shape).astype(np.int64), site)

    return handler


FUNCTIONS[np.zeros_like] = FUNCTIONS[np.empty_like] = _filled(0.0)
FUNCTIONS[np.ones_like], FUNCTIONS[np.full_like] = _filled(1.0), _filled(None)


@_implements(np.nan_to_num)
def _nan_to_num(
    engine: Engine, x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None,
    neginf: Any = None,
) -> Any:  # fmt: skip
    array = engine.array(x)
    site = engine.site("nan_to_num")
    high = float(site.kit.fmt.max)
    values = array.value
    result = np.where(np.isnan(values), nan, array)
    result = np.where(np.isposinf(values), high if posinf is None else posinf, result)
    result = np.where(np.isneginf(values), -high if neginf is None else neginf, result)
    return engine.lowered(result)


# Questions --------------------------------------------------------------------------------------


@_implements(np.shape)
def _shape(engine: Engine, a: Any) -> Any:
    return a.shape if type(a) in (Traced, Scalar) else engine.array(a).shape


@_implements(np.ndim)
def _ndim(engine: Engine, a: Any) -> Any:
    return len(_shape(engine, a))


@_implements(np.size)
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


@_implements(np.may_share_memory, np.shares_memory)
def _share_memory(engine: Engine, a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
    left = a.shadow if type(a) is Traced else a
    right = b.shadow if type(b) is Traced else b
    return np.may_share_memory(left, right)


_PLACES = (np.argmax, np.argmin)


def _decided(function: Any) -> Callable[..., Any]:
    """Return a handler for a question of NumPy's that the values answer."""

    def handler(engine: Engine, *args: Any, **kwargs: Any) -> Any:
        site = engine.site(function.__name__)
        kwargs.pop("out", None)
        engine._count(site, 1)
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
                engine._decide(np.asarray(True), site, sources)
            else:
                engine._decide(np.asarray(a != b), site, sources)
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
        return engine._stored(site.kit.enter(x))
    return x


for _name in [
    "argmax",
    "argmin",
    "argsort",
    "argpartition",
    "nonzero",
    "flatnonzero",
    "argwhere",
    "count_nonzero",
    "any",
    "all",
    "array_equal",
    "array_equiv",
    "searchsorted",
    "digitize",
    "isin",
    "in1d",
    "isposinf",
    "isneginf",
    "nanargmax",
    "nanargmin",
    "lexsort",
]:
    if hasattr(np, _name):
        FUNCTIONS[getattr(np, _name)] = _decided(getattr(np, _name))


def _closeness(function: Any) -> Callable[..., Any]:
    """Return a handler for which the tolerances do not enter the format."""

    def handler(engine: Engine, a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
        site = engine.site(function.__name__)
        engine._count(site, 1)
        (x, xs, source), (y, ys, other) = engine.operand(a, site), engine.operand(b, site)
        answer, would = function(x, y, *args, **kwargs), function(xs, ys, *args, **kwargs)
        engine._decide(np.asarray(answer != would), site, (source, other))
        return answer

    return handler


FUNCTIONS[np.isclose], FUNCTIONS[np.allclose] = _closeness(np.isclose), _closeness(np.allclose)
_nonzero = FUNCTIONS[np.nonzero]


@_implements(np.histogram)
def _histogram(engine: Engine, a: Any, bins: Any = 10, range: Any = None, **kwargs: Any) -> Any:  # noqa: A002
    site = engine.site("histogram")
    if kwargs:
        return engine.refuse(np.histogram, (a, bins, range), kwargs)
    x, xs, source = engine.operand(a, site)
    edges = np.histogram_bin_edges(np.asarray(x, np.float64), bins, range)
    counts = np.histogram(x, edges)[0]
    engine._decide(counts != np.histogram(xs, edges)[0], site, (source,))
    return counts, edges


# Order ------------------------------------------------------------------------------------------


def _axis_last(x: Traced, axis: Any, engine: Engine) -> tuple[Traced, int]:
    if axis is None:
        return engine.reshaped(x, (-1,)), 0
    return x, axis


@_implements(np.sort)
def _sort(
    engine: Engine, a: Any, axis: Any = -1, kind: Any = None, order: Any = None, **kw: Any
) -> Any:
    array, axis = _axis_last(engine.array(a), axis, engine)
    site = engine.site("sort")
    engine._count(site, array.size)
    places = np.argsort(array.value, axis=axis, kind="stable")
    result = engine.moved(array, lambda v: np.take_along_axis(v, places, axis))
    steps = np.diff(result.shadow, axis=axis)
    engine._decide(steps < 0, site, (array,))
    return result


@_implements(np.partition)
def _partition(engine: Engine, a: Any, kth: Any, axis: Any = -1, **kwargs: Any) -> Any:
    return _sort(engine, a, axis)


def _extreme(function: Any, choose: Any) -> Callable[..., Any]:
    def handler(
        engine: Engine, a: Any, axis: Any = None, out: Any = None, keepdims: Any = False,
        initial: Any = None, where: Any = True,
    ) -> Any:  # fmt: skip
        array = engine.array(a)
        site = engine.site(function.__name__)
        if where is not True:
            fill = -math.inf if choose is np.argmax else math.inf
            array = engine.array(np.where(where, array, fill if initial is None else initial))
        engine._count(site, array.size)
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
        engine._decide(result.shadow != would, site, (array,))
        if not keepdims:
            result = engine.moved(
                result, lambda v: v.reshape(()) if axis is None else np.squeeze(v, axis)
            )
        if initial is not None and where is True:
            ufunc = np.maximum if choose is np.argmax else np.minimum
            result = engine.elementwise(ufunc, (result, initial), site)
        result = engine.lowered(result)
        return result if out is None else _into(engine, out, result)

    return handler


FUNCTIONS[np.max] = FUNCTIONS[np.amax] = _extreme(np.max, np.argmax)
FUNCTIONS[np.min] = FUNCTIONS[np.amin] = _extreme(np.min, np.argmin)
_max, _min = FUNCTIONS[np.max], FUNCTIONS[np.min]


@_implements(np.nanmax)
def _nanmax(engine: Engine, a: Any, axis: Any = None, **kwargs: Any) -> Any:
    return _max(engine, np.where(np.isnan(engine.array(a).value), -np.inf, a), axis, **kwargs)


@_implements(np.nanmin)
def _nanmin(engine: Engine, a: Any, axis: Any = None, **kwargs: Any) -> Any:
    return _min(engine, np.where(np.isnan(engine.array(a).value), np.inf, a), axis, **kwargs)


@_implements(np.ptp)
def _ptp(engine: Engine, a: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Any:
    return _max(engine, a, axis, None, keepdims) - _min(engine, a, axis, None, keepdims)


@_implements(np.unique)
def _unique(
    engine: Engine, ar: Any, return_index: bool = False, return_inverse: bool = False,
    return_counts: bool = False, axis: Any = None, **kwargs: Any,
) -> Any:  # fmt: skip
    array = engine.array(ar)
    if axis is not None:
        return engine.refuse(np.unique, (ar,), {"axis": axis})
    flat = engine.reshaped(array, (-1,))
    site = engine.site("unique")
    engine._count(site, flat.size)
    _, index, inverse, counts = np.unique(
        flat.value, return_index=True, return_inverse=True, return_counts=True
    )
    would = np.unique(flat.shadow)
    engine._decide(np.asarray(len(would) != len(index)), site, (flat,))
    found = flat[index]
    extra = [
        a
        for a, asked in zip(
            (index, inverse, counts), (return_index, return_inverse, return_counts), strict=True
        )
        if asked
    ]
    return (found, *extra) if extra else found


# Sums and products --------------------------------------------------------------------------------


@_implements(np.sum)
def _sum(
    engine: Engine, a: Any, axis: Any = None, dtype: Any = None, out: Any = None,
    keepdims: Any = False, initial: Any = None, where: Any = True,
) -> Any:  # fmt: skip
    array = engine.array(a)
    _check_dtype(dtype)
    if where is not True:
        array = engine.array(np.where(where, array, 0.0))
    result = engine.sum(array, engine.site("sum"), _axis(axis), bool(keepdims))
    if initial is not None:
        result = result + initial
    return result if out is None else _into(engine, out, result)


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


@_implements(np.mean)
def _mean(
    engine: Engine, a: Any, axis: Any = None, dtype: Any = None, out: Any = None,
    keepdims: Any = False, where: Any = True,
) -> Any:  # fmt: skip
    array = engine.array(a)
    axis = _axis(axis)
    _check_dtype(dtype)
    if where is True:
        result = engine.mean(array, engine.site("mean"), axis, bool(keepdims))
    else:
        count = np.sum(np.broadcast_to(where, array.shape), axis=axis, keepdims=keepdims)
        result = _sum(engine, array, axis, dtype, None, keepdims, None, where) / count
    return result if out is None else _into(engine, out, result)


@_implements(np.average)
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


@_implements(np.var)
def _var(
    engine: Engine, a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0,
    keepdims: Any = False, where: Any = True, mean: Any = None, correction: Any = None,
) -> Any:  # fmt: skip
    array = engine.array(a)
    axis = _axis(axis)
    middle = _mean(engine, array, axis, dtype, None, True, where) if mean is None else mean
    deviations = array - middle
    squares = deviations * deviations
    less = ddof if correction is None else correction
    if where is True and not less:
        result = _mean(engine, squares, axis, dtype, None, keepdims)
        return result if out is None else _into(engine, out, result)
    total = _sum(engine, squares, axis, dtype, None, keepdims, None, where)
    count: Any = _terms(array, axis)
    if where is not True:
        count = np.sum(np.broadcast_to(where, array.shape), axis=axis, keepdims=keepdims)
    result = total / np.maximum(count - less, 0)
    return result if out is None else _into(engine, out, result)


@_implements(np.std)
def _std(engine: Engine, a: Any, *args: Any, **kwargs: Any) -> Any:
    out = kwargs.pop("out", None)
    result = np.sqrt(_var(engine, a, *args, **kwargs))
    return result if out is None else _into(engine, out, result)


def _without_nan(function: Callable[..., Any], counts: bool) -> Callable[..., Any]:
    def handler(engine: Engine, a: Any, axis: Any = None, *args: Any, **kwargs: Any) -> Any:
        kept = ~np.isnan(engine.array(a).value)
        return function(engine, a, axis, *args, where=kept, **kwargs)

    return handler


FUNCTIONS[np.nansum] = _without_nan(_sum, False)
FUNCTIONS[np.nanmean] = _without_nan(_mean, True)
FUNCTIONS[np.nanvar] = _without_nan(_var, True)
FUNCTIONS[np.nanstd] = _without_nan(_std, True)


@_implements(np.prod)
def _prod(
    engine: Engine, a: Any, axis: Any = None, dtype: Any = None, out: Any = None,
    keepdims: Any = False, initial: Any = None, where: Any = True,
) -> Any:  # fmt: skip
    array = engine.array(a)
    if where is not True:
        array = engine.array(np.where(where, array, 1.0))
    result = _folded(engine, np.multiply, array, axis, keepdims)
    if initial is not None:
        result = result * initial
    return result if out is None else _into(engine, out, result)


def _rows(engine: Engine, array: Traced, axis: Any) -> Any:
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
    rows = _rows(engine, array, axis)
    site = engine.site(ufunc.__name__)
    if len(rows) == 0:
        if ufunc.identity is None:
            raise ValueError(f"zero-size array to reduction operation {ufunc.__name__}")
        shape = rows.shape[1:]
        result: Any = engine.array_from(np.full(shape, float(ufunc.identity)), site.unit, site.kit)
    else:
        result = rows[0]
    for k in range(1, len(rows)):
        result = engine._called(ufunc, (result, rows[k]), {}, site, None)
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
        made.append(engine._called(ufunc, (made[-1], rows[k]), {}, site, None))
    if not made:
        return engine.copied(array, array.value, array.shadow, lambda v: v)
    stack = engine.stacked(made, site)
    return engine.moved(stack, lambda v: np.moveaxis(v, 0, axis))


@_implements(np.cumsum, *([np.cumulative_sum] if hasattr(np, "cumulative_sum") else []))
def _cumsum(engine: Engine, a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    _check_dtype(dtype)
    result = engine.cumsum(a, engine.site("cumsum"), axis)
    return result if out is None else _into(engine, out, result)


@_implements(np.cumprod, *([np.cumulative_prod] if hasattr(np, "cumulative_prod") else []))
def _cumprod(engine: Engine, a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    array, axis = _axis_last(engine.array(a), axis, engine)
    result = _accumulated(engine, np.multiply, array, axis)
    return result if out is None else _into(engine, out, result)


def _reduce(
    engine: Engine, ufunc: Any, site: Site, array: Any, axis: Any = 0, dtype: Any = None,
    keepdims: Any = False, initial: Any = None, where: Any = True, **kwargs: Any,
) -> Any:  # fmt: skip
    own = {np.add: _sum, np.multiply: _prod, np.maximum: _max, np.minimum: _min}.get(ufunc)
    if own is _sum or own is _prod:
        return own(engine, array, axis, dtype, None, keepdims, initial, where)
    if own is not None:
        return own(engine, array, axis, None, keepdims, initial, where)
    if where is not True or initial is not None:
        return engine.refuse(ufunc, (array,), {})
    return _folded(engine, ufunc, engine.array(array), axis, keepdims)


def _accumulate(
    engine: Engine, ufunc: Any, site: Site, array: Any, axis: int = 0, **kwargs: Any
) -> Any:
    if ufunc is np.add:
        return engine.cumsum(array, site, axis)
    return _accumulated(engine, ufunc, engine.array(array), axis)


def _outer(engine: Engine, ufunc: Any, site: Site, a: Any, b: Any, **kwargs: Any) -> Any:
    left, right = engine.array(a, site), engine.array(b, site)
    tall = engine.reshaped(left, left.shape + (1,) * right.ndim)
    return engine._called(ufunc, (tall, right), {}, site, None)


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
        made = engine._called(
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


@_implements(np.matmul)
def _matmul(engine: Engine, a: Any, b: Any, *, site: Site | None = None, **kwargs: Any) -> Any:
    return engine.matmul(a, b, engine.site("matmul") if site is None else site)


@_implements(np.dot)
def _dot(engine: Engine, a: Any, b: Any, out: Any = None) -> Any:
    x, y = engine.array(a), engine.array(b)
    site = engine.site("dot")
    if x.ndim == 0 or y.ndim == 0:
        result = engine.elementwise(np.multiply, (x, y), site)
    elif x.ndim <= 2 and y.ndim <= 2:
        result = engine.matmul(x, y, site)
    else:
        result = _tensordot(engine, x, y, ((x.ndim - 1,), (max(y.ndim - 2, 0),)))
    return result if out is None else _into(engine, out, result)


@_implements(np.vdot)
def _vdot(engine: Engine, a: Any, b: Any) -> Any:
    return _dot(
        engine, engine.reshaped(engine.array(a), (-1,)), engine.reshaped(engine.array(b), (-1,))
    )


@_implements(np.inner)
def _inner(engine: Engine, a: Any, b: Any) -> Any:
    x, y = engine.array(a), engine.array(b)
    if x.ndim == 0 or y.ndim == 0:
        return _dot(engine, x, y)
    return _tensordot(engine, x, y, ((x.ndim - 1,), (y.ndim - 1,)))


@_implements(np.outer)
def _outer_product(engine: Engine, a: Any, b: Any, out: Any = None) -> Any:
    x, y = engine.reshaped(engine.array(a), (-1, 1)), engine.reshaped(engine.array(b), (1, -1))
    return x * y


@_implements(np.tensordot)
def _tensordot(engine: Engine, a: Any, b: Any, axes: Any = 2) -> Any:
    x, y = engine.array(a), engine.array(b)
    if isinstance(axes, int):
        axes = (tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes)))
    left, right = ([axes[k]] if isinstance(axes[k], int) else list(axes[k]) for k in (0, 1))
    left, right = [d % x.ndim for d in left], [d % y.ndim for d in right]
    free_x = [d for d in range(x.ndim) if d not in left]
    free_y = [d for d in range(y.ndim) if d not in right]
    shape = [x.shape[d] for d in free_x] + [y.shape[d] for d in free_y]
    terms = math.prod(x.shape[d] for d in left)
    flat_x = engine.moved(x, lambda v: np.transpose(v, free_x + left).reshape(-1, terms))
    flat_y = engine.moved(y, lambda v: np.transpose(v, right + free_y).reshape(terms, -1))
    product = engine.matmul(flat_x, flat_y, engine.site("tensordot"))
    return engine.lowered(np.reshape(engine.array(product), shape))


@_implements(np.einsum)
def _einsum(engine: Engine, *operands: Any, **kwargs: Any) -> Any:
    """Return a sum of products: two operands at a time, products exact within a sum."""
    out = kwargs.get("out")
    if not isinstance(operands[0], str):
        return engine.refuse(np.einsum, operands, kwargs)
    subscripts = operands[0].replace(" ", "")
    arrays = [engine.array(x) for x in operands[1:]]
    inputs, _, output = subscripts.partition("->")
    names = inputs.split(",")
    if "." in subscripts:
        return engine.refuse(np.einsum, operands, kwargs)
    if "->" not in subscripts:
        letters = sorted(set(inputs) - {","})
        output = "".join(c for c in letters if inputs.count(c) == 1)
    while len(arrays) > 2:
        rest = set("".join(names[2:])) | set(output)
        kept = "".join(c for c in dict.fromkeys(names[0] + names[1]) if c in rest)
        pair = _pair(engine, names[0], arrays[0], names[1], arrays[1], kept)
        names, arrays = [kept, *names[2:]], [engine.array(pair), *arrays[2:]]
    if len(arrays) == 2:
        result = _pair(engine, names[0], arrays[0], names[1], arrays[1], output)
    else:
        single = _diagonals(engine, arrays[0], names[0])
        unique = "".join(dict.fromkeys(names[0]))
        result = _summed_over(engine, single, unique, output)
    return result if out is None else _into(engine, out, result)


def _diagonals(engine: Engine, x: Traced, names: str) -> Traced:
    unique = "".join(dict.fromkeys(names))
    if unique == names:
        return x
    return engine.array(engine.moved(x, lambda v: np.array(np.einsum(f"{names}->{unique}", v))))


def _summed_over(engine: Engine, x: Traced, names: str, output: str) -> Any:
    axes = tuple(d for d, c in enumerate(names) if c not in output)
    total: Any = x
    if axes:
        total = engine.sum(x, engine.site("einsum"), axes)
    left = "".join(c for c in names if c in output)
    if left != output:
        total = engine.moved(
            engine.array(total), lambda v: np.transpose(v, [left.index(c) for c in output])
        )
    return total


def _pair(engine: Engine, nx: str, x: Traced, ny: str, y: Traced, output: str) -> Any:
    x, y = _diagonals(engine, x, nx), _diagonals(engine, y, ny)
    nx, ny = "".join(dict.fromkeys(nx)), "".join(dict.fromkeys(ny))
    for mine, other in ((0, ny), (1, nx)):  # what only one operand has and the result has not
        names, array = (nx, x) if mine == 0 else (ny, y)
        alone = [c for c in names if c not in other and c not in output]
        if alone:
            rest = "".join(c for c in names if c not in alone)
            array = engine.array(_summed_over(engine, array, names, rest))
            if mine == 0:
                nx, x = rest, array
            else:
                ny, y = rest, array
    batch = [c for c in nx if c in ny and c in output]
    inner = [c for c in nx if c in ny and c not in output]
    free_x = [c for c in nx if c not in ny]
    free_y = [c for c in ny if c not in nx]
    size = {**dict(zip(nx, x.shape, strict=True)), **dict(zip(ny, y.shape, strict=True))}

    def lengths(names: Sequence[str]) -> list[int]:
        return [size[c] for c in names]

    terms = math.prod(lengths(inner))
    flat_x = engine.moved(
        x,
        lambda v: np.transpose(v, [nx.index(c) for c in batch + free_x + inner]).reshape(
            [*lengths(batch), math.prod(lengths(free_x)), terms]
        ),
    )
    flat_y = engine.moved(
        y,
        lambda v: np.transpose(v, [ny.index(c) for c in batch + inner + free_y]).reshape(
            [*lengths(batch), terms, math.prod(lengths(free_y))]
        ),
    )
    product: Any = engine.array(
        engine.matmul(flat_x, flat_y, engine.site("einsum"))
        if inner
        else engine.elementwise(np.multiply, (flat_x, flat_y), engine.site("einsum"))
    )
    made = batch + free_x + free_y
    product = engine.moved(
        product,
        lambda v: np.transpose(v.reshape(lengths(made)), [made.index(c) for c in output]),
    )
    return engine.lowered(product)


@_implements(np.trace)
def _trace(
    engine: Engine, a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None,
    out: Any = None,
) -> Any:  # fmt: skip
    diagonal = engine.moved(engine.array(a), lambda v: np.diagonal(v, offset, axis1, axis2))
    return engine.sum(diagonal, engine.site("trace"), -1)


@_implements(np.kron)
def _kron(engine: Engine, a: Any, b: Any) -> Any:
    x, y = engine.array(a), engine.array(b)
    n = max(x.ndim, y.ndim)
    x = engine.reshaped(x, (1,) * (n - x.ndim) + x.shape)
    y = engine.reshaped(y, (1,) * (n - y.ndim) + y.shape)
    tall = engine.reshaped(x, [k for s in x.shape for k in (s, 1)])
    wide = engine.reshaped(y, [k for s in y.shape for k in (1, s)])
    shape = [s * t for s, t in zip(x.shape, y.shape, strict=True)]
    return np.reshape(tall * wide, shape)


@_implements(np.cross)
def _cross(engine: Engine, a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
    x, y = engine.array(a), engine.array(b)
    if args or kwargs or x.shape[-1] != 3 or y.shape[-1] != 3:
        return engine.refuse(np.cross, (a, b, *args), kwargs)
    first, second = [1, 2, 0], [2, 0, 1]
    return x[..., first] * y[..., second] - x[..., second] * y[..., first]


# Differences, interpolation, polynomials ---------------------------------------------------------


@_implements(np.diff)
def _diff(engine: Engine, a: Any, n: int = 1, axis: int = -1, **kwargs: Any) -> Any:
    if kwargs:
        return engine.refuse(np.diff, (a, n, axis), kwargs)
    array = engine.array(a)
    for _ in range(n):
        rows = engine.moved(array, lambda v: np.moveaxis(v, axis, 0))
        steps = rows[1:] - rows[:-1]
        array = engine.moved(engine.array(steps), lambda v: np.moveaxis(v, 0, axis))
    return array


@_implements(np.ediff1d)
def _ediff1d(engine: Engine, ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    return _diff(engine, engine.reshaped(engine.array(ary), (-1,)))


@_implements(np.gradient)
def _gradient(engine: Engine, f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    array = engine.array(f)
    if edge_order != 1 or len(varargs) > 1 or (array.ndim > 1 and axis is None):
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


@_implements(np.trapezoid)
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
        full = engine.matmul(
            _slid(engine, x, k, (k - 1, k - 1)), kernel[::-1], engine.site("convolve")
        )
        start = (k - 1) // 2
        return full[start : start + n]
    return engine.matmul(_slid(engine, x, k, widths[mode]), kernel[::-1], engine.site("convolve"))


def _slid(engine: Engine, x: Traced, k: int, widths: tuple[int, int]) -> Traced:
    return engine.array(
        engine.moved(
            x, lambda v: np.array(np.lib.stride_tricks.sliding_window_view(np.pad(v, widths), k))
        )
    )


@_implements(np.convolve)
def _convolve(engine: Engine, a: Any, v: Any, mode: str = "full") -> Any:
    return _windows(engine, a, v, mode)


@_implements(np.correlate)
def _correlate(engine: Engine, a: Any, v: Any, mode: str = "valid") -> Any:
    return _windows(engine, engine.array(a), engine.array(v)[::-1], mode)


@_implements(np.interp)
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


@_implements(np.polyval)
def _polyval(engine: Engine, p: Any, x: Any) -> Any:
    coefficients = engine.array(p)
    result: Any = np.zeros_like(engine.array(x))
    for c in coefficients:
        result = result * x + c
    return engine.lowered(result)


@_implements(np.vander)
def _vander(engine: Engine, x: Any, N: Any = None, increasing: bool = False) -> Any:
    array = engine.array(x)
    n = len(array) if N is None else N
    columns: list[Any] = [np.ones_like(array)]
    for _ in range(n - 1):
        columns.append(columns[-1] * array)
    return np.stack(columns if increasing else columns[::-1], axis=1)


@_implements(np.clip)
def _clip(
    engine: Engine, a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, *,
    min: Any = None, max: Any = None, **kwargs: Any,  # noqa: A002
) -> Any:  # fmt: skip
    low = min if a_min is None else a_min
    high = max if a_max is None else a_max
    result = engine.array(a)
    if low is not None:
        result = np.maximum(result, low)
    if high is not None:
        result = np.minimum(result, high)
    result = engine.lowered(result)
    return result if out is None else _into(engine, out, result)


if hasattr(np._core.umath, "clip"):  # type: ignore[attr-defined]
    FUNCTIONS[np._core.umath.clip] = (  # type: ignore[attr-defined]
        lambda engine, a, low, high, site=None, **kwargs: _clip(engine, a, low, high)
    )


@_implements(np.round, np.around)
def _round(engine: Engine, a: Any, decimals: int = 0, out: Any = None) -> Any:
    array = engine.array(a)
    scale = 10.0 ** abs(decimals)
    if decimals == 0:
        result = np.rint(array)
    elif decimals > 0:
        result = np.rint(array * scale) / scale
    else:
        result = np.rint(array / scale) * scale
    result = engine.lowered(result)
    return result if out is None else _into(engine, out, result)


@_implements(np.fix)
def _fix(engine: Engine, x: Any, out: Any = None) -> Any:
    return np.trunc(x)


@_implements(np.sinc)
def _sinc(engine: Engine, x: Any) -> Any:
    y: Any = np.pi * np.where(np.equal(x, 0), 1.0e-20, x)
    return engine.lowered(np.sin(y) / y)


@_implements(np.modf)
def _modf(engine: Engine, x: Any, site: Any = None, **kwargs: Any) -> Any:
    whole = np.trunc(x)
    return x - whole, whole


@_implements(np.divmod)
def _divmod(engine: Engine, x: Any, y: Any, site: Any = None, **kwargs: Any) -> Any:
    return np.floor_divide(x, y), np.remainder(x, y)


@_implements(np.ldexp)
def _ldexp(engine: Engine, x: Any, n: Any, site: Any = None, **kwargs: Any) -> Any:
    site = engine.site("ldexp") if site is None else site
    taken = engine.operand(engine.array(x, site), site)
    z = site.kit.enter(np.ldexp(np.asarray(taken[0], np.float64), n))
    scale = np.ldexp(1.0, n)
    flows = [(lambda part: part * scale, 1.0)]
    return engine.linear(z, np.ldexp(taken[1], n), [taken], flows, site, "ldexp", int(np.size(z)))


@_implements(np.frexp)
def _frexp(engine: Engine, x: Any, site: Any = None, **kwargs: Any) -> Any:
    array = engine.array(x)
    exponents = np.frexp(array.value)[1]
    if np.any(exponents != np.frexp(array.shadow)[1]):
        engine._decide(exponents != np.frexp(array.shadow)[1], engine.site("frexp"), (array,))
    return _ldexp(engine, x, -exponents), exponents[()]


@_implements(np.spacing)
def _spacing(engine: Engine, x: Any, site: Any = None, **kwargs: Any) -> Any:
    from lowprec.conversion.neighbours import ulp

    site = engine.site("spacing") if site is None else site
    value, _, _ = engine.operand(x, site)
    found = np.asarray(ulp(value, site.kit.fmt), np.float64)
    return engine.lowered(engine.array_from(found, site.unit, site.kit))


@_implements(np.linspace)
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


@_implements(np.logspace)
def _logspace(
    engine: Engine, start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10.0,
    dtype: Any = None, axis: int = 0,
) -> Any:  # fmt: skip
    return np.power(engine.array(base), _linspace(engine, start, stop, num, endpoint))


# Statistics -------------------------------------------------------------------------------------


@_implements(np.median)
def _median(
    engine: Engine, a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False,
    keepdims: bool = False,
) -> Any:  # fmt: skip
    return _quantile(engine, a, 0.5, axis, keepdims=keepdims)


@_implements(np.percentile)
def _percentile(engine: Engine, a: Any, q: Any, axis: Any = None, **kwargs: Any) -> Any:
    return _quantile(engine, a, np.true_divide(q, 100), axis, **kwargs)


@_implements(np.quantile)
def _quantile(
    engine: Engine, a: Any, q: Any, axis: Any = None, out: Any = None, method: str = "linear",
    keepdims: bool = False, **kwargs: Any,
) -> Any:  # fmt: skip
    array = engine.array(a)
    if method != "linear" or has_traced(q) or isinstance(axis, tuple):
        return engine.refuse(np.quantile, (a, q), {})
    rows = _rows(engine, array, axis)
    ordered = _sort(engine, rows, 0)
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
    result: Any = made[0] if np.ndim(q) == 0 else np.stack([engine.array(m) for m in made])
    if keepdims:
        axes = list(range(array.ndim)) if axis is None else [axis % array.ndim]
        shape = [1 if d in axes else n for d, n in enumerate(array.shape)]
        result = np.reshape(engine.array(result), [*np.shape(q), *shape])
    return result


@_implements(np.cov)
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


@_implements(np.corrcoef)
def _corrcoef(engine: Engine, x: Any, y: Any = None, rowvar: bool = True, **kwargs: Any) -> Any:
    c = _cov(engine, x, y, rowvar)
    if np.ndim(c) == 0:
        return c / c
    d = np.sqrt(np.diagonal(c))
    return c / d[:, None] / d[None, :]


@_implements(np.apply_along_axis)
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


# Linear algebra, by pure NumPy --------------------------------------------------------------------


def _marked(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a handler that stands for a function of LAPACK, and mark lines that call it."""

    def enter(handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def marking(engine: Engine, *args: Any, **kwargs: Any) -> Any:
            engine.site(functions[0].__name__).unit.is_pure = True
            return handler(engine, *args, **kwargs)

        for function in functions:
            FUNCTIONS[function] = marking
            MARKED.add(f"linalg.{function.__name__}")
        return marking

    return enter


@_marked(np.linalg.norm)
def _norm(engine: Engine, x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002
    array = engine.array(x)
    if axis is None and (ord is None or (ord == 2 and array.ndim == 1) or ord == "fro"):
        flat = engine.reshaped(array, (-1,))
        result = np.sqrt(engine.matmul(flat, flat, engine.site("norm")))
        return np.reshape(engine.array(result), (1,) * array.ndim) if keepdims else result
    if axis is None and array.ndim == 2:
        sums = {1: 0, np.inf: 1, -1: 0, -np.inf: 1}
        if ord not in sums:
            return engine.refuse(np.linalg.norm, (x, ord), {})
        totals = np.sum(np.abs(array), axis=sums[ord])
        return np.max(totals) if ord > 0 else np.min(totals)
    axis = tuple(range(array.ndim)) if axis is None else axis
    if isinstance(axis, tuple) and len(axis) > 1 and ord not in (None, "fro"):
        return engine.refuse(np.linalg.norm, (x, ord, axis), {})
    if ord is None or ord == 2 or ord == "fro":
        return np.sqrt(np.sum(array * array, axis=axis, keepdims=keepdims))
    if ord == np.inf:
        return np.max(np.abs(array), axis=axis, keepdims=keepdims)
    if ord == -np.inf:
        return np.min(np.abs(array), axis=axis, keepdims=keepdims)
    if ord == 1:
        return np.sum(np.abs(array), axis=axis, keepdims=keepdims)
    if ord == 0:
        return np.sum(array != 0, axis=axis, keepdims=keepdims)
    return np.power(np.sum(np.power(np.abs(array), ord), axis=axis, keepdims=keepdims), 1 / ord)


if hasattr(np.linalg, "vector_norm"):
    FUNCTIONS[np.linalg.vector_norm] = lambda engine, x, *, axis=None, keepdims=False, ord=2: _norm(  # noqa: A006
        engine, x if axis is not None else np.ravel(x), ord, axis, keepdims
    )


def _factored(engine: Engine, a: Any) -> tuple[Traced, list[int], int]:
    """Return LU in one matrix by partial pivoting, the order of rows, and its sign."""
    m = engine.array(np.copy(engine.array(a)))
    if m.ndim != 2 or m.shape[0] != m.shape[1]:
        raise np.linalg.LinAlgError(f"traced linear algebra takes a square matrix, not {m.shape}")
    n, rows, sign = len(m), list(range(len(m))), 1
    for k in range(n):
        pivot = k + int(np.argmax(np.abs(m[k:, k])))
        if m[pivot, k].value == 0:
            raise np.linalg.LinAlgError("Singular matrix")
        if pivot != k:
            m[[k, pivot]] = m[[pivot, k]]
            rows[k], rows[pivot] = rows[pivot], rows[k]
            sign = -sign
        if k + 1 < n:
            m[k + 1 :, k] = m[k + 1 :, k] / m[k, k]
            m[k + 1 :, k + 1 :] = m[k + 1 :, k + 1 :] - m[k + 1 :, k, None] * m[k, k + 1 :]
    return m, rows, sign


@_marked(np.linalg.solve)
def _solve(engine: Engine, a: Any, b: Any) -> Any:
    m, rows, _ = _factored(engine, a)
    n = len(m)
    x = engine.array(np.copy(engine.array(b)[rows]))
    for k in range(1, n):
        x[k] = x[k] - np.matmul(m[k, :k], x[:k])
    for k in range(n - 1, -1, -1):
        right = x[k] - np.matmul(m[k, k + 1 :], x[k + 1 :]) if k + 1 < n else x[k]
        x[k] = right / m[k, k]
    return x


@_marked(np.linalg.inv)
def _inv(engine: Engine, a: Any) -> Any:
    return _solve(engine, a, np.eye(np.shape(a)[-1]))


@_marked(np.linalg.det)
def _det(engine: Engine, a: Any) -> Any:
    try:
        m, _, sign = _factored(engine, a)
    except np.linalg.LinAlgError as error:
        if "Singular" not in str(error):
            raise
        return engine.lowered(engine.array(0.0))
    return _prod(engine, np.diagonal(m)) * sign


@_marked(np.linalg.cholesky)
def _cholesky(engine: Engine, a: Any, **kwargs: Any) -> Any:
    m = engine.array(np.tril(engine.array(a)))
    for k in range(len(m)):
        if not m[k, k] > 0:
            raise np.linalg.LinAlgError("Matrix is not positive definite")
        m[k, k] = np.sqrt(m[k, k])
        if k + 1 < len(m):
            m[k + 1 :, k] = m[k + 1 :, k] / m[k, k]
            products = m[k + 1 :, k, None] * m[None, k + 1 :, k]
            m[k + 1 :, k + 1 :] = np.tril(m[k + 1 :, k + 1 :] - products)
    return m


@_marked(np.linalg.qr)
def _qr(engine: Engine, a: Any, mode: str = "reduced") -> Any:
    if mode != "reduced":
        return engine.refuse(np.linalg.qr, (a,), {"mode": mode})
    r = engine.array(np.copy(engine.array(a)))
    rows, columns = r.shape
    steps = min(rows, columns)
    kept = []
    for k in range(min(steps, rows - 1)):
        x = r[k:, k]
        if not np.any(x.value[1:]):
            continue
        sigma = np.sqrt(np.matmul(x, x))
        v = np.copy(x)
        v[0] = x[0] + (sigma if x.value[0] >= 0 else -sigma)
        beta = 2.0 / np.matmul(v, v)
        r[k:, k:] = r[k:, k:] - v[:, None] * (beta * np.matmul(v, r[k:, k:]))
        r[k + 1 :, k] = 0.0
        kept.append((k, v, beta))
    q = engine.array(np.eye(rows, steps))
    for k, v, beta in reversed(kept):
        q[k:, k:] = q[k:, k:] - v[:, None] * (beta * np.matmul(v, q[k:, k:]))
    return q, np.triu(r[:steps])


@_marked(np.linalg.lstsq)
def _lstsq(engine: Engine, a: Any, b: Any, rcond: Any = None) -> Any:
    q, r = _qr(engine, a)
    x = _solve(engine, r, np.matmul(q.T, engine.array(b)))
    left = engine.array(b) - np.matmul(engine.array(a), x)
    return x, np.sum(left * left, axis=0), np.shape(a)[1], np.zeros(0)


@_marked(np.linalg.matrix_power)
def _matrix_power(engine: Engine, a: Any, n: int) -> Any:
    base = engine.array(a)
    if n < 0:
        base, n = engine.array(_inv(engine, base)), -n
    result: Any = np.eye(len(base)) if n == 0 else None
    while n:
        if n & 1:
            result = base if result is None else np.matmul(result, base)
        n >>= 1
        if n:
            base = engine.array(np.matmul(base, base))
    return result
