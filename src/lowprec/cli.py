"""The command line: ``lowprec formats | inspect | compare | report``.

Exit codes: 0 done, 1 the job failed (one line on stderr says why), 2 wrong usage. Results go to
stdout, progress and errors to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import lowprec
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console, RenderableType

    from lowprec.formats import Format

__all__ = ["main"]

_T = TypeVar("_T")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        0 if done, 1 if the job failed.

    Raises
    ------
    SystemExit
        With code 2 after wrong usage, 0 after ``--help`` and ``--version``.

    Examples
    --------
    >>> main(["inspect", "--json", "-0.1", "--format", "float42"])
    Traceback (most recent call last):
    SystemExit: 2
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["inspect"]:
        arguments = [_protect(argument) for argument in arguments]
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return _fail("interrupted")
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is missing; run: python -m pip install 'lowprec[report]'")
    except OSError as error:
        return _fail(f"{error.strerror}: {error.filename}" if error.filename else str(error))
    except (ValueError, TypeError, MemoryError) as error:
        return _fail(str(error) or type(error).__name__)
    return 0


def _protect(argument: str) -> str:
    """Put a blank before a negative number, which argparse would take for an option."""
    return f" {argument}" if re.match(r"-(\d|\.\d|inf|nan)", argument, re.IGNORECASE) else argument


def _fail(message: str) -> int:
    print("lowprec:", " ".join(message.split()), file=sys.stderr)
    return 1


# Arguments ---------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lowprec",
        description="What happens to my numbers in 16 bits (or 8), where, and what to do about it.",
        epilog="example: lowprec inspect 0.1 --format bfloat16",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lowprec {lowprec.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[Any], None], purpose: str, example: str) -> Any:
        command = commands.add_parser(
            name,
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.",
            epilog=f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.set_defaults(run=run, command=command)
        return command

    add("formats", _formats, "list the family of formats", "lowprec formats")
    _add_inspect(add)
    _add_compare(add)
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
    return parser


def _add_inspect(add: Callable[..., Any]) -> None:
    inspect = add(
        "inspect",
        _inspect,
        "show one number in a format: bits, exact value, rounding error, neighbours",
        "lowprec inspect -0.1 --format float16\n         lowprec inspect --code 0x3dcd",
    )
    inspect.add_argument(
        "value",
        metavar="VALUE",
        nargs="?",
        type=_checked(_number),
        help="the number, exactly as written: 0.1 (is 1/10), -1e-8, 0x1.8p-3, 1/3, nan, -inf",
    )
    inspect.add_argument(
        "--format",
        type=_checked(lowprec.get_format),
        default=lowprec.bfloat16,
        metavar="F",
        help="a format's name, or eXmY (default: %(default)s)",
    )
    inspect.add_argument(
        "--code", type=_checked(lambda text: int(text, 0)), metavar="C", help="a code, as 0x3dcd"
    )
    inspect.add_argument(
        "--rounding",
        type=_checked(Rounding),
        default=Rounding.TIES_TO_EVEN,
        metavar="R",
        help="a deterministic rounding mode, as RNE or toward_zero (default: ties_to_even)",
    )
    inspect.add_argument(
        "--overflow",
        type=_checked(Overflow),
        default=Overflow.IEEE,
        metavar="O",
        help=f"{', '.join(mode.value for mode in Overflow)} (default: ieee)",
    )
    inspect.add_argument("--json", action="store_true", help="print JSON")


def _add_compare(add: Callable[..., Any]) -> None:
    compare = add(
        "compare",
        _compare,
        "measure what formats do to arrays",
        "lowprec compare weights.npy grads.npz --formats bfloat16,float16 --html table.html",
    )
    compare.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help=".npy or .npz files (default: the data sets that scikit-learn bundles)",
    )
    compare.add_argument(
        "--formats",
        metavar="F,G",
        type=_checked(lambda text: [lowprec.get_format(name) for name in text.split(",")]),
        default=["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"],
        help="names with commas between (default: bfloat16,float16,float8_e4m3fn,float8_e5m2)",
    )
    compare.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    compare.add_argument("--html", metavar="FILE", help="also write the table as an HTML page")


def _checked(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """Return `read` with its ValueError shown as wrong usage."""

    def checked(text: str) -> _T:
        try:
            return read(text.strip())
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def _number(text: str) -> str:
    """Check that a text is a number, and keep the text."""
    from lowprec.exact import read_number

    read_number(text)
    return text


# Commands ----------------------------------------------------------------------------------------


def _formats(options: argparse.Namespace) -> None:
    from lowprec.report.tables import formats_table

    console = _console(sys.stdout)
    _show(formats_table(lowprec.named_formats().values(), console.width))


def _inspect(options: argparse.Namespace) -> None:
    from lowprec.bits import inspect

    fmt: Format = options.format
    if (options.value is None) == (options.code is None):
        options.command.error("give a VALUE or --code, and not both")
    if options.code is not None and not 0 <= options.code < 1 << fmt.bits:
        options.command.error(f"codes of {fmt} go from 0 to {(1 << fmt.bits) - 1:#x}")
    if options.rounding.is_stochastic:
        options.command.error(
            f"{options.rounding.value} draws random bits; its two possible results are those of "
            "--rounding toward_zero and --rounding away_from_zero"
        )
    inspection = inspect(
        options.value,
        fmt,
        code=options.code,
        rounding=options.rounding,
        overflow=options.overflow,
    )
    if options.json:
        print(json.dumps(inspection.to_dict(), indent=2))
    else:
        _show(inspection)


def _compare(options: argparse.Namespace) -> None:
    from lowprec import analysis
    from lowprec.report.datasets import load
    from lowprec.report.files import read_arrays, write_atomically

    arrays = read_arrays(options.files) if options.files else load()
    comparison = analysis.compare(arrays, options.formats)
    if options.json:
        write_atomically(options.json, json.dumps(comparison.to_dict(), indent=2) + "\n")
    if options.html:
        write_atomically(options.html, comparison.to_html())
    _show(comparison)


def _report(options: argparse.Namespace) -> None:
    from lowprec.report.page import write_report

    with _progress() as progress:
        summary = write_report(options.output, progress=progress)
    _show(summary)


# Terminal ----------------------------------------------------------------------------------------


def _console(stream: Any) -> Console:
    """Return a console without any escape sequence where NO_COLOR is set or nobody looks."""
    from rich.console import Console

    return Console(file=stream, color_system=None if os.environ.get("NO_COLOR") else "auto")


def _show(view: RenderableType) -> None:
    """Print a view; by way of a text, so that a broken pipe reaches `main`."""
    console = _console(sys.stdout)
    with console.capture() as capture:
        console.print(view)
    encoding = sys.stdout.encoding or "utf-8"
    for line in capture.get().encode(encoding, "replace").decode(encoding).splitlines():
        print(line.rstrip())


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """Give a function that shows progress on stderr, or None where it would be in the way."""
    console = _console(sys.stderr)
    if not console.is_terminal or os.environ.get("NO_COLOR"):
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(description: str, done: int, total: int) -> None:
            bar.update(task, description=description, completed=done, total=total)

        yield show
