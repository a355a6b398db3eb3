"""LU with partial pivoting, Cholesky and Householder QR, every operation rounded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.accumulation.accumulator import Accumulator
from lowprec.accumulation.sums import sum as rounded_sum
from lowprec.common.processor_state import in_exact_state
from lowprec.linalg.rounded import Rounded, as_matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from lowprec.accumulation.accumulator import AccumulatorLike
    from lowprec.formats import FormatLike
    from lowprec.rounding import OverflowLike, RoundingLike

    Array = np.ndarray[Any, Any]


class LU(NamedTuple):
    """Factors of a matrix whose rows were exchanged: ``a[rows] ≈ lower @ upper``.

    Attributes
    ----------
    packed : ndarray, shape (n, n)
        `upper` on and above the diagonal, `lower` below it, whose diagonal of ones is not stored.
    rows : ndarray of int, shape (n,)
        Which row of the matrix stands where.
    how : Rounded
        The operations that the factors were made with, which `solve` uses too.
    """

    packed: Array
    rows: Array
    how: Rounded

    @property
    def lower(self) -> Array:
        """The unit lower triangular factor."""
        return np.tril(self.packed, -1) + np.eye(len(self.packed), dtype=self.packed.dtype)

    @property
    def upper(self) -> Array:
        """The upper triangular factor."""
        return np.triu(self.packed)


@in_exact_state
def lu(
    a: ArrayLike,
    fmt: FormatLike = "bfloat16",
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    accumulator: AccumulatorLike | None = None,
) -> LU:
    """Factorise a matrix by Gaussian elimination with partial pivoting.

    The matrix is rounded to the format first. Step k takes as its pivot the first element of
    largest magnitude in column k from row k on, exchanges the rows, and then, each operation
    rounded once, l[i] = a[i, k] / a[k, k] and a[i, j] = a[i, j] - l[i]·a[k, j] (product, then
    difference). With an accumulator the elements are inner products instead (Crout's order): column
    k, then row k, as a[i, j] + Σ (-l[i, p])·u[p, j] for p = 0, 1, … in one running sum that begins
    with a[i, j], rounded to the format at its end, ties to even.

    Parameters
    ----------
    a : array_like of real numbers, shape (n, n)
        The matrix.
    fmt : Format, str or dtype
        The format of all operations, or of inputs and outputs of inner products.
    rounding, overflow : str
        As for `lowprec.Arithmetic`.
    accumulator : Accumulator, or Format, str or dtype, optional
        How inner products are summed.

    Returns
    -------
    LU
        ``packed``, ``rows``, ``lower`` and ``upper``; float32 arrays of values of the format
        (float64 where float32 cannot hold them).

    Raises
    ------
    ValueError
        If `a` is not a square matrix.
    numpy.linalg.LinAlgError
        If a pivot is 0: the matrix, as rounded, is singular.

    Examples
    --------
    >>> factors = lu([[1.0, 2.0], [3.0, 4.0]], "bfloat16")
    >>> factors.upper.tolist(), factors.rows.tolist()
    ([[3.0, 4.0], [0.0, 0.6640625]], [1, 0])

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, section 9.1.
    """
    how = Rounded.of(fmt, rounding, overflow, accumulator)
    m = how.entered(as_matrix(a, square=True))
    rows = np.arange(len(m))
    eliminate = _eliminate if how.accumulator is None else _eliminate_by_columns
    with np.errstate(all="ignore"):
        eliminate(m, rows, how)
    return LU(m, rows, how)


def _exchange(m: Array, rows: Array, k: int, column: Array) -> None:
    """Bring the row with the pivot of a column (from row k on) to place k."""
    pivot = k + int(np.argmax(np.abs(column)))
    if column[pivot - k] == 0:
        raise np.linalg.LinAlgError(
            f"column {k} has no pivot: all its {len(column)} elements are 0 after {k} steps in "
            "this format; scale the matrix, or use a format with more bits"
        )
    if pivot != k:
        m[[k, pivot]] = m[[pivot, k]]
        rows[[k, pivot]] = rows[[pivot, k]]


def _eliminate(m: Array, rows: Array, how: Rounded) -> None:
    for k in range(len(m)):
        _exchange(m, rows, k, m[k:, k])
        below = slice(k + 1, None)
        m[below, k] = how.arithmetic.divide(m[below, k], m[k, k])
        m[below, below] = how.minus_product(m[below, below], m[below, k, None], m[None, k, below])


def _eliminate_by_columns(m: Array, rows: Array, how: Rounded) -> None:
    for k in range(len(m)):
        m[k:, k] = how.minus_inner(m[k:, k], m[k:, :k], m[:k, k])
        _exchange(m, rows, k, m[k:, k])
        below = slice(k + 1, None)
        m[k, below] = how.minus_inner(m[k, below][None], m[k : k + 1, :k], m[:k, below])[0]
        m[below, k] = how.arithmetic.divide(m[below, k], m[k, k])


@in_exact_state
def cholesky(
    a: ArrayLike,
    fmt: FormatLike = "bfloat16",
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    accumulator: AccumulatorLike | None = None,
) -> Array:
    """Return the lower triangular L with ``a ≈ L @ L.T``.

    Of the matrix, rounded to the format first, only the lower triangle is read. Step k computes
    l[k, k] = √a[k, k], l[i, k] = a[i, k] / l[k, k], and a[i, j] = a[i, j] - l[i, k]·l[j, k] for
    j ≤ i (product, then difference); with an accumulator the elements are inner products instead,
    which begin with a[i, k] and add (-l[i, p])·l[k, p] for p = 0, 1, ….

    Parameters
    ----------
    a, fmt, rounding, overflow, accumulator
        As for `lu`; `a` is symmetric and positive definite.

    Returns
    -------
    ndarray, shape (n, n)
        Values of the format, zeros above the diagonal.

    Raises
    ------
    ValueError
        If `a` is not a square matrix.
    numpy.linalg.LinAlgError
        If what is under a root is not positive: rounding took positive definiteness away, or the
        matrix never had it.

    Examples
    --------
    >>> cholesky([[4.0, 2.0], [2.0, 3.0]], "bfloat16").tolist()
    [[2.0, 0.0], [1.0, 1.4140625]]

    References
    ----------
    Higham (2002), section 10.1.
    """
    how = Rounded.of(fmt, rounding, overflow, accumulator)
    m = np.tril(how.entered(as_matrix(a, square=True)))
    with np.errstate(all="ignore"):
        for k in range(len(m)):
            below = slice(k + 1, None)
            if how.accumulator is not None:
                m[k:, k] = how.minus_inner(m[k:, k], m[k:, :k], m[k, :k])
            if not m[k, k] > 0:
                raise np.linalg.LinAlgError(
                    f"step {k} takes the root of {float(m[k, k])!r}: in this format the matrix is "
                    "not positive definite; add to its diagonal, or use a format with more bits"
                )
            m[k, k] = how.arithmetic.sqrt(m[k, k])
            m[below, k] = how.arithmetic.divide(m[below, k], m[k, k])
            if how.accumulator is None:
                rest = how.minus_product(m[below, below], m[below, k, None], m[None, below, k])
                m[below, below] = np.tril(rest)
    return m


@in_exact_state
def qr(
    a: ArrayLike,
    fmt: FormatLike = "bfloat16",
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    accumulator: AccumulatorLike | None = None,
) -> tuple[Array, Array]:
    """Return Q and R of ``a ≈ Q @ R`` by Householder reflections.

    The matrix is rounded to the format first. For column k with x = a[k:, k], each operation
    rounded once: σ = √Σ x[i]², α = -σ (σ where x[0] is negative), v = x with v[0] = x[0] - α,
    β = 2 / Σ v[i]²; then in every column w = β·Σ v[i]·a[i, j], a[i, j] = a[i, j] - v[i]·w. Sums run
    over i = 0, 1, …; the products in them are rounded first, or with an accumulator summed as it
    says. x is scaled by a power of two to 1 ≤ max |x| < 2 for σ, v and β, which is exact but for
    underflow. Q is formed from the reflections, the last one first.

    Parameters
    ----------
    a : array_like of real numbers, shape (m, n)
        The matrix.
    fmt, rounding, overflow, accumulator
        As for `lu`.

    Returns
    -------
    q : ndarray, shape (m, min(m, n))
    r : ndarray, shape (min(m, n), n)
        Values of the format; as for ``numpy.linalg.qr(a, "reduced")``.

    Raises
    ------
    ValueError
        If `a` is not a matrix.

    Examples
    --------
    >>> q, r = qr([[3.0, 1.0], [4.0, 2.0]], "float16")
    >>> r.tolist()
    [[-5.0, -2.19921875], [0.0, 0.400390625]]

    References
    ----------
    Higham (2002), sections 19.1 to 19.3.
    """
    how = Rounded.of(fmt, rounding, overflow, accumulator)
    r = how.entered(as_matrix(a))
    rows, columns = r.shape
    steps = min(rows, columns)
    reflections = []
    with np.errstate(all="ignore"):
        for k in range(min(steps, rows - 1)):
            found = _reflection(r[k:, k], how)
            if found is None:
                continue
            v, beta, alpha = found
            _reflect(r[k:, k + 1 :], v, beta, how)
            r[k, k], r[k + 1 :, k] = alpha, 0
            reflections.append((k, v, beta))
        q = np.eye(rows, steps, dtype=r.dtype)
        for k, v, beta in reversed(reflections):
            _reflect(q[k:, k:], v, beta, how)
    return q, np.triu(r[:steps])


def _inner(a: Array, b: Array, how: Rounded) -> Array:
    """Return Σ a[i]·b[i, j] over i."""
    accumulator = how.accumulator
    if accumulator is not None:
        zeros = np.zeros(b.shape[1], b.dtype)
        sums: Array = -how.minus_inner(zeros[None], a[None], b)[0]
        return sums
    arithmetic = how.arithmetic
    order = Accumulator(how.fmt, rounding=arithmetic.rounding, overflow=arithmetic.overflow)
    return np.asarray(rounded_sum(arithmetic.multiply(a[:, None], b), order, axis=0), b.dtype)


def _reflection(x: Array, how: Rounded) -> tuple[Array, Array, Array] | None:
    """Return v, β and α; None where the column is zero below its first element."""
    if not np.any(x[1:]):
        return None
    arithmetic = how.arithmetic
    exponent = int(np.frexp(np.abs(x).max())[1]) - 1
    v = how.entered(np.ldexp(x.astype(np.float64), -exponent))
    sigma = arithmetic.sqrt(_inner(v, v[:, None], how))[0]
    alpha = sigma if v[0] < 0 else -sigma
    v[0] = arithmetic.subtract(v[0], alpha)
    beta = arithmetic.divide(2.0, _inner(v, v[:, None], how))[0]
    return v, beta, how.entered(np.ldexp(np.float64(alpha), exponent))


def _reflect(a: Array, v: Array, beta: Array, how: Rounded) -> None:
    if not a.size:
        return
    w = how.arithmetic.multiply(beta, _inner(v, a, how))
    a[...] = how.minus_product(a, v[:, None], w[None])
