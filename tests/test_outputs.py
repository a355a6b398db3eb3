"""What is written: an output is never an input, and only lowprec's own files are replaced."""

import json
import os

import numpy as np
import pytest

from lowprec import tensors, train
from lowprec.cli import INTERRUPTED, main
from lowprec.common.outputs import NEVER_REPLACED, Output, check_outputs
from lowprec.verification import Report
from lowprec.verification.results import save

DATA = train.Dataset(np.eye(6, 4), [0, 1, 2] * 2, np.eye(3, 4), [0, 1, 2])
MODEL = train.Sequential([train.Input((4,)), train.Dense(3)])
FIT = {"loss": "sparse_categorical_crossentropy", "optimizer": "sgd", "verbose": False}


def other_names(path):
    """Return names that lead to a file, which exists: its own, through folders and links."""
    (path.parent / "d").mkdir()
    symbolic, hard = path.with_name("symbolic.npz"), path.with_name("hard.npz")
    symbolic.symlink_to(path)
    os.link(path, hard)
    return [path, path.parent / "d" / ".." / path.name, symbolic, hard]


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "ck.npz"
    np.savez(path, w=np.float32([1.5, 2.5]))
    return path


@pytest.mark.parametrize("option", ["--html", "--json"])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_compare_never_replaces_what_it_reads(checkpoint, option, overwrite, capsys):
    before = checkpoint.read_bytes()
    for name in other_names(checkpoint):
        assert main(["compare", str(checkpoint), option, str(name), *overwrite]) == 1
        out, err = capsys.readouterr()
        assert option in err
        assert "is a file that is read" in err
        assert not out, "nothing was measured"
        assert checkpoint.read_bytes() == before


def test_compare_never_replaces_a_file_of_the_folder_that_it_reads(checkpoint, capsys):
    folder = checkpoint.parent
    np.save(folder / "left.npy", [1.0])
    (folder / "unread.pt").write_bytes(b"left where it is")
    for name in ("ck.npz", "left.npy", "unread.pt"):
        before = (folder / name).read_bytes()
        assert main(["compare", str(folder), "--json", str(folder / name), "--overwrite"]) == 1
        assert "is a file that is read" in capsys.readouterr().err
        assert (folder / name).read_bytes() == before
    assert main(["compare", str(folder), "--json", str(folder / "figures.json")]) == 0


def test_two_outputs_are_two_files(checkpoint, capsys):
    one = str(checkpoint.with_name("one"))
    assert main(["compare", str(checkpoint), "--json", one, "--html", one]) == 1
    assert "are one file; give two names" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--html", "--json"])
def test_a_file_that_lowprec_did_not_write_stays(checkpoint, option, capsys):
    mine = checkpoint.with_name("mine")
    for text in ("my own notes", "{}", '{"w": 1}', "<!doctype html><title>mine</title>"):
        mine.write_text(text)
        command = ["compare", str(checkpoint), option, str(mine)]
        assert main(command) == 1
        out, err = capsys.readouterr()
        assert "it exists and is not" in err
        assert "--overwrite" in err
        assert not out
        assert mine.read_text() == text
        assert main([*command, "--overwrite"]) == 0
        assert mine.read_text() != text
        assert main(command) == 0, "its own may be replaced"
        capsys.readouterr()


def test_a_page_of_one_command_is_not_replaced_by_another(checkpoint, capsys):
    page = checkpoint.with_name("page.html")
    assert main(["compare", str(checkpoint), "--html", str(page)]) == 0
    assert main(["report", "-o", str(page)]) == 1
    assert "it exists and is not a page of lowprec report" in capsys.readouterr().err
    with pytest.raises(FileExistsError, match=r"is not a page of lowprec train --record"):
        train.Recorder().report(page)


def test_report_looks_before_it_works(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lowprec.report.datasets.load", lambda: pytest.fail("it has begun"))
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    assert main(["report", "-o", str(mine)]) == 1
    assert main(["report", "-o", str(tmp_path)]) == 1
    assert "it is a folder; name a file in it" in capsys.readouterr().err
    assert mine.read_text() == "mine"


def test_verify_replaces_only_its_own_results(tmp_path, monkeypatch, capsys):
    path = tmp_path / "verify.json"
    command = ["verify", "--formats", "float8_e5m2", "--operations", "sqrt", "--sample", "1"]
    command += ["--rounding", "RNE", "-o", str(path)]
    for mine in (path, tmp_path / "verify.incomplete.json"):
        mine.write_text("{}")
        assert main(command) == 1
        out, err = capsys.readouterr()
        assert "is not the results of lowprec verify" in err
        assert not out
        assert mine.read_text() == "{}"
        mine.unlink()
    assert main(command) == main(command) == 0
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="results of lowprec verify"):
        save(Report({}, 0), path)
    assert main([*command, "--overwrite"]) == 0
    assert json.loads(path.read_text())["complete"]


def test_train_never_replaces_its_data(tmp_path, capsys):
    data = tmp_path / "mnist.npz"
    fields = {name: getattr(DATA, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(data, **fields)
    before = data.read_bytes()
    one = ["train", "--data", str(data), "--policies", "float32", "--seeds", "1", "--epochs", "1"]
    for option in ("--save", "--json", "--record"):
        for overwrite in ([], ["--overwrite"]):
            assert main([*one, option, str(data), *overwrite]) == 1
            assert "is a file that is read" in capsys.readouterr().err
            assert data.read_bytes() == before
    several = ["train", "--data", str(data), "--policies", "float32", "--seeds", "2"]
    assert main([*several, "--html", str(data), "--overwrite"]) == 1
    named = tmp_path / "float32-1.npz"  # as a run is called
    data.rename(named)
    several[2] = str(named)
    assert main([*several, "--save", str(tmp_path), "--overwrite"]) == 1
    assert "is a file that is read" in capsys.readouterr().err
    assert named.read_bytes() == before


def test_resume_and_save_may_name_one_training(tmp_path, capsys):
    path = str(tmp_path / "run.npz")
    command = ["train", "--data", "linear", "--hidden", "none", "--policies", "float32"]
    command += ["--seeds", "1", "--save", path]
    assert main([*command, "--epochs", "1"]) == 0
    assert main([*command, "--epochs", "2", "--resume", path]) == 0
    assert len(train.History.load(path).epoch) == 2
    capsys.readouterr()
    assert main([*command[:-2], "--epochs", "3", "--resume", path, "--json", path]) == 1
    assert "is a file that is read" in capsys.readouterr().err
    assert len(train.History.load(path).epoch) == 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_functions_replace_what_they_wrote_and_nothing_else(tmp_path, overwrite):
    history = train.fit(MODEL, DATA, **FIT)
    recorder = train.Recorder()
    recorder.observe(0, "weight", "w", [1.0])
    for write in (history.save, recorder.save, recorder.report):
        path = tmp_path / write.__qualname__
        write(path)
        write(path)
        path.write_bytes(b"mine")
        if overwrite:
            write(path, overwrite=True)
            assert path.read_bytes() != b"mine"
        else:
            with pytest.raises(
                FileExistsError, match=r"give another name, or replace it with over"
            ):
                write(path)
            assert path.read_bytes() == b"mine"


def test_a_saved_recorder_is_not_replaced_by_a_history(tmp_path):
    train.Recorder().save(tmp_path / "r.npz")
    with pytest.raises(FileExistsError, match="is not a history that lowprec saved"):
        train.fit(MODEL, DATA, **FIT).save(tmp_path / "r.npz")


def test_a_checkpoint_is_refused_before_the_training(tmp_path):
    mine = tmp_path / "mine.npz"
    mine.write_bytes(b"mine")

    def loss(y_true, y_pred):
        pytest.fail("the training has begun")

    with pytest.raises(FileExistsError, match="is not a history that lowprec saved"):
        train.fit(MODEL, DATA, **FIT | {"loss": loss}, callbacks=[train.Checkpoint(mine)])
    train.fit(MODEL, DATA, **FIT, callbacks=[train.Checkpoint(mine, overwrite=True)])
    assert train.History.load(mine).epoch == [0]


def test_a_comparison_of_policies_is_refused_before_the_first_run(tmp_path):
    mine = tmp_path / "float32-1.npz"
    mine.write_bytes(b"mine")
    how = {"policies": "float32", "seeds": 2, "epochs": 1, "folder": tmp_path}
    with pytest.raises(FileExistsError, match=r"float32-1\.npz"):
        train.compare_policies(MODEL, DATA, **how)
    assert list(tmp_path.iterdir()) == [mine]
    train.compare_policies(MODEL, DATA, **how, overwrite=True)
    train.compare_policies(MODEL, DATA, **how)
    assert train.History.load(mine).epoch == [0]


def test_convert_replaces_its_source_only_if_that_is_said(checkpoint):
    before = checkpoint.read_bytes()
    for target in other_names(checkpoint):
        with pytest.raises(FileExistsError, match="overwrite=True"):
            tensors.convert(checkpoint, target, "float16", scale=True)
        assert checkpoint.read_bytes() == before
    tensors.convert(checkpoint, checkpoint, "float16", overwrite=True)
    assert tensors.open_tensors(checkpoint)["w"].dtype == np.float16


def test_convert_looks_before_it_works(checkpoint, monkeypatch):
    monkeypatch.setattr(
        "lowprec.tensors.request.scale_for", lambda *args: pytest.fail("it has begun")
    )
    (checkpoint.parent / "y.npz").write_bytes(b"mine")
    for target in (checkpoint.parent / "y.npz", checkpoint.parent / "none" / "y.npz"):
        with pytest.raises(OSError, match=r"it exists|no such folder"):
            tensors.convert(checkpoint, target, "float16", scale=True)


def test_a_folder_that_cannot_be_written_is_known_before(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for a user without the right
    with pytest.raises(PermissionError, match="this folder cannot be written"):
        check_outputs([Output(tmp_path / "new", NEVER_REPLACED)])
    check_outputs([Output(os.devnull, NEVER_REPLACED)])


# Nothing done is not a success ------------------------------------------------------------------


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_is_an_error(checkpoint, option, capsys):
    target = checkpoint.with_name("y.npz")
    for pattern, words in (("nomatch*", "the names are w"), ("W", "did you mean 'w'?")):
        command = ["convert", str(checkpoint), "--to", "float16", "-o", str(target)]
        assert main([*command, f"--{option}", pattern]) == 1
        err = capsys.readouterr().err
        assert f"{option} {pattern!r} matches none" in err
        assert words in err
        with pytest.raises(ValueError, match="matches none of the 1 names"):
            tensors.convert(checkpoint, target, "float16", **{option: pattern})
    assert not target.exists()


def test_patterns_that_select_nothing_together_are_an_error(checkpoint):
    for how in ({"exclude": "*"}, {"include": "w", "exclude": "w"}):
        with pytest.raises(ValueError, match="nothing is left to convert"):
            tensors.convert(checkpoint, checkpoint.with_name("y.npz"), "float16", **how)


def test_verify_without_the_oracle_that_is_asked_for_fails(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "mpmath", None)
    command = ["verify", "--formats", "float8_e5m2", "--operations", "exp", "--sample", "1"]
    assert main(command) == 1
    assert "needs mpmath" in capsys.readouterr().err


# Folders -----------------------------------------------------------------------------------------


def test_what_is_left_of_a_folder_is_said(tmp_path, capsys, caplog):
    tensors.write_tensors(tmp_path / "model.safetensors", {"w": np.float32([1, 2])})
    np.savez(tmp_path / "a.npz", x=np.float32([1]))
    assert list(tensors.open_tensors(tmp_path)) == ["w"]
    assert "model.safetensors is taken and a.npz left" in caplog.text
    caplog.clear()
    assert main(["compare", str(tmp_path)]) == 0
    assert "model.safetensors is taken and a.npz left" in capsys.readouterr().err
    out = tmp_path / "out"
    out.mkdir()
    assert main(["convert", str(tmp_path), "--to", "float16", "-o", str(out)]) == 0
    assert "a.npz left" in capsys.readouterr().err
    assert not caplog.text, "a command says it once"
    tensors.convert(tmp_path, out, "float16", overwrite=True)
    assert "a.npz left" in caplog.text


def test_numpys_files_are_taken_together(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", x=np.float32([1]))
    np.save(tmp_path / "b.npy", np.float32([2]))
    assert sorted(tensors.open_tensors(tmp_path)) == ["b", "x"]
    np.savez(tmp_path / "c.npz", x=np.float32([3]))
    assert main(["compare", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "b.npy" in out
    assert "a.npz:x" in out
    assert "c.npz:x" in out
    assert not err


def test_torchs_files_are_taken_together(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    torch.save({"m": torch.ones(2)}, tmp_path / "adapter.pt")
    assert main(["compare", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "pytorch_model.bin:w" in out
    assert "adapter.pt:m" in out
    assert not err


# Control-C ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "where"),
    [
        (["verify", "--sample", "1"], "lowprec.verification.verify"),
        (["report", "-o", "page.html"], "lowprec.report.page.write_report"),
        (["train", "--seeds", "1", "--policies", "float32"], "lowprec.train.fit"),
        (["compare"], "lowprec.analysis.compare"),
        (
            ["convert", "x.npz", "--to", "float16", "-o", "y.npz"],
            "lowprec.tensors.converting.convert",
        ),
    ],
)
def test_control_c_has_an_exit_code_of_its_own(command, where, monkeypatch, capsys):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    assert main(command) == INTERRUPTED == 130
    assert capsys.readouterr().err.splitlines()[-1] == "lowprec: interrupted"
