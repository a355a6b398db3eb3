"""Operands of products in block formats: each is quantized along the axis that its product sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.blocks.formats import BlockFormat
from lowprec.blocks.quantizing import round_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.train.policy import Policy

    RNG = Callable[[], np.random.Generator]

Array = np.ndarray[Any, Any]
_INPUTS, _KERNEL, _TRANSFORM = range(3)  #: what a layer draws a key for, in this order


class BlockOperands:
    """What a policy with block formats does to the operands of a layer's three products.

    policy: Its `compute` or `gradients` is a block format.
    """

    def __init__(self, policy: Policy) -> None:
        self.compute, self.gradients = policy.compute, policy.gradients
        wide = policy.weights if isinstance(self.compute, BlockFormat) else None
        self.weights = self.compute if wide is None else wide
        self.rounding = {"nearest": "ties_to_even"}.get(
            policy.gradient_rounding, policy.gradient_rounding
        )
        self.hadamard = policy.hadamard

    def forward(self, x: Array, kernel: Array) -> tuple[Array, Array]:
        """Return inputs and kernel, quantized along the inputs' features."""
        return _rounded(x, self.compute, -1), _rounded(kernel, self.weights, 0)

    def input_gradient(self, dz: Array, kernel: Array, rng: RNG) -> tuple[Array, Array]:
        """Return dz and the transposed kernel, quantized along the outputs' features."""
        gradient = self._gradient(dz, -1, rng, _INPUTS)
        return gradient, _rounded(kernel, self.weights, 1).T

    def kernel_gradient(self, x: Array, dz: Array, rng: RNG) -> tuple[Array, Array]:
        """Return the transposed inputs and dz, quantized along the samples.

        With a Hadamard transform both are multiplied before by one random orthogonal matrix, along
        the samples, which leaves their product as it is and spreads outliers over blocks.
        """
        if self.hadamard:
            signs = _draw(rng, _TRANSFORM).integers(0, 2, self.hadamard)
            x, dz = (_transformed(operand, signs) for operand in (x, dz))
        gradient = self._gradient(dz, 0, rng, _KERNEL)
        return _rounded(x, self.compute, 0).T, gradient

    def _gradient(self, dz: Array, axis: int, rng: RNG, purpose: int) -> Array:
        if self.rounding == "ties_to_even":
            return _rounded(dz, self.gradients, axis)
        key = _draw(rng, purpose)
        return _rounded(dz, self.gradients, axis, rounding=self.rounding, rng=key)


def _draw(rng: RNG, purpose: int) -> np.random.Generator:
    """Return a generator of its own for each purpose: a layer's is the same at every call."""
    keys = rng().integers(0, 2**63, 3)
    return np.random.default_rng(int(keys[purpose]))


def _rounded(x: Array, fmt: Any, axis: int, **how: Any) -> Array:
    """Quantize a float32 matrix; what is not in a block format has been rounded as a tensor."""
    if not isinstance(fmt, BlockFormat):
        return x
    rounded: Array = round_blocks(x, fmt, axis=-1 if fmt.is_tiled else axis, **how)
    return rounded


def _transformed(x: Array, signs: Array) -> Array:
    """Return groups of rows multiplied by a Hadamard matrix and random signs, over √size."""
    size = len(signs)
    groups = -(-len(x) // size)
    padded = np.zeros((groups * size, x.shape[1]), x.dtype)
    padded[: len(x)] = x
    matrix = np.ones((1, 1), x.dtype)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    matrix = matrix * np.where(signs, 1, -1).astype(x.dtype) / x.dtype.type(np.sqrt(size))
    parts = padded.reshape(groups, size, -1)
    turned: Array = (matrix[None, :, :, None] * parts[:, None, :, :]).sum(2, dtype=x.dtype)
    return turned.reshape(groups * size, -1)
