"""``lowprec verify``: the proofs, run again where the user is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lowprec.blocks.formats import get_format
from lowprec.cli.arguments import Add, add_formats, add_overwrite, checked
from lowprec.cli.terminal import console_on, progress, show
from lowprec.common.outputs import Kind, Output, generator_tag, json_kind, page_kind
from lowprec.rounding import Rounding

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from rich.progress import ProgressColumn

    from lowprec.verification import Check, Report

PLACE = 8  #: among the commands


def register(add: Add) -> None:
    """Add the command."""
    verify = add(
        "verify",
        _verify,
        "compare the library with oracles that are built differently, case by case",
        "lowprec verify                                       # samples: seconds\n"
        "         lowprec verify --full -o verify.json                # everything: long\n"
        "         lowprec verify --full --formats float16 --operations add --rounding RNE\n"
        "         lowprec verify --target torch     # other people's conversions",
    )
    add_formats(verify, "tfloat32")  # which tensor cores take
    verify.add_argument(
        "--operations",
        metavar="A,B",
        type=checked(lambda text: [name.strip() for name in text.split(",")]),
        help="as add,fma,encode,exp,tensor_core (default: all; an unknown one lists them)",
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
        help="cases to draw for each operation and mode, in blocks of 32,768; functions "
        "and tensor cores take one in 64 (default: %(default)s)",
    )
    extent.add_argument(
        "--full",
        action="store_const",
        const=None,
        dest="sample",
        help="take every operand, every pair, every float32; of triples 2**27, and of the sums of "
        "each tensor core a million",
    )
    verify.add_argument(
        "--threads",
        metavar="N",
        type=checked(_thread_count),
        help="how many share the work (default: one a processor)",
    )
    verify.add_argument("-o", "--output", metavar="FILE", help="also write the results as JSON")
    add_overwrite(verify)
    _add_targets(verify)


def _add_targets(verify: argparse.ArgumentParser) -> None:
    target = verify.add_argument_group("other people's conversions")
    target.add_argument(
        "--target",
        metavar="NAME",
        help="hold another library to the right values instead: ml_dtypes, numpy, torch, torchao, "
        "jax, gfloat, mlx, or your package.module:function of a float32 array",
    )
    target.add_argument(
        "--format",
        metavar="FMT",
        type=checked(get_format),
        help="the format that it converts to, also a block format (default: all it has)",
    )
    target.add_argument(
        "--json",
        metavar="FILE",
        nargs="?",
        const="-",
        help="also write the differences as JSON; without FILE print them instead of the tables",
    )
    target.add_argument("--html", metavar="FILE", help="also write them as a page")
    target.add_argument("--junit", metavar="FILE", help="also write them as JUnit's XML, for CI")


def _thread_count(text: str) -> int:
    if int(text) < 1:
        raise ValueError(f"{text} threads do nothing; use 1 or more")
    return int(text)


def _verify(options: argparse.Namespace) -> None:
    if options.target is not None:
        _verify_target(options)
        return
    for name in ("format", "json", "html", "junit"):
        if getattr(options, name) is not None:
            options.command.error(f"--{name} belongs to --target; use --formats, or -o FILE")
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


def _verify_target(options: argparse.Namespace) -> None:
    """Hold other people's conversions to the right values."""
    import json

    from lowprec.analysis.conformance import conformance_page, junit
    from lowprec.common.outputs import check_outputs, write_output
    from lowprec.verification.targets import targets

    if options.output:
        options.command.error("--output belongs to lowprec's own checks; use --json with --target")
    try:
        listed = targets(options.target, options.format)
    except ValueError as error:
        options.command.error(str(error))
    written = _target_outputs(options)
    check_outputs([output for output, _ in written], overwrite=options.overwrite)
    found = []
    for one in listed:
        try:
            found.append(one.judged())
        except Exception as error:  # the function's own: 1 would say that it differs
            options.command.error(f"{options.target} gave {type(error).__name__}: {error}")
        if options.json != "-":
            show(found[-1])
    texts = {
        "--json": lambda: json.dumps([one.to_dict() for one in found], indent=2) + "\n",
        "--html": lambda: conformance_page(found, generator_tag(_PAGE)),
        "--junit": lambda: junit(found),
    }
    if options.json == "-":
        print(texts["--json"](), end="")
    for output, _ in written:
        write_output(output, texts[output.asked](), overwrite=options.overwrite)
    wrong = [one.fmt for one in found if not one]
    if wrong:
        raise ValueError(f"{options.target} differs in {', '.join(wrong)}")


_PAGE = "lowprec verify --target"


def _target_outputs(options: argparse.Namespace) -> list[tuple[Output, str]]:
    """Return the files that are asked for."""
    kinds = {
        "--json": json_kind("differences of lowprec verify", lambda rows: "differing" in rows[0]),
        "--html": page_kind(_PAGE),
        "--junit": Kind("differences of lowprec verify", _is_junit),
    }
    file = None if options.json == "-" else options.json
    named = {"--json": file, "--html": options.html, "--junit": options.junit}
    return [(Output(path, kinds[asked], asked), asked) for asked, path in named.items() if path]


def _is_junit(path: Path) -> bool:
    return b'<testsuite name="lowprec verify"' in path.read_bytes()[:200]


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
    show(report.to_table(console_on(sys.stdout).width))
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
