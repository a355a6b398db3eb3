"""What a format leaves of how numbers vary: values far from zero that differ by little collapse.

Relative errors do not show it: time stamps a second apart are all kept within half a spacing, and
all become one number.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.blocks.formats import IntegerFormat
from lowprec.conversion.door import round_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lowprec.formats import Format

Array = np.ndarray[Any, Any]

_FEW = 32  # elements: below there is nothing to collapse
_GLANCE = 256  # elements that are looked at first
_SAMPLE = 1 << 16  # elements that are counted where those look suspicious
_RUN = 32  # neighbours that are looked at together
_SHARE = 8  # values collapse where less than this part of a binade's values are left


class Variation(NamedTuple):
    """How numbers vary, and what of it a format that collapses them leaves.

    distinct, left: Distinct values before and after rounding, of up to 65536 elements of each part.
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


class Variations:
    """Looks at blocks on their way to be measured, for formats in which their values collapse."""

    def __init__(self, formats: Sequence[Format]) -> None:
        self.formats = [fmt for fmt in formats if fmt.signed]  # others refuse negative numbers
        self.samples: dict[Format, list[Array]] = {fmt: [] for fmt in self.formats}
        self.is_sound: set[Format] = set()

    def seen(self, blocks: Iterable[Array]) -> Iterator[tuple[Array, None]]:
        """Yield the blocks, after a look at a few of their elements, without their places."""
        for block in blocks:
            if block.size >= _FEW and len(self.is_sound) < len(self.formats):
                self._look(block)
            yield block, None

    def _look(self, block: Array) -> None:
        glance = _sampled(block, _GLANCE)
        before = _distinct(glance)
        for fmt in self.formats:
            if fmt in self.is_sound:
                continue
            left = _distinct(_rounded(glance, fmt)) if before >= _FEW else before
            few = min(_least(fmt.precision), block.size / _SHARE)
            if (left < _least(fmt.precision) and _SHARE * left < before) or _span(
                glance, fmt
            ) < few:
                self.samples[fmt].append(_sampled(block, _SAMPLE))
            else:
                self.is_sound.add(fmt)

    def found(self, fmt: Format) -> Variation | None:
        """Return how the numbers vary, where they collapse in this format; else None."""
        samples = self.samples.get(fmt, [])
        if fmt in self.is_sound or not samples:
            return None
        x = np.concatenate(samples)
        y = _rounded(x, fmt)
        found = _variation(x, y)
        collapse = found.left < _least(fmt.precision) and _SHARE * found.left < found.distinct
        return found if collapse else None


class BlockVariations:
    """Looks at the blocks of a block format, and at what became of them."""

    def __init__(self, element: Format | IntegerFormat) -> None:
        self.precision = (
            element.bits - 1 if isinstance(element, IntegerFormat) else element.precision
        )
        self.samples: list[tuple[Array, Array]] | None = []

    def look(self, x: Array, y: Array) -> None:
        """Look at blocks, one a row, and at their values in the format."""
        some = slice(None, None, max(x.size // _SAMPLE, 1))
        x, y = x[some], y[some]
        is_finite = np.isfinite(x).all(axis=1)
        x, y = x[is_finite], y[is_finite]
        if self.samples is None or not x.size:
            return
        before, left = _distinct_of_rows(x), _distinct_of_rows(y)
        if left < _least(self.precision) * len(x) and _SHARE * left < before:
            self.samples.append((x.ravel(), y.ravel()))
        else:
            self.samples = None  # one sound part says that the format does

    def found(self) -> Variation | None:
        """Return how the numbers vary, where they collapse; else None."""
        if not self.samples:
            return None
        return _variation(*(np.concatenate(parts) for parts in zip(*self.samples, strict=True)))


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


def _sampled(block: Array, most: int) -> Array:
    """Return finite elements as float64: runs of neighbours, which collapse first, evenly taken."""
    taken = block.reshape(-1) if block.flags.c_contiguous else block.flat
    runs = most // _RUN if block.size > most else 1
    length = _RUN if runs > 1 else block.size
    starts = [i * (block.size - length) // max(runs - 1, 1) for i in range(runs)]
    with np.errstate(invalid="ignore"):  # of a NaN that signals
        x = np.concatenate([taken[first : first + length] for first in starts]).astype(np.float64)
    return x[np.isfinite(x)]


def _rounded(x: Array, fmt: Format) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(round_to(x, fmt), np.float64)


def _distinct(x: Array) -> int:
    return int(np.unique(x).size)


def _distinct_of_rows(x: Array) -> int:
    """Return the sum of the distinct values of each row."""
    ordered = np.sort(x, axis=1)
    return len(x) + int((ordered[:, 1:] != ordered[:, :-1]).sum())
