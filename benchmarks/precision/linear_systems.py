"""Linear systems: LU factors of a narrow format, by themselves and mended by refinement."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from precision.ways import Experiment, Way, relative

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

LU = "Higham (2002), Accuracy and Stability of Numerical Algorithms, 2nd ed., ch. 9 and 28"
REFINEMENT = (
    "Carson and Higham (2018), Accelerating the solution of linear systems by iterative "
    "refinement in three precisions, SIAM J. Sci. Comput. 40(2)"
)
SWEEPS = 50


def hilbert(n: int) -> Array:
    """Return 1 / (i + j + 1): as ill-conditioned as a small matrix can be."""
    i = np.arange(n)
    return 1.0 / (i[:, None] + i + 1)


def random(n: int) -> Array:
    """Return a matrix of standard normal numbers."""
    return np.random.default_rng(0).standard_normal((n, n))


def poisson(n: int) -> Array:
    """Return the five-point Laplacian on an n × n grid."""
    one = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    return np.kron(one, np.eye(n)) + np.kron(np.eye(n), one)


MATRICES = {"Hilbert, n=5": hilbert(5), "random, n=64": random(64), "Poisson, n=64": poisson(8)}


def factors(a: Array, way: Way) -> tuple[Array, Array]:
    """Return L and U in one matrix, and the order of rows; pivots are the largest of a column.

    Multipliers and pivot rows are of the format; what is left of the matrix is accumulated.
    """
    left = way.round(a).astype(np.float64)
    rows = np.arange(len(a))
    for k in range(len(a)):
        pivot = k + int(np.argmax(np.abs(left[k:, k])))
        left[[k, pivot]], rows[[k, pivot]] = left[[pivot, k]], rows[[pivot, k]]
        left[k, k:] = way.round(left[k, k:])
        left[k + 1 :, k] = way.low.divide(left[k + 1 :, k], left[k, k])
        rest = left[k + 1 :, k + 1 :]
        rest[:] = way.high.fma(-left[k + 1 :, k, None], left[k, k + 1 :], rest)
    return left, rows


def solve(lu: Array, rows: Array, b: Array, way: Way) -> Array:
    """Substitute forward and back, column by column."""
    x = way.round(b)[rows].astype(np.float64)
    for k in range(len(x)):
        x[k] = way.round(x[k])
        x[k + 1 :] = way.high.fma(-lu[k + 1 :, k], x[k], x[k + 1 :])
    for k in reversed(range(len(x))):
        x[k] = way.low.divide(x[k], lu[k, k])
        x[:k] = way.high.fma(-lu[:k, k], x[k], x[:k])
    return x


def system(name: str) -> tuple[Array, Array, Array]:
    """Return a matrix, a right-hand side, and the solution, which float64 gives."""
    a = MATRICES[name]
    b = a @ np.ones(len(a))
    return a, b, np.ones(len(a))


def direct(name: str, way: Way) -> float:
    """Return the relative error of the solution as it comes."""
    a, b, right = system(name)
    return relative(solve(*factors(a, way), b, way), right)


def refined(name: str, way: Way) -> float:
    """Return the relative error after refinement: residuals and the solution are float64.

    The residual is scaled to 1 before it goes to the narrow format, so that it does not underflow.
    """
    a, b, right = system(name)
    lu, rows = factors(a, way)
    x = np.zeros(len(b))
    best = 1.0
    for _ in range(SWEEPS):
        residual = b - a @ x
        size = np.abs(residual).max()
        if not 0 < size < np.inf:
            break
        x = x + size * solve(lu, rows, residual / size, way)
        error = relative(x, right)
        best = min(best, error) if np.isfinite(error) else best
    return best


EXPERIMENTS = [
    Experiment(f"LU, {name}", "relative error of x", LU, partial(direct, name)) for name in MATRICES
]
EXPERIMENTS += [
    Experiment(
        f"LU and refinement, {name}",
        f"smallest relative error of x in {SWEEPS} sweeps",
        REFINEMENT,
        partial(refined, name),
    )
    for name in MATRICES
]
