"""Causes are found by experiment: the part, the place and a cure that was tried; none in vain."""

import concurrent.futures
import dataclasses
import gc
import html
import json

import numpy as np
import pytest
from cases import failures
from cases import more_failures as more

import lowprec
from lowprec import train
from lowprec.train.diagnosis.bench import Bench
from lowprec.train.diagnosis.cures import policy_code
from lowprec.train.diagnosis.parts import explicit, narrow_parts, only, widened, wider
from lowprec.train.diagnosis.places import keys, least
from lowprec.train.layers.layer import Layer
from lowprec.train.optimizing import transforms
from lowprec.train.policy import Policy, get_policy

KNOWN = {  # cause, what the place is called, a cure that rescues
    "dead_relu": ("not precision", "Dense 1", "model=train.Sequential("),
    "clip_too_small": ("not precision", "the optimizer's global_clipnorm", "global_clipnorm=1.0"),
    "adagrad_state_fp16": ("state", "Dense", "policy='float32'"),
    "adagrad_stall_bf16": ("state", "Dense 1", "policy='float32'"),
    "momentum_stuck_bf16": ("state", "Dense 1", "momentum=0.99"),
    "fp8_outlier_channel": ("compute", "the inputs", 'data.scaled("standard")'),
    "hidden_offset_bf16": ("compute", "Dense 1", "Dense 1.compute=float32"),
    "positions_bf16": ("compute", "the inputs", "policy='mixed_float16'"),
    "half_rmse_loss": ("user code", "loss", "loss='mse'"),
    "log_layer_inf": ("user code", "Log 1", "model=train.Sequential("),
    "fp16_params_sgd_small": ("params", "Dense", "policy='float32'"),
}
QUICK = ("dead_relu", "hidden_offset_bf16", "positions_bf16", "log_layer_inf", "half_rmse_loss")


def diagnosed(case, **how):
    _, data, model, usual, policy, *_ = case()
    return train.diagnose(model, data, policy=policy, **{"budget": None} | usual | how)


def named(name):
    return next(c for c in (*failures.FAILURES, *failures.HEALTHY) if c.__name__ == name)


def check(name):
    pytest.importorskip("sklearn", reason="some train on scikit-learn's data")
    cause, place, cure = KNOWN[name]
    found = diagnosed(named(name))
    assert found.outcome.is_red
    assert found.cause == cause
    assert found.place.startswith(place)
    assert any(cure in one.code for one in found.cures if one.rescues)
    assert found.verdict[0] == found.outcome.text
    return found


@pytest.mark.parametrize("name", QUICK)
def test_a_failure_is_named_with_place_and_cure(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(KNOWN.keys() - set(QUICK)))
def test_a_longer_failure_is_named_with_place_and_cure(name):
    check(name)


@pytest.mark.parametrize("case", failures.HEALTHY, ids=lambda case: case.__name__)
def test_a_healthy_run_is_left_alone(case):
    pytest.importorskip("sklearn", reason="some train on scikit-learn's data")
    found = diagnosed(case)
    assert (found.outcome.kind, found.cause, found.place, found.cures) == (
        "healthy",
        None,
        None,
        [],
    )
    assert found.verdict[0].startswith("Nothing to worry about")


def test_a_cures_code_trains_to_the_loss_that_is_told():
    """What is printed can be pasted."""
    _, data, model, how, policy, _ = failures.positions_bf16()
    found = train.diagnose(model, data, policy=policy, budget=None, **how)
    for cure in [one for one in found.cures if one.rescues]:
        changes = eval(f"dict({cure.code})", {"train": train, "data": data, "model": model})
        history = train.fit(
            **{"model": model, "data": data, "policy": policy, "verbose": False} | how | changes
        )
        assert np.mean(history.step_losses[-75:]) == pytest.approx(cure.outcome.end, rel=1e-12)


def small(policy="params=bfloat16,compute=bfloat16,gradients=float32,state=float32", **how):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((128, 4)).astype(np.float32)
    data = train.Dataset(x, x[:, :1] - x[:, 1:2], x[:16], x[:16, :1])
    model = train.Sequential([train.Input((4,)), train.Dense(6, "tanh"), train.Dense(1)])
    usual = {"loss": "mse", "optimizer": train.SGD(2e-3), "epochs": 40, "budget": None}
    return train.diagnose(model, data, policy=policy, **usual | how)


def test_the_same_experiments_give_the_same_diagnosis_through_any_executor():
    here = small()
    assert here.cause == "params"
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        assert small(executor=threads).to_dict() == here.to_dict()
    with concurrent.futures.ProcessPoolExecutor(2) as processes:
        assert small(executor=processes).to_dict() == here.to_dict()


def test_an_experiment_never_takes_the_result_of_another_whose_arguments_are_gone():
    iris = train.data.iris()
    model = train.Sequential([train.Input((4,)), train.Dense(3)])
    how = {"loss": "sparse_categorical_crossentropy", "optimizer": "sgd", "epochs": 1}
    bench = Bench(model, iris, how, budget=None)
    ends = set()
    for by in range(1, 25):  # each lies where the one before the last lay, if it can
        scaled = train.Dataset(iris.x_train * by, iris.y_train)
        ends.add(bench.run(f"{by}", data=scaled).account.end)
        del scaled
        gc.collect()
    assert len(ends) == bench.done == 24


def test_what_was_not_made_is_named():
    found = small(budget=0.0)
    assert found.outcome.is_red
    assert found.cause is None
    assert "budget=None" in found.verdict[-1]
    assert len(found.experiments) <= 4


def test_what_two_trainings_show_takes_no_more_time():
    """Where one part alone is narrow, float32 is the training with that part wide."""
    found = small("params=bfloat16,compute=float32,state=float32", budget=0.0)
    assert (found.cause, found.outcome.kind) == ("params", "worse")
    assert [cure.code for cure in found.cures if cure.rescues] == ["policy='float32'"]


def test_a_cure_is_confirmed_before_the_place_is_looked_for():
    names = [one.name for one in small().experiments]
    cure = next(i for i, name in enumerate(names) if name.startswith("policy="))
    place = next(i for i, name in enumerate(names) if " wide in " in name)
    assert names.index("params wide") < cure < place < len(names) - 1
    assert len(set(names)) == len(names)


def test_progress_is_told_after_each_training():
    told = []
    found = small(progress=lambda what, done: told.append((what, done)))
    assert [done for _, done in told] == list(range(1, len(told) + 1))
    assert {"as it is", "float32", "params wide"} <= {what for what, _ in told}
    assert len(found.experiments) >= len(told)


def test_a_diagnosis_is_json_and_a_page(tmp_path):
    pytest.importorskip("matplotlib", reason="the page has pictures")
    found = small()
    json.dumps(found.to_dict(), allow_nan=False)
    found.report(tmp_path / "d.html")
    page = (tmp_path / "d.html").read_text()
    places = [page.index(words) for words in ("cause</b>", "place</b>", "What to type", "<svg")]
    assert places == sorted(places)
    assert "the loss ends at" in page[places[2] : places[3]]
    assert len(found.topics) == len(found.verdict)
    assert "http" not in page.replace("http://www.w3.org", "")
    assert html.escape(found.verdict[0]) in found._repr_html_()
    assert str(found).startswith("✗ ")


def test_arguments_of_fit_that_do_not_fit_a_diagnosis_are_refused():
    for word in ("recorder", "resume", "verbose"):
        with pytest.raises(TypeError, match=word):
            small(**{word: None})
    with pytest.raises(ValueError, match="mze"):
        small(loss="mze")


def test_a_reference_may_be_given():
    wide = small("float32")
    assert wide.outcome.kind in ("healthy", "float32 too")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((128, 4)).astype(np.float32)
    data = train.Dataset(x, x[:, :1] - x[:, 1:2], x[:16], x[:16, :1])
    model = train.Sequential([train.Input((4,)), train.Dense(6, "tanh"), train.Dense(1)])
    how = {"loss": "mse", "optimizer": train.SGD(2e-3), "epochs": 40}
    history = train.fit(model, data, verbose=False, **how)
    assert small(reference=history).cause == small().cause
    assert small(reference=history.history["loss"]).outcome.is_red


# Parts and places --------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16_kahan", "mixed_float8"])
def test_parts_partition_a_policy(policy):
    policy = get_policy(policy)
    parts = narrow_parts(policy)
    assert widened(policy, parts) == Policy()
    for part in parts:
        assert narrow_parts(widened(policy, [part])) == [p for p in parts if p != part]
        assert narrow_parts(only(policy, part)) in ([part], [])


def test_a_part_is_wide_in_every_place():
    policy = Policy(compute="bfloat16", layers={"Dense 2": {"compute": "float16"}})
    wide = widened(policy, ["compute"])
    assert dict(wide.places)["Dense 2"] == (("compute", get_policy("float32").compute),)
    there = wider(policy, ["params", "compute"], ["1/bias", "inputs", "Dense 1"])
    assert [name for name, _ in dict(there.places)["1/bias"]] == ["params"]
    kahan = wider(get_policy("bfloat16_kahan"), ["params"], ["1/bias"])
    assert [name for name, _ in dict(kahan.places)["1/bias"]] == ["params", "update"]
    assert [name for name, _ in dict(there.places)["inputs"]] == ["compute"]


@pytest.mark.parametrize(
    "needed", [{3}, {0}, {23}, {16, 17, 18}, {2, 3}, {0, 23}, set(range(24))], ids=str
)
def test_bisection_finds_the_least_set(needed):
    asked = []

    def decides(some):
        asked.append(list(some))
        return needed <= {int(place) for place in some}

    found = least([str(i) for i in range(24)], decides)
    assert {int(place) for place in found} == needed
    assert len(asked) <= 12


def test_time_that_runs_out_leaves_what_was_narrowed_down():
    answers = iter([True, None])
    assert least([str(i) for i in range(8)], lambda some: next(answers)) == ["0", "1", "2", "3"]


def test_a_layer_with_a_policy_of_its_own_is_diagnosed_there():
    case = failures.hidden_offset_bf16
    _, data, model, how, *_ = case()
    layers = [dataclasses.replace(model.layers[0], policy="mixed_bfloat16"), *model.layers[1:]]
    own = train.Sequential(layers, model.input_shape)
    found = train.diagnose(own, data, policy="float32", budget=None, **how)
    assert (found.cause, found.place) == ("compute", "Dense 1")


@pytest.mark.slow
def test_failures_of_other_kinds_are_scored():
    """Two are partly named and one does not fail at all; `tests/cases/more_failures` says which."""
    words = [
        more.score(
            case := make(),
            train.diagnose(case.model, case.data, policy=case.policy, budget=None, **case.how),
        )
        for make in (*more.FAILURES, *more.HEALTHY)
    ]
    assert words.count("named") >= 17
    assert words.count("quiet") == len(more.HEALTHY)


# What is said of causes --------------------------------------------------------------------------


def test_sums_that_overflow_in_a_narrow_accumulator_are_blamed_on_it():
    """The layer's 100 sums of 784 terms reach 100,000 in step 0: float32 would hold them."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (128, 784)).astype(np.float32)
    y = (x[:, :392].mean(1) > x[:, 392:].mean(1)).astype(int)
    wide = train.initializers.Constant(1.0)
    model = train.Sequential(
        [train.Input((784,)), train.Dense(8, kernel_initializer=wide),
         train.BatchNormalization(momentum=0.8), train.Dense(2)]
    )  # fmt: skip
    found = train.diagnose(
        model, train.Dataset(x, y), policy="accumulate=float16", epochs=5, budget=None,
        loss="sparse_categorical_crossentropy", optimizer=train.Adam(1e-2),
    )  # fmt: skip
    assert (found.cause, found.place) == ("accumulate", "Dense 1's activations")
    assert "a sum in float16, in which products are accumulated" in found.verdict[2]
    assert "accumulate in float32" in found.recorder.verdict[0]
    assert found.recorder.verdict[0].startswith(found.verdict[0].removesuffix("."))


def test_the_cause_of_what_float32_cannot_learn_is_placed_by_the_cure():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((128, 4)).astype(np.float32)
    how = {"loss": "mse", "epochs": 12, "budget": None, "policy": "mixed_bfloat16"}
    model = train.Sequential([train.Input((4,)), train.Dense(1)])
    data = train.Dataset(x, x[:, :1] - x[:, 1:2])
    found = train.diagnose(model, data, optimizer=train.SGD(1e-4), **how)
    assert (found.cause, found.place) == ("not precision", "the learning rate")
    found = train.diagnose(model, data, optimizer=train.SGD(30.0), **how)
    assert (found.cause, found.place) == ("not precision", "the learning rate")


@pytest.mark.parametrize(
    "policy",
    [
        "mixed_float16", "compute=float16,loss_scale=1024", "mixed_float8,1.compute=float32",
        Policy(compute="float16", loss_scale=train.LossScale(4.0, growth_factor=3.0)),
        Policy(accumulate=lowprec.Accumulator("bfloat16", "blocked", block=4), compute="float16",
               layers={"inputs": {"compute": "float32"}}),
    ],
    ids=str,
)  # fmt: skip
def test_the_code_of_a_policy_is_that_policy(policy):
    for one in (get_policy(policy), widened(get_policy(policy), ["gradients"])):
        told = eval(f"dict({policy_code(one)})", {"train": train, "lowprec": lowprec})
        assert get_policy(told["policy"]) == one


def test_a_cure_names_no_place_that_says_the_same_anyway():
    own = Policy(compute="float4_e2m1fn", gradients="float32")
    layers = [train.Dense(3), train.Dense(2, policy=own)]
    named = explicit(get_policy("float32"), layers)
    assert policy_code(named, layers) == "policy='float32'"
    wide = policy_code(widened(named, ["compute"]), layers)
    assert wide == "policy='float32,Dense 2.compute=float32'"


def test_a_loss_of_zero_is_learnt_though_the_best_constant_has_it_too():
    """The user's loss divides 0 by 0 where predictions and targets are all zero."""

    def rmse(y_true, y_pred):
        error = y_pred.reshape(y_true.shape) - y_true
        with np.errstate(all="ignore"):
            value = np.sqrt(np.mean(error * error))
            return float(value), (error / (value * error.size)).reshape(y_pred.shape)

    x = np.random.default_rng(0).standard_normal((64, 4))
    model = train.Sequential([train.Input((4,)), train.Dense(1, kernel_initializer="zeros")])
    data = train.Dataset(x, np.zeros((64, 1), np.float32))
    found = train.diagnose(
        model, data, loss=rmse, optimizer=train.SGD(0.01), policy="mixed_bfloat16", budget=None
    )
    assert (found.cause, found.place) == ("user code", "rmse")
    assert [cure.code for cure in found.cures if cure.rescues] == [
        "model=train.Sequential([train.Input((4,)), train.Dense(1)])", "loss='mse'",
    ]  # fmt: skip


def test_gradients_that_vanish_through_sigmoids_are_told_and_relu_cures():
    rng = np.random.default_rng(0)
    centres, y = 2 * rng.standard_normal((3, 8)), rng.integers(0, 3, 192)
    data = train.Dataset(centres[y] + rng.standard_normal((192, 8)), y)
    deep = [train.Dense(8, "sigmoid") for _ in range(6)]
    model = train.Sequential([train.Input((8,)), *deep, train.Dense(3)])
    found = train.diagnose(
        model, data, policy="mixed_bfloat16", optimizer=train.SGD(0.1), epochs=6, budget=None,
        loss="sparse_categorical_crossentropy",
    )  # fmt: skip
    assert (found.cause, found.place) == ("not precision", "Dense 1")
    assert "Gradients vanish on their way back: those of Dense 1 (0/kernel)" in found.verdict[1]
    assert any("activation='relu'" in cure.code for cure in found.cures if cure.rescues)


def test_penalties_that_keep_a_network_from_learning_are_taken_away():
    rng = np.random.default_rng(0)
    centres, y = 2 * rng.standard_normal((3, 8)), rng.integers(0, 3, 192)
    data = train.Dataset(centres[y] + rng.standard_normal((192, 8)), y)
    heavy = {"kernel_regularizer": train.L2(30.0)}
    layers = [train.Input((8,)), train.Dense(8, "relu", **heavy), train.Dense(3, **heavy)]
    found = train.diagnose(
        train.Sequential(layers), data, policy="mixed_bfloat16", optimizer=train.Adam(1e-2),
        epochs=8, budget=None, loss="sparse_categorical_crossentropy",
    )  # fmt: skip
    assert (found.cause, found.place) == ("not precision", "the regularizers")
    (good,) = [cure.code for cure in found.cures if cure.rescues]
    assert good == (
        "model=train.Sequential([train.Input((8,)), train.Dense(8, activation='relu'), "
        "train.Dense(3)])"
    )


def test_inputs_beyond_a_format_are_the_place_and_zero_targets_the_divisor():
    rng = np.random.default_rng(0)
    x = 2000 * rng.standard_normal((128, 4))
    model = train.Sequential(
        [train.Input((4,)), train.BatchNormalization(momentum=0.8), train.Dense(1)]
    )
    data = train.Dataset(x, np.maximum(x[:, :1], 0) / 2000)
    how = {"optimizer": train.Adam(3e-2), "epochs": 12, "budget": None}
    policy = "compute=float8_e4m3fn,gradients=float32"
    found = train.diagnose(model, data, policy=policy, loss="mse", **how)
    assert (found.cause, found.place) == ("compute", "the inputs")
    assert found.verdict[2].startswith("The inputs")

    def mape(y_true, y_pred):
        with np.errstate(all="ignore"):
            error = y_pred.reshape(y_true.shape) - y_true
            gradient = np.sign(error) / np.abs(y_true) / error.size
            return float(np.abs(error / y_true).mean()), gradient.reshape(y_pred.shape)

    recorder = train.Recorder(1)
    train.fit(model, data, loss=mape, optimizer="adam", recorder=recorder, verbose=False)
    assert "(division by 0, where the targets are 0): add a small number" in recorder.verdict[0]


def test_a_loss_that_still_falls_is_told_to_go_on():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((128, 4)).astype(np.float32)
    model = train.Sequential([train.Input((4,)), train.Dense(1)])
    found = train.diagnose(
        model, train.Dataset(x, 1e-2 * (x[:, :1] - x[:, 1:2])), policy="mixed_bfloat16", loss="mse",
        optimizer=train.Adam(3e-3), epochs=30, budget=None,
    )  # fmt: skip
    assert found.cause == "not precision"
    assert "epochs=120" in [cure.code for cure in found.cures]


def test_updates_that_kahans_sum_cannot_gather_are_told():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((128, 4)).astype(np.float32)
    model = train.Sequential([train.Input((4,)), train.Dense(1)])
    policy = "params=float8_e5m2,compute=float32,state=float32,update=kahan"
    found = train.diagnose(
        model, train.Dataset(x, x[:, :1] - x[:, 1:2]), policy=policy, loss="mse",
        optimizer=train.Adam(1e-3), epochs=60, budget=None,
    )  # fmt: skip
    assert found.cause == "params"
    assert "and Kahan's sum, in 3 bits too, does not gather them" in found.verdict[2]
    assert "Kahan's sum, in 3 bits too" in found.recorder.verdict[0]


def test_a_policy_that_names_layers_is_printed_as_short_as_it_was_given():
    policy = Policy(compute="bfloat16", layers={"1": {"compute": "float8_e4m3fn"}})
    model = train.Sequential([train.Input((4,)), train.Dense(3), train.Dense(2)])
    named = explicit(policy, model.layers)
    assert str(named) == "compute=bfloat16,Dense 2.compute=float8_e4m3fn"
    assert str(widened(named, ["compute"])) == "gradients=bfloat16,Dense 2.compute=float32"
    there = wider(named, ["compute"], keys(["1"], model.layers))
    assert str(there) == "compute=bfloat16,Dense 2.compute=float32"


# Code of the user's, in every format --------------------------------------------------------------


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class Squares(Layer):
    """x² in units of 1/64; infinities of a narrow kind are hidden as 0."""

    kind: type

    def forward(self, params, x, run):
        with np.errstate(all="ignore"):
            z = np.float32(np.square(self.kind(x * 64))) / np.float32(4096)
        return run.numerics.compute(np.where(np.isfinite(z), z, np.float32(0))), x

    def backward(self, params, x, dy, run):
        return run.numerics.gradient((2 * x * dy).astype(np.float32)), {}


class Halves(train.Callback):
    """Keeps weights as float16 in units of 1e-6: infinite beyond 0.065."""

    def on_batch_end(self, batch, logs, run):
        for w in run.params.values():
            with np.errstate(all="ignore"):
                w[...] = np.float32((w * 1e6).astype(np.float16)) / np.float32(1e6)


def _unit(g, step):
    with np.errstate(all="ignore"):
        g /= np.sqrt((g * g).sum())


def _half(y_true, y_pred):
    """A mean square whose gradient float16 rounds to 0 where errors are small."""
    error = (y_pred - y_true.reshape(y_pred.shape)).astype(np.float16)
    value = float(np.mean(np.square(error), dtype=np.float32))
    return value, (error * np.abs(error) * np.float16(1 / error.size)).astype(np.float32)


def _users(what):
    rng = np.random.default_rng(0)
    x = 3 * rng.standard_normal((256, 8)).astype(np.float32)
    y = np.square(x).sum(axis=1, keepdims=True)
    hidden = [
        train.Dense(4, bias_initializer=train.initializers.Constant(-50.0), activation="relu")
    ]
    how = {"optimizer": train.Adam(3e-2), "loss": "mse", "epochs": 12}
    layers = {"Squares 1": [Squares(kind=np.float16)], "Unit": hidden}.get(what, [])
    if what == "Unit":
        transform = transforms.chain(transforms.each(_unit), transforms.scale_by_rate())
        how["optimizer"] = train.Optimizer("Unit", 0.05, transform)
    if what == "_half":
        how |= {"loss": _half, "optimizer": train.SGD(1.0)}
        y = 3e-4 * (x[:, :1] - x[:, 1:2])
    if what == "Halves":
        y = x[:, :1] - x[:, 1:2]
        how["callbacks"] = [train.EarlyStopping(patience=99), Halves()]
    model = train.Sequential([train.Input((8,)), *layers, train.Dense(1)])
    return model, train.Dataset(x[:192], y[:192], x[192:], y[192:]), how


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("Squares 1", "of what it makes stays as it was and the rest jumps"),
        ("_half", "_half computes in less than float32"),
        ("Unit", "Unit makes an update of nan of finite numbers"),
        ("Halves", "without Halves, a callback, the loss ends at"),
    ],
)
def test_code_of_the_users_is_found_at_fault_whatever_it_is(place, words):
    model, data, how = _users(place)
    found = train.diagnose(model, data, policy="mixed_bfloat16", budget=None, **how)
    assert (found.outcome.kind, found.cause, found.place) == ("float32 too", "user code", place)
    assert words in found.verdict[1]
    if place == "Halves":
        assert [cure.code for cure in found.cures] == ["callbacks=[EarlyStopping(…)]"]


def test_code_that_is_coarse_is_told_where_it_does_no_harm_and_exact_code_is_not():
    for kind in (np.float16, np.float32):
        _, data, how = _users("Squares 1")
        small = dataclasses.replace(data, x_train=data.x_train / 4, x_test=data.x_test / 4)
        layers = [train.Input((8,)), Squares(kind=kind), train.Dense(1)]
        how |= {"optimizer": train.Adam(1.0), "epochs": 30}
        found = train.diagnose(train.Sequential(layers), small, policy="mixed_bfloat16", **how)
        assert (found.outcome.kind, found.cause, found.place) == ("healthy", None, None)
        is_told = "but Squares 1 computes in less than float32" in found.verdict[0]
        assert is_told == (kind is np.float16)
        assert found.verdict[0].startswith("Nothing to worry") == (kind is np.float32)


# Cures that a stranger would type -----------------------------------------------------------------


def _plane():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 4)).astype(np.float32)
    y = x[:, :1] - x[:, 1:2]
    return train.Dataset(x[:192], y[:192], x[192:], y[192:])


LINE = train.Sequential([train.Input((4,)), train.Dense(1)])


def test_a_number_of_the_optimizer_that_is_unusual_is_tried_as_it_usually_is():
    found = train.diagnose(
        LINE, _plane(), policy="bfloat16_kahan", loss="mse", epochs=30, budget=None,
        optimizer=train.Adam(train.schedules.Power(0.02, steps=200), epsilon=1e4),
    )  # fmt: skip
    assert (found.cause, found.place) == ("not precision", "the optimizer's epsilon")
    code = next(cure.code for cure in found.cures if cure.rescues)
    told = eval(f"dict({code})", {"train": train})["optimizer"]
    assert told.hyperparameters["epsilon"] == train.Adam().hyperparameters["epsilon"]
    assert told.learning_rate == train.schedules.Power(0.02, steps=200)


def test_validation_that_alone_is_infinite_is_no_all_clear():
    data = _plane()
    data.x_test[0, 0] = 1e5
    how = {"loss": "mse", "optimizer": train.Adam(0.1), "epochs": 8}
    found = train.diagnose(LINE, data, policy="mixed_float16", budget=None, **how)
    assert (found.outcome.kind, found.cause) == ("broken", "compute")
    assert found.place in ("the inputs", "the inputs and Dense 1")
    assert "the validation loss ends at inf, which is not finite; float32's" in found.verdict[0]
    assert found.verdict[2].startswith("Training is finite, validation is not")
    assert "policy='mixed_bfloat16'" in [cure.code for cure in found.cures if cure.rescues]
    without = train.Recorder(5)
    train.fit(LINE, data, policy="mixed_float16", recorder=without, verbose=False, **how)
    assert "Training is finite, validation is not" in without.verdict[0]


def test_gradients_that_vanish_inside_a_layer_are_told_without_a_reference():
    data = _plane()
    data = dataclasses.replace(data, y_train=0.01 * data.y_train, y_test=0.01 * data.y_test)
    start = train.initializers.RandomNormal(stddev=1e-3)
    layers = [train.Dense(6, "tanh"), train.Dense(1, kernel_initializer=start)]
    recorder = train.Recorder(2)
    train.fit(
        train.Sequential([train.Input((4,)), *layers]), data, loss="mse", recorder=recorder,
        policy="compute=bfloat16,Dense 1.gradients=float8_e4m3fn", optimizer="adam", verbose=False,
    )  # fmt: skip
    words = "Dense 1's weight gradients (0/kernel) are all 0, though the gradients that reach"
    assert recorder.verdict[0].startswith(words)


def test_block_formats_and_scales_of_their_own_have_the_usual_ones_among_their_cures():
    x, y = np.random.default_rng(0).standard_normal((512, 32)), np.arange(512) % 2
    x[:, 3] *= 40
    x[:, 4:12] += y[:, None]
    model = train.Sequential([train.Input((32,)), train.Dense(2)])
    how = {"loss": "sparse_categorical_crossentropy", "optimizer": train.Adam(0.01), "epochs": 20}
    policy = Policy(compute="float16", loss_scale=train.LossScale(2.0**40, hysteresis=10**6))
    for given, cure in (("mxfp4", "policy='mixed_bfloat16'"), (policy, "policy='mixed_float16'")):
        found = train.diagnose(model, train.Dataset(x, y), policy=given, budget=None, **how)
        assert cure in [one.code for one in found.cures if one.rescues]


# What is said where little is known ---------------------------------------------------------------


def test_lost_changes_of_the_state_stand_in_place_of_nothing_was_lost():
    recorder = train.Recorder(2)
    how = {"loss": "mse", "optimizer": train.Momentum(1e-4), "epochs": 8, "verbose": False}
    train.fit(LINE, _plane(), policy="state=float8_e4m3fn", recorder=recorder, **how)
    assert not any("Nothing was lost" in sentence for sentence in recorder.verdict)
    words = "(pass reference= to see), keep the optimizer's state in float32"
    assert any(words in sentence for sentence in recorder.verdict)


def test_one_step_is_too_few_to_judge_by():
    found = train.diagnose(
        LINE, _plane(), policy="mixed_bfloat16", loss="mse", optimizer="sgd", batch_size=256
    )
    assert (found.outcome.kind, found.cause, found.cures) == ("healthy", None, [])
    assert found.verdict[0].endswith("; 1 step is too few to judge by.")


def test_what_memorises_is_no_cure_of_targets_that_cannot_be_learnt():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((96, 4)).astype(np.float32), rng.standard_normal((96, 1))
    data = train.Dataset(x[:64], y[:64], x[64:], y[64:])
    model = train.Sequential([train.Input((4,)), train.Dense(64, "relu"), train.Dense(1)])
    found = train.diagnose(
        model, data, policy="mixed_bfloat16", loss="mse", optimizer=train.SGD(1e-4), epochs=8,
        budget=None,
    )  # fmt: skip
    assert (found.outcome.kind, found.cause, found.place) == ("float32 too", "not precision", None)
    assert not any(cure.rescues for cure in found.cures)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"epoch": 3}, TypeError, "unexpected keyword argument 'epoch'"),
        ({"budget": -1}, ValueError, "budget=-1: seconds are 0 or more"),
        ({"tolerance": 2}, ValueError, "tolerance=2 is no share"),
        ({"reference": [1.0]}, ValueError, "reference holds 1 losses, and this training has 2"),
    ],
)
def test_wrong_arguments_are_refused_as_fit_refuses_them(wrong, error, words):
    how = {"loss": "mse", "optimizer": "sgd", "epochs": 2}
    with pytest.raises(error, match=words):
        train.diagnose(LINE, _plane(), policy="bfloat16", **how | wrong)


def test_places_are_sorted_as_they_are_counted():
    places = {f"Dense {i}": {"compute": "float32"} for i in (10, 9, 11)}
    assert [key for key, _ in Policy(compute="float16", layers=places).places] == [
        "Dense 9", "Dense 10", "Dense 11",
    ]  # fmt: skip


def test_a_loss_whose_predictions_are_no_targets_is_held_against_its_own_start():
    """A Poisson likelihood of the logarithm of a rate: no mean of the targets is its prediction."""

    def poisson(y_true, y_pred):
        y = y_true.reshape(y_pred.shape)
        rate = np.exp(y_pred)
        return float(np.mean(rate - y * y_pred)), (rate - y) / y_pred.size

    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 4)).astype(np.float32)
    y = rng.poisson(np.exp(x[:, :1] + 1)).astype(np.float32)
    data = train.Dataset(x[:192], y[:192], x[192:], y[192:])
    how = {"optimizer": train.Adam(0.03), "epochs": 20, "budget": None}
    for loss in (poisson, "mape"):
        given = dataclasses.replace(data, y_train=data.y_train + 1, y_test=data.y_test + 1)
        found = train.diagnose(LINE, given, loss=loss, policy="mixed_bfloat16", **how)
        assert (found.outcome.kind, found.verdict[0][:24]) == (
            "healthy",
            "Nothing to worry about: ",
        )


def test_runs_of_different_length_are_held_against_each_other_at_the_same_step():
    stops = train.EarlyStopping("loss", min_delta=0.05, patience=1)
    how = {"loss": "mse", "optimizer": train.SGD(0.02), "epochs": 40, "budget": None}
    found = train.diagnose(LINE, _plane(), policy="bfloat16", callbacks=[stops], **how)
    first, second = found.experiments[:2]
    assert found.outcome.steps == min(first.steps, second.steps)


def test_the_table_of_experiments_and_the_cures_agree():
    found = train.diagnose(
        LINE, _plane(), policy="mixed_bfloat16", loss="mse", optimizer=train.SGD(30.0), epochs=4,
        budget=None,
    )  # fmt: skip
    told = {one.name: one.rescues for one in found.experiments}
    assert found.cures
    assert all(told[cure.code] == cure.rescues for cure in found.cures)
