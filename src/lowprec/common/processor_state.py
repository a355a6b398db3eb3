"""The processor's state: how it rounds, and whether it flushes subnormal numbers to zero.

Libraries compiled for speed, torch on request, and XLA in every callback make the processor flush
subnormal numbers; a program may have set another rounding mode. Results must not depend on either.

Kernels set the *exact state* (rounding to nearest, subnormal numbers kept) inside their loops. A
function that computes with Python's floats or NumPy's arrays beside them is decorated with
`in_exact_state`, and its caller's state is there again when it returns. Code of the user's that
such a function calls runs in `users_state`.

The state nearly always is exact already: then a look at it, three additions, is all that it costs.
Otherwise the C library sets its default environment.

References
----------
ISO/IEC 9899:2018, section 7.6: fegetenv, fesetenv and FE_DFL_ENV.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import threading
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ONE, _HALF_AN_ULP, _SMALLEST_NORMAL, _HALF = 1.0, 2.0**-54, 2.0**-1022, 0.5
_ENVIRONMENT = 256  # bytes, more than any fenv_t has

_Function = TypeVar("_Function", bound="Callable[..., Any]")


def is_exact() -> bool:
    """Whether the processor rounds to nearest and keeps subnormal numbers.

    In every other rounding mode 1 + 2**-54 and 1 - 2**-54 differ. A result that was flushed is 0;
    so is, in a comparison, an operand that is flushed.
    """
    return _ONE + _HALF_AN_ULP == _ONE - _HALF_AN_ULP and _SMALLEST_NORMAL * _HALF != 0.0


class _Library(NamedTuple):
    """The C library's functions that read and write the environment, and its default one."""

    read: Any
    write: Any
    default: Any


@functools.cache
def _library() -> _Library:
    if sys.platform == "win32":
        library, name = ctypes.CDLL("ucrtbase"), "_Fe_dfl_env"
    else:
        library, name = ctypes.CDLL(None), "_FE_DFL_ENV"
        if not hasattr(library, "fesetenv"):  # it stands beside the C library, in the one for maths
            library = ctypes.CDLL("libm.so.6")
    try:
        default: Any = ctypes.byref(ctypes.c_char.in_dll(library, name))
    except ValueError:  # glibc and musl have a constant in its place
        default = ctypes.c_void_p(-1)
    return _Library(library.fegetenv, library.fesetenv, default)


class _Thread(threading.local):
    """What this thread must come back to: the caller's environment, None if that was exact."""

    is_inside = False  # a function that has set the exact state
    callers: Any = None


_thread = _Thread()


def _set_exact() -> Any:
    """Set the exact state; return what was set before, None if that was exact."""
    if is_exact():
        return None
    library = _library()
    before = ctypes.create_string_buffer(_ENVIRONMENT)
    library.read(before)
    library.write(library.default)
    return before


def _set(environment: Any) -> None:
    if environment is not None:
        _library().write(environment)


@contextlib.contextmanager
def exact_state() -> Iterator[None]:
    """Compute what is inside in the exact state; the caller's state comes back at the end."""
    outer = (_thread.is_inside, _thread.callers)
    _thread.is_inside, _thread.callers = True, _set_exact()
    try:
        yield
    finally:
        _set(_thread.callers)
        _thread.is_inside, _thread.callers = outer


@contextlib.contextmanager
def users_state() -> Iterator[None]:
    """Run code of the user's in the state that the caller of lowprec had set.

    What that code sets itself stays set for the caller.
    """
    if not _thread.is_inside:
        yield
        return
    _set(_thread.callers)
    _thread.is_inside = False
    try:
        yield
    finally:
        _thread.is_inside, _thread.callers = True, _set_exact()


def in_exact_state(function: _Function) -> _Function:
    """Have a function compute in the exact state, whatever its caller has set.

    Examples
    --------
    >>> @in_exact_state
    ... def third(x: float) -> float:
    ...     return x / 3
    >>> third(1e-310)
    3.333333333333e-311
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if is_exact():
            return function(*args, **kwargs)
        with exact_state():
            return function(*args, **kwargs)

    return cast("_Function", run)


def in_exact_state_but_users_code(function: _Function) -> _Function:
    """Do what `in_exact_state` does to a function that calls code of the user's.

    Such code may change the state, also where it was exact at first.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with exact_state():
            return function(*args, **kwargs)

    return cast("_Function", run)


def in_its_state(code: _Function) -> _Function:
    """Return a function that runs in the exact state if lowprec defines it, else in its user's.

    Parameters
    ----------
    code : callable
        A function, a method, or an object that is called; a `functools.partial` of one.

    Returns
    -------
    callable
        `code` itself if it is lowprec's.
    """
    owner = getattr(code, "func", code)  # of a partial function
    owner = getattr(owner, "__self__", owner)  # of a method
    if is_lowprecs(owner if isinstance(owner, FunctionType | type) else type(owner)):
        return code

    def run(*args: Any, **kwargs: Any) -> Any:
        with users_state():
            return code(*args, **kwargs)

    if isinstance(code, FunctionType):
        run = functools.wraps(code)(run)
    return cast("_Function", run)


class InUsersState:
    """An object of the user's whose methods run in the user's state, for lowprec to call."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._thing, name)
        return in_its_state(value) if callable(value) else value


def is_lowprecs(code: Any) -> bool:
    """Whether a function or a class is defined in lowprec, and not by its user."""
    return _is_lowprecs(code)


@functools.cache
def _is_lowprecs(code: Any) -> bool:
    return (code.__module__ or "").partition(".")[0] == __name__.partition(".")[0]
