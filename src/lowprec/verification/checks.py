"""A check: a claim, and a run over many cases that counts where it does not hold."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lowprec.rounding import Rounding

_Item = TypeVar("_Item")
_KEPT = 5  # mismatches that are told in full


@dataclass(frozen=True)
class Mismatch:
    """One case in which the library and the oracle disagree.

    Examples
    --------
    >>> print(Mismatch("add", "ties_to_even", ("0x3c00 = 1.0", "0x0001 = 6e-08"), "0x3c00", "nan"))
    add(0x3c00 = 1.0, 0x0001 = 6e-08), ties_to_even: 0x3c00 expected, nan found
    """

    operation: str
    rounding: str
    operands: tuple[str, ...]  # codes with their values
    expected: str
    found: str

    def __str__(self) -> str:
        case = f"{self.operation}({', '.join(self.operands)}), {self.rounding}"
        return f"{case}: {self.expected} expected, {self.found} found"


@dataclass(frozen=True)
class Part:
    """What a part of a check found; parts add up.

    Examples
    --------
    >>> Part(1000) + Part(1000, 2)
    Part(cases=2000, mismatches=2, first=())
    """

    cases: int = 0
    mismatches: int = 0
    first: tuple[Mismatch, ...] = ()  # at most five

    def __add__(self, other: Part) -> Part:
        return Part(
            self.cases + other.cases,
            self.mismatches + other.mismatches,
            (self.first + other.first)[:_KEPT],
        )


@dataclass(frozen=True)
class Check:
    """A claim with the means to test it.

    ``run(threads)`` yields the parts, in the same order for any number of threads.
    """

    name: str
    claim: str
    cases: int
    exhaustive: bool
    run: Callable[[int], Iterator[Part]]
    missing: str | None = None  # what has to be installed first


def in_modes(roundings: Sequence[Rounding]) -> str:
    """Return the modes in words, for a claim."""
    return f"{len(roundings)} modes" if len(roundings) > 1 else roundings[0].value


def shared(work: Callable[[_Item], Part], items: Iterable[_Item], threads: int) -> Iterator[Part]:
    """Yield what `work` makes of each item, in order; threads share the items.

    The first item is done before the threads start, so that each kernel is compiled once. What has
    not begun is given up when the caller stops.
    """
    pending = iter(items)
    for item in islice(pending, 1):
        yield work(item)
    pool = ThreadPoolExecutor(threads)
    try:
        waiting = [pool.submit(work, item) for item in islice(pending, 2 * threads)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(work, item) for item in islice(pending, 1)]
    finally:
        pool.shutdown(cancel_futures=True)
