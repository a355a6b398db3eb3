"""Twenty failures of known cause and ten healthy runs, of other kinds than `failures`.

``python tests/cases/more_failures.py [name ...]`` prints what `train.diagnose` makes of each.
"""

from __future__ import annotations

import dataclasses
import sys
import time
import warnings
from typing import Any, NamedTuple

import numpy as np

from lowprec import train
from lowprec.train import initializers
from lowprec.train.layers.layer import Layer

CE = "sparse_categorical_crossentropy"


class Case(NamedTuple):
    """A training, and what is known of it."""

    causes: tuple[str, ...]  # that are right; none for a healthy run
    places: tuple[str, ...]  # how a right place may begin; none where any will do
    data: Any
    model: Any
    policy: Any
    how: dict[str, Any]


def _split(x, y, name="data"):
    n = int(0.8 * len(x))
    return train.Dataset(np.float32(x[:n]), y[:n], np.float32(x[n:]), y[n:], name)


def _clusters(seed, n=600, d=16, k=4, apart=1.0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((k, d)) * apart
    y = rng.integers(0, k, n)
    return centres[y] + rng.standard_normal((n, d)), y


def _plane(seed, n=800, d=8, noise=0.1):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    return x, np.float32(x @ rng.standard_normal((d, 1)) + noise * rng.standard_normal((n, 1)))


def _net(d, hidden, out, act="relu", **last):
    return train.Sequential(
        [train.Input((d,)), *[train.Dense(h, act) for h in hidden], train.Dense(out, **last)]
    )


# Failures ----------------------------------------------------------------------------------------


def tiny_loss_in_float16():
    cross_entropy = train.losses.get(CE)

    def weighted(y_true, y_pred):
        value, gradient = cross_entropy(y_true, y_pred)
        return value * 2.0**-20, gradient * np.float32(2.0**-20)

    how = {"loss": weighted, "optimizer": train.Adam(3e-3, epsilon=1e-14), "epochs": 12}
    data = _split(*_clusters(1))
    return Case(("gradients",), (), data, _net(16, [32], 4), "compute=float16", how)


def static_scale_too_large():
    how = {"loss": CE, "optimizer": train.SGD(0.1), "epochs": 10}
    policy = "compute=float16,loss_scale=16777216"
    return Case(
        ("loss scale", "gradients"), (), _split(*_clusters(2)), _net(16, [32], 4), policy, how
    )


def biases_alone_lost():
    """The kernel of zeros has no gradient: the inputs are zero, and only the bias learns."""
    x = np.zeros((400, 3), np.float32)
    y = np.full((400, 1), 40.0, np.float32) + np.random.default_rng(3).normal(0, 0.01, (400, 1))
    model = train.Sequential(
        [train.Input((3,)), train.Dense(1, bias_initializer=initializers.Constant(30.0))]
    )
    how = {"loss": "mse", "optimizer": train.SGD(1e-3), "epochs": 60}
    policy = "params=bfloat16,compute=float32,state=float32"
    return Case(("params",), ("Dense 1",), _split(x, np.float32(y)), model, policy, how)


def large_weights_lose_updates():
    x, y = _plane(4)
    model = train.Sequential(
        [train.Input((8,)), train.Dense(1, kernel_initializer=initializers.Constant(100.0))]
    )
    how = {"loss": "mse", "optimizer": train.Adam(0.1), "epochs": 60}
    policy = "params=bfloat16,compute=float32,state=float32"
    return Case(("params",), ("Dense 1",), _split(x, y + 100 * x.sum(1, keepdims=True).astype("f")),
                model, policy, how)  # fmt: skip


def adam_state_float16():
    how = {"loss": CE, "optimizer": train.Adam(1e-3), "epochs": 12}
    policy = "state=float16"
    data = _split(*_clusters(5, n=1200))
    return Case(("state",), ("Dense",), data, _net(16, [64], 4), policy, how)


def rmsprop_state_e4m3():
    how = {"loss": CE, "optimizer": train.RMSProp(1e-3), "epochs": 12}
    policy = "state=float8_e4m3fn"
    return Case(("state",), (), _split(*_clusters(6)), _net(16, [32], 4), policy, how)


def sums_stall_in_the_first_layer():
    rng = np.random.default_rng(7)
    x = rng.uniform(0.5, 1.5, (200, 1500))
    y = np.float32(x[:, :750].mean(axis=1, keepdims=True) - x[:, 750:].mean(axis=1, keepdims=True))
    model = train.Sequential(
        [
            train.Input((1500,)),
            train.Dense(1, kernel_initializer=initializers.Constant(1 / 1500)),
        ]
    )
    how = {"loss": "mse", "optimizer": train.SGD(3e-4), "epochs": 20}
    policy = "accumulate=bfloat16"
    return Case(("accumulate",), ("Dense 1",), _split(x, y * 10), model, policy, how)


def outputs_too_coarse():
    rng = np.random.default_rng(8)
    x = rng.standard_normal((600, 4))
    y = np.float32(1000 + x @ rng.standard_normal((4, 1)))
    model = train.Sequential(
        [train.Input((4,)), train.Dense(1, bias_initializer=initializers.Constant(999.0))]
    )
    how = {"loss": "mse", "optimizer": train.Adam(3e-2), "epochs": 40}
    return Case(("compute",), ("Dense 1",), _split(x, y), model, "mixed_bfloat16", how)


def features_overflow_float16():
    x, y = _clusters(9)
    x[:, 2] *= 1e6
    model = train.Sequential(
        [train.Input((16,)), train.BatchNormalization(momentum=0.8), train.Dense(32, "relu"),
         train.Dense(4)]
    )  # fmt: skip
    how = {"loss": CE, "optimizer": train.Adam(3e-3), "epochs": 12}
    places = ("the inputs", "the activations")
    return Case(("compute",), places, _split(x, y), model, "mixed_float16", how)


def time_stamps_in_bfloat16():
    rng = np.random.default_rng(10)
    hours = 400_000 + rng.integers(0, 240, 1500)
    x = np.float32(hours)[:, None]
    y = np.float32(np.sin(2 * np.pi * (hours % 24) / 24))[:, None]

    @dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
    class Clock(Layer):
        def output_shape(self, shape):
            return (2,)

        def forward(self, params, x, run):
            turn = (2 * np.pi / 24) * np.remainder(x, 24)
            both = np.concatenate([np.sin(turn), np.cos(turn)], 1)
            return run.numerics.compute(both.astype(np.float32)), x

        def backward(self, params, x, dy, run):
            return run.numerics.gradient(np.zeros_like(x)), {}

    model = train.Sequential([train.Input((1,)), Clock(), train.Dense(1)])
    how = {"loss": "mse", "optimizer": train.Adam(3e-2), "epochs": 10}
    return Case(("compute",), ("the inputs",), _split(x, y), model, "mixed_bfloat16", how)


def pure_float8():
    how = {"loss": CE, "optimizer": train.SGD(0.05), "epochs": 15}
    causes = ("params", "params+compute", "gradients+params", "gradients", "compute")
    data = _split(*_clusters(11))
    return Case(causes, (), data, _net(16, [32], 4), "float8_e5m2", how)


def rate_diverges():
    x, y = _plane(12)
    how = {"loss": "mse", "optimizer": train.SGD(3.0), "epochs": 4}
    return Case(("not precision",), (), _split(x, y), _net(8, [], 1), "mixed_bfloat16", how)


def labels_at_random():
    rng = np.random.default_rng(13)
    x, y = rng.standard_normal((400, 4)), rng.integers(0, 4, 400)
    how = {"loss": CE, "optimizer": train.SGD(1e-3), "epochs": 5}
    return Case(("not precision",), (), _split(x, y), _net(4, [], 4), "mixed_float16", how)


def zero_start():
    """All weights of a deep network are zero: no gradient passes, in any format."""
    zeros = {"kernel_initializer": "zeros"}
    model = train.Sequential(
        [train.Input((16,)), train.Dense(32, "relu", **zeros), train.Dense(32, "relu", **zeros),
         train.Dense(4, **zeros)]
    )  # fmt: skip
    how = {"loss": CE, "optimizer": train.SGD(0.1), "epochs": 10}
    return Case(("not precision",), (), _split(*_clusters(14)), model, "mixed_bfloat16", how)


def rate_far_too_small():
    how = {"loss": CE, "optimizer": train.SGD(1e-7), "epochs": 5}
    return Case(
        ("not precision",), (), _split(*_clusters(15)), _net(16, [32], 4), "mixed_float16", how
    )


def sqrt_of_negative_numbers():
    @dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
    class Root(Layer):
        def forward(self, params, x, run):
            return run.numerics.compute(np.sqrt(x)), x

        def backward(self, params, x, dy, run):
            return run.numerics.gradient(dy / (2 * np.sqrt(x))), {}

    model = train.Sequential([train.Input((16,)), train.Dense(32, "tanh"), Root(), train.Dense(4)])
    how = {"loss": CE, "optimizer": train.Adam(1e-3), "epochs": 3}
    return Case(("user code",), ("Root 1",), _split(*_clusters(16)), model, "mixed_bfloat16", how)


def loss_in_half_precision():
    """Squares in float16 of errors near 1e-4 are subnormal: the value is coarse, never infinite."""

    def half(y_true, y_pred):
        error = (y_pred - y_true.reshape(y_pred.shape)).astype(np.float16)
        value = float(np.mean(error * error, dtype=np.float16))
        return value, (2 * error * error * np.sign(error) / error.size).astype(np.float32)

    x, y = _plane(17, noise=0)
    how = {"loss": half, "optimizer": train.SGD(0.1), "epochs": 15}
    return Case(
        ("user code",), ("half",), _split(x, y * 3e-4), _net(8, [], 1), "mixed_bfloat16", how
    )


def last_layer_saturates():
    """Logits of a last layer start in the tens of thousands: float16 overflows."""
    model = _net(
        16, [32], 4, kernel_initializer=initializers.RandomNormal(stddev=9000.0), use_bias=False
    )
    how = {"loss": CE, "optimizer": train.Adam(50.0), "epochs": 15}
    return Case(("compute",), (), _split(*_clusters(18)), model, "compute=float16", how)


def momentum_buffer_e5m2():
    x, y = _plane(19)
    how = {"loss": "mse", "optimizer": train.Momentum(1e-4, momentum=0.97), "epochs": 40}
    policy = "state=float8_e5m2"
    return Case(("state",), ("Dense 1",), _split(x, y), _net(8, [], 1), policy, how)


def weights_and_state_together():
    x, y = _plane(20)
    how = {"loss": "mse", "optimizer": train.Adam(1e-4), "epochs": 60}
    policy = "params=bfloat16,compute=float32,state=float8_e4m3fn"
    causes = ("state+params", "params+state")
    return Case(causes, (), _split(x, y), _net(8, [], 1), policy, how)


FAILURES = (
    tiny_loss_in_float16, static_scale_too_large, biases_alone_lost, large_weights_lose_updates,
    adam_state_float16, rmsprop_state_e4m3, sums_stall_in_the_first_layer, outputs_too_coarse,
    features_overflow_float16, time_stamps_in_bfloat16, pure_float8, rate_diverges,
    labels_at_random, zero_start, rate_far_too_small, sqrt_of_negative_numbers,
    loss_in_half_precision, last_layer_saturates, momentum_buffer_e5m2, weights_and_state_together,
)  # fmt: skip


# Healthy runs ------------------------------------------------------------------------------------


def _healthy(data, model, policy, **how):
    return Case((), (), data, model, policy, {"loss": CE, "epochs": 12} | how)


def clusters_mixed_float16():
    return _healthy(_split(*_clusters(31)), _net(16, [32], 4), "mixed_float16",
                    optimizer=train.Adam(3e-3))  # fmt: skip


def clusters_mixed_float8():
    return _healthy(_split(*_clusters(32)), _net(16, [32], 4), "mixed_float8",
                    optimizer=train.Adam(3e-3))  # fmt: skip


def plane_stochastic():
    x, y = _plane(33)
    return _healthy(_split(x, y), _net(8, [], 1), "bfloat16_stochastic", loss="mse",
                    optimizer=train.Adam(1e-2), epochs=30)  # fmt: skip


def noisy_regression():
    x, y = _plane(34, noise=5.0)
    return _healthy(_split(x, y), _net(8, [], 1), "mixed_bfloat16", loss="mae",
                    optimizer=train.Adam(3e-2))  # fmt: skip


def dropout_and_norm():
    model = train.Sequential(
        [train.Input((16,)), train.Dense(64), train.BatchNormalization(), train.Activation("relu"),
         train.Dropout(0.3), train.Dense(4)]
    )  # fmt: skip
    return _healthy(_split(*_clusters(35)), model, "mixed_bfloat16", optimizer=train.Adam(3e-3))


def penalised():
    model = _net(16, [32], 4, kernel_regularizer=train.L2(1e-2))
    return _healthy(_split(*_clusters(36)), model, "mixed_float16", optimizer=train.Adam(3e-3))


def frozen_first_layer():
    model = train.Sequential(
        [train.Input((16,)), train.Dense(64, "relu", trainable=False), train.Dense(4)]
    )
    return _healthy(_split(*_clusters(37)), model, "bfloat16", optimizer=train.Adam(1e-2))


def scaled_user_loss():
    cross_entropy = train.losses.get(CE)

    def thousand(y_true, y_pred):
        value, gradient = cross_entropy(y_true, y_pred)
        return 1000 + value, gradient

    return _healthy(_split(*_clusters(38)), _net(16, [32], 4), "mixed_bfloat16", loss=thousand,
                    optimizer=train.Adam(3e-3))  # fmt: skip


def one_epoch():
    return _healthy(_split(*_clusters(39, n=2000)), _net(16, [32], 4), "mixed_float16",
                    optimizer=train.Adam(3e-3), epochs=1)  # fmt: skip


def converged_to_nothing():
    """Noise-free: both end at a loss that is the format's own floor."""
    x, y = _plane(40, noise=0)
    return _healthy(_split(x, y), _net(8, [], 1), "mixed_float16", loss="mse",
                    optimizer=train.Adam(3e-2), epochs=60)  # fmt: skip


HEALTHY = (
    clusters_mixed_float16, clusters_mixed_float8, plane_stochastic, noisy_regression,
    dropout_and_norm, penalised, frozen_first_layer, scaled_user_loss, one_epoch,
    converged_to_nothing,
)  # fmt: skip


def score(case, found):
    """Return ``named``, ``partly`` or ``missed`` for a failure, ``quiet`` or ``false alarm``."""
    if not case.causes:
        return "false alarm" if found.outcome.is_red else "quiet"
    if not found.outcome.is_red:
        return "missed"
    if found.cause not in case.causes:
        return "partly"
    is_placed = not case.places or str(found.place).startswith(case.places)
    needs_no_cure = case.causes == ("not precision",)
    is_cured = any(cure.rescues for cure in found.cures) or needs_no_cure
    return "named" if is_placed and is_cured else "partly"


def main(names):
    totals = {}
    for make in (*FAILURES, *HEALTHY):
        if names and make.__name__ not in names:
            continue
        case, began = make(), time.process_time()
        found = train.diagnose(case.model, case.data, policy=case.policy, budget=None, **case.how)
        word = score(case, found)
        totals[word] = totals.get(word, 0) + 1
        seconds = time.process_time() - began
        cures = [cure.code for cure in found.cures if cure.rescues]
        told = f"{found.outcome.kind}/{found.outcome.reason}, {found.cause}, {found.place}"
        print(f"{word:11} {make.__name__}: {told}, {cures[:3]} ({seconds:.1f} s)", flush=True)
        if word in ("partly", "missed", "false alarm"):
            print(*(f"            {line}" for line in found.verdict), sep="\n", flush=True)
    print(totals)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1:])
