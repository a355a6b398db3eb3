"""Callbacks: what may look at a training, and interfere, between its epochs."""

from __future__ import annotations

import inspect
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from lowprec.common.outputs import Kind, Output, check_outputs
from lowprec.common.processor_state import in_its_state
from lowprec.common.whole_files import write_atomically
from lowprec.train import keras_words
from lowprec.train.metrics import is_better_high
from lowprec.train.running.history import SAVED
from lowprec.train.saving import MODEL, write_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lowprec.train.running.history import History
    from lowprec.train.saving import Saved

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
    "TrainingRun",
]

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
        Set it to end: after this step within an epoch, after this epoch at its end.
    learning_rate : float
        The rate of the next step; set it where the optimizer has a number.
    """

    params: dict[str, Array]
    history: History
    epoch: int
    stop_training: bool
    learning_rate: float

    def saved_model(self) -> Saved:
        """Return the model as it is now, to be written to a file."""

    def snapshot(self) -> History:
        """Return all that is needed to go on from the end of this epoch, ready to be saved."""


class Callback:
    """The base of callbacks: override what you need; every method does nothing.

    `logs` are Keras' names and values: after an epoch ``loss``, ``accuracy``, ``val_loss``, … A
    method that is written as for Keras, without `run`, serves too: ``self.model`` is the run then.

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
            mode = "max" if is_better_high(monitor) else "min"
        self.monitor, self.mode, self.min_delta = monitor, mode, abs(min_delta)

    def on_train_begin(self, run: TrainingRun) -> None:
        """Forget the last training; catch up with the epochs of a resumed one."""
        self.forget()
        for epoch, value in enumerate(run.history.history.get(self.monitor, ())):
            self.observe(epoch, value)

    def forget(self) -> None:
        """Begin anew."""
        self.best, self.best_epoch, self.wait = self._worst, -1, 0

    def observe(self, epoch: int, value: float) -> bool:
        """Return whether a value is the best so far, by more than `min_delta`; NaN never is."""
        is_max = self.mode == "max"
        is_better = value > self.best + self.min_delta if is_max else self._falls_to(value)
        if is_better:
            self.best, self.best_epoch = value, epoch
        self.wait = 0 if is_better else self.wait + 1
        return is_better

    def _falls_to(self, value: float) -> bool:
        return value + self.min_delta < self.best

    @property
    def _worst(self) -> float:
        return -math.inf if self.mode == "max" else math.inf

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
        The training stops after this number of epochs in a row without improvement; 0 is as 1.
    mode : {"auto", "min", "max"}
        Which values are good; auto: large ones for accuracies, precision, recall and r2, else
        small ones.
    restore_best_weights : bool
        Whether the training ends with the parameters of its best epoch, stopped or not. A resumed
        training has none of the epochs before: if those were better, it ends with its last ones.
    verbose : bool or int
        Whether to print a line where it stops, and one where parameters return.
    baseline : float, optional
        What an improvement must be better than at first.
    start_from_epoch : int
        How many epochs are let pass before anything counts.

    Attributes
    ----------
    best : float
        The best value.
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
        *,
        verbose: bool | int = 0,
        baseline: float | None = None,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience, self.restore_best_weights = patience, restore_best_weights
        self.verbose, self.baseline, self.start_from_epoch = verbose, baseline, start_from_epoch

    def forget(self) -> None:
        """Begin anew, with no parameters kept."""
        super().forget()
        self.best = self._worst if self.baseline is None else self.baseline
        self.stopped_epoch: int | None = None
        self.best_params: dict[str, Array] | None = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], run: TrainingRun) -> None:
        """Keep the parameters of the best epoch; stop when patience has ended."""
        if epoch < self.start_from_epoch:
            self.value(logs)
        elif self.observe(epoch, self.value(logs)):
            if self.restore_best_weights:
                self.best_params = {name: values.copy() for name, values in run.params.items()}
        elif epoch > 0 and self.wait >= self.patience:
            self.stopped_epoch = epoch
            run.stop_training = True
            if self.verbose:
                print(f"Epoch {epoch + 1}: early stopping")

    def on_train_end(self, run: TrainingRun) -> None:
        """Return to the parameters of the best epoch."""
        if self.best_params is not None:
            run.params = self.best_params
            if self.verbose:
                print(f"Restoring the parameters of the best epoch, {self.best_epoch + 1}")


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

    _kind: ClassVar[Kind] = SAVED

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
            check_outputs([Output(self.path, self._kind)], overwrite=self.overwrite)
        super().on_train_begin(run)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], run: TrainingRun) -> None:
        """Save, or not."""
        if not self.save_best_only or self.observe(epoch, self.value(logs)):
            self._write(self._name(epoch, logs), epoch, run)

    def _write(self, path: str, epoch: int, run: TrainingRun) -> None:
        run.snapshot().save(path, overwrite=self.overwrite)

    def _name(self, epoch: int, logs: Mapping[str, float]) -> str:
        try:
            return self.path.format(epoch=epoch + 1, **logs)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"{self.path!r} asks for {error}; in braces can stand epoch, {', '.join(logs)}"
            ) from None


class ModelCheckpoint(Checkpoint):
    """Save the model after each epoch, or after each that is the best so far, as Keras does.

    `train.load_model` reads the file, with what the model was trained with: it goes on from there.
    Errors are those of `Checkpoint`, which saves the history instead.

    Parameters
    ----------
    filepath : str or path
        The file, such as ``"best-cnn-model.keras"``; ``{epoch}`` and names of the logs are filled
        in.
    monitor, save_best_only, mode, overwrite
        As for `Checkpoint`; a saved model is replaced.
    verbose : bool or int
        Whether to print a line for each file.
    save_weights_only : bool
        Whether to save layers and parameters alone, for `Sequential.load_weights`.
    save_freq : str
        ``"epoch"``: after each.

    Examples
    --------
    >>> ModelCheckpoint("best.keras", monitor="val_accuracy", save_best_only=True).mode
    'max'
    """

    _kind: ClassVar[Kind] = MODEL

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: bool | int = 0,
        save_best_only: bool = False,
        mode: str = "auto",
        overwrite: bool = False,
        *,
        save_weights_only: bool = False,
        save_freq: str = "epoch",
    ) -> None:
        super().__init__(filepath, monitor, save_best_only, mode, overwrite)
        self.verbose, self.save_weights_only = verbose, save_weights_only
        if save_freq != "epoch":
            raise ValueError(f"save_freq={save_freq!r}: a model is saved after epochs; drop it")

    def _write(self, path: str, epoch: int, run: TrainingRun) -> None:
        saved = run.saved_model()
        saved = saved.of_weights() if self.save_weights_only else saved
        write_model(path, saved, overwrite=self.overwrite)
        if self.verbose:
            print(f"Epoch {epoch + 1}: saving model to {path}")


class ReduceLROnPlateau(_Monitor):
    """Multiply the learning rate where a value has not improved for some epochs, as Keras does.

    The optimizer's rate is a number; a schedule that does the same is `schedules.Performance`.

    Parameters
    ----------
    monitor : str
        A name of the logs.
    factor : float
        What the rate is multiplied by, in (0, 1).
    patience : int
        After how many epochs in a row without improvement.
    verbose : bool or int
        Whether to print a line for each reduction.
    mode : {"auto", "min", "max"}
        As for `EarlyStopping`.
    min_delta : float
        An improvement is more than this.
    cooldown : int
        How many epochs after a reduction are not counted.
    min_lr : float
        The rate is not reduced below.

    Raises
    ------
    ValueError
        If the factor is not in (0, 1) or the mode unknown; at the end of an epoch if there is
        nothing of that name, or the learning rate follows a schedule.

    Examples
    --------
    >>> ReduceLROnPlateau(factor=0.5, patience=3).min_delta
    0.0001
    """

    changes_learning_rate = True

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: bool | int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if not 0 < factor < 1:
            raise ValueError(f"factor={factor}: use a number in (0, 1), so that the rate falls")
        self.factor, self.patience, self.verbose = factor, patience, verbose
        self.cooldown, self.min_lr = cooldown, min_lr

    def forget(self) -> None:
        """Begin anew."""
        super().forget()
        self.cooling = 0

    def observe(self, epoch: int, value: float) -> bool:
        """Return whether the rate is to be reduced after this value."""
        waited = self.wait
        if self.cooling > 0:
            self.cooling -= 1
            waited = 0
        if super().observe(epoch, value):
            return False
        self.wait = waited if self.cooling > 0 else waited + 1
        if self.cooling > 0 or self.wait < self.patience:
            return False
        self.cooling, self.wait = self.cooldown, 0
        return True

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], run: TrainingRun) -> None:
        """Reduce the rate, or not."""
        if self.observe(epoch, self.value(logs)) and run.learning_rate > self.min_lr:
            run.learning_rate = max(run.learning_rate * self.factor, self.min_lr)
            if self.verbose:
                print(f"Epoch {epoch + 1}: reducing the learning rate to {run.learning_rate:.4g}")


class LearningRateScheduler(Callback):
    """Set the learning rate at each epoch's beginning, as Keras does.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, rate) -> rate``, or ``schedule(epoch)``.
    verbose : bool or int
        Whether to print a line an epoch.
    """

    changes_learning_rate = True

    def __init__(self, schedule: Callable[..., float], verbose: bool | int = 0) -> None:
        self.schedule, self.verbose = in_its_state(schedule), verbose
        try:
            inspect.signature(schedule).bind(0, 0.0)
            self.takes_rate = True
        except TypeError:
            self.takes_rate = False

    def on_epoch_begin(self, epoch: int, run: TrainingRun) -> None:
        """Set the rate."""
        given = (epoch, run.learning_rate) if self.takes_rate else (epoch,)
        run.learning_rate = float(self.schedule(*given))
        if self.verbose:
            print(f"Epoch {epoch + 1}: the learning rate is {run.learning_rate:.4g}")


class LambdaCallback(Callback):
    """A callback of functions, called with Keras' arguments.

    Parameters
    ----------
    on_train_begin, on_train_end : callable, optional
        Called with ``(logs)``, an empty dict.
    on_epoch_begin, on_epoch_end : callable, optional
        Called with ``(epoch, logs)``.
    on_train_batch_end : callable, optional
        Called with ``(batch, logs)``.

    Examples
    --------
    >>> shown = LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))
    >>> shown.on_epoch_end(0, {"loss": 0.5}, run=None)
    0 0.5
    """

    def __init__(
        self,
        on_epoch_begin: Callable[[int, Any], Any] | None = None,
        on_epoch_end: Callable[[int, Any], Any] | None = None,
        on_train_begin: Callable[[Any], Any] | None = None,
        on_train_end: Callable[[Any], Any] | None = None,
        on_train_batch_end: Callable[[int, Any], Any] | None = None,
    ) -> None:
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_batch_end": on_train_batch_end,
        }
        self._hooks = {name: in_its_state(hook) for name, hook in given.items() if hook}

    def _call(self, name: str, *arguments: Any) -> None:
        if name in self._hooks:
            self._hooks[name](*arguments)

    def on_train_begin(self, run: TrainingRun) -> None:
        """Call its function."""
        self._call("on_train_begin", {})

    def on_epoch_begin(self, epoch: int, run: TrainingRun) -> None:
        """Call its function."""
        self._call("on_epoch_begin", epoch, {})

    def on_batch_end(self, batch: int, logs: Mapping[str, float], run: TrainingRun) -> None:
        """Call its function."""
        self._call("on_batch_end", batch, logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], run: TrainingRun) -> None:
        """Call its function."""
        self._call("on_epoch_end", epoch, logs)

    def on_train_end(self, run: TrainingRun) -> None:
        """Call its function."""
        self._call("on_train_end", {})


class TerminateOnNaN(Callback):
    """Stop at the first step whose loss is NaN or infinite, as Keras does.

    A step that the loss scale skips has harmed nothing, and does not stop the training.
    """

    def on_batch_end(self, batch: int, logs: Mapping[str, float], run: TrainingRun) -> None:
        """Stop, or not."""
        if not math.isfinite(logs["loss"]) and batch not in run.history.skipped_steps[-1:]:
            run.stop_training = True


class CSVLogger(Callback):
    """Write the values of each epoch to a file, one line an epoch, as Keras does.

    Parameters
    ----------
    filename : str or path
        The file. Its first line names the columns: ``epoch``, then the logs by the alphabet.
    separator : str
        Between the values.
    append : bool
        Whether to write behind what is there, of a log with the same columns.
    overwrite : bool
        Whether a file that does not begin with such a line may be replaced.

    Raises
    ------
    OSError
        When the training begins, if the file is there and is not such a log, or cannot be written.
    ValueError
        If `append` meets other columns.

    Examples
    --------
    >>> logger = CSVLogger("log.csv", append=True)
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        separator: str = ",",
        append: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path, self.separator = os.fspath(filename), separator
        self.append, self.overwrite = append, overwrite
        self.lines: list[str] = []

    def on_train_begin(self, run: TrainingRun) -> None:
        """Refuse a file that may not be replaced; keep its lines to append to."""
        kind = Kind("a log of CSVLogger", self._is_log)
        check_outputs([Output(self.path, kind)], overwrite=self.overwrite)
        path = Path(self.path)
        self.lines = []
        if self.append and path.exists() and self._is_log(path):
            self.lines = path.read_text(encoding="utf-8").splitlines()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], run: TrainingRun) -> None:
        """Write the file whole, with one line more."""
        names = sorted(logs)
        head = self.separator.join(["epoch", *names])
        if not self.lines:
            self.lines = [head]
        elif self.lines[0] != head:
            raise ValueError(
                f"{self.path} has the columns {self.lines[0]}, and this training {head}; write to "
                "another file, or drop append"
            )
        self.lines.append(self.separator.join([str(epoch), *(repr(logs[n]) for n in names)]))
        write_atomically(self.path, "\n".join(self.lines) + "\n")

    def _is_log(self, path: Path) -> bool:
        try:
            with path.open(encoding="utf-8") as file:
                return file.readline().startswith(f"epoch{self.separator}")
        except (OSError, UnicodeDecodeError):
            return False


def __getattr__(name: str) -> object:
    """Say what stands for something of Keras'."""
    raise keras_words.no_attribute(__name__, name, keras_words.IN_CALLBACKS)
