"""Differential equations: how long a chaotic path is right, and how an energy drifts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from precision.ways import Experiment, Way

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

LORENZ_STEP = 2.0**-6
LORENZ_TIME = 25
STARTS = 16  # paths from neighbouring points, computed together
APART = 5.0  # the wings of the attractor are some 20 apart


class _Float64:
    """Float64 as arithmetic: what paths are compared with."""

    add, subtract, multiply = np.add, np.subtract, np.multiply


def lorenz(state: Array, low: Any) -> Array:
    """Return the derivatives of Lorenz' system, sigma = 10, rho = 28, beta = 8/3."""
    x, y, z = state
    return np.stack(
        [
            low.multiply(10.0, low.subtract(y, x)),
            low.subtract(low.multiply(x, low.subtract(28.0, z)), y),
            low.subtract(low.multiply(x, y), low.multiply(8 / 3, z)),
        ]
    )


def runge_kutta(state: Array, step: float, low: Any, high: Any) -> Array:
    """Return the state of Lorenz' system after one step of the classic method of order four.

    Slopes and increments are of the low format, the state is accumulated in the high one.
    """
    first = lorenz(state, low)
    second = lorenz(low.add(state, low.multiply(step / 2, first)), low)
    third = lorenz(low.add(state, low.multiply(step / 2, second)), low)
    fourth = lorenz(low.add(state, low.multiply(step, third)), low)
    middle = low.multiply(2.0, low.add(second, third))
    slope = low.add(low.add(first, middle), fourth)
    return high.add(state, low.multiply(step / 6, slope))


def horizon(way: Way) -> float:
    """Return until when a path stays near the one in float64, the median of neighbouring starts."""
    starts = 1 + np.arange(STARTS) / STARTS  # values of every format here
    right = state = np.stack([starts] * 3)
    until = np.full(STARTS, float(LORENZ_TIME))
    for step in range(int(LORENZ_TIME / LORENZ_STEP)):
        right = runge_kutta(right, LORENZ_STEP, _Float64, _Float64)
        state = runge_kutta(state, LORENZ_STEP, way.low, way.high)
        distance = np.linalg.norm(state - right, axis=0)
        until = np.where(distance < APART, until, np.minimum(until, step * LORENZ_STEP))
    return float(np.median(until))


OSCILLATOR_STEPS = 4096
OSCILLATOR_STEP = 2.0**-5


def energy_drift(way: Way) -> float:
    """Return the largest relative change of x² + v² over 4096 steps of leapfrog, from (1, 0).

    The method itself keeps it within 2.5e-4 with this step; the rest is rounding.
    """
    x, v = np.float64(1), np.float64(0)
    low, high, step = way.low, way.high, OSCILLATOR_STEP
    largest = 0.0
    for _ in range(OSCILLATOR_STEPS):
        v = high.subtract(v, low.multiply(step / 2, x))
        x = high.add(x, low.multiply(step, v))
        v = high.subtract(v, low.multiply(step / 2, x))
        largest = max(largest, abs(float(x) ** 2 + float(v) ** 2 - 1))
    return largest


EXPERIMENTS = [
    Experiment(
        "Lorenz' system, Runge-Kutta",
        f"time until {APART:g} away from float64's path (of {LORENZ_TIME})",
        "Lorenz (1963), Deterministic nonperiodic flow, J. Atmos. Sci. 20",
        horizon,
        more_is_better=True,
    ),
    Experiment(
        "harmonic oscillator, leapfrog",
        f"largest relative energy drift in {OSCILLATOR_STEPS} steps",
        "Hairer, Lubich and Wanner (2006), Geometric Numerical Integration, 2nd ed., VIII.5",
        energy_drift,
    ),
]
