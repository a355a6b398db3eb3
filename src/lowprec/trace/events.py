"""Events: values that ceased to be finite, or became zero, and the unit where each was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace.places import Event, event_key
from lowprec.trace.values import Scalar, Traced, parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.trace.places import Site, Unit
    from lowprec.trace.state import RunState

Array = np.ndarray[Any, Any]
Source = Any  # a Scalar, a Traced or None: whose shares an operand carries

_RUINED = 0.5  # relative error from which on an operand has no right digit


def is_finite(x: Any) -> bool:
    """Whether all numbers are finite."""
    return bool(np.isfinite(x).all())


def note_conversion(
    run: RunState, value: Any, given: Any, unit: Unit, site: Site | None, holder: Any = None
) -> None:
    """Note what became infinite or zero where numbers were converted."""
    wrong = ~np.isfinite(value) & np.isfinite(given)
    zero = (value == 0) & (given != 0)
    for kind, mask in (("overflow", wrong), ("new zero", zero)):
        if mask.any():
            first = tuple(map(int, np.argwhere(mask)[0])) if np.ndim(mask) else ()
            example = f"{float(np.asarray(given)[first]):.6g}"
            event = Event(kind, int(mask.sum()), np.size(mask), first, "conversion", example)
            unit.add_event(event, site)
            if site is not None:
                site.has_event = True
            mark(run, holder, mask, unit.index)


def mark(run: RunState, holder: Any, mask: Array, unit: int) -> None:
    """Remember where elements were lost."""
    run.has_lost = True
    if type(holder) is Scalar:
        holder.origin = unit
    elif type(holder) is Traced:
        if holder.store.origin is None:
            holder.store.origin = np.full(holder.store.shadow.shape, -1, np.int32)
        origins = holder.origins()
        assert origins is not None
        origins[np.broadcast_to(mask, origins.shape) & (origins < 0)] = unit


def carry_origins(run: RunState, result: Traced, sources: Sequence[Source]) -> None:
    """Carry along where elements were lost."""
    bad = ~np.isfinite(result.value) | (result.value == 0)
    if not bad.any():
        return
    for source in sources:
        origins = origins_of(source)
        if origins is None:
            continue
        origins = (
            np.broadcast_to(origins, result.shape)
            if np.ndim(origins) <= np.ndim(bad) and broadcasts(np.shape(origins), result.shape)
            else None
        )
        if origins is not None:
            for unit in np.unique(origins[bad & (origins >= 0)]):
                mark(run, result, bad & (origins == unit), int(unit))


def note_events(
    run: RunState,
    ufunc: Any,
    z: Any,
    zs: Any,
    values: Sequence[Any],
    shadows: Sequence[Any],
    sources: Sequence[Source],
    site: Site,
    counts: Any,
    holder: Any,
) -> None:
    """Note where values left the finite numbers, or became zero, and the shadow's did not."""
    if site.kit.is_numpy:
        return
    if counts is None:
        if np.isfinite(z).all() and np.all(z):
            return
    else:
        invalid, by_zero, overflow, underflow, _ = counts.tolist()
        if not (invalid or by_zero or overflow or underflow):
            return
    wrong = ~np.isfinite(z) & np.isfinite(zs)
    zero = (z == 0) & (zs != 0)
    if not (wrong.any() or zero.any()):
        return
    lost = np.zeros(np.shape(z), bool)
    for v, s, source in zip(values, shadows, sources, strict=True):
        origins = origins_of(source)
        if origins is not None:  # what was lost before is not an event here
            lost |= (origins >= 0) & ((~np.isfinite(v) & np.isfinite(s)) | ((v == 0) & (s != 0)))
    exact = ufunc(*[np.asarray(v, np.float64) for v in values])
    wrong &= ~lost
    zero &= exact != 0
    kinds = {
        "invalid": wrong & np.isnan(exact),
        "divide by zero": wrong & np.isinf(exact),
        "overflow": wrong & np.isfinite(exact),
        "new zero": zero,
    }
    note(run, kinds, ufunc.__name__, values, site, holder)
    if run.budget:
        _note_ruined(kinds, ufunc.__name__, values, shadows, sources, site)


def _note_ruined(
    kinds: dict[str, Any], name: str, values: Sequence[Any], shadows: Sequence[Any],
    sources: Sequence[Source], site: Site,
) -> None:  # fmt: skip
    """Keep whose error the operands carried that had no right digit and made an event."""
    for kind in ("invalid", "divide by zero"):
        mask = kinds[kind]
        if not np.any(mask):
            continue
        key = event_key(kind, name, site)
        for v, s, source in zip(values, shadows, sources, strict=True):
            ruined = mask & (np.abs(v - s) >= _RUINED * np.abs(s)) & np.isfinite(v)
            if not np.any(ruined):
                continue
            whole = float(np.sum(np.where(ruined, np.abs(s), 0.0))) or 1.0
            for which, parts in enumerate((parts_of(source, "born"), parts_of(source, "grown"))):
                for unit, part in parts.items():
                    size = float(np.sum(np.where(ruined, np.abs(part), 0.0)))
                    if size:
                        site.unit.ruin(key, which, unit, size / whole)


def note(
    run: RunState, kinds: dict[str, Any], name: str, values: Sequence[Any], site: Site, holder: Any
) -> None:
    """Add events of an operation to its line; a mask for each kind says where."""
    for kind, mask in kinds.items():
        if not mask.any():
            continue
        mask = np.asarray(mask)
        first = tuple(map(int, np.argwhere(mask)[0])) if mask.ndim else ()
        try:
            at = [float(np.broadcast_to(v, mask.shape)[first]) for v in values]
        except ValueError:
            at = []
        example = f"{name}({', '.join(f'{v:.6g}' for v in at)})" if at else name
        site.unit.add_event(Event(kind, int(mask.sum()), mask.size, first, name, example), site)
        mark(run, holder, mask, site.unit.index)
        site.has_event = True


def origin_of(source: Source) -> int:
    """Return the unit where an operand was lost, -1 if it was not."""
    if type(source) is Scalar:
        return source.origin
    origins = origins_of(source)
    return -1 if origins is None or not np.size(origins) else int(np.max(origins))


def origins_of(source: Source) -> Any:
    """Return the unit where each element of an operand was lost, None if none was."""
    if type(source) is Traced:
        return source.origins()
    if type(source) is Scalar and source.origin >= 0:
        return np.asarray(source.origin)
    return None


def broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether arrays of a shape spread over another."""
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False
