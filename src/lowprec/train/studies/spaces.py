"""What a search draws from: intervals on a linear or logarithmic scale, and lists of choices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class Settings(dict[str, Any]):
    """The settings of a trial: a dictionary whose items are attributes too.

    Examples
    --------
    >>> Settings(units=32).units
    32
    """

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"the search has no {name!r}; its space has {', '.join(self)}")


@dataclasses.dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, even on a linear or on a logarithmic scale.

    Parameters
    ----------
    low, high : float
        The ends, both included.
    is_log : bool
        Whether the scale is logarithmic; both ends are positive then.
    is_integer : bool
        Whether numbers are rounded to integers.

    Raises
    ------
    ValueError
        If the interval is empty, not finite, or not positive where it must be.
    """

    low: float
    high: float
    is_log: bool = False
    is_integer: bool = False

    def __post_init__(self) -> None:
        if not -math.inf < self.low <= self.high < math.inf or (self.is_log and self.low <= 0):
            kind = "positive" if self.is_log else "finite"
            raise ValueError(
                f"from {self.low!r} to {self.high!r}: pass two {kind} numbers, the smaller first"
            )

    def at(self, part: float) -> float | int:
        """Return the number at a part, in [0, 1], of the way."""
        if self.is_log:
            low, high = math.log(self.low), math.log(self.high)
            found = math.exp(low + part * (high - low))
        else:
            found = self.low + part * (self.high - self.low)
        found = min(max(found, self.low), self.high)
        return round(found) if self.is_integer else found

    def part(self, value: float) -> float:
        """Return at which part of the way a number is."""
        if self.low == self.high:
            return 0.0
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def points(self, count: int) -> list[float | int]:
        """Return `count` numbers, the ends among them, at even distances on the scale."""
        if count < 2 or self.low == self.high:
            return [self.at(0.5)]
        return list(dict.fromkeys(self.at(place / (count - 1)) for place in range(count)))

    def around(self, value: float, share: float) -> Interval:
        """Return the interval of this share of the length around a number, within this one."""
        middle = min(max(self.part(value), share / 2), 1 - share / 2)
        ends = self.at(middle - share / 2), self.at(middle + share / 2)
        return dataclasses.replace(self, low=ends[0], high=ends[1])


def uniform(low: float, high: float) -> Interval:
    """Return what a search draws evenly from `low` to `high`.

    Examples
    --------
    >>> uniform(0.0, 0.5).points(3)
    [0.0, 0.25, 0.5]
    """
    return Interval(low, high)


def log_uniform(low: float, high: float) -> Interval:
    """Return what a search draws evenly in the logarithm, from `low` to `high`, both positive.

    Examples
    --------
    >>> [f"{rate:.0e}" for rate in log_uniform(1e-4, 1e-2).points(3)]
    ['1e-04', '1e-03', '1e-02']
    """
    return Interval(low, high, is_log=True)


def integers(low: int, high: int, *, log: bool = False) -> Interval:
    """Return what a search draws from the integers from `low` to `high`, both included.

    Parameters
    ----------
    low, high : int
        The ends.
    log : bool
        Whether even in the logarithm.

    Examples
    --------
    >>> integers(8, 128, log=True).points(3)
    [8, 32, 128]
    """
    return Interval(low, high, is_log=log, is_integer=True)


Dimension = Interval | list[Any]


def checked_space(space: Mapping[str, Any]) -> dict[str, Dimension]:
    """Return a space as intervals and lists of choices.

    Raises TypeError if it is not a mapping.
    Raises ValueError if there is nothing to choose from.
    """
    if not isinstance(space, Mapping):
        raise TypeError(
            "space is a dictionary, as in space={'learning_rate': train.log_uniform(1e-4, 1e-1), "
            "'batch_size': [16, 128]}"
        )
    found: dict[str, Dimension] = {}
    for name, choices in space.items():
        if isinstance(choices, Interval):
            found[name] = choices
            continue
        is_many = isinstance(choices, Iterable) and not isinstance(choices, str | bytes)
        found[name] = list(choices) if is_many else [choices]
        if not found[name]:
            raise ValueError(f"space[{name!r}] is empty; list one choice at least")
    if not found:
        raise ValueError(
            "the space is empty; name what to search, as in "
            "space={'learning_rate': train.log_uniform(1e-4, 1e-1)}"
        )
    return found


def drawn(space: Mapping[str, Dimension], parts: Sequence[float]) -> Settings:
    """Return the settings at these parts, in [0, 1), of each dimension."""
    return Settings(
        {
            name: choices.at(part)
            if isinstance(choices, Interval)
            else choices[min(int(part * len(choices)), len(choices) - 1)]
            for (name, choices), part in zip(space.items(), parts, strict=True)
        }
    )


def narrowed(
    space: Mapping[str, Dimension], best: Mapping[str, Any], share: float
) -> dict[str, Dimension]:
    """Return the space around the best settings: intervals of a share of their length.

    Of choices that are numbers, in order, the neighbours stay; others stay all.
    """
    found: dict[str, Dimension] = {}
    for name, choices in space.items():
        if isinstance(choices, Interval):
            found[name] = choices.around(best[name], share)
        elif all(isinstance(one, int | float) for one in choices):
            place = choices.index(best[name])
            found[name] = choices[max(place - 1, 0) : place + 2]
        else:
            found[name] = choices
    return found
