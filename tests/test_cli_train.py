"""``lowprec train``: what it prints and writes, its defaults, and how it fails."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest

from lowprec import train
from lowprec.cli import main
from lowprec.cli.train_arguments import read_policies

pytest.importorskip("sklearn", reason="the report's extra is missing")

SMALL = ["--data", "iris", "--hidden", "8", "--epochs", "3", "--batch-size", "30"]


def run(*arguments):
    return main(["train", *SMALL, *arguments])


def test_one_policy_and_seed_show_keras_lines(capsys):
    assert run("--policies", "mixed_float16", "--seeds", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0::2][:3] == ["Epoch 1/3", "Epoch 2/3", "Epoch 3/3"]
    value = r"\d+\.\d{4}(e-\d\d)?"
    names = ("accuracy", "loss", "loss_scale", "val_accuracy", "val_loss")
    pattern = r"4/4 \S{20} \d+s \d+[mu]?s/step" + "".join(f" - {name}: {value}" for name in names)
    for line in lines[1:6:2]:
        assert re.fullmatch(pattern, line)
    assert lines[6].startswith("mixed_float16: val_accuracy ")
    assert "0 of 12 steps skipped, loss scale 65536; 14 = 4 + 8 + 2 bytes" in lines[6]


def test_several_runs_give_a_table_and_a_verdict(capsys):
    assert run("--policies", "float32,mixed_bfloat16", "--seeds", "2") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Epoch" not in out
    assert max(map(len, out.splitlines())) <= 80
    for words in ("iris: 120 training", "2 seeds", "beside float32", "• float32: val_accuracy"):
        assert words in out


def test_the_same_is_written_as_json_and_html(capsys, tmp_path):
    pytest.importorskip("matplotlib", reason="the report's extra is missing")
    pytest.importorskip("jinja2", reason="the report's extra is missing")
    page, data = tmp_path / "page.html", tmp_path / "data.json"
    assert (
        run("--policies", "bfloat16", "--seeds", "2", "--html", str(page), "--json", str(data)) == 0
    )
    found = json.loads(data.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert [one["policy"] for one in found["policies"]] == ["float32", "bfloat16"]
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    for sentence in found["verdict"]:
        assert sentence.split(":")[0] in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.json", "page.html"]
    shown = capsys.readouterr().out
    assert "float32 added" in shown
    assert shown.endswith(f"Wrote {data}, {page}\n")


def test_the_json_of_a_run_that_diverged_holds_null_for_what_is_not_finite(capsys, tmp_path):
    data = tmp_path / "data.json"
    diverging = ["--optimizer", "sgd", "--learning-rate", "1e9", "--json", str(data)]
    assert run("--policies", "float16", "--seeds", "1", *diverging) == 0
    found = json.loads(data.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert found["history"]["loss"][-1] is None


def test_a_saved_run_goes_on_to_the_same_bits(capsys, tmp_path):
    short, longer, straight = (str(tmp_path / name) for name in ("a.npz", "b.npz", "c.npz"))
    one = ["--policies", "mixed_float16", "--seeds", "1"]
    assert run(*one, "--save", short) == 0
    assert run(*one, "--epochs", "5", "--resume", short, "--save", longer) == 0
    assert run(*one, "--epochs", "5", "--save", straight) == 0
    resumed, whole = train.History.load(longer), train.History.load(straight)
    assert resumed.history == whole.history
    assert all(np.array_equal(resumed.params[name], w) for name, w in whole.params.items())
    out = capsys.readouterr().out
    assert "Epoch 4/5" in out


@pytest.mark.parametrize(
    "policy", ["mixed_float16", "compute=float16,loss_scale=1024.0", "bfloat16_stochastic"]
)
def test_a_saved_run_goes_on_under_its_own_policy(policy, capsys, tmp_path):
    short, longer, straight = (str(tmp_path / name) for name in ("a.npz", "b.npz", "c.npz"))
    one = ["--policies", policy, "--seeds", "1"]
    assert run(*one, "--save", short) == 0
    assert run("--epochs", "5", "--resume", short, "--save", longer) == 0
    assert run(*one, "--epochs", "5", "--save", straight) == 0
    resumed, whole = train.History.load(longer), train.History.load(straight)
    assert resumed.facts == whole.facts
    assert resumed.history == whole.history
    assert f"\n{policy}: val_accuracy" in capsys.readouterr().out


def usage_error(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_policy_that_is_not_the_saved_runs_is_told_with_both(capsys, tmp_path):
    path = str(tmp_path / "a.npz")
    assert run("--policies", "mixed_float16", "--seeds", "1", "--save", path) == 0
    assert run("--resume", path, "--policies", "compute=float16,loss_scale=dynamic") == 0
    told = usage_error(capsys, "--resume", path, "--policies", "bfloat16")
    assert f"--policies bfloat16, but {path} was trained in mixed_float16" in told


def test_a_run_that_cannot_go_on_here_is_told_in_one_line(capsys, tmp_path):
    path = str(tmp_path / "a.npz")
    facts = {"policy": "mine", "formats": "accumulate=Accumulator(…)", "seed": 0}
    train.History(facts=facts).save(path)
    assert run("--resume", path) == 1
    err = capsys.readouterr().err
    assert f"{path} was trained in mine, which --policies cannot spell; go on in Python" in err
    train.History().save(path)
    assert run("--resume", path) == 1
    err = capsys.readouterr().err
    assert f"{path} does not tell policy and seed" in err
    assert err.count("\n") == 1


def test_a_process_that_is_killed_is_told(monkeypatch, capsys):
    def broken(*_, **__):
        raise BrokenProcessPool("terminated abruptly")

    monkeypatch.setattr("lowprec.train.studies.comparison.compare_policies", broken)
    assert run("--processes", "2", "--seeds", "2") == 1
    assert "one of 2 processes was killed" in capsys.readouterr().err


def test_record_writes_why_it_failed(tmp_path, capsys):
    page = tmp_path / "run.html"
    arguments = ["--optimizer", "sgd", "--learning-rate", "0.003", "--record", str(page)]
    assert (
        main(["train", "--policies", "bfloat16", "--seeds", "1", "--epochs", "5", *arguments]) == 0
    )
    shown = capsys.readouterr().out
    assert "of updates are lost in bfloat16 weights" in shown
    assert shown.endswith(f"Wrote {page}\n")
    assert "of updates are lost" in page.read_text(encoding="utf-8")


def test_record_without_a_file_says_why_it_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--optimizer", "sgd", "--learning-rate", "0.003", "--record"]
    assert (
        main(["train", "--policies", "bfloat16", "--seeds", "1", "--epochs", "5", *arguments]) == 0
    )
    assert "of updates are lost in bfloat16 weights" in capsys.readouterr().out.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--record", "--resume"])
def test_what_is_for_one_run_does_not_go_with_a_comparisons_page(option, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--policies", "bfloat16", "--seeds", "1", "--html", "a.html", option, "b"])
    assert "no --html" in capsys.readouterr().err


def test_processes_give_what_one_process_gives(tmp_path):
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for count, file in enumerate(files, 1):
        command = [sys.executable, "-m", "lowprec", "train", *SMALL, "--json", str(file)]
        command += ["--policies", "mixed_bfloat16", "--seeds", "2", "--processes", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    found = [json.loads(file.read_text()) for file in files]
    for comparison in found:
        for policy in comparison["policies"]:
            del policy["seconds_per_epoch"]
            for one in policy["runs"]:
                del one["seconds"]
    assert found[0] == found[1]


def test_a_folder_gets_every_run(tmp_path, capsys):
    folder = tmp_path / "runs"
    assert run("--policies", "bfloat16", "--seeds", "4,7", "--save", str(folder)) == 0
    names = ["bfloat16-4.npz", "bfloat16-7.npz", "float32-4.npz", "float32-7.npz"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert capsys.readouterr().err == ""


# Defaults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["diabetes", "linear", "quadratic", "linear_map"])
def test_regression_needs_no_options(data, capsys):
    arguments = ["train", "--data", data, "--policies", "mixed_bfloat16", "--seeds", "2"]
    assert main([*arguments, "--epochs", "2"]) == 0
    out = capsys.readouterr().out
    assert "val_rmse" in out
    assert "diverged" not in out


@pytest.mark.parametrize("data", ["digits", "breast_cancer", "wine"])
def test_classification_needs_no_options(data, capsys, tmp_path):
    file = tmp_path / "data.json"
    arguments = ["train", "--data", data, "--policies", "mixed_bfloat16", "--seeds", "2"]
    assert main([*arguments, "--epochs", "4", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert found["loss"] == "sparse_categorical_crossentropy"
    assert all(one["val_accuracy"]["mean"] > 0.85 for one in found["policies"])
    assert capsys.readouterr().err == ""


def test_images_in_a_file_are_flattened_and_scaled(capsys, tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = (rng.random((60, 4, 4)) * 100 + 150 * y[:, None, None]).astype(np.uint8)
    path = tmp_path / "images.npz"
    np.savez(path, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    arguments = ["train", "--data", str(path), "--policies", "float32", "--seeds", "1"]
    assert main([*arguments, "--epochs", "20", "--learning-rate", "0.05"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert float(re.search(r"val_accuracy ([\d.]+)", last)[1]) > 0.9


def test_targets_and_features_can_stay_as_they_are(capsys):
    arguments = ["train", "--data", "linear", "--policies", "float32", "--seeds", "1"]
    arguments += ["--epochs", "1", "--hidden", "none"]
    assert main([*arguments, "--scale-targets", "none", "--scale-features", "none"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert float(re.search(r"val_rmse ([\d.]+)", last)[1]) > 10


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("float32,bfloat16", ["float32", "bfloat16"]),
        ("compute=float16,gradients=bfloat16", ["compute=float16,gradients=bfloat16"]),
        (
            "bfloat16, compute=float16 ; state=bfloat16",
            ["bfloat16", "compute=float16", "state=bfloat16"],
        ),
        ("compute=float16,float32,state=bfloat16", ["float32", "compute=float16,state=bfloat16"]),
    ],
)
def test_policies_are_names_or_fields(text, names):
    assert [str(policy) for policy in read_policies(text)] == names


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "mnist"], "'mnist' is not a data set"),
        (["--data", "none.npz"], "No such file or directory: none.npz"),
        (["--activation", "rleu"], "did you mean 'relu'"),
        (["--optimizer", "adm"], "did you mean 'adam'"),
        (["--loss", "mes"], "'mes' is not a loss"),
        (["--html", "none/page.html"], "no such folder"),
        (["--save", "none/runs"], "no such folder"),
        (["--policies", "bfloat16,bfloat16"], "policy bfloat16 is given twice"),
        (["--policies", "float32", "--seeds", "1", "--resume", "none.npz"], "none.npz"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_job_that_fails_says_why_in_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.startswith("lowprec: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--policies", "bfloat17"], "'bfloat17' is not a policy"),
        (["--hidden", "10,x"], "'x' is not a whole number from 1 on"),
        (["--seeds", "0"], "'0' is not a whole number from 1 on"),
        (["--learning-rate", "0"], "it must be positive"),
        (["--resume", "a.npz", "--seeds", "2"], "--resume goes on with one run"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_wrong_usage_is_told(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
