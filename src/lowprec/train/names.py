"""What a name stands for, and which one a misspelt name may have meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["named"]

T = TypeVar("T")


def named(name: str, table: Mapping[str, T], kind: str) -> T:
    """Return what a name stands for in a table.

    Parameters
    ----------
    name : str
        A key of the table.
    table : mapping of str to anything
        What there is.
    kind : str
        What the names are names of, for the error.

    Raises
    ------
    ValueError
        If there is no such name: it says which one is near, and lists all.

    Examples
    --------
    >>> named("rleu", {"relu": max, "tanh": min}, "activation")
    Traceback (most recent call last):
        ...
    ValueError: 'rleu' is no activation; did you mean 'relu'? use one of relu, tanh
    """
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name.lower(), table, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{name!r} is no {kind}; {hint}use one of {', '.join(table)}")
