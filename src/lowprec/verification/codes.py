"""Codes and the floats that they stand for, by integers, and words for both."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.kernels.oracle.integers import code_fields

if TYPE_CHECKING:
    from lowprec.formats import Format

Array = np.ndarray[Any, Any]

CODES = np.uint16  # of every format here, right-aligned
_NAN, _INFINITY = 0x7FC00000, 0x7F800000  # float32


@functools.cache
def result_bits(fmt: Format) -> Array:
    """Return the bits of the float32 that each code of a format stands for.

    A significand times a power of two, straight from the definition of the format; NaN is the
    canonical one with the sign of the code.
    """
    f = code_fields(fmt)
    codes = np.arange(1 << (f.width + 1))
    magnitudes = codes & ((1 << f.width) - 1)
    fields = magnitudes >> f.trailing
    significands = magnitudes - (np.maximum(fields - 1, 0) << f.trailing)
    finite = np.where(magnitudes <= f.max_code, significands, 0)
    values = np.ldexp(finite.astype(np.float64), np.maximum(fields - 1, 0) + f.lowest)
    bits: Array = values.astype(np.float32).view(np.uint32)  # exact
    bits[magnitudes > f.max_code] = _NAN
    bits[magnitudes == f.infinity] = _INFINITY
    bits |= (codes >> f.width << 31).astype(np.uint32)
    bits.flags.writeable = False
    return bits


@functools.cache
def operand_bits(fmt: Format) -> Array:
    """Return the float32 bits of operands: NaN carries the payload of its code, quiet or not."""
    f = code_fields(fmt)
    bits = result_bits(fmt).copy()
    codes = np.arange(bits.size)
    payloads = (codes & ((1 << f.trailing) - 1)) << (23 - f.trailing)
    are_nan = (codes & ((1 << f.width) - 1)) > max(f.max_code, f.infinity)
    bits[are_nan] = (bits[are_nan] & (1 << 31)) | _INFINITY | payloads[are_nan].astype(np.uint32)
    bits.flags.writeable = False
    return bits


@functools.cache
def turns(fmt: Format) -> Array:
    """Return the patterns of float32 around every value and every midpoint of a format."""
    f = code_fields(fmt)
    values = result_bits(fmt)[: f.max_code + 1].view(np.float32).astype(np.float64)
    beyond = values[-1] + (values[-1] - values[-2])
    middles = (values + np.append(values[1:], beyond)) / 2
    with np.errstate(over="ignore"):  # what follows the largest bfloat16 is infinite in float32
        points = np.concatenate([values, middles, [beyond, np.inf]]).astype(np.float32)
    around = points.view(np.uint32).astype(np.int64)[:, None] + np.arange(-1, 2)
    patterns = np.unique(around.clip(0, _INFINITY + 1)).astype(np.uint32)
    return np.concatenate([patterns, patterns | np.uint32(1 << 31)])


def spelled(code: int, bits: int, digits: int) -> str:
    """Return a code in hexadecimal with the float32 that it stands for."""
    return f"{code:#0{digits + 2}x} = {float(np.uint32(bits).view(np.float32))!r}"
