"""What might cure a failure, the cheapest first: each is a change of one argument of `fit`.

A candidate is only offered after it was trained.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.accumulation.accumulator import Accumulator
from lowprec.formats import Format, float32, get_format
from lowprec.train import initializers, optimizers, schedules
from lowprec.train.diagnosis.parts import shortened, widened, wider
from lowprec.train.diagnosis.places import keys
from lowprec.train.layer_policies import layer_labels
from lowprec.train.loss_scale import LossScale
from lowprec.train.model import Sequential
from lowprec.train.policy import Policy, get_policy, named_policies

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lowprec.train.layers.layer import Layer
    from lowprec.train.optimizing.optimizer import Optimizer
    from lowprec.train.recorder.recorder import Recorder

_NARROW_RANGE = 64  # exponents: formats below have a range that gradients leave
_PENALTIES = ("kernel_regularizer", "bias_regularizer", "gamma_regularizer", "beta_regularizer")
_CLIPS = ("global_clipnorm", "clipnorm", "clipvalue")
_PROGRESS = ("good_steps", "hysteresis_left")  # of a loss scale: where it is, not what it is
_FAR = 8  # powers of two from 1
_DEEP = 3  # saturating layers through which gradients vanish
_OPTIONS_OF_NAMES = {"Nesterov": ("nesterov",)}  # what the name says already


class Candidate(NamedTuple):
    """A change that may cure.

    code: The argument of `fit`, to paste.
    changes: The same as values.
    changes_data: Whether it is held against float32 on the changed data.
    place: What it changes of a training that fails in float32 as well.
    """

    code: str
    changes: dict[str, Any]
    changes_data: bool = False
    place: str | None = None


def policy_code(policy: Policy, layers: Sequence[Layer] = ()) -> str:
    """Return a policy as an argument of `fit`.

    layers: Of the network: what they say themselves is left away.

    Examples
    --------
    >>> policy_code(Policy(compute="bfloat16"))
    "policy='mixed_bfloat16'"
    """
    policy = shortened(policy, layers)
    plain = dataclasses.replace(policy, layers=())
    for name, known in named_policies().items():
        if known == plain and (not policy.places or not policy.name):
            return f"policy={str(dataclasses.replace(policy, name=name))!r}"
    with contextlib.suppress(ValueError):
        if get_policy(str(policy)) == policy:
            return f"policy={str(policy)!r}"
    usual = Policy()
    defaults = {"gradients": policy.compute, "state": policy.params}
    words = [
        f"{field.name}={_argument(getattr(policy, field.name))}"
        for field in dataclasses.fields(policy)[:-2]
        if getattr(policy, field.name) != defaults.get(field.name, getattr(usual, field.name))
    ]
    if policy.places:
        layers_too = {key: {k: str(v) for k, v in fields} for key, fields in policy.places}
        words.append(f"layers={layers_too}")
    return f"policy=train.Policy({', '.join(words)})"


def _argument(value: Any) -> str:
    """Return a field of a policy as code: what has fields itself with those that are not usual."""
    if isinstance(value, LossScale | Accumulator):
        words = [
            f"{field.name}={told}"
            for field in dataclasses.fields(value)
            if field.name not in _PROGRESS
            if (told := _argument(getattr(value, field.name))) != _argument(field.default)
        ]
        package = "train" if isinstance(value, LossScale) else "lowprec"
        return f"{package}.{type(value).__name__}({', '.join(words)})"
    if isinstance(value, enum.Enum):
        return repr(value.value)
    return repr(value) if isinstance(value, int | float | str | None) else repr(str(value))


def _policy(policy: Policy, model: Sequential) -> Candidate:
    return Candidate(policy_code(policy, model.layers), {"policy": policy})


# Causes of precision -----------------------------------------------------------------------------


def of_precision(
    cause: Sequence[str],
    places: Sequence[str],
    policy: Policy,
    optimizer: Optimizer,
    model: Sequential,
    data: Any,
    recorder: Recorder | None,
) -> Iterator[Candidate]:
    """Yield what may cure a failure of these parts in these places, the cheapest first."""
    of_gradients = {"gradients", "loss scale"} & set(cause) and not policy.tensor_scales
    if of_gradients and policy.formats["gradients"].emax < _NARROW_RANGE:
        yield from _loss_scales(policy, model, recorder)
    if "state" in cause:
        yield from _of_state(policy, optimizer)
    if "params" in cause and policy.update == "nearest":
        for update in ("stochastic", "kahan"):
            yield _policy(dataclasses.replace(policy, update=update, name=""), model)
    yield from _wide_stores(cause, policy, model)
    yield from _other_formats(cause, policy, model)
    if "accumulate" in cause and not policy.places and policy.accumulator.order == "sequential":
        pairs = dataclasses.replace(policy.accumulator, order="pairwise")
        yield _policy(dataclasses.replace(policy, accumulate=pairs, name=""), model)
    if "compute" in cause and policy.formats["compute"].bits <= 8:
        if not policy.tensor_scales:
            yield _policy(dataclasses.replace(policy, tensor_scales=True, name=""), model)
        yield _policy(_like(policy, "mxfp8"), model)
    if "compute" in cause:
        yield from _of_data(data)
    yield from _layers(cause, places, policy, model)
    if cause:
        yield _policy(widened(policy, cause), model)


def _loss_scales(
    policy: Policy, model: Sequential, recorder: Recorder | None
) -> Iterator[Candidate]:
    usual = dataclasses.replace(policy, loss_scale="dynamic").loss_scale
    is_static = isinstance(policy.loss_scale, LossScale) and policy.loss_scale.is_static
    scales: list[Any] = [] if is_static or policy.loss_scale == usual else ["dynamic"]
    if recorder is not None:
        try:
            advice = recorder.loss_scale(policy.formats["gradients"])
        except ValueError:  # there is no gradient to tell it from
            advice = None
        if advice is not None and advice.works:
            scales.append(advice.recommended)
    if is_static:
        scales.append("dynamic")
    for scale in scales:
        yield _policy(dataclasses.replace(policy, loss_scale=scale, name=""), model)


def _of_state(policy: Policy, optimizer: Optimizer) -> Iterator[Candidate]:
    numbers, state = optimizer.hyperparameters, policy.formats["state"]
    epsilon = numbers.get("epsilon")
    if epsilon is not None:
        for least in (state.smallest_normal, math.sqrt(state.smallest_subnormal)):
            larger = float(f"{2.0 ** math.ceil(math.log2(least)):.2g}")
            if larger > epsilon and larger < 1:
                yield from _optimizer(optimizer, epsilon=larger)
    if (beta_2 := numbers.get("beta_2")) is not None and beta_2 > 0.99:
        yield from _optimizer(optimizer, beta_2=0.99)
    if (rho := numbers.get("rho")) is not None and rho > 0.9:
        yield from _optimizer(optimizer, rho=0.9)
    momentum = numbers.get("momentum")
    if momentum and momentum > 0.99 and not callable(optimizer.learning_rate):
        less = 0.99
        rate = optimizer.learning_rate * (1 - less) / (1 - momentum)  # the same steps in the end
        yield from _optimizer(optimizer, rate=float(f"{rate:.3g}"), momentum=less)


def _wide_stores(cause: Sequence[str], policy: Policy, model: Sequential) -> Iterator[Candidate]:
    for part in ("state", "params"):
        if part in cause:
            yield _policy(widened(policy, [part]), model)


def _other_formats(cause: Sequence[str], policy: Policy, model: Sequential) -> Iterator[Candidate]:
    """Yield the same policy in bfloat16 where it is in less, and in float16 where in bfloat16."""
    if policy.has_blocks and {"compute", "gradients"} & set(cause):
        for name in ("mxfp8", "mixed_bfloat16"):
            yield _policy(_like(policy, name), model)
    formats = {part: fmt for part, fmt in policy.formats.items() if fmt != float32}
    narrow = [*formats.items()]
    for _, fields in policy.places:
        narrow += [
            (part, fmt) for part, fmt in fields if isinstance(fmt, Format) and fmt != float32
        ]
    blamed = [fmt for part, fmt in narrow if part in cause] or [fmt for _, fmt in narrow]
    bfloat16, float16 = get_format("bfloat16"), get_format("float16")
    if any(fmt.emax < _NARROW_RANGE for fmt in blamed):
        yield _policy(_in(policy, bfloat16, loss_scale=None), model)
    if any(fmt.precision < float16.precision for fmt in blamed):
        scale = policy.loss_scale
        if scale is None and any(part == "gradients" for part, _ in narrow):
            scale = "dynamic"
        yield _policy(_in(policy, float16, loss_scale=scale), model)


def _like(policy: Policy, name: str) -> Policy:
    """Return a policy with the operands of products as a named one has them."""
    words = ("compute", "gradients", "weights", "gradient_rounding", "hadamard", "tensor_scales")
    other = {word: getattr(get_policy(name), word) for word in words}
    return dataclasses.replace(policy, **other, name="")


def _in(policy: Policy, fmt: Format, **others: Any) -> Policy:
    """Return a policy with another format wherever it is narrow but in sums, one for all places."""
    narrow = {part for part, its in policy.formats.items() if its != float32}
    changes: dict[str, Any] = {part: fmt for part in narrow if part != "accumulate"}
    places = {
        key: {
            part: fmt
            if isinstance(its, Format) and its != float32 and part != "accumulate"
            else its
            for part, its in fields
            if part not in narrow
        }
        for key, fields in policy.places
    }
    return dataclasses.replace(
        policy, **changes, **others, tensor_scales=False, layers=places, name=""
    )


def _of_data(data: Any) -> Iterator[Candidate]:
    if not hasattr(data, "scaled"):
        return
    yield from _of_magnitudes(data)
    scaled = {"data": data.scaled("standard")}
    yield Candidate('data=data.scaled("standard")', scaled, True, "the inputs")
    if getattr(data, "is_classification", True) or not len(data.y_train):
        return
    both = {"data": data.scaled("standard", targets=True)}
    yield Candidate(
        'data=data.scaled("standard", targets=True)', both, True, "the inputs and targets"
    )
    mean = data.y_train.mean(axis=0)
    yield Candidate(
        "data=train.Dataset(data.x_train, data.y_train - data.y_train.mean(axis=0), data.x_test, "
        "data.y_test - data.y_train.mean(axis=0))",
        {"data": dataclasses.replace(data, y_train=data.y_train - mean, y_test=data.y_test - mean)},
        True,
        "the targets",
    )


def _of_magnitudes(data: Any) -> Iterator[Candidate]:
    """Yield inputs, all tiny or all huge, times a power of two, which loses nothing."""
    largest = float(np.abs(data.x_train).max(initial=0))
    exponent = 0 if largest == 0 else -math.floor(math.log2(largest))
    if abs(exponent) < _FAR:
        return
    power = 2.0**exponent
    changed = dataclasses.replace(data, x_train=data.x_train * power, x_test=data.x_test * power)
    code = (
        f"data=train.Dataset(data.x_train * 2.0**{exponent}, data.y_train, data.x_test * "
        f"2.0**{exponent}, data.y_test)"
    )
    yield Candidate(code, {"data": changed}, True, "the inputs")


def _layers(
    cause: Sequence[str], places: Sequence[str], policy: Policy, model: Sequential
) -> Iterator[Candidate]:
    """Yield the blamed places alone wide, and the last layer."""
    parts = [part for part in cause if part not in ("loss scale", "tensor scales")]
    if not parts:
        return
    last = str(len(model.layers) - 1)
    every = [str(number) for number in range(len(model.layers))]
    choices = [list(places)] if places and list(places) != every else []
    if {"compute", "gradients"} & set(parts) and [last] not in choices and len(model.layers) > 1:
        choices.append([last])
    for some in choices:
        is_guess = some == [last] != list(places)  # to keep the last layer wide often does
        wide = ["compute", "gradients"] if parts == ["compute"] and is_guess else parts
        yield _policy(wider(policy, wide, keys(some, model.layers)), model)


# Causes that are no matter of precision ----------------------------------------------------------


def of_training(optimizer: Optimizer, model: Sequential, data: Any) -> Iterator[Candidate]:
    """Yield what may cure a training that fails in float32 as well."""
    numbers = optimizer.hyperparameters
    for word in _CLIPS:
        if numbers.get(word) and numbers[word] < 1:
            place = f"the optimizer's {word}"
            yield from (one._replace(place=place) for one in _optimizer(optimizer, **{word: 1.0}))
    yield from _with_usual_numbers(optimizer)
    yield from _started_usually(model)
    yield from _with_relu(model)
    yield from _without_penalty(model)
    if not callable(optimizer.learning_rate):
        rates = [optimizer.learning_rate * factor for factor in (0.1, 0.01, 0.001, 10.0, 100.0)]
        if (make := getattr(optimizers, optimizer.name, None)) is not None:
            rates += [make().learning_rate * factor for factor in (1, 10, 100)]  # the usual one
        for rate in rates:
            for one in _optimizer(optimizer, rate=float(f"{rate:.3g}")):
                yield one._replace(place="the learning rate")
    yield from _of_data(data)


def _with_usual_numbers(optimizer: Optimizer) -> Iterator[Candidate]:
    """Yield the same optimizer with one of its numbers as it usually is."""
    make = getattr(optimizers, optimizer.name, None)
    usual = {} if make is None else make().hyperparameters
    for word, value in optimizer.hyperparameters.items():
        if word in usual and value != usual[word] and word not in _CLIPS:
            for one in _optimizer(optimizer, **{word: usual[word]}):
                yield one._replace(place=f"the optimizer's {word}")


def _started_usually(model: Sequential) -> Iterator[Candidate]:
    """Yield the same network started from the usual initializers."""
    layers = []
    for layer in model.layers:
        relu = getattr(getattr(layer, "function", None), "name", "") == "relu"
        usual: dict[str, Any] = {}
        for name in layer.parameters:
            field = f"{name}_initializer"
            default = type(layer).__dataclass_fields__.get(field)
            if default is None or default.default is dataclasses.MISSING:
                continue
            best = "he_normal" if relu and name == "kernel" else default.default
            now = getattr(layer, field)
            if initializers.get(now) != initializers.get(default.default):
                usual[field] = best
        layers.append(dataclasses.replace(layer, **usual) if usual else layer)
    if list(model.layers) != layers:
        other = Sequential(layers, model.input_shape)
        code = f"model={_model_code(other)}"
        yield Candidate(code, {"model": other}, place="the initial parameters")


def _without_penalty(model: Sequential) -> Iterator[Candidate]:
    """Yield the same network without what penalises its parameters."""
    layers = []
    for layer in model.layers:
        none: dict[str, Any] = {
            name: None for name in _PENALTIES if getattr(layer, name, None) is not None
        }
        layers.append(dataclasses.replace(layer, **none) if none else layer)
    if layers != list(model.layers):
        other = Sequential(layers, model.input_shape)
        yield Candidate(f"model={_model_code(other)}", {"model": other}, place="the regularizers")


def _with_relu(model: Sequential) -> Iterator[Candidate]:
    """Yield a deep network with relu for what saturates, so that gradients pass."""
    hidden = model.layers[:-1]
    saturates = [
        getattr(getattr(layer, "function", None), "name", "") in ("sigmoid", "tanh")
        and hasattr(layer, "kernel_initializer")
        for layer in hidden
    ]
    if sum(saturates) < _DEEP:
        return
    changed: dict[str, Any] = {"activation": "relu", "kernel_initializer": "he_normal"}
    layers = [
        dataclasses.replace(layer, **changed) if is_one else layer
        for layer, is_one in zip(hidden, saturates, strict=True)
    ]
    other = Sequential([*layers, model.layers[-1]], model.input_shape)
    yield Candidate(f"model={_model_code(other)}", {"model": other}, place="the activations")


def of_user_code(place: str, model: Sequential, data: Any, loss: Any) -> Iterator[Candidate]:
    """Yield what may spare a function of the user's the numbers on which it fails."""
    labels = layer_labels(model.layers)
    if place in labels:
        number = labels.index(place)
        before = model.layers[number - 1] if number else None
        if before is not None and getattr(before, "function", None) is not None:
            for activation in ("sigmoid", "tanh"):
                changed = dataclasses.replace(before, activation=activation)  # type: ignore[call-arg]
                layers = [*model.layers[: number - 1], changed, *model.layers[number:]]
                other = Sequential(layers, model.input_shape)
                yield Candidate(f"model={_model_code(other)}", {"model": other})
        yield from _of_data(data)
        return
    yield from _started_usually(model)
    if getattr(data, "is_classification", False):
        name = "sparse_categorical_crossentropy"
        yield Candidate(f"loss={name!r}", {"loss": name})
    elif len(y_train := getattr(data, "y_train", ())) and set(np.unique(y_train)) == {0, 1}:
        yield Candidate("loss='binary_crossentropy'", {"loss": "binary_crossentropy"})
    elif not getattr(data, "is_classification", True) and len(data.y_train):
        mean, sd = data.y_train.mean(axis=0), data.y_train.std(axis=0)
        if (sd > 0).all():
            y, y_test = (data.y_train - mean) / sd, (data.y_test - mean) / sd
            yield Candidate(
                "data=train.Dataset(data.x_train, (data.y_train - data.y_train.mean(axis=0)) / "
                "data.y_train.std(axis=0), data.x_test, (data.y_test - data.y_train.mean(axis=0)) "
                "/ data.y_train.std(axis=0))",
                {"data": dataclasses.replace(data, y_train=y, y_test=y_test)},
                True,
            )
        yield Candidate("loss='mse'", {"loss": "mse"})


def without_callback(others: list[Any]) -> Candidate:
    """Return a training with other callbacks only."""
    names = ", ".join(f"{type(one).__name__}(…)" for one in others)
    return Candidate(f"callbacks=[{names}]", {"callbacks": others})


# Code --------------------------------------------------------------------------------------------


def _optimizer(
    optimizer: Optimizer, *, rate: float | None = None, **changes: Any
) -> Iterator[Candidate]:
    """Yield the same optimizer with other numbers; nothing for one of the user's own."""
    make = getattr(optimizers, optimizer.name, None)
    if make is None:
        return
    said = _OPTIONS_OF_NAMES.get(optimizer.name, ())
    numbers = {k: v for k, v in optimizer.hyperparameters.items() if k not in said} | changes
    rate = optimizer.learning_rate if rate is None else rate  # type: ignore[assignment]
    try:
        other, plain = make(rate, **numbers), make(rate)
    except TypeError:
        return
    shown = {
        name: value for name, value in numbers.items()
        if plain.hyperparameters.get(name) != value
    }  # fmt: skip
    if (told := repr(rate)).partition("(")[0] in schedules.__all__:
        told = f"train.schedules.{told}"
    words = ", ".join([told, *(f"{name}={value!r}" for name, value in shown.items())])
    yield Candidate(f"optimizer=train.{optimizer.name}({words})", {"optimizer": other})


def _model_code(model: Sequential) -> str:
    """Return the call that makes a model, with lowprec's names as ``train``'s."""
    from lowprec.train import layers as ours

    known = {*vars(ours), "Sequential"}

    def prefixed(match: re.Match[str]) -> str:
        name = match[1]
        if name in known:
            return f"train.{name}("
        return f"train.initializers.{name}(" if hasattr(initializers, name) else f"{name}("

    return re.sub(r"(?<![\w.])([A-Z]\w*)\(", prefixed, repr(model))
