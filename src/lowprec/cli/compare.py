"""``lowprec compare``: what formats do to arrays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import lowprec
from lowprec.cli.arguments import Add, checked
from lowprec.cli.terminal import show

if TYPE_CHECKING:
    import argparse

__all__ = ["register"]


def register(add: Add) -> None:
    """Add the command."""
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
        type=checked(lambda text: [lowprec.get_format(name) for name in text.split(",")]),
        default=["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"],
        help="names with commas between (default: bfloat16,float16,float8_e4m3fn,float8_e5m2)",
    )
    compare.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    compare.add_argument("--html", metavar="FILE", help="also write the table as an HTML page")


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
    show(comparison)
