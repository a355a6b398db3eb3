"""Draw block.svg: one block of eight elements in E2M1, under each rule for its scale."""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

import lowprec as lp

BLOCK = np.array([1.0, 0.3, -0.7, 6.5, 5.4, 0.01, -3.2, 4.6], np.float32)
RULES = ("floor", "even", "rceil", "ceil")
INK, GRID, BAR, LOST = "#1c2330", "#c9d3de", "#0067a5", "#c2500a"
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "lowprec", "font.size": 12}
STYLE |= {"font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"]}
TOP = 12.6


def draw_rule(axes, rule):
    """Draw the values that the scale allows as lines, elements as bars, their results as dots."""
    fmt = lp.get_format(f"mxfp4:{rule}")
    q = lp.quantize(BLOCK, fmt)
    scale = float(q.scale_values()[0])
    values = lp.decode(np.arange(8, dtype=np.uint8), fmt.element) * scale
    axes.hlines(values[values < TOP], -0.6, 7.6, color=GRID, linewidth=1)
    size, rounded = np.abs(BLOCK), np.abs(q.dequantize())
    lost = (size > fmt.element.max * scale) | ((size > 0) & (rounded == 0))
    colours = np.where(lost, LOST, BAR)
    axes.bar(range(8), size, 0.62, color=colours, alpha=0.35)
    axes.scatter(range(8), rounded, 34, color=colours, zorder=3)
    axes.set_title(f"{rule}: scale {scale:g}", loc="left", fontsize=12, color=INK)
    axes.set_ylim(0, TOP)
    axes.set_xlim(-0.6, 7.6)
    axes.set_xticks(range(8), [f"{x:g}" for x in BLOCK], fontsize=12)
    axes.set_yticks([0, 4, 8, 12])
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)


def draw():
    """Return the figure: four rules."""
    figure = Figure(figsize=(8.2, 5.4), layout="constrained")
    for axes, rule in zip(figure.subplots(2, 2).flat, RULES, strict=True):
        draw_rule(axes, rule)
    figure.suptitle(
        "Magnitudes of a block (bars), what E2M1 makes of them (dots),\n"
        "and the values that the scale allows (lines); orange is clipped or becomes zero",
        x=0.01, ha="left", fontsize=12, color=INK,
    )  # fmt: skip
    return figure


if __name__ == "__main__":
    with rc_context(STYLE):
        target = Path(__file__).with_suffix(".svg")
        draw().savefig(target, metadata={"Date": None})
