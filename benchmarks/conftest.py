"""Two profiles, and what a file of results says of the machine and of rows that say little."""

from __future__ import annotations

import os

# JAX reads these when it is first imported: the CPU, and one thread.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

import platform
from importlib import metadata

from describing import describe
from profiles import is_in

from lowprec.show.machine import processor

PACKAGES = ("lowprec", "numpy", "numba", "ml_dtypes", "torch", "jax", "gfloat", "pychop", "qtorch")
LOAD_BEFORE = os.getloadavg()[0]


def pytest_addoption(parser):
    parser.addoption(
        "--profile",
        choices=("quick", "full"),
        default="quick",
        help="quick: every kind of row, to 10^7 elements, in minutes; full: every row, to 10^8",
    )


def pytest_collection_modifyitems(config, items):
    profile = config.getoption("--profile")
    kept, left_out = [], []
    for item in items:
        row = item.callspec.params if hasattr(item, "callspec") else {}
        (kept if is_in(profile, item.originalname, row) else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info.pop("node", None)  # whose machine it is is nobody's business
    machine_info["processor_name"] = processor()
    machine_info["logical_processors"] = os.cpu_count()
    machine_info["load_average_before"] = LOAD_BEFORE
    machine_info["profile"] = config.getoption("--profile")
    machine_info["versions"] = {"Python": platform.python_version()} | _versions()


def _versions():
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def pytest_benchmark_update_json(config, benchmarks, output_json):
    for row in output_json["benchmarks"]:
        describe(row)
