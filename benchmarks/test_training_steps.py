"""A training step by policy, beside the same step in plain NumPy float32 and in torch.

Every step's losses are checked over its first steps: those of float32 agree to rounding, those of a
policy come down with them.
"""

import itertools

import numpy as np
import pytest
from recording import timed
from timing import threads
from training_steps import WIDTHS, in_numpy, in_torch, one_blas_thread, ours

pytest.importorskip("threadpoolctl", reason="threadpoolctl, which holds BLAS to one thread")

POLICIES = ["float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "mixed_float8"]


def first_losses(make):
    step = make()
    return np.array([step() for _ in range(20)])


def close(losses, tolerance):
    expected = first_losses(lambda: in_numpy("SGD"))
    return np.abs(losses - expected).max() <= tolerance


def record(benchmark, step, optimizer, who, fmt):
    """Time a step in turns with NumPy's, and say whose it is."""
    facts = {"kind": "training step", "work": f"step, {optimizer}", "format": fmt, "who": who}
    elements = sum(rows * columns for rows, columns in itertools.pairwise(WIDTHS))
    timed(benchmark, step, elements=elements, float32=in_numpy(optimizer), threads=1, **facts)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("policy", POLICIES)
def test_step(benchmark, policy, optimizer):
    benchmark.group = f"training step, {optimizer}"
    with threads(1):
        if optimizer == "SGD":
            tolerance = {"float32": 1e-5, "mixed_float8": 0.1}.get(policy, 0.02)
            assert close(first_losses(lambda: ours(policy, optimizer)), tolerance)
        with one_blas_thread():
            record(benchmark, ours(policy, optimizer), optimizer, "lowprec", policy)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_step_in_numpy(benchmark, optimizer):
    benchmark.group = f"training step, {optimizer}"
    with one_blas_thread():
        record(benchmark, in_numpy(optimizer), optimizer, "numpy", "float32")


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_step_in_torch(benchmark, optimizer, dtype):
    pytest.importorskip("torch", reason="torch is not installed")
    benchmark.group = f"training step, {optimizer}"
    with threads(1):
        if optimizer == "SGD" and dtype is None:
            assert close(first_losses(lambda: in_torch("SGD")), 1e-5)
        with one_blas_thread():
            who = "torch, autocast" if dtype else "torch"
            fmt = f"mixed_{dtype}" if dtype else "float32"
            record(benchmark, in_torch(optimizer, dtype), optimizer, who, fmt)
