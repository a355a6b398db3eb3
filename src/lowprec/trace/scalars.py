"""Numbers among themselves: a path of their own, in Python's floats, with the bits of arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace.events import note_conversion, note_events
from lowprec.trace.places import StepLimit
from lowprec.trace.shares import note_cancelled
from lowprec.trace.values import Scalar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.trace.places import Site
    from lowprec.trace.state import RunState

_ADD, _SUB, _MUL, _DIV = np.add, np.subtract, np.multiply, np.divide
OPERATIONS = frozenset((_ADD, _SUB, _MUL, _DIV))


def operate(run: RunState, ufunc: Any, a: Any, b: Any, site: Site) -> Any:
    """Return the result of + - * / of two numbers."""
    kit = site.kit
    unit = site.unit
    x, xs = _entered(run, a, site)
    y, ys = _entered(run, b, site)
    unit.operations += 1
    unit.calls += 1
    run.steps += 1
    if run.steps > run.limit:
        raise StepLimit
    if ufunc is _ADD:
        exact, zs = x + y, xs + ys
    elif ufunc is _MUL:
        exact, zs = x * y, xs * ys
    elif ufunc is _SUB:
        exact, zs = x - y, xs - ys
        if x > unit.largest or -x > unit.largest:
            unit.largest = abs(x)
    else:
        exact = x / y if y else float(np.divide(x, y))
        zs = xs / ys if ys else float(np.divide(xs, ys))
    z = kit.enter_one(exact)
    result = Scalar(run, z, zs, kit)
    if (
        z != exact
        and (ufunc is _ADD or ufunc is _SUB)
        and ((z == x and y != 0.0) or (z == (y if ufunc is _ADD else -y) and x != 0.0))
    ):
        unit.absorbed += 1
    if run.budget:
        _share(run, ufunc, result, a, b, x, xs, y, ys, site)
    if z == 0.0 or z - z != 0.0:
        _note_events(run, ufunc, result, a, b, x, xs, y, ys, site)
    return result


def _entered(run: RunState, x: Any, site: Site) -> tuple[float, float]:
    """Return an operand in the line's format, and its shadow."""
    if type(x) is Scalar:
        return x.value if x.kit is site.kit else converted(run, x, site), x.shadow
    value, shadow = site.kit.enter_one(x), float(x)
    if value != shadow and (value == 0.0 or value - value != 0.0):
        note_conversion(run, np.asarray(value), np.asarray(shadow), site.unit, None)
    return value, shadow


def converted(run: RunState, x: Scalar, site: Site) -> float:
    """Return a number of another format in the line's."""
    value = site.kit.enter_one(x.value)
    if value != x.value and (value == 0.0 or value - value != 0.0):
        note_conversion(run, np.float64(value), np.float64(x.value), site.unit, site)
    return value


def _share(
    run: RunState, ufunc: Any, z: Scalar, a: Any, b: Any, x: float, xs: float, y: float, ys: float,
    site: Site,
) -> None:  # fmt: skip
    """Book the error of a result to units, as `_share` does for arrays."""
    error = z.value - z.shadow
    kept = 1.0
    if ufunc is _ADD or ufunc is _SUB:
        slopes = (1.0, 1.0 if ufunc is _ADD else -1.0)
        size = abs(xs) + abs(ys)
        if size > 0.0:
            kept = min(1.0, abs(z.shadow) / size)
    elif ufunc is _MUL:
        slopes = (0.5 * (y + ys), 0.5 * (x + xs))
    elif y and ys:
        slopes = (0.5 * (1 / y + 1 / ys), -0.5 * (x + xs) / y / ys)
    else:
        slopes = (0.0, 0.0)
    born: dict[int, float] = {}
    grown: dict[int, float] = {}
    z.born, z.grown = born, grown
    if error - error != 0.0:
        run.has_nonfinite = True
        return
    total = carried = 0.0
    for source, slope in ((a, slopes[0]), (b, slopes[1])):
        if type(source) is not Scalar or (source.value == source.shadow and not source.born):
            continue
        brought = slope * (source.value - source.shadow)
        if brought - brought != 0.0:
            continue
        total += brought
        carried += kept * brought
        for unit, part in source.born.items():  # type: ignore[union-attr]
            born[unit] = born.get(unit, 0.0) + slope * part
        for unit, part in source.grown.items():  # type: ignore[union-attr]
            grown[unit] = grown.get(unit, 0.0) + slope * kept * part
    here = site.unit.index
    watched = run.watched
    if total != 0.0 and kept < 1.0:
        note_cancelled(site, kept)
    if error != total:
        own = error - total
        at = _blamed(here, (a, b))
        if watched is None or at in watched:
            born[at] = born.get(at, 0.0) + own
        site.weight = max(site.weight, abs(own))
    if error != carried:
        at = _blamed(here, (a, b))
        if watched is None or at in watched:
            grown[at] = grown.get(at, 0.0) + error - carried
        if kept < 1.0:
            site.amplified = max(site.amplified, abs(total - carried))


def _blamed(here: int, operands: Sequence[Any]) -> int:
    """Return the unit where an operand was lost, else the line that runs."""
    for x in operands:
        if type(x) is Scalar and x.origin >= 0 and not math.isfinite(x.value):
            return x.origin
    return here


def _note_events(
    run: RunState, ufunc: Any, z: Scalar, a: Any, b: Any, x: float, xs: float, y: float, ys: float,
    site: Site,
) -> None:  # fmt: skip
    counts = np.ones(5, np.int64)
    operands = [np.asarray(x), np.asarray(y)]
    shadows = [np.asarray(xs), np.asarray(ys)]
    if run.has_lost:
        z.origin = max((s.origin for s in (a, b) if type(s) is Scalar), default=-1)
    value, shadow = np.asarray(z.value), np.asarray(z.shadow)
    note_events(run, ufunc, value, shadow, operands, shadows, (a, b), site, counts, z)


def mirrored(run: RunState, ufunc: Any, x: Scalar, site: Site) -> Scalar | None:
    """Return -x or |x|, which are exact; None where value and shadow have different signs."""
    if ufunc is np.absolute and not (x.value <= 0 and x.shadow <= 0):
        if not (math.copysign(1.0, x.value) > 0 and x.shadow >= 0):
            return None
        run.count(site, 1)
        return x
    run.count(site, 1)
    value = -x.value if x.value == x.value else x.value
    born = grown = None
    if run.budget:
        born = {u: -p for u, p in (x.born or {}).items()}
        grown = {u: -p for u, p in (x.grown or {}).items()}
    if ufunc is np.absolute:
        value = abs(value)
    result = Scalar(run, value, -x.shadow, x.kit, born, grown)
    result.origin = x.origin
    return result
