"""What a format leaves of how numbers vary: values far from zero that differ by little collapse.

Relative errors do not show it: time stamps a second apart are all kept within half a spacing, and
all become one number.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.blocks.formats import BlockFormat, IntegerFormat
from lowprec.conversion.door import round_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lowprec.blocks.formats import AnyFormat
    from lowprec.formats import Format
    from lowprec.rounding import Overflow, Rounding

Array = np.ndarray[Any, Any]
_NONE = np.zeros(0)

_FEW = 32  # elements: below there is nothing to collapse
_GLANCE = 256  # elements that are looked at first
_SAMPLE = 1 << 16  # elements that are counted where those look suspicious
_KEPT = 1 << 14  # elements that are kept of a larger array
_RUN = 32  # neighbours that are looked at together
_SHARE = 8  # values collapse where less than this part of a binade's values are left


class Variation(NamedTuple):
    """How numbers vary, and what of it a format leaves.

    distinct, left: Distinct values before and after rounding, of all finite elements of an array of
    up to 65536, else of a sample.
    mean, deviation: Of these elements.
    max_error: The largest ``|y - x|`` among them, in the data's own units.
    """

    distinct: int
    left: int
    mean: float
    deviation: float
    max_error: float

    @property
    def helps_to_centre(self) -> bool:
        """Whether the mean is what makes the spacing large beside what varies."""
        return abs(self.mean) > 4 * self.deviation

    def __str__(self) -> str:
        are = "is" if self.left == 1 else "are"
        words = f"of {self.distinct:,} distinct values {self.left:,} {are} left"
        if self.max_error < float("inf"):
            words += f", off by up to {self.max_error:.4g}"
        return f"{words}: {self.centring}" if self.helps_to_centre else words

    @property
    def centring(self) -> str:
        """The advice to subtract the mean, in words."""
        return (
            f"subtract the mean, {self.mean:.6g}, beside a deviation of {self.deviation:.3g}; "
            "no scale helps"
        )


class Sample:
    """Elements that are kept of what was measured: they are counted when that is asked for.

    collapsed: The formats in which values become one another.
    """

    def __init__(self) -> None:
        self.parts: list[Array] = []
        self.room = _SAMPLE
        self.collapsed: set[AnyFormat] = set()
        self.found: dict[tuple[AnyFormat, Rounding, Overflow], Variation | None] = {}

    def keep(self, block: Array) -> None:
        """Keep a block, or of a large one a part, while there is room."""
        if not self.room:
            return
        part = _runs(block, min(self.room, _SAMPLE if block.size <= _SAMPLE else _KEPT))
        self.room -= part.size
        self.parts.append(part)

    def merged(self, other: Sample) -> Sample:
        """Return the elements of both, as many as there is room for."""
        both = Sample()
        for part in (*self.parts, *other.parts):
            both.keep(part)
        both.collapsed = self.collapsed | other.collapsed
        for key, found in (*other.found.items(), *self.found.items()):
            if isinstance(key[0], BlockFormat):  # which kept elements alone do not tell
                both.found[key] = found
        return both

    def variation(self, fmt: AnyFormat, rounding: Rounding, overflow: Overflow) -> Variation | None:
        """Return how the elements vary and what a format leaves; None where it is not known."""
        key = fmt, rounding, overflow
        if (
            key not in self.found
            and not isinstance(fmt, BlockFormat)
            and not rounding.is_stochastic
        ):
            x = np.concatenate([_NONE, *map(_as_finite, self.parts)])
            x = x if fmt.signed else x[x >= 0]  # others have no code
            y = _rounded(x, fmt, rounding, overflow)
            self.found[key] = _variation(x, y) if x.size else None
        return self.found.get(key)


class Variations:
    """Looks at pieces on their way to be measured, for formats in which their values collapse."""

    def __init__(self, formats: Sequence[Format], rounding: Rounding, overflow: Overflow) -> None:
        self.how = rounding, overflow
        # unsigned formats refuse negative numbers
        looked = [] if rounding.is_stochastic else [fmt for fmt in formats if fmt.signed]
        self.suspicious: dict[Format, list[Array]] = {fmt: [] for fmt in looked}
        self.sample = Sample()

    def seen(
        self, pieces: Iterable[tuple[Array, int | None]]
    ) -> Iterator[tuple[Array, int | None]]:
        """Yield the pieces, after a look at a few of their elements."""
        for block, place in pieces:
            self.sample.keep(block)
            if block.size >= _FEW and self.suspicious:
                self._look(block)
            yield block, place

    def _look(self, block: Array) -> None:
        glance = _sampled(block, _GLANCE)
        before = _distinct(glance)
        for fmt in list(self.suspicious):
            left = _distinct(_rounded(glance, fmt, *self.how)) if before >= _FEW else before
            few = min(_least(fmt.precision), block.size / _SHARE)
            if (left < _least(fmt.precision) and _SHARE * left < before) or _span(
                glance, fmt
            ) < few:
                self.suspicious[fmt].append(_sampled(block, _SAMPLE))
            else:
                del self.suspicious[fmt]  # one sound part says that the format does

    def result(self) -> Sample:
        """Return what was kept, with the formats in which values collapse."""
        for fmt, samples in self.suspicious.items():
            if not samples:
                continue
            x = np.concatenate(samples)
            found = _variation(x, _rounded(x, fmt, *self.how))
            if found.left < _least(fmt.precision) and _SHARE * found.left < found.distinct:
                self.sample.collapsed.add(fmt)
                self.sample.found[fmt, *self.how] = found
        return self.sample


class BlockVariations:
    """Looks at the blocks of a block format, and at what became of them."""

    def __init__(self, element: Format | IntegerFormat) -> None:
        self.precision = (
            element.bits - 1 if isinstance(element, IntegerFormat) else element.precision
        )
        self.samples: list[tuple[Array, Array]] | None = []
        self.first: list[tuple[Array, Array]] = []

    def look(self, x: Array, y: Array) -> None:
        """Look at blocks, one a row, and at their values in the format."""
        some = slice(None, None, max(x.size // _SAMPLE, 1))
        x, y = x[some], y[some]
        is_finite = np.isfinite(x).all(axis=1)
        x, y = x[is_finite], y[is_finite]
        if not self.first and x.size:
            self.first = [(x.ravel(), y.ravel())]
        if self.samples is None or not x.size:
            return
        before, left = _distinct_of_rows(x), _distinct_of_rows(y)
        if left < _least(self.precision) * len(x) and _SHARE * left < before:
            self.samples.append((x.ravel(), y.ravel()))
        else:
            self.samples = None  # one sound part says that the format does

    def result(self, fmt: BlockFormat, rounding: Rounding, overflow: Overflow) -> Sample:
        """Return how the numbers vary: of all parts where they collapse, else of the first."""
        sample = Sample()
        parts = self.samples or self.first
        if parts:
            found = _variation(*(np.concatenate(part) for part in zip(*parts, strict=True)))
            sample.found[fmt, rounding, overflow] = found
        if self.samples:
            sample.collapsed.add(fmt)
        return sample


def _variation(x: Array, y: Array) -> Variation:
    finite = np.isfinite(y)
    with np.errstate(all="ignore"):  # of numbers near float64's ends
        error = float(np.abs(y[finite] - x[finite]).max()) if finite.any() else float("inf")
        return Variation(_distinct(x), _distinct(y), float(x.mean()), float(x.std()), error)


def _least(precision: int) -> float:
    """Return how many distinct values a format leaves at least where nothing collapses."""
    return max(2.0**precision / _SHARE, 2.0)


def _span(x: Array, fmt: Format) -> float:
    """Return how many spacings of the largest number lie between the least and the greatest."""
    if not x.size:
        return math.inf
    low, high = float(x.min()), float(x.max())
    _, exponent = math.frexp(max(-low, high))
    spacing = 2.0 ** (max(exponent - 1, fmt.emin) - fmt.trailing_bits)
    return (high - low) / spacing if low < high else math.inf


def _runs(block: Array, most: int) -> Array:
    """Return a copy of elements: runs of neighbours, which collapse first, evenly taken."""
    taken = block.reshape(-1) if block.flags.c_contiguous else block.flat
    if block.size <= most:
        return np.array(taken[: block.size])
    length = min(_RUN, most)
    runs = max(most // length, 1)
    starts = [i * (block.size - length) // max(runs - 1, 1) for i in range(runs)]
    return np.concatenate([taken[first : first + length] for first in starts])


def _as_finite(x: Array) -> Array:
    """Return the finite elements as float64."""
    with np.errstate(invalid="ignore"):  # of a NaN that signals
        wide = x.astype(np.float64)
    return wide[np.isfinite(wide)]


def _sampled(block: Array, most: int) -> Array:
    """Return finite elements as float64, `most` at most."""
    return _as_finite(_runs(block, most))


def _rounded(x: Array, fmt: Format, rounding: Rounding, overflow: Overflow) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(round_to(x, fmt, rounding=rounding, overflow=overflow), np.float64)


def _distinct(x: Array) -> int:
    return int(np.unique(x).size)


def _distinct_of_rows(x: Array) -> int:
    """Return the sum of the distinct values of each row."""
    ordered = np.sort(x, axis=1)
    return len(x) + int((ordered[:, 1:] != ordered[:, :-1]).sum())
