"""The report: what bfloat16, float16 and fp8 do to real data, and what they cost, on one page."""

from __future__ import annotations

import itertools
import os
import time
from typing import TYPE_CHECKING

from lowprec.analysis.judgement import TOLERANCE, advise, cell, grade, standing
from lowprec.common.outputs import Output, check_outputs, page_kind, write_output
from lowprec.formats import get_format
from lowprec.report import training
from lowprec.report.sections import Findings, sections
from lowprec.report.summary import ReportSummary
from lowprec.show.drawing import short_name
from lowprec.show.machine import facts
from lowprec.show.pages import page_environment, stylesheet
from lowprec.show.words import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import jinja2

    from lowprec.analysis.judgement import Standing
    from lowprec.formats import Format

    Progress = Callable[[str, int, int], None]

PAGE = page_kind("lowprec report")

"""A format holds a tensor if nothing is lost and no relative error exceeds this."""

FORMATS = tuple(map(get_format, ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")))


def write_report(
    path: str | os.PathLike[str], progress: Progress | None = None, *, overwrite: bool = False
) -> ReportSummary:
    """Measure scikit-learn's bundled data and this machine, and write one HTML file.

    path: The page to write, whole or not at all. It refers to nothing outside itself. The page of
        an earlier report is replaced.
    progress: Called as ``progress(description, done, total)``.
    overwrite: Whether a file that is not such a page may be replaced.
    Returns: What the page says, in short.
    Raises ModuleNotFoundError without matplotlib, Jinja2 or scikit-learn, naming the extra to
        install.
    Raises OSError if the page cannot be written, or the file exists and is not the page of a
        report; nothing has been measured then.
    """
    from lowprec.report.datasets import load
    from lowprec.report.throughput import OPERATIONS, measure_throughput

    start = time.perf_counter()
    output = Output(path, PAGE)
    check_outputs([output], overwrite=overwrite)
    environment = page_environment("lowprec.report")
    environment.filters |= {"cell": cell, "grade": grade, "short": short_name, "tint": _tint}
    tensors = load()
    figures = len(("bits", "range", "precision", "curves", "memory", "speed"))
    runs = len(training.POLICIES) * training.SEEDS
    timed = len(OPERATIONS) * len(FORMATS)
    step = _steps(progress, 2 * len(tensors) + timed + runs + figures)
    advice = {}
    for name, x in tensors.items():
        step(f"measuring {name}")
        advice[name] = advise(x, FORMATS)
    timings = measure_throughput(FORMATS, lambda: step("timing conversions"))
    trained = training.train_policies(step)
    found = Findings(FORMATS, tensors, advice, timings, trained, TOLERANCE)
    write_output(output, page_text(found, environment, step), overwrite=overwrite)
    return ReportSummary(os.fspath(path), time.perf_counter() - start, advice, timings, trained)


def _steps(progress: Progress | None, total: int) -> Callable[[str], None]:
    """Return a function that reports the next of `total` steps."""
    done = itertools.count(1)

    def step(description: str) -> None:
        if progress is not None:
            progress(description, next(done), total)

    return step


def _tint(fmt: Format) -> str:
    return f"var(--{fmt.name.replace('_', '-')})"


def page_text(found: Findings, environment: jinja2.Environment, step: Callable[[str], None]) -> str:
    """Return the page of a report."""
    from markupsafe import Markup

    by_format = zip(*(row.formats for row in found.advice.values()), strict=True)
    standings = [standing(column[0].fmt, column) for column in by_format]
    return environment.get_template("report.html").render(
        style=Markup(stylesheet("page.css", "comparison.css", "report.css", "training.css")),
        sections=sections(found, environment, step),
        standings=standings,
        lead=_lead(standings),
        facts=facts(),
    )


def _lead(standings: Sequence[Standing]) -> str:
    """Return the answer in two sentences."""
    shares = [f"{standing.fmt} holds {standing.holding or 'none'}" for standing in standings]
    return (
        f"Of {standings[0].total} real tensors, {', '.join(shares[:-1])} and {shares[-1]}. "
        "A format holds a tensor if no value becomes zero, infinite or NaN "
        f"and none moves by more than {percent(TOLERANCE)} or one rounding of the format; few "
        "small values are judged beside the tensor's size."
    )
