"""What courses look at: layers' outputs, dead units, folded normalisation, paths, their data."""

from __future__ import annotations

import numpy as np
import pytest

import lowprec as lp
from lowprec import train


def cnn():
    return train.Sequential(
        [
            train.Input((6, 6, 1)),
            train.Conv2D(4, 3, use_bias=False),
            train.BatchNormalization(),
            train.Activation("relu"),
            train.MaxPooling2D(2),
            train.Flatten(),
            train.Dense(5, "tanh"),
            train.BatchNormalization(),
            train.Dense(7),
            train.BatchNormalization(scale=False, epsilon=1e-5),
            train.Dense(3, "softmax"),
        ]
    )


def trained():
    rng = np.random.default_rng(0)
    x, y = rng.random((64, 6, 6, 1)), rng.integers(0, 3, 64)
    model = cnn()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=3, verbose=0)
    return model, x


# Outputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_outputs_of_layers_are_those_of_the_network_cut_there(policy):
    model, x = trained()
    outputs = train.layer_outputs(model, model.params, x, policy=policy)
    assert list(outputs) == [str(place) for place in range(10)]
    for place in range(10):
        cut = train.Sequential(model.layers[: place + 1], (6, 6, 1))
        own = {n: w for n, w in model.params.items() if int(n.split("/")[0]) <= place}
        np.testing.assert_array_equal(outputs[str(place)], cut.apply(own, x, policy=policy))
    np.testing.assert_array_equal(outputs["5/kernel"], outputs["5"])
    np.testing.assert_array_equal(
        outputs["9"], train.predict(model, model.params, x, policy=policy)
    )
    with pytest.raises(KeyError, match="'12' is not a layer"):
        outputs["12"]


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "tanh", "selu"])
@pytest.mark.parametrize("initializer", ["glorot_normal", "he_normal", "lecun_uniform"])
def test_histograms_count_every_output(activation, initializer):
    layers = [train.Dense(100, activation, kernel_initializer=initializer) for _ in range(5)]
    model = train.Sequential([train.Input((100,)), *layers])
    x = np.random.default_rng(0).standard_normal((200, 100))
    outputs = train.layer_outputs(model, model.init(1), x)
    for name, (counts, edges) in outputs.histograms(30).items():
        assert counts.sum() == outputs[name].size
        assert (edges[0], edges[-1]) == (outputs[name].min(), outputs[name].max())
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    titles = [axes.get_title(loc="left") for axes in outputs.plot().axes]
    assert titles[0] == "0: Dense 1"


def test_dead_units_are_counted():
    model = train.Sequential(
        [train.Input((4,)), train.Dense(6, "relu"), train.Dense(3, "relu"), train.Dense(2)]
    )
    params = model.init(0)
    params["0/bias"][:2] = -100
    params["1/bias"][0] = -1000
    x = np.random.default_rng(0).random((50, 4))
    dead = train.dead_units(model, params, x)
    outputs = train.layer_outputs(model, params, x)
    for name, count in dead.items():
        assert count == (np.abs(outputs[name]).max(axis=0) == 0).sum()
    assert list(dead) == ["0", "1"]
    assert dead["0"] >= 2
    assert dead["1"] >= 1
    assert outputs.dead()["0"] == dead["0"]


# Folding -----------------------------------------------------------------------------------------


def test_folding_keeps_what_the_network_says():
    model, x = trained()
    before = {name: w.copy() for name, w in model.params.items()}
    folded, params = train.fold(model, model.params)
    kinds = [type(layer).__name__ for layer in folded.layers]
    # the normalisation after an activation stays
    assert kinds.count("BatchNormalization") == 1
    assert kinds[:2] == ["Conv2D", "Activation"]
    assert folded.layers[0].use_bias
    assert model == cnn()
    assert all(np.array_equal(before[name], w) for name, w in model.params.items())
    expected = train.predict(model, model.params, x, policy="float64")
    found = train.predict(folded, params, x, policy="float64")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    for policy, bound in (("float32", 1e-6), ("mixed_float16", 0.01), ("mixed_bfloat16", 0.05)):
        said = train.predict(folded, params, x, policy=policy)
        assert np.abs(said - expected).max() < bound


def test_folded_weights_are_rounded_once():
    model = train.Sequential([train.Input((3,)), train.Dense(2), train.BatchNormalization()])
    rng = np.random.default_rng(1)
    params = {n: rng.random(w.shape).astype(np.float32) for n, w in model.init(0).items()}
    _, folded = train.fold(model, params)
    p = {name.split("/")[1]: w.astype(np.float64) for name, w in params.items() if name[0] == "1"}
    factor = p["gamma"] / np.sqrt(p["moving_variance"] + 1e-3)
    kernel = params["0/kernel"].astype(np.float64) * factor
    bias = (params["0/bias"].astype(np.float64) - p["moving_mean"]) * factor + p["beta"]
    np.testing.assert_array_equal(folded["0/kernel"], kernel.astype(np.float32))
    np.testing.assert_array_equal(folded["0/bias"], bias.astype(np.float32))


def test_a_network_without_normalisation_is_folded_to_itself():
    model = train.Sequential([train.Input((3,)), train.Dense(2, "relu"), train.Dense(1)])
    params = model.init(0)
    folded, same = train.fold(model, params)
    assert folded == model
    assert all(np.array_equal(same[name], w) for name, w in params.items())


# Paths -------------------------------------------------------------------------------------------


def test_paths_down_the_valley_are_pytorchs():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    peers = {
        "SGD": (train.SGD(0.95), {"lr": 0.95}),
        "Adagrad": (train.AdaGrad(1.5), {"lr": 1.5}),
        "Adam": (train.Adam(0.3), {"lr": 0.3}),
    }
    for name, (ours, words) in peers.items():
        w = torch.nn.Parameter(torch.tensor([-7.0, 2.0]))
        optimizer = getattr(torch.optim, name)([w], **words)
        path = train.optimizer_path(ours)
        assert path.shape == (31, 2)
        for point in path[1:]:
            optimizer.zero_grad()
            (w[0] ** 2 / 20 + w[1] ** 2).backward()
            optimizer.step()
            np.testing.assert_allclose(point, w.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_path_in_bfloat16_is_of_bfloat16_points():
    path = train.optimizer_path(train.Momentum(0.1), policy="bfloat16")
    np.testing.assert_array_equal(path, lp.round_to(path, "bfloat16"))
    assert not np.array_equal(path, train.optimizer_path(train.Momentum(0.1)))
    with pytest.raises(ValueError, match="rounds to nearest"):
        train.optimizer_path("sgd", policy="bfloat16_kahan")


# Data --------------------------------------------------------------------------------------------


def test_the_courses_draws_come_from_the_legacy_seed():
    np.testing.assert_array_equal(
        train.data.linear(seed=7).x_train.ravel(), np.random.RandomState(7).permutation(100)
    )
    whole = train.data.quadratic(integers=True)
    drawn = np.random.RandomState(1234).randint(-5, 5, (1200, 2))
    np.testing.assert_array_equal(np.concatenate([whole.x_train, whole.x_test]), drawn)
    x = whole.x_train.astype(float)
    np.testing.assert_array_equal(whole.y_train[:, 0], x[:, 0] ** 2 / 2 - 3 * x[:, 1] + 5)
    collinear = train.data.linear_map(collinear=True, integers=True)
    assert np.linalg.matrix_rank(collinear.x_train) == 3
    assert np.linalg.matrix_rank(train.data.linear_map().x_train) == 4


def test_mnists_layout_gets_its_channel_axis(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (12, 28, 28), np.uint8), np.arange(12) % 3
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])
    assert train.data.load_npz(tmp_path / "mnist.npz").input_shape == (28, 28)
    images = train.data.load_npz(tmp_path / "mnist.npz", channel_axis=True)
    assert images.input_shape == (28, 28, 1)
    assert train.data.to_categorical(y).tolist() == np.eye(3)[y].tolist()
    for wrong, error in (([-1], ValueError), ([0.5], TypeError), (["a"], TypeError)):
        with pytest.raises(error):
            train.data.to_categorical(wrong)
