"""Timing that holds on a busy machine: works run in turns, told as medians with quartiles."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Work = Callable[[], Any]


class Quartiles(NamedTuple):
    """A median between its lower and upper quartile."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> Quartiles:
        """Take the quartiles of a sample."""
        return cls(*map(float, np.percentile(values, (25, 50, 75))))


def interleaved(
    works: Sequence[Work],
    *,
    seconds: float = 1.0,
    repeats: int = 1,
    fewest: int = 9,
    clock: Callable[[], float] = time.perf_counter,
) -> np.ndarray:
    """Time works in turns: a, b, c, a, b, c, …, so that a slow moment falls on all of them.

    Parameters
    ----------
    works : sequence of callables
        Each is called once beforehand, which compiles it and touches its pages.
    seconds : float
        When to stop, after `fewest` rounds at least and 501 at most.
    repeats : int
        Calls a measurement: 1 for large arrays, many for a call of microseconds.
    fewest : int
        Rounds, however long they take.
    clock : callable
        `time.process_time` for works of one thread: other processes do not count.

    Returns
    -------
    ndarray of float64, shape (rounds, works)
        Seconds a call.
    """
    for work in works:
        work()
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < fewest or (len(rounds) < 501 and time.perf_counter() < end):
        rounds.append([_seconds_a_call(work, repeats, clock) for work in works])
    return np.array(rounds)


def _seconds_a_call(work: Work, repeats: int, clock: Callable[[], float]) -> float:
    turns = range(repeats)
    start = clock()
    for _ in turns:
        work()
    return (clock() - start) / repeats


def in_fresh_interpreter(timed: str, *, after: str = "pass", cache: str | None = None) -> float:
    """Time statements in a new Python process.

    Parameters
    ----------
    timed : str
        The statements to time.
    after : str
        Statements that run before them, untimed.
    cache : str, optional
        Folder of Numba's compiled code; by default an empty one, deleted afterwards.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    subprocess.CalledProcessError
        If a statement raises, a failed assertion included.
    """
    clock = "from time import perf_counter\nbegin = perf_counter()"
    code = f"{after}\n{clock}\n{timed}\nprint(perf_counter() - begin)"
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_CACHE_DIR": cache or empty},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return float(done.stdout)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Run Numba's loops and, where it is loaded, torch's on so many threads."""
    torch = sys.modules.get("torch")
    libraries = [numba, torch] if torch else [numba]
    before = [library.get_num_threads() for library in libraries]
    try:
        for library in libraries:
            library.set_num_threads(count)
        yield
    finally:
        for library, number in zip(libraries, before, strict=True):
            library.set_num_threads(number)
