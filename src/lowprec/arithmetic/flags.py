"""What happened while an arithmetic computed: IEEE 754's events, counted."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

Counts = np.ndarray[Any, np.dtype[np.int64]]

MOST_RECORDED = 256  # calls
_lock = threading.Lock()  # counting is a matter of microseconds: one lock serves all


def _renew_lock() -> None:
    """Replace the lock in a forked child, where a thread that held it does not exist."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


class Events(NamedTuple):
    """How many results each event of IEEE 754-2019, section 7, happened to."""

    invalid: int = 0  #: NaN, though no operand was
    divide_by_zero: int = 0  #: an exact infinity from finite operands
    overflow: int = 0  #: rounded with an unbounded exponent, it would exceed the format's `max`
    underflow: int = 0  #: tiny before rounding, and inexact
    inexact: int = 0  #: not the exact result


class Flags:
    """Counts of events by operation, and in total.

    ``flags.inexact`` and its four siblings are totals, ``flags["add"]`` the `Events` of one
    operation. Only operations count, not the conversion of their operands.

    Examples
    --------
    >>> flags = Flags()
    >>> flags.record("divide", np.array([0, 1, 0, 0, 2]))
    >>> flags.record("add", np.array([0, 0, 0, 0, 3]))
    >>> flags.inexact, flags["divide"].inexact, flags["sqrt"].inexact
    (5, 2, 0)
    >>> flags.clear()
    >>> bool(flags)
    False
    """

    def __init__(self) -> None:
        self._counts: dict[str, Counts] = {}
        self.recorded: deque[tuple[str, Counts]] = deque()  # and not added up yet

    def record(self, operation: str, counts: Counts) -> None:
        """Add counts in the order of `Events`; several threads may do so at once."""
        self.recorded.append((operation, counts))
        if len(self.recorded) > MOST_RECORDED:
            self.add_up()

    def add_up(self) -> None:
        """Add up what was recorded."""
        with _lock:
            self._add_up()

    def _add_up(self) -> None:
        """Add up what was recorded; the caller holds the lock."""
        while self.recorded:
            operation, counts = self.recorded.popleft()
            if operation in self._counts:
                self._counts[operation] += counts
            else:
                self._counts[operation] = counts.copy()

    def clear(self) -> None:
        """Forget everything."""
        with _lock:
            self.recorded.clear()
            self._counts.clear()

    def __getitem__(self, operation: str) -> Events:
        return self.by_operation.get(operation, Events())

    @property
    def by_operation(self) -> Mapping[str, Events]:
        """The events of every operation that has been computed."""
        with _lock:
            self._add_up()
            return {name: Events(*counts.tolist()) for name, counts in self._counts.items()}

    @property
    def total(self) -> Events:
        """The events of all operations."""
        return Events(*map(sum, zip(*self.by_operation.values(), strict=True)))

    @property
    def invalid(self) -> int:
        """How many results are NaN though no operand was."""
        return self.total.invalid

    @property
    def divide_by_zero(self) -> int:
        """How many results are exact infinities of finite operands, as of 1/0."""
        return self.total.divide_by_zero

    @property
    def overflow(self) -> int:
        """How many results, rounded with an unbounded exponent, would exceed `max`."""
        return self.total.overflow

    @property
    def underflow(self) -> int:
        """How many results were tiny before rounding, and are inexact."""
        return self.total.underflow

    @property
    def inexact(self) -> int:
        """How many results are not the exact ones."""
        return self.total.inexact

    def __bool__(self) -> bool:
        return any(self.total)

    def __repr__(self) -> str:
        counts = [f"{name}={count}" for name, count in self.total._asdict().items()]
        return f"Flags({', '.join(counts)})"
