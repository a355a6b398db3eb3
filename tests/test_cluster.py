"""Beyond one machine: a cluster of processes gives the bits of one array, also when workers die."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

import lowprec as lp

da = pytest.importorskip("dask.array", reason="dask is not installed")
distributed = pytest.importorskip("distributed", reason="dask's distributed is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # of worker processes that die on purpose


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def slowly(chunk, seconds):
    time.sleep(seconds)
    return chunk


def test_a_worker_that_is_killed_changes_no_bits(client):
    x = np.random.default_rng(0).standard_normal((64, 4096)).astype(np.float32)
    how = {"rounding": "stochastic", "rng": 7}
    lazy = da.from_array(x, chunks=(4, 1024)).map_blocks(slowly, 0.05, dtype=x.dtype)
    future = client.compute(lp.encode(lazy, "bfloat16", **how))
    deadline = time.monotonic() + 30
    while not any(client.who_has().values()):  # some chunks are done, and will be lost
        assert time.monotonic() < deadline
        time.sleep(0.01)
    victim = next(iter(client.run(os.getpid).values()))
    os.kill(victim, signal.SIGKILL)
    result = future.result(timeout=60)
    assert result.tobytes() == lp.encode(x, "bfloat16", **how).tobytes()
    assert victim not in client.run(os.getpid).values()
