"""Callbacks: what may look at a training, and interfere, between its epochs."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lowprec.common.outputs import Output, check_outputs
from lowprec.train.running.history import SAVED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lowprec.train.running.history import History

__all__ = ["Callback", "Checkpoint", "EarlyStopping", "TrainingRun"]

Array = np.ndarray[Any, Any]


class TrainingRun(Protocol):
    """What callbacks see of a training and may do to it.

    Attributes
    ----------
    params : dict of str to ndarray
        The parameters; a step puts new arrays in place of these. Assigning another dict of the same
        names and shapes replaces them.
    history : History
        The curves so far, with the earlier epochs of a training that was resumed; the parameters
        are here instead.
    epoch : int
        How many epochs are finished.
    stop_training : bool
        Set it to end after this epoch.
    """

    params: dict[str, Array]
    history: History
    epoch: int
    stop_training: bool

    def snapshot(self) -> History:
        """Return all that is needed to go on from the end of this epoch, ready to be saved."""


class Callback:
    """The base of callbacks: override what you need; every method does nothing.

    `logs` are Keras' names and values: after an epoch ``loss``, ``accuracy``, ``val_loss``, …

    Examples
    --------
    >>> class PrintsLoss(Callback):
    ...     def on_epoch_end(self, epoch, logs, run):
    ...         print(epoch, logs["loss"])
    >>> PrintsLoss().on_epoch_end(0, {"loss": 0.5}, run=None)
    0 0.5
    """

    def on_train_begin(self, run: TrainingRun) -> None:
        """Act before the first epoch."""

    def on_epoch_begin(self, epoch: int, run: TrainingRun) -> None:
        """Act before an epoch's first batch."""

    def on_batch_end(self, batch: int, logs: Mapping[str, float], run: TrainingRun) -> None:
        """Act after a step; `batch` counts them over all epochs, `logs` has the step's loss."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], run: TrainingRun) -> None:
        """Act after an epoch, validation included."""

    def on_train_end(self, run: TrainingRun) -> None:
        """Act after the last epoch."""


class _Monitor(Callback):
    """The best value so far of one of the logs, as a resumed training knows it too."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode is {mode!r}; it says which values are good: auto, min or max")
        if mode == "auto":
            mode = "max" if "acc" in monitor else "min"
        self.monitor, self.mode, self.min_delta = monitor, mode, abs(min_delta)

    def on_train_begin(self, run: TrainingRun) -> None:
        """Forget the last training; catch up with the epochs of a resumed one."""
        self.forget()
        for epoch, value in enumerate(run.history.history.get(self.monitor, ())):
            self.observe(epoch, value)

    def forget(self) -> None:
        """Begin anew."""
        self.best, self.best_epoch, self.wait = math.inf, -1, 0

    def observe(self, epoch: int, value: float) -> bool:
        """Return whether a value is the best so far, by more than `min_delta`; NaN never is."""
        value = -value if self.mode == "max" else value
        is_better = value + self.min_delta < self.best
        if is_better:
            self.best, self.best_epoch = value, epoch
        self.wait = 0 if is_better else self.wait + 1
        return is_better

    def value(self, logs: Mapping[str, float]) -> float:
        """Return what is monitored, or say what could be."""
        if self.monitor not in logs:
            raise ValueError(
                f"{self.monitor!r} is not among the logs; monitor one of {', '.join(logs)}"
            )
        return logs[self.monitor]


class EarlyStopping(_Monitor):
    """Stop when a value has not improved for some epochs, as Keras does.

    Parameters
    ----------
    monitor : str
        A name of the logs.
    min_delta : float
        An improvement is more than this.
    patience : int
        The training stops after so many epochs in a row without improvement; 0 is as 1.
    mode : {"auto", "min", "max"}
        Which values are good; auto: large ones where the name contains ``acc``, else small ones.
    restore_best_weights : bool
        Whether the training ends with the parameters of its best epoch, stopped or not. A resumed
        training has none of the epochs before: if those were better, it ends with its last ones.

    Attributes
    ----------
    best_epoch : int
        The best epoch, from 0; -1 if there is none.
    stopped_epoch : int or None
        The epoch after which training was stopped.

    Raises
    ------
    ValueError
        If the mode is unknown; at the end of an epoch if there is nothing of that name.

    Examples
    --------
    >>> EarlyStopping("val_accuracy", patience=3).mode
    'max'
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: str = "auto",
        restore_best_weights: bool = False,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience, self.restore_best_weights = patience, restore_best_weights

    def forget(self) -> None:
        """Begin anew, with no parameters kept."""
        super().forget()
        self.stopped_epoch: int | None = None
        self.best_params: dict[str, Array] | None = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], run: TrainingRun) -> None:
        """Keep the parameters of the best epoch; stop when patience has ended."""
        if self.observe(epoch, self.value(logs)):
            if self.restore_best_weights:
                self.best_params = {name: values.copy() for name, values in run.params.items()}
        elif epoch > 0 and self.wait >= self.patience:
            self.stopped_epoch = epoch
            run.stop_training = True

    def on_train_end(self, run: TrainingRun) -> None:
        """Return to the parameters of the best epoch."""
        if self.best_params is not None:
            run.params = self.best_params


class Checkpoint(_Monitor):
    """Save the training after each epoch, or after each that is the best so far.

    A saved training is what `fit` returns: ``History.load(path)`` reads it and
    ``fit(resume=path)`` goes on from it. The file is replaced whole: one that is there is complete.
    Use two of them to keep the best and the last.

    Parameters
    ----------
    path : str or path
        The file. ``{epoch}``, counted from 1, and the names of the logs are filled in, as in
        ``"model-{epoch:02d}-{val_loss:.2f}.npz"``.
    monitor : str
        A name of the logs, for `save_best_only`.
    save_best_only : bool
        Whether to save only after an epoch that is better than all before.
    mode : {"auto", "min", "max"}
        As for `EarlyStopping`.
    overwrite : bool
        Whether a file that is not a saved training may be replaced.

    Raises
    ------
    ValueError
        If the mode is unknown; at the end of an epoch if there is nothing of the name.
    OSError
        When the training begins, if the file exists and is not a saved training, or cannot be
        written.

    Examples
    --------
    >>> both = [Checkpoint("best.npz", save_best_only=True), Checkpoint("last.npz")]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: str = "auto",
        overwrite: bool = False,
    ) -> None:
        super().__init__(monitor, mode)
        self.path, self.save_best_only, self.overwrite = os.fspath(path), save_best_only, overwrite

    def on_train_begin(self, run: TrainingRun) -> None:
        """Refuse a file that may not be replaced, before any work is done for it."""
        if "{" not in self.path:
            check_outputs([Output(self.path, SAVED)], overwrite=self.overwrite)
        super().on_train_begin(run)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], run: TrainingRun) -> None:
        """Save, or not."""
        if not self.save_best_only or self.observe(epoch, self.value(logs)):
            run.snapshot().save(self._name(epoch, logs), overwrite=self.overwrite)

    def _name(self, epoch: int, logs: Mapping[str, float]) -> str:
        try:
            return self.path.format(epoch=epoch + 1, **logs)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"{self.path!r} asks for {error}; in braces can stand epoch, {', '.join(logs)}"
            ) from None
