"""The recorder: tracks of every tensor, the facts of the run, and what is made of them."""

from __future__ import annotations

import html
import operator
import weakref
from typing import TYPE_CHECKING, Any, Self

from lowprec.common.outputs import Output, check_outputs, write_output
from lowprec.common.processor_state import in_exact_state
from lowprec.formats import get_format
from lowprec.train.recorder.following import (
    MOST_EVENTS,
    check_goes_on,
    facts_of,
    first_not_finite,
)
from lowprec.train.recorder.kinds import kind_of, labels_of
from lowprec.train.recorder.record import Record
from lowprec.train.recorder.watching import Inquest, Recording
from lowprec.train.running.listening import Listening
from lowprec.train.running.training import Follower

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike
    from rich.console import RenderableType

    from lowprec.formats import FormatLike
    from lowprec.train.policy import Policy
    from lowprec.train.recorder.finding import Finding
    from lowprec.train.recorder.predictions import WhatIf
    from lowprec.train.recorder.scaling import ScaleAdvice
    from lowprec.train.running.history import History
    from lowprec.train.running.passes import Pass
    from lowprec.train.running.training import Training
    from lowprec.train.running.watch import Watch


class Recorder(Record, Follower):
    """Records what rounding does to every tensor of a training: give it to ``fit(recorder=…)``.

    Weights, activations, their gradients, moments and updates are tallied every `every` steps, in
    memory that does not grow with the run; recording changes no bit of the training. Tensors from
    elsewhere come in through `observe`.

    Parameters
    ----------
    every : int
        Record one step in `every`.
    policy : Policy or str, optional
        What tensors that are observed would be rounded to; `fit` uses its own.
    reference : History or sequence of float, optional
        The same training in float32, or its loss by epoch: tells what is harmless from what costs.

    Raises
    ------
    ValueError
        If `every` is less than 1.

    Examples
    --------
    >>> import textwrap
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((4,)), train.Dense(3)])
    >>> recorder = Recorder(every=2)
    >>> history = train.fit(
    ...     model,
    ...     train.data.iris().scaled("standard"),
    ...     loss="sparse_categorical_crossentropy",
    ...     optimizer=train.Adam(1e-2),
    ...     policy="mixed_bfloat16",
    ...     epochs=5,
    ...     recorder=recorder,
    ... )
    >>> print(textwrap.fill(recorder.verdict[0], 96))
    Nothing was lost in what was recorded (weights, activations, activation gradients, weight
    gradients, optimizer state, updates; 10 recorded steps of 20 in mixed_bfloat16); pass reference=
    to hold the outcome against float32.
    """

    def __init__(
        self,
        every: int = 10,
        *,
        policy: Policy | str | None = None,
        reference: History | Sequence[float] | None = None,
    ) -> None:
        super().__init__(every, policy=policy, reference=reference)
        self._numerics: Any = None
        self._training: weakref.ref[Training] | None = None  # a recorder outlives the data

    # Recording -----------------------------------------------------------------------------------

    def watch(self, training: Training) -> Recording | None:
        """Return what looks at this step of a training, or None where it is not recorded."""
        if self._training is None or self._training() is not training:
            self._attach(training)
        history = training.history
        self.curves, self.step_losses = history.history, history.step_losses
        self.skipped_steps = history.skipped_steps
        scale = 1.0 if training.loss_scale is None else training.loss_scale.value
        if not self.scales or self.scales[-1][1] != scale:
            self.scales.append((training.seen, scale))
        self.steps = training.seen + 1
        if training.seen % self.every:
            return None
        self.recorded += 1
        return Recording(self._numerics, self, training.seen, scale)

    def finish(self, training: Training, repeat: Callable[[Watch], Pass]) -> None:
        """Look at a training after a step; `repeat` runs the step's passes again.

        Where the step was skipped, or its weights are no longer finite, the passes are repeated to
        find the first tensor that is not.
        """
        skipped = training.history.skipped_steps[-1:] == [training.seen]
        self.skips += skipped
        if not skipped:
            rate = float(training.optimizer.rate(training.step - 1))
            highest, total = self.facts["rates"]
            self.facts["rates"] = [max(highest, rate), total + rate]
            if (self.events and self.is_broken) or self._numerics.is_finite(training.params):
                return
        elif len(self.events) >= MOST_EVENTS:
            return
        event, made = first_not_finite(training, repeat, Inquest(self._numerics), skipped=skipped)
        if event is not None:
            self.events.append(event)
            self.facts.setdefault("made", {})[str(event.step)] = made

    def _attach(self, training: Training) -> None:
        """Begin to record a training, or go on with one that was resumed."""
        check_goes_on(self, training)
        self.policy, self._training = training.policy, weakref.ref(training)
        self._numerics, self.places = Listening(training.policy), training.places
        self.labels |= labels_of(training.model.layers)
        self.facts |= facts_of(training)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: all but the run in progress."""
        return self.__dict__ | {"_numerics": None, "_training": None}

    @in_exact_state
    def observe(
        self,
        step: int,
        kind: str,
        name: str,
        array: ArrayLike,
        *,
        scale: float = 1.0,
        parameter: ArrayLike | None = None,
        loss: float | None = None,
        loss_scale: float | None = None,
        skipped: bool | None = None,
    ) -> None:
        """Record a tensor from anywhere, such as a hook in PyTorch or JAX.

        Parameters
        ----------
        step : int
            Of the training; a tensor's steps come in order.
        kind : str
            One of ``weight``, ``activation``, ``preactivation``, ``activation_gradient``,
            ``weight_gradient``, ``moment``, ``update``, ``target``, ``error``: it says which of
            the policy's formats counts.
        name : str
            What to call it; tensors of all kinds may share a name.
        array : array_like
            Real numbers, best before any rounding; torch tensors on the CPU too.
        scale : float
            The loss scale that a gradient was multiplied by.
        parameter : array_like, optional
            For an update: the weight that it is added to, to see which updates are lost.
        loss, loss_scale, skipped
            What became of the step, as for `observe_step`; once a step is enough.

        Raises
        ------
        TypeError
            If they are not real numbers.
        ValueError
            If there is no such kind, or shapes do not match.

        Examples
        --------
        >>> recorder = Recorder(policy="float16")
        >>> recorder.observe(0, "weight_gradient", "w", [1e-9, 1e-3])
        >>> recorder.track("weight_gradient", "w").whole.new_zero_rate
        0.5
        """
        from lowprec.train.recorder.observing import observe

        step = operator.index(step)
        observe(self, step, kind_of(kind), name, array, scale, parameter)
        self.recorded += step + 1 > self.steps
        self.observe_step(step, loss=loss, loss_scale=loss_scale, skipped=skipped)

    def observe_step(
        self,
        step: int,
        *,
        loss: float | None = None,
        loss_scale: float | None = None,
        skipped: bool | None = None,
    ) -> None:
        """Record what became of a step of a training from anywhere.

        Parameters
        ----------
        step : int
            Of the training; steps come in order.
        loss : float, optional
            The loss, not scaled; NaN and infinity too.
        loss_scale : float, optional
            What the loss was multiplied by.
        skipped : bool, optional
            Whether the step was skipped.

        Examples
        --------
        >>> recorder = Recorder(policy="float16")
        >>> for step, loss in enumerate([2.5, 2.4, float("nan")]):
        ...     recorder.observe_step(step, loss=loss)
        >>> print(recorder.verdict[0])
        Broken: the loss ends at NaN, which is not finite; no rule explains it.
        """
        from lowprec.train.recorder.observing import observe_step

        step = operator.index(step)
        observe_step(self, step, loss, loss_scale, skipped)
        self.steps = max(self.steps, step + 1)

    # Reading -------------------------------------------------------------------------------------

    @property
    @in_exact_state
    def findings(self) -> list[Finding]:
        """What the rules have to say, the worst first; a healthy run has none but notes."""
        from lowprec.train.recorder.rules import findings

        return findings(self)

    @property
    @in_exact_state
    def verdict(self) -> list[str]:
        """What happened and what to do, in words: a sentence or two a finding, the worst first."""
        from lowprec.train.recorder.verdict import verdict

        return verdict(self)

    @in_exact_state
    def loss_scale(self, fmt: FormatLike | None = None) -> ScaleAdvice:
        """Return which loss scales keep the gradients of this run in a format.

        Parameters
        ----------
        fmt : Format, str or dtype, optional
            By default the policy's format of gradients.

        Raises
        ------
        ValueError
            If no gradient was recorded.
        """
        from lowprec.train.recorder.scaling import advise_scale

        return advise_scale(self, self.policy.formats["gradients"] if fmt is None else fmt)

    @in_exact_state
    def what_if(self, policies: Iterable[Policy | str] | Policy | str | None = None) -> WhatIf:
        """Predict what each policy would lose in this training, before anyone trains in it.

        Parameters
        ----------
        policies : iterable of Policy or str, optional
            By default all named ones.

        Raises
        ------
        ValueError
            If the run was not recorded in float32: rounding hides what other formats would keep.
        """
        from lowprec.train.recorder.whatif import what_if

        return what_if(self, policies)

    @in_exact_state
    def report(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a page with the verdict and the pictures; it refers to nothing outside itself.

        Parameters
        ----------
        path : str or path
            The .html file to write, whole or not at all. The page of a recorder is replaced.
        overwrite : bool
            Whether a file that is not the page of a recorder may be replaced.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib or Jinja2, naming the extra to install.
        OSError
            If the page cannot be written, or the file exists and is not the page of a recorder.
        """
        from lowprec.train.recorder.page import PAGE, recorder_page

        output = Output(path, PAGE)
        check_outputs([output], overwrite=overwrite)
        write_output(output, recorder_page(self), overwrite=overwrite)

    @in_exact_state
    def plot(self, kind: str = "activation_gradient", fmt: FormatLike = "float16") -> Figure:
        """Draw how large the tensors of a kind are, with what a format cannot hold shaded.

        Parameters
        ----------
        kind : str
            The kind of tensors, as for `observe`.
        fmt : Format, str or dtype
            The format.

        Returns
        -------
        matplotlib.figure.Figure
            Jupyter shows it; ``savefig`` writes it.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib, naming the extra to install.
        ValueError
            If there is no such kind, or none was recorded.
        """
        from lowprec.train.recorder.plots import histogram_figure

        return histogram_figure(self, kind_of(kind), get_format(fmt))

    # Keeping -------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write everything to an .npz file, whole or not at all.

        Parameters
        ----------
        path : str or path
            The file, which gets exactly this name. A saved recorder is replaced.
        overwrite : bool
            Whether a file that is not a saved recorder may be replaced.

        Raises
        ------
        OSError
            If the file cannot be written, or exists and is not a saved recorder.
        """
        from lowprec.train.recorder.files import SAVED, save

        check_outputs([Output(path, SAVED)], overwrite=overwrite)
        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the recorder in a file that `save` wrote; ``fit(resume=…)`` goes on with it.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged or holds something else.
        """
        from lowprec.train.recorder.files import load

        return load(cls, path)

    @in_exact_state
    def merge(self, other: Recorder) -> Recorder:
        """Return a recorder of both: the two halves of a resumed run, or runs side by side.

        Curves and reference are of the one that saw more steps; without a reference of its own, it
        is judged by the other's.

        Raises
        ------
        ValueError
            If the two are of different policies.
        """
        from lowprec.train.recorder.merging import merge

        return merge(self, other)

    @in_exact_state
    def __rich__(self) -> RenderableType:
        from lowprec.train.recorder.views import recorder_view

        return recorder_view(self)

    @in_exact_state
    def __repr__(self) -> str:
        from lowprec.show.text import as_text

        return as_text(self.__rich__()).strip("\n")

    @in_exact_state
    def _repr_html_(self) -> str:
        items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.verdict)
        return f"<div><b>Recorder</b><ul>{items}</ul></div>"
