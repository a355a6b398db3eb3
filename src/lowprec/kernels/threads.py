"""How many threads a kernel may use: one where Numba's threading layer would not be safe."""

from __future__ import annotations

import functools

from lowprec.common.forks import is_forked
from lowprec.kernels.compiler import numba


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
