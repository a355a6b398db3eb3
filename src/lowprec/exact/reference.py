"""The rules written a second time: round an exact number to a code, and read a code.

Small enough to be checked by eye, in integers and fractions only, this shares nothing with the
kernels. Letters: `t` trailing significand bits, `n` an integer significand.

References
----------
IEEE 754-2019, sections 3.4 (encodings), 4.3 (rounding directions) and 7.4 (overflow).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, assert_never

from lowprec.exact.number import Number, floor_log2
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from lowprec.formats import Format


def spacing(magnitude: Fraction, fmt: Format) -> Fraction:
    """Return the distance between the two values of `fmt` around a magnitude, `max` ignored."""
    if magnitude < Fraction(fmt.smallest_normal):
        return Fraction(2) ** (fmt.emin - (fmt.trailing_bits if fmt.subnormals else 0))
    return Fraction(2) ** (floor_log2(magnitude) - fmt.trailing_bits)


def round_exact(number: Number, fmt: Format, rounding: Rounding, overflow: Overflow) -> int:
    """Return the code of a number rounded once to `fmt`.

    fmt: The format to round to.
    overflow: What becomes of values beyond ``fmt.max``.
    Returns: The code, right-aligned.
    Raises ValueError if the result is NaN, which `fmt` has not.

    Examples
    --------
    >>> from lowprec import bfloat16
    >>> from lowprec.exact.number import read_number
    >>> hex(round_exact(read_number("0.1"), bfloat16, Rounding.TIES_TO_EVEN, Overflow.IEEE))
    '0x3dcd'
    """
    negative, magnitude = number
    has_no_code = (magnitude == 0 and not fmt.has_zero) or (
        magnitude != 0 and negative and not fmt.signed
    )
    if number.is_nan or has_no_code:
        code = _nan_code(fmt)
    elif not isinstance(magnitude, Fraction):
        code = _beyond_max(fmt, overflow, fmt.has_infinity)
    else:
        code = _round_magnitude(magnitude, fmt, rounding, negative)
        stays = overflow is Overflow.IEEE and _stays_at_max(rounding, negative)
        if code > fmt.max_code:
            code = fmt.max_code if stays else _beyond_max(fmt, overflow, stays_infinite=False)
    has_sign = negative and (code != 0 or fmt.has_negative_zero)
    return code | fmt.sign_mask if has_sign else code


def _round_magnitude(magnitude: Fraction, fmt: Format, rounding: Rounding, negative: bool) -> int:
    """Return the code of the neighbour that the mode picks, as if there were no largest one.

    The code of a significand n in the binade of exponent e is (e - emin)·2**t + n: one more in n is
    the next code, into the next binade and out of the subnormal range alike.
    """
    if not fmt.has_zero:
        magnitude = max(magnitude, Fraction(fmt.smallest_normal))
    unit = spacing(magnitude, fmt)
    n = magnitude // unit
    fraction = magnitude / unit - n  # of the way to the next value, in [0, 1)
    e = max(floor_log2(magnitude), fmt.emin) if magnitude else fmt.emin
    code = ((e - fmt.emin) << fmt.trailing_bits) + n - (not fmt.has_zero)
    is_odd = (code if fmt.counts_exponent_parity else n) % 2 == 1
    goes_up = _goes_up(fraction, is_odd, negative, rounding)
    if not fmt.subnormals and magnitude < Fraction(fmt.smallest_normal):
        return (n + goes_up) << fmt.trailing_bits  # zero or smallest_normal
    return code + goes_up


def _goes_up(fraction: Fraction, is_odd: bool, negative: bool, rounding: Rounding) -> bool:
    """Tell whether a magnitude between two neighbours goes to the larger; the lower may be odd."""
    half = Fraction(1, 2)
    match rounding:
        case Rounding.TIES_TO_EVEN:
            return fraction > half or (fraction == half and is_odd)
        case Rounding.TIES_TO_AWAY:
            return fraction >= half
        case Rounding.TIES_TOWARD_ZERO:
            return fraction > half
        case Rounding.TOWARD_ZERO:
            return False
        case Rounding.AWAY_FROM_ZERO:
            return fraction > 0
        case Rounding.TOWARD_POSITIVE:
            return fraction > 0 and not negative
        case Rounding.TOWARD_NEGATIVE:
            return fraction > 0 and negative
        case Rounding.TO_ODD:
            return fraction > 0 and not is_odd
        case Rounding.STOCHASTIC | Rounding.STOCHASTIC_EQUAL:
            raise ValueError(
                f"{rounding.value!r} draws random bits; use 'toward_zero' and 'away_from_zero' "
                "for the two possible results"
            )
        case _:
            assert_never(rounding)


def _stays_at_max(rounding: Rounding, negative: bool) -> bool:
    """Tell whether an overflow is rounded back to the largest value: toward zero, or to odd.

    The rule is asked about a number far beyond; to odd is the exception, whatever is odd there.
    """
    return rounding is Rounding.TO_ODD or not _goes_up(Fraction(3, 4), True, negative, rounding)


def _beyond_max(fmt: Format, overflow: Overflow, stays_infinite: bool) -> int:
    """Return the code, without its sign, of what the policy puts in place of an overflow."""
    match overflow:
        case Overflow.IEEE:
            saturates = not (fmt.has_infinity or fmt.has_nan)
        case Overflow.INFINITE:
            saturates = False
        case Overflow.SATURATE:
            saturates = not stays_infinite
        case Overflow.SATURATE_FINITE:
            saturates = True
        case _:
            assert_never(overflow)
    if saturates:
        return fmt.max_code
    return _nan_code(fmt) if fmt.infinity_code is None else fmt.infinity_code


def _nan_code(fmt: Format) -> int:
    if fmt.nan_code is None:
        raise ValueError(
            f"the result would be NaN, which {fmt} does not have; "
            "replace this input, or use a format with NaN"
        )
    return fmt.nan_code


def decode_exact(code: int, fmt: Format) -> Number:
    """Return the number that a code of `fmt` stands for.

    Examples
    --------
    >>> from lowprec import bfloat16
    >>> decode_exact(0x3DCD, bfloat16).value
    Fraction(205, 2048)
    """
    if fmt.has_nan_at_negative_zero and code == fmt.sign_mask:
        return Number(False, math.nan)
    negative = bool(code & fmt.sign_mask)
    magnitude = code & ~fmt.sign_mask
    if magnitude > fmt.max_code:
        return Number(negative, math.inf if magnitude == fmt.infinity_code else math.nan)
    field, n = divmod(magnitude, 1 << fmt.trailing_bits)
    if field or not fmt.has_zero:
        n += 1 << fmt.trailing_bits
    elif not fmt.subnormals:
        n = 0
    e = fmt.emin + max(field - fmt.has_zero, 0)
    negative = negative and (n != 0 or fmt.has_negative_zero)
    return Number(negative, n * Fraction(2) ** (e - fmt.trailing_bits))
