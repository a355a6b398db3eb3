"""The headline of benchmark results as a Markdown table, for a README."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from benchmarks.report.headlines import headline
from benchmarks.report.words import caveats, cost

if TYPE_CHECKING:
    from benchmarks.report.results import Results

__all__ = ["headline_table"]


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
    cells = [
        [
            "one thread",
            "time each",
            "× copy",
            "× float32",
            "right",
            "others: time over ours (right)",
        ]
    ]
    cells.append(["---", "--:", "--:", "--:", "--:", "---"])
    for kind in _ASKED_FOR:
        for line in headline(results, kind):
            if _is_asked_for(kind, line.work):
                cells.append(
                    [line.work, line.each, line.copy, line.float32, line.right, line.peers]
                )
    table = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    return "\n".join([table, "", *cost(results), *caveats(results)])


def _is_asked_for(kind: str, work: str) -> bool:
    return re.fullmatch(_ASKED_FOR[kind], work) is not None


_ASKED_FOR = {
    "conversion": "(encode|decode|round_to) (bfloat16|float16|float8_e4m3fn)",
    "operation": "(add|divide|fma) (bfloat16|float16)",
    "function": "(exp|tanh) (bfloat16|float16)",
    "product": "256.*(float32|bfloat16|float16)",
    "training step": "step, (SGD|Adam) mixed_(bfloat16|float16)",
}
