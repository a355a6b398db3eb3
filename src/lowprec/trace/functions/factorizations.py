"""Linear algebra by pure NumPy versions of what LAPACK computes, whose lines are marked."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace.functions.reductions import matrix_product
from lowprec.trace.functions.sums import product
from lowprec.trace.functions.table import FUNCTIONS, MARKED

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.trace.engine import Engine
    from lowprec.trace.values import Traced


def _marked(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a handler that stands for a function of LAPACK, and mark lines that call it."""

    def enter(handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def marking(engine: Engine, *args: Any, **kwargs: Any) -> Any:
            engine.site(functions[0].__name__).unit.is_pure = True
            return handler(engine, *args, **kwargs)

        for function in functions:
            FUNCTIONS[function] = marking
            MARKED.add(f"linalg.{function.__name__}")
        return marking

    return enter


@_marked(np.linalg.norm)
def _norm(engine: Engine, x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002
    array = engine.array(x)
    if axis is None and (ord is None or (ord == 2 and array.ndim == 1) or ord == "fro"):
        flat = engine.reshaped(array, (-1,))
        result = np.sqrt(matrix_product(engine, flat, flat, engine.site("norm")))
        return np.reshape(engine.array(result), (1,) * array.ndim) if keepdims else result
    if axis is None and array.ndim == 2:
        sums = {1: 0, np.inf: 1, -1: 0, -np.inf: 1}
        if ord not in sums:
            return engine.refuse(np.linalg.norm, (x, ord), {})
        totals = np.sum(np.abs(array), axis=sums[ord])
        return np.max(totals) if ord > 0 else np.min(totals)
    axis = tuple(range(array.ndim)) if axis is None else axis
    if isinstance(axis, tuple) and len(axis) > 1 and ord not in (None, "fro"):
        return engine.refuse(np.linalg.norm, (x, ord, axis), {})
    if ord is None or ord == 2 or ord == "fro":
        return np.sqrt(np.sum(array * array, axis=axis, keepdims=keepdims))
    if ord == np.inf:
        return np.max(np.abs(array), axis=axis, keepdims=keepdims)
    if ord == -np.inf:
        return np.min(np.abs(array), axis=axis, keepdims=keepdims)
    if ord == 1:
        return np.sum(np.abs(array), axis=axis, keepdims=keepdims)
    if ord == 0:
        return engine.array(np.sum(array != 0, axis=axis, keepdims=keepdims).astype(np.float64))
    return np.power(np.sum(np.power(np.abs(array), ord), axis=axis, keepdims=keepdims), 1 / ord)


if hasattr(np.linalg, "vector_norm"):
    FUNCTIONS[np.linalg.vector_norm] = lambda engine, x, *, axis=None, keepdims=False, ord=2: _norm(  # noqa: A006
        engine, x if axis is not None else np.ravel(x), ord, axis, keepdims
    )


if hasattr(np.linalg, "matrix_norm"):
    FUNCTIONS[np.linalg.matrix_norm] = lambda engine, x, *, keepdims=False, ord="fro": _norm(  # noqa: A006
        engine, x, ord, (-2, -1), keepdims
    )


def _factored(engine: Engine, a: Any) -> tuple[Traced, list[int], int]:
    """Return LU in one matrix by partial pivoting, the order of rows, and its sign."""
    m = engine.array(np.copy(engine.array(a)))
    if m.ndim != 2 or m.shape[0] != m.shape[1]:
        raise np.linalg.LinAlgError(f"traced linear algebra takes a square matrix, not {m.shape}")
    n, rows, sign = len(m), list(range(len(m))), 1
    for k in range(n):
        pivot = k + int(np.argmax(np.abs(m[k:, k])))
        if m[pivot, k].value == 0:
            raise np.linalg.LinAlgError("Singular matrix")
        if pivot != k:
            m[[k, pivot]] = m[[pivot, k]]
            rows[k], rows[pivot] = rows[pivot], rows[k]
            sign = -sign
        if k + 1 < n:
            m[k + 1 :, k] = m[k + 1 :, k] / m[k, k]
            m[k + 1 :, k + 1 :] = m[k + 1 :, k + 1 :] - m[k + 1 :, k, None] * m[k, k + 1 :]
    return m, rows, sign


@_marked(np.linalg.solve)
def _solve(engine: Engine, a: Any, b: Any) -> Any:
    m, rows, _ = _factored(engine, a)
    n = len(m)
    x = engine.array(np.copy(engine.array(b)[rows]))
    for k in range(1, n):
        x[k] = x[k] - np.matmul(m[k, :k], x[:k])
    for k in range(n - 1, -1, -1):
        right = x[k] - np.matmul(m[k, k + 1 :], x[k + 1 :]) if k + 1 < n else x[k]
        x[k] = right / m[k, k]
    return x


@_marked(np.linalg.inv)
def _inv(engine: Engine, a: Any) -> Any:
    return _solve(engine, a, np.eye(np.shape(a)[-1]))


@_marked(np.linalg.det)
def _det(engine: Engine, a: Any) -> Any:
    try:
        m, _, sign = _factored(engine, a)
    except np.linalg.LinAlgError as error:
        if "Singular" not in str(error):
            raise
        return engine.lowered(engine.array(0.0))
    return product(engine, np.diagonal(m)) * sign


@_marked(np.linalg.cholesky)
def _cholesky(engine: Engine, a: Any, *, upper: bool = False) -> Any:
    m = engine.array(np.tril(engine.array(a)))
    for k in range(len(m)):
        if not m[k, k] > 0:
            raise np.linalg.LinAlgError("Matrix is not positive definite")
        m[k, k] = np.sqrt(m[k, k])
        if k + 1 < len(m):
            m[k + 1 :, k] = m[k + 1 :, k] / m[k, k]
            products = m[k + 1 :, k, None] * m[None, k + 1 :, k]
            m[k + 1 :, k + 1 :] = np.tril(m[k + 1 :, k + 1 :] - products)
    return m.T if upper else m


@_marked(np.linalg.qr)
def _qr(engine: Engine, a: Any, mode: str = "reduced") -> Any:
    if mode != "reduced":
        return engine.refuse(np.linalg.qr, (a,), {"mode": mode})
    r = engine.array(np.copy(engine.array(a)))
    rows, columns = r.shape
    steps = min(rows, columns)
    kept = []
    for k in range(min(steps, rows - 1)):
        x = r[k:, k]
        if not np.any(x.value[1:]):
            continue
        sigma = np.sqrt(np.matmul(x, x))
        v = np.copy(x)
        v[0] = x[0] + (sigma if x.value[0] >= 0 else -sigma)
        beta = 2.0 / np.matmul(v, v)
        r[k:, k:] = r[k:, k:] - v[:, None] * (beta * np.matmul(v, r[k:, k:]))
        r[k + 1 :, k] = 0.0
        kept.append((k, v, beta))
    q = engine.array(np.eye(rows, steps))
    for k, v, beta in reversed(kept):
        q[k:, k:] = q[k:, k:] - v[:, None] * (beta * np.matmul(v, q[k:, k:]))
    return q, np.triu(r[:steps])


@_marked(np.linalg.lstsq)
def _lstsq(engine: Engine, a: Any, b: Any, rcond: Any = None) -> Any:
    q, r = _qr(engine, a)
    x = _solve(engine, r, np.matmul(q.T, engine.array(b)))
    left = engine.array(b) - np.matmul(engine.array(a), x)
    return x, np.sum(left * left, axis=0), np.shape(a)[1], np.zeros(0)


@_marked(np.linalg.matrix_power)
def _matrix_power(engine: Engine, a: Any, n: int) -> Any:
    base = engine.array(a)
    if n < 0:
        base, n = engine.array(_inv(engine, base)), -n
    result: Any = np.eye(len(base)) if n == 0 else None
    while n:
        if n & 1:
            result = base if result is None else np.matmul(result, base)
        n >>= 1
        if n:
            base = engine.array(np.matmul(base, base))
    return result
