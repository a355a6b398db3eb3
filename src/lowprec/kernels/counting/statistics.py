"""What rounding did to a block of numbers, gathered in one pass.

Four small arrays hold the tally of any number of blocks: counts, extrema, sums and the histogram
of exponents. Sums are compensated (Neumaier), and those of squares are kept in three scales
(Blue), so that no float64 is too large or too small to be counted.

References
----------
Blue (1978), "A portable Fortran program to find the Euclidean norm of a vector"; Neumaier (1974),
"Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen".
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.kernels.compiler import from_dtype, types
from lowprec.kernels.counting.vectors import LANES as LANES
from lowprec.kernels.counting.vectors import tally_vectors
from lowprec.kernels.loops import EXACT_FLOATS, compile_as, kernel, swap_float_state

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]

COUNTS = ("zeros", "new_zeros", "subnormals", "overflows", "nans", "infs", "measured")
EXTREMA = ("max_abs", "min_abs", "max_relative_error", "max_ulp_error")
LOWEST_EXPONENT = -1074  # of the smallest float64
EXPONENTS = 1023 - LOWEST_EXPONENT + 1

SCALE = 600  # tiny numbers are squared times 2**600, huge ones times 2**-600
_TINY, _HUGE = 2.0**-500, 2.0**500
_UP, _DOWN = 2.0**SCALE, 2.0**-SCALE
_SMALLEST_NORMAL = 2.0**-126  # of float32
_LARGEST = 2.0**900  # relative errors beyond are told as this, so that no sum overflows


@kernel
def _plus(total: float, rest: float, term: float) -> tuple[float, float]:
    """Add `term` to the sum `total` + `rest`, `rest` being what rounding `total` has left over."""
    grown = total + term
    kept = grown - total
    return grown, rest + ((total - (grown - kept)) + (term - kept))


@kernel
def _add_square(sums: Array, row: int, magnitude: float, weight: int) -> None:
    """Add the square of a tiny number, scaled up, to `row`, or of a huge one to the next."""
    scale, row = (_UP, row) if magnitude < 1.0 else (_DOWN, row + 1)
    square = (magnitude * scale) * (magnitude * scale) * weight
    sums[row, 0], sums[row, 1] = _plus(sums[row, 0], sums[row, 1], square)


@kernel
def _binade(magnitude: float) -> Any:
    """Return the largest power of two up to a normal float64; 0 for a subnormal one."""
    return np.int64(np.float64(magnitude).view(np.int64) & (2047 << 52)).view(np.float64)


@kernel
def _exponent(magnitude: float) -> Any:
    """Return floor(log2(magnitude)) of a positive finite float64, subnormal ones included."""
    field = np.float64(magnitude).view(np.int64) >> 52
    if field == 0:
        return (np.float64(magnitude * 2.0**64).view(np.int64) >> 52) - (1023 + 64)
    return field - 1023


def _tally(
    values: Array,
    tails: Array | None,
    weights: Array | None,
    rounded: Array,
    limits: Array,
    counts: Array,
    extrema: Array,
    sums: Array,
    exponents: Array,
) -> None:
    """Add one block to the tally, in place.

    `values` are the inputs, plus `tails`, what 64-bit integers have below their float64, unless
    that is None; `weights` says how often each is there, None that each is there once; `rounded`
    is what they became. `limits` holds the format's largest value, its smallest normal one, the
    binade whose spacing numbers below that have, and for either sign by how much the largest value
    may be exceeded and whether exactly that much is an overflow.
    """
    state = swap_float_state(EXACT_FLOATS)
    maximum, smallest_normal, floor = limits[0], limits[1], limits[2]
    zeros = new_zeros = subnormals = overflows = measured = 0
    max_abs, min_abs, max_relative, max_ulps = extrema[0], extrema[1], extrema[2], extrema[3]
    relatives, relatives_rest = sums[0, 0], sums[0, 1]
    signal, signal_rest = sums[1, 0], sums[1, 1]
    noise, noise_rest = sums[2, 0], sums[2, 1]
    for i in range(values.size):
        x, y = np.float64(values[i]), np.float64(rounded[i])
        a, z = abs(x), abs(y)
        times = 1 if weights is None else weights[i]
        if not a < np.inf:
            counts[4 if x != x else 5] += times
            continue
        side = 2 * np.int64(x < 0.0)
        excess = (a - maximum) - limits[3 + side]
        if tails is not None:
            outward = math.copysign(tails[i], x * tails[i])
            excess += outward
        lost = (not z < np.inf) | (excess > 0.0) | ((excess == 0.0) & (limits[4 + side] != 0.0))
        overflows += times * lost
        max_abs = max(max_abs, a)
        if a == 0.0:
            zeros += times
            continue
        min_abs = min(min_abs, a)
        e, binade = _exponent(a), _binade(a)
        if tails is not None and outward < 0.0 and a == binade:  # just below the power of two a
            e, binade = e - 1, binade / 2
        exponents[e - LOWEST_EXPONENT] += times
        if lost:
            continue
        measured += times
        new_zeros += times * (z == 0.0)
        subnormals += times * (z < smallest_normal)
        error = x - y if tails is None else (x - y) + tails[i]
        error = abs(error)
        relative = min(error / a, _LARGEST)
        max_relative = max(max_relative, relative)
        binade = floor if a < smallest_normal else binade
        if binade == 0.0:
            binade = math.ldexp(1.0, e)
        max_ulps = max(max_ulps, error / binade)
        relatives, relatives_rest = _plus(relatives, relatives_rest, times * relative)
        if -500 <= e < 500:
            signal, signal_rest = _plus(signal, signal_rest, times * (a * a))
        else:
            _add_square(sums, 3, a, times)
        if error == 0.0 or _TINY < error < _HUGE:
            noise, noise_rest = _plus(noise, noise_rest, times * (error * error))
        else:
            _add_square(sums, 5, error, times)
    sums[0, 0], sums[0, 1] = relatives, relatives_rest
    sums[1, 0], sums[1, 1] = signal, signal_rest
    sums[2, 0], sums[2, 1] = noise, noise_rest
    extrema[0], extrema[1], extrema[2], extrema[3] = max_abs, min_abs, max_relative, max_ulps
    counts[0] += zeros
    counts[1] += new_zeros
    counts[2] += subnormals - new_zeros
    counts[3] += overflows
    counts[6] += measured
    swap_float_state(state)


@kernel
def _least_bits(limit: float, is_included: bool) -> Any:
    """Return the bits of the least float32 beyond a limit, or the limit's own."""
    nearest = np.float32(limit)
    is_beyond = nearest > limit or (nearest == limit and is_included)
    return np.uint32(np.float32(nearest).view(np.uint32) + np.uint32(not is_beyond))


def _tally_lanes(
    values: Array,
    rounded: Array,
    limits: Array,
    counts: Array,
    extrema: Array,
    sums: Array,
    exponents: Array,
) -> None:
    """Do what `_tally` does with a multiple of `LANES` float32, in vectors.

    Each lane is summed plainly: at most 1,024 terms of a block, so that the sums are good to
    1024 * 2**-53, about 1e-13. Magnitudes are compared as integers, which order them alike.
    """
    state = swap_float_state(EXACT_FLOATS)
    known = np.empty(3, np.uint32)
    known[0] = _least_bits(limits[0] + limits[3], limits[4] != 0.0)
    known[1] = _least_bits(limits[0] + limits[5], limits[6] != 0.0)
    known[2] = _least_bits(limits[1], True)
    found, bits = np.empty(len(COUNTS), np.int64), np.empty((2, LANES), np.uint32)
    lanes, errors = np.empty((3, LANES)), np.empty((2, LANES))
    tally_vectors(values, rounded, known, 1.0 / limits[2], found, bits, lanes, errors)
    for row in range(3):
        for j in range(LANES):
            sums[row, 0], sums[row, 1] = _plus(sums[row, 0], sums[row, 1], lanes[row, j])
    magnitudes = bits.view(np.float32)
    for j in range(LANES):
        extrema[0] = max(extrema[0], np.float64(magnitudes[0, j]))
        extrema[1] = min(extrema[1], np.float64(magnitudes[1, j]))
        extrema[2] = max(extrema[2], errors[0, j])
        extrema[3] = max(extrema[3], errors[1, j])
    found[6] = values.size - found[6]
    for k in range(len(COUNTS)):
        counts[k] += found[k]
    _add_exponents(values, found[0], exponents)
    swap_float_state(state)


@kernel
def _add_exponents(values: Array, zeros: int, exponents: Array) -> None:
    """Add the exponents of float32 numbers, so many of which are zero.

    Four tables in turn: adding to one place again at once would wait for the memory.
    """
    words = values.view(np.uint32)
    tables = np.zeros((4, 256), np.int64)
    for i in range(0, words.size, 4):
        for k in range(4):
            tables[k, words[i + k] >> 23 & 255] += 1
    for field in range(1, 255):
        count = tables[0, field] + tables[1, field] + tables[2, field] + tables[3, field]
        exponents[field - 127 - LOWEST_EXPONENT] += count
    if tables[0, 0] + tables[1, 0] + tables[2, 0] + tables[3, 0] > zeros:
        for value in values:
            if 0.0 < abs(value) < _SMALLEST_NORMAL:
                exponents[_exponent(np.float64(abs(value))) - LOWEST_EXPONENT] += 1


@functools.cache
def make_tally_lanes() -> Callable[..., None]:
    """Return `_tally_lanes`, compiled."""

    def array(dtype: Any, dimensions: int = 1) -> Any:
        return types.Array(dtype, dimensions, "C")

    signature = types.void(
        types.Array(types.float32, 1, "C", readonly=True),
        array(types.float32),
        array(types.float64),
        array(types.int64),
        array(types.float64),
        array(types.float64, 2),
        array(types.int64),
    )
    return compile_as("tally-lanes", _tally_lanes, signature)


@functools.cache
def make_tally(
    values: np.dtype[Any], rounded: np.dtype[Any], has_tails: bool, has_weights: bool
) -> Callable[..., None]:
    """Return `_tally` compiled for arrays of these dtypes, with tails and weights or with None."""

    def array(dtype: Any) -> Any:
        return types.Array(dtype, 1, "C")

    tails = array(types.float64) if has_tails else types.none
    weights = array(types.int64) if has_weights else types.none
    sums = types.Array(types.float64, 2, "C")
    signature = types.void(
        types.Array(from_dtype(values), 1, "C", readonly=True),
        tails,
        weights,
        array(from_dtype(rounded)),
        array(types.float64),
        array(types.int64),
        array(types.float64),
        sums,
        array(types.int64),
    )
    return compile_as(f"tally|{values}|{rounded}|{tails}|{weights}", _tally, signature)
