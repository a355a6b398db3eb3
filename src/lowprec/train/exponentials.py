"""exp, log, tanh and their like, with the same bits on every processor.

They come from `lowprec.kernels.functions`, and Numba with them at the first call. Arrays keep their
dtype: float32, float64 or a narrower float, which is computed in float32 and rounded once more.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from lowprec.arrays.direct import lies_flat

Array = np.ndarray[Any, Any]

_FLOAT32, _INT64 = np.dtype(np.float32), np.dtype(np.int64)
_SHORT_ROW = 128  # elements, of which a kernel forms NumPy's sum


@functools.cache
def _kernels() -> Any:
    from lowprec.kernels import functions  # imports Numba

    return functions


def _apply(name: str, x: Any) -> Array:
    x = np.asarray(x)
    function = getattr(_kernels(), name)
    if x.dtype.kind == "f" and x.dtype.itemsize < 4:
        narrow: Array = function(x.astype(np.float32)).astype(x.dtype)
        return narrow
    result: Array = function(x)
    return result


def exp(x: Any) -> Array:
    """Return e**x."""
    return _apply("exp", x)


def log(x: Any) -> Array:
    """Return the natural logarithm: -inf of 0, NaN of negative numbers."""
    return _apply("log", x)


def log1p(x: Any) -> Array:
    """Return log(1 + x), as accurate near 0."""
    return _apply("log1p", x)


def tanh(x: Any) -> Array:
    """Return the hyperbolic tangent."""
    return _apply("tanh", x)


def sigmoid(x: Any) -> Array:
    """Return 1 / (1 + exp(-x)), which never overflows."""
    return _apply("sigmoid", x)


def elu(x: Any) -> Array:
    """Return x above 0, else exp(x) - 1."""
    return _apply("elu", x)


def softplus_tanh(x: Any) -> Array:
    """Return tanh(log(1 + exp(x))), which never overflows."""
    return _apply("softplus_tanh", x)


def softmax_and_logarithm(x: Array) -> tuple[Array, Array]:
    """Return the softmax of the last axis and its logarithm."""
    if _has_short_rows(x):
        found: tuple[Array, Array] = _kernels().softmax(x)
        return found
    shifted = x - x.max(axis=-1, keepdims=True)
    powers = exp(shifted)
    sums = powers.sum(axis=-1, keepdims=True)
    return powers / sums, shifted - log(sums)


def crossentropy(logits: Array, labels: Array) -> tuple[float, Array] | None:
    """Return the mean of -log softmax(logits) at the labels, and its gradient.

    None where that takes several steps, or a label is not the number of a column.

    Parameters
    ----------
    logits : ndarray, shape (n, classes)
        Of float32 or float64.
    labels : ndarray of intp, shape (n,)
        Columns.
    """
    if not (_has_short_rows(logits) and lies_flat(labels, _INT64)):
        return None
    found: tuple[float, Array] | None = _kernels().crossentropy(logits, labels)
    return found


def _has_short_rows(x: Array) -> bool:
    """Whether a kernel computes the softmax: its sums of as many terms are NumPy's."""
    return x.ndim == 2 and x.size > 0 and x.shape[1] <= _SHORT_ROW and lies_flat(x, _FLOAT32)
