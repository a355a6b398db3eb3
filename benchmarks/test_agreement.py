"""Who rounds as IEEE 754 and the OCP specification say, where it is hard.

The operands are every number of a format, the middles between neighbours with the float32 numbers
next to them, and what lies beyond the largest number: ties, subnormal results, overflow, new zeros.
A row's time is that of so few elements; its point is the share that is right to the bit.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from exactness import accuracy, rounded
from peers import PEERS, name, values
from recording import timed_in_threads
from workload import FORMATS

import lowprec as lp


def hard_cases(fmt):
    """Return float32 numbers of both signs, with their neighbours."""
    chosen = lp.get_format(fmt)
    codes = np.arange(2**chosen.bits).astype(chosen.code_dtype)
    numbers = np.unique(np.abs(codes.view(chosen.dtype).astype(np.float64)))
    numbers = numbers[np.isfinite(numbers)][:: max(len(numbers) // 4096, 1)]
    beyond = np.float64(chosen.max) * np.array([1, 1 + chosen.eps / 4, 1.03, 1.07, 1.5, 2, 1e4])
    points = np.concatenate([numbers, (numbers[1:] + numbers[:-1]) / 2, beyond])
    points = points[points < np.finfo(np.float32).max].astype(np.float32)
    near = [np.nextafter(points, np.float32(side)) for side in (0, np.finfo(np.float32).max)]
    positive = np.concatenate([points, *near])
    return np.concatenate([positive, -positive])


@pytest.mark.parametrize("who", PEERS)
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # peers that overflow
def test_hard_cases(benchmark, fmt, who):
    benchmark.group = f"hard cases, {fmt}"
    x = hard_cases(fmt)
    load = SimpleNamespace(x=x, y=np.empty_like(x))
    facts = {"kind": "agreement", "work": "hard cases", "format": fmt, "who": name(who, fmt)}
    facts |= {"allocation": "allocated", "dtype": "float32"}
    facts["note"] = PEERS[who].note(fmt)
    if who == "lowprec":
        work = lambda: lp.round_to(x, fmt)  # noqa: E731
    else:
        work = PEERS[who].make(load, fmt, "round_to", True)
    result = timed_in_threads(benchmark, work, 1, elements=x.size, **facts)
    chosen = lp.get_format(fmt)
    judged = accuracy(values(result, fmt), rounded(x, chosen), x.astype(np.float64), chosen)
    benchmark.extra_info.update(judged)
    if who == "lowprec":
        assert judged["bit_match"] == 1.0
