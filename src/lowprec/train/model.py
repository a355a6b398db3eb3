"""A network: layers one after the other, the names of their parameters, and Keras' methods."""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.names import did_you_mean
from lowprec.common.processor_state import in_exact_state, in_exact_state_but_users_code
from lowprec.common.randomness import as_generator, draw_key
from lowprec.train import losses, optimizers
from lowprec.train import metrics as _metrics
from lowprec.train.layers.input import Input
from lowprec.train.layers.layer import Array, Layer, Shape
from lowprec.train.policy import get_policy
from lowprec.train.running import loop, passes, prediction
from lowprec.train.running.feeding import inputs_of
from lowprec.train.running.history import History, TrainedParams, target_scale_of
from lowprec.train.running.logits import trained_network
from lowprec.train.running.training import drawn_params
from lowprec.train.saving import Compiled, Saved, read_model, write_model

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, DTypeLike

    from lowprec.common.randomness import RNGLike
    from lowprec.train.callbacks import Callback
    from lowprec.train.losses import Loss
    from lowprec.train.optimizing.optimizer import Optimizer
    from lowprec.train.policy import Policy
    from lowprec.train.running.training import Follower
    from lowprec.train.summary import Summary

Params = dict[str, Array]


class Sequential:
    """Layers that each read what the one before wrote.

    The layers alone are the model's value: what is equal, hashed and printed. Functions such as
    `train.fit` never change a model; the methods with Keras' names keep in it what Keras keeps
    there: parameters, the optimizer's state, what `compile` was told.

    Parameters
    ----------
    layers : sequence of Layer, optional
        An `Input` may stand first; it is kept as `input_shape`, and not counted. Without layers the
        model is empty, for `add`.
    input_shape : tuple of int, optional
        One sample's shape, where no `Input` says it.

    Attributes
    ----------
    layers : tuple of Layer
        The layers.
    input_shape : tuple of int or None
        One sample's shape, where it is known.

    Raises
    ------
    TypeError
        If something in the list is not a layer.
    ValueError
        If the list is empty, or a layer cannot take what comes before it.

    Examples
    --------
    >>> from lowprec.train.layers import Dense
    >>> model = Sequential([Input((4,)), Dense(8, activation="relu"), Dense(3)])
    >>> {name: w.shape for name, w in model.init(rng=0).items()}
    {'0/kernel': (4, 8), '0/bias': (8,), '1/kernel': (8, 3), '1/bias': (3,)}

    As in Keras:

    >>> model = Sequential()
    >>> model.add(Input((1,)))
    >>> model.add(Dense(1))
    >>> model.compile(optimizer="sgd", loss="mse", policy="mixed_bfloat16")
    >>> x = np.linspace(-1, 1, 64)
    >>> history = model.fit(x, 2 * x, epochs=3, verbose=0)
    >>> model.predict([0.5]).shape
    (1, 1)
    """

    def __init__(
        self,
        layers: Iterable[Layer | Input] | None = None,
        input_shape: Shape | None = None,
    ) -> None:
        self._layers: tuple[Layer, ...] = ()
        self._input_shape: Shape | None = None
        self._compiled: Compiled | None = None
        self._params: Params | None = None
        self._earlier: History | None = None
        self._seen_shape: Shape | None = None  # of the samples of `fit`, where no Input says it
        if isinstance(layers, Layer | Input):
            raise TypeError(f"{layers!r} is one layer; pass a list, as in Sequential([{layers!r}])")
        found = None if layers is None else list(layers)
        first = found[0] if found else None
        if isinstance(first, Input) and input_shape is not None:
            raise ValueError("the model has an Input and input_shape; leave one out")
        if found is not None and not any(not isinstance(layer, Input) for layer in found):
            raise ValueError(
                "a model needs layers, as in Sequential([Input((4,)), Dense(3)]); to add them one "
                "by one begin with Sequential()"
            )
        if input_shape is not None:
            self._input_shape = Input(input_shape).shape
        for layer in found or ():
            self._append(layer)
        if self.input_shape is not None and self._layers:
            self.shapes()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, without an `Input`."""
        return self._layers

    @property
    def input_shape(self) -> Shape | None:
        """One sample's shape, where it is known."""
        return self._input_shape

    def __eq__(self, other: object) -> bool:
        """Whether the layers, and the shape of the inputs, are the same."""
        if not isinstance(other, Sequential):
            return NotImplemented
        return (self.layers, self.input_shape) == (other.layers, other.input_shape)

    def __hash__(self) -> int:
        """Return what belongs to the layers; `add` changes it."""
        return hash((self.layers, self.input_shape))

    def __repr__(self) -> str:
        """Return the call that makes these layers."""
        first = [] if self.input_shape is None else [Input(self.input_shape)]
        listed = [*first, *self.layers]
        return f"Sequential({listed})" if listed else "Sequential()"

    def __getattr__(self, name: str) -> Any:
        """Say what stands for some of Keras' attributes."""
        if name in _ELSEWHERE:
            raise AttributeError(f"a model has no {name!r}; {_ELSEWHERE[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def with_layers(self, layers: Iterable[Layer]) -> Sequential:
        """Return another model of these layers, without parameters, for the same inputs."""
        return Sequential(layers, self.input_shape)

    def add(self, layer: Layer | Input) -> None:
        """Put a layer behind the others; parameters that there are stay.

        Parameters
        ----------
        layer : Layer or Input
            An `Input` comes first, and once. Keras' ``input_shape=`` or ``input_dim=`` of a first
            layer serves, with the advice to begin with `Input`.

        Raises
        ------
        TypeError
            If it is not a layer.
        ValueError
            If the layer cannot take what comes before it.

        Examples
        --------
        >>> from lowprec.train.layers import Dense
        >>> model = Sequential()
        >>> model.add(Input((4,)))
        >>> model.add(Dense(3))
        >>> model
        Sequential([Input((4,)), Dense(3)])
        """
        before = (self._layers, self._input_shape)
        self._append(layer)
        try:
            if self.input_shape is not None and self._layers:
                self.shapes()
        except ValueError:
            self._layers, self._input_shape = before
            raise
        self._layers_changed()

    def pop(self) -> Layer:
        """Remove the last layer, and return it.

        Raises
        ------
        IndexError
            If there is none.
        """
        if not self._layers:
            raise IndexError("the model has no layers to remove; add one")
        last = self._layers[-1]
        self._layers = self._layers[:-1]
        self._layers_changed()
        return last

    def _append(self, layer: Any) -> None:
        if isinstance(layer, Input):
            if self._layers or self._input_shape is not None:
                raise ValueError(
                    "Input says the shape of the network's inputs; put it first, and once"
                )
            self._input_shape = layer.shape
            return
        layer, shape = _without_input_shape(_as_layer(layer))
        if shape is not None:
            if self._layers:
                raise ValueError(
                    f"layer {len(self._layers)} has input_shape={shape}, which is for the first "
                    "layer alone; drop it: the layer before says the shape"
                )
            if self._input_shape not in (None, shape):
                raise ValueError(
                    f"the model's Input is {self._input_shape} and the first layer has "
                    f"input_shape={shape}; leave one out"
                )
            self._input_shape = shape
        self._layers = (*self._layers, layer)

    def _layers_changed(self) -> None:
        """Keep the parameters of layers that are still there; the optimizer begins anew."""
        old, self._params, self._earlier = self._params, None, None
        if old is not None and self.layers and self.input_shape is not None:
            shapes = self.parameter_shapes()
            kept = {n: w for n, w in old.items() if shapes.get(n) == w.shape}
            self._params = TrainedParams(self._drawn() | kept)

    # Shapes and names ----------------------------------------------------------------------------

    def shapes(self, input_shape: Shape | None = None) -> list[Shape]:
        """Return one sample's shape before each layer, and after the last.

        Raises
        ------
        ValueError
            If the shape of the inputs is not known, or a layer cannot take what it would get.
        """
        if not self.layers:
            raise ValueError(
                "a model needs layers, as in Sequential([Input((4,)), Dense(3)]); put them in with "
                "model.add(Dense(3))"
            )
        shape = self.input_shape if input_shape is None else Input(input_shape).shape
        if shape is None:
            raise ValueError(
                "the shape of one sample is not known; begin the model with Input(shape), or pass "
                "input_shape"
            )
        if self.input_shape not in (None, shape):
            raise ValueError(
                f"samples have shape {shape}, the model's Input {self.input_shape}; "
                f"{_reshaped(shape, self.input_shape)}"
            )
        shapes = [shape]
        for number, layer in enumerate(self.layers):
            try:
                shapes.append(layer.output_shape(shapes[-1]))
            except ValueError as error:
                raise ValueError(f"layer {number}: {error}") from None
        return shapes

    def parameter_shapes(self, input_shape: Shape | None = None) -> dict[str, Shape]:
        """Return the shape of every parameter, by name: ``"0/kernel"``, ``"0/bias"``, …"""  # noqa: D400
        found = {}
        for number, (layer, shape) in enumerate(
            zip(self.layers, self.shapes(input_shape), strict=False)
        ):
            shapes = layer.parameter_shapes(shape)
            found.update({f"{number}/{name}": shapes[name] for name in layer.parameters})
        return found

    def check_params(
        self,
        params: Mapping[str, ArrayLike],
        dtype: DTypeLike | None = None,
        input_shape: Shape | None = None,
    ) -> Params:
        """Return the model's parameters as contiguous arrays, in the model's order.

        Parameters
        ----------
        params : mapping of str to array_like
            The parameters by name.
        dtype : dtype, optional
            What they are converted to; by default they stay what they are.
        input_shape : tuple of int, optional
            One sample's shape, where the model has no Input.

        Returns
        -------
        dict of str to numpy.ndarray
            Copies only where something had to be converted.

        Raises
        ------
        ValueError
            If a name is missing, or is none of this model's; or, where the shape of the inputs is
            known, if a shape is wrong.
        """
        known = self.input_shape if input_shape is None else input_shape
        names = [f"{i}/{name}" for i, layer in enumerate(self.layers) for name in layer.parameters]
        for name in params:
            if name not in names:
                listed = ", ".join(names) or "none"
                raise ValueError(f"{name!r} is not a parameter of this model, which has {listed}")
        for name in names:
            if name not in params:
                raise ValueError(f"parameter {name!r} is missing; model.init(rng) makes them all")
        checked = {name: np.ascontiguousarray(params[name], dtype) for name in names}
        shapes = {} if known is None else self.parameter_shapes(known)
        for name, shape in shapes.items():
            found = np.shape(params[name])
            if found != shape:
                raise ValueError(f"parameter {name!r} has shape {found}; this model's has {shape}")
        return checked

    def check_inputs(self, x: ArrayLike) -> None:
        """Make sure that a batch, of shape (samples, ...), is one that the layers can take.

        Raises
        ------
        ValueError
            If its samples have another shape.
        """
        self.shapes(np.shape(x)[1:])

    # Computing -----------------------------------------------------------------------------------

    @in_exact_state
    def init(self, rng: RNGLike = None, *, input_shape: Shape | None = None) -> Params:
        """Draw the parameters.

        Parameters
        ----------
        rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
            Where they are drawn from, layer by layer.
        input_shape : tuple of int, optional
            One sample's shape, where the model has no Input.

        Returns
        -------
        dict of str to numpy.ndarray
            Arrays of float32, named by layer: ``"0/kernel"``, ``"0/bias"``, …

        Raises
        ------
        ValueError
            If the shape of the inputs is not known, or a layer cannot take what it would get.
        """
        generator = as_generator(rng)
        params: Params = {}
        for number, (layer, shape) in enumerate(
            zip(self.layers, self.shapes(input_shape), strict=False)
        ):
            drawn = layer.init(shape, generator)
            params.update({f"{number}/{name}": values for name, values in drawn.items()})
        return params

    @in_exact_state_but_users_code
    def apply(
        self,
        params: Mapping[str, ArrayLike],
        x: ArrayLike,
        *,
        policy: Policy | str = "float32",
        training: bool = False,
        rng: RNGLike = None,
    ) -> Array:
        """Compute the network's outputs for a batch.

        Parameters
        ----------
        params : mapping of str to array
            As `init` returned them, or as trained.
        x : array_like, shape (samples, ...)
            The inputs; they are rounded once to the policy's compute format.
        policy : Policy or str
            Which format each part uses.
        training : bool
            Whether layers behave as in training (dropout, batch statistics).
        rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
            Where dropout is drawn from.

        Returns
        -------
        numpy.ndarray, shape (samples, ...)
            Values of the policy's compute format, in float32.

        Raises
        ------
        ValueError
            If parameters or inputs have a name or shape that the model does not expect.

        Examples
        --------
        >>> from lowprec.train.layers import Dense
        >>> model = Sequential([Input((1,)), Dense(1, use_bias=False)])
        >>> params = {"0/kernel": np.float32([[0.1]])}
        >>> model.apply(params, [[1.0]], policy="mixed_bfloat16")
        array([[0.10009766]], dtype=float32)
        """
        self.check_inputs(x)
        arrays = self.check_params(params, input_shape=np.shape(x)[1:])
        return passes.apply(self, arrays, x, policy, training, rng)

    # Keras' methods ------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: Optimizer | str = "rmsprop",
        loss: str | Loss | None = None,
        metrics: Iterable[Any] = (),
        policy: Policy | str = "float32",
        **others: Any,
    ) -> None:
        """Say what `fit` trains with; an optimizer that was trained with begins anew.

        Parameters
        ----------
        optimizer : Optimizer or str
            Such as ``train.Adam(1e-3)``; a name stands for its defaults, which are PyTorch's.
        loss : str or callable
            As for `train.fit`.
        metrics : iterable of str, Metric or callable
            As for `train.metrics.get`; by default what suits the loss.
        policy : Policy or str
            The formats, of `evaluate` and `predict` too.
        **others
            Nothing: a word that is misspelt is named.

        Raises
        ------
        TypeError, ValueError
            If there is no such optimizer, loss, metric or policy; or if the model's last activation
            does not belong to the loss.
        """
        _refuse(others, "compile", ("optimizer", "loss", "metrics", "policy"))
        if loss is None:
            raise TypeError(
                "compile needs a loss; pass loss='mse' for numbers, or "
                "loss='sparse_categorical_crossentropy' for labels"
            )
        found = get_policy(policy)
        if self.layers:
            trained_network(self, loss, found)
        losses.get(loss)
        listed = _metrics.listed(metrics)
        _metrics.get_all(listed, loss)
        self._compiled = Compiled(optimizers.get(optimizer), loss, listed, found)
        self._earlier = None

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        callbacks: Iterable[Callback] | None = None,
        class_weight: Mapping[int, float] | None = None,
        shuffle: bool = True,
        steps_per_epoch: int | None = None,
        recorder: Follower | None = None,
        rng: RNGLike = 0,
        verbose: bool | str = "auto",
        **others: Any,
    ) -> History:
        """Train the model as it was compiled; called again, it goes on.

        Parameters
        ----------
        x : array_like, Dataset or iterable of batches
            The samples; a vector where there is one feature. Or all that `train.fit` takes, without
            `y`.
        y : array_like, optional
            The targets.
        epochs : int
            How often to go through the samples; with a second call, how often more.
        batch_size : int, optional
            Samples a step, 32 by default; batches that are given have their own.
        validation_split, validation_data, class_weight, shuffle, steps_per_epoch, recorder, verbose
            As for `train.fit`.
        callbacks : iterable of Callback, optional
            Called around epochs and steps.
        rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
            As for `train.fit`. A call that goes on draws from the seed of the first.
        **others
            Nothing: a word that is misspelt is named.

        Returns
        -------
        History
            Of this call. Where it fails, the model stays as it was before.

        Raises
        ------
        ValueError
            If the model is not compiled; and TypeError or ValueError as `train.fit` does.
        """
        _refuse(others, "fit", _FIT_WORDS)
        compiled = self._told("fit")
        how: dict[str, Any] = {
            **compiled._asdict(),
            "validation_split": float(validation_split),
            "validation_data": validation_data,
            "class_weight": class_weight,
            "shuffle": shuffle,
            "steps_per_epoch": steps_per_epoch,
            "recorder": recorder,
            "epochs": epochs,
            "batch_size": 32 if batch_size is None else batch_size,
            "callbacks": callbacks or (),
            "verbose": verbose,
        }
        data = x if y is None else (x, y)
        if self._earlier is None:
            history = loop.fit(self, data, params=self._params, rng=rng, **how)
        else:
            history = loop.go_on(self, data, self._earlier, self.params, **how)
        self._earlier, self._params = history, history.params
        self._seen_shape = tuple(history.facts["input_shape"])
        return history

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = None,
        return_dict: bool = False,
        verbose: bool | str = "auto",
        **others: Any,
    ) -> list[float] | dict[str, float]:
        """Return the loss and the metrics on data, as compiled.

        Parameters
        ----------
        x, y : array_like, shapes (samples, ...)
            Inputs and targets; a pair as `x` serves too.
        batch_size : int, optional
            Has no influence on the numbers but for the last bit of the means.
        return_dict : bool
            Whether to return a dictionary by name.
        verbose : bool or "auto"
            Taken for Keras' sake; nothing is printed.
        **others
            Nothing: a word that is misspelt is named.

        Returns
        -------
        list of float, or dict of str to float
            The loss first.
        """
        _refuse(others, "evaluate", ("batch_size", "return_dict", "verbose"))
        compiled = self._told("evaluate")
        if y is None:
            if hasattr(x, "x_test"):
                x = (x.x_test, x.y_test)
            if not isinstance(x, tuple) or len(x) != 2:
                raise TypeError("targets are missing; write model.evaluate(x, y)")
            x, y = x
        found = prediction.evaluate(
            self,
            self._params_for(x),
            x,
            y,
            loss=compiled.loss,
            policy=compiled.policy,
            metrics=compiled.metrics,
            batch_size=batch_size,
        )
        return found if return_dict else list(found.values())

    def predict(
        self,
        x: Any,
        *,
        batch_size: int | None = None,
        verbose: bool | str = "auto",
        **others: Any,
    ) -> Array:
        """Return the outputs for samples: probabilities where the model ends in softmax.

        Parameters
        ----------
        x : array_like, shape (samples, ...)
            The inputs; shape (samples,) where there is one feature.
        batch_size : int, optional
            How many samples to compute at once; it has no influence on the result.
        verbose : bool or "auto"
            Taken for Keras' sake; nothing is printed.
        **others
            As for `train.predict`: `policy`, `training`, `samples`, `rng`. The policy is that of
            `compile`, else float32.

        Returns
        -------
        numpy.ndarray, shape (samples, ...)
            In the targets' own units, where `fit` scaled them.
        """
        _refuse(
            {name: value for name, value in others.items() if name not in _PREDICT_WORDS},
            "predict",
            ("batch_size", "verbose", *_PREDICT_WORDS),
        )
        policy = "float32" if self._compiled is None else self._compiled.policy
        how = {"policy": policy, "batch_size": batch_size, **others}
        found: Array = prediction.predict(self, self._params_for(x), x, **how)
        return found

    @property
    def params(self) -> Params:
        """The parameters by name: those `fit` or `set_weights` left, else those `fit` begins with.

        Raises
        ------
        ValueError
            If there are none yet, as the shape of the inputs is not known.
        """
        if self._params is None:
            self._params = TrainedParams(self._drawn(self._seen_shape))
        return self._params

    @params.setter
    def params(self, params: Mapping[str, ArrayLike]) -> None:
        wide = any(np.asarray(w).dtype == np.float64 for w in params.values())
        dtype = np.float64 if wide and self._in_float64 else np.float32
        checked = self.check_params(params, dtype, self.input_shape or self._seen_shape)
        kept = {name: np.array(w) for name, w in checked.items()}
        self._params = TrainedParams(kept, target_scale_of(params))
        if self._earlier is not None:  # what Kahan's sums kept belonged to the parameters before
            state = {n: s for n, s in self._earlier.state.items() if not n.startswith("kahan/")}
            self._earlier = dataclasses.replace(self._earlier, state=state)

    def get_weights(self) -> list[Array]:
        """Return copies of the parameters, layer by layer, moving statistics included."""
        return [w.copy() for w in self.params.values()]

    def set_weights(self, weights: Sequence[ArrayLike] | Mapping[str, ArrayLike]) -> None:
        """Replace the parameters; the optimizer's state stays.

        Parameters
        ----------
        weights : sequence of array_like, or mapping of str to array_like
            As `get_weights` gives them, or by name.

        Raises
        ------
        ValueError
            If their number or a shape is another.
        """
        if not isinstance(weights, dict):
            names = list(self._names)
            arrays = list(weights)
            if len(arrays) != len(names):
                raise ValueError(
                    f"{len(arrays)} arrays for the model's {len(names)} parameters, "
                    f"{', '.join(names)}; pass what get_weights of a model with these layers gave"
                )
            weights = dict(zip(names, arrays, strict=True))
        self.params = weights

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model to one file, whole or not at all: `train.load_model` reads it.

        It holds the layers, the parameters bit for bit, what `compile` was told, and what `fit`
        goes on from: the optimizer's state, the loss scale, the count of steps. Nothing is pickled.

        Parameters
        ----------
        path : str or path
            The file, which gets exactly this name, such as ``"best-cnn-model.keras"``. A saved
            model is replaced.
        overwrite : bool
            Whether a file that is not a saved model may be replaced.

        Raises
        ------
        OSError
            If the file cannot be written, or exists and is not a saved model.
        TypeError
            If the model holds a function without a name.
        """
        params = self._params
        if params is None and self.layers and self.input_shape is not None:
            params = self.params
        saved = Saved(
            self.layers,
            self.input_shape,
            self._seen_shape,
            params,
            self._compiled,
            self._earlier,
        )
        write_model(path, saved, overwrite=overwrite)

    def count_params(self) -> int:
        """Return how many numbers the parameters are, moving statistics included."""
        return self.summary().parameters

    def summary(
        self, policy: Policy | str | None = None, *, input_shape: Shape | None = None
    ) -> Summary:
        """Return the table of layers, shapes and parameters; it prints itself.

        Parameters
        ----------
        policy : Policy or str, optional
            Whose bytes to tell; by default that of `compile`.
        input_shape : tuple of int, optional
            One sample's shape, where the model has no Input.
        """
        from lowprec.train.summary import summarise

        if isinstance(policy, tuple):
            raise TypeError(
                f"summary({policy}): the first argument is a policy; write "
                f"summary(input_shape={policy})"
            )
        if policy is None and self._compiled is not None:
            policy = self._compiled.policy
        if input_shape is None and self.input_shape is None:
            input_shape = self._seen_shape
        return summarise(self, input_shape, None if policy is None else get_policy(policy))

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Say the shape of the inputs, as Keras does with ``(None, 28, 28, 1)``.

        Parameters
        ----------
        input_shape : sequence of int
            With or without a leading None for the number of samples.
        """
        shape = tuple(input_shape)
        shape = shape[1:] if shape and shape[0] is None else shape
        known = Input(shape).shape  # type: ignore[arg-type]
        self.shapes(known)
        self._input_shape = known

    @property
    def history(self) -> History | None:
        """What the last `fit` returned."""
        return self._earlier

    @property
    def policy(self) -> Policy | None:
        """The policy of `compile`."""
        return None if self._compiled is None else self._compiled.policy

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer of `compile`."""
        return None if self._compiled is None else self._compiled.optimizer

    @property
    def loss(self) -> str | Loss | None:
        """The loss of `compile`."""
        return None if self._compiled is None else self._compiled.loss

    def _told(self, method: str) -> Compiled:
        if self._compiled is None:
            raise ValueError(
                f"{method} needs what compile says; write model.compile(optimizer='adam', "
                "loss='mse', policy='mixed_bfloat16') first"
            )
        return self._compiled

    @property
    def _in_float64(self) -> bool:
        return self._compiled is not None and self._compiled.policy.is_float64

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"{i}/{n}" for i, layer in enumerate(self.layers) for n in layer.parameters)

    def _drawn(self, shape: Shape | None = None) -> Params:
        """Return the parameters that `fit` begins with."""
        return drawn_params(self, draw_key(0), shape)

    def _params_for(self, x: Any) -> Params:
        """Return the parameters; where they are not drawn yet, samples say the shape."""
        if self._params is not None or self.input_shape is not None:
            return self.params
        return self._drawn(np.shape(inputs_of(self, x))[1:])


def load_model(
    path: str | os.PathLike[str],
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,  # noqa: A002  # Keras' word
) -> Sequential:
    """Return the model in a file that `Sequential.save` wrote, every number bit for bit.

    Parameters
    ----------
    path : str or path
        The file.
    custom_objects : mapping of str to anything, optional
        What you defined yourself, by name: layers' classes, losses, metrics, optimizers.
    compile : bool
        Whether the model is compiled as it was, and `fit` goes on; False reads layers and
        parameters alone.

    Returns
    -------
    Sequential

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, holds something else, was written by a newer lowprec, or uses what
        is not among `custom_objects`.

    Examples
    --------
    >>> import tempfile
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((4,)), train.Dense(3, activation="softmax")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model.keras")
    ...     again = train.load_model(f"{folder}/model.keras")
    >>> again == model, bool((again.params["0/kernel"] == model.params["0/kernel"]).all())
    (True, True)
    """
    saved = read_model(path, dict(custom_objects or {}), is_compiled=compile)
    model = Sequential(saved.layers or None, saved.input_shape)
    model._seen_shape, model._compiled = saved.seen_shape, saved.compiled
    if saved.params is not None:
        model.params = saved.params
        if saved.history is not None:
            model._earlier = dataclasses.replace(saved.history, params=model.params)
    return model


_FIT_WORDS = (
    "epochs",
    "batch_size",
    "validation_split",
    "validation_data",
    "callbacks",
    "class_weight",
    "shuffle",
    "steps_per_epoch",
    "recorder",
    "rng",
    "verbose",
)
_PREDICT_WORDS = ("policy", "training", "samples", "rng")
_ELSEWHERE = {
    "weights": "model.params are the parameters by name, model.get_weights() a list",
    "trainable_weights": "model.params are the parameters by name",
    "trainable_variables": "model.params are the parameters by name",
    "non_trainable_weights": "model.params holds moving statistics by name too",
    "trainable": "freeze a layer with trainable=False, as in Dense(3, trainable=False)",
    "to_json": "model.save(path) writes layers, weights, policy and optimizer to one file",
    "save_weights": "model.save(path) writes layers, weights, policy and optimizer to one file",
    "load_weights": "model.params = train.load_model(path).params takes the weights of a file",
    "train_on_batch": "fit takes batches: model.fit([(x, y)]) takes one step",
    "output_shape": "model.shapes()[-1] is the shape of one sample's output",
    "get_layer": "model.layers[0] is the first layer",
}


def _refuse(others: Mapping[str, Any], method: str, known: Sequence[str]) -> None:
    """Raise a TypeError that names a word that a method does not know."""
    for word in others:
        if word in ("sample_weight", "initial_epoch", "validation_freq", "callbacks"):
            hint = "it is not there"
            if word == "sample_weight":
                hint = "weigh classes with class_weight={0: 1.0, 1: 5.0}"
            raise TypeError(f"{method} has no argument {word!r}; {hint}")
        near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
        raise TypeError(
            f"{method} has no argument {word!r}; {did_you_mean(near)}it takes {', '.join(known)}"
        )


def _without_input_shape(layer: Layer) -> tuple[Layer, Shape | None]:
    """Return a layer without Keras' input_shape, and that shape, with Keras' advice."""
    shape = layer.input_shape
    if layer.input_dim is not None:
        if shape is not None:
            raise ValueError(
                f"{layer!r} has input_shape and input_dim; leave one out, or begin with Input"
            )
        shape = (layer.input_dim,)
    if shape is None:
        return layer, None
    shape = Input((shape,) if isinstance(shape, int) else tuple(shape)).shape
    warnings.warn(
        f"do not pass input_shape or input_dim to a layer; begin the model with Input({shape})",
        UserWarning,
        stacklevel=4,
    )
    bare: Any = dataclasses.replace(layer, input_shape=None, input_dim=None)
    return bare, shape


def _reshaped(shape: Shape, wanted: Shape) -> str:
    """Return what to type so that samples of a shape have the wanted one."""
    if (*shape, 1) == wanted:
        return "add the channel axis: x = x[..., numpy.newaxis], or change Input"
    if np.prod(shape) == np.prod(wanted) and shape:
        return f"write x = x.reshape(-1, {', '.join(map(str, wanted))}), or change Input"
    return f"reshape the samples or change Input to Input({shape})"


def _as_layer(layer: Any) -> Layer:
    if isinstance(layer, Layer):
        return layer
    if isinstance(layer, type) and issubclass(layer, Layer):
        name = layer.__name__
        raise TypeError(f"{name} is a kind of layer, not a layer; write {name}(...)")
    raise TypeError(f"{layer!r} is not a layer; use layers, such as Dense(10), in a list")
