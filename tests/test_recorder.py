"""What the flight recorder counts is true, what it says is the cause, and it changes nothing."""

import dataclasses
import json
import pickle

import numpy as np
import pytest

from lowprec import Accumulator, measure, round_to, train
from lowprec.common.recorded_rows import FIELDS
from lowprec.formats import bfloat16, float16, get_format
from lowprec.train.recorder.tracks import ROWS, Seen, Track, tally

XENT = "sparse_categorical_crossentropy"
POLICIES = list(train.named_policies())


def small(policy="float32", optimizer=None, epochs=3, **how):
    """Train a small network on irises, with a recorder."""
    data = train.data.iris().scaled("standard")
    model = train.Sequential([train.Input((4,)), train.Dense(8, activation="tanh"), train.Dense(3)])
    recorder = how.pop("recorder", None) or train.Recorder(1)
    history = train.fit(
        model,
        data,
        loss=XENT,
        optimizer=optimizer or train.Adam(1e-2),
        policy=policy,
        epochs=epochs,
        recorder=recorder,
        **how,
    )
    return history, recorder


def numbers(rng=0, size=5000):
    rng = np.random.default_rng(rng)
    x = rng.standard_normal(size) * np.exp2(rng.integers(-40, 20, size))
    x[::97] = 0
    return x.astype(np.float32)


# What is counted ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float8_e5m2", "e6m9"])
def test_a_track_counts_what_measure_counts(fmt):
    x, kind = numbers(), get_format(fmt)
    track = Track("weight", "w", kind)
    track.add(0, x, round_to(x, kind))
    found, truth = track.whole, measure(x, kind)
    for field in ("count", "zeros", "new_zeros", "subnormals", "overflows", "nans", "infs"):
        assert found[field] == getattr(truth, field), field
    assert found["max_abs"] == truth.max_abs
    assert found["min_abs"] == truth.min_abs
    assert found.headroom_bits == pytest.approx(truth.headroom_bits)
    assert found.sqnr_db == pytest.approx(truth.sqnr_db, abs=1e-6)
    occupied = np.flatnonzero(found.exponents)
    assert {int(e) - 192: int(found.exponents[e]) for e in occupied} == truth.exponent_histogram


def test_infinities_and_nan_are_told_apart_from_overflows():
    x = np.float32([np.inf, -np.inf, np.nan, 1e6, 1.0])
    track = Track("weight", "w", float16)
    track.add(0, x, round_to(x, float16))
    assert [track.whole[f] for f in ("infs", "nans", "overflows")] == [2, 1, 1]


def test_magnitudes_are_told_without_the_loss_scale():
    x = numbers()
    plain, scaled = Track("weight_gradient", "w", float16), Track("weight_gradient", "w", float16)
    plain.add(0, x, x)
    scaled.add(0, x * np.float32(1024), x * np.float32(1024), scale=1024.0)
    assert np.array_equal(plain.exponents, scaled.exponents)
    assert plain.whole["max_abs"] == scaled.whole["max_abs"]
    assert scaled.whole.headroom_bits == pytest.approx(plain.whole.headroom_bits - 10)


def test_lost_updates_are_those_that_leave_the_weight_as_it_was():
    rng = np.random.default_rng(0)
    w = round_to(rng.standard_normal(4000).astype(np.float32), bfloat16)
    update = (rng.standard_normal(4000) * np.exp2(rng.integers(-20, 0, 4000))).astype(np.float32)
    update[::10] = 0
    new = round_to(w + update, bfloat16)
    track = Track("update", "w", get_format("float32"))
    tally(0, [Seen(track, update, old=w, new=new)])
    assert track.whole["changes"] == np.count_nonzero(update)
    assert track.whole["lost"] == np.count_nonzero((update != 0) & (new == w))
    predicted, _ = track.lost_at(bfloat16.precision)
    assert predicted == pytest.approx(track.whole.lost_rate, abs=0.05)


def test_the_exact_zeros_of_relu_are_no_new_zeros():
    data = train.data.iris().scaled("standard")
    model = train.Sequential([train.Input((4,)), train.Dense(8, "relu"), train.Dense(3)])
    recorder = train.Recorder(1)
    train.fit(
        model, data, loss=XENT, optimizer="sgd", policy="float16", recorder=recorder, epochs=1
    )
    relu = recorder.track("activation", "0").whole
    assert relu["zeros"] > 0.1 * relu["count"]
    assert relu["new_zeros"] == 0


def test_every_tensor_of_a_network_has_a_track():
    _, recorder = small("mixed_float16")
    names = {(track.kind, track.name) for track in recorder.tracks.values() if track.length}
    weights = {f"{i}/{short}" for i in (0, 1) for short in ("kernel", "bias")}
    assert {name for kind, name in names if kind == "weight"} == weights
    assert {name for kind, name in names if kind == "weight_gradient"} == weights
    assert {name for kind, name in names if kind == "update"} == weights
    assert {name for kind, name in names if kind == "activation"} == {"input", "0", "1"}
    assert {name for kind, name in names if kind == "activation_gradient"} == {"0", "1"}
    assert len([name for kind, name in names if kind == "moment"]) == 8


def test_convolutions_normalisations_and_dropout_are_recorded():
    x = np.random.default_rng(0).random((16, 6, 6, 1)).astype(np.float32)
    y = np.arange(16) % 3
    model = train.Sequential(
        [
            train.Conv2D(4, 3, activation="relu"),
            train.MaxPooling2D(),
            train.BatchNormalization(),
            train.Dropout(0.5),
            train.Flatten(),
            train.Dense(3),
        ]
    )
    recorder = train.Recorder(1)
    data = train.Dataset(x, y, x, y)
    train.fit(model, data, loss=XENT, optimizer="adam", policy="bfloat16", recorder=recorder)
    gradients = {track.name for track in recorder.of_kind("weight_gradient")}
    assert gradients == {"0/kernel", "0/bias", "2/gamma", "2/beta", "5/kernel", "5/bias"}
    assert {"0", "2", "5"} <= {track.name for track in recorder.of_kind("activation")}
    assert recorder.label("0/kernel") == "Conv2D 1 (0/kernel)"


# What it costs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_recording_changes_no_bit(policy):
    watched, _ = small(policy)
    alone = _alone(policy)
    for name, curve in alone.history.items():
        assert np.array_equal(watched.history[name], curve, equal_nan=True), name
    for name, values in alone.params.items():
        assert values.tobytes() == watched.params[name].tobytes(), name
    assert watched.loss_scales == alone.loss_scales
    for name, values in alone.state.items():
        assert values.tobytes() == watched.state[name].tobytes(), name


@dataclasses.dataclass(frozen=True)
class Overwriting(train.Layer):
    """A layer of a user's, which works in place."""

    copies: bool

    def forward(self, params, x, run):
        y = x.copy() if self.copies else x
        y *= -2
        return y, None

    def backward(self, params, saved, dy, run):
        dx = dy.copy() if self.copies else dy
        dx *= -2
        return dx, {}


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_layer_that_works_in_place_changes_nothing_that_was_seen_before(policy):
    data, found = train.data.iris().scaled("standard"), []
    for copies in (True, False):
        layers = train.Dense(8), Overwriting(copies), train.Dense(3)
        model = train.Sequential([train.Input((4,)), *layers])
        recorder = train.Recorder(1)
        train.fit(model, data, loss=XENT, optimizer="sgd", policy=policy, recorder=recorder)
        tracks = recorder.tracks.items()
        found.append({key: (t.numbers.tobytes(), t.exponents.tobytes()) for key, t in tracks})
    assert found[0] == found[1]


def _alone(policy):
    data = train.data.iris().scaled("standard")
    model = train.Sequential([train.Input((4,)), train.Dense(8, activation="tanh"), train.Dense(3)])
    return train.fit(model, data, loss=XENT, optimizer=train.Adam(1e-2), policy=policy, epochs=3)


def test_memory_does_not_grow_with_the_run():
    x = numbers(size=64)
    track = Track("weight", "w", float16)
    steps = 10 * ROWS + 7
    for step in range(steps):
        track.add(step, x, x)
    assert track.length <= ROWS
    assert track.whole["count"] == 64 * steps
    assert track.whole["records"] == steps
    first, last = track.field("first_step"), track.field("last_step")
    assert first[0] == 0
    assert last[-1] == steps - 1
    assert np.array_equal(first[1:], last[:-1] + 1)


def test_only_one_step_in_so_many_is_recorded():
    _, recorder = small(recorder=train.Recorder(4))
    assert recorder.steps == 12
    assert recorder.recorded == 3
    assert recorder.track("weight", "0/kernel").whole["records"] == 3


# Files, halves and other sources -----------------------------------------------------------------


def test_a_gradient_that_no_layer_rounds_can_be_what_was_not_finite():
    penalty = train.L2(1e36)  # under the loss scale its gradient leaves float32
    model = train.Sequential([train.Input((2,)), train.Dense(3, kernel_regularizer=penalty)])
    data = train.Dataset(np.ones((8, 2)), [0, 1] * 4, np.ones((2, 2)), [0, 1])
    recorder = train.Recorder()
    how = {"loss": "sparse_categorical_crossentropy", "optimizer": "sgd", "epochs": 1}
    train.fit(model, data, policy="mixed_float16", recorder=recorder, verbose=False, **how)
    assert recorder.events == [(0, True, "weight_gradient", "0/kernel", np.inf)]


def test_numpys_integers_count_steps_as_pythons_do(tmp_path):
    recorder = train.Recorder(np.int64(2))
    recorder.observe(np.int64(0), "weight_gradient", "w", [1e-9, 1e-3])
    recorder.save(tmp_path / "recorder.npz")
    found = train.Recorder.load(tmp_path / "recorder.npz")
    assert (found.every, found.steps, found.recorded) == (2, 1, 1)


def test_a_saved_recorder_comes_back_as_it_was(tmp_path):
    _, recorder = small("mixed_float8", optimizer=train.AdamW())
    recorder.save(tmp_path / "run.npz")
    loaded = train.Recorder.load(tmp_path / "run.npz")
    assert loaded.policy == recorder.policy
    assert loaded.verdict == recorder.verdict
    assert loaded.facts == json.loads(json.dumps(recorder.facts))
    assert list(loaded.tracks) == list(recorder.tracks)
    for key, track in recorder.tracks.items():
        assert loaded.tracks[key].fmt == track.fmt
        for part in ("numbers", "exponents", "gaps"):
            assert np.array_equal(getattr(loaded.tracks[key], part), getattr(track, part)), key


def test_own_formats_and_accumulators_come_back_too(tmp_path):
    sums = train.Policy(compute="e6m9", accumulate=Accumulator("bfloat16", "pairwise"))
    recorder = train.Recorder(3, policy=sums)
    recorder.save(tmp_path / "run.npz")
    assert train.Recorder.load(tmp_path / "run.npz").policy == sums


def test_a_history_is_no_recorder(tmp_path):
    history, _ = small()
    history.save(tmp_path / "run.npz")
    with pytest.raises(ValueError, match="not a saved recorder"):
        train.Recorder.load(tmp_path / "run.npz")


def test_a_resumed_recorder_is_that_of_one_longer_run(tmp_path):
    _, whole = small("mixed_bfloat16", epochs=4)
    first, recorder = small("mixed_bfloat16", epochs=2)
    recorder.save(tmp_path / "run.npz")
    _, resumed = small(
        "mixed_bfloat16",
        epochs=4,
        resume=first,
        recorder=train.Recorder.load(tmp_path / "run.npz"),
    )
    _, second = small("mixed_bfloat16", epochs=4, resume=first)
    merged = recorder.merge(second)
    for other in (resumed, merged):
        assert other.steps == whole.steps
        for key, track in whole.tracks.items():
            assert np.array_equal(track.numbers, other.tracks[key].numbers), key
            assert np.array_equal(track.exponents, other.tracks[key].exponents), key


@pytest.mark.parametrize("with_reference", [("first",), ("second",), ("first", "second")])
def test_a_merged_recorder_keeps_the_reference_that_goes_with_its_curves(with_reference):
    losses = {"first": [3.0, 2.0], "second": [3.0, 2.0, 1.0]}
    first, second = (
        train.Recorder(reference=losses[name] if name in with_reference else None)
        for name in losses
    )
    first.observe(1, "activation", "x", [1.0])
    second.observe(2, "activation", "x", [1.0])
    for merged in (first.merge(second), second.merge(first)):
        assert merged.reference == losses[with_reference[-1]]


def test_a_recorder_refuses_a_run_in_another_policy():
    _, recorder = small("bfloat16")
    with pytest.raises(ValueError, match="use a new Recorder"):
        small("float16", recorder=recorder)
    with pytest.raises(ValueError, match="12 steps already"):
        small("bfloat16", recorder=recorder)
    with pytest.raises(ValueError, match="read them one by one"):
        recorder.merge(train.Recorder())


def test_a_recorder_can_be_copied_and_pickled():
    _, recorder = small("float16")
    copy = pickle.loads(pickle.dumps(recorder))
    assert copy.verdict == recorder.verdict


def test_observed_tensors_count_like_recorded_ones():
    recorder = train.Recorder(policy="float16")
    recorder.observe(0, "weight_gradient", "w", [1e-9, 1e-3, 0.0], scale=1.0)
    recorder.observe(1, "update", "w", [1e-9, 0.5], parameter=[1.0, 1.0])
    assert recorder.track("weight_gradient", "w").whole.new_zero_rate == 0.5
    assert recorder.track("update", "w").whole.lost_rate == 0.5
    assert recorder.steps == 2


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "float32"])
def test_observed_float64_is_rounded_once_from_what_it_is(policy):
    """Neither 1e-300 is a zero nor 1e300 an infinity before rounding, and 1 + 2**-11 + 2**-40 is
    no midpoint of float16."""
    recorder = train.Recorder(policy=policy)
    x = np.array([1e-300, -1e300, 0.0, np.inf, 1 + 2.0**-11 + 2.0**-40])
    recorder.observe(0, "activation", "x", x)
    whole = recorder.track("activation", "x").whole
    counted = {name: whole[name] for name in ("zeros", "new_zeros", "overflows", "infs", "nans")}
    assert counted == {"zeros": 1, "new_zeros": 1, "overflows": 1, "infs": 1, "nans": 0}
    if policy == "float16":
        assert whole["noise"] == pytest.approx(2.0**-22, rel=1e-6)


def test_observing_takes_every_array_of_real_numbers_alone():
    torch = pytest.importorskip("torch", reason="a tensor that is trained is observed too")
    recorder = train.Recorder(policy="bfloat16")
    for number, x in enumerate(
        ([1, 2], np.float16([1, 2]), np.int64([1, 2]), torch.ones(2, requires_grad=True))
    ):
        recorder.observe(number, "activation", "x", x)
    assert recorder.track("activation", "x").whole["count"] == 8
    with pytest.raises(TypeError, match="complex"):
        recorder.observe(4, "activation", "x", [1j])


def test_observing_says_what_is_wrong():
    recorder = train.Recorder()
    with pytest.raises(ValueError, match="did you mean 'weight_gradient'"):
        recorder.observe(0, "weight_gradients", "w", [1.0])
    with pytest.raises(ValueError, match="pass the parameter that it is added to"):
        recorder.observe(0, "update", "w", [1.0], parameter=[1.0, 2.0])
    with pytest.raises(ValueError, match="every=0"):
        train.Recorder(0)


def test_the_layout_of_rows_is_what_the_kernel_writes():
    """Sums first, then maxima, then minima: merging relies on it."""
    from lowprec.common.recorded_rows import MAXIMA, MINIMA, SUMS, empty_row, merge_rows

    assert FIELDS == SUMS + MAXIMA + MINIMA
    track = Track("weight", "w", float16)
    track.add(3, numbers(), numbers())
    assert np.array_equal(merge_rows(empty_row(), track.numbers[0]), track.numbers[0])
