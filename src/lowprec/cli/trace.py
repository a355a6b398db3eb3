"""``lowprec trace``: which line of a script loses the bits."""

from __future__ import annotations

import json
import sys
import traceback
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from lowprec.cli.arguments import Add, add_modes, add_overwrite, checked
from lowprec.cli.terminal import show, tell_written
from lowprec.formats import get_format

if TYPE_CHECKING:
    import argparse

BEYOND, REFUSED = 1, 2

PLACE = 6  #: among the commands


def register(add: Add) -> None:
    """Add the command."""
    trace = add(
        "trace",
        _trace,
        "run a script in a format and say which line loses the bits",
        "lowprec trace model.py --result loss --format bfloat16\n"
        "         lowprec trace model.py --function step --tolerance 1e-2 --html t.html\n"
        "         lowprec trace model.py --result x,y --keep 12,15 --modules scipy\n\n"
        "exit codes: 0 the error is within the tolerance, 1 it is beyond, 2 refused",
    )
    trace.add_argument("script", metavar="SCRIPT", help="a Python file that computes with NumPy")
    trace.add_argument(
        "--result",
        metavar="X,Y",
        type=checked(lambda text: [name.strip() for name in text.split(",") if name.strip()]),
        default=[],
        help="the variables of the script that are its results",
    )
    trace.add_argument(
        "--function",
        metavar="F",
        help="trace this function of the script instead, called with what the script's own "
        "inputs() returns, or with nothing",
    )
    trace.add_argument(
        "--format",
        metavar="F",
        type=checked(get_format),
        default="bfloat16",
        help="what lines compute in (default: bfloat16)",
    )
    trace.add_argument(
        "--tolerance",
        metavar="T",
        type=checked(float),
        help="the largest relative error of a result, and the share from which on a line is named "
        "(default: four unit roundoffs)",
    )
    trace.add_argument(
        "--keep",
        metavar="LINES",
        default="",
        help="what computes in --keep-format: 12,15-17, helper.py:3-9, names of functions",
    )
    trace.add_argument(
        "--keep-format",
        metavar="F",
        type=checked(get_format),
        default="float32",
        help="the format of kept lines (default: float32)",
    )
    trace.add_argument(
        "--modules",
        metavar="M,N",
        default="",
        help="modules whose code is traced line by line too, such as scipy.integrate",
    )
    trace.add_argument(
        "--leaks",
        choices=("error", "round"),
        default="error",
        help="what becomes of values that leave for float64 code (default: error)",
    )
    trace.add_argument("--seed", metavar="N", type=int, default=0, help="for stochastic rounding")
    add_modes(trace, "how results are rounded")
    trace.add_argument("--html", metavar="FILE", help="also write the report as an HTML page")
    trace.add_argument("--json", action="store_true", help="print the report as JSON")
    add_overwrite(trace)


def _trace(options: argparse.Namespace) -> int:
    from lowprec.common.outputs import Output, check_outputs
    from lowprec.trace.page import PAGE
    from lowprec.trace.scripts import function_in, script_function

    if not options.result and not options.function:
        options.command.error("name the results: --result x,y (or --function f)")
    try:
        if options.html:
            output = Output(options.html, PAGE, "--html")
            check_outputs([output], [options.script], overwrite=options.overwrite)
        with redirect_stdout(sys.stderr):  # what the script prints, in each of its runs
            if options.function:
                f, args = function_in(options.script, options.function)
            else:
                f, args = script_function(options.script, options.result), ()
            made = _made(f, args, options)
            told = made.to_dict()
            if options.html:
                made.to_html(options.html, overwrite=options.overwrite)
    except (Exception, SystemExit) as error:  # the script's own too: 1 says that bits were lost
        print("lowprec:", _words(error, options.script), file=sys.stderr)
        return REFUSED
    if options.json:
        print(json.dumps(told, indent=2))
    else:
        show(made)
        tell_written(options.html)
    return 0 if made.error <= made.tolerance else BEYOND


def _words(error: BaseException, script: str) -> str:
    """Return an error on one line; of the script's own kinds also where it was raised."""
    words = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename:
        words = f"{error.strerror}: {error.filename}"
    if isinstance(error, SystemExit):
        words = f"the script exits ({words or 'None'}) before its results are known"
    elif not isinstance(error, TypeError | ValueError | RuntimeError | SyntaxError | OSError):
        words = f"{type(error).__name__}: {words}"
    lines = [place.lineno for place in traceback.extract_tb(error.__traceback__)
             if place.filename == script]  # fmt: skip
    return f"{script}:{lines[-1]}: {words}" if lines and script not in words else words


def _made(f: Any, args: tuple[Any, ...], options: argparse.Namespace) -> Any:
    from lowprec.trace import trace

    def listed(text: str) -> list[str]:
        return [item.strip() for item in text.split(",") if item.strip()]

    return trace(
        f,
        *args,
        format=options.format,
        keep=listed(options.keep),
        keep_format=options.keep_format,
        rounding=options.rounding,
        overflow=options.overflow,
        rng=options.seed,
        modules=listed(options.modules),
        leaks=options.leaks,
        tolerance=options.tolerance,
    )
