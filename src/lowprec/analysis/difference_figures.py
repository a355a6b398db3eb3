"""How two arrays differ, as plain data: figures, elements, and what was not compared."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from lowprec.common.processor_state import in_exact_state

if TYPE_CHECKING:
    from lowprec.blocks.formats import AnyFormat


@dataclasses.dataclass(frozen=True)
class Element:
    """One element that differs.

    Attributes
    ----------
    name : str
        Of its tensor; "x" where two arrays were compared.
    index : tuple of int
        Its place in the tensor.
    x, y : float
        Its values.
    ulps, abs, rel : float
        The distance: in steps of the format, absolute, and relative to x.
    """

    name: str
    index: tuple[int, ...]
    x: float
    y: float
    ulps: float
    abs: float
    rel: float


@dataclasses.dataclass(frozen=True, repr=False)
class Figures:
    """What a `Difference` holds, which describes the attributes; without its views."""

    fmt: AnyFormat | None
    count: int
    equal: int
    max_ulps: float
    max_abs: float
    max_rel: float
    percentiles: dict[str, dict[str, float]]
    first: Element | None
    worst: Element | None
    most_distant: tuple[Element, ...] = ()
    unbounded: int = 0
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = dataclasses.field(
        default_factory=dict
    )
    tensors: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    @in_exact_state
    def equal_share(self) -> float:
        """The share of elements that are the same; NaN where none was compared."""
        return self.equal / self.count if self.count else math.nan

    @property
    def is_complete(self) -> bool:
        """Whether every tensor was compared: none is missing, extra or of two shapes."""
        return not (self.missing or self.extra or self.shapes)

    def within(self, ulps: float) -> bool:
        """Whether everything was compared and no distance is greater."""
        return self.is_complete and self.max_ulps <= ulps


def roundings(ulps: float) -> str:
    """Return in words how many roundings may lie between two numbers of this distance.

    Examples
    --------
    >>> roundings(0.5), roundings(1.0), roundings(1.25), roundings(7.0)
    ('one rounding to nearest', 'one rounding', 'two roundings', 'more than two roundings')
    """
    if ulps == 0:
        return "not a rounding"
    if ulps <= 0.5:
        return "one rounding to nearest"
    if ulps <= 1:
        return "one rounding"
    return "two roundings" if ulps <= 2 else "more than two roundings"
