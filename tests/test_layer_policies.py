"""A layer may follow a policy of its own, by its own word or from outside; so may a parameter."""

import numpy as np
import pytest

from lowprec import round_to, train
from lowprec.train.policy import get_policy

WIDE = {"compute": "float32", "gradients": "float32"}


def network(**last):
    return train.Sequential([train.Input((6,)), train.Dense(5, "relu"), train.Dense(3, **last)])


def data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((64, 6)).astype(np.float32)
    return train.Dataset(x, rng.integers(0, 3, 64), x[:8], np.arange(8) % 3)


def fit(model, policy, **how):
    usual = {"loss": "sparse_categorical_crossentropy", "optimizer": train.Adam(1e-2), "epochs": 3}
    return train.fit(model, data(), policy=policy, verbose=False, **usual | how)


def is_in(array, fmt):
    return bool((round_to(array, fmt) == array).all())


def test_a_policy_with_layers_is_hashed_spelled_and_read_back():
    layers = {"Dense 2": {"compute": "float32"}, "1/bias": {"params": "float16"}, "inputs": {}}
    policy = train.Policy(compute="bfloat16", params="bfloat16", layers=layers)
    assert hash(policy) == hash(train.Policy(compute="bfloat16", params="bfloat16", layers=layers))
    assert policy != train.Policy(compute="bfloat16", params="bfloat16")
    spelled = "params=bfloat16,compute=bfloat16,1/bias.params=float16,Dense 2.compute=float32"
    assert str(policy) == spelled
    assert str(get_policy(spelled)) == spelled
    named = get_policy("mixed_bfloat16,Dense 2.compute=float32")
    assert str(named) == "mixed_bfloat16,Dense 2.compute=float32"
    assert named.compute == get_policy("mixed_bfloat16").compute


@pytest.mark.parametrize("word", ["policy", "dtype"])
def test_the_layers_own_word_is_the_outside_word(word):
    own = fit(network(**{word: "float32"}), "bfloat16")
    fields = dict.fromkeys(("compute", "gradients", "params", "state"), "float32")
    for key in ("Dense 2", "1"):
        policy = train.Policy(**BFLOAT16, layers={key: fields})
        outside = fit(network(), policy)
        for name in own.params:
            assert own.params[name].tobytes() == outside.params[name].tobytes()
    assert is_in(own.params["0/kernel"], "bfloat16")
    assert not is_in(own.params["1/kernel"], "bfloat16")
    assert repr(network(**{word: "float32"}).layers[1]) == "Dense(3, policy='float32')"


BFLOAT16 = {"params": "bfloat16", "compute": "bfloat16"}


def test_a_layer_alone_wide_rounds_what_it_reads_to_its_own_compute():
    model, x = network(), data().x_train[:4]
    params = model.init(0)
    policy = train.Policy(compute="float32", layers={"Dense 2": {"compute": "bfloat16"}})
    y = model.apply(params, x, policy=policy)
    hidden = np.maximum(x @ params["0/kernel"] + params["0/bias"], 0)
    operands = [round_to(z, "bfloat16") for z in (hidden, params["1/kernel"])]
    assert is_in(y, "bfloat16")
    assert np.allclose(y, operands[0] @ operands[1], rtol=2**-7)
    alone = model.apply(params, x, policy=train.Policy(layers={"inputs": {"compute": "bfloat16"}}))
    assert np.array_equal(alone, model.apply(params, round_to(x, "bfloat16")))


def test_the_state_and_update_of_one_parameter_can_be_its_own():
    layers = {"1/bias": {"state": "bfloat16", "params": "bfloat16", "update": "kahan"}}
    history = fit(network(), train.Policy(layers=layers))
    assert is_in(history.params["1/bias"], "bfloat16")
    assert is_in(history.state["second_moment/1/bias"], "bfloat16")
    assert not is_in(history.state["second_moment/1/kernel"], "bfloat16")
    assert [slot for slot in history.state if slot.kind == "kahan"] == ["kahan/1/bias"]


def test_a_uniform_policy_by_layers_has_the_bits_of_the_plain_one():
    fields = {"compute": "bfloat16", "gradients": "bfloat16"}
    layers = {"inputs": {"compute": "bfloat16"}, "0": fields, "1": fields}
    one, other = fit(network(), train.Policy(layers=layers)), fit(network(), "mixed_bfloat16")
    for name in one.params:
        assert one.params[name].tobytes() == other.params[name].tobytes()


def test_a_recorder_knows_the_format_of_each_place(tmp_path):
    recorder = train.Recorder(1)
    policy = train.Policy(compute="bfloat16", layers={"Dense 2": WIDE})
    plain = fit(network(), policy)
    recorded = fit(network(), policy, recorder=recorder)
    assert plain.params["1/kernel"].tobytes() == recorded.params["1/kernel"].tobytes()
    assert recorder.track("activation", "0").fmt.name == "bfloat16"
    assert recorder.track("activation", "1").fmt.name == "float32"
    assert recorder.track("weight", "1/kernel").fmt.name == "float32"
    assert recorder.track("activation", "1").whole.noise_rms == 0
    recorder.save(tmp_path / "run.npz")
    loaded = train.Recorder.load(tmp_path / "run.npz")
    assert loaded.policy == policy
    assert loaded.track("activation", "1").fmt.name == "float32"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"Dens 2": {"compute": "float32"}}, "did you mean 'Dense 2'"),
        ({"Dense 3": {"compute": "float32"}}, "Dense 3"),
        ({"1/bias": {"compute": "float32"}}, "1/bias takes params, state, update"),
        ({"inputs": {"params": "float32"}}, "inputs takes compute"),
        ({"Dense 1": {"loss_scale": 2}}, "takes params, compute, gradients"),
        ({"Dense 1": {"compute": "float64"}}, "float64"),
    ],
    ids=str,
)
def test_mistakes_are_named(layers, message):
    with pytest.raises(ValueError, match=message):
        fit(network(), train.Policy(compute="bfloat16", layers=layers))


def test_statistics_have_no_format_of_their_own():
    model = train.Sequential([train.Input((4,)), train.BatchNormalization(), train.Dense(3)])
    policy = train.Policy(layers={"0/moving_mean": {"params": "bfloat16"}})
    with pytest.raises(ValueError, match="0/moving_mean is a statistic, which stays in float32"):
        model.predict(np.zeros((2, 4), np.float32), policy=policy)


def test_a_layers_policy_is_checked_with_its_place():
    with pytest.raises(ValueError, match=r"layer 1 has policy='mixed_bfloat61'.*did you mean"):
        fit(network(policy="mixed_bfloat61"), "float32")
    with pytest.raises(ValueError, match="two words for one thing"):
        train.Dense(3, policy="float32", dtype="bfloat16")
