"""The proofs as a product: what they find wrong, and what they leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from table import name

import lowprec as lp
from lowprec import Arithmetic, Rounding, verification
from lowprec.cli import main
from lowprec.verification import Check, Part, Report, checks, verify
from lowprec.verification.checks import shared
from lowprec.verification.codes import operand_bits
from lowprec.verification.functions import FUNCTIONS
from lowprec.verification.results import incomplete_path, save

FORMATS = [lp.bfloat16, lp.float16, lp.float8_e4m3fn, lp.float8_e5m2]
MODES = [Rounding.TIES_TO_EVEN, Rounding.TOWARD_NEGATIVE]
RNE = [Rounding.TIES_TO_EVEN]
PAIRED = ["add", "subtract", "multiply", "divide"]
DOCS = Path(__file__).parent.parent / "docs"


# Agreement ---------------------------------------------------------------------------------------


def test_the_library_agrees_with_its_oracles():
    listed = checks([lp.bfloat16, lp.float8_e4m3fn], roundings=RNE, sample=4096)
    listed += checks([lp.float16], ["add", "fma", "sqrt", "encode", "tan"], MODES[1:], 4096)
    report = verify(listed, threads=2)
    assert report.is_complete
    assert [r.name for r in report.results if r.mismatches] == []
    verdicts = {r.name: r.verdict for r in report.results if not r.missing}
    assert verdicts["bfloat16 add"] == "agrees"
    assert verdicts["float8_e4m3fn add"] == verdicts["float16 sqrt"] == "proved"


@pytest.mark.slow
@pytest.mark.parametrize("fmt", [lp.bfloat16, lp.float16], ids=name)
@pytest.mark.parametrize("operation", PAIRED)
def test_all_pairs_agree(operation, fmt):
    (result,) = verify(checks([fmt], [operation], RNE, None)).results
    assert (result.cases, result.mismatches, result.verdict) == (2**32, 0, "proved")


@pytest.mark.slow
def test_every_float32_and_every_operand_agree():
    rest = ["fma", "sqrt", "encode", *FUNCTIONS]
    report = verify(checks(FORMATS, rest, RNE, None))
    assert report.is_complete
    assert not report.mismatches


def test_a_check_takes_as_many_cases_as_it_says():
    for check in checks([lp.float8_e5m2], ["add", "sqrt", "fma", "encode", "exp"], RNE, 5000):
        total = sum(check.run(2), Part())
        assert total.cases == check.cases, check.name


def test_every_pair_is_every_pair(monkeypatch):
    seen = []

    def spy(self, a, b, out):
        seen.append((a.view(np.uint32).copy(), b.view(np.uint32).copy()))
        return multiply(self, a, b, out=out)

    multiply = Arithmetic.multiply
    monkeypatch.setattr(Arithmetic, "multiply", spy)
    assert not verify(checks([lp.float8_e4m3fn], ["multiply"], RNE), threads=1).mismatches
    pairs = np.concatenate([a.astype(np.uint64) << 32 | b for a, b in seen])
    bits = operand_bits(lp.float8_e4m3fn).astype(np.uint64)
    assert (np.unique(pairs) == np.unique(bits[:, None] << 32 | bits)).all()


# Disagreement ------------------------------------------------------------------------------------


@pytest.fixture
def broken_add(monkeypatch):
    """Let 1 + 2 be 4, and nothing else wrong."""

    def add(self, a, b, *, out):
        result = right(self, a, b, out=out)
        out[(a == 1) & (b == 2)] = 4
        return result

    right = Arithmetic.add
    monkeypatch.setattr(Arithmetic, "add", add)


@pytest.mark.usefixtures("broken_add")
def test_one_wrong_sum_is_found_and_told():
    report = verify(checks([lp.float8_e4m3fn], ["add", "multiply"], RNE), threads=2)
    wrong, right = report.results
    assert (wrong.mismatches, wrong.verdict, right.mismatches) == (1, "WRONG", 0)
    (told,) = wrong.first
    assert told.operands == ("0x38 = 1.0", "0x40 = 2.0")
    assert (told.expected, told.found) == ("0x44 = 3.0", "0x48 = 4.0")
    assert report.is_complete


@pytest.mark.usefixtures("broken_add")
def test_a_mismatch_is_printed_and_the_exit_code_is_1(capsys, tmp_path):
    target = tmp_path / "verify.json"
    command = ["verify", "--formats", "float8_e4m3fn", "--operations", "add", "--rounding", "RNE"]
    assert main([*command, "-o", str(target)]) == 1
    out, err = capsys.readouterr()
    told = "add(0x38 = 1.0, 0x40 = 2.0), ties_to_even: 0x44 = 3.0 expected, 0x48 = 4.0 found"
    assert told in out
    assert err == "lowprec: 1 mismatch in float8_e4m3fn add\n"
    (check,) = json.loads(target.read_text())["checks"]
    assert check["mismatches"] == 1
    assert check["first"][0]["operands"] == ["0x38 = 1.0", "0x40 = 2.0"]


def test_zeros_of_the_wrong_sign_are_found(monkeypatch):
    def subtract(self, a, b, *, out):
        right(self, a, b, out=out)
        out[out == 0] = 0.0
        return out

    right = Arithmetic.subtract
    monkeypatch.setattr(Arithmetic, "subtract", subtract)
    (result,) = verify(checks([lp.float8_e5m2], ["subtract"], RNE)).results
    assert result.mismatches == 1  # -0 - 0 alone is -0


@pytest.mark.parametrize("bits", [0xFFC00000, 0x7FC00001])
def test_a_nan_of_other_bits_is_found(monkeypatch, bits):
    def sqrt(self, a, *, out):
        right(self, a, out=out)
        out.view(np.uint32)[a == -4] = bits
        return out

    right = Arithmetic.sqrt
    monkeypatch.setattr(Arithmetic, "sqrt", sqrt)
    (result,) = verify(checks([lp.float16], ["sqrt"], RNE)).results
    assert result.mismatches == 1
    assert result.first[0].operands == ("0xc400 = -4.0",)
    assert "nan" in result.first[0].found


def test_wrong_events_are_found(monkeypatch):
    def divide(self, a, b, *, out):
        right(self, a[:1], b[:1])  # counted once too often
        return right(self, a, b, out=out)

    right = Arithmetic.divide
    monkeypatch.setattr(Arithmetic, "divide", divide)
    (result,) = verify(checks([lp.float8_e5m2], ["divide"], RNE)).results
    assert result.mismatches > 0
    assert "Events(" in result.first[0].expected


def test_a_wrong_code_is_found(monkeypatch):
    def encode(x, fmt, *, rounding):
        return lp.encode(x, fmt, rounding=rounding) ^ (x == 448)

    monkeypatch.setattr("lowprec.verification.conversions.encode", encode)
    (result,) = verify(checks([lp.float8_e4m3fn], ["encode"], RNE, 100)).results
    assert result.mismatches == 1
    assert result.first[0].operands == ("0x43e00000 = 448.0",)


def test_a_wrong_value_of_a_function_is_found(monkeypatch):
    pytest.importorskip("mpmath", reason="mpmath is not installed")

    def exp(self, a, *, out):
        right(self, a, out=out)
        out[a == 1] = 2.71875
        return out

    right = Arithmetic.exp
    monkeypatch.setattr(Arithmetic, "exp", exp)
    (result,) = verify(checks([lp.float8_e5m2], ["exp", "sin"], RNE)).results
    assert result.mismatches == 1
    assert result.first[0].operation == "exp"
    assert "no value of the format" in result.first[0].found


def test_at_most_five_mismatches_are_told(monkeypatch):
    monkeypatch.setattr(Arithmetic, "add", Arithmetic.multiply)
    (result,) = verify(checks([lp.float8_e5m2], ["add"], MODES)).results
    assert result.mismatches > 50_000
    assert len(result.first) == 5


# Running -----------------------------------------------------------------------------------------


def test_parts_come_in_order_whatever_the_threads():
    def slower_at_first(item):
        time.sleep(0.02 if item % 4 == 1 else 0)
        return Part(item)

    for threads in (1, 3):
        assert [part.cases for part in shared(slower_at_first, range(12), threads)] == [*range(12)]


def test_what_has_not_begun_is_given_up():
    begun = []
    parts = shared(lambda item: begun.append(item) or Part(1), range(1000), 2)
    next(parts)
    parts.close()
    assert len(begun) < 10


def check_of(*outcomes):
    """Return a check that yields parts, or raises what is not a part."""

    def run(threads):
        for found in outcomes:
            if isinstance(found, Part):
                yield found
            else:
                raise found

    return Check("a check", "a claim", 10 * len(outcomes), True, run)


def test_an_interrupted_run_says_how_far_it_came_and_keeps_the_earlier_file(tmp_path):
    target = tmp_path / "verify.json"
    keep = lambda report: save(report, target)  # noqa: E731
    verify([check_of(Part(10))], save=keep)
    before = target.read_text()
    assert json.loads(before)["complete"] is True
    assert os.listdir(tmp_path) == ["verify.json"]
    with pytest.raises(KeyboardInterrupt):
        verify([check_of(Part(10)), check_of(Part(10), KeyboardInterrupt())], save=keep)
    assert target.read_text() == before
    left = json.loads(incomplete_path(target).read_text())
    assert left["complete"] is False
    assert [(c["cases"], c["verdict"]) for c in left["checks"]] == [
        (10, "proved"),
        (10, "interrupted"),
    ]
    verify([check_of(Part(10), Part(10))], save=keep)
    assert json.loads(target.read_text())["checks"][0]["cases"] == 20
    assert os.listdir(tmp_path) == ["verify.json"], "what was incomplete is complete now"


def test_a_run_that_fails_keeps_what_it_found(tmp_path):
    target = tmp_path / "verify.json"
    with pytest.raises(ArithmeticError):
        verify([check_of(Part(10), ArithmeticError("too near"))], save=lambda r: save(r, target))
    assert not target.exists()
    assert json.loads(incomplete_path(target).read_text())["checks"][0]["cases"] == 10


def interrupt(process):
    """Press Control-C, and again if nothing happens: Python drops one inside a `__del__`.

    Return what was printed, without what Python said of those that it dropped. A busy machine may
    take its time to end what it has begun, which a second interrupt would cut off.
    """
    for dropped in range(3):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            out, err = process.communicate(timeout=120)
            return out, err.splitlines()[-2:] if dropped else err.splitlines()
    raise AssertionError("not one of three interrupts ended the process")


@pytest.mark.usefixtures("control_c")
def test_control_c_ends_the_command(tmp_path):
    target = tmp_path / "verify.json"
    left = incomplete_path(target)
    command = [sys.executable, "-m", "lowprec", "verify", "--full", "--rounding", "RNE"]
    formats = ["--formats", "float8_e5m2,float16,bfloat16"]  # these two take longer than we wait
    process = subprocess.Popen(
        [*command, *formats, "--operations", "divide", "-o", str(target)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (left.exists() and json.loads(left.read_text())["checks"]):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    out, err = interrupt(process)
    assert process.returncode == 130
    assert err == [f"what was done is in {left}", "lowprec: interrupted"]
    assert "interrupted" in out
    verdicts = [check["verdict"] for check in json.loads(left.read_text())["checks"]]
    assert verdicts[0] == "proved"
    assert verdicts[-1] == "interrupted"


def test_progress_tells_cases():
    told = []
    verify(
        [check_of(Part(10), Part(10)), check_of(Part(10))],
        progress=lambda name, done, total: told.append((name, done, total)),
    )
    assert told == [("1/2 a check", 10, 20), ("1/2 a check", 20, 20), ("2/2 a check", 10, 10)]


def test_functions_that_are_asked_for_need_mpmath(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    command = ["verify", "--formats", "float8_e5m2", "--rounding", "RNE"]
    assert main([*command, "--operations", "exp,add"]) == 1
    assert "python -m pip install mpmath" in capsys.readouterr().err


def test_functions_are_skipped_without_mpmath(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    command = ["verify", "--formats", "float8_e5m2", "--rounding", "RNE", "--sample", "100"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "skipped" in out
    assert "python -m pip install mpmath" in out


# Results -----------------------------------------------------------------------------------------


def test_the_file_says_what_was_checked_where_and_with_what(tmp_path, capsys):
    target = tmp_path / "verify.json"
    command = ["verify", "--formats", "float8_e5m2", "--operations", "sqrt,add"]
    assert main([*command, "--rounding", "RNE,RD", "-o", str(target)]) == 0
    found = json.loads(target.read_text())
    assert found["lowprec"] == lp.__version__
    assert found["numpy"] == np.__version__
    assert {"date", "processor", "python", "numba"} <= found.keys()
    assert found["complete"] is True
    assert [check["name"] for check in found["checks"]] == ["float8_e5m2 sqrt", "float8_e5m2 add"]
    assert [check["cases"] for check in found["checks"]] == [2 * 256, 2 * 65536]
    assert all(check["claim"] and check["seconds"] > 0 for check in found["checks"])
    out = capsys.readouterr().out
    for line in ("float8_e5m2 add", "131,072", "proved"):
        assert line in out


def test_a_report_survives_json():
    mismatch = verification.Mismatch("add", "RNE", ("0x1 = 1.0",), "0x2", "0x3")
    listed = [check_of(Part(10, 1, (mismatch,))), check_of(Part(10))]
    report = verify(listed)
    again = Report.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report
    assert again.to_markdown() == report.to_markdown()


def test_results_may_go_to_what_is_no_file(capsys):
    command = ["verify", "--formats", "float8_e5m2", "--operations", "sqrt", "--rounding", "RNE"]
    assert main([*command, "-o", os.devnull]) == 0
    assert not incomplete_path(os.devnull).exists()


def test_the_guide_shows_a_whole_run_without_a_mismatch():
    found = Report.from_dict(json.loads((DOCS / "verification.json").read_text()))
    assert found.is_complete
    assert not found.mismatches
    sampled = [result.name for result in found.results if not result.exhaustive]
    assert sampled == ["bfloat16 fma", "float16 fma"]
    cases = {result.name: result.cases for result in found.results}
    modes = [mode for mode in Rounding if not mode.is_stochastic]
    for fmt, operation in product(
        ["bfloat16", "float16"], ["add", "subtract", "multiply", "divide"]
    ):
        assert cases[f"{fmt} {operation}"] == len(modes) * 2**32


def test_the_guide_is_made_from_the_file(tmp_path):
    guide = (DOCS / "guides" / "verification.md").read_text()
    page = tmp_path / "page.md"
    page.write_text(guide.replace(" | 0 | ", " | 7 | "))
    command = [sys.executable, "-m", "lowprec.verification", str(DOCS / "verification.json")]
    subprocess.run([*command, str(page)], check=True)
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() in page.read_text()
    assert ended.stdout.strip() in guide
    page.write_text("no place")
    assert subprocess.run([*command, str(page)], capture_output=True, check=False).returncode == 1
    assert page.read_text() == "no place"


def test_contributors_make_the_file_with_the_commands_of_the_guide():
    guide = (DOCS / "guides" / "verification.md").read_text(encoding="utf-8")
    commands = re.findall(r"(?m)^(?:lowprec|python) .* docs/verification\.json.*$", guide)
    assert len(commands) == 2
    assert " && ".join(commands) in (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--operations", "ad"], "no check for 'ad'; use one of add, subtract"),
        (["--formats", "float32"], "at most 16 bits"),
        (["--formats", "e11m4"], "values that float32 holds"),
        (["--formats", "float8_e5m2fnuz"], "no integer oracle for 'float8_e5m2fnuz'"),
        (["--formats", "float99"], "unknown format 'float99'"),
        (["--rounding", "stochastic"], "draws random bits"),
        (["--rounding", "nearest"], "not a rounding mode"),
        (["--sample", "0"], "a sample of 0 draws nothing"),
        (["--sample", "100", "--full"], "not allowed with"),
        (["--threads", "0"], "1 or more"),
    ],
)
def test_wrong_usage_is_told_before_anything_runs(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["verify", *arguments])
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_does_not_exist_is_told_before_anything_runs(tmp_path, capsys):
    assert main(["verify", "-o", str(tmp_path / "none" / "verify.json")]) == 1
    out, err = capsys.readouterr()
    assert err == f"lowprec: no such folder: {tmp_path / 'none'}\n"
    assert not out
