"""The shape of a network's inputs."""

from __future__ import annotations

import dataclasses
import operator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lowprec.train.layers.layer import Shape


@dataclasses.dataclass(frozen=True, repr=False)
class Input:
    """What stands first in a `Sequential`: the shape of one sample. It is not a layer.

    Parameters
    ----------
    shape : tuple of int
        Without the number of samples.

    Raises
    ------
    TypeError
        If it is not a tuple of integers.
    ValueError
        If an axis is empty.

    Examples
    --------
    >>> Input((28, 28, 1)).shape
    (28, 28, 1)
    """

    shape: Shape

    def __post_init__(self) -> None:
        if isinstance(self.shape, int):
            raise TypeError(
                f"Input takes one sample's shape as a tuple; use Input(({self.shape},))"
            )
        shape = tuple(operator.index(size) for size in self.shape)
        if any(size < 1 for size in shape):
            raise ValueError(f"Input has shape {shape}; use sizes of 1 or more, without the batch")
        object.__setattr__(self, "shape", shape)

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return f"Input({self.shape})"
