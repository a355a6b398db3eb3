"""Checks of encoding: every pattern of float32, or samples and what lies around each turn."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.conversion.door import encode
from lowprec.formats import float32
from lowprec.kernels.oracle.integers import code_fields, rule_of
from lowprec.kernels.oracle.loops import encoder
from lowprec.verification.checks import Check, Mismatch, Part, in_modes, shared
from lowprec.verification.codes import CODES, result_bits, spelled, turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lowprec.formats import Format
    from lowprec.rounding import Rounding

Array = np.ndarray[Any, Any]

_BLOCK = 1 << 15  # patterns at once: the library stays in this thread
_AT_ONCE = 1 << 22  # patterns between two reports of progress
_PATTERNS = 1 << 32


def encoding_check(fmt: Format, roundings: Sequence[Rounding], sample: int | None) -> Check:
    """Return the check of `encode` from float32.

    fmt: A format that the integer oracle knows.
    roundings: Deterministic modes.
    sample: How many patterns to draw for each mode, besides those around the values and midpoints
        of the format; None for all there are.
    """
    if sample is None:
        count, extent, run = _PATTERNS, f"all {_PATTERNS:,} patterns", _run_every
    else:
        points = turns(fmt).size
        count, run = points + sample, _run_sample
        extent = f"{points:,} patterns around every turn, {sample:,} others"
    return Check(
        f"{fmt} encode",
        f"{extent} of float32, {in_modes(roundings)}: rounded once",
        count * len(roundings),
        sample is None,
        functools.partial(run, fmt, tuple(roundings), sample or 0),
    )


def _run_every(
    fmt: Format, roundings: Sequence[Rounding], sample: int, threads: int
) -> Iterator[Part]:
    for rounding in roundings:
        work = functools.partial(_judge_range, fmt, rounding)
        yield from shared(work, range(0, _PATTERNS, _AT_ONCE), threads)


def _judge_range(fmt: Format, rounding: Rounding, start: int) -> Part:
    return _judged(fmt, rounding, np.arange(start, start + _AT_ONCE, dtype=np.uint32))


def _run_sample(
    fmt: Format, roundings: Sequence[Rounding], sample: int, threads: int
) -> Iterator[Part]:
    drawn = np.random.default_rng(fmt.bits).integers(0, _PATTERNS, sample, dtype=np.uint32)
    patterns = np.concatenate([turns(fmt), drawn])
    pieces = [patterns[start : start + _AT_ONCE] for start in range(0, patterns.size, _AT_ONCE)]
    for rounding in roundings:
        yield from shared(functools.partial(_judged, fmt, rounding), pieces, threads)


def _judged(fmt: Format, rounding: Rounding, patterns: Array) -> Part:
    """Compare the library's results with those of the integer oracle."""
    total = Part()
    source, f, rule = code_fields(float32), code_fields(fmt), rule_of(rounding)
    for start in range(0, patterns.size, _BLOCK):
        block = patterns[start : start + _BLOCK]
        expected = np.empty(block.size, CODES)
        encoder()(block, expected, source, f, rule)
        codes = encode(block.view(np.float32), fmt, rounding=rounding)
        wrong = np.flatnonzero(codes != expected)
        told = tuple(
            _told(fmt, rounding, block[i], expected[i], codes[i]) for i in wrong[:5].tolist()
        )
        total += Part(block.size, wrong.size, told)
    return total


def _told(fmt: Format, rounding: Rounding, pattern: int, expected: int, found: int) -> Mismatch:
    digits, bits = -(-fmt.bits // 4), result_bits(fmt)
    wanted, code = (spelled(int(c), bits[c], digits) for c in (expected, found))
    return Mismatch("encode", rounding.value, (spelled(int(pattern), pattern, 8),), wanted, code)
