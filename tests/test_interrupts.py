"""Control-C in the middle of a compilation: heard, but after it."""

from __future__ import annotations

import gc
import os
import signal
import threading

import pytest
from numba import types
from numba.core.caching import NullCache

from lowprec.kernels import loops
from lowprec.kernels.compiler import undisturbed

pytestmark = pytest.mark.usefixtures("control_c")


def test_control_c_waits_for_the_compiler(monkeypatch):
    done = []

    class Interrupting(NullCache):
        def __init__(self, function):
            pass

        def load_overload(self, *_):  # the compiler begins
            signal.raise_signal(signal.SIGINT)

        def save_overload(self, *_):  # and has ended
            done.append("compiled")

    monkeypatch.setattr(loops, "CacheByName", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        loops.compile_as("any", lambda x: x, types.int64(types.int64))
    assert done, "half a compilation is what crashes the process later"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_control_c_is_heard_where_the_compiler_fails():
    def compile_wrongly(is_interrupted: bool) -> None:
        with undisturbed():
            if is_interrupted:
                signal.raise_signal(signal.SIGINT)
            raise ValueError("no code")

    with pytest.raises(KeyboardInterrupt):
        compile_wrongly(True)
    with pytest.raises(ValueError, match="no code"):
        compile_wrongly(False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_by_another_thread_meanwhile_hears_control_c():
    statuses = []

    def fork() -> None:
        child = os.fork()
        if child == 0:
            os._exit(signal.getsignal(signal.SIGINT) is not signal.default_int_handler)
        statuses.append(os.waitpid(child, 0)[1])

    with undisturbed():
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
    assert statuses == [0]


def test_a_handler_of_the_users_own_hears_control_c_at_once(monkeypatch):
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            assert heard == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_waits_for_the_compiler_and_is_collected_as_before_it(collects):
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with undisturbed():
            assert not gc.isenabled()
            with undisturbed():
                pass
            assert not gc.isenabled(), "an inner block is not the end of the outer one"
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()
