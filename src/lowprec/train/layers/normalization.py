"""Normalisation over the batch and over each sample; statistics are float32 in every policy."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lowprec.train.layers.layer import Array, Layer, Run, Shape, column_sums

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lowprec.train.initializers import Initializer
    from lowprec.train.regularizers import Constraint, Regularizer


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class _Normalization(Layer):
    """What the two have in common: ``gamma · (x - mean) / deviation + beta``, rounded once."""

    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: str | Initializer = "zeros"
    gamma_initializer: str | Initializer = "ones"
    beta_regularizer: str | Regularizer | None = None
    gamma_regularizer: str | Regularizer | None = None
    beta_constraint: Constraint | None = None
    gamma_constraint: Constraint | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.epsilon < math.inf:
            raise ValueError(
                f"{type(self).__name__}'s epsilon is {self.epsilon}; it is added to variances: "
                "use 0 or a small positive number"
            )

    @property
    def parameters(self) -> tuple[str, ...]:
        """Gamma and beta, as far as there are any, and moving statistics."""
        return ("gamma",) * self.scale + ("beta",) * self.center + self.statistics

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Return one number for each element of the last axis."""
        return dict.fromkeys(self.parameters, shape[-1:])

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        if not shape:
            raise ValueError(f"{self!r} takes samples of one axis or more, not (); use x[:, None]")
        return shape

    def _transformed(self, params: Mapping[str, Array], normal: Array, run: Run) -> Array:
        """Return gamma · normal + beta, rounded."""
        y = normal * params["gamma"] if self.scale else normal
        return run.numerics.compute(y + params["beta"] if self.center else y)

    def _gradients(self, beta: Array, gamma: Array, run: Run) -> dict[str, Array]:
        """Return what is trained of the gradients of beta and gamma, rounded."""
        sums = {"gamma": gamma, "beta": beta}
        return {name: run.numerics.gradient(sums[name]) for name in self.trained}


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class BatchNormalization(_Normalization):
    """Each feature (element of the last axis) with mean 0 and variance 1 over the batch.

    In training the batch's own mean and biased variance serve, and moving averages of them are
    kept; otherwise, and in a frozen layer, those serve.

    Parameters
    ----------
    momentum : float
        What is kept of a moving average at each step, in [0, 1].
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether there is a beta, and a gamma.
    beta_initializer, gamma_initializer : str or callable
        As for `initializers.get`.
    moving_mean_initializer, moving_variance_initializer : str or callable
        The same.
    beta_regularizer, gamma_regularizer : str or Regularizer, optional
        As for `regularizers.get`.
    beta_constraint, gamma_constraint : callable, optional
        What the parameter is put through after each update.

    Raises
    ------
    ValueError
        If a number or a name does not serve.

    Examples
    --------
    >>> BatchNormalization().parameters
    ('gamma', 'beta', 'moving_mean', 'moving_variance')

    References
    ----------
    Ioffe and Szegedy (2015), Batch Normalization, ICML.
    """

    momentum: float = 0.99
    moving_mean_initializer: str | Initializer = "zeros"
    moving_variance_initializer: str | Initializer = "ones"

    statistics: ClassVar[tuple[str, ...]] = ("moving_mean", "moving_variance")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum <= 1:
            raise ValueError(
                f"BatchNormalization's momentum is {self.momentum}; use a number in [0, 1]"
            )

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return the normalised batch."""
        by_batch = run.training and self.trainable
        if by_batch:
            count = math.prod(x.shape[:-1])
            mean = column_sums(x) / count
            centred = x - mean
            variance = column_sums(centred * centred) / count
            self._average(params, {"moving_mean": mean, "moving_variance": variance}, run)
        else:
            centred, variance = x - params["moving_mean"], params["moving_variance"]
        inverse = 1 / np.sqrt(variance + self.epsilon)
        normal = centred * inverse
        return self._transformed(params, normal, run), (normal, inverse, by_batch)

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return the gradient, through the batch's statistics too, and those of gamma and beta."""
        normal, inverse, by_batch = saved
        beta, gamma = column_sums(dy), column_sums(dy * normal)
        gradients = self._gradients(beta, gamma, run)
        if not run.wants_input_gradient:
            return None, gradients
        dx = dy
        if by_batch:
            count = math.prod(dy.shape[:-1])
            dx = dy - beta / count - normal * (gamma / count)
        factor = inverse * params["gamma"] if self.scale else inverse
        return run.numerics.gradient(dx * factor), gradients

    def _average(self, params: Mapping[str, Array], found: dict[str, Array], run: Run) -> None:
        for name, value in found.items():
            run.updates[name] = params[name] * self.momentum + value * (1 - self.momentum)


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class LayerNormalization(_Normalization):
    """Each sample with mean 0 and variance 1 over its last axis.

    Parameters
    ----------
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether there is a beta, and a gamma.
    beta_initializer, gamma_initializer : str or callable
        As for `initializers.get`.
    beta_regularizer, gamma_regularizer : str or Regularizer, optional
        As for `regularizers.get`.
    beta_constraint, gamma_constraint : callable, optional
        What the parameter is put through after each update.

    Raises
    ------
    ValueError
        If a number or a name does not serve.

    Examples
    --------
    >>> LayerNormalization(epsilon=1e-5)
    LayerNormalization(epsilon=1e-05)

    References
    ----------
    Ba, Kiros and Hinton (2016), Layer Normalization, arXiv:1607.06450.
    """

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Return the normalised samples."""
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        inverse = 1 / np.sqrt(variance + self.epsilon)
        normal = centred * inverse
        return self._transformed(params, normal, run), (normal, inverse)

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return the gradient, through the statistics too, and those of gamma and beta."""
        normal, inverse = saved
        gradients = self._gradients(column_sums(dy), column_sums(dy * normal), run)
        if not run.wants_input_gradient:
            return None, gradients
        g = dy * params["gamma"] if self.scale else dy
        mean = g.mean(axis=-1, keepdims=True)
        dx = inverse * (g - mean - normal * (g * normal).mean(axis=-1, keepdims=True))
        return run.numerics.gradient(dx), gradients
