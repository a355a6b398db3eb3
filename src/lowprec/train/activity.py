"""What each layer gives for a batch: outputs, their histograms, and units that are dead."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.processor_state import in_exact_state_but_users_code
from lowprec.common.randomness import draw_key
from lowprec.train.dataset import array_of
from lowprec.train.layer_policies import layer_labels
from lowprec.train.numerics import numerics_of
from lowprec.train.policy import get_policy, layer_of
from lowprec.train.running import passes
from lowprec.train.running.feeding import inputs_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from lowprec.common.randomness import RNGLike
    from lowprec.train.network import Network
    from lowprec.train.policy import Policy

Array = np.ndarray[Any, Any]

_COLUMNS = 3  # of a figure


class LayerOutputs(dict[str, Array]):
    """The outputs of each layer, by its number as in the names of the parameters.

    A parameter's name finds its layer too: ``outputs["0/kernel"]`` is ``outputs["0"]``.

    Attributes
    ----------
    labels : dict of str to str
        What to call each layer: ``"Dense 1"``.
    """

    def __init__(self, outputs: Mapping[str, Array], labels: Sequence[str]) -> None:
        super().__init__(outputs)
        self.labels = dict(zip(outputs, labels, strict=True))

    def __missing__(self, key: Any) -> Array:
        """Return the outputs of the layer that a number or a parameter's name means."""
        layer = layer_of(str(key))
        if layer == key or layer not in self:
            raise KeyError(f"{key!r} is not a layer; there are {', '.join(self)}")
        return self[layer]

    def histograms(
        self, bins: int = 50, limits: tuple[float, float] | None = None
    ) -> dict[str, tuple[Array, Array]]:
        """Return how often outputs fall between edges, layer by layer.

        Parameters
        ----------
        bins : int
            How many.
        limits : (float, float), optional
            The first and the last edge; by default those of the layer's finite outputs.

        Returns
        -------
        dict of str to (counts, edges)
            As `numpy.histogram` gives them; what is not finite is not counted.
        """
        found = {}
        for name, y in self.items():
            finite = y[np.isfinite(y)]
            found[name] = np.histogram(finite, bins, limits)
        return found

    def dead(self) -> dict[str, int]:
        """Return how many units of each layer give 0 for every sample.

        A unit is an element of the last axis: a unit of a dense layer, a filter of a convolution.
        """
        is_dead = {name: (y.reshape(-1, y.shape[-1]) == 0).all(axis=0) for name, y in self.items()}
        return {name: int(units.sum()) for name, units in is_dead.items()}

    def plot(self, bins: int = 50) -> Figure:
        """Draw the histogram of each layer's outputs.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib, naming the extra to install.
        """
        from lowprec.show.standalone_figures import TRAINING, light_figure

        rows = math.ceil(len(self) / _COLUMNS)
        with light_figure(2.6 * rows + 0.2) as figure:
            grid: Any = figure.add_gridspec(rows, min(len(self), _COLUMNS))
            for place, (name, (counts, edges)) in enumerate(self.histograms(bins).items()):
                axes = figure.add_subplot(grid[divmod(place, _COLUMNS)])
                axes.stairs(counts, edges, fill=True, color=TRAINING)
                axes.set_title(f"{name}: {self.labels[name]}")
                axes.set_yticks([])
        return figure


@in_exact_state_but_users_code
def layer_outputs(
    model: Network,
    params: Mapping[str, ArrayLike],
    x: ArrayLike,
    *,
    policy: Policy | str = "float32",
    training: bool = False,
    rng: RNGLike = 0,
) -> LayerOutputs:
    """Return what each layer gives for a batch, the last layer's outputs included.

    Parameters
    ----------
    model : Sequential
        The network.
    params : dict of str to array_like
        Its parameters: ``model.init(rng)`` shows what an initializer does.
    x : array_like, shape (samples, ...)
        The inputs.
    policy : Policy or str
        The formats.
    training : bool
        Whether layers behave as in training.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Where dropout draws from.

    Returns
    -------
    LayerOutputs
        A dictionary, keyed as `params` by the layer's number, with `histograms`, `plot` and `dead`.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((1,)), train.Dense(1, "relu"), train.Flatten()])
    >>> params = {"0/kernel": [[2.0]], "0/bias": [-1.0]}
    >>> outputs = layer_outputs(model, params, [[1.0], [0.0]])
    >>> {name: y.ravel().tolist() for name, y in outputs.items()}
    {'0': [1.0, 0.0], '1': [1.0, 0.0]}
    """
    numerics = numerics_of(get_policy(policy))
    inputs = numerics.array(array_of("x", inputs_of(model, x)))
    model.check_inputs(inputs)
    arrays = model.check_params(params, numerics.dtype, inputs.shape[1:])
    found: list[Array] = []
    seed = (draw_key(rng),) if training else ()
    passes.run_forward(model, arrays, inputs, numerics, training, seed, keep=found)
    return LayerOutputs(
        {str(place): y for place, y in enumerate(found)}, layer_labels(model.layers)
    )


def dead_units(
    model: Network,
    params: Mapping[str, ArrayLike],
    x: ArrayLike,
    *,
    policy: Policy | str = "float32",
) -> dict[str, int]:
    """Return how many units of each layer with an activation give 0 for every sample.

    Parameters
    ----------
    model, params, x, policy
        As for `layer_outputs`.

    Returns
    -------
    dict of str to int
        By the layer's number; a filter of a convolution is one unit.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((1,)), train.Dense(2, "relu"), train.Dense(1)])
    >>> params = model.init(0) | {"0/kernel": [[1.0, -1.0]], "0/bias": [0.0, -5.0]}
    >>> dead_units(model, params, [[0.5], [2.0]])
    {'0': 1}
    """
    dead = layer_outputs(model, params, x, policy=policy).dead()
    return {
        name: count
        for name, count in dead.items()
        if getattr(getattr(model.layers[int(name)], "function", None), "name", "linear") != "linear"
    }
