"""A comparison of policies: results, the verdict on them, and their views."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from lowprec.common.processor_state import in_exact_state
from lowprec.train.running.json_values import as_json
from lowprec.train.studies.results import PolicyResults

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType


@dataclasses.dataclass(frozen=True, repr=False)
class PolicyComparison(PolicyResults):
    """What `compare_policies` returns: it prints as a table with a verdict.

    Attributes
    ----------
    results : tuple of PolicyResult
        One a policy, in the order given.
    baseline_added : bool
        Whether float32 was not asked for.
    facts : dict
        What was trained: model, data, loss, optimizer, epochs, batch_size, seeds.
    """

    @property
    @in_exact_state
    def verdict(self) -> list[str]:
        """What the numbers say, a sentence or two a policy; causes are guesses and say so."""
        from lowprec.train.studies.verdicts import comparison_in_words

        return comparison_in_words(self)

    @in_exact_state
    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it; what is not finite is None."""
        return {
            **as_json(self.facts),
            "metric": self.metric,
            "baseline_added": self.baseline_added,
            "policies": [result.to_dict() for result in self.results],
            "verdict": self.verdict,
        }

    @in_exact_state
    def to_html(self) -> str:
        """Return a whole page, with charts, that refers to nothing outside itself.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib, naming the extra to install.
        """
        from lowprec.train.studies.page import training_page

        return training_page(self)

    @in_exact_state
    def plot(self) -> Figure:
        """Draw the learning curves of all policies: means with a band from least to most.

        Returns
        -------
        matplotlib.figure.Figure
            Jupyter shows it; ``savefig`` writes it.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib, naming the extra to install.
        """
        from lowprec.train.studies.figures import curves_figure

        return curves_figure(self)

    @in_exact_state
    def __rich__(self) -> RenderableType:
        from lowprec.train.studies.tables import comparison_view

        return comparison_view(self)

    @in_exact_state
    def __repr__(self) -> str:
        from lowprec.show.text import as_text

        return as_text(self.__rich__(), width=80)

    @in_exact_state
    def _repr_html_(self) -> str:
        from lowprec.train.studies.tables import comparison_fragment

        return comparison_fragment(self)
