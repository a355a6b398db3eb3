"""How the tests are run: shared among workers, what costs much made once, the quick ones known."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import conftest

ROOT = Path(__file__).parents[1]
FIRST, SECOND = "test_first.py", "test_second.py"


@pytest.fixture
def suite(tmp_path):
    """Return a folder of two test files under the settings of this suite."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "src").mkdir()
    tests = tmp_path / "tests"
    tests.mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", tests)
    program = """
    import os
    def make(folder):
        with open({log!r}, "a") as log:
            log.write("made\\n")
        (folder / "kept").write_text("kept")
        return folder, 1
    def test_{name}(once):
        folder, one = once("thing", make)
        assert ((folder / "kept").read_text(), one) == ("kept", 1)
        with open({log!r}, "a") as log:
            log.write(os.environ.get("PYTEST_XDIST_WORKER", "alone") + "\\n")
    """
    for file in (FIRST, SECOND):
        text = program.format(log=str(tmp_path / "log"), name=file.removesuffix(".py"))
        (tests / file).write_text("\n".join(line[4:] for line in text.splitlines()))
    return tmp_path


def run(folder, *options):
    """Run the tests of a folder; return what was printed."""
    command = [sys.executable, "-m", "pytest", *options]
    alone = {name: v for name, v in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    how = {"cwd": folder, "env": alone, "timeout": 900}
    done = subprocess.run(command, capture_output=True, text=True, **how)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("options", [["-n", "2"], ["-n", "0"], ["-n2", "-p", "no:cacheprovider"]])
def test_what_costs_much_is_made_once_a_run(suite, options):
    assert "2 passed" in run(suite, *options)
    made, *workers = sorted((suite / "log").read_text().split(), key=lambda word: word != "made")
    assert made == "made"
    assert sorted(workers) == (["alone"] * 2 if options[1] == "0" else ["gw0", "gw1"])


def test_every_processor_gets_a_worker_and_a_single_file_none(suite):
    workers = min(conftest.processors(), conftest.MOST_WORKERS)
    found = re.search(r"(\d+) workers?", run(suite, "-v"))
    assert int(found[1] if found else 0) == workers
    assert "worker" not in run(suite, "-v", f"tests/{FIRST}::test_{FIRST.removesuffix('.py')}")


def test_quick_tests_are_never_slow_ones(suite):
    tests = suite / "tests"
    text = (
        "import pytest\ndef test_fast(): pass\n@pytest.mark.slow\ndef test_long(): assert False\n"
    )
    (tests / f"{conftest.QUICK[0]}.py").write_text(text)
    assert "1 passed" in run(suite, "-n", "0", "-m", "quick")


def test_the_files_named_quick_or_long_exist():
    files = {path.stem for path in (ROOT / "tests").glob("test_*.py")}
    assert {*conftest.QUICK, *conftest.LONG} <= files
    assert not {*conftest.QUICK} & {*conftest.LONG}


def private(name):
    """Whether a name is private: one underscore before it, but for what Jupyter calls."""
    return name.startswith("_") and not name.startswith(("__", "_repr_", "_ipython"))


def private_names(text):
    """Yield the private names of lowprec that a test imports, reads off a module or replaces."""
    tree, modules = ast.parse(text), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lowprec"):
            modules |= {alias.asname or alias.name for alias in node.names}
            yield from (alias.name for alias in node.names if private(alias.name))
        elif isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.name.startswith("lowprec")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in modules and private(node.attr):
                yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "setattr":
            yield from (
                word.value
                for word in node.args[:2]
                if isinstance(word, ast.Constant) and private(str(word.value).rpartition(".")[2])
            )


#: files that still do; nothing is added here
LEFT = {"test_block_training", "test_flags", "test_torch_rounding"}


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*.py")), ids=lambda path: path.stem)
def test_no_test_names_what_is_private(path):
    assert bool([*private_names(path.read_text(encoding="utf-8"))]) == (path.stem in LEFT)


def test_private_names_are_found():
    text = "from lowprec import a, _b\nimport lowprec as lp\na._c\nlp._d\npatch.setattr(a, '_e', 1)"
    assert sorted(private_names(text)) == ["_b", "_c", "_d", "_e"]
