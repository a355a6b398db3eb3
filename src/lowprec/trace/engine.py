"""What the operators of traced values ask: value, shadow and shares of error of each result."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace import operations
from lowprec.trace.events import (
    broadcasts,
    carry_origins,
    mark,
    note,
    note_events,
    origin_of,
    origins_of,
)
from lowprec.trace.memory import Memory
from lowprec.trace.operations import COMPARISONS, QUESTIONS, SELECTIONS, method_of
from lowprec.trace.refusals import (
    LeavesError,
    home_of,
    is_formatting,
    leak_message,
    receiver,
)
from lowprec.trace.scalars import OPERATIONS, converted, mirrored, operate
from lowprec.trace.shares import share
from lowprec.trace.values import (
    Scalar,
    Traced,
    TracedNumber,
    is_number,
    parts_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowprec.trace.places import Places, Site

Array = np.ndarray[Any, Any]
Source = Any  # a Scalar, a Traced or None: whose shares an operand carries

_SMALL = 4096  # elements, up to which an operand is spread out before it is computed with
_NUMBERS = frozenset((Scalar, float, int))  # that have a path of their own among themselves
_INEXACT = 4  # place in the counts of events


class Engine(Memory):
    """What the operators of traced values ask.

    leaks: "error" or "round": what becomes of values that leave.
    functions: What NumPy's functions are in a format: handlers `(engine, *args, **kwargs)`.
    places, dtype, **state: See `Memory`.
    """

    def __init__(
        self,
        places: Places,
        dtype: np.dtype[Any],
        *,
        leaks: str,
        functions: dict[Any, Callable[..., Any]],
        **state: Any,
    ) -> None:
        super().__init__(places, dtype, **state)
        self.leaks, self.functions = leaks, functions
        self.numpy: Any = np  # as the program sees it
        self.left: list[str] = []  # what left although it was allowed to
        self._codes = places._codes

    # Scalars -----------------------------------------------------------------------------------

    def binary(self, ufunc: Any, a: Any, b: Any) -> Any:
        """Return the result of an operator: scalars have a path of their own."""
        kind_a, kind_b = type(a), type(b)
        is_scalar = kind_a in _NUMBERS and kind_b in _NUMBERS
        if not (is_scalar or (_is_operand(b) and _is_operand(a))):
            return NotImplemented
        frame = sys._getframe(2)
        try:
            site = self._codes[id(frame.f_code)][frame.f_lasti]  # type: ignore[index]
        except (KeyError, TypeError):
            site = self.places.site(3, ufunc.__name__)
        if is_scalar and ufunc in OPERATIONS and site.kit.has_scalar_path:
            return operate(self, ufunc, a, b, site)
        if ufunc is np.matmul:
            return self.functions[np.matmul](self, a, b, site=site)
        return self.elementwise(ufunc, (a, b), site)

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
        self.count(site, z.size)
        if not shape:
            return self._scalar_result(ufunc, z, zs, taken, site, counts, chosen)
        result = self.fresh(z, zs, kit)
        z, zs = result.value, result.shadow
        if (name == "add" or name == "subtract") and counts is not None and counts[_INEXACT]:
            self._count_absorbed(z, values, site, name)
        if self.budget:
            share(self, result, taken, self._flows(ufunc, values, shadows, zs, chosen), site)
        sources = [t[2] for t in taken]
        if self.has_lost:
            carry_origins(self, result, sources)
        note_events(self, ufunc, z, zs, values, shadows, sources, site, counts, result)
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
        site.unit.is_rounded = True
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
            share(self, array, taken, flows, site)
            result.born = {u: float(p) for u, p in array.store.born.items()}  # type: ignore[union-attr]
            result.grown = {u: float(p) for u, p in array.store.grown.items()}  # type: ignore[union-attr]
        if self.has_lost:
            result.origin = max((origin_of(s) for s in sources), default=-1)
        value, shadow = np.asarray(z), np.asarray(zs)
        note_events(self, ufunc, value, shadow, values, shadows, sources, site, counts, result)
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
        self.decide(zs != would, site, sources)
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
        same_x, same_y = z == x, z == (y if name == "add" else -y)
        if not (x.all() and y.all()):
            same_x, same_y = same_x & (y != 0), same_y & (x != 0)
        either = same_x | same_y
        if either.any():
            finite = np.isfinite(z) if self.has_lost else True
            site.unit.absorbed += int(np.count_nonzero(either & finite))

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
        self.count(site, operations_made)
        site.name = name
        result = self.fresh(z, zs, site.kit)
        if self.budget:
            share(self, result, taken, flows, site)
        z, zs = result.value, result.shadow
        if not site.kit.is_numpy:
            wrong = ~np.isfinite(z) & np.isfinite(zs)
            if wrong.any():
                lost = any(np.any(~np.isfinite(v)) for v, _, _ in taken)
                if lost:
                    self.has_lost = True
                    for _, _, source in taken:
                        origins = origins_of(source)
                        if origins is not None and np.any(np.asarray(origins) >= 0):
                            mark(self, result, wrong, int(np.max(origins)))
                else:
                    note(self, {"overflow": wrong}, name, [], site, result)
        return self.lowered(result)

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
            x, xs = (a.value if a.kit is kit else converted(self, a, site)), a.shadow
            if type(b) is Scalar:
                y, ys = (b.value if b.kit is kit else converted(self, b, site)), b.shadow
            else:
                y, ys = kit.enter_one(b), float(b)
                if len(site.unit.limits) < 8:
                    site.unit.limits.append((float(b), abs(x)))
            decided, would = _SCALAR_COMPARISONS[ufunc](x, y, xs, ys)
            self.count(site, 1)
            if decided is not would:
                self.decide(np.asarray(True), site, (a, b))
            return decided
        x, xs, source_a = self.operand(a, site)
        y, ys, source_b = self.operand(b, site)
        decided, would = ufunc(x, y), ufunc(xs, ys)
        self.count(site, int(np.size(decided)))
        self.decide(decided != would, site, (source_a, source_b))
        return decided

    def decide(self, differs: Any, site: Site, sources: Sequence[Source]) -> None:
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
            for unit, part in parts_of(source, "born").items():
                if broadcasts(np.shape(part), shape):
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
        self.decide(np.asarray(decided is not would), site, (x,))
        return decided

    def integer(self, x: Any, how: Callable[[float], int]) -> int:
        """Return the integer that a program makes from a number; the value decides it."""
        site = self.places.site(3, "int")
        if np.size(x.value) != 1:
            raise TypeError("only length-1 arrays can be converted to Python scalars")
        decided = how(float(np.ravel(x.value)[0]))
        shadow = float(np.ravel(x.shadow)[0])
        would = how(shadow) if math.isfinite(shadow) else None
        self.decide(np.asarray(decided != would), site, (x,))
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
            self.decide(value != would, site, (x,))
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
        made = None
        if type(x) is Scalar and site.kit is x.kit and site.kit.has_signs:
            made = None if ufunc is np.positive else mirrored(self, ufunc, x, site)
        return self.elementwise(ufunc, (x,), site) if made is None else made

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
                    return operate(self, np.multiply, a, a, site)
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
        origin = home_of(function)
        return self.left_by(origin, name, function, args, kwargs)

    def left_by(self, origin: str, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        """Raise the error of values that leave, or compute with values and with shadows."""
        site = self.places.site(2, name)
        if self.leaks != "round":
            raise TypeError(leak_message(origin, name, site, self.functions))
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
                self.decide(np.asarray(value) != np.asarray(shadow), site, ())
            return value
        z = site.kit.enter(value)
        if np.shape(z) != np.shape(shadow):
            shadow = np.broadcast_to(np.asarray(value, np.float64), np.shape(z))
        taken: list[Any] = []
        return self.linear(z, shadow, taken, [], site, "float64", int(np.size(z)))

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
        return LeavesError(leak_message(what, name, site, self.functions))

    def leak(self, x: Any, what: str) -> Any:
        """Return the values that leave as float64, or refuse."""
        site = self.places.site(3, what)
        if what == "float()" and is_formatting(site):
            return x.value  # for a text
        origin, what = receiver(self.places, site, what)
        if self.leaks != "round":
            raise TypeError(leak_message(origin, what, site, self.functions))
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
                    raise TypeError(
                        leak_message("an array that is not traced", "out=", site, self.functions)
                    )
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
            result = self.applied(ufunc, inputs, kwargs, site, out)
        if out is None or method == "at":
            return result
        results = result if isinstance(result, tuple) else (result,)
        for target, made in zip(out, results, strict=True):
            if target is not None:
                target[...] = made
        written = tuple(made if t is None else t for t, made in zip(out, results, strict=True))
        return written if isinstance(result, tuple) else written[0]

    def applied(
        self, ufunc: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any], site: Site, out: Any
    ) -> Any:
        """Return a universal function of some operands."""
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
            self.decide(answer != would, site, ())
            return answer
        if name in COMPARISONS:
            if len(inputs) == 1:
                x, xs, source = self.operand(inputs[0], site)
                answer = ufunc(x)
                self.decide(answer != ufunc(xs), site, (source,))
                return answer
            return self.compared(ufunc, inputs[0], inputs[1], site)
        if name in ("power", "float_power"):
            return self.powered(inputs[0], inputs[1], site)
        is_numpys = getattr(np, name, None) is ufunc
        if not is_numpys and method_of(name) is None:
            return self.left_by(home_of(ufunc), name, ufunc, inputs, kwargs)
        if ufunc.nin > 2 or ufunc.nout > 1:
            return self.left_by(home_of(ufunc), name, ufunc, inputs, kwargs)
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
        made = self.applied(ufunc, tuple(picked), {}, site, None)
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


def _is_operand(x: Any) -> bool:
    """Whether an operator can take this; of anything else Python asks its own method."""
    kind = type(x)
    if kind is Traced or kind in _NUMBERS:
        return True
    return isinstance(x, bool | np.ndarray | np.generic | list | tuple | int | float | complex)


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
