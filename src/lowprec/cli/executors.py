"""Where the runs of ``lowprec train`` are done: here, in processes, or on a cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from lowprec.train.dataset import Dataset
    from lowprec.train.studies.runs import Run, Task


@contextlib.contextmanager
def executor_for(options: argparse.Namespace) -> Iterator[Any]:
    """Give the executor of the runs; None runs them one after another in this process."""
    if options.scheduler is not None:
        with _cluster(options.scheduler, options.save) as workers:
            yield workers
    elif options.processes != 1:
        with _processes(options.processes) as executor:
            yield executor
    else:
        yield None


# Processes ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _processes(processes: int) -> Iterator[Executor]:
    """Give an executor with this number of new processes."""
    import multiprocessing
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor

    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, fresh, _prepare_worker) as executor:
        try:
            yield executor
        except KeyboardInterrupt:
            # The pool's own thread must have dropped what was cancelled before processes end, or it
            # trips over it and leaves a queue that this process would wait for.
            executor.shutdown(wait=False, cancel_futures=True)
            time.sleep(0.2)
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        except BrokenExecutor:
            raise ChildProcessError(
                f"one of {processes} processes was killed, perhaps for want of memory; "
                "run again with fewer --processes"
            ) from None


def _prepare_worker() -> None:
    """Let each process use one thread, and leave the user's interrupt to the first."""
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# A cluster ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _cluster(address: str, folder: str | None) -> Iterator[_Workers]:
    """Give the workers of a cluster, all of which see the folder that runs are saved in."""
    from lowprec.tensors.cluster import check_folder, connected, errors_in_words

    with connected(address) as client, errors_in_words():
        if folder:
            check_folder(client, Path(folder).absolute())
        yield _Workers(client)


class _Workers:
    """Submits runs to workers; the data, which all runs share, travel once."""

    def __init__(self, client: Any) -> None:
        self.client, self.executor = client, client.get_executor(pure=False)
        self.data: Any = None

    def submit(self, run: Callable[[Task], Run], task: Task) -> Any:
        """Return a future of the run."""
        if self.data is None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
                # a task, whose result is made again where the worker that has it dies
                self.data = self.client.submit(_same, task.data, pure=False)
        rest: dict[str, Any] = {**task._asdict(), "data": None}
        return self.executor.submit(_run, run, rest, self.data)


def _same(data: Dataset) -> Dataset:
    return data


def _run(run: Callable[[Task], Run], rest: dict[str, Any], data: Dataset) -> Run:
    from lowprec.train.studies.runs import Task

    return run(Task(**(rest | {"data": data})))
