"""A user's script under the type checkers: results have types, and misspelt words are found."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import lowprec as lp
from lowprec.rounding import OverflowName, RoundingName

SCRIPT = Path(__file__).with_name("typed_script.py")
EXPECTED_ERRORS = len(re.findall(r"# type: ignore\[", SCRIPT.read_text(encoding="utf-8")))


@pytest.fixture
def environment():
    """Return an environment in which checkers find the package that is tested."""
    source = str(Path(lp.__file__).parents[1])
    return os.environ | {"MYPYPATH": source, "PYTHONPATH": source}


def test_the_script_runs(environment):
    command = [sys.executable, str(SCRIPT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_mypy_types_what_users_write(tmp_path, environment):
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
    command += ["--cache-dir", str(tmp_path), str(SCRIPT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_types_what_users_write(tmp_path, environment):
    pytest.importorskip("pyright")
    config = {
        "include": [SCRIPT.name],
        "extraPaths": [environment["PYTHONPATH"]],
        "typeCheckingMode": "standard",
        "enableTypeIgnoreComments": False,
    }
    shutil.copy(SCRIPT, tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--project", str(tmp_path)]
    command += ["--pythonpath", sys.executable]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not done.stdout.startswith("{"):
        pytest.skip(f"pyright does not run here: {done.stderr[:200]}")
    found = [d for d in json.loads(done.stdout)["generalDiagnostics"] if d["severity"] == "error"]
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines) if "# type: ignore" in line}
    assert len(wrong) == EXPECTED_ERRORS
    assert {d["range"]["start"]["line"] for d in found} == wrong, found


def test_every_spelling_is_typed():
    short = lp.Rounding._short_names()
    assert set(get_args(RoundingName)) == {mode.value for mode in lp.Rounding} | set(short)
    assert set(get_args(OverflowName)) == {mode.value for mode in lp.Overflow}
