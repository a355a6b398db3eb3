"""Measurements: what rounding into a format did to some numbers, as a value that merges."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from lowprec.common.processor_state import in_exact_state

if TYPE_CHECKING:
    from lowprec.analysis.variation import Sample, Variation
    from lowprec.blocks.formats import AnyFormat
    from lowprec.rounding import Overflow, Rounding


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What rounding into a format did to some numbers.

    Errors are those of the `measured` numbers: nonzero, finite and not overflowing. The sums behind
    the means are exact fractions, so measurements merge in any order and grouping.

    Attributes
    ----------
    fmt, rounding, overflow
        What was measured.
    count : int
        All inputs.
    zeros, nans, infs : int
        Inputs that are ±0, NaN, ±infinity.
    new_zeros : int
        Nonzero inputs that became zero.
    subnormals : int
        Inputs that became subnormal numbers of the format.
    overflows : int
        Finite inputs that became infinite, NaN or, with an exponent too large for the format, its
        largest value. What merely rounds to the largest value does not overflow.
    measured : int
        Inputs that errors are taken over.
    max_abs, min_abs : float
        Largest finite and smallest nonzero magnitude of the input; 0 and infinity where none is.
    max_relative_error : float
        Largest ``|y - x| / |x|``; 0 where nothing was measured, never above 2**900.
    max_ulp_error : float
        Largest ``|y - x|`` in units of the format's spacing at x; at most ½ to nearest.
    relative_error_sum, signal, noise : Fraction
        Sums of ``|y - x| / |x|``, of ``x**2`` and of ``(y - x)**2``.
    exponent_histogram : dict of int to int
        Nonzero finite inputs by ``floor(log2(|x|))``, in ascending order.
    clipped : int
        Of a block format: inputs beyond the largest element times its scale. They are measured.
    blocks, clamped_blocks : int
        Of a block format: blocks, and those whose scale its format was too narrow for.
    sample : object, optional
        Elements that are kept until `variation` is asked for.

    Examples
    --------
    >>> from lowprec.analysis.measuring import measure
    >>> parts = measure([1.0, 1e-9], "float16") + measure([65519.0, 65520.0], "float16")
    >>> parts == measure([1.0, 1e-9, 65519.0, 65520.0], "float16")
    True
    """

    fmt: AnyFormat
    rounding: Rounding
    overflow: Overflow
    count: int
    zeros: int
    new_zeros: int
    subnormals: int
    overflows: int
    nans: int
    infs: int
    measured: int
    max_abs: float
    min_abs: float
    max_relative_error: float
    max_ulp_error: float
    relative_error_sum: Fraction = dataclasses.field(repr=False)
    signal: Fraction = dataclasses.field(repr=False)
    noise: Fraction = dataclasses.field(repr=False)
    exponent_histogram: dict[int, int] = dataclasses.field(repr=False, hash=False)
    clipped: int = 0
    blocks: int = 0
    clamped_blocks: int = 0
    sample: Sample | None = dataclasses.field(default=None, compare=False, repr=False)

    if not TYPE_CHECKING:  # every name would be an attribute

        def __getattr__(self, name: str) -> Any:
            """Add up the sums when one is asked for: for few numbers that is most of the work."""
            if name not in _FRACTIONS or "_pairs" not in self.__dict__:
                raise AttributeError(f"a Measurement has no attribute {name!r}")
            self.__dict__.update(zip(_FRACTIONS, map(exact_sum, self._pairs), strict=True))
            return self.__dict__[name]

    @classmethod
    def of_tally(cls, **fields: Any) -> Measurement:
        """Return a measurement that makes its sums of ``_pairs`` when they are asked for."""
        found = object.__new__(cls)
        found.__dict__.update(_OF_NUMBERS, **fields)
        return found

    @property
    def collapses(self) -> bool:
        """Whether distinct values become one another, so that what varies is lost.

        Time stamps do, and coordinates far from zero, though relative errors are small.
        """
        return self.sample is not None and self.fmt in self.sample.collapsed

    @property
    @in_exact_state
    def variation(self) -> Variation | None:
        """How many distinct values there are and are left, mean, deviation and largest error.

        The error is in the data's own units. Up to 65536 elements are all counted, of more a
        sample; they are counted when this is asked for. None where there is no finite element, and
        where rounding is stochastic.
        """
        how = self.fmt, self.rounding, self.overflow
        return None if self.sample is None else self.sample.variation(*how)

    @property
    def clamped_share(self) -> float:
        """The share of blocks whose scale was clamped; 0 where there are no blocks."""
        return self.clamped_blocks / self.blocks if self.blocks else 0.0

    @property
    @in_exact_state
    def headroom_bits(self) -> float:
        """How many doublings fit between the data and the largest value: log2(max / max_abs)."""
        if self.max_abs == 0.0:
            return math.inf
        ratio = self.fmt.max / self.max_abs
        if 0.0 < ratio < math.inf:
            return math.log2(ratio)
        return math.log2(self.fmt.max) - math.log2(self.max_abs)

    @property
    @in_exact_state
    def mean_relative_error(self) -> float:
        """Mean of ``|y - x| / |x|``; NaN where nothing was measured."""
        return float(self.relative_error_sum / self.measured) if self.measured else math.nan

    @property
    @in_exact_state
    def sqnr_db(self) -> float:
        """Signal to quantisation noise, 10·log10(Σx² / Σ(y - x)²) in decibels.

        Infinity where every measured number is kept exactly, NaN where nothing was measured.
        """
        if not self.noise:
            return math.inf if self.measured else math.nan
        ratio = self.signal / self.noise
        octaves = ratio.numerator.bit_length() - ratio.denominator.bit_length()
        rest = ratio / Fraction(2) ** octaves  # within [½, 2], where Σx² / Σ(y - x)² may not be
        return 10 * (math.log10(rest) + octaves * math.log10(2))

    @property
    def lost(self) -> int:
        """Inputs the format cannot keep: overflows, new zeros, NaN and infinities with no code."""
        nans = 0 if self.fmt.has_nan else self.nans
        return self.overflows + self.new_zeros + nans + (0 if self.fmt.has_infinity else self.infs)

    @in_exact_state
    def merge(self, other: Measurement) -> Measurement:
        """Return the measurement of both inputs together; ``+`` does the same.

        Raises
        ------
        ValueError
            If `other` is of another format, rounding or overflow policy.
        """
        for name in ("fmt", "rounding", "overflow"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"cannot merge a measurement of {mine} with one of {theirs}")
        merged: dict[str, Any] = {
            name: getattr(self, name) + getattr(other, name) for name in _SUMS
        }
        for name in _MAXIMA:
            merged[name] = max(getattr(self, name), getattr(other, name))
        merged["min_abs"] = min(self.min_abs, other.min_abs)
        histogram = Counter(self.exponent_histogram) + Counter(other.exponent_histogram)
        merged["exponent_histogram"] = dict(sorted(histogram.items()))
        return dataclasses.replace(self, **merged, sample=_merged_samples(self, other))

    def __add__(self, other: object) -> Measurement:
        return self.merge(other) if isinstance(other, Measurement) else NotImplemented

    @in_exact_state
    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data for JSON, None in place of infinity and NaN."""
        data: dict[str, Any] = {
            "format": str(self.fmt),
            "rounding": self.rounding.value,
            "overflow": self.overflow.value,
        }
        for name in _FIGURES:
            value = getattr(self, name)
            data[name] = value if math.isfinite(value) else None
        if self.blocks:
            data |= {name: getattr(self, name) for name in _OF_BLOCKS}
            data["clamped_share"] = self.clamped_share
        if (variation := self.variation) is not None:
            told = variation._asdict()
            data["variation"] = {k: v if math.isfinite(v) else None for k, v in told.items()}
        data["exponent_histogram"] = {str(e): n for e, n in self.exponent_histogram.items()}
        return data


def exact_sum(pair: list[float]) -> Fraction:
    """Return the sum of a number and of what it left out."""
    total, rest = pair
    return Fraction(total) + Fraction(rest) if rest else Fraction(total)


_FRACTIONS = ("relative_error_sum", "signal", "noise")
_OF_NUMBERS = {"clipped": 0, "blocks": 0, "clamped_blocks": 0}
_COUNTS = ("zeros", "new_zeros", "subnormals", "overflows", "nans", "infs", "measured")
_OF_BLOCKS = ("clipped", "blocks", "clamped_blocks")
_SUMS = ("count", *_COUNTS, *_OF_BLOCKS, *_FRACTIONS)
_MAXIMA = ("max_abs", "max_relative_error", "max_ulp_error")
_ERRORS = ("max_relative_error", "mean_relative_error", "max_ulp_error", "sqnr_db")
_FIGURES = ("count", *_COUNTS, "max_abs", "min_abs", "headroom_bits", *_ERRORS)


def _merged_samples(one: Measurement, other: Measurement) -> Sample | None:
    if one.sample is None or other.sample is None:
        return one.sample or other.sample
    return one.sample.merged(other.sample)
