"""A trace in a terminal, and as plain data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lowprec.trace.places import short
from lowprec.trace.verdict import event_words, names_of, two_digits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from lowprec.trace.places import Key

_MOST_ROWS = 8
_RULES = "    \n  │ \n ─┼ \n  │ \n  │ \n  │ \n  │ \n    \n"  # between columns alone
_NARROW = 72  # columns, below which the table has no column "why"


def rounded(value: float) -> str:
    """Return a number to two digits; "–" for 0."""
    return two_digits(value) if value else "–"


def head(trace: Any) -> str:
    """Return the head line: errors, format, accumulator, operations, leaks."""
    errors = ", ".join(rounded(output.error.norm) for output in trace.outputs)
    if errors:
        errors = f"error{'s' * (len(trace.outputs) > 1)} {errors}"
    words = [
        f"{trace.name}: {errors or 'no output'}",
        f"{trace.format}",
        f"sums {trace.accumulator}",
        f"{trace.operations:,} operations",
    ]
    if trace.leaks:
        words.append(f"float64 inside: {'; '.join(trace.leaks)}")
    return " · ".join(words)


def notes(trace: Any) -> list[str]:
    """Return what was not looked at, or not in the format."""
    made = []
    if not trace.operations and trace.outputs:
        made.append(
            f"nothing was computed in {trace.format}: numbers of Python's own among themselves "
            "stay Python's; pass them as float arguments"
        )
    rounded_lines: list[Key] = [key for key, line in trace.lines.items() if line.rounded]
    if rounded_lines:
        made.append(f"float64's functions, rounded once: lines {names_of(rounded_lines)}")
    pure: list[Key] = [key for key, line in trace.lines.items() if line.pure]
    if pure:
        made.append(f"LAPACK's functions, by pure NumPy: lines {names_of(pure)}")
    inside: list[Key] = [key for key, line in trace.lines.items() if line.float64_inside]
    if inside:
        made.append(f"float64 inside: lines {names_of(inside)}")
    return made


def why(trace: Any, line: Any) -> str:
    """Return in a few words what happened on a line."""
    words = [event_words(e, line.format or trace.format).partition(":")[0] for e in line.events]
    if line.decisions:
        words.append(f"{line.decisions:,} decision{'s' * (line.decisions > 1)} differ")
    if line.cancelled_bits >= 1:
        words.append(f"cancels {line.cancelled_bits:.2g} bits")
    if line.absorbed:
        words.append(f"{line.absorbed:,} absorbed")
    if line.float64_inside:
        words.append("float64 inside")
    elif line.pure:
        words.append("pure NumPy for LAPACK")
    elif line.rounded:
        words.append("float64 rounded once")
    if line.format is not None and line.format != trace.format:
        words.append(f"in {line.format}")
    return ", ".join(words)


def ranked(trace: Any) -> list[tuple[Key, Any, float, float]]:
    """Return lines and arguments with their largest shares, in the program's order.

    Of many those stay that are named or have the largest shares.
    """
    rows = [
        (key, line, trace.share(line, "born"), trace.share(line, "grown"))
        for key, line in {**trace.inputs, **trace.lines}.items()
    ]
    named = {finding.key for finding in trace.findings}
    weights = {row[0]: (row[0] in named, bool(row[1].events), max(row[2], row[3])) for row in rows}
    kept = sorted(rows, key=lambda row: weights[row[0]], reverse=True)[:_MOST_ROWS]
    chosen = {id(row[1]) for row in kept if any(weights[row[0]])}
    return [row for row in rows if id(row[1]) in chosen]


def label(key: Key) -> str:
    """Return how a table calls a line or an argument."""
    return f"{short(key[0])}:{key[1]}" if isinstance(key, tuple) else str(key)


def report(trace: Any, width: int = 80) -> Iterator[RenderableType]:
    """Yield the report for a terminal of some columns."""
    from rich.padding import Padding
    from rich.text import Text

    yield Text(head(trace), style="bold")
    rows = ranked(trace)
    if rows:
        yield _table(trace, rows, width)
    for sentence in trace.verdict:
        yield Padding(Text(sentence), (1, 0, 0, 0))
    if not trace.verdict:
        yield Padding(
            Text(f"No line is named: every share is within {trace.tolerance:.3g}."), (1, 0, 0, 0)
        )
    for note in notes(trace):
        yield Text(f"({note})", style="dim")


def _table(trace: Any, rows: list[tuple[Key, Any, float, float]], width: int) -> RenderableType:
    """Return lines and arguments with their figures; reasons fold, and leave the rest whole."""
    from rich.box import Box
    from rich.table import Table
    from rich.text import Text

    is_wide = width >= _NARROW
    named = {finding.key for finding in trace.findings}
    cells = [(label(key), rounded(born), rounded(grown)) for key, _, born, grown in rows]
    heads = ("line", "born", "grown")
    number, *figures = (max(map(len, cut)) for cut in zip(heads, *cells, strict=True))
    left = width - number - sum(figures) - (12 if is_wide else 9)
    room = max(12, left * 3 // 5 if is_wide else left)
    sources = [source(line, room) for _, line, _, _ in rows]
    longest = max(len(line) for text in sources for line in text.plain.splitlines())
    table = Table(box=Box(_RULES), pad_edge=False, show_edge=False)
    table.add_column("line", justify="right", no_wrap=True, min_width=number)
    table.add_column("source", width=longest if is_wide else left, no_wrap=is_wide)
    for name, least in zip(heads[1:], figures, strict=True):
        table.add_column(name, justify="right", no_wrap=True, min_width=least)
    if is_wide:
        table.add_column("why", overflow="fold")
    for (key, line, _, _), (place, born, grown), text in zip(rows, cells, sources, strict=True):
        style = "bold red" if key in named else ""
        reason = why(trace, line)
        table.add_row(Text(place, style=style), text, born, grown, *[Text(reason)] * is_wide)
        if not is_wide and reason:
            table.add_row("", Text(reason, style=style), "", "")
    return table


def source(line: Any, room: int) -> Any:
    """Return a line of source with the expression that matters underlined below it."""
    from rich.text import Text

    if line.number is None:
        return Text(f"argument {line.text}")
    text = line.text.strip()
    start, end = underlined(line)
    if len(text) > room:  # keep the expression in sight
        left = min(max(0, start - 2), len(text) - room)
        cut = text[left : left + room]
        if left:
            cut = "…" + cut[1:]
        if left + room < len(text):
            cut = cut[:-1] + "…"
        start, end = max(0, start - left), min(room, end - left)
        text = cut
    if end <= start:
        return Text(text)
    return Text.assemble(f"{text}\n", " " * start, ("‾" * (end - start), "red"))


def underlined(line: Any) -> tuple[int, int]:
    """Return where the expression stands in a stripped line; (0, 0) if that is not known."""
    span = line.span
    if span is None or span.line != line.number:
        return 0, 0
    raw = line.text.encode()
    indent = len(line.text) - len(line.text.lstrip())
    start = len(raw[: span.column].decode(errors="replace")) - indent
    last = span.end_column if span.end_line == span.line else len(raw)
    end = len(raw[:last].decode(errors="replace")) - indent
    return max(0, start), min(end, len(line.text.strip()))


def to_dict(trace: Any) -> dict[str, Any]:
    """Return everything but the arrays as plain data for JSON."""
    named = [finding.key for finding in trace.findings]

    def unit(key: Key, line: Any) -> dict[str, Any]:
        return {
            "file": line.file,
            "line": line.number,
            "name": line.text if line.number is None else line.name,
            "text": line.text.strip(),
            "span": None if line.span is None else list(line.span),
            "expression": line.expression,
            "format": None if line.format is None else str(line.format),
            "operations": line.operations,
            "born": trace.share(line, "born"),
            "grown": trace.share(line, "grown"),
            "events": [
                {
                    "kind": e.kind,
                    "count": e.count,
                    "of": e.of,
                    "first": list(e.first),
                    "operation": e.operation,
                    "example": e.example,
                }
                for e in line.events
            ],
            "absorbed": line.absorbed,
            "cancelled_bits": line.cancelled_bits,
            "decisions": line.decisions,
            "rounded": line.rounded,
            "pure": line.pure,
            "float64_inside": line.float64_inside,
            "named": key in named,
        }

    verdict = trace.verdict
    kept = trace.kept
    return {
        "program": trace.name,
        "file": trace.file,
        "format": str(trace.format),
        "keep_format": str(trace.keep_format),
        "accumulator": trace.accumulator,
        "tolerance": trace.tolerance,
        "operations": trace.operations,
        "leaks": trace.leaks,
        "outputs": [
            {"error": _plain(o.error.norm), "largest": _plain(o.error.largest)}
            for o in trace.outputs
        ],
        "lines": [unit(key, line) for key, line in trace.lines.items()],
        "inputs": [unit(key, line) for key, line in trace.inputs.items()],
        "verdict": verdict,
        "notes": notes(trace),
        "keep": None
        if kept is None
        else {
            "lines": [list(key) if isinstance(key, tuple) else key for key in kept.lines],
            "error": _plain(kept.error),
            "runs": kept.runs,
        },
    }


def _plain(value: float) -> float | str:
    """Return a number that JSON has; others as words."""
    return float(value) if math.isfinite(value) else str(float(value))
