"""A network with its parameters, compiled and trained by Keras' methods."""

from __future__ import annotations

import dataclasses
import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.randomness import draw_key
from lowprec.train import keras_words, losses, optimizers
from lowprec.train import metrics as _metrics
from lowprec.train.callbacks import Callback
from lowprec.train.dataset import array_of
from lowprec.train.network import Network, Params
from lowprec.train.optimizing.state import KAHAN
from lowprec.train.policy import get_policy
from lowprec.train.running import loop, prediction
from lowprec.train.running.feeding import inputs_of
from lowprec.train.running.history import History, TrainedParams, target_scale_of
from lowprec.train.running.logits import trained_network
from lowprec.train.running.training import drawn_params
from lowprec.train.saving import Compiled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike

    from lowprec.common.randomness import RNGLike
    from lowprec.train.layers.layer import Array, Shape
    from lowprec.train.losses import Loss
    from lowprec.train.optimizing.optimizer import Optimizer
    from lowprec.train.policy import Policy
    from lowprec.train.running.training import Follower


class CompiledNetwork(Network):
    """A network that keeps what Keras keeps: parameters, state, what `compile` was told."""

    _run: Any = None  # the training, while `fit` runs
    _lent: Mapping[str, Array] = MappingProxyType({})  # of layers that other models have too
    _compiled: Compiled | None = None
    _params: Params | None = None
    _earlier: History | None = None
    _seen_shape: Shape | None = None  # of the samples of `fit`, where no Input says it

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
        keras_words.refuse(others, self.compile)
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
        *places: Any,
        epochs: int = 1,
        batch_size: int | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        callbacks: Iterable[Callback] | Callback | None = None,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: ArrayLike | None = None,
        shuffle: bool = True,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
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
        *places
            Nothing: what comes behind `y` is passed by name.
        epochs : int
            How often to go through the samples; with a second call, how often more.
        batch_size : int, optional
            Samples a step, 32 by default; batches that are given have their own.
        validation_split : float
            Of arrays the share that is validated on, and not trained on: the last samples, as in
            Keras, so that samples in an order are shuffled before. Of a `Dataset` as for
            `train.fit`.
        validation_data, class_weight, sample_weight, shuffle, steps_per_epoch, validation_steps
            As for `train.fit`.
        recorder, verbose
            As for `train.fit`.
        callbacks : iterable of Callback, or one, optional
            Called around epochs and steps. One that is written as for Keras has the model, as it
            is at that moment, as ``self.model``.
        initial_epoch : int
            The number of the first epoch, as callbacks and the history count; the last is
            ``epochs``, as in Keras.
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
        keras_words.refuse_places(places)
        keras_words.refuse(others, self.fit)
        compiled = self._told("fit")
        listed = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or ())
        if validation_split and validation_data is None and y is not None:
            x, y, sample_weight, validation_data = self._last_part(
                x, y, sample_weight, float(validation_split)
            )
            validation_split = 0.0
        following = _Following(self, listed, {"epochs": epochs, "verbose": verbose})
        how: dict[str, Any] = {
            **compiled._asdict(),
            "validation_split": float(validation_split),
            "validation_data": validation_data,
            "class_weight": class_weight,
            "sample_weight": sample_weight,
            "shuffle": shuffle,
            "steps_per_epoch": steps_per_epoch,
            "validation_steps": validation_steps,
            "recorder": recorder,
            "rng": rng,
            "initial_epoch": initial_epoch,
            "epochs": epochs,
            "batch_size": 32 if batch_size is None else batch_size,
            "callbacks": [following, *listed],
            "verbose": verbose,
        }
        data = x if y is None else (x, y)
        params = self.params if self._params is None and self._lent else self._params
        try:
            history = loop.go_on(self, data, self._earlier, params, **how)
        finally:
            self._run = None
        self._earlier, self._params = history, history.params
        self._seen_shape = tuple(history.facts["input_shape"])
        return history

    def _last_part(
        self, x: Any, y: Any, weights: Any, share: float
    ) -> tuple[Any, Any, Any, tuple[Any, ...]]:
        """Return what is trained on, and the last samples, to validate on."""
        x, y = array_of("x", inputs_of(self, x)), array_of("y", y)
        first = math.floor(len(x) * (1.0 - share))
        if not 0 < first < len(x):
            raise ValueError(
                f"validation_split={share} of {len(x)} samples leaves one part empty; choose a "
                "share between 0 and 1, such as 0.2, of enough samples"
            )
        last: tuple[Any, ...] = (x[first:], y[first:])
        if weights is not None:
            weights = np.asarray(weights)
            last, weights = (*last, weights[first:]), weights[:first]
        return x[:first], y[:first], weights, last

    def train_on_batch(
        self,
        x: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> list[float] | dict[str, float]:
        """Take one step on a batch: `fit` on these samples; its loss and metrics, of before it.

        Parameters
        ----------
        x, y : array_like, shapes (samples, ...)
            The batch.
        sample_weight, class_weight
            As for `fit`.
        return_dict : bool
            As for `evaluate`.

        Returns
        -------
        list of float, or dict of str to float
            The loss first.
        """
        found = self.fit(
            x,
            y,
            batch_size=max(len(x), 1),
            sample_weight=sample_weight,
            class_weight=class_weight,
            shuffle=False,
            verbose=False,
        )
        apart = ("learning_rate", "loss_scale")
        values = {name: curve[-1] for name, curve in found.history.items() if name not in apart}
        return values if return_dict else list(values.values())

    def test_on_batch(
        self,
        x: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        return_dict: bool = False,
    ) -> list[float] | dict[str, float]:
        """Return the loss and the metrics of a batch: `evaluate`."""
        return self.evaluate(x, y, sample_weight=sample_weight, return_dict=return_dict)

    def predict_on_batch(self, x: Any) -> Array:
        """Return the outputs for a batch: `predict`."""
        return self.predict(x)

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = None,
        sample_weight: ArrayLike | None = None,
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
        sample_weight : array_like, shape (samples,), optional
            How much each sample counts in the loss.
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
        keras_words.refuse(others, self.evaluate)
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
            sample_weight=sample_weight,
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
        keras_words.refuse(others, self.predict, ("policy", "training", "samples", "rng"))
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
        if self._run is not None:
            return TrainedParams(self._run.params, self._run.units)
        if self._params is None:
            self._params = TrainedParams(self._drawn(self._seen_shape))
        return self._params

    @params.setter
    def params(self, params: Mapping[str, ArrayLike]) -> None:
        wide = any(np.asarray(w).dtype == np.float64 for w in params.values())
        dtype = np.float64 if wide and self._in_float64 else np.float32
        checked = self.check_params(params, dtype, self.input_shape or self._seen_shape)
        kept = {name: np.array(w) for name, w in checked.items()}
        if self._run is not None:
            self._run.params = kept
            return
        self._params = TrainedParams(kept, target_scale_of(params))
        if self._earlier is not None:  # what Kahan's sums kept belonged to the parameters before
            state = {n: s for n, s in self._earlier.state.items() if n.kind != KAHAN}
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

    @property
    def history(self) -> History | None:
        """What the last `fit` returned; of one that runs, what there is."""
        found: History | None = self._earlier if self._run is None else self._run.history
        return found

    @property
    def policy(self) -> Policy | None:
        """The policy of `compile`."""
        return None if self._compiled is None else self._compiled.policy

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer of `compile`; of a `fit` that runs, as it is now."""
        if self._run is not None:
            found: Optimizer = self._run.optimizer
            return found
        return None if self._compiled is None else self._compiled.optimizer

    @property
    def stop_training(self) -> bool:
        """Whether the `fit` that runs ends after this step or epoch: for callbacks to set."""
        return False if self._run is None else bool(self._run.stop_training)

    @stop_training.setter
    def stop_training(self, value: bool) -> None:
        self._running("stop_training").stop_training = value

    @property
    def learning_rate(self) -> float:
        """The rate of the next step of the `fit` that runs: for callbacks to set."""
        return float(self._running("learning_rate").learning_rate)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._running("learning_rate").learning_rate = value

    def _running(self, name: str) -> Any:
        if self._run is None:
            raise ValueError(f"no fit runs: {name} is for callbacks, while it does")
        return self._run

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

    def _drawn(self, shape: Shape | None = None) -> Params:
        """Return the parameters that `fit` begins with: of lent layers those that they had."""
        drawn = drawn_params(self, draw_key(0), shape)
        fitting = {n: w for n, w in self._lent.items() if n in drawn and w.shape == drawn[n].shape}
        return drawn | {name: w.copy() for name, w in fitting.items()}

    def _params_for(self, x: Any) -> Params:
        """Return the parameters; where they are not drawn yet, samples say the shape."""
        if self._params is not None or self.input_shape is not None or self._run is not None:
            return self.params
        return self._drawn(np.shape(inputs_of(self, x))[1:])


class _Following(Callback):
    """What lets the model of a running `fit` show the training: the first of the callbacks.

    callbacks: Those of the user; one that is written as for Keras has the model as its ``model``.
    params: What such a callback's ``params`` say.
    """

    def __init__(
        self, model: CompiledNetwork, callbacks: Sequence[Any], params: dict[str, Any]
    ) -> None:
        self.model, self.callbacks, self.params = model, callbacks, params

    def on_train_begin(self, run: Any) -> None:
        """Show the run."""
        self.model._run, steps = run, run.steps
        for callback in self.callbacks:
            if getattr(callback, "model", self) is run:
                callback.model, callback.params = self.model, self.params | {"steps": steps}
