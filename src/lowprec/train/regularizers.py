"""Penalties on weights, as Keras has them, and the constraint that bounds their norm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from lowprec.common.names import named
from lowprec.common.processor_state import in_exact_state

Array = np.ndarray[Any, Any]
Constraint = Callable[[Array], Array]


class Regularizer(Protocol):
    """A penalty that is added to the loss."""

    def value(self, w: Array) -> float:
        """Return the penalty on a parameter."""

    def gradient(self, w: Array) -> Array:
        """Return its gradient, in w's dtype."""


@dataclasses.dataclass(frozen=True)
class L1L2:
    """The penalty ``l1 · Σ|w| + l2 · Σw²``.

    Parameters
    ----------
    l1, l2 : float
        The factors, 0 or more.

    Raises
    ------
    ValueError
        If a factor is negative or not finite.

    Examples
    --------
    >>> penalty = L1L2(l1=0.5, l2=0.25)
    >>> w = np.array([2.0, -1.0], np.float32)
    >>> penalty.value(w), penalty.gradient(w)
    (2.75, array([ 1.5, -1. ], dtype=float32))
    """

    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        for name in ("l1", "l2"):
            factor = getattr(self, name)
            if not 0 <= factor < np.inf:
                raise ValueError(f"{name} is {factor}; use a finite number, 0 or more")

    @in_exact_state
    def value(self, w: Array) -> float:
        """Return the penalty, summed in float64."""
        total = 0.0
        if self.l1:
            total += self.l1 * float(np.sum(np.abs(w), dtype=np.float64))
        if self.l2:
            total += self.l2 * float(np.sum(np.square(w, dtype=np.float64)))
        return total

    @in_exact_state
    def gradient(self, w: Array) -> Array:
        """Return ``l1 · sign(w) + 2 · l2 · w`` in w's dtype."""
        gradient: Array = 2 * self.l2 * w
        if self.l1:
            gradient += self.l1 * np.sign(w)
        return gradient


def L1(l1: float = 0.01) -> L1L2:
    """Return the penalty ``l1 · Σ|w|``, which makes weights vanish."""
    return L1L2(l1=l1)


def L2(l2: float = 0.01) -> L1L2:
    """Return the penalty ``l2 · Σw²``, which makes weights small."""
    return L1L2(l2=l2)


@dataclasses.dataclass(frozen=True)
class MaxNorm:
    """The constraint that no unit's incoming weights have a norm above `max_value`.

    Columns within the bound keep their bits. (Keras divides by the norm plus 1e-7 throughout.)

    Parameters
    ----------
    max_value : float
        The largest norm.
    axis : int or tuple of int
        The axes along which norms are formed: 0 for dense kernels (inputs, units), (0, 1, 2) for
        kernels of convolutions.

    Raises
    ------
    ValueError
        If `max_value` is not positive.

    Examples
    --------
    >>> MaxNorm(1.0)(np.array([[3.0, 0.6], [4.0, 0.0]]))
    array([[0.6, 0.6],
           [0.8, 0. ]])
    """

    max_value: float = 2.0
    axis: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        if not self.max_value > 0:
            raise ValueError(f"max_value is {self.max_value}; use a positive norm, such as 2")

    @in_exact_state
    def __call__(self, w: Array) -> Array:
        """Return weights of the same shape and dtype, within the bound but for rounding."""
        norms = np.sqrt(np.square(w).sum(axis=self.axis, keepdims=True))
        constrained: Array = w * (self.max_value / np.maximum(norms, self.max_value))
        return constrained


def l1_l2(l1: float = 0.01, l2: float = 0.01) -> L1L2:
    """Return the penalty of both, with Keras' factors."""
    return L1L2(l1, l2)


l1, l2 = L1, L2  # Keras' other spelling
_NAMED: dict[str, Callable[[], L1L2]] = {"l1": L1, "l2": L2, "l1_l2": l1_l2}


def constraint_of(given: Any) -> Constraint | None:
    """Return a constraint, which is a function of the weights; None for none.

    Raises
    ------
    TypeError
        If it is not a function.
    """
    if given is None or (callable(given) and not isinstance(given, type)):
        found: Constraint | None = given
        return found
    raise TypeError(
        f"{given!r} is not a constraint; pass a function of the weights, such as "
        "train.MaxNorm(2.0), or lambda w: numpy.maximum(w, 0) for weights that are not negative"
    )


def get(regularizer: str | Regularizer | None) -> Regularizer | None:
    """Return the regularizer of a name, with Keras' factor 0.01; others are returned as they are.

    Raises
    ------
    ValueError
        If there is none of that name.
    TypeError
        If it has no value and gradient.

    Examples
    --------
    >>> get("l2")
    L1L2(l1=0.0, l2=0.01)
    """
    if isinstance(regularizer, str):
        return named(regularizer, _NAMED, "regularizer")()
    if regularizer is not None and not hasattr(regularizer, "gradient"):
        raise TypeError(
            f"{regularizer!r} is not a regularizer; use 'l1', 'l2', L1L2(l1, l2), or an object "
            "with value(w) and gradient(w)"
        )
    return regularizer
