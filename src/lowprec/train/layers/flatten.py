"""From images to vectors."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from lowprec.train.layers.layer import Array, Layer, Run, Shape

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, repr=False)
class Flatten(Layer):
    """Each sample as a vector, in C order.

    Examples
    --------
    >>> Flatten().output_shape((28, 28, 1))
    (784,)
    """

    def output_shape(self, shape: Shape) -> Shape:
        """Return the number of elements."""
        return (math.prod(shape),)

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return x in another shape."""
        return x.reshape(len(x), math.prod(x.shape[1:])), x.shape

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return dy in x's shape."""
        return dy.reshape(saved), {}
