"""A difference as data, as a table in a terminal, in Jupyter, and as a page of its own."""

from __future__ import annotations

import dataclasses
import html
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.analysis.difference_figures import Element, Figures, roundings
from lowprec.analysis.error_percentiles import SHARES
from lowprec.common.outputs import generator_tag, json_kind, page_kind
from lowprec.show.html_tables import legend_html, table_html
from lowprec.show.pages import plain_page, stylesheet
from lowprec.show.words import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console, ConsoleOptions, RenderableType


PAGE = page_kind("lowprec diff")
JSON = json_kind(
    "the figures of lowprec diff", lambda content: {"max_ulps", "missing", "shapes"} <= set(content)
)
_MOST_SHOWN = 20
_MOST_NAMES = 8


# Data --------------------------------------------------------------------------------------------


def as_data(found: Figures) -> dict[str, Any]:
    """Return the figures as plain data: None for infinity and NaN, lists for tuples."""
    data: dict[str, Any] = {
        "format": None if found.fmt is None else str(found.fmt),
        "count": found.count,
        "equal": found.equal,
        "equal_share": _finite(found.equal_share),
        "max_ulps": _finite(found.max_ulps),
        "max_abs": _finite(found.max_abs),
        "max_rel": _finite(found.max_rel),
        "unbounded": found.unbounded,
        "percentiles": {
            kind: {share: _finite(value) for share, value in row.items()}
            for kind, row in found.percentiles.items()
        },
        "first": _element(found.first),
        "worst": _element(found.worst),
        "most_distant": [_element(one) for one in found.most_distant],
        "missing": list(found.missing),
        "extra": list(found.extra),
        "shapes": {name: [list(a), list(b)] for name, (a, b) in found.shapes.items()},
    }
    if found.tensors:
        data["tensors"] = {name: as_data(one) for name, one in found.tensors.items()}
    return data


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _element(element: Element | None) -> dict[str, Any] | None:
    if element is None:
        return None
    data = dataclasses.asdict(element)
    data["index"] = list(element.index)
    for key in ("x", "y"):  # NaN and infinity say what differs: as text
        data[key] = data[key] if math.isfinite(data[key]) else str(data[key])
    return data | {key: _finite(data[key]) for key in ("ulps", "abs", "rel")}


# Words -------------------------------------------------------------------------------------------


class _FiguresColumn(NamedTuple):
    heading: str
    meaning: str
    text: Callable[[Figures], str]
    order: int  # of urgency, where there is little room


def figure(value: float) -> str:
    """Return an error in few characters."""
    return "–" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.3g}"


def share(found: Figures) -> str:
    """Return the share of equal elements, never rounded up to all or down to none."""
    if not found.count:
        return "–"
    if found.equal in (0, found.count):
        return "all" if found.equal else "none"
    return f"{min(max(100 * found.equal_share, 0.01), 99.99):.2f} %"


def _relative(value: float) -> str:
    return "–" if math.isnan(value) else "∞" if math.isinf(value) else percent(value)


COLUMNS = (
    _FiguresColumn("format", "what a step is counted in", lambda d: _step(d), 4),
    _FiguresColumn("elements", "how many were compared", lambda d: f"{d.count:,}", 3),
    _FiguresColumn("equal", "the share of elements that are the same", share, 1),
    _FiguresColumn("max ulps", "the largest distance in steps", lambda d: figure(d.max_ulps), 0),
    _FiguresColumn("max abs", "the largest |b - a|", lambda d: figure(d.max_abs), 5),
    _FiguresColumn("max rel", "the largest |b - a| / |a|", lambda d: _relative(d.max_rel), 2),
    _FiguresColumn(
        "99 % rel",
        "99 % of the elements are within this",
        lambda d: _relative(d.percentiles["rel"]["99"]),
        6,
    ),
)


def _step(found: Figures) -> str:
    return "–" if found.fmt is None else str(found.fmt)


def at(element: Element, *, named: bool) -> str:
    """Return where an element is and what it is in both."""
    place = ", ".join(map(str, element.index))
    name = f"{element.name}" if named else ""
    return (
        f"{name}[{place}]: {element.x:.9g} and {element.y:.9g}, {figure(element.ulps)} ulps, "
        f"{_relative(element.rel)}"
    )


def notes(found: Figures) -> list[str]:
    """Return in sentences what was not compared, and where elements differ."""
    words = []
    for names, kind in ((found.missing, "missing from b"), (found.extra, "in b alone")):
        if names:
            shown = ", ".join(names[:_MOST_NAMES])
            more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
            words.append(f"{len(names):,} {kind}: {shown}{more}")
    for name, (one, other) in list(found.shapes.items())[:_MOST_NAMES]:
        words.append(f"{name} has shape {one} in a and {other} in b, and was not compared")
    if len(found.shapes) > _MOST_NAMES:
        words.append(f"and {len(found.shapes) - _MOST_NAMES:,} more of two shapes")
    named = bool(found.tensors)
    if found.first is not None:
        words.append(f"first: {at(found.first, named=named)}")
    words += [f"worst: {at(one, named=named)}" for one in found.most_distant[: 3 if named else 5]]
    if found.unbounded:
        words.append(f"{found.unbounded:,} elements are NaN or infinite in one of the two alone")
    return words


def summary(found: Figures) -> str:
    """Return the outcome in a sentence."""
    if not found.count:
        return "nothing was compared"
    of = f"{found.count:,} elements"
    if found.tensors:
        of += f" of {len(found.tensors):,} tensor{'s' * (len(found.tensors) != 1)}"
    if found.equal == found.count:
        return f"{of}: all are the same"
    rest = found.count - found.equal
    unit = "ulp" if found.max_ulps == 1 else "ulps"
    words = f"{of}: {rest:,} differ{'s' * (rest == 1)}, by up to {figure(found.max_ulps)} {unit}"
    if math.isfinite(found.max_ulps):
        words += f" ({roundings(found.max_ulps)})" if found.max_ulps else " (in a zero's sign)"
    return f"{words}, {_relative(found.max_rel)} of the value"


# Terminal ----------------------------------------------------------------------------------------


def difference_table(found: Figures) -> RenderableType:
    """Return the difference for a terminal: a line for each tensor, the worst first."""
    return _DifferenceTable(found)


def worst_first(found: Figures) -> list[tuple[str, Figures]]:
    """Return the tensors in descending order of distance."""
    return sorted(
        found.tensors.items(), key=lambda item: (-item[1].max_ulps, -item[1].max_rel, item[0])
    )


class _DifferenceTable(NamedTuple):
    """The table, laid out for the width that it is shown in."""

    found: Figures

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        from rich.text import Text

        found = self.found
        rows = worst_first(found)[:_MOST_SHOWN]
        one = [("", found)] if not found.tensors and found.count else []
        columns = _that_fit(options.max_width)
        if rows or one:
            yield Text("".join(f"{c.heading:>{_width(c)}}" for c in columns), "bold")
        for name, part in rows or one:
            if name:
                yield Text(name, "bold", overflow="fold")
            style = "bold red" if part.unbounded else ""
            yield Text("".join(f"{c.text(part):>{_width(c)}}" for c in columns), style)
        if len(found.tensors) > len(rows):
            more = f"These are the worst {len(rows)} of {len(found.tensors):,}."
            yield Text(f"{more} --html and --json have all.", "dim")
        yield Text()
        yield Text(summary(found), "green" if found.within(0) else "", overflow="fold")
        for sentence in notes(found):
            yield Text(f"  {sentence}", overflow="fold")


def _width(column: _FiguresColumn) -> int:
    return 16 if column.heading == "format" else 12 if column.heading == "elements" else 10


def _that_fit(width: int) -> list[_FiguresColumn]:
    kept: list[_FiguresColumn] = []
    room = width
    for column in sorted(COLUMNS, key=lambda column: column.order):
        room -= _width(column)
        if room < 0 and kept:
            break
        kept.append(column)
    return [column for column in COLUMNS if column in kept]


# HTML --------------------------------------------------------------------------------------------


def difference_fragment(found: Figures) -> str:
    """Return the difference as an HTML table with its own style, for Jupyter."""
    return f"<style>{stylesheet('comparison.css')}</style>{_table_html(found)}{_notes_html(found)}"


def difference_page(found: Figures) -> str:
    """Return the difference as a whole page that refers to nothing outside itself."""
    legend = legend_html((column.heading, column.meaning) for column in COLUMNS)
    body = f"{_notes_html(found)}{_table_html(found)}{_percentiles_html(found)}{legend}"
    title, heading = "lowprec: difference", "Two against each other"
    return plain_page(generator_tag("lowprec diff"), title, heading, body, "comparison.css")


def _notes_html(found: Figures) -> str:
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in notes(found))
    return f"<p>{html.escape(summary(found))}.</p>" + (f"<ul>{items}</ul>" if items else "")


def _percentiles_html(found: Figures) -> str:
    if not found.count:
        return ""
    headings = [("at most", ""), *((f"{share} %", "") for share in SHARES)]
    words = {"ulps": "ulps", "abs": "absolute error", "rel": "relative error"}
    body = "".join(
        f'<tr><th scope="row">{words[kind]}</th>'
        + "".join(f"<td>{figure(row[share])}</td>" for share in SHARES)
        + "</tr>"
        for kind, row in found.percentiles.items()
    )
    return f"<h2>Percentiles</h2>{table_html(headings, f'<tbody>{body}</tbody>', 'Percentiles')}"


_BY_URGENCY = sorted(COLUMNS, key=lambda column: column.order)  # a phone shows the first ones


def _table_html(found: Figures) -> str:
    rows = worst_first(found) or ([("x", found)] if found.count else [])
    if not rows:
        return ""
    body = "".join(_row_html(name, part) for name, part in rows)
    headings = [("tensor", ""), *((column.heading, column.meaning) for column in _BY_URGENCY)]
    return table_html(headings, f"<tbody>{body}</tbody>", "Difference")


def _row_html(name: str, part: Figures) -> str:
    cells = "".join(
        f"<td{' class=loss' if part.unbounded and c.order < 3 else ''}>"
        f"{html.escape(c.text(part))}</td>"
        for c in _BY_URGENCY
    )
    return f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
