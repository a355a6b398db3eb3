"""``lowprec inspect``: one number in a format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lowprec.cli.arguments import Add, add_modes, checked
from lowprec.cli.terminal import show
from lowprec.formats import bfloat16, get_format

if TYPE_CHECKING:
    import argparse

    from lowprec.formats import Format

PLACE = 2  #: among the commands


def register(add: Add) -> None:
    """Add the command."""
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
        type=checked(_number),
        help="the number, exactly as written: 0.1 (is 1/10), -1e-8, 0x1.8p-3, 1/3, nan, -inf",
    )
    inspect.add_argument(
        "--format",
        type=checked(get_format),
        default=bfloat16,
        metavar="F",
        help="a format's name, or eXmY (default: %(default)s)",
    )
    inspect.add_argument("--code", type=checked(_code), metavar="C", help="a code, as 0x3dcd")
    add_modes(inspect, "a deterministic rounding mode, as RNE or toward_zero")
    inspect.add_argument("--json", action="store_true", help="print JSON")


def _inspect(options: argparse.Namespace) -> None:
    from lowprec.exact import inspect

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
        show(inspection)


def _code(text: str) -> int:
    """Read an integer, decimal or with a prefix."""
    try:
        return int(text, 0)
    except ValueError:
        digits = text.lower().strip("_")
        is_hexadecimal = digits and set(digits) <= set("0123456789abcdef")
        hint = f"0x{digits}" if is_hexadecimal else "0x3dcd, 0b11 or 15821"
        raise ValueError(f"{text!r} is not a code; write {hint}") from None


def _number(text: str) -> str:
    """Check that a text is a number, and keep the text."""
    from lowprec.exact.number import read_number

    read_number(text)
    return text
