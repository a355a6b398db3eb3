"""Comparing policies: paired by seed, the same through any executor, and honest in its verdict."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import pickle
import statistics
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from html.parser import HTMLParser

import numpy as np
import pytest

from lowprec import train
from lowprec.train.memory import bytes_per_parameter
from lowprec.train.studies.comparison import compare_policies
from lowprec.train.studies.policy_comparison import PolicyComparison
from lowprec.train.studies.results import BASELINE, PolicyResult
from lowprec.train.studies.runs import Run, default_loss
from lowprec.train.studies.seed_statistics import Spread, student_quantile
from lowprec.train.studies.verdicts import grade

POLICIES = ["float32", "mixed_bfloat16", "bfloat16_stochastic", "float16"]


def blobs(classes=3, samples=96):
    """Return three clouds of points in a plane, which any network separates."""
    rng = np.random.default_rng(0)
    y = np.arange(samples) % classes
    x = rng.normal(size=(samples, 2)) + 3 * np.stack([np.cos(2 * y), np.sin(2 * y)], axis=1)
    return train.Dataset(x[:64], y[:64], x[64:], y[64:], "blobs")


MODEL = train.Sequential([train.Input((2,)), train.Dense(8, activation="relu"), train.Dense(3)])
DATA = blobs()


OPTIMIZER = train.Adam(1e-2, epsilon=1e-12)  # float16 cannot hold the squares, and diverges


def compare(policies=POLICIES, seeds=2, **options):
    options = {"epochs": 3, "batch_size": 16, "optimizer": OPTIMIZER} | options
    return compare_policies(MODEL, DATA, policies, seeds, **options)


def timeless(comparison):
    """Return all runs without their times, as text: floats are spelled exactly, NaN included."""
    return [
        repr(dataclasses.replace(run, seconds=0.0))
        for result in comparison.results
        for run in result.runs
    ]


@pytest.fixture(scope="module")
def comparison():
    return compare()


# Runs --------------------------------------------------------------------------------------------


def test_a_run_is_what_fit_returns_for_the_same_seed(comparison):
    for result in comparison.results:
        for run in result.runs:
            history = train.fit(
                MODEL,
                DATA,
                loss="sparse_categorical_crossentropy",
                optimizer=OPTIMIZER,
                policy=result.policy,
                epochs=3,
                batch_size=16,
                rng=run.seed,
                verbose=False,
            )
            assert repr(run.history) == repr(history.history)
            assert run.steps == 12


def test_runs_are_paired_by_seed():
    exact = train.Policy(loss_scale=1024.0, name="scaled")  # a power of two changes no bit
    found = compare(["float32", exact], seeds=[3, 5])
    assert found[exact].differences == [0.0, 0.0]
    histories = [
        [{k: v for k, v in run.history.items() if k != "loss_scale"} for run in result.runs]
        for result in found.results
    ]
    assert histories[0] == histories[1]
    assert histories[0][0] != histories[0][1]
    assert found.results[1].runs[0].history["loss_scale"] == [1024.0] * 3


def submit_to(kind):
    match kind:
        case "threads":
            return ThreadPoolExecutor(3)
        case "spawn" | "fork":
            return ProcessPoolExecutor(2, multiprocessing.get_context(kind))
    return Cluster()


class Cluster:
    """Knows one method, pickles all that it is given and returns, and works backwards."""

    def __init__(self):
        self.jobs = []

    def submit(self, function, argument):
        sent = pickle.dumps((function, argument))
        future = Future()
        self.jobs.append((future, sent))
        future.result = lambda: self.work(future)
        return future

    def work(self, wanted):
        for future, sent in reversed(self.jobs):
            if not future.done():
                function, argument = pickle.loads(sent)
                future.set_result(pickle.dumps(function(argument)))
        return pickle.loads(Future.result(wanted))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("kind", ["threads", "spawn", "fork", "cluster"])
def test_every_executor_gives_the_same_bits(kind, comparison, tmp_path):
    folders = tmp_path / "here", tmp_path / "there"
    for folder in folders:
        folder.mkdir()
    compare(folder=folders[0])
    with submit_to(kind) as executor:
        found = compare(executor=executor, folder=folders[1])
    assert timeless(found) == timeless(comparison)
    names = [f"{policy}-{seed}.npz" for policy in POLICIES for seed in (0, 1)]
    for name in names:  # parameters, moments and curves: the same bytes
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert len(list(folders[1].iterdir())) == len(names)


def test_a_saved_run_can_be_resumed(tmp_path):
    compare(["mixed_float16"], seeds=1, folder=tmp_path)
    options = {"loss": "sparse_categorical_crossentropy", "optimizer": OPTIMIZER}
    options |= {"policy": "mixed_float16", "epochs": 5, "batch_size": 16, "verbose": False}
    resumed = train.fit(MODEL, DATA, resume=tmp_path / "mixed_float16-0.npz", **options)
    straight = train.fit(MODEL, DATA, rng=0, **options)
    assert all(np.array_equal(resumed.params[k], straight.params[k]) for k in straight.params)


def test_progress_runs_to_the_end():
    calls = []
    compare(["float32", "mixed_bfloat16"], progress=lambda *call: calls.append(call))
    assert [call[1:] for call in calls] == [(done, 4) for done in range(1, 5)]
    assert calls[1][0] == "mixed_bfloat16, seed 0"


def test_an_error_cancels_the_runs_that_wait():
    class Failing(Cluster):
        def work(self, wanted):
            raise KeyboardInterrupt

    executor = Failing()
    with pytest.raises(KeyboardInterrupt):
        compare(executor=executor)
    assert all(future.cancelled() for future, _ in executor.jobs)


# Divergence --------------------------------------------------------------------------------------


def test_a_run_that_diverges_stops_no_other(comparison):
    float16 = comparison["float16"]
    assert [run.diverged_at is not None for run in float16.runs] == [True, True]
    alone = compare(["float32", "mixed_bfloat16"])
    assert timeless(alone) == timeless(comparison)[:4]
    assert all(run.diverged_at is None for run in comparison["mixed_bfloat16"].runs)


@pytest.mark.parametrize(("rate", "step"), [(100.0, 2), (1000.0, 1)])
def test_divergence_is_dated_by_the_first_step_that_is_not_finite(rate, step):
    optimizer = train.SGD(rate)
    found = compare(["float16"], 1, batch_size=64, epochs=6, optimizer=optimizer)
    (run,) = found["float16"].runs
    assert run.diverged_at == step

    def is_finite(epochs):  # a step is an epoch here
        history = train.fit(
            MODEL,
            DATA,
            loss="sparse_categorical_crossentropy",
            optimizer=optimizer,
            policy="float16",
            epochs=epochs,
            batch_size=64,
            verbose=False,
        )
        values = [history.history["loss"], *history.params.values()]
        return all(np.isfinite(one).all() for one in values)

    assert is_finite(step)
    assert not is_finite(step + 1)


def test_a_skipped_step_is_no_divergence():
    policy = dataclasses.replace(
        train.get_policy("mixed_float16"), loss_scale=train.LossScale(2.0**40), name="high"
    )
    found = compare([policy], seeds=2, epochs=10)[policy]
    for run in found.runs:
        assert run.skipped_steps[:2] == [0, 1]
        assert run.diverged_at is None
        assert run.loss_scale < 2.0**40
    assert 0 < found.skipped_share < 1


# Numbers -----------------------------------------------------------------------------------------


def test_means_and_paired_differences_follow_from_the_runs(comparison):
    reference = [run.history["val_accuracy"][-1] for run in comparison["float32"].runs]
    for result in comparison.results:
        values = [run.history["val_accuracy"][-1] for run in result.runs]
        differences = [a - b for a, b in zip(values, reference, strict=True)]
        assert result.spread.mean == pytest.approx(statistics.mean(values))
        assert result.spread.sd == pytest.approx(statistics.stdev(values))
        assert result.difference.mean == pytest.approx(statistics.mean(differences))
        assert result.difference.sd == pytest.approx(statistics.stdev(differences))


def test_one_policy_may_stand_alone():
    found = compare("mixed_float16", seeds=1)
    assert [str(result.policy) for result in found.results] == ["float32", "mixed_float16"]


@pytest.mark.parametrize("seeds", [np.int64(2), np.arange(2), range(2), (0, 1)], ids=repr)
def test_seeds_may_be_numpys(seeds):
    found = compare(["float32"], seeds=seeds)
    assert json.loads(json.dumps(found.to_dict()))["seeds"] == [0, 1]


def test_float32_is_added_where_it_is_missing_and_that_is_said():
    found = compare(["mixed_bfloat16"])
    assert [str(result.policy) for result in found.results] == ["float32", "mixed_bfloat16"]
    assert found.baseline_added
    assert "float32 added" in str(found)
    assert not compare(["mixed_bfloat16", "float32"]).baseline_added


@pytest.mark.parametrize(
    ("policy", "optimizer", "expected"),
    [
        ("float32", train.Adam(), (4, 8, 0)),
        ("mixed_bfloat16", train.Adam(), (4, 8, 2)),
        ("mixed_float8", train.Adam(), (4, 8, 1)),
        ("bfloat16", train.Adam(), (2, 4, 0)),
        ("bfloat16_kahan", train.Adam(), (2, 6, 0)),
        ("float32", train.SGD(), (4, 0, 0)),
        ("bfloat16", train.SGD(momentum=0.9), (2, 2, 0)),
        ("params=float32,compute=float16,state=bfloat16", train.Adam(), (4, 4, 2)),
        ("compute=tfloat32", train.SGD(), (4, 0, 4)),
    ],
    ids=str,
)
def test_bytes_of_a_parameter(policy, optimizer, expected):
    found = bytes_per_parameter(policy, optimizer)
    assert tuple(found) == expected
    assert found.total == sum(expected)


def test_bytes_of_a_parameter_are_those_of_a_saved_run(tmp_path):
    compare(["bfloat16_kahan"], seeds=1, folder=tmp_path)
    history = train.History.load(tmp_path / "bfloat16_kahan-0.npz")
    numbers = sum(w.size for w in history.params.values())
    kept = sum(w.size for name, w in history.state.items())
    assert bytes_per_parameter("bfloat16_kahan", train.Adam()).state == 2 * kept / numbers


@pytest.mark.parametrize("freedom", [*range(1, 40), 100, 1000])
def test_the_quantile_is_students(freedom):
    stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle")
    assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)


@pytest.mark.parametrize(
    ("model", "data", "loss"),
    [
        (MODEL, DATA, "sparse_categorical_crossentropy"),
        (train.Sequential([train.Dense(1)]), blobs(2), "binary_crossentropy"),
        (train.Sequential([train.Dense(1)]), train.data.linear(), "mse"),
    ],
    ids=["classes", "two classes, one logit", "regression"],
)
def test_the_loss_suits_the_data(model, data, loss):
    assert default_loss(model, data) == loss


def test_regression_is_judged_by_its_rmse():
    model = train.Sequential([train.Input((2,)), train.Dense(1)])
    found = compare_policies(model, train.data.quadratic(), ["mixed_bfloat16"], 2, epochs=1)
    assert found.metric == "val_rmse"
    wanted = compare_policies(
        model, train.data.quadratic(), ["mixed_bfloat16"], 2, epochs=1, metric="mae"
    )
    assert wanted["float32"].values == [run.history["mae"][-1] for run in found.results[0].runs]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"policies": []}, "no policy"),
        ({"policies": ["bfloat16", "bfloat16"]}, "policy bfloat16 is given twice"),
        ({"policies": ["bfloat17"]}, "'bfloat17' is not a policy"),
        (
            {
                "policies": [
                    train.Policy(state="bfloat16", name="a"),
                    train.Policy(compute="e5m2", name="a"),
                ]
            },
            "the name of a policy, a is given twice",
        ),
        ({"seeds": 0}, "no seed"),
        ({"seeds": [1, 1]}, "seed 1 is given twice"),
        ({"metric": "speed"}, "the history will have loss, accuracy"),
        ({"epochs": 0}, "epochs=0"),
    ],
    ids=str,
)
def test_wrong_arguments_are_told(arguments, words):
    with pytest.raises(ValueError, match=words):
        compare(**arguments)


def test_a_missing_folder_is_told_before_the_work(tmp_path):
    calls = []
    with pytest.raises(FileNotFoundError, match="no such folder"):
        compare(folder=tmp_path / "none", progress=lambda *call: calls.append(call))
    assert calls == []


# The verdict -------------------------------------------------------------------------------------


def result_of(policy, values, baseline, losses=None, diverged=0, **facts):
    """Return a result with these accuracies, by seed."""

    def runs(name, accuracies, ends):
        return tuple(
            Run(
                policy=name,
                seed=seed,
                history={"loss": [end], "val_accuracy": [accuracy]},
                steps=100,
                skipped_steps=facts.get("skipped", []) if name != "float32" else [],
                loss_scale=1.0,
                diverged_at=7 if seed < diverged and name != "float32" else None,
                unchanged=facts.get("unchanged", 0.0) if name != "float32" else 0.0,
                seconds=0.01,
            )
            for seed, (accuracy, end) in enumerate(zip(accuracies, ends, strict=True))
        )

    policy = train.get_policy(policy)
    ones = [1.0] * len(values)
    memory = bytes_per_parameter(policy, train.Adam())
    mine = runs(str(policy), values, losses or ones)
    return PolicyResult(policy, mine, runs("float32", baseline, ones), "val_accuracy", memory)


def verdict_of(*results):
    baseline = result_of(BASELINE, [r.history["val_accuracy"][-1] for r in results[0].baseline],
                         [r.history["val_accuracy"][-1] for r in results[0].baseline])  # fmt: skip
    facts = {"hyperparameters": {"epsilon": 1e-8, "beta_2": 0.999}, "guessing": 0.1}
    return PolicyComparison((baseline, *results), False, facts).verdict


USUAL = [0.90, 0.92, 0.94, 0.91]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (USUAL, "same"),
        ([0.91, 0.91, 0.95, 0.90], "same"),
        ([0.80, 0.83, 0.84, 0.81], "worse"),
        ([0.95, 0.98, 0.99, 0.96], "better"),
        ([0.80, 0.99, 0.84, 0.95], "same"),
    ],
)
def test_a_difference_counts_where_it_exceeds_its_noise(values, expected):
    result = result_of("mixed_bfloat16", values, USUAL)
    assert grade(result) == expected
    stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle")
    if values != USUAL:
        p = stats.ttest_rel(values, USUAL).pvalue
        assert (p < 0.05) == (expected != "same")


@pytest.mark.parametrize("seeds", [np.int64(2), np.arange(2)])
def test_numpys_integers_serve_as_pythons(seeds):
    options = {"epochs": np.int64(2), "batch_size": np.int64(16)}
    found = compare(["bfloat16"], seeds, **options)
    assert json.loads(json.dumps(found.to_dict()))["seeds"] == [0, 1]


def test_seeds_that_agree_by_chance_decide_nothing():
    agreeing = result_of("mixed_bfloat16", [0.90, 0.92], [0.91, 0.93])
    assert grade(agreeing) == "worse"
    assert grade(dataclasses.replace(agreeing, resolution=0.01)) == "same"  # a sample of 100
    found = compare(["mixed_bfloat16"], validation_split=0.25)
    assert found.results[1].resolution == 1 / 16
    assert compare(["mixed_bfloat16"]).results[1].resolution == 1 / 32


def test_a_single_seed_decides_nothing():
    result = result_of("mixed_bfloat16", [0.5], [0.9])
    assert grade(result) == "unknown"
    words = verdict_of(result)
    assert "one seed cannot tell" in words[1]
    assert len(words) == 2


def test_a_training_loss_that_lags_is_told_though_the_metric_is_the_same():
    result = result_of("bfloat16", USUAL, USUAL, losses=[1.4, 1.5, 1.45, 1.5], unchanged=0.5)
    assert grade(result) == "lagging"
    words = verdict_of(result)
    assert "46% above float32's" in words[1]
    assert "Likely lost updates" in words[1]
    assert words[-1] == "Of these policies, none but float32 holds here."
    assert grade(result_of("bfloat16", USUAL, USUAL, losses=[1.02] * 4)) == "same"


@pytest.mark.parametrize(
    ("policy", "facts", "cause"),
    [
        ("bfloat16", {"unchanged": 0.9}, "lost updates: to nearest in bfloat16, a step below 2⁻⁸"),
        ("float16", {"diverged": 1}, "the optimizer's state: from gradients below 5e−3 the mean"),
        ("compute=float16", {"diverged": 1}, "an overflow: float16 ends at 65504"),
        ("compute=float16", {}, "gradients below 6e−8 became zero in float16"),
        ("mixed_float16", {"skipped": list(range(40))}, "the loss scale: 40% of the steps"),
        ("mixed_float8", {}, "the rounding to float8_e4m3fn itself"),
    ],
    ids=str,
)
def test_the_likely_cause_follows_from_the_formats(policy, facts, cause):
    words = verdict_of(result_of(policy, [0.1, 0.12, 0.1, 0.11], USUAL, **facts))
    assert f"Likely {cause}" in words[1]


def test_a_policy_that_diverges_with_one_seed_fails():
    words = verdict_of(result_of("mixed_bfloat16", USUAL, USUAL, diverged=1))
    assert words[1].startswith("mixed_bfloat16 fails: 1 of 4 seeds diverged, the first at step 8")


def test_nothing_is_said_of_policies_where_float32_has_learned_nothing():
    (words,) = verdict_of(result_of("bfloat16", [0.08, 0.1, 0.09, 0.1], [0.1, 0.08, 0.1, 0.09]))
    assert words.startswith("float32 itself has learned nothing: val_accuracy 0.0925")


NARROWEST = (
    "Narrowest arithmetic that loses nothing measurable: {}, in {} bits, with {} bytes a parameter "
    "(float32: 12)."
)


def test_the_advice_is_the_narrowest_that_holds_then_the_smallest():
    same = [result_of(p, USUAL, USUAL) for p in ("mixed_bfloat16", "bfloat16_kahan", "bfloat16")]
    worse = result_of("mixed_float8", [0.1, 0.2, 0.1, 0.2], USUAL)
    words = verdict_of(*same, worse)
    assert words[5:] == [NARROWEST.format("bfloat16", 16, 6)]


def test_the_narrowest_is_not_told_to_be_the_smallest():
    policies = ("mixed_float8", "bfloat16_stochastic", "bfloat16_kahan")
    words = verdict_of(*(result_of(policy, USUAL, USUAL) for policy in policies))
    smallest = "bfloat16_stochastic, with 6 bytes a parameter, in 16 bits."
    assert words[4:] == [
        NARROWEST.format("mixed_float8", 8, 13),
        f"Least memory that loses nothing measurable: {smallest}",
    ]
    alone = verdict_of(result_of("mixed_float8", USUAL, USUAL))  # float32 takes less, as is told
    assert alone[2:] == [NARROWEST.format("mixed_float8", 8, 13)]


def test_the_spread_of_what_is_not_finite_is_no_number():
    assert math.isnan(Spread.of([1.0, math.nan]).mean)
    assert Spread.of([1.0, math.inf]).mean == math.inf


# Views -------------------------------------------------------------------------------------------


def test_the_table_fits_a_terminal(comparison):
    text = str(comparison)
    assert max(map(len, text.splitlines())) <= 80
    for words in ("bfloat16_stochastic", "2 of 2 diverged", "beside float32", "bytes", "blobs"):
        assert words in text


def test_a_comparison_is_its_table_in_an_interpreter_too(comparison):
    assert repr(comparison) == str(comparison)


def test_the_data_are_plain_json(comparison):
    text = json.dumps(comparison.to_dict(), allow_nan=False)
    found = json.loads(text)
    assert [one["policy"] for one in found["policies"]] == POLICIES
    float16 = found["policies"][-1]
    assert float16["runs"][0]["history"]["loss"][-1] is None
    assert float16["bytes_per_parameter"] == {"params": 2, "state": 4, "copy": 0, "total": 6}


class Balanced(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.stack, self.labels = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "use", "path"):
            self.stack.append(tag)
        if tag == "svg":
            self.labels.append(dict(attrs)["aria-label"])

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in ("use", "path"):
            assert self.stack.pop() == tag


def test_the_page_is_well_formed_and_told_in_words(comparison):
    pytest.importorskip("matplotlib", reason="the report's extra is missing")
    pytest.importorskip("jinja2", reason="the report's extra is missing")
    page = comparison.to_html()
    parsed = Balanced(page)
    assert parsed.stack == []
    assert len(parsed.labels) == 4
    assert all(len(label) > 40 for label in parsed.labels)
    assert "//" not in page.replace("</", "")
    for sentence in ("float16 fails: 2 of 2 seeds diverged", "Lines are means over the seeds"):
        assert sentence in page
    assert Balanced(comparison._repr_html_()).stack == []


def test_the_plot_shows_every_policy_in_training_and_validation(comparison):
    pytest.importorskip("matplotlib", reason="the report's extra is missing")
    figure = comparison.plot()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [
        "training: loss", "validation: loss", "training: accuracy", "validation: accuracy",
    ]  # fmt: skip
    for axes in figure.axes:
        assert len(axes.get_lines()) == len(POLICIES)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *POLICIES[:3],
        "float16 (2 of 2 diverged)",
    ]
    curve = figure.axes[3].get_lines()[0].get_ydata()
    means = np.mean([r.history["val_accuracy"] for r in comparison["float32"].runs], axis=0)
    assert np.array_equal(curve, means)
