"""Settings shared by all tests, and how they are shared among processes.

``python -m pytest`` gives whole files to as many workers as there are processors. What costs much
and serves several files is made `once` a run, by the worker that asks first.
"""

from __future__ import annotations

import gc
import os
import pickle
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable

settings.register_profile("laws", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("laws")

# What the tests print does not depend on the terminal that they are started from.
for variable in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
    os.environ.pop(variable, None)
os.environ["TERM"] = "xterm-256color"

# Threads that have nothing to do leave the processor to the other workers, and do not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).parents[1]
MOST_WORKERS = 8  # each loads the libraries that the tests compare with, about 1 GB

#: files that begin first: one that takes long and begins last is waited for by all workers
LONG = (
    "test_notebooks",
    "test_arithmetic",
    "test_recorder_advice",
    "test_elementary",
    "test_accumulation",
    "test_docs",
    "test_verification",
    "test_cluster",
    "test_threads",
    "test_training_truth",
    "test_analysis",
    "test_cli_train",
    "test_hostile_files",
    "test_site",
    "test_browser",
)

#: files whose tests are quick all together, also while kernels are compiled; the others, and the
#: examples in docstrings, are not even imported for ``-m quick``
QUICK = (
    "test_activations",
    "test_benchmark_report",
    "test_door",
    "test_flags",
    "test_formats",
    "test_history",
    "test_loss_scale",
    "test_losses",
    "test_mistakes",
    "test_philox",
    "test_rounding_names",
    "test_schedules",
    "test_tensors",
    "test_workflows",
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files without quick tests where those alone are asked for."""
    if config.option.markexpr.strip() == "quick" and collection_path.is_file():
        return collection_path.stem not in QUICK
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the quick tests, and let the long files begin."""
    for item in items:
        if item.path.stem in QUICK and not item.get_closest_marker("slow"):
            item.add_marker("quick")
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_collection_finish() -> None:
    """Look for garbage seldom: all that was imported is looked through, an eighth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return how many workers ``-n auto`` means: none where a single file was asked for."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    files = {Path(argument.partition("::")[0]) for argument in config.args}
    if len(files) == 1 and all(file.is_file() for file in files):
        return 0
    return min(processors(), MOST_WORKERS)


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable], object]:
    """Return a function that makes a thing once a run, whichever worker asks first.

    ``once("report", make)`` calls ``make(folder)`` with a new folder, keeps what it returns by
    pickle, and gives it to all later callers, in other processes too.
    """
    run = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent  # the workers' folders lie in that of the run

    def make_once(name: str, make: Callable[[Path], object]) -> object:
        result = run / f"{name}.pickle"
        with FileLock(run / f"{name}.lock"):
            if not result.exists():
                folder = run / name
                folder.mkdir()
                result.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(result.read_bytes())

    return make_once


@pytest.fixture(scope="session")
def written_report(once):
    """Return the page that `lowprec report` writes, its summary, and the steps that it told."""
    for needed in ("matplotlib", "jinja2", "sklearn"):
        pytest.importorskip(needed, reason="the report needs its extra")
    from lowprec.report import page, throughput, training

    def write(folder):
        calls = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(throughput, "ROUNDS", 2)
            patch.setattr(throughput, "ELEMENTS", 10_000)
            patch.setattr(training, "SEEDS", 2)
            path = folder / "report.html"
            summary = page.write_report(path, lambda *step: calls.append(step))
        return path, summary, calls

    return once("report", write)


@pytest.fixture(scope="session")
def built_site(once):
    """Return the folder of the documentation, built strictly: a warning fails."""
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="the site needs: pip install 'lowprec[docs]'")

    def build(folder):
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
        environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return folder

    return once("site", build)


@pytest.fixture(autouse=True)
def _same_draws_in_every_run():
    """Let what is drawn without a seed (by Keras, torch, snippets) be the same in every run."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (courses' snippets draw from it)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def control_c():
    """Hear Control-C as in a terminal; what a shell runs in the background is told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
