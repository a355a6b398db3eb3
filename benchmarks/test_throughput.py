"""Elements a second: encode, decode and round_to at 10^3 … 10^8 float32 elements.

A group holds one task, format and size: lowprec with one thread and with two, and each peer, into
memory given and into new memory. Every row notes its ratio to a float32 copy, measured in turns,
and how right its result is, judged by `exactness.rounded`; lowprec's must all be right.
"""

import functools

import numpy as np
import pytest
from exactness import accuracy, rounded
from peers import PEERS, name, values
from recording import timed_in_threads
from workload import FORMATS, workload

import lowprec as lp

SIZES = [10**k for k in range(3, 9)]
TIMED = [
    (elements, who, count, allocation)
    for elements in SIZES
    for who, peer in PEERS.items()
    for count in peer.threads
    for allocation in peer.allocations
    if elements <= peer.most
]
JUDGED = 10**7  # elements whose errors are told: at 10^8, the first of them


@functools.lru_cache(maxsize=4)
def expected(fmt, elements, rounding="ties_to_even"):
    return rounded(workload(elements).x[:JUDGED], lp.get_format(fmt), rounding)


def found(result, fmt, elements, rounding="ties_to_even"):
    """Judge a result against the exact one."""
    exact = workload(elements).x[:JUDGED].astype(np.float64)
    right = expected(fmt, elements, rounding)
    return accuracy(values(result, fmt)[:JUDGED], right, exact, lp.get_format(fmt))


@pytest.mark.parametrize("task", ["encode", "decode", "round_to"])
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(("elements", "who", "count", "allocation"), TIMED)
def test_conversion(benchmark, elements, who, count, allocation, fmt, task):
    if task not in PEERS[who].tasks:
        pytest.skip(f"{who} has no {task}")
    benchmark.group = f"{task} {fmt}, {elements:,} float32"
    load = workload(elements)
    work = PEERS[who].make(load, fmt, task, allocation == "allocated")
    width = lp.get_format(fmt).code_dtype.itemsize
    facts = {
        "kind": "conversion",
        "work": task,
        "format": fmt,
        "who": name(who, fmt),
        "allocation": allocation,
        "dtype": "float32",
        "bytes": elements * (8 if task == "round_to" else 4 + width),
        "note": PEERS[who].note(fmt, task),
    }
    result = timed_in_threads(benchmark, work, count, elements=elements, **facts)
    judged = found(result, fmt, elements)
    benchmark.extra_info.update(judged)
    if who == "lowprec":
        assert judged["bit_match"] == 1.0


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("rounding", [mode.value for mode in lp.Rounding])
@pytest.mark.parametrize("fmt", FORMATS[:3])
@pytest.mark.parametrize("elements", SIZES)
def test_rounding_mode(benchmark, elements, fmt, rounding, count):
    benchmark.group = f"round_to {fmt} by mode, {elements:,} float32"
    load = workload(elements)
    work = load.round_to(fmt, rounding=rounding, rng=0)
    facts = {"kind": "rounding mode", "work": rounding, "format": fmt, "who": "lowprec"}
    facts |= {"allocation": "preallocated", "dtype": "float32", "bytes": 8 * elements}
    result = timed_in_threads(benchmark, work, count, elements=elements, **facts)
    if lp.Rounding(rounding).is_stochastic:
        assert_fair(load.x, result, fmt, half=rounding == "stochastic_equal")
    else:
        judged = found(result, fmt, elements, rounding)
        benchmark.extra_info.update(judged)
        assert judged["bit_match"] == 1.0


def assert_fair(x, result, fmt, *, half):
    """Each result is a neighbour, and the far one is as frequent as it should be, to 5 sigma."""
    x, result = x[:JUDGED], result[:JUDGED]
    near = rounded(x, lp.get_format(fmt), "toward_zero")
    far = rounded(x, lp.get_format(fmt), "away_from_zero")
    is_far = result == far
    assert np.all(is_far | (result == near))
    inexact = near != far
    gap = (far - near)[inexact]
    probability = np.full(gap.shape, 0.5) if half else (x[inexact] - near[inexact]) / gap
    sigma = np.sqrt(np.sum(probability * (1 - probability)))
    assert abs(np.sum(is_far[inexact] - probability)) <= 5 * sigma
