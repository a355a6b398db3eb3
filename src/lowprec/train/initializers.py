"""What weights start from: Keras' initializers as functions of a shape and a generator."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lowprec.common.names import named, one_of
from lowprec.common.processor_state import in_exact_state

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "ones",
    "random_normal",
    "zeros",
]

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Initializer = Callable[[Shape, np.random.Generator], Array]

_TRUNCATED_DEVIATION = 0.87962566103423978  # of a standard normal cut off beyond 2
_MODES = ("fan_in", "fan_out", "fan_avg")
_DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform")


@dataclasses.dataclass(frozen=True)
class VarianceScaling:
    """Weights of mean 0 and variance ``scale / fan``, so that signals keep their size.

    Parameters
    ----------
    scale : float
        What a layer's variance is multiplied by.
    mode : str
        Which fan: ``fan_in`` (inputs of a unit), ``fan_out`` (units that read an input) or
        ``fan_avg`` (their mean).
    distribution : str
        ``truncated_normal`` (redrawn beyond two standard deviations, and widened so that the
        variance is right all the same), ``untruncated_normal`` or ``uniform``.
    seed : int, optional
        Draws from this seed, every time, instead of from the model's generator.

    Raises
    ------
    ValueError
        If the scale is not positive, or a name is unknown.

    Examples
    --------
    >>> weights = VarianceScaling(2.0)((1000, 50), np.random.default_rng(0))
    >>> weights.dtype, round(float(weights.var()), 4)
    (dtype('float32'), 0.002)
    """

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"
    seed: int | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale is {self.scale}; use a positive number, such as 1 or 2")
        one_of(self.mode, _MODES, "mode")
        one_of(self.distribution, _DISTRIBUTIONS, "distribution")

    @in_exact_state
    def __call__(self, shape: Shape, rng: np.random.Generator) -> Array:
        """Draw float32 weights of a shape."""
        rng = _seeded(self.seed, rng)
        fan_in, fan_out = fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        deviation = math.sqrt(self.scale / max(1.0, fan))
        if self.distribution == "uniform":
            limit = math.sqrt(3) * deviation
            return rng.uniform(-limit, limit, shape).astype(np.float32)
        if self.distribution == "untruncated_normal":
            return (deviation * rng.standard_normal(shape)).astype(np.float32)
        values = _truncated_normal(shape, rng)
        return (deviation / _TRUNCATED_DEVIATION * values).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class RandomNormal:
    """Normal weights of a given standard deviation, which is too small or too large for most.

    Parameters
    ----------
    stddev : float
        The standard deviation.
    mean : float
        The mean.
    seed : int, optional
        As for `VarianceScaling`.
    """

    stddev: float = 0.05
    mean: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.stddev >= 0:
            raise ValueError(f"stddev is {self.stddev}; use 0 or more")

    @in_exact_state
    def __call__(self, shape: Shape, rng: np.random.Generator) -> Array:
        """Draw float32 weights of a shape."""
        return _seeded(self.seed, rng).normal(self.mean, self.stddev, shape).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class RandomUniform:
    """Weights spread evenly over an interval.

    Parameters
    ----------
    minval, maxval : float
        Its ends.
    seed : int, optional
        As for `VarianceScaling`.
    """

    minval: float = -0.05
    maxval: float = 0.05
    seed: int | None = None

    def __post_init__(self) -> None:
        if not -math.inf < self.minval <= self.maxval < math.inf:
            raise ValueError(
                f"minval={self.minval} and maxval={self.maxval}: use finite ends in their order"
            )

    @in_exact_state
    def __call__(self, shape: Shape, rng: np.random.Generator) -> Array:
        """Draw float32 weights of a shape."""
        draws = _seeded(self.seed, rng).uniform(self.minval, self.maxval, shape)
        return draws.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class TruncatedNormal(RandomNormal):
    """Normal weights, redrawn beyond two standard deviations.

    Parameters
    ----------
    stddev : float
        The standard deviation before numbers are redrawn.
    mean : float
        The mean.
    seed : int, optional
        As for `VarianceScaling`.
    """

    @in_exact_state
    def __call__(self, shape: Shape, rng: np.random.Generator) -> Array:
        """Draw float32 weights of a shape."""
        draws = _truncated_normal(shape, _seeded(self.seed, rng))
        return (self.mean + self.stddev * draws).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Constant:
    """Weights that are all the same.

    Parameters
    ----------
    value : float
        Their value.
    """

    value: float = 0.0

    @in_exact_state
    def __call__(self, shape: Shape, rng: np.random.Generator) -> Array:
        """Return float32 weights of a shape; `rng` is left alone."""
        return np.full(shape, self.value, np.float32)


glorot_uniform = VarianceScaling(1.0, "fan_avg", "uniform")
glorot_normal = VarianceScaling(1.0, "fan_avg", "truncated_normal")
he_uniform = VarianceScaling(2.0, "fan_in", "uniform")
he_normal = VarianceScaling(2.0, "fan_in", "truncated_normal")
lecun_uniform = VarianceScaling(1.0, "fan_in", "uniform")
lecun_normal = VarianceScaling(1.0, "fan_in", "truncated_normal")
random_normal = RandomNormal  # as in random_normal(0.01)
zeros = Constant(0.0)
ones = Constant(1.0)


def _class(initializer: VarianceScaling) -> Callable[..., VarianceScaling]:
    """Return what is called as a class of Keras."""
    return lambda seed=None: dataclasses.replace(initializer, seed=seed)


GlorotUniform, GlorotNormal = _class(glorot_uniform), _class(glorot_normal)
HeUniform, HeNormal = _class(he_uniform), _class(he_normal)
LecunUniform, LecunNormal = _class(lecun_uniform), _class(lecun_normal)
Zeros, Ones = (lambda: zeros), (lambda: ones)

NAMED: dict[str, Initializer] = {
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "he_uniform": he_uniform,
    "he_normal": he_normal,
    "lecun_uniform": lecun_uniform,
    "lecun_normal": lecun_normal,
    "random_normal": RandomNormal(),
    "normal": RandomNormal(),
    "random_uniform": RandomUniform(),
    "uniform": RandomUniform(),
    "truncated_normal": TruncatedNormal(),
    "zeros": zeros,
    "ones": ones,
}


def get(initializer: str | Initializer) -> Initializer:
    """Return the initializer of a name; a function ``(shape, rng) -> array`` is one already.

    Raises
    ------
    ValueError
        If there is none of that name.
    TypeError
        If it is neither a name nor a function.

    Examples
    --------
    >>> get("he_normal")
    VarianceScaling(scale=2.0, mode='fan_in', distribution='truncated_normal')
    """
    if isinstance(initializer, str):
        return named(initializer, NAMED, "initializer")
    if not callable(initializer) or isinstance(initializer, type):
        raise TypeError(
            f"{initializer!r} is not an initializer; use a name, such as 'he_normal', a value, "
            "such as RandomNormal(0.01), or a function of (shape, rng)"
        )
    return initializer


def fans(shape: Shape) -> tuple[float, float]:
    """Return how many inputs a unit has and how many units an input reaches, as Keras counts.

    shape: Of a kernel: ``(inputs, units)``, or ``(height, width, inputs, units)``.

    Examples
    --------
    >>> fans((3, 3, 8, 16))
    (72, 144)
    """
    if len(shape) < 2:
        size = math.prod(shape)
        return size, size
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


def _seeded(seed: int | None, rng: np.random.Generator) -> np.random.Generator:
    return rng if seed is None else np.random.default_rng(seed)


def _truncated_normal(shape: Shape, rng: np.random.Generator) -> Array:
    """Draw standard normal numbers, again and again those beyond 2."""
    values = rng.standard_normal(shape)
    beyond = np.abs(values) > 2
    while beyond.any():
        values[beyond] = rng.standard_normal(np.count_nonzero(beyond))
        beyond = np.abs(values) > 2
    return values
