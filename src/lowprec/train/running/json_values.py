"""Values as JSON holds them: for files, and for the facts of a training."""

from __future__ import annotations

import math
import re
from typing import Any


def plain(value: Any) -> Any:
    """Return a number, a text or None as it is, anything else as its repr.

    Examples
    --------
    >>> plain(0.5), plain(range(3))
    (0.5, 'range(0, 3)')
    """
    if isinstance(value, int | float | str | None):
        return value
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # addresses differ from process to process


def as_json(value: Any) -> Any:
    """Return a value with None for every number that JSON does not know.

    Examples
    --------
    >>> as_json({"loss": (0.5, math.nan)})
    {'loss': [0.5, None]}
    """
    if isinstance(value, dict):
        return {key: as_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
