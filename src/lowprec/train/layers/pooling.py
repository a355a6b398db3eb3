"""One number for each window and channel, or for each channel: the largest, or the mean."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.train.layers.layer import Array, Layer, Run, Shape
from lowprec.train.layers.windows import Windows, image_of, padding_name, pair, window_counts

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, repr=False)
class _Pooling2D(Layer):
    """What windows have in common, whatever becomes of them."""

    pool_size: int | tuple[int, int] = (2, 2)
    strides: int | tuple[int, int] | None = None
    padding: str = "valid"

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = type(self).__name__
        object.__setattr__(self, "pool_size", pair(self.pool_size, f"{kind}'s pool_size"))
        if self.strides is not None:
            object.__setattr__(self, "strides", pair(self.strides, f"{kind}'s strides"))
        object.__setattr__(self, "padding", padding_name(self.padding))

    def output_shape(self, shape: Shape) -> Shape:
        """Return the number of windows along each axis, and of channels."""
        counts = window_counts(self, shape, self._size, self._strides, self.padding)
        return (*counts, shape[-1])

    def _windows(self, x: Array) -> Windows:
        return Windows.of(x.shape[1:3], self._size, self._strides, self.padding)

    @property
    def _size(self) -> tuple[int, int]:
        assert isinstance(self.pool_size, tuple)
        return self.pool_size

    @property
    def _strides(self) -> tuple[int, int]:
        assert not isinstance(self.strides, int)
        return self.strides or self._size


@dataclasses.dataclass(frozen=True, repr=False)
class MaxPooling2D(_Pooling2D):
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
        If a number or a name does not serve.

    Examples
    --------
    >>> MaxPooling2D().output_shape((5, 5, 3)), MaxPooling2D(padding="same").output_shape((5, 5, 3))
    ((2, 2, 3), (3, 3, 3))
    """

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return the maxima."""
        windows = self._windows(x)
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
    def _overlaps(self) -> bool:
        (height, width), (down, across) = self._size, self._strides
        return down < height or across < width


@dataclasses.dataclass(frozen=True, repr=False)
class AveragePooling2D(_Pooling2D):
    """The mean of each window and channel: added in float32, in C order, and rounded once.

    Parameters
    ----------
    pool_size, strides
        As for `MaxPooling2D`.
    padding : str
        ``valid``: windows lie within the image. ``same``: they may reach beyond; the mean is of
        the part within.

    Raises
    ------
    ValueError
        If a number or a name does not serve.

    Examples
    --------
    >>> AveragePooling2D(3, strides=1).output_shape((5, 5, 3))
    (3, 3, 3)
    """

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return the means."""
        windows = self._windows(x)
        counts = _sums(windows, np.ones((1, *x.shape[1:3], 1), x.dtype))
        return run.numerics.compute(_sums(windows, x) / counts), (x.shape, counts, windows)

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return the sums of dy, divided by the windows' sizes, over each pixel's windows."""
        if not run.wants_input_gradient:
            return None, {}
        shape, counts, windows = saved
        dx, part = windows.padded(np.zeros(shape, dy.dtype), 0.0), dy / counts
        for where in windows.slices():
            dx[where] += part
        return run.numerics.gradient(windows.cropped(dx)), {}


def _sums(windows: Windows, x: Array) -> Array:
    """Return the sum of each window."""
    padded = windows.padded(x, 0.0)
    first, *others = windows.slices()
    y: Array = padded[first].copy()
    for where in others:
        y += padded[where]
    return y


def _flat(x: Array) -> Array:
    return x.reshape(len(x), x.shape[1] * x.shape[2], x.shape[3])


@dataclasses.dataclass(frozen=True, repr=False)
class _Global(Layer):
    """What layers that leave one number of each channel have in common."""

    keepdims: bool = False

    def output_shape(self, shape: Shape) -> Shape:
        """Return the number of channels, behind axes of 1 if `keepdims`."""
        channels = image_of(self, shape)[-1]
        return (1, 1, channels) if self.keepdims else (channels,)

    def _shaped(self, y: Array) -> Array:
        return y[:, None, None] if self.keepdims else y


@dataclasses.dataclass(frozen=True, repr=False)
class GlobalAveragePooling2D(_Global):
    """The mean of each channel over the image: added in float32, and rounded once.

    Parameters
    ----------
    keepdims : bool
        Whether the image keeps its axes, of one row and one column.

    Examples
    --------
    >>> GlobalAveragePooling2D().output_shape((7, 7, 64))
    (64,)
    """

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return the means."""
        sums = _flat(x).sum(axis=1)
        count = x.shape[1] * x.shape[2]
        return self._shaped(run.numerics.compute(sums / count)), (x.shape, count)

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return dy, divided by the number of pixels, at each of them."""
        if not run.wants_input_gradient:
            return None, {}
        shape, count = saved
        part = run.numerics.gradient(dy.reshape(shape[0], 1, 1, shape[-1]) / count)
        return np.ascontiguousarray(np.broadcast_to(part, shape)), {}


@dataclasses.dataclass(frozen=True, repr=False)
class GlobalMaxPooling2D(_Global):
    """The largest number of each channel; exact. Its gradient goes to the first of equals.

    Parameters
    ----------
    keepdims : bool
        As for `GlobalAveragePooling2D`.

    Examples
    --------
    >>> GlobalMaxPooling2D(keepdims=True).output_shape((7, 7, 64))
    (1, 1, 64)
    """

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return the maxima."""
        flat = _flat(x)
        places = flat.argmax(axis=1, keepdims=True)
        return self._shaped(np.take_along_axis(flat, places, 1)[:, 0]), (x.shape, places)

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return dy where each channel has its maximum, 0 elsewhere."""
        if not run.wants_input_gradient:
            return None, {}
        shape, places = saved
        dx = np.zeros((shape[0], shape[1] * shape[2], shape[3]), dy.dtype)
        np.put_along_axis(dx, places, dy.reshape(places.shape), 1)
        return dx.reshape(shape), {}
