"""Recipes: a network and its optimizer from a list of widths, with choices that go together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lowprec.common.processor_state import in_exact_state
from lowprec.train.layers import (
    Activation,
    AlphaDropout,
    BatchNormalization,
    Dense,
    Flatten,
    Input,
    Layer,
)
from lowprec.train.model import Sequential
from lowprec.train.optimizers import AdamW, Nesterov
from lowprec.train.schedules import OneCycle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.train.optimizing.optimizer import Optimizer

__all__ = ["Recipe", "default", "self_normalizing"]

_DEEP = 4  # hidden layers from which on a network is called deep


class Recipe(NamedTuple):
    """A network and the optimizer that suits it.

    Attributes
    ----------
    model : Sequential
        Its last layer is linear: for classifiers its outputs are logits.
    optimizer : Optimizer
        With its schedule.
    """

    model: Sequential
    optimizer: Optimizer


@in_exact_state
def default(
    widths: Sequence[int | tuple[int, ...]],
    steps: int | None = None,
    *,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
) -> Recipe:
    """Return what works for most tables of numbers.

    Kernels start as He's. With up to three hidden layers the activation is ELU; deeper networks use
    batch normalisation, then Swish. AdamW follows a one-cycle schedule.

    Parameters
    ----------
    widths : sequence of int
        Inputs, units of each hidden layer, outputs. Inputs may be a shape, which is flattened.
    steps : int, optional
        How many steps the training takes, epochs times batches an epoch: the length of the cycle.
        Without it the rate stays what it is.
    learning_rate : float
        The highest rate of the cycle.
    weight_decay : float
        That of `AdamW`.

    Returns
    -------
    Recipe
        A tuple of model and optimizer.

    Raises
    ------
    ValueError
        If there are fewer than two widths, or a number is out of its range.

    Examples
    --------
    >>> model, optimizer = default([64, 100, 100, 10], steps=450)
    >>> [type(layer).__name__ for layer in model.layers], model.layers[0].activation
    (['Dense', 'Dense', 'Dense'], 'elu')
    >>> optimizer.name, optimizer.rate(134)
    ('AdamW', 0.003)
    """
    inputs, hidden, outputs = _split(widths)
    layers: list[Layer] = []
    for units in hidden:
        if len(hidden) < _DEEP:
            layers += [Dense(units, "elu", kernel_initializer="he_normal")]
        else:  # the normalisation has a bias of its own
            dense = Dense(units, use_bias=False, kernel_initializer="he_normal")
            layers += [dense, BatchNormalization(), Activation("swish")]
    rate = learning_rate if steps is None else OneCycle(learning_rate, steps)
    optimizer = AdamW(rate, weight_decay=weight_decay)
    return Recipe(Sequential([*inputs, *layers, Dense(outputs)]), optimizer)


@in_exact_state
def self_normalizing(
    widths: Sequence[int | tuple[int, ...]],
    steps: int | None = None,
    *,
    learning_rate: float = 1e-2,
    momentum: float = 0.9,
    dropout: float = 0.1,
) -> Recipe:
    """Return a network of dense layers that keep mean 0 and variance 1 by themselves.

    Kernels start as LeCun's, SELU is the activation, alpha dropout follows each hidden layer, and
    Nesterov's momentum trains it. Standardise the inputs: the theory assumes it.

    Parameters
    ----------
    widths : sequence of int
        Inputs, units of each hidden layer, outputs. Inputs may be a shape, which is flattened.
    steps : int, optional
        How many steps the training takes, for a one-cycle schedule up to `learning_rate`. Without
        it the rate stays what it is.
    learning_rate, momentum : float
        Those of `Nesterov`.
    dropout : float
        The rate of `AlphaDropout`; 0 for none.

    Returns
    -------
    Recipe
        A tuple of model and optimizer.

    Raises
    ------
    ValueError
        If there are fewer than two widths, or a number is out of its range.

    References
    ----------
    G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural networks", 2017.

    Examples
    --------
    >>> model, optimizer = self_normalizing([30, 50, 2])
    >>> [type(layer).__name__ for layer in model.layers], optimizer.name
    (['Dense', 'AlphaDropout', 'Dense'], 'Nesterov')
    """
    inputs, hidden, outputs = _split(widths)
    layers: list[Layer] = []
    for units in hidden:
        layers += [Dense(units, "selu", kernel_initializer="lecun_normal")]
        layers += [AlphaDropout(dropout)] if dropout else []
    rate = learning_rate if steps is None else OneCycle(learning_rate, steps)
    model = Sequential([*inputs, *layers, Dense(outputs, kernel_initializer="lecun_normal")])
    return Recipe(model, Nesterov(rate, momentum))


def _split(
    widths: Sequence[int | tuple[int, ...]],
) -> tuple[list[Input | Layer], list[int], int]:
    """Return the layers that take the inputs, the hidden widths and that of the output."""
    if len(widths) < 2:
        raise ValueError(
            f"widths={widths!r}: pass inputs, hidden layers and outputs, as in [64, 100, 10]"
        )
    first, *units = widths
    hidden = [width for width in units if not isinstance(width, tuple)]
    if len(hidden) < len(units):
        raise ValueError(f"widths={widths!r}: only the inputs, which come first, may be a shape")
    shape = first if isinstance(first, tuple) else (first,)
    flat: list[Layer] = [Flatten()] if len(shape) > 1 else []
    return [Input(shape), *flat], hidden[:-1], hidden[-1]
