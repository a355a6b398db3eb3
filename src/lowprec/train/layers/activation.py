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

__all__ = ["Activated", "Activation", "activate", "activation_gradient"]


class Activated(Layer):
    """A layer with a field `activation`: what that stands for."""

    activation: str | ActivationFunction | None

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.function  # spelling mistakes show here

    @functools.cached_property
    def function(self) -> ActivationFunction:
        """The activation, whatever it was given as."""
        return activations.get(self.activation)


@dataclasses.dataclass(frozen=True, repr=False)
class Activation(Activated):
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
