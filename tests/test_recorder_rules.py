"""Rules judge each tensor and each tenth of a run; what comes from elsewhere is never refused."""

import numpy as np
import pytest
from cases import failures

from lowprec import round_to, train
from lowprec.formats import get_format
from lowprec.train.recorder.watching import unit_noise


def recorded(case, every=5):
    _, data, model, how, policy, *_ = case()
    how = how | {"verbose": False, "rng": 0}
    reference = train.fit(model, data, policy="float32", **how)
    recorder = train.Recorder(every, reference=reference)
    train.fit(model, data, policy=policy, recorder=recorder, **how)
    return recorder


def test_a_bias_whose_every_update_is_lost_does_not_hide_behind_kernels():
    recorder = train.Recorder(policy="bfloat16")
    for step in range(30):
        recorder.observe(step, "update", "1/kernel", np.full(1000, 0.1), parameter=np.ones(1000))
        recorder.observe(step, "update", "1/bias", np.full(10, 1e-5), parameter=np.ones(10))
    (finding,) = [f for f in recorder.findings if f.rule == "lost updates"]
    assert "1/bias" in finding.text
    assert finding.text.startswith("100 %")


def test_an_offset_in_a_layer_is_seen_beside_the_deviation_of_its_units():
    recorder = recorded(failures.hidden_offset_bf16)
    first = recorder.findings[0]
    assert first.rule == "noise beside the deviation"
    assert first.text.startswith("Dense 1's activations lie around 30")
    assert first.level == "red"
    assert first.text in recorder.verdict[0]


def test_whole_numbers_that_collide_in_the_inputs_are_told():
    """Positions of up to 2047 lose their last bits in bfloat16, and float16 holds them all."""
    _, data, model, how, *_ = failures.positions_bf16()
    reference = train.fit(model, data, verbose=False, **how)
    for policy, level in (("mixed_bfloat16", "red"), ("mixed_float16", None)):
        recorder = train.Recorder(50, reference=reference)
        train.fit(model, data, policy=policy, recorder=recorder, verbose=False, **how)
        found = [one for one in recorder.findings if one.rule == "colliding inputs"]
        assert [one.level for one in found] == ([level] if level else [])
        for one in found:
            assert one.text.startswith("Feature 0 holds whole numbers up to 2047, and bfloat16")
            assert "float16, exact to 2048" in one.cure
            assert one.text in recorder.verdict[0]


def test_a_feature_that_sets_the_scale_of_all_is_told_and_no_offset():
    recorder = recorded(failures.fp8_outlier_channel)
    first = recorder.findings[0]
    assert (first.rule, first.level) == ("one unit sets the scale", "red")
    assert first.text.startswith("Feature 3 is ")
    assert "standardise the features" in first.cure
    assert "noise beside the deviation" not in {one.rule for one in recorder.findings}


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (3000 + np.eye(64), (1.0, 0.0)),  # an offset
        (1e-30 * np.eye(64), (0.0, 1.0)),  # what vanishes has none
        (np.where(np.eye(64) > 0, 1e6, 3e5), (0.0, 0.0)),  # what overflows is told as that
        (np.eye(64), (0.0, 0.0)),
        (np.ones((64, 3)), (0.0, 0.0)),  # nothing varies
    ],
    ids=["offset", "tiny", "overflow", "sound", "constant"],
)
def test_an_offset_is_told_from_what_leaves_the_range(x, expected):
    x = np.float32(x)
    assert unit_noise(x, round_to(x, "float16"))[:2] == expected


def test_sums_of_squares_that_vanish_are_blamed_and_not_activations():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    recorder = recorded(failures.adagrad_state_fp16)
    first = recorder.findings[0]
    assert (first.rule, first.level) == ("starved moments", "red")
    assert "sums of squares are zero in float16 where gradients are not" in first.text


@pytest.mark.parametrize("case", [failures.momentum_stuck_bf16], ids=["momentum"])
def test_state_that_stalls_is_told(case):
    recorder = recorded(case, every=50)
    rules = {finding.rule: finding.level for finding in recorder.findings}
    assert rules["stalled state"] == "red"


@pytest.mark.parametrize("kind", ["weight_gradient", "update", "activation"])
def test_nan_from_elsewhere_is_recorded_in_formats_without_nan(kind):
    x = np.float32([1.0, np.nan, np.inf, -300.0])
    policy = train.Policy(compute="float4_e2m1fn", params="float6_e2m3fn")
    recorder = train.Recorder(policy=policy)
    assert not get_format("float4_e2m1fn").has_nan
    recorder.observe(0, kind, "w", x, parameter=np.ones(4) if kind == "update" else None)
    whole = recorder.track(kind, "w").whole
    assert (whole["nans"], whole["infs"]) == (1, 1)
    assert any(finding.level == "red" for finding in recorder.findings)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_that_are_all_nan_or_infinite_are_red(bad):
    recorder = train.Recorder(policy="mixed_bfloat16")
    recorder.observe(0, "weight_gradient", "w", [1.0, 2.0])
    recorder.observe(1, "weight_gradient", "w", [bad, bad])
    (finding,) = [f for f in recorder.findings if f.level == "red"]
    assert "all values are" in finding.text
    assert finding.text.endswith("at step 1")


def test_a_recorder_fed_from_outside_is_told_loss_scale_and_skips():
    recorder = train.Recorder(policy="compute=float16")
    for step, (loss, scale) in enumerate([(2.0, 64.0), (1.5, 64.0), (np.inf, 64.0), (1.0, 32.0)]):
        skipped = not np.isfinite(loss)
        recorder.observe(
            step, "weight_gradient", "w", [1.0], loss=loss, loss_scale=scale, skipped=skipped
        )
    assert recorder.step_losses == [2.0, 1.5, np.inf, 1.0]
    assert recorder.scales == [(0, 64.0), (3, 32.0)]
    assert (recorder.skips, recorder.steps) == (1, 4)
    assert recorder.outcome.end == 1.0
    assert not recorder.outcome.is_red
    recorder.observe_step(4, loss=float("nan"))
    assert recorder.verdict[0].startswith("Broken: the loss ends at NaN")


def test_a_recorder_fed_from_outside_is_held_against_losses():
    recorder = train.Recorder(policy="bfloat16", reference=[1.5, 0.5])
    for step in range(20):
        recorder.observe_step(step, loss=2.0 - 0.01 * step)
    assert recorder.outcome.kind == "worse"


def test_tenths_keep_every_count():
    recorder = train.Recorder(policy="float16")
    for step in range(300):
        recorder.observe(step, "weight_gradient", "w", [1e-9 if step > 280 else 1.0])
    track = recorder.track("weight_gradient", "w")
    assert len(track.tenths) == 10
    assert sum(tenth["count"] for tenth in track.tenths) == track.whole["count"] == 300
    assert track.tenths[-1].new_zero_rate > 0.5
    assert track.whole.new_zero_rate < 0.1


@pytest.mark.parametrize(
    ("policy", "optimizer", "told", "cure"),
    [
        (
            "params=float16,compute=float32,state=float32",
            train.SGD(3e6),
            "weights (0/kernel) stopped being finite at step 0: beyond the 65504 of float16",
            "keep float32 or bfloat16 master weights",
        ),
        (
            "state=float16",
            train.Momentum(1e-3),
            "momentums (0/kernel) stopped being finite at step 0: beyond the 65504 of float16",
            "keep the optimizer's state in float32",
        ),
    ],
    ids=["weights", "state"],
)
def test_numbers_beyond_the_format_in_which_they_are_stored_are_no_fault_of_arithmetic(
    policy, optimizer, told, cure
):
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    data = train.Dataset(x, 1e6 * x[:, :1])
    model = train.Sequential([train.Input((4,)), train.Dense(1)])
    recorder = train.Recorder(1)
    how = {"loss": "mse", "optimizer": optimizer, "policy": policy, "verbose": False}
    train.fit(model, data, epochs=1, recorder=recorder, **how)
    found = [str(one) for one in recorder.findings if one.rule == "not finite"]
    assert told in found[0]
    assert cure in found[0]
    assert "arithmetic" not in found[0]


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (1e-4, "78 % of updates are lost in bfloat16 weights: if the loss falls behind"),
        (1e-3, "55 % of updates are lost in bfloat16 weights: if the loss falls behind"),
        (3e-3, "31 % of updates are lost in weights in what was recorded"),
        (1e-1, "Nothing was lost in what was recorded"),
    ],
)
def test_updates_that_are_lost_are_told_without_a_reference_too(rate, told):
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    data = train.Dataset(x, x.sum(1), x, x.sum(1))
    model = train.Sequential([train.Input((4,)), train.Dense(8, "relu"), train.Dense(1)])
    recorder = train.Recorder()
    how = {"loss": "mse", "optimizer": train.SGD(rate), "policy": "bfloat16", "verbose": False}
    train.fit(model, data, epochs=3, recorder=recorder, **how)
    assert recorder.verdict[0].startswith(told)
