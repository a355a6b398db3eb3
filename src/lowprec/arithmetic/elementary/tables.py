"""The functions as kernels: results and events, looked up where a format has few codes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.arithmetic.elementary.rounding_equivalents import BINARY, StandIns, unary
from lowprec.arithmetic.flags import Events
from lowprec.common.processor_state import in_exact_state
from lowprec.formats import Format, float32
from lowprec.kernels.operations.lookup import KINDS, LOW_BITS, make_lookup, pack
from lowprec.kernels.operations.loops import operation_kernel
from lowprec.kernels.plans import (
    conversion_kernel,
    decoding_kernel,
    overflow_thresholds,
    tiny_thresholds,
)
from lowprec.kernels.threads import threads_for
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, Any]

_BLOCK = 1 << 15  # elements of a temporary
_SHARED_BLOCK = 1 << 20  # of one that threads share

# The kinds of results, one an element; overflow and underflow are inexact too.
_PLAIN, _INEXACT, _UNDERFLOW, _OVERFLOW, _INVALID, _DIVIDE_BY_ZERO = range(KINDS)
_EVENTS_OF_KIND = np.array(
    [
        Events(),
        Events(inexact=1),
        Events(underflow=1, inexact=1),
        Events(overflow=1, inexact=1),
        Events(invalid=1),
        Events(divide_by_zero=1),
    ]
)
_INVALID_EVENT = Events._fields.index("invalid")
_POLE_EVENT = Events._fields.index("divide_by_zero")


class ElementaryPlan(NamedTuple):
    """What the kernel of an elementary function computes."""

    function: str
    fmt: Format
    rounding: Rounding
    overflow: Overflow
    source: str  # dtype of operands
    operands_are_values: bool = False  # of the format already
    flush_to_zero: bool = False
    denormals_are_zero: bool = False
    tiny_after_rounding: bool = False


@functools.cache
@in_exact_state
def elementary_kernel(
    function: str,
    fmt: Format,
    source: str,
    rounding: Rounding,
    overflow: Overflow,
    *,
    operands_are_values: bool = False,
    flush_to_zero: bool = False,
    denormals_are_zero: bool = False,
    tiny_after_rounding: bool = False,
) -> ElementaryKernel:
    """Return the kernel of a function on operands of dtype `source`, float32 or float64."""
    switches = (operands_are_values, flush_to_zero, denormals_are_zero, tiny_after_rounding)
    return ElementaryKernel(ElementaryPlan(function, fmt, rounding, overflow, source, *switches))


class ElementaryKernel:
    """A function in a format, to be called on contiguous one-dimensional arrays.

    Examples
    --------
    >>> from lowprec import Overflow, Rounding, bfloat16
    >>> exp = elementary_kernel(
    ...     "exp", bfloat16, "float64", Rounding.TOWARD_POSITIVE, Overflow.IEEE
    ... )
    >>> out = np.empty(3, np.float32)
    >>> Events(*exp([np.array([0.0, 1e-38, 1e38])], out).tolist())
    Events(invalid=0, divide_by_zero=0, overflow=1, underflow=0, inexact=2)
    >>> out
    array([1.       , 1.0078125,       inf], dtype=float32)
    """

    __slots__ = ("_convert", "_round", "_table", "how")

    def __init__(self, how: ElementaryPlan) -> None:
        self.how = how
        fmt, is_binary = how.fmt, how.function in BINARY
        # values stay what they are in every mode; this one draws nothing
        rounding = Rounding.TIES_TO_EVEN if how.operands_are_values else how.rounding
        target = "float64" if is_binary else fmt.code_dtype.name
        self._convert = conversion_kernel(fmt, how.source, target, rounding, how.overflow)
        self._table = None
        if not is_binary and not how.rounding.is_stochastic and _suits_table(fmt):
            self._table = _packed_results(how._replace(source="", operands_are_values=False))
            return
        self._round = operation_kernel(
            "round",
            fmt,
            "float64",
            how.rounding,
            how.overflow,
            operands_are_values=True,
            flush_to_zero=how.flush_to_zero,
            tiny_after_rounding=how.tiny_after_rounding,
        )

    @in_exact_state
    def __call__(self, operands: Sequence[Any], out: Any, key: int = 0, first: int = 0) -> Array:
        """Compute `out`; return how often each of `Events` happened.

        operands (sequence of numpy.ndarray of the source dtype, shape (n,)): One, or two for the
            functions of `BINARY`; for stochastic modes values of the format. They are converted to
            the format first, which counts no events.
        out (numpy.ndarray, shape (n,)): Where to write: float32 where that holds every value of the
            format, else float64. It may be the memory of an operand.
        key, first: For stochastic modes: the key, and the index of ``out[0]`` in the caller's
            array.
        Returns (numpy.ndarray of int64, shape (5,)): Counts in the order of `Events`.
        """
        threads = threads_for(out.size) if self._table is not None else 1
        length = _BLOCK if threads == 1 else _SHARED_BLOCK
        dtype = self._convert.plan.target
        count = len(operands) + (self.how.function in BINARY)  # the last is for the result
        buffers = [np.empty(min(out.size, length), dtype) for _ in range(count)]
        counts = np.zeros((threads, KINDS), np.int64)
        events = np.zeros(len(Events._fields), np.int64)
        for begin in range(0, out.size, length):
            target = out[begin : begin + length]
            converted = [buffer[: target.size] for buffer in buffers]
            for x, into in zip(operands, converted, strict=False):
                self._convert(x[begin : begin + length], into)
            if self._table is not None:
                look_up = make_lookup(converted[0].dtype, threads > 1)
                look_up(self._table, converted[0], target.view(np.uint32), counts, threads)
            else:
                found = self._stand_ins(converted)
                events += self._round([found.values], target, key, first + begin)
                events[_INVALID_EVENT] += np.count_nonzero(found.invalid)
                poles = found.values[found.divide_by_zero]
                events[_POLE_EVENT] += np.count_nonzero(~_has_no_place(poles, self.how.fmt))
        total: Array = counts.sum(axis=0) @ _EVENTS_OF_KIND + events
        return total

    def _stand_ins(self, operands: list[Array]) -> StandIns:
        """Return stand-ins for the results of values, or of one operand's codes."""
        how = self.how
        if how.function in BINARY:
            *values, into = operands
            if how.denormals_are_zero:
                values = [_flushed(x, how.fmt) for x in values]
            return BINARY[how.function](*values, into)
        if how.fmt.bits <= 16:
            every = _every_stand_in(how.function, how.fmt, how.denormals_are_zero)
            return StandIns(*(part[operands[0]] for part in every))
        return unary(how.function, _values(operands[0], how.fmt, how.denormals_are_zero))


def _values(codes: Array, fmt: Format, denormals_are_zero: bool) -> Array:
    values = np.empty(codes.shape)
    decoding_kernel(fmt, "float64")(codes, values)
    return _flushed(values, fmt) if denormals_are_zero else values


def _flushed(values: Array, fmt: Format) -> Array:
    zero = np.copysign(0.0, values) if fmt.has_negative_zero else np.zeros_like(values)
    return np.where(np.abs(values) < fmt.smallest_normal, zero, values)


def _has_no_place(values: Array, fmt: Format) -> Any:
    """Return where a result has a sign, or is a zero, that the format has not."""
    return ((values < 0) & (not fmt.signed)) | ((values == 0) & (not fmt.has_zero))


# Tables ------------------------------------------------------------------------------------------


def _suits_table(fmt: Format) -> bool:
    """Whether there are few codes, and results leave the low bits of float32 free."""
    return (
        fmt.bits <= 16
        and fmt.fits(float32)
        and fmt.precision <= float32.precision - LOW_BITS
        and fmt.smallest_subnormal >= float32.smallest_subnormal * 2**LOW_BITS
    )


@functools.lru_cache(maxsize=64)
def _every_stand_in(function: str, fmt: Format, denormals_are_zero: bool) -> StandIns:
    """Return stand-ins for all codes of a format."""
    codes = np.arange(1 << fmt.bits).astype(fmt.code_dtype)
    return unary(function, _values(codes, fmt, denormals_are_zero))


@functools.lru_cache(maxsize=256)
def _packed_results(how: ElementaryPlan) -> Array:
    """Return the results for all codes of a format: 256 KiB for 16 bits."""
    found = _every_stand_in(how.function, how.fmt, how.denormals_are_zero)
    results, kinds = _round(found, how)
    return pack(results.astype(np.float32), kinds)


def _round(found: StandIns, how: ElementaryPlan) -> tuple[Array, Array]:
    """Return results, as float64, and their kinds, in a deterministic mode."""
    fmt, exact = how.fmt, found.values
    has_no_place = _has_no_place(exact, fmt)
    exact = np.where(has_no_place, np.nan, exact)
    result = np.empty_like(exact)
    conversion_kernel(fmt, "float64", "float64", how.rounding, how.overflow)(exact, result)
    result = np.where(np.isnan(exact), np.nan, result)
    is_tiny, overflows = _range_events(exact, how)
    if how.flush_to_zero:
        zero = np.copysign(0.0, exact) if fmt.has_negative_zero else np.zeros_like(exact)
        result = np.where(is_tiny, zero, result)
    kinds = np.where(np.isfinite(exact) & (result != exact), _INEXACT, _PLAIN)
    kinds[is_tiny & (kinds == _INEXACT)] = _UNDERFLOW
    kinds[overflows] = _OVERFLOW
    kinds[found.divide_by_zero] = _DIVIDE_BY_ZERO
    kinds[found.invalid | has_no_place] = _INVALID
    return result, kinds


def _range_events(exact: Array, how: ElementaryPlan) -> tuple[Array, Array]:
    """Return where results are tiny, and where they overflow."""
    fmt, size = how.fmt, np.abs(exact)
    is_tiny = (exact != 0) & (size < fmt.smallest_normal)
    bits, negative = size.view(np.uint64), np.signbit(exact)
    beyond = overflow_thresholds(fmt, how.rounding, 64)
    if how.tiny_after_rounding:
        normal = tiny_thresholds(fmt, how.rounding, 64)
        least = np.where(negative, np.uint64(normal.negative), np.uint64(normal.positive))
        is_tiny = (exact != 0) & (bits < least)
    least = np.where(negative, np.uint64(beyond.negative), np.uint64(beyond.positive))
    return is_tiny, np.isfinite(exact) & (bits >= least)
