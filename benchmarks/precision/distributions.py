"""Data to round: real tensors, and distributions that people assume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import lowprec as lp

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

COUNT = 100_000


def synthetic() -> dict[str, Array]:
    """Draw from distributions, each from its own seed."""
    draws = [np.random.default_rng(seed) for seed in range(6)]
    return {
        "normal": draws[0].standard_normal(COUNT),
        "uniform in 0…1": draws[1].random(COUNT),
        "lognormal, σ = 4": draws[2].lognormal(0, 4, COUNT),
        "Student's t, 2 degrees": draws[3].standard_t(2, COUNT),
        "Cauchy": draws[4].standard_cauchy(COUNT),
        # as Micikevicius et al. (2018), Mixed precision training, figure 3, shows them
        "like gradients: 2^normal(-22, 6)": np.exp2(draws[5].normal(-22, 6, COUNT)),
    }


def real() -> dict[str, Array]:
    """Return scikit-learn's bundled data and what is computed from them."""
    from lowprec.report.datasets import load

    return load()


def kept(x: Array, fmt: lp.Format) -> dict[str, float | None]:
    """Tell which part of nonzero data is kept within an ulp, how wide it is, and the worst error.

    An ulp is that of the format's precision at the number's own exponent, whatever the format's
    range, so that what overflows, becomes zero or becomes a coarse subnormal is not kept. The worst
    error is None where something overflows.
    """
    x = np.asarray(x, np.float64).ravel()
    x = x[x != 0]
    y = lp.round_to(x, fmt).astype(np.float64)
    ulps = np.exp2(np.frexp(x)[1] - fmt.precision)
    with np.errstate(invalid="ignore"):
        errors = np.abs(y - x)
        relative = errors / np.abs(x)
    sizes = np.log2(np.abs(x))
    finite = np.isfinite(relative)
    return {
        "share within 1 ulp": float(np.mean(errors <= ulps)),
        "binades of the data": float(sizes.max() - sizes.min()),
        "worst relative error": float(relative.max(initial=0)) if finite.all() else None,
        "overflowed": float(np.mean(~finite)),
        "became zero": float(np.mean(y == 0)),
    }
