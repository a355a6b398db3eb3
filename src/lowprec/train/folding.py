"""Batch normalisation folded into the layer before: what a network becomes when it is deployed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import in_exact_state
from lowprec.train.layers.conv2d import Conv2D
from lowprec.train.layers.dense import Dense
from lowprec.train.layers.normalization import BatchNormalization

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from lowprec.train.layers.layer import Layer
    from lowprec.train.network import Network

Array = np.ndarray[Any, Any]
Params = dict[str, Array]


@in_exact_state
def fold(model: Network, params: Mapping[str, ArrayLike]) -> tuple[Any, Params]:
    """Return the network without the batch normalisations that a layer before can take in.

    A `Dense` or `Conv2D` without an activation, directly before a `BatchNormalization`, gets
    ``kernel · gamma / √(moving_variance + epsilon)`` and ``(bias - moving_mean) · gamma /
    √(moving_variance + epsilon) + beta``, computed in float64 and rounded once to float32. A
    normalisation elsewhere, after an activation for instance, stays.

    Outputs outside of training are the same but for rounding: in float32 to a few units of the last
    place. In a narrow format there is one rounding less a layer, of the sum before the
    normalisation; and kernels are rounded after they were scaled, so that a filter whose variance
    was small may leave float16's range.

    Parameters
    ----------
    model : Sequential
        The network, which stays as it is.
    params : dict of str to array_like
        Its parameters, moving statistics included.

    Returns
    -------
    tuple of (Sequential, dict of str to ndarray)
        The folded network and its parameters, numbered by its own layers.

    Raises
    ------
    ValueError
        If parameters do not fit the model.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((2,)), train.Dense(3), train.BatchNormalization()])
    >>> folded, params = fold(model, model.init(0))
    >>> folded, sorted(params)
    (Sequential([Input((2,)), Dense(3)]), ['0/bias', '0/kernel'])
    """
    checked = model.check_params(params)
    layers: list[Layer] = []
    found: Params = {}
    for place, layer in enumerate(model.layers):
        own = {name: checked[f"{place}/{name}"] for name in layer.parameters}
        before = layers[-1] if layers else None
        number = len(layers) - 1
        if isinstance(layer, BatchNormalization) and _takes_in(before):
            linear: Any = before
            kernel, bias = found[f"{number}/kernel"], found.get(f"{number}/bias")
            found[f"{number}/kernel"], found[f"{number}/bias"] = _folded(layer, own, kernel, bias)
            layers[-1] = dataclasses.replace(linear, use_bias=True)
            continue
        layers.append(layer)
        found |= {f"{len(layers) - 1}/{name}": w.copy() for name, w in own.items()}
    folded = model.with_layers(layers)
    return folded, folded.check_params(found)


def _takes_in(layer: Layer | None) -> bool:
    return isinstance(layer, Dense | Conv2D) and layer.function.name == "linear"


def _folded(
    layer: BatchNormalization, own: Params, kernel: Array, bias: Array | None
) -> tuple[Array, Array]:
    """Return kernel and bias of the layer before, with the normalisation in them."""
    wide = {name: w.astype(np.float64) for name, w in own.items()}
    factor = wide.get("gamma", 1.0) / np.sqrt(wide["moving_variance"] + layer.epsilon)
    shift = (0.0 if bias is None else bias.astype(np.float64)) - wide["moving_mean"]
    with np.errstate(all="ignore"):
        return (
            (kernel.astype(np.float64) * factor).astype(kernel.dtype),
            (shift * factor + wide.get("beta", 0.0)).astype(kernel.dtype),
        )
