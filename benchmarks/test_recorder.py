"""What the flight recorder costs: ten steps, of which it records one, beside ten without it.

The recorded run must give the same losses. The promise is a quarter at most.
"""

import pytest
from timing import threads
from training_steps import CROSSENTROPY, RATES, batch, network

from lowprec import train
from lowprec.train.running.training import Training


def ten_steps(policy, optimizer, recorder):
    x, y = batch()
    made = {"SGD": train.SGD, "Adam": train.Adam}[optimizer](RATES[optimizer])
    data = train.Dataset(x, y, x, y)
    running = Training(
        network(), data, loss=CROSSENTROPY, optimizer=made, policy=policy, recorder=recorder
    )
    running.start(None)
    return lambda: [running.run_step(x, y).loss for _ in range(10)]


@pytest.mark.parametrize("recorded", [False, True], ids=["alone", "recorded"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16", "mixed_float8"])
def test_ten_steps(benchmark, policy, optimizer, recorded):
    benchmark.group = f"ten steps in {policy}, {optimizer}"
    with threads(1):
        alone = ten_steps(policy, optimizer, None)()
        assert ten_steps(policy, optimizer, train.Recorder(10))() == alone
        benchmark(ten_steps(policy, optimizer, train.Recorder(10) if recorded else None))
