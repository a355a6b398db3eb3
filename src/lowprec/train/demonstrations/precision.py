"""Sums that stall, and outputs that their format cannot tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from lowprec.accumulation import sum as summed
from lowprec.train.dataset import Dataset
from lowprec.train.demonstrations.demonstration import Demonstration, network, recorded
from lowprec.train.optimizers import SGD


def stalling_sums() -> Demonstration:
    """Show that a running sum in bfloat16 stops growing: long products come out too small."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.5, 1.5, (160, 2048)).astype(np.float32)
    y = x[:, :1024].mean(axis=1, keepdims=True)
    data = Dataset(x[:128], y[:128], x[128:], y[128:], "means")
    model = network(data, [])
    start = {"0/kernel": np.full((2048, 1), 1 / 2048, np.float32), "0/bias": np.zeros(1)}
    how: dict[str, Any] = {"loss": "mse", "optimizer": SGD(1e-5), "epochs": 3, "params": start}
    narrow, recorder = recorded(model, data, policy="accumulate=bfloat16", every=1, **how)
    wide, _ = recorded(model, data, policy="float32", every=1, **how)
    _, cured = recorded(model, data, policy="float32", every=1, reference=wide, **how)
    total = float(summed(np.ones(2048), "bfloat16"))
    ends = [history.history["rmse"][0] for history in (wide, narrow)]
    return Demonstration(
        "Accumulators that stall",
        total,
        f"2048 ones sum to {total:.0f} in bfloat16. A mean of 2048 features is off by an RMS of "
        f"{ends[1]:.3f} in the first epoch, {ends[0]:.3f} when accumulated in float32.",
        "long sums",
        recorder,
        cured,
    )


def precision_floor() -> Demonstration:
    """Show that y = x + 10 is learnt to the spacing of the outputs, master weights or not."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 200, (600, 1))
    data = Dataset(x[:400], x[:400] + 10, x[400:], x[400:] + 10, "y = x + 10").scaled("standard")
    model = network(data, [])
    how: dict[str, Any] = {"loss": "mse", "optimizer": SGD(0.2), "epochs": 40}
    floors, recorders = {}, {}
    policies = ("float32", "mixed_float16", "float16", "mixed_bfloat16", "bfloat16")
    for policy in policies:
        history, recorders[policy] = recorded(model, data, policy=policy, **how)
        floors[policy] = history.history["val_rmse"][-1]
    told = ", ".join(f"{policy} {floor:.2g}" for policy, floor in floors.items())
    return Demonstration(
        "The precision floor of y = x + 10",
        floors["mixed_bfloat16"],
        f"RMSE on the test set: {told}. Master weights (mixed) do not lift it.",
        "precision of the outputs",
        recorders["mixed_bfloat16"],
    )
