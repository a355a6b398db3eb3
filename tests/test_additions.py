"""Each change that CONTRIBUTING shows is one of one file, and is found everywhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lowprec

ROOT = Path(lowprec.__file__).parent
PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def changes():
    """Return the page's diffs by file: what must stand there, and what is to stand there then."""
    found = {}
    for block in re.findall(r"```diff\n(.*?)```", PAGE, re.DOTALL):
        head, lines = block.split("@@\n")
        kept = "".join(line[1:] for line in lines.splitlines(True) if line[0] == " ")
        after = "".join(line[1:] for line in lines.splitlines(True) if line[0] in " +")
        name = re.search(r"^\+\+\+ b/src/lowprec/(.*)$", head, re.MULTILINE)[1]
        assert name not in found
        found[name] = kept, after
    return found


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy of the package with every change made."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(ROOT, folder / "lowprec", ignore=shutil.ignore_patterns("__pycache__"))
    for name, (kept, after) in changes().items():
        path = folder / "lowprec" / name
        text = path.read_text(encoding="utf-8") if kept else ""
        assert bool(kept) == path.exists()
        assert text.count(kept) == 1 or not kept, f"{name} has not exactly one {kept!r}"
        path.write_text(text.replace(kept, after) if kept else after, encoding="utf-8")
    return folder


def run(changed, program, *arguments):
    """Run a program, or the command line, with the changed package."""
    what = ["-c", program] if program else ["-m", "lowprec", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(changed), "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, *what], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_kind_is_shown():
    assert set(changes()) == {
        "formats.py",
        "blocks/formats.py",
        "train/optimizers.py",
        "train/recorder/rules.py",
        "cli/ulps.py",
        "tensors/kinds/f32.py",
    }


def test_a_format_is_found_everywhere(changed):
    program = """
import lowprec as lp, numpy as np
assert lp.float8_e2m5 is lp.get_format("float8_e2m5") is lp.named_formats()["float8_e2m5"]
assert lp.round_to([1.02, 9.0], "float8_e2m5").tolist() == [1.03125, np.inf]
assert lp.mxfp4_16.bits_per_value == 4.5
assert lp.get_format("mxfp4_16:rceil").block == 16
assert lp.quantize(np.ones(32), "mxfp4_16").scales.shape == (2,)
assert {"float8_e2m5", "mxfp4_16"} <= set(dir(lp))
assert lp.compare([1.0, 2.0], ["float8_e2m5", "mxfp4_16"]).to_dict()
"""
    program += """
from lowprec.cli import main
main(["formats"])
"""
    shown = run(changed, program)
    assert "float8_e2m5" in shown
    assert "mxfp4_16" in shown


def test_an_optimizer_is_found_everywhere(changed):
    program = """
import numpy as np
from lowprec import train
from lowprec.train import Sequential, optimizers
from lowprec.train.layers import Dense, Input
assert optimizers.get("sgdw").name == "SGDW"
model = Sequential([Input((1,)), Dense(1)])
x = np.linspace(0, 1, 32, dtype=np.float32)[:, None]
for policy in ("float32", "bfloat16"):
    found = train.fit(model, (x, x), loss="mse", optimizer="sgdw", policy=policy, epochs=2)
    assert found.history["loss"][1] < found.history["loss"][0]
"""
    arguments = ["--data", "digits", "--optimizer", "sgdw", "--epochs", "1", "--seeds", "1"]
    program += f"""
from lowprec.cli import main
main(["train", *{arguments}, "--policies", "float32"])
"""
    assert "float32" in run(changed, program)


def test_a_rule_is_found_everywhere(changed):
    program = """
import numpy as np
from lowprec import train
from lowprec.train import Sequential
from lowprec.train.layers import Dense, Input
recorder = train.Recorder()
x = np.linspace(0, 1, 64, dtype=np.float32)[:, None]
train.fit(Sequential([Input((1,)), Dense(1)]), (x, x), loss="mse", optimizer="sgd",
          policy="bfloat16", epochs=1, recorder=recorder)
assert any("The run is short" in sentence for sentence in recorder.verdict), recorder.verdict
"""
    run(changed, program)


def test_a_command_is_found_everywhere(changed):
    assert run(changed, None, "ulps", "1.0").strip() == "0.0078125"
    assert "show the spacing of a format" in run(changed, None, "--help")
    assert "example: lowprec ulps" in run(changed, None, "ulps", "--help")


def test_a_kind_of_file_is_found_everywhere(changed, tmp_path):
    (tmp_path / "numbers.f32").write_bytes(b"\0\0\x80\x3f\0\0\0\xc0")
    program = f"""
from lowprec import tensors
from lowprec.cli import main
folder = {str(tmp_path)!r}
(one,) = tensors.open_tensors(folder).values()
assert one.read().tolist() == [1.0, -2.0]
try:
    tensors.open_tensors(folder + "/numbers.f3")
except ValueError as error:
    assert ".f32" in str(error)
main(["compare", folder + "/numbers.f32"])
"""
    assert "2 numbers" in run(changed, program)
