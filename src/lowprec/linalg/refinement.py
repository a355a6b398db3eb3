"""Iterative refinement: a solution from factors of few bits, repaired in a wider format."""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.accumulation.accumulator import Accumulator, AccumulatorLike, as_accumulator
from lowprec.accumulation.products import matmul
from lowprec.arrays.sources import as_array
from lowprec.common.names import one_of
from lowprec.common.processor_state import in_exact_state
from lowprec.formats import Format, float32, float64, get_format
from lowprec.linalg.rounded import as_matrix
from lowprec.linalg.solving import solve

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from lowprec.formats import FormatLike
    from lowprec.linalg.factorizations import LU

    Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, repr=False)
class Refinement:
    """What `refine` found.

    Attributes
    ----------
    x : ndarray, shape (n,)
        The solution in the working format.
    backward_errors : tuple of float
        ``max|b - a@x| / (max row sum|a| · max|x| + max|b|)`` of each solution, the first one first.
    corrections : int
        How many corrections were made.
    iterations : int
        How many steps of GMRES all corrections took together; 0 by substitution.
    converged : bool
        Whether the last backward error is at most n times the unit roundoff of the working format.
    """

    x: Array
    backward_errors: tuple[float, ...]
    corrections: int
    iterations: int
    converged: bool

    def __repr__(self) -> str:
        words = "converged" if self.converged else "did not converge"
        errors = ", ".join(f"{error:.1e}" for error in self.backward_errors)
        return f"Refinement: {words} in {self.corrections} corrections; backward errors {errors}"


@in_exact_state
def refine(
    a: ArrayLike,
    b: ArrayLike,
    factors: LU,
    working: FormatLike = "float64",
    residual: AccumulatorLike = "float64",
    *,
    method: str = "substitution",
    corrections: int = 20,
    iterations: int = 50,
) -> Refinement:
    """Solve a @ x = b from factors of few bits, and repair the solution.

    x begins with 0. Each correction computes r = b - a @ x as `residual` sums it, each element
    beginning with b[i]; scales r by a power of two to 1 ≤ max |r| < 2; solves a @ d = r; and adds d
    to x in the working format. It ends where the backward error is at most n times the working
    format's unit roundoff, or no longer halves.

    Parameters
    ----------
    a : array_like of real numbers, shape (n, n)
        The matrix; rounded to the working format.
    b : array_like of real numbers, shape (n,)
        The right-hand side; likewise.
    factors : LU
        From `lu` of `a` in any format.
    working : Format, str or dtype
        float32 or float64: the format of x.
    residual : Accumulator, or Format, str or dtype
        How the residual is summed.
    method : str
        ``substitution``: d comes from the factors, in their format (Wilkinson; Carson and Higham's
        three precisions). ``gmres``: d comes from GMRES in the working format, preconditioned with
        the factors (GMRES-IR), which converges for matrices that the factors alone cannot serve.
    corrections : int
        At most how many.
    iterations : int
        At most how many steps of GMRES a correction takes; there are never more than n.

    Returns
    -------
    Refinement
        The solution and the backward errors on the way.

    Raises
    ------
    ValueError
        If shapes do not match, the working format is neither float32 nor float64, or `iterations`
        is below 1.

    Examples
    --------
    >>> from lowprec.linalg import lu
    >>> a, b = [[4.0, 1.0], [1.0, 3.0]], [1.0, 2.0]
    >>> found = refine(a, b, lu(a, "bfloat16"))
    >>> found.converged, [round(float(x), 12) for x in found.x]
    (True, [0.090909090909, 0.636363636364])

    References
    ----------
    Carson, Higham (2018), "Accelerating the solution of linear systems by iterative refinement in
    three precisions"; Higham (2002), chapter 12.
    """
    fmt = get_format(working)
    if fmt not in (float32, float64):
        raise ValueError(f"working is {str(fmt)!r}; use 'float32' or 'float64'")
    one_of(method, ("substitution", "gmres"), "method")
    dtype = np.dtype(fmt.name)
    matrix = as_matrix(a, square=True).astype(dtype)
    right = as_array(b).astype(dtype)
    if right.shape != (len(matrix),) or factors.packed.shape != matrix.shape:
        raise ValueError(
            f"shapes do not match: a {matrix.shape}, b {right.shape}, factors "
            f"{factors.packed.shape}; pass (n, n), (n,) and factors of a"
        )
    most = operator.index(iterations)
    if most < 1:
        raise ValueError(f"iterations is {most}; GMRES takes 1 step or more")
    if method == "substitution":
        correct = _substituted(factors)
    else:
        correct = _by_gmres(matrix, factors, min(most, len(matrix)))
    return _refined(matrix, right, correct, fmt, as_accumulator(residual), corrections)


def _refined(
    a: Array,
    b: Array,
    correct: Callable[[Array], tuple[Array, int]],
    fmt: Format,
    how: Accumulator,
    corrections: int,
) -> Refinement:
    goal = len(a) * fmt.unit_roundoff
    size_a, size_b = np.abs(a).sum(axis=1).max(initial=0), np.abs(b).max(initial=0)
    x, best = np.zeros_like(b), np.zeros_like(b)
    errors = [1.0] if size_b else [0.0]
    made = steps = 0
    while errors[-1] > goal and made < operator.index(corrections):
        r = matmul(-a, x, c=b, inputs=fmt, accumulator=how)
        exponent = math.frexp(float(np.abs(r).max()))[1] - 1
        with np.errstate(all="ignore"):
            solution, taken = correct(np.ldexp(r.astype(np.float64), -exponent))
            d = np.ldexp(solution, exponent)
            x = (x + d.astype(b.dtype)).astype(b.dtype)
        made, steps = made + 1, steps + taken
        left = np.abs(matmul(-a, x, c=b, inputs=fmt, accumulator=how)).max(initial=0)
        with np.errstate(all="ignore"):
            error = float(left / (size_a * np.abs(x).max(initial=0) + size_b))
        if not error < errors[-1]:
            errors.append(error)
            break
        best, last = x, errors[-1]
        errors.append(error)
        if made > 1 and error > last / 2:
            break
    return Refinement(best, tuple(errors), made, steps, min(errors) <= goal)


def _substituted(factors: LU) -> Callable[[Array], tuple[Array, int]]:
    return lambda r: (solve(factors, r).astype(np.float64), 0)


def _by_gmres(a: Array, factors: LU, most: int) -> Callable[[Array], tuple[Array, int]]:
    """Return what solves a @ d = r by GMRES, preconditioned from the left, and counts its steps.

    Factors and products are in the working format; Arnoldi's vectors are made orthogonal by the
    modified Gram-Schmidt process.
    """
    lower, upper = (np.asarray(x, a.dtype) for x in (factors.lower, factors.upper))

    def preconditioned(r: Array) -> Array:
        y = np.array(r[factors.rows], a.dtype)
        for k in range(len(y)):
            y[k + 1 :] -= lower[k + 1 :, k] * y[k]
        for k in reversed(range(len(y))):
            y[k] /= upper[k, k]
            y[:k] -= upper[:k, k] * y[k]
        return y

    def solved(r: Array) -> tuple[Array, int]:
        n = len(r)
        start = preconditioned(r)
        size = float(np.linalg.norm(start))
        if not size or not math.isfinite(size):
            return np.zeros(n), 0
        basis = np.zeros((most + 1, n), a.dtype)
        hessenberg = np.zeros((most + 1, most))
        basis[0] = start / size
        target = np.zeros(most + 1)
        target[0] = size
        for k in range(most):
            w = preconditioned(a @ basis[k])
            for i in range(k + 1):
                hessenberg[i, k] = basis[i] @ w
                w -= hessenberg[i, k].astype(a.dtype) * basis[i]
            hessenberg[k + 1, k] = np.linalg.norm(w)
            part = hessenberg[: k + 2, : k + 1]
            y, *_ = np.linalg.lstsq(part, target[: k + 2], rcond=None)
            left = float(np.linalg.norm(part @ y - target[: k + 2]))
            if left <= 1e-6 * size or hessenberg[k + 1, k] == 0:
                break
            basis[k + 1] = w / hessenberg[k + 1, k].astype(a.dtype)
        return np.asarray(basis[: len(y)].T.astype(np.float64) @ y), len(y)

    return solved
