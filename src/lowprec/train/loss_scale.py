"""Loss scaling: a frozen value that says by what to multiply the loss, and how that adapts."""

from __future__ import annotations

import copy
import dataclasses
import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.names import named
from lowprec.common.processor_state import in_exact_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import ArrayLike

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class LossScale:
    """What the loss is multiplied by, so that small gradients survive a narrow format.

    After `growth_interval` steps in a row whose scaled gradients are all finite the value grows; a
    step whose scaled gradients are not is skipped, and the value backs off. The loss itself is
    never looked at: a float16 loss can be infinite while its gradients are fine.

    Parameters
    ----------
    value : float
        The scale S. It is rounded to float32, as are every later value and the bounds.
    growth_factor, backoff_factor : float
        What the value is multiplied by, ``>= 1`` and in ``(0, 1]``. Both 1: a static scale.
    growth_interval : int
        Finite steps in a row before the value grows. Growth that would leave float32 is dropped.
    minimum, maximum : float
        Bounds of the value; 0 and infinity for none.
    hysteresis : int
        Bad steps (each of them skipped) that it takes to back off; after that every further one
        backs off, until the value grows again (as in Megatron-LM and DeepSpeed).
    good_steps : int
        Finite steps since the last bad one or the last growth.
    hysteresis_left : int, optional
        Bad steps still needed to back off; `hysteresis` at first.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Examples
    --------
    >>> scale = LossScale.torch()
    >>> scale.value, scale.adjust(finite=False).value
    (65536.0, 32768.0)
    >>> LossScale(1024.0, growth_interval=2).adjust(True).adjust(True).value
    2048.0
    """

    value: float = 65536.0
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    minimum: float = 0.0
    maximum: float = math.inf
    hysteresis: int = 1
    good_steps: int = 0
    hysteresis_left: int | None = None

    @in_exact_state
    def __post_init__(self) -> None:
        if self.hysteresis_left is None:
            object.__setattr__(self, "hysteresis_left", self.hysteresis)
        for name in ("growth_interval", "hysteresis", "good_steps", "hysteresis_left"):
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        for name in ("value", "minimum", "maximum"):
            object.__setattr__(self, name, _in_float32(getattr(self, name)))
        for words in self._broken_rules():
            raise ValueError(words)

    def _broken_rules(self) -> Iterator[str]:
        """Say what is wrong; there is a new value every step, so words are made only then."""
        if not self.minimum >= 0:
            yield f"minimum={self.minimum}: it must be at least 0"
        if not (math.isfinite(self.value) and self.minimum <= self.value <= self.maximum):
            yield (
                f"a loss scale of {self.value}: it must be finite in float32 and within "
                f"[{self.minimum}, {self.maximum}]; pass minimum= or maximum= to widen that"
            )
        if not (1 <= self.growth_factor < math.inf and 0 < self.backoff_factor <= 1):
            yield (
                f"growth_factor={self.growth_factor}, backoff_factor={self.backoff_factor}: the "
                "first must be at least 1, the second in (0, 1]; LossScale.static(S) never changes"
            )
        if not (self.growth_interval >= 1 and self.hysteresis >= 1):
            yield (
                f"growth_interval={self.growth_interval}, hysteresis={self.hysteresis}: both count "
                "steps, from 1 on"
            )
        if not (self.good_steps >= 0 and 0 <= (self.hysteresis_left or 0) <= self.hysteresis):
            yield (
                f"good_steps={self.good_steps}, hysteresis_left={self.hysteresis_left}: the first "
                f"is at least 0, the second in [0, {self.hysteresis}]"
            )

    @classmethod
    def torch(cls, **changes: Any) -> LossScale:
        """``torch.amp.GradScaler``: from 65536, ×2 after 2000 good steps, ×0.5, no lower bound."""
        return cls(**changes)

    @classmethod
    def keras(cls, **changes: Any) -> LossScale:
        """Keras' ``LossScaleOptimizer``: as `torch`, from 32768.

        Keras itself lets the scale grow to infinity, from where it never returns; here such growth
        is dropped.
        """
        return cls(**{"value": 32768.0, **changes})

    @classmethod
    def jmp(cls, **changes: Any) -> LossScale:
        """``jmp.DynamicLossScale``: from 32768, ×2 after 2000 good steps, ÷2, never below 1."""
        return cls(**{"value": 32768.0, "minimum": 1.0, **changes})

    @classmethod
    def static(cls, value: float) -> LossScale:
        """Return a scale that never changes; steps that are not finite are still skipped."""
        if not value > 0:
            raise ValueError(f"a loss scale of {value}: it must be positive")
        return cls(value, growth_factor=1.0, backoff_factor=1.0)

    @classmethod
    def get(cls, scale: LossScale | float | str | None) -> LossScale | None:
        """Return the loss scale that a user means.

        Parameters
        ----------
        scale : LossScale, float, str or None
            A number is a static scale; ``"dynamic"`` is `torch`; ``"torch"``, ``"keras"`` and
            ``"jmp"`` are those presets; None is none: nothing is scaled, no step is skipped.

        Raises
        ------
        ValueError
            If there is no scale of this name.

        Examples
        --------
        >>> LossScale.get(1024).value, LossScale.get("dynamic") == LossScale.torch()
        (1024.0, True)
        """
        if scale is None or isinstance(scale, LossScale):
            return scale
        if isinstance(scale, str):
            presets: dict[str, Callable[[], LossScale]]
            presets = {"dynamic": cls.torch, "torch": cls.torch, "keras": cls.keras, "jmp": cls.jmp}
            return named(scale, presets, "loss scale")()
        return cls.static(scale)

    @property
    def is_static(self) -> bool:
        """Whether `adjust` never changes it."""
        return self.growth_factor == self.backoff_factor == 1

    @property
    @in_exact_state
    def inverse(self) -> np.float32:
        """What `unscale` multiplies by; 1/0 is infinity here, for PyTorch's scale may reach 0."""
        with np.errstate(all="ignore"):
            return np.float32(np.float64(1) / np.float64(self.value))

    @in_exact_state
    def scale(self, loss: ArrayLike) -> Any:
        """Return the loss, or its gradient, times the value: one rounding, at least in float32.

        Parameters
        ----------
        loss : array_like
            A number or an array; what is narrower than float32 gives float32.

        Returns
        -------
        scalar or ndarray
            Infinite where the product overflows.

        Examples
        --------
        >>> LossScale.static(1024).scale(np.float32(0.5))
        np.float32(512.0)
        """
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return np.multiply(loss, np.float32(self.value))

    @in_exact_state
    def unscale(
        self, gradients: Mapping[str, Array], *, out: dict[str, Array] | None = None
    ) -> dict[str, Array]:
        """Return the gradients times float32(1/S), where 1/S is taken in float64, as PyTorch does.

        Parameters
        ----------
        gradients : mapping of str to ndarray
            Scaled gradients; they are not changed.
        out : dict of str to ndarray, optional
            Where to write: arrays by the same names; `gradients` itself to work in place.

        Returns
        -------
        dict of str to ndarray
            `out` where it was given. A factor that is a power of two is exact but for underflow.

        Examples
        --------
        >>> LossScale.static(4).unscale({"0/bias": np.float32([8, 2])})
        {'0/bias': array([2. , 0.5], dtype=float32)}
        """
        inverse = self.inverse
        with np.errstate(all="ignore"):
            if out is None:
                return {name: np.multiply(g, inverse) for name, g in gradients.items()}
            for name, g in gradients.items():
                np.multiply(g, inverse, out=out[name])
        return out

    @in_exact_state
    def adjust(self, finite: bool) -> LossScale:
        """Return the scale of the next step.

        Parameters
        ----------
        finite : bool
            Whether all scaled gradients of this step were finite.

        Examples
        --------
        >>> patient = LossScale(hysteresis=2)
        >>> patient.adjust(False).value, patient.adjust(False).adjust(False).value
        (65536.0, 32768.0)
        """
        if self.is_static:
            return self
        return self._after_a_good_step() if finite else self._after_a_bad_step()

    def _after_a_good_step(self) -> LossScale:
        if self.good_steps + 1 < self.growth_interval:
            counted = copy.copy(self)  # after nearly every step, and checking fields takes longer
            object.__setattr__(counted, "good_steps", self.good_steps + 1)
            return counted
        grown = _in_float32(self.value * self.growth_factor)
        value = min(grown, self.maximum) if math.isfinite(grown) else self.value
        return dataclasses.replace(self, value=value, good_steps=0, hysteresis_left=self.hysteresis)

    def _after_a_bad_step(self) -> LossScale:
        left = max((self.hysteresis_left or 0) - 1, 0)
        backed_off = max(self.value * self.backoff_factor, self.minimum)
        value = self.value if left else backed_off
        return dataclasses.replace(self, value=value, good_steps=0, hysteresis_left=left)


def _in_float32(value: float) -> float:
    """Return the nearest float32 number; infinity beyond its range."""
    if -3e38 < value < 3e38:  # as nearly always, and without what silence costs
        return float(np.float32(value))
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(value))
