"""Where in a program something happens: units (a line, an argument), and sites within lines."""

from __future__ import annotations

import dataclasses
import linecache
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from lowprec.trace.kits import Kit

Key = int | str | tuple[str, int]


class StepLimit(BaseException):
    """The program has made more operations than allowed; no `except Exception` takes it."""


@dataclasses.dataclass(frozen=True)
class Event:
    """Values that left the finite numbers, or zero, where the shadow's did not.

    kind: "overflow", "new zero", "divide by zero", "invalid".
    count: How many elements.
    of: Of how many.
    first: The index of the first element, `()` for a scalar.
    operation: What computed it, as "exp"; "conversion" for an operand or argument.
    example: The first one in numbers, as "exp(-20)".
    seen: The expression in which it showed, where another line had lost all digits of its operand;
        the event is that line's.
    """

    kind: str
    count: int
    of: int
    first: tuple[int, ...]
    operation: str
    example: str = ""
    seen: str = ""


class Span(NamedTuple):
    """Where an expression stands in a file; columns count from 0."""

    line: int
    column: int
    end_line: int
    end_column: int


class Site:
    """One operation of the program: an instruction of its code."""

    __slots__ = (
        "amplified", "bits", "has_decision", "has_event", "kit", "name", "seen", "span", "unit",
        "weight",
    )  # fmt: skip

    def __init__(self, unit: Unit, kit: Kit, span: Span | None, name: str) -> None:
        self.unit, self.kit, self.span, self.name = unit, kit, span, name
        self.seen = 0
        self.bits = 0.0  # cancelled of operands that carry error
        self.weight = 0.0  # the largest error that was born here
        self.amplified = 0.0  # and the largest that was amplified
        self.has_event = self.has_decision = False


class Unit:
    """A line of the program, or an argument: what error is booked to."""

    def __init__(self, index: int, file: str, number: int | None, name: str) -> None:
        self.index, self.file, self.number, self.name = index, file, number, name
        self.sites: list[Site] = []
        self.operations = 0
        self._events: dict[tuple[Any, ...], Event] = {}
        self.absorbed = 0
        self.decisions = 0
        self.causes: dict[int, float] = {}  # whose error made the decisions
        self.limits: list[tuple[float, float]] = []  # tolerance and largest operand of comparisons
        self.is_rounded = False
        self.is_pure = False  # LAPACK's function, by pure NumPy
        self.is_inside_float64 = False
        self.kit: Kit | None = None
        self.calls = 0
        self.bits = 0.0
        self.largest = 0.0  # operand of a subtraction
        self.has_rounded = False  # something entered here and changed
        # By event: whose errors, born and grown, its operands carried where they were ruined.
        self.ruins: dict[tuple[Any, ...], tuple[dict[int, float], dict[int, float]]] = {}
        self.ruined_by: dict[int, float] = {}  # whose error made the events that others saw

    @property
    def events(self) -> list[Event]:
        """What happened here, the first first."""
        return list(self._events.values())

    def add_event(self, event: Event, site: Site | None = None) -> None:
        """Count an event with those of its kind and place; the first index stays."""
        key = event_key(event.kind, event.operation, site)
        old = self._events.get(key)
        if old is None:
            self._events[key] = event
        else:
            self._events[key] = dataclasses.replace(
                old, count=old.count + event.count, of=old.of + event.of
            )

    def ruin(self, key: tuple[Any, ...], which: int, unit: int, size: float) -> None:
        """Note how much error of a unit, born (0) or grown (1), the operands of an event had."""
        sizes = self.ruins.setdefault(key, ({}, {}))[which]
        sizes[unit] = sizes.get(unit, 0.0) + size

    def text(self) -> str:
        """Return the line of source."""
        return "" if self.number is None else linecache.getline(self.file, self.number).rstrip()


def event_key(kind: str, operation: str, site: Site | None) -> tuple[Any, ...]:
    """Return what events of a unit are counted together by; the same in every run."""
    return kind, operation, None if site is None else site.span


class Places:
    """Finds the unit and the site of what runs now.

    root: The globals of the function that is traced.
    modules: Whose code is traced line by line too.
    kit_of: Gives the kit of a line: `(file, number, function) -> Kit`.
    """

    def __init__(
        self,
        root: dict[str, Any],
        file: str,
        modules: tuple[str, ...],
        kit_of: Callable[[str, int, str], Kit],
    ) -> None:
        self.root, self.file, self.modules, self.kit_of = root, file, modules, kit_of
        self.units: list[Unit] = []
        self.lines: dict[tuple[str, int], Unit] = {}
        self.inputs: dict[str, Unit] = {}
        self._codes: dict[int, dict[int, Site] | None] = {}
        self._kept: list[CodeType] = []  # so that no other code gets their ids

    def input(self, name: str) -> Unit:
        """Return the unit of an argument."""
        if name not in self.inputs:
            self.inputs[name] = Unit(len(self.units), self.file, None, name)
            self.units.append(self.inputs[name])
        return self.inputs[name]

    def site(self, depth: int, name: str) -> Site:
        """Return the site of the innermost traced frame.

        depth: How many frames of the engine lie above.
        name: What is computed, for a new site.
        """
        frame: FrameType | None = sys._getframe(depth)
        codes = self._codes
        while frame is not None:
            code = frame.f_code
            try:
                sites = codes[id(code)]
            except KeyError:
                sites = self._learn(frame)
            if sites is not None:
                site = sites.get(frame.f_lasti)
                return self._new(frame, sites, name) if site is None else site
            frame = frame.f_back
        raise RuntimeError(
            "a traced value was used outside of the function that is traced; use t.result, "
            "t.shadow or t.reference, whose numbers are NumPy's"
        )

    def is_traced(self, frame: FrameType) -> bool:
        """Whether a frame's lines are units."""
        if frame.f_code.co_filename == self.file:
            return True
        name = frame.f_globals.get("__name__") or ""
        return any(name == module or name.startswith(module + ".") for module in self.modules)

    def _learn(self, frame: FrameType) -> dict[int, Site] | None:
        code = frame.f_code
        self._kept.append(code)
        self._codes[id(code)] = {} if self.is_traced(frame) else None
        return self._codes[id(code)]

    def unit(self, file: str, number: int, function: str) -> Unit:
        """Return the unit of a line."""
        key = (file, number)
        if key not in self.lines:
            unit = Unit(len(self.units), file, number, function)
            unit.kit = self.kit_of(file, number, function)
            self.lines[key] = unit
            self.units.append(unit)
        return self.lines[key]

    def _new(self, frame: FrameType, sites: dict[int, Site], name: str) -> Site:
        code = frame.f_code
        unit = self.unit(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_name)
        assert unit.kit is not None
        site = Site(unit, unit.kit, span_of(code, frame.f_lasti), name)
        sites[frame.f_lasti] = site
        unit.sites.append(site)
        return site

    def settle(self) -> None:
        """Give events that a ruined operand made to the line that amplified its error most."""
        for unit in self.units:
            for key, (born, grown) in unit.ruins.items():
                event = unit._events.get(key)
                if event is None or not grown:
                    continue
                blamed = self.units[max(grown, key=grown.__getitem__)]
                if blamed is unit or blamed.number is None:
                    continue
                del unit._events[key]
                span = key[2]
                seen = expression(unit.file, span) or event.operation
                blamed.add_event(dataclasses.replace(event, seen=seen))
                for index, size in born.items():
                    blamed.ruined_by[index] = blamed.ruined_by.get(index, 0.0) + size
            unit.ruins.clear()

    def key(self, unit: Unit) -> Key:
        """Return how users name a unit: a number of f's file, `(file, number)`, or a name."""
        if unit.number is None:
            return unit.name
        return unit.number if unit.file == self.file else (unit.file, unit.number)


def span_of(code: CodeType, instruction: int) -> Span | None:
    """Return where the expression of an instruction stands."""
    for place, position in enumerate(code.co_positions()):
        if place == instruction // 2:
            line, end_line, column, end_column = position
            if line is None or end_line is None or column is None or end_column is None:
                return None
            return Span(line, column, end_line, end_column)
    return None


def expression(file: str, span: Span | None) -> str:
    """Return the source of an expression on one line; "" where it is unknown."""
    if span is None:
        return ""
    lines = [linecache.getline(file, n).rstrip("\n") for n in range(span.line, span.end_line + 1)]
    if not lines or not lines[0]:
        return ""
    raw = [line.encode() for line in lines]
    raw[-1] = raw[-1][: span.end_column]
    raw[0] = raw[0][span.column :]
    return " ".join(part.decode(errors="replace").strip() for part in raw)


def short(file: str) -> str:
    """Return the name of a file as reports print it; "cell" for one of a notebook's."""
    return "cell" if "ipykernel_" in file else os.path.basename(file) or file
