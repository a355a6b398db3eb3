"""What must stay wide in a traced program, found by running it with sets of lines kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lowprec.trace.keeping import Everything, Keeping
from lowprec.trace.least import Keep, Search, least
from lowprec.trace.outcomes import error_of
from lowprec.trace.places import StepLimit
from lowprec.trace.running import run, silent
from lowprec.trace.verdict import two_digits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.trace.places import Key


def least_of(trace: Any, tolerance: float) -> Keep | str:
    """Return what must stay wide for a tolerance, or why no lines suffice."""

    def error_with(kept: Sequence[Key]) -> float:
        return _error_under(trace, Keeping(kept, trace.file, trace._request.names()))[0]

    search = Search(error_with)
    lines: list[Key] = list(trace.lines)
    wide = [name for name in trace._request.names() if trace._keeping.has_argument(name)]
    if not trace._keeping and trace.error <= tolerance:
        return Keep((), trace.error, 1, [((), trace.error)])
    everything, seen = _error_of_all(trace, wide)
    lines += [*(key for key in seen if key not in trace.lines), *wide]
    shares = {
        key: (bool(line.events), max(trace.share(line, "born"), trace.share(line, "grown")))
        for key, line in {**trace.lines, **trace.inputs}.items()
    }
    order = sorted(lines, key=lambda key: (shares.get(key, (False, 0.0)), _last_first(key)))
    search.know(order, everything)
    search.tried.append((tuple(order), everything))
    if not everything <= tolerance:
        return _no_line_helps(trace, everything, tolerance)
    named = {finding.key for finding in trace.findings} | {
        key for finding in trace.findings for key in finding.born_on
    }
    likely = [key for key in order if key in named]
    found, error = least(search, order, likely, tolerance)
    kept = tuple(key for key in lines if key in found)
    return Keep(kept, error, len(search.tried), search.tried)


def _no_line_helps(trace: Any, everything: float, tolerance: float) -> str:
    """Return why no lines suffice, from the error with all of them wide."""
    wide = trace.keep_format
    whole = f"all lines in {wide} leave an error of {two_digits(everything)}"
    changed = [name for name, line in trace.inputs.items() if line.is_rounded]
    if not changed:
        return f"no line helps: {whole}"
    with_inputs, _ = _error_of_all(trace, changed)
    start = whole
    if math.isfinite(everything):
        start = f"inputs alone cost {everything:.3g}"
    if with_inputs <= tolerance:
        names = ", ".join(repr(name) for name in changed)
        return f"no line helps: {start}; trace with keep=[{names}] and ask `least` again"
    names = ", ".join(changed)
    return f"no line helps: {start}, and {wide} for {names} too leaves {two_digits(with_inputs)}"


def _error_of_all(trace: Any, arguments: Sequence[str]) -> tuple[float, list[Key]]:
    """Return the error with all lines wide and some arguments, and the lines that ran."""
    names = trace._request.names()
    return _error_under(trace, Everything(trace._request.file, names, arguments))


def _error_under(trace: Any, keeping: Keeping) -> tuple[float, list[Key]]:
    """Return the largest error with these kept, and the lines that ran."""
    try:
        with silent():
            made = run(trace._request, keeping, budget=False)
    except (StepLimit, ArithmeticError, ValueError):  # which no format with more bits has
        return math.inf, []
    references = [output.reference for output in trace.outputs]
    if len(made.leaves) != len(references):
        return math.inf, []
    errors = [
        float(error_of(leaf.value, ref)) for leaf, ref in zip(made.leaves, references, strict=True)
    ]
    seen = [made.places.key(unit) for unit in made.places.lines.values()]
    return max((math.inf if math.isnan(e) else e for e in errors), default=0.0), seen


def _last_first(key: Key) -> int:
    number = key[1] if isinstance(key, tuple) else key
    return -number if isinstance(number, int) else 0
