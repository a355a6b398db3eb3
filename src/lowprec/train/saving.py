"""A model in one file: layers, parameters, what `compile` was told, and what `fit` goes on from.

The file is an archive (`lowprec.train.running.archive`): arrays bit for bit, all else as JSON. Each
value is written as the call that makes it, by a name of the table here; reading a file runs no code
but that of these classes. What a user defines is written by its name, and given to the reader.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.accumulation import Accumulator
from lowprec.blocks import BlockFormat
from lowprec.blocks.formats import IntegerFormat, ScaleRule
from lowprec.common.outputs import Output, check_outputs
from lowprec.common.processor_state import is_lowprecs
from lowprec.formats import Format, Specials
from lowprec.rounding import Overflow, Rounding
from lowprec.train import (
    activations,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    regularizers,
    schedules,
)
from lowprec.train.dataset import TargetScale
from lowprec.train.loss_scale import LossScale
from lowprec.train.optimizing.optimizer import Optimizer
from lowprec.train.policy import Policy
from lowprec.train.running.archive import (
    archive_kind,
    arrays_in,
    in_folder,
    read_archive,
    write_archive,
)
from lowprec.train.running.history import History, TrainedParams, target_scale_of

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from lowprec.train.layers.layer import Layer, Shape
    from lowprec.train.losses import Loss

Array = np.ndarray[Any, Any]

MODEL = archive_kind("model")

_CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        *(layers.Activation, layers.AlphaDropout, layers.BatchNormalization, layers.Conv2D),
        *(layers.Dense, layers.Dropout, layers.ELU, layers.Flatten, layers.LayerNormalization),
        *(layers.LeakyReLU, layers.MaxPooling2D, layers.AveragePooling2D, layers.Reshape),
        *(layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D),
        *(initializers.VarianceScaling, initializers.RandomNormal, initializers.Constant),
        *(initializers.RandomUniform, initializers.TruncatedNormal),
        *(regularizers.L1L2, regularizers.MaxNorm),
        *(schedules.Power, schedules.Exponential, schedules.PiecewiseConstant, schedules.Cosine),
        *(schedules.OneCycle, schedules.WarmUp, schedules.Performance),
        *(metrics.NamedMetric, Policy, LossScale, Accumulator, Format, BlockFormat, IntegerFormat),
        *(Specials, ScaleRule, Rounding, Overflow),
    )
}


class Compiled(NamedTuple):
    """What `Sequential.compile` was told."""

    optimizer: Optimizer
    loss: str | Loss
    metrics: tuple[Any, ...]
    policy: Policy


class Saved(NamedTuple):
    """What a file of a model holds.

    input_shape: What an `Input` says.
    seen_shape: The shape of the samples of `fit`.
    compiled: What `compile` was told.
    history: What `fit` goes on from.
    """

    layers: tuple[Layer, ...]
    input_shape: Shape | None
    seen_shape: Shape | None
    params: dict[str, Array] | None
    compiled: Compiled | None
    history: History | None

    def of_weights(self, params: dict[str, Array] | None = None) -> Saved:
        """Return the layers and parameters alone."""
        params = self.params if params is None else params
        return self._replace(params=params, compiled=None, history=None)


def write_model(path: str | os.PathLike[str], model: Saved, *, overwrite: bool = False) -> None:
    """Write a model to a file that is complete or not there; a saved model is replaced.

    Raises OSError if the file cannot be written, or exists and is not a saved model.
    Raises TypeError if a value has no name by which it could be found again, such as a lambda.
    """
    check_outputs([Output(path, MODEL)], overwrite=overwrite)
    params = model.params or {}
    arrays: dict[str, Array] = {}
    history = None
    if model.history is not None:
        arrays, history = model.history.packed()
    arrays |= in_folder("params", params)
    scale = target_scale_of(params)
    header = {
        "content": "model",
        "layers": [_written(layer) for layer in model.layers],
        "input_shape": model.input_shape,
        "seen_shape": model.seen_shape,
        "has_params": model.params is not None,
        "target_scale": None if scale is None else [list(part) for part in scale],
        "compiled": None if model.compiled is None else _written_compiled(model.compiled),
        "history": history,
    }
    write_archive(path, arrays, header)


def read_model(
    path: str | os.PathLike[str], objects: Mapping[str, Any], *, is_compiled: bool = True
) -> Saved:
    """Return what `write_model` wrote, every number bit for bit.

    objects: What the user defined: layers' classes, losses, metrics, optimizers, by name.
    is_compiled: Whether to read what `compile` was told.
    Raises FileNotFoundError if there is no such file.
    Raises ValueError if it is damaged, holds something else, or names what is not among `objects`.
    """
    arrays, header = _opened(path)
    params = _params_of(arrays, header)
    compiled = history = None
    if is_compiled and header["compiled"] is not None:
        compiled = _read_compiled(header["compiled"], objects)
    if is_compiled and header["history"] is not None:
        history = History.unpacked(arrays, header["history"])
    return Saved(
        tuple(_read(layer, objects) for layer in header["layers"]),
        _shape(header["input_shape"]),
        _shape(header["seen_shape"]),
        params,
        compiled,
        history,
    )


def read_params(path: str | os.PathLike[str]) -> TrainedParams:
    """Return the parameters in a file of `write_model`, whatever the layers; errors as for those.

    Raises ValueError if the file holds none.
    """
    arrays, header = _opened(path)
    found = _params_of(arrays, header)
    if found is None:
        raise ValueError(f"{path} holds a model without weights; fit it before it is saved")
    return found


def _shape(numbers: list[int] | None) -> Shape | None:
    return None if numbers is None else tuple(numbers)


def _opened(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays and the header of a model's file."""
    try:
        arrays, header = read_archive(path)
    except ValueError:
        _explain_keras(path)
        raise
    if header.get("content") != "model":
        kind = header.get("content")
        hint = "History.load reads it" if kind == "history" else "model.save writes models"
        raise ValueError(f"{path} holds a {kind} and no model; {hint}")
    return arrays, header


def _params_of(arrays: dict[str, Array], header: dict[str, Any]) -> TrainedParams | None:
    if not header["has_params"]:
        return None
    scale = header["target_scale"]
    return TrainedParams(
        arrays_in("params", arrays),
        None if scale is None else TargetScale(*map(tuple, scale)),
    )


def _explain_keras(path: str | os.PathLike[str]) -> None:
    """Raise an error that knows more where Keras itself wrote the file."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if "config.json" in archive.namelist():
            raise ValueError(
                f"{path} was written by Keras; build the same layers here and pass its weights: "
                "model.set_weights(keras.saving.load_model(path).get_weights())"
            )


# What compile was told ---------------------------------------------------------------------------


def _written_compiled(compiled: Compiled) -> dict[str, Any]:
    optimizer = compiled.optimizer
    maker = {"name": optimizer.name, "learning_rate": _written(optimizer.learning_rate)}
    maker |= {"numbers": {n: _written(v) for n, v in optimizer.hyperparameters.items()}}
    return {
        "optimizer": maker,
        "loss": _written_loss(compiled.loss),
        "metrics": [_written_metric(metric) for metric in compiled.metrics],
        "policy": _written(compiled.policy),
    }


def _read_compiled(found: Mapping[str, Any], objects: Mapping[str, Any]) -> Compiled:
    maker = found["optimizer"]
    if maker["name"] in objects:
        optimizer = objects[maker["name"]]
        optimizer = optimizer if isinstance(optimizer, Optimizer) else optimizer()
    else:
        numbers = {n: _read(v, objects) for n, v in maker["numbers"].items()}
        rate = _read(maker["learning_rate"], objects)
        made = optimizers.remade(maker["name"], rate, numbers)
        if made is None:
            raise ValueError(_unknown(maker["name"], "an optimizer"))
        optimizer = made
    loss = _read(found["loss"], objects)
    read = [_read(metric, objects) for metric in found["metrics"]]
    return Compiled(optimizer, loss, tuple(read), _read(found["policy"], objects))


def _written_loss(loss: str | Loss) -> Any:
    names = [name for name, known in losses.LOSSES.items() if known is loss]
    return _written(names[0] if names else loss)


def _written_metric(metric: Any) -> Any:
    if isinstance(metric, metrics.Metric):
        try:
            metrics.get(metric.name)
        except ValueError:
            return {"defined": metric.name}
        return metric.name
    return _written(metric)


# Values as JSON ----------------------------------------------------------------------------------


def _written(value: Any) -> Any:
    """Return a value as JSON holds it: a dictionary says how to make what JSON has not."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return {"tuple": [_written(one) for one in value]}
    if isinstance(value, list):
        return [_written(one) for one in value]
    if isinstance(value, activations.ActivationFunction):
        made_by = value.made_by
        if made_by is None and activations.NAMED.get(value.name) is not value:
            return {"defined": value.name}
        name, numbers = made_by or (value.name, {})
        return {"activation": name, "numbers": dict(numbers)}
    cls = type(value)
    if isinstance(value, enum.Enum) and is_lowprecs(cls):
        return {"member": cls.__name__, "name": value.name}
    is_ours = _CLASSES.get(cls.__name__) is cls
    if dataclasses.is_dataclass(cls) and (is_ours or isinstance(value, layers.Layer)):
        return {"class" if is_ours else "defined": cls.__name__, "fields": _fields(value)}
    if isinstance(value, functools.partial):
        inner = _written_loss(value.func)
        words = {n: _written(v) for n, v in value.keywords.items()}
        return {"partial": inner, "arguments": _written(value.args), "words": words}
    for word, loss in losses.LOSSES.items():
        if loss is value:
            return {"loss": word}
    own_name: Any = getattr(value, "__name__", None)
    if not own_name or own_name == "<lambda>":
        raise TypeError(
            f"{value!r} has no name under which a file could ask for it; give it one, with def, "
            "and pass it to train.load_model(path, custom_objects={…})"
        )
    return {"defined": own_name}


def _fields(value: Any) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    found = {}
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        if field.init and (field.default is dataclasses.MISSING or own != field.default):
            found[field.name] = _written(own)
    return found


def _read(value: Any, objects: Mapping[str, Any]) -> Any:
    """Return what `_written` wrote."""
    if isinstance(value, list):
        return [_read(one, objects) for one in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"tuple": items}:
            return tuple(_read(one, objects) for one in items)
        case {"activation": name, "numbers": numbers}:
            found = activations.get(name)
            return found.family(**numbers) if numbers and found.family else found
        case {"member": name, "name": member}:
            return _CLASSES[name][member]  # type: ignore[index]
        case {"class": name, "fields": fields}:
            return _CLASSES[name](**{n: _read(v, objects) for n, v in fields.items()})
        case {"partial": inner, "arguments": arguments, "words": words}:
            function = _read(inner, objects)
            function = losses.get(function) if isinstance(function, str) else function
            given = {n: _read(v, objects) for n, v in words.items()}
            return functools.partial(function, *_read(arguments, objects), **given)
        case {"loss": name}:
            return losses.get(name)
        case {"defined": name, "fields": fields} if name in objects:
            return objects[name](**{n: _read(v, objects) for n, v in fields.items()})
        case {"defined": name} if name in objects:
            return objects[name]
        case {"defined": name}:
            raise ValueError(_unknown(name, "something"))
    raise ValueError(f"the file holds {json.dumps(value)[:80]}, which this lowprec cannot read")


def _unknown(name: str, what: str) -> str:
    return (
        f"the model uses {name!r}, {what} that lowprec does not define; write "
        f"train.load_model(path, custom_objects={{{name!r}: …}}), or compile=False and compile anew"
    )
