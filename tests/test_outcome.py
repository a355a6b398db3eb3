"""A verdict begins with what became of the run; causes come after, and none hides a failure."""

import math

import numpy as np
import pytest
from cases import failures

from lowprec import train
from lowprec.train.recorder.verdict import graded
from lowprec.train.running.baselines import constant_loss
from lowprec.train.running.outcome import Account, end_of, judge

NEEDS_DIGITS = ("clip_too_small", "adagrad_state_fp16", "fp16_params_sgd_small")


def account(end, **facts):
    usual = {"policy": "p", "loss": "mse", "start": 2.0, "constant": 1.5, "steps": 100}
    return Account(end=end, **usual | facts)


def recorded(case, every=5):
    _, data, model, how, policy, _, *wide = case()
    how = how | {"verbose": False, "rng": 0}
    reference = train.fit(model, data, policy="float32", **how | (wide[0] if wide else {}))
    recorder = train.Recorder(every, reference=reference)
    train.fit(model, data, policy=policy, recorder=recorder, **how)
    return recorder


# The engine --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "its", "kind", "reason"),
    [
        (account(math.nan), account(0.5), "broken", "not finite"),
        (account(math.inf), account(math.nan), "float32 too", "not finite"),
        (account(0.5, is_finite=False), account(0.5), "broken", "not finite"),
        (account(1.0, skipped=51), account(0.5), "broken", "skipped"),
        # float32 overshoots for an epoch and learns in the end
        (account(math.nan), account(0.5, epochs=(30.0, 0.5)), "broken", "not finite"),
        (account(1.0, skipped=50), account(0.95), "healthy", ""),
        (account(1.48), account(1.48), "float32 too", "float32 fails"),
        (account(0.5), account(0.5, epochs=(21.0, 0.5)), "float32 too", "float32 fails"),
        (account(0.576), account(0.5), "worse", "progress"),
        (account(2.0), account(1.6), "worse", "progress"),  # float32 falls towards the constant
        (account(1.6), account(1.6), "float32 too", "float32 fails"),
        (account(0.574), account(0.5), "healthy", ""),
        (account(0.05), account(0.02), "healthy", ""),
        (
            account(0.05, metrics={"accuracy": 0.95}),
            account(0.02, metrics={"accuracy": 0.97}),
            "worse",
            "ratio",
        ),
        (
            account(0.05, metrics={"val_rmse": 0.22}),
            account(0.02, metrics={"val_rmse": 0.19}),
            "worse",
            "ratio",
        ),
        (account(1.5), None, "worse", "learns nothing"),
        (account(1.4), None, "unknown", ""),
    ],
    ids=str,
)
def test_the_rules_decide_in_their_order(mine, its, kind, reason):
    found = judge(mine, its)
    assert (found.kind, found.reason) == (kind, reason)
    assert found.is_red == (kind not in ("healthy", "unknown"))


@pytest.mark.parametrize("shift", [-100.0, -2.0, 0.0, 50.0])
def test_a_shifted_loss_is_judged_alike(shift):
    """The gap is a share of the progress, not of a loss that may be zero or negative."""
    for end, expected in ((0.7, False), (1.4, True)):
        mine = account(end + shift, start=2 + shift, constant=None, error=0.01)
        its = account(0.7 + shift, start=2 + shift, constant=None, error=0.01)
        assert judge(mine, its).is_red == expected


def test_under_another_loss_each_is_held_against_its_own_start():
    scaled = account(0.5e-3, loss="scaled", start=2e-3, constant=None)
    assert judge(scaled, account(0.5)).progress == pytest.approx(1)


def test_the_formats_own_floor_is_a_note():
    its = account(1e-12, metrics={"rmse": 1e-6}, deviation=1.0)
    mine = account(1e-6, metrics={"rmse": 1e-3}, deviation=1.0, unit_roundoff=2.0**-8)
    assert judge(mine, its).level == "note"
    assert judge(account(1e-4, metrics={"rmse": 1e-2}, deviation=1.0), its).is_red


def test_the_end_is_the_mean_of_the_last_tenth_of_the_steps():
    assert end_of([5.0] * 19 + [1.0, 2.0, 3.0]) == 2.0
    assert end_of([5.0] * 18 + [1.0, math.inf], [19]) == 1.0  # a skipped step does no harm
    assert math.isinf(end_of([5.0, math.inf]))


def test_a_finite_loss_counts_though_its_step_was_skipped():
    """Batches whose loss is large are those that a scale too large skips."""
    assert end_of([1.0, 9.0], [1]) == 9.0
    assert end_of([1.0] * 10 + [9.0] * 2, [10]) == end_of([1.0] * 10 + [9.0] * 2) == 9.0
    assert end_of([1.0] * 18 + [9.0, math.inf], [19]) == 9.0


def test_float32_that_is_finite_is_told_from_what_rounding_makes_infinite():
    its = account(1.6)
    assert its.failure == "learns nothing"
    found = judge(account(math.nan), its)
    assert (found.kind, found.reason) == ("broken", "not finite")
    assert found.text.endswith("float32 stays finite, but learns nothing: that is another fault.")
    assert judge(account(math.nan), account(math.nan)).kind == "float32 too"


def test_constants_are_the_best_predictions_that_are_the_same_for_all():
    rng = np.random.default_rng(0)
    y = rng.exponential(3.0, (501, 2)).astype(np.float32)
    for name in ("mse", "mae", "huber"):
        loss = train.losses.get(name)
        best = constant_loss(loss, y)
        grid = np.linspace(0, 8, 2001)
        columns = [
            min(loss(y[:, [k]], np.full((501, 1), c, np.float64))[0] for c in grid)
            for k in range(2)
        ]
        assert best == pytest.approx(np.mean(columns), rel=1e-4)
        assert best <= np.mean(columns) * (1 + 1e-6)
    for name in ("mape", "msle", "log_cosh"):  # of quantiles, the best
        loss = train.losses.get(name)
        grid = [loss(y + 1, np.full(y.shape, c))[0] for c in np.linspace(0.5, 8, 501)]
        assert constant_loss(loss, y + 1) <= 1.02 * min(grid)
    labels = rng.integers(0, 3, 200)
    logits = np.log(np.bincount(labels) / 200)[None, :].repeat(200, 0)
    xent = train.losses.get("sparse_categorical_crossentropy")
    assert constant_loss(xent, labels) == pytest.approx(xent(labels, logits)[0])
    assert constant_loss(lambda t, p: (0.0, p), y) is None


def test_the_start_is_in_training_mode_without_dropout():
    data = train.data.quadratic().scaled("standard")
    layers = [train.Input((2,)), train.Dense(8), train.BatchNormalization(), train.Dense(1)]
    model = train.Sequential(layers)
    dropped = train.Sequential([*layers[:3], train.Dropout(0.9), layers[3]])
    how = {"loss": "mse", "optimizer": "sgd", "verbose": False}
    one, other = (train.fit(m, data, **how).facts["outcome"]["start"] for m in (model, dropped))
    assert one == pytest.approx(other, rel=1e-6)
    assert train.fit(model, data, policy="bfloat16", **how).facts["outcome"]["start"] == one


# Recorders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", failures.FAILURES, ids=lambda case: case.__name__)
def test_a_recorder_with_a_reference_is_red_first(case):
    pytest.importorskip("sklearn", reason="some train on scikit-learn's digits")
    recorder = recorded(case)
    level, sentence = graded(recorder)[0]
    assert level == "red"
    assert recorder.verdict[0] == sentence == graded(recorder)[0][1]
    assert "Nothing" not in sentence
    assert "train.diagnose" in recorder.verdict[-1]


@pytest.mark.parametrize("case", failures.HEALTHY, ids=lambda case: case.__name__)
def test_a_recorder_with_a_reference_alarms_nobody_in_vain(case):
    pytest.importorskip("sklearn", reason="some train on scikit-learn's data")
    recorder = recorded(case)
    assert recorder.outcome.kind == "healthy"
    assert recorder.verdict[0].startswith("Nothing to worry about")
    assert {finding.level for finding in recorder.findings} <= {"note"}


def line(loss="mse", policy="mixed_float16", kernel="zeros", targets=0.0, **how):
    x = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    y = targets * x[:, :1]
    data = train.Dataset(x, y, x[:8], y[:8])
    model = train.Sequential([train.Input((3,)), train.Dense(1, kernel_initializer=kernel)])
    recorder = train.Recorder(1)
    usual = {"optimizer": train.SGD(0.1), "epochs": 2, "verbose": False}
    train.fit(model, data, loss=loss, policy=policy, recorder=recorder, **usual | how)
    return recorder


def root_mean_square(y_true, y_pred):
    error = y_pred - y_true.reshape(y_pred.shape)
    root = np.sqrt(np.mean(error * error))
    return float(root), error / root / error.size


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_nan_is_told_from_overflow(policy):
    """0/0 where no infinity came before: neither the rate nor the size of anything is to blame."""
    recorder = line(root_mean_square, policy)
    told = recorder.verdict[0]
    assert told.startswith("Broken")
    assert "arithmetic made NaN of finite numbers (0/0 in root_mean_square" in told
    assert "divisor" in told
    assert "rate" not in told
    assert "overflow" not in told


def log_loss(y_true, y_pred):
    return 0.0, np.log(y_pred * 0) + y_pred


def root_loss(y_true, y_pred):
    return 0.0, np.sqrt(-1 - y_pred * 0)


def inverse_root_loss(y_true, y_pred):
    return 0.0, 1 / np.sqrt(y_pred * 0)


def ratio_loss(y_true, y_pred):
    return 0.0, np.divide(y_pred * 0, y_pred * 0)


@pytest.mark.parametrize(
    ("loss", "operation", "cure"),
    [
        (log_loss, "log of 0 in log_loss", "above 0"),
        (root_loss, "square root of a negative number in root_loss", "at or above 0"),
        (inverse_root_loss, "division by 0 in inverse_root_loss", "divisor"),
        (ratio_loss, "0/0 in ratio_loss", "divisor"),
    ],
)
def test_an_operation_and_its_cure_are_told(loss, operation, cure):
    told = line(loss, "float32").verdict[0]
    assert operation in told
    assert cure in told


def test_all_steps_skipped_is_red():
    recorder = line(root_mean_square)
    assert recorder.skips == recorder.steps
    assert recorder.outcome.reason == "skipped"
    assert recorder.verdict[0].startswith("Broken: 4 of 4 steps were skipped")


def test_an_infinite_loss_is_red_though_gradients_are_fine():
    def infinite(y_true, y_pred):
        return math.inf, np.zeros_like(y_pred)

    recorder = line(infinite)
    assert recorder.curves["loss"] == [math.inf, math.inf]
    assert recorder.verdict[0].startswith("Broken: the loss ends at inf")


def test_a_loss_that_counts_its_calls_is_called_once_a_step():
    calls = []

    def counting(y_true, y_pred):
        calls.append(len(y_pred))
        return float(np.mean(y_pred**2)), 2 * y_pred / y_pred.size

    line(counting, "float32", "ones", epochs=1)
    assert calls[:2] == [32, 32]  # the loss of the start is looked at after the run


def test_without_a_reference_nothing_is_cleared():
    recorder = line("mse", "mixed_bfloat16", "ones", targets=1.0)
    assert "Nothing to worry about" not in recorder.verdict[0]
    assert "pass reference=" in recorder.verdict[0]


def test_what_was_not_seen_is_named():
    recorder = train.Recorder(policy="float16")
    recorder.observe(0, "weight_gradient", "w", [1e-3])
    (told,) = recorder.verdict
    assert told.endswith(
        "Not seen: weights, activations, activation gradients, optimizer state, updates."
    )


def test_a_list_of_losses_serves_as_reference():
    recorder = line("mse", "mixed_bfloat16", "ones")
    recorder_with = train.Recorder(1, reference=recorder.curves["loss"])
    assert recorder_with.reference == recorder.curves["loss"]
    with pytest.raises(ValueError, match="holds no loss"):
        train.Recorder(reference=[])


def test_the_outcome_survives_a_file(tmp_path):
    recorder = recorded(failures.positions_bf16, every=50)
    recorder.save(tmp_path / "run.npz")
    assert train.Recorder.load(tmp_path / "run.npz").outcome == recorder.outcome


def test_comparisons_judge_by_the_same_engine():
    """One seed is enough where float32 learns and a policy does not."""
    _, data, model, how, _, _ = failures.hidden_offset_bf16()
    found = train.compare_policies(model, data, ["mixed_bfloat16"], 1, **how)
    (outcome,) = found["mixed_bfloat16"].outcomes
    assert outcome.kind == "worse"
    assert outcome.text in " ".join(found.verdict)
