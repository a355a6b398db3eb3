"""How long conversions take on this machine, against copying the same float32 array."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.show.words import times

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowprec.formats import Format

    Array = np.ndarray[Any, Any]
    Job = Callable[[], Any]

ELEMENTS = 1_000_000
ROUNDS = 31
PEER_EVERY = 4
"""ml_dtypes' slow conversions take part in every fourth round only, to keep the whole short."""

OPERATIONS = ("round_to", "encode", "decode")

BUSY = 0.9
"""A smaller share of a processor than this is told."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """One operation into or out of one format.

    operation: ``round_to``, ``encode`` or ``decode``.
    seconds: Median processor time for `ELEMENTS` float32 numbers on one thread.
    ratio: That time over the time of ``numpy.copyto`` between float32 arrays of the same size,
        measured in turns with it.
    peer_ratio: The same for ml_dtypes' or NumPy's own conversion, where there is one.
    share: Processor time over elapsed time while this was measured: below 1 where other programs,
        or the machine's host, had the processor as well.
    """

    operation: str
    fmt: Format
    seconds: float
    ratio: float
    peer_ratio: float | None
    share: float

    def to_dict(self) -> dict[str, Any]:
        """Return the timing as plain data for JSON."""
        return dataclasses.asdict(self) | {"fmt": self.fmt.name}


def in_words(timings: Sequence[Timing]) -> str:
    """Return what was measured, and whether the machine was too busy to believe it."""
    peers = [(t.peer_ratio / t.ratio, t) for t in timings if t.peer_ratio is not None]
    by_ratio = sorted(((t.ratio, t) for t in timings), key=lambda pair: pair[0])
    by_gain = sorted(peers, key=lambda pair: pair[0])
    fastest, slowest = _told(by_ratio[0]), _told(by_ratio[-1])
    least, most = times(by_gain[0][0]), _told(by_gain[-1])
    words = (
        f"Processor time for {ELEMENTS:,} float32 values on one thread, as a multiple of copying "
        "them (the line at 1×): medians of runs in turns with the copy, measured while this page "
        f"was made. lowprec takes from {fastest} to {slowest}. Pale bars are the casts of NumPy "
        f"and ml_dtypes: they take from {least} lowprec's time ({by_gain[0][1].operation} "
        f"{by_gain[0][1].fmt}) to {most}."
    )
    share = min(timing.share for timing in timings)
    if share >= BUSY:
        return words
    return (
        f"{words} The machine was busy: at times this measurement had {share:.0%} of a processor, "
        "and the ratios may be off; measure again on a quiet machine before you quote them."
    )


def _told(pair: tuple[float, Timing]) -> str:
    ratio, timing = pair
    return f"{times(ratio)} ({timing.operation} {timing.fmt})"


def measure_throughput(
    formats: Sequence[Format], progress: Callable[[], None] | None = None
) -> list[Timing]:
    """Time round_to, encode and decode on one thread, each in turns with a float32 copy.

    Times are the processor's, in this thread: what other programs do meanwhile does not count,
    though it costs all of them some of the caches.

    formats: The formats; those with a NumPy or ml_dtypes dtype are timed with ``astype`` as well.
    progress: Called before each operation and format.
    Returns: By operation, then format.
    """
    from lowprec.kernels.compiler import numba

    x = np.random.default_rng(0).standard_normal(ELEMENTS).astype(np.float32)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        return [_timing(operation, fmt, x, progress) for operation in OPERATIONS for fmt in formats]
    finally:
        numba.set_num_threads(threads)


def _timing(operation: str, fmt: Format, x: Array, progress: Callable[[], None] | None) -> Timing:
    """Run the copy, ours and theirs in turns, so that each sees the same machine."""
    if progress is not None:
        progress()
    copied = np.empty_like(x)
    peer = _theirs(operation, fmt, x)
    jobs = [lambda: np.copyto(copied, x), _ours(operation, fmt, x), *([peer] if peer else [])]
    for job in jobs:
        job()  # compiles, and touches the outputs
    times: list[list[float]] = [[] for _ in jobs]
    begun, spent = time.perf_counter(), time.thread_time()
    for done in range(ROUNDS):
        for samples, job in zip(times, jobs, strict=True):
            if job is peer and done % PEER_EVERY:
                continue
            start = time.thread_time()
            job()
            samples.append(time.thread_time() - start)
    share = (time.thread_time() - spent) / (time.perf_counter() - begun)
    copy, ours, *theirs = map(statistics.median, times)
    return Timing(operation, fmt, ours, ours / copy, theirs[0] / copy if theirs else None, share)


def _ours(operation: str, fmt: Format, x: Array) -> Job:
    """Return an operation of lowprec; its output is allocated before, as the copy's is."""
    from lowprec.conversion.door import decode, encode, round_to

    out, codes = np.empty_like(x), encode(x, fmt)
    jobs: dict[str, Job] = {
        "round_to": lambda: round_to(x, fmt, out=out),
        "encode": lambda: encode(x, fmt, out=codes),
        "decode": lambda: decode(codes, fmt, out=out),
    }
    return jobs[operation]


def _theirs(operation: str, fmt: Format, x: Array) -> Job | None:
    """Return the cast of NumPy or ml_dtypes that does the same, if there is one."""
    if fmt.dtype is None or operation == "round_to":
        return None
    out, narrow = np.empty_like(x), x.astype(fmt.dtype)
    if operation == "encode":
        return lambda: np.copyto(narrow, x, casting="unsafe")
    return lambda: np.copyto(out, narrow, casting="unsafe")
