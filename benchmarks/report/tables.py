"""Benchmark results in a terminal, within 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.report.findings import experiments, goals, ranges
from benchmarks.report.headlines import TITLES, columns, headline, kinds, notes
from benchmarks.report.words import caveats, cost, tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from benchmarks.report.changes import Change
    from benchmarks.report.results import Results

__all__ = ["change_words", "changes_view", "results_view"]

MOST_CHANGES = 20


def results_view(results: Results) -> RenderableType:
    """Return the goals, range, precision and throughput as tables.

    Parameters
    ----------
    results : Results
        What was measured.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(line, "dim") for line in cost(results)]
    parts += [Text(line, "yellow") for line in caveats(results)]
    parts += [*_goals(results), *_ranges(results), *_experiments(results)]
    for kind in kinds(results):
        rows = headline(results, kind)
        (_, *headings), lines = columns(rows)
        table = _table(TITLES.get(kind, kind), ["", *headings])
        for cells in lines:
            table.add_row(*map(Text, cells))
        parts += [Text(), table, *(Text(note, "dim") for note in notes(rows))]
    return Group(*parts)


def _table(title: str, headings: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
    )
    for place, heading in enumerate(headings):
        is_text = not place or heading.startswith("others")
        table.add_column(heading, justify="left" if is_text else "right")
    return table


def _goals(results: Results) -> Iterable[RenderableType]:
    from rich.text import Text

    rows = goals(results)
    if rows:
        table = _table("What was promised", ["", "limit", "measured, or 10⁶", "10⁷", "met"])
        for goal in rows:
            style = "" if goal.is_met else "bold red"
            told = {size: tell(figure) for size, figure in goal.figures.items()}
            last = told.pop("10⁷", "")
            first = "".join(told.values())
            table.add_row(
                Text(goal.work), goal.bound, Text(first), Text(last), goal.met, style=style
            )
        yield from (Text(), table)


def _ranges(results: Results) -> Iterable[RenderableType]:
    from rich.text import Text

    found = ranges(results)
    if found.rows:
        headings = ["share kept within 1 ulp", *found.formats]
        table = _table("Range: what a format keeps of data", headings)
        for name, cells in found.rows.items():
            table.add_row(Text(name), *cells)
        yield from (Text(), table)


def _experiments(results: Results) -> Iterable[RenderableType]:
    from rich.text import Text

    found = experiments(results)
    if found.rows:
        table = _table("Precision: errors of classic algorithms", ["", *map(_short, found.formats)])
        for name, cells in found.rows.items():
            table.add_row(Text(name), *cells)
        yield from (Text(), table)
        yield "+ is with float32 sums. Lorenz: the time for which a path is right (more is better)."


def _short(way: str) -> str:
    return way.replace(", float32 sums", " +")


def changes_view(new: Results, old: Results, found: Sequence[Change]) -> RenderableType:
    """Return what became slower and faster, the worst first.

    Parameters
    ----------
    new, old : Results
        What was compared with what.
    found : sequence of Change
        What changed beyond noise.
    """
    from rich.console import Group
    from rich.text import Text

    compared = len({row.name for row in new.rows} & {row.name for row in old.rows})
    lines: list[RenderableType] = [Text(f"Of {compared:,} rows in both files")]
    if new.processor != old.processor:
        words = f"Other processors ({old.processor} before): only ratios to a copy tell something."
        lines.append(Text(words, "yellow"))
    for name, results in (("new", new), ("old", old)):
        lines += [Text(f"In the {name} file: {line}", "yellow") for line in caveats(results)]
    slower = [change for change in found if change.is_slower]
    faster = [change for change in reversed(found) if not change.is_slower]
    for words, part, style in (("slower", slower, "bold red"), ("faster", faster, "green")):
        lines.append(Text(f"  {len(part)} {words} beyond noise", style if part else ""))
        lines += [Text(f"    {change_words(change)}") for change in part[:MOST_CHANGES]]
        if len(part) > MOST_CHANGES:
            lines.append(Text(f"    and {len(part) - MOST_CHANGES} more"))
    return Group(*lines)


def change_words(change: Change) -> str:
    """Return what changed, and by how much."""
    row = change.row
    size = f"{row.elements:,} elements" if row.elements else ""
    fmt = "" if row.fmt in row.work else row.fmt
    what = ", ".join(part for part in (f"{row.work} {fmt}".strip(), size, row.label) if part)
    return f"{100 * (change.factor - 1):+.0f} % ({change.measure}): {what}"
