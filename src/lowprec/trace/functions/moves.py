"""Functions that move elements, join arrays or make new ones: nothing is rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace.functions.table import EXACTLY, FUNCTIONS, implements
from lowprec.trace.values import Scalar, Traced, has_traced, is_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowprec.trace.engine import Engine
    from lowprec.trace.places import Site

Array = np.ndarray[Any, Any]


_MOVES = """
    reshape ravel transpose swapaxes moveaxis rollaxis squeeze expand_dims flip fliplr
    flipud rot90 roll tile repeat broadcast_to diagonal diag tril triu take delete resize
    diagflat matrix_transpose take_along_axis permute_dims
"""


def _moves(function: Any) -> Callable[..., Any]:
    def handler(engine: Engine, array: Any, *args: Any, **kwargs: Any) -> Any:
        return engine.lowered(
            engine.moved(engine.array(array), lambda a: function(a, *args, **kwargs))
        )

    return handler


for _name in _MOVES.split():
    if hasattr(np, _name):
        FUNCTIONS[getattr(np, _name)] = _moves(getattr(np, _name))
        EXACTLY.add(_name)
for _function in (
    *(np.linalg.matrix_transpose, np.linalg.diagonal, np.lib.stride_tricks.sliding_window_view),
    *(np.fft.fftshift, np.fft.ifftshift),
):
    FUNCTIONS[_function] = _moves(_function)


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
        engine, value, pool([p.shadow for p in parts])[order], engine.new_store(np.empty(0), kit)
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
        site = engine.site(function.__name__)
        return gathered(engine, list(arrays), lambda *n: function(n, *args, **kwargs), site)

    return handler


for _name in ("concatenate", "stack", "vstack", "hstack", "dstack", "column_stack", "concat"):
    if hasattr(np, _name):
        FUNCTIONS[getattr(np, _name)] = _joins(getattr(np, _name))
        EXACTLY.add(_name)

_OTHERS = """
    where select choose append insert pad split array_split hsplit vsplit dsplit meshgrid
    broadcast_arrays atleast_1d atleast_2d atleast_3d block copy copyto put place putmask
    fill_diagonal compress extract sort unique partition max min amax amin argmax argmin
    argsort argpartition searchsorted digitize count_nonzero nonzero flatnonzero argwhere
    any all array_equal array_equiv allclose isclose shape ndim size real imag nan_to_num
    zeros_like ones_like empty_like full_like clip isnan isfinite isinf signbit sign floor
    ceil trunc rint copysign histogram bincount array2string array_repr array_str astype
    common_type fix iscomplex iscomplexobj isin isneginf isposinf isreal isrealobj lexsort
    linalg.diagonal linalg.matrix_transpose fft.fftshift fft.ifftshift may_share_memory
    nanargmax nanargmin nanmax nanmin piecewise put_along_axis real_if_close result_type
    setdiff1d shares_memory union1d lib.stride_tricks.sliding_window_view
"""
EXACTLY.update(_OTHERS.split())


@implements(np.block)
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


@implements(np.where)
def _where(engine: Engine, condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None or y is None:
        return FUNCTIONS[np.nonzero](engine, condition)
    mask = _mask(engine, condition)

    def move(a: Any, b: Any) -> Any:
        return np.where(mask, a, b)

    return gathered(engine, [x, y], move, engine.site("where"))


def _mask(engine: Engine, condition: Any) -> Any:
    if type(condition) is Traced or type(condition) is Scalar:
        return engine.compared(np.not_equal, condition, 0.0, engine.site("where"))
    return np.asarray(condition, bool)


@implements(np.select)
def _select(engine: Engine, condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    result: Any = engine.array(default)
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = np.where(condition, choice, result)
    return result


@implements(np.piecewise)
def _piecewise(engine: Engine, x: Any, condlist: Any, funclist: Any, *args: Any, **kw: Any) -> Any:
    masks = [np.asarray(c, bool) for c in condlist]
    if len(funclist) == len(masks) + 1:
        masks.append(~np.any(masks, axis=0))
    result: Any = np.zeros_like(engine.array(x))
    for mask, f in zip(masks, funclist, strict=True):
        result[mask] = f(x[mask], *args, **kw) if callable(f) else f
    return result


@implements(np.choose)
def _choose(engine: Engine, a: Any, choices: Any, mode: str = "raise") -> Any:
    site = engine.site("choose")
    return gathered(engine, list(choices), lambda *n: np.choose(a, n, mode=mode), site)  # type: ignore[call-overload]


@implements(np.append)
def _append(engine: Engine, arr: Any, values: Any, axis: Any = None) -> Any:
    site = engine.site("append")
    return gathered(engine, [arr, values], lambda a, b: np.append(a, b, axis), site)


@implements(np.insert)
def _insert(engine: Engine, arr: Any, obj: Any, values: Any, axis: Any = None) -> Any:
    site = engine.site("insert")
    return gathered(engine, [arr, values], lambda a, b: np.insert(a, obj, b, axis), site)


@implements(np.pad)
def _pad(engine: Engine, array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Any:
    site = engine.site("pad")
    if mode not in ("constant", "edge", "wrap", "reflect", "symmetric", "empty"):
        return engine.refuse(np.pad, (array, pad_width, mode), kwargs)
    constant = kwargs.pop("constant_values", 0)
    if mode == "constant" and (has_traced(constant) or np.any(np.asarray(constant) != 0)):
        return gathered(
            engine,
            [array, constant],
            lambda a, c: np.pad(a, pad_width, "constant", constant_values=c.tolist()),
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


@implements(np.meshgrid)
def _meshgrid(engine: Engine, *xi: Any, **kwargs: Any) -> Any:
    site = engine.site("meshgrid")
    return [
        gathered(engine, xi, lambda *n, k=k: np.meshgrid(*n, **kwargs)[k], site)
        for k in range(len(xi))
    ]


@implements(np.broadcast_arrays)
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


@implements(np.copy)
def _copy(engine: Engine, a: Any, order: str = "K", subok: bool = False) -> Any:
    array = engine.array(a)
    return engine.copied(array, array.value, array.shadow, lambda v: v)


@implements(np.copyto)
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


@implements(np.put)
def _put(engine: Engine, a: Any, ind: Any, v: Any, mode: str = "raise") -> None:
    flat = np.ravel(ind)
    places = np.take(np.arange(a.size), flat, mode=mode)  # type: ignore[call-overload]
    a[np.unravel_index(places, a.shape)] = engine.moved(
        engine.array(v), lambda w: np.resize(w, flat.shape)
    )


@implements(np.place)
def _place(engine: Engine, arr: Any, mask: Any, vals: Any) -> None:
    _put(engine, arr, np.flatnonzero(mask), vals)


@implements(np.put_along_axis)
def _put_along_axis(engine: Engine, arr: Any, indices: Any, values: Any, axis: Any = -1) -> None:
    target, axis = (arr, axis) if axis is not None else (engine.reshaped(arr, (-1,)), 0)
    numbers = np.arange(target.size).reshape(target.shape)
    places = np.unravel_index(np.take_along_axis(numbers, indices, axis), target.shape)
    target[places] = values


@implements(np.putmask)
def _putmask(engine: Engine, a: Any, mask: Any, values: Any) -> None:
    new = engine.array(values)
    mask = np.asarray(mask, bool)
    if new.ndim == 0 or new.size == 1:
        a[mask] = new
    else:
        a[mask] = engine.moved(new, lambda v: np.resize(v, a.shape))[mask]


@implements(np.fill_diagonal)
def _fill_diagonal(engine: Engine, a: Any, val: Any, wrap: bool = False) -> None:
    n = min(a.shape)
    a[(np.arange(n),) * a.ndim] = val


@implements(np.compress)
def _compress(engine: Engine, condition: Any, a: Any, axis: Any = None) -> Any:
    return engine.moved(engine.array(a), lambda v: np.compress(condition, v, axis))


@implements(np.extract)
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


@implements(np.nan_to_num)
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
    if not copy and type(x) is Traced:
        x[...] = result
        return x
    return engine.lowered(result)


if hasattr(np, "astype"):
    FUNCTIONS[np.astype] = lambda engine, x, dtype, **options: engine.astype(engine.array(x), dtype)
