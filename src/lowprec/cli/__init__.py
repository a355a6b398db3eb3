"""The command line, ``lowprec COMMAND``, one module a command.

Each has a `register` that adds it. Exit codes: 0 done, 1 the job failed (one line on stderr says
why) or what was asked does not hold (`diff --tolerance`, `trace`), 2 wrong usage or values that
leave (`trace`), 130 interrupted (Control-C). Results go to stdout, progress and errors to stderr.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import pkgutil
import re
import sys
from typing import TYPE_CHECKING, Any

from lowprec.common.names import did_you_mean
from lowprec.common.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

__all__ = ["main"]

INTERRUPTED = 128 + 2  # as shells have it of a program that SIGINT ends


def commands() -> list[ModuleType]:
    """Return the modules of this package that have a command: those with a PLACE, in its order."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return sorted((m for m in modules if hasattr(m, "PLACE")), key=lambda m: int(m.PLACE))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        0 if done, 1 if the job failed, 130 if Control-C interrupted it.

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
    options = parsed(arguments)
    status: int | None = 0
    try:
        status = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        _fail("interrupted")
        return INTERRUPTED
    except ModuleNotFoundError as error:
        missing = f"{error.name} is missing; run: python -m pip install 'lowprec[report]'"
        return _fail(str(error) if "pip install" in str(error) else missing)
    except OSError as error:
        return _fail(f"{error.strerror}: {error.filename}" if error.filename else str(error))
    except (ValueError, TypeError, MemoryError) as error:
        return _fail(str(error) or type(error).__name__)
    return status or 0


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments; of a misspelt command or option, say which one may have been meant."""
    parser, names = _parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in names:
        near = difflib.get_close_matches(arguments[0].lower(), names, n=1)
        parser.error(
            f"invalid choice: {arguments[0]!r} is not a command; {did_you_mean(near)}use one of "
            f"{', '.join(names)}"
        )
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [name for action in options.command._actions for name in action.option_strings]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
        options.command.error(
            f"unrecognized arguments: {' '.join(unknown)}; {did_you_mean(near)}"
            f"{options.command.prog} --help lists all"
        )
    return options


def _protect(argument: str) -> str:
    """Put a blank before a negative number, which argparse would take for an option."""
    return f" {argument}" if re.match(r"-(\d|\.\d|inf|nan)", argument, re.IGNORECASE) else argument


def _fail(message: str) -> int:
    print("lowprec:", " ".join(message.split()), file=sys.stderr)
    return 1


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """Return the parser, and the names of the commands."""
    parser = argparse.ArgumentParser(
        prog="lowprec",
        description="What happens to my numbers in 16 bits (or 8), where, and what to do about it.",
        epilog="example: lowprec inspect 0.1 --format bfloat16",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lowprec {VERSION}")
    chosen = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[Any], int | None], purpose: str, example: str) -> Any:
        command = chosen.add_parser(
            name,
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.",
            epilog=f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.set_defaults(run=run, command=command)
        return command

    for command in commands():
        command.register(add)
    return parser, list(chosen.choices)
