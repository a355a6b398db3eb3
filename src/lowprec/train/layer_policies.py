"""Which policy each layer, each parameter and the network's inputs follow.

A policy holds for a whole network; a layer's own ``policy=`` replaces it there, and what
`Policy.layers` says from outside replaces fields of both.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.common.names import one_of
from lowprec.train.policy import INPUTS, Policy, get_policy, layer_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.train.layers.layer import Layer


class LayerPolicies(NamedTuple):
    """The policies of the places of a network; none of them has `Policy.layers`.

    inputs: Of the network's inputs: its `compute` counts.
    layers: One a layer.
    parameters: Of the parameters that follow another than their layer, by name: ``"1/bias"``.
    """

    inputs: Policy
    layers: tuple[Policy, ...]
    parameters: dict[str, Policy]

    def of(self, name: str) -> Policy:
        """Return the policy of a parameter, such as ``"1/bias"``."""
        found = self.parameters.get(name)
        return self.layers[int(layer_of(name))] if found is None else found


def layer_labels(layers: Sequence[Layer]) -> list[str]:
    """Return what to call each layer: its class, and its number among those of this class.

    Examples
    --------
    >>> from lowprec.train.layers import Dense, Flatten
    >>> layer_labels([Flatten(), Dense(3), Dense(2)])
    ['Flatten 1', 'Dense 1', 'Dense 2']
    """
    counts: dict[str, int] = {}
    labels = []
    for layer in layers:
        kind = type(layer).__name__
        counts[kind] = counts.get(kind, 0) + 1
        labels.append(f"{kind} {counts[kind]}")
    return labels


def policies_of(policy: Policy, layers: Sequence[Layer]) -> LayerPolicies | None:
    """Return the policies of a network's places; None where one holds for all.

    policy: The network's.
    Raises ValueError if a key of `Policy.layers` names no place of the network, or a layer's policy
        is unknown.

    Examples
    --------
    >>> from lowprec.train.layers import Dense
    >>> policy = Policy(compute="bfloat16", layers={"Dense 2": {"compute": "float32"}})
    >>> found = policies_of(policy, [Dense(3), Dense(2)])
    >>> [str(one.compute) for one in found.layers]
    ['bfloat16', 'float32']
    """
    words = [layer.dtype if layer.policy is None else layer.policy for layer in layers]
    if not policy.layers and not any(words):
        return None
    own = tuple(None if word is None else _named(word, i) for i, word in enumerate(words))
    labels = tuple(layer_labels(layers))
    parameters = tuple(f"{i}/{name}" for i, layer in enumerate(layers) for name in layer.parameters)
    statistics = {f"{i}/{name}" for i, layer in enumerate(layers) for name in layer.statistics}
    for key, _ in policy.places:
        if key in statistics:
            raise ValueError(
                f"layers={{{key!r}: …}}: {key} is a statistic, which stays in float32; name a "
                "parameter that is trained, or the layer"
            )
    return _merged(policy, own, labels, parameters)


def _named(policy: Policy | str, place: int) -> Policy:
    try:
        found = get_policy(policy)
    except ValueError as error:
        raise ValueError(f"layer {place} has policy={policy!r}: {error}") from None
    if found.layers:
        raise ValueError(
            f"layer {place} has policy={str(found)!r}, which names layers of its own; a layer "
            "takes one policy, and layers= belongs to the network's"
        )
    return found


@functools.lru_cache(maxsize=256)
def _merged(
    policy: Policy,
    own: tuple[Policy | None, ...],
    labels: tuple[str, ...],
    parameters: tuple[str, ...],
) -> LayerPolicies:
    base = dataclasses.replace(policy, layers=())
    places: dict[str, Policy] = {str(i): one or base for i, one in enumerate(own)}
    places[INPUTS] = base
    numbers = {label: str(i) for i, label in enumerate(labels)}
    of_parameters: dict[str, dict[str, Any]] = {}
    for key, fields in policy.places:
        place = numbers.get(key, key)
        if place in parameters:
            of_parameters[place] = dict(fields)
            continue
        if place not in places:
            known = [*labels, *places, *parameters]
            one_of(key, known, "layer or parameter of this network")
        places[place] = _changed(places[place], dict(fields))
    found = {}
    for name, changes in of_parameters.items():
        found[name] = _changed(places[layer_of(name)], changes)
    result = LayerPolicies(places[INPUTS], tuple(places[str(i)] for i in range(len(labels))), found)
    if any(one.is_float64 != base.is_float64 for one in (*result.layers, *found.values())):
        raise ValueError("float64 is for the whole network: use policy='float64', and no layer's")
    return result


def _changed(policy: Policy, fields: dict[str, Any]) -> Policy:
    return dataclasses.replace(policy, **fields, name="")
