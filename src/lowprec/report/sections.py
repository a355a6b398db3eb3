"""The parts of the report page: what each says, and the figure or table that shows it.

A further subject is a further function that yields a `Section`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from lowprec.analysis.comparison import Comparison
from lowprec.analysis.comparison_views import comparison_table_html
from lowprec.analysis.judgement import advice_in_words
from lowprec.formats import get_format
from lowprec.report import figures, throughput
from lowprec.show.words import percent
from lowprec.train.studies.page import training_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import jinja2

    from lowprec.analysis.advice import Advice
    from lowprec.analysis.measurement import Measurement
    from lowprec.formats import Format
    from lowprec.report.throughput import Timing
    from lowprec.train.studies.policy_comparison import PolicyComparison

BASELINE = get_format("float32")


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page: a heading that says what is learnt, a text, and figures or tables."""

    key: str
    title: str
    text: str
    body: Any


@dataclasses.dataclass(frozen=True)
class Findings:
    """What was measured for the page."""

    formats: Sequence[Format]
    tensors: Mapping[str, Any]
    advice: Mapping[str, Advice]
    timings: Sequence[Timing]
    training: PolicyComparison
    tolerance: float

    @property
    def measured(self) -> dict[str, Measurement]:
        """Each tensor's measurement in the first format, for what is the same in all."""
        return {name: row.formats[0].measured for name, row in self.advice.items()}

    @property
    def comparison(self) -> Comparison:
        """All measurements as a table."""
        return Comparison(
            {
                name: {one.fmt.name: one.measured for one in row.formats}
                for name, row in self.advice.items()
            }
        )


def sections(
    found: Findings, environment: jinja2.Environment, step: Callable[[str], None]
) -> Iterator[Section]:
    """Yield the parts of the page in order.

    Parameters
    ----------
    found : Findings
        What to show.
    environment : jinja2.Environment
        Where templates come from.
    step : callable
        Called with a description before each figure is drawn.
    """
    from markupsafe import Markup

    def figure(what: str, draw: Callable[..., str], *arguments: Any) -> Markup:
        step(f"drawing {what}")
        return Markup(f"<figure>{draw(*arguments)}</figure>")

    formats = [BASELINE, *found.formats]
    yield _glance(found, environment)
    yield Section(
        "layout",
        "The bits are spent differently",
        "Exponent bits (solid) buy range, trailing significand bits (pale) buy precision; the "
        "outlined bit is the sign. bfloat16 keeps the eight exponent bits of float32 and gives up "
        "sixteen bits of precision; float16 keeps three more bits of precision and pays in range.",
        figure("bit layouts", figures.bit_layouts, formats),
    )
    yield Section(
        "range",
        "Where the data lie, and where the formats end",
        "Each bar is the range of a format, pale where numbers are subnormal and lose digits one "
        "by one. Each line below is a real tensor, from its smallest nonzero magnitude to its "
        "largest. The tinted band is the range of float16: what sticks out on the right overflows, "
        "what sticks out on the left becomes zero.",
        figure("ranges", figures.ranges, formats, found.measured),
    )
    yield Section(
        "precision",
        "How far a value moves when it is rounded",
        "The largest relative error near each magnitude, measured. Inside its range a format stays "
        "on its level, within a saw-tooth of a factor of two: the level is its precision. To the "
        "left errors climb through the subnormal numbers until everything becomes zero (100 %); "
        "dotted lines mark where a format overflows.",
        figure("precision", figures.precision, found.formats),
    )
    yield _tensors(found, environment, step)
    yield Section(
        "numbers",
        "The same in numbers",
        "Errors and signal to noise are taken over the nonzero values that did not overflow: a "
        "format that overflows can look fine by them alone. More decibels are better; 6 dB are "
        "one bit.",
        Markup(comparison_table_html(found.comparison.measurements)),
    )
    yield _training(found.training, step)
    yield _speed(found, figure)


def _glance(found: Findings, environment: jinja2.Environment) -> Section:
    from markupsafe import Markup

    body = environment.get_template("glance.html").render(
        formats=found.formats, advice=found.advice, tolerance=percent(found.tolerance)
    )
    return Section(
        "glance",
        "At a glance",
        "One row a tensor, one column a format. Percentages say how far the worst value moved; "
        "arrows, how many values were lost and what became of them.",
        Markup(body),
    )


def _tensors(
    found: Findings, environment: jinja2.Environment, step: Callable[[str], None]
) -> Section:
    from markupsafe import Markup

    cards = []
    for position, (name, row) in enumerate(found.advice.items()):
        step(f"drawing {name}")
        one = row.formats[0].measured
        drawing = figures.histogram(name, f"tensor{position}", found.formats, one)
        shape = " × ".join(f"{extent:,}" for extent in found.tensors[name].shape)
        cards.append(
            {
                "name": name,
                "shape": f"{shape} values" + (f", {one.zeros:,} of them zero" if one.zeros else ""),
                "figure": Markup(drawing),
                "verdict": advice_in_words(row.formats),
            }
        )
    body = environment.get_template("tensors.html").render(formats=found.formats, cards=cards)
    return Section(
        "tensors",
        "Tensor by tensor",
        "Bars count the values in each binade (between two powers of two). The strips beneath are "
        "the ranges of the formats, float16's goes on as the tinted band: values with no strip "
        "below them are lost there. A format holds a tensor if no value is lost and none moves by "
        f"more than {percent(found.tolerance)} or one rounding of the format; scales are verified "
        "by measuring again.",
        Markup(body),
    )


def _training(comparison: PolicyComparison, step: Callable[[str], None]) -> Section:
    facts = comparison.facts
    return Section(
        "training",
        "What training survives",
        f"A network with two hidden layers of 100 units learns the digits: {facts['optimizer']} "
        f"with a learning rate of {facts['learning_rate']:g}, {facts['epochs']} epochs, "
        f"{len(facts['seeds'])} seeds. A mixed policy keeps float32 parameters and computes with "
        "their copies in a narrow format; a pure one keeps everything in it. The same seed gives "
        "the same initial parameters and batches under all of them, so that rounding alone makes "
        "the differences.",
        training_body(comparison, step),
    )


def _speed(found: Findings, figure: Callable[..., Any]) -> Section:
    return Section(
        "speed",
        "What it costs",
        throughput.in_words(found.timings),
        figure("throughput", figures.throughput, found.timings),
    )
