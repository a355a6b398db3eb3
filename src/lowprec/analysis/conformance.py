"""Other people's conversions held to the right values, and what they do instead, by cause.

The cases are those where conversions go wrong: every value of the format and every midpoint with
one step to each side, both ends of the range, subnormal numbers, what is not finite, and float64
numbers that must not pass through float32. Formats of more than 16 bits are sampled. Where results
differ, each difference is explained by the first cause that gives the same result.
"""

from __future__ import annotations

import dataclasses
import html
import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from xml.sax.saxutils import quoteattr

import numpy as np

from lowprec.conversion.door import decode, encode, round_to
from lowprec.formats import Format, float32, get_format
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from lowprec.formats import FormatLike

    Array = np.ndarray[Any, Any]

_SAMPLES = 1 << 14  # values of a format that has too many to take all
OTHER = "other values"  # the cause of what no other explains
_BETWEEN = ("float32", "float16", "tfloat32", "bfloat16")  # formats on the way, the likeliest first
_TINY = 2.0**-30  # how far, relative to the spacing, a float64 lies beside a midpoint


class Conversion(Protocol):
    """What is held to the right values: float32 (or float64) numbers to values or codes."""

    def __call__(self, x: Array) -> Any:
        """Return an array of x's shape: values in any float dtype, or codes as integers."""


class Cases(NamedTuple):
    """Numbers of one kind."""

    kind: str  # in words, plural: "midpoints"
    x: Array


@dataclasses.dataclass(frozen=True)
class Difference:
    """What a conversion does otherwise, for one cause.

    Attributes
    ----------
    cause : str
        In words: "ties go away from zero".
    count, cases : int
        How many results differ so, of how many of that kind.
    kind : str
        What kind of numbers: "midpoints".
    x, got, right : float
        The smallest counter-example: the number, what came back, and the right value.
    """

    cause: str
    count: int
    cases: int
    kind: str
    x: float
    got: float
    right: float

    def __str__(self) -> str:
        return (
            f"{self.cause} ({self.count:,} of {self.cases:,} {self.kind}): "
            f"{self.x!r} ({self.x.hex()}) gives {self.got!r}, right is {self.right!r}"
        )


@dataclasses.dataclass(frozen=True, repr=False)
class Conformance:
    """What came of a conversion: it prints as a table, and is true where all agrees.

    Attributes
    ----------
    target : str
        What was held to the right values.
    fmt : str
        The format.
    cases : int
        How many numbers were converted.
    differences : tuple of Difference
        By cause, the most frequent first.
    note : str
        What was not looked at.
    """

    target: str
    fmt: str
    cases: int
    differences: tuple[Difference, ...]
    note: str = ""

    def __bool__(self) -> bool:
        return not self.differences

    @property
    def differing(self) -> int:
        """How many results differ."""
        return sum(one.count for one in self.differences)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it; numbers as `float.hex` writes them."""
        return {
            "target": self.target,
            "format": self.fmt,
            "cases": self.cases,
            "differing": self.differing,
            "agrees": bool(self),
            "differences": [
                dataclasses.asdict(one)
                | {name: float(getattr(one, name)).hex() for name in ("x", "got", "right")}
                for one in self.differences
            ],
            "note": self.note,
        }

    def __repr__(self) -> str:
        words = f"{self.target}, {self.fmt}: {self.differing:,} of {self.cases:,} cases differ"
        lines = [words, *(f"- {one}" for one in self.differences)]
        return "\n".join([*lines, self.note] if self.note else lines)

    def __rich__(self) -> RenderableType:
        from rich.text import Text

        head, *rest = repr(self).splitlines()
        text = Text(head, "bold green" if self else "bold red")
        return text.append("".join(f"\n{line}" for line in rest), "none")


# Judging -----------------------------------------------------------------------------------------


def conformance(
    function: Conversion,
    fmt: FormatLike,
    *,
    target: str | None = None,
    rounding: Rounding | str = "ties_to_even",
    overflow: Overflow | str = "ieee",
    takes_float64: bool = False,
) -> Conformance:
    """Hold a conversion to the right values of a format.

    Parameters
    ----------
    function : callable
        Takes a one-dimensional float32 array and returns as many values (any float dtype) or codes
        (integers, right-aligned).
    fmt : Format, str or dtype
        The format that it claims to convert to.
    target : str, optional
        What to call it; the function's name by default.
    rounding, overflow : str
        What it claims to do; a deterministic mode.
    takes_float64 : bool
        Whether it also takes float64 arrays: then double rounding is looked for.

    Returns
    -------
    Conformance
        By cause: how many cases differ, and the smallest counter-example.

    Raises
    ------
    ValueError
        If the mode is stochastic, or the function returns another shape.
    TypeError
        If it returns neither floats nor integers.

    Examples
    --------
    >>> def truncate(x):
    ...     return (x.view(np.uint32) & 0xFFFF0000).view(np.float32)
    >>> print(conformance(truncate, "bfloat16").differences[0].cause)
    rounds toward_zero
    """
    fmt, how, policy = get_format(fmt), Rounding(rounding), Overflow(overflow)
    if how.is_stochastic:
        raise ValueError(f"{how.value!r} draws random bits; name a deterministic mode")
    judge = _RightResults(fmt, how, policy)
    judged = []
    for cases in _cases(fmt, takes_float64):
        with np.errstate(all="ignore"):
            values = judge.values(function(cases.x.copy()), cases.x)
        judged.append(judge.judged(cases, values))
    differences = [
        one.difference(cause, places)
        for cause, found in by_cause(judged)
        for one, places in zip(judged, found, strict=True)
        if places.size
    ]
    total = sum(one.cases.x.size for one in judged)
    note = "" if takes_float64 else "float64 was not looked at: the function takes float32."
    name = target or str(getattr(function, "__name__", function))
    return Conformance(name, str(fmt), total, tuple(differences), note)


class _RightResults(NamedTuple):
    """The right results, and those of other rules."""

    fmt: Format
    rounding: Rounding
    overflow: Overflow

    def right(self, x: Array) -> Array:
        """Return the right codes; where the format has no NaN, those of NaN are left out."""
        return self._encoded(x, self.rounding, self.overflow)

    def _encoded(
        self, x: Array, rounding: Rounding, overflow: Overflow, fmt: Format | None = None
    ) -> Array:
        fmt = fmt or self.fmt
        known = x if fmt.has_nan else np.where(np.isnan(x) | ((x < 0) & (not fmt.signed)), 0, x)
        codes: Array = encode(known.astype(x.dtype), fmt, rounding=rounding, overflow=overflow)
        return codes

    def value(self, code: Any) -> float:
        """Return what a code stands for."""
        return float(decode(np.array(code, self.fmt.code_dtype), self.fmt, dtype="float64"))

    def values(self, result: Any, x: Array) -> Array:
        """Return what a conversion gave, as float64."""
        array = np.asarray(result)
        if array.shape != x.shape:
            raise ValueError(
                f"the function returned shape {array.shape} for {x.shape}; return an element each"
            )
        if array.dtype.kind in "iu":
            width = (1 << self.fmt.bits) - 1
            codes = (array.astype(np.int64) & width).astype(self.fmt.code_dtype)
            values: Array = decode(codes, self.fmt, dtype="float64")
            return values
        if array.dtype.kind not in "fV":
            raise TypeError(f"the function returned {array.dtype}; return values, or codes")
        floats: Array = array.astype(np.float64)
        return floats

    def judged(self, cases: Cases, values: Array) -> Judged:
        """Say which results differ, and what would explain each of them."""
        x = cases.x
        right = self.right(x)
        got = self._encoded(values, Rounding.TIES_TO_EVEN, Overflow.IEEE)
        foreign = (decode(got, self.fmt, dtype="float64") != values) & ~np.isnan(values)
        left = (got != right) | foreign
        left &= ~(np.isnan(values) & self._is_nan(right))  # NaN's bits are anyone's choice
        explained = {"what comes back is not a value of the format": foreign}
        for cause, mask in self._explanations(x, right, got):
            explained[cause] = mask & ~foreign
        expected = decode(right, self.fmt, dtype="float64")
        return Judged(cases, values, expected, left, explained)

    def _is_nan(self, codes: Array) -> Array:
        are: Array = np.isnan(decode(codes, self.fmt, dtype="float64"))
        return are

    def _explanations(self, x: Array, right: Array, got: Array) -> Iterator[tuple[str, Array]]:
        """Yield causes with the places that each would explain, the likeliest first."""
        fmt = self.fmt
        values = decode(right, fmt, dtype="float64")
        size, finite = np.abs(x.astype(np.float64)), np.isfinite(x)
        magnitude = got & ~np.array(fmt.sign_mask, fmt.code_dtype)
        yield "the sign of zero is lost", (values == 0) & (magnitude == 0)
        if fmt.subnormals and fmt.precision > 1:
            below = finite & (np.abs(values) < fmt.smallest_normal) & (size > 0)
            yield "subnormal numbers are flushed to zero", below & (magnitude == 0)
        if not fmt.signed:
            yield "negative numbers become numbers", (x < 0) & ~self._is_nan(got)
        is_top = magnitude == encode(np.array([fmt.max]), fmt)[0]
        yield "overflows saturate at the largest value", is_top & (size > fmt.max)
        for name in _BETWEEN:
            if get_format(name).precision > fmt.precision:
                between = round_to(x, name, rounding=self.rounding)
                through = self._encoded(between, self.rounding, self.overflow)
                yield f"rounds twice, through {name}", got == through
        others = {
            mode: self._encoded(x, mode, self.overflow)
            for mode in Rounding
            if not mode.is_stochastic
        }
        away, toward = others.pop(Rounding.TIES_TO_AWAY), others.pop(Rounding.TIES_TOWARD_ZERO)
        is_tie = away != toward
        if self.rounding is Rounding.TIES_TO_EVEN:
            yield "ties go away from zero", (got == away) & is_tie
            yield "ties go toward zero", (got == toward) & is_tie
        for mode, codes in others.items():
            if mode is not self.rounding:
                yield f"rounds {mode.value}", (got == codes) & finite
        yield "overflow begins elsewhere", finite & (size > fmt.max)
        yield "NaN becomes a number", np.isnan(x) & ~self._is_nan(got)
        yield "infinity becomes another value", np.isinf(x)
        yield OTHER, np.ones(x.shape, bool)


class Judged(NamedTuple):
    """Results of cases of one kind."""

    cases: Cases
    got: Array  # values
    right: Array
    left: Array  # which differ and are not explained yet
    explained: dict[str, Array]  # which places a cause explains

    def difference(self, cause: str, places: Array) -> Difference:
        """Return these places as one difference; the smallest number is its example."""
        x, kind = self.cases.x, self.cases.kind
        at = places[np.argmin(np.abs(np.nan_to_num(x[places], nan=math.inf)))]
        example = float(x[at]), float(self.got[at]), float(self.right[at])
        return Difference(cause, int(places.size), x.size, kind, *example)


def by_cause(judged: Sequence[Judged]) -> Iterator[tuple[str, list[Array]]]:
    """Yield causes, that which explains most cases first, with the places of each kind of cases."""
    named = dict.fromkeys(cause for one in judged for cause in one.explained)
    causes = [*(cause for cause in named if cause != OTHER), OTHER]  # the last resort
    nothing = np.zeros(0, np.int64)
    while causes and any(one.left.any() for one in judged):
        counts = {
            cause: sum(int((one.left & one.explained.get(cause, False)).sum()) for one in judged)
            for cause in causes
        }
        best = max(causes[:-1], key=counts.__getitem__, default=causes[-1])
        cause = best if counts[best] else causes[-1]
        causes.remove(cause)
        found = []
        for one in judged:
            mask = one.explained.get(cause)
            found.append(nothing if mask is None else np.flatnonzero(one.left & mask))
            one.left[found[-1]] = False
        yield cause, found


# Cases -------------------------------------------------------------------------------------------


def _cases(fmt: Format, takes_float64: bool) -> Iterator[Cases]:
    values = _magnitudes(fmt)
    middles = (values[1:] + values[:-1]) / 2
    is_narrow = fmt.fits(float32)
    if is_narrow:
        exact = middles.astype(np.float32) == middles
        yield Cases("values of the format", _both(fmt, values))
        yield Cases("midpoints", _both(fmt, middles[exact]))
        yield Cases("neighbours of midpoints", _both(fmt, *_beside(middles[exact])))
        yield Cases("neighbours of values", _both(fmt, *_beside(values)))
        yield Cases("numbers at the end of the range", _both(fmt, *_ends(fmt)))
        with np.errstate(over="ignore"):
            specials = [np.inf, -np.inf, np.nan] if fmt.has_nan else [np.inf, -np.inf]
            yield Cases("what is not finite", np.array(specials, np.float32))
    if takes_float64 or not is_narrow:
        inner = middles[1:] if len(middles) > 1 else middles
        offset = (values[-len(inner) :] - values[-len(inner) - 1 : -1]) * _TINY
        beside = np.concatenate([inner - offset, inner + offset])
        yield Cases("float64 numbers beside midpoints", np.concatenate([beside, -beside]))


def _magnitudes(fmt: Format) -> Array:
    """Return the magnitudes of a format in order, a sample of many: all around what matters."""
    count = fmt.max_code + 1
    if count > 4 * _SAMPLES:
        rng = np.random.default_rng(count)
        step = 1 << fmt.trailing_bits
        firsts = np.concatenate([[0, step, count - 64], rng.integers(0, count - 64, 200)])
        codes = np.unique(firsts[:, None] + np.arange(64))
    else:
        codes = np.arange(count)
    values: Array = decode(codes.astype(fmt.code_dtype), fmt, dtype="float64")
    return values


def _beside(x: Array) -> tuple[Array, Array]:
    narrow = x.astype(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        return np.nextafter(narrow, np.float32(-1)), np.nextafter(narrow, np.float32(np.inf))


def _ends(fmt: Format) -> Sequence[Array]:
    """Return numbers around where overflow begins and beyond, and around half the least number."""
    step = math.ldexp(1.0, fmt.emax - fmt.trailing_bits)
    over = np.array([fmt.max, fmt.max + step / 2, fmt.max + step, 2 * fmt.max, 1e30 * fmt.max])
    under = fmt.smallest_subnormal * np.array([0.25, 0.5, 0.75, 1.0])
    with np.errstate(over="ignore", under="ignore"):
        points = np.concatenate([over, under]).astype(np.float32)
    points = points[np.isfinite(points)]
    return points, *_beside(points)


def _both(fmt: Format, *parts: Array) -> Array:
    """Return float32 numbers of both signs, without what is not finite."""
    with np.errstate(over="ignore", under="ignore"):
        x = np.concatenate(parts).astype(np.float32)
    x = x[np.isfinite(x)]
    return np.concatenate([x, -x]) if fmt.signed else x


# Pages -------------------------------------------------------------------------------------------


def conformance_page(found: Sequence[Conformance], generator: str) -> str:
    """Return results as a whole page that refers to nothing outside itself.

    `generator` is the element by which lowprec knows the page again.
    """
    from lowprec.show.html_tables import table_html
    from lowprec.show.pages import plain_page

    headings = [(name, "") for name in ("what differs", "cases", "smallest", "gives", "right")]
    parts = []
    for one in found:
        rows = "".join(
            f"<tr><th scope=row>{html.escape(d.cause)}</th><td>{d.count:,} of {d.cases:,} "
            f"{html.escape(d.kind)}</td><td>{d.x!r}</td><td class=loss>{d.got!r}</td>"
            f"<td>{d.right!r}</td></tr>"
            for d in one.differences
        )
        table = table_html(headings, f"<tbody>{rows}</tbody>", "Differences")
        parts.append(
            f"<h2>{html.escape(one.target)}, {html.escape(one.fmt)}</h2><p>{one.differing:,} of "
            f"{one.cases:,} cases differ. {html.escape(one.note)}</p>{table if rows else ''}"
        )
    title = "lowprec verify: other people's conversions"
    heading = "Held to the right values"
    return plain_page(generator, title, heading, "".join(parts), "comparison.css")


def junit(found: Sequence[Conformance]) -> str:
    """Return results as JUnit's XML: a case a format, a failure where something differs."""
    cases = []
    for one in found:
        name = f"<testcase classname={quoteattr(one.target)} name={quoteattr(one.fmt)}"
        if one:
            cases.append(f"{name}/>")
            continue
        message = quoteattr(f"{one.differing} of {one.cases} cases differ")
        text = html.escape(repr(one))
        cases.append(f"{name}><failure message={message}>{text}</failure></testcase>")
    failures = sum(not one for one in found)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<testsuite name="lowprec verify" tests="{len(found)}" failures="{failures}">'
        f"{''.join(cases)}</testsuite>\n"
    )
