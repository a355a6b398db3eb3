"""Copies of what a traced function may change: its arguments, and what its module holds."""

from __future__ import annotations

import builtins
import contextlib
import copy
import functools
import random
import sys
import sysconfig
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Array = np.ndarray[Any, Any]

_UNCHANGED = (str, bytes, int, bool, type(None), type, FunctionType, ModuleType, range, slice)


def copied(x: Any, enter: Callable[[Any], Any], memo: dict[int, Any]) -> Any:
    """Return a deep copy whose floats and arrays of floats are what `enter` makes of them.

    Parameters
    ----------
    x : anything
        An argument, or a value of a module.
    enter : callable
        Is given Python's and NumPy's floats, and arrays of floats.
    memo : dict
        What has been copied, by id: two names of one array are two names of one copy.
    """
    if id(x) in memo:
        return memo[id(x)][0]
    made = _copied(x, enter, memo)
    memo[id(x)] = (made, x)  # x is kept, so that nothing else gets its id
    return made


def _copied(x: Any, enter: Callable[[Any], Any], memo: dict[int, Any]) -> Any:
    kind = type(x)
    if kind is float or isinstance(x, np.floating):
        return enter(x)
    if isinstance(x, _UNCHANGED) or (callable(x) and not hasattr(x, "__dict__")):
        return x
    if isinstance(x, np.ndarray):
        if x.dtype.kind == "f" or x.dtype.kind in "cO":
            return enter(x)
        return x.copy()
    if isinstance(x, np.generic):
        return enter(x) if x.dtype.kind in "cO" else x
    if isinstance(x, complex):
        return enter(x)
    if kind is list:
        made: Any = []
        memo[id(x)] = (made, x)
        made += [copied(item, enter, memo) for item in x]
        return made
    if kind is tuple:
        return tuple(copied(item, enter, memo) for item in x)
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return kind(*[copied(item, enter, memo) for item in x])
    if isinstance(x, dict):
        made = copy.copy(x)
        memo[id(x)] = (made, x)
        for key, value in x.items():
            made[key] = copied(value, enter, memo)
        return made
    if isinstance(x, np.random.Generator | np.random.RandomState | random.Random):
        return copy.deepcopy(x)
    module = getattr(type(x), "__module__", "") or ""
    if module.partition(".")[0] in ("pandas", "xarray") and hasattr(x, "values"):
        return enter(np.asarray(x.values))
    if isinstance(x, MethodType) or callable(x):
        return x
    fields = getattr(x, "__dict__", None)
    if type(fields) is dict and type(x).__module__ != "builtins":
        return copied_object(x, enter, memo)
    try:
        return copy.deepcopy(x)
    except Exception:
        return x


def own_copy(f: Any, enter: Callable[[Any], Any], memo: dict[int, Any]) -> Any:
    """Return a callable whose object, if it is of one, is a copy."""
    if isinstance(f, functools.partial):
        args = [copied(a, enter, memo) for a in f.args]
        keywords = {key: copied(value, enter, memo) for key, value in f.keywords.items()}
        return functools.partial(own_copy(f.func, enter, memo), *args, **keywords)
    if isinstance(f, MethodType) and not isinstance(f.__self__, type | ModuleType):
        return MethodType(f.__func__, copied_object(f.__self__, enter, memo))
    if isinstance(f, FunctionType | type | MethodType):
        return f
    return copied_object(f, enter, memo)


def copied_object(x: Any, enter: Callable[[Any], Any], memo: dict[int, Any]) -> Any:
    """Return a copy of an object with copies of its fields; the object where that cannot be."""
    fields = getattr(x, "__dict__", None)
    if id(x) in memo or type(fields) is not dict:
        return copied(x, enter, memo)
    try:
        made = copy.copy(x)
    except Exception:  # it says itself that it cannot be copied: the function sees it as it is
        return x
    memo[id(x)] = (made, x)
    for key, value in fields.items():
        with contextlib.suppress(Exception):
            object.__setattr__(made, key, copied(value, enter, memo))
    return made


def function_of(f: Any) -> Any:
    """Return the Python function that a callable runs.

    Raises TypeError if it is compiled, or a class.
    """
    inner: Any = f
    while True:
        if isinstance(inner, functools.partial):
            inner = inner.func
        elif isinstance(inner, MethodType):
            inner = inner.__func__
        elif hasattr(inner, "__wrapped__") and isinstance(inner, FunctionType):
            inner = vars(inner)["__wrapped__"]
        elif isinstance(inner, FunctionType):
            return inner
        elif not isinstance(inner, type) and isinstance(
            vars(type(inner)).get("__call__"), FunctionType
        ):
            inner = vars(type(inner))["__call__"]
        else:
            name = getattr(f, "__name__", type(f).__name__)
            raise TypeError(
                f"{name} is not a Python function: compiled code has no lines to trace; pass a "
                "function, a method or an object with __call__ that is written in Python"
            )


def reachable(function: FunctionType) -> tuple[set[str], list[FunctionType]]:
    """Return the names of its module that a function may read, and the module's functions."""
    names: set[str] = set()
    functions: list[FunctionType] = []
    waiting: list[Any] = [function]
    seen: set[int] = set()
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, FunctionType):
            if item.__globals__ is not function.__globals__:
                continue
            functions.append(item)
            waiting.append(item.__code__)
            waiting += [cell for cell in _contents(item) if isinstance(cell, FunctionType | type)]
            if hasattr(item, "__wrapped__"):
                waiting.append(item.__wrapped__)
        elif isinstance(item, type):
            if item.__module__ == function.__globals__.get("__name__"):
                for value in vars(item).values():
                    waiting.append(getattr(value, "__func__", getattr(value, "fget", value)))
                waiting += item.__mro__[1:]
        elif isinstance(item, CodeType):
            waiting += [c for c in item.co_consts if isinstance(c, CodeType)]
            for name in item.co_names:
                if name not in names and name in function.__globals__:
                    names.add(name)
                    value = function.__globals__[name]
                    waiting += [value, type(value)]
                elif name not in function.__globals__:
                    names.add(name)
    return names, functions


def _contents(function: FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a cell that is still empty
            found.append(cell.cell_contents)
    return found


def constant(enter: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what becomes of a module's numbers: NumPy's floats enter, all else is copied."""

    def entered(x: Any) -> Any:
        if isinstance(x, np.ndarray | np.floating) and x.dtype.kind == "f" and x.itemsize <= 8:
            return enter(x)
        return copy.copy(x)

    return entered


@contextlib.contextmanager
def sandbox(
    function: FunctionType,
    modules: tuple[str, ...],
    enter: Callable[[Any], Any],
    front_of: Callable[[Any], Any] | None,
) -> Iterator[None]:
    """Have a function see copies of what it may change; all is as before at the end.

    modules: Whose names get stand-ins too.
    enter: What a float array of the module becomes.
    front_of: What stands in front of a value of a module, such as `numpy`.
    """
    names, functions = reachable(function)
    real_import = builtins.__import__
    space = function.__globals__
    undo: list[Callable[[], Any]] = []
    memo: dict[int, Any] = {}
    before = dict(space)
    entered = constant(enter)

    legacy, common = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        for name in names:
            if name in space:
                value = space[name]
                front = value if front_of is None else front_of(value)
                space[name] = front if front is not value else copied(value, entered, memo)
            elif name == "float" and front_of is not None:
                space[name] = front_of(float)
        for item in functions:
            for cell in item.__closure__ or ():
                with contextlib.suppress(ValueError):
                    content = cell.cell_contents
                    undo.append(functools.partial(setattr, cell, "cell_contents", content))
                    front = content if front_of is None else front_of(content)
                    new = front if front is not content else copied(content, entered, memo)
                    if new is not content:
                        cell.cell_contents = new
            undo.append(functools.partial(_restore, item, dict(vars(item))))
            if item.__defaults__:
                undo.append(functools.partial(setattr, item, "__defaults__", item.__defaults__))
                item.__defaults__ = tuple(copied(d, entered, memo) for d in item.__defaults__)
            if item.__kwdefaults__:
                undo.append(functools.partial(setattr, item, "__kwdefaults__", item.__kwdefaults__))
                item.__kwdefaults__ = copied(item.__kwdefaults__, entered, memo)
        for name in names:
            kind = before.get(name)
            if isinstance(kind, type) and kind.__module__ == space.get("__name__"):
                undo.append(functools.partial(_restore, kind, dict(vars(kind))))
                for field, value in list(vars(kind).items()):
                    if isinstance(value, list | dict | set | np.ndarray) and field[:2] != "__":
                        setattr(kind, field, copied(value, entered, memo))
        if front_of is not None:
            packages = tuple(
                name if name.startswith("numpy") else name.partition(".")[0] for name in modules
            )
            stood: set[int] = {id(space)}

            def stand() -> None:
                for module in _named(packages):
                    if id(module.__dict__) not in stood:
                        stood.add(id(module.__dict__))
                        _stand(module, front_of, undo)

            stand()
            builtins.__import__ = _importing(real_import, space, modules, front_of, stand)
        for module in _neighbours(function, before):
            if front_of is not None:
                _stand(module, front_of, undo)
            for name, value in list(module.__dict__.items()):
                if isinstance(value, list | dict | set | np.ndarray) and not name.startswith("__"):
                    undo.append(functools.partial(module.__dict__.__setitem__, name, value))
                    module.__dict__[name] = copied(value, entered, memo)
        yield
    finally:
        builtins.__import__ = real_import
        for step in reversed(undo):
            step()
        for name in set(space) - set(before):
            del space[name]
        space.update(before)
        np.random.set_state(legacy)  # noqa: NPY002
        random.setstate(common)


def _restore(owner: Any, before: dict[str, Any]) -> None:
    """Have a class or a function have the attributes that it had."""
    now = dict(vars(owner))
    for name in now.keys() - before.keys():
        with contextlib.suppress(AttributeError, TypeError):
            delattr(owner, name)
    for name, value in before.items():
        if now.get(name) is not value:
            with contextlib.suppress(AttributeError, TypeError):
                setattr(owner, name, value)


def _importing(
    real: Any,
    space: dict[str, Any],
    modules: tuple[str, ...],
    front_of: Callable[[Any], Any],
    stand: Callable[[], None],
) -> Any:
    """Return what imports for traced code, within functions and scripts too: stand-ins.

    `stand` is called where modules have come, which may be of those that are traced.
    """

    def importing(name: str, globals: Any = None, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
        known = len(sys.modules)
        module = real(name, globals, *args, **kwargs)
        if len(sys.modules) != known:
            stand()
        if globals is None:
            return module
        owner = globals.get("__name__") or ""
        if globals is space or any(owner == m or owner.startswith(m + ".") for m in modules):
            return front_of(module)
        return module

    return importing


_INSTALLED = tuple({sysconfig.get_path(key) for key in ("stdlib", "purelib", "platlib")})


def _neighbours(function: FunctionType, space: dict[str, Any]) -> list[ModuleType]:
    """Return the user's own modules that a function's module reads, and those that they read.

    Code of installed packages is not among them: `modules=` names it.
    """
    found: dict[int, ModuleType] = {}
    waiting: list[Any] = [space[name] for name in reachable(function)[0] if name in space]
    while waiting:
        value = waiting.pop()
        if not isinstance(value, ModuleType):
            value = sys.modules.get(getattr(value, "__module__", None) or "")
        if value is None or id(value) in found:
            continue
        file = getattr(value, "__file__", None)
        if not file or file.startswith(_INSTALLED) or "-packages" in file:
            continue
        if value.__dict__ is function.__globals__ or value.__name__.startswith("lowprec"):
            continue
        found[id(value)] = value
        waiting += [v for v in vars(value).values() if isinstance(v, ModuleType | FunctionType)]
    return list(found.values())


def _named(modules: tuple[str, ...]) -> list[ModuleType]:
    return [
        module
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType)
        and any(name == wanted or name.startswith(wanted + ".") for wanted in modules)
    ]


def _stand(
    module: ModuleType, front_of: Callable[[Any], Any], undo: list[Callable[[], Any]]
) -> None:
    space = module.__dict__
    for name, value in list(space.items()):
        if name.startswith("__"):
            continue
        front = front_of(value)
        if front is not value:
            space[name] = front
            undo.append(functools.partial(space.__setitem__, name, value))
    if "float" not in space:
        space["float"] = front_of(float)
        undo.append(functools.partial(space.pop, "float", None))
