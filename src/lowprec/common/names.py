"""What a name stands for, and which one a misspelt name may have meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

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
        If there is no such name: it says which one is near, and lists all, of names for one thing
        the first.

    Examples
    --------
    >>> named("rleu", {"relu": max, "tanh": min}, "activation")
    Traceback (most recent call last):
        ...
    ValueError: 'rleu' is not an activation; did you mean 'relu'? use one of relu, tanh
    """
    things = list(table.values())
    firsts = [first for i, first in enumerate(table) if things[i] not in things[:i]]
    return table[one_of(name, table, kind, firsts)]


def one_of(
    name: str, names: Collection[str], kind: str, listed: Sequence[str] | None = None
) -> str:
    """Return a name, if it is one of these; else raise the error of `named`, with those listed."""
    if name in names:
        return name
    near = difflib.get_close_matches(str(name).lower(), names, n=1)
    choice = ", ".join(names if listed is None else listed)
    raise ValueError(
        f"{name!r} is not {with_article(kind)}; {did_you_mean(near)}use one of {choice}"
    )


def with_article(noun: str) -> str:
    """Return a noun with the article that goes before it.

    Examples
    --------
    >>> with_article("activation"), with_article("loss")
    ('an activation', 'a loss')
    """
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def did_you_mean(near: Sequence[str]) -> str:
    """Return the question that an error asks, with a space after it; nothing if no name is near.

    Examples
    --------
    >>> did_you_mean(["float16", "bfloat16"])
    "did you mean 'float16' or 'bfloat16'? "
    """
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""
