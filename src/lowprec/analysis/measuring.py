"""What a format does to data: how much is lost, how much is left, and where the data lie.

Arrays and tensors of files are rounded and tallied block by block, so that data of any size and
layout are measured in the memory of a few blocks.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from lowprec.analysis.columns import ByColumn, columns_of, has_columns
from lowprec.analysis.counting import draw_keys, measure_blocks, measure_pieces, merge_measurements
from lowprec.arrays.dask_arrays import is_chunked, reduce_chunks, reduce_whole_chunks
from lowprec.arrays.sources import InBlocks, as_array
from lowprec.blocks.formats import AnyFormat, AnyFormatLike, BlockFormat, get_format
from lowprec.common.processor_state import in_exact_state
from lowprec.rounding import Overflow, OverflowLike, Rounding, RoundingLike, checked_overflow

if TYPE_CHECKING:
    import numpy.typing as npt

    from lowprec.analysis.measurement import Measurement
    from lowprec.formats import Format


DEFAULT_FORMATS: tuple[AnyFormatLike, ...] = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")


def as_formats(formats: AnyFormatLike | Iterable[AnyFormatLike]) -> list[AnyFormat]:
    """Return several formats, or a single format, as a list."""
    if isinstance(formats, Iterable) and not isinstance(formats, str):
        return [get_format(fmt) for fmt in formats]
    return [get_format(formats)]


@overload
def measure(
    x: npt.ArrayLike | InBlocks,
    fmt: AnyFormatLike,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    rng: Any = None,
    axis: int = -1,
    tensor_amax: Any = None,
) -> Measurement: ...


@overload
def measure(
    x: Mapping[str, Any],
    fmt: AnyFormatLike,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    rng: Any = None,
    axis: int = -1,
    tensor_amax: Any = None,
) -> dict[str, Measurement]: ...


@in_exact_state
def measure(
    x: npt.ArrayLike | InBlocks | Mapping[str, Any],
    fmt: AnyFormatLike,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    rng: Any = None,
    axis: int = -1,
    tensor_amax: Any = None,
) -> Measurement | dict[str, Measurement]:
    """Round an array into a format and say what happened to it; the rounded values are not kept.

    Parameters
    ----------
    x : array_like, lowprec.tensors.Tensor or dask.array.Array
        Real numbers of any dtype that `round_to` takes, of any shape and layout. Each is rounded
        once, from its exact value, and errors are taken against that exact value. A mapping of
        arrays by name or a data frame is measured by column.
    fmt : Format, str or dtype
        The format.
    rounding, overflow : str
        As in `round_to`. A stochastic mode in which an overflow is clamped shows it only from
        twice the last spacing beyond the largest value on.
    rng : None, int, SeedSequence or Generator
        Source of the random bits of stochastic modes.
    axis : int
        Of block formats: the axis along which elements share a scale. A tensor of a file is read
        whole then.
    tensor_amax : float, optional
        Of block formats with a tensor scale: the tensor's largest magnitude. A dask array needs it.

    Returns
    -------
    Measurement
        Counts and extrema are exact, means good to 1e-12. Of a dask array, a `dask.delayed` object
        that computes it; of a mapping or a data frame, a dict of them by name.

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
    how = (rounding, overflow, rng, axis, tensor_amax)
    if type(x) is not np.ndarray and has_columns(x):
        columns = columns_of(x)
        return ByColumn({name: measure_each(c, [get_format(fmt)], *how)[0]
                         for name, c in columns.items()})  # fmt: skip
    return measure_each(x, [get_format(fmt)], *how)[0]


def measure_each(
    x: Any,
    formats: list[AnyFormat],
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    rng: Any = None,
    axis: int = -1,
    tensor_amax: Any = None,
) -> list[Measurement]:
    """Measure one array in several formats, read once, and once more for block formats."""
    mode, policy = Rounding(rounding), Overflow(overflow)
    single = [fmt for fmt in formats if not isinstance(fmt, BlockFormat)]
    for one in single:
        checked_overflow(policy, one)
    alone: list[Any] = []
    if single and is_chunked(x):
        alone = _measure_chunks(x, single, mode, policy, rng)
    elif single:
        # the look at a type is quicker than the one at what it can do
        in_blocks = type(x) is not np.ndarray and isinstance(x, InBlocks)
        blocks = x.__lowprec_blocks__() if in_blocks else [as_array(x)]
        alone = measure_blocks(blocks, single, mode, policy, rng)
    if len(single) == len(formats):
        return alone
    whole, rest = x if is_chunked(x) else _whole(x), iter(alone)
    return [
        _measure_block_format(whole, fmt, mode, policy, rng, axis, tensor_amax)
        if isinstance(fmt, BlockFormat)
        else next(rest)
        for fmt in formats
    ]


def _whole(x: Any) -> Any:
    """Return an array of at least one axis, or the tensor of a file that has one."""
    from lowprec.analysis.block_measuring import in_memory

    if isinstance(x, InBlocks) and getattr(x, "shape", None):
        return x
    array = in_memory(x) if isinstance(x, InBlocks) else as_array(x)
    return array.reshape(1) if array.ndim == 0 else array


def _measure_block_format(
    x: Any,
    fmt: BlockFormat,
    rounding: Rounding,
    overflow: Overflow,
    rng: Any,
    axis: int,
    tensor_amax: Any,
) -> Any:
    from lowprec.analysis.block_measuring import measure_array
    from lowprec.blocks.chunks import check_chunks

    if overflow is not Overflow.IEEE:
        raise ValueError(
            f"overflow is {overflow.value!r}, but elements of a block format such as {fmt} always "
            "saturate; leave it away"
        )
    amax = tensor_amax if fmt.tensor_scale else None
    if not is_chunked(x):
        return measure_array(x, fmt, rounding, rng, axis, amax)
    check_chunks(x, fmt, axis, amax)
    if rounding.is_stochastic:
        raise ValueError(
            f"{rounding.value!r} rounding of a dask array is not measured in a block format; use a "
            "deterministic mode, or x.compute()"
        )
    how = {"fmt": fmt, "rounding": rounding, "axis": axis, "amax": amax}
    return reduce_whole_chunks(_measure_whole_chunk, _merged, x, **how)


def _measure_whole_chunk(
    chunk: Any, *, fmt: BlockFormat, rounding: Rounding, axis: int, amax: Any
) -> Measurement:
    from lowprec.analysis.block_measuring import measure_array

    return measure_array(as_array(chunk), fmt, rounding, None, axis, amax)


def _merged(parts: list[Measurement]) -> Measurement:
    return functools.reduce(operator.add, parts)


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
