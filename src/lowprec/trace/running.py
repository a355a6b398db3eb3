"""One run of a program in a format, and its run in plain NumPy."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import io
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import exact_state
from lowprec.common.randomness import as_generator
from lowprec.conversion.neighbours import ulp
from lowprec.formats import Format, float32, float64
from lowprec.trace.copies import constant, copied, function_of, own_copy, sandbox
from lowprec.trace.doors import Doors
from lowprec.trace.engine import Engine
from lowprec.trace.functions import FUNCTIONS
from lowprec.trace.kits import Kit
from lowprec.trace.places import Places, StepLimit, Unit, short
from lowprec.trace.values import Scalar, Traced

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType

    from lowprec.accumulation.accumulator import Accumulator
    from lowprec.rounding import OverflowLike, RoundingLike
    from lowprec.trace.keeping import Keeping

Array = np.ndarray[Any, Any]

_lock = threading.RLock()  # the names of a module stand for one run at a time


@dataclasses.dataclass(frozen=True)
class TraceRequest:
    """What `trace` was asked for."""

    f: Callable[..., Any]
    args: tuple[Any, ...]
    fmt: Format
    keep_format: Format
    accumulator: Accumulator | None
    rounding: RoundingLike
    overflow: OverflowLike
    rng: Any
    modules: tuple[str, ...]
    leaks: str
    max_operations: int

    @property
    def function(self) -> Any:
        """The Python function whose lines are traced."""
        return function_of(self.f)

    @property
    def file(self) -> str:
        """The file of the function."""
        return str(self.function.__code__.co_filename)

    def names(self) -> list[str]:
        """Return the name of each argument."""
        try:
            parameters = list(inspect.signature(self.f).parameters.values())
        except (TypeError, ValueError):
            return [f"argument {k}" for k in range(len(self.args))]
        names: list[str] = []
        for parameter in parameters:
            if parameter.kind is parameter.VAR_POSITIONAL:
                left = len(self.args) - len(names)
                names += [f"{parameter.name}[{k}]" for k in range(left)]
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                names.append(parameter.name)
        names += [f"argument {k}" for k in range(len(names), len(self.args))]
        return names[: len(self.args)]


class Leaf:
    """An array or a number that the program returned."""

    def __init__(
        self, value: Any, shadow: Any, born: dict[int, Any], grown: dict[int, Any]
    ) -> None:
        self.value, self.shadow, self.born, self.grown = value, shadow, born, grown

    def settle(self) -> None:
        """Free shares of float64's own noise, once all of them are known."""
        self.born = _settled(self.value, self.shadow, self.born)
        self.grown = _settled(self.value, self.shadow, self.grown)


_BLOCK = 1 << 13  # elements that are settled at once
_NOISE = 2.0**-48  # of a value: float64's own roundings, over some operations


def _settled(value: Any, shadow: Any, parts: dict[int, Any]) -> dict[int, Any]:
    """Return shares without float64's own noise, which sum to the error as exactly as may be."""
    if not parts:
        return parts
    shape = np.shape(shadow)
    values, shadows = (np.ravel(np.asarray(x, np.float64)) for x in (value, shadow))
    rows = [np.ravel(np.broadcast_to(part, shape)) for part in parts.values()]
    whole = np.empty((len(rows), shadows.size))
    for start in range(0, shadows.size, _BLOCK):  # what is computed with again stays in the cache
        here = slice(start, start + _BLOCK)
        x, table = shadows[here], whole[:, here]
        with np.errstate(all="ignore"):
            error = values[here] - x
            error[~np.isfinite(error)] = 0.0
            least = np.where(np.isfinite(x), _NOISE * np.abs(x), 0.0)
        for row, part in zip(table, rows, strict=True):
            row[:] = part[here]
        sizes = np.abs(table)
        table[sizes <= least] = 0.0
        rest = error - table.sum(axis=0)
        table[sizes.argmax(axis=0), np.arange(x.size)] += rest
    return dict(zip(parts, whole.reshape(len(rows), *shape), strict=True))


@dataclasses.dataclass
class TracedRun:
    """What one run gave.

    result, shadow: What the program returned: as traced, and in the shadow.
    leaves: Its arrays and numbers, in order.
    """

    result: Any
    shadow: Any
    leaves: list[Leaf]
    places: Places
    steps: int
    left: list[str]


class _ForOthers(io.TextIOBase):
    """Standard output for other threads; what this one writes goes nowhere."""

    def __init__(self, out: Any) -> None:
        self._out, self._thread = out, threading.get_ident()

    def write(self, text: str) -> int:
        is_own = threading.get_ident() == self._thread
        return len(text) if is_own else int(self._out.write(text))


def silent() -> contextlib.redirect_stdout[io.TextIOBase]:
    """Return a context in which a program's prints go nowhere: the first run has shown them."""
    return contextlib.redirect_stdout(_ForOthers(sys.stdout))


_AT_ONCE = 4  # units whose shares one run keeps where memory is bounded


def run_by_sites(request: TraceRequest, keeping: Keeping) -> TracedRun:
    """Run the program again and again, each time with the shares of a few units: memory is bounded.

    The runs are the same but for the shares that they keep, so that all together have what one run
    with all shares has.
    """
    whole = run(request, keeping, budget=True, watched=frozenset())
    units = whole.places.units
    for first in range(0, len(units), _AT_ONCE):
        watched = frozenset(range(first, min(first + _AT_ONCE, len(units))))
        with silent():
            made = run(request, keeping, budget=True, watched=watched)
        for leaf, more in zip(whole.leaves, made.leaves, strict=True):
            leaf.born |= {u: part for u, part in more.born.items() if u in watched}
            leaf.grown |= {u: part for u, part in more.grown.items() if u in watched}
        for unit, again in zip(units, made.places.units, strict=True):
            for index, size in again.causes.items():
                unit.causes[index] = unit.causes.get(index, 0.0) + size
            for key, kinds in again.ruins.items():
                for which, sizes in enumerate(kinds):
                    for index, size in sizes.items():
                        unit.ruin(key, which, index, size)
    return whole


def run(
    request: TraceRequest,
    keeping: Keeping,
    *,
    budget: bool,
    fmt: Format | None = None,
    watched: frozenset[int] | None = None,
) -> TracedRun:
    """Run the program once in a format.

    Raises
    ------
    StepLimit
        If it makes more operations than allowed; `places` of the exception has what it did.
    """
    fmt = request.fmt if fmt is None else fmt
    generator = as_generator(request.rng) if not isinstance(
        request.rng, np.random.Generator
    ) else copy.deepcopy(request.rng)  # fmt: skip
    how = (request.rounding, request.overflow, generator, request.accumulator)
    narrow = Kit(fmt, *how)
    wide = Kit(request.keep_format, *how) if keeping else narrow
    dtype = np.dtype(
        np.float32 if narrow.fmt.fits(float32) and wide.fmt.fits(float32) else np.float64
    )

    def kit_of(file: str, number: int, function: str) -> Kit:
        return wide if keeping.has(file, number, function) else narrow

    function = request.function
    places = Places(function.__globals__, request.file, request.modules, kit_of)
    engine = Engine(
        places,
        dtype,
        budget=budget,
        leaks=request.leaks,
        functions=FUNCTIONS,
        limit=request.max_operations,
        watched=watched,
    )
    doors = Doors(engine)
    with (
        _lock,
        exact_state(),
        np.errstate(all="ignore"),
        sandbox(function, request.modules, engine.raw, doors.front_of),
    ):
        memo: dict[int, Any] = {}
        args = []
        for name, argument in zip(request.names(), request.args, strict=True):
            unit = places.input(name)
            unit.kit = kit = wide if keeping.has_argument(name) else narrow
            args.append(copied(argument, _entering(engine, unit, kit), memo))
        f = own_copy(request.f, constant(engine.raw), memo)
        try:
            returned = _run_out(f(*args))
        except StepLimit as limit:
            limit.places = places  # type: ignore[attr-defined]
            limit.engine = engine  # type: ignore[attr-defined]
            raise
        leaves: list[Leaf] = []
        result, shadow = _returned(returned, engine, narrow, wide, leaves, function)
    return TracedRun(result, shadow, leaves, places, engine.steps, engine.left)


def _entering(engine: Engine, unit: Unit, kit: Kit) -> Callable[[Any], Any]:
    def enter(x: Any) -> Any:
        if isinstance(x, float | np.floating) and np.dtype(type(x)).itemsize <= 8:
            return engine.scalar_from(float(x), unit, kit)
        array = np.asarray(x)
        if array.dtype.kind != "f" or array.dtype.itemsize > 8:
            raise TypeError(
                f"argument {unit.name} has {array.dtype.name} numbers: formats hold real numbers "
                "of at most 64 bits, as round_to takes; pass float64"
            )
        return engine.array_from(array, unit, kit)

    return enter


def _returned(
    x: Any, engine: Engine, narrow: Kit, wide: Kit, leaves: list[Leaf], function: FunctionType
) -> tuple[Any, Any]:
    """Return what the program returned as NumPy's numbers, of values and of shadows."""

    def walk(x: Any) -> tuple[Any, Any]:
        kind = type(x)
        if kind is Traced or kind is Scalar:
            return _leaf(_in_format(x, engine, narrow, wide, function), leaves)
        if (
            kind is float
            or isinstance(x, np.floating)
            or (isinstance(x, np.ndarray) and x.dtype.kind == "f")
        ):
            unit = _return_unit(engine, function)
            if isinstance(x, np.ndarray):
                return _leaf(engine.array_from(x, unit, narrow), leaves)
            return _leaf(engine.scalar_from(float(x), unit, narrow), leaves)
        if isinstance(x, bool | int | np.generic | np.ndarray):
            leaves.append(Leaf(x, x, {}, {}))
            return x, x
        if isinstance(x, dict):
            pairs = {key: walk(value) for key, value in x.items()}
            first = copy.copy(x)
            second = copy.copy(x)
            first.update({key: pair[0] for key, pair in pairs.items()})
            second.update({key: pair[1] for key, pair in pairs.items()})
            return first, second
        if isinstance(x, set | frozenset):
            return tuple(kind(part) for part in zip(*map(walk, _in_order(x)), strict=True))
        if isinstance(x, deque):
            pairs_ = [walk(item) for item in x]
            return deque((a for a, _ in pairs_), x.maxlen), deque((b for _, b in pairs_), x.maxlen)
        if isinstance(x, tuple | list):
            made = [walk(item) for item in x]
            parts = [pair[0] for pair in made], [pair[1] for pair in made]
            if hasattr(x, "_fields"):
                return kind(*parts[0]), kind(*parts[1])
            return kind(parts[0]), kind(parts[1])
        fields = getattr(x, "__dict__", None)
        if type(fields) is dict and not callable(x) and fields:
            first, second = copy.copy(x), copy.copy(x)
            for name, value in fields.items():
                a, b = walk(value)
                object.__setattr__(first, name, a)
                object.__setattr__(second, name, b)
            return first, second
        return x, x

    return walk(x)


def _return_unit(engine: Engine, function: FunctionType) -> Unit:
    code = function.__code__
    lines = [unit.number for unit in engine.places.lines.values() if unit.file == code.co_filename]
    number = max((n for n in lines if n is not None), default=code.co_firstlineno)
    return engine.places.unit(code.co_filename, number, code.co_name)


def _in_format(x: Any, engine: Engine, narrow: Kit, wide: Kit, function: FunctionType) -> Any:
    """Return a value that has not entered a format, or is of several, as one of a format."""
    if x.kit is not None:
        return x
    value = np.asarray(x.value)
    for kit in (narrow, wide):
        if np.array_equal(kit.enter(value), value, equal_nan=True):
            return x
    unit = _return_unit(engine, function)
    assert unit.kit is not None
    entered = engine.array_from(value, unit, narrow)
    entered.shadow[...] = x.shadow
    if engine.budget:
        for which in ("born", "grown"):
            parts = getattr(entered.store, which)
            for index, part in x.parts(which).items() if type(x) is Traced else ():
                parts[index] = parts[index] + part if index in parts else np.array(part)
    return entered if type(x) is Traced else engine.lowered(entered)


def _leaf(x: Any, leaves: list[Leaf]) -> tuple[Any, Any]:
    if type(x) is Scalar:
        value, shadow = x.run.dtype.type(x.value), np.float64(x.shadow)
        leaf = Leaf(value, shadow, x.born or {}, x.grown or {})
    else:
        value, shadow = x.value.copy(), x.shadow.copy()
        if value.dtype != x.run.dtype:
            value = value.astype(x.run.dtype)
        leaf = Leaf(value, shadow, x.parts("born"), x.parts("grown"))
    leaves.append(leaf)
    return value, shadow


def plain(request: TraceRequest) -> Any:
    """Run the program in plain NumPy float64; return what it returns."""
    memo: dict[int, Any] = {}

    def enter(x: Any) -> Any:
        if isinstance(x, np.ndarray):
            return np.array(x, np.float64) if x.dtype.kind == "f" else x.copy()
        return np.float64(x) if isinstance(x, np.floating) else x

    def same(x: Any) -> Any:
        return x.copy() if isinstance(x, np.ndarray) else x

    with _lock, exact_state(), sandbox(request.function, (), same, None):
        args = [copied(argument, enter, memo) for argument in request.args]
        f = own_copy(request.f, constant(same), memo)
        with np.errstate(all="ignore"), silent():
            returned = _run_out(f(*args))
        return _detached(returned)


def _run_out(returned: Any) -> Any:
    """Return the items of a generator or another iterator, which computes while it is asked."""
    if isinstance(returned, Iterator) and not isinstance(returned, io.IOBase):
        return list(returned)
    return returned


def _in_order(items: Any) -> list[Any]:
    """Return the items of a set by size, so that two sets are compared item by item."""
    try:
        return sorted(items, key=lambda x: x.value if type(x) is Scalar else x)
    except TypeError:
        return list(items)


def _detached(x: Any) -> Any:
    """Return results that share no memory with what comes back to be as before."""
    try:
        return copy.deepcopy(x)
    except Exception:  # an object that cannot be copied is returned as it is
        return x


def numbers(x: Any) -> list[Any]:
    """Return the arrays and numbers of a result, in order."""
    if isinstance(x, dict):
        return [leaf for value in x.values() for leaf in numbers(value)]
    if isinstance(x, tuple | list | deque | set | frozenset):
        items = _in_order(x) if isinstance(x, set | frozenset) else x
        return [leaf for item in items for leaf in numbers(item)]
    if isinstance(x, bool | int | float | np.generic | np.ndarray):
        return [x]
    fields = getattr(x, "__dict__", None)
    if type(fields) is dict and not callable(x):
        return [leaf for value in fields.values() for leaf in numbers(value)]
    return []


def explain_limit(request: TraceRequest, keeping: Keeping, limit: StepLimit) -> RuntimeError:
    """Return the error for a program that goes on: which loop, and what float64 did."""
    places = limit.places  # type: ignore[attr-defined]
    try:
        with silent():
            known = run(request, keeping, budget=False, fmt=float64).places
    except StepLimit:
        return RuntimeError(
            f"more than {request.max_operations:,} operations, in float64 too; the loop does not "
            "end, or max_operations= is too low for it"
        )
    counts = {key: unit.calls for key, unit in known.lines.items()}
    ratios = [
        (len(unit.limits) > 0, unit.calls / max(counts.get(key, 0), 1), unit)
        for key, unit in places.lines.items()
        if unit.calls > 1.5 * counts.get(key, 0)
    ]
    if not ratios:
        return RuntimeError(
            f"more than {request.max_operations:,} operations; raise max_operations="
        )
    _, _, unit = max(ratios, key=lambda item: item[:2])
    where = (
        f"line {unit.number}" if unit.file == request.file else f"{short(unit.file)}:{unit.number}"
    )
    fmt = unit.kit.fmt if unit.kit is not None else request.fmt
    words = (
        f"{where}: the loop ran {unit.calls} times where float64 ran "
        f"{counts.get((unit.file, unit.number), 0)}"
    )
    if unit.limits:
        tolerance = unit.limits[-1][0]
        largest = max((u.largest for u in places.lines.values()), default=0.0)
        step = float(ulp(np.float64(largest), fmt)) if largest else 0.0
        if 0 < abs(tolerance) < step:
            power = int(np.log2(step))
            words += f": a tolerance of {tolerance:g} is below {fmt}'s spacing 2**{power} here"
    return RuntimeError(
        f"{words} (limit: max_operations={request.max_operations:,}); loosen the tolerance, bound "
        "the loop, or keep the lines it depends on wide"
    )
