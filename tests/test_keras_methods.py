"""Keras' methods of a model: short, over the functions, with the functions' bits."""

from __future__ import annotations

import dataclasses
import os
import pickle

import numpy as np
import pytest

from lowprec import train

SPARSE = "sparse_categorical_crossentropy"


def data(samples=96, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, samples)
    x = rng.standard_normal((samples, 4)).astype(np.float32)
    x[:, 0] += y
    return x, y


def layers(last=None):
    return [train.Input((4,)), train.Dense(8, "relu"), train.Dropout(0.2), train.Dense(3, last)]


def compiled(*, last="softmax", policy="float32", optimizer="adam", loss=SPARSE, **how):
    model = train.Sequential(layers(last))
    model.compile(optimizer=optimizer, loss=loss, policy=policy, **how)
    return model


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


# add, compile, fit -------------------------------------------------------------------------------


def test_layers_added_one_by_one_make_the_same_model():
    model = train.Sequential()
    assert repr(model) == "Sequential()"
    for layer in layers("softmax"):
        model.add(layer)
    assert model == train.Sequential(layers("softmax"))
    assert repr(model) == repr(train.Sequential(layers("softmax")))
    with pytest.raises(ValueError, match="put it first"):
        model.add(train.Input((4,)))
    with pytest.raises(ValueError, match=r"layer 3: .* takes images"):
        model.add(train.Conv2D(3, 2))
    assert len(model.layers) == 3


@pytest.mark.parametrize("word", [{"input_shape": (4,)}, {"input_dim": 4}])
def test_the_first_layer_may_say_the_shape_with_keras_advice(word):
    model = train.Sequential()
    with pytest.warns(UserWarning, match=r"begin the model with Input\(\(4,\)\)") as caught:
        model.add(train.Dense(8, activation="relu", **word))
    assert caught[0].filename == __file__
    model.add(train.Dense(3))
    assert model == train.Sequential([train.Input((4,)), train.Dense(8, "relu"), train.Dense(3)])
    with pytest.warns(UserWarning, match="begin the model with Input") as caught:
        train.Sequential([train.Dense(8, **word)])
    assert caught[0].filename == __file__


def test_equality_hash_and_repr_look_at_the_layers_alone():
    model = compiled()
    bare = train.Sequential(layers("softmax"))
    model.fit(*data(), verbose=0)
    assert model == bare
    assert hash(model) == hash(bare)
    assert repr(model) == repr(bare)
    assert pickle.loads(pickle.dumps(model)) == bare
    assert same(pickle.loads(pickle.dumps(model)).params, model.params)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16_kahan", "float64"])
def test_fit_has_the_bits_of_the_function(policy):
    x, y = data()
    model = compiled(policy=policy)
    history = model.fit(x, y, epochs=3, batch_size=16, validation_split=0.25, verbose=0)
    bare = train.Sequential(layers("softmax"))
    how = {"loss": SPARSE, "optimizer": "adam", "policy": policy, "verbose": 0}
    how["validation_data"] = (x[72:], y[72:])  # the last samples, as in Keras
    expected = train.fit(bare, (x[:72], y[:72]), epochs=3, batch_size=16, **how)
    assert same(model.params, expected.params)
    assert same(history.params, expected.params)
    assert history.history == expected.history
    assert history.step_losses == expected.step_losses


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16_kahan"])
def test_a_second_fit_goes_on(policy):
    x, y = data()
    once, twice = compiled(policy=policy), compiled(policy=policy)
    whole = once.fit(x, y, epochs=5, verbose=0)
    first = twice.fit(x, y, epochs=2, verbose=0)
    second = twice.fit(x, y, epochs=3, verbose=0)
    assert same(once.params, twice.params)
    assert same(once.history.state, twice.history.state)
    assert second.epoch == [0, 1, 2]
    for name, values in whole.history.items():
        assert first.history[name] + second.history[name] == values
    assert first.loss_scales + second.loss_scales == whole.loss_scales
    assert len(second.step_losses) == len(second.loss_scales) == 9
    shifted = [step + len(first.loss_scales) for step in second.skipped_steps]
    assert first.skipped_steps + shifted == whole.skipped_steps


def test_a_second_fit_takes_other_data_and_keeps_the_moments():
    model = compiled(optimizer=train.Momentum(0.1))
    model.fit(*data(), verbose=0)
    moments = {name: m.copy() for name, m in model.history.state.items()}
    before = {name: w.copy() for name, w in model.params.items()}
    model.fit(*data(32, seed=1), batch_size=32, epochs=1, verbose=0)
    assert moments
    assert model.history.facts["step"] == 4  # three batches before, one now
    fresh = compiled(optimizer=train.Momentum(0.1))
    fresh.params = before
    fresh.fit(*data(32, seed=1), batch_size=32, epochs=1, verbose=0)
    assert not same(fresh.params, model.params)  # it had no moments


def test_compile_again_begins_the_optimizer_anew_and_keeps_the_parameters():
    model = compiled()
    model.fit(*data(), verbose=0)
    before = {name: w.copy() for name, w in model.params.items()}
    model.compile(optimizer="sgd", loss=SPARSE, policy="mixed_bfloat16")
    assert same(before, model.params)
    expected = train.fit(
        model,
        data(),
        loss=SPARSE,
        optimizer="sgd",
        policy="mixed_bfloat16",
        params=before,
        verbose=0,
    )
    model.fit(*data(), verbose=0)
    assert same(model.params, expected.params)


def test_functions_never_change_the_model_and_a_failed_fit_leaves_it():
    model = compiled()
    model.fit(*data(), verbose=0)
    before = {name: w.copy() for name, w in model.params.items()}
    train.fit(model, data(), loss=SPARSE, optimizer="adam", epochs=2, verbose=0)
    train.evaluate(model, model.params, *data(), loss=SPARSE)
    assert same(before, model.params)
    assert model.history.facts["epoch"] == 1

    class Fails(train.Callback):
        def on_batch_end(self, batch, logs, run):
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        model.fit(*data(), callbacks=[Fails()], verbose=0)
    assert same(before, model.params)


def test_layers_may_be_added_and_removed_after_training():
    model = compiled()
    model.fit(*data(), verbose=0)
    kept = model.params["0/kernel"].copy()
    assert model.pop() == train.Dense(3, "softmax")
    model.add(train.Dense(5, "relu"))
    model.add(train.Dense(3, "softmax"))
    np.testing.assert_array_equal(model.params["0/kernel"], kept)
    assert list(model.params)[-2:] == ["3/kernel", "3/bias"]
    assert model.predict(data()[0]).shape == (96, 3)
    model.fit(*data(), verbose=0)


def test_parameters_before_fit_are_those_that_fit_begins_with():
    model = compiled()
    shown = model.get_weights()
    model.fit(*data(), verbose=0)
    fresh = compiled()
    fresh.fit(*data(), verbose=0)
    assert same(model.params, fresh.params)
    assert not np.array_equal(shown[0], model.get_weights()[0])


# evaluate, predict, weights, summary -------------------------------------------------------------


def test_evaluate_gives_a_list_with_the_loss_first():
    model = compiled(policy="mixed_bfloat16", metrics=["accuracy", "top_2"])
    model.fit(*data(), verbose=0)
    found = model.evaluate(*data(seed=2), verbose=0)
    named = model.evaluate(*data(seed=2), return_dict=True)
    assert isinstance(found, list)
    assert list(named) == ["loss", "accuracy", "top_2"]
    assert found == list(named.values())
    expected = train.evaluate(
        model, model.params, *data(seed=2), loss=SPARSE, policy="mixed_bfloat16"
    )
    assert expected["loss"] == found[0]
    assert expected["accuracy"] == found[1]
    assert model.evaluate(*data(seed=2), batch_size=7)[1] == found[1]


def test_predict_takes_a_vector_for_one_feature_and_batches_change_no_bit():
    model = train.Sequential([train.Input((1,)), train.Dense(5, "tanh"), train.Dense(1)])
    x = np.linspace(-1, 1, 20)
    assert model.predict(x).shape == (20, 1)
    np.testing.assert_array_equal(model.predict(x), model.predict(x[:, None]))
    np.testing.assert_array_equal(model.predict(x), model.predict(x, batch_size=3, verbose=0))
    np.testing.assert_array_equal(model.predict(x), train.predict(model, model.params, x))
    model.compile("sgd", "mse")
    assert model.fit(x, x**2, verbose=0).history["loss"]
    wide = train.Sequential([train.Input((4,)), train.Dense(1)])
    with pytest.raises(ValueError, match=r"write x\[numpy.newaxis\]"):
        wide.predict(np.ones(4))


def test_a_model_without_input_learns_the_shape_from_samples():
    model = train.Sequential([train.Dense(3, "softmax")])
    with pytest.raises(ValueError, match="begin the model with Input"):
        model.get_weights()
    model.compile("sgd", SPARSE)
    assert model.predict(data()[0]).shape == (96, 3)
    model.fit(*data(), verbose=0)
    assert model.count_params() == 15
    assert [w.shape for w in model.get_weights()] == [(4, 3), (3,)]
    model.set_weights(model.get_weights())
    assert model == train.Sequential([train.Dense(3, "softmax")])


def test_weights_go_out_and_in():
    model, other = compiled(), compiled()
    model.fit(*data(), verbose=0)
    weights = model.get_weights()
    other.set_weights(weights)
    assert same(model.params, other.params)
    weights[0][:] = 0
    assert model.params["0/kernel"].any()
    assert other.params["0/kernel"].any()
    with pytest.raises(ValueError, match="3 arrays for the model's 4 parameters"):
        model.set_weights(weights[:3])
    with pytest.raises(ValueError, match=r"'0/kernel' has shape"):
        model.set_weights(weights[::-1])
    assert model.count_params() == sum(w.size for w in weights)


def test_set_weights_keeps_the_moments_but_not_what_kahan_sums_lost():
    model = compiled(policy="bfloat16_kahan")
    model.fit(*data(), verbose=0)
    assert any(slot.kind == "kahan" for slot in model.history.state)
    model.set_weights(model.get_weights())
    assert model.history.state
    assert not any(slot.kind == "kahan" for slot in model.history.state)
    model.fit(*data(), verbose=0)


def test_the_summary_tells_the_bytes_of_a_policy():
    model = train.Sequential(layers())
    assert "in bfloat16 to compute" in repr(model.summary("mixed_bfloat16"))
    assert "in float32, " in repr(model.summary())
    assert "134.00 B in bfloat16" in repr(model.summary("bfloat16"))
    with pytest.raises(TypeError, match=r"summary\(input_shape=\(4,\)\)"):
        model.summary((4,))
    bare = train.Sequential([train.Dense(3)])
    assert bare.summary(input_shape=(4,)).parameters == 15


def test_the_global_policy_is_an_argument():
    for name in ("set_global_policy", "mixed_precision"):
        assert not hasattr(train, name)
        with pytest.raises(AttributeError, match="pass policy="):
            getattr(train, name)


# Softmax before a cross-entropy ------------------------------------------------------------------

ENDS = [
    ("softmax", SPARSE, 3),
    ("softmax", "categorical_crossentropy", 3),
    ("sigmoid", "binary_crossentropy", 1),
]


def targets(loss, y):
    if loss == "categorical_crossentropy":
        return np.eye(3, dtype=np.float32)[y]
    return (y > 1).astype(int) if loss == "binary_crossentropy" else y


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16", "mixed_float8"])
@pytest.mark.parametrize("as_layer", [False, True], ids=["activation=", "layer"])
@pytest.mark.parametrize("by_name", [True, False], ids=["name", "function"])
@pytest.mark.parametrize(("last", "loss", "units"), ENDS)
def test_a_model_that_ends_in_softmax_trains_through_its_logits(
    last, loss, units, by_name, as_layer, policy
):
    x, y = data()
    y = targets(loss, y)
    hidden = [train.Input((4,)), train.Dense(8, "relu"), train.Dropout(0.2)]
    bare = train.Sequential([*hidden, train.Dense(units)])
    end = [train.Dense(units), train.Activation(last)] if as_layer else [train.Dense(units, last)]
    model = train.Sequential([*hidden, *end])
    how = {"loss": loss if by_name else train.losses.get(loss), "optimizer": "adam", "verbose": 0}
    how |= {"policy": policy, "epochs": 2, "validation_split": 0.25}
    found, expected = (train.fit(one, (x, y), **how) for one in (model, bare))
    assert same(found.params, expected.params)
    assert found.history == expected.history
    value, grads = train.gradients(model, found.params, x, y, loss=loss, policy=policy)
    bare_value, bare_grads = train.gradients(bare, found.params, x, y, loss=loss, policy=policy)
    assert value == bare_value
    assert same(grads, bare_grads)
    judged = train.evaluate(model, found.params, x, y, loss=loss, policy=policy)
    assert judged == train.evaluate(bare, found.params, x, y, loss=loss, policy=policy)
    said = train.predict(model, found.params, x, policy=policy)
    assert (said >= 0).all()
    assert (said <= 1).all()
    np.testing.assert_array_equal(said, model.apply(found.params, x, policy=policy))


def test_a_float32_softmax_layer_trains_through_the_logits_before_it():
    hidden = [train.Input((4,)), train.Dense(8, "relu"), train.Dense(3)]
    ends = [train.Activation("softmax", dtype="float32"), train.Activation("softmax")]
    how = {"loss": SPARSE, "optimizer": "adam", "verbose": 0}
    expected = train.fit(train.Sequential(hidden), data(), policy="mixed_bfloat16", **how)
    for end in ends:
        for policy in ("mixed_bfloat16", "mixed_bfloat16,Activation 1.compute=float32"):
            model = train.Sequential([*hidden, end])
            assert same(train.fit(model, data(), policy=policy, **how).params, expected.params)
    slip = "mixed_bfloat16,Activation 2.compute=float32"
    with pytest.raises(ValueError, match="Activation 2"):
        train.fit(train.Sequential([*hidden, ends[0]]), data(), policy=slip, **how)


def test_a_loss_of_ones_own_reads_the_probabilities():
    seen = []

    def own(y_true, y_pred):
        seen.append(y_pred)
        return train.losses.mse(np.eye(3, dtype=np.float32)[y_true], y_pred)

    model = train.Sequential(layers("softmax"))
    history = train.fit(model, data(), loss=own, optimizer="adam", verbose=0)
    assert all(abs(p.sum(axis=-1) - 1).max() < 1e-5 for p in seen)
    assert "accuracy" in history.history


@pytest.mark.parametrize(
    ("last", "loss"),
    [
        ("sigmoid", SPARSE),
        ("sigmoid", "categorical_crossentropy"),
        ("softmax", "binary_crossentropy"),
    ],
)
def test_an_activation_that_does_not_belong_to_the_loss_is_refused(last, loss):
    right = "softmax" if last == "sigmoid" else "sigmoid"
    with pytest.raises(ValueError, match=f"write activation='{right}'"):
        compiled(last=last, loss=loss)


def test_what_follows_a_softmax_is_refused():
    model = train.Sequential([*layers("softmax"), train.Dropout(0.5)])
    with pytest.raises(ValueError, match="put softmax last"):
        train.fit(model, data(), loss=SPARSE, optimizer="adam", verbose=0)


# Beside Keras itself -----------------------------------------------------------------------------


# Keras gives its variables to NumPy in a manner that NumPy 2 warns of.
keras_warns = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("torch", reason="Keras runs on torch here, which is not installed")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    found = pytest.importorskip("keras", reason="Keras is not installed")
    if found.backend.backend() != "torch":
        pytest.skip(f"Keras runs on {found.backend.backend()} here")
    return found


def images(samples=320):
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, samples)
    x = rng.random((samples, 6, 6, 1)).astype(np.float32)
    x[np.arange(samples), y] += 1
    return x, y


OPTIMIZERS = {
    "sgd": (lambda k: k.optimizers.SGD(0.1), lambda: train.SGD(0.1)),
    "momentum": (lambda k: k.optimizers.SGD(0.05, momentum=0.9), lambda: train.Momentum(0.05)),
    "adam": (
        lambda k: k.optimizers.Adam(1e-3, epsilon=1e-8),
        lambda: train.Adam(1e-3, epsilon=1e-8),
    ),
    "rmsprop": (  # Keras has epsilon under the root, lowprec and PyTorch beside it
        lambda k: k.optimizers.RMSprop(1e-3, rho=0.9, epsilon=1e-16),
        lambda: train.RMSProp(1e-3, rho=0.9, epsilon=1e-8),
    ),
}


def cnn(library, words):
    return [
        library.Input((6, 6, 1)),
        words.Conv2D(4, 3, activation="relu", padding="same"),
        words.MaxPooling2D(2),
        words.Flatten(),
        words.Dense(8, activation="tanh"),
        words.Dense(3, activation="softmax"),
    ]


@keras_warns
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fifty_steps_have_kerass_losses(keras, optimizer):
    x, y = images()
    theirs = keras.Sequential(cnn(keras, keras.layers))
    ours = train.Sequential(cnn(train, train))
    assert ours.count_params() == theirs.count_params()
    ours.set_weights(theirs.get_weights())
    make_theirs, make_ours = OPTIMIZERS[optimizer]
    theirs.compile(make_theirs(keras), SPARSE, metrics=["accuracy"])
    ours.compile(make_ours(), SPARSE, metrics=["accuracy"])
    history = ours.fit(x, y, epochs=5, batch_size=32, shuffle=False, verbose=0)
    expected = []
    for _ in range(5):
        for start in range(0, len(x), 32):
            theirs.reset_metrics()
            rows = slice(start, start + 32)
            expected.append(float(theirs.train_on_batch(x[rows], y[rows])[0]))
    assert len(history.step_losses) == len(expected) == 50
    np.testing.assert_allclose(history.step_losses, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x, verbose=0), atol=1e-4)
    np.testing.assert_allclose(
        ours.evaluate(x, y), theirs.evaluate(x, y, verbose=0), rtol=0, atol=1e-4
    )


def kinds(library, words):
    return [
        library.Input((36,)),
        words.Reshape((6, 6, 1)),
        words.Conv2D(4, 3, padding="same", strides=2, kernel_regularizer="l2"),
        words.BatchNormalization(momentum=0.9),
        words.LeakyReLU(),
        words.AveragePooling2D(2, strides=1, padding="same"),
        words.Conv2D(6, 2, activation="elu"),
        words.GlobalAveragePooling2D(),
        words.LayerNormalization(),
        words.Dense(5, activation="gelu"),
        words.Dense(3, activation="softmax"),
    ]


@keras_warns
def test_other_kinds_of_layers_a_split_and_weights_of_samples_have_kerass_losses(keras):
    x, y = images(266)
    x, weights = x.reshape(266, 36), np.random.default_rng(1).uniform(0, 2, 266)
    theirs = keras.Sequential(kinds(keras, keras.layers))
    ours = train.Sequential(kinds(train, train))
    assert [w.shape for w in ours.get_weights()] == [w.shape for w in theirs.get_weights()]
    ours.set_weights(theirs.get_weights())
    how = {"validation_split": 0.25, "sample_weight": weights, "shuffle": False, "epochs": 8}
    found = []
    for model, library in ((theirs, keras), (ours, train)):
        rate = library.optimizers.schedules.ExponentialDecay(0.05, 10, 0.5, staircase=True)
        optimizer = library.optimizers.SGD(rate)
        loss = library.losses.SparseCategoricalCrossentropy()
        metrics = [library.metrics.SparseCategoricalAccuracy(name="right")]
        model.compile(optimizer, loss, metrics=metrics)
        found.append(model.fit(x, y, verbose=0, **how).history)
    assert set(found[0]) <= set(found[1])
    for name, values in found[0].items():
        np.testing.assert_allclose(found[1][name], values, rtol=0, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x, verbose=0), atol=1e-4)


@keras_warns
def test_schedules_and_initializers_with_kerass_names_are_kerass(keras):
    for name, words in (
        ("ExponentialDecay", (0.1, 10, 0.5)),
        ("ExponentialDecay", (0.1, 10, 0.5, True)),
        ("InverseTimeDecay", (0.1, 10, 0.5)),
        ("CosineDecay", (0.1, 30, 0.2)),
        ("PiecewiseConstantDecay", ([5, 12], [0.1, 0.01, 0.001])),
    ):
        theirs = getattr(keras.optimizers.schedules, name)(*words)
        ours = getattr(train.schedules, name)(*words)
        rates = [[float(one(step)) for step in range(40)] for one in (theirs, ours)]
        np.testing.assert_allclose(rates[1], rates[0], rtol=1e-5)
    # Keras' "truncated" draws may lie outside two deviations (it gives up after four tries: 1 of
    # 20,000 at 2.27 for TruncatedNormal(0, 1, seed=9)), ours never; so quantiles are compared
    rng = np.random.default_rng(0)
    for name in ("RandomUniform", "TruncatedNormal", "HeNormal", "GlorotUniform", "Zeros", "Ones"):
        theirs = np.asarray(getattr(keras.initializers, name)()((200, 100)).detach())
        ours = getattr(train.initializers, name)()((200, 100), rng)
        spreads = [[drawn.std(), *np.quantile(drawn, (0.01, 0.99))] for drawn in (ours, theirs)]
        np.testing.assert_allclose(*spreads, rtol=0.05)
    edge = 2 * np.sqrt(2 / 200) / 0.87962566103423978
    assert 0.99 * edge < np.abs(train.initializers.HeNormal()((200, 100), rng)).max() <= edge


@keras_warns
def test_regression_has_kerass_losses(keras):
    x = np.linspace(-1, 1, 160, dtype=np.float32).reshape(-1, 1)
    y = x**2
    theirs = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)]
    )
    ours = train.Sequential([train.Input((1,)), train.Dense(8, "tanh"), train.Dense(1)])
    ours.set_weights(theirs.get_weights())
    theirs.compile(keras.optimizers.SGD(0.1), "mse")
    ours.compile(train.SGD(0.1), "mse")
    history = ours.fit(x[:, 0], y[:, 0], epochs=10, shuffle=False, verbose=0)
    expected = []
    for _ in range(10):
        for start in range(0, len(x), 32):
            theirs.reset_metrics()
            rows = slice(start, start + 32)
            expected.append(float(theirs.train_on_batch(x[rows], y[rows])))
    np.testing.assert_allclose(history.step_losses, expected, rtol=0, atol=1e-5)


@keras_warns
def test_class_weights_have_kerass_losses(keras):
    x, y = images(96)
    theirs = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten()])
    theirs.add(keras.layers.Dense(3, activation="softmax"))
    ours = train.Sequential([train.Input((6, 6, 1)), train.Flatten(), train.Dense(3, "softmax")])
    ours.set_weights(theirs.get_weights())
    theirs.compile(keras.optimizers.SGD(0.1), SPARSE)
    ours.compile(train.SGD(0.1), SPARSE)
    weights = {0: 1.0, 1: 4.0, 2: 0.5}
    how = {"epochs": 3, "batch_size": 96, "shuffle": False, "verbose": 0, "class_weight": weights}
    history = ours.fit(x, y, **how)
    expected = theirs.fit(x, y, **how).history["loss"]
    np.testing.assert_allclose(history.step_losses, expected, rtol=0, atol=1e-5)


def test_frozen_layers_stay():
    frozen = dataclasses.replace(train.Dense(4), trainable=False)
    model = train.Sequential([frozen, train.Dense(3, "softmax")], input_shape=(4,))
    model.compile("adam", SPARSE)
    before = model.get_weights()
    model.fit(*data(), verbose=0)
    after = model.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.array_equal(before[2], after[2])
