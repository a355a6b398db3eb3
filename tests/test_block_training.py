"""Training with operands in block formats: each quantized along the axis that its product sums."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from test_blocks import assert_bits

import lowprec as lp
from lowprec import train
from lowprec.train.numerics import numerics_of
from lowprec.train.recorder import files


def data(seed=0, samples=48, features=40, classes=3):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, features)).astype(np.float32)
    y = rng.integers(0, classes, samples)
    return x, y


def product(a, b):
    return lp.matmul(a, b, inputs="float32")


@pytest.mark.parametrize("policy", ["mxfp8", "mxfp4", "nvfp4", "compute=nvfp4,weights=nvfp4_2d"])
def test_every_operand_is_quantized_along_its_summed_axis(policy):
    """Both layers linear, so that the oracle is six products of quantized float32 matrices."""
    policy = dataclasses.replace(train.get_policy(policy), gradient_rounding="nearest")
    fx, fg = policy.compute, policy.gradients
    fw = policy.compute if policy.weights is None else policy.weights
    x, y = data()
    model = train.Sequential([train.Input((40,)), train.Dense(20), train.Dense(3)])
    params = model.init(1)

    def rounded(a, fmt, axis):
        return lp.round_to(a, fmt, axis=-1 if fmt.is_tiled else axis)

    w1, w2 = params["0/kernel"], params["1/kernel"]
    h = product(rounded(x, fx, -1), rounded(w1, fw, 0))
    out = product(rounded(h, fx, -1), rounded(w2, fw, 0))
    assert_bits(model.apply(params, x, policy=policy), out)
    loss = train.losses.get("sparse_categorical_crossentropy")
    _, dz = loss(y, out)
    dh = product(rounded(dz, fg, -1), rounded(w2, fw, 1).T)
    expected = {
        "0/kernel": product(rounded(x, fx, 0).T, rounded(dh, fg, 0)),
        "1/kernel": product(rounded(h, fx, 0).T, rounded(dz, fg, 0)),
    }
    _, grads = train.gradients(
        model, params, x, y, loss="sparse_categorical_crossentropy", policy=policy
    )
    for name, gradient in expected.items():
        assert_bits(grads[name], gradient)


def test_stochastic_gradients_follow_the_seed_and_are_unbiased():
    x, y = data(2)
    model = train.Sequential([train.Input((40,)), train.Dense(3)])
    params = model.init(1)
    how = {"loss": "sparse_categorical_crossentropy", "policy": "mxfp4"}
    one, again, other = (
        train.gradients(model, params, x, y, rng=seed, **how)[1]["0/kernel"] for seed in (1, 1, 2)
    )
    assert_bits(one, again)
    assert (one != other).any()
    nearest = dataclasses.replace(train.get_policy("mxfp4"), gradient_rounding="nearest")
    _, dz = train.losses.get(how["loss"])(y, model.apply(params, x, policy="mxfp4"))
    fmt = lp.mxfp4
    clipless = dataclasses.replace(fmt, rule="rceil")
    policy = dataclasses.replace(nearest, gradients=clipless, gradient_rounding="stochastic")
    mean = np.mean(
        [
            train.gradients(model, params, x, y, rng=seed, loss=how["loss"], policy=policy)[1][
                "0/kernel"
            ]
            for seed in range(300)
        ],
        axis=0,
    )
    expected = product(lp.round_to(x, fmt, axis=0).T, dz)
    rough = product(lp.round_to(x, fmt, axis=0).T, lp.round_to(dz, clipless, axis=0))
    assert np.abs(mean - expected).max() < 0.35 * np.abs(rough - expected).max()


def test_the_hadamard_transform_leaves_products_as_they_are():
    """In a format that keeps everything, the transform changes sums by roundings of float32."""
    wide = lp.BlockFormat("wide", "tfloat32", 32, "float8_e8m0fnu", "rceil")
    plain = train.Policy(compute=wide)
    turned = train.Policy(compute=wide, hadamard=16)
    x, y = data(3, samples=37)
    model = train.Sequential([train.Input((40,)), train.Dense(3)])
    params = model.init(1)
    loss = "sparse_categorical_crossentropy"
    a, b = (
        train.gradients(model, params, x, y, loss=loss, policy=policy)[1]["0/kernel"]
        for policy in (plain, turned)
    )
    np.testing.assert_allclose(a, b, atol=3e-3 * np.abs(a).max())
    assert (a != b).any()


def test_layers_may_differ():
    x, _ = data(4)
    model = train.Sequential([train.Input((40,)), train.Dense(20), train.Dense(3)])
    params = model.init(1)
    policy = train.Policy(
        compute="mxfp4", layers={"Dense 2": {"compute": "bfloat16", "gradients": "bfloat16"}}
    )
    h = product(lp.round_to(x, "mxfp4"), lp.round_to(params["0/kernel"], "mxfp4", axis=0))
    out = product(lp.round_to(h, "bfloat16"), lp.round_to(params["1/kernel"], "bfloat16"))
    assert_bits(model.apply(params, x, policy=policy), lp.round_to(out, "bfloat16"))


@pytest.mark.parametrize(
    "policy", ["mxfp8", "mxfp4", "nvfp4", "nvfp4,weights=nvfp4_2d,hadamard=16"]
)
def test_training_learns_and_is_reproducible(policy):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((256, 32)).astype(np.float32)
    y = (x[:, :3] + 0.1 * rng.standard_normal((256, 3))).argmax(1)
    model = train.Sequential(
        [train.Input((32,)), train.Dense(32, activation="relu"), train.Dense(3)]
    )
    adam = train.optimizers.Adam(0.01)
    how = {"optimizer": adam, "policy": policy, "epochs": 12, "rng": 3}
    how["loss"] = "sparse_categorical_crossentropy"
    one, again = (train.fit(model, train.Dataset(x, y, x, y), **how) for _ in range(2))
    assert one.history["accuracy"][-1] > 0.85
    for name, w in one.params.items():
        assert_bits(w, again.params[name])
        assert w.dtype == np.float32


def test_convolutions_learn_too():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((64, 6, 6, 2)).astype(np.float32)
    y = (x[:, 2:4, 2:4, 0].mean((1, 2)) > 0).astype(np.int64)
    model = train.Sequential(
        [train.Input((6, 6, 2)), train.Conv2D(8, 3), train.Flatten(), train.Dense(2)]
    )
    history = train.fit(
        model, train.Dataset(x, y, x, y), loss="sparse_categorical_crossentropy", optimizer="adam",
        policy="mxfp8", epochs=15, rng=0,
    )  # fmt: skip
    assert history.history["loss"][-1] < 0.6 * history.history["loss"][0]


def test_spellings_are_read_back():
    for text in ("mxfp8", "mxfp4", "nvfp4", "mxfp4:rceil", "fp8_1x128"):
        policy = train.get_policy(text)
        assert str(policy) == text
        assert policy.params == lp.float32
        assert policy.gradient_rounding == "stochastic"
    policy = train.get_policy("nvfp4,weights=nvfp4_2d,hadamard=16")
    assert (policy.compute, policy.weights, policy.hadamard) == (lp.nvfp4, lp.nvfp4_2d, 16)
    assert train.get_policy(str(policy)) == policy
    for text in ("mxfp8", "mxfp4", "mxfp6_e2m3"):
        assert train.get_policy(text).gradients.rule is lp.ScaleRule.RCEIL


def test_a_rule_that_clips_makes_stochastic_gradients_diverge():
    """floor clips the label's -1 and not the other classes' shares: logits drift together."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(31) * 0.2, 4000) * 0.9
    dz = np.concatenate([p, -p.sum(1, keepdims=True)], 1).astype(np.float32)
    bias = {
        rule: float(lp.round_to(dz, f"mxfp4:{rule}", rounding="stochastic", rng=1).sum() / len(dz))
        for rule in ("floor", "rceil")
    }
    assert abs(bias["rceil"]) < 0.005
    assert bias["floor"] > 0.05


def test_characters_come_from_python_itself():
    data = train.data.characters(context=5, samples=2000)
    assert data.x_train.shape[1:] == data.x_test.shape[1:] == (5 * 38,)
    assert (data.x_train.reshape(-1, 5, 38).sum(2) == 1).all()
    assert len(data.x_train) + len(data.x_test) in range(1990, 2001)
    assert data.y_train.max() < 38
    again = train.data.characters(context=5, samples=2000)
    np.testing.assert_array_equal(again.y_test, data.y_test)
    with pytest.raises(ValueError, match="at least 1"):
        train.data.characters(context=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"compute": "mxfp4", "tensor_scales": True}, "scales of their own"),
        ({"compute": "mxfp4", "weights": "bfloat16"}, "not a block format"),
        ({"compute": "mxfp4", "hadamard": 12}, "power of two"),
        ({"compute": "mxfp4", "gradient_rounding": "random"}, "gradient"),
    ],
)
def test_what_cannot_serve_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        train.Policy(**fields)
    for name in ("params", "state", "accumulate"):
        with pytest.raises(TypeError, match="block format"):
            train.Policy(**{name: "mxfp4"})


def test_recorders_keep_the_policy():
    mine = lp.BlockFormat("mine", lp.IntegerFormat("int6", 6), (4, 4), "bfloat16", "amax")
    policy = train.Policy(
        compute=mine, gradients="mxfp4:rceil", weights="nvfp4_2d", gradient_rounding="stochastic",
        hadamard=8, layers={"Dense 1": {"compute": "nvfp4"}},
    )  # fmt: skip
    text = json.dumps(files._policy_to_json(policy))
    assert files._policy_from_json(json.loads(text)) == policy
    x, y = data(7)
    model = train.Sequential([train.Input((40,)), train.Dense(3)])
    recorder = train.Recorder(every=1)
    how = {"loss": "sparse_categorical_crossentropy", "optimizer": "sgd", "policy": "mxfp4"}
    train.fit(model, train.Dataset(x, y, x, y), epochs=1, recorder=recorder, **how)
    assert "block" in str(recorder.verdict)


def test_plain_policies_are_as_before():
    assert numerics_of(train.get_policy("mixed_bfloat16"))._blocks is None
    assert train.Policy(compute="bfloat16").formats["compute"] == lp.bfloat16
    assert train.Policy(compute="mxfp4").formats["compute"] == lp.float32
