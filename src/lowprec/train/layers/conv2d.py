"""The convolution of images."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lowprec.train.layers.activation import Activated, activate, activation_gradient
from lowprec.train.layers.layer import Array, Run, Shape, column_sums, positive
from lowprec.train.layers.windows import Windows, padding_name, pair, window_counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lowprec.train.activations import ActivationFunction
    from lowprec.train.initializers import Initializer
    from lowprec.train.regularizers import Constraint, Regularizer


@dataclasses.dataclass(frozen=True, repr=False)
class Conv2D(Activated):
    """Every output reads one window of the image: one matrix product of windows and kernel.

    Rounding is that of `Dense`: an output is rounded once, from the accumulated sum of its window
    and bias. In the backward pass the policy's accumulator sums over filters, and a pixel's
    windows are then added in float32.

    Parameters
    ----------
    filters : int
        Output channels.
    kernel_size : int or tuple of two int
        Rows and columns of a window.
    strides : int or tuple of two int
        From one window to the next.
    padding : str
        ``valid``: windows lie within the image. ``same``: a border of zeros is added so that there
        are ⌈size / stride⌉ windows along an axis.
    activation : str or ActivationFunction, optional
        As for `activations.get`; none is linear.
    use_bias : bool
        Whether each filter has a bias.
    kernel_initializer, bias_initializer : str or callable
        As for `initializers.get`.
    kernel_regularizer, bias_regularizer : str or Regularizer, optional
        As for `regularizers.get`.
    kernel_constraint, bias_constraint : callable, optional
        What the parameter is put through after each update.

    Raises
    ------
    ValueError
        If a number or a name does not serve.

    Examples
    --------
    >>> layer = Conv2D(32, 3, padding="same", strides=2)
    >>> layer.output_shape((28, 28, 1)), layer.parameter_shapes((28, 28, 1))["kernel"]
    ((14, 14, 32), (3, 3, 1, 32))
    """

    filters: int
    kernel_size: int | tuple[int, int]
    strides: int | tuple[int, int] = (1, 1)
    padding: str = "valid"
    activation: str | ActivationFunction | None = None
    use_bias: bool = True
    kernel_initializer: str | Initializer = "glorot_uniform"
    bias_initializer: str | Initializer = "zeros"
    kernel_regularizer: str | Regularizer | None = None
    bias_regularizer: str | Regularizer | None = None
    kernel_constraint: Constraint | None = None
    bias_constraint: Constraint | None = None

    reads_rounded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "filters", positive(self.filters, "Conv2D's filters"))
        for name in ("kernel_size", "strides"):
            object.__setattr__(self, name, pair(getattr(self, name), f"Conv2D's {name}"))
        object.__setattr__(self, "padding", padding_name(self.padding))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Kernel, and bias if there is one."""
        return ("kernel", "bias") if self.use_bias else ("kernel",)

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Return the kernel's shape, (height, width, channels, filters), and the bias'."""
        return {"kernel": (*self._size, shape[-1], self.filters), "bias": (self.filters,)}

    def output_shape(self, shape: Shape) -> Shape:
        """Return the number of windows along each axis, and of filters."""
        counts = window_counts(self, shape, self._size, self._strides, self.padding)
        return (*counts, self.filters)

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return activation(windows of x · kernel + bias), one row of the product a window."""
        numerics = run.numerics
        kernel = numerics.compute(params["kernel"]).reshape(-1, self.filters)
        bias = numerics.compute(params["bias"]) if self.use_bias else None
        windows = Windows.of(x.shape[1:3], self._size, self._strides, self.padding)
        rows = _rows(windows.padded(x, 0.0), windows)
        z, y = activate(self.function, numerics.forward_product(rows, kernel), bias, numerics)
        saved = x.shape, rows, kernel, z, y
        return y.reshape(len(x), *windows.counts, self.filters), saved

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return the sums of dz · kernelᵀ over each pixel's windows, and rowsᵀ · dz and Σ dz."""
        shape, rows, kernel, z, y = saved
        numerics = run.numerics
        dz = activation_gradient(self.function, dy.reshape(y.shape), z, y, numerics)
        gradients = {}
        if self.trainable:
            gradient = numerics.kernel_gradient(rows, dz, run.rng)
            gradients["kernel"] = gradient.reshape(params["kernel"].shape)
            if self.use_bias:
                sums = column_sums(dz.reshape(len(dy), -1, self.filters))
                gradients["bias"] = numerics.gradient(sums)
        if not run.wants_input_gradient:
            return None, gradients
        windows = Windows.of(shape[1:3], self._size, self._strides, self.padding)
        dx = windows.padded(np.zeros(shape, dz.dtype), 0.0)
        places = kernel.reshape(-1, shape[-1], self.filters)
        for where, place in zip(windows.slices(), places, strict=True):
            part = numerics.input_gradient_sums(dz, place, run.rng)
            dx[where] += part.reshape(len(dy), *windows.counts, shape[-1])
        return numerics.gradient(windows.cropped(dx)), gradients

    @property
    def _size(self) -> tuple[int, int]:
        assert isinstance(self.kernel_size, tuple)
        return self.kernel_size

    @property
    def _strides(self) -> tuple[int, int]:
        assert isinstance(self.strides, tuple)
        return self.strides


def _rows(x: Array, windows: Windows) -> Array:
    """Return a matrix with a row for each window, in the order of the kernel's elements."""
    (down, across), n, channels = windows.strides, len(x), x.shape[-1]
    views = np.lib.stride_tricks.sliding_window_view(x, windows.size, axis=(1, 2))
    places = math.prod(windows.size)
    return (
        views[:, ::down, ::across]
        .transpose(0, 1, 2, 4, 5, 3)
        .reshape(n * math.prod(windows.counts), places * channels)
    )
