"""Failures of known cause and healthy runs: prints losses and verdicts.

python failures.py [name ...]
"""

import dataclasses
import sys
import warnings

import numpy as np

from lowprec import train
from lowprec.train import initializers
from lowprec.train.layers.layer import Layer

CE = "sparse_categorical_crossentropy"
D, I, S = train.Dense, train.Input, train.Sequential  # noqa: E741
rng = np.random.default_rng


def data(x, y):
    n = int(0.8 * len(x))
    return train.Dataset(x[:n], y[:n], x[n:], y[n:], "data")


def clusters(n, d, seed, sep, k=4):
    r = rng(seed)
    c = r.standard_normal((k, d)) * sep
    y = r.integers(0, k, n)
    return (c[y] + r.standard_normal((n, d))).astype(np.float32), y


def mlp(d, hidden, out, act="relu"):
    return S([I((d,)), *[D(h, act) for h in hidden], D(out)])


def norm():
    return train.BatchNormalization(momentum=0.8)


# each: cause; data, model, how, policy, {cure: what to change}, changes for float32
def dead_relu():
    x, y = clusters(600, 16, 3, 2.0)
    m = S([I((16,)), D(32, "relu", bias_initializer=initializers.Constant(-60.0)), D(4)])
    how = {"loss": CE, "optimizer": train.SGD(0.05), "epochs": 10}
    return (
        "no precision fault: every ReLU is dead",
        data(x, y),
        m,
        how,
        "mixed_bfloat16",
        {"bias 0": {"model": mlp(16, [32], 4)}},
    )


def clip_too_small():
    how = {"loss": CE, "optimizer": train.SGD(0.1, global_clipnorm=1e-4), "epochs": 6}
    return (
        "no precision fault: gradients are clipped to 1e-4",
        train.data.digits(),
        mlp(64, [64], 10),
        how,
        "mixed_float16",
        {"clip 1": {"optimizer": train.SGD(0.1, global_clipnorm=1.0)}},
    )


def adagrad_state_fp16():
    how = {"loss": CE, "optimizer": train.AdaGrad(1e-2), "epochs": 4}
    return (
        "sums of squares underflow to 0 in float16, epsilon alone divides",
        train.data.digits(),
        mlp(64, [64], 10),
        how,
        "params=float32,compute=float32,state=float16",
        {"state float32": {"policy": "float32"}},
    )


def adagrad_stall_bf16():
    r = rng(8)
    x = r.standard_normal((4000, 20))
    y = x @ r.standard_normal((20, 1)) + 4 * r.standard_normal((4000, 1))
    how = {"loss": "mse", "optimizer": train.AdaGrad(20.0), "epochs": 12, "batch_size": 2}
    return (
        "the sum of squares stalls in bfloat16, so that the rate stops falling",
        data(x, y),
        mlp(20, [], 1),
        how,
        "params=float32,compute=float32,state=bfloat16",
        {"state float32": {"policy": "float32"}},
    )


def momentum_stuck_bf16():
    r = rng(24)
    x = r.standard_normal((2000, 20))
    y = x @ r.standard_normal((20, 1)) + 0.1 * r.standard_normal((2000, 1))
    how = {
        "loss": "mse",
        "optimizer": train.Momentum(3e-6, momentum=0.999),
        "epochs": 100,
        "batch_size": 16,
    }
    return (
        "the buffer's decay of 0.1 % is under half a spacing of bfloat16",
        data(x, y),
        mlp(20, [], 1),
        how,
        "params=float32,compute=float32,state=bfloat16",
        {
            "state float32": {"policy": "float32"},
            "momentum 0.99": {"optimizer": train.Momentum(3e-5, momentum=0.99)},
        },
    )


def fp8_outlier_channel():
    x, y = clusters(800, 16, 12, 1.0)
    x[:, 3] = 1e5 * rng(1).standard_normal(len(x))
    how = {"loss": CE, "optimizer": train.Adam(1e-2), "epochs": 10}
    m = S([I((16,)), norm(), D(32, "relu"), D(4)])
    return (
        "feature 3 sets the scale of the tensor; most of the other 15 become 0 in e4m3",
        data(x, y),
        m,
        how,
        "mixed_float8",
        {
            "standardise": {"data": data(x, y).scaled("standard")},
            "bfloat16": {"policy": "mixed_bfloat16"},
        },
    )


def hidden_offset_bf16():
    x, y = clusters(800, 16, 16, 0.7)

    def m(b):
        return S(
            [
                I((16,)),
                D(32, "linear", bias_initializer=initializers.Constant(b)),
                norm(),
                D(32, "relu"),
                D(4),
            ]
        )

    how = {"loss": CE, "optimizer": train.Adam(3e-3), "epochs": 20}
    return (
        "activations of Dense 1 have mean 3000, deviation 1.5: the spacing there is 16",
        data(x, y),
        m(3000.0),
        how,
        "mixed_bfloat16",
        {"bias 0": {"model": m(0.0)}},
    )


def positions_bf16():
    pos = rng(50).integers(0, 2048, 3000).astype(np.float32)[:, None]
    frequencies = np.float32([1.0, 0.5, 0.1, 0.01])

    @dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
    class Phases(Layer):
        def output_shape(self, shape):
            return (8,)

        def forward(self, params, x, run):
            a = x * frequencies
            return run.numerics.compute(
                np.concatenate([np.sin(a), np.cos(a)], 1).astype(np.float32)
            ), x

        def backward(self, params, x, dy, run):
            return run.numerics.gradient(np.zeros_like(x)), {}

    how = {"loss": "mse", "optimizer": train.Adam(1e-2), "epochs": 10}
    return (
        "integers above 256 collide in bfloat16 inputs (positions, indices, times)",
        data(pos, np.sin(pos) + 0.5 * np.cos(pos * 0.5)),
        S([I((1,)), Phases(), D(1)]),
        how,
        "mixed_bfloat16",
        {"float16, exact to 2048": {"policy": "mixed_float16"}},
    )


def half_rmse_loss():
    r = rng(20)
    x = r.standard_normal((600, 8))
    y = x @ r.standard_normal((8, 1)) * 400

    def rmse(kind):
        def loss(t, p):
            e = (p.reshape(-1).astype(np.float32) - t.reshape(-1).astype(np.float32)).astype(kind)
            with np.errstate(all="ignore"):
                s = np.float32(np.sqrt(np.mean(e * e, dtype=kind)))
                return float(s), (e.astype(np.float32) / s / e.size).reshape(p.shape)

        return loss

    how = {"loss": rmse(np.float16), "optimizer": train.Adam(5.0), "epochs": 20}
    return (
        "the user's own loss squares errors beyond 256 in float16: inf, gradient 0",
        data(x, y),
        mlp(8, [], 1),
        how,
        "mixed_float16",
        {"loss in float32": {"loss": rmse(np.float32)}},
        {"loss": rmse(np.float32)},
    )


def log_layer_inf():
    x, y = clusters(600, 16, 22, 2.0)

    @dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
    class Log(Layer):
        def forward(self, params, x, run):
            with np.errstate(all="ignore"):
                return run.numerics.compute(np.log(x)), x

        def backward(self, params, x, dy, run):
            with np.errstate(all="ignore"):
                return run.numerics.gradient(dy / x), {}

    how = {"loss": CE, "optimizer": train.Adam(1e-3), "epochs": 2}
    return (
        "log(0) in the layer Log, in every format: not a matter of size or rate",
        data(x, y),
        S([I((16,)), D(32, "relu"), Log(), D(4)]),
        how,
        "mixed_bfloat16",
        {
            "advised: lower rate": {"optimizer": train.Adam(1e-7)},
            "advised: clip": {"optimizer": train.Adam(1e-3, global_clipnorm=1.0)},
            "advised: scale the data": {"data": data(x / 10, y)},
        },
    )


def fp16_params_sgd_small():
    how = {"loss": CE, "optimizer": train.SGD(3e-4), "epochs": 30}
    return (
        "94 % of updates are lost in float16 weights; nothing is learnt",
        train.data.digits(),
        mlp(64, [64], 10),
        how,
        "params=float16,compute=float32,state=float32",
        {"float32 masters": {"policy": "float32"}},
    )


FAILURES = (
    dead_relu,
    clip_too_small,
    adagrad_state_fp16,
    adagrad_stall_bf16,
    momentum_stuck_bf16,
    fp8_outlier_channel,
    hidden_offset_bf16,
    positions_bf16,
    half_rmse_loss,
    log_layer_inf,
    fp16_params_sgd_small,
)


def raw_targets():
    how = {"loss": "mse", "optimizer": train.Adam(1e-2), "epochs": 40}
    return (
        "healthy",
        train.data.diabetes().scaled("standard"),
        mlp(10, [32], 1),
        how,
        "mixed_float16",
        {},
    )


def bf16_sums_of_320():
    d = train.data.digits().scaled("standard")
    d = train.Dataset(
        np.repeat(d.x_train, 5, 1) / 5, d.y_train, np.repeat(d.x_test, 5, 1) / 5, d.y_test
    )
    how = {"loss": CE, "optimizer": train.Adam(1e-3), "epochs": 5}
    return (
        "healthy",
        d,
        mlp(320, [32], 10),
        how,
        "params=float32,compute=bfloat16,accumulate=bfloat16",
        {},
    )


def negative_loss():
    cross_entropy = train.losses.get(CE)

    def shifted(a, b):
        value, gradient = cross_entropy(a, b)
        return value - 3.0, gradient

    how = {"loss": shifted, "optimizer": train.Adam(1e-3), "epochs": 5}
    return "healthy", train.data.digits(), mlp(64, [64], 10), how, "bfloat16_kahan", {}


def wine_learnt():
    how = {"loss": CE, "optimizer": train.Adam(1e-2), "epochs": 40}
    return (
        "healthy: accuracy 1 in both",
        train.data.wine().scaled("standard"),
        mlp(13, [32], 3, "tanh"),
        how,
        "bfloat16",
        {},
    )


HEALTHY = (raw_targets, bf16_sums_of_320, negative_loss, wine_learnt)


def run(case):
    cause, d, m, how, policy, cures, *wide = case()
    quiet = {"verbose": False, "rng": 0}

    def fit(recorder=None, data=d, model=m, policy=policy, **changes):
        return train.fit(model, data, policy=policy, recorder=recorder, **(how | quiet | changes))

    reference = fit(policy="float32", **(wide[0] if wide else {}))
    recorder = train.Recorder(5, reference=reference)
    narrow = fit(recorder)

    def ends(history):
        name = "val_accuracy" if "val_accuracy" in history.history else "val_rmse"
        return f"loss {history.history['loss'][-1]:.4g}, {name} {history.history[name][-1]:.4g}"

    print(
        f"\n{case.__name__} [{policy}]: {cause}\n  float32: {ends(reference)}\n  here:    {ends(narrow)}"  # noqa: E501
    )
    print(*(f"  verdict: {sentence}" for sentence in recorder.verdict), sep="\n")
    for cure, changes in cures.items():
        print(f"  {cure}: {ends(fit(**changes))}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for one in (*FAILURES, *HEALTHY):
        if not sys.argv[1:] or one.__name__ in sys.argv[1:]:
            run(one)
