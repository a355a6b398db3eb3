"""Benchmark results as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report.charts import cost_chart
from benchmarks.report.findings import experiments, extents, goals, ranges, worst_errors
from benchmarks.report.headlines import TITLES, columns, headline, kinds, notes
from benchmarks.report.tables import change_words
from benchmarks.report.words import caveats, cost, duration, number, share, tell
from lowprec.common.whole_files import write_atomically
from lowprec.show.pages import page_environment, stylesheet

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from benchmarks.report.changes import Change
    from benchmarks.report.results import Results, Row

_STYLE = Path(__file__).parent / "templates" / "benchmarks.css"

_TEXTS = {
    "conversion": "float32 to codes, codes to float32, and float32 to the nearest values of the "
    "format. Below the grey line is what a copy of the same array takes: the memory's own speed.",
    "rounding mode": "round_to in each of the ten modes.",
    "operation": "Operands and results are values of the format. lowprec rounds each result once "
    "from the exact one, and counts the IEEE events; others round what they have.",
    "function": "Elementary functions, correctly rounded; others round twice or approximate.",
    "sum": "In order means one addition after another: it cannot be spread over vector lanes as "
    "NumPy's own sum is. The error is told over the sum of magnitudes.",
    "dot": "Products of bfloat16 numbers, each added exactly and rounded once.",
    "product": "Times are a call's. The loop in torch is how one writes a rounded accumulator "
    "without a library.",
    "training step": "784-100×5-10 with ReLU, a batch of 128.",
    "agreement": "Every number of the format, the middles between neighbours with the float32 "
    "numbers next to them, and what lies beyond the range: the share that is right to the bit.",
    "latency": "Whole calls and whole processes.",
    "file": "64 MB files that are still in the page cache.",
}


def write_page(path: str | os.PathLike[str], results: Results, found: Sequence[Change]) -> None:
    """Write results, and what changed, as a page that refers to nothing outside itself.

    Parameters
    ----------
    path : str or path
        The page to write, whole or not at all.
    results : Results
        What was measured.
    found : sequence of Change
        What changed against an older file.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib or Jinja2, naming the extra to install.
    OSError
        If the page cannot be written.
    """
    environment = page_environment("benchmarks.report")
    from markupsafe import Markup

    environment.filters |= {"tell": tell, "number": number, "share": share}
    page = environment.get_template("benchmarks.html").render(
        style=Markup(stylesheet("page.css", "comparison.css") + _STYLE.read_text(encoding="utf-8")),
        lead=_lead(results),
        caveats=caveats(results),
        goals=goals(results),
        changes=[(change_words(change), change.is_slower) for change in found],
        ranges=ranges(results),
        worst=worst_errors(results),
        extents=extents(results),
        experiments=experiments(results),
        parts=list(_parts(results)),
        facts=cost(results),
    )
    write_atomically(path, page)


def _lead(results: Results) -> str:
    promised = goals(results)
    words = f"{len(results.rows):,} rows of time and error, measured on {results.processor}."
    if promised:
        words += f" Of {len(promised)} promises, {sum(g.is_met for g in promised)} were met."
    return words


def _parts(results: Results) -> Iterator[dict[str, Any]]:
    from markupsafe import Markup

    for kind in kinds(results):
        lines = headline(results, kind)
        headings, cells = columns(lines)
        yield {
            "key": kind.replace(" ", "-"),
            "title": TITLES.get(kind, kind),
            "text": _TEXTS.get(kind, ""),
            "chart": Markup(cost_chart(results, kind)),
            "headings": headings,
            "lines": cells,
            "notes": notes(lines),
            "rows": [_cells(results, row) for row in results.of(kind)],
        }


_COLUMNS = ("bit_match", "max_ulp_error", "mean_relative_error", "saturated", "new_zeros")


def _cells(results: Results, row: Row) -> list[str]:
    """Return everything that a row says."""
    ratio, is_in_turns = results.float32_ratio(row)
    each = row.nanoseconds
    traffic = row.facts.get("bytes")
    told = [row.facts.get(name) for name in _COLUMNS]
    return [
        row.work,
        row.fmt,
        row.label,
        row.allocation,
        f"{row.elements:,}" if row.elements else "",
        duration(row.seconds.median),
        "" if each is None else number(each),
        number(traffic / row.seconds.median / 1e9) if traffic else "",
        tell(row.copy_ratio) if row.copy_ratio else "",
        "" if ratio is None else ("" if is_in_turns else "≈ ") + tell(ratio),
        "" if told[0] is None else share(told[0]),
        *("" if value is None else number(value) for value in told[1:]),
        str(row.facts.get("note", "")),
    ]
