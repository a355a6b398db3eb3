"""What the flight recorder costs: ten steps, of which it records one, beside ten without it.

The recorded run must give the same losses. The promise is a quarter at most, of the smaller network
too: 64-100-100-10 on digits, batches of 32.
"""

import pytest
from timing import threads
from training_steps import SETTINGS, ten_steps

from lowprec import train


@pytest.mark.parametrize("recorded", [False, True], ids=["alone", "recorded"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16", "mixed_float8"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_ten_steps(benchmark, setting, policy, optimizer, recorded):
    benchmark.group = f"ten steps of {setting} in {policy}, {optimizer}"
    how = setting, policy, optimizer
    with threads(1):
        alone = ten_steps(*how, None)()
        assert ten_steps(*how, train.Recorder(10))() == alone
        benchmark(ten_steps(*how, train.Recorder(10) if recorded else None))
