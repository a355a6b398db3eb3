"""Callbacks against a training that only pretends: Keras' rules, and files that are whole."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from lowprec.train.callbacks import Callback, Checkpoint, EarlyStopping
from lowprec.train.running.history import History


class Run:
    """A training whose parameters are the number of its epoch, kept in one array."""

    def __init__(self, earlier=()):
        self.params = {"w": np.full(2, float(len(earlier)))}
        self.history = History()
        self.epoch, self.stop_training = 0, False
        for logs in earlier:
            self.keep(logs)

    def keep(self, logs):
        self.history.epoch.append(self.epoch)
        self.epoch += 1
        for name, value in logs.items():
            self.history.history.setdefault(name, []).append(value)

    def snapshot(self):
        params = {name: values.copy() for name, values in self.params.items()}
        return History(dict(self.history.history), params, epoch=list(self.history.epoch))


def train(callback, values, name="val_loss", earlier=()):
    """Run through epochs whose logs hold one value; return the run."""
    run = Run([{name: value} for value in earlier])
    callback.on_train_begin(run)
    for epoch, value in enumerate(values, len(earlier)):
        callback.on_epoch_begin(epoch, run)
        run.params["w"][:] = epoch
        callback.on_batch_end(epoch, {"loss": 1.0}, run)
        run.keep({name: value})
        callback.on_epoch_end(epoch, {name: value}, run)
        if run.stop_training:
            break
    callback.on_train_end(run)
    return run


def test_a_callback_that_overrides_nothing_changes_nothing():
    run = train(Callback(), [1.0, 2.0])
    assert (run.epoch, run.stop_training) == (2, False)


# Early stopping ----------------------------------------------------------------------------------


def keras_stops_after(values, patience, min_delta, sign):
    """Keras' rule, restated: the number of epochs that are trained, and the best of them."""
    best, wait, best_epoch = math.inf, 0, None
    for epoch, value in enumerate(values):
        wait += 1
        if sign * value + min_delta < best:
            best, best_epoch, wait = sign * value, epoch, 0
        elif wait >= patience and epoch > 0:
            return epoch + 1, best_epoch
    return len(values), best_epoch


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [0, 1, 2, 3])
@pytest.mark.parametrize("min_delta", [0.0, 1.5])
def test_early_stopping_is_keras_rule(mode, patience, min_delta):
    for values in itertools.product([1.0, 2.0, 3.0, math.nan], repeat=5):
        callback = EarlyStopping("x", min_delta, patience, mode, restore_best_weights=True)
        run = train(callback, values, "x")
        trained, best = keras_stops_after(values, patience, min_delta, -1 if mode == "max" else 1)
        assert run.epoch == trained
        assert run.params["w"].tolist() == [trained - 1 if best is None else best] * 2
        assert callback.stopped_epoch == (trained - 1 if run.stop_training else None)


def test_without_restoring_the_last_parameters_stay():
    run = train(EarlyStopping(patience=1), [1.0, 2.0])
    assert run.stop_training
    assert run.params["w"].tolist() == [1, 1]


def test_a_negative_min_delta_means_its_size():
    assert train(EarlyStopping(min_delta=-0.5, patience=2), [3.0, 2.9, 2.8, 1.0]).epoch == 3


def test_a_callback_used_again_begins_anew():
    callback = EarlyStopping(patience=2)
    assert train(callback, [1.0, 2.0, 3.0]).epoch == 3
    assert train(callback, [9.0, 8.0, 7.0, 8.0, 9.0, 1.0]).epoch == 5


@pytest.mark.parametrize("cut", range(6))
def test_a_resumed_training_stops_where_the_whole_one_does(cut):
    values = [3.0, 2.0, 2.5, 2.5, 1.9, 2.0, 2.0, 2.0, 0.0]
    assert train(EarlyStopping(patience=3), values).epoch == 8
    resumed = train(EarlyStopping(patience=3), values[cut:], earlier=values[:cut])
    assert resumed.epoch == 8


def test_accuracy_is_good_when_large():
    for name in ("val_accuracy", "acc", "my_accuracy", "val_r2", "precision", "recall", "top_3"):
        assert EarlyStopping(name).mode == "max"
    for name in ("val_loss", "rmse", "val_mae", "my_own"):
        assert EarlyStopping(name).mode == "min"
    assert train(EarlyStopping("accuracy"), [0.1, 0.2, 0.3], "accuracy").epoch == 3


def test_a_monitor_that_is_not_logged_is_refused_with_the_names():
    with pytest.raises(ValueError, match="'val_loss' is not among the logs; monitor one of loss"):
        train(EarlyStopping(), [1.0], "loss")


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"mode is 'least'; .* auto, min or max"):
        EarlyStopping(mode="least")


# Checkpoints -------------------------------------------------------------------------------------


def test_best_and_last_are_saved(tmp_path):
    best, last = tmp_path / "best.npz", tmp_path / "last.npz"
    for callback in (Checkpoint(best, save_best_only=True), Checkpoint(last)):
        train(callback, [3.0, 1.0, 2.0, 1.0])
    assert History.load(best).params["w"].tolist() == [1, 1]
    assert History.load(best).epoch == [0, 1]
    assert History.load(last).params["w"].tolist() == [3, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.npz", "last.npz"]


def test_the_best_of_a_resumed_training_must_beat_the_earlier_epochs(tmp_path):
    path = tmp_path / "best.npz"
    train(Checkpoint(path, save_best_only=True), [2.0, 3.0], earlier=[1.0])
    assert not path.exists()
    train(Checkpoint(path, save_best_only=True), [2.0, 0.5], earlier=[1.0])
    assert History.load(path).epoch == [0, 1, 2]


def test_nan_is_never_the_best(tmp_path):
    path = tmp_path / "best.npz"
    train(Checkpoint(path, save_best_only=True), [math.nan, 2.0, math.nan])
    assert History.load(path).epoch == [0, 1]


def test_a_path_takes_the_epoch_and_the_logs(tmp_path):
    train(Checkpoint(tmp_path / "m-{epoch:02d}-{val_loss:.2f}.npz"), [3.0, 0.125])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m-01-3.00.npz", "m-02-0.12.npz"]


def test_a_path_that_asks_for_another_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="asks for 'val_acc'; in braces can stand epoch, val_loss"):
        train(Checkpoint(tmp_path / "{val_acc}.npz"), [3.0])


def test_a_checkpoint_that_is_interrupted_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "last.npz"
    train(Checkpoint(path), [3.0])

    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(KeyboardInterrupt):
        train(Checkpoint(path), [2.0])
    assert History.load(path).history == {"val_loss": [3.0]}
    assert [found.name for found in tmp_path.iterdir()] == ["last.npz"]


# With a real training ----------------------------------------------------------------------------


def fit(**changes):
    from lowprec import train as training

    model = training.Sequential(
        [training.Input((1,)), training.Dense(4, "tanh"), training.Dense(1)]
    )
    arguments = {"loss": "mse", "optimizer": training.SGD(0.05), "policy": "mixed_bfloat16"}
    return training.fit(model, training.data.linear().scaled("standard"), **(arguments | changes))


def assert_same_bits(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes()


def test_a_training_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path):
    path = tmp_path / "{epoch}.npz"
    whole = fit(epochs=4, callbacks=[Checkpoint(path)])
    resumed = fit(epochs=4, resume=tmp_path / "2.npz")
    assert_same_bits(resumed.params, whole.params)
    assert resumed.history == whole.history
    assert_same_bits(History.load(tmp_path / "4.npz").params, whole.params)


def test_a_training_ends_with_its_best_parameters(tmp_path):
    stop = EarlyStopping("loss", patience=1, mode="max", restore_best_weights=True)
    found = fit(epochs=9, callbacks=[stop, Checkpoint(tmp_path / "1.npz", "loss", True, "max")])
    assert (found.epoch, stop.best_epoch, stop.stopped_epoch) == ([0, 1], 0, 1)
    assert_same_bits(found.params, fit(epochs=1).params)
    assert_same_bits(History.load(tmp_path / "1.npz").params, found.params)
