"""What the flight recorder counts of a tensor, in one pass: faster and coarser than `statistics`.

Exponents are counted as float32 stores them, and sums are plain float64: a recorded step costs
little beside the step itself. The tallies of any number of tensors add up in the same arrays.

All tensors of a pass are counted in one call: a call for each costs more than counting a small one.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

import numpy as np

from lowprec.common.recorded_rows import BINS, FIELDS, GAPS, LOWEST_EXPONENT, LOWEST_GAP
from lowprec.kernels.compiler import types
from lowprec.kernels.counting.vectors import ABOVE_LARGEST, LANES, TABLES, add_pair, count_vectors
from lowprec.kernels.loops import EXACT_FLOATS, compile_as, kernel, swap_float_state
from lowprec.kernels.objects import HEADER, doubles_of, floats_of, integers_of, size_of

_COUNT, _ZEROS, _NANS, _INFS = map(FIELDS.index, ("count", "zeros", "nans", "infs"))
_NEW_ZEROS, _SUBNORMALS = FIELDS.index("new_zeros"), FIELDS.index("subnormals")
_OVERFLOWS, _CHANGES, _LOST = map(FIELDS.index, ("overflows", "changes", "lost"))
_TOTAL, _SQUARES, _NOISE = map(FIELDS.index, ("total", "squares", "noise"))
_LAST, _RECORDS, _FIRST = map(FIELDS.index, ("last_step", "records", "first_step"))
_MAX_ABS, _LARGEST, _MIN_ABS = map(FIELDS.index, ("max_abs", "largest", "min_abs"))
_BLOCK = 4096  # elements: they stay in the nearest cache between the loops over them


@kernel
def _count(x, y, normal, found, bins, sums):  # type: ignore[no-untyped-def]
    """Count as `count_vectors` does, all elements; the first columns of `sums` are the sums."""
    count_vectors(x, y, normal, found, bins, sums)
    for k in range(3):
        for j in range(4):
            sums[k, j] = sums[k, j] + sums[k, 4 + j] + sums[k, 8 + j] + sums[k, 12 + j]
    _join(sums)
    xs, ys = x.view(np.uint32), y.view(np.uint32)
    magnitude, infinity = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)
    fours = x.size - x.size % 4
    for i in range(x.size - x.size % LANES, x.size):
        a, b = xs[i] & magnitude, ys[i] & magnitude
        bins[0, np.uint8(xs[i] >> np.uint32(23))] += np.uint32(1)
        found[0] += np.uint32(a == 0)
        found[LANES] += np.uint32(b == 0)
        found[2 * LANES] += np.uint32(b < normal)
        found[3 * LANES] += np.uint32(b >= infinity)
        found[4 * LANES] = max(found[4 * LANES], np.uint32(a + np.uint32(ABOVE_LARGEST)))
        found[5 * LANES] = min(found[5 * LANES], np.uint32(a - np.uint32(1)))
        if i == fours:
            _join(sums)
        if b < infinity:
            u, v, j = np.float64(x[i]), np.float64(y[i]), i % 4 if i < fours else 0
            sums[0, j] += u
            sums[1, j] += u * u
            sums[2, j] += (u - v) * (u - v)
    _join(sums)


@kernel
def _join(sums):  # type: ignore[no-untyped-def]
    """Add the first four columns up into the first."""
    for k in range(3):
        sums[k, 0] = (sums[k, 0] + sums[k, 2]) + (sums[k, 1] + sums[k, 3])
        sums[k, 1:4] = 0


@kernel
def _note(step, numbers):  # type: ignore[no-untyped-def]
    """Note that a row has the numbers of a step."""
    if numbers[_LAST] != step:
        numbers[_RECORDS] += 1
        numbers[_LAST] = step
        numbers[_FIRST] = min(numbers[_FIRST], step)


@kernel
def _add(x, y, smallest_normal, scale, numbers, exponents, bins):  # type: ignore[no-untyped-def]
    """Add x before rounding, y after it, both multiplied by `scale`, to a row; bins are zero."""
    normal = np.array([smallest_normal], np.float32).view(np.uint32)[0]
    found, sums = np.zeros(6 * LANES, np.uint32), np.empty((3, LANES))
    found[4 * LANES : 5 * LANES] = ABOVE_LARGEST
    found[5 * LANES :] = np.uint32(0x7F800000 - 1)
    total = squares = noise = 0.0
    for begin in range(0, x.size, _BLOCK):
        u, v = x[begin : begin + _BLOCK], y[begin : begin + _BLOCK]
        _count(u, v, normal, found, bins, sums)
        total, squares, noise = total + sums[0, 0], squares + sums[1, 0], noise + sums[2, 0]
    zeros, zeros_after, below, not_finite = (
        np.int64(found[:LANES].sum()),
        np.int64(found[LANES : 2 * LANES].sum()),
        np.int64(found[2 * LANES : 3 * LANES].sum()),
        np.int64(found[3 * LANES : 4 * LANES].sum()),
    )
    extrema = found[:2]
    extrema[0] = found[4 * LANES : 5 * LANES].max() - np.uint32(ABOVE_LARGEST)
    extrema[1] = found[5 * LANES :].min() + np.uint32(1)
    shift = np.int64(np.rint(np.log2(scale)))
    for k in range(1, TABLES):
        for e in range(256):
            bins[0, e] += bins[k, e]
    bins[0, 0] -= np.uint32(zeros)
    for e in range(255):
        if bins[0, e]:
            place = e - 127 - shift - LOWEST_EXPONENT
            exponents[min(max(place, 0), BINS - 1)] += np.int64(bins[0, e])
    before = np.int64(bins[0, 255])  # infinities and NaN before rounding
    bins[:] = 0
    nans = 0
    if before:
        nans = np.isnan(x).sum()
    back = 1.0 / scale
    ends = extrema.view(np.float32)
    numbers[_COUNT] += x.size
    numbers[_ZEROS] += zeros
    numbers[_NANS] += nans
    numbers[_INFS] += before - nans
    numbers[_NEW_ZEROS] += zeros_after - zeros
    numbers[_SUBNORMALS] += below - zeros_after
    numbers[_OVERFLOWS] += not_finite - before
    numbers[_TOTAL] += total * back
    numbers[_SQUARES] += squares * back * back
    numbers[_NOISE] += noise * back * back
    numbers[_MAX_ABS] = max(numbers[_MAX_ABS], np.float64(ends[0]) * back)
    numbers[_LARGEST] = max(numbers[_LARGEST], np.float64(ends[0]))
    numbers[_MIN_ABS] = min(numbers[_MIN_ABS], np.float64(ends[1]) * back)
    return before


@kernel
def _count_changes(w, update, new):  # type: ignore[no-untyped-def]
    """Return how many changes are not zero, and how many of them w does not show."""
    changes = lost = np.uint32(0)
    for i in range(w.size):
        changed = update[i] != np.float32(0)
        changes = np.uint32(changes + np.uint32(changed))
        lost = np.uint32(lost + np.uint32(changed & (new[i] == w[i])))
    return changes, lost


@kernel
def _place_gaps(w, update, places):  # type: ignore[no-untyped-def]
    """Write the column of `gaps` that each change counts in, one more for changes by zero."""
    ws, us = w.view(np.int32), update.view(np.int32)
    magnitude, shift = np.int32(0x7FFFFFFF), np.int32(23)
    for i in range(w.size):
        a, b = np.int32(ws[i] & magnitude), np.int32(us[i] & magnitude)
        gap = np.int32(np.int32(a >> shift) - np.int32(b >> shift) - np.int32(LOWEST_GAP))
        gap = np.int32(0) if a == 0 else gap  # a change of zero is never lost
        gap = min(max(gap, np.int32(0)), np.int32(GAPS - 1))
        places[i] = np.int32(GAPS) if b == 0 else gap


@kernel
def _add_changes(w, update, new, numbers, gaps):  # type: ignore[no-untyped-def]
    """Add changes that were wanted, and how many left w as it was, to a row; gaps may be empty."""
    pairs = np.zeros(4 * (GAPS + 1) * 2)  # how many, and their squares
    places = np.empty(min(w.size, _BLOCK), np.int32)
    for begin in range(0, w.size, _BLOCK):
        end = begin + _BLOCK
        old, change = w[begin:end], update[begin:end]
        changes, lost = _count_changes(old, change, new[begin:end])
        numbers[_CHANGES] += changes
        numbers[_LOST] += lost
        if gaps.size == 0:
            continue
        _place_gaps(old, change, places)
        for i in range(0, old.size - old.size % 4, 4):
            for k in range(4):
                size = np.float64(change[i + k])
                add_pair(pairs, np.int64(places[i + k] + k * (GAPS + 1)), size * size)
        for i in range(old.size - old.size % 4, old.size):
            size = np.float64(change[i])
            add_pair(pairs, np.int64(places[i]), size * size)
    if gaps.size == 0:
        return
    for k in range(4):
        for place in range(GAPS):
            gaps[place] += pairs[2 * (k * (GAPS + 1) + place)]
            gaps[GAPS + place] += pairs[2 * (k * (GAPS + 1) + place) + 1]


_COLUMNS = struct.Struct("8q2d")  # of a tensor: as `_tally` reads them, arrays by their `id`


def _tally(tensors, none, step):  # type: ignore[no-untyped-def]
    state = swap_float_state(EXACT_FLOATS)
    bins, reals = np.zeros((TABLES, 256), np.uint32), tensors.view(np.float64)
    not_finite = np.int64(0)
    for k in range(len(tensors)):
        row, numbers_of, exponents_of = tensors[k, 0], tensors[k, 1], tensors[k, 2]
        before, after, old = tensors[k, 3], tensors[k, 4], tensors[k, 5]
        new, gaps_of, size = tensors[k, 6], tensors[k, 7], size_of(tensors[k, 3])
        numbers = doubles_of(numbers_of, row * len(FIELDS), len(FIELDS))
        x = floats_of(before, 0, size)
        _note(step, numbers)
        if after != none:
            y, exponents = floats_of(after, 0, size), integers_of(exponents_of, row * BINS, BINS)
            not_finite += _add(x, y, reals[k, 8], reals[k, 9], numbers, exponents, bins)
        if old != none:
            gaps = (
                doubles_of(numbers_of, 0, 0)
                if gaps_of == none
                else doubles_of(gaps_of, 0, 2 * GAPS)
            )
            w, found = floats_of(old, 0, size), floats_of(new, 0, size)
            _add_changes(w, x, found, numbers, gaps)
    swap_float_state(state)
    return not_finite


@functools.cache
def _loop() -> Any:
    signature = types.int64(types.Array(types.int64, 2, "C"), types.int64, types.int64)
    return compile_as(f"recording|{HEADER}", _tally, signature)


def tally(step: int, tensors: list[tuple[Any, ...]]) -> int:
    """Add tensors of a step to rows: what they were, what came of them, and which changes are lost.

    Return how many numbers were not finite before rounding. A row notes its first and last step,
    and how many they are. Each tensor is a tuple, in which
    arrays of numbers are contiguous float32:

    row, numbers, exponents
        Which row of its track counts it, and the rows: one number for each of `FIELDS`; and how
        many x are nonzero and finite by ``floor(log2(|x|)) - LOWEST_EXPONENT``, where float32's
        subnormal numbers count as -127.
    before, after
        The tensor before and after rounding; None after: only changes count.
    old, new, gaps
        Where `before` is a change that was wanted, what was there, and what came of it, else None;
        and, of shape (2, GAPS), how many changes, and the sum of their squares, by
        ``floor(log2(|old|)) - floor(log2(|before|)) - LOWEST_GAP``; those of zeros count as the
        lowest. None: they are not counted.
    normal, scale
        The smallest normal number of the format, and what before and after were multiplied by:
        exponents and magnitudes are told without it. Exponents are exact where it is a power of 2.
    """
    table = np.empty((len(tensors), _COLUMNS.size // 8), np.int64)
    place, buffer, pack = 0, table.data, _COLUMNS.pack_into
    for row, numbers, exponents, x, y, old, new, gaps, normal, scale in tensors:
        pack(
            buffer, place, row, id(numbers), id(exponents), id(x), id(y), id(old), id(new),
            id(gaps), normal, scale,
        )  # fmt: skip
        place += _COLUMNS.size
    return int(_loop()(table, id(None), step))
