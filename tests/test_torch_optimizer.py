"""Laws of `lowprec.torch.Optimizer`: a float32 step, rounded once when it is stored."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import lowprec as lp  # noqa: E402
import lowprec.torch as lt  # noqa: E402
from lowprec import train  # noqa: E402


def network(dtype=torch.float32):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)]
    model = torch.nn.Sequential(*layers).to(dtype)
    for p in model.parameters():
        lt.round_to_(p.data, "bfloat16")
    return model


def inputs(dtype=torch.float32, count=10):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, 8, generator=generator).to(dtype) for _ in range(count)]


def trained(model, optimizer, xs):
    for x in xs:
        optimizer.zero_grad()
        (model(x) ** 2).mean().backward()
        optimizer.step()


def make(model, **options):
    return lt.Optimizer(torch.optim.AdamW(model.parameters(), lr=1e-2), **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nearest_with_sgd_is_the_rounded_float32_step(dtype):
    model = network(dtype)
    optimizer = lt.Optimizer(torch.optim.SGD(model.parameters(), lr=0.01), update="nearest")
    (x,) = inputs(dtype, 1)
    (model(x) ** 2).mean().backward()
    expected = [
        lp.round_to((p.detach().float() - 0.01 * p.grad.float()).numpy(), "bfloat16")
        for p in model.parameters()
    ]
    optimizer.step()
    for p, wanted in zip(model.parameters(), expected, strict=True):
        assert p.dtype == dtype
        np.testing.assert_array_equal(p.detach().float().numpy(), wanted)


def test_the_mean_of_stochastic_updates_is_the_float32_step():
    w = torch.full((10_000,), 1.0)  # as many keys as elements have bits of their own
    p = torch.nn.Parameter(w.clone())
    optimizer = lt.Optimizer(torch.optim.SGD([p], lr=1.0))
    torch.manual_seed(0)
    means = []
    for _ in range(20):
        with torch.no_grad():
            p.fill_(1.0)
        p.grad = torch.full_like(p, -(2.0**-9))
        optimizer.step()
        means.append(p.detach().double().mean().item())
    share, count = 0.25, 20 * len(p)
    sigma = 2.0**-7 * np.sqrt(share * (1 - share) / count)
    assert abs(np.mean(means) - (1 + 2.0**-9)) < 4 * sigma


@pytest.mark.parametrize("update", ["stochastic", "kahan", "nearest"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("state", ["bfloat16", "float32"])
def test_a_resumed_run_is_one_run(update, dtype, state):
    options = {"update": update, "state": state}
    xs = inputs(dtype)
    whole = network(dtype)
    generator = torch.Generator().manual_seed(3)
    trained(whole, make(whole, generator=generator, **options), xs)
    half, generator = network(dtype), torch.Generator().manual_seed(3)
    optimizer = make(half, generator=generator, **options)
    trained(half, optimizer, xs[:5])
    saved = copy.deepcopy(optimizer.state_dict())
    resumed = network(dtype)
    resumed.load_state_dict(half.state_dict())
    optimizer = make(resumed, generator=generator, **options)
    optimizer.load_state_dict(saved)
    for p in resumed.parameters():
        wide = state == "float32" or dtype == torch.float32
        assert optimizer.state[p]["exp_avg"].dtype == (torch.float32 if wide else dtype)
    trained(resumed, optimizer, xs[5:])
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("update", ["stochastic", "kahan", "nearest"])
def test_a_narrow_tensor_and_a_float32_one_that_holds_its_values_train_alike(update):
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        p = torch.nn.Parameter(torch.linspace(-1, 1, 64).bfloat16().to(dtype))
        optimizer = lt.Optimizer(torch.optim.Adam([p], lr=1e-3), update=update)
        torch.manual_seed(5)
        for i in range(10):
            p.grad = torch.linspace(0.1, 2, 64).bfloat16().to(dtype) * (i + 1)
            p.grad = p.grad.bfloat16().to(dtype)
            optimizer.step()
        results.append(p.detach().float())
        assert torch.equal(results[-1], lt.round_to(results[-1], "bfloat16"))
    assert torch.equal(*results)


def test_kahan_keeps_what_is_lost_and_moves_where_nearest_stalls():
    ends = {}
    for update in ("nearest", "kahan"):
        p = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
        optimizer = lt.Optimizer(torch.optim.SGD([p], lr=2.0**-10), update=update)
        for _ in range(64):
            p.grad = -torch.ones_like(p)
            optimizer.step()
        ends[update] = p[0].item()
    assert ends == {"nearest": 1.0, "kahan": 1 + 64 * 2.0**-10}
    assert optimizer.state[p]["compensation"].dtype == torch.bfloat16


def test_schedulers_and_parameter_groups_reach_the_step():
    p, q = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = lt.Optimizer(torch.optim.SGD([p], lr=0.5), update="nearest")
    optimizer.add_param_group({"params": [q], "lr": 0.25})
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for _ in range(2):
        p.grad, q.grad = torch.ones(3), torch.ones(3)
        optimizer.step()
        scheduler.step()
    assert p.tolist() == [1 - 0.5 - 0.25] * 3
    assert q.tolist() == [1 - 0.25 - 0.125] * 3
    other = pickle.loads(pickle.dumps(optimizer))  # without the scheduler's wrapper
    assert [group["lr"] for group in other.param_groups] == [0.125, 0.0625]


def test_a_scaler_does_not_take_it_for_a_fused_optimizer():
    model = network()
    inner = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    optimizer = lt.Optimizer(inner, update="nearest")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    for x in inputs():
        optimizer.zero_grad()
        scaler.scale((model(x) ** 2).mean()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_closure_is_evaluated_once():
    model, calls = network(), []
    optimizer = make(model)

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = (model(inputs()[0]) ** 2).mean()
        loss.backward()
        return loss

    assert optimizer.step(closure) > 0
    assert calls == [1]


def test_torchs_arithmetic_is_torchs():
    ends = []
    for wrap in (False, True):
        model = network(torch.bfloat16)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=False)
        if wrap:
            optimizer = lt.Optimizer(optimizer, update="nearest", arithmetic="torch")
        trained(model, optimizer, inputs(torch.bfloat16))
        ends.append(list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_watched_stochastic_updates_are_not_called_lost():
    model, recorder = network(torch.bfloat16), train.Recorder(every=1)
    optimizer = make(model)
    with lt.watch(model, recorder, optimizer):
        trained(model, optimizer, inputs(torch.bfloat16))
    assert recorder.policy.update == "stochastic"
    assert recorder.steps == 10
    assert not any(f.rule == "lost updates" for f in recorder.findings)
    assert recorder.tracks["update", "0.weight"].whole["changes"] > 0


def test_bad_arguments_are_refused():
    model = network(torch.bfloat16)
    inner = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(TypeError, match=r"torch\.optim"):
        lt.Optimizer(model)
    with pytest.raises(ValueError, match="does not hold"):
        lt.Optimizer(inner, params="float16")
    with pytest.raises(ValueError, match="update"):
        lt.Optimizer(inner, update="nearst")
    with pytest.raises(ValueError, match="nearest"):
        lt.Optimizer(inner, arithmetic="torch")
    with pytest.raises(ValueError, match="LBFGS"):
        lt.Optimizer(torch.optim.LBFGS(model.parameters()))
