"""How many threads a kernel may use: one where they would not be safe, or would not pay."""

from __future__ import annotations

import functools

from lowprec.common.forks import is_forked
from lowprec.kernels.compiler import numba

SHARED_FROM = 2_000_000  # elements; below, a busy machine takes more than threads give


def threads_for(elements: int) -> int:
    """Return how many threads to share an array of so many elements among.

    A call on a busy machine waits for its last thread, which may have to wait for a slice of the
    scheduler, milliseconds: small arrays are one thread's.
    """
    return thread_count() if elements >= SHARED_FROM else 1


def thread_count() -> int:
    """Return how many threads to share work among, as `numba.set_num_threads` says.

    Forked children compute alone: GNU OpenMP aborts there. So do all processes where Numba has
    neither TBB nor OpenMP, because its own work queue aborts when two Python threads use it.
    """
    if is_forked() or numba.config.NUMBA_NUM_THREADS == 1:
        return 1
    threads = int(numba.get_num_threads())
    return threads if _layer_is_thread_safe() else 1


@functools.cache
def _layer_is_thread_safe() -> bool:
    return str(numba.threading_layer()) in ("tbb", "omp")
