"""The training section: how far policies come with real data, and what they cost in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowprec.common.outputs import json_kind, page_kind
from lowprec.show.pages import page_environment, stylesheet
from lowprec.train.studies import figures as training_figures
from lowprec.train.studies.tables import (
    caption,
    policies_legend,
    policies_table_html,
    verdict_html,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.train.studies.results import PolicyResults

PAGE = page_kind("lowprec train")
JSON = json_kind(
    "the figures of lowprec train",
    lambda content: {"policies", "verdict"} <= set(content) or {"history", "facts"} <= set(content),
)


def training_body(comparison: PolicyResults, step: Callable[[str], None]) -> Any:
    """Return charts, table and verdict as HTML for a page that has the style.

    step: Called with a description before each of the two figures.
    """
    from markupsafe import Markup

    def figure(what: str, draw: Callable[[PolicyResults], str], text: str) -> str:
        step(f"drawing {what}")
        return f"<figure>{draw(comparison)}<figcaption>{text}</figcaption></figure>"

    return Markup(
        verdict_html(comparison)
        + figure("learning curves", training_figures.curves, _CURVES)
        + policies_table_html(comparison)
        + policies_legend(comparison)
        + figure("memory", training_figures.memory, _MEMORY)
    )


_CURVES = (
    "Lines are means over the seeds, bands go from the least to the most. A line that ends or is "
    "missing was not finite."
)
_MEMORY = (
    "What must be kept of each parameter, from the left: the stored parameter, the optimizer's "
    "state, the copy in the compute format. Mixed precision adds that copy; activations and "
    "gradients, which are not counted here, take half of float32's bytes."
)


def training_page(comparison: PolicyResults) -> str:
    """Return a comparison of policies as a whole page that refers to nothing outside itself.

    Raises ModuleNotFoundError without matplotlib or Jinja2, naming the extra to install.
    """
    environment = page_environment("lowprec.train.studies")
    from markupsafe import Markup

    from lowprec.show.machine import facts

    return environment.get_template("training.html").render(
        style=Markup(stylesheet("page.css", "comparison.css", "training.css", "report.css")),
        lead=caption(comparison),
        body=training_body(comparison, lambda description: None),
        facts=[("model", comparison.facts["model"]), *facts()],
    )
