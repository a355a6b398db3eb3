"""What running a network asks of it: layers, shapes and the names of its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import ArrayLike, DTypeLike

    from lowprec.common.randomness import RNGLike
    from lowprec.train.layers.layer import Array, Layer, Shape


class Network(Protocol):
    """Layers one after the other; `Sequential` is one, and says what each method does."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in the order in which data pass them."""

    @property
    def input_shape(self) -> Shape | None:
        """One sample's shape, where the network knows it."""

    def shapes(self, input_shape: Shape | None = None) -> list[Shape]:
        """Return one sample's shape before each layer, and after the last."""

    def check_inputs(self, x: ArrayLike) -> None:
        """Make sure that a batch is one that the layers can take."""

    def check_params(
        self,
        params: Mapping[str, ArrayLike],
        dtype: DTypeLike | None = None,
        input_shape: Shape | None = None,
    ) -> dict[str, Array]:
        """Return the parameters as contiguous arrays, in the order of the layers."""

    def init(self, rng: RNGLike = None, *, input_shape: Shape | None = None) -> dict[str, Array]:
        """Draw the parameters."""

    def with_layers(self, layers: Iterable[Layer]) -> Network:
        """Return another network of these layers, for the same inputs."""
