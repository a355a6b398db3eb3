"""Programs from numerical textbooks and installed libraries, with known culprits."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import scipy.integrate
import scipy.linalg
import scipy.special


def quadratic(a, b, c):
    root = math.sqrt(b * b - 4 * a * c)
    small = (-b + root) / (2 * a)
    return small


def kalman(zs):
    x = np.zeros(2)
    P = 100.0 * np.eye(2)
    F = np.array([[1.0, 0.1], [0.0, 1.0]])
    H = np.array([[1.0, 0.0]])
    R = np.array([[0.0001]])
    for z in zs:
        x = F @ x
        P = F @ P @ F.T + 1e-5 * np.eye(2)
        S = H @ P @ H.T + R
        K = P @ H.T @ np.linalg.inv(S)
        x = x + K @ (np.array([z]) - H @ x)
        P = (np.eye(2) - K @ H) @ P
    return x


def euler(y, dt, n):
    t = 0.0
    for k in range(n):
        slope = math.cos(t) - y
        y = y + dt * slope
        t = t + dt
    return y


def expanded(x):
    p = x**3 - 3 * x**2 + 3 * x - 1
    return p


def expm1_over(x):
    e = np.exp(x) - 1
    return e / x


def archimedes(t, n):
    for k in range(n):
        t = (math.sqrt(t * t + 1) - 1) / t
    return 6 * 2**n * t


def harmonic(one, n):
    s = 0.0
    for k in range(1, n):
        s = s + one / k
    return s


def heron(a, b, c):
    s = (a + b + c) / 2
    d = s - a
    area = s * d * (s - b) * (s - c)
    return math.sqrt(area)


def gram_schmidt(a):
    q = np.zeros(a.shape)
    for j in range(a.shape[1]):
        v = a[:, j].copy()
        for i in range(j):
            v = v - (q[:, i] @ a[:, j]) * q[:, i]
        q[:, j] = v / np.linalg.norm(v)
    return q.T @ q


def welford(x):
    m, s = 0.0, 0.0
    for k, v in enumerate(x):
        d = v - m
        m = m + d / (k + 1)
        s = s + d * (v - m)
    return s / (len(x) - 1)


def newton(a):
    x = a
    while abs(x * x - a) > 1e-3:
        x = 0.5 * (x + a / x)
    return x


def horner(x):
    r = np.zeros_like(x)
    for c in (1.0, 0.5, 0.25, 0.125):
        r = r * x + c
    return r


def simpson(x):
    y = np.sqrt(x)
    return scipy.integrate.simpson(y, x=x)


def trapezoid(x):
    y = np.exp(-x)
    return scipy.integrate.trapezoid(y, x)


def chebyshev(x):
    c = np.array([0.5, -1.0, 0.25, 0.125])
    return np.polynomial.chebyshev.chebval(x, c)


def deviation_by_one_pass(x):
    n = len(x)
    s = np.sum(x)
    q = np.sum(x * x)
    v = q / n - (s / n) ** 2
    return 2.0 * np.sqrt(v)


def log_of_difference(a, b):
    s = a * 1.003
    d = s - b
    g = np.log(d)
    return g * 0.5


def difference_quotient(x, h):
    a = np.sin(x + h)
    b = np.sin(x)
    d = a - b
    g = d / h
    return g * 2.0


def exponential_series(x):
    term = 1.0
    s = 1.0
    for k in range(1, 30):
        term = term * x / k
        s = s + term
    return s


def compensated(x):
    s = 0.0
    c = 0.0
    for v in x:
        y = v - c
        t = s + y
        c = (t - s) - y
        s = t
    return s


def distances(x, y):
    n = np.sum(x * x, axis=1)
    m = np.sum(y * y, axis=1)
    p = x @ y.T
    q = n[:, None] + m[None, :]
    d = q - 2.0 * p
    return np.sqrt(np.maximum(d, 0.0))


def angle(u, v):
    p = np.dot(u, v)
    a = np.linalg.norm(u)
    b = np.linalg.norm(v)
    c = p / (a * b)
    return np.arccos(np.minimum(c, 1.0))


def compound(rate, n, years):
    r = rate / n
    base = 1.0 + r
    f = base ** (n * years)
    return 100.0 * f


def no_pivot(eps, b1, b2):
    m = 1.0 / eps
    a22 = 1.0 - m
    r2 = b2 - m * b1
    y = r2 / a22
    x = (b1 - y) / eps
    return x, y


def shoelace(x, y):
    s = x[:-1] * y[1:]
    t = x[1:] * y[:-1]
    d = s - t
    return 0.5 * np.sum(d)


def geometric_mean(x):
    p = np.prod(x)
    g = p ** (1.0 / len(x))
    return g * 1.0


def mean_of_large(x):
    c = x * 100.0
    s = np.sum(c)
    m = s / len(x)
    return m - 1.0


def weighted(w, x):
    u = w * 1.5
    d = np.dot(u, x)
    return d * 0.5


def masked(x, limit):
    y = x * 3.0
    m = y < limit
    s = y[m]
    return np.sum(s) / 4.0


def spread(x):
    a = np.sum(x)
    b = np.sum(x * x)
    c = a * 2.0
    d = b - 200 * (a / 200) ** 2
    return {"mean": c / 400, "spread": d / 199}


def softmax(z):
    m = np.max(z)
    e = np.exp(z - m)
    s = np.sum(e)
    return e / s


def central_second(f0, f1, f2, h):
    s = f0 + f2
    d = s - 2.0 * f1
    return d / (h * h)


def discriminant(p, q):
    a = 4.0 * p * p * p
    b = 27.0 * q * q
    d = a + b
    r = d * 0.25
    return r


def skewness(x):
    n = len(x)
    m1 = np.sum(x) / n
    m2 = np.sum(x * x) / n
    m3 = np.sum(x * x * x) / n
    s = m3 - 3.0 * m1 * m2 + 2.0 * m1 * m1 * m1
    return s


def cosine_rule(a, b, t):
    p = a * a + b * b
    q = 2.0 * a * b * np.cos(t)
    d = p - q
    return np.sqrt(d)


def haversine(a, b, t):
    d = a - b
    h = 2.0 * np.sin(t / 2.0)
    return np.sqrt(d * d + a * b * h * h)


def momentum(g, n, rate):
    w = 1.0
    m = 0.0
    for _ in range(n):
        m = 0.9 * m + 0.1 * g
        w = w - rate * m
    return w


def binomial(n, k, p):
    c = math.comb(n, k)
    a = p**k
    b = (1.0 - p) ** (n - k)
    return c * a * b


def extrapolated(h):
    a = (np.exp(1.0 + h) - np.exp(1.0 - h)) / (2.0 * h)
    g = h / 2.0
    b = (np.exp(1.0 + g) - np.exp(1.0 - g)) / (2.0 * g)
    return (4.0 * b - a) / 3.0


def phase(t, f):
    a = f * t
    w = a % 6.283185307179586
    return np.sin(w)


def barycentric(x, xs, ys):
    w = np.array([np.prod(1.0 / (p - np.delete(xs, j))) for j, p in enumerate(xs)])
    d = x - xs
    c = w / d
    return np.sum(c * ys) / np.sum(c)


def continued_fraction(x):
    t = 0.0
    for k in range(13, 0, -2):
        t = x * x / (k - t)
    return t / x


def stable_root(b, c):
    s = math.sqrt(b * b - 4.0 * c)
    q = -0.5 * (b + s)
    return c / q


def to_hsv(r, g, b):
    return colorsys.rgb_to_hsv(r, g, b)


def log_sum_exp(x):
    return scipy.special.logsumexp(x)


def ring(x):
    c = scipy.linalg.circulant(x)
    return c @ x


WAVE = np.sin(np.arange(200.0))
VECTOR = np.array([1.0, 2.0, 3.0])

# Function, arguments, options; then by offset from the line of `def`: what must be named (and
# nothing else), and what must stay in float32 for a relative error of 0.05. A healthy program has
# nothing.
TEXTBOOK = [
    (quadratic, (1.0, 200.0, 1.0), {}, (1, 2), (1, 2)),  # Higham, 1.8
    (kalman, (np.sin(np.arange(40.0) / 5),), {}, (), ()),
    (euler, (1.0, 1 / 512, 400), {}, (4,), (4,)),  # Higham, 4.3: steps are absorbed
    (expanded, (np.array([1.03125, 1.0625, 0.96875]),), {}, (1,), (1,)),  # Demmel, 1.4
    (expm1_over, (2.0**-7 * np.array([1.0, 2, 3]),), {}, (), ()),  # Higham, 1.14.1: errors cancel
    (archimedes, (1 / math.sqrt(3.0), 5), {}, (2,), (2,)),  # Kahan
    (harmonic, (1.0, 600), {}, (3,), (3,)),
    (heron, (9.0, 4.5625, 4.53125), {}, (1, 2), (1, 2)),  # Kahan: a needle
    (gram_schmidt, (np.vander(np.linspace(0.5, 1, 5), 4),), {}, (5, 6, 7), (5, 6)),  # Björck
    (welford, (30 + 2 * np.sin(np.arange(200.0)),), {}, (), ()),  # Higham, 1.9
    (horner, (np.linspace(0.1, 1, 9),), {}, (), ()),
    (simpson, (np.linspace(0, 4, 101),), {"modules": ("scipy.integrate",)}, (), ()),
    (trapezoid, (np.linspace(0, 4, 101),), {"modules": ("scipy.integrate",)}, (), ()),
    (chebyshev, (np.linspace(-1, 1, 9),), {"modules": ("numpy.polynomial",)}, (), ()),
    (deviation_by_one_pass, (30 + WAVE[:64],), {}, (2, 3, 4), (2, 3, 4)),  # √ of -60, not of 0.5
    (log_of_difference, (1.0, 1.0), {}, (1, 2), (1, 2)),  # log(0) carries what line 2 lost
    (difference_quotient, (np.array([0.5, 1.0]), 2.0**-6), {}, (1, 2, 3), (1, 2, 3)),  # Higham 1.11
    (exponential_series, (-5.0,), {}, (4, 5), (4, 5)),  # Forsythe: pitfalls
    (compensated, (0.1 + 0.05 * WAVE,), {}, (), ()),  # Kahan: its cancellations are benign
    (
        distances,
        (np.array([[10.0, 10.0], [11, 10]]), np.array([[10.125, 10.0], [10.0, 10.125]])),
        {},
        (2, 3, 4, 5),
        (2, 3, 4, 5),
    ),
    (angle, (VECTOR, VECTOR + np.array([0, 0, 0.0625])), {}, (2, 3, 4, 5), (2, 3, 4, 5)),  # Kahan
    (compound, (0.05, 365.0, 2.0), {}, (2, 3), (2, 3)),
    (no_pivot, (2.0**-9, 1.0, 2.0), {}, (2, 5), (2, 4, 5)),  # Forsythe & Moler
    (
        shoelace,
        (np.array([100.0, 101, 101, 100, 100]), np.array([200.0, 200, 201, 201, 200])),
        {},
        (1, 2, 3, 4),
        (1, 2, 3),
    ),
    (geometric_mean, (np.full(12, 0.2),), {"format": "float16"}, (1,), (1, 2)),
    (mean_of_large, (1 + 0.1 * np.sin(np.arange(1000.0)),), {"format": "float16"}, (2,), (2, 3)),
    (weighted, (np.r_[256.0, np.full(300, 0.5)], np.ones(301)), {}, (2,), (2,)),
    (masked, (np.array([1.0, 2.0, 3.33, 0.5]), 9.995), {}, (1, 2), (1, 2)),  # one decision
    (spread, (5 + WAVE,), {}, (1, 2, 4), (1, 2, 4)),  # one output healthy, one not
    (softmax, (VECTOR,), {}, (), ()),
    (central_second, (1.546875, 1.6484375, 1.7578125, 0.0625), {}, (1, 2), (1, 2)),
    (discriminant, (-3.0, 1.9921875), {}, (2, 3), (2, 3)),
    (skewness, (3 + np.exp(WAVE[:64]),), {}, (2, 3, 4, 5), (2, 3, 4, 5)),
    (cosine_rule, (1.0, 1.0, 0.0625), {}, (2, 3), (2, 3)),  # a thin triangle
    (haversine, (1.0, 1.0, 0.0625), {}, (), ()),  # and the same side without cancellation
    (momentum, (0.01, 200, 0.1), {}, (5,), (5,)),  # steps of a weight are absorbed
    (binomial, (40, 20, 0.3), {"format": "float16"}, (2, 4), (2, 4)),  # p**k underflows
    (extrapolated, (2.0**-4,), {}, (3,), (3,)),  # Richardson
    (phase, (1000.0, 3.109375), {}, (1, 2, 3), (1, 2)),  # Payne & Hanek
    (barycentric, (0.3, np.linspace(0, 1, 6), np.exp(np.linspace(0, 1, 6))), {}, (), ()),
    (continued_fraction, (0.7,), {}, (), ()),
    (stable_root, (200.0, 1.0), {}, (), ()),
    (to_hsv, (0.3, 0.5, 0.7), {"modules": "colorsys"}, (), ()),
    (log_sum_exp, (10 * VECTOR,), {"modules": "scipy.special"}, (), ()),
    (ring, (1 + WAVE[:9],), {"modules": "scipy.linalg"}, (), ()),
]
