"""Laws of the optimizers, of clipping, and agreement with torch.optim."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import lowprec as lp
from lowprec.train import Policy, Sequential, fit, optimizers
from lowprec.train.data import Dataset
from lowprec.train.layers import Dense, Input
from lowprec.train.optimizers import (
    SGD,
    Adadelta,
    AdaGrad,
    Adam,
    AdaMax,
    AdamW,
    Momentum,
    Nadam,
    Nesterov,
    Optimizer,
    RMSProp,
)
from lowprec.train.optimizing.transforms import chain, scale_by_rate, trace

FACTORIES = (SGD, Momentum, Nesterov, AdaGrad, Adadelta, RMSProp, Adam, AdamW, AdaMax, Nadam)
SHAPES = {"0/kernel": (30, 20), "0/bias": (20,), "1/kernel": (3, 3, 2, 4), "1/gain": ()}


def some_params(dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.standard_normal(s), dtype) for name, s in SHAPES.items()}


def some_gradients(rng, dtype=np.float32):
    """Return gradients of sizes from 1e-4 to 10, so that running means have work to do."""
    sizes = {name: 10.0 ** rng.integers(-4, 2, shape) for name, shape in SHAPES.items()}
    return {
        name: np.asarray(rng.standard_normal(shape) * sizes[name], dtype)
        for name, shape in SHAPES.items()
    }


def steps(optimizer, count, *, dtype=np.float32, between=lambda gradients: None):
    """Yield the parameters after each of some steps with the same random gradients."""
    rng, params = np.random.default_rng(1), some_params(dtype)
    state = optimizer.init(params)
    for step in range(1, count + 1):
        gradients = some_gradients(rng, dtype)
        between(gradients)
        updates, state = optimizer.update(gradients, state, params, step, optimizer.rate(step - 1))
        params = {name: p + updates[name] for name, p in params.items()}
        yield params


def torch_steps(factory, count, *, dtype=np.float32, between=lambda weights: None, **keywords):
    """Yield what PyTorch makes of the same gradients; `between` sees them as ``.grad``."""
    torch = pytest.importorskip("torch", reason="compares with torch.optim")
    rng = np.random.default_rng(1)
    weights = {name: torch.tensor(p, requires_grad=True) for name, p in some_params(dtype).items()}
    reference = getattr(torch.optim, factory)(weights.values(), **keywords)
    for _ in range(count):
        for name, g in some_gradients(rng, dtype).items():
            weights[name].grad = torch.tensor(g)
        between(list(weights.values()))
        reference.step()
        yield {name: w.detach().numpy().copy() for name, w in weights.items()}


def relative_distance(ours, theirs):
    """Return the largest distance of two runs, relative to the largest magnitude on the way."""
    worst, largest = 0.0, {name: np.abs(p) for name, p in some_params().items()}
    for a, b in zip(ours, theirs, strict=True):
        for name in SHAPES:
            largest[name] = np.maximum(largest[name], np.abs(b[name]))
            worst = max(worst, float(np.max(np.abs(a[name] - b[name]) / largest[name])))
    return worst


# Two right sequences of float64 operations, a dozen a step over hundreds of steps, differ by far
# less on any processor; a wrong formula, of which float32 would show 2**-24, by far more.
SAME_FORMULA = 1e-11


TWINS = [
    (SGD, {}, "SGD", {}),
    (SGD, {"weight_decay": 0.1}, "SGD", {"weight_decay": 0.1}),
    (Momentum, {}, "SGD", {"momentum": 0.9}),
    (SGD, {"momentum": 0.5, "weight_decay": 0.1}, "SGD", {"momentum": 0.5, "weight_decay": 0.1}),
    (Nesterov, {}, "SGD", {"momentum": 0.9, "nesterov": True}),
    (
        Nesterov,
        {"momentum": 0.99, "weight_decay": 0.01},
        "SGD",
        {"momentum": 0.99, "nesterov": True, "weight_decay": 0.01},
    ),
    (AdaGrad, {}, "Adagrad", {}),
    (
        AdaGrad,
        {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.1, "epsilon": 1e-3},
        "Adagrad",
        {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.1, "eps": 1e-3},
    ),
    (Adadelta, {}, "Adadelta", {}),
    (
        Adadelta,
        {"rho": 0.5, "epsilon": 1e-2, "weight_decay": 0.1},
        "Adadelta",
        {"rho": 0.5, "eps": 1e-2, "weight_decay": 0.1},
    ),
    (RMSProp, {}, "RMSprop", {}),
    (RMSProp, {"momentum": 0.9}, "RMSprop", {"momentum": 0.9}),
    (
        RMSProp,
        {"rho": 0.9, "epsilon": 1e-3, "centered": True, "momentum": 0.5, "weight_decay": 0.1},
        "RMSprop",
        {"alpha": 0.9, "eps": 1e-3, "centered": True, "momentum": 0.5, "weight_decay": 0.1},
    ),
    (Adam, {}, "Adam", {}),
    (
        Adam,
        {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3, "weight_decay": 0.1},
        "Adam",
        {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1},
    ),
    (Adam, {"beta_1": 0.0}, "Adam", {"betas": (0.0, 0.999)}),
    (AdamW, {}, "AdamW", {}),
    (AdamW, {"weight_decay": 0.3}, "AdamW", {"weight_decay": 0.3}),
    (AdaMax, {}, "Adamax", {}),
    (
        AdaMax,
        {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3, "weight_decay": 0.1},
        "Adamax",
        {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1},
    ),
    (Nadam, {}, "NAdam", {}),
    (
        Nadam,
        {"beta_1": 0.5, "momentum_decay": 0.1, "weight_decay": 0.1},
        "NAdam",
        {"betas": (0.5, 0.999), "momentum_decay": 0.1, "weight_decay": 0.1},
    ),
]


@pytest.fixture
def float64_in_torch():
    """Let PyTorch keep its own scalars, such as NAdam's product of momenta, in float64 too."""
    torch = pytest.importorskip("torch", reason="compares with torch.optim")
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("float64_in_torch")
@pytest.mark.parametrize("rate", [None, 0.1])
@pytest.mark.parametrize(("factory", "keywords", "twin", "theirs"), TWINS)
def test_twenty_steps_agree_with_torch(factory, keywords, twin, theirs, rate):
    ours = {} if rate is None else {"learning_rate": rate}
    reference = {} if rate is None else {"lr": rate}
    apart = relative_distance(
        steps(factory(**ours, **keywords), 20, dtype=np.float64),
        torch_steps(twin, 20, dtype=np.float64, **reference, **theirs),
    )
    assert apart < SAME_FORMULA


def widened(x):
    """Return a state, or any part of one, in float64."""
    if isinstance(x, dict):
        return {name: widened(part) for name, part in x.items()}
    if isinstance(x, tuple):
        parts = map(widened, x)
        return type(x)(*parts) if hasattr(x, "_fields") else tuple(parts)
    return x.astype(np.float64) if isinstance(x, np.ndarray) else x


def leaves(x):
    """Yield the arrays of a state."""
    if isinstance(x, np.ndarray):
        yield x
    elif isinstance(x, dict | tuple):
        for part in x.values() if isinstance(x, dict) else x:
            yield from leaves(part)


def after_one_step(optimizer, params, state, gradients, step):
    """Return parameters and all arrays of the state after a step; what is given stays."""
    gradients = {name: g.copy() for name, g in gradients.items()}
    state = pickle.loads(pickle.dumps(state))
    updates, state = optimizer.update(gradients, state, params, step, optimizer.rate(step - 1))
    params = {name: p + updates[name] for name, p in params.items()}
    return params, state


@pytest.mark.parametrize("rate", [1e-3, 0.1])
@pytest.mark.parametrize(("factory", "keywords"), [twin[:2] for twin in TWINS])
def test_a_step_in_float32_is_that_in_float64_but_for_its_roundings(factory, keywords, rate):
    """Each step begins from the same state, so that roundings have no steps to grow over.

    The rounding of an operation changes its result as a relative change of 2**-24 in one of its
    operands does, and so moves a step's result by no more than such a change of one of the step's
    inputs would. A step has less than 16 operations an element.
    """
    optimizer = factory(rate, **keywords)
    rng, params = np.random.default_rng(1), some_params()
    state = optimizer.init(params)
    for step in range(1, 21):
        gradients = some_gradients(rng)
        inputs = [widened(params), widened(state), widened(gradients)]
        exact = list(leaves(after_one_step(optimizer, *inputs, step)))
        bounds = [np.abs(x) * 2.0**-24 for x in exact]
        for array in [x for part in inputs for x in leaves(part)]:
            kept = array.copy()
            array *= 1 + 2.0**-24
            moved = leaves(after_one_step(optimizer, *inputs, step))
            array[...] = kept
            bounds = [b + np.abs(m - x) for b, m, x in zip(bounds, moved, exact, strict=True)]
        params, state = found = after_one_step(optimizer, params, state, gradients, step)
        for ours, x, bound in zip(leaves(found), exact, bounds, strict=True):
            assert ours.dtype == np.float32
            assert np.all(np.abs(ours - x) <= 16 * bound + 2.0**-149)


@pytest.mark.usefixtures("float64_in_torch")
@pytest.mark.parametrize(
    ("factory", "twin", "theirs"),
    [(f, twin, theirs) for f, mine, twin, theirs in TWINS if not mine],
)
def test_two_hundred_steps_in_float64_agree_with_torch(factory, twin, theirs):
    ours = steps(factory(), 200, dtype=np.float64)
    reference = torch_steps(twin, 200, dtype=np.float64, **theirs)
    assert relative_distance(ours, reference) < SAME_FORMULA


@pytest.mark.parametrize(
    ("keyword", "clip"),
    [
        ("clipvalue", lambda nn, w: nn.clip_grad_value_(w, 0.5)),
        ("global_clipnorm", lambda nn, w: nn.clip_grad_norm_(w, 0.5)),
        ("clipnorm", lambda nn, w: [nn.clip_grad_norm_([one], 0.5) for one in w]),
    ],
)
@pytest.mark.parametrize(("factory", "twin"), [(SGD, "SGD"), (Adam, "Adam")])
def test_clipping_agrees_with_torch(keyword, clip, factory, twin):
    torch = pytest.importorskip("torch", reason="compares with torch.nn.utils")
    ours = steps(factory(0.1, **{keyword: 0.5}), 20, dtype=np.float64)
    theirs = torch_steps(
        twin, 20, dtype=np.float64, lr=0.1, between=lambda w: clip(torch.nn.utils, w)
    )
    assert relative_distance(ours, theirs) < SAME_FORMULA


def clipped(keyword, limit, gradients):
    """Return what a clip makes of gradients."""
    optimizer = SGD(1.0, **{keyword: limit})
    gradients = {name: np.asarray(g).copy() for name, g in gradients.items()}
    params = {name: np.zeros_like(g) for name, g in gradients.items()}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params, 1, 1.0)
    return {name: -u for name, u in updates.items()}


CLIPS = ("clipvalue", "clipnorm", "global_clipnorm")


@pytest.mark.parametrize("keyword", CLIPS)
def test_gradients_within_the_limit_keep_their_bits(keyword):
    gradients = some_gradients(np.random.default_rng(3))
    for name, g in clipped(keyword, 1e9, gradients).items():
        np.testing.assert_array_equal(g, gradients[name])


@pytest.mark.parametrize("keyword", CLIPS)
def test_clipping_leaves_zeros_alone(keyword):
    assert clipped(keyword, 1.0, {"w": np.zeros(5, np.float32)})["w"].tolist() == [0] * 5


@pytest.mark.parametrize("optimizer", [SGD(0.3), Adam(0.1), Adam(0.1, 0.6, 0.5, 1e-3)], ids=str)
def test_an_update_in_one_pass_has_the_bits_of_its_parts(optimizer):
    rng = np.random.default_rng(4)
    fused, params = optimizer.transform.fused, some_params()
    params["0/kernel"].reshape(-1)[:2] = np.inf, np.nan
    mine, mine_state, state, added = params, optimizer.init(params), optimizer.init(params), {}
    for step in range(1, 5):
        gradients = some_gradients(rng)
        for name, g in gradients.items():
            g *= 10.0 ** rng.integers(-45, 30, g.shape)  # subnormal numbers and overflows too
            g.reshape(-1)[-1] = 0
            added[name], out = g.copy(), np.empty_like(g)
            mine = {**mine, name: fused(mine_state, name, mine[name], added[name], out, step, 0.01)}
        updates, state = optimizer.update(gradients, state, params, step, 0.01)
        with np.errstate(all="ignore"):
            params = {name: w + updates[name] for name, w in params.items()}
        for ours, theirs in ((mine, params), (mine_state, state), (added, updates)):
            for name, x in theirs.items():
                np.testing.assert_array_equal(ours[name], x)


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.1, momentum=0.9),
        SGD(0.1, weight_decay=0.1),
        SGD(0.1, clipvalue=1.0),
        Adam(0.1, beta_1=0.5),
        Adam(0.1, epsilon=1e-40),
        Adam(0.1, weight_decay=0.1),
        Adam(0.1, global_clipnorm=1.0),
        Adam(lambda step: 0.1).at(3).with_momentum(0.95),
    ],
    ids=range(8),  # a transform is told by addresses, which differ between workers
)
def test_what_has_more_parts_is_updated_in_parts(optimizer):
    assert getattr(optimizer, "transform", optimizer).fused is None


@pytest.mark.parametrize("keyword", ["clipnorm", "global_clipnorm"])
@pytest.mark.parametrize("size", [1e30, 3e38])
def test_huge_norms_do_not_overflow(keyword, size):
    gradients = {"a": np.full(1000, size, np.float32), "b": np.full(10, -size, np.float32)}
    after = clipped(keyword, 1.0, gradients)
    norms = {name: np.linalg.norm(g.astype(np.float64)) for name, g in after.items()}
    if keyword == "clipnorm":
        assert norms == pytest.approx({"a": 1.0, "b": 1.0}, rel=1e-6)
    else:
        assert math.hypot(*norms.values()) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("keyword", ["clipnorm", "global_clipnorm"])
def test_tiny_norms_do_not_underflow(keyword):
    gradients = {"w": np.full(4, 1e-30, np.float32)}
    np.testing.assert_array_equal(clipped(keyword, 1.0, gradients)["w"], gradients["w"])


@pytest.mark.parametrize("keyword", CLIPS)
def test_clipping_does_not_hide_nan(keyword):
    gradients = {"w": np.float32([1, np.nan, 3])}
    assert np.isnan(clipped(keyword, 1.0, gradients)["w"][1])


def test_clips_come_before_all_else():
    huge = {"w": np.full(3, 1e10, np.float32)}
    params = {"w": np.ones(3, np.float32)}
    optimizer = SGD(1.0, weight_decay=10.0, clipvalue=0.5)
    updates, _ = optimizer.update(huge, {}, params, 1, 1.0)
    assert updates["w"].tolist() == [-10.5] * 3


@pytest.mark.parametrize("factory", FACTORIES)
class TestEveryOptimizer:
    def test_the_state_is_flat_and_like_the_parameters(self, factory):
        for dtype in (np.float32, np.float64):
            params = some_params(dtype)
            for key, array in factory().init(params).items():
                kind, name = key.split("/", 1)
                assert kind.isidentifier()
                assert (array.shape, array.dtype) == (params[name].shape, dtype)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_the_dtype_is_kept(self, factory, dtype):
        rng, params = np.random.default_rng(0), some_params(dtype)
        optimizer = factory(weight_decay=0.1, global_clipnorm=1.0)
        updates, state = optimizer.update(
            some_gradients(rng, dtype), optimizer.init(params), params, 1, 0.1
        )
        assert {a.dtype for a in [*updates.values(), *state.values()]} == {np.dtype(dtype)}

    def test_parameters_are_only_read(self, factory):
        params = some_params()
        for p in params.values():
            p.flags.writeable = False
        optimizer = factory(weight_decay=0.1)
        gradients = some_gradients(np.random.default_rng(0))
        optimizer.update(gradients, optimizer.init(params), params, 1, 0.1)

    def test_updates_share_no_memory_with_the_state(self, factory):
        params = some_params()
        optimizer = factory()
        updates, state = optimizer.update(
            some_gradients(np.random.default_rng(0)), optimizer.init(params), params, 1, 0.1
        )
        for u in updates.values():
            assert not any(np.shares_memory(u, array) for array in state.values())

    def test_a_parameter_without_gradient_is_left_out(self, factory):
        params = some_params()
        optimizer = factory()
        state = optimizer.init(params)
        before = {key: array.copy() for key, array in state.items()}
        gradients = some_gradients(np.random.default_rng(0))
        del gradients["0/kernel"]
        updates, state = optimizer.update(gradients, state, params, 1, 0.1)
        assert updates.keys() == SHAPES.keys() - {"0/kernel"}
        for key, array in state.items():
            if key.endswith("/0/kernel"):
                np.testing.assert_array_equal(array, before[key])

    def test_steps_that_stop_and_go_on_are_the_same_steps(self, factory):
        *_, expected = steps(factory(), 6)
        optimizer, rng, params = factory(), np.random.default_rng(1), some_params()
        state = optimizer.init(params)
        for step in range(1, 7):
            optimizer, state = pickle.loads(pickle.dumps((optimizer, state)))
            updates, state = optimizer.update(
                some_gradients(rng), state, params, step, optimizer.rate(step - 1)
            )
            params = {name: p + updates[name] for name, p in params.items()}
        for name, p in params.items():
            np.testing.assert_array_equal(p, expected[name])

    def test_infinities_and_nan_pass_without_a_warning(self, factory):
        params = {"w": np.ones(4, np.float32)}
        optimizer = factory()
        gradients = {"w": np.float32([np.inf, np.nan, 3e38, 1e-45])}
        updates, _ = optimizer.update(gradients, optimizer.init(params), params, 1, 0.1)
        assert np.isnan(updates["w"][1])

    def test_a_schedule_gives_the_rate_of_each_step(self, factory):
        optimizer = factory(lambda step: 1.0 / (1 + step))
        assert [optimizer.rate(step) for step in range(3)] == [1.0, 0.5, 1 / 3]
        assert factory(0.25).rate(1000) == 0.25

    def test_get_finds_it_by_name(self, factory):
        found = optimizers.get(factory.__name__.lower())
        assert (found.name, found.hyperparameters) == (
            factory.__name__,
            factory().hyperparameters,
        )

    def test_two_clips_are_refused(self, factory):
        with pytest.raises(ValueError, match=r"clipvalue and clipnorm.*drop"):
            factory(clipvalue=1.0, clipnorm=1.0)
        assert factory(clipvalue=None, clipnorm=2.0).hyperparameters["clipnorm"] == 2.0

    def test_unknown_arguments_are_refused(self, factory):
        with pytest.raises(TypeError, match="'clip_norm'"):
            factory(clip_norm=1.0)

    @pytest.mark.parametrize("rate", [-0.1, math.nan, math.inf])
    def test_rates_are_finite_and_not_negative(self, factory, rate):
        with pytest.raises(ValueError, match=r"learning_rate=.*finite"):
            factory(rate)

    def test_weight_decay_is_not_negative(self, factory):
        with pytest.raises(ValueError, match="weight_decay=-1"):
            factory(weight_decay=-1)

    @pytest.mark.parametrize("keyword", CLIPS)
    def test_limits_are_positive(self, factory, keyword):
        with pytest.raises(ValueError, match=f"{keyword}=0"):
            factory(**{keyword: 0})


@pytest.mark.parametrize(
    ("factory", "wrong"),
    [
        (SGD, {"momentum": 1.0}),
        (SGD, {"momentum": -0.1}),
        (RMSProp, {"rho": 1.0}),
        (RMSProp, {"momentum": 1.5}),
        (RMSProp, {"epsilon": -1e-8}),
        (AdaGrad, {"lr_decay": -1}),
        (AdaGrad, {"initial_accumulator_value": -1}),
        *((f, {"beta_1": 1.0}) for f in (Adam, AdamW, AdaMax, Nadam)),
        *((f, {"beta_2": -0.5}) for f in (Adam, AdamW, AdaMax, Nadam)),
        *((f, {"epsilon": math.nan}) for f in (Adam, AdamW, AdaMax, Nadam)),
        (Nadam, {"momentum_decay": -1}),
    ],
)
def test_numbers_out_of_range_are_named(factory, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value}: it must be"):
        factory(**wrong)


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match="pass a momentum"):
        SGD(nesterov=True)


def test_get_refuses_what_is_no_optimizer():
    own = Adam()
    assert optimizers.get(own) is own
    with pytest.raises(ValueError, match="did you mean 'adamw'"):
        optimizers.get("adamww")
    with pytest.raises(TypeError, match="pass Adam"):
        optimizers.get(Adam)


def test_optimizers_are_made_of_the_parts_that_users_have():
    mine = Optimizer("mine", 0.1, chain(trace(0.9), scale_by_rate()))
    for a, b in zip(steps(mine, 3), steps(Momentum(0.1), 3), strict=True):
        for name, p in a.items():
            np.testing.assert_array_equal(p, b[name])


def test_a_chain_refuses_two_states_of_one_name():
    with pytest.raises(ValueError, match=r"two parts of a chain keep 'momentum/"):
        chain(trace(0.9), trace(0.5)).init(some_params())


def test_decoupled_decay_stays_out_of_the_moments():
    params = {"w": np.full(3, 2.0, np.float32)}
    optimizer = AdamW(0.5, weight_decay=0.25)
    zeros = {"w": np.zeros(3, np.float32)}
    updates, state = optimizer.update(zeros, optimizer.init(params), params, 1, 0.5)
    assert (params["w"] + updates["w"]).tolist() == [2.0 * (1 - 0.125)] * 3
    assert not any(array.any() for array in state.values())


def test_scaling_rate_and_gradients_by_powers_of_two_cancels():
    for factory in (SGD, Momentum, Nesterov):
        scaled = steps(
            factory(2.0**-5 * 2.0**13),
            5,
            between=lambda gradients: [np.multiply(g, 2.0**-13, out=g) for g in gradients.values()],
        )
        for a, b in zip(scaled, steps(factory(2.0**-5), 5), strict=True):
            for name, p in a.items():
                np.testing.assert_array_equal(p, b[name])


@pytest.mark.parametrize("factory", FACTORIES)
def test_state_is_rounded_when_stored(factory):
    params = some_params()
    optimizer = factory()
    _, state = optimizer.update(
        some_gradients(np.random.default_rng(0)), optimizer.init(params), params, 1, 0.1, in_float16
    )
    for array in state.values():
        np.testing.assert_array_equal(array, in_float16(array))


def in_float16(array):
    with np.errstate(over="ignore", under="ignore"):
        return array.astype(np.float16).astype(np.float32)


def test_updates_are_made_of_the_stored_state():
    # In float16 the mean square of 1e-3 underflows, so that epsilon alone divides.
    params, gradient = {"w": np.zeros(1, np.float32)}, np.float32([1e-3])
    optimizer = Adam(epsilon=1e-7)
    for store, expected in ((None, 1.0), (in_float16, 1e-3 / 1e-7)):
        extra = () if store is None else (store,)
        state = optimizer.init(params)
        updates, _ = optimizer.update({"w": gradient.copy()}, state, params, 1, 1.0, *extra)
        assert -updates["w"][0] == pytest.approx(expected, rel=1e-3)


def test_a_norm_that_is_not_finite_does_what_it_does_in_torch():
    torch = pytest.importorskip("torch", reason="compares with torch.nn.utils")
    for bad in (np.inf, np.nan):
        gradients = {"a": np.float32([1, bad, -2]), "b": np.float32([3, 4])}
        theirs = {name: torch.zeros(g.shape, requires_grad=True) for name, g in gradients.items()}
        for name, g in gradients.items():
            theirs[name].grad = torch.tensor(g)
        torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)
        for name, g in clipped("global_clipnorm", 1.0, gradients).items():
            np.testing.assert_array_equal(g, theirs[name].grad.numpy())


def test_a_norm_near_1e_6_is_clipped_as_in_torch():
    # Here the 1e-6 that PyTorch adds to the norm halves the gradients.
    torch = pytest.importorskip("torch", reason="compares with torch.nn.utils")
    gradient = np.float32([6e-7, -8e-7])
    weight = torch.zeros(2, requires_grad=True)
    weight.grad = torch.tensor(gradient)
    torch.nn.utils.clip_grad_norm_([weight], 1e-6)
    ours = clipped("global_clipnorm", 1e-6, {"w": gradient})["w"]
    np.testing.assert_array_max_ulp(ours, weight.grad.numpy(), maxulp=2)
    assert np.linalg.norm(ours) < 0.6e-6


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ({"lr": 0.1}, "learning_rate"),
        ({"eps": 1e-7}, "epsilon"),
        ({"betas": (0.9, 0.99)}, "beta_1 and beta_2"),
    ],
    ids=str,
)
def test_pytorchs_words_are_translated(given, ours):
    with pytest.raises(TypeError, match=f"write {ours}"):
        optimizers.Adam(**given)


# State in narrow formats -----------------------------------------------------------------------

NARROW = ["bfloat16", "float16", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "e5m10"]
ADAPTIVE = (AdaGrad, RMSProp, Adam, AdamW, AdaMax, Nadam)
GRADIENTS = np.float32([0, -0.0, 1e-45, -1e-30, 1e-12, 1e-8, -3e-6, 1e-4, 0.02, -1, 2])


def narrow_steps(optimizer, fmt, count=8):
    """Return the updates of some steps whose state is stored in a format; gradients come and go."""
    params = {"w": np.float32(np.linspace(-1, 1, GRADIENTS.size))}
    state = optimizer.init(params)
    state = {name: lp.round_to(s, fmt) for name, s in state.items()}
    for step in range(1, count + 1):
        gradient = GRADIENTS * np.float32(0 if step % 3 == 0 else 1)
        updates, state = optimizer.update(
            {"w": gradient}, state, params, step, optimizer.rate(0), lambda s: lp.round_to(s, fmt)
        )
        yield updates["w"].copy()


@pytest.mark.parametrize("fmt", NARROW)
@pytest.mark.parametrize("factory", FACTORIES)
def test_state_that_underflows_makes_no_nan(factory, fmt):
    kinds = [{}]
    if factory in ADAPTIVE:
        kinds += [{"epsilon": 0.0}, {"epsilon": 1e-50}, {"epsilon": 1e-3}]
    if factory is RMSProp:
        kinds += [kind | {"centered": True} for kind in kinds]
    for keywords in kinds:
        for update in narrow_steps(factory(**keywords), fmt):
            assert np.isfinite(update).all(), keywords


@pytest.mark.parametrize("fmt", NARROW)
def test_adamax_divides_by_epsilon_where_the_norm_is_stored_as_less(fmt):
    optimizer = AdaMax(1.0)
    params = {"w": np.zeros(3, np.float32)}
    gradient = np.float32([0, 1e-9, 0.5])
    stored = {"w": gradient.copy()}
    updates, state = optimizer.update(
        stored, optimizer.init(params), params, 1, 1.0, lambda s: lp.round_to(s, fmt)
    )
    m, u = state["first_moment/w"], state["infinity_norm/w"]
    exact = -(m.astype(float) / 0.1) / np.maximum(u.astype(float), 1e-8)
    np.testing.assert_allclose(updates["w"], exact, rtol=1e-6)
    assert updates["w"][0] == 0


@pytest.mark.parametrize(
    "policy", ["float16", Policy(state="float16"), Policy(state="float8_e5m2")]
)
@pytest.mark.parametrize("factory", FACTORIES)
def test_weights_without_a_gradient_stay_numbers(factory, policy):
    x = np.zeros((8, 3), np.float32)  # the kernel's gradient is zero
    y = np.zeros((8, 1), np.float32)
    model = Sequential([Input((3,)), Dense(1)])
    history = fit(
        model, Dataset(x, y, x, y), loss="mse", optimizer=factory(), policy=policy, epochs=3
    )
    assert all(np.isfinite(w).all() for w in history.params.values())
