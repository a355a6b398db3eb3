"""``lowprec formats``: the family as a table."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import lowprec
from lowprec.cli.terminal import console_on, show

if TYPE_CHECKING:
    import argparse

    from lowprec.cli.arguments import Add

__all__ = ["register"]


def register(add: Add) -> None:
    """Add the command."""
    add("formats", _formats, "list the family of formats", "lowprec formats")


def _formats(options: argparse.Namespace) -> None:
    from lowprec.report.tables import formats_table

    console = console_on(sys.stdout)
    show(formats_table(lowprec.named_formats().values(), console.width))
