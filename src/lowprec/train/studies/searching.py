"""Search: which learning rate, policy, optimizer or network suits the data."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.common.names import did_you_mean, one_of
from lowprec.common.processor_state import in_exact_state_but_users_code, in_its_state
from lowprec.common.randomness import draw_key
from lowprec.train import optimizers
from lowprec.train.dataset import Dataset
from lowprec.train.loss_scale import LossScale
from lowprec.train.metrics import is_better_high
from lowprec.train.model import Sequential
from lowprec.train.policy import Policy, get_policies, get_policy
from lowprec.train.studies import runs
from lowprec.train.studies.spaces import (
    Dimension,
    Interval,
    Settings,
    checked_space,
    drawn,
    narrowed,
)
from lowprec.train.studies.trials import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Executor

    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from lowprec.common.randomness import RNGLike
    from lowprec.train.losses import Loss
    from lowprec.train.optimizing.optimizer import Optimizer

Ends = tuple[float, float]


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

    def plot(self) -> Figure:
        """Draw the score against each setting that was searched.

        Returns
        -------
        matplotlib.figure.Figure
            Trials that diverged are crosses at the bottom.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib, naming the extra to install.
        """
        from lowprec.train.studies.search_figure import search_figure

        return search_figure(self.trials, self.metric)

    def to_dataframe(self) -> Any:
        """Return the trials as a pandas DataFrame, a row each, the best first.

        Raises
        ------
        ModuleNotFoundError
            Without pandas.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "a DataFrame needs pandas, which is not installed; run: pip install pandas",
                name=error.name,
            ) from error
        rows = []
        for trial in self.trials:
            row = trial.to_dict()
            rows.append(row | row.pop("settings"))
        return pandas.DataFrame(rows)

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
    model: Sequential | Callable[[Settings], Sequential],
    data: Dataset,
    *,
    space: Mapping[str, Any] | None = None,
    method: str = "random",
    points: int = 4,
    learning_rate: Ends = (1e-4, 1e-1),
    loss_scale: Ends | None = None,
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
    """Try settings, and judge them on a part of the training set.

    The test set is never looked at: it stays good for judging what the search chose. All trials
    have the same split, initial parameters and order of samples.

    Parameters
    ----------
    model : Sequential or callable
        The network; or a function of the trial's settings that returns one, as in
        ``lambda trial: Sequential([…, Dense(trial["units"]), …])``.
    data : Dataset
        Of which the training set is used; a pair (x, y) serves too.
    space : mapping of str to interval or list, optional
        What to search, by name: any argument of `fit` (``learning_rate``, ``batch_size``,
        ``epochs``, ``optimizer``, ``policy``, ``loss_scale``, ``class_weight``, …), any number of
        the optimizer (``momentum``, ``weight_decay``, …), and what the model function reads.
        ``train.log_uniform(1e-4, 1e-1)``, ``train.uniform(0, 0.5)`` and ``train.integers(8, 128)``
        are intervals, a list is choices. Without it learning rate, loss scale and policy are
        searched.
    method : {"random", "grid", "narrowing", "bayesian"}
        How settings are chosen from the space: drawn; all combinations of choices and of `points`
        on each interval, whatever `trials` is; drawn in three rounds, each around the best so far;
        or by Optuna's TPE sampler, which needs the extra: ``pip install "lowprec[search]"``.
    points : int
        How many points of each interval a grid has.
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
        If an interval is empty or not positive, there is nothing to try, or a name of the space is
        no argument of anything.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((4,)), train.Dense(3)])
    >>> data = train.data.iris().scaled("standard")
    >>> found = search(model, data, policies=["mixed_bfloat16"], trials=3, epochs=2)
    >>> found.metric, len(found.trials), found.best.learning_rate > 1e-4
    ('val_accuracy', 3, True)

    >>> def make(trial):
    ...     return train.Sequential([train.Dense(trial.units, "relu"), train.Dense(3)])
    >>> space = {"learning_rate": train.log_uniform(1e-3, 1e-1), "units": [4, 8]}
    >>> grid = search(make, data, space=space, method="grid", points=2, epochs=1)
    >>> len(grid.trials), sorted(grid.best.settings)
    (4, ['learning_rate', 'units'])

    References
    ----------
    Bergstra and Bengio (2012), Random search for hyper-parameter optimization.
    """
    if isinstance(data, tuple):
        data = Dataset(*data)
    if space is not None:
        return search_space(
            model,
            data,
            checked_space(space),
            _SearchPlan(
                how=one_of(method, METHODS, "method of search"),
                points=points,
                trials=trials,
                policies=get_policies(policies),
                loss=loss,
                optimizer=optimizers.get(optimizer),
                epochs=epochs,
                batch_size=batch_size,
                metric=metric,
                executor=executor,
                progress=progress,
                key=draw_key(rng),
                validation_split=validation_split,
            ),
        )
    if not isinstance(model, Sequential):
        raise TypeError(
            f"{model!r} is a function of a trial's settings, and there is no space to draw them "
            "from; pass space={'units': [32, 64]}, say"
        )
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


METHODS = ("random", "grid", "narrowing", "bayesian")
_ROUNDS = 3  # of a narrowing search
_SHARE = 1 / 3  # of an interval that its next round keeps
_TASK = ("epochs", "batch_size", "loss")  # what a task holds beside what is looked up
_OPTIONS = ("class_weight", "shuffle", "metrics")  # of `fit`


class _SearchPlan(NamedTuple):
    """How to search a space: what `search` was given."""

    how: str
    points: int
    trials: int
    policies: list[Policy]
    loss: str | Loss | None
    optimizer: Optimizer
    epochs: int
    batch_size: int
    metric: str | None
    executor: Executor | None
    progress: Callable[[str, int, int], None] | None
    key: int
    validation_split: float


def search_space(
    model: Any, data: Dataset, space: dict[str, Dimension], how: _SearchPlan
) -> SearchResult:
    """Return what a search of a space found."""
    if how.trials < 1 or not how.policies or how.points < 1:
        raise ValueError(
            f"trials={how.trials}, points={how.points} of {len(how.policies)} policies; there must "
            "be one at least"
        )
    if len(how.policies) > 1 and "policy" not in space:
        space = {**space, "policy": how.policies}
    _check_names(model, space, how)
    judged = data.split(how.validation_split, rng=np.random.default_rng([how.key, 1]))
    bench = _TrialBench(model, judged, how)
    match how.how:
        case "grid":
            axes = [
                choices.points(how.points) if isinstance(choices, Interval) else choices
                for choices in space.values()
            ]
            combinations = itertools.product(*axes)
            bench.run([Settings(zip(space, values, strict=True)) for values in combinations])
        case "random":
            bench.run(_random(space, how.trials, how.key, 0))
        case "narrowing":
            each = [len(part) for part in np.array_split(np.arange(how.trials), _ROUNDS)]
            for place, count in enumerate(each):
                if place and bench.done:
                    space = narrowed(space, bench.result().best.settings, _SHARE)
                bench.run(_random(space, count, how.key, place))
        case _:
            _bayesian(space, bench, how)
    return bench.result()


class _TrialBench:
    """Where trials are trained and judged."""

    def __init__(self, model: Any, data: Dataset, how: _SearchPlan) -> None:
        self.model, self.data, self.how = model, data, how
        self.metric = how.metric
        self.done: list[Trial] = []

    def run(self, settings: list[Settings]) -> list[Trial]:
        """Train and judge these settings; they are kept."""
        tasks = [self._task(one) for one in settings]
        if tasks and not self.done:
            first = tasks[0]
            self.metric = runs.choose_metric(
                self.how.metric, first.model, self.data, first.loss, 0.0
            )
        progress = self.how.progress
        before = len(self.done)
        total = self.how.trials if self.how.how != "grid" else len(tasks)
        report = None
        if progress is not None:
            given = progress

            def report(words: str, done: int, _: int) -> None:
                given(words, before + done, total)

        found = [
            Trial(
                task.optimizer.rate(0),
                task.policy,
                run,
                run.history[self.metric or ""][-1],
                one,
            )
            for one, task, run in zip(
                settings, tasks, runs.run_all(tasks, self.how.executor, report), strict=True
            )
        ]
        self.done += found
        return found

    def result(self) -> SearchResult:
        """Return all trials, the best first."""
        metric = self.metric or ""
        return SearchResult(tuple(sorted(self.done, key=_rank(metric))), metric)

    def _task(self, settings: Settings) -> runs.Task:
        how, model = self.how, self.model
        if not isinstance(model, Sequential):
            model = in_its_state(model)(settings)
        policy = get_policy(settings.get("policy", how.policies[0]))
        if "loss_scale" in settings:
            scale = settings["loss_scale"]
            scaled = dataclasses.replace(policy, loss_scale=scale)
            policy = dataclasses.replace(scaled, name=str(policy))
        optimizer = optimizers.get(settings.get("optimizer", how.optimizer))
        numbers = {n: v for n, v in settings.items() if n in optimizer.hyperparameters}
        rate = settings.get("learning_rate", optimizer.learning_rate)
        if numbers:
            made = optimizers.remade(optimizer.name, rate, {**optimizer.hyperparameters, **numbers})
            if made is None:
                raise ValueError(
                    f"{optimizer.name} is your own: search its numbers as choices of optimizers, "
                    "space={'optimizer': [...]}"
                )
            optimizer = made
        given = settings.get("loss", how.loss)
        return runs.Task(
            model=model,
            data=self.data,
            loss=runs.default_loss(model, self.data) if given is None else given,
            optimizer=dataclasses.replace(optimizer, learning_rate=rate),
            policy=policy,
            epochs=settings.get("epochs", how.epochs),
            batch_size=settings.get("batch_size", how.batch_size),
            seed=how.key,
            options=tuple((n, settings[n]) for n in _OPTIONS if n in settings),
        )


def _check_names(model: Any, space: Mapping[str, Dimension], how: _SearchPlan) -> None:
    """Refuse a name that nothing reads; what a model function reads only it knows."""
    if not isinstance(model, Sequential):
        if not callable(model):
            raise TypeError(
                f"model is {model!r}; pass a Sequential, or a function of the trial's settings"
            )
        return
    known = {"learning_rate", "policy", "loss_scale", "optimizer", *_TASK, *_OPTIONS}
    choices = space.get("optimizer", [how.optimizer])
    for optimizer in choices if isinstance(choices, list) else []:
        known |= set(optimizers.get(optimizer).hyperparameters)
    for name in space:
        if name not in known:
            near = did_you_mean(difflib.get_close_matches(name, known, n=1))
            raise ValueError(
                f"space has {name!r}, which neither fit nor the optimizer takes; {near}a function "
                "of the trial's settings in place of the model reads what it likes"
            )


def _random(space: Mapping[str, Dimension], count: int, key: int, place: int) -> list[Settings]:
    generator = np.random.default_rng([key, 2, place])
    return [drawn(space, generator.random(len(space)).tolist()) for _ in range(count)]


def _bayesian(space: Mapping[str, Dimension], bench: _TrialBench, how: _SearchPlan) -> None:
    """Ask Optuna for one trial after another, each with what the ones before came to."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "method='bayesian' asks Optuna, which is not installed; run: "
            'pip install "lowprec[search]"',
            name=error.name,
        ) from error
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        sampler = optuna.samplers.TPESampler(seed=how.key % 2**32)
        study: Any = None
        for _ in range(how.trials):
            if study is None:
                study = optuna.create_study(sampler=sampler, direction="minimize")
            asked = study.ask()
            (trial,) = bench.run([_asked(asked, space)])
            lost, score = _rank(bench.metric or "")(trial)
            study.tell(asked, None if lost else score, state=_state(optuna, lost))
    finally:
        optuna.logging.set_verbosity(before)


def _state(optuna: Any, lost: bool) -> Any:
    states = optuna.trial.TrialState
    return states.FAIL if lost else states.COMPLETE


def _asked(trial: Any, space: Mapping[str, Dimension]) -> Settings:
    """Return what Optuna proposes for each dimension."""
    found = Settings()
    for name, choices in space.items():
        if isinstance(choices, list):  # their places: Optuna keeps only plain values
            found[name] = choices[trial.suggest_categorical(name, list(range(len(choices))))]
        elif choices.is_integer:
            found[name] = trial.suggest_int(
                name, int(choices.low), int(choices.high), log=choices.is_log
            )
        else:
            found[name] = trial.suggest_float(name, choices.low, choices.high, log=choices.is_log)
    return found


def _draw(
    generator: np.random.Generator,
    policies: list[Policy],
    rates: Ends,
    scales: Ends | None,
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


def _logarithms(name: str, interval: Ends) -> Ends:
    low, high = interval
    if not 0 < low <= high < math.inf:
        raise ValueError(f"{name}={interval}: pass two positive numbers, the smaller one first")
    return math.log(low), math.log(high)


def _rank(metric: str) -> Callable[[Trial], tuple[bool, float]]:
    """Return a key that sorts the best first, and last what is not finite."""
    sign = -1 if is_better_high(metric) else 1

    def rank(trial: Trial) -> tuple[bool, float]:
        lost = trial.run.diverged_at is not None or not math.isfinite(trial.score)
        return lost, sign * trial.score if math.isfinite(trial.score) else math.inf

    return rank
