"""Which lines and arguments stay wide."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lowprec.trace.places import Places, Unit

_RANGE = re.compile(r"(?:(?P<file>.+):)?(?P<first>\d+)(?:\s*[-–]\s*(?P<last>\d+))?$")


class Keeping:
    """The lines and arguments that `keep=` names.

    Parameters
    ----------
    keep : iterable, or one of its items
        Line numbers of the function's file, ``(file, number)``, ``"file.py:12-15"``, ``"12-15"``,
        names of functions or of arguments.
    file : str
        The function's file.
    arguments : list of str
        Names of the arguments.

    Raises
    ------
    TypeError
        If an item is of another kind.
    """

    def __init__(self, keep: Any, file: str, arguments: list[str]) -> None:
        self.file, self.arguments = file, arguments
        self.lines: dict[tuple[str, int], Any] = {}
        self.names: set[str] = set()
        self.ranges: list[tuple[str, int, int, Any]] = []
        keep = () if keep is None else keep
        items: Iterable[Any] = (
            [keep] if isinstance(keep, str | int | np.integer) or _is_place(keep) else keep
        )
        for item in items:
            self._enter(item)

    def _enter(self, item: Any) -> None:
        if isinstance(item, bool) or not isinstance(item, str | int | tuple):
            try:
                item = int(item.__index__())
            except AttributeError:
                raise TypeError(
                    f"keep has {item!r}; name lines by number, 'file.py:12-15' or (file, number), "
                    "functions and arguments by name"
                ) from None
        if isinstance(item, int):
            self.ranges.append((self.file, item, item, item))
        elif isinstance(item, tuple):
            if not _is_place(item):
                raise TypeError(f"keep has {item!r}; a pair is (file, number)")
            self.ranges.append((item[0], item[1], item[1], item))
        else:
            match = _RANGE.match(item.strip())
            if match is None:
                self.names.add(item.strip())
            else:
                first = int(match["first"])
                last = int(match["last"] or first)
                self.ranges.append((match["file"] or self.file, first, last, item))

    def __bool__(self) -> bool:
        return bool(self.ranges or self.names)

    def has(self, file: str, number: int, function: str) -> bool:
        """Whether a line stays wide."""
        if function in self.names:
            return True
        return any(
            first <= number <= last and _same_file(name, file)
            for name, first, last, _ in self.ranges
        )

    def has_argument(self, name: str) -> bool:
        """Whether an argument stays wide."""
        return name in self.names or name.partition("[")[0] in self.names

    def check(self, places: Places) -> None:
        """Raise ValueError if an item names nothing that was traced."""
        units = places.lines.values()
        functions = {unit.name for unit in units}
        for name in self.names:
            if not (
                name in functions
                or name in self.arguments
                or any(a.partition("[")[0] == name for a in self.arguments)
            ):
                raise ValueError(
                    f"keep has {name!r}, which is neither an argument "
                    f"({', '.join(self.arguments)}) nor a function with traced lines "
                    f"({', '.join(sorted(functions))})"
                )
        for name, first, last, item in self.ranges:
            if not any(
                unit.number is not None
                and first <= unit.number <= last
                and _same_file(name, unit.file)
                for unit in units
            ):
                raise ValueError(
                    f"keep has {item!r}, where nothing was computed; traced lines of "
                    f"{os.path.basename(self.file)}: {listed(units, self.file)}"
                )


class Everything(Keeping):
    """Keeps all lines, and of the arguments those that are named."""

    def __init__(self, file: str, arguments: list[str], kept: Sequence[str]) -> None:
        super().__init__(tuple(kept), file, arguments)

    def __bool__(self) -> bool:
        return True

    def has(self, file: str, number: int, function: str) -> bool:
        """Whether a line stays wide: it does."""
        return True


def _is_place(item: Any) -> bool:
    return (
        isinstance(item, tuple)
        and len(item) == 2
        and isinstance(item[0], str)
        and isinstance(item[1], int)
        and not isinstance(item[1], bool)
        and (os.path.sep in item[0] or item[0].endswith(".py") or item[0].startswith("<"))
    )


def _same_file(name: str, file: str) -> bool:
    return name == file or file.endswith("/" + name) or os.path.basename(file) == name


def listed(units: Iterable[Unit], file: str) -> str:
    """Return the numbers of a file's lines, neighbours joined."""
    return ranges(
        sorted(unit.number for unit in units if unit.number is not None and unit.file == file)
    )


def ranges(numbers: list[int]) -> str:
    """Return sorted numbers in words.

    Examples
    --------
    >>> ranges([3, 4, 5, 9])
    '3–5, 9'
    """
    words: list[str] = []
    start = previous = None
    for number in [*numbers, None]:
        if previous is not None and number != previous + 1:
            assert start is not None
            words.append(str(start) if start == previous else f"{start}–{previous}")
            start = number
        if start is None:
            start = number
        previous = number
    return ", ".join(words)
