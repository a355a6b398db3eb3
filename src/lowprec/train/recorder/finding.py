"""Findings, and how they name tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lowprec.train.optimizing.state import Slot

if TYPE_CHECKING:
    from lowprec.train.recorder.record import Record

_WORDS = {
    "weight": "weights",
    "activation": "activations",
    "preactivation": "sums before the activation",
    "activation_gradient": "activation gradients",
    "weight_gradient": "weight gradients",
    "moment": "moments",
}
_STATES = {"sum_of_squares": "sums of squares"}  # more than one, where an s does not say it


class Finding(NamedTuple):
    """Something that a rule found.

    Attributes
    ----------
    level : str
        ``red``, a problem; ``amber``, a warning; or ``note``: worth knowing, and no warning.
    rule : str
        The rule's name.
    text : str
        What was measured.
    cure : str
        What to do.
    tensor : tuple of (str, str), optional
        Kind and name of the tensor that it is about.
    column : str
        What of the tensor shows it: ``range``, ``noise`` or ``lost``.
    """

    level: str
    rule: str
    text: str
    cure: str
    tensor: tuple[str, str] | None = None
    column: str = "range"

    def __str__(self) -> str:
        return f"{self.text}: {self.cure}."


def name_of(recorder: Record, kind: str, name: str) -> str:
    """Return what to call a tensor in a sentence: ``Dense 2's weight gradients (1/kernel)``."""
    if (kind, name) == ("activation", "input") and name in recorder.labels:
        return recorder.labels[name]
    words = _WORDS.get(kind, f"{kind}s")
    if kind == "moment":
        slot = Slot.of(name)
        words, name = _STATES.get(slot.kind) or f"{slot.kind.replace('_', ' ')}s", slot.parameter
    layer, _, short = name.partition("/")
    label = recorder.labels.get(layer)
    if label is None:
        return f"the {words} of {name}"
    place = f" ({name})" if short else ""
    return f"{label}'s {words}{place}" if layer.isdecimal() else f"the {words} of {label}"


def percent(share: float) -> str:
    """Return a share as text, small ones with a digit more."""
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1f} %"


def capital(text: str) -> str:
    """Return a text that begins with a capital."""
    return text[:1].upper() + text[1:]


def starved_share(recorder: Record) -> float:
    """Return the share of the first moments that are not zero whose second moment is."""
    moving, starved = recorder.facts["starved"]
    return starved / moving if moving else 0.0
