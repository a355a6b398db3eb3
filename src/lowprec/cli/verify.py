"""``lowprec verify``: the proofs, run again where the user is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lowprec.cli.arguments import Add, add_formats, add_overwrite, checked
from lowprec.cli.terminal import progress, show
from lowprec.rounding import Rounding

if TYPE_CHECKING:
    import argparse

    from rich.progress import ProgressColumn

    from lowprec.verification import Check, Report

__all__ = ["register"]


def register(add: Add) -> None:
    """Add the command."""
    verify = add(
        "verify",
        _verify,
        "compare the library with oracles that are built differently, case by case",
        "lowprec verify                                       # samples: seconds\n"
        "         lowprec verify --full -o verify.json                # everything: long\n"
        "         lowprec verify --full --formats float16 --operations add --rounding RNE",
    )
    add_formats(verify)
    verify.add_argument(
        "--operations",
        metavar="A,B",
        type=checked(lambda text: [name.strip() for name in text.split(",")]),
        help="as add,fma,encode,exp (default: all; an unknown one lists them)",
    )
    verify.add_argument(
        "--rounding",
        metavar="R,S",
        type=checked(lambda text: [Rounding(name) for name in text.split(",")]),
        default=[mode for mode in Rounding if not mode.is_stochastic],
        help="modes with commas between, as RNE,toward_zero (default: all that are deterministic)",
    )
    extent = verify.add_mutually_exclusive_group()
    extent.add_argument(
        "--sample",
        metavar="N",
        type=checked(int),
        default=1 << 18,
        help="cases to draw for each operation and mode, in blocks of 32,768; functions take "
        "one in 64 (default: %(default)s)",
    )
    extent.add_argument(
        "--full",
        action="store_const",
        const=None,
        dest="sample",
        help="take every operand, every pair, every float32; and 2**27 of the triples",
    )
    verify.add_argument(
        "--threads",
        metavar="N",
        type=checked(_thread_count),
        help="how many share the work (default: one a processor)",
    )
    verify.add_argument("-o", "--output", metavar="FILE", help="also write the results as JSON")
    add_overwrite(verify)


def _thread_count(text: str) -> int:
    if int(text) < 1:
        raise ValueError(f"{text} threads do nothing; use 1 or more")
    return int(text)


def _verify(options: argparse.Namespace) -> None:
    from lowprec.common.outputs import check_outputs
    from lowprec.verification import OPERATIONS, checks, verify
    from lowprec.verification.results import incomplete_path, outputs, save

    try:
        wanted = options.operations or OPERATIONS
        listed = checks(options.formats, wanted, options.rounding, options.sample)
    except ValueError as error:
        options.command.error(str(error))
    if options.operations:
        _require_oracles(listed)
    if options.output:
        check_outputs(outputs(options.output), overwrite=options.overwrite)
    reports: list[Report] = []

    def keep(report: Report) -> None:
        if options.output:
            save(report, options.output, overwrite=options.overwrite)
        reports.append(report)

    try:
        with progress(_columns, restarts=True) as show_progress:
            verify(listed, threads=options.threads, progress=show_progress, save=keep)
    finally:
        if reports:
            _tell(reports[-1])
        if options.output and reports and not reports[-1].is_complete:
            print(f"what was done is in {incomplete_path(options.output)}", file=sys.stderr)
    _require_agreement(reports[-1])


def _require_oracles(listed: list[Check]) -> None:
    """Raise if what was asked for by name cannot be checked here."""
    for check in listed:
        if check.missing is not None:
            raise ModuleNotFoundError(
                f"{check.name} needs {check.missing}, which is not installed; run: "
                f"python -m pip install {check.missing}",
                name=check.missing,
            )


def _tell(report: Report) -> None:
    show(report.to_table())
    for result in report.results:
        for mismatch in result.first:
            print(f"{result.name}: {mismatch}")
        if result.missing:
            print(f"{result.name} needs {result.missing}: python -m pip install {result.missing}")


def _require_agreement(report: Report) -> None:
    wrong = [result.name for result in report.results if result.mismatches]
    if wrong:
        count = f"{report.mismatches:,} mismatch{'es' * (report.mismatches != 1)}"
        raise ValueError(f"{count} in {', '.join(wrong)}")


# Progress ----------------------------------------------------------------------------------------


def _columns() -> list[ProgressColumn | str]:
    from rich.progress import BarColumn, ProgressColumn, TaskProgressColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Millions of cases a second."""

        def render(self, task):  # type: ignore[no-untyped-def]
            return Text(f"{task.speed / 1e6:.3g} M/s" if task.speed else "")

    name = "[progress.description]{task.description}"
    return [name, BarColumn(), TaskProgressColumn(), Rate(), TimeRemainingColumn()]
