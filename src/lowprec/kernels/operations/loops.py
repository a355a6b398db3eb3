"""Loops that apply an operation to arrays, and the kernels made of them.

A loop runs over contiguous one-dimensional arrays of the same size, a vector of elements at a time;
what remains at the ends is done by the same code with the missing lanes masked. The result may be
the memory of an operand.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import in_exact_state
from lowprec.formats import Format, float32, get_format, tfloat32
from lowprec.kernels.compiler import from_dtype, numba, types
from lowprec.kernels.loops import compile_as
from lowprec.kernels.magnitudes import Constants
from lowprec.kernels.operations.events import EVENTS
from lowprec.kernels.operations.rules import (
    OPERATIONS,
    Limits,
    OperationPlan,
    is_wide,
    suffices_float32,
)
from lowprec.kernels.operations.vector_step import (
    COUNTERS,
    compute_chunk,
    plan_to_text,
)
from lowprec.kernels.plans import (
    Sides,
    conversion_plan,
    fits_float32_words,
    float_bits,
    infinity_magnitude,
    overflow_thresholds,
    processor_has,
    result_random_bits,
    shared_plan,
    tiny_thresholds,
)
from lowprec.kernels.threads import SHARED_FROM, thread_count
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PRECISION = {32: 24, 64: 53}
_EVENTS, _INT64 = len(EVENTS), np.dtype(np.int64)

# Loops -------------------------------------------------------------------------------------------


@functools.cache
def _make_loop(how: OperationPlan, parallel: bool = False) -> Callable[..., None]:
    """Return the loop for a plan: ``loop(a, b, c, out, constants, counts, chunks)``.

    An operation of fewer operands does not look at `b` or `c`. A stochastic loop takes a key and
    the index of the first element in the array that the caller sees, too.
    """
    text = plan_to_text(how)
    operand = types.Array(from_dtype(np.dtype(how.source)), 1, "C", readonly=True)
    out = types.Array(from_dtype(np.dtype(how.target)), 1, "C")
    constants, counts = types.Array(types.uint64, 1, "C"), types.Array(types.int64, 1, "C")
    arguments = [operand, operand, operand, out, constants, counts, types.int64]
    if how.plan.random_bits:
        arguments += [types.uint64, types.int64]
    make = _make_random_loop if how.plan.random_bits else _make_plain_loop
    return compile_as(text, make(text), types.void(*arguments), parallel)


def _make_plain_loop(work: str) -> Callable[..., None]:
    def loop(a, b, c, out, constants, counts, chunks):  # type: ignore[no-untyped-def]
        for k in numba.prange(chunks):
            compute_chunk(a, b, c, out, constants, counts, k, chunks, 0, 0, work)

    return loop


def _make_random_loop(work: str) -> Callable[..., None]:
    def loop(a, b, c, out, constants, counts, chunks, key, first):  # type: ignore[no-untyped-def]
        for k in numba.prange(chunks):
            compute_chunk(a, b, c, out, constants, counts, k, chunks, key, first, work)

    return loop


# Kernels -----------------------------------------------------------------------------------------


class OperationKernel:
    """A compiled operation of a format, to be called on contiguous one-dimensional arrays."""

    __slots__ = ("constants", "draws", "has_second", "how", "loop")

    def __init__(self, how: OperationPlan, constants: np.ndarray[Any, Any]) -> None:
        self.how = how
        self.has_second = OPERATIONS[how.operation][0] > 1
        self.draws = how.plan.random_bits > 0
        self.constants = constants
        self.loop = _make_loop(how)

    def __call__(
        self, operands: Sequence[Any], out: Any, key: int = 0, first: int = 0
    ) -> np.ndarray[Any, Any]:
        """Compute `out`; return how often each of `EVENTS` happened.

        `first` is the index of ``out[0]`` in the caller's array.
        """
        a, b, c = operands[0], operands[self.has_second], operands[-1]
        threads = thread_count() if out.size >= SHARED_FROM else 1
        if threads == 1:
            counts = np.zeros(_EVENTS, _INT64)
            if self.draws:
                self.loop(a, b, c, out, self.constants, counts, 1, np.uint64(key), first)
            else:
                self.loop(a, b, c, out, self.constants, counts, 1)
            return counts
        counts = np.zeros((threads, COUNTERS), np.int64)
        arguments: tuple[Any, ...] = (a, b, c, out, self.constants, counts.reshape(-1), threads)
        if self.draws:
            arguments += (np.uint64(key), first)
        _make_loop(self.how, parallel=True)(*arguments)
        return counts.sum(axis=0)[:_EVENTS]


@functools.cache
@in_exact_state
def operation_kernel(
    operation: str,
    fmt: Format,
    source: str,
    rounding: Rounding,
    overflow: Overflow,
    *,
    operands_are_values: bool = False,
    flush_to_zero: bool = False,
    denormals_are_zero: bool = False,
    tiny_after_rounding: bool = False,
    flags: bool = True,
) -> OperationKernel:
    """Return the kernel of an operation on operands of dtype `source`."""
    r = result_random_bits(fmt, rounding)
    is_paired = processor_has("avx512f")
    is_narrow = (
        source == "float32"
        and r is None
        and fits_float32_words(fmt)
        and suffices_float32(fmt, operation, is_paired, rounding)
        and not (fmt.emax == 127 and _overflows_beyond_float32(rounding, overflow))
    )
    x = "float32" if is_narrow else "float64"
    plan, constants = conversion_plan(fmt, x, x, rounding, overflow, r)
    is_usual = rounding is Rounding.TIES_TO_EVEN or fmt in (float32, tfloat32)
    if not is_narrow and not is_usual:
        plan = plan._replace(twin="general", shift=0)  # one loop for many formats and modes
    plan = shared_plan(plan, keeps_mode=is_narrow or rounding.gives_negative_zero)
    width = plan.word
    how = OperationPlan(
        operation,
        plan,
        source,
        target="float32" if fmt.fits(float32) else "float64",
        converts=not operands_are_values and not _holds_values_only(fmt, source, overflow),
        fits=_has_exact_sums(fmt, width),
        is_wide=is_narrow and is_wide(fmt),
        is_paired=is_narrow and is_paired,
        flush_to_zero=flush_to_zero,
        denormals_are_zero=denormals_are_zero,
        flags=flags,
        draws_tininess=tiny_after_rounding and rounding.is_stochastic,
    )
    is_plain = how.converts and not (flags or flush_to_zero or denormals_are_zero)
    if is_plain and is_narrow and plan.twin == "hardware" and processor_has("avx512fp16"):
        is_known = operation in ("add", "subtract", "multiply")
        how = how._replace(in_halves=is_known and rounding is Rounding.TIES_TO_EVEN)
    beyond = overflow_thresholds(fmt, rounding, width)
    fields = Constants(*constants)._replace(threshold=min(beyond))
    smallest = float_bits(fmt.smallest_normal, width)
    normal = Sides(smallest, smallest)
    if tiny_after_rounding and not rounding.is_stochastic:
        normal = tiny_thresholds(fmt, rounding, width)
    limits = Limits(
        smallest_normal=smallest,
        overflow_positive=beyond.positive,
        overflow_negative=beyond.negative,
        normal_positive=normal.positive,
        normal_negative=normal.negative,
    )
    return OperationKernel(how, np.array([*fields, *limits], np.uint64))


def _overflows_beyond_float32(rounding: Rounding, overflow: Overflow) -> bool:
    """Whether an infinity is asked for where float32's largest number stands for the result."""
    stays = any(rounding.overflows_to_max(negative) for negative in (False, True))
    return overflow is Overflow.INFINITE and stays


def _has_exact_sums(fmt: Format, width: int) -> bool:
    """Whether the sum of two values never has more bits than a float of that width."""
    finest = fmt.emin - fmt.trailing_bits  # normal numbers have it without subnormal ones too
    return fmt.emax + 2 - finest <= _PRECISION[width]


def _holds_values_only(fmt: Format, source: str, overflow: Overflow) -> bool:
    """Whether every number of the dtype is a value of the format."""
    stays_infinite = infinity_magnitude(fmt, overflow) == fmt.infinity_code
    return get_format(source).fits(fmt) and fmt.has_infinity and stays_infinite
