"""The loop: what a step does to bits, what a skipped step leaves alone, and how a run goes on."""

from __future__ import annotations

import dataclasses
from functools import cache

import numba
import numpy as np
import pytest

import lowprec as lp
from lowprec import train

CROSSENTROPY = "sparse_categorical_crossentropy"
POLICIES = list(train.named_policies())


@cache
def digits():
    return train.data.digits()


def network(width=16, **options):
    return train.Sequential(
        [
            train.Input((64,)),
            train.Dense(width, activation="relu", **options),
            train.Dense(width, activation="relu", **options),
            train.Dense(10),
        ]
    )


def few(rows=96):
    data = digits()
    return train.Dataset(
        data.x_train[:rows], data.y_train[:rows], data.x_test[:32], data.y_test[:32]
    )


def run(policy="float32", optimizer=None, data=None, model=None, **options):
    settings = {"loss": CROSSENTROPY, "epochs": 2, "rng": 0, **options}
    return train.fit(
        model or network(),
        data or few(),
        optimizer=optimizer or train.Adam(1e-2),
        policy=policy,
        **settings,
    )


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert a[name].tobytes() == b[name].tobytes(), name


# Bits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(policy):
    before = numba.get_num_threads()
    results, large = [], network(width=1100)  # 96 × 1100 outputs: work is shared from 100,000 on
    try:
        for threads in (1, min(2, before)):
            numba.set_num_threads(threads)
            results.append(run(policy, model=large, batch_size=96))
    finally:
        numba.set_num_threads(before)
    assert_same_bits(results[0].params, results[1].params)
    assert repr(results[0].history) == repr(results[1].history)  # NaN too


def test_another_seed_gives_other_parameters():
    assert run(rng=1).history != run(rng=2).history


@pytest.mark.parametrize("policy", POLICIES)
def test_parameters_and_state_are_values_of_the_policy_s_formats(policy):
    formats = train.get_policy(policy).formats
    history = run(policy)
    for w in history.params.values():
        assert np.array_equal(lp.round_to(w, formats["params"]), w, equal_nan=True)
    for s in history.state.values():
        assert np.array_equal(lp.round_to(s, formats["state"]), s, equal_nan=True)


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "mixed_float8"])
def test_gradients_are_values_of_the_gradients_format(policy):
    data, model = few(), network()
    fmt = train.get_policy(policy).formats["gradients"]
    x, y = data.x_train[:32], data.y_train[:32]
    _, grads = train.gradients(model, model.init(0), x, y, loss=CROSSENTROPY, policy=policy)
    assert list(grads) == list(model.init(0))
    for g in grads.values():
        assert np.array_equal(lp.round_to(g, fmt), g)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("k", [1, 9, 20])
def test_a_power_of_two_may_move_from_the_rate_to_the_loss(policy, k):
    def smaller(y_true, y_pred):
        value, gradient = train.losses.get(CROSSENTROPY)(y_true, y_pred)
        return value * 2.0**-k, gradient * np.float32(2.0**-k)

    plain = run(policy, train.SGD(2.0**-4))
    moved = run(policy, train.SGD(2.0 ** (k - 4)), loss=smaller)
    assert_same_bits(plain.params, moved.params)


@pytest.mark.parametrize("k", [3, 12])
def test_a_static_scale_changes_no_bits_where_nothing_underflows(k):
    plain = run("mixed_bfloat16")
    policy = dataclasses.replace(train.get_policy("mixed_bfloat16"), loss_scale=2.0**k)
    assert_same_bits(plain.params, run(policy).params)


def test_gradients_are_multiplied_by_the_scale_and_the_loss_is_not():
    data, model = few(), network()
    batch = data.x_train[:32], data.y_train[:32]
    one = train.gradients(model, model.init(0), *batch, loss=CROSSENTROPY)
    many = train.gradients(model, model.init(0), *batch, loss=CROSSENTROPY, scale=1024.0)
    assert one[0] == many[0]
    assert_same_bits({n: g * np.float32(1024) for n, g in one[1].items()}, many[1])


def test_the_caller_s_parameters_stay_as_they_are():
    start = network().init(3)
    kept = {name: w.copy() for name, w in start.items()}
    history = run(params=start)
    assert_same_bits(start, kept)
    assert any(not np.array_equal(history.params[name], w) for name, w in kept.items())


def test_frozen_layers_keep_their_bits():
    model = train.Sequential(
        [train.Input((64,)), train.Dense(16, trainable=False, activation="relu"), train.Dense(10)]
    )
    start = model.init(0)
    end = run("mixed_bfloat16", model=model, params=start).params
    for name in ("0/kernel", "0/bias"):
        assert start[name].tobytes() == end[name].tobytes()
    assert not np.array_equal(start["1/kernel"], end["1/kernel"])


@pytest.mark.parametrize("policy", POLICIES)
def test_moving_statistics_are_float32_in_every_policy(policy):
    model = train.Sequential(
        [train.Input((64,)), train.Dense(16), train.BatchNormalization(), train.Dense(10)]
    )
    history = run(policy, model=model, epochs=3)
    variance = history.params["1/moving_variance"]
    assert np.mean(lp.round_to(variance, "tfloat32") != variance) > 0.5


@pytest.mark.parametrize(
    "values",
    [[1e-45, 3e-45], [3.4e38, -1e38], [np.inf, 1.0, 1e6], [np.nan, -2.0, 1e-3], [0.0, -0.0]],
    ids=str,
)
def test_tensor_scales_bring_the_largest_finite_element_to_the_top_of_the_format(values):
    from lowprec.train.numerics import numerics_of

    numerics, x = numerics_of(train.get_policy("mixed_float8")), np.float32(values)
    for round_array, fmt in (
        (numerics.compute, "float8_e4m3fn"),
        (numerics.gradient, "float8_e5m2"),
    ):
        y, finite = round_array(x), np.isfinite(x)
        assert np.array_equal(np.isfinite(y)[finite], finite[finite])
        assert np.array_equal(np.isnan(x), np.isnan(y))
        largest = int(np.argmax(np.where(finite, np.abs(x), -1)))
        error = abs(float(y[largest]) - float(x[largest]))
        assert error <= lp.get_format(fmt).unit_roundoff * abs(float(x[largest]))


@pytest.mark.parametrize(
    "spelling",
    [
        *POLICIES,
        "loss_scale=jmp",
        "compute=float16,loss_scale=3.14159265",
        "params=bfloat16,update=kahan,state=float32",
        "compute=float8_e4m3fn,gradients=float8_e5m2,tensor_scales=True,loss_scale=123456789",
    ],
)
def test_a_policy_is_read_back_from_its_spelling(spelling):
    policy = dataclasses.replace(train.get_policy(spelling), name="")
    assert train.get_policy(str(policy)) == policy


# Skipped steps -----------------------------------------------------------------------------------


class Exploding:
    """A loss whose gradients are infinite at chosen calls."""

    def __init__(self, *calls):
        self.calls, self.count = calls, 0

    def __call__(self, y_true, y_pred):
        value, gradient = train.losses.get(CROSSENTROPY)(y_true, y_pred)
        if self.count in self.calls:
            gradient[0, 0] = np.inf
        self.count += len(y_pred) == 32 and y_pred.flags.writeable
        return value, gradient


def training(loss=CROSSENTROPY, policy="mixed_float16", optimizer=None, model=None):
    from lowprec.train.running.training import Training

    started = Training(
        model or network(), few(), loss=loss, optimizer=optimizer or train.Adam(1e-2), policy=policy
    )
    started.start(None)
    return started


def test_a_skipped_step_leaves_weights_moments_and_step_count_bit_identical():
    model = train.Sequential(
        [train.Input((64,)), train.Dense(16), train.BatchNormalization(), train.Dense(10)]
    )
    run = training(loss=Exploding(1), model=model)
    x, y = few().x_train[:32], few().y_train[:32]
    run.run_step(x, y)
    before = run.snapshot()
    run.run_step(x, y)
    after = run.snapshot()
    assert_same_bits(before.params, after.params)
    assert_same_bits(before.state, after.state)
    assert (before.facts["step"], after.facts["step"]) == (1, 1)
    assert after.skipped_steps == [1]
    assert "under the loss scale 65536" in after.skip_reasons[0]
    run.run_step(x, y)
    assert run.step == 2
    assert run.history.loss_scales == [65536.0, 65536.0, 32768.0]


def test_an_infinite_loss_with_finite_gradients_is_no_reason_to_skip():
    def infinite(y_true, y_pred):
        return np.inf, train.losses.get(CROSSENTROPY)(y_true, y_pred)[1]

    history = run("mixed_float16", loss=infinite)
    assert history.skipped_steps == []
    assert history.history["loss"] == [np.inf, np.inf]


def test_without_a_loss_scale_no_step_is_skipped():
    history = run("compute=float16", loss=Exploding(0))
    assert history.skipped_steps == []
    assert not np.isfinite(history.params["2/kernel"]).all()


def test_every_step_has_a_loss_scale():
    assert run("mixed_float16").loss_scales == [65536.0] * 6
    assert run("float32").loss_scales == [1.0] * 6


# Going on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(policy, tmp_path):
    model = train.Sequential(
        [
            train.Input((64,)),
            train.Dense(16, activation="elu"),
            train.BatchNormalization(),
            train.Dropout(0.2),
            train.Dense(10),
        ]
    )
    scale = {"loss_scale": train.LossScale(2.0**30, growth_interval=3)}
    how = train.get_policy(policy)
    how = dataclasses.replace(how, **scale) if how.loss_scale else how
    whole = run(how, model=model, epochs=4)
    path = tmp_path / "half.npz"
    run(how, model=model, epochs=1).save(path)
    part = run(how, model=model, epochs=3, resume=path, rng=99)
    part = run(how, model=model, epochs=4, resume=part, rng=98)
    assert_same_bits(whole.params, part.params)
    assert_same_bits(whole.state, part.state)
    assert repr(whole.history) == repr(part.history)
    assert whole.loss_scales == part.loss_scales
    assert whole.skipped_steps == part.skipped_steps
    assert repr(whole.facts) == repr(part.facts)


def test_reducing_the_rate_on_a_plateau_goes_on_too():
    def optimizer():
        return train.SGD(train.schedules.Performance(0.1, patience=0, threshold=0.5))

    whole = run(optimizer=optimizer(), epochs=6)
    part = run(optimizer=optimizer(), epochs=6, resume=run(optimizer=optimizer(), epochs=3))
    assert_same_bits(whole.params, part.params)
    assert not np.array_equal(
        whole.params["0/kernel"], run(optimizer=train.SGD(0.1), epochs=6).params["0/kernel"]
    )


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"policy": "bfloat16"}, "formats"),
        ({"optimizer": train.SGD(0.1)}, "optimizer"),
        ({"batch_size": 16}, "batch_size"),
        ({"model": network(width=17)}, "model"),
        ({"data": few(64)}, "data"),
    ],
)
def test_a_run_is_resumed_only_as_it_was(changes, word):
    with pytest.raises(ValueError, match=word):
        run(**{"resume": run(epochs=1), **changes})


# Around the loop ---------------------------------------------------------------------------------


def test_a_split_of_the_training_set_serves_as_validation_set():
    history = run(validation_split=0.25)
    assert len(history.loss_scales) == 2 * 3  # 72 samples in batches of 32
    other = dataclasses.replace(few(), y_test=(few().y_test + 1) % 10)
    assert run(validation_split=0.25, data=other).history == history.history


def test_callbacks_are_called_around_epochs_and_steps():
    calls = []

    class Listener(train.Callback):
        def on_train_begin(self, run):
            calls.append("begin")

        def on_epoch_end(self, epoch, logs, run):
            calls.append((epoch, sorted(logs), run.epoch))
            run.stop_training = epoch == 1

        def on_train_end(self, run):
            calls.append("end")

    run(epochs=9, callbacks=[Listener()])
    names = ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert calls == ["begin", (0, names, 1), (1, names, 2), "end"]


def test_evaluate_agrees_with_the_last_epoch():
    history, data = run("mixed_bfloat16"), few()
    found = train.evaluate(
        network(),
        history.params,
        data.x_test,
        data.y_test,
        loss=CROSSENTROPY,
        policy="mixed_bfloat16",
    )
    assert found == {name: history.history[f"val_{name}"][-1] for name in ("loss", "accuracy")}


def test_dropout_by_monte_carlo_gives_mean_and_spread():
    model = train.Sequential([train.Input((1,)), train.Dropout(0.5), train.Dense(1)])
    params = {"1/kernel": [[1.0]], "1/bias": [3.0]}
    mean, spread = train.predict(model, params, [[1.0]], training=True, samples=2000, rng=1)
    outputs = [
        train.predict(model, params, [[1.0]], training=True, rng=seed).item() for seed in range(20)
    ]
    assert set(outputs) == {3.0, 5.0}
    assert abs(mean - 4) < 0.1
    assert abs(spread - 1) < 0.01


def test_max_norm_holds_after_every_update():
    model = train.Sequential(
        [train.Input((64,)), train.Dense(10, kernel_constraint=train.MaxNorm(0.5))]
    )
    w = run(model=model).params["0/kernel"]
    assert np.linalg.norm(w.astype(np.float64), axis=0).max() < 0.5 * (1 + 1e-6)


def test_a_penalty_is_part_of_the_loss_and_of_the_scaled_gradients():
    data, plain = few(), train.Sequential([train.Input((64,)), train.Dense(10)])
    layer = train.Dense(10, kernel_regularizer=train.L2(0.125))
    model = train.Sequential([train.Input((64,)), layer])
    params, batch = model.init(0), (data.x_train[:32], data.y_train[:32])
    a = train.gradients(plain, params, *batch, loss=CROSSENTROPY, scale=8.0)
    b = train.gradients(model, params, *batch, loss=CROSSENTROPY, scale=8.0)
    w = params["0/kernel"]
    assert b[0] == pytest.approx(a[0] + 0.125 * float((w.astype(np.float64) ** 2).sum()))
    assert np.array_equal(b[1]["0/kernel"], a[1]["0/kernel"] + w * np.float32(0.25 * 8))
    assert_same_bits({"b": a[1]["0/bias"]}, {"b": b[1]["0/bias"]})


def test_the_penalty_is_part_of_the_validation_loss_too():
    data = few(32)
    same = train.Dataset(data.x_train, data.y_train, data.x_train, data.y_train)
    layer = train.Dense(10, kernel_regularizer=train.L2(0.5))
    model = train.Sequential([train.Input((64,)), layer])
    found = run(model=model, data=same, optimizer=train.SGD(0.0)).history
    assert found["val_loss"] == pytest.approx(found["loss"], rel=1e-6)
    assert found["loss"][0] > 5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: run("mixed_flaot16"), "did you mean 'mixed_float16'"),
        (lambda: run(epochs=0), "epochs=0"),
        (lambda: run(loss="crossentropy"), "is not a loss"),
        (lambda: run(data=train.data.iris()), r"shape \(4,\)"),
        (
            lambda: run(
                model=train.Sequential([train.Input((64,)), train.Dense(10, activation="sigmoid")])
            ),
            "ends in sigmoid.*write activation='softmax'",
        ),
        (lambda: run(model=train.Sequential([train.Input((64,)), train.Dense(3)])), "3 classes"),
        (lambda: run(params={"0/kernel": np.zeros((64, 16))}), "is missing"),
    ],
)
def test_mistakes_are_named_with_the_way_out(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_label_without_a_unit_is_refused_with_its_row_in_the_data():
    data = train.data.digits()
    row = int(np.argmax(data.y_train >= 3))
    label = data.y_train[row]
    narrow = train.Sequential([train.Input((64,)), train.Dense(3)])
    with pytest.raises(
        ValueError, match=rf"y_train: label {label} in row {row} is not one of the 3"
    ):
        train.fit(narrow, data, loss="sparse_categorical_crossentropy", optimizer="sgd", epochs=1)


@pytest.mark.parametrize("recorder", [True, train.Recorder], ids=["True", "the class"])
def test_what_is_no_recorder_is_refused(recorder):
    with pytest.raises(TypeError, match=r"train\.Recorder\(every=10\)"):
        run(recorder=recorder)
