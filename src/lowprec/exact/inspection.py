"""One number in a format, exactly: its bits, value, rounding error and neighbours.

Everything here is Python integers and fractions: no kernel, no float, nothing rounded but what the
format rounds.
"""

from __future__ import annotations

import dataclasses
import operator
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, SupportsIndex

from lowprec.exact.number import Number, read_number
from lowprec.exact.reference import decode_exact, round_exact, spacing
from lowprec.formats import Format, FormatLike, Specials, get_format
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["Inspection", "inspect"]


def inspect(
    x: object = None,
    fmt: FormatLike = "bfloat16",
    *,
    code: SupportsIndex | None = None,
    rounding: Rounding | str = "ties_to_even",
    overflow: Overflow | str = "ieee",
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
        If the mode is stochastic, `x` is a string that is no number, the format has no such code,
        or the result is NaN and the format has none.
    TypeError
        If `x` is no real number, or not exactly one of `x` and `code` is given.

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
    fmt, rounding, overflow = get_format(fmt), Rounding(rounding), Overflow(overflow)
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
            f"{code:#x} is no code of {fmt}; its codes go up to {(1 << fmt.bits) - 1:#x}"
        )
    return Inspection(fmt, code)


@dataclasses.dataclass(frozen=True, repr=False)
class Inspection:
    """One number in a format; made by `inspect`.

    Attributes
    ----------
    fmt : Format
        The format.
    code : int
        The code, right-aligned.
    given : Number or None
        The exact number that was rounded; None if a code was inspected.
    spelling : str
        What was asked for, as it was written.
    rounding, overflow : Rounding, Overflow
        How it was rounded.
    """

    fmt: Format
    code: int
    given: Number | None = None
    spelling: str = ""
    rounding: Rounding = Rounding.TIES_TO_EVEN
    overflow: Overflow = Overflow.IEEE

    # Fields ------------------------------------------------------------------------------------

    @property
    def fields(self) -> dict[str, str]:
        """The bits of the code by field: sign (absent if unsigned), exponent and trailing."""
        fmt, bits = self.fmt, f"{self.code:0{self.fmt.bits}b}"
        start = int(fmt.signed)
        end = start + fmt.exponent_bits
        fields = {"sign": bits[:start], "exponent": bits[start:end], "trailing": bits[end:]}
        return {name: field for name, field in fields.items() if field}

    @property
    def bits(self) -> str:
        """The code in binary, ``fmt.bits`` digits."""
        return "".join(self.fields.values())

    @property
    def sign(self) -> int:
        """The sign bit, 0 in an unsigned format."""
        return int(self.fields.get("sign", "0"), 2)

    @property
    def exponent(self) -> int:
        """The exponent field as an unsigned integer, bias included."""
        return int(self.fields["exponent"], 2)

    @property
    def trailing(self) -> int:
        """The trailing significand field as an unsigned integer, 0 where there is none."""
        return int(self.fields.get("trailing", "0"), 2)

    # Meaning -----------------------------------------------------------------------------------

    @cached_property
    def number(self) -> Number:
        """What the code stands for, with the sign of zero and NaN."""
        return decode_exact(self.code, self.fmt)

    @property
    def value(self) -> Fraction | None:
        """The exact value; None for infinities and NaN."""
        return self.number.value

    @property
    def kind(self) -> str:
        """One of zero, subnormal, normal, infinity, quiet NaN, signaling NaN."""
        magnitude = self.number.magnitude
        if self.number.is_nan:
            is_ieee = self.fmt.specials is Specials.IEEE
            is_quiet = not is_ieee or self.trailing >> (self.fmt.trailing_bits - 1)
            return "quiet NaN" if is_quiet else "signaling NaN"
        if self.number.is_infinite:
            return "infinity"
        if magnitude == 0:
            return "zero"
        return "normal" if magnitude >= self.fmt.smallest_normal else "subnormal"

    @property
    def decimal(self) -> str:
        """The value in decimal with every digit, or ``inf`` or ``nan``, with its sign."""
        return self.number.decimal

    @property
    def hex(self) -> str:
        """The value as `float.hex` writes it, without needless zeros."""
        return self.number.hexadecimal

    @property
    def ulp(self) -> Fraction | None:
        """The spacing of values from this one away from zero; None for infinities and NaN."""
        return None if self.value is None else spacing(abs(self.value), self.fmt)

    @property
    def above(self) -> Inspection | None:
        """The next larger value, perhaps infinity; None where there is none."""
        return self._neighbour(negative=False)

    @property
    def below(self) -> Inspection | None:
        """The next smaller value; None where there is none."""
        return self._neighbour(negative=True)

    def _neighbour(self, negative: bool) -> Inspection | None:
        """Step half the finest spacing and round onward (IEEE 754-2019, section 5.3.1, nextUp)."""
        fmt, number = self.fmt, self.number
        if number.is_infinite:  # its only neighbour is the largest finite value
            return Inspection(fmt, self.code - 1) if number.negative != negative else None
        if number.value is None:
            return None
        step = Fraction(fmt.smallest_normal) * Fraction(fmt.unit_roundoff)
        target = number.value - step if negative else number.value + step
        if target < 0 and not fmt.signed:
            return None
        rounding = Rounding.TOWARD_NEGATIVE if negative else Rounding.TOWARD_POSITIVE
        code = round_exact(Number(target < 0, abs(target)), fmt, rounding, Overflow.IEEE)
        found = Inspection(fmt, code)
        return None if found.number.is_nan or found.value == self.value else found

    # Rounding error ----------------------------------------------------------------------------

    @property
    def exact(self) -> Fraction | None:
        """The exact value that was rounded; None for infinities, NaN and inspected codes."""
        return None if self.given is None else self.given.value

    @property
    def error(self) -> Fraction | None:
        """Rounded minus exact value; None if either is not finite."""
        return None if self.exact is None or self.value is None else self.value - self.exact

    @property
    def relative_error(self) -> Fraction | None:
        """The error over the magnitude of the exact value; None where that is zero."""
        return self.error / abs(self.exact) if self.error is not None and self.exact else None

    @property
    def ulp_error(self) -> Fraction | None:
        """The error over the spacing of values around the exact one: at most 1/2 to nearest."""
        if self.error is None or self.exact is None:
            return None
        return self.error / spacing(abs(self.exact), self.fmt)

    # Views -------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values; exact ones as text, errors as floats."""
        neighbours = {"above": self.above, "below": self.below}
        return {
            "format": self.fmt.name,
            "input": self.spelling or None,
            "rounding": self.rounding.value if self.given else None,
            "overflow": self.overflow.value if self.given else None,
            "code": self.code,
            "bits": self.bits,
            "sign": self.sign,
            "exponent": self.exponent,
            "trailing": self.trailing,
            "class": self.kind,
            "value": self.decimal,
            "hex": self.hex,
            "error": _float(self.error),
            "relative_error": _float(self.relative_error),
            "ulp_error": _float(self.ulp_error),
            "ulp": _float(self.ulp),
            **{
                name: None if near is None else {"code": near.code, "value": near.decimal}
                for name, near in neighbours.items()
            },
        }

    @property
    def code_text(self) -> str:
        """The code in hexadecimal with all its digits, as in ``0x3dcd``."""
        return f"0x{self.code:0{-(-self.fmt.bits // 4)}x}"

    def __repr__(self) -> str:
        from lowprec.report.inspections import plain_text

        return plain_text(self)

    def __rich__(self) -> Group:
        from lowprec.report.inspections import rich_view

        return rich_view(self)

    def _repr_html_(self) -> str:
        from lowprec.show.cards import inspection_html

        return inspection_html(self)


def _spelling(x: object) -> str:
    """Return how a number was written, a long one shortened."""
    if isinstance(x, int) and abs(x) >= 10**50:  # str() refuses more than 4300 digits
        return f"an integer of {x.bit_length()} bits"
    text = str(x).strip()
    return text if len(text) <= 60 else f"{text[:40]}…{text[-10:]}"


def _float(value: Fraction | None) -> float | None:
    try:
        return None if value is None else float(value)
    except OverflowError:  # the error of an enormous input
        return None
