"""Linear algebra in a format: bit for bit the textbook's loops, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest

import lowprec as lp
from lowprec.linalg import cholesky, lu, qr, refine, solve

FORMATS = ["bfloat16", "float16", "float8_e4m3fn", "e6m9"]
every_format = pytest.mark.parametrize("fmt", FORMATS)
every_mode = pytest.mark.parametrize("rounding", ["ties_to_even", "toward_zero", "toward_positive"])


def matrix(n, seed=0, dominant=0.0):
    return np.random.default_rng(seed).standard_normal((n, n)) + dominant * np.eye(n)


def same(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return x.shape == y.shape and x.tobytes() == y.tobytes()


# The textbook, element by element ------------------------------------------------------------


def textbook_lu(a, t):
    n = len(a)
    m = [[float(t.add(x, 0.0)) for x in row] for row in a]
    rows = list(range(n))
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: (abs(m[i][k]), -i))
        m[k], m[pivot] = m[pivot], m[k]
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(k + 1, n):
            m[i][k] = float(t.divide(m[i][k], m[k][k]))
            for j in range(k + 1, n):
                m[i][j] = float(t.subtract(m[i][j], t.multiply(m[i][k], m[k][j])))
    return np.array(m), rows


def textbook_solve(m, rows, b, t):
    n = len(b)
    y = [float(t.add(b[r], 0.0)) for r in rows]
    for i in range(n):
        for k in range(i):
            y[i] = float(t.subtract(y[i], t.multiply(m[i][k], y[k])))
    for i in reversed(range(n)):
        for k in reversed(range(i + 1, n)):
            y[i] = float(t.subtract(y[i], t.multiply(m[i][k], y[k])))
        y[i] = float(t.divide(y[i], m[i][i]))
    return np.array(y)


@every_format
@every_mode
def test_lu_and_solve_are_the_textbooks(fmt, rounding):
    t = lp.Arithmetic(fmt, rounding=rounding)
    a, b = matrix(9, 1), matrix(9, 2)[0]
    factors = lu(a, fmt, rounding=rounding)
    m, rows = textbook_lu(a, t)
    assert factors.rows.tolist() == rows
    assert same(factors.packed, m)
    assert same(solve(factors, b), textbook_solve(m, rows, b, t))
    assert same(solve(a, b, fmt, rounding=rounding), solve(factors, b))
    many = solve(factors, np.stack([b, 2 * b], axis=1))
    assert same(many[:, 0], solve(factors, b))


@every_format
def test_lu_by_inner_products_is_a_running_sum_per_element(fmt):
    how = lp.Accumulator("float32")
    a = matrix(7, 3)
    factors = lu(a, fmt, accumulator=how)
    m = lp.round_to(a, fmt)[factors.rows]
    t = lp.Arithmetic(fmt)
    f = np.zeros_like(m)

    def left(i, j, k):
        if not k:
            return m[i, j]
        total = lp.dot(-f[i, :k], f[:k, j], c=m[i, j], inputs=fmt, accumulator=how)
        return lp.round_to(np.float64(total), fmt)

    for k in range(7):
        for i in range(k, 7):
            f[i, k] = left(i, k, k)
        for j in range(k + 1, 7):
            f[k, j] = left(k, j, k)
        for i in range(k + 1, 7):
            f[i, k] = t.divide(f[i, k], f[k, k])
    assert same(factors.packed, f)


@every_format
@every_mode
def test_cholesky_is_the_textbooks(fmt, rounding):
    t = lp.Arithmetic(fmt, rounding=rounding)
    a = matrix(6, 4)
    a = a @ a.T + 8 * np.eye(6)
    m = np.array([[float(t.add(x, 0.0)) for x in row] for row in a])
    n = len(m)
    for k in range(n):
        m[k, k] = t.sqrt(m[k, k])
        for i in range(k + 1, n):
            m[i, k] = t.divide(m[i, k], m[k, k])
        for i in range(k + 1, n):
            for j in range(k + 1, i + 1):
                m[i, j] = t.subtract(m[i, j], t.multiply(m[i, k], m[j, k]))
    assert same(cholesky(a, fmt, rounding=rounding), np.tril(m))


@every_format
def test_qr_is_the_documented_loop(fmt):
    t = lp.Arithmetic(fmt)
    a = matrix(6, 5)[:, :4]
    m = np.array([[float(t.add(x, 0.0)) for x in row] for row in a])

    def inner(x, y):
        total = None
        for p, q in zip(x, y, strict=True):
            product = t.multiply(p, q)
            total = t.add(product, 0.0) if total is None else t.add(total, product)
        return total

    reflections = []
    for k in range(4):
        x = m[k:, k]
        e = int(np.frexp(abs(x).max())[1]) - 1
        v = np.array([float(t.add(np.ldexp(s, -e), 0.0)) for s in x])
        sigma = float(t.sqrt(inner(v, v)))
        alpha = sigma if v[0] < 0 else -sigma
        v[0] = t.subtract(v[0], alpha)
        beta = float(t.divide(2.0, inner(v, v)))
        for j in range(k + 1, 4):
            w = float(t.multiply(beta, inner(v, m[k:, j])))
            for i in range(k, 6):
                m[i, j] = t.subtract(m[i, j], t.multiply(v[i - k], w))
        m[k, k], m[k + 1 :, k] = np.ldexp(alpha, e), 0
        reflections.append((k, v, beta))
    q, r = qr(a, fmt)
    assert same(r, np.triu(m[:4]))
    assert q.shape == (6, 4)


# What they are worth -------------------------------------------------------------------------


@pytest.mark.parametrize("accumulator", [None, "float32"])
def test_factors_reproduce_the_matrix(accumulator):
    a = matrix(40, 6)
    u = lp.get_format("float16").unit_roundoff
    factors = lu(a, "float16", accumulator=accumulator)
    back = factors.lower.astype(float) @ factors.upper.astype(float)
    size = abs(factors.lower).astype(float) @ abs(factors.upper).astype(float)
    assert (abs(back - a[factors.rows]) <= 42 * u * size + u * abs(a[factors.rows])).all()
    q, r = (x.astype(float) for x in qr(a, "float16", accumulator=accumulator))
    assert abs(q.T @ q - np.eye(40)).max() < 200 * u
    assert abs(q @ r - a).max() < 400 * u
    spd = a @ a.T / 40 + np.eye(40)
    lower = cholesky(spd, "float16", accumulator=accumulator).astype(float)
    assert abs(lower @ lower.T - spd).max() < 100 * u


def test_float32_agrees_with_numpy():
    a, b = matrix(30, 7, dominant=5), matrix(30, 8)[0]
    assert np.allclose(solve(a, b, "float32"), np.linalg.solve(a, b), atol=1e-5)
    q, r = qr(a, "float32")
    r0 = np.linalg.qr(a).R
    assert np.allclose(abs(r), abs(r0), atol=1e-4)
    assert np.allclose(q @ r, a, atol=1e-4)


def conditioned(n, cond, seed=0):
    rng = np.random.default_rng(seed)
    u, _ = np.linalg.qr(rng.standard_normal((n, n)))
    v, _ = np.linalg.qr(rng.standard_normal((n, n)))
    return u @ np.diag(np.geomspace(1, 1 / cond, n)) @ v.T


def test_refinement_reaches_the_working_precision_where_the_factors_allow():
    a = conditioned(30, 30)
    x = np.random.default_rng(1).standard_normal(30)
    for fmt in ("bfloat16", "float16", "float8_e4m3fn"):
        found = refine(a, a @ x, lu(a, fmt), method="gmres")
        assert found.converged, fmt
        assert abs(found.x - x).max() < 1e-11
    found = refine(a, a @ x, lu(a, "float16"))
    assert found.converged
    assert found.backward_errors[0] > found.backward_errors[-1]


def test_gmres_serves_where_substitution_does_not():
    a = conditioned(40, 1e6, 2)
    b = a @ np.ones(40)
    factors = lu(a, "float16")
    assert not refine(a, b, factors).converged
    assert refine(a, b, factors, method="gmres").converged


def test_refinement_counts_the_steps_of_gmres_and_keeps_to_the_limit():
    a = conditioned(60, 1e5, 2)
    b, factors = a @ np.ones(60), lu(a, "bfloat16")
    assert refine(a, b, factors).iterations == 0
    every = refine(a, b, factors, method="gmres", iterations=1000)  # never more than n a correction
    assert every.corrections < every.iterations <= 60 * every.corrections
    few = refine(a, b, factors, method="gmres", iterations=2)
    assert few.iterations == 2 * few.corrections
    assert not few.converged
    for wrong in (0, -3):
        with pytest.raises(ValueError, match=f"iterations is {wrong}; GMRES takes 1 step or more"):
            refine(a, b, factors, method="gmres", iterations=wrong)


def test_refinement_in_float32_keeps_float32():
    a = conditioned(20, 20, 3).astype(np.float32)
    found = refine(a, a @ np.ones(20, np.float32), lu(a, "bfloat16"), "float32", "float64")
    assert found.x.dtype == np.float32
    assert found.converged
    assert "converged in" in repr(found)


# Mistakes ------------------------------------------------------------------------------------


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="square"):
        lu(np.ones((2, 3)))
    with pytest.raises(np.linalg.LinAlgError, match="column 1 has no pivot"):
        lu([[1.0, 2.0], [2.0, 4.0]])
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        cholesky([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match=r"b has shape \(3,\)"):
        solve(np.eye(2), np.ones(3))
    with pytest.raises(ValueError, match="use 'float32' or 'float64'"):
        refine(np.eye(2), np.ones(2), lu(np.eye(2)), "bfloat16")
    with pytest.raises(ValueError, match="method"):
        refine(np.eye(2), np.ones(2), lu(np.eye(2)), method="jacobi")


def test_inputs_are_left_alone_and_edges_serve():
    a = matrix(4, 9)
    before = a.copy()
    lu(a), qr(a), solve(a, np.ones(4))
    assert same(a, before)
    assert lu(np.empty((0, 0))).packed.shape == (0, 0)
    q, r = qr(np.zeros((3, 2)))
    assert same(r, np.zeros((2, 2)))
    assert same(q, np.eye(3, 2))
    assert qr(matrix(3, 1)[:1])[1].shape == (1, 3)
