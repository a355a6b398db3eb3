"""Figures of their own, for notebooks and papers, in the colours of the report's light page."""

from __future__ import annotations

import contextlib
import io
import re
from typing import TYPE_CHECKING, Any

from lowprec.show import drawing
from lowprec.show.pages import needs_report_extra, stylesheet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

# The light page's colours come first in its style sheet, the dark page's after them.
_SHADES: dict[str, str] = dict(
    reversed(re.findall(r"(--[\w-]+): (#\w{6})", stylesheet("page.css")))
)


def light(placeholder: str) -> str:
    """Return what a placeholder of `lowprec.show.drawing` stands for on the light page."""
    return _SHADES[drawing.PLACEHOLDERS[placeholder].removeprefix("var(").removesuffix(")")]


INK, MUTED, LINE = light(drawing.INK), light(drawing.MUTED), light(drawing.LINE)
TRAINING, VALIDATION = light(drawing.colour("bfloat16")), light(drawing.colour("float16"))

_STYLE: Any = drawing.style(INK, MUTED, LINE) | {
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "lines.linewidth": 1.6,
    "figure.facecolor": light(drawing.PAGE),
    "savefig.facecolor": light(drawing.PAGE),
    "ytick.minor.size": 0,
}


@contextlib.contextmanager
def light_figure(height: float) -> Iterator[Figure]:
    """Give an empty figure, its height in inches, and the style to draw on it with.

    Raises ModuleNotFoundError without matplotlib, naming the extra to install.
    """
    with needs_report_extra():
        from matplotlib import rc_context
        from matplotlib.figure import Figure

    class Chart(Figure):
        """A figure that Jupyter shows without pyplot, which would keep it and show it twice."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=110)
            return buffer.getvalue()

    with rc_context(_STYLE):
        yield Chart(figsize=(9.2, height), layout="constrained")
