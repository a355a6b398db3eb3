"""Other people's conversions held to the right values: what is wrong is named by its cause."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree

import ml_dtypes
import numpy as np
import pytest

import lowprec as lp
from lowprec.cli import main
from lowprec.testing import assert_conforms
from lowprec.verification import conformance
from lowprec.verification.block_conformance import block_conformance
from lowprec.verification.targets import targets

FORMATS = ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2fnuz", "float6_e3m2fn", "e5m4"]
every_format = pytest.mark.parametrize("fmt", FORMATS)


@every_format
@pytest.mark.parametrize("rounding", ["ties_to_even", "toward_zero", "toward_positive"])
def test_the_right_conversion_conforms(fmt, rounding):
    assert_conforms(lambda x: lp.round_to(x, fmt, rounding=rounding), fmt, rounding=rounding)


@every_format
def test_codes_serve_as_values_do(fmt):
    if lp.get_format(fmt).has_nan:
        assert_conforms(lambda x: lp.encode(x, fmt), fmt, takes_float64=True)


def through_float32(x):
    return lp.round_to(x.astype(np.float32), "bfloat16")


def without_subnormals(x):
    with np.errstate(all="ignore"):
        y = lp.round_to(x, "float8_e5m2")
    return np.where(abs(y) < lp.float8_e5m2.smallest_normal, 0 * y, y)


WRONG = {
    "ties go away from zero": (lambda x: lp.round_to(x, "bfloat16", rounding="RNA"), "bfloat16"),
    "ties go toward zero": (lambda x: lp.round_to(x, "float16", rounding="RNZ"), "float16"),
    "rounds toward_zero": (lambda x: lp.round_to(x, "bfloat16", rounding="RZ"), "bfloat16"),
    "rounds to_odd": (lambda x: lp.round_to(x, "float8_e5m2", rounding="RO"), "float8_e5m2"),
    "rounds twice, through float32": (through_float32, "bfloat16"),
    "rounds twice, through float16": (
        lambda x: lp.round_to(lp.round_to(x, "float16"), "float8_e5m2"),
        "float8_e5m2",
    ),
    "subnormal numbers are flushed to zero": (without_subnormals, "float8_e5m2"),
    "overflows saturate at the largest value": (
        lambda x: lp.round_to(x, "float16", overflow="saturate"),
        "float16",
    ),
    "the sign of zero is lost": (lambda x: lp.round_to(x, "bfloat16") + 0.0, "bfloat16"),
    "NaN becomes a number": (
        lambda x: np.nan_to_num(lp.round_to(x, "float8_e5m2"), posinf=np.inf, neginf=-np.inf),
        "float8_e5m2",
    ),
    "what comes back is not a value of the format": (lambda x: x, "bfloat16"),
}


@pytest.mark.parametrize("cause", WRONG)
def test_a_wrong_conversion_is_named(cause):
    function, fmt = WRONG[cause]
    found = conformance(function, fmt, takes_float64=True)
    assert not found
    assert found.differences[0].cause == cause
    first = found.differences[0]
    assert first.count <= first.cases
    right = lp.round_to(np.float64(first.x), fmt) if not np.isnan(first.x) else np.nan
    assert first.right == right or np.isnan(right)
    with pytest.raises(AssertionError, match=cause):
        assert_conforms(function, fmt, takes_float64=True)


def test_ties_are_counted_among_midpoints():
    found = conformance(lambda x: lp.round_to(x, "float8_e4m3fn", rounding="RNA"), "float8_e4m3fn")
    midpoints = [one for one in found.differences if one.kind == "midpoints"]
    assert midpoints[0].count == midpoints[0].cases // 2  # the others are rounded away anyway


def test_ml_dtypes_rounds_float64_twice():
    (target,) = targets("ml_dtypes", lp.bfloat16)
    found = target.judged()
    assert [one.cause for one in found.differences] == ["rounds twice, through float32"]
    x = np.float64(found.differences[0].x)
    assert float(x.astype(ml_dtypes.bfloat16)) == found.differences[0].got


def test_numpys_float16_conforms():
    (target,) = targets("numpy", lp.float16)
    assert target.judged()


@pytest.mark.parametrize("name", ["torch", "jax", "gfloat"])
def test_peers_conform_in_float32_but_for_what_they_say(name):
    pytest.importorskip(name, reason=f"{name} is not installed")
    for fmt in (lp.bfloat16, lp.float8_e5m2):
        (target,) = targets(name, fmt)
        found = conformance(target.function, fmt)
        assert found, found


# Blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["mxfp8_e4m3", "mxfp4:rceil", "mxfp6_e2m3:even", "mxint8"])
def test_the_right_blocks_conform(fmt):
    assert block_conformance(lambda x: lp.round_to(x, fmt), lp.get_format(fmt))


@pytest.mark.parametrize("rule", ["ceil", "rceil", "even"])
def test_another_rule_is_named(rule):
    found = block_conformance(lambda x: lp.round_to(x, f"mxfp4:{rule}"), lp.get_format("mxfp4"))
    assert not found
    assert found.differences[0].cause.startswith("the scale's rule is ")
    assert f"the scale's rule is {rule}" in {one.cause for one in found.differences}


def test_formats_without_blocks_of_their_own_are_refused():
    with pytest.raises(ValueError, match="no blocks of its own"):
        block_conformance(lambda x: x, lp.get_format("nvfp4"))


# The command ---------------------------------------------------------------------------------


def test_the_command_tells_differences_and_writes_them(tmp_path, capsys):
    files = {kind: tmp_path / f"found.{kind}" for kind in ("json", "html", "junit")}
    arguments = ["verify", "--target", "ml_dtypes", "--format", "float4_e2m1fn"]
    for kind, path in files.items():
        arguments += [f"--{kind}", str(path)]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "rounds twice, through float32" in out
    (found,) = json.loads(files["json"].read_text())
    assert found["differing"] == 12
    assert found["differences"][0]["right"] == (0.5).hex()
    suite = ElementTree.fromstring(files["junit"].read_text())
    assert suite.attrib["failures"] == "1"
    assert "rounds twice" in files["html"].read_text()
    assert main(arguments) == 1  # its own files are replaced


def test_the_command_is_silent_about_what_agrees(capsys):
    assert main(["verify", "--target", "numpy"]) == 0
    assert "0 of" in capsys.readouterr().out


def test_a_function_of_the_user(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_to_verify.py").write_text(
        "def chop(x):\n    return (x.view('u4') & 0xFFFF0000).view('f4')\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["verify", "--target", "mine_to_verify:chop", "--format", "bfloat16"]) == 1
    assert "rounds toward_zero" in capsys.readouterr().out
    assert str(tmp_path) not in sys.path
    how = ["--format", "float4_e2m1fn", "--json"]
    assert main(["verify", "--target", "mine_to_verify:chop", *how]) == 1
    assert json.loads(capsys.readouterr().out)[0]["differing"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "nothing"], "is not a known target"),
        (["--target", "os:getcwd"], "needs --format"),
        (["--target", "numpy", "--format", "bfloat16"], "has no conversion to bfloat16"),
        (["--json", "x.json"], "--json belongs to --target"),
        (["--target", "math:nothing", "--format", "bfloat16"], "has no function"),
        (["--target", "math:sqrt", "--format", "float4_e2m1fn"], "math:sqrt gave TypeError: only"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["verify", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
