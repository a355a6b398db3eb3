"""The tally of what a format does to numbers, block by block.

Numbers of 16 bits or fewer are counted by code, and each code that occurs is looked at once,
however many formats are asked about.
"""

from __future__ import annotations

import functools
import math
import operator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.analysis.measurement import Measurement, exact_sum
from lowprec.analysis.variation import Sample, Variations
from lowprec.arrays.direct import pieces_of
from lowprec.common.processor_state import in_exact_state
from lowprec.common.randomness import draw_key
from lowprec.conversion.door import decode
from lowprec.conversion.requests import round_piece
from lowprec.formats import Format, float32, get_format
from lowprec.rounding import overflow_rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from lowprec.rounding import Overflow, Rounding

    Array = npt.NDArray[Any]

BLOCK = 1 << 14
"""Elements that are rounded and tallied at a time: the buffers of a block fit in a core's cache."""

_COUNTED_BLOCK = 1 << 17  # elements whose codes are counted at a time


def measure_blocks(
    blocks: Iterable[Array],
    formats: Sequence[Format],
    rounding: Rounding,
    overflow: Overflow,
    rng: Any,
) -> list[Measurement]:
    """Measure arrays, as though they were one after the other, in several formats.

    blocks: The numbers, looked at once.
    rounding, overflow, rng: As in `lowprec.measure`.
    Returns: In the order of the formats.
    """
    pieces = ((block, None) for block in blocks)
    return measure_pieces(pieces, formats, rounding, overflow, draw_keys(formats, rounding, rng))


def draw_keys(formats: Sequence[Format], rounding: Rounding, rng: Any) -> list[int]:
    """Draw the key of the random bits for each format; 0 where the mode is deterministic."""
    return [draw_key(rng) for _ in formats] if rounding.is_stochastic else [0] * len(formats)


@in_exact_state
def measure_pieces(
    pieces: Iterable[tuple[Array, int | None]],
    formats: Sequence[Format],
    rounding: Rounding,
    overflow: Overflow,
    keys: Sequence[int],
) -> list[Measurement]:
    """Do what `measure_blocks` does to pieces, each with its place in the whole array.

    A piece whose place is None follows the one before. Only stochastic modes look at places.
    """
    tallies = [
        FormatTally(fmt, rounding, overflow, key) for fmt, key in zip(formats, keys, strict=True)
    ]
    counters: dict[Format, _CodeCounter] = {}
    variations = Variations(formats, rounding, overflow)
    for block, place in variations.seen(pieces):
        narrow = None if rounding.is_stochastic else _countable(block)
        if narrow is not None:
            counters.setdefault(narrow, _CodeCounter(narrow)).add(block)
        else:
            for tally in tallies:
                tally.add(block, place)
    for tally in tallies:
        for counter in counters.values():
            tally.add_weighted(*counter.values_and_counts())
    sample = variations.result()
    return [tally.result(sample) for tally in tallies]


@in_exact_state
def merge_measurements(parts: Iterable[list[Measurement]]) -> list[Measurement]:
    """Return the measurements of all parts together, in the order of the formats."""
    return [functools.reduce(operator.add, each) for each in zip(*parts, strict=True)]


def _countable(block: Array) -> Format | None:
    """Return the format of numbers that are fewer codes than elements."""
    if block.dtype.itemsize > 2 or block.dtype.kind not in "fV" or not block.dtype.isnative:
        return None
    fmt = get_format(block.dtype)
    return fmt if block.size >= 1 << fmt.bits else None


class _CodeCounter:
    """How often each code of a format occurs."""

    def __init__(self, fmt: Format) -> None:
        self.fmt = fmt
        self.counts = np.zeros(1 << fmt.bits, np.int64)

    def add(self, block: Array) -> None:
        """Count an array's codes."""
        for codes in pieces_of(block.view(self.fmt.code_dtype), _COUNTED_BLOCK, order="K"):
            self.counts += np.bincount(codes, minlength=self.counts.size)

    def values_and_counts(self) -> tuple[Array, Array]:
        """Return the numbers that occur, and how often each does."""
        codes = np.flatnonzero(self.counts)
        return decode(codes, self.fmt), self.counts[codes]


@functools.lru_cache(1024)
def _source_of(dtype: np.dtype[Any], fmt: Format) -> np.dtype[Any]:
    """Return a dtype that holds these numbers, and whose rounded values can be the format's."""
    if dtype.itemsize > 4 or dtype.kind in "biu":
        return dtype
    return np.dtype(np.float32 if fmt.fits(float32) else np.float64)


def _widened(block: Array, dtype: np.dtype[Any]) -> Array:
    if block.dtype == dtype:
        return block
    with np.errstate(invalid="ignore"):  # a NaN that signals is widened
        return block.astype(dtype)


class FormatTally:
    """The arrays that the kernel adds to, and what they mean."""

    def __init__(self, fmt: Format, rounding: Rounding, overflow: Overflow, key: int) -> None:
        self.kernel = statistics = _kernel()
        self.fmt, self.rounding, self.overflow = fmt, rounding, overflow
        self.key, self.place = key, 0
        self.limits = _limits(fmt, rounding).copy()  # block formats put their own in its place
        self.count = 0
        self.counts = np.zeros(len(statistics.COUNTS), np.int64)
        self.extrema = np.array([0.0, math.inf, 0.0, 0.0])
        self.sums = np.zeros((7, 2))
        self.exponents = np.zeros(statistics.EXPONENTS, np.int64)
        self.arrays = (self.limits, self.counts, self.extrema, self.sums, self.exponents)

    def add(self, x: Array, place: int | None = None) -> None:
        """Add an array of any layout, which lies at `place` or follows what was added before."""
        if place is not None:
            self.place = place
        source = _source_of(x.dtype, self.fmt)
        for piece in pieces_of(x, BLOCK, order="C" if self.rounding.is_stochastic else "K"):
            self._add_piece(_widened(piece, source), None)

    def add_weighted(self, values: Array, weights: Array) -> None:
        """Add numbers, each as often as its count says."""
        self._add_piece(_widened(values, _source_of(values.dtype, self.fmt)), weights)

    def _add_piece(self, piece: Array, weights: Array | None) -> None:
        how = (self.rounding, self.overflow)
        rounded = round_piece(piece, self.fmt, how, self.key, first=self.place)
        if not self.fmt.has_nan:  # where the format has none, what it would refuse
            rounded[np.isnan(piece) if self.fmt.signed else ~(piece >= 0)] = np.nan
        self.place += piece.size
        self.count += piece.size if weights is None else int(weights.sum())
        if weights is None and piece.dtype == rounded.dtype == np.float32:
            whole = piece.size - piece.size % self.kernel.LANES
            if whole:
                self.kernel.make_tally_lanes()(piece[:whole], rounded[:whole], *self.arrays)
            piece, rounded = piece[whole:], rounded[whole:]
        if piece.size:
            self._add_one_by_one(piece, weights, rounded)

    def add_rounded(self, x: Array, rounded: Array) -> None:
        """Add a flat contiguous array and what it became, however that was found."""
        self.count += x.size
        if x.size:
            self._add_one_by_one(x, None, rounded)

    def _add_one_by_one(self, piece: Array, weights: Array | None, rounded: Array) -> None:
        values, tails = piece, None
        if piece.dtype.kind in "iu" and piece.dtype.itemsize == 8:
            values, tails = _split(piece)
        elif piece.dtype.kind in "biu":
            values = piece.astype(np.float64)
        has = tails is not None, weights is not None
        tally = self.kernel.make_tally(values.dtype, rounded.dtype, *has)
        tally(values, tails, weights, rounded, *self.arrays)

    def result(self, sample: Sample | None = None) -> Measurement:
        """Return the measurement of all that was added, of which some elements were kept."""
        sums = self.sums.tolist()
        fields = {"_pairs": sums[:3]}
        if any(map(any, sums[3:])):
            fields = self._with_scaled(*map(exact_sum, sums))
        max_abs, min_abs, max_relative, max_ulps = self.extrema.tolist()
        lowest, beyond = self._occupied_range(min_abs, max_abs)
        numbers = self.exponents[lowest:beyond].tolist()
        first = lowest + self.kernel.LOWEST_EXPONENT
        return Measurement.of_tally(
            fmt=self.fmt,
            sample=sample,
            rounding=self.rounding,
            overflow=self.overflow,
            count=self.count,
            max_abs=max_abs,
            min_abs=min_abs,
            max_relative_error=max_relative,
            max_ulp_error=max_ulps * 2.0**self.fmt.trailing_bits,
            exponent_histogram={e: n for e, n in enumerate(numbers, first) if n},
            **dict(zip(self.kernel.COUNTS, self.counts.tolist(), strict=True)),
            **fields,
        )

    def _with_scaled(
        self, relative: Fraction, signal: Fraction, noise: Fraction, *scaled: Fraction
    ) -> dict[str, Any]:
        """Add the squares of tiny and of huge numbers, which are scaled."""
        unscale = Fraction(4) ** self.kernel.SCALE
        signal += scaled[0] / unscale + scaled[1] * unscale
        noise += scaled[2] / unscale + scaled[3] * unscale
        return {"relative_error_sum": relative, "signal": signal, "noise": noise}

    def _occupied_range(self, min_abs: float, max_abs: float) -> tuple[int, int]:
        """Return from which place to which the histogram may hold something, by the extrema.

        An integer may lie just below the power of two that is its float64, a place lower.
        """
        if max_abs == 0.0:
            return 0, 0
        places = math.frexp(min_abs)[1] - 2, math.frexp(max_abs)[1]
        first = max(places[0] - self.kernel.LOWEST_EXPONENT, 0)
        return first, places[1] - self.kernel.LOWEST_EXPONENT


def _split(integers: Array) -> tuple[Array, Array]:
    """Return 64-bit integers as their nearest float64 and, exactly, what is left."""
    high = (integers >> 32).astype(np.float64) * 2.0**32
    low = (integers & 0xFFFFFFFF).astype(np.float64)
    nearest = high + low
    return nearest, low - (nearest - high)  # Dekker (1971): exact, for |high| > |low| or high = 0


@functools.cache
def _kernel() -> Any:
    from lowprec.kernels.counting import statistics  # imports Numba

    return statistics


@functools.cache
def _limits(fmt: Format, rounding: Rounding) -> Array:
    """Return what the kernel must know of the format, in its order; to be copied."""
    floor = fmt.emin if fmt.subnormals or fmt.precision == 1 else fmt.emin + fmt.trailing_bits
    limits = [fmt.max, fmt.smallest_normal, math.ldexp(1.0, floor)]
    for negative in (False, True):
        limits += _margin(fmt, rounding, negative)
    return np.array(limits)


def _margin(fmt: Format, rounding: Rounding, negative: bool) -> tuple[float, bool]:
    """Return by how much a number may exceed `max`, and whether exactly that much overflows.

    In a stochastic mode that is where it certainly does; before, the result tells.
    """
    spacing = math.ldexp(1.0, fmt.emax - fmt.trailing_bits)
    reach = overflow_rule(rounding, negative=negative, is_odd=fmt.max_is_odd).certain
    return reach.steps * spacing, reach.is_included
