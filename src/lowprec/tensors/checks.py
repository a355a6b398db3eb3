"""What any file must satisfy before a byte of its data is read."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST_BYTES = 2**63 - 1  # of any array
_MOST_DIMENSIONS = 64  # of NumPy's arrays
_MOST_RATIO = 2000  # elements' bytes to stored ones: what gzip of zeros reaches, and some


def checked_name(name: Any) -> str:
    """Return a tensor's name.

    Raises ValueError if it would lead out of a folder as a file's name, or a terminal could not
        show it.
    """
    if not isinstance(name, str) or not name.isprintable():
        raise ValueError(f"a name has characters that cannot be printed: {name!a:.100}")
    if re.search(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:[/\\]", name):
        raise ValueError(f"{name!r:.100} is a path out of its folder, not a tensor's name")
    return name


def checked_size(name: str, shape: Any, itemsize: int) -> int:
    """Return how many elements a shape has.

    Raises ValueError if the shape is not a list of integers from 0 on, or no array can have it.
    """
    if not isinstance(shape, list | tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{name!r:.100} has shape {shape!r:.100}; use integers from 0 on")
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"{name!r:.100} has {len(shape)} dimensions; arrays have at most 64")
    if math.prod(n for n in shape if n) * max(1, itemsize) > _MOST_BYTES:
        raise ValueError(f"{name!r:.100} has shape {shape!r:.100}: more than any memory holds")
    return math.prod(shape)


def endless_claim(claimed: int, stored: int) -> str:
    """Return why an array is left whose bytes are many times those of its file; "" otherwise."""
    if claimed <= max(1 << 20, _MOST_RATIO * stored):
        return ""
    return f"{claimed:,} bytes are told, and {stored:,} are there"


def refuse_duplicates(names: Iterable[str]) -> None:
    """Raise ValueError if two tensors have one name."""
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"the name {name!r:.100} is there {count} times")
