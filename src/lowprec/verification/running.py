"""Running checks one after the other, so that what was done is kept whatever happens."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from lowprec.common.processor_state import in_exact_state
from lowprec.verification.checks import Part
from lowprec.verification.results import Report, Result, facts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from lowprec.verification.checks import Check


@in_exact_state
def verify(
    checks: Sequence[Check],
    *,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    save: Callable[[Report], None] | None = None,
) -> Report:
    """Run checks.

    Parameters
    ----------
    checks : sequence of Check
        What to run; see `lowprec.verification.checks`.
    threads : int, optional
        How many threads share the cases of a check; as many as there are processors by default.
    progress : callable, optional
        Called as ``progress("3/8 bfloat16 add", cases, of)`` while a check runs.
    save : callable, optional
        Called with the report so far before the first check, after each, and when one is
        interrupted or fails, with what it found until then.

    Returns
    -------
    Report
        What was found. Mismatches are results and raise nothing.

    Examples
    --------
    >>> from lowprec import bfloat16
    >>> from lowprec.verification import checks
    >>> report = verify(checks([bfloat16], ["sqrt"]))
    >>> report.is_complete, report.mismatches, report.results[0].cases
    (True, 0, 524288)
    """
    keep = save or (lambda report: None)
    report = Report(facts(), len(checks))
    keep(report)
    for number, check in enumerate(checks, 1):
        part, start = Part(), time.perf_counter()
        try:
            with contextlib.closing(_run(check, threads or _processors())) as parts:
                for found in parts:
                    part += found
                    if progress is not None:
                        progress(f"{number}/{len(checks)} {check.name}", part.cases, check.cases)
        finally:
            report = report.plus(Result.of(check, part, time.perf_counter() - start))
            keep(report)
    return report


def _run(check: Check, threads: int) -> Generator[Part]:
    yield from check.run(threads) if check.missing is None else ()


def _processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
