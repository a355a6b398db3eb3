"""Policies compared: the same training under each, with the same seeds."""

from __future__ import annotations

import errno
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.outputs import Output, check_outputs
from lowprec.common.processor_state import in_exact_state_but_users_code
from lowprec.train import optimizers
from lowprec.train.memory import bytes_per_parameter
from lowprec.train.metrics import is_accuracy, is_validation
from lowprec.train.policy import get_policies
from lowprec.train.running.history import SAVED
from lowprec.train.running.json_values import plain
from lowprec.train.studies import runs
from lowprec.train.studies.policy_comparison import PolicyComparison
from lowprec.train.studies.results import BASELINE, PolicyResult

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from lowprec.train.dataset import Dataset
    from lowprec.train.losses import Loss
    from lowprec.train.model import Sequential
    from lowprec.train.optimizing.optimizer import Optimizer
    from lowprec.train.policy import Policy

_USUAL = ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16")


@in_exact_state_but_users_code
def compare_policies(
    model: Sequential,
    data: Dataset,
    policies: Iterable[Policy | str] | Policy | str = _USUAL,
    seeds: int | Iterable[int] = 5,
    *,
    loss: str | Loss | None = None,
    optimizer: Optimizer | str = "adam",
    epochs: int = 10,
    batch_size: int = 32,
    validation_split: float = 0.0,
    metric: str | None = None,
    executor: Executor | None = None,
    folder: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> PolicyComparison:
    """Train a network under each policy with each seed.

    Runs are paired by seed: the same seed means the same initial parameters and the same order of
    samples under every policy, so that differences are the formats' doing. A run that diverges
    stops none of the others. The numbers do not depend on the executor.

    Parameters
    ----------
    model : Sequential
        The network.
    data : Dataset
        What to train on; its test set judges.
    policies : iterable of Policy or str, or one of them
        The policies; float32 is put before them where it is missing, to compare with.
    seeds : int or iterable of int
        How many seeds, from 0, or which.
    loss : str or callable, optional
        As for `fit`; by default cross-entropy for labels and the mean square for other targets.
    optimizer : Optimizer or str
        Such as ``train.Adam(1e-3)``.
    epochs, batch_size, validation_split
        As for `fit`.
    metric : str, optional
        Which value of the history to judge by; by default ``val_accuracy``, for regression
        ``val_rmse``.
    executor : concurrent.futures.Executor, optional
        What the runs are submitted to: threads, processes (give these a ``loss`` that can be
        pickled), or the executor of a cluster's client; by default they follow one another here.
    folder : str or path, optional
        An existing folder, to save what each `fit` returned as ``policy-seed.npz``; workers of a
        cluster must see it under the same path. What an earlier comparison saved is replaced.
    overwrite : bool
        Whether files of these names that are not saved trainings may be replaced.
    progress : callable, optional
        Called as ``progress(description, done, total)`` after each run.

    Returns
    -------
    PolicyComparison
        Prints as a table with a verdict; ``plot()`` shows the learning curves.

    Raises
    ------
    ValueError
        If the arguments do not fit each other, or there are no or equal policies or seeds.
    FileNotFoundError
        If there is no such folder.
    FileExistsError
        If a file has the name of a run and is not a saved training; nothing has been trained then.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((4,)), train.Dense(3)])
    >>> data = train.data.iris().scaled("standard")
    >>> found = compare_policies(model, data, ["mixed_bfloat16"], seeds=2, epochs=3)
    >>> [str(result.policy) for result in found.results], found.baseline_added
    (['float32', 'mixed_bfloat16'], True)
    """
    chosen = _checked_policies(policies)
    listed = range(seeds) if isinstance(seeds, int | np.integer) else seeds
    numbers = _different(map(operator.index, listed), "seed")
    epochs, batch_size = operator.index(epochs), operator.index(batch_size)
    added = BASELINE not in chosen
    chosen = [BASELINE, *chosen] if added else chosen
    if folder is not None and not Path(folder).is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(folder))
    loss = runs.default_loss(model, data) if loss is None else loss
    optimizer = optimizers.get(optimizer)
    metric = runs.choose_metric(metric, model, data, loss, validation_split)
    tasks = [
        runs.Task(
            model=model,
            data=data,
            loss=loss,
            optimizer=optimizer,
            policy=policy,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            validation_split=validation_split,
            file=None if folder is None else run_file(folder, policy, seed),
            overwrite=overwrite,
        )
        for seed in numbers
        for policy in chosen
    ]
    check_outputs(
        (Output(task.file, SAVED) for task in tasks if task.file is not None), overwrite=overwrite
    )
    done = runs.run_all(tasks, executor, progress)
    by_policy = [tuple(done[place :: len(chosen)]) for place in range(len(chosen))]
    results = tuple(
        PolicyResult(
            policy,
            its_runs,
            by_policy[chosen.index(BASELINE)],
            metric,
            bytes_per_parameter(policy, optimizer),
            _resolution(metric, data, validation_split),
        )
        for policy, its_runs in zip(chosen, by_policy, strict=True)
    )
    return PolicyComparison(results, added, _facts(tasks[0], numbers))


def run_file(folder: str | os.PathLike[str], policy: Policy, seed: int) -> Path:
    """Return where `compare_policies` saves a run in a folder."""
    return Path(folder).absolute() / f"{policy}-{seed}.npz"


def _checked_policies(policies: Iterable[Policy | str] | Policy | str) -> list[Policy]:
    """Return policies that differ, and whose names do."""
    found = _different(get_policies(policies), "policy")
    _different(map(str, found), "the name of a policy,")
    return found


def _facts(task: runs.Task, seeds: list[int]) -> dict[str, Any]:
    """Return what was trained, as JSON holds it."""
    loss, optimizer = task.loss, task.optimizer
    numbers = {name: plain(value) for name, value in optimizer.hyperparameters.items()}
    return {
        "model": repr(task.model),
        "data": task.data.summary,
        "loss": loss if isinstance(loss, str) else getattr(loss, "__name__", "own"),
        "optimizer": optimizer.name,
        "learning_rate": plain(optimizer.learning_rate),
        "hyperparameters": numbers,
        "epochs": task.epochs,
        "batch_size": task.batch_size,
        "seeds": seeds,
        "guessing": _guessing(task.data),
    }


def _guessing(data: Dataset) -> float | None:
    """Return the accuracy of always naming the most frequent class; None for regression."""
    if not data.is_classification:
        return None
    labels = data.y_test if len(data.y_test) else data.y_train
    return float(np.bincount(labels).max() / len(labels))


def _resolution(metric: str, data: Dataset, validation_split: float) -> float:
    """Return how much one sample counts in an accuracy; 0 for what is not a count."""
    if not is_accuracy(metric):
        return 0.0
    samples: float = len(data.x_train)
    if is_validation(metric):
        samples = validation_split * samples or len(data.x_test)
    return 1 / samples


def _different(values: Iterable[Any], kind: str) -> list[Any]:
    """Return values as a list, if there are any and no two are equal."""
    found = list(values)
    if not found:
        raise ValueError(f"there is no {kind} to train with; pass at least one")
    for place, value in enumerate(found):
        if value in found[:place]:
            raise ValueError(f"{kind} {value} is given twice; drop one of the two")
    return found
