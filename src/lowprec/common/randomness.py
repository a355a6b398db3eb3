"""Where randomness comes from: an `rng` of SPEC 7, from which each call draws one key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    RNGLike = np.random.Generator | np.random.SeedSequence | int | None

__all__ = ["draw_key"]


def draw_key(rng: RNGLike) -> int:
    """Draw the key of one stochastic call."""
    generator = np.random.default_rng(rng)
    return int(generator.integers(0, 2**64 - 1, dtype=np.uint64, endpoint=True))
