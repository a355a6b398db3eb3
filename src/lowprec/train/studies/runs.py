"""Runs: one training each, of which comparisons and searches are made, through any executor."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.train.callbacks import Callback
from lowprec.train.running.loop import fit
from lowprec.train.running.outcome import Account
from lowprec.train.running.prediction import evaluate

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Container, Mapping, Sequence
    from concurrent.futures import Executor

    from lowprec.train.dataset import Dataset
    from lowprec.train.losses import Loss
    from lowprec.train.model import Sequential
    from lowprec.train.optimizing.optimizer import Optimizer
    from lowprec.train.policy import Policy

Array = np.ndarray[Any, Any]


class Task(NamedTuple):
    """All that a run depends on."""

    model: Sequential
    data: Dataset
    loss: str | Loss
    optimizer: Optimizer
    policy: Policy
    epochs: int
    batch_size: int
    seed: int
    validation_split: float = 0.0
    file: str | os.PathLike[str] | None = None  # where to save what `fit` returns
    overwrite: bool = False  # whether a file there that is not a saved training may be replaced
    options: tuple[tuple[str, Any], ...] = ()  # what else `fit` is given


@dataclasses.dataclass(frozen=True)
class Run:
    """What one training came to.

    Attributes
    ----------
    policy : str
        The policy's name.
    seed : int
        Of initial parameters, order of the samples, dropout and stochastic updates.
    history : dict of str to list of float
        A value an epoch, by Keras' names.
    steps : int
        How many steps there were, skipped ones included.
    skipped_steps : list of int
        Which were skipped, counted from 0.
    loss_scale : float
        The last step's; 1 without one.
    diverged_at : int or None
        The first applied step, counted from 0, whose loss is not finite or after which a parameter
        is not, or a value of the last epoch; None if all are. A skipped step harms nothing,
        whatever its loss.
    unchanged : float
        The share of the parameters that the last epoch left as they were.
    seconds : float
        How long an epoch took, validation included; the median.
    account : Account or None
        The numbers by which its outcome is judged.
    """

    policy: str
    seed: int
    history: dict[str, list[float]]
    steps: int
    skipped_steps: list[int]
    loss_scale: float
    diverged_at: int | None
    unchanged: float
    seconds: float
    account: Account | None = None


def account_of(run: Run) -> Account:
    """Return the numbers by which a run is judged; without a start where it kept none."""
    if run.account is not None:
        return run.account
    return Account.made(
        policy=run.policy,
        loss="",
        curves=run.history,
        step_losses=(),
        skipped_steps=run.skipped_steps,
        steps=run.steps,
        params_are_finite=run.diverged_at is None,
        known={},
    )


def train(task: Task) -> Run:
    """Do a task; this is what executors are given."""
    watch = _RunWatch()
    history = fit(
        task.model,
        task.data,
        loss=task.loss,
        optimizer=task.optimizer,
        policy=task.policy,
        epochs=task.epochs,
        batch_size=task.batch_size,
        validation_split=task.validation_split,
        callbacks=[watch],
        rng=task.seed,
        verbose=False,
        **dict(task.options),
    )
    if task.file is not None:
        history.save(task.file, overwrite=task.overwrite)
    steps = len(history.loss_scales)
    diverged_at = watch.diverged_at
    if diverged_at is None and not watch.is_finite:
        diverged_at = steps - 1
    return Run(
        policy=str(task.policy),
        seed=task.seed,
        history=history.history,
        steps=steps,
        skipped_steps=history.skipped_steps,
        loss_scale=history.loss_scales[-1],
        diverged_at=diverged_at,
        unchanged=watch.unchanged,
        seconds=statistics.median(watch.seconds),
        account=Account.of(history),
    )


class _RunWatch(Callback):
    """Sees when a training diverges, what stands still, and how long epochs take."""

    def __init__(self) -> None:
        self.diverged_at: int | None = None
        self.is_finite = True
        self.before: dict[str, Array] = {}
        self.unchanged = self.began = 0.0
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, run: Any) -> None:
        """Remember the parameters and the time."""
        self.before = {name: w.copy() for name, w in run.params.items()}
        self.began = time.perf_counter()

    def on_batch_end(self, batch: int, logs: Mapping[str, float], run: Any) -> None:
        """See whether everything is finite, as long as it is."""
        if self.diverged_at is None and batch not in run.history.skipped_steps[-1:]:
            arrays = (logs["loss"], *run.params.values())
            if not all(np.isfinite(values).all() for values in arrays):
                self.diverged_at = batch

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], run: Any) -> None:
        """Take the time, and count what has not moved."""
        self.seconds.append(time.perf_counter() - self.began)
        self.is_finite = all(map(math.isfinite, logs.values()))
        same = sum(int((w == self.before[name]).sum()) for name, w in run.params.items())
        self.unchanged = same / max(sum(w.size for w in run.params.values()), 1)


def run_all(
    tasks: Sequence[Task],
    executor: Executor | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Run]:
    """Do tasks, in this process or through an executor; the runs come in the tasks' order.

    executor: Of threads, processes or another machine: only its ``submit(function, argument)`` is
        used, and the ``result()`` and ``cancel()`` of what it returns.
    progress: Called as ``progress(description, done, total)`` after each run.
    """
    jobs = [_Later(task) if executor is None else executor.submit(train, task) for task in tasks]
    runs = []
    try:
        for task, job in zip(tasks, jobs, strict=True):
            runs.append(job.result())
            if progress is not None:
                progress(f"{task.policy}, seed {task.seed}", len(runs), len(tasks))
    finally:  # nothing is left to do, but after an error or an interrupt
        for job in jobs[len(runs) :]:
            job.cancel()
    return runs


class _Later(NamedTuple):
    """A run that happens when its result is asked for."""

    task: Task

    def result(self) -> Run:
        return train(self.task)

    def cancel(self) -> None:
        """Do nothing: it has not begun."""


# What suits the data -----------------------------------------------------------------------------


def default_loss(model: Sequential, data: Dataset) -> str:
    """Return the loss that suits the targets: cross-entropy for labels, else the mean square.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((1,)), train.Dense(1)])
    >>> default_loss(model, train.data.linear())
    'mse'
    """
    if not data.is_classification:
        return "mse"
    (*_, outputs) = model.shapes(data.input_shape)[-1]
    return "binary_crossentropy" if outputs == 1 else "sparse_categorical_crossentropy"


def choose_metric(
    metric: str | None, model: Sequential, data: Dataset, loss: str | Loss, validation_split: float
) -> str:
    """Return what runs will be judged by: the metric asked for, else the main one.

    Raises ValueError if the history will have no metric of this name; or if the model does not fit
        the data or the loss.
    """
    params = model.init(0, input_shape=data.input_shape)
    found = list(evaluate(model, params, data.x_train[:1], data.y_train[:1], loss=loss))
    if validation_split or len(data.x_test):
        found += [f"val_{name}" for name in found]
    if metric is None:
        return main_metric(found)
    if metric not in found:
        raise ValueError(f"metric={metric!r}: the history will have {', '.join(found)}")
    return metric


def main_metric(names: Container[str]) -> str:
    """Return the name of what to judge by: accuracy or rmse, else the loss; on the test set.

    Examples
    --------
    >>> main_metric(["loss", "mae", "rmse", "val_loss", "val_mae", "val_rmse"])
    'val_rmse'
    """
    order = [f"{part}{name}" for part in ("val_", "") for name in ("accuracy", "rmse", "loss")]
    return next(name for name in order if name in names)
