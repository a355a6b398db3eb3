"""What policies are predicted to lose in a training: data, words and a table."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

from lowprec.train.policy import Policy, get_policy

if TYPE_CHECKING:
    from rich.console import RenderableType


class Prediction(NamedTuple):
    """What a policy would do to a training.

    Attributes
    ----------
    policy : Policy
        The policy.
    forward, backward, update, state : float
        Relative errors, of norms: of weights and activations, of gradients, of the updates that
        reach the weights, of the optimizer's state; infinity where something overflows, and NaN
        where nothing was seen of what the policy narrows: it is unknown.
    cost : float
        Bytes of a parameter and its state, and of its rounded copy.
    bits : int
        Of the arithmetic.
    """

    policy: Policy
    forward: float
    backward: float
    update: float
    state: float
    cost: float
    bits: int

    @property
    def damage(self) -> float:
        """All of them together, the root of the sum of squares; NaN where one is unknown."""
        return math.hypot(self.forward, self.backward, self.update, self.state)

    @property
    def worst(self) -> str:
        """Which of them is the largest."""
        parts = {name: getattr(self, name) for name in ("forward", "backward", "update", "state")}
        return max(parts, key=lambda name: -1.0 if math.isnan(parts[name]) else parts[name])

    @property
    def unknown(self) -> tuple[str, ...]:
        """Which of them are unknown."""
        parts = ("forward", "backward", "update", "state")
        return tuple(name for name in parts if math.isnan(getattr(self, name)))


@dataclasses.dataclass(frozen=True, repr=False)
class WhatIf:
    """Policies by predicted damage, the least first, unknown ones last; it prints as a table.

    Attributes
    ----------
    predictions : tuple of Prediction
        One a policy.
    sureness : str
        From how much they are told, what was not seen, and what no prediction knows.
    """

    predictions: tuple[Prediction, ...]
    sureness: str = ""

    @property
    def ranking(self) -> list[str]:
        """The policies' names, the least damage first."""
        return [str(one.policy) for one in self.predictions]

    def __getitem__(self, policy: Policy | str) -> Prediction:
        """Return the prediction for a policy."""
        wanted = get_policy(policy)
        for one in self.predictions:
            if one.policy == wanted:
                return one
        raise KeyError(str(wanted))

    @property
    def verdict(self) -> str:
        """Which policy to take: of those whose damage is little the one of narrowest arithmetic."""
        good = [one for one in self.predictions if one.damage < 0.02]
        unknown = [str(one.policy) for one in self.predictions if math.isnan(one.damage)]
        if not good:
            if unknown:
                return f"What {_listed(unknown)} would cost here is unknown."
            return "Every policy but float32 is likely to cost something here."
        best = min(good, key=lambda one: (one.bits, one.cost))
        words = (
            f"Likely the narrowest arithmetic that loses nothing that matters: {best.policy}, in "
            f"{best.bits} bits, with {best.cost:g} bytes a parameter."
        )
        return f"{words} What {_listed(unknown)} would cost is unknown." if unknown else words

    def __rich__(self) -> RenderableType:
        return _view(self)

    def __repr__(self) -> str:
        from lowprec.show.text import as_text

        return as_text(self.__rich__())


def _view(found: WhatIf) -> RenderableType:
    """Return the predictions as a table, with the verdict below."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy")
    for heading in WHAT_IF_HEADINGS:
        table.add_column(heading, justify="right")
    for row in what_if_rows(found):
        table.add_row(*row)
    return Group(table, Text(found.verdict), Text(found.sureness, "dim"))


WHAT_IF_HEADINGS = ("forward", "backward", "update", "state", "damage", "bytes", "bits")


def what_if_rows(found: WhatIf) -> list[tuple[str, ...]]:
    """Return the cells of the table of predictions."""
    return [
        (
            str(one.policy),
            *map(_relative, (one.forward, one.backward, one.update, one.state, one.damage)),
            f"{one.cost:g}",
            str(one.bits),
        )
        for one in found.predictions
    ]


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _relative(value: float) -> str:
    if math.isnan(value):
        return "?"
    if math.isinf(value):
        return "fails"
    if value >= 10:
        return "> 1000 %"
    return f"{100 * value:.2g} %" if value else "–"
