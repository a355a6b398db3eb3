"""Checks of the operations: against integers, over all operands or over samples of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.arithmetic import Arithmetic
from lowprec.arithmetic.flags import Events
from lowprec.kernels.oracle.integers import OPERATIONS, code_fields, rule_of
from lowprec.kernels.oracle.loops import count_differences, oracle
from lowprec.verification.checks import Check, Mismatch, Part, in_modes, shared
from lowprec.verification.codes import CODES, operand_bits, result_bits, spelled
from lowprec.verification.samples import draw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lowprec.formats import Format
    from lowprec.rounding import Rounding

Array = np.ndarray[Any, Any]
Case = tuple["Format", str, "Rounding"]

_BLOCK = 1 << 15  # cases at once: buffers stay in the cache, and the library in this thread
_FEW = 1 << 16  # cases, that are never sampled
_AT_ONCE = 1 << 22  # cases between two reports of progress


@dataclass
class Judge:
    """Holds an operation of the library to codes and events that an oracle expects."""

    fmt: Format
    operation: str
    rounding: Rounding
    arithmetic: Arithmetic = field(init=False)

    def __post_init__(self) -> None:
        self.arithmetic = Arithmetic(self.fmt, rounding=self.rounding)
        self._buffer = np.empty(_BLOCK, np.float32)

    def hear(
        self, codes: Sequence[Array], operands: Sequence[Array], expected: Array, events: Array
    ) -> Part:
        """Compare the library's results with the expected codes, bit by bit, and the events.

        codes (sequence of numpy.ndarray of uint16, shape (n,)): The operands as codes, to tell them
            by.
        operands (sequence of numpy.ndarray of float32, shape (n,)): The operands.
        expected (numpy.ndarray of uint16, shape (n,)): The codes of the results.
        events (numpy.ndarray of int64, shape (5,)): How often each event happens.
        """
        self.arithmetic.flags.clear()
        compute = getattr(self.arithmetic, self.operation)
        results = compute(*operands, out=self._buffer[: expected.size])
        bits = result_bits(self.fmt)
        found = results.view(np.uint32)
        differences = count_differences()(found, expected, bits)
        part = Part(expected.size, differences)
        if differences:
            wrong = np.flatnonzero(found != bits[expected])[:5]
            told = (
                self._told([c[i] for c in codes], expected[i], found[i]) for i in wrong.tolist()
            )
            part += Part(first=tuple(told))
        counted = self.arithmetic.flags[self.operation]
        if counted != tuple(events.tolist()):
            part += Part(mismatches=1, first=(self._told_of_events(codes, events, counted),))
        return part

    def _told(self, codes: Sequence[int], expected: int, found: int) -> Mismatch:
        digits, bits = -(-self.fmt.bits // 4), result_bits(self.fmt)
        operands = tuple(spelled(int(c), operand_bits(self.fmt)[c], digits) for c in codes)
        wanted = spelled(int(expected), bits[expected], digits)
        matches = np.flatnonzero(bits == found)
        if matches.size:
            result = spelled(int(matches[0]), found, digits)
        else:  # a NaN of other bits, or between values
            result = f"{spelled(int(found), found, 8)}, float32 but no value of the format"
        return Mismatch(self.operation, self.rounding.value, operands, wanted, result)

    def _told_of_events(self, codes: Sequence[Array], events: Array, counted: Events) -> Mismatch:
        digits = -(-self.fmt.bits // 4)
        block = tuple(f"{c[0]:#0{digits + 2}x} … {c[-1]:#0{digits + 2}x}" for c in codes)
        expected = str(Events(*events.tolist()))
        return Mismatch(self.operation, self.rounding.value, block, expected, str(counted))


def operation_check(
    fmt: Format, operation: str, roundings: Sequence[Rounding], sample: int | None
) -> Check:
    """Return the check of an operation in all these modes.

    fmt: A format that the integer oracle knows.
    operation: One of `lowprec.kernels.oracle.integers.OPERATIONS`.
    roundings: Deterministic modes.
    sample: How many operands to draw for each mode; None for all there are. Where there are no more
        than 65,536, all are taken.
    """
    arity = OPERATIONS[operation][0]
    every = 1 << arity * fmt.bits
    count = every if sample is None else -(-sample // _BLOCK) * _BLOCK
    is_exhaustive = every <= max(count, _FEW)
    count = every if is_exhaustive else count
    extent = f"all {every:,}" if is_exhaustive else f"{count:,} of {every:,}"
    which = ("operands", "pairs", "triples")[arity - 1]
    run = _run_every if is_exhaustive else _run_sample
    return Check(
        f"{fmt} {operation}",
        f"{extent} {which}, {in_modes(roundings)}: the exact result rounded once, and the events",
        count * len(roundings),
        is_exhaustive,
        functools.partial(run, fmt, operation, tuple(roundings), count),
    )


def _judged(judge: Judge, codes: Sequence[Array], operands: Sequence[Array]) -> Part:
    """Compare the library's results with those of the integer oracle."""
    expected, events = np.empty(codes[0].size, CODES), np.zeros(len(Events._fields), np.int64)
    f, rule = code_fields(judge.fmt), rule_of(judge.rounding)
    a, b, c = codes[0], codes[len(codes) > 1], codes[-1]
    oracle(judge.operation)(a, b, c, expected, events, f, rule)
    return judge.hear(codes, operands, expected, events)


# Every operand -----------------------------------------------------------------------------------


def _run_every(
    fmt: Format, operation: str, roundings: Sequence[Rounding], count: int, threads: int
) -> Iterator[Part]:
    blocks = range(0, count, min(_AT_ONCE, count))
    for rounding in roundings:
        work = functools.partial(_judge_range, (fmt, operation, rounding), count)
        yield from shared(work, blocks, threads)


def _judge_range(case: Case, count: int, start: int) -> Part:
    """Judge cases from `start` on; the digits of their numbers, base 2**bits, are the operands."""
    judge, total = Judge(*case), Part()
    fmt, arity = judge.fmt, OPERATIONS[judge.operation][0]
    size = min(_BLOCK, 1 << fmt.bits)
    bits, mask = operand_bits(fmt), (1 << fmt.bits) - 1
    leading = [np.empty(size, CODES) for _ in range(arity - 1)]
    values = [np.empty(size, np.float32) for _ in range(arity - 1)]
    last = np.arange(1 << fmt.bits, dtype=CODES)
    last_values = bits[last].view(np.float32)
    for number in range(start, min(start + _AT_ONCE, count), size):
        for place in range(arity - 1):
            code = number >> (arity - 1 - place) * fmt.bits & mask
            leading[place][:], values[place].view(np.uint32)[:] = code, bits[code]
        part = slice(number & mask, (number & mask) + size)
        total += _judged(judge, [*leading, last[part]], [*values, last_values[part]])
    return total


# Samples -----------------------------------------------------------------------------------------


def _run_sample(
    fmt: Format, operation: str, roundings: Sequence[Rounding], count: int, threads: int
) -> Iterator[Part]:
    starts = range(0, count, _AT_ONCE)
    for rounding in roundings:
        work = functools.partial(_judge_sample, (fmt, operation, rounding), count)
        yield from shared(work, starts, threads)


def _judge_sample(case: Case, count: int, start: int) -> Part:
    """Judge drawn operands, the same ones for every mode."""
    judge, total = Judge(*case), Part()
    bits, arity = operand_bits(judge.fmt), OPERATIONS[judge.operation][0]
    for number in range(start, min(start + _AT_ONCE, count), _BLOCK):
        rng = np.random.default_rng([number, arity])
        codes = draw(judge.fmt, arity, _BLOCK, rng)
        total += _judged(judge, codes, [bits[c].view(np.float32) for c in codes])
    return total
