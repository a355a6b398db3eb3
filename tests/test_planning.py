"""compare chooses tensors and formats, and a plan under a budget of bits is carried out."""

import json

import numpy as np
import pytest

import lowprec as lp
from lowprec.cli import main
from lowprec.tensors import open_tensors, write_tensors
from lowprec.tensors.planning import plan_formats

RNG = np.random.default_rng(0)
TENSORS = {
    "easy.weight": np.full((64, 64), 0.5, "f4"),  # every format holds it
    "normal.weight": RNG.normal(0, 0.05, (64, 64)).astype("f4"),
    "wild.weight": (RNG.normal(size=(64, 64)) * np.exp(RNG.normal(0, 4, (64, 64)))).astype("f4"),
    "norm.weight": np.ones(64, "f4"),
}
FORMATS = ["nvfp4", "mxfp8_e4m3", "bfloat16"]


@pytest.fixture
def model(tmp_path):
    write_tensors(tmp_path / "m.safetensors", TENSORS | {"ids": np.arange(3)})
    return str(tmp_path / "m.safetensors")


def planned(bits, tolerance=None):
    from lowprec.tensors import as_tensor

    tensors = {name: as_tensor(name, x) for name, x in TENSORS.items()}
    rows = lp.compare(TENSORS, FORMATS).measurements
    return plan_formats(rows, tensors, bits, tolerance)


def test_the_cheapest_format_that_holds_is_taken():
    plan = planned(16)
    assert plan.formats["easy.weight"] == lp.nvfp4
    assert plan.formats["norm.weight"] == lp.bfloat16  # no layout holds a vector in blocks
    assert plan.formats["wild.weight"] == lp.bfloat16
    assert not plan.not_held
    assert plan.bits <= 16


def test_a_budget_is_kept_and_what_is_not_held_is_said():
    sizes = {name: x.size for name, x in TENSORS.items()}
    for bits in (4.6, 5, 6, 9, 12):
        plan = planned(bits)
        spent = sum(
            sizes[name] * (fmt.bits_per_value if isinstance(fmt, lp.BlockFormat) else fmt.bits)
            for name, fmt in plan.formats.items()
        )
        assert plan.bits == pytest.approx(spent / sum(sizes.values()))
        assert plan.bits <= bits
    assert "wild.weight" in planned(4.6).not_held
    with pytest.raises(ValueError, match="are not enough: the cheapest formats take"):
        planned(4)


def test_a_looser_tolerance_takes_fewer_bits():
    assert planned(16, tolerance=0.5).bits <= planned(16, tolerance=1e-3).bits


def test_a_plan_is_written_and_carried_out(model, tmp_path, capsys):
    plan = tmp_path / "plan.json"
    how = ["--formats", ",".join(FORMATS), "--bits", "6", "--plan", str(plan)]
    figures = tmp_path / "f.json"
    assert main(["compare", model, *how, "--json", str(figures)]) == 0
    assert "bits a value of 6 allowed" in capsys.readouterr().out
    content = json.loads(plan.read_text())
    assert json.loads(figures.read_text())["plan"] == content
    for path, name in ((plan, "a"), (figures, "b")):
        target = tmp_path / f"{name}.safetensors"
        assert main(["convert", model, "--plan", str(path), "-o", str(target)]) == 0
        found = open_tensors(target)
        assert {name: str(found[name].fmt) for name in content["formats"]} == content["formats"]
        assert found["ids"].read().tolist() == [0, 1, 2]


def test_a_file_that_is_no_plan_is_refused(model, tmp_path, capsys):
    (tmp_path / "p.json").write_text("[1]")
    out = ["-o", str(tmp_path / "o.safetensors")]
    assert main(["convert", model, "--plan", str(tmp_path / "p.json"), *out]) == 1
    assert "is not a plan" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["convert", model, *out])
    with pytest.raises(SystemExit):
        main(["compare", model, "--plan", "x.json"])


def test_names_are_chosen_and_the_others_counted(model, capsys):
    assert main(["compare", model, "--include", "*weight", "--exclude", "norm.*"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "norm.weight: not asked for" in out
    assert "Left out: 2 tensors" in out
    assert main(["compare", model, "--include", "nurm.*"]) == 1
    assert "did you mean 'norm.weight'" in capsys.readouterr().err


def test_a_tolerance_decides_what_holds(model, tmp_path, capsys):
    figures = tmp_path / "f.json"
    how = ["--formats", "bfloat16", "--include", "normal*", "--json", str(figures), "--overwrite"]
    for tolerance, word in (("0.1", "held"), ("0.0001", "too coarse")):
        assert main(["compare", model, *how, "--tolerance", tolerance]) == 0
        content = json.loads(figures.read_text())
        assert content["normal.weight"]["bfloat16"]["verdict"] == word
    with pytest.raises(ValueError, match="holds nothing"):
        lp.compare([1.0], tolerance=0)


def test_the_axis_is_that_of_blocks(model, tmp_path):
    figures = tmp_path / "f.json"
    how = ["--formats", "mxfp4", "--include", "wild*", "--json", str(figures), "--overwrite"]
    for axis in (0, 1):
        assert main(["compare", model, *how, "--axis", str(axis)]) == 0
        found = json.loads(figures.read_text())["wild.weight"]["mxfp4"]["sqnr_db"]
        expected = lp.measure(TENSORS["wild.weight"], "mxfp4", axis=axis).sqnr_db
        assert found == pytest.approx(expected)
