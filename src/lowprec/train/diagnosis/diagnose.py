"""diagnose: the outcome, the part, the place and the cure of a training, each by experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.randomness import draw_key
from lowprec.train import optimizers
from lowprec.train.diagnosis.bench import Bench
from lowprec.train.diagnosis.curing import try_cures, try_one_cure
from lowprec.train.diagnosis.diagnosis import Cure, Diagnosis
from lowprec.train.diagnosis.search import Search
from lowprec.train.diagnosis.sentences import sentences_of
from lowprec.train.diagnosis.user_code import find_fault
from lowprec.train.policy import Policy, get_policy
from lowprec.train.running.outcome import (
    TOLERANCE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from lowprec.common.randomness import RNGLike
    from lowprec.train.losses import Loss
    from lowprec.train.model import Sequential
    from lowprec.train.optimizing.optimizer import Optimizer
    from lowprec.train.running.history import History


def diagnose(
    model: Sequential,
    data: Any,
    *,
    loss: str | Loss,
    optimizer: Optimizer | str,
    policy: Policy | str,
    reference: History | Sequence[float] | None = None,
    tolerance: float = TOLERANCE,
    budget: float | None = 60.0,
    executor: Executor | None = None,
    epochs: int = 1,
    rng: RNGLike = 0,
    progress: Callable[[str, int], None] | None = None,
    **fit_arguments: Any,
) -> Diagnosis:
    """Find out what became of a training, what part of its policy is to blame, where, and the cure.

    The training is made under the policy and in float32. Where it ends worse, each part of the
    policy is made wide alone, then layers alone, and each cure is tried: what is said was shown by
    a training. The same seed and the same experiments give the same diagnosis, through any
    executor.

    Parameters
    ----------
    model, data, loss, optimizer, policy, epochs, rng
        As for `fit`.
    reference : History or sequence of float, optional
        The same training in float32, or its loss by epoch; by default it is made here.
    tolerance : float
        The share of float32's progress that may be lacking.
    budget : float or None
        Seconds for all trainings, in this order: the outcome, the parts, one cure, the place, the
        other cures. What was not made is named. None makes all.
    executor : concurrent.futures.Executor, optional
        What trainings are submitted to: threads, processes or a cluster's client.
    progress : callable, optional
        Called as ``progress(description, done)`` after each training.
    **fit_arguments
        All other arguments of `fit` but ``recorder``, ``resume`` and ``verbose``.

    Returns
    -------
    Diagnosis
        It prints as its verdict.

    Raises
    ------
    ValueError
        If the arguments do not fit each other, `budget` is negative, or `tolerance` no share.
    TypeError
        If ``recorder``, ``resume`` or ``verbose`` is passed, or what `fit` does not take.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((4,)), train.Dense(3)])
    >>> how = {"loss": "sparse_categorical_crossentropy", "optimizer": train.SGD(1e-3)}
    >>> data = train.data.iris().scaled("standard")
    >>> found = diagnose(model, data, policy="bfloat16", epochs=60, budget=None, **how)
    >>> found.cause
    'params'
    """
    for word in ("recorder", "resume", "verbose"):
        if word in fit_arguments:
            raise TypeError(
                f"diagnose has no argument {word!r}: it trains anew, and records itself"
            )
    if budget is not None and not budget >= 0:
        raise ValueError(f"budget={budget}: seconds are 0 or more, and None makes everything")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance={tolerance} is no share of the progress; use one as 0.05")
    how = {
        "loss": loss,
        "optimizer": optimizers.get(optimizer),
        "policy": get_policy(policy),
        "epochs": epochs,
        "rng": _seed(rng),
        **fit_arguments,
    }
    bench = Bench(model, data, how, budget=budget, executor=executor, progress=progress)
    return _made(Search(bench, reference, tolerance))


def _made(search: Search) -> Diagnosis:
    """Make the experiments in their order, and say what they show."""
    search.find_outcome()
    found: list[Cure] = []
    if search.outcome.is_red:
        search.find_cause()
        try_one_cure(search)
        search.find_place()
        found = try_cures(search)
    elif search.bench.seconds_left > search.bench.longest:  # float32 has the same user's code
        search.fault = find_fault(search.bench.model, search.bench.data, search.bench.how)
    told = sentences_of(search, found)
    return Diagnosis(
        search.outcome,
        search.cause_in_words(),
        search.place_in_words(),
        found,
        search.experiments,
        [sentence for _, sentence in told],
        search.narrow.recorder,
        tuple(topic for topic, _ in told),
    )


def _seed(rng: RNGLike) -> RNGLike:
    """Return a seed that gives every training the same randomness."""
    return rng if isinstance(rng, int | np.integer) else draw_key(rng)
