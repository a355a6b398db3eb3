"""The same numbers in another shape."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from lowprec.train.layers.layer import Array, Layer, Run, Shape, positive

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Reshaping(Layer):
    """What the two have in common: passes that move nothing."""

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return x in another shape."""
        return x.reshape(len(x), *self.output_shape(x.shape[1:])), x.shape

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return dy in x's shape."""
        return dy.reshape(saved), {}


@dataclasses.dataclass(frozen=True, repr=False)
class Flatten(_Reshaping):
    """Each sample as a vector, in C order.

    Examples
    --------
    >>> Flatten().output_shape((28, 28, 1))
    (784,)
    """

    def output_shape(self, shape: Shape) -> Shape:
        """Return the number of elements."""
        return (math.prod(shape),)


@dataclasses.dataclass(frozen=True, repr=False)
class Reshape(_Reshaping):
    """Each sample in another shape, in C order.

    Parameters
    ----------
    target_shape : tuple of int
        Of one sample; one axis may be -1, which is what is left.

    Raises
    ------
    ValueError
        If a size is none; and in a model, if the samples have another number of elements.

    Examples
    --------
    >>> Reshape((28, 28, 1)).output_shape((784,)), Reshape((7, -1)).output_shape((28, 28))
    ((28, 28, 1), (7, 112))
    """

    target_shape: Shape

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.target_shape
        sizes = tuple(given) if isinstance(given, tuple | list) else (given,)
        shape = tuple(n if n == -1 else positive(n, "Reshape's target_shape") for n in sizes)
        if shape.count(-1) > 1:
            raise ValueError(f"Reshape has target_shape {shape}; one axis alone may be -1")
        object.__setattr__(self, "target_shape", shape)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the target, with what is left in place of -1."""
        size, known = math.prod(shape), math.prod(n for n in self.target_shape if n != -1)
        found = tuple(size // known if n == -1 else n for n in self.target_shape)
        if math.prod(found) != size:
            raise ValueError(
                f"{self!r} cannot take samples of shape {shape}, which are {size} numbers; use a "
                "target_shape of as many"
            )
        return found
