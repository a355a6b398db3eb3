"""Keras' words as courses use them: layers of a model, weights of samples, callbacks that look."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

from lowprec import train

SPARSE = "sparse_categorical_crossentropy"
RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 96)
X = RNG.standard_normal((96, 4)).astype(np.float32) + Y[:, None]


def classifier(**how):
    model = train.Sequential([train.Input((4,)), train.Dense(8, "relu")])
    model.add(train.Dense(3, activation="softmax", name="answers"))
    model.compile("adam", SPARSE, metrics=["accuracy"], **how)
    return model


def fitted(**how):
    model = classifier()
    return model, model.fit(X, Y, **{"verbose": 0} | how)


# Layers of a model -------------------------------------------------------------------------------


def test_a_layer_of_a_model_is_frozen_by_assignment():
    model, _ = fitted()
    before = model.get_weights()
    for layer in model.layers[:-1]:
        layer.trainable = False
    assert model != classifier()
    assert repr(model.layers[0]) == "Dense(8, activation='relu', trainable=False)"
    assert model.summary().trained == 27
    model.fit(X, Y, verbose=0)  # without compile: the moments of the others go on
    after = model.get_weights()
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [False, False, True, True]
    model.trainable = True
    assert model == classifier()
    model.fit(X, Y, verbose=0)
    assert not np.array_equal(model.get_weights()[0], after[0])


def test_a_frozen_layer_has_the_gradients_of_one_that_was_made_frozen():
    made = dataclasses.replace(train.Dense(8, "relu", kernel_regularizer="l2"), trainable=False)
    assigned = train.Dense(8, "relu", kernel_regularizer="l2")
    assert assigned.regularizers
    assigned.trainable = False
    assert assigned == made
    assert not assigned.regularizers
    with pytest.raises(dataclasses.FrozenInstanceError, match=r"replace\(layer, units=…\)"):
        assigned.units = 3


def test_a_layer_is_the_models_own_and_copied_where_it_is_in_another():
    layer = train.Dense(3)
    one, other = train.Sequential([layer], (4,)), train.Sequential([layer, layer], (4,))
    assert one.layers[0] is layer
    layer.trainable = False
    assert [x.trainable for x in other.layers] == [True, True]
    assert [x.name for x in other.layers] == ["dense", "dense_1"]
    for twin in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        twin.layers[0].set_weights([np.ones((4, 3)), np.ones(3)])
        assert twin == one
        assert not np.array_equal(twin.get_weights()[0], one.get_weights()[0])


def test_layers_give_and_take_their_weights():
    model = classifier()
    kernel, bias = model.layers[1].get_weights()
    np.testing.assert_array_equal(kernel, model.params["1/kernel"])
    model.get_layer("answers").set_weights([kernel + 1, bias])
    np.testing.assert_array_equal(model.params["1/kernel"], kernel + 1)
    assert [layer.count_params() for layer in model.layers] == [40, 27]
    assert model.get_layer(index=0).name == "dense"
    with pytest.raises(ValueError, match="'dense', 'answers'"):
        model.get_layer("dense_7")
    with pytest.raises(ValueError, match="1 arrays for the 2 parameters"):
        model.layers[0].set_weights([kernel])
    with pytest.raises(ValueError, match="'1/kernel' has shape"):
        model.layers[1].set_weights([bias, kernel])
    assert train.Dense(3).get_weights() == []
    with pytest.raises(ValueError, match="in no model"):
        train.Dense(3).set_weights([kernel, bias])
    with pytest.raises(ValueError, match="two layers have name='answers'"):
        model.add(train.Dense(2, name="answers"))


def test_layers_of_a_trained_model_bring_what_they_learnt():
    first, _ = fitted()
    bare = train.Sequential([*first.layers[:-1], train.Dense(2, activation="softmax")])
    second = train.Sequential()
    second.add(train.Input((4,)))
    for layer in first.layers[:-1]:
        second.add(layer)
    second.add(train.Dense(2, activation="softmax"))
    kernel = first.layers[0].get_weights()[0]
    for model in (bare, second):
        np.testing.assert_array_equal(model.get_weights()[0], kernel)
        model.layers[0].trainable = False
        model.compile("adam", SPARSE)
        model.fit(X, Y % 2, verbose=0)
        np.testing.assert_array_equal(model.get_weights()[0], kernel)
    assert first.layers[0].trainable
    fresh = first.with_layers(first.layers)
    assert not np.array_equal(fresh.get_weights()[0], kernel)
    untrained = train.Sequential(classifier().layers, (4,))
    np.testing.assert_array_equal(untrained.init(3)["0/kernel"], classifier().init(3)["0/kernel"])
    free = train.fit(second, (X, Y % 2), loss=SPARSE, optimizer="adam", verbose=0)
    assert not np.array_equal(free.params["0/kernel"], kernel)  # the function asks for params=


def test_weights_alone_go_through_a_file(tmp_path):
    model, _ = fitted()
    model.save_weights(tmp_path / "model.weights.h5")
    other = classifier()
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    model.save(tmp_path / "model.keras")
    other.load_weights(tmp_path / "model.keras")
    again = train.load_model(tmp_path / "model.keras")
    assert [layer.name for layer in again.layers] == ["dense", "answers"]
    wide = train.Sequential([train.Input((4,)), train.Dense(9), train.Dense(3)])
    with pytest.raises(ValueError, match="has shape"):
        wide.load_weights(tmp_path / "model.keras")


# One batch, a call -------------------------------------------------------------------------------


def test_steps_batch_by_batch_are_those_of_fit():
    whole, history = fitted(shuffle=False, batch_size=32, epochs=2)
    model = classifier()
    for _ in range(2):
        for start in range(0, 96, 32):
            rows = slice(start, start + 32)
            loss, accuracy = model.train_on_batch(X[rows], Y[rows])
            assert 0 <= accuracy <= 1
    for a, b in zip(whole.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loss == history.step_losses[-1]
    assert model.test_on_batch(X, Y) == model.evaluate(X, Y)
    assert list(model.test_on_batch(X, Y, return_dict=True)) == ["loss", "accuracy"]
    np.testing.assert_array_equal(model(X), model.predict_on_batch(X))


# What fit takes ----------------------------------------------------------------------------------


def test_weights_of_samples_count_as_repeated_samples():
    weights = RNG.integers(0, 3, 96)
    weights[0] += 96 - weights.sum() if weights.sum() < 96 else 0
    model = classifier()
    losses = [
        model.evaluate(X, Y, sample_weight=weights)[0] * 96,
        model.evaluate(np.repeat(X, weights, 0), np.repeat(Y, weights))[0] * weights.sum(),
    ]
    assert losses[0] == pytest.approx(losses[1])
    _, by_class = fitted(class_weight={0: 3.0, 2: 0.5})
    _, by_sample = fitted(sample_weight=np.array([3.0, 1.0, 0.5])[Y])
    assert by_class.step_losses == by_sample.step_losses
    assert by_class.facts["data_checksum"] != by_sample.facts["data_checksum"]
    batches = [(X[i : i + 32], Y[i : i + 32], np.full(32, 2.0)) for i in range(0, 96, 32)]
    assert classifier().fit(batches, verbose=0).step_losses[0] == pytest.approx(
        2 * classifier().fit(X, Y, shuffle=False, verbose=0).step_losses[0]
    )
    validated = classifier().fit(X, Y, validation_data=(X, Y, weights), verbose=0)
    assert validated.history["val_loss"][0] != validated.history["loss"][0]
    for wrong, message in (
        (weights[:5], r"pass one number for each: shape \(96,\)"),
        (-1 - weights, "finite and at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted(sample_weight=wrong)
    with pytest.raises(ValueError, match="pass one: sample_weight ="):
        fitted(sample_weight=weights, class_weight={0: 1})


def test_weights_of_samples_stay_with_their_rows_in_a_split():
    weights = np.arange(96.0) / 48
    _, split = fitted(sample_weight=weights, validation_split=0.25)
    model = classifier()
    given = {"sample_weight": weights[:72], "validation_data": (X[72:], Y[72:], weights[72:])}
    assert model.fit(X[:72], Y[:72], verbose=0, **given).history == split.history
    with pytest.raises(ValueError, match="leaves one part empty"):
        fitted(validation_split=1.0)


def test_the_first_epoch_may_have_another_number():
    model, first = fitted(epochs=2)
    seen = []

    class Counts(train.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(epoch)

    second = model.fit(X, Y, epochs=5, initial_epoch=2, callbacks=Counts(), verbose=0)
    whole, all_five = fitted(epochs=5)
    assert (first.epoch, second.epoch, seen) == ([0, 1], [2, 3, 4], [2, 3, 4])
    assert first.history["loss"] + second.history["loss"] == all_five.history["loss"]
    np.testing.assert_array_equal(model.get_weights()[0], whole.get_weights()[0])
    with pytest.raises(ValueError, match="write epochs=7 for 2 epochs more"):
        model.fit(X, Y, epochs=2, initial_epoch=5)


def test_a_generator_may_be_validated_on():
    def batches():
        while True:
            yield X[:8], Y[:8]

    how = {"steps_per_epoch": 3, "validation_steps": 2, "epochs": 2, "verbose": 0}
    for validation in (batches, batches()):
        found = classifier().fit(batches(), validation_data=validation, **how)
        assert len(found.history["val_loss"]) == 2


def test_arguments_by_place_end_in_the_line_to_type():
    with pytest.raises(TypeError, match=r"write fit\(x, y, batch_size=16, epochs=3\)"):
        classifier().fit(X, Y, 16, 3)
    for word in ("validation_freq", "workers"):
        with pytest.raises(TypeError, match="drop"):
            classifier().fit(X, Y, **{word: 2})


# Callbacks that look at the model ----------------------------------------------------------------


def test_a_callback_written_for_keras_sees_the_model_as_it_is():
    model = classifier()
    kernels, rates, outputs = [], [], []

    class Looks(train.Callback):
        def on_epoch_end(self, epoch, logs=None):
            assert self.model is model
            assert self.params["epochs"] == 3
            kernels.append(self.model.layers[0].get_weights()[0])
            rates.append(float(self.model.optimizer.learning_rate))
            outputs.append(self.model.predict(X[:1]))
            assert self.model.evaluate(X, Y)[0] > 0
            if epoch == 1:
                self.model.stop_training = True

    model.fit(X, Y, epochs=3, callbacks=[Looks()], verbose=0)
    assert len(kernels) == 2
    assert not np.array_equal(kernels[0], kernels[1])
    np.testing.assert_array_equal(kernels[1], model.get_weights()[0])
    np.testing.assert_array_equal(outputs[1], model.predict(X[:1]))
    assert rates == [1e-3, 1e-3]


def test_what_a_callback_sets_and_saves_is_the_trainings(tmp_path):
    class Acts(train.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                self.model.save(tmp_path / "first.keras")
            else:
                self.model.set_weights([np.zeros_like(w) for w in self.model.get_weights()])

    model = classifier()
    model.fit(X, Y, epochs=2, callbacks=[Acts()], verbose=0)
    assert not any(w.any() for w in model.get_weights())
    again = train.load_model(tmp_path / "first.keras")
    again.fit(X, Y, verbose=0)
    expected, _ = fitted(epochs=2)
    np.testing.assert_array_equal(again.get_weights()[0], expected.get_weights()[0])


def test_hooks_of_keras_get_what_keras_gives_them():
    seen = []

    class Notes(train.Callback):
        def on_train_begin(self, logs):
            seen.append(logs)

        def on_epoch_begin(self, epoch, logs):
            seen.append(epoch)

        def on_train_batch_end(self, batch, logs):
            seen.append(batch)

    classifier().fit(X, Y, epochs=2, callbacks=Notes(), verbose=0)
    assert seen == [{}, 0, 0, 1, 2, 1, 0, 1, 2]
    seen.clear()
    calls = train.LambdaCallback(
        on_train_begin=seen.append,
        on_epoch_end=lambda epoch, logs: seen.append((epoch, sorted(logs))),
    )
    classifier().fit(X, Y, epochs=1, callbacks=[calls], verbose=0)
    assert seen == [{}, (0, ["accuracy", "loss"])]

    class Tests(train.Callback):
        def on_test_end(self, logs=None):
            """Never called."""

    with pytest.raises(TypeError, match="defines on_test_end, which is not called"):
        classifier().fit(X, Y, callbacks=[Tests()], verbose=0)


def test_callbacks_take_kerass_words(tmp_path, capsys):
    stop = train.EarlyStopping(
        "accuracy", min_delta=2, patience=1, verbose=1, restore_best_weights=True, mode="max"
    )
    path = tmp_path / "best.weights.h5"
    saved = train.ModelCheckpoint(path, monitor="loss", save_weights_only=True)
    model, history = fitted(epochs=5, callbacks=[stop, saved])
    assert capsys.readouterr().out.splitlines()[0] == "Epoch 2: early stopping"
    assert len(history.epoch) == 2
    assert stop.best == history.history["accuracy"][0]
    np.testing.assert_array_equal(model.get_weights()[0], fitted()[0].get_weights()[0])
    model.load_weights(path)
    late = train.EarlyStopping("loss", baseline=0.0, patience=1, start_from_epoch=2)
    assert len(fitted(epochs=9, callbacks=late)[1].epoch) == 3
    with pytest.raises(ValueError, match="save_freq=100"):
        train.ModelCheckpoint(path, save_freq=100)


# Classes of Keras --------------------------------------------------------------------------------


def test_losses_and_metrics_as_classes_are_those_by_name(tmp_path):
    losses, metrics = train.losses, train.metrics
    model = classifier()
    model.compile(
        "adam",
        losses.SparseCategoricalCrossentropy(from_logits=False),
        metrics=[metrics.SparseTopKCategoricalAccuracy(k=2), metrics.Recall(name="found")],
    )
    history = model.fit(X, Y, verbose=0).history
    assert list(history) == ["loss", "sparse_top_k_categorical_accuracy", "found"]
    model.save(tmp_path / "model.keras")
    again = train.load_model(tmp_path / "model.keras")
    assert again.evaluate(X, Y) == model.evaluate(X, Y)
    line = train.Sequential([train.Input((4,)), train.Dense(1)])
    line.compile("sgd", losses.Huber(delta=2.0), metrics=metrics.RootMeanSquaredError())
    found = line.fit(X, Y, verbose=0)  # integers are numbers for a partial loss too
    assert list(found.history) == ["loss", "root_mean_squared_error"]
    assert losses.MeanSquaredError() is losses.mse
    assert losses.get("huber_loss") is losses.huber
    for wrong, message in (
        (lambda: losses.get(losses.MeanSquaredError), r"write loss=MeanSquaredError\(\)"),
        (lambda: losses.MeanSquaredError(Y, X), "made first"),
        (lambda: losses.CategoricalCrossentropy(label_smoothing=0.1), "s / classes"),
        (lambda: losses.Huber(epsilon=1), "it has delta"),
        (lambda: losses.Huber(reduction="sum"), "drop reduction"),
        (lambda: metrics.get(metrics.Recall), r"write metrics=\[Recall\(\)\]"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            wrong()
    with pytest.raises(ValueError, match="says yes above a half"):
        metrics.BinaryAccuracy(threshold=0.3)


def test_a_loss_that_returns_no_gradient_is_told_what_to_return():
    with pytest.raises(TypeError, match=r"return \(e\*\*2\).mean\(\), 2 \* e / e.size"):
        train.fit(
            train.Sequential([train.Input((4,)), train.Dense(1)]),
            (X, Y),
            loss=lambda y_true, y_pred: np.mean((y_pred - y_true[:, None]) ** 2),
            optimizer="sgd",
        )


def test_initializers_regularizers_and_constraints_have_kerass_names(tmp_path):
    seeded = train.initializers.HeNormal(seed=3)
    one, other = (seeded((5, 4), np.random.default_rng(i)) for i in range(2))
    np.testing.assert_array_equal(one, other)
    assert train.initializers.HeNormal() == train.initializers.get("he_normal")
    assert train.initializers.get("uniform") == train.initializers.RandomUniform()
    assert train.regularizers.l1_l2() == train.regularizers.get("l1_l2")
    layer = train.Dense(
        3,
        kernel_initializer=train.initializers.TruncatedNormal(0.1, seed=1),
        bias_initializer=train.initializers.RandomUniform(-1, 1),
        kernel_regularizer=train.regularizers.l2(0.1),
    )
    model = train.Sequential([train.Input((4,)), layer])
    model.save(tmp_path / "model.keras")
    assert train.load_model(tmp_path / "model.keras") == model
    assert abs(model.get_weights()[0]).max() <= 0.2
    with pytest.raises(TypeError, match="is not a constraint; pass a function of the weights"):
        train.Dense(3, kernel_constraint="non_neg")


def test_the_rate_of_an_optimizer_may_be_assigned():
    model, _ = fitted(epochs=2)
    model.optimizer.learning_rate = 0.0
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(before[0], model.get_weights()[0])
    with pytest.raises(ValueError, match="learning_rate=-1"):
        model.optimizer.learning_rate = -1
    with pytest.raises(dataclasses.FrozenInstanceError, match="only learning_rate"):
        model.optimizer.name = "mine"


# What there is not -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (train, ["models", "utils", "backend", "Model", "set_global_policy", "constraints"]),
        (train.layers, ["LSTM", "Conv1D", "InputLayer", "Rescaling", "Embedding"]),
        (train.callbacks, ["TensorBoard", "BackupAndRestore"]),
        (train.metrics, ["F1Score", "Mean"]),
        (train.optimizers, ["Lion"]),
        (classifier(), ["weights", "to_json", "predict_classes", "metrics_names"]),
        (train.Dense(3), ["kernel", "get_config", "output"]),
    ],
    ids=lambda one: getattr(one, "__name__", "") if not isinstance(one, list) else "",
)
def test_what_there_is_not_says_what_there_is(owner, names):
    for name in names:
        assert not hasattr(owner, name)
        with pytest.raises(AttributeError, match=f"has no {name!r}[:;] .{{12}}"):
            getattr(owner, name)
    with pytest.raises(AttributeError):
        _ = owner.nothing_of_this_name


def test_arguments_of_keras_that_there_are_not_end_in_what_to_do():
    for make, message in (
        (lambda: train.Dense(3, activity_regularizer="l2"), "kernel_regularizer='l2'"),
        (lambda: train.Dropout(0.5, seed=1), "drop seed"),
        (lambda: train.Dense(3, kernel_initialiser="ones"), "did you mean 'kernel_initializer'"),
        (lambda: train.SGD(0.1, decay=1e-6), "schedules.Power"),
        (lambda: train.Dense(3)(X), "put together in a list"),
        (lambda: classifier().summary(line_length=80), "drop line_length"),
    ):
        with pytest.raises(TypeError, match=message):
            make()
    with pytest.raises(ValueError, match=r"write x\[numpy.newaxis\]"):
        classifier().predict(X[0])


def test_a_summary_that_nobody_takes_is_printed(capsys):
    model = classifier()
    found = model.summary()
    assert str(found)
    assert capsys.readouterr().out == ""
    model.summary()
    assert "Dense(8" in capsys.readouterr().out
