"""Optimizers: compositions of small transforms, with PyTorch's formulas and defaults."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, TypeVar

from lowprec.common.names import named
from lowprec.train import keras_words
from lowprec.train import schedules as schedules
from lowprec.train.optimizing.adaptive import (
    fused_adam,
    scale_by_adadelta,
    scale_by_adam,
    scale_by_adamax,
    scale_by_nadam,
    scale_by_rms,
    scale_by_sum_of_squares,
)
from lowprec.train.optimizing.optimizer import (
    Optimizer,
    compose,
    require_fraction,
    require_not_negative,
)
from lowprec.train.optimizing.transforms import (
    add_decayed_weights,
    decay_weights,
    descend,
    scale_by_rate,
    trace,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.train.optimizing.optimizer import Rate
    from lowprec.train.optimizing.transforms import Fused, Transform

__all__ = [
    "SGD",
    "AdaGrad",
    "AdaMax",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Momentum",
    "Nadam",
    "Nesterov",
    "Optimizer",
    "RMSProp",
    "RMSprop",
    "get",
    "remade",
]


_OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {}
_Make = TypeVar("_Make", bound="Callable[..., Optimizer]")


def _known(make: _Make) -> _Make:
    """Let an optimizer be asked for by its name."""
    _OPTIMIZERS[make.__name__.lower()] = make
    return make


@_known
def SGD(
    learning_rate: Rate = 1e-3,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    **clipping: float | None,
) -> Optimizer:
    """Stochastic gradient descent, ``torch.optim.SGD``.

    Parameters
    ----------
    learning_rate : float or schedule
        PyTorch's ``lr``.
    momentum : float
        In [0, 1): b ← momentum·b + g, and b takes the place of g.
    nesterov : bool
        Whether g + momentum·b does.
    weight_decay : float
        Times the parameters, added to the gradients: an L2 penalty.
    **clipping
        At most one of ``clipvalue`` (of elements), ``clipnorm`` (of each gradient's norm) and
        ``global_clipnorm`` (of the norm of all together): limits of the unscaled gradients.

    Raises
    ------
    ValueError
        If a number is out of its range, Nesterov's has no momentum, or two clips are given.

    Examples
    --------
    >>> SGD(0.1, momentum=0.9, global_clipnorm=1.0).hyperparameters
    {'momentum': 0.9, 'nesterov': False, 'weight_decay': 0.0, 'global_clipnorm': 1.0}
    """
    require_fraction(momentum=momentum)
    require_not_negative(weight_decay=weight_decay)
    if nesterov and not momentum:
        raise ValueError("nesterov=True with momentum=0: pass a momentum, 0.9 for instance")
    numbers = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    fused = None if momentum or weight_decay else descend
    return _movable("momentum", "SGD", learning_rate, numbers, clipping, _sgd_parts, fused)


def _sgd_parts(momentum: float, nesterov: bool, weight_decay: float) -> tuple[Transform, ...]:
    return add_decayed_weights(weight_decay), trace(momentum, nesterov), scale_by_rate()


@_known
def Momentum(learning_rate: Rate = 1e-3, momentum: float = 0.9, **others: Any) -> Optimizer:
    """`SGD` with momentum; the other arguments are its own."""
    return dataclasses.replace(SGD(learning_rate, momentum, **others), name="Momentum")


@_known
def Nesterov(learning_rate: Rate = 1e-3, momentum: float = 0.9, **others: Any) -> Optimizer:
    """`SGD` with Nesterov's momentum; the other arguments are its own."""
    return dataclasses.replace(
        SGD(learning_rate, momentum, nesterov=True, **others), name="Nesterov"
    )


@_known
def AdaGrad(
    learning_rate: Rate = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    epsilon: float = 1e-10,
    **clipping: float | None,
) -> Optimizer:
    """AdaGrad, ``torch.optim.Adagrad``: gradients over the root of the sum of their squares.

    Parameters
    ----------
    learning_rate : float or schedule
        PyTorch's ``lr``.
    lr_decay : float
        The rate of step t, from 1, is divided by ``1 + (t - 1) * lr_decay``.
    weight_decay, **clipping
        As for `SGD`.
    initial_accumulator_value : float
        What the sums start from.
    epsilon : float
        Added to the root; PyTorch's ``eps``.
    """
    numbers = {
        "lr_decay": lr_decay,
        "weight_decay": weight_decay,
        "initial_accumulator_value": initial_accumulator_value,
        "epsilon": epsilon,
    }
    require_not_negative(**numbers)
    return compose(
        "AdaGrad",
        learning_rate,
        numbers,
        clipping,
        add_decayed_weights(weight_decay),
        scale_by_sum_of_squares(epsilon, initial_accumulator_value),
        scale_by_rate(lr_decay),
    )


@_known
def Adadelta(
    learning_rate: Rate = 1.0,
    rho: float = 0.9,
    epsilon: float = 1e-6,
    weight_decay: float = 0.0,
    **clipping: float | None,
) -> Optimizer:
    """Adadelta, ``torch.optim.Adadelta``: gradients times a running size of updates over their own.

    Parameters
    ----------
    learning_rate : float or schedule
        PyTorch's ``lr``.
    rho : float
        In [0, 1), how much of both running mean squares stays.
    epsilon : float
        Positive, added to both mean squares below the root; PyTorch's ``eps``.
    weight_decay, **clipping
        As for `SGD`.
    """
    require_fraction(rho=rho)
    require_not_negative(epsilon=epsilon, weight_decay=weight_decay)
    if not epsilon:
        raise ValueError("epsilon=0: Adadelta's first update is in proportion to it; use 1e-6")
    return compose(
        "Adadelta",
        learning_rate,
        {"rho": rho, "epsilon": epsilon, "weight_decay": weight_decay},
        clipping,
        add_decayed_weights(weight_decay),
        scale_by_adadelta(rho, epsilon),
        scale_by_rate(),
    )


@_known
def RMSProp(
    learning_rate: Rate = 1e-2,
    rho: float = 0.99,
    epsilon: float = 1e-8,
    momentum: float = 0.0,
    centered: bool = False,
    weight_decay: float = 0.0,
    **clipping: float | None,
) -> Optimizer:
    """RMSProp, ``torch.optim.RMSprop``: gradients over a running root of their mean square.

    Parameters
    ----------
    learning_rate : float or schedule
        PyTorch's ``lr``.
    rho : float
        In [0, 1), how much of the running mean stays; PyTorch's ``alpha``.
    epsilon : float
        Added to the root; PyTorch's ``eps``.
    momentum : float
        In [0, 1), of the scaled gradients.
    centered : bool
        Whether the mean square is taken about the running mean.
    weight_decay, **clipping
        As for `SGD`.
    """
    require_fraction(rho=rho, momentum=momentum)
    require_not_negative(epsilon=epsilon, weight_decay=weight_decay)
    numbers = {
        "rho": rho,
        "epsilon": epsilon,
        "momentum": momentum,
        "centered": centered,
        "weight_decay": weight_decay,
    }
    return _movable("momentum", "RMSProp", learning_rate, numbers, clipping, _rmsprop_parts)


def _rmsprop_parts(
    rho: float, epsilon: float, momentum: float, centered: bool, weight_decay: float
) -> tuple[Transform, ...]:
    scaled = scale_by_rms(rho, epsilon, centered)
    return add_decayed_weights(weight_decay), scaled, trace(momentum), scale_by_rate()


@_known
def Adam(
    learning_rate: Rate = 1e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    **clipping: float | None,
) -> Optimizer:
    """Adam, ``torch.optim.Adam``: the running mean over the running root mean square.

    Parameters
    ----------
    learning_rate : float or schedule
        PyTorch's ``lr``.
    beta_1, beta_2 : float
        In [0, 1), how much of the running means of g and g² stays; PyTorch's ``betas``.
    epsilon : float
        Added to the root after the bias correction; PyTorch's ``eps``.
    weight_decay, **clipping
        As for `SGD`: the decay is an L2 penalty.

    Examples
    --------
    >>> Adam(1e-3).rate(0)
    0.001
    """
    numbers = _of_adams_family(beta_1, beta_2, epsilon, weight_decay)
    fused = None if weight_decay else fused_adam(beta_1, beta_2, epsilon)
    return _movable("beta_1", "Adam", learning_rate, numbers, clipping, _adam_parts, fused)


@_known
def AdamW(
    learning_rate: Rate = 1e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 1e-2,
    **clipping: float | None,
) -> Optimizer:
    """AdamW, ``torch.optim.AdamW``: `Adam` whose weights decay by ``rate * weight_decay`` itself.

    The decay passes by the running means: it is not part of the gradients. The other arguments are
    those of `Adam`.
    """
    numbers = _of_adams_family(beta_1, beta_2, epsilon, weight_decay)
    return _movable("beta_1", "AdamW", learning_rate, numbers, clipping, _adamw_parts)


@_known
def AdaMax(
    learning_rate: Rate = 2e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    **clipping: float | None,
) -> Optimizer:
    """AdaMax, ``torch.optim.Adamax``: `Adam` with a running maximum for the root mean square.

    `epsilon` is added to the gradient's magnitude before the maximum is taken, as in PyTorch. The
    other arguments are those of `Adam`.
    """
    numbers = _of_adams_family(beta_1, beta_2, epsilon, weight_decay)
    return _movable("beta_1", "AdaMax", learning_rate, numbers, clipping, _adamax_parts)


@_known
def Nadam(
    learning_rate: Rate = 2e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    **clipping: float | None,
) -> Optimizer:
    """Nadam, ``torch.optim.NAdam``: `Adam` with Nesterov's momentum, which warms up.

    The momentum of step t is ``beta_1 * (1 - 0.96**(t * momentum_decay) / 2)``. The other arguments
    are those of `Adam`.
    """
    numbers = _of_adams_family(beta_1, beta_2, epsilon, weight_decay)
    require_not_negative(momentum_decay=momentum_decay)
    return compose(
        "Nadam",
        learning_rate,
        {**numbers, "momentum_decay": momentum_decay},
        clipping,
        add_decayed_weights(weight_decay),
        scale_by_nadam(beta_1, beta_2, epsilon, momentum_decay),
        scale_by_rate(),
    )


def _adam_parts(
    beta_1: float, beta_2: float, epsilon: float, weight_decay: float
) -> tuple[Transform, ...]:
    scaled = scale_by_adam(beta_1, beta_2, epsilon)
    return add_decayed_weights(weight_decay), scaled, scale_by_rate()


def _adamw_parts(
    beta_1: float, beta_2: float, epsilon: float, weight_decay: float
) -> tuple[Transform, ...]:
    return scale_by_adam(beta_1, beta_2, epsilon), scale_by_rate(), decay_weights(weight_decay)


def _adamax_parts(
    beta_1: float, beta_2: float, epsilon: float, weight_decay: float
) -> tuple[Transform, ...]:
    scaled = scale_by_adamax(beta_1, beta_2, epsilon)
    return add_decayed_weights(weight_decay), scaled, scale_by_rate()


def _movable(
    word: str,
    name: str,
    rate: Rate,
    numbers: dict[str, Any],
    clipping: dict[str, float | None],
    parts: Callable[..., tuple[Transform, ...]],
    fused: Fused | None = None,
) -> Optimizer:
    """Return the optimizer of these parts, in which a schedule may move the number `word`."""
    moved = functools.partial(_with_other, parts, numbers, word)
    made = parts(**numbers)
    return compose(name, rate, numbers, clipping, *made, with_momentum=moved, fused=fused)


def _with_other(
    parts: Callable[..., tuple[Transform, ...]], numbers: dict[str, Any], word: str, value: float
) -> tuple[Transform, ...]:
    return parts(**{**numbers, word: value})


RMSprop, Adagrad, Adamax = RMSProp, AdaGrad, AdaMax  # as Keras spells them


def remade(name: str, learning_rate: Rate, numbers: dict[str, Any]) -> Optimizer | None:
    """Return the optimizer of a name and its numbers; None where lowprec has none of that name.

    Parameters
    ----------
    name : str
        `Optimizer.name`.
    learning_rate : float or callable
        The rate.
    numbers : dict
        `Optimizer.hyperparameters`, or some others.

    Examples
    --------
    >>> remade("Adam", 0.1, Adam().hyperparameters)
    Adam(learning_rate=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-08, weight_decay=0.0)
    """
    maker = _OPTIMIZERS.get(name.lower())
    if maker is None:
        return None
    if maker is Nesterov:
        numbers = {word: value for word, value in numbers.items() if word != "nesterov"}
    return maker(learning_rate=learning_rate, **numbers)


def get(optimizer: Optimizer | str) -> Optimizer:
    """Return the optimizer of this name, with its defaults, or the optimizer that is given.

    Raises
    ------
    ValueError
        If there is none of that name.
    TypeError
        If it is neither.

    Examples
    --------
    >>> get("adam").name
    'Adam'
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, str):
        raise TypeError(f"not an optimizer: {optimizer!r}; pass Adam(1e-3) or its name")
    return named(optimizer.lower(), _OPTIMIZERS, "optimizer")()


def _of_adams_family(
    beta_1: float, beta_2: float, epsilon: float, weight_decay: float
) -> dict[str, float]:
    """Return the numbers that all of Adam's family have, once they are checked."""
    require_fraction(beta_1=beta_1, beta_2=beta_2)
    require_not_negative(epsilon=epsilon, weight_decay=weight_decay)
    return {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon, "weight_decay": weight_decay}


def __getattr__(name: str) -> object:
    """Say what stands for something of Keras'."""
    raise keras_words.no_attribute(__name__, name, keras_words.IN_OPTIMIZERS)
