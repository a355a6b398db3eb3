"""`trace`: a program in a format, and what became of its numbers on each line."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.accumulation.accumulator import Accumulator, as_accumulator
from lowprec.common.names import one_of
from lowprec.common.processor_state import in_exact_state
from lowprec.common.randomness import as_generator, draw_key
from lowprec.formats import float64, get_format
from lowprec.rounding import Rounding
from lowprec.trace.keeping import Keeping
from lowprec.trace.least import Keep, Search, least
from lowprec.trace.places import Key, Span, StepLimit, Unit, expression, short
from lowprec.trace.running import (
    TracedRun,
    TraceRequest,
    explain_limit,
    numbers,
    plain,
    run,
    run_by_sites,
)
from lowprec.trace.verdict import Finding, findings, norm_of, sentences, two_digits

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from lowprec.accumulation.accumulator import AccumulatorLike
    from lowprec.formats import FormatLike
    from lowprec.rounding import OverflowLike, RoundingLike
    from lowprec.trace.places import Event

Array = np.ndarray[Any, Any]

_MOST_WORK = 300_000  # operations times units, up to which the verdict looks for what to keep


class Error(float):
    """The relative error of an output, in the 2-norm; `largest` is that of its worst element.

    Attributes
    ----------
    norm : float
        The 2-norm of result - reference, over that of the reference (over 1 where that is 0).
    largest : float
        The largest relative error of an element (absolute where the reference is 0).
    """

    norm: float
    largest: float

    def __new__(cls, norm: float, largest: float) -> Error:
        """Return the norm, with the largest beside."""
        error = super().__new__(cls, norm)
        error.norm, error.largest = norm, largest
        return error

    def __reduce__(self) -> Any:
        return Error, (self.norm, self.largest)

    def __repr__(self) -> str:
        return f"Error(norm={self.norm:.3g}, largest={self.largest:.3g})"


@dataclasses.dataclass(frozen=True)
class Output:
    """An array or a number that the program returned.

    Attributes
    ----------
    result, shadow, reference : ndarray or number
        As traced; float64 along the traced path; plain NumPy's.
    error : Error
        Of the result, against the reference.
    """

    result: Any
    shadow: Any
    reference: Any
    error: Error


@dataclasses.dataclass(frozen=True)
class Line:
    """What happened on a line, or by the rounding of an argument.

    Attributes
    ----------
    file, number, text : str, int or None, str
        Where it stands, and its source; an argument has no number, and its name as text.
    span : Span or None
        Of the expression that matters most: line, column, end_line, end_column; columns from 0.
    operations : int
        How many results were rounded.
    born, grown : list of float64 ndarray
        One for each output, of its shape: the part of result - shadow that was born here, and the
        part that was amplified here.
    events : list of Event
        Values that became infinite, NaN or zero.
    absorbed : int
        Additions of something that changed nothing.
    cancelled_bits : float
        The most bits that a subtraction cancelled of operands that carried error.
    decisions : int
        Comparisons, masks, integers and orders that differ in the shadow.
    format : Format
        What the line computed in.
    rounded, pure, float64_inside : bool
        Whether some function was float64's, rounded once; LAPACK's, by pure NumPy; or computed by
        code that the values left for (``leaks="round"``).
    """

    file: str
    number: int | None
    text: str
    span: Span | None
    operations: int
    born: list[Array]
    grown: list[Array]
    events: list[Event]
    absorbed: int
    cancelled_bits: float
    decisions: int
    format: Any
    rounded: bool = False
    pure: bool = False
    float64_inside: bool = False
    name: str = ""
    is_rounded: bool = False  # an argument, of which numbers changed on entry

    @property
    def expression(self) -> str:
        """The source of the expression that matters most."""
        return expression(self.file, self.span)


class Lines(dict[Any, Line]):
    """Lines by number of the function's file, or by ``(file, number)``."""

    def __missing__(self, key: Any) -> Line:
        if isinstance(key, tuple) and len(key) == 2:
            for line in self.values():
                if line.number == key[1] and line.file.endswith(str(key[0])):
                    return line
        raise KeyError(
            f"nothing was computed on line {key!r}; traced lines: {', '.join(map(str, self))}"
        )


class Trace:
    """A program's run in a format: see `trace`.

    Attributes
    ----------
    result : anything
        What the program returned; every float is a value of the format.
    shadow : anything
        The same in float64 along the traced path: decisions are those of the traced values.
    reference : anything
        What the program returns in plain NumPy float64.
    outputs : list of Output
        Each returned array and number, with its error.
    lines : dict
        `Line` by number of the function's file, or by ``(file, number)``.
    inputs : dict
        `Line` by argument.
    tolerance : float
        Relative error of an output from which on a line is named.
    """

    def __init__(
        self,
        request: TraceRequest,
        keeping: Keeping,
        made: TracedRun,
        reference: Any,
        **options: Any,
    ):
        self._request, self._keeping, self._run = request, keeping, made
        self.result, self.shadow, self.reference = made.result, made.shadow, reference
        self.format, self.keep_format = request.fmt, request.keep_format
        self.tolerance: float = options["tolerance"]
        self.has_budget: bool = options["budget"]
        self._reason = ""  # why no least set was found
        self._kept: dict[float, Keep | None] = {}
        self._sentences: list[str] | None = None
        references = numbers(reference)
        leaves = made.leaves
        for leaf in leaves:
            leaf.settle()
        if len(references) != len(leaves):
            references = [None] * len(leaves)
        self.outputs = [
            Output(leaf.value, leaf.shadow, ref, error_of(leaf.value, ref))
            for leaf, ref in zip(leaves, references, strict=True)
        ]
        places = made.places
        places.settle()
        self.lines = Lines(
            (places.key(unit), self._line(unit))
            for _, unit in sorted(
                places.lines.items(), key=lambda item: (item[0][0] != places.file, item[0])
            )
        )
        self.inputs = {name: self._line(unit) for name, unit in places.inputs.items()}

    def _line(self, unit: Unit) -> Line:
        born: list[Array] = []
        grown: list[Array] = []
        for leaf in self._run.leaves:
            shape = np.shape(leaf.value)
            for parts, found in ((leaf.born, born), (leaf.grown, grown)):
                part = parts.get(unit.index)
                found.append(np.zeros(shape) if part is None else np.asarray(part, np.float64))
        kit = unit.kit
        return Line(
            unit.file, unit.number, unit.text() if unit.number is not None else unit.name,
            _main_span(unit), unit.operations, born, grown, unit.events, unit.absorbed, unit.bits,
            unit.decisions, None if kit is None else kit.fmt, unit.is_rounded, unit.is_pure,
            unit.is_inside_float64, unit.name, unit.has_rounded,
        )  # fmt: skip

    # Judgement -----------------------------------------------------------------------------------

    @property
    def findings(self) -> list[Finding]:
        """What is named, the most important first."""
        return findings(self)

    @property
    def error(self) -> float:
        """The largest error of an output."""
        return max((float(output.error) for output in self.outputs), default=0.0)

    @property
    @in_exact_state
    def verdict(self) -> list[str]:
        """Sentences, the most important first; an empty list if nothing is to be named."""
        if self._sentences is None:
            found = self.findings
            healthy = not found and math.isfinite(self.error)
            self._sentences = [] if healthy else sentences(self, found, self._cure(found))
        return list(self._sentences)

    @property
    def kept(self) -> Keep | None:
        """What must stay wide for the trace's own tolerance, if that was looked for and found."""
        _ = self.verdict
        return self._kept.get(self.tolerance)

    def _cure(self, found: list[Finding]) -> Keep | str | None:
        """Return what to keep, or a sentence why that is not known."""
        if self.error <= self.tolerance:
            return ""
        units = len(self.lines) + 3
        if self._run.steps * units > _MOST_WORK:
            return f"t.least({self.tolerance:.3g}) finds what must stay wide by some {units} runs"
        kept = self.least(self.tolerance)
        return self._reason if kept is None else kept

    def share(self, line: Line, which: str = "born") -> float:
        """Return the largest share of a line, "born" or "grown", of an output's error.

        Relative to the 2-norm of the output's reference (to 1 where that is 0).
        """
        largest = 0.0
        for output, part in zip(self.outputs, getattr(line, which), strict=True):
            largest = max(largest, norm_of(part) / scale_of(output))
        return largest

    @in_exact_state
    def least(self, tolerance: float | None = None) -> Keep | None:
        """Return the least set of lines that must stay wide, found by running.

        Parameters
        ----------
        tolerance : float, optional
            The largest error of any output: the 2-norm of its difference from the reference, over
            the reference's (over 1 where that is 0). By default the trace's own.

        Returns
        -------
        Keep or None
            Lines from which none can be taken: with them the error is within the tolerance,
            without any one it is beyond, and both were run. None if all lines wide miss it.
            Arguments that the trace's `keep` names are units beside the lines: where the lines
            need them, they are in the set.

        Examples
        --------
        >>> import numpy as np
        >>> def mean_square(x):
        ...     s = np.sum(x * x)
        ...     return s / len(x)
        >>> t = trace(mean_square, np.ones(4000))
        >>> t.least(0.01).lines == (list(t.lines)[0],)
        True
        """
        limit = self.tolerance if tolerance is None else float(tolerance)
        if limit not in self._kept:
            self._kept[limit] = self._least(limit)
        return self._kept[limit]

    def _least(self, tolerance: float) -> Keep | None:
        search = Search(self._error_with)
        lines: list[Key] = list(self.lines)
        wide = [name for name in self._request.names() if self._keeping.has_argument(name)]
        if not self._keeping and self.error <= tolerance:
            return Keep((), self.error, 1, [((), self.error)])
        everything, seen = self._error_of_all(wide)
        lines += [*(key for key in seen if key not in self.lines), *wide]
        shares = {
            key: (bool(line.events), max(self.share(line, "born"), self.share(line, "grown")))
            for key, line in {**self.lines, **self.inputs}.items()
        }
        order = sorted(lines, key=lambda key: (shares.get(key, (False, 0.0)), _last_first(key)))
        search.know(order, everything)
        search.tried.append((tuple(order), everything))
        if not everything <= tolerance:
            self._reason = self._no_line_helps(everything, tolerance)
            return None
        named = {finding.key for finding in self.findings} | {
            key for finding in self.findings for key in finding.born_on
        }
        likely = [key for key in order if key in named]
        found, error = least(search, order, likely, tolerance)
        kept = tuple(key for key in lines if key in found)
        return Keep(kept, error, len(search.tried), search.tried)

    def _no_line_helps(self, everything: float, tolerance: float) -> str:
        """Return why no lines suffice, from the error with all of them wide."""
        wide = self.keep_format
        whole = f"all lines in {wide} leave an error of {two_digits(everything)}"
        changed = [name for name, line in self.inputs.items() if line.is_rounded]
        if not changed:
            return f"no line helps: {whole}"
        with_inputs, _ = self._error_of_all(changed)
        start = whole
        if math.isfinite(everything):
            start = f"inputs alone cost {everything:.3g}"
        if with_inputs <= tolerance:
            names = ", ".join(repr(name) for name in changed)
            return f"no line helps: {start}; trace with keep=[{names}] and ask `least` again"
        names = ", ".join(changed)
        return (
            f"no line helps: {start}, and {wide} for {names} too leaves {two_digits(with_inputs)}"
        )

    def _error_with(self, kept: Sequence[Key]) -> float:
        return self._error_under(Keeping(kept, self._request.file, self._request.names()))[0]

    def _error_of_all(self, arguments: Sequence[str]) -> tuple[float, list[Key]]:
        """Return the error with all lines wide and some arguments, and the lines that ran."""
        names = self._request.names()
        return self._error_under(Everything(self._request.file, names, arguments))

    def _error_under(self, keeping: Keeping) -> tuple[float, list[Key]]:
        try:
            made = run(self._request, keeping, budget=False)
        except (StepLimit, ArithmeticError, ValueError):  # which no format with more bits has
            return math.inf, []
        references = [output.reference for output in self.outputs]
        if len(made.leaves) != len(references):
            return math.inf, []
        errors = [
            float(error_of(leaf.value, ref))
            for leaf, ref in zip(made.leaves, references, strict=True)
        ]
        seen = [made.places.key(unit) for unit in made.places.lines.values()]
        return max((math.inf if math.isnan(e) else e for e in errors), default=0.0), seen

    # Views ---------------------------------------------------------------------------------------

    @property
    def accumulator(self) -> str:
        """How sums are formed, in words."""
        how = self._request.accumulator
        if how is None:
            return "sequential, in the format of the line"
        return f"{how.order} in {how.fmt}"

    @property
    def operations(self) -> int:
        """How many results were rounded."""
        return sum(line.operations for line in self.lines.values())

    @property
    def leaks(self) -> list[str]:
        """What received values in float64, as leaks="round" allows."""
        return list(self._run.left)

    @property
    def file(self) -> str:
        """The function's file."""
        return self._request.file

    @property
    def name(self) -> str:
        """The function's name."""
        name = str(self._request.function.__name__)
        return short(self.file) if name == "<module>" else name

    @property
    def modules(self) -> tuple[str, ...]:
        """Whose code is traced line by line."""
        return self._request.modules

    @in_exact_state
    def to_dict(self) -> dict[str, Any]:
        """Return everything but the arrays as plain data."""
        from lowprec.trace.views import to_dict

        return to_dict(self)

    def to_html(
        self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False
    ) -> str:
        """Return the report as a page; write it if a path is given.

        Parameters
        ----------
        path : str or path, optional
            The file to write. A file that lowprec did not write as such a page is not replaced.
        overwrite : bool
            Whether any file may be replaced.
        """
        from lowprec.trace.page import page, write

        html = page(self)
        if path is not None:
            write(html, path, [self.file], overwrite)
        return html

    def _repr_html_(self) -> str:
        from lowprec.trace.page import fragment

        return fragment(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from lowprec.trace.views import report

        yield from report(self, options.max_width)

    def __str__(self) -> str:
        from lowprec.show.text import as_text

        return as_text(self)

    def __repr__(self) -> str:
        errors = ", ".join(f"{float(output.error):.3g}" for output in self.outputs)
        return f"<Trace of {self.name} in {self.format}: error {errors or 'of no output'}>"


class Everything(Keeping):
    """Keeps all lines, and of the arguments those that are named."""

    def __init__(self, file: str, arguments: list[str], kept: Sequence[str]) -> None:
        super().__init__(tuple(kept), file, arguments)

    def __bool__(self) -> bool:
        return True

    def has(self, file: str, number: int, function: str) -> bool:
        """Whether a line stays wide: it does."""
        return True


def _last_first(key: Key) -> Any:
    number = key[1] if isinstance(key, tuple) else key
    return -number if isinstance(number, int) else 0


def _main_span(unit: Unit) -> Span | None:
    """Return the span of what matters most on a line."""
    if not unit.sites:
        return None
    site = max(
        unit.sites,
        key=lambda s: (
            s.has_event, s.has_decision, s.bits >= 1, max(s.weight, s.amplified), _length(s.span)
        ),
    )  # fmt: skip
    return site.span


def _length(span: Span | None) -> int:
    if span is None:
        return 0
    return span.end_column - span.column + 1000 * (span.end_line - span.line)


def scale_of(output: Output) -> float:
    """Return the norm that an output's errors are relative to."""
    of = output.shadow if output.reference is None else output.reference
    if np.shape(of) != np.shape(output.shadow):
        of = output.shadow
    size = norm_of(of)
    return size if size > 0 and math.isfinite(size) else 1.0


def error_of(value: Any, reference: Any) -> Error:
    """Return the error of a result against the reference."""
    if reference is None or np.shape(value) != np.shape(reference):
        return Error(math.inf, math.inf)
    try:
        x = np.ravel(np.asarray(value, np.float64))
        y = np.ravel(np.asarray(reference, np.float64))
    except (TypeError, ValueError):  # no numbers
        return Error(0.0, 0.0)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(all="ignore"):
        difference = np.where(same, 0.0, x - y)
        if not np.isfinite(difference).all():
            return Error(math.inf, math.inf)
        size = norm_of(np.where(np.isfinite(y), y, 0.0))
        relative = np.abs(difference) / np.where(y == 0, 1.0, np.abs(y))
    largest = float(np.max(relative, initial=0.0))
    return Error(norm_of(difference) / (size if size > 0 else 1.0), largest)


@in_exact_state
def trace(
    f: Callable[..., Any],
    *args: Any,
    format: FormatLike = "bfloat16",  # noqa: A002
    keep: Any = (),
    keep_format: FormatLike = "float32",
    accumulator: AccumulatorLike | None = None,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    rng: Any = None,
    modules: Sequence[str] = (),
    leaks: str = "error",
    tolerance: float | None = None,
    max_operations: int = 10**7,
    budget: bool | str = True,
) -> Trace:
    """Run unmodified NumPy code in a format, and say which line loses the bits.

    Every float that enters is rounded once, every operation converts its operands to its line's
    format and rounds the exact result once, as `Arithmetic`, `sum` and `matmul` do. Beside it runs
    the shadow: float64 along the same path. Two budgets book result - shadow to lines: *born*,
    where roundings made it, and *grown*, where operations amplified it.

    Parameters
    ----------
    f : callable
        A function, a method or an object with ``__call__`` in Python. It is given copies of its
        arguments, and of what it reads of its module.
    *args : anything
        Its arguments: floats and arrays of floats, alone or in lists, dicts and objects, enter.
    format : Format, str or dtype
        What lines compute in; "float64" is NumPy's own.
    keep : int, str, (file, number), or several of them
        What computes in `keep_format`: lines of f's file, ``"file.py:12-15"``, names of functions
        or arguments.
    keep_format : Format, str or dtype
        The format of kept lines.
    accumulator : Accumulator, or Format, str or dtype, optional
        How sums and products are formed; sequentially in the line's format by default.
    rounding, overflow, rng
        As for `Arithmetic`; the same seed gives the same bits.
    modules : sequence of str
        Names of modules whose code is traced line by line too, as "scipy.integrate". Other Python
        code is booked to the line that calls it.
    leaks : str
        What becomes of values that leave for code that would compute in float64: "error", or
        "round", to round its result once and mark the line.
    tolerance : float, optional
        Share of an output's error from which on a line is named; by default four unit roundoffs.
    max_operations : int
        After how many operations the program is stopped, and told why.
    budget : bool or str
        Whether shares are kept. "sites" gives what True gives in bounded memory: the program runs
        once more for every four lines, each time with their shares alone.

    Returns
    -------
    Trace
        The result, its error, and every line.

    Raises
    ------
    TypeError
        If values leave; if a number is complex, longdouble or an object; if `f` is compiled.
    ValueError
        If `keep` names nothing that was traced.
    RuntimeError
        If the program makes more than `max_operations` operations.

    Notes
    -----
    Compiled extensions, Numba, and the internals of pandas and xarray are not covered: `.values` of
    their objects are taken. A function that `Arithmetic` has not is float64's result rounded once;
    such lines are marked.

    Examples
    --------
    >>> import numpy as np
    >>> def variance(x):
    ...     m = np.sum(x) / len(x)
    ...     return np.sum((x - m) ** 2) / (len(x) - 1)
    >>> t = trace(variance, np.linspace(0.0, 1.0, 64), format="float16")
    >>> float(t.result), bool(t.outputs[0].error < 0.01)
    (0.0872802734375, True)
    """
    tolerance = None if tolerance is None else float(tolerance)
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance}; it is a relative error, 0 or more")
    one_of(leaks, ("error", "round"), "way for values that leave (leaks=)")
    if budget not in (True, False, "sites"):
        raise ValueError(f"budget is {budget!r}; use True, False or 'sites'")
    fmt, wide = get_format(format), get_format(keep_format)
    how: Accumulator | None = None if accumulator is None else as_accumulator(accumulator)
    names = (modules,) if isinstance(modules, str) else tuple(modules)
    seed = rng
    if Rounding(rounding).is_stochastic or (how is not None and how.is_stochastic):
        seed = draw_key(as_generator(rng))
    request = TraceRequest(
        f, args, fmt, wide, how, rounding, overflow, 0 if seed is None else seed, names, leaks,
        int(max_operations),
    )  # fmt: skip
    _import(names)
    keeping = Keeping(keep, request.file, request.names())
    try:
        if budget == "sites":
            made = run_by_sites(request, keeping)
        else:
            made = run(request, keeping, budget=bool(budget))
    except StepLimit as limit:
        raise explain_limit(request, keeping, limit) from None
    keeping.check(made.places)
    reference = plain(request)  # afterwards: a program that does not end has been stopped by now
    unit = 2.0**-53 if fmt == float64 else float(fmt.unit_roundoff)
    limit_ = 4 * unit if tolerance is None else tolerance
    return Trace(request, keeping, made, reference, tolerance=limit_, budget=bool(budget))


def _import(names: tuple[str, ...]) -> None:
    import importlib

    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"modules has {name!r}, which cannot be imported ({error}); name modules as "
                "`import` does, such as 'scipy.integrate'"
            ) from None
