"""The fully connected layer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from lowprec.arrays.direct import lies_flat
from lowprec.train import activations
from lowprec.train.layers.activation import Activated, activate, activation_gradient
from lowprec.train.layers.layer import FLOAT32, Array, Run, Shape, column_sums, positive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lowprec.train.activations import ActivationFunction
    from lowprec.train.initializers import Initializer
    from lowprec.train.regularizers import Constraint, Regularizer


@dataclasses.dataclass(frozen=True, repr=False)
class Dense(Activated):
    """Every output reads every input: ``y = activation(x · kernel + bias)``.

    Under a policy, kernel and bias are rounded to its compute format, ``x · kernel + bias`` is
    rounded once, from the accumulated sum, and the activation of that is rounded again.

    Parameters
    ----------
    units : int
        Outputs.
    activation : str or ActivationFunction, optional
        As for `activations.get`; none is linear.
    use_bias : bool
        Whether there is a bias.
    kernel_initializer, bias_initializer : str or callable
        As for `initializers.get`.
    kernel_regularizer, bias_regularizer : str or Regularizer, optional
        As for `regularizers.get`.
    kernel_constraint, bias_constraint : callable, optional
        What the parameter is put through after each update, such as ``MaxNorm(1.0)``.

    Raises
    ------
    ValueError
        If a number or a name does not serve.

    Examples
    --------
    >>> layer = Dense(3, activation="relu")
    >>> layer, layer.output_shape((4,))
    (Dense(3, activation='relu'), (3,))
    >>> layer.parameter_shapes((4,))
    {'kernel': (4, 3), 'bias': (3,)}
    """

    units: int
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
        object.__setattr__(self, "units", positive(self.units, "Dense's units"))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Kernel, and bias if there is one."""
        return ("kernel", "bias") if self.use_bias else ("kernel",)

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Return the kernel's shape, (inputs, units), and the bias'."""
        return {"kernel": (shape[-1], self.units), "bias": (self.units,)}

    def output_shape(self, shape: Shape) -> Shape:
        """Replace the last axis."""
        if not shape:
            raise ValueError(f"{self!r} takes samples of one axis or more, not (); use x[:, None]")
        return (*shape[:-1], self.units)

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return activation(x · kernel + bias), along the last axis."""
        numerics = run.numerics
        affine = self._affine(run)
        if affine is not None and _are_plain(x, params["kernel"]):
            is_relu = self.function is activations.relu
            kernel, y = affine.forward(x, params["kernel"], params["bias"], is_relu)
            return y, (x, kernel, y, y)
        kernel = numerics.compute(params["kernel"])
        bias = numerics.compute(params["bias"]) if self.use_bias else None
        sums = numerics.forward_product(_rows(x), kernel)
        z, y = activate(self.function, sums, bias, numerics)
        saved = x, kernel, z, y
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], self.units), saved

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return dz · kernelᵀ, and the gradients xᵀ · dz and Σ dz."""
        x, kernel, z, y = saved
        numerics = run.numerics
        affine = self._affine(run) if self.trainable else None
        if affine is not None and _are_plain(x, dy):
            left = y if self.function is activations.relu else None
            *found, dx = affine.backward(x, kernel, left, dy, run.wants_input_gradient)
            return dx, dict(zip(("kernel", "bias"), found, strict=True))
        dz = activation_gradient(self.function, _rows(dy), z, y, numerics)
        gradients = {}
        if self.trainable:
            gradients["kernel"] = numerics.kernel_gradient(_rows(x), dz, run.rng)
            if self.use_bias:
                gradients["bias"] = numerics.gradient(column_sums(dz))
        if not run.wants_input_gradient:
            return None, gradients
        dx = numerics.input_gradient(dz, kernel, run.rng)
        return dx if x.ndim == 2 else dx.reshape(x.shape), gradients

    def _affine(self, run: Run) -> Any:
        """Return what makes a whole pass in one call; None where there is nothing that does."""
        if self.function not in (activations.relu, activations.linear):
            return None
        if not self.use_bias or self.units == 1:  # one column is summed in another order
            return None
        return getattr(run.numerics, "affine", None)


def _are_plain(*arrays: Array) -> bool:
    """Whether arrays are contiguous matrices of float32, and not empty."""
    return all(a.ndim == 2 and a.size and lies_flat(a, FLOAT32) for a in arrays)


def _rows(x: Array) -> Array:
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
