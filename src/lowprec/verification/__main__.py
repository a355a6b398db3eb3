"""Show a result file: ``python -m lowprec.verification verify.json [page.md]``.

It prints the table, or puts it into a page between ``<!-- verify.json -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lowprec.common.whole_files import write_atomically
from lowprec.verification.results import Report


def main(source: str, page: str | None = None) -> None:
    """Print the table of a result file, or put it into a page."""
    report = Report.from_dict(json.loads(Path(source).read_text(encoding="utf-8")))
    if page is None:
        print(report.to_markdown())
        return
    comment, end = f"<!-- {Path(source).name} -->", "<!-- end -->"
    before, begin, rest = Path(page).read_text(encoding="utf-8").partition(comment)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{page} has no place for the results: {comment} … {end}")
    parts = [before + begin, _facts(report) + "\n", report.to_markdown(), end + after]
    write_atomically(page, "\n".join(parts))


def _facts(report: Report) -> str:
    """Return a line that says when, where and with what."""
    facts = dict(report.facts)
    date, processor, system = (facts.pop(key) for key in ("date", "processor", "system"))
    versions = ", ".join(f"{name} {version}" for name, version in facts.items())
    return f"{date[:10]}, {processor}, {system}; {versions}."


if __name__ == "__main__":
    main(*sys.argv[1:3])
