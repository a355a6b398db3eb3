"""What a run of a traced program has seen so far, and what it was asked to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowprec.trace.places import StepLimit

if TYPE_CHECKING:
    import numpy as np

    from lowprec.trace.places import Site


class RunState:
    """The state of one run.

    dtype: Of values: float32 if that holds all formats of the run, else float64.
    budget: Whether shares of error are kept.
    watched: Units whose shares are kept; all by default.
    """

    def __init__(
        self, dtype: np.dtype[Any], *, budget: bool, limit: int, watched: frozenset[int] | None
    ) -> None:
        self.dtype, self.budget, self.limit, self.watched = dtype, budget, limit, watched
        self.steps = 0
        self.has_nonfinite = False  # whether anything, the shadow too, is infinite or NaN
        self.has_lost = False  # whether anything became infinite, NaN or zero

    def count(self, site: Site, number: int) -> None:
        """Count operations of a line, and a call."""
        unit = site.unit
        unit.operations += number
        unit.calls += 1
        self.steps += 1
        if self.steps > self.limit:
            raise StepLimit
