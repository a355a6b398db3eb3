"""What checks found: a value that becomes a table, a page's table, and a JSON file."""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowprec.common.outputs import Output, json_kind, write_output
from lowprec.show.machine import processor
from lowprec.verification.checks import Mismatch, Part

if TYPE_CHECKING:
    import os

    from rich.table import Table

    from lowprec.verification.checks import Check

_PACKAGES = ("lowprec", "numpy", "numba", "ml_dtypes", "mpmath")


@dataclass(frozen=True)
class Result:
    """What one check found, or how far it came."""

    name: str
    claim: str
    exhaustive: bool
    planned: int  # cases
    cases: int
    mismatches: int
    seconds: float
    missing: str | None = None
    first: tuple[Mismatch, ...] = ()

    @classmethod
    def of(cls, check: Check, part: Part, seconds: float) -> Result:
        """Return the result of a check, with the seconds that it took."""
        found = (part.cases, part.mismatches, round(seconds, 6), check.missing, part.first)
        return cls(check.name, check.claim, check.exhaustive, check.cases, *found)

    @property
    def verdict(self) -> str:
        """WRONG, skipped, interrupted, proved (all cases agree) or agrees (a sample)."""
        if self.mismatches:
            return "WRONG"
        if self.missing:
            return "skipped"
        if self.cases < self.planned:
            return "interrupted"
        return "proved" if self.exhaustive else "agrees"


@dataclass(frozen=True)
class Report:
    """What a run found so far, and where and with what it ran.

    Examples
    --------
    >>> report = Report({"lowprec": "1.0"}, planned=1)
    >>> report = report.plus(Result("bfloat16 sqrt", "every operand", True, 65536, 65536, 0, 0.25))
    >>> report.is_complete, report.mismatches
    (True, 0)
    >>> print(report.to_markdown())
    | check | cases | mismatches | seconds | verdict |
    |---|--:|--:|--:|---|
    | bfloat16 sqrt | 65,536 | 0 | 0.2 | proved |
    | 1 check | 65,536 | 0 | 0.2 | |
    """

    facts: dict[str, str]
    planned: int  # checks
    results: tuple[Result, ...] = ()

    def plus(self, result: Result) -> Report:
        """Return the report with one more result."""
        return dataclasses.replace(self, results=(*self.results, result))

    @property
    def is_complete(self) -> bool:
        """Whether all checks have come to their ends."""
        ended = [r for r in self.results if r.missing or r.cases == r.planned]
        return len(ended) == self.planned

    @property
    def mismatches(self) -> int:
        """The number of mismatches in all checks."""
        return sum(result.mismatches for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        results = [dataclasses.asdict(r) | {"verdict": r.verdict} for r in self.results]
        return {
            **self.facts,
            "complete": self.is_complete,
            "mismatches": self.mismatches,
            "planned": self.planned,
            "checks": results,
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Report:
        """Return the report that `to_dict` made these values of."""
        known = {"complete", "mismatches", "planned", "checks"}
        results = [
            Result(
                **{key: value for key, value in check.items() if key not in ("verdict", "first")},
                first=tuple(
                    Mismatch(**{**told, "operands": tuple(told["operands"])})
                    for told in check["first"]
                ),
            )
            for check in plain["checks"]
        ]
        facts = {key: value for key, value in plain.items() if key not in known}
        return cls(facts, plain["planned"], tuple(results))

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row of text for each check, and one for all together."""
        rows = [
            (r.name, f"{r.cases:,}", f"{r.mismatches:,}", f"{r.seconds:.1f}", r.verdict)
            for r in self.results
        ]
        cases, seconds = (
            sum(getattr(r, key) for r in self.results) for key in ("cases", "seconds")
        )
        count = f"{len(rows)} check{'s' * (len(rows) != 1)}"
        return [*rows, (count, f"{cases:,}", f"{self.mismatches:,}", f"{seconds:.1f}", "")]

    def to_markdown(self) -> str:
        """Return the table for a page of the documentation."""
        lines = ["| " + " | ".join(_HEADINGS) + " |", "|---|--:|--:|--:|---|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows()]
        return "\n".join(line.replace("|  |", "| |") for line in lines)

    def to_table(self, width: int = 80) -> Table:
        """Return the table for a terminal of a width; counts are shown whole in every one.

        A narrow terminal is not shown the seconds, and a very narrow one the mismatches, of which
        the verdict says whether there are any; names fold.
        """
        from rich import box
        from rich.table import Table

        rows = [_HEADINGS, *self.rows()]
        widths = [max(len(row[k]) for row in rows) for k in range(len(_HEADINGS))]
        shown = list(range(len(_HEADINGS)))
        least = widths[0]
        for heading in ("seconds", "mismatches"):  # the verdict says whether there are any
            if least + sum(widths[k] + _GAP for k in shown[1:]) > width:
                shown.remove(_HEADINGS.index(heading))
            least = min(least, _SHORTEST)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for heading in (_HEADINGS[k] for k in shown):
            is_figure = heading in ("cases", "mismatches", "seconds")
            table.add_column(
                heading,
                justify="right" if is_figure else "left",
                no_wrap=heading != "check",
                overflow="fold",
            )
        *checks, total = ([row[k] for k in shown] for row in rows[1:])
        for row in checks:
            table.add_row(*row)
        table.add_section()
        table.add_row(*total)
        return table


_GAP = 3  # characters between columns
_SHORTEST = 13  # to which a check's name folds, at a blank
_HEADINGS = ("check", "cases", "mismatches", "seconds", "verdict")


def facts() -> dict[str, str]:
    """Return the date, the machine and the versions."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    } | {name: _version(name) for name in _PACKAGES}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


# Files -------------------------------------------------------------------------------------------


def incomplete_path(path: str | os.PathLike[str]) -> Path:
    """Return where a report stays until it is complete: ``verify.incomplete.json``."""
    target = Path(path)
    return target.with_name(f"{target.stem}.incomplete{target.suffix}")


REPORT = json_kind("the results of lowprec verify", lambda content: bool(Report.from_dict(content)))


def outputs(path: str | os.PathLike[str]) -> list[Output]:
    """Return the files that `save` writes."""
    return [Output(place, REPORT, "--output") for place in (path, incomplete_path(path))]


def save(report: Report, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a report as JSON, under a name of its own until it is complete.

    So the file of an earlier run stays until a later one has come to its end. What is not a regular
    file, such as ``/dev/stdout``, is given the complete report only.

    Parameters
    ----------
    report : Report
        What was found so far.
    path : str or path
        Where the complete report goes. An earlier one is replaced.
    overwrite : bool
        Whether a file that is not such a report may be replaced.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written, or the file exists and is not a report.
    """
    complete, incomplete = outputs(path)
    text = json.dumps(report.to_dict(), indent=1) + "\n"
    is_file = Path(path).is_file() or not Path(path).exists()
    if report.is_complete:
        write_output(complete, text, overwrite=overwrite)
        if is_file:
            incomplete_path(path).unlink(missing_ok=True)
    elif is_file:
        write_output(incomplete, text, overwrite=overwrite)
