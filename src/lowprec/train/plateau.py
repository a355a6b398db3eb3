"""Performance: a learning rate that falls when a metric no longer improves."""

from __future__ import annotations

import dataclasses
import math

from lowprec.train.optimizing.optimizer import require_not_negative


@dataclasses.dataclass(frozen=True)
class Performance:
    """Reduce the rate when a metric no longer improves: ``ReduceLROnPlateau`` of PyTorch.

    A value: `observe` returns the next one. `fit` calls it after every epoch, with the validation
    loss, or with the loss where nothing is validated on.

    Parameters
    ----------
    learning_rate : float
        The rate at first.
    factor : float
        In (0, 1): what the rate is multiplied by.
    patience : int
        Epochs without improvement that are let pass; the next one reduces the rate.
    threshold : float
        A metric improves if it is below ``best * (1 - threshold)``; or, if `threshold_mode` is
        ``"abs"``, below ``best - threshold``. NaN never improves.
    threshold_mode : {"rel", "abs"}
        See above.
    cooldown : int
        Epochs after a reduction that are not counted.
    minimum : float
        Where the rate stays; PyTorch's ``min_lr``.
    mode : {"min", "max"}
        Whether the metric shall fall or rise.
    rate : float, optional
        The rate now; `learning_rate` at first.
    best : float, optional
        The best metric so far.
    bad_epochs, cooldown_left : int
        Epochs since it, and epochs that are not yet counted.

    Examples
    --------
    >>> rate = Performance(0.1, factor=0.5, patience=1)
    >>> for loss in [1.0, 1.0, 1.0]:
    ...     rate = rate.observe(loss)
    >>> rate(step=300)
    0.05
    """

    learning_rate: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: str = "rel"
    cooldown: int = 0
    minimum: float = 0.0
    mode: str = "min"
    rate: float | None = None
    best: float | None = None
    bad_epochs: int = 0
    cooldown_left: int = 0

    def __post_init__(self) -> None:
        require_not_negative(
            learning_rate=self.learning_rate,
            minimum=self.minimum,
            threshold=self.threshold,
            patience=self.patience,
            cooldown=self.cooldown,
        )
        if not 0 < self.factor < 1:
            raise ValueError(f"factor={self.factor}: it must be in (0, 1), so that the rate falls")
        _require_one_of(("rel", "abs"), threshold_mode=self.threshold_mode)
        _require_one_of(("min", "max"), mode=self.mode)

    def __call__(self, step: int) -> float:
        """Return the learning rate, which depends on what was observed and not on the step."""
        return self.learning_rate if self.rate is None else self.rate

    def observe(self, metric: float) -> Performance:
        """Return the schedule after one more epoch, which ended with this metric."""
        metric = float(metric)
        improved = self._improves(metric)
        cooling = self.cooldown_left > 0
        bad_epochs = 0 if improved or cooling else self.bad_epochs + 1
        seen = dataclasses.replace(
            self,
            best=metric if improved else self.best,
            bad_epochs=bad_epochs,
            cooldown_left=self.cooldown_left - cooling,
        )
        return seen._reduced() if bad_epochs > self.patience else seen

    def _improves(self, metric: float) -> bool:
        falls = self.mode == "min"
        best = (math.inf if falls else -math.inf) if self.best is None else self.best
        margin = -self.threshold if falls else self.threshold
        to_beat = best * (1 + margin) if self.threshold_mode == "rel" else best + margin
        return metric < to_beat if falls else metric > to_beat

    def _reduced(self) -> Performance:
        rate = self(0)
        lower = max(rate * self.factor, self.minimum)
        worthwhile = rate - lower > 1e-8  # as in PyTorch
        return dataclasses.replace(
            self,
            rate=lower if worthwhile else rate,
            bad_epochs=0,
            cooldown_left=self.cooldown,
        )


def _require_one_of(choices: tuple[str, ...], **words: str) -> None:
    for name, word in words.items():
        if word not in choices:
            raise ValueError(f"{name}={word!r}: it must be {' or '.join(map(repr, choices))}")
