"""Sequential: layers that are added, trained, shown and saved."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.callers import is_a_statement
from lowprec.common.processor_state import in_exact_state_but_users_code
from lowprec.train import keras_words
from lowprec.train.compiled_network import CompiledNetwork
from lowprec.train.layers.input import Input
from lowprec.train.policy import get_policy, layer_of
from lowprec.train.running import passes
from lowprec.train.running.history import TrainedParams
from lowprec.train.saving import Saved, read_model, read_params, write_model

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Self

    from numpy.typing import ArrayLike

    from lowprec.common.randomness import RNGLike
    from lowprec.train.layers.layer import Array, Layer, Shape
    from lowprec.train.policy import Policy
    from lowprec.train.summary import Summary


class Sequential(CompiledNetwork):
    """Layers that each read what the one before wrote.

    The layers alone are the model's value: what is equal, hashed and printed. Functions such as
    `train.fit` never change a model; the methods with Keras' names keep in it what Keras keeps
    there: parameters, the optimizer's state, what `compile` was told. A layer becomes the model's
    own; one that is in a model already is copied, and its parameters there are where `fit` begins.

    Parameters
    ----------
    layers : sequence of Layer, optional
        An `Input` may stand first; it is kept as `input_shape`, and not counted. Without layers the
        model is empty, for `add`.
    input_shape : tuple of int, optional
        One sample's shape, where no `Input` says it.
    name : str, optional
        What to call the model; equality looks not at it.

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

    def __getattr__(self, name: str) -> Any:
        """Say what stands for some of Keras' attributes."""
        if name in keras_words.IN_MODEL:
            raise keras_words.elsewhere("a model", name, keras_words.IN_MODEL)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        """Return the values of a copy, which no training runs."""
        return {**vars(self), "_run": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take these values, with layers of its own."""
        layers, state["_layers"] = state["_layers"], ()
        vars(self).update(state)
        for layer in layers:
            self._layers = (*self._layers, self._own(layer))

    @in_exact_state_but_users_code
    def __call__(self, x: Any, training: bool = False) -> Array:
        """Return the outputs for a batch: `predict`, or with dropout and the batch's statistics."""
        return self.predict(x, training=training)

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

    def with_layers(self, layers: Iterable[Layer]) -> Self:
        """Return another model of these layers, without parameters, for the same inputs."""
        other = super().with_layers(layers)
        other._lent = {}
        return other

    def _own(self, layer: Layer) -> Layer:
        lender = layer._model
        if isinstance(lender, Sequential) and lender is not self and lender._params is not None:
            place = len(self._layers)
            learnt = zip(layer.parameters, layer.get_weights(), strict=True)
            self._lent = {**self._lent, **{f"{place}/{name}": w for name, w in learnt}}
            if place == 0 and layer is lender.layers[0]:
                self._seen_shape = lender.input_shape or lender._seen_shape
        return super()._own(layer)

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
        removed = str(len(self._layers))
        self._lent = {n: w for n, w in self._lent.items() if layer_of(n) != removed}
        vars(last).pop("_home")
        self._layers_changed()
        return last

    def _layers_changed(self) -> None:
        """Keep the parameters of layers that are still there; the optimizer begins anew."""
        old, self._params, self._earlier = self._params, None, None
        if old is not None and self.layers and self.input_shape is not None:
            shapes = self.parameter_shapes()
            kept = {n: w for n, w in old.items() if shapes.get(n) == w.shape}
            self._params = TrainedParams(self._drawn() | kept)

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
        saved = self._saved() if self._run is None else self._run.saved_model()
        write_model(path, saved, overwrite=overwrite)

    def _saved(self) -> Saved:
        params = self._params
        if params is None and self.layers and self.input_shape is not None:
            params = self.params
        return Saved(
            self.layers, self.input_shape, self._seen_shape, params, self._compiled, self._earlier
        )

    def save_weights(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the layers and their parameters to a file, for `load_weights`.

        Parameters and errors are those of `save`, which keeps what `fit` goes on from too.
        """
        write_model(path, self._saved().of_weights(self.params), overwrite=overwrite)

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Replace the parameters by those of a file of `save_weights`, or of `save`.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not such a file, or its parameters have other names or shapes.
        """
        self.params = read_params(path)

    def count_params(self) -> int:
        """Return how many numbers the parameters are, moving statistics included."""
        return self.summary().parameters

    def summary(
        self,
        policy: Policy | str | None = None,
        *,
        input_shape: Shape | None = None,
        **others: Any,
    ) -> Summary:
        """Return the table of layers, shapes and parameters; it prints itself.

        A statement ``model.summary()`` prints the table in a script too.

        Parameters
        ----------
        policy : Policy or str, optional
            Whose bytes to tell; by default that of `compile`.
        input_shape : tuple of int, optional
            One sample's shape, where the model has no Input.
        **others
            Nothing: Keras' words for the table's form are named.
        """
        from lowprec.train.summary import summarise

        keras_words.refuse(others, self.summary)
        if isinstance(policy, tuple):
            raise TypeError(
                f"summary({policy}): the first argument is a policy; write "
                f"summary(input_shape={policy})"
            )
        if policy is None and self._compiled is not None:
            policy = self._compiled.policy
        if input_shape is None and self.input_shape is None:
            input_shape = self._seen_shape
        found = summarise(self, input_shape, None if policy is None else get_policy(policy))
        if is_a_statement(sys._getframe(1)):
            found.show()
        return found

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
