"""Histories and archives: every bit survives a file, and a damaged file is never read."""

from __future__ import annotations

import builtins
import copy
import json
import pickle
import zipfile

import numpy as np
import pytest

from lowprec.train.running.archive import read_archive, write_archive
from lowprec.train.running.history import History

NAN_WITH_PAYLOAD = np.array([0x7FF0_0000_0000_0001, 0xFFF8_0000_0000_1234], np.uint64)


def example(epochs=3, scales=(), skipped=()):
    rng = np.random.default_rng(0)
    curves = ["loss", "accuracy", "val_loss", "val_accuracy"]
    return History(
        history={name: rng.random(epochs).tolist() for name in curves},
        params={
            "0/kernel": rng.normal(size=(3, 2)).astype(np.float32),
            "0/bias": np.array([-0.0, np.nan], np.float32),
        },
        loss_scales=list(scales),
        skipped_steps=list(skipped),
        skip_reasons=[f"gradient of 0/kernel holds inf in step {step}" for step in skipped],
        epoch=list(range(epochs)),
        facts={
            "policy": "mixed_float16",
            "seed": 2**127 + 1,
            "rate": 0.1,
            "nested": {"a": [1]},
        },
        state={"first_moment/0/kernel": rng.normal(size=(3, 2)), "step": np.array(7)},
    )


def assert_same_arrays(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


# Histories ---------------------------------------------------------------------------------------


def test_a_saved_history_loads_bit_for_bit(tmp_path):
    saved = example(scales=[65536.0, 32768.0, 1e-300], skipped=[0, 2])
    saved.history["loss"] = [0.1, float("inf"), -0.0]
    saved.save(tmp_path / "h.npz")
    loaded = History.load(tmp_path / "h.npz")
    assert_same_arrays(loaded.params, saved.params)
    assert_same_arrays(loaded.state, saved.state)
    assert list(loaded.history) == list(saved.history)
    for name, values in saved.history.items():
        assert [v.hex() for v in loaded.history[name]] == [v.hex() for v in values]
    for name in ("loss_scales", "skipped_steps", "skip_reasons", "epoch", "facts"):
        assert getattr(loaded, name) == getattr(saved, name)
    assert loaded.recorder is None


def test_the_state_knows_what_each_array_is(tmp_path):
    saved = example()
    saved.save(tmp_path / "h.npz")
    copies = (
        copy.deepcopy(saved),
        pickle.loads(pickle.dumps(saved)),
        History.load(tmp_path / "h.npz"),
    )
    for history in (saved, *copies):
        told = [(slot, slot.kind, slot.parameter) for slot in history.state]
        name = "first_moment/0/kernel"
        assert told == [(name, "first_moment", "0/kernel"), ("step", "step", "")]
        assert history.state[name] is history.state[told[0][0]]


def test_nan_in_a_curve_keeps_its_bits(tmp_path):
    history = History({"loss": NAN_WITH_PAYLOAD.view(np.float64).tolist()}, epoch=[0, 1])
    history.save(tmp_path / "h.npz")
    loaded = np.array(History.load(tmp_path / "h.npz").history["loss"])
    np.testing.assert_array_equal(loaded.view(np.uint64), NAN_WITH_PAYLOAD)


def test_an_empty_history_survives(tmp_path):
    History().save(tmp_path / "h.npz")
    assert vars(History.load(tmp_path / "h.npz")) == vars(History())


def test_facts_that_json_cannot_hold_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(TypeError, match="JSON cannot hold"):
        History(facts={"seed": np.int64(1)}).save(tmp_path / "h.npz")
    assert not list(tmp_path.iterdir())


def test_another_archive_is_no_history(tmp_path):
    write_archive(tmp_path / "a.npz", {}, {})
    with pytest.raises(ValueError, match="is an archive of lowprec, but not a saved history"):
        History.load(tmp_path / "a.npz")


def test_a_history_in_words_is_its_last_epoch():
    history = example(skipped=[5])
    history.history = {"loss": [1.0, 0.00012345], "accuracy": [0.5, 0.75]}
    assert str(history) == (
        "History: 3 epochs in mixed_float16, 1 step skipped; loss 1.2345e-04, accuracy 0.7500"
    )
    assert str(History()) == "History: 0 epochs"
    shown = history._repr_html_()
    assert "mixed_float16" in shown
    assert "0.7500" in shown
    history.facts["policy"] = "<b>"
    assert "<b>," not in history._repr_html_()


# Archives ----------------------------------------------------------------------------------------


ARRAYS = {
    "empty": np.zeros((0, 3)),
    "0-d": np.array(1.5, np.float16),
    "a/b/c": np.arange(6).reshape(2, 3).T,
    "file": np.array([True, False]),
    "text": np.array(["grün", ""]),
    "complex": np.array([1j]),
    "header": np.arange(3, dtype=np.uint8),
}


def test_an_archive_keeps_arrays_of_every_kind(tmp_path):
    write_archive(tmp_path / "a", ARRAYS, {"é": [1, None, 0.1]})
    arrays, header = read_archive(tmp_path / "a")
    assert_same_arrays(arrays, ARRAYS)
    assert header == {"é": [1, None, 0.1]}
    assert arrays["a/b/c"].flags.f_contiguous


def test_numpy_reads_an_archive(tmp_path):
    write_archive(tmp_path / "a.npz", ARRAYS, {})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["a/b/c"], ARRAYS["a/b/c"])


def test_the_same_content_is_the_same_bytes(tmp_path, monkeypatch):
    write_archive(tmp_path / "a", ARRAYS, {"x": 1})
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_archive(tmp_path / "b", ARRAYS, {"x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_any_damage_is_found_or_harmless(tmp_path):
    path = tmp_path / "a"
    written = {"x": np.arange(5.0), "y/z": np.ones((2, 3), np.float32)}
    write_archive(path, written, {"x": 1})
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(len(whole))]
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        damaged.append(bytes(content))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            arrays, header = read_archive(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
        else:
            assert_same_arrays(arrays, written)
            assert header == {"x": 1}
    assert refused > 1.5 * len(whole)  # every truncation, and most flipped bits


@pytest.mark.parametrize("content", [b"", b"words", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or no archive of lowprec"):
        read_archive(tmp_path / "a")


def test_an_npz_of_numpys_own_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    with pytest.raises(ValueError, match=r"is damaged or no archive of lowprec"):
        read_archive(tmp_path / "a.npz")


def test_another_version_is_refused_by_name(tmp_path):
    header = {"kind": "lowprec archive", "version": 99, "arrays": [], "header": {}}
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr("header.json", json.dumps(header))
    with pytest.raises(ValueError, match=r"has version 99 .* this lowprec reads version 1"):
        read_archive(tmp_path / "a")


def test_pickles_are_never_read(tmp_path):
    header = {"kind": "lowprec archive", "version": 1, "arrays": ["x"], "header": {}}
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr("header.json", json.dumps(header))
        with archive.open("x.npy", "w") as member:
            np.lib.format.write_array(member, np.array([None]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_archive(tmp_path / "a")


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "object", "structured"])
def test_arrays_that_npy_cannot_hold_are_refused_by_name(tmp_path, dtype):
    import ml_dtypes

    kinds = {"object": object, "structured": [("a", "f4")]}
    array = np.zeros(2, kinds.get(dtype) or getattr(ml_dtypes, dtype))
    with pytest.raises(TypeError, match="w holds"):
        write_archive(tmp_path / "a", {"w": array}, {})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_archive(tmp_path / "a", {"x": np.ones(2)}, {})
    before = (tmp_path / "a").read_bytes()

    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(OSError, match="no space"):
        write_archive(tmp_path / "a", {"x": np.zeros(2)}, {})
    assert (tmp_path / "a").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder.*absent"):
        write_archive(tmp_path / "absent" / "a", {}, {})
    with pytest.raises(FileNotFoundError):
        read_archive(tmp_path / "absent")


# Figures -----------------------------------------------------------------------------------------


@pytest.fixture
def _matplotlib():
    pytest.importorskip("matplotlib", reason="the report's extra is missing")


@pytest.mark.usefixtures("_matplotlib")
def test_plot_shows_loss_and_metric_in_training_and_validation():
    history = example(epochs=4)
    figure = history.plot()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "accuracy"]
    for axes, name in zip(figure.axes, ("loss", "accuracy"), strict=True):
        drawn = [line.get_ydata().tolist() for line in axes.lines]
        assert drawn == [history.history[name], history.history[f"val_{name}"]]
        assert axes.lines[0].get_xdata().tolist() == [1, 2, 3, 4]
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.usefixtures("_matplotlib")
def test_plot_shows_the_loss_scale_and_its_skips():
    scales = [65536.0, 32768.0, 32768.0, 65536.0]
    axes = example(scales=scales, skipped=[0]).plot().axes[-1]
    assert axes.get_title(loc="left") == "loss scale"
    assert axes.lines[0].get_ydata().tolist() == scales
    assert (axes.lines[1].get_xdata().tolist(), axes.lines[1].get_ydata().tolist()) == (
        [0],
        [65536.0],
    )
    assert len(example(scales=[1.0] * 4).plot().axes) == 2


@pytest.mark.usefixtures("_matplotlib")
def test_plot_says_where_a_curve_is_not_finite(tmp_path):
    history = History({"loss": [1.0, float("nan"), float("inf")]}, epoch=[0, 1, 2])
    figure = history.plot()
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["training, not finite from epoch 2"]
    figure.savefig(tmp_path / "a.svg")


def test_plot_needs_an_epoch():
    with pytest.raises(ValueError, match="no epoch was trained"):
        History().plot()


def test_plot_without_matplotlib_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "lowprec\[report\]"'):
        example().plot()
