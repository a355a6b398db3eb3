"""What a demonstration returns, and the training that most of them share."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from lowprec.train.layers import Dense, Input
from lowprec.train.model import Sequential
from lowprec.train.recorder import Recorder
from lowprec.train.running.loop import fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.train.dataset import Dataset
    from lowprec.train.running.history import History


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """What a demonstration found; it prints as text.

    text: What that number is, with it.
    cause: The rule of `lowprec.train.recorder.rules` that names the cause.
    recorder: The run that goes wrong.
    cured: The same with the cure.
    """

    title: str
    number: float
    text: str
    cause: str
    recorder: Recorder
    cured: Recorder | None = None

    @property
    def verdict(self) -> list[str]:
        """What the recorder of the failing run says."""
        return self.recorder.verdict

    def __str__(self) -> str:
        lines = [self.title, "  " + self.text, *(f"  → {line}" for line in self.verdict)]
        if self.cured is not None:
            lines.append(f"  with the cure: {self.cured.verdict[0]}")
        return "\n".join(lines)


def network(data: Dataset, hidden: Sequence[int], activation: str = "relu") -> Sequential:
    """Return dense layers of these widths for some data."""
    inner = [Dense(units, activation=activation) for units in hidden]
    return Sequential([Input(data.input_shape), *inner, Dense(data.outputs)])


def recorded(
    model: Sequential, data: Dataset, *, every: int = 10, reference: Any = None, **how: Any
) -> tuple[History, Recorder]:
    """Train with a recorder, and return both the history and the recorder."""
    recorder = Recorder(every, reference=reference)
    history = fit(model, data, recorder=recorder, verbose=False, **how)
    return history, recorder
