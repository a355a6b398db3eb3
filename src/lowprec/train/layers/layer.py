"""What every layer is, and what it is given to work with."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import re
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from lowprec.arrays.direct import lies_flat
from lowprec.train import initializers, keras_words, regularizers

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Mapping, Sequence

    from lowprec.train.initializers import Initializer
    from lowprec.train.regularizers import Constraint, Regularizer

Array = np.ndarray[Any, Any]
FLOAT32 = np.dtype(np.float32)
Shape = tuple[int, ...]


class Numerics(Protocol):
    """What a policy does to a layer's arrays; nothing given is written into, save `z`."""

    def compute(self, x: Array) -> Array:
        """Round to the policy's compute format."""

    def gradient(self, g: Array) -> Array:
        """Round to the policy's gradients format."""

    def matmul(self, a: Array, b: Array) -> Array:
        """Multiply two matrices in the policy's accumulator; the sums are not rounded again."""

    def gradient_product(self, a: Array, b: Array) -> Array:
        """Return ``gradient(matmul(a, b))``, rounded where it stands."""

    def forward_product(self, x: Array, kernel: Array) -> Array:
        """Return ``matmul(x, kernel)``, in block formats of operands quantized for it."""

    def kernel_gradient(self, x: Array, dz: Array, rng: Callable[[], np.random.Generator]) -> Array:
        """Return ``gradient_product(x.T, dz)``, in block formats of operands quantized for it."""

    def input_gradient(
        self, dz: Array, kernel: Array, rng: Callable[[], np.random.Generator]
    ) -> Array:
        """Return ``gradient_product(dz, kernel.T)``, in block formats of operands quantized."""

    def input_gradient_sums(
        self, dz: Array, kernel: Array, rng: Callable[[], np.random.Generator]
    ) -> Array:
        """Return ``matmul(dz, kernel.T)``, in block formats of operands quantized for it."""

    def biased(self, z: Array, bias: Array | None, relu: bool = False) -> Array:
        """Round z + bias once to compute, then take its positive part if `relu`; z may be lost."""

    def relu_gradient(self, dy: Array, y: Array) -> Array:
        """Return dy where y > 0, and 0 elsewhere."""


@dataclasses.dataclass(slots=True)
class Run:
    """One layer's share of a pass through the network.

    Parameters
    ----------
    numerics : Numerics
        How the policy rounds and multiplies.
    training : bool
        Whether layers behave as in training (dropout, batch statistics).
    rng : callable
        Returns this layer's own generator for this step; called only when one is needed.
    updates : dict of str to array
        Where a layer puts new moving statistics, by short name.
    wants_input_gradient : bool
        False where nobody reads ``dx``: `Layer.backward` may return None for it.
    """

    numerics: Numerics
    training: bool
    rng: Callable[[], np.random.Generator]
    updates: dict[str, Array] = dataclasses.field(default_factory=dict)
    wants_input_gradient: bool = True


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class Layer:
    """The base of all layers: a value that says how to compute, and holds no arrays.

    In a `Sequential` a layer is that model's own: `get_weights` and `set_weights` reach the model's
    parameters, and `trainable` may be assigned, as in Keras; all else stays what it is.

    A layer of your own is a frozen dataclass with `forward` and `backward`; one with parameters
    names them in `parameters`, gives their shapes in `parameter_shapes`, and has a field
    ``<name>_initializer`` for each, perhaps ``<name>_regularizer`` and ``<name>_constraint`` too.

    Parameters
    ----------
    trainable : bool
        False freezes the layer's parameters: they have no gradients and are not regularised. The
        next `fit` follows what is assigned.
    name : str, optional
        What `Sequential.get_layer` finds the layer by; a model gives ``"dense"``, ``"dense_1"``, …
        Equality looks not at it.
    policy : str or Policy, optional
        The precision policy of this layer, where it is not the network's: ``"float32"`` keeps it
        wide. `Policy.layers` says the same from outside, and wins.
    dtype : str, optional
        Keras' word for `policy`.
    input_shape : tuple of int, optional
        Of a model's first layer, one sample's shape; `Sequential` takes it, as from an `Input`.
    input_dim : int, optional
        The same for samples with one axis.
    """

    trainable: bool = True
    name: str | None = dataclasses.field(default=None, compare=False)
    policy: Any = None
    dtype: Any = None
    input_shape: Any = None
    input_dim: Any = None

    statistics: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that are not trained."""

    reads_rounded: ClassVar[bool] = False
    """Whether the layer's inputs are rounded to its compute format where another wrote them."""

    _home: ClassVar[weakref.ref[Any] | None] = None
    """The model that the layer is in."""

    def __new__(cls, *_: Any, **words: Any) -> Layer:
        """Return a layer whose `trainable` may be assigned: a frozen dataclass' would refuse."""
        if not words.keys() <= cls.__dataclass_fields__.keys():
            keras_words.refuse_of_layer(cls, words)
        if cls.__setattr__ is not _assign:
            cls.__setattr__ = _assign  # type: ignore[method-assign,assignment]
        return super().__new__(cls)

    def __getstate__(self) -> dict[str, Any]:
        """Return the values of a copy, which is in no model."""
        return {name: value for name, value in vars(self).items() if name != "_home"}

    def __getattr__(self, name: str) -> Any:
        """Say what stands for Keras' attributes of a layer."""
        if name in ("kernel", "bias", "weights", "trainable_weights", "variables"):
            hint = "layer.get_weights() are its arrays, model.params has all of them by name"
        elif name in ("input", "output"):
            hint = "train.layer_outputs(model, model.params, x) has the outputs of every layer"
        elif name in ("get_config", "from_config"):
            hint = "repr(layer) is the call that makes it, dataclasses.replace(layer, …) another"
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise AttributeError(f"a layer has no {name!r}; {hint}")

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Say how layers are put together: there is no functional interface."""
        raise TypeError(
            f"{self!r} is not called on tensors; layers are put together in a list, as in "
            "Sequential([Input((4,)), Dense(3)]), and model.predict(x) computes"
        )

    def __post_init__(self) -> None:
        self._take_dtype()
        for name in self.parameters:
            initializers.get(self._option(name, "initializer"))
        _ = self.regularizers, self.constraints  # spelling mistakes show here

    def _take_dtype(self) -> None:
        """Let `dtype` stand for `policy`, as in Keras."""
        if self.dtype is None:
            return
        if self.policy is not None and self.policy != self.dtype:
            raise ValueError(
                f"{type(self).__name__} has policy={self.policy!r} and dtype={self.dtype!r}; they "
                "are two words for one thing: pass one"
            )
        object.__setattr__(self, "policy", self.dtype)
        object.__setattr__(self, "dtype", None)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The short names of the layer's parameters, statistics included."""
        return ()

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Return the shapes of the parameters for inputs of a shape (one sample's)."""
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of one sample's output; ValueError if the layer cannot take `shape`."""
        return shape

    def init(self, shape: Shape, rng: np.random.Generator) -> dict[str, Array]:
        """Draw the parameters.

        Parameters
        ----------
        shape : tuple of int
            One sample's shape, without the batch.
        rng : numpy.random.Generator
            Where they are drawn from, in the order of `parameters`.

        Returns
        -------
        dict of str to numpy.ndarray
            Arrays of float32 by short name.
        """
        shapes = self.parameter_shapes(shape)
        return {name: self._drawn(name, shapes[name], rng) for name in self.parameters}

    def forward(self, params: Mapping[str, Array], x: Array, run: Run) -> tuple[Array, Any]:
        """Compute the outputs of a batch.

        Parameters
        ----------
        params : mapping of str to array
            The layer's own parameters, as stored.
        x : array, shape (samples, ...)
            Values of the policy's compute format.
        run : Run
            How to compute.

        Returns
        -------
        tuple of (array, anything)
            The outputs, values of compute again, and what `backward` needs.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward pass; define forward")

    def backward(
        self, params: Mapping[str, Array], saved: Any, dy: Array, run: Run
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return the gradients with respect to the inputs and to each trained parameter.

        Parameters
        ----------
        params : mapping of str to array
            As given to `forward`.
        saved : anything
            As returned by `forward`.
        dy : array, of the outputs' shape
            The gradient with respect to the outputs: values of the policy's gradients format.
        run : Run
            As given to `forward`.

        Returns
        -------
        tuple of (array or None, dict of str to array)
            Values of the gradients format. The first is None where ``run.wants_input_gradient``
            is False; the dictionary is empty for a frozen layer.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward pass; define backward")

    @functools.cached_property
    def regularizers(self) -> dict[str, Regularizer]:
        """The penalties on trained parameters, by short name."""
        found = {name: regularizers.get(self._option(name, "regularizer")) for name in self.trained}
        return {name: regularizer for name, regularizer in found.items() if regularizer}

    @functools.cached_property
    def constraints(self) -> dict[str, Constraint]:
        """What trained parameters are put through after each update, by short name."""
        of = regularizers.constraint_of
        found = {name: of(self._option(name, "constraint")) for name in self.trained}
        return {name: constraint for name, constraint in found.items() if constraint is not None}

    @property
    def trained(self) -> tuple[str, ...]:
        """The short names of the parameters that training changes; none if the layer is frozen."""
        names = self.parameters if self.trainable else ()
        return tuple(name for name in names if name not in self.statistics)

    # In a model ----------------------------------------------------------------------------------

    def get_weights(self) -> list[Array]:
        """Return copies of the layer's parameters in its model; none of a layer in no model."""
        names = self._names_in_model()
        return [self._model.params[name].copy() for name in names]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replace the layer's parameters in its model.

        Parameters
        ----------
        weights : sequence of array_like
            As `get_weights` gives them.

        Raises
        ------
        ValueError
            If the layer is in no model, or the number or a shape is another.
        """
        names, arrays = self._names_in_model(), list(weights)
        if self._model is None:
            raise ValueError(f"{self!r} is in no model, which holds the parameters; add it to one")
        if len(arrays) != len(names):
            raise ValueError(
                f"{len(arrays)} arrays for the {len(names)} parameters of {self!r}, "
                f"{', '.join(self.parameters) or 'none'}; pass what layer.get_weights() gave"
            )
        self._model.params = {**self._model.params, **dict(zip(names, arrays, strict=True))}

    def count_params(self) -> int:
        """Return how many numbers the layer's parameters are in its model."""
        return sum(w.size for w in self.get_weights())

    @property
    def _model(self) -> Any:
        return None if self._home is None else self._home()

    def _names_in_model(self) -> list[str]:
        model = self._model
        if model is None:
            return []
        place = next(i for i, layer in enumerate(model.layers) if layer is self)
        return [f"{place}/{name}" for name in self.parameters]

    def _option(self, parameter: str, kind: str) -> Any:
        return getattr(self, f"{parameter}_{kind}", None)

    def _drawn(self, name: str, shape: Shape, rng: np.random.Generator) -> Array:
        initializer: Initializer = initializers.get(self._option(name, "initializer"))
        values = np.asarray(initializer(shape, rng), np.float32)
        if values.shape != shape:
            raise ValueError(
                f"{name}_initializer of {self!r} returned shape {values.shape}, not {shape}; "
                "it is called with (shape, rng)"
            )
        return values

    def __repr__(self) -> str:
        """Return the call that makes this layer, without the defaults."""
        shown = []
        for field in sorted(dataclasses.fields(self), key=lambda field: bool(field.kw_only)):
            value = getattr(self, field.name)
            if field.default is dataclasses.MISSING:
                shown.append(repr(value))
            elif value != field.default and not (field.name == "name" and self._is_named_by_model):
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    @property
    def _is_named_by_model(self) -> bool:
        kind = snake_case(type(self).__name__)
        return re.fullmatch(rf"{kind}(_\d+)?", str(self.name)) is not None


def _assign(layer: Layer, name: str, value: Any) -> None:
    """Assign to `trainable`; refuse all else, as a frozen dataclass does."""
    if name != "trainable":
        raise dataclasses.FrozenInstanceError(
            f"cannot assign to {name!r}: of a layer only trainable may be assigned; make another, "
            f"as in dataclasses.replace(layer, {name}=…)"
        )
    object.__setattr__(layer, name, bool(value))
    for known in ("regularizers", "constraints"):  # of the parameters that are trained
        vars(layer).pop(known, None)


def snake_case(name: str) -> str:
    """Return the name that Keras gives to a layer of a class.

    Examples
    --------
    >>> snake_case("BatchNormalization"), snake_case("MaxPooling2D")
    ('batch_normalization', 'max_pooling2d')
    """
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def column_sums(x: Array) -> Array:
    """Sum over all axes but the last: each sample's first, then the samples', in order.

    Two short sums lose less than a long one, and neither depends on the number of threads.

    x (array, shape (samples, ..., columns)): Terms.
    Returns (array, shape (columns,)): Sums in x's dtype.
    """
    if x.ndim > 2:
        x = x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1]).sum(axis=1)
    sums: Array
    if x.shape[1] > 1 and lies_flat(x, FLOAT32):
        sums = _product()(_ones(len(x)), x)[0]  # NumPy's own bits, in a third of the time:
        sums += np.float32(0)  # its sums begin with this
        return sums
    sums = x.sum(axis=0)
    return sums


@functools.cache
def _product() -> Callable[[Array, Array], Array]:
    from lowprec.kernels.products.matmul import float32_product  # imports Numba

    return float32_product


@functools.lru_cache(maxsize=8)
def _ones(count: int) -> Array:
    return np.ones((1, count), np.float32)


def positive(number: int, what: str) -> int:
    """Return a count as an int; ValueError says what is less than 1."""
    number = operator.index(number)
    if number < 1:
        raise ValueError(f"{what}: {number}; use 1 or more")
    return number
