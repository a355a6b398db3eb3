"""The compiler: the one module that imports Numba and llvmlite, for all the others here.

Threads that convert for the first time at the same moment import the kernels at the same moment,
and Numba's own modules do not survive that. They all wait here instead, until it is there whole.
"""

import contextlib
import functools
import gc
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numba as numba
from llvmlite import ir as ir
from numba import types as types
from numba.core import cgutils as cgutils
from numba.core.caching import FunctionCache
from numba.core.cgutils import get_or_insert_function as get_or_insert_function
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target as cpu_target
from numba.core.runtime import rtsys
from numba.extending import intrinsic as intrinsic
from numba.np.numpy_support import from_dtype as from_dtype


@functools.cache
def processor_has(feature: str) -> bool:
    """Whether Numba compiles for a processor with these instructions, and so may use them."""
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    return f"+{feature}" in features.split(",")


class CacheByName(FunctionCache):  # type: ignore[misc]
    """Numba's cache for a function whose name says all that decides its machine code.

    Numba's own key holds a hash of the pickled closure too. A function that was compiled on the way
    is pickled with a random number, and two strings differently from one string twice: such kernels
    would be compiled, and kept, in every process anew.
    """

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return sig, codegen.magic_tuple(), self._py_func.__qualname__

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what is in the cache, or None.

        Numba first fills its tables of everything that it can compile, and imports SciPy for them:
        more than half of the time of a first call. Code that is there needs no table.
        """
        rtsys.initialize(target_context)  # what kernels call of Numba at run time
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


class OptimizedOnce(JITCodeLibrary):  # type: ignore[misc]
    """Machine code that LLVM optimizes once, as a whole.

    Numba has every function optimized before, by itself, and then the whole of them for the sake of
    counts of references: a sixth of the time to compile a kernel, whose loops are written for LLVM
    and count none.
    """

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        passes, options = self._codegen._module_pass_manager()
        passes.run(self._final_module, options)


@contextlib.contextmanager
def optimizing_once() -> Iterator[None]:
    """Compile what is compiled inside, by this thread, as `OptimizedOnce`; others wait."""
    with global_compiler_lock:
        codegen = cpu_target.target_context.codegen()
        codegen._library_class = OptimizedOnce
        try:
            yield
        finally:
            del codegen._library_class


_held: list[int] = []  # signals that came in the meantime


def _hold(number: int, frame: object) -> None:
    _held.append(number)


def _release_child() -> None:
    """Give a child its Control-C back: if another thread forked it, no block will end there."""
    if signal.getsignal(signal.SIGINT) is _hold:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_child)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold Control-C and garbage collection back: compile, and load what was compiled, inside.

    KeyboardInterrupt between two of LLVM's calls leaves objects with two owners, or none, and the
    process dies of a double free, later. Python raises it in the main thread alone. The user's own
    handler stays in force; one that raises may do so between two calls.

    Numba makes so many objects at its first compilation that looking for garbage among them, and
    all that was imported, is a seventh of the time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with _without_interrupts():
            yield
    finally:
        if collects:
            gc.enable()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, _hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if _held:  # also where the block failed
            _held.clear()
            raise KeyboardInterrupt
