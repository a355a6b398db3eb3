"""The activation layer, and activations as Dense and Conv2D end in them."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from lowprec.train import activations
from lowprec.train.layers.layer import Array, Layer, Numerics, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lowprec.train.activations import ActivationFunction


class Activated(Layer):
    """A layer that ends in an activation, which its field `activation` says by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.function  # spelling mistakes show here

    @functools.cached_property
    def function(self) -> ActivationFunction:
        """The activation, whatever it was given as."""
        given: Any = self
        return activations.get(given.activation)


class _Alone(Activated):
    """What activation layers have in common."""

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return f(x)."""
        y = _rounded(self.function, x, run.numerics)
        return y, (x, y)

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return dy · f'(x)."""
        if not run.wants_input_gradient:
            return None, {}
        z, y = saved
        return activation_gradient(self.function, dy, z, y, run.numerics), {}


@dataclasses.dataclass(frozen=True, repr=False)
class Activation(_Alone):
    """An activation as a layer of its own.

    It computes in float32 from rounded inputs, and its outputs are rounded once; those of softmax
    stay in float32.

    Parameters
    ----------
    activation : str or ActivationFunction
        As for `activations.get`.

    Examples
    --------
    >>> Activation("relu")
    Activation('relu')
    """

    activation: str | ActivationFunction | None


@dataclasses.dataclass(frozen=True, repr=False)
class LeakyReLU(_Alone):
    """Leaky ReLU as a layer: x above 0, ``negative_slope · x`` below, rounded once.

    Parameters
    ----------
    negative_slope : float
        In [0, 1]; 0.3 by default, as in Keras, whose function has 0.2.
    alpha : float, optional
        The older word for `negative_slope`.

    Examples
    --------
    >>> LeakyReLU(0.1)
    LeakyReLU(negative_slope=0.1)
    """

    negative_slope: float = 0.3
    alpha: dataclasses.InitVar[float | None] = None

    def __post_init__(self, alpha: float | None) -> None:
        if alpha is not None:
            object.__setattr__(self, "negative_slope", alpha)
        super().__post_init__()

    @functools.cached_property
    def function(self) -> ActivationFunction:
        """The activation with this slope."""
        return activations.leaky(self.negative_slope)


@dataclasses.dataclass(frozen=True, repr=False)
class ELU(_Alone):
    """ELU as a layer: x above 0, ``alpha · (exp(x) - 1)`` below, rounded once.

    Parameters
    ----------
    alpha : float
        0 or more.

    Examples
    --------
    >>> ELU()
    ELU()
    """

    alpha: float = 1.0

    @functools.cached_property
    def function(self) -> ActivationFunction:
        """The activation with this alpha."""
        return activations.exponential_linear(self.alpha)


def ReLU() -> Activation:
    """Return ``Activation("relu")``."""
    return Activation("relu")


def Softmax() -> Activation:
    """Return ``Activation("softmax")``."""
    return Activation("softmax")


def activate(
    function: ActivationFunction, sums: Array, bias: Array | None, numerics: Numerics
) -> tuple[Array, Array]:
    """Round sums + bias once, then apply an activation.

    Parameters
    ----------
    function : ActivationFunction
        The activation.
    sums : array
        What a product left in its accumulator; may be overwritten.
    bias : array, or None
        Added before the rounding.
    numerics : Numerics
        The policy's.

    Returns
    -------
    tuple of arrays
        z, the rounded sum (for ReLU, whose gradient does not need it, y again), and y.
    """
    if function is activations.relu:
        y = numerics.biased(sums, bias, relu=True)
        return y, y
    z = numerics.biased(sums, bias)
    return z, _rounded(function, z, numerics)


def activation_gradient(
    function: ActivationFunction, dy: Array, z: Array, y: Array, numerics: Numerics
) -> Array:
    """Return the gradient with respect to z, rounded; dy itself for linear."""
    if function is activations.relu:
        return numerics.relu_gradient(dy, y)
    dz = function.backward(dy, z, y)
    return numerics.gradient(dz) if function is not activations.linear else dz


def _rounded(function: ActivationFunction, z: Array, numerics: Numerics) -> Array:
    y = function.forward(z)
    return numerics.compute(y) if function.rounds else y
