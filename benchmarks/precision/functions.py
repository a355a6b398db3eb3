"""A Fourier transform, and a polynomial near its roots."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from precision.ways import Experiment, Way, relative

FOURIER = "Higham (2002), Accuracy and Stability of Numerical Algorithms, 2nd ed., ch. 24"
ROOTS = (
    "Demmel (1997), Applied Numerical Linear Algebra, section 1.4, after Wilkinson (1963), "
    "Rounding Errors in Algebraic Processes"
)
POINTS = 1024
COEFFICIENTS = (1, -18, 144, -672, 2016, -4032, 5376, -4608, 2304, -512)  # of (x - 2)**9


def fourier(way: Way) -> float:
    """Return the relative error of a transform of 1024 standard normal numbers, radix 2.

    Numbers and roots of unity are of the format; a butterfly's sums are accumulated, and rounded
    to the format when they are stored.
    """
    x = way.round(np.random.default_rng(0).standard_normal(POINTS))
    real, imaginary = x[_reversed(POINTS)].astype(np.float64), np.zeros(POINTS)
    half = 1
    while half < POINTS:
        angles = -np.pi * np.arange(half) / half
        cosine, sine = way.round(np.cos(angles)), way.round(np.sin(angles))
        real, imaginary = real.reshape(-1, 2, half), imaginary.reshape(-1, 2, half)
        (a, b), (c, d) = ((part[:, 0], part[:, 1]) for part in (real, imaginary))
        turned = (
            way.high.fma(b, cosine, way.high.multiply(-d, sine)),
            way.high.fma(b, sine, way.high.multiply(d, cosine)),
        )
        real, imaginary = (
            way.round(np.stack([way.high.add(p, t), way.high.subtract(p, t)], axis=1)).ravel()
            for p, t in zip((a, c), turned, strict=True)
        )
        half *= 2
    return relative(np.concatenate([real, imaginary]), _parts(np.fft.fft(x.astype(np.float64))))


def _reversed(n: int) -> np.ndarray[Any, Any]:
    order = np.zeros(1, np.int64)
    while len(order) < n:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order


def _parts(z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.concatenate([z.real, z.imag])


def near_a_root(way: Way) -> float:
    """Return the largest error of (x - 2)**9 by Horner's rule for x in 1.9 … 2.1.

    The exact values there are at most 1e-9.
    """
    points = np.unique(way.round(np.linspace(1.9, 2.1, 401)))
    total = np.ones_like(points)
    for coefficient in COEFFICIENTS[1:]:
        total = way.high.fma(total, points, float(coefficient))
    right = [float((Fraction(float(x)) - 2) ** 9) for x in points]
    return float(np.abs(total - np.array(right)).max())


EXPERIMENTS = [
    Experiment(
        f"Fourier transform, {POINTS} points", "relative error in the 2-norm", FOURIER, fourier
    ),
    Experiment("(x - 2)⁹ near 2, expanded", "largest error, of values ≤ 1e-9", ROOTS, near_a_root),
]
