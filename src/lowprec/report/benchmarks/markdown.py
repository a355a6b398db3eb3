"""The headline of benchmark results as a Markdown table, for a README."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.report.benchmarks.reading import TITLES, caveats, cost, headline

if TYPE_CHECKING:
    from lowprec.report.benchmarks.results import Results

__all__ = ["headline_table"]

KINDS = ("conversion", "operation", "function", "product", "training step")
FORMATS = ("bfloat16", "float16", "float8_e4m3fn")


def headline_table(results: Results) -> str:
    """Return a table of what people ask for first, with the date and the machine below.

    Parameters
    ----------
    results : Results
        What was measured.

    Returns
    -------
    str
        Markdown.
    """
    cells = [["one thread", "time each", "× copy", "× float32", "right", "others' time over ours"]]
    cells.append(["---", "--:", "--:", "--:", "--:", "---"])
    for kind in KINDS:
        for line in headline(results, kind):
            if _is_asked_for(kind, line.work):
                each = line.each if "µs" in line.each else f"{line.each} ns"
                cells.append([line.work, each, line.copy, line.float32, line.right, line.peers])
    table = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    return "\n".join([table, "", *cost(results), *caveats(results)])


def _is_asked_for(kind: str, work: str) -> bool:
    assert kind in TITLES
    if kind == "product":
        return work.startswith("256") and "pairwise" not in work and "stochastic" not in work
    return any(work.endswith(fmt) for fmt in FORMATS) or kind == "training step"
