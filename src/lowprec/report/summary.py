"""What the report found, as data, and in a terminal."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from lowprec.analysis.judgement import cell_lines, grade
from lowprec.train.studies.tables import caption, policies_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from lowprec.analysis.advice import Advice
    from lowprec.blocks.formats import AnyFormat
    from lowprec.report.throughput import Timing
    from lowprec.train.studies.policy_comparison import PolicyComparison

_STYLES = {
    "overflows": "bold red",
    "zeros": "yellow",
    "collapsed": "yellow",
    "coarse": "dim",
    "exact": "green",
}


@dataclasses.dataclass(frozen=True)
class ReportSummary:
    """What the report found, as data; it prints as tables of at most 80 columns.

    seconds: How long that took.
    advice: What each format does to each tensor.
    training: How far each policy comes with the digits.
    """

    path: str
    seconds: float
    advice: Mapping[str, Advice]
    timings: Sequence[Timing]
    training: PolicyComparison

    def __rich__(self) -> RenderableType:
        return summary_view(self)


def summary_view(summary: ReportSummary) -> RenderableType:
    """Return what became of tensors, what conversions cost and what training survives.

    It fits 80 columns.

    summary: What `write_report` returned.
    Returns: Three tables and where the page is.
    """
    from rich.console import Group
    from rich.text import Text

    where = Text.assemble(
        "Wrote ", (summary.path, "bold"), f" in {summary.seconds:.1f} s: open it in a browser."
    )
    return Group(_tensors(summary), _speed(summary), *_training(summary), where)


def _table_of_formats(title: str, formats: Iterable[AnyFormat]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, padding=(0, 0, 0, 1)
    )
    table.add_column("", no_wrap=True)
    for fmt in formats:
        table.add_column(fmt.name.removeprefix("float8_"), justify="right", no_wrap=True)
    return table


def _tensors(summary: ReportSummary) -> RenderableType:
    from rich.text import Text

    formats = [one.fmt for one in next(iter(summary.advice.values())).formats]
    table = _table_of_formats("Largest relative error, or what is lost", formats)
    for name, row in summary.advice.items():
        cells = [
            Text("\n".join(cell_lines(one)), _STYLES.get(grade(one), "")) for one in row.formats
        ]
        table.add_row(name, *cells)
    return table


def _speed(summary: ReportSummary) -> RenderableType:
    formats = dict.fromkeys(timing.fmt for timing in summary.timings)
    table = _table_of_formats("Time over a float32 copy, one thread", formats)
    ratios = {(t.operation, t.fmt): f"{t.ratio:.2f} ×" for t in summary.timings}
    for operation in dict.fromkeys(timing.operation for timing in summary.timings):
        table.add_row(operation, *(ratios[operation, fmt] for fmt in formats))
    return table


def _training(summary: ReportSummary) -> list[RenderableType]:
    from rich.text import Text

    comparison = summary.training
    table = policies_table(comparison)
    table.title, table.title_justify = f"Training: {caption(comparison)}", "left"
    advice = comparison.verdict[len(comparison.results) :]
    return [table, Text(), *map(Text, advice), Text()]
