"""What tracing costs: `python -m benchmarks.tracing`, processor time against NumPy float64.

Each row is a loop of ordinary operations, traced without and with shares of error, beside the same
loop in NumPy. One thread; the best of five, interleaved.
"""

from __future__ import annotations

import time

import numpy as np

import lowprec as lp


def _scalars(a, n):
    s = 0.0 * a
    for _ in range(n):
        s = s + a
        s = s * 0.5
        s = s - a
        s = s / 1.5
    return s


def _six_lines(x, y, n):
    for _ in range(n):
        a = x + y
        b = a * x
        c = b - y
        d = c / x
        e = d * d
        z = e + a
    return z


def _processor_time(call):
    begin = time.process_time()
    call()
    return time.process_time() - begin


def measured(repetitions=5):
    """Yield name, microseconds an operation traced, and in NumPy."""
    cases = [("scalars", _scalars, (0.3,), 5000, 4)]
    for size, loops in ((10, 300), (1000, 300), (100_000, 10)):
        x = np.random.default_rng(0).uniform(0.5, 2, size)
        cases.append((f"{size:,} elements", _six_lines, (x, x[::-1].copy()), loops, 6))
    for name, f, args, loops, operations in cases:
        ways = {
            "NumPy": lambda f=f, args=args, n=loops: f(*args, n),
            "traced": lambda f=f, args=args, n=loops: lp.trace(f, *args, n, budget=False),
            "with shares": lambda f=f, args=args, n=loops: lp.trace(f, *args, n),
        }
        best = dict.fromkeys(ways, float("inf"))
        for way in ways.values():
            way()  # compiled once
        for _ in range(repetitions):
            for key, way in ways.items():
                best[key] = min(best[key], _processor_time(way))
        # a trace runs the program in NumPy once as well: its reference
        plain = best["NumPy"]
        for key in ("traced", "with shares"):
            work = 1e6 / (loops * operations)
            yield f"{name}, {key}", (best[key] - plain) * work, plain * work


def main():
    """Print the table."""
    for name, traced, plain in measured():
        print(f"{name:32} {traced:9.1f} µs  NumPy {plain:7.2f} µs  {traced / plain:6.1f} ×")


if __name__ == "__main__":
    main()
