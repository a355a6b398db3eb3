"""From a format and a mode to a kernel: which rule serves, and with which constants."""

from __future__ import annotations

import functools
import math
import struct
from typing import Any, NamedTuple, assert_never

import numpy as np

from lowprec.formats import Format, Specials, float16, float32
from lowprec.kernels.compiler import processor_has as processor_has
from lowprec.kernels.loops import Kernel
from lowprec.kernels.magnitudes import ANY, Constants, Plan, Variant, mode_bits
from lowprec.rounding import Overflow, Rounding, checked_overflow, overflow_rule

_TRAILING = {32: 23, 64: 52}
_BIAS = {32: 127, 64: 1023, 128: 1023}
_DIRECTED = (
    Rounding.TOWARD_ZERO,
    Rounding.AWAY_FROM_ZERO,
    Rounding.TOWARD_POSITIVE,
    Rounding.TOWARD_NEGATIVE,
)


class Results(NamedTuple):
    """Magnitudes of special results: codes, or bits of a float as wide as the word."""

    overflow_positive: int
    overflow_negative: int
    infinity: int
    nan: int


# Facts about formats -----------------------------------------------------------------------------


def fits_float32_words(fmt: Format) -> bool:
    """Whether float32's own exponents suffice to compute every code of the format."""
    return fmt.has_zero and fmt.fits(float32) and fmt.emin >= float32.emin


def variant(fmt: Format) -> Variant:
    """Return the rules' variant for the format's signs, zeros and subnormals."""
    if not fmt.has_zero:
        return Variant("scale")
    flushes = not fmt.subnormals and fmt.precision > 1
    if fmt.has_nan_at_negative_zero:
        return Variant("fnuz", flushes)
    return Variant("signed" if fmt.signed else "unsigned", flushes)


def is_aligned(fmt: Format, word: int) -> bool:
    """Whether a code is the top of the float's own bits."""
    emin = 1 - _BIAS[word]
    return (
        variant(fmt) == Variant("signed")
        and fmt.specials is Specials.IEEE
        and fmt.emin == emin
        and fmt.emax == -emin + 1
        and fmt.trailing_bits < _TRAILING[word]
    )


def overflow_magnitude(
    fmt: Format, rounding: Rounding, overflow: Overflow, negative: bool = False
) -> int:
    """Return the code, without sign, that a finite overflow of this sign gives."""
    match overflow:
        case Overflow.IEEE:
            return fmt.max_code if rounding.overflows_to_max(negative) else _beyond_max(fmt)
        case Overflow.INFINITE:
            return _beyond_max(fmt)
        case Overflow.SATURATE | Overflow.SATURATE_FINITE:
            return fmt.max_code
        case _:
            assert_never(overflow)


def infinity_magnitude(fmt: Format, overflow: Overflow) -> int:
    """Return the code, without sign, that an infinite source gives."""
    match overflow:
        case Overflow.IEEE | Overflow.INFINITE:
            return _beyond_max(fmt)
        case Overflow.SATURATE:
            return fmt.max_code if fmt.infinity_code is None else fmt.infinity_code
        case Overflow.SATURATE_FINITE:
            return fmt.max_code
        case _:
            assert_never(overflow)


def _beyond_max(fmt: Format) -> int:
    if fmt.infinity_code is not None:
        return fmt.infinity_code
    return fmt.max_code if fmt.nan_code is None else fmt.nan_code


def _results(fmt: Format, rounding: Rounding, overflow: Overflow) -> Results:
    return Results(
        overflow_magnitude(fmt, rounding, overflow),
        overflow_magnitude(fmt, rounding, overflow, negative=True),
        infinity_magnitude(fmt, overflow),
        0 if fmt.nan_code is None else fmt.nan_code,
    )


def float_bits(value: float, word: int) -> int:
    """Return the bits of a float of 32 or 64 bits."""
    pattern, integer = ("<f", "<I") if word == 32 else ("<d", "<Q")
    return int(struct.unpack(integer, struct.pack(pattern, value))[0])


def _as_float_bits(code: int, fmt: Format, word: int) -> int:
    """Return the float bits of a special result given as a code."""
    if code == fmt.max_code:
        return float_bits(fmt.max, word)
    return float_bits(math.inf if code == fmt.infinity_code else math.nan, word)


class Sides(NamedTuple):
    """Bits of a magnitude, as a float's, for either sign of the number."""

    positive: int
    negative: int


def overflow_thresholds(fmt: Format, rounding: Rounding, word: int) -> Sides:
    """Return the least magnitudes that may round beyond `max`.

    The exponent is taken as unbounded then (IEEE 754-2019, section 7.4).
    """
    step = math.ldexp(fmt.eps, fmt.emax)
    return _thresholds(fmt.max, step, rounding, fmt.max_is_odd, word)


def tiny_thresholds(fmt: Format, rounding: Rounding, word: int) -> Sides:
    """Return the least magnitudes that may round to the smallest normal number.

    The exponent is taken as unbounded: the value before that number is half as far away as the
    largest subnormal number (IEEE 754-2019, section 7.5, detection after rounding).
    """
    step = math.ldexp(fmt.eps, fmt.emin - 1)
    is_odd = not (fmt.counts_exponent_parity and fmt.has_zero)  # else its exponent field is 0
    return _thresholds(fmt.smallest_normal - step, step, rounding, is_odd, word)


def _thresholds(value: float, step: float, rounding: Rounding, is_odd: bool, word: int) -> Sides:
    """Return the least floats that may round to the next value, a step beyond this one."""

    def bits(negative: bool) -> int:
        reach = overflow_rule(rounding, negative=negative, is_odd=is_odd).possible
        place = value + reach.steps * step
        if word == 32 and place == 2.0**128:  # float32's largest number stands for all beyond
            place = float32.max
        return float_bits(place, word) + (not reach.is_included)

    return Sides(bits(False), bits(True))


# Plans -------------------------------------------------------------------------------------------


def _suits_addition(fmt: Format, rounding: Rounding, word: int, results: Results) -> bool:
    """Whether `round_by_addition` is right: see its conditions.

    It has one threshold for both signs: the number that is beyond it, but does not overflow, must
    be `max` anyway.
    """
    trailing, bias = _TRAILING[word], _BIAS[word]
    if not (
        not rounding.is_stochastic
        and not variant(fmt).flushes
        and not variant(fmt).is_scale
        and fmt.trailing_bits < trailing
        and fmt.emin - fmt.trailing_bits > -bias
        and fmt.emax + 1 + trailing - fmt.trailing_bits <= bias
        and (fmt.precision > 1 or not rounding.looks_at_parity)
    ):
        return False
    thresholds = overflow_thresholds(fmt, rounding, word)
    given = results.overflow_positive, results.overflow_negative
    return all(
        threshold == min(thresholds) or code == fmt.max_code
        for threshold, code in zip(thresholds, given, strict=True)
    )


def _twin(fmt: Format, rounding: Rounding, word: int, results: Results) -> str:
    if word == 128:
        return "general"
    is_ieee = results == _results(fmt, rounding, Overflow.IEEE)
    if (
        (fmt, word) == (float16, 32)
        and is_ieee
        and rounding in (Rounding.TIES_TO_EVEN, *_DIRECTED)
        and processor_has("f16c")
    ):
        return "hardware"
    if is_aligned(fmt, word) and is_ieee:
        return "aligned"
    if not _suits_addition(fmt, rounding, word, results):
        return "general"
    return "avx512" if rounding in _DIRECTED and processor_has("avx512f") else "adder"


def default_random_bits(fmt: Format, source: str) -> int:
    """Return how many random bits decide: 16 for float32 to bfloat16, where they are exact."""
    is_bfloat16 = (fmt.exponent_bits, fmt.precision) == (8, 8) and fmt.fits(float32)
    return 16 if source == "float32" and is_bfloat16 else 32


def result_random_bits(fmt: Format, rounding: Rounding) -> int | None:
    """Return how many random bits decide about an exact result: float64's, rounded to odd.

    52 of its bits are exact. None where the mode draws none.
    """
    return min(32, 52 - fmt.precision) if rounding.is_stochastic else None


@functools.cache
def conversion_plan(
    fmt: Format,
    source: str,
    target: str,
    rounding: Rounding,
    overflow: Overflow,
    random_bits: int | None = None,
    twin: str | None = None,
) -> tuple[Plan, np.ndarray[Any, Any]]:
    """Return the plan and the constants that convert dtype `source` to codes or floats."""
    r = 0
    if rounding.is_stochastic:
        r = default_random_bits(fmt, source) if random_bits is None else random_bits
    if source in ("int64", "uint64"):
        word = 128
    else:
        word = 32 if source == "float32" and fits_float32_words(fmt) and r <= 16 else 64
    results = _results(fmt, rounding, checked_overflow(overflow, fmt))
    twin = twin or _twin(fmt, rounding, word, results)
    float_word = min(word, 64)
    shift = _TRAILING[float_word] - fmt.trailing_bits if twin == "aligned" else 0
    plan = Plan(source, target, rounding.value, word, twin, variant(fmt), shift, r)
    threshold = 0
    if twin in ("adder", "avx512"):
        threshold = min(overflow_thresholds(fmt, rounding, word))
    ways_out = {results.overflow_positive, results.overflow_negative}
    plan = plan._replace(
        infinity_is_nan=int(results.infinity == fmt.nan_code),
        infinity_differs=int(ways_out != {results.infinity}),
        sides_differ=int(len(ways_out) > 1),
        exponent_parity=int(fmt.counts_exponent_parity and rounding.looks_at_parity),
    )
    mode = mode_bits(rounding, bool(plan.exponent_parity))
    if not plan.is_encoding:
        results = Results(*(_as_float_bits(code, fmt, float_word) for code in results))
    constants = Constants(
        trailing_bits=fmt.trailing_bits,
        emin=fmt.emin + _BIAS[word],
        max_code=fmt.max_code,
        sign_mask=fmt.sign_mask,
        quantum=float_bits(fmt.smallest_subnormal, float_word),
        threshold=threshold,
        mode=mode,
        **results._asdict(),
    )
    return plan, np.array(constants, np.uint64)


def shared_plan(plan: Plan, keeps_mode: bool = False) -> Plan:
    """Return the plan of a loop that serves more formats, and modes, with the same constants.

    Results are the same. A loop that looks at what a format does not need takes hardly longer, one
    for any mode up to twice as long: it serves the general rule in all modes but the usual one.
    """
    if plan.twin in ("aligned", "hardware"):  # which do without
        return plan._replace(infinity_is_nan=0, infinity_differs=0, sides_differ=0)
    if plan.twin != "general":
        differs = plan.infinity_differs or plan.sides_differ
        nan = 0 if differs else plan.infinity_is_nan
        return plan._replace(infinity_is_nan=nan, infinity_differs=differs, sides_differ=differs)
    plan = plan._replace(infinity_is_nan=0, infinity_differs=1, sides_differ=1)
    if keeps_mode or plan.random_bits or plan.mode == Rounding.TIES_TO_EVEN.value:
        return plan
    return plan._replace(mode=ANY, exponent_parity=0)


@functools.cache
def conversion_kernel(
    fmt: Format,
    source: str,
    target: str,
    rounding: Rounding,
    overflow: Overflow,
    random_bits: int | None = None,
    twin: str | None = None,
) -> Kernel:
    """Return the kernel of `conversion_plan`; `twin` asks for another rule than the fastest."""
    plan, constants = conversion_plan(fmt, source, target, rounding, overflow, random_bits, twin)
    return Kernel(shared_plan(plan), constants)


@functools.cache
def decoding_kernel(fmt: Format, target: str, twin: str | None = None) -> Kernel:
    """Return the kernel that decodes codes of the format to float32 or float64."""
    word = 32 if target == "float32" and fits_float32_words(fmt) else 64
    if twin is None:
        twin = "aligned" if is_aligned(fmt, word) else "general"
        if fmt == float16 and word == 32 and processor_has("f16c"):
            twin = "hardware"
    never = (1 << word) - 1
    constants = Constants(
        trailing_bits=fmt.trailing_bits,
        emin=fmt.emin + _BIAS[word],
        max_code=fmt.max_code,
        overflow_positive=float_bits(math.inf, word),
        overflow_negative=0,
        infinity=never if fmt.infinity_code is None else fmt.infinity_code,
        nan=float_bits(math.nan, word),
        sign_mask=fmt.sign_mask,
        quantum=float_bits(fmt.smallest_subnormal, word),
        threshold=0,
    )
    return Kernel(
        Plan(fmt.code_dtype.name, target, "decode", word, twin, variant(fmt)),
        np.array(constants, np.uint64),
    )
