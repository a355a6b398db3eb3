"""What the commands' arguments share, and readers whose errors are shown as wrong usage."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lowprec import formats
from lowprec.blocks.formats import get_format
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.tensors.kinds.raw import Raw

_T = TypeVar("_T")


class Add(Protocol):
    """Adds a command: its name, the function it runs, its purpose, an example."""

    def __call__(  # noqa: D102
        self, name: str, run: Callable[[Any], int | None], purpose: str, example: str
    ) -> argparse.ArgumentParser: ...


def checked(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """Return `read` with its TypeError or ValueError shown as wrong usage."""

    def checked(text: str) -> _T:
        try:
            return read(text.strip())
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def add_formats(command: argparse.ArgumentParser, *more: str) -> None:
    """Add the argument for several formats; some more are taken by default."""
    usual = ",".join(["bfloat16,float16,float8_e4m3fn,float8_e5m2", *more])
    command.add_argument(
        "--formats",
        metavar="F,G",
        type=checked(lambda text: [get_format(name) for name in text.split(",")]),
        default=usual,
        help=f"names with commas between (default: {usual})",
    )


def add_overwrite(command: argparse.ArgumentParser) -> None:
    """Add the argument that lets a file be replaced which lowprec did not write."""
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a file that exists even if this command did not write it",
    )


def add_names(command: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments that choose tensors by name."""
    command.add_argument(
        "--include",
        metavar="PATTERN",
        action="append",
        help=f"names to {verb}, with * and ? (may be repeated; default: all)",
    )
    command.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        default=[],
        help="names to leave out (may be repeated)",
    )


def add_raw(command: argparse.ArgumentParser) -> None:
    """Add the arguments that say what bare codes are."""
    command.add_argument(
        "--as",
        dest="raw_format",
        metavar="F",
        type=checked(formats.get_format),
        help="the files are bare codes of this format: bytes, or numbers in .hex, .txt and .csv",
    )
    command.add_argument(
        "--shape",
        metavar="M,N",
        type=checked(lambda text: tuple(int(n) for n in text.split(","))),
        help="with --as: the shape, as 2,3 (default: a row)",
    )
    command.add_argument(
        "--byteorder",
        choices=("little", "big"),
        default="little",
        help="with --as: the order of a code's bytes (default: little)",
    )


def raw_of(options: argparse.Namespace) -> Raw | None:
    """Return what the options say of bare codes; None where the files speak for themselves."""
    if options.raw_format is None:
        if options.shape is not None or options.byteorder != "little":
            options.command.error("--shape and --byteorder are for bare codes; give --as too")
        return None
    from lowprec.tensors.kinds.raw import Raw

    return Raw.of(options.raw_format, options.shape, options.byteorder)


def nonnegative(text: str) -> float:
    """Read a number that is not negative; infinity is one."""
    value = float(text)
    if not value >= 0:
        raise ValueError(f"{text} is not a number from 0 on")
    return value


def add_modes(command: argparse.ArgumentParser, roundings: str) -> None:
    """Add the arguments for rounding and overflow; `roundings` says which modes are taken."""
    command.add_argument(
        "--rounding",
        type=checked(Rounding),
        default=Rounding.TIES_TO_EVEN,
        metavar="R",
        help=f"{roundings} (default: ties_to_even)",
    )
    command.add_argument(
        "--overflow",
        type=checked(Overflow),
        default=Overflow.IEEE,
        metavar="O",
        help=f"{', '.join(mode.value for mode in Overflow)} (default: ieee)",
    )
