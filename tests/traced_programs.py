"""Thirty programs in NumPy, and the same written by hand with `Arithmetic`, `sum` and `matmul`.

The left one is traced. The right one is given `h`, which has an arithmetic's operations, `enter`
(one rounding), `sum` and `matmul` of a format.
"""

from __future__ import annotations

import math

import numpy as np

import lowprec as lp

RNG = np.random.default_rng(7)
X, Y = RNG.normal(size=24), RNG.uniform(0.5, 2.0, 24)
A, B = RNG.normal(size=(5, 7)), RNG.normal(size=(7, 4))


class Hand:
    """The operations of a format, for programs written by hand."""

    def __init__(self, fmt):
        self.fmt = lp.get_format(fmt)
        self._arithmetic = lp.Arithmetic(fmt)

    def __getattr__(self, name):
        return getattr(self._arithmetic, name)

    def enter(self, x):
        return lp.round_to(x, self.fmt)

    def sum(self, x, axis=None):
        return lp.sum(x, self.fmt, axis)

    def mean(self, x, axis=None):
        return lp.mean(x, self.fmt, axis)

    def matmul(self, a, b):
        return lp.matmul(a, b, inputs=self.fmt, accumulator=self.fmt)


PROGRAMS = []


def program(*args):
    """Enter two functions as a pair: the second is made by the first's `hand`."""

    def enter(traced):
        PROGRAMS.append((traced, HAND[traced.__name__], args))
        return traced

    return enter


HAND = {}


def hand(function):
    HAND[function.__name__.removeprefix("hand_")] = function
    return function


@hand
def hand_add(h, x, y):
    return h.add(x, y)


@program(X, Y)
def add(x, y):
    return x + y


@hand
def hand_axpy(h, a, x, y):
    return h.add(h.multiply(a, x), y)


@program(0.3, X, Y)
def axpy(a, x, y):
    return a * x + y


@hand
def hand_constants(h, x):
    return h.subtract(h.multiply(2.0, x), h.divide(0.1, 3.0 + 0.0 * 1))


@program(X)
def constants(x):
    return 2 * x - np.float64(0.1) / (x[0] * 0 + 3)


@hand
def hand_square(h, x):
    return h.multiply(x, x)


@program(X)
def square(x):
    return x**2


@hand
def hand_cubic(h, x):
    return h.power(x, 3)


@program(Y)
def cubic(x):
    return x**3


@hand
def hand_horner(h, x):
    r = h.enter(1.0)
    for c in (0.5, -0.25, 0.125, 0.3):
        r = h.add(h.multiply(r, x), c)
    return r


@program(Y)
def horner(x):
    r = 1.0
    for c in (0.5, -0.25, 0.125, 0.3):
        r = r * x + c
    return r


@hand
def hand_dot(h, x, y):
    return h.matmul(x, y)


@program(X, Y)
def dot(x, y):
    return np.dot(x, y)


@hand
def hand_product(h, a, b):
    return h.matmul(a, b)


@program(A, B)
def product(a, b):
    return a @ b


@hand
def hand_transposed(h, a):
    return h.matmul(a.T, a)


@program(A)
def transposed(a):
    return np.matmul(a.T, a)


@hand
def hand_sums(h, a):
    a = h.enter(a)
    return h.sum(a, 0), h.sum(a, 1), h.sum(a)


@program(A)
def sums(a):
    return a.sum(axis=0), np.sum(a, axis=1), a.sum()


@hand
def hand_mean(h, x):
    return h.mean(h.enter(x))


@program(X)
def mean(x):
    return np.mean(x)


@hand
def hand_variance(h, x):
    x = h.enter(x)
    m = h.divide(h.sum(x), len(x))
    d = h.subtract(x, m)
    return h.divide(h.sum(h.multiply(d, d)), len(x) - 1)


@program(X)
def variance(x):
    return np.var(x, ddof=1)


@hand
def hand_deviation(h, x):
    x = h.enter(x)
    d = h.subtract(x, h.divide(h.sum(x), len(x)))
    return h.sqrt(h.divide(h.sum(h.multiply(d, d)), len(x)))


@program(X)
def deviation(x):
    return x.std()


@hand
def hand_softmax(h, x):
    x = h.enter(x)
    e = h.exp(h.subtract(x, np.max(x)))
    return h.divide(e, h.sum(e))


@program(X)
def softmax(x):
    e = np.exp(x - np.max(x))
    return e / np.sum(e)


@hand
def hand_elementary(h, x):
    return [getattr(h, name)(x) for name in ("exp", "log", "sin", "cos", "tan", "tanh", "sqrt")]


@program(Y)
def elementary(x):
    return [f(x) for f in (np.exp, np.log, np.sin, np.cos, np.tan, np.tanh, np.sqrt)]


@hand
def hand_more_elementary(h, x):
    return [getattr(h, name)(x) for name in ("exp2", "expm1", "log2", "log10", "log1p", "cbrt")]


@program(Y)
def more_elementary(x):
    return [f(x) for f in (np.exp2, np.expm1, np.log2, np.log10, np.log1p, np.cbrt)]


@hand
def hand_running(h, x):
    r, made = h.enter(x[0]), []
    for k, v in enumerate(x):
        r = h.add(r, v) if k else r
        made.append(r)
    return np.array(made)


@program(X)
def running(x):
    return np.cumsum(x)


@hand
def hand_factorial(h, x):
    r = h.enter(x[0])
    for v in x[1:]:
        r = h.multiply(r, v)
    return r


@program(Y)
def factorial(x):
    return np.prod(x)


@hand
def hand_clipped(h, x):
    return h.minimum(h.maximum(x, -0.3), 0.7)


@program(X)
def clipped(x):
    return np.clip(x, -0.3, 0.7)


@hand
def hand_chosen(h, x, y):
    x, y = h.enter(x), h.enter(y)
    return np.where(x > h.enter(0.1), h.multiply(x, y), h.subtract(x, y))


@program(X, Y)
def chosen(x, y):
    return np.where(x > 0.1, x * y, x - y)


@hand
def hand_in_place(h, x, y):
    x, y = h.enter(x), h.enter(y)
    z = x.copy()
    z[::2] = h.add(z[::2], y[::2])
    z[3:7] = h.multiply(z[3:7], 0.5)
    z[z > h.enter(1.0)] = h.enter(1.1)
    return z


@program(X, Y)
def in_place(x, y):
    view = x[::2]
    view += y[::2]
    x[3:7] *= 0.5
    x[x > 1.0] = 1.1
    return x


@hand
def hand_newton(h, a):
    x = h.enter(1.0)
    for _ in range(6):
        x = h.multiply(0.5, h.add(x, h.divide(a, x)))
    return x


@program(2.0)
def newton(a):
    x = 1.0
    for _ in range(6):
        x = 0.5 * (x + a / x)
    return x


@hand
def hand_euler(h, y):
    y, t = h.enter(y), h.enter(0.0)
    for _ in range(20):
        y = h.add(y, h.multiply(0.01, h.subtract(h.sin(t), y)))
        t = h.add(t, 0.01)
    return y, t


@program(1.0)
def euler(y):
    t = 0.0 * y
    for _ in range(20):
        y = y + 0.01 * (math.sin(t) - y)
        t += 0.01
    return y, t


@hand
def hand_quadratic(h, a, b, c):
    b = h.enter(b)
    root = h.sqrt(h.subtract(h.multiply(b, b), h.multiply(h.multiply(4.0, a), c)))
    two = h.multiply(2.0, a)
    return h.divide(h.add(-b, root), two), h.divide(h.subtract(-b, root), two)


@program(1.1, -3.7, 0.21)
def quadratic(a, b, c):
    root = math.sqrt(b * b - 4 * a * c)
    return (-b + root) / (2 * a), (-b - root) / (2 * a)


@hand
def hand_differences(h, x):
    x = h.enter(x)
    return h.subtract(x[1:], x[:-1])


@program(X)
def differences(x):
    return np.diff(x)


@hand
def hand_smoothed(h, x):
    x, k = h.enter(x), h.enter(np.array([0.25, 0.5, 0.25]))
    padded = np.pad(x, 2)
    return np.array([h.matmul(padded[i : i + 3], k[::-1]) for i in range(len(x) + 2)])


@program(X)
def smoothed(x):
    return np.convolve(x, [0.25, 0.5, 0.25])


@hand
def hand_normalized(h, a):
    a = h.enter(a)
    lengths = h.sqrt(h.sum(h.multiply(a, a), 1))
    return h.divide(a, lengths[:, None])


@program(A)
def normalized(a):
    return a / np.linalg.norm(a, axis=1)[:, None]


@hand
def hand_outer(h, x, y):
    return h.multiply(np.asarray(x)[:, None], y)


@program(X[:5], Y[:6])
def outer(x, y):
    return np.outer(x, y)


@hand
def hand_contracted(h, a, b):
    return h.matmul(a, b).T


@program(A, B)
def contracted(a, b):
    return np.einsum("ij,jk->ki", a, b)


@hand
def hand_filled(h, n):
    z = np.zeros(n, np.float32)
    z[0] = h.enter(0.1)
    for k in range(1, n):
        z[k] = h.divide(h.add(z[k - 1], k), 3.0)
    return z


@program(9)
def filled(n):
    z = np.zeros(n)
    z[0] = 0.1
    for k in range(1, n):
        z[k] = (z[k - 1] + k) / 3
    return z


@hand
def hand_lists(h, x):
    x = h.enter(x)
    total = h.add(0.0, x[0])
    for v in x[1:]:
        total = h.add(total, v)
    return total, max(x), min(x)


@program(X)
def lists(x):
    return sum(x), max(x), min(x)


@hand
def hand_grid(h, n):
    g = h.enter(np.linspace(0.0, 1.0, n))
    return h.multiply(h.exp(-g), h.enter(np.pi))


@program(11)
def grid(n):
    g = np.linspace(0, 1, n)
    return np.exp(-g) * np.pi
