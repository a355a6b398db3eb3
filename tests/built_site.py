"""The documentation, built once a test run."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("mkdocs", "material", "mkdocstrings")


@functools.cache
def build():
    """Return the folder that the strict build wrote to; a warning fails the test."""
    for package in NEEDED:
        pytest.importorskip(package, reason="the site needs: pip install 'lowprec[docs]'")
    folder = Path(tempfile.mkdtemp(prefix="lowprec-site-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder
