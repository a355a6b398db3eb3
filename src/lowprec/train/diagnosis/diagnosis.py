"""What a diagnosis found: outcome, cause, place, cures, and the experiments that show them."""

from __future__ import annotations

import dataclasses
import html
from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.train.running.json_values import as_json

if TYPE_CHECKING:
    import os

    from lowprec.train.recorder.recorder import Recorder
    from lowprec.train.running.outcome import Outcome


class Cure(NamedTuple):
    """A cure that was tried.

    Attributes
    ----------
    code : str
        The argument of `fit`, to paste.
    outcome : Outcome
        What became of the training with it.
    rescues : bool
        Whether it wins back nine tenths of what was lost.
    """

    code: str
    outcome: Outcome
    rescues: bool


class Experiment(NamedTuple):
    """A training that was made to find out.

    Attributes
    ----------
    name : str
        What was different.
    end : float or None
        The loss it ends at; None where it could not be run.
    rescues : bool or None
        Whether it wins back what was lost; None where that was not the question.
    steps : int
        Its length.
    """

    name: str
    end: float | None
    rescues: bool | None
    steps: int


@dataclasses.dataclass(frozen=True, repr=False)
class Diagnosis:
    """What `diagnose` returns.

    Attributes
    ----------
    outcome : Outcome
        What became of the training, beside float32.
    cause : str or None
        A part of the policy, parts joined by ``+``, ``user code`` or ``not precision``; None for a
        healthy run.
    place : str or None
        The least set of layers, a parameter, ``the inputs``, or a function of the user's.
    cures : list of Cure
        What was tried: those that rescue, the cheapest first, then those that do not.
    experiments : list of Experiment
        All trainings, in the order in which they were made.
    verdict : list of str
        All of it in sentences: the outcome, then cause, place, cures, and what was not made.
    recorder : Recorder or None
        What the failing training recorded.
    topics : tuple of str
        What each sentence is about: ``outcome``, ``cause``, ``place``, ``cure``, ``no cure`` or
        ``not made``.
    """

    outcome: Outcome
    cause: str | None
    place: str | None
    cures: list[Cure]
    experiments: list[Experiment]
    verdict: list[str]
    recorder: Recorder | None = None
    topics: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the recorder as JSON holds it; what is not finite is None."""
        found: dict[str, Any] = as_json(
            {
                "outcome": self.outcome.to_dict(),
                "cause": self.cause,
                "place": self.place,
                "cures": [
                    {"code": cure.code, "end": cure.outcome.end, "rescues": cure.rescues}
                    for cure in self.cures
                ],
                "experiments": [one._asdict() for one in self.experiments],
                "verdict": self.verdict,
            }
        )
        return found

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write a page with the verdict, the cures to paste and the pictures of the failing run.

        Parameters
        ----------
        path : str or path
            The .html file to write, whole or not at all.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib or Jinja2, naming the extra to install.
        """
        from lowprec.common.whole_files import write_atomically
        from lowprec.train.recorder.page import recorder_page
        from lowprec.train.recorder.recorder import Recorder

        first = self.outcome.level
        levels = [{"green": "healthy"}.get(first, first)] + ["note"] * (len(self.verdict) - 1)
        page = recorder_page(
            self.recorder or Recorder(),
            verdict=list(zip(levels, self.verdict, strict=True)),
            topics=self.topics,
            cures=[cure for cure in self.cures if cure.rescues],
            experiments=self.experiments,
        )
        write_atomically(path, page)

    def __repr__(self) -> str:
        marks = ["✗" if self.outcome.is_red else "✓"]
        lines = zip(marks + ["→"] * (len(self.verdict) - 1), self.verdict, strict=True)
        return "\n".join(f"{mark} {sentence}" for mark, sentence in lines)

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.verdict)
        return f"<div><b>Diagnosis</b><ul>{items}</ul></div>"
