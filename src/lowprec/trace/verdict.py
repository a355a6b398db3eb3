"""What is said of a traced program: which lines are named, why, and what helps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.show.words import figure
from lowprec.trace.keeping import ranges
from lowprec.trace.places import short
from lowprec.trace.rewriting import rewriting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.trace.least import Keep
    from lowprec.trace.places import Event, Key

Array = np.ndarray[Any, Any]

_OTHER_WAY = 10.0  # shadow - reference over result - shadow, from which a decision is to blame
_ROUNDOFF = 1e-11  # relative difference that is float64's own
_OF_A_DECISION = 0.1  # part of the error that made a decision, from which a line is named for it
_CANCELS = 1.0  # bit
_OF_OPERATIONS = 0.1  # of a line, from which what is absorbed is said to cost


class Finding(NamedTuple):
    """A line or argument that is named.

    Attributes
    ----------
    kind : str
        "decision", "event", "cancels", "grown" or "born".
    key : int, str or (str, int)
        Which.
    born, grown : float
        The largest share of an output's error.
    born_on : tuple
        Where the error was born that it amplifies, or that made its decision.
    output : int
        The output that is concerned most.
    """

    kind: str
    key: Key
    born: float
    grown: float
    born_on: tuple[Key, ...]
    output: int


def findings(trace: Any) -> list[Finding]:
    """Return what is named, the most important first."""
    tolerance = trace.tolerance
    units = {**trace.lines, **trace.inputs}
    shares = {
        key: (trace.share(line, "born"), trace.share(line, "grown")) for key, line in units.items()
    }
    born = [key for key, (share, _) in shares.items() if share > tolerance]
    found = []
    for key, line in units.items():
        born_share, grown_share = shares[key]
        kinds = []
        if line.decisions:
            kinds.append("decision")
        if line.events:
            kinds.append("event")
        if grown_share > tolerance and line.number is not None and grown_share > born_share / 2:
            cancels = line.cancelled_bits >= _CANCELS
            amplifies = grown_share > 2 * born_share
            kinds.append("cancels" if cancels else "grown" if amplifies else "born")
        elif born_share > tolerance or grown_share > tolerance:
            kinds.append("born")
        for kind in kinds:
            causes: tuple[Key, ...] = ()
            if kind == "decision":
                causes = _causes(trace, key, "causes", None) or (key,)
            elif kind == "event":
                causes = tuple(k for k in _causes(trace, key, "ruined_by", tolerance) if k != key)
            elif kind in ("cancels", "grown"):
                causes = tuple(k for k in born if k != key)
            which = _output(trace, line)
            found.append(Finding(kind, key, born_share, grown_share, causes, which))
    return sorted(found, key=lambda f: _rank(trace, f))


def _rank(trace: Any, finding: Finding) -> tuple[Any, ...]:
    """Order: decisions that changed an output, events, what amplifies, what is born."""
    order = {"decision": 3, "event": 1, "cancels": 2, "grown": 2, "born": 2}[finding.kind]
    if finding.kind == "decision" and decided_outputs(trace):
        order = 0
    size = finding.born if finding.kind == "born" else max(finding.born, finding.grown)
    line = trace.lines.get(finding.key)
    number = line.number if line is not None else 0
    first = order if finding.kind != "event" else 1
    return (first, finding.kind == "born", -size if order == 2 else 0.0, number)


def norm_of(x: Any) -> float:
    """Return the 2-norm by NumPy's own sum: the same for any BLAS and number of threads."""
    return math.sqrt(float(np.sum(np.square(np.asarray(x, np.float64)))))


def _output(trace: Any, line: Any) -> int:
    sizes = [norm_of(part) for part in line.born]
    return int(np.argmax(sizes)) if sizes else 0


def _causes(trace: Any, key: Key, which: str, least: float | None) -> tuple[Key, ...]:
    """Return the lines whose error made a line's decisions, or ruined what it gives.

    They are those that have more than a least part, by default a tenth of the whole.
    """
    places = trace._run.places
    sizes = getattr(next(u for u in places.units if places.key(u) == key), which)
    least = _OF_A_DECISION * sum(sizes.values()) if least is None else least
    made = sorted(sizes.items(), key=lambda item: -item[1])
    return tuple(places.key(places.units[index]) for index, size in made if size > least)


def decided_outputs(trace: Any) -> list[int]:
    """Return the outputs that a decision changed: shadow and reference differ."""
    has_decisions = any(line.decisions for line in trace.lines.values())
    changed = []
    for k, output in enumerate(trace.outputs):
        apart, own, size = _distances(output)
        if (has_decisions and apart > _ROUNDOFF * size) or (
            apart > _OTHER_WAY * own and apart > _ROUNDOFF * size
        ):
            changed.append(k)
    return changed


def _distances(output: Any) -> tuple[float, float, float]:
    """Return the norms of shadow - reference and of result - shadow, and the reference's."""
    if output.reference is None or np.shape(output.shadow) != np.shape(output.reference):
        return math.inf, 0.0, 1.0
    with np.errstate(all="ignore"):
        try:
            value, shadow, reference = (
                np.ravel(np.asarray(x, np.float64))
                for x in (output.result, output.shadow, output.reference)
            )
        except (TypeError, ValueError):
            return 0.0, 0.0, 1.0
        same = (shadow == reference) | (np.isnan(shadow) & np.isnan(reference))
        apart = norm_of(np.where(same, 0.0, shadow - reference))
        equal = (shadow == value) | (np.isnan(shadow) & np.isnan(value))
        own = norm_of(np.where(equal, 0.0, value - shadow))
    size = norm_of(np.where(np.isfinite(reference), reference, 0.0))
    return (math.inf if math.isnan(apart) else apart), own, size if size > 0 else 1.0


# Sentences ----------------------------------------------------------------------------------------


def name_of(trace: Any, key: Key) -> str:
    """Return how a sentence calls a line or an argument."""
    if isinstance(key, tuple):
        return f"line {key[1]} of {short(key[0])}"
    return f"line {key}" if isinstance(key, int) else f"argument {key}"


def names_of(keys: Sequence[Key], *, joined: bool = False) -> str:
    """Return several lines and arguments: 20, 21, 22, x; neighbours may be joined: 20–22, x."""
    numbers = sorted(key for key in keys if isinstance(key, int))
    lines = [ranges(numbers)] if joined and numbers else list(map(str, numbers))
    others = [f"{short(key[0])}:{key[1]}" for key in keys if isinstance(key, tuple)]
    return ", ".join([*lines, *others, *(key for key in keys if isinstance(key, str))])


def sentences(trace: Any, found: list[Finding], cure: Keep | str) -> list[str]:
    """Return the verdict: each named line by a sentence, the last one with what helps.

    trace (Trace): What was found in.
    found: The most important first.
    cure: What to keep, or a sentence why that is not known; "" where the error is tolerable.
    """
    made = []
    said: set[Key] = set()
    for finding in found:
        if finding.kind == "born" and finding.key in said:
            continue
        made.append(_sentence(trace, finding))
        said.add(finding.key)
        if finding.kind in ("cancels", "grown"):
            said |= set(finding.born_on)
    if not made and not math.isfinite(trace.error):
        made.append(
            "the error is not finite, and no line has an event: the program returned something "
            "else in this format than in plain NumPy"
        )
    changed = decided_outputs(trace)
    decisions = any(f.kind == "decision" for f in found)
    if changed and not decisions:
        apart = ", ".join(_output_name(trace, k) for k in changed)
        made.insert(
            0,
            f"{apart}: the float64 shadow along the traced path differs from plain NumPy, and no "
            "decision was seen to differ: the program took another path in this format",
        )
    return _with_cure(trace, found, made, cure)


def _with_cure(trace: Any, found: list[Finding], made: list[str], cure: Keep | str) -> list[str]:
    advice = []
    for finding in found:
        line = trace.lines.get(finding.key)
        words = "" if line is None else rewriting(trace, finding.kind, line)
        if words and words not in advice:
            advice.append(words)
    other = f", or {advice[0]}" if advice else ""
    if not made:
        return made
    if isinstance(cure, str):
        if cure:
            made.append(cure + other)
        elif advice:
            made[-1] += f": {advice[0]}"
        return made
    if not cure.lines:
        return made
    before, after = two_digits(trace.error), two_digits(cure.error)
    runs = f"{cure.runs} run{'s' if cure.runs != 1 else ''}"
    made[-1] += (
        f": keep {names_of(cure.lines, joined=True)} in {trace.keep_format} "
        f"(error {before} → {after}, {runs}){other}"
    )
    return made


def _sentence(trace: Any, finding: Finding) -> str:
    units = {**trace.lines, **trace.inputs}
    line = units[finding.key]
    who = name_of(trace, finding.key)
    what = line.expression if line.number is not None else ""
    start = f"{who}: {what}" if what else f"{who}:"
    if finding.kind == "decision":
        return _decision(trace, finding, line, start)
    if finding.kind == "event":
        return f"{start} {_events(trace, finding, line)}"
    if finding.kind == "cancels":
        return f"{start} {_cancels(trace, finding, line)}"
    if finding.kind == "grown":
        return f"{start} {_amplifies(finding)}, which {_cost(trace, finding, finding.grown)}"
    return f"{start} {_born(trace, finding, line)}"


def _amplifies(finding: Finding) -> str:
    origin = f" (born on {names_of(finding.born_on)})" if finding.born_on else ""
    return f"amplifies error{origin}"


def _cancels(trace: Any, finding: Finding, line: Any) -> str:
    bits = f"{line.cancelled_bits:.2g} of {line.format.precision} bits"
    if not finding.born_on:
        return f"cancels {bits} of numbers that its own rounding made"
    wrong = "sums already wrong" if _has_sums(trace, finding) else "numbers already wrong"
    return f"cancels {bits} of {wrong} (born on {names_of(finding.born_on)})"


def _has_sums(trace: Any, finding: Finding) -> bool:
    """Whether the wrong numbers come from sums."""
    lines = [trace.lines[key] for key in finding.born_on if key in trace.lines]
    return any(".sum(" in line.text or "cumsum(" in line.text for line in lines)


def _cost(trace: Any, finding: Finding, share: float) -> str:
    name = _output_name(trace, finding.output)
    whole = float(trace.outputs[finding.output].error)
    if whole < share / 2:
        return (
            f"moves {name} by {two_digits(share)} of its size; other errors cancel that to "
            f"{two_digits(whole)}"
        )
    return f"costs {name} a relative error of {two_digits(share)}"


def two_digits(value: float) -> str:
    """Return a number to two digits."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    return figure(float(f"{value:.2g}"))


def _born(trace: Any, finding: Finding, line: Any) -> str:
    cost = _cost(trace, finding, max(finding.born, finding.grown))
    if line.number is None:
        return f"its rounding on entry {cost}"
    if line.absorbed > _OF_OPERATIONS * line.operations:
        changes = "changes" if line.absorbed == 1 else "change"
        return (
            f"absorbs what is added ({line.absorbed:,} of {line.operations:,} operations "
            f"{changes} nothing), which {cost}"
        )
    return f"rounds, which {cost}"


def _events(trace: Any, finding: Finding, line: Any) -> str:
    kinds: dict[tuple[bool, str], list[Event]] = {}
    for event in line.events:
        kinds.setdefault((bool(event.seen), event.kind), []).append(event)
    words: list[str] = []
    ruins: list[str] = []
    for same in kinds.values():
        first = event_words(same[0], line.format or trace.format)
        more = len(same) - 1
        first += f" (and in {more} more operation{'s' * (more > 1)})" if more else ""
        (ruins if same[0].seen else words).append(first)
    if ruins:
        cancels = line.cancelled_bits >= _CANCELS
        lost = _cancels(trace, finding, line) if cancels else _amplifies(finding)
        words.append(f"{lost}, so that {'; '.join(ruins)}")
    return "; ".join(words)


def event_words(event: Event, fmt: Any) -> str:
    """Return an event in words."""
    count = f"{event.count} of {event.of}" if event.of > 1 else "the number"
    at = f", first at {list(event.first)}" if event.first else ""
    example = f" by {event.example}" if event.example else ""
    if event.seen:
        what = "NaN" if event.kind == "invalid" else "infinite"
        where = f" at {count}" if event.of > 1 else ""
        return f"{event.seen} is {what}{where}{at}{example}"
    if event.kind == "overflow":
        return f"overflows at {count}{at}{example}: {fmt} ends at {figure(float(fmt.max))}"
    if event.kind == "new zero":
        least = f"{float(fmt.smallest_subnormal):.3g}"
        return f"becomes 0 at {count}{at}{example}: the least {fmt} is {least}"
    if event.kind == "divide by zero":
        return f"is infinite at {count}{at}{example}, a division by zero or its like"
    return f"is NaN at {count}{at}{example}, an invalid operation"


def _decision(trace: Any, finding: Finding, line: Any, start: str) -> str:
    number = line.decisions
    decided = "1 decision goes" if number == 1 else f"{number:,} decisions go"
    own = finding.born_on == (finding.key,)
    causes = "by what is rounded there" if own else f"by error born on {names_of(finding.born_on)}"
    changed = decided_outputs(trace)
    if not changed:
        return f"{start}: {decided} another way than in float64, {causes}; no output differs by it"
    names = ", ".join(_output_name(trace, k) for k in changed)
    apart, _, size = _distances(trace.outputs[changed[0]])
    words = "its shape" if math.isinf(apart) else two_digits(apart / size)
    return (
        f"{start}: {decided} another way than in float64, {causes}; {names}: along this path even "
        f"float64 differs from plain NumPy by {words}"
    )


def _output_name(trace: Any, k: int) -> str:
    return "the output" if len(trace.outputs) == 1 else f"output {k}"
