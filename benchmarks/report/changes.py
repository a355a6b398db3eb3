"""What became slower or faster between two files of results, beyond noise."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.report.results import Quartiles, Results, Row

__all__ = ["THRESHOLD", "Change", "changes"]

THRESHOLD = 0.1
"""A change is told from this fraction on."""


@dataclasses.dataclass(frozen=True)
class Change:
    """A row that takes longer, or less long, than it did.

    Attributes
    ----------
    row, before : Row
        As it is, and as it was.
    measure : str
        What is compared: ``× copy`` (measured in turns with a copy, and so the same on a machine
        that is busier or of another clock), else ``time``.
    factor : float
        The new median over the old: above 1 it is slower.
    """

    row: Row
    before: Row
    measure: str
    factor: float

    @property
    def is_slower(self) -> bool:
        """Whether it takes longer."""
        return self.factor > 1


def changes(new: Results, old: Results, threshold: float = THRESHOLD) -> list[Change]:
    """Compare the rows that both files have, and return those that changed, the worst first.

    A row changed if its median did by more than `threshold`, and the quartiles of the two
    measurements do not overlap. Noise that moves a median within its own spread is so left out.

    Parameters
    ----------
    new, old : Results
        What is compared with what.
    threshold : float
        The fraction from which on a change is told.

    Returns
    -------
    list of Change
        Slower rows first, by their factor.
    """
    earlier = {row.name: row for row in old.rows}
    found = []
    for row in new.rows:
        before = earlier.get(row.name)
        if before is None or row.kind in _UNTIMED:
            continue
        measure, now, then = _comparable(row, before)
        if is_beyond_noise(now, then, threshold):
            found.append(Change(row, before, measure, now.median / then.median))
    return sorted(found, key=lambda change: -change.factor)


_UNTIMED = ("range", "precision", "goal")  # what these say is not how long they took


def _comparable(row: Row, before: Row) -> tuple[str, Quartiles, Quartiles]:
    if row.copy_ratio is not None and before.copy_ratio is not None:
        return "× copy", row.copy_ratio, before.copy_ratio
    return "time", row.seconds, before.seconds


def is_beyond_noise(now: Quartiles, then: Quartiles, threshold: float) -> bool:
    """Whether a median moved by more than the threshold, and out of the spread of both.

    Examples
    --------
    >>> from benchmarks.report.results import Quartiles
    >>> then = Quartiles(0.95, 1.0, 1.05)
    >>> is_beyond_noise(Quartiles(1.15, 1.2, 1.25), then, 0.1)
    True
    >>> is_beyond_noise(Quartiles(1.0, 1.2, 1.4), then, 0.1)  # too uncertain to tell
    False
    >>> is_beyond_noise(Quartiles(1.06, 1.08, 1.09), then, 0.1)  # too little to matter
    False
    """
    is_apart = now.low > then.high or now.high < then.low
    moved = abs(math.log(now.median / then.median))
    return is_apart and moved > math.log1p(threshold)
