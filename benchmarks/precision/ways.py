"""The ways in which experiments compute: a format, and the format in which sums are kept."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

import lowprec as lp

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Way:
    """A format for what is stored and multiplied, and one for what is accumulated.

    Every operation of `low` and `high` is rounded once, to nearest, ties to even.
    """

    name: str
    fmt: str
    accumulation: str

    @functools.cached_property
    def low(self) -> lp.Arithmetic:
        """Arithmetic of the format."""
        return lp.Arithmetic(self.fmt, flags=False)

    @functools.cached_property
    def high(self) -> lp.Arithmetic:
        """Arithmetic of the accumulation."""
        return lp.Arithmetic(self.accumulation, flags=False)

    def round(self, x: Any) -> Array:
        """Round to values of the format."""
        return np.asarray(lp.round_to(np.asarray(x, np.float64), self.fmt))

    def accumulator(self, order: str = "sequential") -> lp.Accumulator:
        """Return the accumulator of sums."""
        return lp.Accumulator(self.accumulation, order)


WAYS = {
    way.name: way
    for way in (
        Way("float32", "float32", "float32"),
        Way("bfloat16", "bfloat16", "bfloat16"),
        Way("float16", "float16", "float16"),
        Way("bfloat16, float32 sums", "bfloat16", "float32"),
        Way("float16, float32 sums", "float16", "float32"),
    )
}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A classic test: what it measures, where it comes from, and how it is run in a way.

    `run` returns the figure: an error, unless `measure` says otherwise, NaN where it broke down.
    """

    name: str
    measure: str
    source: str
    run: Callable[[Way], float]
    more_is_better: bool = False


def relative(found: Any, right: Any) -> float:
    """Return the error in the 2-norm over the size of the right answer."""
    found, right = (np.asarray(x, np.float64) for x in (found, right))
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.linalg.norm(found - right) / np.linalg.norm(right))
