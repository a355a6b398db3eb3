"""All blocks of an array of float32, to nearest with ties to even: by vectors where a rule serves.

The rest goes by the rule of `quotients`, a block at a time. This loop serves all rules, whose
kernels it calls by their addresses: it takes longer to compile than one of them.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from lowprec.kernels.blocks.loops import find_scale, write_elements
from lowprec.kernels.blocks.vector_facts import LONG, BlockRule
from lowprec.kernels.blocks.vectors import blocks_by_vectors
from lowprec.kernels.compiler import from_dtype, numba, types
from lowprec.kernels.loops import EXACT_FLOATS, call_at, compile_as, swap_float_state

if TYPE_CHECKING:
    from collections.abc import Callable

_NARROW = 16  # columns that are converted at once where there are fewer than a group has


def make_conversion(rule: BlockRule, parallel: bool = False) -> Callable[..., None]:
    """Return ``convert(x, tails, tile, kind, power, g, m, grids, constants, scales, out, …)``.

    ``…`` is ``place, chunks``. `x` and `out` have columns that are neighbours in memory. Scales are
    written with codes alone.
    """
    narrow = min(rule.lanes, _NARROW) if rule.is_column else 0
    how = [
        blocks_by_vectors(rule),
        blocks_by_vectors(rule._replace(lanes=narrow)) if narrow else 0,
        rule.lanes if rule.is_column else 1,
        narrow,
        rule.lanes if rule.rows == LONG else 0,
    ]
    return functools.partial(_make_loop(rule.target, parallel), np.array(how, np.int64))


@functools.cache
def _make_loop(target: str, parallel: bool) -> Callable[..., None]:
    """Return ``convert(how, x, …)`` for results of a dtype.

    `how` is (address, address for narrow groups, blocks of a group, of a narrow one or 0, elements
    of the vectors that a block of one row is cut into or 0).
    """
    as_codes = target != "float32"

    def convert(  # type: ignore[no-untyped-def]
        how, x, tails, tile, kind, power, g, m, grids, constants, scales, out, place, chunks
    ):
        function, other, width, narrow, cut = how[0], how[1], how[2], how[3], how[4]
        down, across = tile[0], tile[1]
        below, beside = -(-x.shape[1] // down), -(-x.shape[2] // across)
        groups, whole = -(-beside // width), x.shape[2] // (across * width)
        total = x.shape[0] * below * groups
        size = out.itemsize
        x_step, out_step = x.strides[1], out.strides[1]
        x_address, out_address = np.int64(x.ctypes.data), np.int64(out.ctypes.data)
        scale_address, fields = np.int64(scales.ctypes.data), np.int64(constants.ctypes.data)
        for k in numba.prange(chunks):
            state = swap_float_state(EXACT_FLOATS)
            done, last = k * total // chunks, (k + 1) * total // chunks
            while done < last:  # the groups of one row of blocks
                o, i, j = done // groups // below, done // groups % below, done % groups
                end = min(groups, j + last - done)
                done += end - j
                top, bottom = i * down, min(i * down + down, x.shape[1])
                rows = across // cut if cut else bottom - top
                row = x_address + o * x.strides[0] + top * x_step
                out_row = out_address + o * out.strides[0] + top * out_step
                scale_row = scale_address + 8 * (o * scales.shape[1] + i) * scales.shape[2]
                while j < end:
                    if j < whole:
                        b, count = j * width, min(end, whole) - j
                        at, out_at = row + 4 * b * across, out_row + size * b * across
                        served = call_at(
                            function,
                            (at, out_at, scale_row + 8 * b, x_step, out_step, rows, count, fields),
                        )
                        j += served
                        if served == count:
                            continue
                    b, stop = j * width, min(j * width + width, beside)
                    while b < stop:
                        left, right = b * across, min(b * across + across, x.shape[2])
                        at, out_at = row + 4 * left, out_row + size * left
                        s_at, served = scale_row + 8 * b, 0
                        if narrow and stop - b >= narrow:
                            count = (stop - b) // narrow
                            served = narrow * call_at(
                                other, (at, out_at, s_at, x_step, out_step, rows, count, fields)
                            )
                        elif cut and j >= whole and (right - left) % cut == 0:
                            count = (right - left) // cut
                            served = call_at(
                                function, (at, out_at, s_at, x_step, out_step, count, 1, fields)
                            )
                        b += served
                        if served:
                            continue
                        s = find_scale(
                            x, tails, o, top, bottom, left, right, kind, power, g, m, grids
                        )
                        if as_codes:
                            scales[o, i, b] = s
                        write_elements(
                            x, tails, o, top, bottom, left, right, s * g, 0, np.uint64(0), place,
                            grids[0], as_codes, out,
                        )  # fmt: skip
                        b += 1
                    j += 1
            swap_float_state(state)

    source = types.Array(types.float32, 3, "A", readonly=True)
    doubles, integers = types.Array(types.float64, 3, "C"), types.Array(types.int64, 1, "C")
    signature = types.void(
        integers, source, doubles, integers, types.int64, integers, types.float64, types.float64,
        types.Array(types.int64, 2, "C"), types.Array(types.uint64, 1, "C"), doubles,
        types.Array(from_dtype(np.dtype(target)), 3, "A"), integers, types.int64,
    )  # fmt: skip
    return compile_as(f"blocks of float32 to {target}", convert, signature, parallel)
