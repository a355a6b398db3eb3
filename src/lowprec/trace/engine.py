"""Runs the operations of a traced program: value, shadow, and shares of error."""

from __future__ import annotations

import ast
import functools
import inspect
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.accumulation.cumulative import cumsum
from lowprec.accumulation.means import mean
from lowprec.accumulation.products import matmul
from lowprec.accumulation.sums import sum as rounded_sum
from lowprec.trace import operations
from lowprec.trace.operations import COMPARISONS, QUESTIONS, SELECTIONS, method_of
from lowprec.trace.places import Event, event_key, expression, short
from lowprec.trace.values import Scalar, Store, Traced, TracedNumber, is_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowprec.trace.kits import Kit
    from lowprec.trace.places import Places, Site, Unit

Array = np.ndarray[Any, Any]
Source = Any  # a Scalar, a Traced or None: whose shares an operand carries

_ADD, _SUB, _MUL, _DIV = np.add, np.subtract, np.multiply, np.divide
_SMALL = 4096  # elements, up to which an operand is spread out before it is computed with
# Bytes. Where glibc has freed a block of this size, it keeps as much for what is allocated next; it
# would give every array of shares back to the system, and fetching it again costs more than the
# arithmetic.
_KEPT_MEMORY = 30 << 20
_BLOCK = 1 << 13  # elements of shares that are added up at once
_INEXACT = 4  # place in the counts of events
_COUNTED = 1 << 16  # terms of sums, up to which those are counted that change nothing
_RUINED = 0.5  # relative error from which on an operand has no right digit


class StepLimit(BaseException):
    """The program has made more operations than allowed; no `except Exception` takes it."""


class LeavesError(AttributeError, TypeError):
    """Values would leave by an attribute: for `hasattr` there is none."""


class Engine:
    """What the operators of traced values ask.

    Parameters
    ----------
    places : Places
        Finds the line that runs.
    dtype : dtype
        Of values: float32 if that holds all formats of the run, else float64.
    budget : bool
        Whether shares of error are kept.
    leaks : str
        "error" or "round": what becomes of values that leave.
    functions : dict
        What NumPy's functions are in a format: handlers `(engine, *args, **kwargs)`.
    limit : int
        The most operations.
    """

    def __init__(
        self,
        places: Places,
        dtype: np.dtype[Any],
        *,
        budget: bool,
        leaks: str,
        functions: dict[Any, Callable[..., Any]],
        limit: int,
    ) -> None:
        self.places, self.dtype, self.budget, self.leaks = places, dtype, budget, leaks
        self.functions, self.limit = functions, limit
        self.steps = 0
        self.numpy: Any = np  # as the program sees it
        self.watched: frozenset[int] | None = None  # units whose shares are kept; all by default
        self.left: list[str] = []  # what left although it was allowed to
        self.has_nonfinite = False  # whether anything, the shadow too, is infinite or NaN
        self.has_lost = False  # whether anything became infinite, NaN or zero
        self._codes = places._codes
        if budget:
            np.empty(_KEPT_MEMORY, np.int8)  # freed at once, and untouched

    # Entering ----------------------------------------------------------------------------------

    def site(self, name: str) -> Site:
        """Return the place that runs now."""
        return self.places.site(2, name)

    def scalar_from(self, x: float, unit: Unit, kit: Kit) -> Scalar:
        """Return a number that enters, its rounding booked."""
        value, shadow = kit.enter_one(x), float(x)
        if not math.isfinite(value - shadow):
            self.has_nonfinite = True
        if not self.budget:
            born: Any = None
        elif value == shadow or not math.isfinite(value - shadow) or not self._keeps(unit):
            born = {}
        else:
            born = {unit.index: value - shadow}
        scalar = Scalar(self, value, shadow, kit, born, None if born is None else dict(born))
        if value != shadow:
            unit.has_rounded = True
            self._entered(np.asarray(value), np.asarray(shadow), unit, "conversion", scalar)
        return scalar

    def array_from(self, x: Any, unit: Unit, kit: Kit) -> Traced:
        """Return an array of numbers that enter, their roundings booked."""
        value = self._stored(kit.enter(x))
        shadow = np.array(x, np.float64, order="C")
        if value is x or np.may_share_memory(value, shadow):
            value = value.copy()
        array = self.fresh(value, shadow, kit)
        error = value - shadow
        if not is_finite(error):
            self.has_nonfinite = True
        has_error = bool(np.any(error))
        unit.has_rounded = unit.has_rounded or has_error
        if self.budget and has_error and self._keeps(unit):
            part = np.where(np.isfinite(error), error, 0.0)
            array.store.born[unit.index] = part  # type: ignore[index]
            array.store.grown[unit.index] = part.copy()  # type: ignore[index]
        self._entered(value, shadow, unit, "conversion", array)
        return array

    def _keeps(self, unit: Unit) -> bool:
        """Whether shares of a unit are kept."""
        return self.watched is None or unit.index in self.watched

    def raw(self, x: Any) -> Traced | Scalar:
        """Return an array or a number of the program's globals, which enters where it is used."""
        if not isinstance(x, np.ndarray):
            return Scalar(self, float(x), float(x), None, {}, {})
        shadow = np.array(x, np.float64, order="C")
        if not is_finite(shadow):
            self.has_nonfinite = True
        return Traced(self, shadow.copy(), shadow, self._store(shadow, None))

    def _store(self, shadow: Array, kit: Kit | None) -> Store:
        return Store(shadow, kit, {}, {}) if self.budget else Store(shadow, kit, None, None)

    def _stored(self, value: Any) -> Array:
        array: Array = np.asarray(value)
        if array.dtype != self.dtype:
            array = array.astype(self.dtype)
        return array if array.flags.c_contiguous else array.copy("C")

    def fresh(self, value: Any, shadow: Any, kit: Kit | None) -> Traced:
        """Return an array with memory of its own, without shares."""
        shadow = np.asarray(shadow, np.float64)
        if not shadow.flags.c_contiguous:
            shadow = shadow.copy("C")
        return Traced(self, self._stored(value), shadow, self._store(shadow, kit))

    def _entered(self, value: Array, shadow: Array, unit: Unit, what: str, holder: Any) -> None:
        """Note what became infinite or zero by a conversion."""
        wrong = ~np.isfinite(value) & np.isfinite(shadow)
        zero = (value == 0) & (shadow != 0)
        if wrong.any() or zero.any():
            for kind, mask in (("overflow", wrong), ("new zero", zero)):
                if mask.any():
                    first = tuple(map(int, np.argwhere(mask)[0])) if mask.ndim else ()
                    example = f"{float(shadow[first]):.6g}"
                    unit.add_event(Event(kind, int(mask.sum()), mask.size, first, what, example))
            self._mark(holder, wrong | zero, unit.index)

    def _mark(self, holder: Any, mask: Array, unit: int) -> None:
        """Remember where elements were lost."""
        self.has_lost = True
        if type(holder) is Scalar:
            holder.origin = unit
        elif type(holder) is Traced:
            if holder.store.origin is None:
                holder.store.origin = np.full(holder.store.shadow.shape, -1, np.int32)
            origins = holder.origins()
            assert origins is not None
            origins[np.broadcast_to(mask, origins.shape) & (origins < 0)] = unit

    def array(self, x: Any, site: Site | None = None) -> Traced:
        """Return anything numeric as a traced array, entering where it has not."""
        kind = type(x)
        if kind is Traced:
            return x  # type: ignore[no-any-return]
        if kind is Scalar:
            return self._as_array(x)
        if site is None:
            site = self.site("constant")
        if isinstance(x, list | tuple) and has_traced(x):
            return self.stacked(x, site)
        return self.array_from(_numeric(x, site), site.unit, site.kit)

    def _as_array(self, x: Scalar) -> Traced:
        shadow = np.array(x.shadow)
        value = np.array(x.value, self.dtype if x.kit is not None else np.float64)
        if not self.budget:
            return Traced(self, value, shadow, Store(shadow, x.kit, None, None))
        born = {unit: np.array(part) for unit, part in (x.born or {}).items()}
        grown = {unit: np.array(part) for unit, part in (x.grown or {}).items()}
        store = Store(shadow, x.kit, born, grown)
        if x.origin >= 0:
            store.origin = np.array(x.origin, np.int32)
        return Traced(self, value, shadow, store)

    def stacked(self, items: Sequence[Any], site: Site) -> Traced:
        """Return nested lists of traced numbers as an array."""
        parts = [self.array(item, site) for item in items]
        shapes = {part.shape for part in parts}
        if len(shapes) > 1:
            raise ValueError(
                "setting an array element with a sequence. The requested array has an "
                f"inhomogeneous shape: rows of shapes {', '.join(map(str, sorted(shapes)))}"
            )
        kits = {id(part.kit) for part in parts}
        value = np.stack([part.value for part in parts])
        shadow = np.stack([part.shadow for part in parts])
        stack = Traced(
            self, value, shadow, self._store(shadow, parts[0].kit if len(kits) == 1 else None)
        )
        for row, part in enumerate(parts):
            self._write_parts(stack, row, part)
        return stack

    def lowered(self, x: Any) -> Any:
        """Return a scalar for an array without dimensions, as NumPy's functions do."""
        return self.get(x, ()) if type(x) is Traced and x.value.ndim == 0 else x

    # Operands ----------------------------------------------------------------------------------

    def operand(self, x: Any, site: Site) -> tuple[Any, Any, Source]:
        """Return an operand in the line's format, its shadow, and whose shares it carries."""
        kit = site.kit
        kind = type(x)
        value: Any
        shadow: Any
        if kind is Traced:
            if x.store.kit is kit:
                return x.value, x.shadow, x
            return self._converted(x.value, x.shadow, site), x.shadow, x
        if kind is Scalar:
            if x.kit is kit:
                return self.dtype.type(x.value), np.float64(x.shadow), x
            value = self._converted(np.float64(x.value), np.float64(x.shadow), site)
            return value[()], np.float64(x.shadow), x
        if kind is float or kind is int:
            value = kit.enter_one(x)
            shadow = np.float64(x)
            if value - value != 0.0:
                self.has_nonfinite = True
            if value != x:
                self._entered(np.asarray(value), np.asarray(shadow), site.unit, "conversion", None)
            return self.dtype.type(value), shadow, None
        if isinstance(x, list | tuple) and has_traced(x):
            return self.operand(self.stacked(x, site), site)
        numbers = _numeric(x, site)
        value = self._stored(kit.enter(numbers))
        shadow = np.asarray(numbers, np.float64)
        if not is_finite(value):
            self.has_nonfinite = True
        self._entered(value, shadow, site.unit, "conversion", None)
        return value, shadow, None

    def _converted(self, value: Any, shadow: Any, site: Site) -> Array:
        """Round values of another format; what is lost by it is booked to the line."""
        converted = self._stored(site.kit.enter(value))
        wrong = ~np.isfinite(converted) & np.isfinite(value)
        zero = (converted == 0) & (value != 0)
        for kind, mask in (("overflow", wrong), ("new zero", zero)):
            if mask.any():
                first = tuple(map(int, np.argwhere(mask)[0])) if np.ndim(mask) else ()
                example = f"{float(np.asarray(value)[first]):.6g}"
                event = Event(kind, int(mask.sum()), np.size(mask), first, "conversion", example)
                site.unit.add_event(event, site)
                site.has_event = True
                self.has_lost = True
        return converted

    def _count(self, site: Site, number: int) -> None:
        unit = site.unit
        unit.operations += number
        unit.calls += 1
        self.steps += 1
        if self.steps > self.limit:
            raise StepLimit

    # Scalars -----------------------------------------------------------------------------------

    def binary(self, ufunc: Any, a: Any, b: Any) -> Any:
        """Return the result of an operator: scalars have a path of their own."""
        kind_a, kind_b = type(a), type(b)
        if (kind_a is Scalar or kind_a is float or kind_a is int) and (
            kind_b is Scalar or kind_b is float or kind_b is int
        ):
            frame = sys._getframe(2)
            try:
                site = self._codes[id(frame.f_code)][frame.f_lasti]  # type: ignore[index]
            except (KeyError, TypeError):
                site = self.places.site(3, ufunc.__name__)
            is_plain = ufunc is _ADD or ufunc is _SUB or ufunc is _MUL or ufunc is _DIV
            if is_plain and site.kit.has_scalar_path:
                return self._scalars(ufunc, a, b, site)
            return self.elementwise(ufunc, (a, b), site)
        if not _is_operand(b) or not _is_operand(a):
            return NotImplemented
        site = self.places.site(3, ufunc.__name__)
        if ufunc is np.matmul:
            return self.matmul(a, b, site)
        return self.elementwise(ufunc, (a, b), site)

    def _scalars(self, ufunc: Any, a: Any, b: Any, site: Site) -> Any:
        kit = site.kit
        unit = site.unit
        if type(a) is Scalar:
            xs = a.shadow
            x = a.value if a.kit is kit else self._scalar_converted(a, site)
        else:
            x = kit.enter_one(a)
            xs = float(a)
            if x != xs and (x == 0.0 or x - x != 0.0):
                self._entered(np.asarray(x), np.asarray(xs), unit, "conversion", None)
        if type(b) is Scalar:
            ys = b.shadow
            y = b.value if b.kit is kit else self._scalar_converted(b, site)
        else:
            y = kit.enter_one(b)
            ys = float(b)
            if y != ys and (y == 0.0 or y - y != 0.0):
                self._entered(np.asarray(y), np.asarray(ys), unit, "conversion", None)
        unit.operations += 1
        unit.calls += 1
        self.steps += 1
        if self.steps > self.limit:
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
        result = Scalar(self, z, zs, kit)
        if (
            z != exact
            and (ufunc is _ADD or ufunc is _SUB)
            and ((z == x and y != 0.0) or (z == (y if ufunc is _ADD else -y) and x != 0.0))
        ):
            unit.absorbed += 1
        if self.budget:
            self._share_scalars(ufunc, result, a, b, x, xs, y, ys, site)
        if z == 0.0 or z - z != 0.0:
            self._scalar_events(ufunc, result, exact, a, b, x, xs, y, ys, site)
        return result

    def _scalar_converted(self, x: Scalar, site: Site) -> float:
        value = site.kit.enter_one(x.value)
        if value != x.value and (value == 0.0 or value - value != 0.0):
            self._converted(np.float64(x.value), np.float64(x.shadow), site)
        return value

    def _share_scalars(
        self, ufunc: Any, z: Scalar, a: Any, b: Any, x: float, xs: float, y: float, ys: float,
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
            self.has_nonfinite = True
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
        watched = self.watched
        if total != 0.0 and kept < 1.0:
            self._cancelled(site, kept, total, z.shadow)
        if error != total:
            own = error - total
            at = self._blamed(here, (a, b))
            if watched is None or at in watched:
                born[at] = born.get(at, 0.0) + own
            site.weight = max(site.weight, abs(own))
        if error != carried:
            at = self._blamed(here, (a, b))
            if watched is None or at in watched:
                grown[at] = grown.get(at, 0.0) + error - carried
            if kept < 1.0:
                site.amplified = max(site.amplified, abs(total - carried))

    @staticmethod
    def _blamed(here: int, operands: Sequence[Any]) -> int:
        """Return the unit where an operand was lost, else the line that runs."""
        for x in operands:
            if type(x) is Scalar and x.origin >= 0 and not math.isfinite(x.value):
                return x.origin
        return here

    def _cancelled(self, site: Site, kept: float, error: float, result: float) -> None:
        most = float(site.kit.fmt.precision)
        bits = most if kept <= 0.0 else min(most, -math.log2(kept))
        if bits > site.bits:
            site.bits = bits
        site.unit.bits = max(site.unit.bits, bits)

    def _scalar_events(
        self, ufunc: Any, z: Scalar, exact: float, a: Any, b: Any, x: float, xs: float, y: float,
        ys: float, site: Site,
    ) -> None:  # fmt: skip
        counts = np.ones(5, np.int64)
        operands = [np.asarray(x), np.asarray(y)]
        shadows = [np.asarray(xs), np.asarray(ys)]
        if self.has_lost:
            z.origin = max((s.origin for s in (a, b) if type(s) is Scalar), default=-1)
        value, shadow = np.asarray(z.value), np.asarray(z.shadow)
        self._events(ufunc, value, shadow, operands, shadows, (a, b), site, counts, z)

    # Arrays ------------------------------------------------------------------------------------

    def elementwise(self, ufunc: Any, inputs: Sequence[Any], site: Site) -> Any:
        """Return a function of NumPy, elementwise, every result rounded once."""
        kit, name = site.kit, ufunc.__name__
        taken = [self.operand(x, site) for x in inputs]
        values = [t[0] for t in taken]
        shadows = [t[1] for t in taken]
        shape = values[0].shape
        for v in values[1:]:
            if v.shape != shape:
                shape = np.broadcast_shapes(*(np.shape(v) for v in values))
                break
        chosen: Any = None
        if name in SELECTIONS:
            sources = [t[2] for t in taken]
            z, zs, chosen = self._selected(ufunc, values, shadows, site, sources)
            counts: Any = None
        else:
            z, counts = self._value(ufunc, name, values, site, shape)
            zs = ufunc(*shadows)
        self._count(site, z.size)
        if not shape:
            return self._scalar_result(ufunc, z, zs, taken, site, counts, chosen)
        result = self.fresh(z, zs, kit)
        z, zs = result.value, result.shadow
        if (name == "add" or name == "subtract") and counts is not None and counts[_INEXACT]:
            self._count_absorbed(z, values, site, name)
        if self.budget:
            self._share(result, taken, self._flows(ufunc, values, shadows, zs, chosen), site)
        sources = [t[2] for t in taken]
        if self.has_lost:
            self._origins(result, sources)
        self._events(ufunc, z, zs, values, shadows, sources, site, counts, result)
        return result

    def _value(
        self, ufunc: Any, name: str, values: list[Any], site: Site, shape: tuple[int, ...]
    ) -> tuple[Any, Any]:
        """Return a result in the line's format, and the counts of its events, None if unknown."""
        kit = site.kit
        if kit.is_numpy:
            return ufunc(*[np.asarray(v, np.float64) for v in values]), None
        compute = kit.method(name)
        if compute is None and name == "square":
            compute, values = kit.method("multiply"), [values[0], values[0]]
        if compute is not None:
            for k, v in enumerate(values):
                if v.shape != shape and math.prod(shape) <= _SMALL:
                    values = [*values[:k], np.full(shape, v, self.dtype), *values[k + 1 :]]
            return compute(*values), kit.events()
        if name in operations.EXACT:
            z = ufunc(*values)
            if np.isnan(z).any():
                z = np.where(np.isnan(z), np.nan, z)
            return z, None
        site.rounded = site.unit.is_rounded = True
        return kit.enter(ufunc(*[np.asarray(v, np.float64) for v in values])), None

    def _scalar_result(
        self, ufunc: Any, z: Any, zs: Any, taken: Any, site: Site, counts: Any, chosen: Any
    ) -> Scalar:
        """Return the result of operands without dimensions."""
        result = Scalar(self, float(z), float(zs), site.kit)
        name = ufunc.__name__
        sources = [t[2] for t in taken]
        values, shadows = [t[0] for t in taken], [t[1] for t in taken]
        if (name == "add" or name == "subtract") and not site.kit.is_numpy:
            self._count_absorbed(np.asarray(z), values, site, name)
        if self.budget:
            array = self.fresh(z, zs, site.kit)
            flows = self._flows(ufunc, values, shadows, array.shadow, chosen)
            self._share(array, taken, flows, site)
            result.born = {u: float(p) for u, p in array.store.born.items()}  # type: ignore[union-attr]
            result.grown = {u: float(p) for u, p in array.store.grown.items()}  # type: ignore[union-attr]
        if self.has_lost:
            result.origin = max((_origin(s) for s in sources), default=-1)
        value, shadow = np.asarray(z), np.asarray(zs)
        self._events(ufunc, value, shadow, values, shadows, sources, site, counts, result)
        return result

    def _selected(
        self, ufunc: Any, values: list[Any], shadows: list[Any], site: Site, sources: list[Source]
    ) -> tuple[Any, Any, Any]:
        """Return what the value chooses of two, also in the shadow."""
        z = ufunc(*values)
        x = values[0]
        takes_first = (z == x) | (np.isnan(z) & np.isnan(x))
        xs, ys = shadows
        would = ufunc(xs, ys)
        zs = np.where(takes_first, xs, ys)
        self._decide(zs != would, site, sources)
        return z, zs, takes_first

    def _flows(
        self, ufunc: Any, values: list[Any], shadows: list[Any], zs: Any, chosen: Any
    ) -> list[tuple[Callable[[Any], Any] | float, Any]]:
        """Return how shares of each operand become shares of the result, and what is kept."""
        if chosen is not None:
            mask = chosen.astype(np.float64) if np.ndim(chosen) else float(chosen)
            return [(mask, 1.0), (1.0 - mask, 1.0)]
        return [(p.slope, p.kept) for p in operations.passes(ufunc, values, shadows, zs)]

    def _count_absorbed(self, z: Any, values: list[Any], site: Site, name: str) -> None:
        x, y = values
        same_x = (z == x) & (y != 0)
        same_y = (z == (y if name == "add" else -y)) & (x != 0)
        either = same_x | same_y
        if either.any():
            finite = np.isfinite(z) if self.has_lost else True
            site.unit.absorbed += int(np.count_nonzero(either & finite))

    def _share(
        self,
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
            self.has_nonfinite = True
            error = np.where(mask, error, 0.0)
        is_tame = site.name in operations.TAME and not self.has_nonfinite
        brought: list[tuple[Any, Any, Any]] = []  # slope, kept, error of the operand
        born_pieces: dict[int, list[tuple[Any, Any, Any]]] = {}
        grown_pieces: dict[int, list[tuple[Any, Any, Any]]] = {}
        for source, slope, kept in _carriers(taken, flows):
            parts = _parts(source, "born")
            if not parts and (self.watched is None or source is None):
                continue
            if not (is_tame or callable(slope)):
                slope = _without_nonfinite(slope)
            if not is_tame:
                kept = _without_nonfinite(kept)
            own = source.value - source.shadow
            if self.has_nonfinite:
                own = _without_nonfinite(own)
            brought.append((slope, kept, own))
            for unit, piece in parts.items():
                born_pieces.setdefault(unit, []).append((slope, 1.0, piece))
            if type(slope) is np.ndarray and type(kept) is np.ndarray:
                slope, kept = slope * kept, 1.0
            for unit, piece in _parts(source, "grown").items():
                grown_pieces.setdefault(unit, []).append((slope, kept, piece))
        born, grown = result.store.born, result.store.grown
        assert born is not None
        assert grown is not None
        for unit, pieces in born_pieces.items():
            born[unit] = _added(pieces, shape, mask)
        for unit, pieces in grown_pieces.items():
            grown[unit] = _added(pieces, shape, mask)
        if not brought:
            self._book(born, error, taken, site)
            self._book(grown, error.copy(), taken, site)
            self._weigh(site, error, None, None, 1.0)
            return
        total = _added([(slope, 1.0, own) for slope, _, own in brought], shape, mask)
        carried = total
        if any(type(kept) is not float for _, kept, _ in brought):
            carried = _added(brought, shape, mask)
        lowest = brought[0][1]
        for _, kept, _ in brought[1:]:
            lowest = lowest if lowest is kept else np.minimum(lowest, kept)
        own = error - total
        self._book(born, own, taken, site)
        self._book(grown, own.copy() if carried is total else error - carried, taken, site)
        self._weigh(site, own, total, carried, lowest)

    def _book(self, parts: dict[int, Any], own: Any, taken: Any, site: Site) -> None:
        """Book what operands do not explain: to the line, or to where an operand was lost.

        `own` is a fresh array.
        """
        if not np.any(own):
            return
        here = site.unit.index
        if self.has_lost:
            for value, _, source in taken:
                origins = _origins_of(source)
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
        if self.watched is not None:
            for unit in parts.keys() - self.watched:
                del parts[unit]
            if here not in self.watched:
                return
        if here in parts:
            parts[here] += own
        else:
            parts[here] = own

    def _weigh(self, site: Site, own: Any, total: Any, carried: Any, lowest: Any) -> None:
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
                    self._cancelled(site, kept, 1.0, 1.0)

    def _origins(self, result: Traced, sources: Sequence[Source]) -> None:
        """Carry along where elements were lost."""
        if not self.has_lost:
            return
        bad = ~np.isfinite(result.value) | (result.value == 0)
        if not bad.any():
            return
        for source in sources:
            origins = _origins_of(source)
            if origins is None:
                continue
            origins = (
                np.broadcast_to(origins, result.shape)
                if np.ndim(origins) <= np.ndim(bad) and _broadcasts(np.shape(origins), result.shape)
                else None
            )
            if origins is not None:
                for unit in np.unique(origins[bad & (origins >= 0)]):
                    self._mark(result, bad & (origins == unit), int(unit))

    def _events(
        self,
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
            origins = _origins_of(source)
            if origins is not None:  # what was lost before is not an event here
                lost |= (origins >= 0) & (
                    (~np.isfinite(v) & np.isfinite(s)) | ((v == 0) & (s != 0))
                )
        exact = ufunc(*[np.asarray(v, np.float64) for v in values])
        wrong &= ~lost
        zero &= exact != 0
        kinds = {
            "invalid": wrong & np.isnan(exact),
            "divide by zero": wrong & np.isinf(exact),
            "overflow": wrong & np.isfinite(exact),
            "new zero": zero,
        }
        self._note(kinds, ufunc.__name__, values, site, holder)
        if self.budget:
            self._note_ruined(kinds, ufunc.__name__, values, shadows, sources, site)

    def _note_ruined(
        self, kinds: dict[str, Any], name: str, values: Sequence[Any], shadows: Sequence[Any],
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
                for which, parts in enumerate((_parts(source, "born"), _parts(source, "grown"))):
                    for unit, part in parts.items():
                        size = float(np.sum(np.where(ruined, np.abs(part), 0.0)))
                        if size:
                            site.unit.ruin(key, which, unit, size / whole)

    def _note(
        self, kinds: dict[str, Any], name: str, values: Sequence[Any], site: Site, holder: Any
    ) -> None:
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
            self._mark(holder, mask, site.unit.index)
            site.has_event = True

    # Linear operations: sums and products ---------------------------------------------------------

    def linear(
        self,
        z: Any,
        zs: Any,
        taken: Sequence[tuple[Any, Any, Source]],
        flows: Sequence[tuple[Any, Any]],
        site: Site,
        name: str,
        operations_made: int,
    ) -> Any:
        """Return the result of a function that is linear in each operand, with its shares."""
        self._count(site, operations_made)
        site.name = name
        result = self.fresh(z, zs, site.kit)
        if self.budget:
            self._share(result, taken, flows, site)
        z, zs = result.value, result.shadow
        if not site.kit.is_numpy:
            wrong = ~np.isfinite(z) & np.isfinite(zs)
            if wrong.any():
                lost = any(np.any(~np.isfinite(v)) for v, _, _ in taken)
                if lost:
                    self.has_lost = True
                    for _, _, source in taken:
                        origins = _origins_of(source)
                        if origins is not None and np.any(np.asarray(origins) >= 0):
                            self._mark(result, wrong, int(np.max(origins)))
                else:
                    self._note({"overflow": wrong}, name, [], site, result)
        return self.lowered(result)

    def sum(self, x: Any, site: Site, axis: Any = None, keepdims: bool = False) -> Any:
        """Return the sum of elements by the line's accumulator."""
        taken = self.operand(self.array(x, site), site)
        value, shadow, _ = taken
        kit = site.kit
        zs = np.sum(shadow, axis=axis, keepdims=keepdims)
        if kit.is_numpy:
            z = np.sum(value, axis=axis, keepdims=keepdims)
        else:
            assert kit.accumulator is not None
            z = self._in_format(rounded_sum(value, kit.accumulator, axis, keepdims), kit)
            self._absorbed_in_sum(value, axis, site)

        def flow(part: Any) -> Any:
            return np.sum(part, axis=axis, keepdims=keepdims)

        kept = _kept_of_sum(flow, value, shadow, zs) if self.budget else 1.0

        return self.linear(z, zs, [taken], [(flow, kept)], site, "sum", int(np.size(value)))

    def _in_format(self, z: Any, kit: Kit) -> Any:
        """Round what an accumulator of another format gives to the line's."""
        assert kit.accumulator is not None
        return z if kit.accumulator.fmt == kit.fmt else kit.enter(z)

    def _absorbed_in_sum(self, terms: Array, axis: Any, site: Site) -> None:
        """Count the terms that change nothing of sequential sums in one format."""
        how = site.kit.accumulator
        if how is None or how.order != "sequential" or how.fmt != site.kit.fmt:
            return
        if isinstance(axis, tuple) or not self.budget or not 1 < terms.size <= _COUNTED:
            return
        # A bound without summing again: terms below half a spacing of the running exact sum.
        terms = np.moveaxis(np.ravel(terms) if axis is None else terms, axis or 0, 0)
        running = np.abs(np.cumsum(terms, axis=0, dtype=np.float64))
        spacing = np.ldexp(1.0, np.frexp(running[:-1])[1] - site.kit.fmt.precision)
        small = (terms[1:] != 0) & (np.abs(terms[1:]) < 0.5 * spacing)
        site.unit.absorbed += int(np.count_nonzero(small))

    def _absorbed_in_product(self, a: Array, b: Array, site: Site) -> None:
        """Count the products that change nothing of what they are added to."""
        if a.ndim <= 2 and b.ndim <= 2 and a.size * (b.size // max(len(b), 1)) <= _COUNTED:
            right = b.reshape(len(b), -1).astype(np.float64)
            self._absorbed_in_sum(a.reshape(-1, len(b), 1) * right, 1, site)

    def cumsum(self, x: Any, site: Site, axis: int | None = None) -> Any:
        """Return running sums, every step rounded."""
        array = self.array(x, site)
        if axis is None:
            array, axis = self.reshaped(array, (-1,)), 0
        taken = self.operand(array, site)
        value, shadow, _ = taken
        kit = site.kit
        zs = np.cumsum(shadow, axis=axis)
        if kit.is_numpy:
            z = np.cumsum(value, axis=axis)
        else:
            assert kit.accumulator is not None
            z = np.asarray(self._in_format(cumsum(value, kit.accumulator, axis), kit))
            self._absorbed_in_sum(value, axis, site)

        def flow(part: Any) -> Any:
            return np.cumsum(part, axis=axis)

        kept = _kept_of_sum(flow, value, shadow, zs) if self.budget else 1.0
        return self.linear(z, zs, [taken], [(flow, kept)], site, "cumsum", int(np.size(value)))

    def mean(self, x: Any, site: Site, axis: Any = None, keepdims: bool = False) -> Any:
        """Return the mean: the sum by the line's accumulator, divided by the exact number."""
        taken = self.operand(self.array(x, site), site)
        value, shadow, _ = taken
        kit = site.kit
        zs = np.mean(shadow, axis=axis, keepdims=keepdims)
        if kit.is_numpy:
            z = np.mean(value, axis=axis, keepdims=keepdims)
        else:
            assert kit.accumulator is not None
            z = self._in_format(mean(value, kit.accumulator, axis, keepdims), kit)
            self._absorbed_in_sum(value, axis, site)

        def flow(part: Any) -> Any:
            return np.mean(part, axis=axis, keepdims=keepdims)

        kept = _kept_of_sum(flow, value, shadow, zs) if self.budget else 1.0

        made = int(np.size(value)) + int(np.size(z))
        return self.linear(z, zs, [taken], [(flow, kept)], site, "mean", made)

    def matmul(self, a: Any, b: Any, site: Site) -> Any:
        """Return a matrix product by the line's accumulator."""
        x, y = self.operand(self.array(a, site), site), self.operand(self.array(b, site), site)
        (va, sa, _), (vb, sb, _) = x, y
        kit = site.kit
        zs = np.matmul(sa, sb)
        if kit.is_numpy:
            z = np.matmul(va, vb)
        else:
            z = matmul(va, vb, inputs=kit.fmt, accumulator=kit.accumulator)  # type: ignore[arg-type]
            z = self._in_format(z, kit)
            self._absorbed_in_product(va, vb, site)
        middle_a = 0.5 * (va.astype(np.float64) + sa)
        middle_b = 0.5 * (vb.astype(np.float64) + sb)
        kept: Any = 1.0
        if self.budget:
            kept = _ratio(np.abs(zs), np.matmul(np.abs(sa), np.abs(sb)))
        flows = [
            (lambda part: np.matmul(part, middle_b), kept),
            (lambda part: np.matmul(middle_a, part), kept),
        ]
        made = int(np.size(z)) * int(va.shape[-1])
        return self.linear(z, zs, [x, y], flows, site, "matmul", made)

    # Copies and views ---------------------------------------------------------------------------

    def moved(self, array: Traced, move: Callable[[Array], Array]) -> Any:
        """Return elements in other places: a view where NumPy gives one, else a copy."""
        value, shadow = move(array.value), move(array.shadow)
        if not isinstance(value, np.ndarray):
            return self.get(self.reshaped(array, (-1,)), 0) if array.size == 1 else value
        if value.size and np.may_share_memory(value, array.value):
            return array.view_of(value, shadow)
        return self.copied(array, value, shadow, move)

    def copied(
        self, array: Traced, value: Any, shadow: Any, move: Callable[[Array], Array]
    ) -> Traced:
        """Return a copy of moved elements with their shares."""
        kit = array.store.kit
        shadow = np.array(shadow, np.float64, order="C")
        kept = np.array(value, order="C")
        result = Traced(self, kept, shadow, self._store(shadow, kit))
        if self.budget:
            for which in ("born", "grown"):
                parts = getattr(result.store, which)
                for unit, part in array.parts(which).items():
                    parts[unit] = np.array(move(part), np.float64, order="C")
        origins = array.origins()
        if origins is not None:
            result.store.origin = np.array(move(origins), np.int32, order="C")
        return result

    def reshaped(self, array: Traced, shape: Any, order: str = "C") -> Any:
        """Return an array of another shape."""
        return self.moved(array, lambda a: np.reshape(a, shape, order=order))  # type: ignore[call-overload]

    def get(self, array: Traced, index: Any) -> Any:
        """Return elements: a scalar, a view, or a copy, as NumPy's indices give."""
        value = array.value[index]
        if not isinstance(value, np.ndarray):
            shadow = float(array.shadow[index])
            born = grown = None
            if self.budget:
                born = {u: float(p[index]) for u, p in array.parts("born").items()}
                grown = {u: float(p[index]) for u, p in array.parts("grown").items()}
                born = {u: p for u, p in born.items() if p}
                grown = {u: p for u, p in grown.items() if p}
            scalar = Scalar(self, float(value), shadow, array.store.kit, born, grown)
            if self.has_lost:
                origins = array.origins()
                if origins is not None:
                    scalar.origin = int(origins[index])
            return scalar
        return self.moved(array, lambda a: a[index])

    def set(self, array: Traced, index: Any, new: Any) -> None:
        """Write elements in place, seen through every view."""
        if type(new) is not Traced and type(new) is not Scalar:
            new = self.array(new, self.places.site(3, "assignment"))
        if type(index) is Traced and index.value.dtype != bool:
            raise IndexError("arrays used as indices must be of integer (or boolean) type")
        array.value[index] = new.value
        array.shadow[index] = new.shadow
        if array.store.kit is not new.kit:
            array.store.kit = None
        self._write_parts(array, index, new)

    def _write_parts(self, array: Traced, index: Any, new: Any) -> None:
        """Write shares (and origins) where elements were written."""
        if self.budget:
            for which in ("born", "grown"):
                kept = getattr(array.store, which)
                parts = _parts(new, which)
                for unit in parts:
                    if unit not in kept:
                        kept[unit] = np.zeros(array.store.shadow.shape)
                own = array.parts(which)
                for unit, part in own.items():
                    part[index] = parts.get(unit, 0.0)
        if self.has_lost:
            origins = _origins_of(new)
            if origins is not None or array.store.origin is not None:
                if array.store.origin is None:
                    array.store.origin = np.full(array.store.shadow.shape, -1, np.int32)
                places = array.origins()
                assert places is not None
                places[index] = -1 if origins is None else origins

    def in_place(self, ufunc: Any, array: Traced, other: Any) -> Traced:
        """Compute into an array."""
        site = self.places.site(3, ufunc.__name__)
        result = self.elementwise(ufunc, (array, other), site)
        if np.shape(result.value) != array.shape:
            np.broadcast_shapes(np.shape(result.value), array.shape)
            if np.size(result.value) > array.size:
                raise ValueError(
                    f"non-broadcastable output operand with shape {array.shape} doesn't match "
                    f"the broadcast shape {np.shape(result.value)}"
                )
        self.set(array, ..., result)
        return array

    # Decisions ---------------------------------------------------------------------------------

    def compare(self, ufunc: Any, a: Any, b: Any) -> Any:
        """Return a comparison, which the value decides."""
        if not _is_operand(a) or not _is_operand(b):
            return NotImplemented
        site = self.places.site(3, ufunc.__name__)
        return self.compared(ufunc, a, b, site)

    def compared(self, ufunc: Any, a: Any, b: Any, site: Site) -> Any:
        """Return a comparison; where the shadow's differs, the line counts a decision."""
        kit = site.kit
        if (type(a) is Scalar and type(b) in (float, int, Scalar)) and kit.has_scalar_path:
            x, xs = (a.value if a.kit is kit else self._scalar_converted(a, site)), a.shadow
            if type(b) is Scalar:
                y, ys = (b.value if b.kit is kit else self._scalar_converted(b, site)), b.shadow
            else:
                y, ys = kit.enter_one(b), float(b)
                if len(site.unit.limits) < 8:
                    site.unit.limits.append((float(b), abs(x)))
            decided, would = _SCALAR_COMPARISONS[ufunc](x, y, xs, ys)
            self._count(site, 1)
            if decided is not would:
                self._decide(np.asarray(True), site, (a, b))
            return decided
        x, xs, source_a = self.operand(a, site)
        y, ys, source_b = self.operand(b, site)
        decided, would = ufunc(x, y), ufunc(xs, ys)
        self._count(site, int(np.size(decided)))
        self._decide(decided != would, site, (source_a, source_b))
        return decided

    def _decide(self, differs: Any, site: Site, sources: Sequence[Source]) -> None:
        """Count decisions that the shadow takes otherwise, and whose error made them."""
        if not np.any(differs):
            return
        site.unit.decisions += int(np.count_nonzero(differs))
        site.has_decision = True
        causes = site.unit.causes
        if not self.budget:
            return
        shape = np.shape(differs)
        for source in sources:
            for unit, part in _parts(source, "born").items():
                if _broadcasts(np.shape(part), shape):
                    part = np.where(differs, part, 0.0)
                causes[unit] = causes.get(unit, 0.0) + float(np.sum(np.abs(part)))

    def truth(self, x: Any) -> bool:
        """Return whether a number is not 0."""
        if x.size != 1:
            raise ValueError(
                "The truth value of an array with more than one element is ambiguous. "
                "Use a.any() or a.all()"
            )
        site = self.places.site(3, "bool")
        decided, would = bool(x.value != 0), bool(x.shadow != 0)
        self._decide(np.asarray(decided is not would), site, (x,))
        return decided

    def integer(self, x: Any, how: Callable[[float], int]) -> int:
        """Return an integer that is made of a number, which the value decides."""
        site = self.places.site(3, "int")
        if np.size(x.value) != 1:
            raise TypeError("only length-1 arrays can be converted to Python scalars")
        decided = how(float(np.ravel(x.value)[0]))
        shadow = float(np.ravel(x.shadow)[0])
        would = how(shadow) if math.isfinite(shadow) else None
        self._decide(np.asarray(decided != would), site, (x,))
        return decided

    def astype(self, x: Any, dtype: Any) -> Any:
        """Return a copy in another dtype: floats stay traced, integers are decisions."""
        kind = np.dtype(dtype)
        if kind.kind == "f" and kind.itemsize <= 8:
            return x if type(x) is Scalar else self.copied(
                x, x.value, x.shadow, lambda a: a
            )  # fmt: skip
        if kind.kind in "iub":
            site = self.places.site(3, "astype")
            value = np.asarray(x.value).astype(kind)
            would = np.asarray(x.shadow).astype(kind)
            self._decide(value != would, site, (x,))
            return value[()]
        if kind.kind in "US":
            return np.asarray(x.value).astype(kind)
        raise TypeError(
            f"astype({kind}) of traced values: formats hold real numbers of at most 64 bits; "
            "keep to float, integer and boolean dtypes"
        )

    # Doors of NumPy's dispatch ------------------------------------------------------------------

    def unary(self, ufunc: Any, x: Any) -> Any:
        """Return the result of an operator of one operand."""
        site = self.places.site(3, ufunc.__name__)
        if (
            type(x) is Scalar
            and site.kit is x.kit
            and site.kit.has_signs
            and ufunc is not np.positive
        ):
            return self._mirrored(ufunc, x, site)
        return self.elementwise(ufunc, (x,), site)

    def _mirrored(self, ufunc: Any, x: Scalar, site: Site) -> Any:
        """Return -x or |x|, which are exact."""
        self._count(site, 1)
        if ufunc is np.absolute:
            if math.copysign(1.0, x.value) > 0 and x.shadow >= 0:
                return x
            if not (x.value <= 0 and x.shadow <= 0):
                return self.elementwise(ufunc, (x,), site)
        value = -x.value if x.value == x.value else x.value
        born = grown = None
        if self.budget:
            born = {u: -p for u, p in (x.born or {}).items()}
            grown = {u: -p for u, p in (x.grown or {}).items()}
        if ufunc is np.absolute:
            value = abs(value)
        result = Scalar(self, value, -x.shadow, x.kit, born, grown)
        result.origin = x.origin
        return result

    def power(self, a: Any, b: Any) -> Any:
        """Return a**b; b = 2 is one multiplication."""
        if not _is_operand(a) or not _is_operand(b):
            return NotImplemented
        return self.powered(a, b, self.places.site(3, "power"))

    def powered(self, a: Any, b: Any, site: Site) -> Any:
        """Return a power, by the ways that NumPy's operator has for some exponents."""
        if is_number(b) and type(b) is not Scalar:
            if b == 2:
                if type(a) is Scalar and site.kit.has_scalar_path:
                    return self._scalars(_MUL, a, a, site)
                return self.elementwise(np.square, (a,), site)
            if b == 1:
                return self.elementwise(np.positive, (a,), site)
            if b == 0.5:
                return self.elementwise(np.sqrt, (a,), site)
            if b == -1:
                return self.elementwise(np.reciprocal, (a,), site)
        return self.elementwise(np.power, (a, b), site)

    def method(self, x: Any, name: str) -> Callable[..., Any]:
        """Return a method of an array that is a function of NumPy."""
        function = getattr(np, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if name in ("reshape", "transpose") and len(args) > 1:
                args = (args,)
            return self.function(function, (x, *args), kwargs)

        return call

    def function(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return a function of NumPy in the line's format, or refuse."""
        if isinstance(function, np.ufunc):
            return self.ufunc(function, "__call__", args, kwargs)
        handler = self.functions.get(function)
        if handler is None:
            return self.refuse(function, args, kwargs)
        place = _place_of_out(function)
        out = kwargs.get("out")
        if place is not None and len(args) > place:
            out, args = args[place], (*args[:place], *args[place + 1 :])
        if out is None:
            kwargs.pop("out", None)
            return handler(self, *args, **kwargs)
        target = out[0] if isinstance(out, tuple) else out
        target[...] = handler(self, *args, **{k: v for k, v in kwargs.items() if k != "out"})
        return target

    def refuse(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Refuse a function that would compute in float64, or round its result once."""
        name = getattr(function, "__name__", str(function))
        origin = _home(function)
        return self.left_by(origin, name, function, args, kwargs)

    def left_by(self, origin: str, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        """Raise the error of values that leave, or compute with values and with shadows."""
        site = self.places.site(2, name)
        if self.leaks != "round":
            raise TypeError(self.leak_message(origin, name, site))
        self.note_leak(origin, name, site)
        with np.errstate(all="ignore"):
            value = function(*_plain(args, "value"), **_plain(kwargs, "value"))
            shadow = function(*_plain(args, "shadow"), **_plain(kwargs, "shadow"))
        return self._returned(value, shadow, site, args)

    def _returned(self, value: Any, shadow: Any, site: Site, args: Any) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(
                *[self._returned(v, s, site, args) for v, s in zip(value, shadow, strict=True)]
            ) if hasattr(value, "_fields") else type(value)(
                [self._returned(v, s, site, args) for v, s in zip(value, shadow, strict=True)]
            )  # fmt: skip
        if np.asarray(value).dtype.kind not in "f":
            if np.asarray(value).dtype.kind in "biu":
                self._decide(np.asarray(value) != np.asarray(shadow), site, ())
            return value
        z = site.kit.enter(value)
        if np.shape(z) != np.shape(shadow):
            shadow = np.broadcast_to(np.asarray(value, np.float64), np.shape(z))
        taken: list[Any] = []
        return self.linear(z, shadow, taken, [], site, "float64", int(np.size(z)))

    def leak_message(self, origin: str, name: str, site: Site) -> str:
        """Return what is wrong with values that leave, and the ways out."""
        near = _nearby(name, self.functions)
        return (
            f"{origin}: {name} received values of {site.kit.fmt} at {_place(site)} and would "
            f"compute in float64; rewrite the line{near}, add the module to modules=, or "
            'leaks="round" to round its result once'
        )

    def note_leak(self, origin: str, name: str, site: Site) -> None:
        """Mark the line as one with float64 inside."""
        site.unit.is_inside_float64 = True
        words = f"{origin}: {name} at line {site.unit.number}"
        if words not in self.left:
            self.left.append(words)

    def unknown_attribute(self, x: Any, name: str) -> AttributeError:
        """Return the error for what a number of NumPy or Python has and a traced one has not."""
        site = self.places.site(3, name)
        what = "a traced array" if type(x) is Traced else "a traced number"
        return LeavesError(self.leak_message(what, name, site))

    def leak(self, x: Any, what: str) -> Any:
        """Return the values that leave as float64, or refuse."""
        site = self.places.site(3, what)
        if what == "float()" and _is_formatting(site):
            return x.value  # for a text
        origin, what = _receiver(self.places, site, what)
        if self.leaks != "round":
            raise TypeError(self.leak_message(origin, what, site))
        self.note_leak(origin, what, site)
        return np.asarray(x.value, np.float64) if type(x) is Traced else x.value

    def ufunc(
        self, ufunc: Any, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Return what NumPy's dispatch asks for a universal function."""
        kwargs = dict(kwargs)
        out = kwargs.pop("out", None)
        if out is not None:
            out = out if isinstance(out, tuple) else (out,)
            for target in out:
                if (
                    target is not None
                    and type(target) is not Traced
                    and (ufunc.__name__ not in COMPARISONS | QUESTIONS)
                ):
                    site = self.places.site(2, ufunc.__name__)
                    raise TypeError(self.leak_message("an array that is not traced", "out=", site))
        dtype = kwargs.pop("dtype", None)
        if dtype is not None and np.dtype(dtype).kind in "cOg":
            raise TypeError(
                f"dtype={dtype!r} in {ufunc.__name__}: formats hold real numbers; leave it out"
            )
        for name in ("casting", "order", "subok", "signature"):
            kwargs.pop(name, None)
        site = self.places.site(2, ufunc.__name__)
        if method != "__call__":
            result = self.functions[method](self, ufunc, site, *inputs, **kwargs)
        else:
            result = self._called(ufunc, inputs, kwargs, site, out)
        if out is None or method == "at":
            return result
        results = result if isinstance(result, tuple) else (result,)
        for target, made in zip(out, results, strict=True):
            if target is not None:
                target[...] = made
        written = tuple(made if t is None else t for t, made in zip(out, results, strict=True))
        return written if isinstance(result, tuple) else written[0]

    def _called(
        self, ufunc: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any], site: Site, out: Any
    ) -> Any:
        name = ufunc.__name__
        where = kwargs.pop("where", True)
        if where is not True:
            return self._masked(ufunc, inputs, where, site, out)
        own = self.functions.get(ufunc)
        if own is not None:
            return own(self, *inputs, site=site, **kwargs)
        if name in QUESTIONS:
            value = inputs[0].value
            answer, would = ufunc(value), ufunc(inputs[0].shadow)
            self._decide(answer != would, site, ())
            return answer
        if name in COMPARISONS:
            if len(inputs) == 1:
                x, xs, source = self.operand(inputs[0], site)
                answer = ufunc(x)
                self._decide(answer != ufunc(xs), site, (source,))
                return answer
            return self.compared(ufunc, inputs[0], inputs[1], site)
        if name in ("power", "float_power"):
            return self.powered(inputs[0], inputs[1], site)
        is_numpys = getattr(np, name, None) is ufunc
        if not is_numpys and method_of(name) is None:
            return self.left_by(_home(ufunc), name, ufunc, inputs, kwargs)
        if ufunc.nin > 2 or ufunc.nout > 1:
            return self.left_by(_home(ufunc), name, ufunc, inputs, kwargs)
        return self.elementwise(ufunc, inputs, site)

    def _masked(self, ufunc: Any, inputs: tuple[Any, ...], where: Any, site: Site, out: Any) -> Any:
        """Compute where a mask is true; the rest stays as `out` has it, 0 without one."""
        mask = np.asarray(where, bool)
        arrays = [self.array(x, site) for x in inputs]
        shape = np.broadcast_shapes(mask.shape, *(a.shape for a in arrays))
        mask = np.broadcast_to(mask, shape)
        picked = [
            self.get(self.moved(a, lambda v: np.broadcast_to(v, shape)), mask) for a in arrays
        ]
        made = self._called(ufunc, tuple(picked), {}, site, None)
        if not isinstance(made, TracedNumber):
            answer = np.zeros(shape, np.asarray(made).dtype)
            if out is not None and out[0] is not None:
                answer[...] = out[0]
            answer[mask] = made
            return answer
        zeros = np.zeros(shape)
        result = self.fresh(zeros, zeros.copy(), site.kit)
        if out is not None and out[0] is not None:
            result = self.copied(out[0], out[0].value, out[0].shadow, lambda a: a)
        self.set(result, mask, made)
        return result


_CANCELS = frozenset(("add", "subtract", "sum", "cumsum", "matmul", "mean", "diff", "einsum"))

_SCALAR_COMPARISONS: dict[Any, Callable[[Any, Any, Any, Any], tuple[bool, bool]]] = {
    np.less: lambda x, y, xs, ys: (x < y, xs < ys),
    np.less_equal: lambda x, y, xs, ys: (x <= y, xs <= ys),
    np.greater: lambda x, y, xs, ys: (x > y, xs > ys),
    np.greater_equal: lambda x, y, xs, ys: (x >= y, xs >= ys),
    np.equal: lambda x, y, xs, ys: (x == y, xs == ys),
    np.not_equal: lambda x, y, xs, ys: (x != y, xs != ys),
}


@functools.cache
def _place_of_out(function: Any) -> int | None:
    """Return where among a function's arguments `out` stands."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    places = [k for k, p in enumerate(parameters) if p.name == "out" and p.kind != p.KEYWORD_ONLY]
    return places[0] if places else None


def has_traced(x: Any) -> bool:
    """Whether nested lists hold a traced number."""
    if isinstance(x, list | tuple):
        return any(has_traced(item) for item in x)
    return type(x) is Traced or type(x) is Scalar


def _is_operand(x: Any) -> bool:
    """Whether an operator can take this; of anything else Python asks its own method."""
    kind = type(x)
    if kind is Scalar or kind is Traced or kind is float or kind is int:
        return True
    return isinstance(x, bool | np.ndarray | np.generic | list | tuple | int | float | complex)


def _numeric(x: Any, site: Site) -> Any:
    """Return what enters: real numbers; the rest is refused as `round_to` refuses it."""
    if hasattr(x, "values") and not isinstance(x, np.ndarray | dict):
        x = x.values
    array = np.asarray(x)
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise TypeError(
            f"{array.dtype.name} at {_place(site)} does not enter a format: pass real numbers of "
            "at most 64 bits, as round_to takes"
        )
    return array


def _place(site: Site) -> str:
    """Return where a site is, in words: model.py:14 (`gamma(x)`)."""
    unit = site.unit
    text = expression(unit.file, site.span)
    return f"{short(unit.file)}:{unit.number}" + (f" (`{text}`)" if text else "")


def _parts(source: Source, which: str) -> dict[int, Any]:
    kind = type(source)
    if kind is Traced:
        return source.parts(which)  # type: ignore[no-any-return]
    if kind is Scalar:
        return getattr(source, which) or {}
    return {}


def _origin(source: Source) -> int:
    if type(source) is Scalar:
        return source.origin
    origins = _origins_of(source)
    return -1 if origins is None or not np.size(origins) else int(np.max(origins))


def _origins_of(source: Source) -> Any:
    if type(source) is Traced:
        return source.origins()
    if type(source) is Scalar and source.origin >= 0:
        return np.asarray(source.origin)
    return None


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


def _ratio(a: Any, b: Any) -> Any:
    """Return a / b, 1 where b is 0; at most 1."""
    with np.errstate(all="ignore"):
        return np.minimum(1.0, np.where(np.asarray(b) > 0, a / np.where(b == 0, 1.0, b), 1.0))


def _kept_of_sum(flow: Callable[[Any], Any], value: Any, shadow: Any, zs: Any) -> Any:
    """Return the part of its terms' relative error that a sum has: the rest grew by cancelling.

    Where the errors of the terms cancel with the terms, less grew than the condition number says.
    """
    error = value - shadow
    with np.errstate(all="ignore"):
        cancelled = flow(np.abs(error)) / np.abs(flow(error))
    cancelled = np.where(cancelled >= 1.0, cancelled, 1.0)  # also where there is no error
    return np.minimum(1.0, _ratio(np.abs(zs), flow(np.abs(shadow))) * cancelled)


def is_finite(x: Any) -> bool:
    """Whether all numbers are finite."""
    return bool(np.isfinite(x).all())


def _largest(x: Any) -> float:
    """Return the largest magnitude; 0 of nothing."""
    return float(max(np.max(x, initial=0.0), -np.min(x, initial=0.0)))


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _plain(x: Any, which: str) -> Any:
    """Return arguments as NumPy's numbers, of the values or of the shadows."""
    kind = type(x)
    if kind is Traced:
        return np.array(getattr(x, which), np.float64)
    if kind is Scalar:
        return np.float64(getattr(x, which))
    if isinstance(x, tuple | list):
        return type(x)([_plain(item, which) for item in x])
    if isinstance(x, dict):
        return {key: _plain(item, which) for key, item in x.items()}
    return x


def _home(function: Any) -> str:
    """Return where a function comes from, as "scipy/special"."""
    module = getattr(function, "__module__", None)
    if module:
        return str(module).replace(".", "/").replace("/_", "/")
    name = getattr(function, "__name__", "")
    homes = [
        key
        for key, value in list(sys.modules.items())
        if "._" not in key
        and not key.startswith("_")
        and getattr(value, "__dict__", {}).get(name) is function
    ]
    return min(homes, key=lambda key: (key.count("."), len(key)), default="NumPy").replace(".", "/")


def _receiver(places: Places, site: Site, what: str) -> tuple[str, str]:
    """Return the file, in words, and the function that reads values outside of traced code."""
    frame: Any = sys._getframe(3)
    found: tuple[str, str] | None = None
    while frame is not None:
        name = str(frame.f_globals.get("__name__") or "")
        if places.is_traced(frame):
            source = expression(site.unit.file, site.span)
            return _called(frame, source, what) if found is None else found
        if not name.startswith("lowprec.trace") and not name.startswith("numpy"):
            parts = [part for part in name.split(".") if not part.startswith("_")]
            found = "/".join(parts) or name, frame.f_code.co_name
        frame = frame.f_back
    return found or ("a function outside of Python", what)


def _called(frame: Any, source: str, what: str) -> tuple[str, str]:
    """Return where the function comes from that an expression calls, and its name."""
    path, _, rest = source.partition("(")
    names = path.strip().split(".")
    if not rest or not all(name.isidentifier() for name in names):
        return "a function outside of Python", what
    found: Any = frame.f_locals.get(names[0], frame.f_globals.get(names[0]))
    for name in names[1:]:
        found = getattr(found, name, None)
    if found is None or isinstance(found, type):
        return "a function outside of Python", names[-1]
    return _home(found), names[-1]


def _is_formatting(site: Site) -> bool:
    """Whether the expression that runs is "…" % values."""
    try:
        node = ast.parse(expression(site.unit.file, site.span), mode="eval").body
    except SyntaxError:
        return False
    is_text = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod)
    return is_text and isinstance(getattr(node.left, "value", None), str)  # type: ignore[attr-defined]


def _nearby(name: str, functions: dict[Any, Any]) -> str:
    """Return a hint at what is known near a function's name."""
    import difflib

    known = sorted({getattr(key, "__name__", "") for key in functions} | set(operations.METHODS))
    near = difflib.get_close_matches(name, [k for k in known if k], n=2, cutoff=0.75)
    return f" (known nearby: {', '.join(near)})" if near else ""
