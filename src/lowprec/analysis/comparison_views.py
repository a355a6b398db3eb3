"""A comparison as a table: in a terminal, in Jupyter, and as a page of its own."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from lowprec.analysis.judgement import rule, shortfalls, standings, verdict_word, worst_first
from lowprec.common.outputs import generator_tag, json_kind, page_kind
from lowprec.show.html_tables import legend_html, table_html
from lowprec.show.pages import plain_page, stylesheet
from lowprec.show.words import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

    from lowprec.analysis.judgement import Rows
    from lowprec.analysis.measurement import Measurement


class _Unmeasured(Protocol):
    """A tensor that was not measured."""

    @property
    def nbytes(self) -> int:
        """Its bytes."""

    @property
    def reason(self) -> str:
        """Why it was not."""


LeftOut = Mapping[str, _Unmeasured]


class _MeasuredColumn(NamedTuple):
    heading: str
    brief: str  # the same in a terminal, where the unit stands below; at most _WIDTH - 1 characters
    meaning: str
    text: Callable[[Measurement], str]
    is_loss: bool = False


PAGE = page_kind("lowprec compare")
JSON = json_kind(
    "the figures of lowprec compare",
    lambda content: (
        all(
            "new_zeros" in figures
            for name, row in content.items()
            if name != "left_out" or "tensors" not in row
            for figures in row.values()
        )
        and len(content) > 0
    ),
)

_NONE: LeftOut = {}
_MOST_REASONS, _MOST_NAMES = 5, 3
_MOST_SHOWN = 20  # arrays in a terminal
_MOST_FINDINGS = 8
_MOST_FINDINGS_ON_A_PAGE = 100


def _count(number: int) -> str:
    return f"{number:,}" if number else "–"


def _decibels(measured: Measurement) -> str:
    value = measured.sqnr_db
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.1f}"


_URGENT = "overflows", "new zeros", "distinct", "clipped", "max error", "SQNR"
_LESS_URGENT = "clamped", "subnormal", "headroom"
_WIDTH = 10
COLUMNS = (
    _MeasuredColumn(
        "overflows",
        "overflows",
        "finite became infinite, NaN or clamped",
        lambda m: _count(m.overflows),
        is_loss=True,
    ),
    _MeasuredColumn(
        "new zeros", "new zeros", "nonzero became zero", lambda m: _count(m.new_zeros), is_loss=True
    ),
    _MeasuredColumn(
        "subnormal", "subnormal", "became subnormal numbers", lambda m: _count(m.subnormals)
    ),
    _MeasuredColumn(
        "max rel. error",
        "max error",
        "largest relative error of the nonzero numbers that did not overflow",
        lambda m: percent(m.max_relative_error) if m.measured else "–",
    ),
    _MeasuredColumn(
        "SQNR, dB", "SQNR, dB", "signal to quantisation noise, over the same", _decibels
    ),
    _MeasuredColumn(
        "headroom, bits",
        "headroom, bits",
        "doublings left to the largest value",
        lambda m: f"{m.headroom_bits:.1f}" if math.isfinite(m.headroom_bits) else "–",
    ),
)


_OF_BLOCKS = (
    _MeasuredColumn(
        "clipped",
        "clipped",
        "of block formats: beyond the largest element times its scale",
        lambda m: _count(m.clipped),
        is_loss=True,
    ),
    _MeasuredColumn(
        "clamped blocks",
        "clamped, blocks",
        "of block formats: the share of blocks whose scale would have to be larger or smaller than "
        "the format of scales allows",
        lambda m: percent(m.clamped_share) if m.clamped_blocks else "–",
        is_loss=True,
    ),
)


_OF_COLLAPSE = (
    _MeasuredColumn(
        "distinct values left",
        "distinct",
        "how many of the distinct values are left, where they become one another",
        lambda m: f"{m.variation.left:,}" if m.collapses and m.variation and not m.lost else "–",
        is_loss=True,
    ),
)


def _columns_of(rows: Rows) -> tuple[_MeasuredColumn, ...]:
    """Return the columns; those of block formats, and of values that collapse, where there are."""
    every = [measured for row in rows.values() for measured in row.values()]
    collapsed = _OF_COLLAPSE * any(m.collapses and not m.lost for m in every)
    blocks = _OF_BLOCKS * any(measured.blocks for measured in every)
    return COLUMNS[:2] + collapsed + blocks + COLUMNS[2:]  # losses first


def _extent(measured: Measurement) -> str:
    """Return in words how many numbers there are and where they lie."""
    words = f"{measured.count:,} numbers"
    if measured.max_abs:
        words += f", magnitudes {measured.min_abs:.3g} to {measured.max_abs:.6g}"
    for count, kind in (
        (measured.zeros, "zero"),
        (measured.nans, "NaN"),
        (measured.infs, "infinite"),
    ):
        words += f", {count:,} {kind}" if count else ""
    return words


def _is_loss(column: _MeasuredColumn, text: str) -> bool:
    return column.is_loss and text != "–"


def comparison_table(
    rows: Rows, left_out: LeftOut = _NONE, tolerance: float | None = None
) -> RenderableType:
    """Return the comparison for a terminal: a line for each array and format.

    rows: By tensor, then by format: the `measurements` of a `Comparison`.
    Returns: Losses are red. A terminal of fewer than 80 columns is shown the columns that decide,
        and told which are left out. Of many arrays the worst are shown.
    """
    return _ComparisonTable(rows, left_out, tolerance)


def left_in_words(left_out: LeftOut) -> list[str]:
    """Return how much was left out, and what, in one sentence for each reason."""
    if not left_out:
        return []
    total = sum(one.nbytes for one in left_out.values())
    words = [f"Left out: {len(left_out):,} tensor{'s' * (len(left_out) != 1)}, {total:,} bytes"]
    reasons: dict[str, list[str]] = {}
    for name, one in left_out.items():
        reasons.setdefault(one.reason, []).append(name)
    for reason, names in list(reasons.items())[:_MOST_REASONS]:
        shown = ", ".join(names[:_MOST_NAMES])
        more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
        words.append(f"{shown}{more}: {reason}")
    if len(reasons) > _MOST_REASONS:
        words.append(f"and for {len(reasons) - _MOST_REASONS:,} more reasons")
    return words


class _ComparisonTable(NamedTuple):
    """The table, laid out for the width that it is shown in."""

    rows: Rows
    left_out: LeftOut
    tolerance: float | None

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        from rich.text import Text

        rows = self.rows
        names = {fmt for row in rows.values() for fmt in row}
        first = max(map(len, names), default=0) + 2
        every = _columns_of(rows)
        columns = _that_fit(every, options.max_width - first)
        names_and_units = zip(*(c.brief.partition(", ")[::2] for c in columns), strict=True)
        for words in names_and_units:
            yield Text(" " * first + "".join(f"{word:>{_WIDTH}}" for word in words), "bold")
        shown = list(rows) if len(rows) <= _MOST_SHOWN else worst_first(rows)[:_MOST_SHOWN]
        for name in shown:
            row = rows[name]
            extent = _extent(next(iter(row.values()))) if row else ""
            yield Text()
            yield Text.assemble((name, "bold"), "  ", (extent, "dim"), overflow="fold")
            yield from (_line(fmt, first, measured, columns) for fmt, measured in row.items())
        notes = []
        if len(rows) > len(shown):
            notes.append(f"These are the worst {len(shown)} of {len(rows):,}.")
        if left := [c.brief.partition(",")[0] for c in every if c not in columns]:
            notes.append(f"Left out for want of room: {', '.join(left)}.")
        if notes:
            yield Text()
            yield Text(" ".join([*notes, "--html and --json have all."]), "dim")
        if words := left_in_words(self.left_out):
            yield Text()
            yield Text(words[0], overflow="fold")
            yield from (Text(f"  {sentence}", "dim", overflow="fold") for sentence in words[1:])
        yield from _summary(rows, self.tolerance) if len(rows) > 1 else ()


def _urgency(column: _MeasuredColumn) -> int:
    return (*_URGENT, *_LESS_URGENT).index(column.brief.partition(",")[0])


def _that_fit(every: tuple[_MeasuredColumn, ...], width: int) -> list[_MeasuredColumn]:
    """Return the columns that a width has room for, those that decide before the others."""
    urgent = sorted(every, key=_urgency)
    kept = urgent[: max(1, width // _WIDTH)]
    return [column for column in every if column in kept]


def _summary(rows: Rows, tolerance: float | None) -> list[RenderableType]:
    """Return how each format fares, and what it does to the tensors that it does not hold."""
    from rich.padding import Padding
    from rich.text import Text

    held, lost = _list(2), _list()
    for one in standings(rows, tolerance):
        style = "green" if one.holding == one.total else ""
        words = f"holds {one.holding:,} of {one.total:,}: {one.words}"
        held.add_row(f"  {one.fmt}", Text(words, style))
    found = shortfalls(rows, tolerance)
    for finding in found[:_MOST_FINDINGS]:
        subject = (f"{finding.tensor}: ", "bold")
        lost.add_row("-", Text.assemble(subject, f"{finding.fmt} {finding.words}"))
    if len(found) > _MOST_FINDINGS:
        lost.add_row("-", Text(f"and {len(found) - _MOST_FINDINGS:,} more", "dim"))
    heading = Text("Summary, worst first", "bold")
    return [Text(), heading, Padding(Text(rule(tolerance), "dim"), (0, 0, 0, 2)), held, lost]


def cures_view(rows: Rows, tolerance: float | None = None) -> RenderableType:
    """Return what formats do to a tensor that they do not hold, and the cures, as a list."""
    from rich.console import Group
    from rich.text import Text

    found, lost = shortfalls(rows, tolerance), _list()
    for finding in found:
        lost.add_row("-", Text(f"{finding.fmt} {finding.words}"))
    return Group(Text(), lost) if found else Group()


def _list(gap: int = 1) -> Table:
    """Return an empty list of a mark and a text each, whose lines go on under the text."""
    from rich.table import Table

    grid = Table.grid(padding=(0, gap))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _line(fmt: str, first: int, measured: Measurement, columns: list[_MeasuredColumn]) -> Text:
    from rich.text import Text

    texts = [(column, column.text(measured)) for column in columns]
    cells = [(f"{text:>{_WIDTH}}", "bold red" if _is_loss(c, text) else "") for c, text in texts]
    return Text.assemble(f"  {fmt:<{first - 2}}", *cells)


def comparison_fragment(
    rows: Rows, left_out: LeftOut = _NONE, tolerance: float | None = None
) -> str:
    """Return the comparison as an HTML table with its own style, for Jupyter.

    rows: By tensor, then by format: the `measurements` of a `Comparison`.
    Returns: A ``div`` that scrolls sideways where the page is narrower than the table.
    """
    table = comparison_table_html(rows, tolerance)
    return f"<style>{stylesheet('comparison.css')}</style>{table}{_left_html(left_out)}"


def comparison_page(rows: Rows, left_out: LeftOut = _NONE, tolerance: float | None = None) -> str:
    """Return the comparison as a whole page that refers to nothing outside itself.

    rows: By tensor, then by format: the `measurements` of a `Comparison`.
    Returns: HTML.
    """
    body = (
        f"{_left_html(left_out)}{_summary_html(rows, tolerance)}"
        f"{comparison_table_html(rows, tolerance)}{legend_html(_meanings(_columns_of(rows)))}"
    )
    title, heading = "lowprec: comparison of formats", "What each format does to these numbers"
    return plain_page(generator_tag("lowprec compare"), title, heading, body, "comparison.css")


def _left_html(left_out: LeftOut) -> str:
    words = [html.escape(sentence) for sentence in left_in_words(left_out)]
    if not words:
        return ""
    items = "".join(f"<li>{sentence}</li>" for sentence in words[1:])
    return f"<p>{words[0]}</p><ul>{items}</ul>"


def _summary_html(rows: Rows, tolerance: float | None) -> str:
    """Return what `_summary` says, as two lists."""
    if len(rows) < 2:
        items = [html.escape(f"{one.fmt} {one.words}") for one in shortfalls(rows, tolerance)]
        return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>" if items else ""
    held = "".join(
        f"<li><b>{html.escape(str(one.fmt))}</b> holds {one.holding:,} of {one.total:,}: "
        f"{html.escape(one.words)}</li>"
        for one in standings(rows, tolerance)
    )
    found = shortfalls(rows, tolerance)
    worst = "".join(
        f"<li><b>{html.escape(one.tensor)}</b>: {html.escape(f'{one.fmt} {one.words}')}</li>"
        for one in found[:_MOST_FINDINGS_ON_A_PAGE]
    )
    more = len(found) - _MOST_FINDINGS_ON_A_PAGE
    rest = f"<li>and {more:,} more</li>" if more > 0 else ""
    return (
        f"<h2>Summary, worst first</h2><p>{html.escape(rule(tolerance).capitalize())}.</p>"
        f"<ul>{held}</ul>" + (f"<ol>{worst}{rest}</ol>" if found else "")
    )


def _meanings(columns: tuple[_MeasuredColumn, ...]) -> list[tuple[str, str]]:
    return [(column.heading, column.meaning) for column in columns]


def comparison_table_html(rows: Rows, tolerance: float | None = None) -> str:
    """Return the bare table, for pages that have the style already."""
    columns = _columns_of(rows)
    bodies = "".join(_body(name, row, columns, tolerance) for name, row in rows.items())
    headings = [("format", ""), ("verdict", ""), *_meanings(columns)]
    return table_html(headings, bodies, "Comparison")


def _body(
    name: str,
    row: Mapping[str, Measurement],
    columns: tuple[_MeasuredColumn, ...],
    tolerance: float | None,
) -> str:
    extent = _extent(next(iter(row.values()))) if row else ""
    span = len(columns) + 2
    title = f"{html.escape(name)} <small>{html.escape(extent)}</small>"
    lines = [f'<tr><th colspan="{span}" scope="rowgroup"><span>{title}</span></th></tr>']
    for fmt, measured in row.items():
        texts = [(column, column.text(measured)) for column in columns]
        cells = "".join(
            f"<td{' class=loss' if _is_loss(column, text) else ''}>{text}</td>"
            for column, text in texts
        )
        lines.append(
            f'<tr><th scope="row">{html.escape(fmt)}</th>'
            f"<td>{verdict_word(measured, tolerance)}</td>{cells}</tr>"
        )
    return f"<tbody>{''.join(lines)}</tbody>"
