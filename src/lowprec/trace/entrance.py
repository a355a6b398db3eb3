"""How what a program's functions make enters the format of the line that called them."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace.values import has_traced

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.trace.engine import Engine


class Entrance:
    """Where float arrays enter the format, for the thread that traces."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.thread = threading.get_ident()

    def is_here(self) -> bool:
        """Whether the thread is the one that traces."""
        return threading.get_ident() == self.thread

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


def entering(entrance: Entrance, function: Any) -> Callable[..., Any]:
    """Return a function whose float arrays enter the format."""
    name = getattr(function, "__name__", "function")
    handler = entrance.engine.functions.get(function) if isinstance(function, Hashable) else None
    drawing = _DRAWING.get(name) if hasattr(function, "__self__") else None

    def enter(*args: Any, **kwargs: Any) -> Any:
        if not entrance.is_here():
            return function(*args, **kwargs)
        if handler is not None and has_traced([*args, *kwargs.values()]):
            return entrance.engine.function(function, args, kwargs)
        if drawing is not None and has_traced([*args, *kwargs.values()]):
            return drawing(entrance, function, *args, **kwargs)
        return entrance.entered(function(*args, **kwargs), name)

    enter.__name__ = enter.__qualname__ = name
    enter.__doc__ = getattr(function, "__doc__", None)
    owner = type(getattr(function, "__self__", None))
    enter.__module__ = getattr(function, "__module__", None) or owner.__module__
    return enter


def _chosen(entrance: Entrance, function: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the elements, along the first axis, that a generator would take from an array."""
    array = entrance.engine.array(x)
    places = np.arange(len(array))
    made = function(places, *args, **kwargs)
    if function.__name__ != "shuffle":
        return array[made]
    x[:] = array[places]
    return None


def _drawn(standard: str, entrance: Entrance, function: Any, low: Any, high: Any, size: Any) -> Any:
    """Return low + high · z for standard numbers z that enter the format."""
    if size is None:
        size = np.broadcast_shapes(np.shape(low), np.shape(high)) or None
    z = entrance.entered(getattr(function.__self__, standard)(size), standard)
    return low + high * z


def _normal(entrance: Entrance, f: Any, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
    return _drawn("standard_normal", entrance, f, loc, scale, size)


def _uniform(entrance: Entrance, f: Any, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
    return _drawn("random", entrance, f, low, high - low, size)


def _exponential(entrance: Entrance, f: Any, scale: Any = 1.0, size: Any = None) -> Any:
    return _drawn("standard_exponential", entrance, f, 0.0, scale, size)


# What a generator of random numbers does with traced values.
_DRAWING: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("choice", "permutation", "shuffle"), _chosen),
    "normal": _normal,
    "uniform": _uniform,
    "exponential": _exponential,
}


class Random:
    """A generator of random numbers whose float arrays enter the format."""

    def __init__(self, entrance: Entrance, generator: np.random.Generator) -> None:
        self._entrance, self._generator = entrance, generator

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return np.random.Generator

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._generator, name)
        return entering(self._entrance, value) if callable(value) else value
