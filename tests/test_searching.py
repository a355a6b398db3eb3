"""Searching: random settings, judged on a part of the training set and on nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lowprec import train
from lowprec.train.studies.rates import RateCurve, find_learning_rate
from lowprec.train.studies.searching import search

MODEL = train.Sequential([train.Input((4,)), train.Dense(8, activation="relu"), train.Dense(3)])
DATA = train.data.iris().scaled("standard")


def find(data=DATA, **options):
    return search(MODEL, data, **({"trials": 6, "epochs": 2} | options))


def timeless(found):
    return [(t.to_dict(), repr(dataclasses.replace(t.run, seconds=0.0))) for t in found.trials]


def with_other_test_set():
    rng = np.random.default_rng(1)
    y = rng.permutation(DATA.y_test)
    assert not np.array_equal(y, DATA.y_test)
    return dataclasses.replace(DATA, x_test=rng.normal(size=DATA.x_test.shape), y_test=y)


# Search ------------------------------------------------------------------------------------------


def test_the_test_set_changes_nothing():
    assert timeless(find()) == timeless(find(with_other_test_set()))


def test_the_score_is_that_of_the_part_held_out():
    found = find()
    for trial in found.trials:
        assert trial.score == trial.run.history["val_accuracy"][-1]
        count = trial.score * math.ceil(0.2 * len(DATA.x_train))
        assert count == pytest.approx(round(count))


def test_the_same_rng_draws_the_same_settings():
    assert timeless(find()) == timeless(find(rng=0))
    rates = [{t.learning_rate for t in find(rng=seed, epochs=1).trials} for seed in (1, 2)]
    assert not rates[0] & rates[1]


def test_every_executor_gives_the_same_result():
    with ThreadPoolExecutor(3) as executor:
        assert timeless(find(executor=executor)) == timeless(find())


def test_learning_rates_are_uniform_in_the_logarithm():
    found = find(trials=100, epochs=1, batch_size=120, learning_rate=(1e-5, 1e-1))
    logarithms = np.log10([trial.learning_rate for trial in found.trials])
    assert logarithms.min() >= -5
    assert logarithms.max() <= -1
    counts = np.histogram(logarithms, bins=4, range=(-5, -1))[0]
    assert counts.sum() == 100
    assert counts.min() >= 12  # 25 expected: below 12 in one of 40 000 draws


def test_loss_scales_are_powers_of_two_within_the_interval():
    found = find(trials=40, epochs=1, batch_size=120, loss_scale=(3.0, 70.0))
    scales = {trial.loss_scale for trial in found.trials}
    assert scales == {4.0, 8.0, 16.0, 32.0, 64.0}
    assert {str(trial.policy) for trial in found.trials} == {"float32"}
    assert {trial.loss_scale for trial in find().trials} == {None}


def test_every_policy_is_tried():
    policies = ["float32", "mixed_float16", "bfloat16"]
    found = find(policies=policies, trials=20, epochs=1)
    assert {str(trial.policy) for trial in found.trials} == set(policies)
    scales = {t.loss_scale for t in found.trials if str(t.policy) == "mixed_float16"}
    assert scales == {65536.0}


def test_the_best_comes_first_and_what_diverges_last():
    optimizer = train.Adam(epsilon=1e-12)  # too small for moments in float16
    policies = ["float32", "float16"]
    found = find(policies=policies, trials=12, optimizer=optimizer, epochs=5)
    lost = [trial.run.diverged_at is not None for trial in found.trials]
    assert any(lost)
    assert lost == sorted(lost)
    scores = [trial.score for trial, is_lost in zip(found.trials, lost, strict=True) if not is_lost]
    assert scores == sorted(scores, reverse=True)
    assert found.best is found.trials[0]


def test_the_lowest_error_is_the_best_in_regression():
    model = train.Sequential([train.Input((2,)), train.Dense(1)])
    found = search(model, train.data.quadratic(), trials=4, epochs=1)
    assert found.metric == "val_rmse"
    assert found.best.score == min(trial.score for trial in found.trials)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": (0.0, 1.0)}, "learning_rate=.*two positive numbers"),
        ({"learning_rate": (1.0, 0.1)}, "the smaller one first"),
        ({"loss_scale": (5.0, 7.0)}, "holds no power of two"),
        ({"trials": 0}, "trials=0"),
        ({"policies": []}, "0 policies"),
        ({"metric": "val_speed"}, "the history will have loss"),
        ({"validation_split": 1.0}, "leaves one part empty"),
    ],
    ids=str,
)
def test_wrong_arguments_are_told(options, words):
    with pytest.raises(ValueError, match=words):
        find(**options)


def test_the_views_show_every_trial(capsys):
    from rich.console import Console

    found = find(policies=["mixed_float16"], loss_scale=(2.0, 2.0**10))
    Console(width=80).print(found)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for trial in found.trials:
        assert f"{trial.learning_rate:.2e}" in text
        assert f"{trial.learning_rate:.2e}" in found._repr_html_()
    assert len(json.loads(json.dumps(found.to_dict(), allow_nan=False))["trials"]) == 6


def test_a_search_prints_as_a_table():
    found = find(policies=["mixed_float16"], loss_scale=(2.0, 2.0**10))
    assert repr(found) == str(found)
    for heading in ("policy", "learning rate", "loss scale", "val_accuracy"):
        assert heading in str(found).splitlines()[0]
    assert len(str(found).splitlines()) == 2 + len(found.trials)


# The learning-rate finder ------------------------------------------------------------------------


def test_the_rate_rises_by_one_factor_a_step():
    curve = find_learning_rate(MODEL, DATA, low=1e-5, high=1e-2, steps=31)
    assert np.allclose(np.diff(np.log10(curve.rates)), 0.1)
    assert curve.rates[0] == pytest.approx(1e-5)
    assert curve.rates[-1] == pytest.approx(1e-2)


def test_the_finder_ends_when_training_diverges():
    curve = find_learning_rate(MODEL, DATA, high=1e6, steps=300)
    assert len(curve.rates) < 300
    assert all(map(math.isfinite, curve.losses))
    assert curve.smoothed[-1] > 2 * min(curve.smoothed)


def test_the_finder_does_not_look_at_the_test_set():
    assert find_learning_rate(MODEL, DATA) == find_learning_rate(MODEL, with_other_test_set())


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_mean():
    rates = tuple(10.0**k for k in range(-3, 2))
    curve = RateCurve(rates, (4.0, 2.0, 1.0, 3.0, 9.0))
    means, total, weight = [], 0.0, 0.0
    for loss in curve.losses:  # weights fall by 0.9 a step into the past, and sum to 1
        total, weight = 0.9 * total + loss, 0.9 * weight + 1
        means.append(total / weight)
    assert curve.smoothed == pytest.approx(means)
    assert curve.suggestion == rates[means.index(min(means))] / 10


def test_training_with_the_suggestion_learns():
    curve = find_learning_rate(MODEL, DATA, policy="mixed_bfloat16")
    history = train.fit(
        MODEL,
        DATA,
        loss="sparse_categorical_crossentropy",
        optimizer=train.Adam(curve.suggestion),
        policy="mixed_bfloat16",
        epochs=20,
        verbose=False,
    )
    assert history.history["accuracy"][-1] > 0.9


def test_the_finder_has_a_plot():
    pytest.importorskip("matplotlib", reason="the report's extra is missing")
    curve = find_learning_rate(MODEL, DATA, steps=50)
    (axes,) = curve.plot().axes
    assert axes.get_xscale() == "log"
    assert f"{curve.suggestion:.2g}" in axes.texts[0].get_text()


@pytest.mark.parametrize("options", [{"low": 0.0}, {"low": 1.0, "high": 0.5}, {"steps": 1}])
def test_rates_that_do_not_rise_are_refused(options):
    with pytest.raises(ValueError, match="the rate rises from a positive low"):
        find_learning_rate(MODEL, DATA, **options)


# Spaces ------------------------------------------------------------------------------------------


def make(trial):
    return train.Sequential([train.Dense(trial["units"], trial.activation), train.Dense(3)])


SPACE = {
    "learning_rate": train.log_uniform(1e-4, 1e-1),
    "batch_size": [16, 64],
    "units": train.integers(4, 16),
    "activation": ["relu", "tanh"],
    "momentum": train.uniform(0.5, 0.99),
}


def find_in(space=SPACE, model=make, **options):
    how = {"trials": 5, "epochs": 1, "optimizer": "momentum"} | options
    return search(model, DATA, space=space, **how)


@pytest.mark.parametrize("method", ["random", "narrowing", "bayesian"])
def test_settings_lie_in_the_space_and_are_what_was_trained(method):
    if method == "bayesian":
        pytest.importorskip("optuna", reason="Optuna is not installed")
    found = find_in(method=method, trials=7)
    assert len(found.trials) == 7
    assert timeless(found) == timeless(find_in(method=method, trials=7))
    for trial in found.trials:
        assert list(trial.settings) == list(SPACE)
        assert 1e-4 <= trial.settings.learning_rate <= 1e-1
        assert trial.learning_rate == trial.settings["learning_rate"]
        assert trial.settings.batch_size in (16, 64)
        assert trial.settings.units in range(4, 17)
        assert 0.5 <= trial.settings.momentum <= 0.99
    scores = [trial.score for trial in found.trials]
    assert scores == sorted(scores, reverse=True)
    best = found.best
    judged = DATA.split(0.2, rng=np.random.default_rng([best.run.seed, 1]))
    again = train.fit(
        make(best.settings),
        judged,
        loss="sparse_categorical_crossentropy",
        optimizer=train.Momentum(best.settings.learning_rate, best.settings.momentum),
        batch_size=best.settings.batch_size,
        rng=best.run.seed,
        verbose=0,
    )
    assert again.history == best.run.history


def test_a_trial_is_the_training_of_its_settings():
    space = {"learning_rate": [0.05], "weight_decay": [0.01], "class_weight": [{0: 2.0}]}
    (trial,) = find_in(space, MODEL, optimizer="adamw", method="grid", rng=3).trials
    seed = trial.run.seed
    found = train.fit(
        MODEL,
        DATA.split(0.2, rng=np.random.default_rng([seed, 1])),
        loss="sparse_categorical_crossentropy",
        optimizer=train.AdamW(0.05, weight_decay=0.01),
        class_weight={0: 2.0},
        rng=seed,
        verbose=0,
    )
    assert found.history == trial.run.history


def test_a_grid_tries_every_combination():
    space = {"learning_rate": train.log_uniform(1e-3, 1e-1), "batch_size": [16, 64]}
    found = find_in(space, MODEL, method="grid", points=3, trials=1)
    tried = {(round(t.settings.learning_rate, 9), t.settings.batch_size) for t in found.trials}
    assert tried == {(rate, size) for rate in (0.001, 0.01, 0.1) for size in (16, 64)}


def test_narrowing_ends_around_the_best():
    space = {"learning_rate": train.log_uniform(1e-5, 1e-0)}
    found = find_in(space, MODEL, method="narrowing", trials=12, optimizer="adam", epochs=2)
    rounds = find_in(space, MODEL, method="narrowing", trials=4, optimizer="adam", epochs=2)
    assert len(rounds.trials) == 4
    best = np.log10(found.best.settings.learning_rate)
    near = [abs(np.log10(t.settings.learning_rate) - best) <= 5 / 3 for t in found.trials]
    assert sum(near) >= 8  # the second and the third round, four each


def test_intervals_are_even_on_their_scale():
    draws = np.random.default_rng(0).random(4000)
    rates = np.log10([train.log_uniform(1e-4, 1e-1).at(part) for part in draws])
    assert np.abs(np.histogram(rates, 3, (-4, -1))[0] / 4000 - 1 / 3).max() < 0.03
    assert train.integers(1, 3).points(3) == [1, 2, 3]
    inner = train.log_uniform(1e-4, 1e-1).around(1e-1, 1 / 3)
    assert (inner.low, inner.high) == pytest.approx((1e-2, 1e-1))
    for wrong in ((1.0, 0.0), (0.0, np.inf), (-1.0, 1.0)):
        with pytest.raises(ValueError, match="the smaller first"):
            train.log_uniform(*wrong)


def test_policies_loss_scales_and_optimizers_are_searched():
    space = {
        "policy": ["mixed_bfloat16", "mixed_float16"],
        "loss_scale": [1024.0],
        "optimizer": ["sgd", train.Adam(0.01)],
    }
    found = find_in(space, MODEL, method="grid")
    assert len(found.trials) == 4
    assert {trial.loss_scale for trial in found.trials} == {1024.0}
    assert {str(trial.policy) for trial in found.trials} == {"mixed_bfloat16", "mixed_float16"}
    several = find_in({"batch_size": [16]}, MODEL, method="grid", policies=["float32", "bfloat16"])
    assert [sorted(t.settings) for t in several.trials] == [["batch_size", "policy"]] * 2


def test_a_search_is_a_table_a_picture_and_a_frame():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    found = find_in()
    assert "learning rate" in repr(found)
    assert "batch size" in found._repr_html_()
    json.dumps(found.to_dict())
    frame = found.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["units"]) == [trial.settings.units for trial in found.trials]
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert len(found.plot().axes) == len(SPACE)
    assert len(find(trials=2, epochs=1).plot().axes) == 2


@pytest.mark.parametrize(
    ("error", "message", "how"),
    [
        (ValueError, "did you mean 'momentum'", {"space": {"momentun": [1]}, "model": MODEL}),
        (ValueError, "space is empty", {"space": {}}),
        (ValueError, "is empty; list one", {"space": {"units": []}}),
        (TypeError, "space is a dictionary", {"space": [1]}),
        (ValueError, "not a method of search", {"method": "annealing"}),
        (ValueError, "at least|be one", {"trials": 0}),
    ],
)
def test_mistakes_in_a_space_are_named(error, message, how):
    with pytest.raises(error, match=message):
        find_in(**how)
