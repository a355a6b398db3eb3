"""Draw reach.svg: where each format has numbers, and where real data lie."""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

import lowprec as lp
from lowprec.report.datasets import load

FORMATS = {
    "float32": "#646d78",
    "bfloat16": "#0067a5",
    "float16": "#c2500a",
    "float8_e5m2": "#a3428a",
    "float8_e4m3fn": "#007d5c",
}
TENSORS = {
    "digits: gradients, step 200": "gradients of a network",
    "digits: network weights": "its weights",
    "wine: features": "measurements of wines",
    "breast cancer: covariance": "a covariance matrix",
}
INK = "#1c2330"
BAR = 0.72
AXIS = (-46, 44)  # powers of ten
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "lowprec", "font.size": 12}
STYLE |= {"font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"]}


def draw_format(axes, row, fmt, colour):
    """Draw a bar where numbers are normal, a paler one where they are subnormal, and its words."""
    low, middle, high = np.log10([fmt.smallest_subnormal, fmt.smallest_normal, fmt.max])
    axes.barh(row, high - middle, BAR, left=middle, color=colour)
    axes.barh(row, middle - low, BAR, left=low, color=colour, alpha=0.35)
    off = fmt.unit_roundoff
    words = f"{100 * off:.2g} %" if off > 1e-4 else f"{1e6 * off:.2g} millionths"
    wide = high - middle > AXIS[1]
    place, ink = (middle, "white") if wide else (high, colour)
    axes.text(place + 1, row, f"{fmt.name}: ± {words}", va="center", color=ink, weight="bold")


def draw_tensor(axes, row, x, words):
    """Draw a line over all magnitudes, thick where 98 % of them are."""
    sizes = np.log10(np.abs(x[x != 0]))
    axes.hlines(row, sizes.min(), sizes.max(), color=INK, linewidth=1.2)
    axes.hlines(row, *np.quantile(sizes, (0.01, 0.99)), color=INK, linewidth=6)
    axes.text(sizes.max() + 1, row, words, va="center", color=INK)


def draw():
    """Return the figure, whose words can be read on a phone."""
    figure = Figure(figsize=(5.6, 4.4), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for row, (name, colour) in enumerate(FORMATS.items()):
        draw_format(axes, row, lp.get_format(name), colour)
    data = load()
    for row, (name, words) in enumerate(TENSORS.items(), len(FORMATS)):
        draw_tensor(axes, row + 0.4, data[name], words)
    ticks = range(-40, 41, 20)
    axes.set_xticks(ticks, ["1" if not k else f"10{_raised(k)}" for k in ticks])
    axes.set_yticks([])
    axes.set_xlim(AXIS)
    axes.set_title(
        "Where formats have numbers (pale: subnormal),\nhow far they are off, and where data lie",
        loc="left",
        fontsize=12,
        color=INK,
    )
    axes.invert_yaxis()
    axes.grid(axis="x", color="#e3e6ea")
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    return figure


def _raised(number):
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


if __name__ == "__main__":
    with rc_context(STYLE):
        target = Path(__file__).with_suffix(".svg")
        draw().savefig(target, metadata={"Date": None})
