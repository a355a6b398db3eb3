"""The command ``python -m benchmarks.report``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from benchmarks.report.changes import THRESHOLD, changes
from benchmarks.report.results import read_results

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Show results; return 1 if --baseline finds something slower, 2 if a file cannot be used.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the command line by default.
    """
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description="Show what pytest benchmarks/ --benchmark-json=out.json measured.",
    )
    parser.add_argument("results", metavar="out.json", help="a file of results")
    parser.add_argument("--html", metavar="FILE", help="write a page with charts")
    parser.add_argument("--markdown", action="store_true", help="print the headline as Markdown")
    parser.add_argument(
        "--baseline", metavar="old.json", help="say what became slower than in this file"
    )
    parser.add_argument(
        "--threshold",
        type=_threshold,
        default=THRESHOLD,
        help="fraction from which on a change is told (default: %(default)g)",
    )
    return parser


def _threshold(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a share of a time; use 0 or more, as 0.1")
    return value


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from benchmarks.report.tables import changes_view, results_view

    results = read_results(options.results)
    console = Console(width=None if sys.stdout.isatty() else 100)
    found = []
    if options.baseline:
        old = read_results(options.baseline)
        found = changes(results, old, options.threshold)
    if options.markdown:
        from benchmarks.report.markdown import headline_table

        print(headline_table(results))
    elif options.baseline:
        console.print(changes_view(results, old, found))
    else:
        console.print(results_view(results))
    if options.html:
        from benchmarks.report.page import write_page

        write_page(options.html, results, found)
        print(f"Wrote {options.html}: open it in a browser.", file=sys.stderr)
    return int(any(change.is_slower for change in found))


if __name__ == "__main__":
    sys.exit(main())
