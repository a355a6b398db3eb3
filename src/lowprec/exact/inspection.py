"""One number in a format, exactly: its bits, value, rounding error and neighbours, and its views.

Everything here is Python integers and fractions: no kernel, no float, nothing rounded but what the
format rounds.
"""

from __future__ import annotations

import dataclasses
import decimal
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lowprec.common.processor_state import in_exact_state
from lowprec.exact.number import Number, floor_log2
from lowprec.exact.reference import decode_exact, round_exact, spacing
from lowprec.formats import Format, Specials
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from rich.console import Group

_STYLES = {"sign": "bold red", "exponent": "bold green", "trailing": "bold cyan"}
_FOUR_DIGITS = decimal.Context(prec=4, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX)


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

    @in_exact_state
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

    @in_exact_state
    def __repr__(self) -> str:
        bits = f"{' '.join(self.fields.values())}   {self.code_text}"
        lines = [("bits", bits), *rows(self)]
        return "\n".join([title(self), *(f"  {label:<7} {text}" for label, text in lines)])

    @in_exact_state
    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        bits = Text(" ").join(Text(bits, _STYLES[name]) for name, bits in self.fields.items())
        table = Table.grid(padding=(0, 1))
        table.add_column(style="dim", width=8)
        table.add_column(overflow="fold")
        table.add_row("  bits", bits.append(f"   {self.code_text}"))
        for label, line in rows(self):
            table.add_row(f"  {label}", Text(line, "bold" if label == "value" else ""))
        return Group(Text(title(self), "bold"), table)

    @in_exact_state
    def _repr_html_(self) -> str:
        from lowprec.show.cards import bits_html, card

        note = self.code_text if self.given is not None else ""
        return card(title(self), note, bits_html(self.fields), rows(self))


def _float(value: Fraction | None) -> float | None:
    try:
        return None if value is None else float(value)
    except OverflowError:  # the error of an enormous input
        return None


# Words of the views ------------------------------------------------------------------------------


def title(inspection: Inspection) -> str:
    """Return what was asked for, in words."""
    fmt = inspection.fmt
    if inspection.given is None:
        return f"code {inspection.code_text} of {fmt}"
    how = inspection.rounding.value
    if inspection.overflow is not Overflow.IEEE:
        how += f", overflow: {inspection.overflow.value}"
    return f"{inspection.spelling} rounded to {fmt} ({how})"


def rows(inspection: Inspection) -> list[tuple[str, str]]:
    """Return what every view shows below the bits: a label and a text each."""
    rows = [
        ("class", inspection.kind),
        ("value", inspection.decimal),
        ("hex", inspection.hex),
    ]
    if inspection.value is not None:
        rows.append(("reads", _formula(inspection)))
    if inspection.given is not None:
        rows.append(("error", _error(inspection, inspection.given)))
    if inspection.ulp is not None:
        rows.append(
            ("ulp", f"2^{floor_log2(inspection.ulp)}, {_brief(Number(False, inspection.ulp))}")
        )
    for label, near in (("above", inspection.above), ("below", inspection.below)):
        if near is not None:
            rows.append((label, f"{_brief(near.number)}   {near.code_text}"))
    return rows


def _formula(inspection: Inspection) -> str:
    fmt, fields = inspection.fmt, inspection.fields
    is_small = inspection.exponent == 0 and fmt.has_zero
    if is_small and not fmt.subnormals:
        return "zero, as every code with exponent 0: no subnormals here"
    sign = "-" if inspection.sign else ""
    point = f".{fields['trailing']}" if fmt.trailing_bits else ""
    exponent = 1 if is_small else inspection.exponent
    bias = f"- {fmt.bias}" if (fmt.bias or 0) >= 0 else f"+ {-(fmt.bias or 0)}"
    return f"{sign}0b{0 if is_small else 1}{point} × 2^({exponent} {bias})"


def _error(inspection: Inspection, given: Number) -> str:
    fmt, error = inspection.fmt, inspection.error
    if error == 0 or given.is_nan or (given.is_infinite and inspection.number.is_infinite):
        return "none: exact"
    if error is not None:
        relative = inspection.relative_error
        relative_text = f", {_short(relative, 'e')} relative" if relative is not None else ""
        return f"{_short(error, 'e')} absolute{relative_text}, {_short(inspection.ulp_error)} ulp"
    if not fmt.signed and (given.negative or given.magnitude == 0):
        return f"out of range: the least value is {_brief(Number(False, Fraction(fmt.min)))}"
    return f"overflow: the largest value is {_brief(Number(False, Fraction(fmt.max)))}"


def _brief(number: Number) -> str:
    """Return the exact decimal, or an approximation to four digits of a very long one."""
    text = number.decimal
    value = number.value
    return text if len(text) <= 40 or value is None else f"≈ {_short(value, 'e').lstrip('+')}"


def _short(value: Fraction | None, style: str = "g") -> str:
    """Return four significant digits with the sign."""
    n, d = (value or Fraction(0)).as_integer_ratio()
    return f"{_FOUR_DIGITS.divide(Decimal(n), Decimal(d)).normalize(_FOUR_DIGITS):+{style}}"
