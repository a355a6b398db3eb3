"""What an optimizer is, and what all of them share: clips, weight decay, the learning rate."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import in_exact_state
from lowprec.train.optimizing.clipping import clip_by_global_norm, clip_by_norm, clip_by_value
from lowprec.train.optimizing.transforms import as_it_is, chain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.train.optimizing.state import State
    from lowprec.train.optimizing.transforms import Fused, Params, Store, Transform

Rate = float | Callable[[int], float]
"""A learning rate: a number, or a schedule, a function of the finished steps."""


@dataclasses.dataclass(eq=False, repr=False)
class Optimizer:
    """What turns gradients into updates: a name, a learning rate and a transform.

    Of its fields `learning_rate` alone may be assigned, as in Keras: the next step has it.

    Parameters
    ----------
    name : str
        What a report calls it.
    learning_rate : float or callable
        A number, or a schedule: a function of the number of finished steps.
    transform : Transform
        The two functions that do the work.
    hyperparameters : dict
        The other numbers, for reports.
    with_momentum : callable, optional
        Returns the transform with another momentum (Adam's `beta_1`), for schedules that move it.

    Examples
    --------
    >>> from lowprec.train.optimizers import SGD
    >>> optimizer = SGD(0.5)
    >>> params = {"0/bias": np.float32([1.0])}
    >>> state = optimizer.init(params)
    >>> gradients = {"0/bias": np.float32([2.0])}
    >>> updates, state = optimizer.update(gradients, state, params, 1, optimizer.rate(0))
    >>> params["0/bias"] + updates["0/bias"]
    array([0.], dtype=float32)
    """

    name: str
    learning_rate: Rate
    transform: Transform
    hyperparameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    with_momentum: Callable[[float], Transform] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign to `learning_rate`; refuse all else."""
        if name in vars(self):
            if name != "learning_rate":
                raise dataclasses.FrozenInstanceError(
                    f"cannot assign to {name!r}: of an optimizer only learning_rate may be "
                    "assigned; make another, as in train.Adam(1e-3, beta_1=0.8)"
                )
            if not callable(value):
                value = float(value)
                require_not_negative(learning_rate=value)
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        """Return the name and the numbers."""
        numbers = {"learning_rate": self.learning_rate, **self.hyperparameters}
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in numbers.items())})"

    def init(self, params: Params) -> State:
        """Return the state before the first step, by `Slot`: ``"first_moment/0/kernel"``, …."""
        return self.transform.init(params)

    @in_exact_state
    def update(
        self,
        gradients: Params,
        state: State,
        params: Params,
        step: int,
        rate: float,
        store: Store = as_it_is,
    ) -> tuple[Params, State]:
        """Return what to add to the parameters, and the new state.

        Parameters
        ----------
        gradients : dict of str to ndarray
            Unscaled gradients of the loss, some or all parameters'; overwritten.
        state : dict of Slot to ndarray
            What `init` or the last step gave; overwritten.
        params : dict of str to ndarray
            The parameters, which are only read.
        step : int
            The number of this step: applied steps count, from 1.
        rate : float
            Its learning rate: ``rate(step - 1)``.
        store : callable
            Rounds an array to the format in which state is stored; the update is made of what is
            stored.

        Returns
        -------
        updates, state : dict of str to ndarray, dict of Slot to ndarray
            Infinite or NaN where the arithmetic, that of the arrays' dtype, makes it so.
        """
        with np.errstate(all="ignore"):
            return self.transform.update(gradients, state, params, step, rate, store)

    def at(self, step: int) -> Optimizer:
        """Return the optimizer of one step: another where the schedule moves the momentum too.

        Parameters
        ----------
        step : int
            How many steps are finished.
        """
        momentum = getattr(self.learning_rate, "momentum", None)
        if momentum is None or self.with_momentum is None:
            return self
        now = momentum(step)
        if now is None:
            return self
        return dataclasses.replace(self, transform=self.with_momentum(now))

    @in_exact_state
    def rate(self, step: int) -> float:
        """Return the learning rate after `step` applied steps: ``rate(0)`` is the first step's.

        A schedule whose unit is epochs takes the number of finished epochs.
        """
        return self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate

    @in_exact_state
    def observe(self, metric: float) -> Optimizer:
        """Return the optimizer for the next epoch, after one that ended with this metric.

        It is another one only where the learning rate itself observes
        (`lowprec.train.schedules.Performance`).
        """
        observe = getattr(self.learning_rate, "observe", None)
        return self if observe is None else dataclasses.replace(self, learning_rate=observe(metric))


def counts_epochs(rate: Rate) -> bool:
    """Whether a learning rate is a function of finished epochs, and not of steps."""
    return getattr(rate, "unit", "steps") == "epochs"


def compose(
    name: str,
    learning_rate: Rate,
    numbers: dict[str, Any],
    clipping: dict[str, float | None],
    *parts: Transform,
    with_momentum: Callable[[float], Sequence[Transform]] | None = None,
    fused: Fused | None = None,
) -> Optimizer:
    """Return the optimizer that clips, then applies the parts.

    name, learning_rate: Those of `Optimizer`.
    numbers: Its hyperparameters but for the clip.
    clipping: The keywords that say how to clip: ``clipvalue``, ``clipnorm``, ``global_clipnorm``.
    *parts: All that follows, ``scale_by_rate()`` included.
    with_momentum: Returns the parts with another momentum.
    fused: What the parts come to, as for `Transform`.
    Raises ValueError if the rate or a limit is out of its range, or two limits are given.
    Raises TypeError if there is another keyword.
    """
    if not callable(learning_rate):
        require_not_negative(learning_rate=learning_rate)
    clips = _clips(name, clipping)
    limits = [_CLIPS[word](limit) for word, limit in clips.items()]
    moved = None if with_momentum is None else functools.partial(_moved, limits, with_momentum)
    transform = chain(*limits, *parts)._replace(fused=None if limits else fused)
    return Optimizer(name, learning_rate, transform, {**numbers, **clips}, moved)


def _moved(
    limits: list[Transform], with_momentum: Callable[[float], Sequence[Transform]], momentum: float
) -> Transform:
    return chain(*limits, *with_momentum(momentum))


_CLIPS: dict[str, Callable[[float], Transform]] = {
    "clipvalue": clip_by_value,
    "clipnorm": clip_by_norm,
    "global_clipnorm": clip_by_global_norm,
}


_ELSEWHERE = {  # what PyTorch, or Keras, calls otherwise
    "lr": "write learning_rate",
    "eps": "write epsilon",
    "betas": "write beta_1 and beta_2",
    "alpha": "write rho",
    "decay": "write learning_rate=train.schedules.Power(rate, steps=1 / decay)",
    "amsgrad": "it has the formulas without: drop amsgrad",
    "name": "it has one: drop name",
    "use_ema": "it averages no weights: drop use_ema",
    "ema_momentum": "it averages no weights: drop ema_momentum",
    "loss_scale_factor": "write policy='mixed_float16' where the model is compiled",
}


def _clips(name: str, clipping: dict[str, float | None]) -> dict[str, float]:
    """Return the clip that is given, as a dict of one, or none."""
    if unknown := sorted(clipping.keys() - _CLIPS.keys()):
        hint = _ELSEWHERE.get(unknown[0], f"gradients are clipped by {', '.join(_CLIPS)}")
        raise TypeError(f"{name} has no argument {unknown[0]!r}; {hint}")
    given = {word: limit for word, limit in clipping.items() if limit is not None}
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)}: gradients are clipped one way; drop the others")
    for word, limit in given.items():
        if not limit > 0:
            raise ValueError(f"{word}={limit}: a limit is positive; leave it out to clip nothing")
    return given


def require_fraction(**numbers: float) -> None:
    """Raise a ValueError unless every number is in [0, 1)."""
    for name, number in numbers.items():
        if not 0 <= number < 1:
            raise ValueError(
                f"{name}={number}: it must be in [0, 1), 0.9 for instance; 0 keeps nothing"
            )


def require_not_negative(**numbers: float) -> None:
    """Raise a ValueError unless every number is finite and at least 0."""
    for name, number in numbers.items():
        if not 0 <= number < math.inf:
            raise ValueError(f"{name}={number}: it must be finite and at least 0")
