"""Linear systems solved in a format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.arrays.sources import as_array
from lowprec.common.processor_state import in_exact_state
from lowprec.linalg.factorizations import LU, lu

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from lowprec.accumulation.accumulator import AccumulatorLike
    from lowprec.formats import FormatLike
    from lowprec.rounding import OverflowLike, RoundingLike

    Array = np.ndarray[Any, Any]


@in_exact_state
def solve(
    a: ArrayLike | LU,
    b: ArrayLike,
    fmt: FormatLike = "bfloat16",
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    accumulator: AccumulatorLike | None = None,
) -> Array:
    """Solve a @ x = b by `lu` and two substitutions in the same format.

    b is rounded to the format first. Forward, y[i] = y[i] - l[i, k]·y[k] for k = 0, 1, …; then
    backward x[k] = y[k] / u[k, k] and y[i] = y[i] - u[i, k]·x[k] for k = n - 1, n - 2, …: product
    and difference are rounded each. With an accumulator y[i] and x[i] are inner products that begin
    with the right-hand side and add their terms in the order of k, in the triangle's own order.

    Parameters
    ----------
    a : array_like of real numbers, shape (n, n), or LU
        The matrix, or its factors: then the format and all else are theirs.
    b : array_like of real numbers, shape (n,) or (n, m)
        The right-hand sides.
    fmt, rounding, overflow, accumulator
        As for `lu`.

    Returns
    -------
    ndarray of b's shape
        Values of the format.

    Raises
    ------
    ValueError
        If shapes do not match.
    numpy.linalg.LinAlgError
        If a pivot is 0.

    Examples
    --------
    >>> solve([[1.0, 2.0], [3.0, 4.0]], [5.0, 11.0], "bfloat16").tolist()
    [1.0, 2.0]

    References
    ----------
    Higham (2002), section 8.1.
    """
    if isinstance(a, LU):
        factors = a
    else:
        options = {"rounding": rounding, "overflow": overflow, "accumulator": accumulator}
        factors = lu(a, fmt, **options)  # type: ignore[arg-type]
    right = as_array(b)
    n = len(factors.packed)
    if right.ndim not in (1, 2) or right.shape[0] != n:
        raise ValueError(f"b has shape {right.shape}; pass ({n},) or ({n}, m), as the matrix has")
    y = factors.how.entered(right)[factors.rows].reshape(n, -1)
    with np.errstate(all="ignore"):
        _substitute(factors, y)
    return y.reshape(right.shape)


def _substitute(factors: LU, y: Array) -> None:
    m, how = factors.packed, factors.how
    n = len(m)
    if how.accumulator is None:
        for k in range(n):
            y[k + 1 :] = how.minus_product(y[k + 1 :], m[k + 1 :, k, None], y[None, k])
        for k in reversed(range(n)):
            y[k] = how.arithmetic.divide(y[k], m[k, k])
            y[:k] = how.minus_product(y[:k], m[:k, k, None], y[None, k])
        return
    for k in range(n):
        y[k] = how.minus_inner(y[k][None], m[k : k + 1, :k], y[:k])[0]
    for k in reversed(range(n)):
        above = m[k : k + 1, k + 1 :][:, ::-1]  # the last unknown first, as it was found
        rest = how.minus_inner(y[k][None], above, y[k + 1 :][::-1])[0]
        y[k] = how.arithmetic.divide(rest, m[k, k])
