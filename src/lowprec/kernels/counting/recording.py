"""What the flight recorder counts of a tensor, in one pass: faster and coarser than `statistics`.

Exponents are counted as float32 stores them, and sums are plain float64: a recorded step costs
little beside the step itself. The tallies of any number of tensors add up in the same arrays.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from lowprec.common.recorded_rows import BINS, FIELDS, GAPS, LOWEST_EXPONENT, LOWEST_GAP
from lowprec.kernels.compiler import types
from lowprec.kernels.loops import EXACT_FLOATS, compile_as, kernel, swap_float_state

_COUNT, _ZEROS, _NANS, _INFS = map(FIELDS.index, ("count", "zeros", "nans", "infs"))
_NEW_ZEROS, _SUBNORMALS = FIELDS.index("new_zeros"), FIELDS.index("subnormals")
_OVERFLOWS, _CHANGES, _LOST = map(FIELDS.index, ("overflows", "changes", "lost"))
_TOTAL, _SQUARES, _NOISE = map(FIELDS.index, ("total", "squares", "noise"))
_LAST, _RECORDS, _FIRST = map(FIELDS.index, ("last_step", "records", "first_step"))
_MAX_ABS, _LARGEST, _MIN_ABS = map(FIELDS.index, ("max_abs", "largest", "min_abs"))
_BLOCK = 4096  # elements: they stay in the nearest cache between the loops over them

_floats = types.Array(types.float32, 1, "C", readonly=True)
_doubles = types.Array(types.float64, 1, "C")
_counts = types.Array(types.int64, 1, "C")
_gaps = types.Array(types.float64, 2, "C")

# Sums may be regrouped, so that they fill vectors; NaN and infinities stay what they are.
_summing = functools.partial(kernel, fastmath={"reassoc"})


@_summing
def _sums(x, y):  # type: ignore[no-untyped-def]
    """Return Σx, Σx² and Σ(x - y)² over what is finite after rounding."""
    ys = y.view(np.uint32)
    magnitude, infinity = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)
    total = squares = noise = 0.0
    for i in range(x.size):
        kept = (ys[i] & magnitude) < infinity
        u = np.float64(x[i]) if kept else 0.0
        v = np.float64(y[i]) if kept else 0.0
        total += u
        squares += u * u
        noise += (u - v) * (u - v)
    return total, squares, noise


@kernel
def _count_exponents(x, bins):  # type: ignore[no-untyped-def]
    """Add to `bins` by exponent; neighbours go to different rows: none waits for one."""
    xs, whole = x.view(np.uint32), x.size - x.size % 4
    for i in range(0, whole, 4):
        for k in range(4):
            bins[k, np.uint8(xs[i + k] >> np.uint32(23))] += 1
    for i in range(whole, x.size):
        bins[0, np.uint8(xs[i] >> np.uint32(23))] += 1


@kernel
def _count(x, y, normal, counts, extrema):  # type: ignore[no-untyped-def]
    """Count zeros before and after rounding, subnormal numbers and what is no longer finite."""
    xs, ys = x.view(np.uint32), y.view(np.uint32)
    magnitude, infinity = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)
    zeros = new_zeros = subnormals = not_finite = np.uint32(0)
    largest, smallest = extrema[0], extrema[1]
    for i in range(x.size):
        a, b = xs[i] & magnitude, ys[i] & magnitude
        zeros = np.uint32(zeros + np.uint32(a == 0))  # cast, or sums widen to 64 bits
        new_zeros = np.uint32(new_zeros + np.uint32(b == 0))
        subnormals = np.uint32(subnormals + np.uint32(b < normal))
        not_finite = np.uint32(not_finite + np.uint32(b >= infinity))
        largest = max(largest, a if a < infinity else np.uint32(0))
        smallest = min(smallest, a if a != 0 else infinity)
    counts[0] += np.int64(zeros)
    counts[1] += np.int64(new_zeros) - np.int64(zeros)
    counts[2] += np.int64(subnormals) - np.int64(new_zeros)
    counts[3] += np.int64(not_finite)
    extrema[0], extrema[1] = largest, smallest


@kernel
def _note(step, numbers):  # type: ignore[no-untyped-def]
    """Note that a row has the numbers of a step."""
    if numbers[_LAST] != step:
        numbers[_RECORDS] += 1
        numbers[_LAST] = step
        numbers[_FIRST] = min(numbers[_FIRST], step)


@kernel
def _add(x, y, smallest_normal, scale, numbers, exponents):  # type: ignore[no-untyped-def]
    """Add x before rounding, y after it, both multiplied by `scale`, to a row."""
    normal = np.array([smallest_normal], np.float32).view(np.uint32)[0]
    bins = np.zeros((4, 256), np.int64)
    counts = np.zeros(4, np.int64)
    extrema = np.array([0, 0x7F800000], np.uint32)
    total = squares = noise = 0.0
    for begin in range(0, x.size, _BLOCK):
        u, v = x[begin : begin + _BLOCK], y[begin : begin + _BLOCK]
        _count_exponents(u, bins)
        _count(u, v, normal, counts, extrema)
        sums = _sums(u, v)
        total, squares, noise = total + sums[0], squares + sums[1], noise + sums[2]
    shift = np.int64(np.rint(np.log2(scale)))
    for k in range(1, 4):
        for e in range(256):
            bins[0, e] += bins[k, e]
    bins[0, 0] -= counts[0]
    for e in range(255):
        if bins[0, e]:
            place = e - 127 - shift - LOWEST_EXPONENT
            exponents[min(max(place, 0), BINS - 1)] += bins[0, e]
    before = bins[0, 255]  # infinities and NaN before rounding
    nans = 0
    if before:
        nans = np.isnan(x).sum()
    back = 1.0 / scale
    found = extrema.view(np.float32)
    numbers[_COUNT] += x.size
    numbers[_ZEROS] += counts[0]
    numbers[_NANS] += nans
    numbers[_INFS] += before - nans
    numbers[_NEW_ZEROS] += counts[1]
    numbers[_SUBNORMALS] += counts[2]
    numbers[_OVERFLOWS] += counts[3] - before
    numbers[_TOTAL] += total * back
    numbers[_SQUARES] += squares * back * back
    numbers[_NOISE] += noise * back * back
    numbers[_MAX_ABS] = max(numbers[_MAX_ABS], np.float64(found[0]) * back)
    numbers[_LARGEST] = max(numbers[_LARGEST], np.float64(found[0]))
    numbers[_MIN_ABS] = min(numbers[_MIN_ABS], np.float64(found[1]) * back)


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
    """Add changes that were wanted, and how many left w as it was, to a row."""
    bins, energies = np.zeros((4, GAPS + 1), np.int64), np.zeros((4, GAPS + 1))
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
                bins[k, places[i + k]] += 1
                energies[k, places[i + k]] += np.float64(change[i + k]) * np.float64(change[i + k])
        for i in range(old.size - old.size % 4, old.size):
            bins[0, places[i]] += 1
            energies[0, places[i]] += np.float64(change[i]) * np.float64(change[i])
    if gaps.size == 0:
        return
    for k in range(4):
        for place in range(GAPS):
            gaps[0, place] += bins[k, place]
            gaps[1, place] += energies[k, place]


def _tally(x, y, smallest_normal, scale, step, numbers, exponents):  # type: ignore[no-untyped-def]
    state = swap_float_state(EXACT_FLOATS)
    _note(step, numbers)
    _add(x, y, smallest_normal, scale, numbers, exponents)
    swap_float_state(state)


def _tally_changes(w, update, new, step, numbers, gaps):  # type: ignore[no-untyped-def]
    state = swap_float_state(EXACT_FLOATS)
    _note(step, numbers)
    _add_changes(w, update, new, numbers, gaps)
    swap_float_state(state)


def _tally_update(w, update, new, smallest_normal, step, numbers, exponents, gaps):  # type: ignore[no-untyped-def]
    state = swap_float_state(EXACT_FLOATS)
    _note(step, numbers)
    _add(update, update, smallest_normal, 1.0, numbers, exponents)
    _add_changes(w, update, new, numbers, gaps)
    swap_float_state(state)


@functools.cache
def tally() -> Any:
    """Return the loop that adds a float32 tensor to a row: what it was, and what came of it.

    Its arguments, in order:

    x, y : contiguous rows of float32, of one length
        Before and after rounding.
    smallest_normal : float
        The format's.
    scale : float
        What both were multiplied by; exponents and magnitudes are told without it. Exponents are
        exact where it is a power of two.
    step : int
        Which step; the row notes its first and last, and how many they are.
    numbers : array of float64
        One for each of `FIELDS`.
    exponents : array of int64
        Nonzero finite x by ``floor(log2(|x|)) - LOWEST_EXPONENT``; float32's subnormal numbers
        count as -127.
    """
    scalars = types.float64, types.float64, types.int64
    signature = types.void(_floats, _floats, *scalars, _doubles, _counts)
    return compile_as("recording", _tally, signature)


@functools.cache
def tally_changes() -> Any:
    """Return the loop that adds the changes that were wanted to a row, and how many left w alone.

    Its arguments, in order:

    w, update, new : contiguous rows of float32, of one length
        What was there, what was to be added, and what came of it.
    step : int
        Which step.
    numbers : array of float64
        One for each of `FIELDS`.
    gaps : array of float64, shape (2, GAPS)
        How many changes, and the sum of their squares, by ``floor(log2(|w|)) -
        floor(log2(|update|)) - LOWEST_GAP``; those of zeros count as the lowest. Of shape (2, 0):
        they are not counted.
    """
    signature = types.void(_floats, _floats, _floats, types.int64, _doubles, _gaps)
    return compile_as("changes", _tally_changes, signature)


@functools.cache
def tally_update() -> Any:
    """Return the loop that does both with an update that is not rounded itself.

    Its arguments are w, update, new, smallest_normal, step, numbers, exponents and gaps.
    """
    rows = _doubles, _counts, _gaps
    signature = types.void(_floats, _floats, _floats, types.float64, types.int64, *rows)
    return compile_as("recorded update", _tally_update, signature)
