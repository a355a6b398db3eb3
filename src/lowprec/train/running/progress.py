"""The progress of a training, in the words of Keras: a line an epoch."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from lowprec.train.metrics import is_validation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console
    from rich.text import Text

_WIDTH = 20  # of the bar
_INTERVAL = 0.1  # seconds between two drawings


class Progress:
    """Shows how far a training has come; used with ``with``.

    A terminal shows the running epoch, drawn at most ten times a second. Elsewhere, in Jupyter
    too, each epoch's line appears when it is finished.

    epochs: How many epochs there will be.
    steps: How many steps each has; None where that is not known: the first epoch's end tells.
    verbose: Whether to show anything; auto: where stdout is a terminal or a notebook.
    console: Where to; by default stdout.

    Examples
    --------
    >>> with Progress(10, 45, verbose=False) as progress:
    ...     progress.begin_epoch(0)
    ...     progress.update(lambda: {"loss": 0.5})
    ...     progress.end_epoch({"loss": 0.5, "val_loss": 0.4})
    """

    def __init__(
        self,
        epochs: int,
        steps: int | None,
        verbose: bool | str = "auto",
        console: Console | None = None,
    ) -> None:
        self.epochs, self.steps = epochs, steps
        self.step, self.began, self.after_first, self.now, self.drawn = 0, 0.0, 0.0, 0.0, 0.0
        self.console = _console(console, verbose)
        self.live: Any = None

    def __enter__(self) -> Progress:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the terminal back, also when training fails."""
        self._stop_live()

    def begin_epoch(self, epoch: int) -> None:
        """Begin an epoch, counted from 0."""
        if self.console is None:
            return
        self.console.print(f"Epoch {epoch + 1}/{self.epochs}", highlight=False)
        self.step = 0
        self.began = self.drawn = self.now = time.perf_counter()
        if self.console.is_terminal and not self.console.is_jupyter:
            from rich.live import Live

            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.start()

    def update(self, logs: Callable[[], Mapping[str, float]]) -> None:
        """Count a step; `logs` is called for the means so far only where they are drawn."""
        if self.console is None:
            return
        self.step += 1
        self.now = time.perf_counter()
        if self.step == 1:
            self.after_first = self.now
        if self.live is not None and self.now - self.drawn >= _INTERVAL:
            self.drawn = self.now
            self.live.update(self._line(logs(), self._remaining()), refresh=True)

    def end_epoch(self, logs: Mapping[str, float]) -> None:
        """End an epoch with its values, validation included."""
        if self.console is None:
            return
        self._stop_live()
        self.steps = self.step if self.steps is None else self.steps
        elapsed = f"{time.perf_counter() - self.began:.0f}s"
        ends = self.console.is_terminal and not self.console.is_jupyter
        width = self.console.width if ends else math.inf
        self.console.print(self._line(logs, elapsed, width), soft_wrap=True)

    def _stop_live(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def _line(self, logs: Mapping[str, float], clock: str, width: float = math.inf) -> Text:
        """Return the line of an epoch, which goes on below where the next value has no room."""
        from rich.text import Text

        assert self.console is not None
        steps = self.steps
        done = _WIDTH * min(self.step, steps) // steps if steps else 0
        dash = "━" if self.console.encoding.startswith("utf") else "="
        count = f"{self.step:{len(str(steps or self.step))}d}/{steps or '?'} "
        line = Text.assemble(
            (count, "bold"),
            (dash * done, "green"),
            (dash * (_WIDTH - done), "bright_black"),
            " ",
            (clock, "bold"),
            f" {_duration(self._per_step())}/step",
            no_wrap=True,
            overflow="ellipsis",
        )
        column = len(line)
        for name in sorted(logs, key=_rank):
            value = f"- {name}: {figure(logs[name])}"
            if column + 1 + len(value) > width:
                line.append("\n" + " " * (len(count) - 1))
                column = len(count) - 1
            line.append(f" {value}")
            column += 1 + len(value)
        return line

    def _per_step(self) -> float:
        """Return seconds a step; the first one, with its preparations, does not count."""
        if self.step > 1:
            return (self.now - self.after_first) / (self.step - 1)
        return self.now - self.began

    def _remaining(self) -> str:
        if self.steps is None:
            return "…"
        seconds = int(self._per_step() * max(self.steps - self.step, 0))
        if seconds < 60:
            return f"{seconds}s"
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def figure(value: float) -> str:
    """Return a value with four decimals, or with an exponent below 1e-3, as Keras does.

    Examples
    --------
    >>> figure(0.73), figure(0.00012345)
    ('0.7300', '1.2345e-04')
    """
    return f"{value:.4e}" if abs(value) < 1e-3 else f"{value:.4f}"


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.0f}s"
    return f"{seconds * 1e3:.0f}ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us"


def _rank(name: str) -> tuple[bool, str]:
    """Order names by the alphabet, those of validation last."""
    return is_validation(name), name


def _console(console: Console | None, verbose: bool | str) -> Console | None:
    """Return where to print, or None for silence."""
    if isinstance(verbose, str) and verbose != "auto":
        raise ValueError(f'verbose is {verbose!r}; use True, False or "auto"')
    if not verbose:
        return None
    if console is None:
        from rich.console import Console as RichConsole

        console = RichConsole()
    shown = verbose != "auto" or console.is_terminal or console.is_jupyter
    return console if shown else None
