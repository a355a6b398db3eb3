"""The way that an optimizer takes down a valley of two parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import in_exact_state_but_users_code, in_its_state
from lowprec.train import optimizers
from lowprec.train.numerics import numerics_of
from lowprec.train.optimizing.optimizer import counts_epochs
from lowprec.train.policy import get_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowprec.train.optimizing.optimizer import Optimizer
    from lowprec.train.policy import Policy

Array = np.ndarray[Any, Any]


def valley(w: Array) -> Array:
    """Return the gradient of x²/20 + y², a valley that is long along x and steep along y."""
    return np.asarray(w * np.array([0.1, 2.0], w.dtype))


@in_exact_state_but_users_code
def optimizer_path(
    optimizer: Optimizer | str,
    start: Sequence[float] = (-7.0, 2.0),
    steps: int = 30,
    *,
    gradient: Callable[[Array], Array] = valley,
    policy: Policy | str = "float32",
) -> Array:
    """Return the points that an optimizer passes, by default down the valley x²/20 + y².

    Parameters
    ----------
    optimizer : Optimizer or str
        The optimizer, with its learning rate.
    start : sequence of float
        Where it begins.
    steps : int
        How many steps it takes.
    gradient : callable
        ``gradient(point) -> array``; by default that of x²/20 + y².
    policy : Policy or str
        How points, gradients and the optimizer's state are rounded; its updates are rounded to
        nearest.

    Returns
    -------
    ndarray of float32, shape (steps + 1, coordinates)
        The start, and the point after each step.

    Raises
    ------
    ValueError
        If the policy's updates are stochastic or compensated, or the schedule counts epochs.

    Examples
    --------
    >>> from lowprec import train
    >>> path = optimizer_path(train.SGD(0.5), steps=2)
    >>> path.tolist()
    [[-7.0, 2.0], [-6.650000095367432, 0.0], [-6.317500114440918, 0.0]]
    """
    numerics, found = numerics_of(get_policy(policy)), optimizers.get(optimizer)
    if numerics.policy.update != "nearest" or counts_epochs(found.learning_rate):
        raise ValueError(
            f"a path in {numerics.policy} with {found.learning_rate!r}: use a policy that rounds "
            "to nearest, and a schedule that counts steps"
        )
    of_point = in_its_state(gradient)
    w = numerics.params(numerics.array(start))
    state = found.at(0).init({"w": w})
    points = [w]
    for step in range(steps):
        g = numerics.gradient(numerics.array(of_point(numerics.compute(w)))).copy()
        updates, state = found.at(step).update(
            {"w": g}, state, {"w": w}, step + 1, found.rate(step), numerics.state
        )
        with np.errstate(all="ignore"):
            w = numerics.updated(w, updates["w"])
        points.append(w)
    return np.array(points)
