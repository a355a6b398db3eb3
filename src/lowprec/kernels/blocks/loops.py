"""Loops over the blocks of an array: scales, elements, and back to values.

An array is seen as (outer, rows, columns), cut into tiles of so many rows and columns, each of
which is a block: one row of columns, one column of rows, or both. Blocks are numbered in C order,
and any number of them in a row can be one thread's work. Scales are float64 numbers here, NaN for
a block that holds NaN or infinity.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.kernels.blocks.elements import (
    AT_ONCE,
    are_usual,
    convert_elements,
    largest_bits,
    squared_errors,
)
from lowprec.kernels.blocks.quotients import (
    exponent,
    fused,
    magnitude_code,
    power_of_two,
    random_word,
    times,
    value_of,
)
from lowprec.kernels.compiler import from_dtype, numba, types
from lowprec.kernels.loops import EXACT_FLOATS, compile_as, kernel, swap_float_state

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]

POWER_OF_TWO, AMAX, FOUR_OVER_SIX = range(3)  #: kinds of rules
UNDECIDED = -1.0  #: in place of a scale: float64 could not tell which of the two has less error

_TRAILING = (1 << 52) - 1


# One block ---------------------------------------------------------------------------------------


@kernel
def _magnitude(bits, itemsize):  # type: ignore[no-untyped-def]
    """Return the float32 or float64 with these bits, infinity in place of NaN."""
    if itemsize == 4:
        return np.float64(np.uint32(min(bits, np.uint64(0xFF << 23))).view(np.float32))
    return np.uint64(min(bits, np.uint64(0x7FF << 52))).view(np.float64)


@kernel
def _largest(x, tails, o, top, bottom, left, right):  # type: ignore[no-untyped-def]
    """Return the largest magnitude of a block as (hi, lo), and whether all of it is finite."""
    hi = lo = 0.0
    whole = left
    if x.strides[2] == x.itemsize and tails.size == 0:
        whole += (right - left) // AT_ONCE * AT_ONCE
    for r in range(top, bottom if whole > left else top):
        address = np.int64(x.ctypes.data) + o * x.strides[0] + r * x.strides[1] + left * x.itemsize
        hi = max(hi, _magnitude(largest_bits(x, address, (whole - left) // AT_ONCE), x.itemsize))
        if not hi < np.inf:
            return 0.0, 0.0, False
    for r in range(top, bottom):
        for c in range(whole, right):
            a = abs(np.float64(x[o, r, c]))
            if not a < np.inf:
                return 0.0, 0.0, False
            if a > hi:
                hi, lo = a, 0.0
                if tails.size:
                    lo = abs(tails[o, r, c])
            elif tails.size and a == hi:
                lo = max(lo, abs(tails[o, r, c]))
    return hi, lo, True


@kernel
def _power_scale(hi, lo, rule):  # type: ignore[no-untyped-def]
    """Return the power of two of a rule: its exponent grows from a threshold on."""
    lowest, highest, emax, threshold = rule[0], rule[1], rule[2], rule[3]
    if hi == 0.0:
        return power_of_two(lowest) if rule[4] == 0 else 0.0
    e = exponent(hi)
    if e < -900:
        hi *= 2.0**150
    trailing = np.float64(hi).view(np.int64) & _TRAILING
    grows = 2 * trailing + np.int64(lo != 0.0) >= threshold
    return power_of_two(min(max(e - emax + np.int64(grows), lowest), highest))


@kernel
def _amax_scale(hi, lo, divisor, grid):  # type: ignore[no-untyped-def]
    """Return the scale amax/divisor, rounded once to nearest; zero only for a block of zeros."""
    if hi == 0.0:
        return 0.0
    code = magnitude_code(hi, lo, divisor, grid, 0, False, 0)
    if code == 0:
        code = np.int64(1) << grid[0] if grid[3] else np.int64(1)
    return value_of(code, grid)


@kernel
def _add(total, rest, term):  # type: ignore[no-untyped-def]
    """Add a term to total + rest; also return what is left over, 0 while the sum is exact."""
    grown = total + term
    part = grown - total
    error = (total - (grown - part)) + (term - part)
    small = rest + error
    part = small - rest
    return grown, small, (rest - (small - part)) + (error - part)


@kernel
def _squared_errors(x, o, top, bottom, left, right, d, grid):  # type: ignore[no-untyped-def]
    """Return the sum of squared errors as two floats, and whether that is exact."""
    total = rest = 0.0
    is_exact = True
    for r in range(top, bottom):
        for c in range(left, right):
            a = abs(np.float64(x[o, r, c]))
            q = value_of(magnitude_code(a, 0.0, d, grid, 0, False, 0), grid)
            error = times(q, d) - a
            # exact: the same difference from the other side leaves nothing
            part = error + a
            is_exact = is_exact and part == q * d and part - error == a
            is_exact = is_exact and (error == 0.0 or 2.0**-400 < abs(error) < 2.0**400)
            square = error * error
            tail = fused(error, error, -square)
            for term in (square, tail):
                total, rest, left_over = _add(total, rest, term)
                is_exact = is_exact and left_over == 0.0
    return total, rest, is_exact


@kernel
def _four_over_six(x, o, top, bottom, left, right, hi, g, grids):  # type: ignore[no-untyped-def]
    """Return the scale for 6 or for 4, whichever has less error, or that float64 cannot tell."""
    six, four = _amax_scale(hi, 0.0, 6.0 * g, grids[1]), _amax_scale(hi, 0.0, 4.0 * g, grids[1])
    if six == four:
        return six
    is_row = x.strides[2] == x.itemsize and (right - left) % AT_ONCE == 0
    if is_row and are_usual(six * g, grids[0]) and are_usual(four * g, grids[0]):
        for_six = for_four = 0.0
        of_grid, largest = (grids[0, 0], grids[0, 1]), value_of(grids[0, 2], grids[0])
        for r in range(top, bottom):
            at = np.int64(x.ctypes.data) + o * x.strides[0] + r * x.strides[1] + left * x.itemsize
            vectors = (right - left) // AT_ONCE
            for_six += squared_errors(x, at, vectors, six * g, of_grid, largest)
            for_four += squared_errors(x, at, vectors, four * g, of_grid, largest)
        both, difference = for_four + for_six, for_four - for_six
        if 2.0**-600 < both < 2.0**900 and abs(difference) > 2.0**-30 * both:
            return four if difference < 0.0 else six
    for_six, rest_six, six_is_exact = _squared_errors(
        x, o, top, bottom, left, right, six * g, grids[0]
    )
    for_four, rest_four, four_is_exact = _squared_errors(
        x, o, top, bottom, left, right, four * g, grids[0]
    )
    both, difference = for_four + for_six, (for_four - for_six) + (rest_four - rest_six)
    is_exact = six_is_exact and four_is_exact
    if is_exact and for_four == for_six and rest_four == rest_six:
        return six
    if (
        2.0**-600 < both < 2.0**900
        and abs(difference) > (2.0**-80 if is_exact else 2.0**-30) * both
    ):
        return four if difference < 0.0 else six
    return UNDECIDED


@kernel
def find_scale(x, tails, o, top, bottom, left, right, kind, rule, g, m, grids):  # type: ignore[no-untyped-def]
    """Return the scale of a block: NaN if it is not finite, or that float64 cannot tell it."""
    hi, lo, is_finite = _largest(x, tails, o, top, bottom, left, right)
    if not is_finite:
        return np.nan
    if kind == POWER_OF_TWO:
        return _power_scale(hi, lo, rule)
    if kind == FOUR_OVER_SIX:
        if tails.size:
            return UNDECIDED if hi > 0.0 else 0.0
        return _four_over_six(x, o, top, bottom, left, right, hi, g, grids)
    return _amax_scale(hi, lo, m * g, grids[1])


@kernel
def write_elements(  # type: ignore[no-untyped-def]
    x, tails, o, top, bottom, left, right, d, mode, key, place, grid, as_codes, out
):
    """Write the elements of a block, as codes or as values times the divisor d."""
    shift, style = grid[4], grid[5]
    random = np.int64(0)
    for r in range(top, bottom):
        for c in range(left, right):
            if d != d:
                out[o, r, c] = 0 if as_codes else np.nan
                continue
            u = np.float64(x[o, r, c])
            bits = u.view(np.int64)
            negative = bits < 0
            if mode >= 8:
                random = random_word(place[0] + o * place[1] + r * place[2] + c * place[3], key)
            code = np.int64(0)
            if d != 0.0:
                lo = abs(tails[o, r, c]) if tails.size else 0.0
                code = magnitude_code(abs(u), lo, d, grid, mode, negative, random)
            has_sign = style == 0 or (style == 1 and code != 0)
            if as_codes:
                if style == 2:
                    out[o, r, c] = -code if negative else code
                else:
                    out[o, r, c] = code | np.int64(negative and has_sign) << shift
            else:
                q = value_of(code, grid)
                value = times(q, d) if out.itemsize == 4 else q * d
                out[o, r, c] = -value if negative and (has_sign or q != 0.0) else value


# All blocks --------------------------------------------------------------------------------------

_DOUBLES = types.Array(types.float64, 3, "C")
_INTEGERS = types.Array(types.int64, 1, "C")
_GRIDS = types.Array(types.int64, 2, "C")


def _source(name: str) -> Any:
    return types.Array(from_dtype(np.dtype(name)), 3, "A", readonly=True)


def _target(name: str) -> Any:
    return types.Array(from_dtype(np.dtype(name)), 3, "A")


@kernel
def _bounds(b, tile, x, scales):  # type: ignore[no-untyped-def]
    """Return where block b lies: outer index, rows from and to, columns from and to."""
    columns = scales.shape[2]
    row, j = b // columns, b % columns
    o, i = row // scales.shape[1], row % scales.shape[1]
    top, left = i * tile[0], j * tile[1]
    bottom, right = min(top + tile[0], x.shape[1]), min(left + tile[1], x.shape[2])
    return o, i, j, top, bottom, left, right


@functools.cache
def make_scales(source: str, parallel: bool = False) -> Callable[..., None]:
    """Return ``find(x, tails, tile, kind, rule, g, m, grids, scales, threads)``.

    `tile` is the rows and columns of a block, `m` the elements' largest value, `grids` those of
    elements and scale, `rule` (lowest, highest, emax, threshold, has_zero) of a power of two.
    """

    def find(x, tails, tile, kind, rule, g, m, grids, scales, threads):  # type: ignore[no-untyped-def]
        for k in numba.prange(threads):
            state = swap_float_state(EXACT_FLOATS)
            for b in range(k * scales.size // threads, (k + 1) * scales.size // threads):
                o, i, j, top, bottom, left, right = _bounds(b, tile, x, scales)
                scales[o, i, j] = find_scale(
                    x, tails, o, top, bottom, left, right, kind, rule, g, m, grids
                )
            swap_float_state(state)

    signature = types.void(
        _source(source), _DOUBLES, _INTEGERS, types.int64, _INTEGERS, types.float64,
        types.float64, _GRIDS, _DOUBLES, types.int64,
    )  # fmt: skip
    return compile_as(f"block scales of {source}", find, signature, parallel)


@functools.cache
def make_elements(source: str, target: str, parallel: bool = False) -> Callable[..., None]:
    """Return ``write(x, tails, tile, g, grids, scales, mode, least, key, place, out, threads)``.

    `place` says where an element is in the caller's array: the index of the first, and by how much
    it grows along each axis. `least` is what `least_fractions` returns of the mode.
    """
    as_codes, at_once = np.dtype(target).kind != "f", AT_ONCE

    def write(x, tails, tile, g, grids, scales, mode, least, key, place, out, threads):  # type: ignore[no-untyped-def]
        grid = grids[0]
        of_grid = (grid[0], grid[1], grid[2], grid[4], grid[5])
        table = (least[0], least[1], least[2], least[3])
        is_row = x.strides[2] == x.itemsize and out.strides[2] == out.itemsize and tails.size == 0
        x_address, out_address = np.int64(x.ctypes.data), np.int64(out.ctypes.data)
        for k in numba.prange(threads):
            state = swap_float_state(EXACT_FLOATS)
            for b in range(k * scales.size // threads, (k + 1) * scales.size // threads):
                o, i, j, top, bottom, left, right = _bounds(b, tile, x, scales)
                d = scales[o, i, j] * g
                whole = left
                if is_row and are_usual(d, grid):
                    whole += (right - left) // at_once * at_once
                for r in range(top, bottom if whole > left else top):
                    row = x_address + o * x.strides[0] + r * x.strides[1]
                    out_row = out_address + o * out.strides[0] + r * out.strides[1]
                    index = place[0] + o * place[1] + r * place[2]
                    for c in range(left, whole, at_once):
                        if not convert_elements(
                            row + c * x.itemsize, out_row + c * out.itemsize, d, of_grid, table,
                            index + c * place[3], place[3], key, mode >= 8, source, target,
                        ):  # fmt: skip
                            write_elements(
                                x, tails, o, r, r + 1, c, c + at_once, d, mode, key, place, grid,
                                as_codes, out,
                            )  # fmt: skip
                if whole < right:
                    write_elements(
                        x, tails, o, top, bottom, whole, right, d, mode, key, place, grid,
                        as_codes, out,
                    )  # fmt: skip
            swap_float_state(state)

    signature = types.void(
        _source(source), _DOUBLES, _INTEGERS, types.float64, _GRIDS, _DOUBLES, types.int64,
        _INTEGERS, types.uint64, _INTEGERS, _target(target), types.int64,
    )  # fmt: skip
    return compile_as(f"block elements of {source} to {target}", write, signature, parallel)


@functools.cache
def make_decoding(source: str, target: str) -> Callable[..., None]:
    """Return ``decode(codes, tile, g, grid, scales, out)``."""

    def decode(codes, tile, g, grid, scales, out):  # type: ignore[no-untyped-def]
        state = swap_float_state(EXACT_FLOATS)
        shift, style = grid[4], grid[5]
        for b in range(scales.size):
            o, i, j, top, bottom, left, right = _bounds(b, tile, codes, scales)
            d = scales[o, i, j] * g
            for r in range(top, bottom):
                for c in range(left, right):
                    code = np.int64(codes[o, r, c])
                    if style == 2:
                        negative, magnitude = code < 0, abs(code)
                    else:
                        negative = code >> shift != 0
                        magnitude = code & ((np.int64(1) << shift) - 1)
                    if magnitude == grid[6] and magnitude != 0:
                        value = d * np.inf
                    elif magnitude > grid[2] or (style == 1 and negative and magnitude == 0):
                        value = np.nan
                    else:
                        q = value_of(magnitude, grid)
                        value = times(q, d) if out.itemsize == 4 and d == d else q * d
                    value = abs(value)
                    out[o, r, c] = -value if negative and value == value else value
        swap_float_state(state)

    signature = types.void(
        _source(source), _INTEGERS, types.float64, _INTEGERS, _DOUBLES, _target(target)
    )
    return compile_as(f"block decoding of {source} to {target}", decode, signature)


@functools.cache
def make_amax(source: str) -> Callable[..., float]:
    """Return ``amax(x)``: the largest finite magnitude of a flat array, 0 where there is none."""
    float_type, word = (np.float32, np.uint32) if source == "float32" else (np.float64, np.uint64)
    infinity = np.array(np.inf, float_type).view(word)[()]
    magnitude = word(~(word(1) << word(8 * infinity.itemsize - 1)))
    zero = word(0)

    def amax(x):  # type: ignore[no-untyped-def]
        bits = x.view(word)
        largest = zero
        for i in range(x.size):
            a = bits[i] & magnitude
            largest = max(largest, a if a < infinity else zero)
        found = np.empty(1, word)
        found[0] = largest
        return np.float64(found.view(float_type)[0])

    flat = types.Array(from_dtype(np.dtype(source)), 1, "C", readonly=True)
    return compile_as(f"largest finite magnitude of {source}", amax, types.float64(flat))
