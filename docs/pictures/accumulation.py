"""Draw accumulation.svg: the sum of n ones, and the error of random sums, by accumulator.

::

    python docs/pictures/accumulation.py [--output accumulation.svg]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import lowprec as lp
from lowprec import Accumulator

HERE = Path(__file__).parent
COUNTS = np.unique(np.round(np.logspace(0, 5, 61)).astype(int))
DRAWS = 20

#: label, accumulator, color and line style
CURVES = [
    ("bfloat16, sequential", Accumulator("bfloat16"), "#c1272d", "-"),
    ("bfloat16, blocks of 16", Accumulator("bfloat16", "blocked", 16, "float32"), "#e08214", "-"),
    ("float16, sequential", Accumulator("float16"), "#0000a7", "-"),
    ("bfloat16, stochastic", Accumulator("bfloat16", rounding="stochastic", rng=0), "#008176", "-"),
    ("bfloat16, pairwise", Accumulator("bfloat16", "pairwise"), "#7b3294", "-"),
    ("bfloat16, Kahan", Accumulator("bfloat16", "kahan"), "black", ":"),
]


def draw() -> Figure:
    """Draw both panels, one below the other, so that their words can be read on a phone."""
    figure = Figure(figsize=(5.6, 6.6), layout="constrained")
    counting, erring = figure.subplots(2, 1)
    x = np.random.default_rng(0).uniform(size=(DRAWS, COUNTS[-1]))
    true = np.cumsum(x, axis=1)[:, COUNTS - 1]
    for label, accumulator, color, style in CURVES:
        how = {"label": label, "color": color, "linestyle": style, "linewidth": 1.8}
        sums = np.array([float(lp.sum(np.ones(n), accumulator)) for n in COUNTS])
        counting.plot(COUNTS, sums, **how)
        found = np.array([lp.sum(x[:, :n], accumulator, axis=1) for n in COUNTS]).T
        erring.plot(COUNTS, np.sqrt(np.mean((found / true - 1) ** 2, axis=0)), **how)
    counting.set(xlabel="terms n", ylabel="sum")
    counting.set_title("the sum of n ones", fontsize="medium", loc="left")
    erring.set(xlabel="terms n", ylabel="relative error (rms)")
    erring.set_title("sums of n random numbers between 0 and 1", fontsize="medium", loc="left")
    erring.set_ylim(1e-4, 2)
    for axes in (counting, erring):
        axes.set(xscale="log", yscale="log", xlim=(1, COUNTS[-1]))
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    counting.legend(frameon=False, fontsize="small", loc="upper left")
    return figure


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "accumulation.svg")
    mpl.rcParams.update({"svg.hashsalt": "accumulation", "svg.fonttype": "none", "font.size": 12})
    output = parser.parse_args().output
    metadata = {"Date": None} if output.suffix == ".svg" else None
    draw().savefig(output, metadata=metadata, dpi=110)


if __name__ == "__main__":
    main()
