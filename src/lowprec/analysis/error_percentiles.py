"""Percentiles of errors of any number of elements, in the memory of a few blocks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

SHARES = ("50", "90", "99", "99.9")  # percent

_MOST_KEPT = 1 << 20
_SHIFT = 42  # keeps the exponent and ten bits of the significand of a float64
_BINS = 1 << (63 - _SHIFT)


class Errors:
    """Errors, none negative or NaN; kept while they are few, then counted by magnitude."""

    def __init__(self) -> None:
        self.zeros = 0
        self.largest = 0.0
        self.kept: list[np.ndarray[Any, Any]] = []
        self.held = 0
        self.bins: np.ndarray[Any, Any] | None = None

    def add(self, count: int, errors: np.ndarray[Any, Any]) -> None:
        """Add the errors of some elements; those that are not given are zero."""
        self.zeros += count - errors.size
        if not errors.size:
            return
        self.largest = max(self.largest, float(errors.max()))
        self.kept.append(errors)
        self.held += errors.size
        if self.bins is not None or self.held > _MOST_KEPT:
            self._count()

    def _count(self) -> None:
        if self.bins is None:
            self.bins = np.zeros(_BINS, np.int64)
        for errors in self.kept:
            places = np.ascontiguousarray(errors, np.float64).view(np.int64) >> _SHIFT
            least = int(places.min())
            counts = np.bincount(places - least)
            self.bins[least : least + counts.size] += counts
        self.kept, self.held = [], 0

    def percentiles(self) -> dict[str, float]:
        """Return the percentiles of all errors by share; NaN where there are none."""
        if self.bins is None:
            errors = np.sort(np.concatenate([np.zeros(0), *self.kept]))
            return {share: self._between(share, errors) for share in SHARES}
        ends = self.zeros + np.cumsum(self.bins)
        return {share: self._from_bins(share, ends) for share in SHARES}

    def _between(self, share: str, errors: np.ndarray[Any, Any]) -> float:
        """Return a percentile as `numpy.percentile` has it: between two neighbours in order."""
        total = self.zeros + errors.size
        if not total:
            return math.nan
        place = float(share) / 100 * (total - 1)
        below = int(place)
        low, high = (
            0.0 if i < self.zeros else float(errors[min(i, total - 1) - self.zeros])
            for i in (below, min(below + 1, total - 1))
        )
        part = place - below
        return low if part == 0 or low == high else low + (high - low) * part

    def _from_bins(self, share: str, ends: np.ndarray[Any, Any]) -> float:
        place = int(float(share) / 100 * (int(ends[-1]) - 1))
        if place < self.zeros:
            return 0.0
        found = int(np.searchsorted(ends, place, side="right"))
        edges = np.array([found, found + 1], np.int64) << _SHIFT
        low, high = map(float, edges.view(np.float64))
        return min((low + high) / 2, self.largest) if high < math.inf else low
