"""How long conversions take on this machine, against copying the same float32 array."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowprec.formats import Format

__all__ = ["ELEMENTS", "ROUNDS", "Timing", "measure_throughput"]

ELEMENTS = 1_000_000
ROUNDS = 31
PEER_EVERY = 4
"""ml_dtypes' slow conversions take part in every fourth round only, to keep the whole short."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """One operation into or out of one format.

    Attributes
    ----------
    operation : str
        ``round_to``, ``encode`` or ``decode``.
    fmt : Format
        The format.
    seconds : float
        Median time for `ELEMENTS` float32 numbers on one thread.
    ratio : float
        That time over the time of ``numpy.copyto`` between float32 arrays of the same size.
    peer_ratio : float or None
        The same for ml_dtypes' or NumPy's own conversion, where there is one.
    """

    operation: str
    fmt: Format
    seconds: float
    ratio: float
    peer_ratio: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the timing as plain data for JSON."""
        return dataclasses.asdict(self) | {"fmt": self.fmt.name}


def measure_throughput(
    formats: Sequence[Format], progress: Callable[[], None] | None = None
) -> list[Timing]:
    """Time round_to, encode and decode on one thread, interleaved with a float32 copy.

    Parameters
    ----------
    formats : sequence of Format
        The formats; those with a NumPy or ml_dtypes dtype are timed with ``astype`` as well.
    progress : callable, optional
        Called before each of the `ROUNDS`.

    Returns
    -------
    list of Timing
        By operation, then format.
    """
    import numba

    x = np.random.default_rng(0).standard_normal(ELEMENTS).astype(np.float32)
    copied = np.empty_like(x)
    jobs: dict[tuple[str, ...], Callable[[], Any]] = {("copy",): lambda: np.copyto(copied, x)}
    for fmt in formats:
        jobs |= _jobs(fmt, x)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        seconds = _medians(jobs, progress)
    finally:
        numba.set_num_threads(threads)
    copy = seconds["copy",]
    return [
        _timing(operation, fmt, seconds, copy)
        for operation in ("round_to", "encode", "decode")
        for fmt in formats
    ]


def _jobs(fmt: Format, x: Any) -> dict[tuple[str, ...], Callable[[], Any]]:
    """Return what to time for one format; outputs are allocated before, as the copy's is."""
    from lowprec.conversion.door import decode, encode, round_to

    rounded, codes = np.empty_like(x), encode(x, fmt)
    jobs: dict[tuple[str, ...], Callable[[], Any]] = {
        ("round_to", fmt.name): lambda: round_to(x, fmt, out=rounded),
        ("encode", fmt.name): lambda: encode(x, fmt, out=codes),
        ("decode", fmt.name): lambda: decode(codes, fmt, out=rounded),
    }
    if fmt.dtype is not None:
        narrow = x.astype(fmt.dtype)
        jobs["encode", fmt.name, "peer"] = lambda: np.copyto(narrow, x, casting="unsafe")
        jobs["decode", fmt.name, "peer"] = lambda: np.copyto(rounded, narrow, casting="unsafe")
    return jobs


def _medians(
    jobs: dict[tuple[str, ...], Callable[[], Any]], progress: Callable[[], None] | None
) -> dict[tuple[str, ...], float]:
    """Run all jobs in turn, again and again, so that each sees the same machine."""
    times: dict[tuple[str, ...], list[float]] = {key: [] for key in jobs}
    for job in jobs.values():
        job()  # compiles, and touches the outputs
    for done in range(ROUNDS):
        if progress is not None:
            progress()
        for key, job in jobs.items():
            if key[-1] == "peer" and done % PEER_EVERY:
                continue
            start = time.perf_counter()
            job()
            times[key].append(time.perf_counter() - start)
    return {key: statistics.median(samples) for key, samples in times.items()}


def _timing(
    operation: str, fmt: Format, seconds: dict[tuple[str, ...], float], copy: float
) -> Timing:
    own = seconds[operation, fmt.name]
    peer = seconds.get((operation, fmt.name, "peer"))
    return Timing(operation, fmt, own, own / copy, None if peer is None else peer / copy)
