"""What happened in a training: the curves, the parameters, the loss scale and its skips."""

from __future__ import annotations

import dataclasses
import html
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lowprec.common.outputs import Output, check_outputs
from lowprec.train.dataset import TargetScale
from lowprec.train.optimizing.state import Slot, State
from lowprec.train.running.archive import (
    archive_kind,
    arrays_in,
    in_folder,
    read_archive,
    write_archive,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from matplotlib.figure import Figure

SAVED = archive_kind("history")

Array = np.ndarray[Any, Any]


class Curves(dict[str, list[float]]):
    """A value an epoch by name; what did not vary is known too, though it is not listed.

    constants: ``learning_rate`` and ``loss_scale`` of a training that kept them.
    """

    def __init__(  # without constants: as dask remakes a mapping of its type
        self,
        curves: Mapping[str, list[float]] = MappingProxyType({}),
        constants: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        super().__init__(curves)
        self.constants = dict(constants)

    def __missing__(self, name: str) -> list[float]:
        """Return a curve that is level."""
        if name not in self.constants:
            raise KeyError(f"{name!r} is not in the history, which has {', '.join(self)}")
        return [self.constants[name]] * max(map(len, self.values()), default=0)

    def __reduce__(self) -> Any:
        """Pickle both."""
        return Curves, (dict(self), self.constants)


class TrainedParams(dict[str, Array]):
    """Parameters by name, and what the targets were scaled by that they predict.

    target_scale (TargetScale): What turns outputs into the targets' own units.
    """

    def __init__(
        self, params: Mapping[str, Array] = MappingProxyType({}), target_scale: Any = None
    ) -> None:
        super().__init__(params)
        self.target_scale: TargetScale | None = target_scale

    def __reduce__(self) -> Any:
        """Pickle both."""
        return TrainedParams, (dict(self), self.target_scale)


def target_scale_of(params: Any) -> TargetScale | None:
    """Return what the targets were scaled by that these parameters predict; None for others."""
    found: TargetScale | None = getattr(params, "target_scale", None)
    return found


@dataclasses.dataclass(eq=False, repr=False)
class History:
    """What `fit` returns.

    Attributes
    ----------
    history : dict of str to list of float
        A value an epoch, by Keras' names: ``loss``, ``accuracy``, ``val_loss``, … It lists
        ``learning_rate`` where that varied and ``loss_scale`` where there was one, and knows them
        elsewhere too.
    params : dict of str to ndarray
        The trained parameters.
    loss_scales : list of float
        The loss scale of each step, 1 without one.
    skipped_steps : list of int
        The steps that were skipped, counted from 0 over all epochs.
    skip_reasons : list of str
        Why, one for each of them.
    epoch : list of int
        The epochs trained, from 0.
    facts : dict
        What was trained how: policy, optimizer, seed, … as JSON holds it.
    state : dict of Slot to ndarray
        What `fit` needs to go on from here, beside the parameters; may be empty. A slot is the
        name ``"first_moment/0/kernel"``, which has a ``kind`` and a ``parameter``.
    recorder : object
        The recorder that was given to `fit`; it is not saved.
    step_losses : list of float
        The training loss of each step, of skipped ones too.

    Examples
    --------
    >>> history = History({"loss": [0.75], "val_loss": [0.5]}, epoch=[0])
    >>> print(history)
    History: 1 epoch; loss 0.7500, val_loss 0.5000
    """

    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    params: dict[str, Array] = dataclasses.field(default_factory=dict)
    loss_scales: list[float] = dataclasses.field(default_factory=list)
    skipped_steps: list[int] = dataclasses.field(default_factory=list)
    skip_reasons: list[str] = dataclasses.field(default_factory=list)
    epoch: list[int] = dataclasses.field(default_factory=list)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    state: State = dataclasses.field(default_factory=dict)
    recorder: Any = None
    step_losses: list[float] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        rate = self.facts.get("optimizer", {}).get("learning_rate")
        constants = {"learning_rate": rate} if isinstance(rate, int | float) else {}
        if self.facts and self.facts.get("loss_scale") is None:
            constants["loss_scale"] = 1.0
        self.history = Curves(self.history, constants)
        self.state = {Slot.of(name): array for name, array in self.state.items()}

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write everything but the recorder to an .npz file, whole or not at all.

        Parameters
        ----------
        path : str or path
            The file, which gets exactly this name. A saved history is replaced.
        overwrite : bool
            Whether a file that is not a saved history may be replaced.

        Raises
        ------
        TypeError
            If `facts` holds what JSON cannot.
        OSError
            If the file cannot be written, or exists and is not a saved history.
        """
        check_outputs([Output(path, SAVED)], overwrite=overwrite)
        arrays, header = self.packed()
        arrays |= in_folder("params", self.params)
        write_archive(path, arrays, {"content": "history"} | header)

    def packed(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return the arrays, without the parameters, and the header that a file of it holds."""
        curves = {name: np.array(values, np.float64) for name, values in self.history.items()}
        numbers = in_folder("history", curves) | in_folder("state", self.state)
        numbers["loss_scales"] = np.array(self.loss_scales, np.float64)
        numbers["step_losses"] = np.array(self.step_losses, np.float64)
        numbers["skipped_steps"] = np.array(self.skipped_steps, np.int64)
        header = {"epoch": self.epoch, "skip_reasons": self.skip_reasons, "facts": self.facts}
        return numbers, header

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the history in a file that `save` wrote, every number bit for bit.

        Parameters
        ----------
        path : str or path
            The file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, holds something else, or was written by a newer lowprec.
        """
        arrays, header = read_archive(path)
        if header.pop("content", None) != "history":
            raise ValueError(f"{path} is an archive of lowprec, but not a saved history")
        return cls.unpacked(arrays, header)

    @classmethod
    def unpacked(cls, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> Self:
        """Return the history of what `packed` gave."""
        scale = header.get("facts", {}).get("target_scale")
        units = None if scale is None else TargetScale(*map(tuple, scale))
        return cls(
            history={name: array.tolist() for name, array in arrays_in("history", arrays).items()},
            params=TrainedParams(arrays_in("params", arrays), units),
            state={Slot.of(name): array for name, array in arrays_in("state", arrays).items()},
            loss_scales=arrays["loss_scales"].tolist(),
            step_losses=arrays.get("step_losses", np.zeros(0)).tolist(),  # older files have none
            skipped_steps=arrays["skipped_steps"].tolist(),
            **header,
        )

    def plot(self) -> Figure:
        """Draw the loss and the first metric, and the loss scale with its skips if there is one.

        Returns
        -------
        matplotlib.figure.Figure
            Jupyter shows it; ``savefig`` writes it.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib, naming the extra to install.
        """
        from lowprec.train.running.curves import history_figure

        return history_figure(self.history, self.loss_scales, self.skipped_steps)

    @property
    def _headline(self) -> str:
        count = len(self.epoch)
        words = f"{count} epoch{'' if count == 1 else 's'}"
        words += f" in {self.facts['policy']}" if "policy" in self.facts else ""
        skips = len(self.skipped_steps)
        return words + (f", {skips} step{'' if skips == 1 else 's'} skipped" if skips else "")

    @property
    def _last(self) -> dict[str, str]:
        from lowprec.train.running.progress import figure

        return {name: figure(values[-1]) for name, values in self.history.items() if values}

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {text}" for name, text in self._last.items())
        return f"History: {self._headline}{'; ' if last else ''}{last}"

    def _repr_html_(self) -> str:
        cells = "".join(
            f'<span style="display:inline-block;margin-right:1.5em"><small style="opacity:.75">'
            f"{html.escape(name)}</small><br>{html.escape(text)}</span>"
            for name, text in self._last.items()
        )
        return f"<div><b>History</b>&nbsp; {html.escape(self._headline)}<br>{cells}</div>"
