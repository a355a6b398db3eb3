"""Loops over the integer oracle, compiled apart from all that it judges."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.kernels.compiler import types
from lowprec.kernels.loops import compile_as
from lowprec.kernels.oracle.integers import OPERATIONS, CodeFields, encode, round_number

if TYPE_CHECKING:
    from collections.abc import Callable

_CODES = types.Array(types.uint16, 1, "C", readonly=True)
_RESULTS = types.Array(types.uint16, 1, "C")
_COUNTS = types.Array(types.int64, 1, "C")
_FIELDS = types.NamedUniTuple(types.int64, len(CodeFields._fields), CodeFields)


@functools.cache
def oracle(operation: str) -> Callable[..., None]:
    """Return ``loop(a, b, c, out, events, layout, rule)``: uint16 codes in, uint16 codes out.

    It adds to `events`, five int64, how often the events happened, in the order of
    `lowprec.arithmetic.flags.Events`. An operation of fewer operands does not look at `b` or `c`.
    """
    _, compute = OPERATIONS[operation]

    def loop(a, b, c, out, events, layout, rule):  # type: ignore[no-untyped-def]
        invalid = by_zero = overflow = underflow = inexact = 0
        for i in range(out.size):
            x, y, z = np.int64(a[i]), np.int64(b[i]), np.int64(c[i])
            code, happened = compute(x, y, z, layout, rule)
            out[i] = code
            invalid += happened & 1
            by_zero += happened >> 1 & 1
            overflow += happened >> 2 & 1
            underflow += happened >> 3 & 1
            inexact += happened >> 4 & 1
        events[0] += invalid
        events[1] += by_zero
        events[2] += overflow
        events[3] += underflow
        events[4] += inexact

    signature = types.void(_CODES, _CODES, _CODES, _RESULTS, _COUNTS, _FIELDS, types.int64)
    return compile_as(f"integer oracle|{operation}", loop, signature)


@functools.cache
def encoder() -> Callable[..., None]:
    """Return ``loop(sources, out, source_layout, layout, rule)``: uint32 codes in, uint16 out."""
    signature = types.void(
        types.Array(types.uint32, 1, "C", readonly=True),
        _RESULTS,
        _FIELDS,
        _FIELDS,
        types.int64,
    )
    return compile_as("integer oracle|encode", _encode_all, signature)


def _encode_all(sources: Any, out: Any, source_layout: Any, layout: Any, rule: int) -> None:
    for i in range(out.size):
        out[i] = encode(np.int64(sources[i]), source_layout, layout, rule)


@functools.cache
def rounder() -> Callable[..., None]:
    """Return ``loop(signs, significands, exponents, out, events, layout, rule)``.

    It rounds the numbers ``(-1)**sign · significand · 2**exponent`` units, none of them zero, with
    significands of at most 50 bits, and counts events as `oracle` does.
    """
    numbers = types.Array(types.int64, 1, "C", readonly=True)
    signature = types.void(numbers, numbers, numbers, _RESULTS, _COUNTS, _FIELDS, types.int64)
    return compile_as("integer oracle|round", _round_all, signature)


def _round_all(
    signs: Any, significands: Any, exponents: Any, out: Any, events: Any, layout: Any, rule: int
) -> None:
    for i in range(out.size):
        out[i], happened = round_number(signs[i], significands[i], exponents[i], layout, rule)
        for event in range(5):
            events[event] += happened >> event & 1


@functools.cache
def count_differences() -> Callable[..., int]:
    """Return ``loop(actual, codes, bits)``: in how many places ``actual[i] != bits[codes[i]]``."""
    words = types.Array(types.uint32, 1, "C", readonly=True)
    return compile_as("count differences", _count, types.int64(words, _CODES, words))


def _count(actual: Any, codes: Any, bits: Any) -> int:
    differences = 0
    for i in range(actual.size):
        differences += actual[i] != bits[codes[i]]
    return differences
