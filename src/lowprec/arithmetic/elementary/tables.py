"""The functions as kernels: results and events, looked up where a format has few codes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.arithmetic.elementary.rounding_equivalents import BINARY, StandIns, unary
from lowprec.arithmetic.flags import Events
from lowprec.common.processor_state import in_exact_state
from lowprec.formats import Format, Specials, float32
from lowprec.kernels.operations.lookup import KINDS, LOW_BITS, make_lookup, pack
from lowprec.kernels.plans import (
    conversion_kernel,
    decoding_kernel,
    overflow_thresholds,
    result_random_bits,
    tiny_thresholds,
)
from lowprec.kernels.threads import thread_count
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, Any]

_BLOCK = 1 << 15  # elements of a temporary
_SHARED_BLOCK = 1 << 20  # of one that threads share
_PARALLEL_FROM = 100_000  # elements

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

    __slots__ = ("_codes", "_encode", "_table", "how")

    def __init__(self, how: ElementaryPlan) -> None:
        self.how = how
        fmt, self._codes = how.fmt, how.fmt.code_dtype
        # values stay what they are in every mode; this one draws nothing
        rounding = Rounding.TIES_TO_EVEN if how.operands_are_values else how.rounding
        self._encode = conversion_kernel(fmt, how.source, self._codes.name, rounding, how.overflow)
        self._table = None
        is_unary = how.function not in BINARY
        if is_unary and not how.rounding.is_stochastic and _suits_table(fmt):
            self._table = _packed_results(how._replace(source="", operands_are_values=False))

    @in_exact_state
    def __call__(self, operands: Sequence[Any], out: Any, key: int = 0, first: int = 0) -> Array:
        """Compute `out`; return how often each of `Events` happened.

        Parameters
        ----------
        operands : sequence of numpy.ndarray of the source dtype, shape (n,)
            One, or two for the functions of `BINARY`; for stochastic modes values of the format.
            They are converted to the format first, which counts no events.
        out : numpy.ndarray, shape (n,)
            Where to write: float32 where that holds every value of the format, else float64. It may
            be the memory of an operand.
        key, first : int
            For stochastic modes: the key, and the index of ``out[0]`` in the caller's array.

        Returns
        -------
        numpy.ndarray of int64, shape (5,)
            Counts in the order of `Events`.
        """
        is_shared = self._table is not None and out.size >= _PARALLEL_FROM
        threads = thread_count() if is_shared else 1
        length = _BLOCK if threads == 1 else _SHARED_BLOCK
        counts = np.zeros((threads, KINDS), np.int64)
        buffers = [np.empty(min(out.size, length), self._codes) for _ in operands]
        for begin in range(0, out.size, length):
            target = out[begin : begin + length]
            codes = [buffer[: target.size] for buffer in buffers]
            for x, into in zip(operands, codes, strict=True):
                self._encode(x[begin : begin + length], into)
            if self._table is not None:
                look_up = make_lookup(self._codes, threads > 1)
                look_up(self._table, codes[0], target.view(np.uint32), counts, threads)
            else:
                target[...], kinds = _round(self._stand_ins(codes), self.how, key, first + begin)
                counts += np.bincount(kinds, minlength=KINDS)
        total = counts[0] if threads == 1 else counts.sum(axis=0)
        events: Array = total @ _EVENTS_OF_KIND
        return events

    def _stand_ins(self, codes: list[Array]) -> StandIns:
        how = self.how
        if how.function not in BINARY and how.fmt.bits <= 16:
            every = _every_stand_in(how.function, how.fmt, how.denormals_are_zero)
            return StandIns(*(part[codes[0]] for part in every))
        values = [_values(code, how.fmt, how.denormals_are_zero) for code in codes]
        binary = BINARY.get(how.function)
        return unary(how.function, *values) if binary is None else binary(*values)


def _values(codes: Array, fmt: Format, denormals_are_zero: bool) -> Array:
    values = np.empty(codes.shape)
    decoding_kernel(fmt, "float64")(codes, values)
    if denormals_are_zero:
        zero = np.copysign(0.0, values) if fmt.has_negative_zero else np.zeros_like(values)
        return np.where(np.abs(values) < fmt.smallest_normal, zero, values)
    return values


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


# Rounding ----------------------------------------------------------------------------------------


def _round(
    found: StandIns, how: ElementaryPlan, key: int = 0, first: int = 0
) -> tuple[Array, Array]:
    """Return results, as float64, and their kinds."""
    fmt, exact = how.fmt, found.values
    has_no_place = ((exact < 0) & (not fmt.signed)) | ((exact == 0) & (not fmt.has_zero))
    exact = np.where(has_no_place, np.nan, exact)
    result = _converted(exact, fmt, how, key, first)
    result = np.where(np.isnan(exact), np.nan, result)
    is_tiny, overflows = _range_events(exact, how, key, first)
    if how.flush_to_zero:
        zero = np.copysign(0.0, exact) if fmt.has_negative_zero else np.zeros_like(exact)
        result = np.where(is_tiny, zero, result)
    kinds = np.where(np.isfinite(exact) & (result != exact), _INEXACT, _PLAIN)
    kinds[is_tiny & (kinds == _INEXACT)] = _UNDERFLOW
    kinds[overflows] = _OVERFLOW
    kinds[found.divide_by_zero] = _DIVIDE_BY_ZERO
    kinds[found.invalid | has_no_place] = _INVALID
    return result, kinds


def _converted(x: Array, fmt: Format, how: ElementaryPlan, key: int, first: int) -> Array:
    """Round float64 numbers with the plan's mode, and with the same random bits for any format."""
    result = np.empty_like(x)
    r = result_random_bits(fmt, how.rounding)
    mode = (how.rounding, how.overflow)
    conversion_kernel(fmt, "float64", "float64", *mode, r)(x, result, key, first)
    return result


def _range_events(exact: Array, how: ElementaryPlan, key: int, first: int) -> tuple[Array, Array]:
    """Return where results are tiny, and where they overflow."""
    fmt, size = how.fmt, np.abs(exact)
    is_tiny = (exact != 0) & (size < fmt.smallest_normal)
    if how.rounding.is_stochastic:  # the same random bits decide
        unbounded = np.abs(_converted(exact, _unbounded(fmt.precision), how, key, first))
        if how.tiny_after_rounding:
            is_tiny = (exact != 0) & (unbounded < fmt.smallest_normal)
        return is_tiny, np.isfinite(exact) & ~(unbounded <= fmt.max)
    bits, negative = size.view(np.uint64), np.signbit(exact)
    beyond = overflow_thresholds(fmt, how.rounding, 64)
    if how.tiny_after_rounding:
        normal = tiny_thresholds(fmt, how.rounding, 64)
        least = np.where(negative, np.uint64(normal.negative), np.uint64(normal.positive))
        is_tiny = (exact != 0) & (bits < least)
    least = np.where(negative, np.uint64(beyond.negative), np.uint64(beyond.positive))
    return is_tiny, np.isfinite(exact) & (bits >= least)


@functools.cache
def _unbounded(precision: int) -> Format:
    """Return a format of this precision, whose exponents go far beyond on either side.

    It rounds by the same kernel as most formats; what is too large for it becomes infinite or NaN.
    """
    specials = Specials.IEEE if precision > 1 else Specials.FN
    return Format(f"unbounded, p={precision}", 10, precision, specials)
