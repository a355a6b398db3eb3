"""What a format does to data: how much is lost, how much is left, and where the data lie.

Arrays and tensors of files are rounded and tallied block by block, so that data of any size and
layout are measured in the memory of a few blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lowprec.analysis.counting import draw_keys, measure_blocks, measure_pieces, merge_measurements
from lowprec.arrays.dask_arrays import is_chunked, reduce_chunks
from lowprec.arrays.sources import InBlocks, as_array
from lowprec.common.processor_state import in_exact_state
from lowprec.formats import Format, FormatLike, checked_overflow, get_format
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    import numpy.typing as npt

    from lowprec.analysis.measurement import Measurement


DEFAULT_FORMATS: tuple[FormatLike, ...] = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")


def as_formats(formats: FormatLike | Iterable[FormatLike]) -> list[Format]:
    """Return several formats, or the one that is asked for alone."""
    if isinstance(formats, Iterable) and not isinstance(formats, str):
        return [get_format(fmt) for fmt in formats]
    return [get_format(formats)]


@in_exact_state
def measure(
    x: npt.ArrayLike | InBlocks,
    fmt: FormatLike,
    *,
    rounding: Rounding | str = "ties_to_even",
    overflow: Overflow | str = "ieee",
    rng: Any = None,
) -> Measurement:
    """Round an array into a format and say what happened to it; the rounded values are not kept.

    Parameters
    ----------
    x : array_like, lowprec.tensors.Tensor or dask.array.Array
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
        Counts and extrema are exact, means good to 1e-12. Of a dask array, a `dask.delayed` object
        that computes it.

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
    return measure_each(x, [get_format(fmt)], rounding, overflow, rng)[0]


def measure_each(
    x: npt.ArrayLike | InBlocks,
    formats: list[Format],
    rounding: Rounding | str = "ties_to_even",
    overflow: Overflow | str = "ieee",
    rng: Any = None,
) -> list[Measurement]:
    """Measure one array in several formats, read once."""
    rounding, overflow = Rounding(rounding), Overflow(overflow)
    for fmt in formats:
        checked_overflow(overflow, fmt)
    if is_chunked(x):
        return _measure_chunks(x, formats, rounding, overflow, rng)
    blocks = x.__lowprec_blocks__() if isinstance(x, InBlocks) else [as_array(x)]
    return measure_blocks(blocks, formats, rounding, overflow, rng)


def _measure_chunks(
    x: Any, formats: list[Format], rounding: Rounding, overflow: Overflow, rng: Any
) -> list[Any]:
    """Return what computes the measurements of a dask array, chunk by chunk, and merges them."""
    how = {"formats": formats, "rounding": rounding, "overflow": overflow}
    keys = draw_keys(formats, rounding, rng)
    merged = reduce_chunks(_measure_chunk, merge_measurements, x, **how, keys=keys)
    return [merged[i] for i in range(len(formats))]


def _measure_chunk(pieces: Any, **how: Any) -> list[Measurement]:
    return measure_pieces(pieces, **how)
