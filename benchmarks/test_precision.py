"""Range and precision: what formats keep of data, and what becomes of classic algorithms in them.

A row's time is that of rounding, or of the whole experiment; its figures are the point. Each
experiment cites its source.
"""

import functools
import math

import numpy as np
import pytest
from precision import distributions, functions, linear_systems, motions, sums
from precision.ways import WAYS

import lowprec as lp

FORMATS = ["float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"]
REAL = (
    "digits: pixels",
    "digits: network weights",
    "digits: gradients, step 200",
    "breast cancer: features",
    "breast cancer: covariance",
    "diabetes: target²",
    "wine: features",
)
EXPERIMENTS = {
    experiment.name: experiment
    for module in (linear_systems, sums, motions, functions)
    for experiment in module.EXPERIMENTS
}


@functools.cache
def data():
    return distributions.synthetic()


@functools.cache
def real_data():
    pytest.importorskip("sklearn", reason="scikit-learn, whose data these are, is not installed")
    return distributions.real()


def binades(fmt):
    return math.log2(fmt.max) - math.log2(fmt.smallest_subnormal)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", [*distributions.synthetic(), *REAL])
def test_range(benchmark, name, fmt):
    benchmark.group = f"range: {name}"
    chosen = lp.get_format(fmt)
    x = np.asarray((real_data() if name in REAL else data())[name], np.float64)
    benchmark.pedantic(lp.round_to, (x, fmt), rounds=5, warmup_rounds=1)
    figures = distributions.kept(x, chosen)
    figures |= {"binades": binades(chosen), "decades": binades(chosen) * math.log10(2)}
    benchmark.extra_info.update(kind="range", work=name, format=fmt, who="lowprec")
    benchmark.extra_info.update(figures=figures, elements=x.size, dtype="float64")
    assert figures["share within 1 ulp"] == 1.0 or fmt != "float32"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment(benchmark, name, way):
    benchmark.group = f"precision: {name}"
    experiment = EXPERIMENTS[name]
    figure = benchmark.pedantic(experiment.run, (WAYS[way],), rounds=1, warmup_rounds=0)
    told = figure if math.isfinite(figure) else None  # JSON has no NaN
    benchmark.extra_info.update(kind="precision", work=name, format=way, who="lowprec")
    benchmark.extra_info.update(figures={experiment.measure: told}, source=experiment.source)
    benchmark.extra_info["more_is_better"] = experiment.more_is_better
    assert way != "float32" or math.isfinite(figure)
