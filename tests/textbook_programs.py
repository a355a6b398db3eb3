"""Fifteen programs from numerical textbooks and installed libraries, with known culprits."""

from __future__ import annotations

import math

import numpy as np
import scipy.integrate


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


# Function, arguments, options; then by offset from the line of `def`: what must be named, and what
# must stay in float32 for a relative error of 0.05. A healthy program has nothing.
TEXTBOOK = [
    (quadratic, (1.0, 200.0, 1.0), {}, (1, 2), (1, 2)),  # Higham, 1.8
    (kalman, (np.sin(np.arange(40.0) / 5),), {}, (), ()),
    (euler, (1.0, 1 / 512, 400), {}, (4,), (4,)),  # Higham, 4.3: steps are absorbed
    (expanded, (np.array([1.03125, 1.0625, 0.96875]),), {}, (1,), (1,)),  # Demmel, 1.4
    (expm1_over, (2.0**-7 * np.array([1.0, 2, 3]),), {}, (), ()),  # Higham, 1.14.1: errors cancel
    (archimedes, (1 / math.sqrt(3.0), 5), {}, (2,), (2,)),  # Kahan
    (harmonic, (1.0, 600), {}, (3,), (3,)),
    (heron, (9.0, 4.5625, 4.53125), {}, (1, 2), (1, 2)),  # Kahan: a needle
    (gram_schmidt, (np.vander(np.linspace(0.5, 1, 5), 4),), {}, (7,), (5, 6)),  # Björck
    (welford, (30 + 2 * np.sin(np.arange(200.0)),), {}, (), ()),  # Higham, 1.9
    (horner, (np.linspace(0.1, 1, 9),), {}, (), ()),
    (simpson, (np.linspace(0, 4, 101),), {"modules": ("scipy.integrate",)}, (), ()),
    (trapezoid, (np.linspace(0, 4, 101),), {"modules": ("scipy.integrate",)}, (), ()),
    (chebyshev, (np.linspace(-1, 1, 9),), {"modules": ("numpy.polynomial",)}, (), ()),
]
