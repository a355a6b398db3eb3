"""What Keras has and lowprec has not, and the line to type instead."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any

from lowprec.common.names import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

_POLICY = (
    "a policy is an argument, so that no setting elsewhere changes a number; pass policy=, as in "
    "model.compile(optimizer='adam', loss='mse', policy='mixed_bfloat16') or train.fit(…, "
    "policy='mixed_bfloat16')"
)
_OF_ITS_OWN = (
    "lowprec trains layers one after the other: train.Sequential([train.Input((4,)), "
    "train.Dense(3)])"
)
_ONE_FILE = "model.save(path) writes layers, weights, policy and optimizer to one file"

IN_TRAIN = {
    "set_global_policy": _POLICY,
    "mixed_precision": _POLICY,
    "set_dtype_policy": _POLICY,
    "config": _POLICY,
    "backend": "drop the line: numbers and seeds are arguments here (policy=, rng=)",
    "utils": "train.data.to_categorical(y) is there, seeds are arguments (fit(…, rng=42)), "
    "model.summary() is the picture",
    "models": "train.Sequential and train.load_model are here",
    "datasets": "train.data has digits, iris and load_npz('mnist.npz', channel_axis=True)",
    "constraints": "train.MaxNorm(2.0) is here, and any function of the weights is a constraint",
    "applications": "build the layers, and take the weights with model.set_weights(…)",
    "preprocessing": "NumPy and scikit-learn prepare data; train.data.load_npz reads images",
    "Model": _OF_ITS_OWN,
    "random": "seeds are arguments here, as in model.fit(x, y, rng=42)",
    "ops": "NumPy computes: a loss or a layer of your own gets NumPy arrays",
}
IN_LAYERS = {
    "InputLayer": "write train.Input((4,)), one sample's shape",
    "Rescaling": "scale the samples: x = x / 255",
    "Normalization": "scale the data: train.Dataset(x, y).scaled('standard')",
    "Embedding": "one-hot rows stand for it: Dense(units, use_bias=False)",
    "Concatenate": _OF_ITS_OWN,
    "Add": _OF_ITS_OWN,
}
IN_CALLBACKS = {
    "TensorBoard": "train.Recorder(every=10) records tensors, CSVLogger('log.csv') the curves",
    "BackupAndRestore": "Checkpoint('run.npz') saves, fit(…, resume='run.npz') goes on",
    "ProgbarLogger": "fit shows progress by itself: verbose=1",
    "RemoteMonitor": "LambdaCallback(on_epoch_end=…) sends what you like",
    "History": "fit returns the history, and model.history keeps it",
    "SwapEMAWeights": "no weights are averaged: drop it",
}
IN_METRICS = {
    "F1Score": "metrics=['precision', 'recall'], or a function of (y_true, y_pred)",
    "Mean": "metrics=[a function of (y_true, y_pred)] is averaged over samples",
    "Metric": "metrics=[a function of (y_true, y_pred)] is averaged over samples",
    "Accuracy": "metrics=['accuracy'] suits the loss",
}
IN_OPTIMIZERS = {
    "Ftrl": "train.AdaGrad with kernel_regularizer='l1' is near",
    "Adafactor": "train.Adam with policy='bfloat16_stochastic' halves the state",
    "Lion": "write your own: train.Optimizer, as the guide on networks shows",
    "Muon": "write your own: train.Optimizer, as the guide on networks shows",
}
IN_MODEL = {
    "weights": "model.params are the parameters by name, model.get_weights() a list",
    "trainable_weights": "model.params are the parameters by name",
    "trainable_variables": "model.params are the parameters by name",
    "non_trainable_weights": "model.params holds moving statistics by name too",
    "to_json": _ONE_FILE,
    "export": _ONE_FILE,
    "get_config": "repr(model) is the call that makes it, and " + _ONE_FILE,
    "from_config": "train.load_model(path) reads what model.save(path) wrote",
    "output_shape": "model.shapes()[-1] is the shape of one sample's output",
    "input": "train.layer_outputs(model, model.params, x) has the outputs of every layer",
    "output": "train.layer_outputs(model, model.params, x) has the outputs of every layer",
    "metrics_names": "model.evaluate(x, y, return_dict=True) names its numbers",
    "reset_metrics": "drop the line: every call has metrics of its own",
    "predict_classes": "write model.predict(x).argmax(axis=1)",
    "predict_proba": "write model.predict(x)",
    "fit_generator": "model.fit takes a generator, with steps_per_epoch=",
    "evaluate_generator": "write model.evaluate(x, y)",
}
_ARGUMENTS = {
    "validation_freq": "it is validated after every epoch: drop validation_freq",
    "validation_batch_size": "it has no influence on the numbers: drop it",
    "workers": "batches are read one at a time: drop it",
    "use_multiprocessing": "batches are read one at a time: drop it",
    "max_queue_size": "batches are read one at a time: drop it",
    "callbacks": "callbacks look at a training: pass them to fit",
    "run_eagerly": "everything runs as it is written: drop run_eagerly",
    "jit_compile": "everything runs as it is written: drop jit_compile",
    "steps_per_execution": "a step is a step: drop steps_per_execution",
    "weighted_metrics": "metrics count every sample once: metrics=[…]",
    "loss_weights": "a model has one output and one loss: drop loss_weights",
    "line_length": "the table takes the width of the terminal: drop line_length",
}
_OF_LAYERS = {
    "seed": "draws come from one generator, fit(…, rng=1): drop seed",
    "activity_regularizer": "weights are penalised: kernel_regularizer='l2'",
    "axis": "features are the last axis: drop axis",
    "data_format": "channels are the last axis: drop data_format",
    "dilation_rate": "windows have no holes: drop dilation_rate",
    "groups": "each filter reads every channel: drop groups",
    "noise_shape": "each number is dropped by itself: drop noise_shape",
    "batch_input_shape": "begin the model with train.Input((4,)), one sample's shape",
    "batch_size": "fit has batch_size: drop it",
    "init": "write kernel_initializer",
    "init_mode": "write kernel_initializer",
    "W_regularizer": "write kernel_regularizer",
}
_FIT_PLACES = ("batch_size", "epochs", "verbose", "callbacks", "validation_split")


def elsewhere(what: str, name: str, table: Mapping[str, str]) -> AttributeError:
    """Return the error for something of Keras' that is called, or done, otherwise here."""
    return AttributeError(f"{what} has no {name!r}: {table[name]}")


def no_attribute(module: str, name: str, table: Mapping[str, str]) -> AttributeError:
    """Return the error for a name that a module has not, whether Keras has it or not."""
    if name in table:
        return elsewhere(module, name, table)
    return AttributeError(f"module {module!r} has no attribute {name!r}")


def no_layer(name: str, known: Collection[str]) -> AttributeError:
    """Return the error for a layer that there is not."""
    if name in IN_LAYERS:
        return elsewhere("lowprec.train.layers", name, IN_LAYERS)
    near = did_you_mean(difflib.get_close_matches(name, known, n=1))
    return AttributeError(
        f"lowprec.train.layers has no {name!r}; {near}it has {', '.join(sorted(known))}; a layer "
        "of your own is a frozen dataclass with forward and backward, as train.Layer tells"
    )


def refuse(
    others: Mapping[str, Any], method: Callable[..., Any], handed_on: Sequence[str] = ()
) -> None:
    """Raise a TypeError that names an argument that a method neither knows nor hands on."""
    for word in others:
        if word in handed_on:
            continue
        if word in _ARGUMENTS:
            raise TypeError(f"{method.__name__} has no argument {word!r}; {_ARGUMENTS[word]}")
        takes = inspect.signature(method).parameters.values()
        named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        known = [one.name for one in takes if one.kind in named and one.name not in ("x", "y")]
        known += handed_on
        near = did_you_mean(difflib.get_close_matches(word, known, n=1, cutoff=0.5))
        hint = f"{near}it takes {', '.join(known)}"
        raise TypeError(f"{method.__name__} has no argument {word!r}; {hint}")


def refuse_of_layer(cls: type, words: Mapping[str, Any]) -> None:
    """Raise a TypeError that names an argument that a layer does not know."""
    takes = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    if any(one.kind is one.VAR_KEYWORD for one in takes.values()):
        return
    known = list(takes)[1:]
    for word in words:
        if word not in takes:
            near = did_you_mean(difflib.get_close_matches(word, known, n=1))
            hint = _OF_LAYERS.get(word, f"{near}it takes {', '.join(known)}")
            raise TypeError(f"{cls.__name__} has no argument {word!r}; {hint}")


def refuse_places(values: Sequence[Any]) -> None:
    """Raise a TypeError for arguments of fit behind x and y that have no name."""
    if values:
        named = ", ".join(f"{n}={v!r}" for n, v in zip(_FIT_PLACES, values, strict=False))
        raise TypeError(f"fit takes x and y by place, all else by name: write fit(x, y, {named})")
