"""Tracks: what rounding did to one tensor over a run, in rows whose number is bounded.

Every row sums up some recorded steps that follow one another. When the rows are full, neighbours
merge, and each row stands for twice as many steps: nothing is dropped, only the time axis coarsens.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.arrays.direct import lies_flat
from lowprec.common.recorded_rows import (
    BINS,
    FIELDS,
    GAPS,
    LOWEST_EXPONENT,
    LOWEST_GAP,
    empty_row,
    merge_rows,
)
from lowprec.train.optimizing.state import Slot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowprec.formats import Format

Array = np.ndarray[Any, Any]

ROWS = 128
"""How many rows a track has at most."""

_TENTHS = 10

_PLACES = {name: place for place, name in enumerate(FIELDS)}
_EXPONENTS = np.arange(BINS) + LOWEST_EXPONENT


@dataclasses.dataclass(frozen=True, eq=False)
class Tally:
    """What rounding did to a tensor in some steps.

    Magnitudes and exponents are without the loss scale, by which gradients were multiplied.

    fmt: What it was rounded to.
    numbers (array of float64): One for each of `lowprec.common.recorded_rows.FIELDS`;
        ``tally["new_zeros"]`` reads one.
    exponents (array of int64): Nonzero finite numbers by exponent, from
        `lowprec.common.recorded_rows.LOWEST_EXPONENT` on.

    Examples
    --------
    >>> from lowprec.formats import float16
    >>> track = Track("weight", "w", float16)
    >>> track.add(0, np.float32([1.0, 1e-9, 0.0]), np.float32([1.0, 0.0, 0.0]))
    >>> track.whole.new_zero_rate, track.whole.headroom_bits > 15
    (0.5, True)
    """

    fmt: Format
    numbers: Array
    exponents: Array

    def __getitem__(self, field: str) -> float:
        """Return one of the numbers."""
        return float(self.numbers[_PLACES[field]])

    @property
    def nonzero(self) -> float:
        """How many numbers were not zero before rounding."""
        return self["count"] - self["zeros"]

    @property
    def new_zero_rate(self) -> float:
        """The share of the nonzero numbers that became zero."""
        return _share(self["new_zeros"], self.nonzero)

    @property
    def subnormal_rate(self) -> float:
        """The share of the nonzero numbers that became subnormal."""
        return _share(self["subnormals"], self.nonzero)

    @property
    def lost_rate(self) -> float:
        """The share of the wanted changes that rounding left without effect."""
        return _share(self["lost"], self["changes"])

    @property
    def headroom_bits(self) -> float:
        """How many doublings fit between what was rounded, scaled as it was, and the maximum."""
        largest = self["largest"]
        return math.log2(self.fmt.max) - math.log2(largest) if largest else math.inf

    @property
    def sqnr_db(self) -> float:
        """Signal to quantisation noise in decibels; infinite where nothing was changed."""
        signal, noise = self["squares"], self["noise"]
        if not signal:
            return math.nan
        return 10 * math.log10(signal / noise) if noise else math.inf

    @property
    def rms(self) -> float:
        """The root mean square of what stayed finite."""
        return math.sqrt(_share(self["squares"], self._finite))

    @property
    def noise_rms(self) -> float:
        """The root mean square of the rounding errors."""
        return math.sqrt(_share(self["noise"], self._finite))

    @property
    def mean(self) -> float:
        """The mean of what stayed finite."""
        return _share(self["total"], self._finite)

    @property
    def _finite(self) -> float:
        return self["count"] - self["nans"] - self["infs"] - self["overflows"]

    def below(self, exponent: float) -> float:
        """Return the share of the nonzero finite numbers whose exponent is less than this."""
        return _share(self.exponents[exponent > _EXPONENTS].sum(), self.exponents.sum())

    def quantile(self, share: float) -> float:
        """Return the exponent below which this share of the nonzero numbers lies, interpolated."""
        sums = np.cumsum(self.exponents)
        if not sums[-1]:
            return math.nan
        place = int(np.searchsorted(sums, share * sums[-1], side="left"))
        before = sums[place - 1] if place else 0
        inside = (share * sums[-1] - before) / self.exponents[place]
        return float(place + LOWEST_EXPONENT + inside)

    def merge(self, other: Tally) -> Tally:
        """Return the tally of both."""
        return Tally(
            self.fmt,
            merge_rows(self.numbers, other.numbers),
            self.exponents + other.exponents,
        )


_FLOAT32 = np.dtype(np.float32)


def _flat(x: Array | None) -> Array | None:
    """Return an array, if there is one, as contiguous float32."""
    if x is None or lies_flat(x, _FLOAT32):
        return x
    return np.array(x, np.float32, order="C")


class Seen(NamedTuple):
    """A tensor that was seen, for `tally` to count.

    track: What counts it.
    before, after (array of float32): Before and after rounding, both multiplied by `scale`; without
        `after`, only changes are counted.
    scale: A power of two, for exponents to be exact.
    normal: The smallest normal number where the format's own does not serve: it was rounded under a
        scale of its own.
    old, new: Where `before` is what was to change in a tensor: the tensor, and what came of it.
    has_gaps: Whether changes are counted by their distance from `old` too.
    """

    track: Track
    before: Array
    after: Array | None = None
    scale: float = 1.0
    normal: float | None = None
    old: Array | None = None
    new: Array | None = None
    has_gaps: bool = True


def tally(step: int, seen: Iterable[Seen]) -> int:
    """Add tensors of a step to their tracks; return how many numbers were not finite at first.

    step: Not before the last one added; several tensors of one step are taken together.
    """
    tensors = []
    for track, before, after, scale, normal, old, new, has_gaps in seen:
        if step != track._open:
            track._open_row(step)
        x = _flat(before)
        tensors.append(
            (
                *(track.length - 1, track.numbers, track.exponents, x),
                x if after is before else _flat(after),
                *(_flat(old), _flat(new), track.gaps if has_gaps else None),
                *(track._normal if normal is None else normal, scale),
            )
        )
    found: int = _counter()(step, tensors)
    return found


@functools.cache
def _counter() -> Any:
    """Return what counts: to import it in every call would take as long as to count a bias."""
    from lowprec.kernels.counting import recording  # imports Numba

    return recording.tally


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


class Track:
    """The tallies of one tensor over a run.

    kind: Such as ``weight_gradient``.
    name: Such as ``0/kernel``.
    fmt: What it is rounded to.
    """

    def __init__(self, kind: str, name: str, fmt: Format) -> None:
        self.kind, self.name, self.fmt = kind, name, fmt
        self.numbers = np.tile(empty_row(), (ROWS, 1))
        self.exponents = np.zeros((ROWS, BINS), np.int64)
        self.gaps = np.zeros((2, GAPS))  # changes and their squares by their distance from w
        self.length, self.each = 0, 1  # rows in use, recorded steps in each of them
        self._open = -1  # the step that the last row was opened for
        self._records = 0  # that the last row has
        self._normal = fmt.smallest_normal

    def add(self, step: int, before: Array, after: Array, *, scale: float = 1.0) -> None:
        """Add the tensor of a step before and after rounding; see `Seen`."""
        tally(step, [Seen(self, before, after, scale)])

    def _open_row(self, step: int) -> None:
        """Find the row that this step belongs to, and make room where there is none."""
        if self._open < 0 and self.length:  # of a file, or copied, merged or thinned
            row = self.numbers[self.length - 1]
            self._open, self._records = int(row[_PLACES["last_step"]]), int(row[_PLACES["records"]])
        if step != self._open and (not self.length or self._records >= self.each):
            if self.length == ROWS:
                self._thin()
                self._open = -1
                self._open_row(step)
                return
            self.length, self._records = self.length + 1, 0
        self._records += step != self._open
        self._open = step

    def _thin(self) -> None:
        """Merge neighbouring rows: half as many, each of twice as many steps."""
        half = ROWS // 2
        self.numbers[:half] = merge_rows(self.numbers[::2], self.numbers[1::2])
        self.numbers[half:] = empty_row()
        self.exponents[:half] = self.exponents[::2] + self.exponents[1::2]
        self.exponents[half:] = 0
        self.length, self.each = half, 2 * self.each

    # Reading -------------------------------------------------------------------------------------

    @property
    def slot(self) -> Slot:
        """Of a moment: what is kept, and for which parameter."""
        return Slot.of(self.name)

    @property
    def is_kernel(self) -> bool:
        """Whether it is of a layer's kernel, not of its bias or of what it computes."""
        return self.name.split("/")[-1] == "kernel"

    @property
    def rows(self) -> list[Tally]:
        """The tallies, in the order of the steps."""
        return [
            Tally(self.fmt, self.numbers[row], self.exponents[row]) for row in range(self.length)
        ]

    @property
    def whole(self) -> Tally:
        """The tally of all steps."""
        numbers = empty_row()
        for row in self.numbers[: self.length]:
            numbers = merge_rows(numbers, row)
        return Tally(self.fmt, numbers, self.exponents[: self.length].sum(axis=0))

    @property
    def tenths(self) -> list[Tally]:
        """The tallies of the tenths of the run, or the rows where there are fewer than ten."""
        rows = self.rows
        if len(rows) <= _TENTHS:
            return rows
        edges = [len(rows) * part // _TENTHS for part in range(_TENTHS + 1)]
        return [
            functools.reduce(Tally.merge, rows[low:high]) for low, high in itertools.pairwise(edges)
        ]

    @property
    def steps(self) -> Array:
        """The middle of each row, in steps."""
        first, last = (self.field(name) for name in ("first_step", "last_step"))
        return (first + last) / 2

    def field(self, name: str) -> Array:
        """Return one of the numbers, row by row."""
        column: Array = self.numbers[: self.length, _PLACES[name]]
        return column

    def lost_at(self, precision: int) -> tuple[float, float]:
        """Return the shares of the changes, and of their squares, that would be lost to nearest.

        To weights of this precision: a change is lost where it is less than half a spacing, that
        is, where it lies more than `precision` binades below the weight.
        """
        lost = np.arange(GAPS) + LOWEST_GAP > precision
        counts, squares = (_share(row[lost].sum(), row.sum()) for row in self.gaps)
        return counts, squares

    def merge(self, other: Track) -> Track:
        """Return the track of both: their rows in the order of the steps, thinned to fit."""
        merged = Track(self.kind, self.name, self.fmt)
        merged.gaps = self.gaps + other.gaps
        numbers = np.concatenate([t.numbers[: t.length] for t in (self, other)])
        exponents = np.concatenate([t.exponents[: t.length] for t in (self, other)])
        order = np.argsort(numbers[:, _PLACES["first_step"]], kind="stable")
        merged.each = max(self.each, other.each)
        for place in order:
            merged._append(numbers[place], exponents[place])
        return merged

    def _append(self, numbers: Array, exponents: Array) -> None:
        """Add a row, to the last one while that has room."""
        self._open = -1
        if self.length:
            row = self.numbers[self.length - 1]
            together = row[_PLACES["records"]] + numbers[_PLACES["records"]]
            if together <= self.each or row[_PLACES["last_step"]] >= numbers[_PLACES["first_step"]]:
                self.numbers[self.length - 1] = merge_rows(row, numbers)
                self.exponents[self.length - 1] += exponents
                return
        if self.length == ROWS:
            self._thin()
            self._append(numbers, exponents)
            return
        self.numbers[self.length], self.exponents[self.length] = numbers, exponents
        self.length += 1
