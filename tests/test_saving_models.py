"""A model in one file: every bit, without pickle; and what may not be lost."""

from __future__ import annotations

import dataclasses
import functools
import zipfile

import numpy as np
import pytest

from lowprec import Accumulator, train

SPARSE = "sparse_categorical_crossentropy"


def data(samples=64, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.random((samples, 6, 6, 1)).astype(np.float32)
    return x, rng.integers(0, 3, samples)


def cnn(**how):
    model = train.Sequential(
        [
            train.Input((6, 6, 1)),
            train.Conv2D(4, 3, padding="same", use_bias=False, kernel_regularizer="l2"),
            train.BatchNormalization(),
            train.LeakyReLU(0.1),
            train.MaxPooling2D(2),
            train.Flatten(),
            train.Dropout(0.2),
            train.Dense(
                8,
                activation=train.ELU(0.5),
                kernel_initializer=train.initializers.RandomNormal(0.1),
                kernel_constraint=train.MaxNorm(2.0),
                policy="float32",
            ),
            train.Dense(3, activation="softmax"),
        ]
    )
    words = {"optimizer": "adam", "loss": SPARSE, "metrics": ["accuracy", "top_2"]}
    model.compile(**words | how)
    return model


def same(a, b):
    return list(a) == list(b) and all(
        np.array_equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a
    )


POLICIES = [
    "float32",
    "mixed_float16",
    "bfloat16_kahan",
    "mixed_float8",
    "mxfp4",
    train.Policy(
        compute="e5m9",
        accumulate=Accumulator("bfloat16", "blocked", block=4, inner="float32"),
        loss_scale=train.LossScale(1024.0, growth_interval=3),
        layers={"Dense 1": {"compute": "float16"}},
    ),
]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_saved_model_is_the_model_and_goes_on_to_the_same_bits(tmp_path, policy):
    model = cnn(policy=policy)
    model.fit(*data(), epochs=2, verbose=0)
    path = tmp_path / "best-cnn-model.keras"
    model.save(path)
    again = train.load_model(path)
    assert again == model
    assert same(again.params, model.params)
    assert again.policy == model.policy
    assert repr(again.optimizer) == repr(model.optimizer)
    assert same(again.history.state, model.history.state)
    assert again.history.history == model.history.history
    x, y = data(seed=1)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert again.evaluate(x, y, return_dict=True) == model.evaluate(x, y, return_dict=True)
    for one in (model, again):
        one.fit(x, y, epochs=2, verbose=0)
    assert same(again.params, model.params)
    assert again.history.loss_scales == model.history.loss_scales


def test_the_file_is_an_archive_without_pickle_and_its_bytes_do_not_depend_on_the_time(tmp_path):
    model = cnn()
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "a.keras")
    model.save(tmp_path / "b.keras")
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    with np.load(tmp_path / "a.keras", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["params/0/kernel"], model.params["0/kernel"])


OPTIMIZERS = [
    train.SGD(0.1, momentum=0.9, clipnorm=1.0),
    train.Momentum(0.05),
    train.Nesterov(train.schedules.Cosine(0.1, 100), global_clipnorm=2.0),
    train.AdaGrad(),
    train.RMSProp(train.schedules.WarmUp(train.schedules.Exponential(0.1, 0.5, 10), 5)),
    train.Adam(train.schedules.PiecewiseConstant((1, 3), (0.1, 0.01, 0.001)), clipvalue=0.5),
    train.AdamW(train.schedules.OneCycle(0.01, 20)),
    train.AdaMax(train.schedules.Performance(0.01)),
    train.Nadam(train.schedules.Power(0.01, 10)),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.name)
def test_every_optimizer_and_schedule_comes_back(tmp_path, optimizer):
    model = train.Sequential([train.Input((4,)), train.Dense(1)])
    model.compile(optimizer, functools.partial(train.losses.huber, delta=2.0))
    x, y = np.random.default_rng(0).random((2, 32, 4))
    model.fit(x, y[:, 0], verbose=0)
    model.save(tmp_path / "model")
    again = train.load_model(tmp_path / "model")
    assert repr(again.optimizer) == repr(optimizer)
    assert again.loss.keywords == {"delta": 2.0}
    for one in (model, again):
        one.fit(x, y[:, 0], epochs=2, verbose=0)
    assert same(again.params, model.params)


def test_weights_alone_scaled_targets_and_float64_come_back(tmp_path):
    bare = train.Sequential([train.Input((2,)), train.Dense(3)])
    bare.save(tmp_path / "bare")
    again = train.load_model(tmp_path / "bare")
    assert same(again.params, bare.params)
    assert again.policy is None
    model = train.Sequential([train.Input((2,)), train.Dense(1)])
    model.compile("adam", "mse", policy="float64")
    scaled = train.data.quadratic().scaled("standard", targets=True)
    model.fit(scaled, verbose=0)
    model.save(tmp_path / "model")
    again = train.load_model(tmp_path / "model")
    assert same(again.params, model.params)
    assert again.params["0/kernel"].dtype == np.float64
    np.testing.assert_array_equal(again.predict(scaled.x_test), model.predict(scaled.x_test))
    assert again.predict(scaled.x_test).mean() > 1  # in the targets' own units
    empty = train.Sequential()
    empty.save(tmp_path / "empty")
    assert train.load_model(tmp_path / "empty") == empty


@dataclasses.dataclass(frozen=True, repr=False)
class Twice(train.Layer):
    by: float = 2.0

    def forward(self, params, x, run):
        return run.numerics.compute(self.by * x), None

    def backward(self, params, saved, dy, run):
        return run.numerics.gradient(self.by * dy), {}


def own_loss(y_true, y_pred):
    return train.losses.mse(y_true, y_pred)


def bias(y_true, y_pred):
    return y_pred - y_true.reshape(y_pred.shape)


def test_what_a_user_defines_is_given_to_the_reader(tmp_path):
    model = train.Sequential([train.Input((4,)), Twice(3.0), train.Dense(1)])
    model.compile("sgd", own_loss, metrics=[bias, "mae"])
    x = np.random.default_rng(0).random((32, 4))
    model.fit(x, x.sum(axis=1), verbose=0)
    model.save(tmp_path / "own")
    with pytest.raises(ValueError, match=r"uses '(Twice|own_loss)'.*custom_objects=\{"):
        train.load_model(tmp_path / "own")
    objects = {"Twice": Twice, "own_loss": own_loss, "bias": bias}
    again = train.load_model(tmp_path / "own", custom_objects=objects)
    assert again == model
    assert again.evaluate(x, x.sum(axis=1)) == model.evaluate(x, x.sum(axis=1))
    bare = train.load_model(tmp_path / "own", {"Twice": Twice}, compile=False)
    np.testing.assert_array_equal(bare.predict(x), model.predict(x))
    model.compile("sgd", lambda a, b: own_loss(a, b))
    with pytest.raises(TypeError, match="has no name"):
        model.save(tmp_path / "nameless")
    assert not (tmp_path / "nameless").exists()


def test_files_are_not_lost_and_damage_is_named(tmp_path):
    model = cnn()
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        model.save(path)
    assert path.read_text() == "mine"
    model.save(path, overwrite=True)
    model.save(path)
    assert train.load_model(path) == model
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        train.load_model(path)
    with pytest.raises(FileNotFoundError):
        train.load_model(tmp_path / "none")
    history = train.fit(model, data(), loss=SPARSE, optimizer="sgd", verbose=0)
    history.save(tmp_path / "history.npz")
    with pytest.raises(ValueError, match=r"holds a history and no model; History.load"):
        train.load_model(tmp_path / "history.npz")
    with zipfile.ZipFile(tmp_path / "theirs.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match=r"written by Keras.*model\.set_weights"):
        train.load_model(tmp_path / "theirs.keras")
