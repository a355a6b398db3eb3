"""What initializers make of signals on their way through a deep network, in each format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.formats import get_format
from lowprec.train import initializers, losses
from lowprec.train.layers import Dense, Input
from lowprec.train.model import Sequential
from lowprec.train.policy import Policy
from lowprec.train.recorder.kinds import labels_of
from lowprec.train.recorder.recorder import Recorder
from lowprec.train.recorder.watching import Recording
from lowprec.train.running import passes
from lowprec.train.running.listening import Listening

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lowprec.formats import FormatLike
    from lowprec.train.initializers import Initializer

STARTS: dict[str, Initializer] = {
    "std 1": initializers.RandomNormal(stddev=1.0),
    "std 0.01": initializers.RandomNormal(stddev=0.01),
    "Glorot": initializers.get("glorot_uniform"),
    "He": initializers.get("he_normal"),
}
"""What networks are started from: two that are wrong for deep ones, and two that are right."""


def record_starts(
    formats: Iterable[FormatLike] = ("float32", "bfloat16", "float16"),
    starts: Mapping[str, Initializer] = STARTS,
    *,
    layers: int = 5,
    units: int = 100,
    activation: str = "tanh",
    rng: Any = 0,
) -> dict[str, dict[str, Recorder]]:
    """Record one pass forward and backward through a network just started, in each format.

    Inputs are 128 samples of a standard normal distribution; the loss is the mean square.

    formats: Of the forward and the backward pass.
    starts: What kernels start from.
    layers, units: Hidden layers, and the width of each and of the inputs.
    rng (int): The seed, the same for every start and format.
    Returns: By start, then by format; `lowprec.train.recorder.plots.starts_figure` draws it.

    Examples
    --------
    >>> found = record_starts(["float16"], layers=3)
    >>> sizes = [found["std 0.01"]["float16"].track("activation", str(i)).whole.rms for i in (0, 2)]
    >>> sizes[1] < sizes[0] / 50
    True
    """
    x = np.random.default_rng(rng).standard_normal((128, units)).astype(np.float32)
    y = np.zeros((128, 10), np.float32)
    found: dict[str, dict[str, Recorder]] = {}
    for name, start in starts.items():
        inner = [Dense(units, activation, kernel_initializer=start) for _ in range(layers)]
        model = Sequential([Input((units,)), *inner, Dense(10, kernel_initializer=start)])
        params = model.init(np.random.default_rng(rng))
        found[name] = {str(get_format(f)): _record(model, params, x, y, f) for f in formats}
    return found


def _record(model: Sequential, params: dict[str, Any], x: Any, y: Any, fmt: FormatLike) -> Recorder:
    policy = Policy(compute=fmt)
    recorder, numerics = Recorder(1, policy=policy), Listening(policy)
    recorder.labels = labels_of(model.layers)
    recorder.steps = recorder.recorded = 1
    watch = Recording(numerics, recorder, 0, 1.0)
    passes.run_pass(model, params, x, y, losses.get("mse"), numerics, watch=watch)
    return recorder
