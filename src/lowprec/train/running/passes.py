"""One pass forward and one backward through a network, under a policy."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.common.processor_state import in_exact_state_but_users_code, in_its_state, is_lowprecs
from lowprec.common.randomness import draw_key
from lowprec.train import losses
from lowprec.train.layer_policies import policies_of
from lowprec.train.layers.dropout import AlphaDropout, Dropout
from lowprec.train.layers.layer import Run
from lowprec.train.numerics import Numerics, numerics_of
from lowprec.train.policy import Policy, get_policy, layer_of
from lowprec.train.running.logits import trained_network

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from lowprec.common.randomness import RNGLike
    from lowprec.train.layers.layer import Layer
    from lowprec.train.losses import Loss
    from lowprec.train.network import Network
    from lowprec.train.running.watch import Watch

Array = np.ndarray[Any, Any]
Params = dict[str, Array]
_THAT_DROP = (AlphaDropout, Dropout)
Seed = tuple[int, ...]  # of a pass; a layer's generator is seeded by it and the layer's number


@in_exact_state_but_users_code
def gradients(
    model: Network,
    params: Mapping[str, ArrayLike],
    x: ArrayLike,
    y: ArrayLike,
    *,
    loss: str | Loss,
    policy: Policy | str = "float32",
    scale: float = 1.0,
    rng: RNGLike = 0,
) -> tuple[float, Params]:
    """Compute the loss of a batch and its gradients, as a training step does.

    Parameters
    ----------
    model : Sequential
        The network.
    params : dict of str to array_like
        Its parameters, as `model.init` gives them.
    x, y : array_like, shapes (samples, ...)
        The batch.
    loss : str or callable
        A name, or a function of (y_true, y_pred) that returns (value, gradient).
    policy : Policy or str
        The formats.
    scale : float
        What the loss is multiplied by before the backward pass.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Where dropout draws from.

    Returns
    -------
    tuple of (float, dict of str to numpy.ndarray)
        The loss, not scaled, with the regularizers' penalties; and the gradients of the trained
        parameters as computed, still multiplied by `scale`.

    Raises
    ------
    ValueError
        If shapes or names do not fit.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((1,)), train.Dense(1)])
    >>> params = {"0/kernel": [[2.0]], "0/bias": [0.0]}
    >>> value, grads = gradients(model, params, [[1.0]], [[3.0]], loss="mse", scale=8.0)
    >>> value, grads["0/bias"]
    (1.0, array([-16.], dtype=float32))
    """
    numerics = numerics_of(get_policy(policy))
    x = numerics.array(x)
    model.check_inputs(x)
    arrays = model.check_params(params, numerics.dtype, x.shape[1:])
    run = trained_network(model, loss, numerics.policy)
    result = run_pass(
        run.network,
        arrays,
        x,
        np.asarray(y),
        in_its_state(losses.get(loss)),
        numerics_of(run.policy),
        scale=scale,
        seed=(draw_key(rng),),
    )
    return result.loss, result.gradients


class Forward(NamedTuple):
    """What a forward pass leaves: outputs, what each layer saved, new moving statistics."""

    outputs: Array
    saved: list[tuple[Params, Run, Any]]
    updates: Params


class Pass(NamedTuple):
    """What a training step's two passes give."""

    loss: float
    gradients: Params
    outputs: Array
    updates: Params  # moving statistics


def apply(
    model: Network,
    params: Params,
    x: ArrayLike,
    policy: Policy | str,
    training: bool,
    rng: RNGLike,
) -> Array:
    """Return the network's outputs: what `Sequential.apply` does after its checks."""
    numerics = numerics_of(get_policy(policy))
    seed = (draw_key(rng),) if training else ()
    arrays = numerics.arrays(params)
    return run_forward(model, arrays, numerics.array(x), numerics, training, seed).outputs


def run_forward(
    model: Network,
    params: Params,
    x: Array,
    numerics: Numerics,
    training: bool,
    seed: Seed,
    watch: Watch | None = None,
    *,
    is_plain: bool = False,
    keep: list[Array] | None = None,
) -> Forward:
    """Compute the outputs; `params` are checked and stored as the policy stores them.

    Each layer's outputs are put into `keep`, if it is given.

    A plain pass leaves out dropout and the layers' own policies: it is the start of a training.
    """
    places = None if is_plain else policies_of(numerics.policy, model.layers)
    saved: list[tuple[Params, Run, Any]] = []
    updates: Params = {}
    with _errors(watch):  # overflow and NaN are results
        lowest = _lowest_trained(model)
        for i, layer in enumerate(model.layers):
            here = numerics if places is None else numerics.at(places.layers[i])
            if i == 0:
                first = numerics if places is None else numerics.at(places.inputs)
                x = first.compute(x)
                if watch is not None:
                    watch.inputs()
            elif _stays_in_float32(model.layers[i - 1]):
                x = here.compute(x)
            if places is not None and layer.reads_rounded:
                before = places.layers[i - 1] if i else places.inputs
                if before.compute != here.policy.compute:
                    x = here.compute(x)
            own = {name: params[f"{i}/{name}"] for name in layer.parameters}
            is_training = training and not (is_plain and isinstance(layer, _THAT_DROP))
            run = Run(here, is_training, functools.partial(_generator, seed, i))
            run.wants_input_gradient = i > lowest
            is_ours = is_lowprecs(type(layer))
            if watch is not None and not is_ours:
                watch.settle()
            x, kept = (layer.forward if is_ours else in_its_state(layer.forward))(own, x, run)
            if watch is not None:
                watch.forward(i, own, x)
            saved.append((own, run, kept))
            if keep is not None:
                keep.append(x)
            for name, value in run.updates.items():
                updates[f"{i}/{name}"] = value
    return Forward(x, saved, updates)


def _errors(watch: Watch | None) -> np.errstate:
    """Return what becomes of NumPy's floating-point errors: nothing, or a watch hears of them."""
    if watch is None or watch.hears is None:
        return np.errstate(all="ignore")
    return np.errstate(all="call", call=watch.hears)


def _generator(seed: Seed, layer: int) -> np.random.Generator:
    return np.random.default_rng([*seed, layer])


def _lowest_trained(model: Network) -> int:
    """Return the first layer with parameters to train: below it nobody reads gradients."""
    for i, layer in enumerate(model.layers):
        if layer.trainable and set(layer.parameters) - set(layer.statistics):
            return i
    return len(model.layers)


def _stays_in_float32(layer: Layer) -> bool:
    function = getattr(layer, "function", None)
    return function is not None and function.name == "softmax"


def run_backward(
    model: Network,
    forward: Forward,
    dy: Array,
    watch: Watch | None = None,
) -> Params:
    """Return the gradients, layer by layer from the last."""
    found: Params = {}
    with _errors(watch):
        for i in reversed(range(_lowest_trained(model), len(model.layers))):
            own, run, kept = forward.saved[i]
            layer = model.layers[i]
            if is_lowprecs(type(layer)):
                dx, grads = layer.backward(own, kept, dy, run)
            else:
                if watch is not None:
                    watch.settle()
                dx, grads = in_its_state(layer.backward)(own, kept, dy, run)
                grads = {name: _fitting(g, own, name, layer) for name, g in grads.items()}
            if watch is not None:
                watch.backward(i, dx, grads)
            for name, gradient in grads.items():
                found[f"{i}/{name}"] = gradient
            if dx is not None:
                dy = dx
    return {name: found[name] for name in sorted(found, key=lambda name: int(layer_of(name)))}


def _fitting(gradient: ArrayLike, own: Params, name: str, layer: Layer) -> Array:
    """Return a gradient of a user's layer in its parameter's dtype, if it has that one's shape."""
    w = own.get(name)
    if w is None or np.shape(gradient) != w.shape:
        shapes = ", ".join(f"{known!r} of shape {x.shape}" for known, x in own.items()) or "none"
        raise ValueError(
            f"backward of {layer!r} gave a gradient of {name!r} of shape {np.shape(gradient)}; its "
            f"parameters are {shapes}: return a gradient of the same name and shape for each"
        )
    return np.array(gradient, w.dtype, order="C")  # a copy: updates take its place


def run_pass(
    model: Network,
    params: Params,
    x: Array,
    y: Array,
    loss: Loss,
    numerics: Numerics,
    *,
    scale: float = 1.0,
    seed: Seed = (0,),
    watch: Watch | None = None,
) -> Pass:
    """Compute the loss and the gradients, multiplied by `scale`, of one batch."""
    if watch is not None:
        numerics = watch.numerics
    forward = run_forward(model, params, x, numerics, True, seed, watch)
    with _errors(watch):
        if watch is not None:
            watch.loss(y, forward.outputs)
        value, dy = value_and_gradient(loss(y, forward.outputs))
        dy = np.asarray(dy, numerics.dtype)
        if scale != 1.0:
            dy = dy * numerics.dtype.type(scale)
        dy = (forward.saved[-1][1].numerics if forward.saved else numerics).gradient(dy)
        if watch is not None:
            watch.backward(len(model.layers), dy, {})
    found = run_backward(model, forward, dy, watch)
    if watch is not None:
        watch.settle()
    _add_penalties(model, params, found, scale)
    return Pass(float(value) + penalty(model, params), found, forward.outputs, forward.updates)


def value_and_gradient(found: Any) -> tuple[float, Array]:
    """Return the two numbers of a loss; TypeError where a user's own gives something else."""
    if isinstance(found, tuple) and len(found) == 2:
        return found
    raise TypeError(
        f"the loss returned a {type(found).__name__}, and nothing here differentiates it; return "
        "its value and its gradient with respect to y_pred, as in: def loss(y_true, y_pred): "
        "e = y_pred - y_true.reshape(y_pred.shape); return (e**2).mean(), 2 * e / e.size"
    )


def penalty(model: Network, params: Params) -> float:
    """Return the regularizers' share of the loss."""
    return sum(
        float(regularizer.value(params[f"{i}/{name}"]))
        for i, layer in enumerate(model.layers)
        for name, regularizer in layer.regularizers.items()
    )


def _add_penalties(model: Network, params: Params, found: Params, scale: float) -> None:
    """Add the regularizers' gradients, in float32."""
    for i, layer in enumerate(model.layers):
        for name, regularizer in layer.regularizers.items():
            w = params[f"{i}/{name}"]
            with np.errstate(all="ignore"):
                gradient = regularizer.gradient(w) * w.dtype.type(scale)
                found[f"{i}/{name}"] = found[f"{i}/{name}"] + gradient
