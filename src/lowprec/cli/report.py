"""``lowprec report``: the page about range, precision and throughput."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.cli.arguments import add_overwrite
from lowprec.cli.terminal import progress, show

if TYPE_CHECKING:
    import argparse

    from lowprec.cli.arguments import Add

PLACE = 9  #: among the commands


def register(add: Add) -> None:
    """Add the command."""
    report = add(
        "report",
        _report,
        "write an HTML report on range, precision and throughput with real data",
        "lowprec report -o lowprec-report.html",
    )
    report.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default="lowprec-report.html",
        help="the page to write (default: %(default)s)",
    )
    add_overwrite(report)


def _report(options: argparse.Namespace) -> None:
    from lowprec.report.page import write_report

    how = {"overwrite": True} if options.overwrite else {}
    with progress(begin="loading the data sets", lines=True) as show_progress:
        summary = write_report(options.output, progress=show_progress, **how)
    show(summary)
