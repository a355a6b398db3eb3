"""Shares of error: what an operation passes on of its operands', and what it adds itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace.events import is_finite, origins_of
from lowprec.trace.operations import TAME
from lowprec.trace.values import parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.trace.places import Site
    from lowprec.trace.state import RunState
    from lowprec.trace.values import Traced

Array = np.ndarray[Any, Any]
Source = Any  # a Scalar, a Traced or None: whose shares an operand carries

_BLOCK = 1 << 13  # elements of shares that are added up at once
_CANCELS = frozenset(("add", "subtract", "sum", "cumsum", "matmul", "mean", "diff", "einsum"))


def share(
    run: RunState,
    result: Traced,
    taken: Sequence[tuple[Any, Any, Source]],
    flows: Sequence[tuple[Any, Any]],
    site: Site,
) -> None:
    """Book the error of a result: what operands bring by their slopes, the rest to the line.

    Parameters
    ----------
    result : Traced
        A fresh array.
    taken : sequence of (value, shadow, source)
        The operands.
    flows : sequence of (slope, kept)
        A slope is a number, an array that multiplies elementwise, or a linear function.
    site : Site
        What runs.
    """
    zs = result.shadow
    shape = zs.shape
    error = result.value - zs
    mask: Any = np.isfinite(error)
    if mask.all():
        mask = None
    else:
        run.has_nonfinite = True
        error = np.where(mask, error, 0.0)
    is_tame = site.name in TAME and not run.has_nonfinite
    brought: list[tuple[Any, Any, Any]] = []  # slope, kept, error of the operand
    born_pieces: dict[int, list[tuple[Any, Any, Any]]] = {}
    grown_pieces: dict[int, list[tuple[Any, Any, Any]]] = {}
    for source, slope, kept in _carriers(taken, flows):
        parts = parts_of(source, "born")
        if not parts and (run.watched is None or source is None):
            continue
        if not (is_tame or callable(slope)):
            slope = _without_nonfinite(slope)
        if not is_tame:
            kept = _without_nonfinite(kept)
        own = source.value - source.shadow
        if run.has_nonfinite:
            own = _without_nonfinite(own)
        brought.append((slope, kept, own))
        for unit, piece in parts.items():
            born_pieces.setdefault(unit, []).append((slope, 1.0, piece))
        if type(slope) is np.ndarray and type(kept) is np.ndarray:
            slope, kept = slope * kept, 1.0
        for unit, piece in parts_of(source, "grown").items():
            grown_pieces.setdefault(unit, []).append((slope, kept, piece))
    born, grown = result.store.born, result.store.grown
    assert born is not None
    assert grown is not None
    for unit, pieces in born_pieces.items():
        born[unit] = _added(pieces, shape, mask)
    for unit, pieces in grown_pieces.items():
        grown[unit] = _added(pieces, shape, mask)
    if not brought:
        _book(run, born, error, taken, site)
        _book(run, grown, error.copy(), taken, site)
        _weigh(site, error, None, None, 1.0)
        return
    total = _added([(slope, 1.0, own) for slope, _, own in brought], shape, mask)
    carried = total
    if any(type(kept) is not float for _, kept, _ in brought):
        carried = _added(brought, shape, mask)
    lowest = brought[0][1]
    for _, kept, _ in brought[1:]:
        lowest = lowest if lowest is kept else np.minimum(lowest, kept)
    own = error - total
    _book(run, born, own, taken, site)
    _book(run, grown, own.copy() if carried is total else error - carried, taken, site)
    _weigh(site, own, total, carried, lowest)


def _book(run: RunState, parts: dict[int, Any], own: Any, taken: Any, site: Site) -> None:
    """Book what operands do not explain: to the line, or to where an operand was lost.

    `own` is a fresh array.
    """
    if not np.any(own):
        return
    here = site.unit.index
    if run.has_lost:
        for value, _, source in taken:
            origins = origins_of(source)
            if origins is None:
                continue
            lost = ~np.isfinite(value) & (origins >= 0)
            if lost.shape != own.shape or not lost.any():
                continue
            for unit in np.unique(origins[lost]):
                mask = lost & (origins == unit)
                share = np.where(mask, own, 0.0)
                parts[int(unit)] = parts[int(unit)] + share if int(unit) in parts else share
                own = np.where(mask, 0.0, own)
    if run.watched is not None:
        for unit in parts.keys() - run.watched:
            del parts[unit]
        if here not in run.watched:
            return
    if here in parts:
        parts[here] += own
    else:
        parts[here] = own


def _weigh(site: Site, own: Any, total: Any, carried: Any, lowest: Any) -> None:
    """Keep how much error was born and amplified here.

    The first times, and then ever more rarely, since this only chooses what is underlined; bits
    that are cancelled are looked at every time.
    """
    site.seen += 1
    if site.seen < 4 or site.seen & (site.seen - 1) == 0:
        site.weight = max(site.weight, _largest(own))
        if total is not None and carried is not total:
            site.amplified = max(site.amplified, _largest(total - carried))
    if total is None or type(lowest) is float or site.name not in _CANCELS:
        return
    least = float(np.min(lowest, initial=1.0))
    if least < 1.0 and (least <= 0.0 or -math.log2(least) > site.bits):
        brought = total != 0
        if brought.any():
            kept = float(np.min(np.broadcast_to(lowest, total.shape)[brought]))
            if kept < 1.0:
                note_cancelled(site, kept)


def note_cancelled(site: Site, kept: float) -> None:
    """Keep how many bits a subtraction cancelled: all but a part of what its operands had."""
    most = float(site.kit.fmt.precision)
    bits = most if kept <= 0.0 else min(most, -math.log2(kept))
    if bits > site.bits:
        site.bits = bits
    site.unit.bits = max(site.unit.bits, bits)


def _carriers(taken: Any, flows: Any) -> list[tuple[Source, Any, Any]]:
    """Return the operands with slope and kept; one that is both operands, as in x * x, once."""
    carriers = [(t[2], *flow) for t, flow in zip(taken, flows, strict=True)]
    if len(carriers) == 2:
        (source, slope, kept), (other, more, same) = carriers
        is_alike = kept is same or type(kept) is type(same) is float
        if source is other and is_alike and not callable(slope):
            return [(source, slope + more, kept)]
    return carriers


def _without_nonfinite(x: Any) -> Any:
    """Return an array with 0 for what is not finite; a number as it is."""
    return x if type(x) is float or is_finite(x) else np.where(np.isfinite(x), x, 0.0)


def _added(pieces: list[tuple[Any, Any, Any]], shape: tuple[int, ...], mask: Array | None) -> Array:
    """Return the sum of slope · kept · part over operands, a fresh array of a shape."""
    kept = pieces[0][1]
    share: Any = None
    is_more = len(pieces) > 1 or type(kept) is not float  # than one multiplication
    if is_more and math.prod(shape) > _BLOCK and all(
        piece[1] is kept and _is_plain(piece, shape) for piece in pieces
    ):  # fmt: skip
        share = _added_in_blocks([(slope, part) for slope, _, part in pieces], kept)
    else:
        for slope, factor, part in pieces:
            piece = _through(slope, part, shape)
            if type(factor) is not float:
                piece *= factor
            share = piece if share is None else np.add(share, piece, out=share)
    return share if mask is None else np.where(mask, share, 0.0)


def _added_in_blocks(pieces: list[tuple[Any, Any]], kept: Any) -> Array:
    """Return the sum of slope · part over operands times what is kept, of arrays as they lie.

    It goes block by block, so that what is computed with again is still in the cache.
    """
    share = np.empty(pieces[0][1].shape)
    flat: list[tuple[Any, Any]] = [
        (slope if type(slope) is float else slope.reshape(-1), part.reshape(-1))
        for slope, part in pieces
    ]
    factor = None if type(kept) is float else kept.reshape(-1)
    target, scratch = share.reshape(-1), np.empty(min(share.size, _BLOCK))
    for start in range(0, share.size, _BLOCK):
        here = slice(start, start + _BLOCK)
        out = target[here]
        total: Any = None
        for slope, whole in flat:
            part, room = whole[here], out if total is None else scratch[: out.size]
            if type(slope) is not float:
                part = np.multiply(slope[here], part, out=room)
            elif slope != 1.0:
                part = np.multiply(slope, part, out=room)
            total = part if total is None else np.add(total, part, out=out)
        if factor is not None:
            np.multiply(total, factor[here], out=out)
    return share


def _is_plain(piece: tuple[Any, Any, Any], shape: tuple[int, ...]) -> bool:
    """Whether a share is a product of arrays as they lie."""
    slope, kept, part = piece
    if not (type(kept) is float or (kept.shape == shape and kept.flags.c_contiguous)):
        return False
    if type(part) is not np.ndarray or part.shape != shape or not part.flags.c_contiguous:
        return False
    if type(slope) is float:
        return True
    return type(slope) is np.ndarray and slope.shape == shape and slope.flags.c_contiguous


def _through(slope: Any, part: Any, shape: tuple[int, ...]) -> Any:
    """Return a share after an operation: a fresh array of the result's shape."""
    share = slope(part) if callable(slope) else slope * part
    if np.shape(share) != shape:
        return np.array(np.broadcast_to(share, shape), np.float64)
    is_fresh = type(share) is np.ndarray and not callable(slope) and share.flags.c_contiguous
    return share if is_fresh else np.array(share, order="C")


def _largest(x: Any) -> float:
    """Return the largest magnitude; 0 of nothing."""
    return float(max(np.max(x, initial=0.0), -np.min(x, initial=0.0)))
