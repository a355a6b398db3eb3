"""A file of benchmark results: rows of time, ratios and errors."""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

__all__ = ["Quartiles", "Results", "Row", "read_results"]


class Quartiles(NamedTuple):
    """A median between its lower and upper quartile."""

    low: float
    median: float
    high: float

    def over(self, other: Quartiles) -> Quartiles:
        """Return the ratio to another, its quartiles as far apart as both sets together allow."""
        return Quartiles(self.low / other.high, self.median / other.median, self.high / other.low)


@dataclasses.dataclass(frozen=True)
class Row:
    """One benchmark.

    Attributes
    ----------
    name : str
        Unique in its file, and the same in another.
    kind, work, fmt, who : str
        What was timed, and whose work it is.
    seconds : Quartiles
        Of a call.
    elements : int or None
        Its size.
    threads : int
        How many computed.
    allocation : str
        ``preallocated``, ``allocated`` or nothing.
    copy_ratio, float32_ratio : Quartiles or None
        Its time over a float32 copy's and over float32's own work, measured in turns.
    facts : mapping
        What else it says: its errors, its figures, where it comes from.
    """

    name: str
    kind: str
    work: str
    fmt: str
    who: str
    seconds: Quartiles
    elements: int | None = None
    threads: int = 1
    allocation: str = ""
    copy_ratio: Quartiles | None = None
    float32_ratio: Quartiles | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def nanoseconds(self) -> float | None:
        """Time an element."""
        return self.seconds.median / self.elements * 1e9 if self.elements else None

    @property
    def label(self) -> str:
        """Whose work it is, with what sets it apart."""
        return self.who if self.threads == 1 else f"{self.who}, {self.threads} threads"


@dataclasses.dataclass(frozen=True)
class Results:
    """A file of results: its rows, and the machine on which they were measured."""

    rows: tuple[Row, ...]
    machine: Mapping[str, Any]
    date: str

    def of(self, kind: str) -> list[Row]:
        """Return the rows of a kind."""
        return [row for row in self.rows if row.kind == kind]

    @property
    def kinds(self) -> list[str]:
        """The kinds of rows, in the order of the file."""
        return list(dict.fromkeys(row.kind for row in self.rows))

    @property
    def processor(self) -> str:
        """The processor's name."""
        cpu = self.machine.get("cpu") or {}
        name = self.machine.get("processor_name") or cpu.get("brand_raw")
        return str(name or self.machine.get("machine", "unknown"))

    def float32_ratio(self, row: Row) -> tuple[Quartiles | None, bool]:
        """Return a row's ratio to float32, and whether it was measured in turns.

        Where it was not, it is the ratio to NumPy's float32 row of the same work and size.
        """
        if row.float32_ratio is not None:
            return row.float32_ratio, True
        base = self._float32_rows.get((row.kind, row.work, row.elements))
        return (row.seconds.over(base.seconds), False) if base else (None, False)

    @functools.cached_property
    def _float32_rows(self) -> dict[tuple[str, str, int | None], Row]:
        """NumPy's float32 rows."""
        return {
            (row.kind, row.work, row.elements): row
            for row in self.rows
            if row.threads == 1
            and (row.who == "numpy float32" or (row.who, row.fmt) == ("numpy", "float32"))
        }

    def floor(self, elements: int) -> float | None:
        """Return the seconds of a float32 copy of so many elements, as the rows found it."""
        found = [
            row.seconds.median / row.copy_ratio.median
            for row in self.rows
            if row.copy_ratio is not None and row.elements == elements
        ]
        return statistics.median(found) if found else None


def read_results(path: str | os.PathLike[str]) -> Results:
    """Read the file that pytest-benchmark wrote.

    Parameters
    ----------
    path : str or path
        What ``--benchmark-json`` named. Rows of other benchmarks than lowprec's are kept, with
        their times.

    Returns
    -------
    Results
        Its rows, in its order.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a file of pytest-benchmark.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = tuple(_row(entry) for entry in data["benchmarks"])
        return Results(rows, data["machine_info"], str(data.get("datetime", "")))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no file {path}; make one with: pytest benchmarks/ --benchmark-json=out.json"
        ) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a file of pytest-benchmark's results ({error!r}); "
            "make one with: pytest benchmarks/ --benchmark-json=out.json"
        ) from error


_OWN = ("kind", "work", "format", "who", "elements", "threads", "allocation")
_RATIOS = ("copy_ratio", "float32_ratio")


def _row(entry: Mapping[str, Any]) -> Row:
    stats, told = entry["stats"], dict(entry.get("extra_info") or {})
    seconds = Quartiles(stats["q1"], stats["median"], stats["q3"])
    name = entry["fullname"].rpartition("/")[2]
    return Row(
        name=name,
        kind=told.get("kind", "other"),
        work=told.get("work") or entry.get("group") or entry["name"],
        fmt=told.get("format", ""),
        who=told.get("who", ""),
        seconds=seconds,
        elements=told.get("elements"),
        threads=told.get("threads", 1),
        allocation=told.get("allocation", ""),
        copy_ratio=_quartiles(told.get("copy_ratio")),
        float32_ratio=_quartiles(told.get("float32_ratio")),
        facts={key: value for key, value in told.items() if key not in (*_OWN, *_RATIOS)},
    )


def _quartiles(told: Mapping[str, float] | None) -> Quartiles | None:
    return None if told is None else Quartiles(told["low"], told["median"], told["high"])
