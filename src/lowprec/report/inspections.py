"""An inspected number as plain text and in colour for the terminal."""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from lowprec.exact.number import Number, floor_log2
from lowprec.rounding import Overflow

if TYPE_CHECKING:
    from rich.console import Group

    from lowprec.exact.inspection import Inspection

__all__ = ["plain_text", "rich_view", "rows", "title"]

_STYLES = {"sign": "bold red", "exponent": "bold green", "trailing": "bold cyan"}
_FOUR_DIGITS = decimal.Context(prec=4, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX)


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


def plain_text(inspection: Inspection) -> str:
    """Return the view that `repr` shows."""
    bits = f"{' '.join(inspection.fields.values())}   {inspection.code_text}"
    lines = [("bits", bits), *rows(inspection)]
    return "\n".join([title(inspection), *(f"  {label:<7} {text}" for label, text in lines)])


def rich_view(inspection: Inspection) -> Group:
    """Return the same in colour: sign, exponent and trailing significand told apart."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    bits = Text(" ").join(Text(bits, _STYLES[name]) for name, bits in inspection.fields.items())
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", width=8)
    table.add_column(overflow="fold")
    table.add_row("  bits", bits.append(f"   {inspection.code_text}"))
    for label, line in rows(inspection):
        table.add_row(f"  {label}", Text(line, "bold" if label == "value" else ""))
    return Group(Text(title(inspection), "bold"), table)


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
