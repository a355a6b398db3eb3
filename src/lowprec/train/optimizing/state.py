"""What an optimizer keeps from step to step: arrays, each for one parameter and of one kind."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

Array = np.ndarray[Any, Any]

KAHAN = "kahan"
"""The kind of what a compensated update lost; the other kinds are the optimizer's own."""


class Slot(str):
    """The name of an array of the state, ``"first_moment/0/kernel"``, and the parts it has.

    kind: What is kept, such as ``first_moment``.
    parameter: For which parameter, such as ``0/kernel``.

    Examples
    --------
    >>> slot = Slot("first_moment", "0/kernel")
    >>> slot, slot.kind, slot.parameter, slot == Slot.of("first_moment/0/kernel")
    ('first_moment/0/kernel', 'first_moment', '0/kernel', True)
    """

    __slots__ = ("kind", "parameter")
    kind: str
    parameter: str

    def __new__(cls, kind: str, parameter: str) -> Self:
        """Return the slot of a kind and a parameter."""
        slot = super().__new__(cls, f"{kind}/{parameter}" if parameter else kind)
        slot.kind, slot.parameter = kind, parameter
        return slot

    @classmethod
    def of(cls, name: str) -> Slot:
        """Return the slot of a name, as a file or a user writes it."""
        if isinstance(name, Slot):
            return name
        kind, _, parameter = name.partition("/")
        return cls(kind, parameter)

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        """Return the arguments that copies and pickles are made from."""
        return self.kind, self.parameter


State = dict[Slot, Array]
