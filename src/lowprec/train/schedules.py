"""Schedules: the learning rate as a function of the finished steps.

Each is a frozen value that is called with the number of finished steps, from 0: ``schedule(0)`` is
the rate of the first step. Any function of the step serves as well. With ``unit="epochs"`` a
schedule counts finished epochs wherever it says steps: its rate changes from epoch to epoch.
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING

from lowprec.common.names import one_of
from lowprec.common.processor_state import in_exact_state
from lowprec.train.optimizing.optimizer import require_fraction, require_not_negative
from lowprec.train.plateau import Performance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.train.optimizing.optimizer import Rate

__all__ = [
    "Cosine",
    "CosineDecay",
    "Exponential",
    "ExponentialDecay",
    "InverseTimeDecay",
    "OneCycle",
    "Performance",
    "PiecewiseConstant",
    "PiecewiseConstantDecay",
    "Power",
    "Schedule",
    "WarmUp",
]

Schedule = Callable[[int], float]


@dataclasses.dataclass(frozen=True)
class Power:
    """``learning_rate / (1 + step / steps)**power``: inverse time decay where the power is 1.

    Parameters
    ----------
    learning_rate : float
        The rate at first.
    steps : float
        After how many steps the rate is divided by ``2**power``.
    power : float
        How fast it falls.
    unit : {"steps", "epochs"}
        What is counted.
    staircase : bool
        Whether ``step / steps`` is rounded down to a whole number.

    Examples
    --------
    >>> Power(0.1, steps=10)(10)
    0.05
    """

    learning_rate: float
    steps: float = 1
    power: float = 1.0
    unit: str = "steps"
    staircase: bool = False

    def __post_init__(self) -> None:
        _require_unit(self.unit)
        require_not_negative(learning_rate=self.learning_rate, power=self.power)
        _require_positive(steps=self.steps)

    @in_exact_state
    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` steps."""
        part = step // self.steps if self.staircase else step / self.steps
        return float(self.learning_rate / (1 + part) ** self.power)


@dataclasses.dataclass(frozen=True)
class Exponential:
    """``learning_rate * decay_rate**(step / steps)``: ``torch.optim.lr_scheduler.ExponentialLR``.

    Parameters
    ----------
    learning_rate : float
        The rate at first.
    decay_rate : float
        What it is multiplied by every `steps` steps, at most 1; PyTorch's ``gamma``.
    steps : float
        How many.
    unit : {"steps", "epochs"}
        What is counted.
    staircase : bool
        Whether ``step / steps`` is rounded down to a whole number.

    Examples
    --------
    >>> Exponential(0.1, decay_rate=0.5, steps=100)(200)
    0.025
    """

    learning_rate: float
    decay_rate: float
    steps: float = 1
    unit: str = "steps"
    staircase: bool = False

    def __post_init__(self) -> None:
        _require_unit(self.unit)
        require_not_negative(learning_rate=self.learning_rate, decay_rate=self.decay_rate)
        _require_positive(steps=self.steps)
        if self.decay_rate > 1:
            raise ValueError(
                f"decay_rate={self.decay_rate}: the rate would grow, and a decay is at most 1; if "
                f"{self.decay_rate} is the number of steps, write "
                f"Exponential({self.learning_rate}, decay_rate=0.5, steps={self.decay_rate})"
            )

    @in_exact_state
    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` steps."""
        part = step // self.steps if self.staircase else step / self.steps
        return float(self.learning_rate * self.decay_rate**part)


@dataclasses.dataclass(frozen=True)
class PiecewiseConstant:
    """One rate up to each boundary: from ``boundaries[i]`` on, ``values[i + 1]`` holds.

    Parameters
    ----------
    boundaries : tuple of int
        Numbers of finished steps, ascending. As in PyTorch's ``MultiStepLR`` the new rate holds
        after exactly that number; Keras' takes one step more.
    values : tuple of float
        The rates, one more than boundaries.
    unit : {"steps", "epochs"}
        What is counted.

    Examples
    --------
    >>> rate = PiecewiseConstant((100, 200), (0.1, 0.01, 0.001))
    >>> rate(99), rate(100), rate(500)
    (0.1, 0.01, 0.001)
    """

    boundaries: tuple[int, ...]
    values: tuple[float, ...]
    unit: str = "steps"

    def __post_init__(self) -> None:
        _require_unit(self.unit)
        object.__setattr__(self, "boundaries", tuple(self.boundaries))
        object.__setattr__(self, "values", tuple(self.values))
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"{len(self.boundaries)} boundaries and {len(self.values)} values: "
                "pass one value more than boundaries"
            )
        if list(self.boundaries) != sorted(set(self.boundaries)):
            raise ValueError(f"boundaries={self.boundaries}: sort them, each one once")
        for value in self.values:
            require_not_negative(value=value)

    @in_exact_state
    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` steps."""
        return self.values[bisect_right(self.boundaries, step)]


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Half a cosine from the rate to a minimum: ``torch.optim.lr_scheduler.CosineAnnealingLR``.

    Parameters
    ----------
    learning_rate : float
        The rate at first.
    steps : int
        After how many steps it is `minimum`, and stays (PyTorch's would rise again).
    minimum : float
        PyTorch's ``eta_min``.
    unit : {"steps", "epochs"}
        What is counted.

    Examples
    --------
    >>> Cosine(0.1, steps=100)(50), Cosine(0.1, steps=100)(1000)
    (0.05, 0.0)
    """

    learning_rate: float
    steps: int
    minimum: float = 0.0
    unit: str = "steps"

    def __post_init__(self) -> None:
        _require_unit(self.unit)
        require_not_negative(learning_rate=self.learning_rate, minimum=self.minimum)
        _require_positive(steps=self.steps)

    @in_exact_state
    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` steps."""
        return _anneal(self.learning_rate, self.minimum, min(step / self.steps, 1.0))


@dataclasses.dataclass(frozen=True)
class OneCycle:
    """Up to a maximum and down to nearly nothing: ``torch.optim.lr_scheduler.OneCycleLR``.

    The rate rises by half a cosine from ``learning_rate / div_factor`` to `learning_rate`, then
    falls by another to ``learning_rate / div_factor / final_div_factor``. The momentum, or Adam's
    `beta_1`, moves the other way: from `max_momentum` down to `base_momentum` where the rate is
    highest, and back. `SGD` and `RMSProp` take momentum from it even where they have none; AdaGrad
    has none, and Nadam moves its own.

    Parameters
    ----------
    learning_rate : float
        The highest rate; PyTorch's ``max_lr``.
    steps : int
        How many steps the cycle takes; after them the rate stays.
    pct_start : float
        The part of the steps, in [0, 1], that goes up.
    div_factor, final_div_factor : float
        See above.
    cycle_momentum : bool
        Whether the momentum moves.
    base_momentum, max_momentum : float
        Between what, in [0, 1).
    unit : {"steps", "epochs"}
        What is counted.

    References
    ----------
    L. N. Smith and N. Topin, "Super-convergence: very fast training of neural networks using large
    learning rates", 2018.

    Examples
    --------
    >>> rate = OneCycle(0.1, steps=100)
    >>> [f"{rate(step):.3g}" for step in (0, 29, 99)]
    ['0.004', '0.1', '4e-07']
    """

    learning_rate: float
    steps: int
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    cycle_momentum: bool = True
    base_momentum: float = 0.85
    max_momentum: float = 0.95
    unit: str = "steps"

    def __post_init__(self) -> None:
        _require_unit(self.unit)
        require_not_negative(learning_rate=self.learning_rate)
        _require_positive(
            steps=self.steps, div_factor=self.div_factor, final_div_factor=self.final_div_factor
        )
        require_fraction(base_momentum=self.base_momentum, max_momentum=self.max_momentum)
        if not 0 <= self.pct_start <= 1:
            raise ValueError(f"pct_start={self.pct_start}: it is a part of the steps, in [0, 1]")

    @in_exact_state
    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` steps."""
        first = self.learning_rate / self.div_factor
        return self._cycled(step, first, self.learning_rate, first / self.final_div_factor)

    @in_exact_state
    def momentum(self, step: int) -> float | None:
        """Return the momentum after `step` steps; None where it does not move."""
        if not self.cycle_momentum:
            return None
        return self._cycled(step, self.max_momentum, self.base_momentum, self.max_momentum)

    def _cycled(self, step: int, first: float, middle: float, last: float) -> float:
        """Return where a number is on its way from the first over the middle to the last."""
        summit, end = self.pct_start * self.steps - 1, self.steps - 1
        if step <= summit and summit > 0:
            return _anneal(first, middle, step / summit)
        fallen = (step - summit) / (end - summit) if step < end else 1.0
        return _anneal(middle, last, fallen)


@dataclasses.dataclass(frozen=True)
class WarmUp:
    """A straight rise to where another schedule starts, then that schedule from its step 0.

    That is ``torch.optim.lr_scheduler.LinearLR`` followed by another in a ``SequentialLR``.

    Parameters
    ----------
    schedule : float or callable
        What follows: a rate or a schedule.
    steps : int
        How many steps the rise takes.
    start : float
        The part of ``schedule(0)``, in [0, 1], that the rise starts from.
    unit : {"steps", "epochs"}
        What is counted.

    Examples
    --------
    >>> rate = WarmUp(Cosine(0.1, steps=100), steps=10)
    >>> rate(0), rate(5), rate(10), rate(60)
    (0.0, 0.05, 0.1, 0.05)
    """

    schedule: Rate
    steps: int
    start: float = 0.0
    unit: str = "steps"

    def __post_init__(self) -> None:
        _require_unit(self.unit)
        unit = getattr(self.schedule, "unit", self.unit)
        if unit != self.unit:
            raise ValueError(
                f"WarmUp counts {self.unit}, and {self.schedule!r} {unit}; pass unit={unit!r} to "
                "both"
            )
        if hasattr(self.schedule, "observe"):
            raise ValueError("WarmUp cannot wrap Performance, which would no longer observe")
        if not callable(self.schedule):
            require_not_negative(schedule=self.schedule)
        _require_positive(steps=self.steps)
        if not 0 <= self.start <= 1:
            raise ValueError(f"start={self.start}: it is a part of the first rate, in [0, 1]")

    @in_exact_state
    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` steps."""
        rate = self.schedule
        then = rate(max(step - self.steps, 0)) if callable(rate) else rate
        risen = min(step / self.steps, 1.0)
        return then * (self.start + (1 - self.start) * risen)

    def momentum(self, step: int) -> float | None:
        """Return the momentum of the schedule that follows, if it moves one."""
        inner = getattr(self.schedule, "momentum", None)
        return None if inner is None else inner(max(step - self.steps, 0))


# As Keras' classes -------------------------------------------------------------------------------


def ExponentialDecay(
    initial_learning_rate: float, decay_steps: float, decay_rate: float, staircase: bool = False
) -> Exponential:
    """Return `Exponential`, from Keras' arguments."""
    return Exponential(initial_learning_rate, decay_rate, decay_steps, staircase=staircase)


def InverseTimeDecay(initial_learning_rate: float, decay_steps: float, decay_rate: float) -> Power:
    """Return `Power`, from Keras' arguments: ``rate / (1 + decay_rate * step / decay_steps)``."""
    _require_positive(decay_rate=decay_rate)
    return Power(initial_learning_rate, decay_steps / decay_rate)


def CosineDecay(initial_learning_rate: float, decay_steps: int, alpha: float = 0.0) -> Cosine:
    """Return `Cosine`, from Keras' arguments: `alpha` is the part of the rate that is left."""
    return Cosine(initial_learning_rate, decay_steps, alpha * initial_learning_rate)


def PiecewiseConstantDecay(boundaries: Sequence[int], values: Sequence[float]) -> PiecewiseConstant:
    """Return `PiecewiseConstant`, from Keras' boundaries, at which the old rate still holds."""
    return PiecewiseConstant(tuple(step + 1 for step in boundaries), tuple(values))


def _anneal(start: float, end: float, part: float) -> float:
    """Return where half a cosine from one rate to another is after this part of it."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))


def _require_unit(unit: str) -> None:
    one_of(unit, ("steps", "epochs"), "schedule's unit")


def _require_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name}={number}: it must be finite and positive")
