"""Activation functions, each beside its derivative."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.names import named
from lowprec.common.processor_state import in_exact_state
from lowprec.train import exponentials
from lowprec.train.exponentials import exp, softmax_and_logarithm, softplus_tanh
from lowprec.train.gaussian import normal_density, normal_distribution

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

__all__ = [
    "SELU_ALPHA",
    "SELU_SCALE",
    "ActivationFunction",
    "elu",
    "exponential_linear",
    "gelu",
    "get",
    "leaky",
    "leaky_relu",
    "linear",
    "mish",
    "relu",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "swish",
    "tanh",
]

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class ActivationFunction:
    """An activation and its backward pass; both keep the dtype of what they get.

    Parameters
    ----------
    name : str
        How it is called.
    forward : callable
        ``z -> y``, of the same shape; axis 0 counts samples. It does not write into z.
    backward : callable
        ``(dy, z, y) -> dz``: from the gradient with respect to y, z itself, and y after rounding.
        It does not write into what it is given.
    rounds : bool
        Whether y is to be rounded: False where it is a value of z's format anyway (ReLU), and for
        softmax, which stays in float32.
    family : callable, optional
        What makes it of numbers, as `leaky` does: ``negative_slope=0.1``.
    made_by : tuple of (str, dict), optional
        The name of the one whose `family` made this one, and the numbers.

    Examples
    --------
    >>> square = ActivationFunction("square", lambda z: z * z, lambda dy, z, y: 2 * z * dy)
    >>> square.backward(np.ones(2), np.array([1.0, 3.0]), np.array([1.0, 9.0]))
    array([2., 6.])
    """

    name: str
    forward: Callable[[Array], Array] = dataclasses.field(repr=False)
    backward: Callable[[Array, Array, Array], Array] = dataclasses.field(repr=False)
    rounds: bool = True
    family: Callable[..., ActivationFunction] | None = dataclasses.field(
        default=None, repr=False, compare=False
    )
    made_by: tuple[str, dict[str, float]] | None = dataclasses.field(
        default=None, repr=False, compare=False
    )

    def __call__(self, z: npt.ArrayLike, **numbers: float) -> Array:
        """Return the activation of an array: its `forward`.

        z: Integers become float64.
        **numbers: Of leaky_relu its `negative_slope`, of elu its `alpha`.

        Examples
        --------
        >>> softmax([[0.0, 0.0]])
        array([[0.5, 0.5]])
        >>> leaky_relu([-1.0, 2.0], negative_slope=0.5)
        array([-0.5,  2. ])
        """
        if numbers:
            if self.family is None:
                raise TypeError(
                    f"{self.name} has no {', '.join(map(repr, numbers))}; leaky_relu has "
                    "negative_slope, and elu alpha"
                )
            return self.family(**numbers)(z)
        array = np.asarray(z)
        return self.forward(array.astype(np.float64) if array.dtype.kind in "biu" else array)

    def __reduce__(self) -> Any:
        """Pickle the named ones by name, so that they stay what they are in other processes."""
        if NAMED.get(self.name) is self:
            return get, (self.name,)
        if self.made_by is not None:
            name, numbers = self.made_by
            return functools.partial(get(name).family or get, **numbers), ()
        return ActivationFunction, (self.name, self.forward, self.backward, self.rounds)


# Linear and piecewise linear ---------------------------------------------------------------------


def _linear(z: Array) -> Array:
    return z


def _linear_backward(dy: Array, z: Array, y: Array) -> Array:
    return dy


@in_exact_state
def _relu(z: Array) -> Array:
    return np.where(z <= 0, 0, z)  # NaN stays NaN, and -0 becomes 0


@in_exact_state
def _relu_backward(dy: Array, z: Array, y: Array) -> Array:
    return np.where(y > 0, dy, 0)


@in_exact_state
def _leaky_relu(z: Array, slope: float = 0.2) -> Array:  # as in Keras
    leaky: Array = np.maximum(z, slope * z)
    return leaky


@in_exact_state
def _leaky_relu_backward(dy: Array, z: Array, y: Array, slope: float = 0.2) -> Array:
    return np.where(z > 0, dy, slope * dy)


def leaky(negative_slope: float = 0.2) -> ActivationFunction:
    """Return leaky ReLU, max(z, negative_slope · z), as an activation.

    Parameters
    ----------
    negative_slope : float
        In [0, 1].

    Raises
    ------
    ValueError
        If the slope is outside.
    """
    if not 0 <= negative_slope <= 1:
        raise ValueError(f"negative_slope={negative_slope}: use a slope in [0, 1], such as 0.2")
    return ActivationFunction(
        f"leaky_relu({negative_slope:g})",
        functools.partial(_leaky_relu, slope=negative_slope),
        functools.partial(_leaky_relu_backward, slope=negative_slope),
        made_by=("leaky_relu", {"negative_slope": negative_slope}),
    )


# With exponentials -------------------------------------------------------------------------------


@in_exact_state
def _sigmoid(z: Array) -> Array:
    return exponentials.sigmoid(z)


@in_exact_state
def _sigmoid_backward(dy: Array, z: Array, y: Array) -> Array:
    dz: Array = dy * y * (1 - y)
    return dz


@in_exact_state
def _tanh(z: Array) -> Array:
    return exponentials.tanh(z)


@in_exact_state
def _tanh_backward(dy: Array, z: Array, y: Array) -> Array:
    dz: Array = dy * (1 - y * y)
    return dz


@in_exact_state
def _elu(z: Array, alpha: float = 1.0) -> Array:
    negative = exponentials.elu(z)
    return negative if alpha == 1 else np.where(z > 0, z, alpha * negative)


@in_exact_state
def _elu_backward(dy: Array, z: Array, y: Array, alpha: float = 1.0) -> Array:
    slope = exp(np.minimum(z, 0))
    dz: Array = dy * (slope if alpha == 1 else np.where(z > 0, 1, alpha * slope))
    return dz


def exponential_linear(alpha: float = 1.0) -> ActivationFunction:
    """Return ELU, z above 0 and alpha · (exp(z) - 1) below, as an activation.

    Parameters
    ----------
    alpha : float
        What it approaches at -∞, with the sign changed; 0 or more.

    Raises
    ------
    ValueError
        If it is negative or not finite.
    """
    if not 0 <= alpha < math.inf:
        raise ValueError(f"alpha={alpha}: use a finite number, 0 or more, such as 1")
    return ActivationFunction(
        f"elu({alpha:g})",
        functools.partial(_elu, alpha=alpha),
        functools.partial(_elu_backward, alpha=alpha),
        made_by=("elu", {"alpha": alpha}),
    )


# The fixed point of Klambauer et al. (2017): outputs keep mean 0 and variance 1.
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@in_exact_state
def _selu(z: Array) -> Array:
    return SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * exponentials.elu(z))


@in_exact_state
def _selu_backward(dy: Array, z: Array, y: Array) -> Array:
    return SELU_SCALE * dy * np.where(z > 0, 1, SELU_ALPHA * exp(np.minimum(z, 0)))


@in_exact_state
def _swish(z: Array) -> Array:
    return z * _sigmoid(z)


@in_exact_state
def _swish_backward(dy: Array, z: Array, y: Array) -> Array:
    share = exponentials.sigmoid(z)
    dz: Array = dy * share * (1 + z * (1 - share))
    return dz


@in_exact_state
def _mish(z: Array) -> Array:
    return z * softplus_tanh(z)


@in_exact_state
def _mish_backward(dy: Array, z: Array, y: Array) -> Array:
    t = softplus_tanh(z)
    dz: Array = dy * (t + z * _sigmoid(z) * (1 - t * t))
    return dz


@in_exact_state
def _softmax(z: Array) -> Array:
    return softmax_and_logarithm(z)[0]


@in_exact_state
def _softmax_backward(dy: Array, z: Array, y: Array) -> Array:
    dz: Array = y * (dy - (dy * y).sum(axis=-1, keepdims=True))
    return dz


# With the normal distribution --------------------------------------------------------------------


@in_exact_state
def _gelu(z: Array) -> Array:
    return z * normal_distribution(z)


@in_exact_state
def _gelu_backward(dy: Array, z: Array, y: Array) -> Array:
    dz: Array = dy * (normal_distribution(z) + z * normal_density(z))
    return dz


# By name -----------------------------------------------------------------------------------------

linear = ActivationFunction("linear", _linear, _linear_backward, rounds=False)
relu = ActivationFunction("relu", _relu, _relu_backward, rounds=False)

NAMED = {
    function.name: function
    for function in (
        linear,
        ActivationFunction("sigmoid", _sigmoid, _sigmoid_backward),
        ActivationFunction("tanh", _tanh, _tanh_backward),
        relu,
        ActivationFunction("leaky_relu", _leaky_relu, _leaky_relu_backward, family=leaky),
        ActivationFunction("elu", _elu, _elu_backward, family=exponential_linear),
        ActivationFunction("selu", _selu, _selu_backward),
        ActivationFunction("gelu", _gelu, _gelu_backward),
        ActivationFunction("swish", _swish, _swish_backward),
        ActivationFunction("mish", _mish, _mish_backward),
        ActivationFunction("softmax", _softmax, _softmax_backward, rounds=False),
    )
}
_ALIASES = {"silu": "swish"}

sigmoid, tanh, softmax = NAMED["sigmoid"], NAMED["tanh"], NAMED["softmax"]
leaky_relu, elu, selu = NAMED["leaky_relu"], NAMED["elu"], NAMED["selu"]
gelu, swish, silu, mish = NAMED["gelu"], NAMED["swish"], NAMED["swish"], NAMED["mish"]


def get(activation: Any) -> ActivationFunction:
    """Return the activation of a name; None is linear.

    Parameters
    ----------
    activation : str, ActivationFunction, activation layer or None
        One of linear, sigmoid, tanh, relu, leaky_relu (slope 0.2), elu, selu, gelu (the exact
        one), swish (or silu), mish, softmax; one of your own; or a layer such as
        ``LeakyReLU(0.1)``.

    Raises
    ------
    ValueError
        If there is none of that name.
    TypeError
        If it is something else.

    Examples
    --------
    >>> get("tanh").forward(np.zeros(2, np.float32))
    array([0., 0.], dtype=float32)
    """
    if isinstance(activation, ActivationFunction):
        return activation
    if activation is None:
        return linear
    if isinstance(activation, str):
        return named(_ALIASES.get(activation, activation), NAMED, "activation")
    function = getattr(activation, "function", None)  # of a layer
    if isinstance(function, ActivationFunction):
        return function
    raise TypeError(
        f"{activation!r} is not an activation: a function alone does not say its derivative; use "
        "ActivationFunction(name, forward, backward)"
    )
