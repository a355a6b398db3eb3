"""Numbers, shares and times as text, and where and when they were measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.report.results import Quartiles, Results

__all__ = ["caveats", "cost", "duration", "number", "share", "short", "tell"]

_BUSY = 0.75  # of a processor by other work


def number(value: float | None) -> str:
    """Return a number to three digits, without needless zeros or exponents.

    Examples
    --------
    >>> number(0.12345), number(12345.6), number(1.5e-9), number(None)
    ('0.123', '12,346', '1.5e-09', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    if 1000 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def tell(figure: Quartiles) -> str:
    """Return a median between its quartiles.

    Examples
    --------
    >>> from benchmarks.report import Quartiles
    >>> tell(Quartiles(0.781, 0.8, 0.83)), tell(Quartiles(19, 20.04, 21))
    ('0.80 [0.78, 0.83]', '20.0 [19.0, 21.0]')
    """
    decimals = _decimals(figure.median)
    return f"{figure.median:.{decimals}f} [{figure.low:.{decimals}f}, {figure.high:.{decimals}f}]"


def _decimals(value: float) -> int:
    return 2 if value < 10 else 1 if value < 100 else 0


def short(figure: Quartiles | None, is_in_turns: bool = True) -> str:
    """Return a median alone, after ≈ where it was not measured in turns."""
    if figure is None:
        return "–"
    text = f"{figure.median:.{_decimals(figure.median)}f}"
    return text if is_in_turns else f"≈ {text}"


def share(value: float) -> str:
    """Return a share in percent that says 100 % only where it is all of them.

    Examples
    --------
    >>> share(1.0), share(0.99999), share(0.5), share(0.00001), share(0.0)
    ('100 %', '> 99.9 %', '50.0 %', '< 0.1 %', '0 %')
    """
    if value in (0.0, 1.0):
        return f"{value:.0%}".replace("%", " %")
    if value > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if value < 0.001 else f"{100 * value:.1f} %"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it.

    Examples
    --------
    >>> duration(1.5e-6), duration(0.0123), duration(2.5)
    ('1.5 µs', '12.3 ms', '2.5 s')
    """
    unit, scale = next(((u, s) for u, s in _UNITS if seconds >= s), _UNITS[-1])
    return f"{number(seconds / scale)} {unit}"


_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))


def cost(results: Results) -> list[str]:
    """Return the date, the machine and the versions."""
    machine = results.machine
    versions = machine.get("versions") or {"Python": machine.get("python_version", "?")}
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    cores = machine.get("logical_processors")
    where = results.processor + (f", {cores} logical processors" if cores else "")
    return [f"Measured {results.date[:16].replace('T', ' ')} on {where}.", f"{told}."]


def caveats(results: Results) -> list[str]:
    """Return what makes the figures doubtful."""
    load = results.machine.get("load_average_before")
    if load is None or load < _BUSY:
        return []
    words = f"The machine was busy (load average {load:.1f} before the run)"
    return [f"{words}: times and ratios are doubtful, errors are not."]
