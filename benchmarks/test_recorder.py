"""What the flight recorder costs: ten steps, of which it records one, beside ten without it.

The recorded run must give the same losses. The promise is a quarter at most, of the smaller network
too: 64-100-100-10 on digits, batches of 32.
"""

import numpy as np
import pytest
from timing import threads
from training_steps import CROSSENTROPY, RATES, batch, network

from lowprec import train
from lowprec.train.running.training import Training


def digits():
    hidden = [train.Dense(100, activation="relu") for _ in range(2)]
    data = train.data.digits()
    model = train.Sequential([train.Input((64,)), *hidden, train.Dense(10)])
    return model, np.ascontiguousarray(data.x_train[:32]), data.y_train[:32]


SETTINGS = {"pictures": lambda: (network(), *batch()), "digits": digits}


def ten_steps(setting, policy, optimizer, recorder):
    model, x, y = SETTINGS[setting]()
    made = {"SGD": train.SGD, "Adam": train.Adam}[optimizer](RATES[optimizer])
    data = train.Dataset(x, y, x, y)
    running = Training(
        model, data, loss=CROSSENTROPY, optimizer=made, policy=policy, recorder=recorder
    )
    running.start(None)
    return lambda: [running.run_step(x, y).loss for _ in range(10)]


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
