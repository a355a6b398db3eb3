"""The numbers of a traced program: how they enter, and where they lie, with shadow and shares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace.events import is_finite, note_conversion, origins_of
from lowprec.trace.refusals import place_of
from lowprec.trace.state import RunState
from lowprec.trace.values import Scalar, Store, Traced, has_traced, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowprec.trace.kits import Kit
    from lowprec.trace.places import Places, Site, Unit

Array = np.ndarray[Any, Any]
Source = Any  # a Scalar, a Traced or None: whose shares an operand carries

# Bytes. Where glibc has freed a block of this size, it keeps as much for what is allocated next; it
# would give every array of shares back to the system, and fetching it again costs more than the
# arithmetic.
_KEPT_MEMORY = 30 << 20


class Memory(RunState):
    """What makes traced numbers, and moves, copies and writes them.

    places: Finds the line that runs.
    dtype, **state: See `RunState`.
    """

    def __init__(self, places: Places, dtype: np.dtype[Any], **state: Any) -> None:
        super().__init__(dtype, **state)
        self.places = places
        if self.budget:
            np.empty(_KEPT_MEMORY, np.int8)  # freed at once, and untouched

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
            note_conversion(self, np.asarray(value), np.asarray(shadow), unit, None, scalar)
        return scalar

    def array_from(self, x: Any, unit: Unit, kit: Kit) -> Traced:
        """Return an array of numbers that enter, their roundings booked."""
        value = self.stored(kit.enter(x))
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
        note_conversion(self, value, shadow, unit, None, array)
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
        return Traced(self, shadow.copy(), shadow, self.new_store(shadow, None))

    def new_store(self, shadow: Array, kit: Kit | None) -> Store:
        """Return the memory of a new array, without shares."""
        return Store(shadow, kit, {}, {}) if self.budget else Store(shadow, kit, None, None)

    def stored(self, value: Any) -> Array:
        """Return values as they lie in memory: of the run's dtype, in C order."""
        array: Array = np.asarray(value)
        if array.dtype != self.dtype:
            array = array.astype(self.dtype)
        return array if array.flags.c_contiguous else array.copy("C")

    def fresh(self, value: Any, shadow: Any, kit: Kit | None) -> Traced:
        """Return an array with memory of its own, without shares."""
        shadow = np.asarray(shadow, np.float64)
        if not shadow.flags.c_contiguous:
            shadow = shadow.copy("C")
        return Traced(self, self.stored(value), shadow, self.new_store(shadow, kit))

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
            self, value, shadow, self.new_store(shadow, parts[0].kit if len(kits) == 1 else None)
        )
        for row, part in enumerate(parts):
            self._write_parts(stack, row, part)
        return stack

    def lowered(self, x: Any) -> Any:
        """Return a scalar for an array without dimensions, as NumPy's functions do."""
        return self.get(x, ()) if type(x) is Traced and x.value.ndim == 0 else x

    def operand(self, x: Any, site: Site) -> tuple[Any, Any, Source]:
        """Return an operand in the line's format, its shadow, and whose shares it carries."""
        kit = site.kit
        kind = type(x)
        value: Any
        shadow: Any
        if kind is Traced:
            if x.store.kit is kit:
                return x.value, x.shadow, x
            return self._converted(x.value, site), x.shadow, x
        if kind is Scalar:
            if x.kit is kit:
                return self.dtype.type(x.value), np.float64(x.shadow), x
            value = self._converted(np.float64(x.value), site)
            return value[()], np.float64(x.shadow), x
        if kind is float or kind is int:
            value = kit.enter_one(x)
            shadow = np.float64(x)
            if value - value != 0.0:
                self.has_nonfinite = True
            if value != x:
                note_conversion(self, np.asarray(value), np.asarray(shadow), site.unit, None)
            return self.dtype.type(value), shadow, None
        if isinstance(x, list | tuple) and has_traced(x):
            return self.operand(self.stacked(x, site), site)
        numbers = _numeric(x, site)
        value = self.stored(kit.enter(numbers))
        shadow = np.asarray(numbers, np.float64)
        if not is_finite(value):
            self.has_nonfinite = True
        note_conversion(self, value, shadow, site.unit, None)
        return value, shadow, None

    def _converted(self, given: Any, site: Site) -> Array:
        """Round values of another format; what is lost by it is booked to the line."""
        value = self.stored(site.kit.enter(given))
        note_conversion(self, value, given, site.unit, site)
        return value

    def moved(self, array: Traced, move: Callable[[Array], Array]) -> Any:
        """Return elements in other places: a view where NumPy gives one, else a copy."""
        value, shadow = move(array.value), move(array.shadow)
        if not isinstance(value, np.ndarray):
            return self.lowered(self.copied(array, value, shadow, move))
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
        result = Traced(self, kept, shadow, self.new_store(shadow, kit))
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
                parts = parts_of(new, which)
                for unit in parts:
                    if unit not in kept:
                        kept[unit] = np.zeros(array.store.shadow.shape)
                own = array.parts(which)
                for unit, part in own.items():
                    part[index] = parts.get(unit, 0.0)
        if self.has_lost:
            origins = origins_of(new)
            if origins is not None or array.store.origin is not None:
                if array.store.origin is None:
                    array.store.origin = np.full(array.store.shadow.shape, -1, np.int32)
                places = array.origins()
                assert places is not None
                places[index] = -1 if origins is None else origins


def _numeric(x: Any, site: Site) -> Any:
    """Return what enters: real numbers; the rest is refused as `round_to` refuses it."""
    if hasattr(x, "values") and not isinstance(x, np.ndarray | dict):
        x = x.values
    array = np.asarray(x)
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise TypeError(
            f"{array.dtype.name} at {place_of(site)} does not enter a format: pass real numbers of "
            "at most 64 bits, as round_to takes"
        )
    return array
