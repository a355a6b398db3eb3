"""Tensors chosen by patterns of their names."""

from __future__ import annotations

import difflib
import fnmatch
from typing import TYPE_CHECKING

from lowprec.common.names import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def is_selected(name: str, include: Iterable[str], exclude: Iterable[str]) -> bool:
    """Whether a pattern of `include` matches a name and none of `exclude` does."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in include) and not any(
        fnmatch.fnmatchcase(name, pattern) for pattern in exclude
    )


def selected_names(
    names: Sequence[str], include: tuple[str, ...], exclude: tuple[str, ...]
) -> list[str]:
    """Return the names that are selected.

    Raises ValueError if a pattern matches no name, or nothing is left.
    """
    check_patterns(names, include, exclude)
    chosen = [name for name in names if is_selected(name, include, exclude)]
    if names and not chosen:
        raise ValueError(f"nothing is left: {in_words(include, exclude)} select no tensor")
    return chosen


def check_patterns(
    names: Sequence[str], include: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    """Raise ValueError unless every pattern matches a name; it says which names come near."""
    for option, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if pattern != "*" and not fnmatch.filter(names, pattern):
                raise ValueError(
                    f"{option} {pattern!r} matches none of the {len(names):,} names; "
                    f"{_near(pattern, names)}"
                )


def in_words(include: tuple[str, ...], exclude: tuple[str, ...]) -> str:
    """Return both lists of patterns in words."""
    return f"include {', '.join(include)}" + (
        f" and exclude {', '.join(exclude)}" if exclude else ""
    )


def _near(pattern: str, names: Sequence[str]) -> str:
    """Return which names come near a pattern, else the first ones."""
    near = difflib.get_close_matches(pattern.strip("*?"), names, n=3, cutoff=0.5)
    near = near or [name for name in names if pattern.strip("*?.").lower() in name.lower()][:3]
    if near:
        return did_you_mean(near).strip()
    shown = ", ".join(names[:3])
    return f"the names are {shown}" + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
