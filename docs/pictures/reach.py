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
INK, MUTED = "#1c2330", "#5a6573"
BAR = 0.62
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "lowprec", "font.size": 10.5}
STYLE |= {"font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"]}


def draw_format(axes, row, fmt, colour):
    """Draw a bar where numbers are normal, a paler one where they are subnormal."""
    low, middle, high = np.log10([fmt.smallest_subnormal, fmt.smallest_normal, fmt.max])
    axes.barh(row, high - middle, BAR, left=middle, color=colour)
    axes.barh(row, middle - low, BAR, left=low, color=colour, alpha=0.35)
    off = fmt.unit_roundoff
    words = f"{100 * off:.2g} %" if off > 1e-4 else f"{1e6 * off:.2g} millionths"
    axes.text(high + 0.8, row, f"± {words}", va="center", color=MUTED)


def draw_tensor(axes, row, x):
    """Draw a line over all magnitudes, thick where 98 % of them are."""
    sizes = np.log10(np.abs(x[x != 0]))
    axes.hlines(row, sizes.min(), sizes.max(), color=INK, linewidth=1.2)
    axes.hlines(row, *np.quantile(sizes, (0.01, 0.99)), color=INK, linewidth=5)


def draw():
    """Return the figure."""
    figure = Figure(figsize=(9, 4.1), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for row, (name, colour) in enumerate(FORMATS.items()):
        draw_format(axes, row, lp.get_format(name), colour)
    data = load()
    first = len(FORMATS) + 0.6
    for row, name in enumerate(TENSORS):
        draw_tensor(axes, first + row, data[name])
    places = [*range(len(FORMATS)), *(first + np.arange(len(TENSORS)))]
    axes.set_yticks(places, [*FORMATS, *TENSORS.values()])
    ticks = range(-40, 41, 10)
    axes.set_xticks(ticks, ["1" if not k else f"10{_raised(k)}" for k in ticks])
    axes.set_xlim(-46, 52)
    axes.set_title(
        "Where each format has numbers (pale: subnormal), how far they are off, and where data lie",
        loc="left",
        fontsize=11,
        color=INK,
    )
    axes.invert_yaxis()
    axes.grid(axis="x", color="#e3e6ea")
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)
    for label, colour in zip(axes.get_yticklabels(), FORMATS.values(), strict=False):
        label.set(color=colour, weight="bold")
    axes.spines[:].set_visible(False)
    return figure


def _raised(number):
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


if __name__ == "__main__":
    with rc_context(STYLE):
        target = Path(__file__).with_suffix(".svg")
        draw().savefig(target, metadata={"Date": None})
