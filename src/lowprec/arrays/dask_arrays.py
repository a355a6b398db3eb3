"""Dask arrays: conversions that stay lazy, and whose bits do not depend on the chunks.

Nothing here imports dask before it is given one of its arrays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]


def is_chunked(x: Any) -> bool:
    """Return whether x is a dask array."""
    kind = type(x)
    return kind.__name__ == "Array" and kind.__module__.partition(".")[0] == "dask"


def map_chunks(
    convert: Callable[..., Array], x: Any, dtype: np.dtype[Any], *, with_place: bool, **options: Any
) -> Any:
    """Return the lazy array of ``convert(chunk, **options)``.

    convert: A function that can be pickled.
    x (dask.array.Array): What to convert.
    dtype: Of the result.
    with_place: Whether `convert` is told ``start`` and ``shape``: the chunk's first index and the
        whole array's shape.
    **options: What else it is told.
    Raises ValueError if the place of chunks matters and is not known.
    """
    import dask.array

    map_blocks: Any = dask.array.map_blocks
    meta = np.empty((0,) * x.ndim, dtype)
    if not with_place:
        return map_blocks(convert, x, dtype=dtype, meta=meta, **options)
    _refuse_unknown_sizes(x)
    return map_blocks(
        _convert_at, x, dtype=dtype, meta=meta, convert=convert, shape=x.shape, **options
    )


def _convert_at(
    chunk: Array, *, convert: Callable[..., Array], block_info: Any = None, **options: Any
) -> Array:
    """Tell `convert` where the chunk begins, which dask knows when it runs."""
    location = block_info[0]["array-location"] if block_info else ()
    return convert(chunk, start=tuple(begin for begin, _ in location), **options)


def _refuse_unknown_sizes(x: Any) -> None:
    if any(math.isnan(size) for sizes in x.chunks for size in sizes):
        raise ValueError(
            "the sizes of the chunks are unknown, and results depend on an element's place in the "
            "whole array; call x.compute_chunk_sizes() first"
        )


def reduce_chunks(
    measure: Callable[..., Any], merge: Callable[[list[Any]], Any], x: Any, **options: Any
) -> Any:
    """Return what computes ``merge([measure(pieces, **options) of each chunk])``.

    measure: Takes a list of (array, place): parts of a chunk and where each lies in the whole
        array.
    merge: Takes the list of what `measure` returned, in the order of the chunks.
    x (dask.array.Array): The whole array.
    **options: What else `measure` is told.
    Raises ValueError if the place of chunks is not known.
    """
    import dask

    _refuse_unknown_sizes(x)
    delayed: Any = dask.delayed
    starts = [np.cumsum([0, *sizes[:-1]]).tolist() for sizes in x.chunks]
    chunks = x.to_delayed()
    parts = [
        delayed(_measure_at)(
            chunks[index],
            measure,
            tuple(start[i] for start, i in zip(starts, index, strict=True)),
            x.shape,
            options,
        )
        for index in np.ndindex(*chunks.shape)
    ]
    return delayed(merge)(parts)


def reduce_whole_chunks(
    measure: Callable[..., Any], merge: Callable[[list[Any]], Any], x: Any, **options: Any
) -> Any:
    """Return what computes ``merge([measure(chunk, **options) of each chunk])``."""
    import dask

    delayed: Any = dask.delayed
    return delayed(merge)([delayed(measure)(part, **options) for part in x.to_delayed().flat])


def _measure_at(
    chunk: Array, measure: Callable[..., Any], start: Any, shape: Any, options: dict[str, Any]
) -> Any:
    flat = np.ascontiguousarray(chunk).reshape(-1)
    cuts = pieces_in_c_order(chunk.shape, start, shape)
    return measure([(flat[first:last], place) for first, last, place in cuts], **options)


def delayed_call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what computes a call some of whose arguments are computed later."""
    import dask

    delayed: Any = dask.delayed
    return delayed(function)(*arguments)


def pieces_in_c_order(
    shape: tuple[int, ...], start: tuple[int, ...], whole: tuple[int, ...]
) -> list[tuple[int, int, int]]:
    """Cut a chunk where its elements stop being neighbours in the whole array.

    shape, start: The chunk's shape, and its first index in the whole array.
    whole: The whole array's shape.
    Returns: Elements ``first:last`` of the chunk, in C order, lie at ``place`` and after in the
        whole.

    Examples
    --------
    >>> pieces_in_c_order((2, 3), (4, 0), (8, 3))
    [(0, 6, 12)]
    >>> pieces_in_c_order((2, 2), (0, 1), (8, 3))
    [(0, 2, 1), (2, 4, 4)]
    """
    axis = len(shape)
    while axis > 0 and shape[axis - 1] == whole[axis - 1]:
        axis -= 1  # a full axis goes on in the next row
    leading = shape[: max(axis - 1, 0)]
    run = math.prod(shape[max(axis - 1, 0) :])
    pieces = []
    for number, index in enumerate(np.ndindex(*leading)):
        place = 0
        for i, (begin, size) in enumerate(zip(start, whole, strict=True)):
            place = place * size + begin + (index[i] if i < len(index) else 0)
        pieces.append((number * run, (number + 1) * run, place))
    return pieces
