"""The learning-rate finder: one short training while the rate rises from too low to too high."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import in_exact_state_but_users_code
from lowprec.common.randomness import draw_key
from lowprec.train import optimizers
from lowprec.train.running.training import Training
from lowprec.train.studies import runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.figure import Figure

    from lowprec.common.randomness import RNGLike
    from lowprec.train.dataset import Dataset
    from lowprec.train.losses import Loss
    from lowprec.train.model import Sequential
    from lowprec.train.optimizing.optimizer import Optimizer
    from lowprec.train.policy import Policy

Array = np.ndarray[Any, Any]

_MEMORY = 0.9  # how much of the running mean of losses stays
_HOPELESS = 4  # times the lowest running mean: training has diverged


@dataclasses.dataclass(frozen=True)
class RateCurve:
    """What `find_learning_rate` returns.

    Attributes
    ----------
    rates : tuple of float
        The learning rate of each step.
    losses : tuple of float
        The loss of each step's batch, before the step.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def smoothed(self) -> list[float]:
        """The running mean of the losses, corrected for its start."""
        return _smooth(self.losses)

    @property
    def suggestion(self) -> float:
        """A tenth of the rate where the smoothed loss is lowest: well before it climbs."""
        smoothed = self.smoothed
        return self.rates[smoothed.index(min(smoothed))] / 10

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return {
            "rates": list(self.rates),
            "losses": list(self.losses),
            "suggestion": self.suggestion,
        }

    def plot(self) -> Figure:
        """Draw the loss against the rate, and mark the suggestion.

        Returns
        -------
        matplotlib.figure.Figure
            Jupyter shows it; ``savefig`` writes it.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib, naming the extra to install.
        """
        return _rates_figure(self)

    def __repr__(self) -> str:
        low, high = self.rates[0], self.rates[-1]
        return (
            f"<RateCurve of {len(self.rates)} steps from {low:.2g} to {high:.2g}, "
            f"suggestion {self.suggestion:.2g}>"
        )


@in_exact_state_but_users_code
def find_learning_rate(
    model: Sequential,
    data: Dataset,
    *,
    loss: str | Loss | None = None,
    optimizer: Optimizer | str = "adam",
    policy: Policy | str = "float32",
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 200,
    batch_size: int = 32,
    rng: RNGLike = 0,
) -> RateCurve:
    """Train for some steps while the learning rate rises exponentially.

    It ends early when the loss is no longer finite, or its running mean four times the lowest.

    Parameters
    ----------
    model : Sequential
        The network; the training starts anew from parameters that `rng` draws.
    data : Dataset
        Of which the training set is used, as often as needed.
    loss, optimizer, batch_size
        As for `compare_policies`; the optimizer's own learning rate does not count.
    policy : Policy or str
        The formats: a rate that float32 takes may be too low for updates in bfloat16.
    low, high : float
        The first and the last learning rate.
    steps : int
        How many steps, 2 or more; steps that a loss scale skips are among them.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Where parameters and order of the samples are drawn from.

    Returns
    -------
    RateCurve
        With a ``suggestion`` and a ``plot()``.

    Raises
    ------
    ValueError
        If the rates are not positive and rising, or there are too few steps.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((4,)), train.Dense(3)])
    >>> curve = find_learning_rate(model, train.data.iris().scaled("standard"))
    >>> 1e-3 < curve.suggestion < 1
    True

    References
    ----------
    Smith (2017), Cyclical learning rates for training neural networks, section 3.3.
    """
    if not 0 < low < high < math.inf or steps < 2:
        raise ValueError(
            f"low={low}, high={high}, steps={steps}: the rate rises from a positive low to a high "
            "in 2 steps or more"
        )
    training = Training(
        model,
        data,
        loss=runs.default_loss(model, data) if loss is None else loss,
        optimizer=optimizers.get(optimizer),
        policy=policy,
        batch_size=batch_size,
        seed=draw_key(rng),
    )
    training.start(None)
    unrated = training.optimizer
    rates, losses = [], []
    for rows, rate in zip(
        _batches(training), np.geomspace(low, high, steps).tolist(), strict=False
    ):
        training.optimizer = dataclasses.replace(unrated, learning_rate=rate)
        value = training.run_step(data.x_train[rows], data.y_train[rows]).loss
        if not value < math.inf:
            break
        rates.append(rate)
        losses.append(value)
        smoothed = _smooth(losses)
        if smoothed[-1] > _HOPELESS * min(smoothed):
            break
    if not rates:
        raise ValueError("the loss of the first step is not finite; scale the data or the targets")
    return RateCurve(tuple(rates), tuple(losses))


def _smooth(losses: Sequence[float]) -> list[float]:
    mean, found = 0.0, []
    for step, loss in enumerate(losses, 1):
        mean = _MEMORY * mean + (1 - _MEMORY) * loss
        found.append(mean / (1 - _MEMORY**step))
    return found


def _batches(training: Training) -> Iterator[Array]:
    """Yield the rows of one batch after another, shuffled anew for each pass over the data."""
    generator = np.random.default_rng([training.seed, 1])
    while True:
        order = generator.permutation(len(training.data.x_train))
        for start in range(0, len(order), training.batch_size):
            yield order[start : start + training.batch_size]


def _rates_figure(curve: RateCurve) -> Figure:
    """Return the loss against the learning rate as a figure of its own.

    Raises ModuleNotFoundError without matplotlib, naming the extra to install.
    """
    from lowprec.show.drawing import LINE, MUTED, colour
    from lowprec.show.standalone_figures import light, light_figure

    with light_figure(3.4) as figure:
        axes = figure.add_subplot()
        axes.plot(curve.rates, curve.losses, color=light(MUTED), linewidth=0.6, alpha=0.7)
        axes.plot(curve.rates, curve.smoothed, color=light(colour("bfloat16")), linewidth=1.8)
        axes.axvline(curve.suggestion, color=light(colour("float16")), linewidth=1.2)
        label = f" suggestion {curve.suggestion:.2g}"
        top: Any = {"xycoords": ("data", "axes fraction"), "va": "top"}
        axes.annotate(label, (curve.suggestion, 1), color=light(colour("float16")), **top)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_title("loss of a batch, and its running mean")
        axes.grid(axis="y", color=light(LINE), linewidth=0.6)
        axes.set_axisbelow(True)
    return figure
