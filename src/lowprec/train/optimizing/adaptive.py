"""Parts of optimizers that divide each gradient by its own running size."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.train.optimizing.transforms import each, slot

if TYPE_CHECKING:
    from lowprec.train.optimizing.state import State
    from lowprec.train.optimizing.transforms import Fused, Step, Transform

Array = np.ndarray[Any, Any]

# Here g is the gradient, which becomes the update; m and v its running mean and mean square; t
# scratch. The order of the operations is PyTorch's wherever that costs no pass over the arrays.

_SURE = 2.0**-100  # an epsilon of at least this keeps every divisor, and every quotient, in range


def scale_by_sum_of_squares(epsilon: float, initial: float = 0.0) -> Transform:
    """AdaGrad: s ← s + g², g / (√s + epsilon); s starts at `initial`."""
    rule = functools.partial(_scale_by_sum_of_squares, epsilon=epsilon)
    return each(rule, sum_of_squares=initial)


def _scale_by_sum_of_squares(g: Array, step: Step, s: Array, *, epsilon: float) -> None:
    t = np.square(g, out=np.empty_like(g))  # an array too where it holds a single number
    s += t
    step.keep(s)
    np.sqrt(s, out=t)
    _divide(g, t, epsilon, g, g)


def scale_by_rms(rho: float, epsilon: float, centered: bool = False) -> Transform:
    """RMSProp: v ← rho·v + (1 - rho)·g², g / (√v + epsilon).

    Centered: m ← rho·m + (1 - rho)·g, g / (√(v - m²) + epsilon).
    """
    if centered:
        rule = functools.partial(_scale_by_deviation, rho=rho, epsilon=epsilon)
        return each(rule, second_moment=0, first_moment=0)
    return each(functools.partial(_scale_by_rms, rho=rho, epsilon=epsilon), second_moment=0)


def _scale_by_rms(g: Array, step: Step, v: Array, *, rho: float, epsilon: float) -> None:
    t = np.empty_like(g)
    _average_squares(step, v, g, rho, t)
    np.sqrt(v, out=t)
    _divide(g, t, epsilon, g, g, math.sqrt(1 - rho))


def _scale_by_deviation(
    g: Array, step: Step, v: Array, m: Array, *, rho: float, epsilon: float
) -> None:
    t = np.empty_like(g)
    _average_squares(step, v, g, rho, t)
    _average(step, m, g, rho, t)
    np.square(m, out=t)
    np.subtract(v, t, out=t)
    np.maximum(t, 0, out=t)  # what rounding left of v may be less than what it left of m²
    np.sqrt(t, out=t)
    _divide(g, t, epsilon, g, g, math.sqrt(rho * (1 - rho)))


def scale_by_adadelta(rho: float, epsilon: float) -> Transform:
    """Adadelta: v ← rho·v + (1 - rho)·g², u = g·√(d + ε) / √(v + ε), d ← rho·d + (1 - rho)·u²."""
    rule = functools.partial(_scale_by_adadelta, rho=rho, epsilon=epsilon)
    return each(rule, second_moment=0, squared_update=0)


def _scale_by_adadelta(
    g: Array, step: Step, v: Array, d: Array, *, rho: float, epsilon: float
) -> None:
    t = np.empty_like(g)
    _average_squares(step, v, g, rho, t)
    np.sqrt(v + epsilon, out=t)
    np.divide(np.sqrt(d + epsilon), t, out=t)
    g *= t
    _average_squares(step, d, g, rho, t)


def scale_by_adam(beta_1: float, beta_2: float, epsilon: float) -> Transform:
    """Adam: m̂ / (√v̂ + epsilon), of the means of g and g², each divided by 1 - betaᵗ."""
    rule = functools.partial(_scale_by_adam, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)
    return each(rule, first_moment=0, second_moment=0)


def _scale_by_adam(
    g: Array, step: Step, m: Array, v: Array, *, beta_1: float, beta_2: float, epsilon: float
) -> None:
    t = np.empty_like(g)
    _average(step, m, g, beta_1, t)
    _average_squares(step, v, g, beta_2, t)
    # With c = 1 - betaᵗ, m̂ / (√v̂ + ε) is m / (√v·c₁/√c₂ + ε·c₁): one pass less.
    correction = 1 - beta_1**step.number
    np.sqrt(v, out=t)
    scale = correction / math.sqrt(1 - beta_2**step.number)
    t *= scale
    _divide(m, t, correction * epsilon, g, g, scale * math.sqrt(1 - beta_2))


def fused_adam(beta_1: float, beta_2: float, epsilon: float) -> Fused | None:
    """Return what `scale_by_adam`, `scale_by_rate` and an addition do in one pass, if anything."""
    if beta_1 <= 0.5 or (1 - beta_1) * epsilon < _SURE:
        return None
    return functools.partial(_adam, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


def _adam(
    state: State,
    name: str,
    parameter: Array,
    gradient: Array,
    out: Array,
    step: int,
    rate: float,
    *,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> Array:
    from lowprec.kernels import training  # imports Numba

    means = state[slot("first_moment", name)], state[slot("second_moment", name)]
    numbers = _adam_numbers(beta_1, beta_2, epsilon, step, rate)
    updated: Array = training.adam(parameter, gradient, *means, out, numbers)
    return updated


@functools.lru_cache(maxsize=16)  # every parameter asks for those of the same step
def _adam_numbers(beta_1: float, beta_2: float, epsilon: float, step: int, rate: float) -> Array:
    """Return the numbers of `lowprec.kernels.training.adam`."""
    correction = 1 - beta_1**step
    scale = correction / math.sqrt(1 - beta_2**step)
    numbers = [1 - beta_1, beta_2, 1 - beta_2, scale, correction * epsilon, -rate]
    return np.array(numbers, np.float32)


def scale_by_adamax(beta_1: float, beta_2: float, epsilon: float) -> Transform:
    """AdaMax: m̂ / u, with u ← max(beta_2·u, |g| + epsilon).

    In a narrow format u may be stored as less than epsilon, even as 0; epsilon divides then.
    """
    rule = functools.partial(_scale_by_adamax, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)
    return each(rule, first_moment=0, infinity_norm=0)


def _scale_by_adamax(
    g: Array, step: Step, m: Array, u: Array, *, beta_1: float, beta_2: float, epsilon: float
) -> None:
    t = np.empty_like(g)
    _average(step, m, g, beta_1, t)
    np.abs(g, out=t)
    t += epsilon
    u *= beta_2
    np.maximum(u, t, out=u)
    step.keep(u)
    correction = 1 - beta_1**step.number
    np.maximum(u, epsilon, out=t)
    t *= correction
    _divide(m, t, 0.0 if correction * epsilon < _SURE else None, g, g, correction)


def scale_by_nadam(
    beta_1: float, beta_2: float, epsilon: float, momentum_decay: float
) -> Transform:
    """Nadam: Adam with Nesterov's look ahead, and a momentum that warms up.

    The momentum of step t is ``beta_1 * (1 - 0.96**(t * momentum_decay) / 2)``.
    """
    rule = functools.partial(
        _scale_by_nadam,
        beta_1=beta_1,
        beta_2=beta_2,
        epsilon=epsilon,
        momentum_decay=momentum_decay,
    )
    return each(rule, first_moment=0, second_moment=0)


def _scale_by_nadam(
    g: Array,
    step: Step,
    m: Array,
    v: Array,
    *,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    momentum_decay: float,
) -> None:
    t = np.empty_like(g)
    _average(step, m, g, beta_1, t)
    _average_squares(step, v, g, beta_2, t)
    of_g, of_m = _nadam_weights(beta_1, momentum_decay, step.number)
    size = np.abs(g) if epsilon < _SURE else g
    g *= of_g
    g += np.multiply(m, of_m, out=t)
    np.sqrt(v, out=t)
    scale = 1 / math.sqrt(1 - beta_2**step.number)
    t *= scale
    _divide(g, t, epsilon, size, g, scale * math.sqrt(1 - beta_2))


@functools.lru_cache(maxsize=16)  # every parameter asks for those of the same step
def _nadam_weights(beta_1: float, momentum_decay: float, step: int) -> tuple[float, float]:
    """Return by what Nadam multiplies g and m.

    The product of the momenta so far is computed anew, not kept in the state, which may be rounded
    to a narrow format. It falls at least as fast as beta_1ᵗ; below 2⁻⁶⁴ it is nothing beside 1.
    """

    def momentum(t: int) -> float:
        return float(beta_1 * (1 - 0.5 * 0.96 ** (t * momentum_decay)))

    product = 1.0
    for t in range(1, step + 1):
        product *= momentum(t)
        if product < 2**-64:
            break
    ahead = momentum(step + 1)
    return (1 - momentum(step)) / (1 - product), ahead / (1 - product * ahead)


def _divide(
    numerator: Array, t: Array, epsilon: float | None, g: Array, out: Array, share: float = 1.0
) -> None:
    """Divide by t + epsilon, which is never 0 where the exact formula's divisor is not.

    With an epsilon that is 0, or vanishes in the arrays' dtype, t may be 0 because its state is too
    small for the format in which it is stored. There `share`·|g| takes its place, which is t after
    gradients of zero, and where g is 0 too, nothing is divided by, and the update is 0. None stands
    for an epsilon that is in t already.
    """
    if epsilon is None or epsilon >= _SURE:
        if epsilon is not None:
            t += epsilon
        np.divide(numerator, t, out=out)
        return
    t += epsilon
    lost = t == 0
    np.copyto(t, np.abs(g) * t.dtype.type(share), where=lost)
    lost = t == 0
    np.copyto(t, 1, where=lost)
    np.divide(numerator, t, out=out)
    np.copyto(out, 0, where=lost)


def _average(step: Step, mean: Array, x: Array, beta: float, t: Array) -> None:
    """Move a running mean: mean ← mean + (1 - beta)·(x - mean).

    From the nearer end, as PyTorch's lerp: without memory (beta = 0) the mean is x exactly.
    """
    np.subtract(x, mean, out=t)
    if beta > 0.5:
        t *= 1 - beta
        mean += t
    else:
        t *= beta
        np.subtract(x, t, out=mean)
    step.keep(mean)


def _average_squares(step: Step, mean: Array, x: Array, beta: float, t: Array) -> None:
    """Move a running mean of squares: mean ← beta·mean + (1 - beta)·x²."""
    np.multiply(x, 1 - beta, out=t)
    t *= x
    mean *= beta
    mean += t
    step.keep(mean)
