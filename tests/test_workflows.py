"""What the project says of itself is what its workflows do: versions, extras, the release."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="workflows are read with PyYAML")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSIONS = [
    words.rpartition(" ")[2]
    for words in PROJECT["classifiers"]
    if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", words)
]
EXTRAS = PROJECT["optional-dependencies"]
#: what a distribution is imported as, where its name is another
MODULES = {"scikit-learn": "sklearn", "Jinja2": "jinja2"}
DEVELOPERS = {"test", "bench", "docs", "dev", "notebooks"}  # these bring tools as well


def workflow(name):
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))


def test_every_supported_python_is_checked_on_linux():
    matrix = workflow("ci.yml")["jobs"]["check"]["strategy"]["matrix"]
    assert matrix["python"] == VERSIONS == ["3.11", "3.12", "3.13", "3.14"]
    assert all(machine.startswith("ubuntu") for machine in matrix["machine"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Python {VERSIONS[0]} to {VERSIONS[-1]}" in readme


def test_arm_and_macos_are_checked_without_torch():
    matrix = workflow("ci.yml")["jobs"]["check"]["strategy"]["matrix"]
    others = {machine["machine"]: machine["peers"] for machine in matrix["include"]}
    assert {re.sub(r"-[\d.]+", "", name) for name in others} == {"ubuntu-arm", "macos"}
    assert not any("torch" in peers for peers in others.values())


def test_the_workflow_runs_what_a_developer_runs():
    steps = workflow("ci.yml")["jobs"]["check"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (peers,) = workflow("ci.yml")["jobs"]["check"]["strategy"]["matrix"]["peers"]
    assert f"peers=${{PEERS-{peers}}}" in script, "the script's own choice"
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


def test_the_script_finds_the_test_command_of_the_readme():
    pattern = "^python -m pip install .* && python -m pytest$"
    assert pattern[1:-1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = re.findall(pattern, (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert commands == ['python -m pip install -e ".[test]" && python -m pytest']


def test_the_readme_begins_with_two_commands():
    head = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", head, re.MULTILINE | re.DOTALL)
    assert [(language, text.count("\n")) for language, text in blocks] == [("bash", 1)] * 2


def test_a_release_is_checked_and_built_before_it_is_published():
    release = workflow("release.yml")
    assert release[True] == {"push": {"tags": ["v*"]}}, "YAML reads `on` as true"
    jobs = release["jobs"]
    assert set(jobs["publish"]["needs"]) == {"check", "build"}
    assert jobs["check"]["uses"] == "./.github/workflows/ci.yml"
    build = "\n".join(step.get("run", "") for step in jobs["build"]["steps"])
    for command in ("python -m build", "twine check --strict", "lowprec report"):
        assert command in build


@pytest.mark.parametrize(("tag", "fits"), [(f"v{PROJECT['version']}", True), ("v9.9.9", False)])
def test_a_tag_that_is_not_the_version_is_refused(tag, fits):
    steps = workflow("release.yml")["jobs"]["build"]["steps"]
    (step,) = (step for step in steps if step.get("name") == "The tag is the version")
    program = re.search(r"<<'EOF'\n(.*?)\nEOF", step["run"], re.DOTALL)[1]
    done = subprocess.run([sys.executable, "-c", program, tag], cwd=ROOT, capture_output=True)
    assert (done.returncode == 0) == fits


# Extras ------------------------------------------------------------------------------------------


@cache
def imported(folder):
    """Return the first part of every module that Python files of a folder import, also late."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.partition(".")[0])
    return found


def distributions(extra):
    """Return what an extra installs by name, and what the extras in it install."""
    found = set()
    for requirement in EXTRAS[extra]:
        if inner := re.fullmatch(r"lowprec\[(.*)\]", requirement):
            for name in inner[1].split(","):
                found |= distributions(name)
        else:
            name = re.match(r"[\w-]+", requirement)[0]
            found.add(name)
    return found


@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - DEVELOPERS))
def test_lowprec_imports_what_an_extra_installs(extra):
    used = imported(ROOT / "src")
    for name in distributions(extra):
        assert MODULES.get(name, name) in used, f"{name} of the extra {extra} is imported nowhere"


def test_the_extra_for_benchmarks_brings_what_its_report_imports():
    needed = imported(ROOT / "benchmarks") & {"matplotlib", "jinja2", "sklearn", "mpmath"}
    needed |= {"matplotlib", "jinja2"}  # of `--html`
    assert needed <= {MODULES.get(name, name) for name in distributions("bench")}
