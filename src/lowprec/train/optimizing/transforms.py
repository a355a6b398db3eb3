"""The parts of optimizers: what a part is, how parts chain, and the simple parts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.train.optimizing.state import Slot, State

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = np.ndarray[Any, Any]
Params = dict[str, Array]
Store = Callable[[Array], Array]
Fused = Callable[[State, str, Array, Array, Array, int, float], Array]
slot = functools.lru_cache(4096)(Slot)  # every step asks for the same ones


def as_it_is(array: Array) -> Array:
    """Return the array itself: state that is stored in the dtype of its arithmetic."""
    return array


class Transform(NamedTuple):
    """A part of an optimizer: two functions, which turn gradients into updates.

    The parts here are made of named functions and numbers, so that they can be pickled.

    init: ``init(params) -> state``: by `Slot`, such as ``"first_moment/0/kernel"``, arrays of the
        parameters' shapes and dtypes.
    update: ``update(gradients, state, params, step, rate, store) -> (updates, state)``: `step`
        counts from 1, `rate` is this step's learning rate, `store` rounds an array to the format of
        the state. It works in place: the updates take the arrays of the gradients, and the new
        state those of the state; `params` stay as they are. Parameters without a gradient are left
        out.
    fused: ``fused(state, name, parameter, gradient, out, step, rate) -> out``: does to one
        parameter, of which no state is rounded, what `update` and an addition do, with the same
        bits, and returns the sum in `out`; that may be the gradient, which else becomes the update.

    Notes
    -----
    All arithmetic is in the arrays' own dtype, float32 in training. Scalars such as bias
    corrections are computed in float64 and rounded once, where they meet an array, as PyTorch does.
    State is rounded when it is stored, and what is stored makes the update: in a narrow format a
    mean square that underflows divides by epsilon alone, as it does where all is in that format.
    """

    init: Callable[[Params], State]
    update: Callable[[Params, State, Params, int, float, Store], tuple[Params, State]]
    fused: Fused | None = None


class Step(NamedTuple):
    """What a rule of `each` may look at beside its gradient, and how it stores what it keeps."""

    number: int
    rate: float
    parameter: Array
    store: Store

    def keep(self, array: Array) -> None:
        """Round an array of the state, in place, to the format in which it is stored."""
        rounded = self.store(array)
        if rounded is not array:
            np.copyto(array, rounded)


def chain(*parts: Transform) -> Transform:
    """Return the transform that applies these, one after another; without parts: the identity.

    Raises
    ------
    ValueError
        From ``init``, if two of them keep a state of the same name.

    Examples
    --------
    >>> plain = chain(trace(0.9), scale_by_rate())
    >>> params = {"0/bias": np.float32([1.0])}
    >>> state = plain.init(params)
    >>> list(state)
    ['momentum/0/bias']
    >>> plain.update({"0/bias": np.float32([2.0])}, state, params, 1, 0.5, as_it_is)[0]
    {'0/bias': array([-1.], dtype=float32)}
    """
    return Transform(functools.partial(_init_all, parts), functools.partial(_update_all, parts))


def _init_all(parts: tuple[Transform, ...], params: Params) -> State:
    state: State = {}
    for part in parts:
        own = part.init(params)
        if clash := sorted(state.keys() & own.keys()):
            raise ValueError(f"two parts of a chain keep {clash[0]!r}; use each kind of part once")
        state |= own
    return state


def _update_all(
    parts: tuple[Transform, ...],
    gradients: Params,
    state: State,
    params: Params,
    step: int,
    rate: float,
    store: Store,
) -> tuple[Params, State]:
    for part in parts:
        gradients, state = part.update(gradients, state, params, step, rate, store)
    return gradients, state


def each(rule: Callable[..., None], **kept: float) -> Transform:
    """Return the transform that applies a rule to one gradient after another.

    Parameters
    ----------
    rule : callable
        ``rule(gradient, step, *kept)`` overwrites the gradient with the update and the arrays it
        keeps with their new values; `step` is a `Step`, whose ``keep`` rounds those.
    **kept : float
        The arrays that it keeps for each parameter, in the order of its arguments: the name of
        each, and what fills it at first.

    Examples
    --------
    >>> def sign(g, step):
    ...     np.sign(g, out=g)
    >>> plain = chain(each(sign), scale_by_rate())
    >>> plain.update({"w": np.float32([-3])}, {}, {"w": np.float32([1])}, 1, 0.1, as_it_is)[0]
    {'w': array([0.1], dtype=float32)}
    """
    return Transform(functools.partial(_fill, kept), functools.partial(_apply, rule, tuple(kept)))


def _fill(kept: Mapping[str, float], params: Params) -> State:
    return {
        slot(kind, name): np.full_like(parameter, first)
        for kind, first in kept.items()
        for name, parameter in params.items()
    }


def _apply(
    rule: Callable[..., None],
    kinds: tuple[str, ...],
    gradients: Params,
    state: State,
    params: Params,
    step: int,
    rate: float,
    store: Store,
) -> tuple[Params, State]:
    for name, g in gradients.items():
        at = Step(step, rate, params[name], store)
        rule(g, at, *(state[slot(kind, name)] for kind in kinds))
    return gradients, state


def scale_by_rate(decay: float = 0.0) -> Transform:
    """Multiply by minus the learning rate: the last part of every optimizer.

    Parameters
    ----------
    decay : float
        The rate is divided by ``1 + (step - 1) * decay``.
    """
    return each(functools.partial(_scale_by_rate, decay=decay))


def _scale_by_rate(g: Array, step: Step, *, decay: float) -> None:
    g *= -step.rate / (1 + (step.number - 1) * decay)


def descend(
    state: State, name: str, parameter: Array, gradient: Array, out: Array, step: int, rate: float
) -> Array:
    """Do what `scale_by_rate` and an addition do."""
    from lowprec.kernels import training  # imports Numba

    updated: Array = training.descend(parameter, gradient, out, -rate)
    return updated


def add_decayed_weights(weight_decay: float) -> Transform:
    """Add ``weight_decay * params`` to the gradients: the gradient of an L2 penalty."""
    if not weight_decay:
        return chain()
    return each(functools.partial(_add_decayed_weights, weight_decay=weight_decay))


def _add_decayed_weights(g: Array, step: Step, *, weight_decay: float) -> None:
    g += step.parameter * weight_decay


def decay_weights(weight_decay: float) -> Transform:
    """Let the weights themselves decay by ``rate * weight_decay``: a part after `scale_by_rate`."""
    if not weight_decay:
        return chain()
    return each(functools.partial(_decay_weights, weight_decay=weight_decay))


def _decay_weights(g: Array, step: Step, *, weight_decay: float) -> None:
    # PyTorch rounds 1 - rate·decay to the weights' dtype; that error adds up over the steps.
    kept = float(g.dtype.type(1 - step.rate * weight_decay))
    g += step.parameter * (kept - 1)


def trace(momentum: float, nesterov: bool = False) -> Transform:
    """Momentum: b ← momentum·b + g; b, or for Nesterov's g + momentum·b, is the update."""
    if not momentum:
        return chain()
    return each(functools.partial(_trace, momentum=momentum, nesterov=nesterov), momentum=0)


def _trace(g: Array, step: Step, b: Array, *, momentum: float, nesterov: bool) -> None:
    b *= momentum
    b += g
    step.keep(b)
    if nesterov:
        g += b * momentum
    else:
        np.copyto(g, b)
