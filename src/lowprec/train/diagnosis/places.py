"""Where: the least set of layers that must be wide, found by bisection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.train.layer_policies import layer_labels
from lowprec.train.policy import INPUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowprec.train.layers.layer import Layer


def candidates(layers: Sequence[Layer], parts: Sequence[str]) -> list[str]:
    """Return the places that have some of these parts, in the order of the network."""
    found = [INPUTS] if "compute" in parts else []
    for i, layer in enumerate(layers):
        has = bool(layer.trained) and any(p in ("params", "state") for p in parts)
        computes = any(part in ("compute", "gradients") for part in parts)
        sums = "accumulate" in parts and layer.reads_rounded
        if has or computes or sums:
            found.append(str(i))
    return found


def least(places: Sequence[str], decides: Callable[[Sequence[str]], bool | None]) -> list[str]:
    """Return the least set of places that decides, found by bisection.

    Parameters
    ----------
    places : sequence of str
        All of them together decide.
    decides : callable
        Whether some of them do; None where no time is left to find out.

    Returns
    -------
    list of str
        One place where one alone decides; else the least run of neighbours, and of these the two
        ends where they suffice. Where time runs out, what was narrowed down so far.

    Examples
    --------
    >>> least("abcdefgh", lambda some: {"c", "d"} <= set(some))
    ['c', 'd']
    """
    found = list(places)
    if len(found) <= _FEW:
        for place in found:
            if decides([place]):
                return [place]
    low, high = 1, len(found)  # the shortest beginning that decides
    while low < high:
        middle = (low + high) // 2
        answer = decides(found[:middle])
        if answer is None:
            return found[:high]
        low, high = (low, middle) if answer else (middle + 1, high)
    found = found[:high]
    low, high = 0, len(found) - 1  # the latest start that still does
    while low < high:
        middle = (low + high + 1) // 2
        answer = decides(found[middle:])
        if answer is None:
            return found[low:]
        low, high = (middle, high) if answer else (low, middle - 1)
    found = found[low:]
    if len(found) > 2 and decides([found[0], found[-1]]):
        return [found[0], found[-1]]
    return found


def keys(places: Sequence[str], layers: Sequence[Layer]) -> list[str]:
    """Return places as keys of `Policy.layers`, layers by their labels."""
    labels = layer_labels(layers)
    return [labels[int(place)] if place.isdecimal() else place for place in places]


_FEW = 4  # places that are tried one by one


def named(places: Sequence[str], layers: Sequence[Layer]) -> str:
    """Return places in words: ``Dense 17 to 24``, ``the inputs``, ``Dense 1 and Conv2D 2``."""
    labels = layer_labels(layers)
    words = [_word(place, labels) for place in places]
    if len(words) > 2:
        kinds = {word.rpartition(" ")[0] for word in words}
        if len(kinds) == 1:
            return f"{words[0]} to {words[-1].rpartition(' ')[2]}"
        return f"{words[0]} to {words[-1]}"
    return " and ".join(words)


def _word(place: str, labels: Sequence[str]) -> str:
    if place == INPUTS:
        return "the inputs"
    layer, _, parameter = place.partition("/")
    label = labels[int(layer)]
    return f"{label}'s {parameter} ({place})" if parameter else label
