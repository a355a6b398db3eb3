"""The parts of a policy: each can be made wide alone, or alone be kept in an otherwise wide run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from lowprec.formats import get_format
from lowprec.train.layer_policies import layer_labels, policies_of
from lowprec.train.policy import INPUTS, PARAMETER_FIELDS, Policy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lowprec.train.layers.layer import Layer

PARTS = ("loss scale", "tensor scales", "gradients", "accumulate", "state", "params", "compute")
"""The parts in the order in which they are tried, which breaks ties."""

OF_PLACES = ("gradients", "accumulate", "state", "params", "compute")
"""Those that a layer has of its own."""


def explicit(policy: Policy, layers: Sequence[Layer]) -> Policy:
    """Return a policy that says for each place what is used there, whatever the layers say.

    Layers are named by their labels. Where one policy holds for the whole network it is returned
    as it is.
    """
    places = policies_of(policy, layers)
    if places is None:
        return policy
    labels = layer_labels(layers)
    if all(layer.policy is None and layer.dtype is None for layer in layers):
        named: dict[str, dict[str, Any]] = {}
        for key, fields in policy.places:
            place = labels[int(key)] if key.isdecimal() else key
            named[place] = named.get(place, {}) | dict(fields)
        return dataclasses.replace(policy, layers=named)
    found: dict[str, dict[str, Any]] = {INPUTS: {"compute": places.inputs.compute}}
    for label, one in zip(labels, places.layers, strict=True):
        found[label] = {name: getattr(one, name) for name in (*OF_PLACES, "update")}
    for name, one in places.parameters.items():
        found[name] = {field: getattr(one, field) for field in PARAMETER_FIELDS}
    return dataclasses.replace(policy, layers=found, name="")


def shortened(policy: Policy, layers: Sequence[Layer]) -> Policy:
    """Return a policy without those fields of its places that say what holds there anyway.

    Examples
    --------
    >>> str(shortened(Policy(layers={"inputs": {"compute": "float32"}}), []))
    'float32'
    """
    labels = layer_labels(layers)
    places = policies_of(dataclasses.replace(policy, layers=()), layers)
    kept: dict[str, dict[str, Any]] = {}
    for key, fields in policy.places:
        there = policy
        if places is not None and key == INPUTS:
            there = places.inputs
        elif places is not None and key in labels:
            there = places.layers[labels.index(key)]
        own = dict(fields)
        if "/" not in key:  # a parameter differs from what its layer may say here
            own = {name: its for name, its in own.items() if getattr(there, name) != its}
        if own:
            kept[key] = own
    return dataclasses.replace(policy, layers=kept)


def widened(policy: Policy, parts: Iterable[str]) -> Policy:
    """Return a policy with some of its parts made wide, in every place.

    Examples
    --------
    >>> from lowprec.train.policy import get_policy
    >>> str(widened(get_policy("mixed_float16"), ["loss scale", "gradients"]))
    'compute=float16,gradients=float32'
    """
    changes: dict[str, Any] = {}
    for part in parts:
        changes |= _wide(part)
    if not changes:
        return policy
    places = {}
    for key, fields in policy.places:
        own = dict(fields)
        places[key] = own | {name: value for name, value in changes.items() if name in own}
    return dataclasses.replace(policy, **changes, layers=places, name="")


def _wide(part: str) -> dict[str, Any]:
    match part:
        case "loss scale":
            return {"loss_scale": None}
        case "tensor scales":
            return {"tensor_scales": False}
        case "params":
            return {"params": "float32", "update": "nearest"}
    return {part: "float32"}


def only(policy: Policy, part: str) -> Policy:
    """Return a policy that is wide but for one part."""
    return widened(policy, [other for other in PARTS if other != part])


def narrow_parts(policy: Policy) -> list[str]:
    """Return the parts that are not wide already.

    Examples
    --------
    >>> from lowprec.train.policy import get_policy
    >>> narrow_parts(get_policy("mixed_float16"))
    ['loss scale', 'gradients', 'compute']
    """
    plain = dataclasses.replace(policy, name="")
    return [part for part in PARTS if widened(plain, [part]) != plain]


def wider(policy: Policy, parts: Iterable[str], places: Iterable[str]) -> Policy:
    """Return a policy with some parts made wide in some places alone.

    Parameters
    ----------
    policy : Policy
        The policy.
    parts : iterable of str
        Parts that places have: gradients, accumulate, state, params, compute.
    places : iterable of str
        Keys of `Policy.layers`.
    """
    found = {key: dict(fields) for key, fields in policy.places}
    updates = {policy.update, *(fields.get("update", "nearest") for fields in found.values())}
    rounds_otherwise = updates != {"nearest"}
    for place in places:
        changes: dict[str, Any] = {}
        for part in parts:
            allowed: tuple[str, ...] = ("compute",) if place == INPUTS else OF_PLACES
            allowed = PARAMETER_FIELDS if "/" in place else allowed
            if part in allowed:
                changes[part] = get_format("float32")
                if part == "params" and rounds_otherwise:
                    changes["update"] = "nearest"
        if changes:
            found[place] = found.get(place, {}) | changes
    return dataclasses.replace(policy, layers=found)
