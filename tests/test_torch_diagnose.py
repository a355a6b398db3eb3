"""Laws of `lowprec.torch.diagnose`: the outcome, the cause by experiment, cures that were tried."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

import lowprec.torch as lt  # noqa: E402
from lowprec import train  # noqa: E402


def regression(rate=2e-3, weight=1.0, scale=1.0):
    """Return what makes a training whose loss counts so much, on inputs of this size."""

    def make(seed):
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        x = torch.randn(64, 4)
        y = x.sum(1, keepdim=True)

        def step(model, optimizer, i):
            optimizer.zero_grad()
            loss = (model(scale * x) - y).square().mean()
            (weight * loss).backward()
            optimizer.step()
            return loss

        return model, torch.optim.SGD(model.parameters(), rate / weight), step

    return make


def test_a_healthy_training_has_no_cause():
    found = lt.diagnose(regression(0.05), policy="mixed_bfloat16", steps=100, budget=None)
    assert found.outcome.kind == "healthy"
    assert (found.cause, found.place, found.cures) == (None, None, [])


def test_updates_lost_in_bfloat16_parameters_are_the_cause_and_cured():
    found = lt.diagnose(regression(), policy="bfloat16", steps=300, budget=None)
    assert found.outcome.is_red
    assert found.cause == "params"
    good = [cure.code for cure in found.cures if cure.rescues]
    spelled = "lt.Optimizer(optimizer, params='bfloat16', state='bfloat16', update='kahan')"
    assert spelled in good
    pasted = [eval(code, {"lt": lt, "optimizer": regression()(0)[1]}) for code in good]
    assert len(pasted) > 1
    assert found.verdict[0][:1].isupper()


def test_gradients_that_vanish_in_float16_are_the_cause_and_a_scaler_the_cure():
    policy = train.Policy(compute="float32", gradients="float16")
    make = regression(0.05, weight=2.0**-22)
    found = lt.diagnose(make, policy=policy, steps=100, budget=None)
    assert found.cause == "gradients"
    assert "torch.amp.GradScaler()" in [cure.code for cure in found.cures if cure.rescues]


def test_a_training_that_float32_fails_as_well_is_not_blamed_on_rounding():
    found = lt.diagnose(regression(50.0), policy="mixed_bfloat16", steps=50, budget=None)
    assert found.outcome.is_red
    assert found.cause == "not precision"


@pytest.mark.parametrize("takes_closure", [False, True])
def test_a_step_sees_gradients_without_the_scale_whoever_holds_the_optimizer(takes_closure):
    def make(seed):
        model, optimizer, _ = regression(0.05)(seed)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
        x = torch.randn(64, 4)

        def step(model, _, i):
            def loss():
                optimizer.zero_grad()
                loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                return loss

            found = optimizer.step(loss) if takes_closure else loss()
            if not takes_closure:
                optimizer.step()
            scheduler.step()
            return found

        return model, optimizer, step

    told = []
    policy = train.Policy(compute="float16", gradients="float16", loss_scale=1024.0)
    options = {"steps": 20, "progress": lambda name, done: told.append((name, done))}
    scaled = lt.diagnose(make, policy=policy, **options)
    assert scaled.cause is None
    assert told == [("float32", 1), ("as it is", 2)]
    narrow = lt.diagnose(make, policy="params=float8_e5m2", steps=20, budget=None)
    assert narrow.cause == "params"  # it did reach them


def test_a_step_that_the_policy_does_not_reach_is_refused():
    def make(seed):
        model, optimizer, step = regression()(seed)
        other = torch.optim.SGD(model.parameters(), 1.0)
        return model, optimizer, lambda model, _, i: step(model, other, i)

    with pytest.raises(ValueError, match="never called step"):
        lt.diagnose(make, policy="bfloat16", steps=2)

    def unseen(seed):
        model, optimizer, _ = regression()(seed)

        def step(model, optimizer, i):
            loss = model(torch.ones(1, 4)).sum()
            torch.autograd.backward(loss)
            optimizer.step()
            return loss

        return model, optimizer, step

    with pytest.raises(ValueError, match=r"loss\.backward"):
        lt.diagnose(unseen, policy="mixed_float16", steps=2)


def test_the_budget_bounds_experiments_and_names_what_was_not_made():
    found = lt.diagnose(regression(), policy="bfloat16", steps=100, budget=0.0)
    assert [one.name for one in found.experiments] == ["float32", "as it is"]
    if found.outcome.is_red:
        assert "Not made" in found.verdict[-1]


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match="must return"):
        lt.diagnose(lambda seed: nn.Linear(2, 2), policy="bfloat16", steps=2)
    with pytest.raises(ValueError, match="steps=0"):
        lt.diagnose(regression(), policy="bfloat16", steps=0)
