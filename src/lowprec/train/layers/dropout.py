"""Layers that leave out, at random, part of what they get; in training alone."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.train.activations import SELU_ALPHA, SELU_SCALE
from lowprec.train.layers.layer import Array, Layer, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AlphaDropout", "Dropout"]


@dataclasses.dataclass(frozen=True, repr=False)
class Dropout(Layer):
    """Zeros at random places, the others multiplied by ``1 / (1 - rate)`` and rounded once.

    Parameters
    ----------
    rate : float
        The probability of a zero, in [0, 1).

    Raises
    ------
    ValueError
        If the rate is none.

    Examples
    --------
    >>> Dropout(0.5)
    Dropout(0.5)
    """

    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_rate(self.rate, "Dropout")

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return what is kept; x itself outside training."""
        if not run.training or not self.rate:
            return x, None
        is_kept = _kept(x, self.rate, run)
        return run.numerics.compute(self._scaled(x, is_kept)), is_kept

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return dy where x was kept, multiplied and rounded alike."""
        if saved is None or not run.wants_input_gradient:
            return dy, {}
        return run.numerics.gradient(self._scaled(dy, saved)), {}

    def _scaled(self, x: Array, is_kept: Array) -> Array:
        return np.where(is_kept, x * (1 / (1 - self.rate)), 0)


@dataclasses.dataclass(frozen=True, repr=False)
class AlphaDropout(Layer):
    """Dropout after SELU: mean 0 and variance 1 stay what they are.

    What is left out is set to the value that SELU has at -∞; then everything goes through
    ``a · x + b``, computed in float32 and rounded once.

    Parameters
    ----------
    rate : float
        The probability of leaving out, in [0, 1).

    Raises
    ------
    ValueError
        If the rate is none.

    Examples
    --------
    >>> AlphaDropout(0.1)
    AlphaDropout(0.1)

    References
    ----------
    Klambauer et al. (2017), Self-Normalizing Neural Networks, NeurIPS, section 2.
    """

    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_rate(self.rate, "AlphaDropout")

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return a · (x where kept, else SELU's lowest value) + b; x itself outside training."""
        if not run.training or not self.rate:
            return x, None
        is_kept = _kept(x, self.rate, run)
        lowest = -SELU_ALPHA * SELU_SCALE
        y = self._slope * np.where(is_kept, x, lowest) - self._slope * lowest * self.rate
        return run.numerics.compute(y), is_kept

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return a · dy where x was kept, 0 elsewhere."""
        if saved is None or not run.wants_input_gradient:
            return dy, {}
        return run.numerics.gradient(np.where(saved, self._slope * dy, 0)), {}

    @property
    def _slope(self) -> float:
        lowest = -SELU_ALPHA * SELU_SCALE
        return 1 / math.sqrt((1 - self.rate) * (1 + self.rate * lowest**2))


def _check_rate(rate: float, layer: str) -> None:
    if not 0 <= rate < 1:
        raise ValueError(f"{layer}'s rate is {rate}; use a probability in [0, 1), such as 0.2")


def _kept(x: Array, rate: float, run: Run) -> Array:
    """Draw which elements are kept, the same ones whatever x's dtype."""
    kept: Array = np.asarray(run.rng().random(x.shape, np.float32)) >= rate
    return kept
