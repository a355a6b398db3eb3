"""A dask cluster: connecting to it, and results as they come, with errors in one line each."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 10  # seconds in which a scheduler must answer, and a worker be there


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Give a client of the scheduler; when it closes, what it still waits for is cancelled."""
    try:
        import distributed
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "a cluster needs dask's distributed, which is not installed; "
            "run: python -m pip install 'lowprec[dask]'",
            name="distributed",
        ) from None
    try:
        asyncio.run(_reach(address))
    except OSError as error:
        raise ConnectionError(
            f"no scheduler answers at {address} within {PATIENCE} seconds ({error}); "
            "`dask scheduler` starts one and prints its address"
        ) from None
    except ValueError as error:
        raise ValueError(
            f"{address!r} is not the address of a scheduler, such as tcp://127.0.0.1:8786: {error}"
        ) from None
    with (
        _silent("distributed.client"),  # what it logs of lost connections, an error here says
        distributed.Client(address, timeout=PATIENCE, set_as_default=False) as client,
    ):
        _check_workers(client, address)
        yield client


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


async def _reach(address: str) -> None:
    """Connect and go: a client that fails to connect would tell so again when it is deleted."""
    from distributed.comm import connect
    from distributed.comm.addressing import normalize_address
    from distributed.security import Security

    security = Security().get_connection_args("client")
    (await connect(normalize_address(address), timeout=PATIENCE, **security)).abort()


def _check_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError:
        raise ConnectionError(
            f"the scheduler at {address} has no workers; `dask worker {address}` starts one"
        ) from None


def check_folder(client: Any, folder: Path) -> None:
    """Refuse a folder that a worker does not see, before any work is done for it."""
    for worker, is_there in client.run(os.path.isdir, str(folder)).items():
        if not is_there:
            message = (
                f"the worker at {worker} does not see the folder; workers save what they do "
                "themselves: put it where all machines see it under the same path"
            )
            raise FileNotFoundError(errno.ENOENT, message, str(folder))


def finished(client: Any, tasks: list[Any]) -> Iterator[Any]:
    """Yield what tasks return, as they end."""
    from distributed import as_completed

    for task in as_completed(tasks, loop=client.loop):
        with errors_in_words():
            result = task.result()
        task.release()
        yield result


@contextlib.contextmanager
def errors_in_words() -> Iterator[None]:
    """Raise a task's own errors unchanged, and put errors of the cluster in words."""
    try:
        yield
    except (OSError, ValueError, MemoryError):
        raise
    except CancelledError:
        raise ConnectionError("the connection to the scheduler was lost; run again") from None
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and "pip install" in str(error):
            raise  # it names the way out
        raise OSError(
            f"the cluster gave up: {error!s:.300}; do scheduler and workers have the lowprec "
            "and the dask of this machine?"
        ) from None
