"""What stands in front of functions that NumPy does not dispatch, and of float types."""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace.values import Scalar, Traced, has_traced

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.trace.engine import Engine
    from lowprec.trace.entrance import Entrance


def _array_maker(copies: bool, layout: str = "") -> Callable[[Entrance], Callable[..., Any]]:
    function = np.array if copies else np.asarray

    def make(entrance: Entrance) -> Callable[..., Any]:
        def array(obj: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
            if not entrance.is_here():
                return function(obj, dtype, *args, **kwargs)
            if type(dtype) is type and issubclass(dtype, float):
                dtype = np.dtype(np.float64)
            engine = entrance.engine
            if type(obj) is Traced or type(obj) is Scalar or has_traced(obj):
                site = engine.site("array")
                made = engine.array(obj, site)
                if dtype is not None and np.dtype(dtype).kind != "f":
                    return engine.astype(made, dtype)
                wants_copy = kwargs.get("copy")
                if wants_copy is None:
                    wants_copy = copies or (bool(layout) and not made.flags[layout])
                if (wants_copy is True or wants_copy == np._CopyMode.ALWAYS) and type(
                    obj
                ) is Traced:
                    made = engine.copied(made, made.value, made.shadow, lambda v: v)
                while made.ndim < kwargs.get("ndmin", 0):
                    made = engine.reshaped(made, (1, *made.shape))
                return made
            return entrance.entered(function(obj, dtype, *args, **kwargs), "array")

        return array

    return make


def _vectorize(entrance: Entrance) -> Any:
    def vectorize(pyfunc: Any = None, *args: Any, **options: Any) -> Any:
        if not callable(pyfunc):  # a decorator with options
            return lambda f: vectorize(f, *args, **options)
        real = np.vectorize(pyfunc, *args, **options)
        cores = [] if real.signature is None else [  # how many dimensions a call takes of each
            len(names.split(",")) if names else 0
            for names in re.findall(r"\(([^)]*)\)", real.signature.partition("->")[0])
        ]  # fmt: skip

        def call(*args: Any, **kwargs: Any) -> Any:
            given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
            looped = {
                key: entrance.engine.array(x) if has_traced(x) else np.asarray(x)
                for key, x in given.items()
                if key not in real.excluded
            }
            own = dict(enumerate(cores))
            outer = {key: x.shape[: x.ndim - own.get(key, 0)] for key, x in looped.items()}
            shape = np.broadcast_shapes(*outer.values())
            if not entrance.is_here() or 0 in shape:
                return entrance.entered(real(*args, **kwargs), "vectorize")
            spread = {
                key: np.broadcast_to(
                    x if type(x) is Traced or own.get(key) else x.astype(object),
                    shape + x.shape[len(outer[key]) :],
                )
                for key, x in looped.items()
            }
            rows = [
                pyfunc(
                    *(spread[k][place] if k in spread else a for k, a in enumerate(args)),
                    **{k: spread[k][place] if k in spread else a for k, a in kwargs.items()},
                )
                for place in np.ndindex(*shape)
            ]
            kinds = real.otypes
            if isinstance(rows[0], tuple):
                columns = zip(*rows, strict=True)
                return tuple(
                    _joined(entrance.engine, list(column), shape, kinds[k] if kinds else None)
                    for k, column in enumerate(columns)
                )
            return _joined(entrance.engine, rows, shape, kinds[0] if kinds else None)

        return call

    return vectorize


def _joined(engine: Engine, items: list[Any], shape: tuple[int, ...], kind: Any) -> Any:
    """Return results of calls as an array; the first says of which kind, unless that is given."""
    if kind is None:
        kind = "d" if has_traced(items[0]) else np.asarray(items[0]).dtype
    whole: Any = engine.array(items) if has_traced(items) else np.asarray(items)
    if np.dtype(kind).kind != "f":
        whole = whole.astype(kind)
    whole = np.reshape(whole, shape + whole.shape[1:])
    if np.dtype(kind).kind == "f":
        return engine.lowered(engine.array(whole))
    return whole


def _finfo(entrance: Entrance) -> Any:
    def finfo(dtype: Any) -> Any:
        if entrance.is_here():
            if type(dtype) in (Traced, Scalar):
                dtype = np.float64
            kind = np.dtype(np.float64 if dtype is float else dtype)
            if kind == np.float64:
                return entrance.engine.site("finfo").kit.finfo()
        return np.finfo(dtype)

    return finfo


def _fromiter(entrance: Entrance) -> Any:
    def fromiter(items: Any, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        items = list(items)
        if entrance.is_here() and has_traced(items):
            return entrance.engine.stacked(items, entrance.engine.site("fromiter"))
        return entrance.entered(np.fromiter(items, dtype, *args, **kwargs), "fromiter")

    return fromiter


def _isscalar(entrance: Entrance) -> Any:
    return lambda element: type(element) is Scalar or np.isscalar(element)


def _as_strided(entrance: Entrance) -> Any:
    def as_strided(x: Any, shape: Any = None, strides: Any = None, **kwargs: Any) -> Any:
        real = np.lib.stride_tricks.as_strided
        if not (entrance.is_here() and has_traced(x)):
            return entrance.entered(real(x, shape, strides, **kwargs), "as_strided")
        array = entrance.engine.array(x)
        size = array.value.itemsize
        own = None if strides is None else [step // 8 * size for step in strides]
        views = real(array.value, shape, own), real(array.shadow, shape, strides)
        return array.view_of(*views)

    return as_strided


def _full(entrance: Entrance) -> Any:
    def full(shape: Any, fill_value: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        if entrance.is_here() and has_traced(fill_value):
            value = entrance.engine.array(fill_value, entrance.engine.site("full"))
            return np.copy(np.broadcast_to(value, shape))
        return entrance.entered(np.full(shape, fill_value, dtype, *args, **kwargs), "full")

    return full


def _arange(entrance: Entrance) -> Any:
    def arange(*args: Any, **kwargs: Any) -> Any:
        if not (entrance.is_here() and has_traced(list(args))):
            return entrance.entered(np.arange(*args, **kwargs), "arange")
        start, stop = (0, args[0]) if len(args) == 1 else args[:2]
        step = args[2] if len(args) > 2 else kwargs.get("step", 1)
        length = (stop - start) / step
        count = length.__ceil__() if has_traced(length) else math.ceil(length)
        places = np.arange(max(count, 0), dtype=np.float64)
        return entrance.engine.array(places, entrance.engine.site("arange")) * step + start

    return arange


class _Joined:
    """What stands in front of `np.r_` and `np.c_`."""

    def __init__(self, entrance: Entrance, real: Any) -> None:
        self._entrance, self._real = entrance, real

    def __getitem__(self, key: Any) -> Any:
        items = key if isinstance(key, tuple) else (key,)
        if not self._entrance.is_here() or not has_traced(list(items)):
            return self._entrance.entered(self._real[key], "r_")
        if any(isinstance(item, str) for item in items):
            raise TypeError(
                "np.r_ and np.c_ with words take no traced values; use np.concatenate or np.stack"
            )
        parts = [np.r_[item] if isinstance(item, slice) else item for item in items]
        if self._real is np.c_:
            return np.column_stack([np.atleast_1d(p) for p in parts])
        return np.concatenate([np.atleast_1d(p) for p in parts])


def _ndenumerate(entrance: Entrance) -> Any:
    def ndenumerate(arr: Any) -> Any:
        if not (entrance.is_here() and has_traced(arr)):
            return np.ndenumerate(arr)
        array = entrance.engine.array(arr)
        return ((place, array[place]) for place in np.ndindex(*array.shape))

    return ndenumerate


MAKERS: dict[Any, Callable[[Entrance], Any]] = {
    np.r_: lambda entrance: _Joined(entrance, np.r_),
    np.c_: lambda entrance: _Joined(entrance, np.c_),
    np.ndenumerate: _ndenumerate,
    np.full: _full,
    np.lib.stride_tricks.as_strided: _as_strided,
    np.arange: _arange,
    np.array: _array_maker(True),
    np.asarray: _array_maker(False),
    np.asanyarray: _array_maker(False),
    np.ascontiguousarray: _array_maker(False, "C_CONTIGUOUS"),
    np.asfortranarray: _array_maker(False, "F_CONTIGUOUS"),
    np.asarray_chkfinite: _array_maker(False),
    np.vectorize: _vectorize,
    np.finfo: _finfo,
    np.fromiter: _fromiter,
    np.isscalar: _isscalar,
}


class _FloatMeta(type):
    """Has `isinstance(x, float)` be what the program means by it."""

    _real: type

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls._real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls._real)

    def __eq__(cls, other: object) -> bool:
        return other is cls._real or other is cls

    def __hash__(cls) -> int:
        return hash(cls._real)


def _float_type(entrance: Entrance, real: Any) -> type:
    """Return what stands in front of `float` or a float type: traced values stay traced."""

    def new(cls: Any, x: Any = 0.0) -> Any:
        if entrance.is_here():
            if type(x) is Scalar:
                return x
            if type(x) is Traced:
                return x.item() if real is float else x
            if has_traced(x):
                return entrance.engine.array(x)
        return entrance.entered(real(x), real.__name__)

    names = {"__new__": new, "_real": real, "dtype": np.dtype(real)}
    return _FloatMeta(real.__name__, (real,), names)


FLOATS: dict[Any, Callable[[Entrance], Any]] = {
    real: functools.partial(_float_type, real=real)
    for real in (float, np.float64, np.float32, np.float16)
}
