"""Rows of numbers that say what rounding did to tensors, and how they merge."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SUMS = (
    "count",
    "zeros",
    "nans",
    "infs",
    "new_zeros",
    "subnormals",
    "overflows",
    "total",
    "squares",
    "noise",
    "changes",
    "lost",
    "records",
)
MAXIMA = ("max_abs", "largest", "last_step")
MINIMA = ("min_abs", "first_step")
FIELDS = SUMS + MAXIMA + MINIMA
"""What the numbers of a row mean: those of `SUMS` add up."""

LOWEST_EXPONENT, BINS = -192, 320
LOWEST_GAP, GAPS = -32, 128


def empty_row() -> Array:
    """Return the numbers of nothing: what every other row merges with unchanged."""
    row = np.zeros(len(FIELDS))
    row[len(SUMS) + len(MAXIMA) :] = np.inf
    row[FIELDS.index("last_step")] = -1
    return row


def merge_rows(numbers: Array, other: Array) -> Array:
    """Return the rows of both, one by one: arrays of shape (..., fields)."""
    merged = numbers + other
    maxima = slice(len(SUMS), len(SUMS) + len(MAXIMA))
    minima = slice(len(SUMS) + len(MAXIMA), None)
    np.maximum(numbers[..., maxima], other[..., maxima], out=merged[..., maxima])
    np.minimum(numbers[..., minima], other[..., minima], out=merged[..., minima])
    return merged
