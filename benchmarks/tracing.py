"""What tracing costs beside the same program in NumPy float64.

A program is a loop of ordinary operations: on one number, or six lines on two arrays. Each is
traced without and with shares of error, in turns with NumPy. A trace runs the program in NumPy once
as well, for its reference: that run is taken off.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from timing import Quartiles, interleaved

import lowprec as lp

if TYPE_CHECKING:
    from measures import Measure

_WORK = 2_000_000  # elements that a program computes, about, so that setting up costs little


def _scalars(a: Any, n: int) -> Any:
    s = 0.0 * a
    for _ in range(n):
        s = s + a
        s = s * 0.5
        s = s - a
        s = s / 1.5
    return s


def _six_lines(x: Any, y: Any, n: int) -> Any:
    for _ in range(n):
        a = x + y
        b = a * x
        c = b - y
        d = c / x
        e = d * d
        z = e + a
    return z


def traced(unit: str, *, budget: bool) -> Measure:
    """Measure a traced operation: in "µs", or in "times" what NumPy takes for it."""

    def measure(elements: int, seconds: float) -> Quartiles:
        loops = min(max(_WORK // (6 * elements), 10), 500)
        x = np.random.default_rng(0).uniform(0.5, 2, elements)
        f, args, lines = _six_lines, (x, x[::-1].copy(), loops), 6
        if elements == 1:
            f, args, lines = _scalars, (0.3, loops), 4
        works = [lambda: f(*args), lambda: lp.trace(f, *args, budget=budget)]
        plain, whole = interleaved(works, seconds=seconds, clock=time.process_time).T
        if unit == "µs":
            return Quartiles.of((whole - plain) / (loops * lines) * 1e6)
        return Quartiles.of((whole - plain) / plain)

    return measure
