"""Layers that leave out, at random, part of what they get; in training alone."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.train.activations import SELU_ALPHA, SELU_SCALE
from lowprec.train.layers.layer import Array, Layer, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOWEST = -SELU_ALPHA * SELU_SCALE  # what SELU has at -∞


@dataclasses.dataclass(frozen=True, repr=False)
class _Dropping(Layer, abc.ABC):
    """What the two have in common: which places are left out, and that it is in training alone."""

    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rate < 1:
            raise ValueError(
                f"{type(self).__name__}'s rate is {self.rate}; use a probability in [0, 1), such "
                "as 0.2"
            )

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return x with a part of it dropped and the rest scaled; x itself outside training."""
        if not run.training or not self.rate:
            return x, None
        # float32 draws: the same places are kept whatever x's dtype
        is_kept = np.asarray(run.rng().random(x.shape, np.float32)) >= self.rate
        return run.numerics.compute(self._outputs(x, is_kept)), is_kept

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return dy where x was kept, multiplied as x was, and 0 elsewhere."""
        if saved is None or not run.wants_input_gradient:
            return dy, {}
        return run.numerics.gradient(self._gradients(dy, saved)), {}

    @abc.abstractmethod
    def _outputs(self, x: Array, is_kept: Array) -> Array:
        """Return the outputs before they are rounded."""

    @abc.abstractmethod
    def _gradients(self, dy: Array, is_kept: Array) -> Array:
        """Return the gradients with respect to the inputs before they are rounded."""


@dataclasses.dataclass(frozen=True, repr=False)
class Dropout(_Dropping):
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

    def _outputs(self, x: Array, is_kept: Array) -> Array:
        return np.where(is_kept, x * (1 / (1 - self.rate)), 0)

    def _gradients(self, dy: Array, is_kept: Array) -> Array:
        return self._outputs(dy, is_kept)


@dataclasses.dataclass(frozen=True, repr=False)
class AlphaDropout(_Dropping):
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

    def _outputs(self, x: Array, is_kept: Array) -> Array:
        # a = _slope, b = -a · _LOWEST · rate
        return self._slope * np.where(is_kept, x, _LOWEST) - self._slope * _LOWEST * self.rate

    def _gradients(self, dy: Array, is_kept: Array) -> Array:
        return np.where(is_kept, self._slope * dy, 0)

    @property
    def _slope(self) -> float:
        return 1 / math.sqrt((1 - self.rate) * (1 + self.rate * _LOWEST**2))
