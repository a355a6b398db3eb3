"""Numerics that remember what they rounded, and what of it belongs to which tensor of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.train.numerics import Numerics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lowprec.train.policy import Policy

Array = np.ndarray[Any, Any]
Params = dict[str, Array]


class Heard(NamedTuple):
    """A tensor of a layer, before and after it was rounded."""

    kind: str
    name: str
    before: Array
    after: Array


class Listening(Numerics):
    """The numerics of a policy, bit for bit, with the arrays before and after each rounding.

    rounded (list of tuple of array): What was rounded since the list was taken, in order: before
        and after.
    longest (int): The most terms that a product summed up.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.rounded: list[tuple[Array, Array]] = []
        self.longest = 0
        self._root = self  # who remembers
        self._places: dict[Policy, Listening] = {}

    def at(self, policy: Policy) -> Numerics:
        """Return the numerics of a place, whose roundings are remembered here."""
        if policy == self.policy:
            return self
        found = self._places.get(policy)
        if found is None:
            found = self._places[policy] = Listening(policy)
            found._root = self
        return found

    def take(self) -> list[tuple[Array, Array]]:
        """Return what was rounded, and forget it."""
        taken, self.rounded = self.rounded, []
        return taken

    def compute(self, x: Array) -> Array:
        """As the policy's, and remember."""
        return self._heard(x, super().compute(x))

    def gradient(self, g: Array) -> Array:
        """As the policy's, and remember."""
        return self._heard(g, super().gradient(g))

    def gradient_product(self, a: Array, b: Array) -> Array:
        """As the policy's, and remember."""
        return self.gradient(self.matmul(a, b))

    def biased(self, z: Array, bias: Array | None, relu: bool = False) -> Array:
        """As the policy's, and remember; what ReLU makes zero was zero before."""
        before = z + (z.dtype.type(0) if bias is None else bias)  # z may be overwritten
        if relu:
            np.maximum(before, 0, out=before)
        return self._heard(before, super().biased(z, bias, relu))

    def matmul(self, a: Array, b: Array) -> Array:
        """As the policy's; remember how many terms the sums have."""
        self._root.longest = max(self._root.longest, a.shape[1])
        return super().matmul(a, b)

    def _hear_all(self, pairs: list[tuple[Array, Array]], terms: int) -> None:
        self._root.rounded += pairs
        self._root.longest = max(self._root.longest, terms)

    def _heard(self, before: Array, after: Array) -> Array:
        self._root.rounded.append((before, after))
        return after


def named_forward(
    rounded: list[tuple[Array, Array]], layer: int, own: Mapping[str, Array], outputs: Array
) -> Iterator[Heard]:
    """Yield what a layer rounded in its forward pass: weights, activations, the sums before those.

    rounded: From `Listening.take`.
    own: Its parameters by short name.
    """
    for before, after in rounded:
        weight = _name_of(before, own)
        if weight is not None:
            yield Heard("weight", f"{layer}/{weight}", before, after)
        elif _is_same(after, outputs):
            yield Heard("activation", str(layer), before, after)
        else:
            yield Heard("preactivation", str(layer), before, after)


def named_backward(
    rounded: list[tuple[Array, Array]], layer: int, dx: Array | None, grads: Mapping[str, Array]
) -> Iterator[Heard]:
    """Yield what a layer rounded in its backward pass: the gradients that leave it.

    The gradient with respect to its inputs is that of the activations of the layer before.

    rounded, layer: As for `named_forward`.
    dx: The gradient with respect to its inputs.
    grads: Those of its parameters by short name.
    """
    for before, after in rounded:
        weight = _name_of(after, grads)
        if weight is not None:
            yield Heard("weight_gradient", f"{layer}/{weight}", before, after)
        elif dx is not None and _is_same(after, dx):
            name = str(layer - 1) if layer else "input"
            yield Heard("activation_gradient", name, before, after)


def _name_of(x: Array, arrays: Mapping[str, Array]) -> str | None:
    """Return the first name of an array among some, None where it is not among them."""
    for name, known in arrays.items():
        if x is known or (x.size == known.size and _is_same(x, known)):
            return name
    return None


def _is_same(a: Array, b: Array) -> bool:
    """Return whether two arrays are one, though perhaps of different shapes."""
    return a is b or (a.size == b.size and bool(a.size) and np.may_share_memory(a, b))
