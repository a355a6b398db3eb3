"""Drawings for HTML pages: matplotlib's figures as inline SVG.

A drawing does not know the page's colours. It is drawn in placeholder colours that become CSS
variables, so that one drawing follows the reader's light or dark setting, and its text is text in
the page's font.
"""

from __future__ import annotations

import html
import io
import math
import re
from typing import TYPE_CHECKING, Any

from lowprec.show.words import superscript

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, NARROW = 9.2, 4.2  # inches, of 72 CSS pixels at natural size

PLACEHOLDERS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    "#040404": "var(--page)",
    "#050505": "var(--fill)",
    "#0a0a01": "var(--float32)",
    "#0a0a02": "var(--bfloat16)",
    "#0a0a03": "var(--float16)",
    "#0a0a04": "var(--float8-e4m3fn)",
    "#0a0a05": "var(--float8-e5m2)",
}
_BY_VARIABLE = {variable: colour for colour, variable in PLACEHOLDERS.items()}
INK, MUTED, LINE, PAGE, FILL = list(PLACEHOLDERS)[:5]


def style(ink: str, muted: str, line: str) -> dict[str, Any]:
    """Return matplotlib's settings that figures share, on a page or alone, in these colours."""
    return {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 10,
        "text.color": ink,
        "axes.edgecolor": line,
        "axes.labelcolor": muted,
        "axes.facecolor": "none",
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
    }


_STYLE: Any = style(INK, MUTED, LINE) | {
    "figure.constrained_layout.w_pad": 0.02,
    "figure.constrained_layout.h_pad": 0.02,
    "svg.fonttype": "none",
    "svg.hashsalt": "lowprec",
    "figure.facecolor": "none",
}


def colour(name: str) -> str:
    """Return the placeholder of the colour of the format of that name."""
    return _BY_VARIABLE.get(f"var(--{name.replace('_', '-')})", MUTED)


def short_name(name: str) -> str:
    """Return a format's name as short as figures need it: ``fp8 e4m3fn`` for float8_e4m3fn."""
    return f"fp8 {name.removeprefix('float8_')}" if name.startswith("float8") else name


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure, its size in inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def draw_once(
    name: str, alternative: str, width: float, draw: Callable[..., Figure], *arguments: Any
) -> str:
    """Return a drawing as an SVG element for a page: no header, no fixed size, its own ids.

    name: Unique on the page; ids begin with it.
    alternative: What the drawing shows, in words.
    width: In inches.
    draw: Called as ``draw(width, *arguments)``.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context(_STYLE):
        draw(width, *arguments).savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", buffer.getvalue(), flags=re.DOTALL)
    text = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"'DejaVu Sans'(, sans-serif)?", "var(--font)", text)
    for placeholder, variable in PLACEHOLDERS.items():
        text = text.replace(placeholder, variable)
    opening = re.search(r'<svg[^>]*(viewBox="[^"]*")[^>]*>', text)
    assert opening is not None
    label = html.escape(alternative)
    return f'<svg {opening[1]} role="img" aria-label="{label}">{text[opening.end() :].strip()}'


def draw_twice(name: str, alternative: str, draw: Callable[..., Figure], *arguments: Any) -> str:
    """Draw for wide and for narrow screens; the page shows one of the two."""
    drawings = (
        (kind, draw_once(f"{name}-{kind}", alternative, width, draw, *arguments))
        for kind, width in (("wide", WIDE), ("narrow", NARROW))
    )
    return "".join(f'<div class="{kind}">{svg}</div>' for kind, svg in drawings)


def mark_decades(axes: Axes, low: int, high: int, step: int) -> None:
    """Mark powers of ten on a horizontal axis that is linear in log10."""
    ticks = list(range(math.ceil(low / step) * step, high + 1, step))
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, ["1" if k == 0 else f"10{superscript(k)}" for k in ticks])
