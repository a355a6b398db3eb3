"""A network that ends in softmax or sigmoid, trained through what that activation is given.

A cross-entropy of probabilities loses what the probabilities lost: softmax rounds small ones to
zero, whose logarithm is infinite. Cross-entropies here take logits, so that the activation at a
network's end is left out while it is trained; `predict` applies it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.train import losses
from lowprec.train.layer_policies import layer_labels, policies_of
from lowprec.train.layers.activation import Activated, Activation
from lowprec.train.layers.dropout import AlphaDropout, Dropout
from lowprec.train.layers.flatten import Flatten, Reshape

if TYPE_CHECKING:
    from lowprec.train.activations import ActivationFunction
    from lowprec.train.losses import Loss
    from lowprec.train.network import Network
    from lowprec.train.policy import Policy

_THAT_PASS_ON = (AlphaDropout, Dropout, Flatten, Reshape)  # what the layer before has computed
_PARTNERS: dict[Loss, str] = {  # the activation that turns a loss' logits into probabilities
    losses.binary_crossentropy: "sigmoid",
    losses.categorical_crossentropy: "softmax",
    losses.sparse_categorical_crossentropy: "softmax",
}


class Trained(NamedTuple):
    """What is run in training.

    network: The model itself, or the model without its last activation.
    policy: The policy, without what it says of a layer that is left out.
    activation: What was left out.
    """

    network: Network
    policy: Policy
    activation: ActivationFunction | None = None


def trained_network(model: Network, loss: str | Loss, policy: Policy) -> Trained:
    """Return the network whose outputs a loss reads: without softmax or sigmoid for logits.

    Its parameters have the names of the model's.

    loss: A loss of one's own reads what the model gives, probabilities too.
    policy: The model's.
    Raises ValueError if the activation does not belong to the loss, or is not the last thing that
        happens.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((4,)), train.Dense(3, "softmax")])
    >>> float32 = train.get_policy("float32")
    >>> trained_network(model, "sparse_categorical_crossentropy", float32).network
    Sequential([Input((4,)), Dense(3)])
    """
    if not losses.takes_logits(loss) or not model.layers:
        return Trained(model, policy)
    computing = [
        place for place, layer in enumerate(model.layers) if not isinstance(layer, _THAT_PASS_ON)
    ]
    place = computing[-1] if computing else len(model.layers) - 1
    last = model.layers[place]
    function = getattr(last, "function", None)
    if function is None or function.name not in ("softmax", "sigmoid"):
        return Trained(model, policy)
    own = losses.get(loss)
    name = loss if isinstance(loss, str) else own.__name__
    if _PARTNERS[own] != function.name:
        fitting = [
            other.__name__ for other, partner in _PARTNERS.items() if partner == function.name
        ]
        raise ValueError(
            f"the model ends in {function.name} and the loss is {name}, which reads logits of "
            f"{_PARTNERS[own]}; write activation={_PARTNERS[own]!r} in {last!r}, or "
            f"loss={' or loss='.join(map(repr, fitting))}"
        )
    if place != len(model.layers) - 1 or not isinstance(last, Activated):
        raise ValueError(
            f"{name} takes logits, and the model ends in {function.name}, after which "
            f"{model.layers[-1]!r} comes; put {function.name} last, or drop the activation of "
            f"{last!r}"
        )
    policies_of(policy, model.layers)  # a slip in a layer's name shows here
    if isinstance(last, Activation) and place:
        kept = model.layers[:-1]
        policy = _without(policy, {str(place), layer_labels(model.layers)[place]})
    else:
        with_activation: Any = last
        linear: Any = dataclasses.replace(with_activation, activation=None)
        kept = (*model.layers[:-1], linear)
    return Trained(model.with_layers(kept), policy, function)


def _without(policy: Policy, keys: set[str]) -> Policy:
    """Return a policy that says nothing of some places."""
    if not any(key in keys for key, _ in policy.places):
        return policy
    places = tuple((key, fields) for key, fields in policy.places if key not in keys)
    return dataclasses.replace(policy, layers=places)
