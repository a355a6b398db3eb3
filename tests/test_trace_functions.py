"""NumPy's functions in a traced program: float64 is NumPy's, and shares sum to the error."""

# ruff: noqa: E501 - lists of calls

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

import lowprec as lp
from lowprec.trace.functions import FUNCTIONS

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=8), RNG.uniform(0.5, 2.0, 8)
A = RNG.normal(size=(4, 4)) + 4 * np.eye(4)
S = A @ A.T
T = RNG.normal(size=(2, 3, 4))
ARGS = {"x": X, "y": Y, "a": A, "s": S, "t": T, "v": 0.7}

# What is called, with x and y of 8 numbers, a and s of 4 by 4 (s positive definite), t of 2 × 3 × 4
# and a number v. The first list has NumPy's bits in float64, the second agrees to its roundings.
EXACT = """
np.reshape(t, (6, 4)); np.ravel(t); np.transpose(t); np.transpose(t, (1, 0, 2)); t.T; x.copy()
np.swapaxes(t, 0, 1); np.moveaxis(t, 0, -1); np.squeeze(t[:1]); np.expand_dims(x, 1); np.flip(t)
np.fliplr(a); np.flipud(a); np.rot90(a); np.roll(x, 3); np.tile(x, (2, 2)); np.repeat(x, 2)
np.broadcast_to(x, (3, 8)); np.diagonal(a); np.diag(a); np.diag(x); np.tril(a); np.triu(a, 1)
np.take(x, [1, 3]); np.delete(x, 2); np.resize(x, (3, 4)); np.concatenate([x, y]); np.stack([x, y])
np.vstack([x, y]); np.hstack([x, y]); np.dstack([x, y]); np.column_stack([x, y]); np.append(x, v)
np.insert(x, 1, v); np.pad(x, 2); np.pad(x, 1, mode="edge"); np.pad(x, 1, constant_values=2.0)
np.split(x, 2)[1]; np.array_split(x, 3)[0]; np.meshgrid(x, y)[0]; np.atleast_2d(x); np.where(x > 0, x, y)
np.where(x > 0, x, 0.0); np.select([x > 1, x < 0], [x, y], 0.5); np.choose([0, 1] * 4, [x, y])
np.block([[a, s], [s, a]]); np.copy(x); np.zeros_like(x); np.ones_like(t); np.full_like(x, 0.5)
np.compress(x > 0, x); np.extract(x > 0, x); np.nan_to_num(x); np.sort(x); np.sort(t, axis=1)
np.max(x); np.min(t, axis=0); np.amax(t, axis=(0, 2)); x.max(); np.ptp(x); np.unique(x); np.argmax(x)
np.argsort(x); np.argmin(t, axis=1); np.searchsorted(np.sort(x), 0.1); np.nonzero(x > 0); np.any(x)
np.count_nonzero(x); np.isclose(x, y); np.allclose(x, x); np.array_equal(x, y); np.isnan(x); np.shape(t)
np.size(x); np.ndim(t); np.clip(x, -0.5, 0.5); x.clip(0, 1); np.maximum(x, y); np.minimum(x, 0.1)
np.fmax(x, y); np.abs(x); np.fabs(x); np.negative(x); np.sign(x); np.floor(x); np.ceil(x); np.trunc(x)
np.rint(x); np.copysign(x, -1.0); np.heaviside(x, 0.5); np.add(x, y); x - y; x * y; x / y; x // y; x % y
np.fmod(x, y); divmod(x, y)[1]; np.power(y, x); y**x; x**2; y**0.5; x**-1; x**3; np.square(x); np.exp(x)
np.exp2(x); np.expm1(x); np.log(y); np.log2(y); np.log10(y); np.log1p(y); np.sin(x); np.cos(x); np.tan(x)
np.arcsin(y / 3); np.arccos(y / 3); np.arctan(x); np.arctan2(x, y); np.sinh(x); np.cosh(x); np.tanh(x)
np.arcsinh(x); np.arccosh(y + 1); np.arctanh(y / 3); np.hypot(x, y); np.cbrt(x); np.reciprocal(y)
np.deg2rad(x); np.degrees(x); np.logaddexp(x, y); np.ldexp(x, 3); np.float64(v) * x; float(v) + 1
np.cumsum(x); np.cumsum(t, axis=1); np.cumprod(y); np.diff(x); np.diff(x, n=2); np.outer(x, y)
np.add.outer(x, y); np.add.accumulate(x); np.multiply.accumulate(y); np.maximum.accumulate(x); np.trunc(v)
np.round(x, 2); np.around(x); x.round(1); np.fix(x); np.modf(y)[0]; np.frexp(x)[0]; np.median(x)
np.linspace(0, v, 5)[1]; np.zeros(3) + v; np.ones((2, 2)) * v; np.arange(4.0) * v; np.full(3, v)
np.eye(3) * v; np.array([v, 1.0, 2]); np.asarray([x, y]); np.array([[v, 1], [2, v]]); [x[0], x[1]][0]
math.sqrt(v); math.exp(v); math.log(v); math.sin(v); math.atan2(v, 2.0); math.hypot(v, 1.0); math.floor(v)
math.pow(v, 3); math.fabs(-v); math.isnan(v); abs(-v); max(v, 0.1); min(x); int(v * 10); round(v); -v; +v
x[2]; x[1:5]; x[[1, 2]]; x[x > 0]; t[..., 1]; t[0, 1]; t[None]; x[::-1]; len(x); x.tolist()[1]; x.item(2)
np.isscalar(v); isinstance(v, float); isinstance(x, np.ndarray); x.shape; x.dtype == np.float64; x.size
np.add(x, y, where=x > 0, out=np.zeros(8)); np.vectorize(lambda u: u * 2)(x); np.ediff1d(x); v > 0.5
np.histogram(x, [-2, 0, 2])[1]; np.pad(x, (1, 2), constant_values=(v, 2)); np.add.reduce([x[:1], y[:1]])
np.linalg.norm(x, 0); np.median(np.where(x > 0, np.nan, x)); np.median(np.where(t > 2, np.nan, t), axis=1)
np.gradient(a)[1]; np.take(a, 3); np.nextafter(x, 0.0); np.nextafter(v, y); math.nextafter(v, 1.0); np.take_along_axis(x, np.argsort(x), 0); np.lexsort((x,)); np.digitize(x, [0.0, 0.5]); np.trace(a[:1, :1])
np.histogram(x, 3)[0]; np.union1d(x, y); np.setdiff1d(x, x[:2]); np.select([x < 0], [1.0], v)
np.lib.stride_tricks.sliding_window_view(x, 3); np.lib.stride_tricks.as_strided(x[2:], (3, 2), (16, 8)); np.diff(x, prepend=0.0); np.diff(t, axis=1, append=t[:, :1])
np.ediff1d(x, to_begin=v); np.nancumsum(x); np.nancumprod(y); np.nan_to_num(x, copy=False)
np.vectorize(lambda u: u * v, otypes=[float])(x); np.vectorize(lambda u: (u, u + 1))(x)[1]
np.vectorize(lambda r: r[0] * 2, signature="(n)->()")(a); np.vectorize(lambda u, k: u * k, excluded=[1])(x, 2)
np.vectorize(lambda u: 0 if u < 0 else u)(x); np.vectorize(otypes=[int])(lambda u: u)(x * 9)
np.random.default_rng(0).permutation(x); np.random.default_rng(0).choice(x, 3); np.random.default_rng(1).normal(v, y)
np.random.default_rng(1).uniform(0.0, v, 3); np.random.default_rng(1).exponential(y)
(np.random.default_rng(2).shuffle(x), x)[1]; (np.place(x, x > 0, [v, 2.0]), x)[1]; (np.put(x, [1, 9, 3], [v, 2.0], "wrap"), x)[1]
(np.putmask(x, x > 0, y[:2]), x)[1]; (np.put_along_axis(a, np.argsort(s, 1), s, 1), a)[1]
np.clip(x, 0.0, 1.0, y); (np.clip(x, 0.0, 1.0, y), y)[1]; np.argmax(t, 0, np.zeros((3, 4), int)); np.dot(a[:1, :1], a[:1], np.zeros((1, 4)))
np.concatenate([x, y], out=np.zeros(16)); np.max(t, axis=0, out=t[1]); np.fix(x, out=y); np.kron(a, s); np.cross(t[0, 0, :3], t[1, 0, :3]); x.astype(int); np.argwhere(x > 0)
"""
CLOSE = """
np.sum(x); np.sum(t, axis=1); np.sum(t, axis=(0, 2), keepdims=True); x.sum(); np.mean(x); t.mean(axis=0)
np.var(x); np.std(t, axis=2, ddof=1); np.prod(y); np.average(x, weights=y); np.nansum(x); np.nanmean(x)
np.dot(x, y); np.dot(a, s); a @ s; x @ y; np.matmul(t, a); np.vdot(x, y); np.inner(x, y); np.inner(a, s)
np.tensordot(t, a, axes=1); np.einsum("ij,jk->ik", a, s); np.einsum("ii", a); np.einsum("i,i->", x, y)
np.einsum("ij->j", a); np.einsum("ijk,kl->ijl", t, a); np.einsum("i,j->ij", x, y); np.einsum("ij,ij->i", a, s)
np.einsum("ij,jk,kl->il", a, s, a); np.einsum("...j,j->...", t, t[0, 0]); np.einsum("...ij,jk", t, a)
np.einsum(a, [0, 1], s, [1, 2], [0, 2]); np.einsum(t, [0, ..., 2], t, [1, ..., 2]); np.einsum("ij,ij->i", a[:1], s)
np.sum(t, 0, None, np.zeros((3, 4))); (x * y)[:0] * v; np.sum(x[:0] + v); np.zeros((0, 3)) @ np.zeros((3, 2)); t.mean(0, out=t[1]); np.median(a, 0, y[:4]); np.geomspace(v, 9.0, 4)
np.histogram(x, 3)[1]; np.histogram(x, [-1.0, v])[1]; np.quantile(t, 0.3, (0, 1), keepdims=True)
 np.trace(a); np.convolve(x, y); np.convolve(x, y[:3], "same")
np.convolve(x, y[:3], "valid"); np.correlate(x, y[:3]); np.correlate(x, y[:3], "full"); np.interp(v, np.sort(x), y)
np.correlate(x, y[:3], "same"); np.correlate(y[:3], x, "full"); np.interp([0.1, 9.0], np.sort(x), y)
np.linalg.norm(x); np.linalg.norm(a); np.linalg.norm(a, axis=1); np.linalg.norm(x, 1); np.linalg.norm(x, np.inf)
np.linalg.norm(x, 3); np.linalg.norm(a, 1); np.linalg.solve(a, x[:4]); np.linalg.solve(a, s); np.linalg.inv(a)
np.linalg.cholesky(s); np.linalg.cholesky(s, upper=True); np.abs(np.linalg.qr(a)[1]); np.linalg.det(a); np.linalg.matrix_power(a, 3)
np.linalg.lstsq(t[0].T, x[:4], rcond=None)[0]; np.gradient(x); np.gradient(x, 0.5); np.trapezoid(x)
np.trapezoid(y, x); np.polyval(x[:3], y); np.vander(y[:3]); np.percentile(x, 30); np.quantile(x, [0.2, 0.5])
np.cov(x, y); np.cov(t[0]); np.corrcoef(x, y); np.sinc(x); np.linspace(x[0], v, 5); np.logspace(0, v, 4)
np.apply_along_axis(np.sum, 0, a); np.add.reduce(a); np.add.reduceat(x, [0, 3, 5]); math.fsum(x); math.dist(x, y)
math.prod(y); math.erf(v); math.gamma(v); math.log(v, 2); np.nanstd(x); np.nanmax(x); np.multiply.reduce(a)
np.nanprod(y); np.linalg.trace(t); np.linalg.matmul(a, s); np.linalg.tensordot(t, a, axes=1)
np.fft.fftshift(x); np.fft.ifftshift(x); np.linalg.diagonal(t); np.linalg.outer(x, y)
np.logaddexp2(x, y); np.maximum.reduce(a, axis=1); np.float_power(y, x); np.median(t, axis=0); np.spacing(v) * 0
"""
# They compute in float64 without a counterpart here, and say so.
REFUSED = """
np.linalg.svd(a); np.linalg.eig(a); np.linalg.eigvals(a); np.fft.fft(x); np.linalg.pinv(a)
np.unwrap(x); np.polyfit(x, y, 1); np.i0(x); np.linalg.slogdet(a); np.roots(x); np.linalg.eigvalsh(s)
"""


def calls(text):
    return [call for line in text.split("\n") for call in line.split("; ") if call.strip()]


def made(call):
    space = {"np": np, "math": math}
    exec(f"def f({', '.join(ARGS)}):\n    return {call}", space)
    return space["f"]


def numbers(x):
    if isinstance(x, tuple | list):
        return [leaf for item in x for leaf in numbers(item)]
    return [np.asarray(x)]


@pytest.mark.parametrize("call", calls(EXACT))
def test_functions_in_float64_are_numpys(call):
    t = lp.trace(made(call), *ARGS.values(), format="float64")
    expected = numbers(made(call)(*copy.deepcopy(list(ARGS.values()))))
    for x, y in zip(numbers(t.result), expected, strict=True):
        assert x.shape == y.shape
        assert np.array_equal(x, y, equal_nan=x.dtype.kind == "f")
    assert t.verdict == []


@pytest.mark.parametrize("call", calls(CLOSE))
def test_functions_in_float64_are_numpys_but_for_order(call):
    t = lp.trace(made(call), *ARGS.values(), format="float64")
    expected = numbers(made(call)(*copy.deepcopy(list(ARGS.values()))))
    for x, y in zip(numbers(t.result), expected, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("call", calls(EXACT) + calls(CLOSE))
def test_functions_in_a_format_give_its_values_and_shares_that_sum(call):
    t = lp.trace(made(call), *ARGS.values(), format="bfloat16")
    units = [*t.lines.values(), *t.inputs.values()]
    for k, output in enumerate(t.outputs):
        value = np.asarray(output.result)
        if value.dtype.kind != "f":
            continue
        assert np.array_equal(lp.round_to(value, "bfloat16"), value, equal_nan=True)
        error = np.asarray(value, np.float64) - output.shadow
        if not np.isfinite(error).all():
            continue
        for which in ("born", "grown"):
            total = sum(np.asarray(getattr(unit, which)[k]) for unit in units)
            sizes = sum(np.abs(np.asarray(getattr(unit, which)[k])) for unit in units)
            assert np.all(np.abs(total - error) <= 1e-9 * (sizes + np.abs(error)))


@pytest.mark.parametrize("call", calls(REFUSED))
def test_functions_that_would_compute_in_float64_are_refused(call):
    with pytest.raises(
        TypeError, match=r"received values of bfloat16 at .*would compute in float64"
    ):
        lp.trace(made(call), *ARGS.values(), format="bfloat16")


def test_every_handler_is_of_a_function_that_exists():
    assert all(callable(key) or isinstance(key, str) for key in FUNCTIONS)
