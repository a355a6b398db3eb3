"""Callbacks, schedules and metrics in Keras' words, beside Keras, PyTorch and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lowprec import train

SPARSE = "sparse_categorical_crossentropy"


def data(samples=64, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, samples)
    x = rng.standard_normal((samples, 4)).astype(np.float32)
    x[:, 0] += y
    return x, y


def fit(optimizer="sgd", epochs=3, x_y=None, **how):
    model = train.Sequential([train.Input((4,)), train.Dense(8, "relu"), train.Dense(3)])
    how = {"loss": SPARSE, "verbose": 0, "optimizer": optimizer, "epochs": epochs} | how
    return train.fit(model, x_y or data(), **how)


# Curves and schedules ----------------------------------------------------------------------------


def test_a_rate_that_varies_and_a_loss_scale_have_curves():
    level = fit(train.SGD(0.25))
    assert set(level.history) == {"loss", "accuracy"}
    assert level.history["learning_rate"] == [0.25] * 3
    assert level.history["loss_scale"] == [1.0] * 3
    with pytest.raises(KeyError, match="which has loss, accuracy"):
        level.history["acuracy"]
    rate = train.schedules.Exponential(0.1, 0.5, steps=2)
    history = fit(train.SGD(rate), policy="mixed_float16")
    assert list(history.history)[-2:] == ["learning_rate", "loss_scale"]
    applied = 6 - len(history.skipped_steps)
    assert history.history["learning_rate"][-1] == pytest.approx(rate(applied - 1))
    assert history.history["loss_scale"] == history.loss_scales[1::2]


SCHEDULES = [
    train.schedules.Power(0.1, 2, unit="epochs"),
    train.schedules.Exponential(0.1, 0.5, 1, unit="epochs"),
    train.schedules.PiecewiseConstant((1, 2), (0.1, 0.01, 0.001), unit="epochs"),
    train.schedules.Cosine(0.1, 3, unit="epochs"),
    train.schedules.OneCycle(0.1, 3, unit="epochs"),
    train.schedules.WarmUp(0.1, 2, unit="epochs"),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda one: type(one).__name__)
def test_a_schedule_of_epochs_changes_from_epoch_to_epoch(schedule):
    history = fit(train.SGD(schedule))
    assert history.history["learning_rate"] == [schedule(epoch) for epoch in range(3)]
    with pytest.raises(ValueError, match="'weeks' is not a schedule's unit"):
        type(schedule)(**{**vars(schedule), "unit": "weeks"})


def test_warm_up_counts_what_its_schedule_counts():
    with pytest.raises(ValueError, match="pass unit='epochs' to both"):
        train.schedules.WarmUp(train.schedules.Cosine(0.1, 3, unit="epochs"), 2)


def test_an_exponential_that_grows_is_refused():
    with pytest.raises(ValueError, match="a decay is at most 1"):
        train.schedules.Exponential(0.1, 1.01, 10)


CYCLED = {
    "SGD": (lambda rate: train.SGD(rate), lambda p: ("SGD", p, {"lr": 0.1})),
    "Momentum": (
        lambda rate: train.Momentum(rate, 0.9),
        lambda p: ("SGD", p, {"lr": 0.1, "momentum": 0.9}),
    ),
    "Nesterov": (
        lambda rate: train.Nesterov(rate, 0.9),
        lambda p: ("SGD", p, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ),
    "RMSprop": (lambda rate: train.RMSprop(rate), lambda p: ("RMSprop", p, {"lr": 0.1})),
    "Adam": (lambda rate: train.Adam(rate), lambda p: ("Adam", p, {"lr": 0.1})),
    "AdamW": (lambda rate: train.AdamW(rate), lambda p: ("AdamW", p, {"lr": 0.1})),
    "Adamax": (lambda rate: train.Adamax(rate), lambda p: ("Adamax", p, {"lr": 0.1})),
}


@pytest.mark.parametrize("name", CYCLED)
def test_one_cycle_moves_momentum_as_pytorch_does(name):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    ours, theirs = CYCLED[name]
    steps = 30
    optimizer = ours(train.schedules.OneCycle(0.02, steps))
    w = torch.nn.Parameter(torch.tensor([3.0, -2.0, 0.5]))
    kind, params, words = theirs([w])
    peer = getattr(torch.optim, kind)(params, **words)
    schedule = torch.optim.lr_scheduler.OneCycleLR(peer, max_lr=0.02, total_steps=steps)
    params = {"w": np.float32([3.0, -2.0, 0.5])}
    state = optimizer.at(0).init(params)
    for step in range(steps - 1):
        peer.zero_grad()
        (w**2).sum().backward()
        peer.step()
        schedule.step()
        gradients = {"w": 2 * params["w"]}
        rate = optimizer.rate(step)
        now = optimizer.at(step)
        updates, state = now.update(gradients, state, params, step + 1, rate)
        params = {"w": params["w"] + updates["w"]}
        np.testing.assert_allclose(params["w"], w.detach().numpy(), rtol=2e-5, atol=1e-6)


def test_momentum_can_stay_and_training_uses_the_moved_one():
    still = train.schedules.OneCycle(0.1, 20, cycle_momentum=False)
    assert still.momentum(3) is None
    optimizer = train.Momentum(still, 0.9)
    assert optimizer.at(3) is optimizer
    moved = fit(train.Momentum(train.schedules.OneCycle(0.1, 20), 0.9))
    fixed = fit(optimizer)
    assert not np.array_equal(moved.params["0/kernel"], fixed.params["0/kernel"])


# Callbacks ---------------------------------------------------------------------------------------


class Fake:
    """A run whose rate a callback may set."""

    def __init__(self):
        self.learning_rate = 1.0
        self.history = train.History()
        self.stop_training = False


@pytest.mark.parametrize("how", [{}, {"cooldown": 2}, {"min_delta": 0.2}, {"patience": 1}])
def test_plateaus_are_keras(how, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    how = {"factor": 0.5, "patience": 2, "min_lr": 0.01} | how

    class Optimizer:
        learning_rate = 1.0

    class Model:
        optimizer = Optimizer()

    theirs = keras.callbacks.ReduceLROnPlateau(**how)
    theirs.set_model(Model())
    theirs.on_train_begin()
    ours, run = train.ReduceLROnPlateau(**how), Fake()
    ours.on_train_begin(run)
    rng = np.random.default_rng(0)
    for epoch, loss in enumerate(np.maximum(1.0, 3 - np.arange(40) / 4) + rng.random(40) * 0.1):
        theirs.on_epoch_end(epoch, {"val_loss": loss})
        ours.on_epoch_end(epoch, {"val_loss": loss}, run)
        assert run.learning_rate == pytest.approx(float(Model.optimizer.learning_rate), rel=1e-6)
    assert run.learning_rate < 1


def test_a_reduced_rate_is_used_shown_and_saved(tmp_path):
    class AtOnce(train.Callback):
        def on_epoch_end(self, epoch, logs, run):
            if epoch == 1:
                run.learning_rate /= 10

    history = fit(train.SGD(0.1), epochs=4, callbacks=[AtOnce()])
    assert history.history["learning_rate"] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    two = fit(train.SGD(0.1), epochs=2, callbacks=[AtOnce()])
    two.save(tmp_path / "two.npz")
    resumed = fit(train.SGD(0.1), epochs=4, resume=tmp_path / "two.npz")
    np.testing.assert_array_equal(resumed.params["0/kernel"], history.params["0/kernel"])
    plateau = train.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10)
    shown = fit(train.SGD(0.1), epochs=4, callbacks=[plateau])
    assert shown.history["learning_rate"] == pytest.approx([0.1, 0.1, 0.05, 0.025])
    with pytest.raises(ValueError, match="follows Cosine"):
        fit(train.SGD(train.schedules.Cosine(0.1, 9)), epochs=4, callbacks=[plateau])


def test_the_rate_scheduler_is_keras():
    twice = train.LearningRateScheduler(lambda epoch, rate: rate * 2)
    assert fit(train.SGD(0.1), callbacks=[twice]).history["learning_rate"] == [0.2, 0.4, 0.8]
    plain = train.LearningRateScheduler(lambda epoch: 0.1 / (1 + epoch))
    found = fit(train.SGD(0.1), callbacks=[plain]).history["learning_rate"]
    assert found == [0.1, 0.05, 0.1 / 3]


def test_csv_logs_are_whole_appended_and_not_lost(tmp_path):
    path = tmp_path / "log.csv"
    history = fit(callbacks=[train.CSVLogger(path)], validation_split=0.25)
    lines = path.read_text().splitlines()
    assert lines[0] == "epoch,accuracy,loss,val_accuracy,val_loss"
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table[:, 2], history.history["loss"])
    fit(callbacks=[train.CSVLogger(path, append=True)], validation_split=0.25)
    assert len(path.read_text().splitlines()) == 7
    with pytest.raises(ValueError, match="has the columns"):
        fit(callbacks=[train.CSVLogger(path, append=True)])
    assert len(path.read_text().splitlines()) == 7
    path.write_text("my notes\n")
    with pytest.raises(FileExistsError):
        fit(callbacks=[train.CSVLogger(path)])
    assert path.read_text() == "my notes\n"


def test_the_best_model_is_saved_as_keras_saves_it(tmp_path, capsys):
    path = tmp_path / "best-cnn-model.keras"
    model = train.Sequential([train.Input((4,)), train.Dense(3, activation="softmax")])
    model.compile("adam", SPARSE)
    best = train.ModelCheckpoint(path, monitor="val_accuracy", save_best_only=True, verbose=1)
    history = model.fit(*data(), epochs=5, validation_split=0.25, callbacks=[best], verbose=0)
    place = int(np.argmax(history.history["val_accuracy"]))
    assert f"Epoch {place + 1}: saving model to" in capsys.readouterr().out
    again = train.load_model(path)
    assert again.history.facts["epoch"] == place + 1
    other = train.Sequential([train.Input((4,)), train.Dense(3, activation="softmax")])
    other.compile("adam", SPARSE)
    other.fit(*data(), epochs=place + 1, validation_split=0.25, verbose=0)
    np.testing.assert_array_equal(again.params["0/kernel"], other.params["0/kernel"])
    fit(callbacks=[train.ModelCheckpoint(tmp_path / "e{epoch}-{loss:.1f}.keras")], epochs=2)
    assert len(list(tmp_path.glob("e?-*.keras"))) == 2


def test_nan_ends_the_training_at_its_step():
    def bad(y_true, y_pred):
        value, gradient = train.losses.get(SPARSE)(y_true, y_pred)
        bad.calls += 1
        return (math.nan if bad.calls == 3 else value), gradient

    bad.calls = 0
    history = fit(loss=bad, epochs=5, callbacks=[train.TerminateOnNaN()], batch_size=8)
    assert len(history.step_losses) == 3
    assert len(history.epoch) == 1


def test_callbacks_in_keras_manner_need_no_run():
    seen = []

    class Stops(train.Callback):
        def on_train_begin(self, logs=None):
            seen.append("begin")

        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

        def on_epoch_end(self, epoch, logs=None):
            if logs["loss"] > 0:
                self.model.stop_training = True

    assert len(fit(epochs=5, callbacks=[Stops()], batch_size=32).epoch) == 1
    assert seen == ["begin", 0, 1]


# Metrics -----------------------------------------------------------------------------------------


def test_metrics_are_scikit_learns():
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    y, p = rng.normal(1e4, 1, (2, 200, 2)).astype(np.float32)
    p = y + 0.3 * (p - 1e4)
    logits = rng.standard_normal((200, 5)).astype(np.float32)
    labels = rng.integers(0, 5, 200)

    def averaged(metric, loss, y, outputs):
        averages = train.metrics.Averages([metric], train.metrics.Reading(loss))
        for rows in (slice(0, 7), slice(7, 130), slice(130, 200)):
            averages.add(0.0, y[rows], outputs[rows])
        return averages.result()[metric.name]

    get = train.metrics.get
    assert averaged(get("r2"), "mse", y, p) == pytest.approx(
        sklearn.r2_score(y.astype(float), p.astype(float)), rel=1e-9
    )
    assert averaged(get("mse"), "mse", y, p) == pytest.approx(
        sklearn.mean_squared_error(y, p), rel=1e-6
    )
    for k in (1, 2, 3):
        expected = sklearn.top_k_accuracy_score(labels, logits, k=k)
        assert averaged(get(f"top_{k}"), SPARSE, labels, logits) == pytest.approx(expected)
    answers, scores = labels > 2, logits[:, :1]
    for name in ("precision", "recall"):
        expected = getattr(sklearn, f"{name}_score")(answers, scores[:, 0] > 0)
        found = averaged(get(name), "binary_crossentropy", answers.astype(int), scores)
        assert found == pytest.approx(expected)
        one_hot = np.eye(5, dtype=np.float32)[labels]
        said = train.activations.softmax(4 * logits) > 0.5
        expected = getattr(sklearn, f"{name}_score")(one_hot, said, average="micro")
        for y_true, loss in ((labels, SPARSE), (one_hot, "categorical_crossentropy")):
            assert averaged(get(name), loss, y_true, 4 * logits) == pytest.approx(expected)


def test_a_function_is_given_what_predict_gives():
    seen = []

    def largest(y_true, y_pred):
        seen.append(y_pred)
        return y_pred.max(axis=-1)

    model = train.Sequential([train.Input((4,)), train.Dense(3, "softmax")])
    model.compile("sgd", SPARSE, metrics=[largest, "acc"])
    history = model.fit(*data(), verbose=0)
    assert list(history.history) == ["loss", "largest", "acc"]
    assert all(np.allclose(p.sum(axis=-1), 1) for p in seen)
    with pytest.raises(ValueError, match="there twice"):
        model.compile("sgd", SPARSE, metrics=["mae", "mae"])
