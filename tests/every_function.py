"""Every public function, called with numbers that a processor's state may change.

``python every_function.py STATE`` calls them all in that state from the beginning, when no kernel
is compiled and no constant computed, and writes a digest of each one's bits.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import processor

import lowprec as lp
from lowprec import linalg, tensors, train
from lowprec.train import activations, initializers, losses, metrics, optimizers, regularizers

# Subnormal, nearly subnormal and ordinary numbers, near halfway between two of most formats
TINY = np.float32([1e-39, -3e-40, 2e-38, 1.3e-38, 1e-45, 5e-39, 0.0, -1.2e-38, 7e-46, -1e-41])
SMALL = np.array([1e-310, -5e-324, 2.3e-308, -4.9e-40, 1e-45, 6e-8, -0.0, 3e-5])
PLAIN = np.random.default_rng(1).normal(size=40).astype(np.float32)
MIXED = np.concatenate([TINY, PLAIN, np.float32([65519, -3.4e38, np.inf])])
INTEGERS = np.array([2**53 + 1, -(2**62) - 1, 16973823, 3])
STRIDED = np.repeat(MIXED.astype(np.float64), 2)[::2]  # goes through buffers
HALF = np.array([6e-8, 65504, 1e-5, 0.1], np.float16)
LEFT, RIGHT = np.concatenate([TINY, PLAIN[:30]]).reshape(8, 5), (PLAIN * 1e-10).reshape(5, 8)
LEFT_64, RIGHT_64 = LEFT.astype(np.float64), np.asfortranarray(RIGHT, np.float64)
SHORT, REVERSED = TINY[:, None], TINY[::-1, None] * np.float32(1e-3)
TABLE = MIXED[:48].reshape(12, 4)
TABLES = (TABLE, TABLE.astype(np.float64))
ONE_TINY, SMALLER, LEAST = TINY[0], np.float32(1e-41), np.float32(1e-45)
FAINT = PLAIN * np.float32(1e-30)
RAMP = np.float32(1e-38) * np.arange(1, 3000, dtype=np.float32)
WEIGHTS = TABLE * np.float32(1e-3)
GRADIENTS = TINY[:8].repeat(6).reshape(12, 4)
LABELS = np.arange(12) % 4
ONE_HOT = np.eye(4, dtype=np.float32)[LABELS]
DOUBLES = {id(x): np.asarray(x, np.float64) for x in (TINY, SMALL, INTEGERS, STRIDED, HALF)}
ORDERS = (
    {"order": "sequential"},
    {"order": "sequential", "rounding": "toward_positive"},
    {"order": "sequential", "rounding": "stochastic", "rng": 3},
    {"order": "blocked", "block": 4, "inner": "float16"},
    {"order": "pairwise"},
    {"order": "kahan"},
    {"order": "exact"},
    {"order": "exact", "rounding": "toward_negative"},
)
MODES = ("ties_to_even", "toward_positive", "to_odd", "stochastic")
UNARY = [
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "tanh"),
    *("sinh", "cosh", "asin", "acos", "atan"),
    *("sigmoid", "erf", "cbrt", "rsqrt", "reciprocal", "sqrt", "square", "abs", "negative"),
]
BINARY = [
    *("add", "subtract", "multiply", "divide", "remainder", "minimum", "maximum", "power"),
    *("floor_divide", "mod", "atan2", "hypot"),
]


def in_the_usual_state(make: Callable[[], Any]) -> Callable[[], Any]:
    """Make what functions are called with apart from the state that they are called in."""

    def run() -> Any:
        with processor.state("usual"):
            return make()

    return run


def accumulators() -> list[lp.Accumulator]:
    return [lp.Accumulator(), *(lp.Accumulator("bfloat16", **how) for how in ORDERS)]


# Training ------------------------------------------------------------------------------------


@cache
@in_the_usual_state
def data() -> train.Dataset:
    """Inputs so small that products, gradients and moments are subnormal."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(24, 6)).astype(np.float32) * np.float32(1e-19)
    x[:, :2] *= np.float32(1e19)
    return train.Dataset(x, rng.integers(0, 3, 24), x[:8], rng.integers(0, 3, 8))


@cache
def network(activation: str = "tanh") -> train.Sequential:
    return train.Sequential(
        [
            train.Input((6,)),
            train.Dense(5, activation, kernel_regularizer=train.L2(1e-3)),
            train.LayerNormalization(),
            train.BatchNormalization(),
            train.Dropout(0.2),
            train.Dense(3, kernel_constraint=train.MaxNorm(0.7)),
        ]
    )


@cache
@in_the_usual_state
def params() -> dict[str, np.ndarray]:
    found = network().init(np.random.default_rng(3), input_shape=(6,))
    return {name: (w * np.float32(1e-3)).astype(np.float32) for name, w in found.items()}


def fitted(policy: str = "mixed_bfloat16", optimizer: str = "Adam", **how: Any) -> Any:
    made = getattr(train, optimizer)(1e-2)
    options = {"loss": "sparse_categorical_crossentropy", "optimizer": made, "policy": policy}
    recorder = train.Recorder(every=2) if how.pop("records", False) else None
    found = train.fit(
        network(**how), data(), **options, epochs=2, batch_size=8, recorder=recorder, verbose=False
    )
    return [found.history, found.params, found.state, found.loss_scales]


POLICIES = [
    *("float32", "mixed_bfloat16", "mixed_float16", "bfloat16_stochastic", "bfloat16_kahan"),
    *("mixed_float8", "float64"),
]


def trained() -> Any:
    return [
        *(fitted(policy) for policy in POLICIES),
        *(fitted(optimizer=name) for name in ("RMSProp", "AdaGrad", "AdaMax")),
        fitted("mixed_float16", optimizer="SGD", records=True),
    ]


def kept() -> Any:
    """Train by Keras' methods, with class weights, scaled targets and a momentum that moves."""
    x = data().x_train
    model = train.Sequential([train.Input((6,)), train.Dense(3, "softmax")])
    model.compile(
        train.Momentum(train.schedules.OneCycle(0.1, 12)), loss="categorical_crossentropy"
    )
    one_hot = np.eye(3, dtype=np.float32)[data().y_train]
    history = model.fit(x, one_hot, epochs=2, class_weight={0: 1 / 3}, verbose=0)
    step = model.train_on_batch(x, one_hot, sample_weight=np.linspace(1e-38, 3, len(x)))
    line = train.Sequential([train.Input((6,)), train.Dense(1)])
    line.compile("adam", "mse", metrics=["r2", "rmse"])
    scaled = train.Dataset(x, sums()).scaled("standard", targets=True)
    line.fit(scaled, epochs=2, verbose=0)
    judged = line.evaluate(scaled.x_train, scaled.y_train)
    found = [history.history, step, model.params, model(x), line.predict(x), judged]
    return [dict(one) if isinstance(one, dict) else one for one in found]


@cache
@in_the_usual_state
def sums() -> np.ndarray:
    return data().x_train.sum(axis=1)


@cache
@in_the_usual_state
def normalised() -> Any:
    layers = [train.Input((6,)), train.Dense(5), train.BatchNormalization()]
    model = train.Sequential(layers)
    own = model.init(3)
    own["1/moving_variance"][:] = [1e-38, 1e-30, 1.0, 3.0, 1e30]
    own["0/kernel"] *= np.float32(1e-38)
    return model, own


def folded() -> Any:
    return train.fold(*normalised())[1]


def scored(loss: str) -> Any:
    y = LABELS if loss == "sparse_categorical_crossentropy" else ONE_HOT
    return [losses.get(loss)(y, z) for z in TABLES]


def activated() -> Any:
    found = []
    for name in sorted(activations.NAMED):
        function = activations.get(name)
        for z in TABLES:
            y = function.forward(z)
            found += [y, function.backward(z[::-1].copy(), z, y)]
    return found


def optimized(name: str) -> Any:
    optimizer = optimizers.get(name)
    w, gradients = {"0/kernel": WEIGHTS}, {"0/kernel": GRADIENTS}
    state, found = optimizer.init(w), []
    for step in (1, 2):
        # an update may take the gradients' place
        own = {key: value.copy() for key, value in gradients.items()}
        updates, state = optimizer.update(own, state, w, step, optimizer.rate(step), lambda s: s)
        found.append([updates, {key: value.copy() for key, value in state.items()}])
    return found


def scaled_losses() -> Any:
    scale = train.LossScale(2.0**127, backoff_factor=0.3)
    gradients = {"a": MIXED}
    return [
        scale.inverse,
        scale.scale(SMALLER),
        scale.unscale(gradients),
        scale.adjust(False).value,
        train.LossScale(1e-37, backoff_factor=0.01).adjust(False).value,
        train.LossScale(0.1).value,
    ]


def saved_and_opened() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/a.npz", f"{folder}/b.npz"
        np.savez(source, a=MIXED[:52], b=STRIDED[:30], c=HALF)
        tensors.convert(source, target, "bfloat16")
        with np.load(target) as archive:
            kept = {name: archive[name].tobytes() for name in archive.files}
        opened = tensors.open_tensors(source)
        return [kept, {name: tensor.read() for name, tensor in opened.items()}]


# The table -----------------------------------------------------------------------------------


def converted(function: Callable[..., Any]) -> Any:
    formats = ("bfloat16", "float16")
    return [
        *(function(TINY, fmt, rounding=mode, rng=1) for fmt in formats for mode in MODES),
        *(function(x, "bfloat16") for x in (SMALL, INTEGERS, STRIDED, HALF)),
        function(TINY, "float8_e8m0fnu"),
        function(SMALL, "float64", rounding="toward_positive"),
        function(0.1, "float16"),
    ]


def computed(names: list[str], arity: int, fmt: str, **how: Any) -> Any:
    arithmetic = lp.Arithmetic(fmt, **how)
    found: list[Any] = []
    for name in names:
        method = getattr(arithmetic, name)
        for x in (MIXED, STRIDED[: MIXED.size], INTEGERS):
            found.append(method(*(np.roll(x, k) for k in range(arity))))
        found.append(method(*[ONE_TINY] * arity))
    return [found, str(arithmetic.flags)]


def operations(names: list[str], arity: int) -> Any:
    return [
        computed(names, arity, "bfloat16"),
        computed(names, arity, "float16", rounding="toward_positive", denormals_are_zero=True),
    ]


def products() -> Any:
    found = []
    for how in [*accumulators(), lp.Accumulator("bfloat16", fused=False), "float64", "float16"]:
        for x, y in ((LEFT, RIGHT), (LEFT_64, RIGHT_64)):
            inputs = "float32" if how == "float64" else "bfloat16"
            found.append(lp.matmul(x, y, inputs=inputs, accumulator=how))
    return [
        found,
        lp.matmul(LEFT, RIGHT, inputs="float32"),
        lp.matmul(LEFT, RIGHT, accumulator=lp.tensor_core("a100", "bfloat16")),
        lp.matmul(LEFT, RIGHT, inputs="float32", accumulator="float32", output="float16"),
        lp.matmul(INTEGERS[None], INTEGERS[:, None]),
    ]


def measured() -> Any:
    found = []
    for x in (TINY, MIXED, SMALL, STRIDED, HALF, INTEGERS, np.tile(TINY, 20)):
        for fmt in ("bfloat16", "float16", "float8_e4m3fn"):
            m = lp.measure(x, fmt)
            found.append([m, m.headroom_bits, m.mean_relative_error, m.sqnr_db, m.to_dict()])
    both = lp.measure(SMALL, "float16") + lp.measure(SMALL[:2], "float16")
    return [found, both.to_dict(), lp.measure(MIXED, "bfloat16", rounding="stochastic", rng=1)]


def inspected() -> Any:
    given = [lp.inspect(x, fmt) for x in (1e-310, 0.1, "1e-39") for fmt in ("float64", "bfloat16")]
    given += [lp.inspect(LEAST, "float32"), lp.inspect(code=1, fmt="float64")]
    return [[one.to_dict(), repr(one), repr(one.above)] for one in given]


INITIALIZERS = [
    f"{kind}_{shape}" for kind in ("glorot", "he", "lecun") for shape in ("normal", "uniform")
]


def initialized() -> Any:
    return [initializers.get(name)((7, 5), np.random.default_rng(4)) for name in INITIALIZERS]


def scheduled() -> Any:
    s = train.schedules
    kinds = [
        s.Cosine(0.1, 30),
        s.Exponential(0.1, 0.9, 10),
        s.OneCycle(0.1, 30),
        s.PiecewiseConstant([5, 10], [0.1, 0.03, 0.001]),
        s.Power(0.1, 10),
        s.WarmUp(s.Power(0.1, 10), 7),
    ]
    return [[kind(step) for step in range(0, 30, 3)] for kind in kinds]


def regularized() -> Any:
    w = TABLE
    rules: list[Any] = [regularizers.L1(0.1), regularizers.L2(0.1), regularizers.L1L2(0.1, 0.2)]
    found = [[float(rule.value(w)), rule.gradient(w)] for rule in rules]
    return [found, regularizers.MaxNorm(1e-3)(w)]


def averaged() -> Any:
    averages = metrics.Averages((metrics.mae, metrics.rmse))
    for part in np.split(TABLE, 3):
        averages.add(0.1, part[::-1], part)
    binary = metrics.binary_accuracy(LABELS[:, None] % 2, TABLE[:, :1])
    return [averages.result(), metrics.accuracy(LABELS, TABLE), binary]


def scaled_data() -> Any:
    return [
        [made.x_train, made.y_train]
        for made in (
            train.data.digits().scaled("standard"),
            train.data.linear().scaled("minmax"),
            train.data.quadratic(),
            train.data.linear_map(),
            data().split(0.25, rng=1),
        )
    ]


def compared_policies() -> Any:
    found = train.compare_policies(
        network(),
        data(),
        policies=["float32", "mixed_float16"],
        seeds=2,
        epochs=1,
        loss="sparse_categorical_crossentropy",
        optimizer=train.Adam(1e-2),
        batch_size=8,
    )
    return without_seconds(found.to_dict())


def without_seconds(found: Any) -> Any:
    if isinstance(found, list):
        return [without_seconds(item) for item in found]
    if not isinstance(found, dict):
        return found
    return {k: without_seconds(v) for k, v in found.items() if not k.startswith("seconds")}


BLOCKS = np.concatenate([TINY, PLAIN, FAINT, SMALL.astype(np.float32)])[:96].reshape(3, 32)
BLOCKS_64 = BLOCKS.astype(np.float64)


SQUARE = np.random.default_rng(5).normal(size=(4, 4)) * 1e-19 + np.eye(4) * 1e-18
SYMMETRIC = SQUARE @ SQUARE.T * 1e18
SIDE = SQUARE[0] * 1e-20


def quantized() -> Any:
    found = []
    for name, x in (("mxfp4", BLOCKS), ("nvfp4", BLOCKS), ("mxfp4", BLOCKS_64)):
        one = lp.quantize(x, name)
        found += [one.codes, one.scales, one.dequantize(), lp.round_to(x, name)]
    return found


def program(x: Any) -> Any:
    """Sum squares, of numbers that are subnormal too."""
    y = x * x + x
    return y, y.sum() / len(y)


def traced() -> Any:
    """Trace a program in two formats."""
    found = []
    for fmt in ("bfloat16", "float16"):
        t = lp.trace(program, FAINT, format=fmt)
        found += [t.result, t.reference, t.to_dict(), t.verdict]
    return found


CALLS: dict[str, Callable[[], Any]] = {
    "round_to": lambda: converted(lambda x, f, **how: lp.round_to(DOUBLES.get(id(x), x), f, **how)),
    "encode": lambda: converted(lp.encode),
    "cast": lambda: [lp.cast(x, "float16") for x in (TINY, SMALL, STRIDED, INTEGERS)],
    "decode": lambda: [lp.decode(np.arange(99), f) for f in ("bfloat16", "float16", "float64")],
    "ulp": lambda: converted(lambda x, f, **_: lp.ulp(DOUBLES.get(id(x), x), f)),
    "next_up": lambda: converted(lambda x, f, **_: lp.next_up(DOUBLES.get(id(x), x), f)),
    "next_down": lambda: converted(lambda x, f, **_: lp.next_down(DOUBLES.get(id(x), x), f)),
    "inspect": inspected,
    "finfo": lambda: [lp.finfo(f) for f in ("float64", "float16", "bfloat16", "float8_e8m0fnu")],
    "get_format": lambda: [lp.get_format("e11m40").smallest_subnormal, lp.get_format("e6m9").max],
    "quantize": quantized,
    "linalg.lu": lambda: [linalg.lu(SQUARE, accumulator=how) for how in (None, "float32")],
    "linalg.cholesky": lambda: linalg.cholesky(SYMMETRIC),
    "linalg.qr": lambda: linalg.qr(SQUARE),
    "linalg.solve": lambda: linalg.solve(SQUARE, SIDE),
    "sum": lambda: [
        [lp.sum(x, how) for how in accumulators()] for x in (TINY, MIXED[:-1], HALF, SMALL)
    ],
    "mean": lambda: [
        [lp.mean(x, how) for how in accumulators()] for x in (TINY, MIXED[:-1], HALF, SMALL)
    ],
    "cumsum": lambda: [
        [lp.cumsum(x, how) for how in accumulators()] for x in (TINY, MIXED[:-1], HALF, SMALL)
    ],
    "dot": lambda: lp.dot(SHORT[:, 0], REVERSED[:, 0], inputs="float32"),
    "matmul": products,
    "error_bound": lambda: [lp.error_bound(n, how) for n in (7, 900) for how in accumulators()],
    "measure": measured,
    "compare": lambda: lp.compare({"a": MIXED, "b": SMALL}).to_dict(),
    "keepbits": lambda: lp.keepbits(RAMP),
    "trace": traced,
    "bitround": lambda: [lp.bitround(x, 3) for x in (TINY, SMALL, FAINT, MIXED, HALF)],
    "diff": lambda: [
        lp.diff(x, lp.round_to(x, fmt), fmt).to_dict()
        for x in (TINY, SMALL, FAINT, MIXED)
        for fmt in ("bfloat16", "float16")
    ],
    "advise": lambda: [lp.advise(x).to_dict() for x in (TINY, SMALL, FAINT, MIXED)],
    "Arithmetic": lambda: [
        operations(["fma"], 3),
        computed(["add"], 2, "bfloat16", rounding="stochastic", rng=5, flush_to_zero=True),
    ],
    **{f"Arithmetic.{name}": lambda name=name: operations([name], 1) for name in UNARY},
    **{f"Arithmetic.{name}": lambda name=name: operations([name], 2) for name in BINARY},
    "tensors": saved_and_opened,
    "train.fit": trained,
    "train.gradients": lambda: [
        train.gradients(
            network(),
            params(),
            data().x_train,
            data().y_train,
            policy=policy,
            loss="sparse_categorical_crossentropy",
            rng=1,
        )
        for policy in POLICIES
    ],
    "train.predict": lambda: [
        train.predict(network(), params(), data().x_train, policy=policy) for policy in POLICIES
    ],
    "train.predict with samples": lambda: train.predict(
        network(), params(), data().x_train, training=True, samples=3, rng=1
    ),
    "train.evaluate": lambda: train.evaluate(
        network(), params(), data().x_test, data().y_test, loss="sparse_categorical_crossentropy"
    ),
    "train.Sequential.apply": lambda: network().apply(
        params(), data().x_train, training=True, rng=1
    ),
    "train.Sequential.init": lambda: network().init(np.random.default_rng(3), input_shape=(6,)),
    "train.Sequential.fit": kept,
    "train.layer_outputs": lambda: dict(
        train.layer_outputs(network(), params(), data().x_train, policy="float16")
    ),
    "train.dead_units": lambda: train.dead_units(network("relu"), params(), data().x_train),
    "train.fold": folded,
    "train.optimizer_path": lambda: [
        train.optimizer_path(train.Adam(0.3), (1e-19, 2.0), policy=policy)
        for policy in ("float32", "bfloat16")
    ],
    "train.compare_policies": compared_policies,
    "train.LossScale": scaled_losses,
    "train.activations": activated,
    **{f"train.losses.{name}": lambda name=name: scored(name) for name in sorted(losses.LOSSES)},
    **{
        f"train.optimizers.{name}": lambda name=name: optimized(name)
        for name in [
            "SGD",
            "Momentum",
            "Nesterov",
            "RMSProp",
            "AdaGrad",
            "Adam",
            "AdamW",
            "AdaMax",
            "Adadelta",
            "Nadam",
        ]
    },
    "train.initializers": initialized,
    "train.regularizers": regularized,
    "train.schedules": scheduled,
    "train.metrics": averaged,
    "train.data": scaled_data,
    "train.memory": lambda: train.bytes_per_parameter("mixed_float16", train.Adam()),
}

#: public functions that the table has no row for, and why not
ELSEWHERE = {
    "named_formats": "returns constants",
    "tensor_core": "returns accumulators, which matmul has",
    "tensor_cores": "returns constants",
    "named_block_formats": "returns constants",
    "linalg.refine": "takes norms by NumPy's BLAS",
    "train.diagnose": "stops by the clock; its trainings are those of train.fit, which has a row",
    "train.get_policy": "reads words",
    "train.named_policies": "returns constants",
    "train.bytes_per_parameter": "train.memory",
    "train.find_learning_rate": "runs steps of train.fit",
    "train.search": "runs train.fit",
    "train.load_model": "reads what a file holds",
    "train.uniform": "makes an interval, of which train.search draws",
    "train.log_uniform": "makes an interval, of which train.search draws",
    "train.integers": "makes an interval, of which train.search draws",
    "train.__getattr__": "raises",
    "train.ReLU": "makes an Activation, whose function train.activations has",
    "train.Softmax": "makes an Activation, whose function train.activations has",
}


def public_functions() -> set[str]:
    """Return the names of the functions that lowprec and lowprec.train show."""
    names = {name for name in lp.__all__ if is_function(getattr(lp, name))} | {"sum"}
    names |= {f"train.{name}" for name in dir(train) if is_function(getattr(train, name))}
    names |= {f"linalg.{name}" for name in linalg.__all__ if is_function(getattr(linalg, name))}
    makers = {f"train.{name}" for name in optimizers.__all__} | {"train.L1", "train.L2"}
    return names - makers


def is_function(value: Any) -> bool:
    ours = (getattr(value, "__module__", "") or "").startswith("lowprec")
    return ours and callable(value) and not isinstance(value, type)


# Bits ----------------------------------------------------------------------------------------


def bits(value: Any) -> Any:
    """Return what tells a result from every other: arrays and floats by their bits."""
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype}{value.shape}{np.asarray(value).tobytes().hex()}"
    if isinstance(value, float):
        return np.float64(value).tobytes().hex()
    if isinstance(value, enum.Enum | Fraction | lp.Format):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): bits(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    if dataclasses.is_dataclass(value):
        return {
            f.name: bits(getattr(value, f.name)) for f in dataclasses.fields(value) if f.compare
        }
    if isinstance(value, list | tuple):
        return [bits(item) for item in value]
    return str(value)


def digest(found: Any) -> str:
    return hashlib.sha256(json.dumps(bits(found), sort_keys=True).encode()).hexdigest()


def main(state: str) -> None:
    found = {}
    for name, call in CALLS.items():
        with processor.state(state):
            result = call()
        found[name] = digest(result)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
