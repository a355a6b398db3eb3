"""What `fit` takes: pairs, tables, loaders, generators; scaled targets and class weights."""

from __future__ import annotations

import tracemalloc

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


def model():
    return train.Sequential([train.Input((4,)), train.Dense(8, "relu"), train.Dense(3)])


def fit(what, **how):
    how = {"loss": SPARSE, "optimizer": "adam", "verbose": 0, "epochs": 2, "batch_size": 16} | how
    return train.fit(model(), what, **how)


def same(one, other):
    return one.history == other.history and all(
        np.array_equal(one.params[name], w) for name, w in other.params.items()
    )


def test_a_pair_is_a_data_set_and_validation_data_its_test_part():
    x, y = data()
    x_test, y_test = data(20, seed=1)
    whole = fit(train.Dataset(x, y, x_test, y_test))
    assert same(fit((x, y), validation_data=(x_test, y_test)), whole)
    assert same(fit([x, y], validation_data=train.Dataset(x_test, y_test)), whole)
    assert same(fit(train.Dataset(x, y), validation_data=(x_test, y_test)), whole)
    assert same(fit((x.tolist(), y.tolist()), validation_data=(x_test, y_test)), whole)
    alone = fit(train.Dataset(x, y))
    assert list(alone.history) == ["loss", "accuracy"]
    assert same(alone, fit((x, y)))
    assert repr(train.Dataset(x, y)).startswith("<Dataset data: 64 training samples of")
    with pytest.raises(ValueError, match="x_test is given without y_test"):
        train.Dataset(x, y, x_test)


def test_tables_of_pandas_are_taken():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    x, y = data()
    table = pandas.DataFrame(x, columns=list("abcd"))
    assert same(fit((table, pandas.Series(y))), fit((x, y)))
    mixed = table.assign(d=(table["d"] > 0))
    assert same(fit((mixed, pandas.Series(y))), fit((mixed.to_numpy(float), y)))
    table["city"] = "Rome"
    with pytest.raises(TypeError, match=r"x_train holds 'city'.*pandas\.get_dummies"):
        fit((table, y))
    with pytest.raises(TypeError, match=r"pandas\.factorize"):
        fit((x, pandas.Series(list("ab") * 32, dtype="category")))
    gaps = pandas.DataFrame({"a": pandas.array([1, None] * 32, dtype="Int64")})
    with pytest.raises(ValueError, match="nan in row 1"):
        train.Dataset(gaps, y)


def batches(x, y, size=16):
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def test_batches_give_the_bits_of_arrays_in_that_order():
    x, y = data()
    expected = fit((x, y), shuffle=False)
    assert same(fit(batches(x, y)), expected)
    assert same(fit(lambda: iter(batches(x, y))), expected)
    forever = (batch for _ in range(2) for batch in batches(x, y))
    assert same(fit(forever, steps_per_epoch=4), expected)
    two = fit(lambda: iter(batches(x, y)), validation_data=batches(x, y))
    assert (
        two.history["val_loss"]
        == fit((x, y), shuffle=False, validation_data=(x, y)).history["val_loss"]
    )


def test_a_loader_of_torch_keeps_its_batches_and_its_shuffling():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, y = data()
    tensors = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))

    def loader():
        generator = torch.Generator().manual_seed(5)
        return torch.utils.data.DataLoader(tensors, 16, shuffle=True, generator=generator)

    again = loader()
    order = [[(bx.numpy(), by.numpy()) for bx, by in again] for _ in range(2)]
    epochs = iter(order)
    assert same(fit(loader()), fit(lambda: iter(next(epochs))))
    keras = train.Sequential([train.Dense(3, activation="softmax")])
    keras.compile("adam", SPARSE)
    keras.fit(loader(), epochs=2, validation_data=loader(), verbose=0)
    assert keras.predict(x).shape == (64, 3)


def test_generators_are_streamed_in_bounded_memory():
    held = []

    def endless(count):
        rng = np.random.default_rng(0)
        for _ in range(count):
            yield rng.random((256, 1024), np.float32), rng.random((256, 1), np.float32)

    network = train.Sequential([train.Input((1024,)), train.Dense(1)])
    for count in (3, 30):
        tracemalloc.start()
        train.fit(network, endless(count), loss="mse", optimizer="sgd", verbose=0)
        held.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert held[1] < held[0] + 2 * 256 * 1024 * 4


def test_mistakes_with_batches_are_named():
    x, y = data()
    once = iter(batches(x, y))
    with pytest.raises(ValueError, match=r"gives its batches once, and 2 epochs.*steps_per_epoch="):
        fit(once)
    assert len(fit(once, epochs=1).step_losses) == 4  # nothing was lost
    with pytest.raises(ValueError, match="ended after 4 batches in epoch 1, which takes 5"):
        fit(iter(batches(x, y)), epochs=1, steps_per_epoch=5)
    with pytest.raises(ValueError, match="gives no batches"):
        fit([])
    with pytest.raises(TypeError, match=r"batch 0 of data is a ndarray; each is a pair"):
        fit([x, x, x])
    with pytest.raises(ValueError, match="validation_split takes samples out of arrays"):
        fit(batches(x, y), validation_split=0.5)
    with pytest.raises(ValueError, match="validation_data is a generator"):
        fit((x, y), validation_data=(b for b in batches(x, y)))
    with pytest.raises(ValueError, match="drop it"):
        fit((x, y), steps_per_epoch=3)
    with pytest.raises(TypeError, match="a tuple of 3"):
        fit((x, y, x))
    bad = batches(x.copy(), y)
    bad[1][0][2, 1] = np.nan
    with pytest.raises(ValueError, match="batch 1 of data: x holds nan in row 2"):
        fit(bad)
    with pytest.raises(TypeError, match="'dog' is not a number"):
        fit((x, ["dog", "cat"] * 32))


def test_integer_targets_with_a_regression_loss_are_numbers():
    x = np.arange(-8, 8)[:, None]
    network = train.Sequential([train.Input((1,)), train.Dense(1)])
    how = {"loss": "mse", "optimizer": "sgd", "verbose": 0}
    y = np.arange(16)
    as_float = train.fit(network, (x, y.astype(float)), **how)
    assert same(train.fit(network, (x, y), **how), as_float)
    assert same(train.fit(network, train.Dataset(x, y), **how), as_float)
    assert same(
        train.fit(network, [(x, y)] * 1, **how, batch_size=16),
        train.fit(network, (x, y), **how, batch_size=16, shuffle=False),
    )
    assert as_float.facts["outcome"]["deviation"] == pytest.approx(y.std())
    negative = train.fit(network, (x, -y), **how)
    assert list(negative.history) == ["loss", "mae", "rmse"]


@pytest.mark.parametrize("how", ["standard", "minmax"])
def test_scaled_targets_are_in_the_loss_alone(how, tmp_path):
    raw = train.data.linear_map()
    scaled = raw.scaled(how, targets=True)
    np.testing.assert_array_equal(scaled.y_train, raw.y_train)
    network = train.Sequential([train.Input((4,)), train.Dense(2)])
    words = {"loss": "mse", "optimizer": "adam", "epochs": 3, "verbose": 0}
    history = train.fit(network, scaled, **words)
    shift, scale = (np.array(part) for part in scaled.target_scale)
    by_hand = train.Dataset(
        *(scaled.x_train, ((raw.y_train - shift) / scale).astype(np.float32)),
        *(scaled.x_test, ((raw.y_test - shift) / scale).astype(np.float32)),
    )
    expected = train.fit(network, by_hand, **words)
    assert history.history["loss"] == expected.history["loss"]
    assert history.history["val_loss"] == expected.history["val_loss"]
    predicted = train.predict(network, history.params, scaled.x_test)
    inside = train.predict(network, dict(history.params), scaled.x_test)
    np.testing.assert_allclose(predicted, inside * scale + shift, rtol=1e-6)
    rmse = float(np.sqrt(np.mean((predicted.astype(float) - raw.y_test) ** 2)))
    assert history.history["val_rmse"][-1] == pytest.approx(rmse, rel=1e-5)
    judged = train.evaluate(network, history.params, scaled.x_test, raw.y_test, loss="mse")
    assert judged["rmse"] == history.history["val_rmse"][-1]
    assert judged["loss"] == history.history["val_loss"][-1]
    history.save(tmp_path / "h.npz")
    loaded = train.History.load(tmp_path / "h.npz")
    np.testing.assert_array_equal(train.predict(network, loaded.params, scaled.x_test), predicted)
    ours = train.Sequential(network.layers, (4,))
    ours.compile("adam", "mse")
    ours.fit(scaled, epochs=3, verbose=0)
    np.testing.assert_array_equal(ours.predict(scaled.x_test), predicted)
    assert ours.evaluate(scaled.x_test, raw.y_test)[2] == judged["rmse"]
    with pytest.raises(ValueError, match="these targets are labels"):
        train.Dataset(*data()).scaled("standard", targets=True)


def test_one_scale_serves_all_features():
    x = np.array([[0.0, 10.0], [5.0, 20.0]])
    data = train.Dataset(x, [0, 1]).scaled("minmax", each_feature=False)
    np.testing.assert_array_equal(data.x_train, (x / 20).astype(np.float32))


def test_class_weights_are_checked():
    assert same(fit(data(), class_weight={0: 1, 1: 1.0}), fit(data()))
    assert not same(fit(data(), class_weight={0: 5}), fit(data()))
    with pytest.raises(TypeError, match="a weight for each class"):
        fit(data(), class_weight=[1, 2, 3])
    with pytest.raises(ValueError, match="finite and at least 0"):
        fit(data(), class_weight={0: -1})


def test_shuffling_can_be_left_out():
    x, y = data()
    assert not same(fit((x, y)), fit((x, y), shuffle=False))
    assert same(fit((x, y), shuffle=False), fit((x, y), shuffle=False, rng=9)) is False
