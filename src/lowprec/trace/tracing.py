"""`trace`: a program in a format, and what became of its numbers on each line."""

from __future__ import annotations

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
from lowprec.trace.least import Keep
from lowprec.trace.outcomes import Line, Lines, Output, error_of, main_span, scale_of
from lowprec.trace.places import StepLimit, Unit, short
from lowprec.trace.running import (
    TracedRun,
    TraceRequest,
    explain_limit,
    numbers,
    plain,
    run,
    run_by_sites,
)
from lowprec.trace.searching import least_of
from lowprec.trace.verdict import Finding, findings, norm_of, sentences

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from lowprec.accumulation.accumulator import AccumulatorLike
    from lowprec.formats import FormatLike
    from lowprec.rounding import OverflowLike, RoundingLike

Array = np.ndarray[Any, Any]

_MOST_WORK = 300_000  # operations times units, up to which the verdict looks for what to keep


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
        self._kept: dict[float, Keep | str] = {}  # a sentence where no set was found
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
            main_span(unit), unit.operations, born, grown, unit.events, unit.absorbed, unit.bits,
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
        found = self._kept.get(self.tolerance)
        return found if isinstance(found, Keep) else None

    def _cure(self, found: list[Finding]) -> Keep | str:
        """Return what to keep, or a sentence why that is not known."""
        if self.error <= self.tolerance:
            return ""
        units = len(self.lines) + 3
        if self._run.steps * units > _MOST_WORK:
            return f"t.least({self.tolerance:.3g}) finds what must stay wide by some {units} runs"
        return self._searched(self.tolerance)

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
        found = self._searched(self.tolerance if tolerance is None else float(tolerance))
        return None if isinstance(found, str) else found

    def _searched(self, tolerance: float) -> Keep | str:
        if tolerance not in self._kept:
            self._kept[tolerance] = least_of(self, tolerance)
        return self._kept[tolerance]

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
