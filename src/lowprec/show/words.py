"""Words for numbers: percentages, short figures, superscripts."""

from __future__ import annotations


def figure(value: float) -> str:
    """Return a number exactly where eight characters do, else to three digits."""
    exact = f"{value:.17g}"
    return exact if len(exact) <= 8 else f"{value:.3g}"


def percent(error: float) -> str:
    """Return a relative error as a percentage of two digits, or "exact"."""
    value = 100 * error
    if value == 0:
        return "exact"
    return (
        f"{value:.2g} %" if value < 99.5 else f"{value:.0f} %" if value < 1e6 else f"{value:.1e} %"
    )


def superscript(number: int) -> str:
    """Return an integer in superscript."""
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def times(ratio: float) -> str:
    """Return a ratio as a multiple of two digits: 0.85×, 33×, 250×."""
    rounded = float(f"{ratio:.2g}")
    return f"{rounded:,.0f}×" if 100 <= rounded < 1e9 else f"{rounded:.2g}×"
