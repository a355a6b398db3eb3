"""What a traced program sees instead of `numpy`, `math` and `float`.

NumPy's dispatch reaches functions that are given traced values. Functions that make arrays of
nothing (`zeros`, `arange`, a generator of random numbers) are reached by standing in front of the
module: what they return enters the format. For another thread the stand-in is the module itself.
"""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace.entrance import Entrance, entering
from lowprec.trace.python_math import math_function
from lowprec.trace.undispatched import FLOATS, MAKERS
from lowprec.trace.values import has_traced

if TYPE_CHECKING:
    from lowprec.trace.engine import Engine


class Doors(Entrance):
    """The stand-ins of one run."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._made: dict[int, Any] = {}
        self._kept: list[Any] = []
        self._own: dict[int, Any] = {
            id(function): make(self) for function, make in (MAKERS | FLOATS).items()
        }
        self._modules = {id(module): None for module in _numpys_modules()}
        self._math = {id(value): name for name, value in vars(math).items() if callable(value)}
        engine.numpy = self.front_of(np)

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
            return math_function(self, value)
        if isinstance(value, np.ufunc) and getattr(np, value.__name__, None) is value:
            return _Ufunc(self, value)  # type: ignore[arg-type]
        if callable(value) and not isinstance(value, type | _Ufunc | np.ufunc):
            module = getattr(value, "__module__", None) or ""
            if (module.startswith("numpy") and not module.startswith("numpy.testing")) or (
                isinstance(getattr(value, "__self__", None), np.random.RandomState)
            ):
                return entering(self, value)
        return value


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
        enter = entering(self._doors, value)
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


def _numpys_modules() -> list[ModuleType]:
    names = ["numpy", "numpy.linalg", "numpy.random", "numpy.lib", "numpy.lib.stride_tricks"]
    names += ["numpy.fft"]
    return [sys.modules[name] for name in names if name in sys.modules]
