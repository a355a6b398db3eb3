"""A network: layers one after the other, and the names of their parameters."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import in_exact_state, in_exact_state_but_users_code
from lowprec.common.randomness import as_generator
from lowprec.train.layers.input import Input
from lowprec.train.layers.layer import Array, Layer, Shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import ArrayLike, DTypeLike

    from lowprec.common.randomness import RNGLike
    from lowprec.train.policy import Policy
    from lowprec.train.summary import Summary

__all__ = ["Params", "Sequential"]

Params = dict[str, Array]


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Sequential:
    """Layers that each read what the one before wrote; a value that holds no arrays.

    Parameters
    ----------
    layers : sequence of Layer
        An `Input` may stand first; it is kept as `input_shape`, and not counted.
    input_shape : tuple of int, optional
        One sample's shape, where no `Input` says it.

    Raises
    ------
    TypeError
        If something in the list is no layer.
    ValueError
        If there are no layers, or one cannot take what comes before it.

    Examples
    --------
    >>> from lowprec.train.layers import Dense
    >>> model = Sequential([Input((4,)), Dense(8, activation="relu"), Dense(3)])
    >>> {name: w.shape for name, w in model.init(rng=0).items()}
    {'0/kernel': (4, 8), '0/bias': (8,), '1/kernel': (8, 3), '1/bias': (3,)}
    """

    layers: tuple[Layer, ...]
    input_shape: Shape | None = None

    def __init__(self, layers: Iterable[Layer | Input], input_shape: Shape | None = None) -> None:
        found = list(layers)
        first = found[0] if found else None
        if isinstance(first, Input):
            if input_shape is not None:
                raise ValueError("the model has an Input and input_shape; leave one out")
            input_shape = first.shape
            del found[0]
        if not found:
            raise ValueError("a model needs layers, as in Sequential([Input((4,)), Dense(3)])")
        object.__setattr__(self, "layers", tuple(_as_layer(layer) for layer in found))
        object.__setattr__(self, "input_shape", input_shape and Input(input_shape).shape)
        if self.input_shape is not None:
            self.shapes()

    def __repr__(self) -> str:
        """Return the call that makes this model."""
        first = [] if self.input_shape is None else [Input(self.input_shape)]
        return f"Sequential({[*first, *self.layers]})"

    def __getattr__(self, name: str) -> Any:
        """Say where Keras' methods are: a model holds no parameters, so they are functions."""
        if name in ("fit", "predict", "evaluate", "compile", "get_weights"):
            where = {
                "compile": "pass loss and optimizer to train.fit",
                "get_weights": "model.init(rng) makes parameters, history.params are trained ones",
                "fit": "use train.fit(model, data, loss=…, optimizer=…)",
            }.get(name, f"use train.{name}(model, params, …)")
            raise AttributeError(f"a model is a value without parameters; {where}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # Shapes and names ----------------------------------------------------------------------------

    def shapes(self, input_shape: Shape | None = None) -> list[Shape]:
        """Return one sample's shape before each layer, and after the last.

        Raises
        ------
        ValueError
            If the shape of the inputs is not known, or a layer cannot take what it would get.
        """
        shape = self.input_shape if input_shape is None else Input(input_shape).shape
        if shape is None:
            raise ValueError(
                "the shape of one sample is not known; begin the model with Input(shape), or pass "
                "input_shape"
            )
        if self.input_shape not in (None, shape):
            raise ValueError(
                f"samples have shape {shape}, the model's Input {self.input_shape}; reshape the "
                "samples or change Input"
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
                raise ValueError(f"{name!r} is no parameter of this model, which has {listed}")
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
        from lowprec.train.running import passes

        self.check_inputs(x)
        arrays = self.check_params(params, input_shape=np.shape(x)[1:])
        return passes.apply(self, arrays, x, policy, training, rng)

    def summary(self, input_shape: Shape | None = None) -> Summary:
        """Return the table of layers, shapes and parameters; it prints itself."""
        from lowprec.train.summary import summarise

        return summarise(self, input_shape)


def _as_layer(layer: Any) -> Layer:
    if isinstance(layer, Layer):
        return layer
    if isinstance(layer, Input):
        raise ValueError("Input says the shape of the network's inputs; put it first, and once")
    if isinstance(layer, type) and issubclass(layer, Layer):
        name = layer.__name__
        raise TypeError(f"{name} is a kind of layer, not a layer; write {name}(...)")
    raise TypeError(f"{layer!r} is no layer; use layers, such as Dense(10), in a list")
