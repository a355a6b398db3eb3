"""`inspect`: round one number to a format, or take one of its codes, exactly."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from lowprec.common.processor_state import in_exact_state
from lowprec.exact.inspection import Inspection
from lowprec.exact.number import read_number
from lowprec.exact.reference import round_exact
from lowprec.formats import FormatLike, get_format
from lowprec.rounding import OverflowLike, Rounding, RoundingLike, checked_overflow


@in_exact_state
def inspect(
    x: object = None,
    fmt: FormatLike = "bfloat16",
    *,
    code: SupportsIndex | None = None,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
) -> Inspection:
    """Round one number to a format, or take one of its codes, and show everything about it.

    Parameters
    ----------
    x : int, float, Fraction, Decimal, str or NumPy scalar
        The number, taken exactly. A string is what it says: ``"0.1"`` is 1/10, where the float 0.1
        is the double nearest to it; ``"0x1.8p-3"``, ``"1/3"``, ``"nan"`` and ``"-inf"`` serve too.
    fmt : Format, str or dtype
        The format.
    code : int, optional
        A code of the format, right-aligned, to inspect instead of `x`.
    rounding : Rounding or str
        A deterministic mode; `x` is rounded once.
    overflow : Overflow or str
        What becomes of values beyond ``fmt.max``.

    Returns
    -------
    Inspection
        The code and what it means; it prints as a text, in colour under rich and in Jupyter.

    Raises
    ------
    ValueError
        If the mode is stochastic, `x` is a string that is not a number, the format has no such
        code, or the result is NaN and the format has none.
    TypeError
        If `x` is not a real number, or not exactly one of `x` and `code` is given.

    Examples
    --------
    >>> inspect(0.1)
    0.1 rounded to bfloat16 (ties_to_even)
      bits    0 01111011 1001101   0x3dcd
      class   normal
      value   0.10009765625
      hex     0x1.9ap-4
      reads   0b1.1001101 × 2^(123 - 127)
      error   +9.766e-5 absolute, +9.766e-4 relative, +0.2 ulp
      ulp     2^-11, 0.00048828125
      above   0.1005859375   0x3dce
      below   0.099609375   0x3dcc
    >>> inspect("1e39", "float16").kind
    'infinity'
    """
    fmt, rounding = get_format(fmt), Rounding(rounding)
    overflow = checked_overflow(overflow, fmt)
    if (x is None) == (code is None):
        raise TypeError(
            "pass one number, as in inspect(0.1), or one code, as in inspect(code=0x3dcd)"
        )
    if rounding.is_stochastic:
        raise ValueError(
            f"{rounding.value!r} draws random bits; inspect the two possible results with "
            "rounding='toward_zero' and rounding='away_from_zero'"
        )
    if code is None:
        number = read_number(x)
        code = round_exact(number, fmt, rounding, overflow)
        return Inspection(fmt, code, number, _spelling(x), rounding, overflow)
    code = operator.index(code)
    if not 0 <= code < 1 << fmt.bits:
        raise ValueError(
            f"{code:#x} is not a code of {fmt}; its codes go up to {(1 << fmt.bits) - 1:#x}"
        )
    return Inspection(fmt, code)


def _spelling(x: object) -> str:
    """Return how a number was written, a long one shortened."""
    if isinstance(x, int) and abs(x) >= 10**50:  # str() refuses more than 4300 digits
        return f"an integer of {x.bit_length()} bits"
    text = str(x).strip()
    return text if len(text) <= 60 else f"{text[:40]}…{text[-10:]}"
