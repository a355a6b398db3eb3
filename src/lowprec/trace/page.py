"""The page of a trace: the source with a bar for error born and grown, and the verdict."""

from __future__ import annotations

import html
import linecache
import math
from typing import TYPE_CHECKING, Any

from lowprec.common.outputs import Output, check_outputs, generator_tag, page_kind, write_output
from lowprec.show.pages import plain_page, stylesheet
from lowprec.trace.places import short
from lowprec.trace.verdict import event_words
from lowprec.trace.views import head, notes, rounded, why

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

PAGE = page_kind("lowprec trace")
_BAR = 4.0  # em, of the longest bar
_DECADES = 4  # that bars cover: the longest is 10**4 times the shortest
_AROUND = 3  # lines of source before and after what was traced


def page(trace: Any) -> str:
    """Return the report as a whole page that refers to nothing outside itself."""
    heading = f"{html.escape(trace.name)} in {trace.format}"
    generator = generator_tag("lowprec trace")
    return plain_page(generator, f"lowprec: {heading}", heading, _body(trace), "trace.css")


def fragment(trace: Any) -> str:
    """Return the report as HTML with its own style, for Jupyter."""
    return f"<style>{stylesheet('trace.css')}</style>{_body(trace)}"


def write(
    text: str, path: str | os.PathLike[str], inputs: Sequence[str], overwrite: bool = False
) -> None:
    """Write a page, whole or not at all; a file that is not such a page is not replaced."""
    output = Output(path, PAGE, "the page")
    check_outputs([output], inputs, overwrite=overwrite)
    write_output(output, text, overwrite=overwrite)


def _body(trace: Any) -> str:
    verdict = trace.verdict
    said = (
        f'<ol class="verdict">{"".join(f"<li>{html.escape(s)}</li>" for s in verdict)}</ol>'
        if verdict
        else f"<p>No line is named: every share is within {trace.tolerance:.3g}.</p>"
    )
    facts = "".join(f"<br>{html.escape(note)}" for note in notes(trace))
    files = dict.fromkeys(line.file for line in trace.lines.values())
    tables = "".join(_file(trace, file) for file in files)
    return (
        f'<div class="lowprec-trace"><p class="facts">{html.escape(head(trace))}{facts}</p>{said}'
        f"{_arguments(trace)}{tables}"
        '<p class="facts">Bars are logarithmic: born, the error that roundings of the line made; '
        "grown, the error that it amplified; both relative to the output's size. "
        "✓ marks what must stay wide.</p></div>"
    )


def _arguments(trace: Any) -> str:
    rows = [
        (name, line)
        for name, line in trace.inputs.items()
        if line.events or trace.share(line, "born") or trace.share(line, "grown")
    ]
    if not rows:
        return ""
    body = "".join(
        _row(trace, name, line, f"<code>{html.escape(name)}</code>") for name, line in rows
    )
    return _table("argument", body)


def _table(title: str, body: str) -> str:
    return (
        '<table><thead><tr><th class="number">line</th><th class="tick"></th>'
        f"<th>{html.escape(title)}</th>"
        f'<th class="bar">born</th><th class="bar">grown</th></tr></thead><tbody>{body}</tbody>'
        "</table>"
    )


def _file(trace: Any, file: str) -> str:
    """Return the source of a file, in full for the function's own, near its lines for others."""
    lines = {line.number: (key, line) for key, line in trace.lines.items() if line.file == file}
    every = linecache.getlines(file)
    if file == trace.file:
        shown = range(1, len(every) + 1)
    else:
        shown = range(max(1, min(lines) - _AROUND), min(len(every), max(lines) + _AROUND) + 1)
    rows = []
    for number in sorted({*shown, *lines}):
        if number in lines:
            key, line = lines[number]
            rows.append(_row(trace, key, line, _source(line)))
        else:
            text = html.escape(every[number - 1].rstrip("\n"))
            rows.append(
                f'<tr><td class="number">{number}</td><td></td><td colspan="3"><code>{text}</code>'
                "</td></tr>"
            )
    return _table(short(file), "".join(rows))


def _source(line: Any) -> str:
    raw = line.text.encode()
    span = line.span
    if span is None or span.line != line.number:
        return f"<code>{html.escape(line.text)}</code>"
    end = span.end_column if span.end_line == span.line else len(raw)
    parts = [raw[: span.column], raw[span.column : end], raw[end:]]
    a, b, c = (html.escape(part.decode(errors="replace")) for part in parts)
    return f"<code>{a}<u>{b}</u>{c}</code>"


def _row(trace: Any, key: Any, line: Any, code: str) -> str:
    named = any(finding.key == key for finding in trace.findings)
    kept = trace.kept is not None and key in trace.kept.lines
    number = "" if line.number is None else str(line.number)
    row = (
        f'<tr{" class=named" if named else ""}><td class="number">{number}</td>'
        f'<td class="tick">{"✓" if kept else ""}</td><td>{code}</td>'
        f"{_bar('born', trace.share(line, 'born'))}{_bar('grown', trace.share(line, 'grown'))}</tr>"
    )
    words = why(trace, line)
    if line.events:
        words = "; ".join(event_words(e, line.format or trace.format) for e in line.events)
    if words and (named or line.events):
        said = f'<td colspan="3"><span>{html.escape(words)}</span></td>'
        row += f'<tr class="why"><td></td><td></td>{said}</tr>'
    return row


def _bar(kind: str, share: float) -> str:
    if not share or not math.isfinite(share):
        return f'<td class="bar {kind}"></td>'
    part = min(1.0, max(0.0, 1 + math.log10(min(share, 1.0)) / _DECADES))
    return (
        f'<td class="bar {kind}"><i style="width:{_BAR * part:.2f}em"></i>'
        f"<small>{rounded(share)}</small></td>"
    )
