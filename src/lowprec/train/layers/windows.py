"""Where the windows of convolutions and pooling lie in an image."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lowprec.common.names import one_of
from lowprec.train.layers.layer import Array, Shape, positive

if TYPE_CHECKING:
    from collections.abc import Iterator

Pair = tuple[int, int]


class Windows(NamedTuple):
    """Windows of one size in images of shape (samples, height, width, channels).

    With padding ``same`` there are ⌈size / stride⌉ of them along an axis, and what is missing is
    added half before and half after, the odd one after, as in Keras; with ``valid`` as many as fit.
    """

    size: Pair
    strides: Pair
    counts: Pair  # along the height and along the width
    before: Pair  # rows and columns that are added
    after: Pair

    @classmethod
    def of(cls, image: Pair, size: Pair, strides: Pair, padding: str) -> Windows:
        """Place windows in images of these rows and columns."""
        return _placed(image, size, strides, padding)

    def padded(self, x: Array, value: float) -> Array:
        """Return images with a border of `value`: x itself where none is needed."""
        if self.before == self.after == (0, 0):
            return x
        (top, left), (bottom, right) = self.before, self.after
        n, height, width, channels = x.shape
        shape = (n, top + height + bottom, left + width + right, channels)
        result = np.full(shape, value, x.dtype)
        result[:, top : top + height, left : left + width] = x
        return result

    def cropped(self, x: Array) -> Array:
        """Return images without their border."""
        (top, left), (bottom, right) = self.before, self.after
        return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]

    def slices(self) -> Iterator[tuple[slice, slice, slice]]:
        """Return, for each place in a window, in C order, where the windows have it in images."""
        (height, width), (down, across), (rows, columns) = self.size, self.strides, self.counts
        for i in range(height):
            for j in range(width):
                yield (
                    slice(None),
                    slice(i, i + down * (rows - 1) + 1, down),
                    slice(j, j + across * (columns - 1) + 1, across),
                )


@functools.lru_cache(maxsize=256)
def _placed(image: Pair, size: Pair, strides: Pair, padding: str) -> Windows:
    axes = [_along(*axis, padding) for axis in zip(image, size, strides, strict=True)]
    counts, before, after = zip(*axes, strict=True)
    return Windows(size, strides, counts, before, after)


def _along(length: int, size: int, stride: int, padding: str) -> tuple[int, int, int]:
    """Return along one axis the number of windows, and what is added before and after."""
    if padding == "valid":
        return (length - size) // stride + 1, 0, 0
    count = -(-length // stride)
    missing = max(0, (count - 1) * stride + size - length)
    return count, missing // 2, missing - missing // 2


def window_counts(layer: object, shape: Shape, size: Pair, strides: Pair, padding: str) -> Pair:
    """Return how many windows there are; ValueError if `shape` is not an image that holds one."""
    image = image_of(layer, shape)[:2]
    if padding == "valid" and (image[0] < size[0] or image[1] < size[1]):
        raise ValueError(
            f"{layer!r} has windows of {size}, larger than images of {image}; use "
            "padding='same' or smaller windows"
        )
    return Windows.of(image, size, strides, padding).counts


def image_of(layer: object, shape: Shape) -> tuple[int, int, int]:
    """Return height, width and channels of an image; ValueError if it is none."""
    if len(shape) != 3:
        raise ValueError(
            f"{layer!r} takes images of shape (height, width, channels), not {shape}"
            + ("; add the channel with x[..., None]" if len(shape) == 2 else "")
        )
    return shape[0], shape[1], shape[2]


def pair(size: int | tuple[int, int], what: str) -> Pair:
    """Return rows and columns; one number stands for both."""
    sizes = tuple(size) if isinstance(size, tuple | list) else (operator.index(size),) * 2
    if len(sizes) != 2:
        raise ValueError(f"{what}: {size}; use one number, or two for height and width")
    return positive(sizes[0], what), positive(sizes[1], what)


def padding_name(padding: str) -> str:
    """Return ``"same"`` or ``"valid"``, in whatever case it was given."""
    return one_of(str(padding).lower(), ("same", "valid"), "padding")
