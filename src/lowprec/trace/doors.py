"""What a traced program sees instead of `numpy`, `math` and `float`.

NumPy's dispatch reaches functions that are given traced values. Functions that make arrays of
nothing (`zeros`, `arange`, a generator of random numbers) are reached by standing in front of the
module: what they return enters the format. For another thread the stand-in is the module itself.
"""

from __future__ import annotations

import math
import re
import sys
import threading
from collections.abc import Hashable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.accumulation.accumulator import Accumulator
from lowprec.trace.functions.reductions import summed
from lowprec.trace.values import Scalar, Traced, has_traced

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.trace.engine import Engine

Array = np.ndarray[Any, Any]


class Doors:
    """The stand-ins of one run."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.thread = threading.get_ident()
        self._made: dict[int, Any] = {}
        self._kept: list[Any] = []
        self._own: dict[int, Any] = {
            id(function): make(self) for function, make in _OWN.items()
        } | {id(real): _float_type(self, real) for real in _FLOATS}
        self._modules = {id(module): None for module in _numpys_modules()}
        self._math = {id(value): name for name, value in vars(math).items() if callable(value)}
        engine.numpy = self.front_of(np)

    def is_here(self) -> bool:
        """Whether the thread is the one that traces."""
        return threading.get_ident() == self.thread

    def front_of(self, value: Any) -> Any:
        """Return what stands in front of a value of a module's; the value itself if nothing."""
        key = id(value)
        if key in self._made:
            return self._made[key]
        front = self._front(value)
        if front is not value:
            self._made[key] = front
            self._kept.append(value)  # so that nothing else gets its id
        return front

    def _front(self, value: Any) -> Any:
        key = id(value)
        if key in self._own:
            return self._own[key]
        if isinstance(value, ModuleType):
            if key in self._modules:
                return _Module(self, value)
            return _Module(self, value) if value is math else value
        if key in self._math:
            return _math_function(self, value)
        if isinstance(value, np.ufunc) and getattr(np, value.__name__, None) is value:
            return _Ufunc(self, value)  # type: ignore[arg-type]
        if callable(value) and not isinstance(value, type | _Ufunc | np.ufunc):
            module = getattr(value, "__module__", None) or ""
            if (module.startswith("numpy") and not module.startswith("numpy.testing")) or (
                isinstance(getattr(value, "__self__", None), np.random.RandomState)
            ):
                return _entering(self, value)
        return value

    def entered(self, made: Any, name: str) -> Any:
        """Return what a function made: float arrays enter the format."""
        kind = type(made)
        if kind is np.ndarray:
            if made.dtype.kind == "f" and made.dtype.itemsize <= 8:
                site = self.engine.places.site(3, name)
                return self.engine.array_from(made, site.unit, site.kit)
            return made
        if issubclass(kind, np.floating) and made.dtype.itemsize <= 8:
            site = self.engine.places.site(3, name)
            return self.engine.scalar_from(float(made), site.unit, site.kit)
        if kind is tuple or kind is list:
            return kind(self.entered(item, name) for item in made)
        if isinstance(made, np.random.Generator):
            return Random(self, made)
        return made


def _entering(doors: Doors, function: Any) -> Callable[..., Any]:
    """Return a function whose float arrays enter the format."""
    name = getattr(function, "__name__", "function")
    handler = doors.engine.functions.get(function) if isinstance(function, Hashable) else None
    drawing = _DRAWING.get(name) if hasattr(function, "__self__") else None

    def enter(*args: Any, **kwargs: Any) -> Any:
        if not doors.is_here():
            return function(*args, **kwargs)
        if handler is not None and has_traced([*args, *kwargs.values()]):
            return doors.engine.function(function, args, kwargs)
        if drawing is not None and has_traced([*args, *kwargs.values()]):
            return drawing(doors, function, *args, **kwargs)
        return doors.entered(function(*args, **kwargs), name)

    enter.__name__ = enter.__qualname__ = name
    enter.__doc__ = getattr(function, "__doc__", None)
    owner = type(getattr(function, "__self__", None))
    enter.__module__ = getattr(function, "__module__", None) or owner.__module__
    return enter


def _chosen(doors: Doors, function: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the elements, along the first axis, that a generator would take from an array."""
    array = doors.engine.array(x)
    places = np.arange(len(array))
    made = function(places, *args, **kwargs)
    if function.__name__ != "shuffle":
        return array[made]
    x[:] = array[places]
    return None


def _drawn(standard: str, doors: Doors, function: Any, low: Any, high: Any, size: Any) -> Any:
    """Return low + high · z for standard numbers z that enter the format."""
    if size is None:
        size = np.broadcast_shapes(np.shape(low), np.shape(high)) or None
    z = doors.entered(getattr(function.__self__, standard)(size), standard)
    return low + high * z


def _normal(doors: Doors, f: Any, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
    return _drawn("standard_normal", doors, f, loc, scale, size)


def _uniform(doors: Doors, f: Any, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
    return _drawn("random", doors, f, low, high - low, size)


def _exponential(doors: Doors, f: Any, scale: Any = 1.0, size: Any = None) -> Any:
    return _drawn("standard_exponential", doors, f, 0.0, scale, size)


# What a generator of random numbers does with traced values.
_DRAWING: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("choice", "permutation", "shuffle"), _chosen),
    "normal": _normal,
    "uniform": _uniform,
    "exponential": _exponential,
}


class _Ufunc:
    """A universal function whose float arrays enter the format."""

    def __init__(self, doors: Doors, ufunc: np.ufunc) -> None:
        self._doors, self._ufunc = doors, ufunc
        self.__name__ = ufunc.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        made = self._ufunc(*self._arrays(args), **kwargs)
        return self._doors.entered(made, self.__name__) if self._doors.is_here() else made

    def _arrays(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return arguments with arrays for lists of traced numbers, which NumPy would ask."""
        if not any(type(x) is list and has_traced(x) for x in args) or not self._doors.is_here():
            return args
        return tuple(self._doors.engine.array(a) if type(a) is list else a for a in args)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._ufunc, name)
        if not callable(value):
            return value
        enter = _entering(self._doors, value)
        return lambda *args, **kwargs: enter(*self._arrays(args), **kwargs)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return np.ufunc


class _Module(ModuleType):
    """A module whose functions are stand-ins."""

    def __init__(self, doors: Doors, module: ModuleType) -> None:
        super().__init__(module.__name__, module.__doc__)
        self.__dict__["_doors"], self.__dict__["_module"] = doors, module

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        doors = self._doors
        if not doors.is_here():
            return value
        front = doors.front_of(value)
        self.__dict__[name] = front
        return front

    def __dir__(self) -> list[str]:
        return dir(self._module)


class Random:
    """A generator of random numbers whose float arrays enter the format."""

    def __init__(self, doors: Doors, generator: np.random.Generator) -> None:
        self._doors, self._generator = doors, generator

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return np.random.Generator

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._generator, name)
        return _entering(self._doors, value) if callable(value) else value


def _numpys_modules() -> list[ModuleType]:
    names = ["numpy", "numpy.linalg", "numpy.random", "numpy.lib", "numpy.lib.stride_tricks"]
    names += ["numpy.fft"]
    return [sys.modules[name] for name in names if name in sys.modules]


# What NumPy does not dispatch ---------------------------------------------------------------------


def _array_maker(copies: bool, layout: str = "") -> Callable[[Doors], Callable[..., Any]]:
    function = np.array if copies else np.asarray

    def make(doors: Doors) -> Callable[..., Any]:
        def array(obj: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
            if not doors.is_here():
                return function(obj, dtype, *args, **kwargs)
            if type(dtype) is type and issubclass(dtype, float):
                dtype = np.dtype(np.float64)
            engine = doors.engine
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
            return doors.entered(function(obj, dtype, *args, **kwargs), "array")

        return array

    return make


def _vectorize(doors: Doors) -> Any:
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
                key: doors.engine.array(x) if has_traced(x) else np.asarray(x)
                for key, x in given.items()
                if key not in real.excluded
            }
            own = dict(enumerate(cores))
            outer = {key: x.shape[: x.ndim - own.get(key, 0)] for key, x in looped.items()}
            shape = np.broadcast_shapes(*outer.values())
            if not doors.is_here() or 0 in shape:
                return doors.entered(real(*args, **kwargs), "vectorize")
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
                    _joined(doors.engine, list(column), shape, kinds[k] if kinds else None)
                    for k, column in enumerate(columns)
                )
            return _joined(doors.engine, rows, shape, kinds[0] if kinds else None)

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


def _finfo(doors: Doors) -> Any:
    def finfo(dtype: Any) -> Any:
        if doors.is_here():
            if type(dtype) in (Traced, Scalar):
                dtype = np.float64
            kind = np.dtype(np.float64 if dtype is float else dtype)
            if kind == np.float64:
                return doors.engine.site("finfo").kit.finfo()
        return np.finfo(dtype)

    return finfo


def _fromiter(doors: Doors) -> Any:
    def fromiter(items: Any, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        items = list(items)
        if doors.is_here() and has_traced(items):
            return doors.engine.stacked(items, doors.engine.site("fromiter"))
        return doors.entered(np.fromiter(items, dtype, *args, **kwargs), "fromiter")

    return fromiter


def _isscalar(doors: Doors) -> Any:
    return lambda element: type(element) is Scalar or np.isscalar(element)


def _as_strided(doors: Doors) -> Any:
    def as_strided(x: Any, shape: Any = None, strides: Any = None, **kwargs: Any) -> Any:
        real = np.lib.stride_tricks.as_strided
        if not (doors.is_here() and has_traced(x)):
            return doors.entered(real(x, shape, strides, **kwargs), "as_strided")
        array = doors.engine.array(x)
        size = array.value.itemsize
        own = None if strides is None else [step // 8 * size for step in strides]
        views = real(array.value, shape, own), real(array.shadow, shape, strides)
        return array.view_of(*views)

    return as_strided


def _full(doors: Doors) -> Any:
    def full(shape: Any, fill_value: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        if doors.is_here() and has_traced(fill_value):
            value = doors.engine.array(fill_value, doors.engine.site("full"))
            return np.copy(np.broadcast_to(value, shape))
        return doors.entered(np.full(shape, fill_value, dtype, *args, **kwargs), "full")

    return full


def _arange(doors: Doors) -> Any:
    def arange(*args: Any, **kwargs: Any) -> Any:
        if not (doors.is_here() and has_traced(list(args))):
            return doors.entered(np.arange(*args, **kwargs), "arange")
        start, stop = (0, args[0]) if len(args) == 1 else args[:2]
        step = args[2] if len(args) > 2 else kwargs.get("step", 1)
        length = (stop - start) / step
        count = length.__ceil__() if has_traced(length) else math.ceil(length)
        places = np.arange(max(count, 0), dtype=np.float64)
        return doors.engine.array(places, doors.engine.site("arange")) * step + start

    return arange


class _Joined:
    """What stands in front of `np.r_` and `np.c_`."""

    def __init__(self, doors: Doors, real: Any) -> None:
        self._doors, self._real = doors, real

    def __getitem__(self, key: Any) -> Any:
        items = key if isinstance(key, tuple) else (key,)
        if not self._doors.is_here() or not has_traced(list(items)):
            return self._doors.entered(self._real[key], "r_")
        if any(isinstance(item, str) for item in items):
            raise TypeError(
                "np.r_ and np.c_ with words take no traced values; use np.concatenate or np.stack"
            )
        parts = [np.r_[item] if isinstance(item, slice) else item for item in items]
        if self._real is np.c_:
            return np.column_stack([np.atleast_1d(p) for p in parts])
        return np.concatenate([np.atleast_1d(p) for p in parts])


def _ndenumerate(doors: Doors) -> Any:
    def ndenumerate(arr: Any) -> Any:
        if not (doors.is_here() and has_traced(arr)):
            return np.ndenumerate(arr)
        array = doors.engine.array(arr)
        return ((place, array[place]) for place in np.ndindex(*array.shape))

    return ndenumerate


_OWN: dict[Any, Callable[[Doors], Any]] = {
    np.r_: lambda doors: _Joined(doors, np.r_),
    np.c_: lambda doors: _Joined(doors, np.c_),
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
_FLOATS = (float, np.float64, np.float32, np.float16)


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


def _float_type(doors: Doors, real: Any) -> type:
    """Return what stands in front of `float` or a float type: traced values stay traced."""

    def new(cls: Any, x: Any = 0.0) -> Any:
        if doors.is_here():
            if type(x) is Scalar:
                return x
            if type(x) is Traced:
                return x.item() if real is float else x
            if has_traced(x):
                return doors.engine.array(x)
        return doors.entered(real(x), real.__name__)

    names = {"__new__": new, "_real": real, "dtype": np.dtype(real)}
    return _FloatMeta(real.__name__, (real,), names)


# The module math ----------------------------------------------------------------------------------


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


def _math_function(doors: Doors, function: Any) -> Callable[..., Any]:
    name = function.__name__

    def call(*args: Any, **kwargs: Any) -> Any:
        if not doors.is_here():
            return function(*args, **kwargs)
        args = tuple(list(a) if hasattr(a, "__next__") else a for a in args)
        if not any(has_traced(a) for a in args):
            return function(*args, **kwargs)
        engine = doors.engine
        args = tuple(a.item() if type(a) is Traced and a.size == 1 else a for a in args)
        if name in _MATHS_OWN:
            return _MATHS_OWN[name](engine, *args, **kwargs)
        if name in _MATHS:
            return engine.elementwise(_MATHS[name], args, engine.site(name))
        return engine.refuse(function, args, kwargs)

    call.__name__ = call.__qualname__ = name
    return call
