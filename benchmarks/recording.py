"""What a row of the report says: its time, what it is a multiple of, and how right its result is.

A row is a benchmark of pytest-benchmark. Beside its times it carries, in ``extra_info``, the facts
that `benchmarks.report` reads:

=========================  ====================================================================
kind, work, format, who    what was timed, and whose work it is
elements, bytes, threads   its size; bytes are those read and written, where that is known
dtype, allocation          of what, and whether into memory given (preallocated) or new (allocated)
copy_ratio, float32_ratio  quartiles of its time over a float32 copy's and over float32's own work,
                           measured in turns
bit_match, max_ulp_error,  against the exact result: the share that is right to the bit, the largest
mean_relative_error,       error in ulps, the mean relative error, and the shares of finite results
saturated, new_zeros       that became the largest value, and of nonzero ones that became zero
figures, source, note      what an experiment found, where it comes from, where semantics differ
=========================  ====================================================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numba
import pytest
from timing import Quartiles, interleaved, threads
from workload import workload

if TYPE_CHECKING:
    from timing import Work

MEASUREMENT = 20e-6  # seconds that a measurement lasts at least, of calls that take less
SLOW = 0.1  # seconds a call: such works are dozens of times slower than what they are compared with


def timed_in_threads(benchmark: Any, work: Work, count: int, /, **options: Any) -> Any:
    """Time the work on so many threads, after one call that compiles it, and return its result.

    Parameters
    ----------
    benchmark : BenchmarkFixture
        pytest-benchmark's.
    work : callable
        What to time.
    count : int
        Threads of Numba and torch.
    **options
        As for `timed`.
    """
    if count > numba.config.NUMBA_NUM_THREADS:
        pytest.skip(f"Numba has {numba.config.NUMBA_NUM_THREADS} thread here")
    benchmark.extra_info["threads"] = count
    with threads(count):
        return timed(benchmark, work, **options)


def timed(
    benchmark: Any,
    work: Work,
    /,
    *,
    elements: int | None = None,
    float32: Work | None = None,
    **facts: Any,
) -> Any:
    """Time the work by itself, then in turns with a copy and with float32, and note the ratios.

    Parameters
    ----------
    benchmark : BenchmarkFixture
        pytest-benchmark's.
    work : callable
        What to time; it is called once beforehand.
    elements : int, optional
        Of the float32 copy; by default as many as the result has.
    float32 : callable, optional
        The same work in float32.
    **facts
        What else the row says.

    Returns
    -------
    object
        What the work returned.
    """
    result = work()
    size = elements or max(math.prod(getattr(result, "shape", ())), 1)
    benchmark.extra_info.update(facts, elements=size)
    result = benchmark(work)
    if benchmark.stats is not None:  # None under --benchmark-disable
        floor = workload(size).copy()
        baselines = {"copy_ratio": floor} | ({"float32_ratio": float32} if float32 else {})
        benchmark.extra_info.update(ratios(work, baselines, benchmark.stats.stats.median))
    return result


def ratios(work: Work, baselines: dict[str, Work], seconds: float) -> dict[str, Any]:
    """Time the work in turns with its baselines, and return the quartiles of its ratios to them."""
    repeats = min(max(round(MEASUREMENT / seconds), 1), 200)
    works = [*baselines.values(), work]
    fewest = 7 if seconds < SLOW else 3
    times = interleaved(works, seconds=0.08, repeats=repeats, fewest=fewest)
    return {
        name: Quartiles.of(times[:, -1] / times[:, column])._asdict()
        for column, name in enumerate(baselines)
    } | {"turns": len(times)}


def skip_without(module: str) -> Any:
    """Import a peer, or skip the row and say why.

    Warnings of its import are not ours: a peer that warns is still measured.
    """
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(module, reason=f"{module} is not installed")
