"""exp, log, tanh and their like of arrays, with the same bits on every processor.

NumPy has other code for these on each kind of vector, and its results differ in their last bits.
Here they take additions, multiplications and divisions of float64, which IEEE 754 defines to the
last bit, in one order; none is fused with another, and there is no branch, so that they fill
vectors. Float32 results are float64's rounded once more, so that nearly all are correctly rounded;
float64 results are good to two units in the last place.

References
----------
Cody and Waite (1980), "Software Manual for the Elementary Functions"; Muller (2016), "Elementary
Functions: Algorithms and Implementation", chapter 11 (reduction of arguments).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from lowprec.kernels.compiler import from_dtype, types
from lowprec.kernels.loops import EXACT_FLOATS, compile_as, kernel, swap_float_state

Array = np.ndarray[Any, Any]

_PER_LOG2 = 1 / math.log(2)
# ln 2 in two parts: the first has so few bits that its product with an exponent is exact
_LOG2 = float.fromhex("0x1.62e42fefa0000p-1")
_LOG2_REST = float.fromhex("0x1.cf79abc9e3b3ap-40")
_INTEGERS = 1.5 * 2.0**52  # a number that is added to this is rounded to an integer
_INTEGERS_BITS, _ONE_BITS = 0x4338000000000000, 1023 << 52  # the bits of that number, and of 1
_ROOT_HALF_BITS = 0x3FE6A09E667F3BCD  # about those of the root of ½
_TINY = 2.0**-60  # below it f(x) = x for the functions that are 0 at 0

# Coefficients of r**2 … r**13 in exp(r), |r| <= ln(2)/2, of which float32 needs eight
_E2, _E3, _E4, _E5, _E6, _E7, _E8, _E9, _E10, _E11, _E12, _E13 = (
    1 / math.factorial(n) for n in range(2, 14)
)
# and of s**3, s**5 … s**23 in log((1 + s) / (1 - s)), |s| < 0.172, of which it needs seven
_L3, _L5, _L7, _L9, _L11, _L13, _L15, _L17, _L19, _L21, _L23 = (2 / n for n in range(3, 24, 2))


# Parts -------------------------------------------------------------------------------------------


@kernel
def _nearest(x: float) -> float:
    """Return the integer nearest to x."""
    return (x + _INTEGERS) - _INTEGERS


@kernel
def _power_of_two(k: float) -> Any:
    """Return 2**k for an integer k from -1022 to 1023."""
    bits = np.float64(k + _INTEGERS).view(np.int64)  # they end in those of k
    return np.int64((bits << 52) + _ONE_BITS).view(np.float64)


@kernel
def _reduced(x: float) -> tuple[float, float]:
    """Return an integer k and a small r with x = k·ln 2 + r."""
    k = _nearest(x * _PER_LOG2)
    return k, (x - k * _LOG2) - k * _LOG2_REST


@kernel
def _short_series(r: float) -> float:
    """Return exp(r) - 1 within 2**-37."""
    p = _E8 + r * _E9
    p = _E7 + r * p
    p = _E6 + r * p
    p = _E5 + r * p
    p = _E4 + r * p
    p = _E3 + r * p
    p = _E2 + r * p
    return r + (r * r) * p


@kernel
def _long_series(r: float) -> float:
    """Return exp(r) - 1 to float64's precision."""
    p = _E12 + r * _E13
    p = _E11 + r * p
    p = _E10 + r * p
    p = _E9 + r * p
    p = _E8 + r * p
    p = _E7 + r * p
    p = _E6 + r * p
    p = _E5 + r * p
    p = _E4 + r * p
    p = _E3 + r * p
    p = _E2 + r * p
    return r + (r * r) * p


@kernel
def _split(x: float) -> tuple[float, float]:
    """Return an integer k and the m from √½ to √2 with x = m·2**k, for a normal positive x."""
    bits = np.float64(x).view(np.int64)
    exponent = (bits - _ROOT_HALF_BITS) >> 52
    m = np.int64(bits - (exponent << 52)).view(np.float64)
    return np.int64(_INTEGERS_BITS + exponent).view(np.float64) - _INTEGERS, m


@kernel
def _with_specials(y: float, x: float) -> float:
    """Return the logarithm y of x, or what it is where x is not a positive finite number."""
    y = y if x < np.inf else x
    y = y if x > 0.0 else np.nan
    return -np.inf if x == 0.0 else y


# Rules for float32 -------------------------------------------------------------------------------
#
# No step leaves float64's normal numbers, and clamps make an infinity of what float32 cannot hold.


@kernel
def _exp32(x: float) -> float:
    k, r = _reduced(min(max(x, -150.0), 150.0))
    scale = _power_of_two(k)
    y = scale + scale * _short_series(r)
    return y if x == x else x


@kernel
def _expm1_32(x: float) -> float:
    k, r = _reduced(min(max(x, -60.0), 150.0))
    scale = _power_of_two(k)
    y = scale * _short_series(r) + (scale - 1.0)
    y = y if x == x else x
    return y if x != 0.0 else x


@kernel
def _tanh32(x: float) -> float:
    size = min(abs(x), 12.0)
    k, r = _reduced(size + size)
    scale = _power_of_two(k)
    t = scale * _short_series(r) + (scale - 1.0)
    y = math.copysign(t / (t + 2.0), x)
    return y if x == x else x


@kernel
def _sigmoid32(x: float) -> float:
    t = _exp32(-abs(x))
    return (1.0 if x >= 0.0 else t) / (1.0 + t)


@kernel
def _elu32(x: float) -> float:
    y = _expm1_32(x)
    return x if x > 0.0 else y


@kernel
def _softplus_tanh32(x: float) -> float:
    t = _exp32(-abs(x))  # with e = exp(x), tanh(log(1 + e)) is n / (n + 2) where n = e·(e + 2)
    n = 1.0 + 2.0 * t if x >= 0.0 else t * (t + 2.0)
    return n / (n + 2.0 * (t * t if x >= 0.0 else 1.0))


@kernel
def _log32(x: float) -> float:
    k, m = _split(x)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = _L13 + z * _L15
    p = _L11 + z * p
    p = _L9 + z * p
    p = _L7 + z * p
    p = _L5 + z * p
    p = _L3 + z * p
    return _with_specials(k * (_LOG2 + _LOG2_REST) + (2.0 * s + (s * z) * p), x)


@kernel
def _log1p32(x: float) -> float:
    u = 1.0 + x
    lost = (x - (u - 1.0)) / u
    y = _log32(u) + (lost if abs(lost) < 1.0 else 0.0)
    return y if x != 0.0 else x


# Rules for float64 -------------------------------------------------------------------------------


@kernel
def _exp64(x: float) -> float:
    k, r = _reduced(min(max(x, -750.0), 720.0))
    half = _nearest(0.5 * k)  # 2**k itself may lie outside the normal numbers
    y = ((1.0 + _long_series(r)) * _power_of_two(half)) * _power_of_two(k - half)
    return y if x == x else x


@kernel
def _expm1_64(x: float) -> float:
    k, r = _reduced(min(max(x, -60.0), 710.0))
    half = _power_of_two(k - 1.0)  # for k = 1024
    y = 2.0 * (half * _long_series(r) + (half - 0.5))
    return y if abs(x) >= _TINY else x


@kernel
def _tanh64(x: float) -> float:
    t = _expm1_64(2.0 * min(abs(x), 24.0))
    y = math.copysign(t / (t + 2.0), x)
    return y if abs(x) >= _TINY else x


@kernel
def _sigmoid64(x: float) -> float:
    t = _exp64(-abs(x))
    return (1.0 if x >= 0.0 else t) / (1.0 + t)


@kernel
def _elu64(x: float) -> float:
    y = _expm1_64(x)
    return x if x > 0.0 else y


@kernel
def _softplus_tanh64(x: float) -> float:
    t = _exp64(-abs(x))
    n = 1.0 + 2.0 * t if x >= 0.0 else t * (t + 2.0)
    return n / (n + 2.0 * (t * t if x >= 0.0 else 1.0))


@kernel
def _log64(x: float) -> float:
    is_small = x < 2.0**-1022
    k, m = _split(x * 2.0**54 if is_small else x)
    k = k - 54.0 if is_small else k
    f = m - 1.0
    s = f / (m + 1.0)
    z = s * s
    p = _L21 + z * _L23
    p = _L19 + z * p
    p = _L17 + z * p
    p = _L15 + z * p
    p = _L13 + z * p
    p = _L11 + z * p
    p = _L9 + z * p
    p = _L7 + z * p
    p = _L5 + z * p
    p = _L3 + z * p
    half = 0.5 * (f * f)  # 2·s = f - s·f, and s·f = half - s·half: f is exact where s is rounded
    y = k * _LOG2 - ((half - (s * (half + z * p) + k * _LOG2_REST)) - f)
    return _with_specials(y, x)


@kernel
def _log1p64(x: float) -> float:
    u = 1.0 + x
    lost = (x - (u - 1.0)) / u
    y = _log64(u) + (lost if abs(lost) < 1.0 else 0.0)
    return x if abs(x) < _TINY else y


# Arrays ------------------------------------------------------------------------------------------

_RULES = {
    "exp": (_exp32, _exp64),
    "expm1": (_expm1_32, _expm1_64),
    "log": (_log32, _log64),
    "log1p": (_log1p32, _log1p64),
    "tanh": (_tanh32, _tanh64),
    "sigmoid": (_sigmoid32, _sigmoid64),
    "elu": (_elu32, _elu64),
    "softplus_tanh": (_softplus_tanh32, _softplus_tanh64),
}


@functools.cache
def _loop(name: str, dtype: np.dtype[Any]) -> Any:
    rule, real = _RULES[name][dtype == np.float64], dtype.type

    def loop(x, out):  # type: ignore[no-untyped-def]
        state = swap_float_state(EXACT_FLOATS)
        for i in range(x.size):
            out[i] = real(rule(np.float64(x[i])))
        swap_float_state(state)

    element = from_dtype(dtype)
    signature = types.Array(element, 1, "C", readonly=True), types.Array(element, 1, "C")
    return compile_as(f"function|{name}|{dtype}", loop, types.void(*signature))


def _computed(name: str, x: Any) -> Array:
    x = np.asarray(x)
    if x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float64)
    x = np.ascontiguousarray(x).reshape(x.shape)
    out = np.empty_like(x)
    _loop(name, x.dtype)(x.reshape(-1), out.reshape(-1))
    return out


@kernel
def _softmax(x, powers, logarithms):  # type: ignore[no-untyped-def]
    """Write the softmax of each row, whose sum is NumPy's of eight side by side, and its log."""
    rows, columns = x.shape
    sums = np.empty(rows, np.float32)
    for i in range(rows):
        largest = x[i, 0]
        for j in range(1, columns):
            largest = x[i, j] if x[i, j] > largest or x[i, j] != x[i, j] else largest
        for j in range(columns):
            logarithms[i, j] = x[i, j] - largest
    shifted, flat = logarithms.reshape(-1), powers.reshape(-1)
    for i in range(shifted.size):
        flat[i] = np.float32(_exp32(np.float64(shifted[i])))
    eight = np.empty(8, np.float32)
    whole = columns - columns % 8
    for i in range(rows):
        for k in range(8):
            eight[k] = powers[i, k] if whole else np.float32(0)
        for j in range(8, whole, 8):
            for k in range(8):
                eight[k] += powers[i, j + k]
        low = (eight[0] + eight[1]) + (eight[2] + eight[3])
        total = low + ((eight[4] + eight[5]) + (eight[6] + eight[7]))
        for j in range(whole, columns):
            total += powers[i, j]
        sums[i] = total
    for i in range(rows):
        logarithm = np.float32(_log32(np.float64(sums[i])))
        for j in range(columns):
            logarithms[i, j] -= logarithm
            powers[i, j] /= sums[i]


def _softmax_and_logarithm(x, powers, logarithms):  # type: ignore[no-untyped-def]
    state = swap_float_state(EXACT_FLOATS)
    _softmax(x, powers, logarithms)
    swap_float_state(state)


def _crossentropy(x, labels, gradient):  # type: ignore[no-untyped-def]
    rows, columns = x.shape
    for i in range(rows):
        if not 0 <= labels[i] < columns:
            return False, 0.0
    state = swap_float_state(EXACT_FLOATS)
    logarithms = np.empty((rows, columns), np.float32)
    _softmax(x, gradient, logarithms)
    total = 0.0
    for i in range(rows):
        total += np.float64(logarithms[i, labels[i]])
        gradient[i, labels[i]] -= np.float32(1)
    count = np.float32(rows)
    for i in range(rows):
        for j in range(columns):
            gradient[i, j] /= count
    swap_float_state(state)
    return True, -total / rows


_rows, _out = types.Array(types.float32, 2, "C", readonly=True), types.Array(types.float32, 2, "C")
_labels = types.Array(types.int64, 1, "C", readonly=True)


@functools.cache
def _softmax_loop() -> Any:
    return compile_as("softmax", _softmax_and_logarithm, types.void(_rows, _out, _out))


@functools.cache
def _crossentropy_loop() -> Any:
    result = types.Tuple((types.boolean, types.float64))
    return compile_as("crossentropy", _crossentropy, result(_rows, _labels, _out))


def softmax(x: Any) -> tuple[Array, Array]:
    """Return the softmax of each row of float32, contiguous of 1 to 128 columns, and its log."""
    powers, logarithms = np.empty_like(x), np.empty_like(x)
    _softmax_loop()(x, powers, logarithms)
    return powers, logarithms


def crossentropy(x: Any, labels: Any) -> tuple[float, Array] | None:
    """Return the mean of -log softmax at the labels, and its gradient; None for a wrong label.

    Parameters
    ----------
    x : ndarray of float32
        As for `softmax`, of 1 row or more.
    labels : ndarray of int64, contiguous
        A column for each row.
    """
    gradient = np.empty_like(x)
    are_right, value = _crossentropy_loop()(x, labels, gradient)
    return (value, gradient) if are_right else None


def exp(x: Any) -> Array:
    """Return e**x, in float32 for float32, else in float64.

    Examples
    --------
    >>> exp(np.float32([0, 1, 100, -np.inf]))
    array([1.       , 2.7182817,       inf, 0.       ], dtype=float32)
    """
    return _computed("exp", x)


def expm1(x: Any) -> Array:
    """Return exp(x) - 1, as accurate near 0."""
    return _computed("expm1", x)


def log(x: Any) -> Array:
    """Return the natural logarithm: -inf of 0, NaN of negative numbers."""
    return _computed("log", x)


def log1p(x: Any) -> Array:
    """Return log(1 + x), as accurate near 0."""
    return _computed("log1p", x)


def tanh(x: Any) -> Array:
    """Return the hyperbolic tangent."""
    return _computed("tanh", x)


def sigmoid(x: Any) -> Array:
    """Return 1 / (1 + exp(-x))."""
    return _computed("sigmoid", x)


def elu(x: Any) -> Array:
    """Return x above 0, else exp(x) - 1."""
    return _computed("elu", x)


def softplus_tanh(x: Any) -> Array:
    """Return tanh(log(1 + exp(x)))."""
    return _computed("softplus_tanh", x)
