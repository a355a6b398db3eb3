"""What the report trains: a small network on the digits, under policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec import train
from lowprec.train.studies.comparison import compare_policies

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.train.studies.policy_comparison import PolicyComparison

POLICIES = (
    "float32",
    "mixed_bfloat16",
    "mixed_float16",
    "mixed_float8",
    "bfloat16",
    "bfloat16_stochastic",
    "float16",
)
SEEDS = 5


def train_policies(step: Callable[[str], None]) -> PolicyComparison:
    """Train a small network on the digits under the policies.

    step: Called with a description after each run: ``len(POLICIES) * SEEDS`` times.
    """
    layers = [train.Dense(100, activation="relu"), train.Dense(100, activation="relu")]
    return compare_policies(
        train.Sequential([train.Input((64,)), *layers, train.Dense(10)]),
        train.data.digits(),
        POLICIES,
        SEEDS,
        optimizer=train.Adam(1e-3),
        progress=lambda description, done, total: step(f"trained {description}"),
    )
