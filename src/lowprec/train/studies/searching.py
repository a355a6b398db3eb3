"""Random search: which learning rate, loss scale and policy suit a network."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import in_exact_state_but_users_code
from lowprec.common.randomness import draw_key
from lowprec.train import optimizers
from lowprec.train.loss_scale import LossScale
from lowprec.train.policy import Policy, get_policies
from lowprec.train.studies import runs
from lowprec.train.studies.trials import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from rich.console import RenderableType

    from lowprec.common.randomness import RNGLike
    from lowprec.train.dataset import Dataset
    from lowprec.train.losses import Loss
    from lowprec.train.model import Sequential
    from lowprec.train.optimizing.optimizer import Optimizer

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True, repr=False)
class SearchResult:
    """What `search` returns: it prints as a table, the best trial first.

    Attributes
    ----------
    trials : tuple of Trial
        From the best to the worst; those that diverged come last.
    metric : str
        Which value of the last epoch judged.
    """

    trials: tuple[Trial, ...]
    metric: str

    @property
    def best(self) -> Trial:
        """The first trial."""
        return self.trials[0]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return {"metric": self.metric, "trials": [trial.to_dict() for trial in self.trials]}

    def __rich__(self) -> RenderableType:
        from lowprec.train.studies.trials import search_table

        return search_table(self.trials, self.metric)

    def __repr__(self) -> str:
        from lowprec.show.text import as_text

        return as_text(self.__rich__())

    def _repr_html_(self) -> str:
        from lowprec.train.studies.trials import search_fragment

        return search_fragment(self.trials, self.metric)


@in_exact_state_but_users_code
def search(
    model: Sequential,
    data: Dataset,
    *,
    learning_rate: Interval = (1e-4, 1e-1),
    loss_scale: Interval | None = None,
    policies: Iterable[Policy | str] | Policy | str = ("float32",),
    trials: int = 20,
    loss: str | Loss | None = None,
    optimizer: Optimizer | str = "adam",
    epochs: int = 10,
    batch_size: int = 32,
    validation_split: float = 0.2,
    metric: str | None = None,
    executor: Executor | None = None,
    rng: RNGLike = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> SearchResult:
    """Try random settings, and judge them on a part of the training set.

    The test set is never looked at: it stays good for judging what the search chose. All trials
    have the same split, initial parameters and order of samples.

    Parameters
    ----------
    model : Sequential
        The network.
    data : Dataset
        Of which the training set is used.
    learning_rate : (float, float)
        From where to where, both positive; drawn uniformly in the logarithm.
    loss_scale : (float, float), optional
        Static loss scales: powers of two from the first number to the second, all equally likely.
        Without it each policy keeps its own.
    policies : iterable of Policy or str
        The policies, all equally likely.
    trials : int
        How many settings to try.
    loss, optimizer, epochs, batch_size, metric, executor, progress
        As for `compare_policies`; the optimizer's own learning rate does not count.
    validation_split : float
        The share of the training set that judges.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Where settings, split and the seed of the runs are drawn from.

    Returns
    -------
    SearchResult
        ``best`` is the best trial.

    Raises
    ------
    ValueError
        If an interval is empty or not positive, or there is nothing to try.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((4,)), train.Dense(3)])
    >>> data = train.data.iris().scaled("standard")
    >>> found = search(model, data, policies=["mixed_bfloat16"], trials=3, epochs=2)
    >>> found.metric, len(found.trials), found.best.learning_rate > 1e-4
    ('val_accuracy', 3, True)

    References
    ----------
    Bergstra and Bengio (2012), Random search for hyper-parameter optimization.
    """
    chosen = get_policies(policies)
    if trials < 1 or not chosen:
        raise ValueError(f"trials={trials} of {len(chosen)} policies; there must be one at least")
    key = draw_key(rng)
    generator = np.random.default_rng(key)
    settings = [
        _draw(generator, chosen, _logarithms("learning_rate", learning_rate), loss_scale)
        for _ in range(trials)
    ]
    judged = data.split(validation_split, rng=np.random.default_rng([key, 1]))
    found_optimizer = optimizers.get(optimizer)
    found_loss = runs.default_loss(model, data) if loss is None else loss
    metric = runs.choose_metric(metric, model, judged, found_loss, 0.0)
    tasks = [
        runs.Task(
            model=model,
            data=judged,
            loss=found_loss,
            optimizer=dataclasses.replace(found_optimizer, learning_rate=rate),
            policy=policy,
            epochs=epochs,
            batch_size=batch_size,
            seed=key,
        )
        for rate, policy in settings
    ]
    done = runs.run_all(tasks, executor, progress)
    found = [
        Trial(rate, policy, run, run.history[metric][-1])
        for (rate, policy), run in zip(settings, done, strict=True)
    ]
    return SearchResult(tuple(sorted(found, key=_rank(metric))), metric)


def _draw(
    generator: np.random.Generator,
    policies: list[Policy],
    rates: Interval,
    scales: Interval | None,
) -> tuple[float, Policy]:
    """Draw a learning rate and a policy, with its loss scale."""
    rate = math.exp(generator.uniform(*rates))
    policy = policies[int(generator.integers(len(policies)))]
    if scales is None:
        return rate, policy
    low, high = _logarithms("loss_scale", scales)
    exponents = range(
        math.ceil(low / math.log(2) - 1e-9), math.floor(high / math.log(2) + 1e-9) + 1
    )
    if not exponents:
        raise ValueError(f"loss_scale={scales} holds no power of two; widen it")
    exponent = exponents[int(generator.integers(len(exponents)))]
    scaled = dataclasses.replace(policy, loss_scale=LossScale.static(2.0**exponent))
    return rate, dataclasses.replace(scaled, name=str(policy))


def _logarithms(name: str, interval: Interval) -> Interval:
    low, high = interval
    if not 0 < low <= high < math.inf:
        raise ValueError(f"{name}={interval}: pass two positive numbers, the smaller one first")
    return math.log(low), math.log(high)


def _rank(metric: str) -> Callable[[Trial], tuple[bool, float]]:
    """Return a key that sorts the best first, and last what is not finite."""
    sign = -1 if runs.is_better_high(metric) else 1

    def rank(trial: Trial) -> tuple[bool, float]:
        lost = trial.run.diverged_at is not None or not math.isfinite(trial.score)
        return lost, sign * trial.score if math.isfinite(trial.score) else math.inf

    return rank
