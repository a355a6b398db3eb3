"""Dask arrays in block formats: lazily, chunk by chunk, with the bits of one array in memory."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.arrays.dask_arrays import map_chunks
from lowprec.arrays.sources import as_array, kernel_dtype
from lowprec.blocks.layouts import layout_of
from lowprec.common.randomness import draw_key
from lowprec.rounding import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.blocks.formats import BlockFormat

Array = np.ndarray[Any, Any]


class Place(NamedTuple):
    """Where a chunk lies in a whole array, and the key that this array's random bits come from."""

    key: int
    start: tuple[int, ...]
    shape: tuple[int, ...]


def check_chunks(x: Any, fmt: BlockFormat, axis: Any, tensor_amax: Any) -> None:
    """Raise unless every chunk of a dask array holds whole blocks.

    Raises ValueError if a block would lie in two chunks, sizes are unknown, or a tensor scale has
        no amax.
    """
    if any(size != size for sizes in x.chunks for size in sizes):
        raise ValueError("the sizes of the chunks are unknown; call x.compute_chunk_sizes() first")
    layout = layout_of(fmt, tuple(map(int, x.shape)), axis)
    cut = {
        i: unit
        for i, (sizes, unit) in enumerate(zip(x.chunks, layout.units, strict=True))
        if any(size % unit for size in sizes[:-1])
    }
    if cut:
        i, unit = next(iter(cut.items()))
        want = {j: -(-max(x.chunks[j]) // u) * u for j, u in cut.items()}
        raise ValueError(
            f"chunks of axis {i} are {x.chunks[i]}, but blocks of {fmt} have {unit} elements "
            f"there, so that some lie in two chunks; use x.rechunk({want})"
        )
    if fmt.tensor_scale and tensor_amax is None:
        raise ValueError(
            f"{fmt} has a scale for the whole tensor, which no chunk knows; pass tensor_amax="
            "float(abs(x).max().compute())"
        )


def round_chunks(
    x: Any,
    fmt: BlockFormat,
    round_placed: Callable[..., Array],
    *,
    rounding: Any,
    rng: Any,
    axis: Any,
    tensor_amax: Any,
) -> Any:
    """Round a dask array lazily, each chunk by `round_placed`."""
    check_chunks(x, fmt, axis, tensor_amax)
    mode = Rounding(rounding)
    key = draw_key(rng) if mode.is_stochastic else 0
    single = kernel_dtype(x.dtype) == np.float32
    result = np.dtype(np.float32 if single else np.float64)
    options = {"fmt": fmt, "mode": mode, "axis": operator.index(axis), "amax": tensor_amax}
    options["round_placed"] = round_placed
    return map_chunks(_round_chunk, x, result, with_place=True, key=key, **options)


def _round_chunk(
    chunk: Array, *, fmt: BlockFormat, mode: Rounding, axis: int, amax: Any, key: int,
    start: Any, shape: Any, round_placed: Callable[..., Array],
) -> Array:  # fmt: skip
    place = Place(key, tuple(start), tuple(shape)) if mode.is_stochastic else None
    return round_placed(as_array(chunk), fmt, mode, axis, amax, place)
