"""Sums that lose their terms: long ones, variances, softmax."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

import lowprec as lp
from precision.ways import Experiment, Way, relative

HIGHAM = "Higham (1993), The accuracy of floating point summation, SIAM J. Sci. Comput. 14(4)"
VARIANCE = (
    "Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance, "
    "Amer. Statist. 37(3)"
)
SOFTMAX = (
    "Blanchard, Higham and Higham (2021), Accurately computing the log-sum-exp and softmax "
    "functions, IMA J. Numer. Anal. 41(4)"
)
TERMS = 10_000


def numbers(way: Way) -> np.ndarray[Any, Any]:
    """Draw numbers in 0…1 that the format holds, so that the sum is at fault and not the data."""
    return way.round(np.random.default_rng(0).random(TERMS))


def long_sum(order: str, way: Way) -> float:
    """Return the relative error of a sum, against the exact one."""
    x = numbers(way)
    right = math.fsum(x)
    return abs(float(lp.sum(x, way.accumulator(order))) - right) / right


def sample(way: Way) -> np.ndarray[Any, Any]:
    """Draw numbers of mean 10 and deviation 1 that the format holds."""
    return way.round(10 + np.random.default_rng(0).standard_normal(1000))


def mean_of(x: np.ndarray[Any, Any], way: Way) -> Any:
    """Return the mean: summed and divided where sums are kept, then stored in the format."""
    return way.round(way.high.divide(lp.sum(x, way.accumulator()), x.size))


def textbook_variance(way: Way) -> float:
    """Return the relative error of E[x²] - E[x]²."""
    x = sample(way)
    mean, squares = mean_of(x, way), mean_of(way.low.multiply(x, x), way)
    return _variance_error(x, way.low.subtract(squares, way.low.multiply(mean, mean)))


def two_pass_variance(way: Way) -> float:
    """Return the relative error of E[(x - E[x])²]."""
    x = sample(way)
    away = way.low.subtract(x, mean_of(x, way))
    return _variance_error(x, mean_of(way.low.multiply(away, away), way))


def _variance_error(x: np.ndarray[Any, Any], found: Any) -> float:
    right = float(np.var(x.astype(np.float64)))
    return abs(float(found) - right) / right


def softmax(is_shifted: bool, way: Way) -> float:
    """Return the relative error of a softmax over 1000 logits of deviation 4 around 8."""
    x = way.round(8 + 4 * np.random.default_rng(0).standard_normal(1000))
    wide = np.exp(x.astype(np.float64) - x.max())
    powers = way.low.exp(way.low.subtract(x, x.max()) if is_shifted else x)
    total = lp.sum(powers, way.accumulator())
    return relative(way.round(way.high.divide(powers, total)), wide / math.fsum(wide))


EXPERIMENTS = [
    Experiment(
        f"sum of {TERMS:,} numbers, {order}", "relative error", HIGHAM, partial(long_sum, order)
    )
    for order in ("sequential", "pairwise", "kahan")
]
EXPERIMENTS += [
    Experiment("variance, E[x²] - E[x]²", "relative error", VARIANCE, textbook_variance),
    Experiment("variance, two passes", "relative error", VARIANCE, two_pass_variance),
    Experiment("softmax, as written", "relative error", SOFTMAX, partial(softmax, False)),
    Experiment("softmax, shifted", "relative error", SOFTMAX, partial(softmax, True)),
]
