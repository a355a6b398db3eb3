"""The largest of each window."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.train.layers.layer import Array, Layer, Run, Shape
from lowprec.train.layers.windows import Windows, padding_name, pair, window_counts

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, repr=False)
class MaxPooling2D(Layer):
    """The largest number of each window and channel; exact, and NaN where there is one.

    Gradients go to the first of equals, in C order; where windows overlap, they are added in
    float32 and rounded once.

    Parameters
    ----------
    pool_size : int or tuple of two int
        Rows and columns of a window.
    strides : int or tuple of two int, optional
        From one window to the next; by default `pool_size`, so that windows do not overlap.
    padding : str
        ``valid``: windows lie within the image. ``same``: they may reach beyond, where nothing is.

    Raises
    ------
    ValueError
        If a number or a name is none that serves.

    Examples
    --------
    >>> MaxPooling2D().output_shape((5, 5, 3)), MaxPooling2D(padding="same").output_shape((5, 5, 3))
    ((2, 2, 3), (3, 3, 3))
    """

    pool_size: int | tuple[int, int] = (2, 2)
    strides: int | tuple[int, int] | None = None
    padding: str = "valid"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pool_size", pair(self.pool_size, "MaxPooling2D's pool_size"))
        if self.strides is not None:
            object.__setattr__(self, "strides", pair(self.strides, "MaxPooling2D's strides"))
        object.__setattr__(self, "padding", padding_name(self.padding))

    def output_shape(self, shape: Shape) -> Shape:
        """Return the number of windows along each axis, and of channels."""
        counts = window_counts(self, shape, self._size, self._strides, self.padding)
        return (*counts, shape[-1])

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return the maxima."""
        windows = Windows.of(x.shape[1:3], self._size, self._strides, self.padding)
        padded = windows.padded(x, -math.inf)
        first, *others = windows.slices()
        y = padded[first].copy()
        for where in others:
            np.maximum(y, padded[where], out=y)
        return y, (padded, y, windows)

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return dy at the first place of each window that holds its maximum, 0 elsewhere."""
        if not run.wants_input_gradient:
            return None, {}
        padded, y, windows = saved
        dx = np.zeros_like(padded)
        is_open = np.ones(y.shape, np.bool_)  # the window's maximum has not been met yet
        for where in windows.slices():
            is_maximum = is_open & ~(padded[where] < y)  # a NaN is no less than NaN
            dx[where] += np.where(is_maximum, dy, 0)
            is_open &= ~is_maximum
        dx = windows.cropped(dx)
        return run.numerics.gradient(dx) if self._overlaps else dx, {}

    @property
    def _size(self) -> tuple[int, int]:
        assert isinstance(self.pool_size, tuple)
        return self.pool_size

    @property
    def _strides(self) -> tuple[int, int]:
        assert not isinstance(self.strides, int)
        return self.strides or self._size

    @property
    def _overlaps(self) -> bool:
        (height, width), (down, across) = self._size, self._strides
        return down < height or across < width
