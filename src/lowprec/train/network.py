"""Layers one after the other: what they are called, what they take, how they begin."""

from __future__ import annotations

import copy
import dataclasses
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import in_exact_state
from lowprec.common.randomness import as_generator
from lowprec.train.layers.input import Input
from lowprec.train.layers.layer import Array, Layer, Shape, snake_case

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

    from numpy.typing import ArrayLike, DTypeLike

    from lowprec.common.randomness import RNGLike

Params = dict[str, Array]


class Network:
    """Layers that each read what the one before wrote: all that running them asks for.

    `Sequential` is one with parameters and Keras' methods, and says what the arguments are.
    """

    def __init__(
        self,
        layers: Iterable[Layer | Input] | None = None,
        input_shape: Shape | None = None,
        name: str | None = None,
    ) -> None:
        self.name = "sequential" if name is None else name
        self._layers: tuple[Layer, ...] = ()
        self._input_shape: Shape | None = None
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
        if not isinstance(other, Network):
            return NotImplemented
        return (self.layers, self.input_shape) == (other.layers, other.input_shape)

    def __hash__(self) -> int:
        """Return what belongs to the layers; `add`, and freezing one, change it."""
        return hash((self.layers, self.input_shape))

    def __repr__(self) -> str:
        """Return the call that makes these layers."""
        first = [] if self.input_shape is None else [Input(self.input_shape)]
        listed = [*first, *self.layers]
        return f"{type(self).__name__}({listed or ''})"

    def with_layers(self, layers: Iterable[Layer]) -> Self:
        """Return another model of these layers, without parameters, for the same inputs."""
        return type(self)(layers, self.input_shape)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """Return the layer of a name, such as ``"dense_1"``, or of a number from 0.

        Raises
        ------
        ValueError
            If there is none.

        Examples
        --------
        >>> from lowprec.train import Dense, Sequential
        >>> model = Sequential([Input((4,)), Dense(8), Dense(3, name="answers")])
        >>> [layer.name for layer in model.layers], model.get_layer("answers")
        (['dense', 'answers'], Dense(3, name='answers'))
        """
        names = [layer.name for layer in self.layers]
        place = index if name is None else names.index(name) if name in names else None
        if place is None or not -len(names) <= place < len(names):
            given = f"name {name!r}" if name is not None else f"number {index}"
            raise ValueError(
                f"no layer has the {given}; pass one of {', '.join(map(repr, names))}, or index=0 "
                f"to index={len(names) - 1}"
            )
        return self.layers[place]

    @property
    def trainable(self) -> bool:
        """Whether any layer is trained; assigned, it freezes or frees all of them."""
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = value  # type: ignore[misc]  # Layer lets it

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"{i}/{n}" for i, layer in enumerate(self.layers) for n in layer.parameters)

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
        self._layers = (*self._layers, self._own(layer))

    def _own(self, layer: Layer) -> Layer:
        """Return the layer as this model's: itself, or a copy where it is in a model already."""
        if layer._model is not None:
            layer = copy.copy(layer)
        taken = {one.name for one in self._layers}
        kind = snake_case(type(layer).__name__)
        if layer.name is None or (layer.name in taken and layer._is_named_by_model):
            free = (f"{kind}_{i}" if i else kind for i in range(len(taken) + 1))
            object.__setattr__(layer, "name", next(name for name in free if name not in taken))
        elif layer.name in taken:
            raise ValueError(f"two layers have name={layer.name!r}; give each its own name")
        object.__setattr__(layer, "_home", weakref.ref(self))
        return layer

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
            If a name is missing, or is not one of this model's; or, where the shape of the inputs
            is known, if a shape is wrong.
        """
        known = self.input_shape if input_shape is None else input_shape
        names = self._names
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
        shape = np.shape(x)
        if self.input_shape is not None and shape == self.input_shape and len(shape) > 0:
            raise ValueError(
                f"x has the shape of one sample, {shape}; write x[numpy.newaxis], a batch of one"
            )
        self.shapes(shape[1:])

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
