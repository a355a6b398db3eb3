"""Laws of the schedules, and agreement with torch.optim.lr_scheduler."""

from __future__ import annotations

import dataclasses
import math
import pickle
import random
import warnings

import pytest

from lowprec.train.optimizers import SGD
from lowprec.train.schedules import (
    Cosine,
    Exponential,
    OneCycle,
    Performance,
    PiecewiseConstant,
    Power,
    WarmUp,
)

SCHEDULES = (
    Power(0.3, steps=7, power=0.5),
    Exponential(0.3, decay_rate=0.9, steps=5),
    PiecewiseConstant((3, 8), (0.3, 0.2, 0.1)),
    Cosine(0.3, steps=20, minimum=0.01),
    OneCycle(0.3, steps=20),
    WarmUp(Cosine(0.3, steps=20), steps=5, start=0.1),
    WarmUp(0.3, steps=5),
    Performance(0.3),
)


def torch_rates(make, count, rate=0.3):
    """Return the rates of the first steps under one of PyTorch's schedulers."""
    torch = pytest.importorskip("torch", reason="compares with torch.optim.lr_scheduler")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():  # SequentialLR warns of what it does itself
            warnings.simplefilter("ignore", UserWarning)
            scheduler.step()
    return rates


def one_cycle(steps, **keywords):
    def make(library, optimizer):
        return library.OneCycleLR(
            optimizer, 0.3, total_steps=steps + 1, cycle_momentum=False, **keywords
        )

    return make


TWINS = [
    (Exponential(0.3, 0.9), lambda lib, o: lib.ExponentialLR(o, 0.9)),
    (Cosine(0.3, 40, minimum=0.02), lambda lib, o: lib.CosineAnnealingLR(o, 40, eta_min=0.02)),
    (
        PiecewiseConstant((5, 20), (0.3, 0.15, 0.075)),
        lambda lib, o: lib.MultiStepLR(o, [5, 20], gamma=0.5),
    ),
    (
        Power(0.3, steps=10, power=1.5),
        lambda lib, o: lib.LambdaLR(o, lambda step: (1 + step / 10) ** -1.5),
    ),
    (
        WarmUp(0.3, steps=10, start=0.25),
        lambda lib, o: lib.LinearLR(o, start_factor=0.25, total_iters=10),
    ),
    (
        WarmUp(Exponential(0.3, 0.9), steps=10, start=0.25),
        lambda lib, o: lib.SequentialLR(
            o,
            [lib.LinearLR(o, start_factor=0.25, total_iters=10), lib.ExponentialLR(o, 0.9)],
            milestones=[10],
        ),
    ),
]


@pytest.mark.parametrize(("schedule", "twin"), TWINS)
def test_rates_are_those_of_torch(schedule, twin):
    # PyTorch gets each rate from the last one, so that roundings add up.
    ours = [schedule(step) for step in range(40)]
    assert ours == pytest.approx(torch_rates(twin, 40), rel=1e-12)


@pytest.mark.parametrize("steps", [2, 10, 57])
@pytest.mark.parametrize(
    "keywords",
    [{}, {"pct_start": 0.5}, {"pct_start": 0.02}, {"div_factor": 10.0, "final_div_factor": 100.0}],
)
def test_one_cycle_is_that_of_torch(steps, keywords):
    # With one step more than it takes, for PyTorch refuses to look at what comes after the last.
    ours = OneCycle(0.3, steps + 1, **keywords)
    expected = torch_rates(one_cycle(steps, **keywords), steps)
    assert [ours(step) for step in range(steps)] == pytest.approx(expected, rel=1e-12)


def test_one_cycle_ends_at_its_lowest_rate_and_stays():
    schedule = OneCycle(0.5, steps=10, div_factor=5.0, final_div_factor=100.0)
    for step in (9, 10, 1000):
        assert schedule(step) == pytest.approx(0.5 / 5 / 100, rel=1e-15)
    assert max(schedule(step) for step in range(10)) == schedule(2) == 0.5


def test_one_cycle_of_one_step_has_one_rate():
    assert OneCycle(0.5, steps=1)(0) == pytest.approx(0.5 / 25 / 1e4)


def test_cosine_stays_at_its_minimum():
    schedule = Cosine(0.3, steps=10, minimum=0.01)
    assert [schedule(step) for step in (10, 11, 20, 1000)] == [0.01] * 4


def test_a_power_of_one_halves_the_rate_after_its_steps():
    schedule = Power(0.5, steps=100)
    assert [schedule(step) for step in (0, 100, 300)] == [0.5, 0.25, 0.125]


def test_warm_up_rises_in_a_straight_line_to_the_first_rate():
    schedule = WarmUp(PiecewiseConstant((3,), (0.5, 0.25)), steps=4)
    assert [schedule(step) for step in range(8)] == [0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_schedules_are_values(schedule):
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert len({schedule, dataclasses.replace(schedule)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.learning_rate = 1.0


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_rates_are_finite_and_not_negative(schedule):
    for step in [*range(50), 10**6]:
        assert 0 <= schedule(step) < math.inf


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"factor": 0.5, "patience": 2, "threshold": 0.05},
        {"factor": 0.7, "patience": 0, "cooldown": 3, "threshold": 0.02},
        {"factor": 0.2, "patience": 1, "cooldown": 1, "minimum": 1e-3},
        {"factor": 0.1, "patience": 0},  # falls below 1e-8, where PyTorch stops
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_performance_is_reduce_on_plateau_epoch_by_epoch(mode, threshold_mode, keywords, seed):
    torch = pytest.importorskip("torch", reason="compares with ReduceLROnPlateau")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = {**keywords, "min_lr": keywords.get("minimum", 0.0)}
    theirs.pop("minimum", None)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, threshold_mode=threshold_mode, **theirs
    )
    schedule = Performance(0.3, mode=mode, threshold_mode=threshold_mode, **keywords)
    draw, metric = random.Random(seed), 1.0
    for epoch in range(80):
        metric *= draw.choice([0.9, 0.97, 1.0, 1.0, 1.02, 1.1])
        observed = math.nan if epoch % 17 == 11 else metric
        schedule = schedule.observe(observed)
        reference.step(observed)
        assert schedule(0) == optimizer.param_groups[0]["lr"]
        assert (schedule.bad_epochs, schedule.cooldown_left) == (
            reference.num_bad_epochs,
            reference.cooldown_counter,
        )


def test_performance_reduces_after_patience_is_spent():
    schedule = Performance(1.0, factor=0.5, patience=2)
    rates = []
    for metric in [1.0, 2.0, 2.0, 2.0, 2.0, 0.5]:
        schedule = schedule.observe(metric)
        rates.append(schedule(0))
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    assert schedule.best == 0.5


def test_observing_leaves_the_old_value_alone():
    first = Performance(1.0, patience=0)
    first.observe(1.0).observe(1.0)
    assert first == Performance(1.0, patience=0)


def test_an_optimizer_observes_through_its_rate():
    optimizer = SGD(Performance(1.0, factor=0.5, patience=0))
    later = optimizer.observe(1.0).observe(1.0)
    assert (optimizer.rate(0), later.rate(0)) == (1.0, 0.5)
    constant = SGD(1.0)
    assert constant.observe(1.0) is constant


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Power(-1.0), "learning_rate=-1"),
        (lambda: Power(0.1, steps=0), "steps=0"),
        (lambda: Power(0.1, power=-1), "power=-1"),
        (lambda: Exponential(0.1, decay_rate=-0.5), "decay_rate=-0.5"),
        (lambda: PiecewiseConstant((1, 2), (0.1, 0.2)), "one value more"),
        (lambda: PiecewiseConstant((2, 1), (0.1, 0.2, 0.3)), "sort them"),
        (lambda: PiecewiseConstant((1,), (0.1, -0.2)), "value=-0.2"),
        (lambda: Cosine(0.1, steps=-5), "steps=-5"),
        (lambda: OneCycle(0.1, steps=0), "steps=0"),
        (lambda: OneCycle(0.1, steps=5, pct_start=1.5), "pct_start=1.5"),
        (lambda: OneCycle(0.1, steps=5, div_factor=0), "div_factor=0"),
        (lambda: WarmUp(-0.1, steps=5), "schedule=-0.1"),
        (lambda: WarmUp(0.1, steps=5, start=2), "start=2"),
        (lambda: WarmUp(Performance(0.1), steps=5), "cannot wrap Performance"),
        (lambda: Performance(0.1, factor=1.0), "factor=1.0"),
        (lambda: Performance(0.1, mode="low"), "mode='low'.*'min' or 'max'"),
        (lambda: Performance(0.1, threshold_mode="x"), "threshold_mode='x'"),
        (lambda: Performance(0.1, patience=-1), "patience=-1"),
    ],
)
def test_numbers_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
