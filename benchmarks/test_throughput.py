"""Elements a second: encode, decode and round_to at 10^3 … 10^7 float32 elements.

A group holds one task, format and size, so that the copy (the yardstick), lowprec with one thread
and with two, and each peer stand together. Every result is compared bit for bit with lowprec's own
answer for the same values given as float64, which other kernels compute.
"""

import functools

import numba
import numpy as np
import pytest
from peers import PEERS
from timing import threads
from workload import FORMATS, workload

import lowprec as lp

SIZES = [10**k for k in range(3, 8)]
WHO = [("copy", 1), ("lowprec", 1), ("lowprec", 2), ("astype", 1), ("torch", 1), ("torch", 2)]
TIMED = [(elements, *who) for elements in SIZES for who in WHO]
TIMED += [(elements, "gfloat", 1) for elements in SIZES if elements <= 10**5]


@functools.lru_cache(maxsize=len(FORMATS) * 3)
def expected(task, fmt, elements, rounding="ties_to_even"):
    """Compute the answer from float64."""
    wide = workload(elements).x.astype(np.float64)
    if task == "encode":
        return lp.encode(wide, fmt, rounding=rounding)
    return lp.round_to(wide, fmt, rounding=rounding).astype(np.float32)


def assert_same_bits(result, answer):
    """Compare as integers, so that -0 differs from 0."""
    unsigned = f"uint{8 * answer.itemsize}"
    np.testing.assert_array_equal(result.view(unsigned), answer.view(unsigned))


def timed_in_threads(benchmark, work, count):
    """Time the work after one call that compiles it, and return its result."""
    if count > numba.config.NUMBA_NUM_THREADS:
        pytest.skip(f"Numba has {numba.config.NUMBA_NUM_THREADS} thread here")
    with threads(count):
        work()
        return benchmark(work)


@pytest.mark.parametrize("task", ["encode", "decode", "round_to"])
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(("elements", "who", "count"), TIMED)
def test_conversion(benchmark, elements, who, count, fmt, task):
    benchmark.group = f"{task} {fmt}, {elements:,} float32"
    if who in ("torch", "gfloat"):
        pytest.importorskip(who, reason=f"{who} is not installed")
    load = workload(elements)
    if who == "copy":
        work, answer = load.copy(), load.x
    else:
        work = getattr(load, task)(fmt) if who == "lowprec" else PEERS[who](load, fmt, task)
        answer = expected(task, fmt, elements)
    assert_same_bits(timed_in_threads(benchmark, work, count), answer)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("rounding", [mode.value for mode in lp.Rounding])
@pytest.mark.parametrize("fmt", FORMATS[:3])
@pytest.mark.parametrize("elements", SIZES)
def test_rounding_mode(benchmark, elements, fmt, rounding, count):
    benchmark.group = f"round_to {fmt} by mode, {elements:,} float32"
    work = workload(elements).round_to(fmt, rounding=rounding, rng=0)
    result = timed_in_threads(benchmark, work, count)
    if lp.Rounding(rounding).is_stochastic:
        assert_fair(workload(elements).x, result, fmt, half=rounding == "stochastic_equal")
    else:
        assert_same_bits(result, expected("round_to", fmt, elements, rounding))


def assert_fair(x, rounded, fmt, *, half):
    """Each result is a neighbour, and the far one is as frequent as it should be, to 5 sigma."""
    near = lp.round_to(x, fmt, rounding="toward_zero").astype(np.float64)
    far = lp.round_to(x, fmt, rounding="away_from_zero").astype(np.float64)
    is_far = rounded == far
    assert np.all(is_far | (rounded == near))
    inexact = near != far
    gap = (far - near)[inexact]
    probability = np.full(gap.shape, 0.5) if half else (x[inexact] - near[inexact]) / gap
    sigma = np.sqrt(np.sum(probability * (1 - probability)))
    assert abs(np.sum(is_far[inexact] - probability)) <= 5 * sigma
