"""What the passes and the update of a training step call, so that somebody can look at tensors."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.train.running.listening import Heard, Listening, named_backward, named_forward

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lowprec.train.numerics import Numerics
    from lowprec.train.optimizing.state import State

Array = np.ndarray[Any, Any]
Params = dict[str, Array]


class Watch(abc.ABC):
    """What the passes of one step call, beside the layers: the base, which only names tensors.

    Parameters
    ----------
    numerics : Listening
        What layers compute with.

    Attributes
    ----------
    numerics : Listening
        The same.
    """

    hears: Callable[[str, int], None] | None = None
    """What is called for each of NumPy's floating-point errors; None ignores them."""

    def __init__(self, numerics: Listening) -> None:
        self.numerics = numerics
        self.numerics.take()

    def inputs(self) -> None:
        """Look at the network's inputs, which were just rounded."""
        for before, after in self.numerics.take():
            self.see(Heard("activation", "input", before, after))

    def forward(self, layer: int, own: Mapping[str, Array], outputs: Array) -> None:
        """Look at a layer after its forward pass."""
        for heard in named_forward(self.numerics.take(), layer, own, outputs):
            self.see(heard)

    @abc.abstractmethod
    def loss(self, targets: Array, outputs: Array) -> None:
        """Look at what is to be learnt and at what the network gives."""

    def backward(self, layer: int, dx: Array | None, grads: Mapping[str, Array]) -> None:
        """Look at a layer after its backward pass; the loss counts as the layer after the last."""
        for heard in named_backward(self.numerics.take(), layer, dx, grads):
            self.see(heard)

    @abc.abstractmethod
    def settle(self) -> None:
        """Be done with all that was seen: its arrays may change after the call."""

    @abc.abstractmethod
    def see(self, heard: Heard) -> None:
        """Look at a tensor."""


class StepWatch(Watch):
    """What looks at a whole step: at its passes, and at the update too."""

    @abc.abstractmethod
    def store(
        self, state: State, at: Callable[[str], Numerics] | None = None
    ) -> Callable[[Array], Array]:
        """Return what rounds the optimizer's state, which is now as it was before the update.

        `at` gives the numerics of a parameter, where they are not those of the policy.
        """

    @abc.abstractmethod
    def update(
        self,
        updates: Params,
        params: Params,
        state: State,
        at: Callable[[str], Numerics] | None = None,
        sums: Params | None = None,
    ) -> Params:
        """Look at an update and at the weights as they were before it; return their sums.

        Each is rounded to nearest; `sums` are theirs, where they are known.
        """
