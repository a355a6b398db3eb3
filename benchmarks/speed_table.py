"""Measure the speed table: what lowprec promises, held against this machine.

::

    python benchmarks/speed_table.py [--markdown | --json] [--only TEXT] [--tolerance 0.15]

Baseline and work run in turns (baseline, work, baseline, work, …); a figure is the median of the
rounds' ratios, between their quartiles. The exit status is 1 when a row misses its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import llvmlite.binding
import numba
import numpy as np
from promises import ONCE, SIZES, Promise, missing, promises
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from timing import Quartiles, interleaved, threads
from workload import workload

import lowprec as lp

if TYPE_CHECKING:
    from collections.abc import Iterator


class Row(NamedTuple):
    """A promise and what was measured."""

    promise: Promise
    figures: dict[str, Quartiles]
    is_met: bool

    def cells(self, columns: list[str]) -> list[str]:
        """Write the row: the median of each column between its quartiles."""
        shown = [tell(self.figures[c]) if c in self.figures else "–" for c in columns]
        return [self.promise.work, self.promise.bound(), *shown, "yes" if self.is_met else "NO"]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        promise = self.promise
        figures = [
            {"elements": promise.sizes[column], **quartiles._asdict()}
            for column, quartiles in self.figures.items()
        ]
        limit = {"limit": promise.limit, "unit": promise.unit, "at_least": promise.at_least}
        return {"work": promise.work, **limit, "figures": figures, "is_met": self.is_met}


def tell(figure: Quartiles) -> str:
    """Write a median between its quartiles to three digits or two decimals."""
    decimals = 2 if figure.median < 10 else 1 if figure.median < 100 else 0
    return f"{figure.median:.{decimals}f} [{figure.low:.{decimals}f}, {figure.high:.{decimals}f}]"


def measured(chosen: list[Promise], seconds: float, tolerance: float) -> list[Row]:
    """Measure promises, size by size so that each array is made once; one thread unless told."""
    figures: list[dict[str, Quartiles]] = [{} for _ in chosen]
    turns = [(c, k) for c in (*SIZES, *ONCE) for k, p in enumerate(chosen) if c in p.sizes]
    with threads(1):
        for column, k in track(turns, "measuring", console=Console(stderr=True)):
            promise = chosen[k]
            figures[k][column] = promise.measure(promise.sizes[column], seconds)
    return [Row(p, f, p.is_met(f, tolerance)) for p, f in zip(chosen, figures, strict=True)]


def notes(load: float, seconds: float, tolerance: float) -> list[str]:
    """Say what the figures are, how fast this machine copies, how busy and what it is."""
    copies = []
    for column, elements in SIZES.items():
        times = interleaved([workload(elements).copy()], seconds=seconds)
        copies.append(f"{np.median(times) / elements * 1e9:.2f} ns at {column}")
    versions = {"Python": platform.python_version(), "NumPy": np.__version__}
    versions |= {"Numba": numba.__version__, "lowprec": lp.__version__}
    told = ", ".join(map(" ".join, versions.items()))
    left_out = ", ".join(missing())
    return [
        f"Medians [quartiles] of interleaved rounds; limits widened by {tolerance:.0%}.",
        f"A float32 copy takes {', '.join(copies)} an element; load average {load:.1f} before.",
        *([f"Rows that need {left_out} were left out: not installed."] if left_out else []),
        f"{processor()} ({llvmlite.binding.get_host_cpu_name()}), {platform.system()}; {told}.",
    ]


def processor() -> str:
    """Name the processor, as Linux knows it or as Python does."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.processor()


def sections(rows: list[Row]) -> Iterator[tuple[list[str], list[Row]]]:
    """Part the rows by their columns: throughput by size, then latency."""
    for columns in (SIZES, ONCE):
        part = [row for row in rows if columns.keys() & row.figures.keys()]
        shown = [name for name in columns if any(name in row.figures for row in part)]
        if part:
            yield ["one thread, float32", "limit", *shown, "met"], part


def as_rich(rows: list[Row], notes: list[str]) -> None:
    """Print tables for a terminal."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    for header, part in sections(rows):
        table = Table(*header, box=box.SIMPLE_HEAD)
        for row in part:
            style = None if row.is_met else "bold red"
            table.add_row(*row.cells(header[2:-1]), style=style)
        console.print(table)
    console.print("\n".join(notes), highlight=False, markup=False)


def as_markdown(rows: list[Row], notes: list[str]) -> None:
    """Print tables for a document."""
    for header, part in sections(rows):
        lines = [header, ["---"] * len(header), *(row.cells(header[2:-1]) for row in part)]
        print("\n".join(f"| {' | '.join(cells)} |" for cells in lines), end="\n\n")
    print("\n".join(notes))


def as_json(rows: list[Row], notes: list[str]) -> None:
    """Print everything for a program."""
    rows_as_values = [row.to_dict() for row in rows]
    print(json.dumps({"notes": notes, "rows": rows_as_values}, indent=1, ensure_ascii=False))


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--markdown", dest="show", action="store_const", const=as_markdown)
    kinds.add_argument("--json", dest="show", action="store_const", const=as_json)
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name contains TEXT")
    parser.add_argument("--seconds", type=float, default=1.0, help="per figure (default: 1)")
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="fraction by which a limit may be missed"
    )
    parser.set_defaults(show=as_rich)
    options = parser.parse_args()
    chosen = [promise for promise in promises() if options.only in promise.work]
    if not chosen:
        parser.error(f"no row's name contains {options.only!r}")
    load, *_ = os.getloadavg()
    rows = measured(chosen, options.seconds, options.tolerance)
    options.show(rows, notes(load, options.seconds, options.tolerance))
    return 0 if all(row.is_met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
