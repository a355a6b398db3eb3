"""What a format does to data: how much is lost, how much is left, and where the data lie.

Arrays are rounded and tallied block by block, so that data of any size and layout are measured in
the memory of a few blocks.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.conversion import draw_key, round_piece
from lowprec.formats import Format, FormatLike, float32, get_format
from lowprec.measurement import Measurement
from lowprec.rounding import Overflow, Rounding
from lowprec.sources import as_array

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt
    from rich.console import RenderableType

    Array = npt.NDArray[Any]

__all__ = ["Comparison", "Measurement", "compare", "measure"]

_CONTIGUOUS: Any = ("readonly", "aligned", "nbo", "contig")

BLOCK = 1 << 14
"""Elements that are rounded and tallied at a time: the buffers of a block fit in a core's cache."""

DEFAULT_FORMATS: tuple[FormatLike, ...] = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")


def measure(
    x: npt.ArrayLike,
    fmt: FormatLike,
    *,
    rounding: Rounding | str = "ties_to_even",
    overflow: Overflow | str = "ieee",
    rng: Any = None,
) -> Measurement:
    """Round an array into a format and say what happened to it; the rounded values are not kept.

    Parameters
    ----------
    x : array_like
        Real numbers of any dtype that `round_to` takes, of any shape and layout. Each is rounded
        once, from its exact value, and errors are taken against that exact value.
    fmt : Format, str or dtype
        The format.
    rounding, overflow : str
        As in `round_to`. A stochastic mode in which an overflow is clamped shows it only from
        twice the last spacing beyond the largest value on.
    rng : None, int, SeedSequence or Generator
        Source of the random bits of stochastic modes.

    Returns
    -------
    Measurement
        Counts and extrema are exact, means good to 1e-12.

    Raises
    ------
    TypeError, ValueError
        As in `round_to`; but NaN is counted, not refused, where the format has none.

    Examples
    --------
    >>> m = measure([0.0, 1e-8, 1 / 3, 70000.0], "float16")
    >>> m.count, m.zeros, m.new_zeros, m.overflows, m.measured
    (4, 1, 1, 1, 2)
    >>> round(m.headroom_bits, 3)
    -0.096
    """
    fmt, rounding, overflow = get_format(fmt), Rounding(rounding), Overflow(overflow)
    key = draw_key(rng) if rounding.is_stochastic else 0
    tally = _Tally(fmt, rounding)
    for block in _blocks(as_array(x), in_order=rounding.is_stochastic):
        source = _as_source(block, fmt)
        rounded = round_piece(source, fmt, (rounding, overflow), key, first=tally.count)
        tally.add(source, _with_refused(source, rounded, fmt))
    return tally.result(overflow)


def _blocks(x: Array, *, in_order: bool) -> Iterator[Array]:
    """Yield the elements of any array as contiguous blocks, in C order or as they lie in memory."""
    if x.size:
        yield from np.nditer(
            [x],
            flags=["external_loop", "buffered"],
            op_flags=[_CONTIGUOUS],
            order="C" if in_order else "K",
            buffersize=BLOCK,
        )


def _as_source(block: Array, fmt: Format) -> Array:
    """Return the same numbers in a dtype whose rounded values can be any of the format's."""
    narrow = block.dtype.itemsize <= 4 and block.dtype.kind not in "biu"
    if narrow:
        return block.astype(np.float32 if fmt.fits(float32) else np.float64, copy=False)
    return block


def _with_refused(block: Array, rounded: Array, fmt: Format) -> Array:
    """Return NaN for what a format without NaN would refuse."""
    if not fmt.has_nan:
        rounded[np.isnan(block) if fmt.signed else ~(block >= 0)] = np.nan
    return rounded


class _Tally:
    """The arrays that the kernel adds to, and what they mean."""

    def __init__(self, fmt: Format, rounding: Rounding) -> None:
        from lowprec.kernels import statistics

        self.kernel = statistics
        self.fmt, self.rounding = fmt, rounding
        self.limits = np.array(_limits(fmt, rounding))
        self.count = 0
        self.counts = np.zeros(len(statistics.COUNTS), np.int64)
        self.extrema = np.array([0.0, math.inf, 0.0, 0.0])
        self.sums = np.zeros((7, 2))
        self.exponents = np.zeros(statistics.EXPONENTS, np.int64)

    def add(self, block: Array, rounded: Array) -> None:
        """Add a block and what it became."""
        values, tails = block, None
        if block.dtype.kind in "iu" and block.dtype.itemsize == 8:
            values, tails = _split(block)
        elif block.dtype.kind in "biu":
            values = block.astype(np.float64)
        self.count += block.size
        arrays = (self.limits, self.counts, self.extrema, self.sums, self.exponents)
        tally = self.kernel.make_tally(values.dtype, rounded.dtype, tails is not None)
        tally(values, tails, rounded, *arrays)

    def result(self, overflow: Overflow) -> Measurement:
        """Return the measurement of all blocks added."""
        kernel = self.kernel
        relative, signal, noise, *scaled = (
            Fraction(a) + Fraction(b) for a, b in self.sums.tolist()
        )
        unscale = Fraction(4) ** kernel.SCALE
        counts = dict(zip(kernel.COUNTS, self.counts.tolist(), strict=True))
        extrema = dict(zip(kernel.EXTREMA, self.extrema.tolist(), strict=True))
        extrema["max_ulp_error"] *= 2.0**self.fmt.trailing_bits
        occupied = np.flatnonzero(self.exponents).tolist()
        return Measurement(
            self.fmt,
            self.rounding,
            overflow,
            self.count,
            **counts,
            **extrema,
            relative_error_sum=relative,
            signal=signal + scaled[0] / unscale + scaled[1] * unscale,
            noise=noise + scaled[2] / unscale + scaled[3] * unscale,
            exponent_histogram={
                i + kernel.LOWEST_EXPONENT: int(self.exponents[i]) for i in occupied
            },
        )


def _split(integers: Array) -> tuple[Array, Array]:
    """Return 64-bit integers as their nearest float64 and, exactly, what is left."""
    high = (integers >> 32).astype(np.float64) * 2.0**32
    low = (integers & 0xFFFFFFFF).astype(np.float64)
    nearest = high + low
    return nearest, low - (nearest - high)  # Dekker (1971): exact, for |high| > |low| or high = 0


def _limits(fmt: Format, rounding: Rounding) -> list[float]:
    """Return what the kernel must know of the format, in its order."""
    floor = fmt.emin if fmt.subnormals or fmt.precision == 1 else fmt.emin + fmt.trailing_bits
    limits = [fmt.max, fmt.smallest_normal, math.ldexp(1.0, floor)]
    for negative in (False, True):
        limits += _margin(fmt, rounding, negative)
    return limits


def _margin(fmt: Format, rounding: Rounding, negative: bool) -> tuple[float, bool]:
    """Return by how much a number may exceed `max`, and whether exactly that much overflows.

    A number overflows if, rounded as if the exponent were unbounded, it exceeds `max`; the value
    that would come next is one spacing further (IEEE 754-2019, section 7.4).
    """
    spacing = math.ldexp(1.0, fmt.emax - fmt.trailing_bits)
    is_odd = fmt.precision == 1 or bool(fmt.max_code & 1)
    outward = Rounding.TOWARD_NEGATIVE if negative else Rounding.TOWARD_POSITIVE
    match rounding:
        case Rounding.TIES_TO_EVEN:
            return spacing / 2, is_odd
        case Rounding.TIES_TO_AWAY:
            return spacing / 2, True
        case Rounding.TIES_TOWARD_ZERO:
            return spacing / 2, False
        case Rounding.TO_ODD if not is_odd:
            return 0.0, False
        case Rounding.AWAY_FROM_ZERO:
            return 0.0, False
    return (0.0, False) if rounding is outward else (spacing, True)


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """Measurements of named arrays in several formats; a table in a terminal and in Jupyter.

    Attributes
    ----------
    measurements : dict of str to dict of str to Measurement
        By the array's name, then the format's.
    """

    measurements: Mapping[str, Mapping[str, Measurement]]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return all figures as plain data for JSON: by array, by format, by figure."""
        return {
            name: {fmt: measured.to_dict() for fmt, measured in row.items()}
            for name, row in self.measurements.items()
        }

    def to_html(self) -> str:
        """Return a whole page with this table, styled, that refers to nothing outside itself."""
        from lowprec.report.comparison import comparison_page

        return comparison_page(self)

    def __rich__(self) -> RenderableType:
        from lowprec.report.comparison import comparison_table

        return comparison_table(self)

    def __repr__(self) -> str:
        from rich.console import Console

        console = Console(width=100, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get().strip("\n")

    def _repr_html_(self) -> str:
        from lowprec.report.comparison import comparison_fragment

        return comparison_fragment(self)


def compare(
    arrays: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    formats: FormatLike | Iterable[FormatLike] = DEFAULT_FORMATS,
    **how: Any,
) -> Comparison:
    """Measure one array, or several by name, in several formats.

    Parameters
    ----------
    arrays : array_like or mapping of str to array_like
        A single array is called ``"x"``.
    formats : sequence of Format, str or dtype
        The formats, in the order of the table.
    **how
        `rounding`, `overflow` and `rng`, as in `measure`.

    Returns
    -------
    Comparison
        The table of measurements.

    Examples
    --------
    >>> table = compare({"weights": [0.1, -2.5], "grads": [1e-9, 3e-5]}, ["bfloat16", "float16"])
    >>> table.measurements["grads"]["float16"].new_zeros
    1
    >>> table.to_dict()["weights"]["bfloat16"]["overflows"]
    0
    """
    named = arrays if isinstance(arrays, Mapping) else {"x": arrays}
    if isinstance(formats, (Format, str, np.dtype, type)):
        formats = [formats]
    chosen = [get_format(fmt) for fmt in formats]
    for fmt, other in itertools.combinations(chosen, 2):
        if fmt.name == other.name and fmt != other:
            raise ValueError(f"two formats are called {fmt.name!r}; give them different names")
    return Comparison(
        {name: {fmt.name: measure(x, fmt, **how) for fmt in chosen} for name, x in named.items()}
    )
