"""The least set of lines and arguments that must stay wide, by trying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowprec.trace.places import Key


class Keep(NamedTuple):
    """Lines and arguments that stay wide, from which nothing can be taken.

    Attributes
    ----------
    lines : tuple
        Numbers of lines of the function's file, ``(file, number)`` of other files, and names of
        arguments.
    error : float
        The largest error of an output with these kept.
    runs : int
        How often the program was run.
    tried : list of (tuple, float)
        What each run kept, and the error it gave.
    """

    lines: tuple[Key, ...]
    error: float
    runs: int
    tried: list[tuple[tuple[Key, ...], float]]


class Search:
    """Runs a program with sets of units kept, each set once."""

    def __init__(self, error_of: Callable[[tuple[Key, ...]], float]) -> None:
        self._error_of = error_of
        self._known: dict[tuple[Key, ...], float] = {}
        self.tried: list[tuple[tuple[Key, ...], float]] = []

    def error(self, kept: Sequence[Key]) -> float:
        """Return the error with these kept."""
        key = tuple(kept)
        if key not in self._known:
            self._known[key] = self._error_of(key)
            self.tried.append((key, self._known[key]))
        return self._known[key]

    def know(self, kept: Sequence[Key], error: float) -> None:
        """Enter what has been run before."""
        self._known[tuple(kept)] = error


def least(
    search: Search, units: Sequence[Key], likely: Sequence[Key], tolerance: float
) -> tuple[tuple[Key, ...], float]:
    """Return a set of units whose error is within the tolerance, and which needs each of them.

    Parameters
    ----------
    search : Search
        Runs the program.
    units : sequence
        All units, which together are known to suffice, those that matter least first.
    likely : sequence
        Units that may suffice already.
    tolerance : float
        Of the error.
    """
    order = {unit: k for k, unit in enumerate(units)}

    def without(kept: list[Any], unit: Any) -> list[Any]:
        return [u for u in kept if u != unit]

    kept = list(units)
    if likely and len(likely) < len(units):
        tried = sorted(likely, key=order.__getitem__)
        if search.error(tried) <= tolerance:
            kept = tried
    for unit in list(kept):
        rest = without(kept, unit)
        if search.error(rest) <= tolerance:
            kept = rest
    while True:  # a unit that was needed beside others may have become needless
        for unit in kept:
            rest = without(kept, unit)
            if search.error(rest) <= tolerance:
                kept = rest
                break
        else:
            return tuple(kept), search.error(kept)
