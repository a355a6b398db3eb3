"""A training in progress: its steps, its updates, and what it comes to."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lowprec.arrays.direct import lies_flat
from lowprec.common.processor_state import InUsersState, in_its_state, is_lowprecs
from lowprec.common.randomness import draw_key
from lowprec.train import losses, optimizers
from lowprec.train import metrics as _metrics
from lowprec.train.layer_policies import policies_of
from lowprec.train.loss_scale import LossScale
from lowprec.train.numerics import Numerics, numerics_of
from lowprec.train.optimizing.optimizer import counts_epochs
from lowprec.train.optimizing.state import KAHAN, Slot, State
from lowprec.train.policy import Policy, get_policy
from lowprec.train.running import baselines, passes
from lowprec.train.running.feeding import OfArrays, feed_of
from lowprec.train.running.history import History, TrainedParams
from lowprec.train.running.hooks import with_run
from lowprec.train.running.json_values import plain
from lowprec.train.running.logits import trained_network
from lowprec.train.running.prediction import evaluate_pieces, metrics_for
from lowprec.train.running.targets import class_numbers
from lowprec.train.running.weighting import by_class, by_sample, checked_weights
from lowprec.train.saving import Compiled, Saved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import ArrayLike

    from lowprec.train.callbacks import Callback
    from lowprec.train.dataset import Dataset
    from lowprec.train.losses import Loss
    from lowprec.train.network import Network
    from lowprec.train.optimizing.optimizer import Optimizer
    from lowprec.train.optimizing.transforms import Fused
    from lowprec.train.running.progress import Progress
    from lowprec.train.running.watch import StepWatch, Watch

Array = np.ndarray[Any, Any]
Params = dict[str, Array]

# What each use of the seed draws; the rest of a generator's seed counts epochs, steps and layers.
_INIT, _SHUFFLE, _LAYERS, _UPDATE, _SPLIT = range(5)


class Training:
    """A run in progress: what `fit` drives, and callbacks see.

    Parameters
    ----------
    model, data, loss, optimizer, policy, metrics, batch_size, validation_split, validation_data, \
    class_weight, sample_weight, shuffle, steps_per_epoch, validation_steps, recorder
        As for `fit`.
    seed : int
        What all its randomness comes from.

    Attributes
    ----------
    params : dict of str to numpy.ndarray
        The stored parameters, rounded as the policy says.
    history : History
        The curves of the finished epochs, loss scales and skips so far.
    epoch : int
        How many epochs are finished.
    step : int
        How many updates have been applied; skipped steps do not count.
    stop_training : bool
        Set it, and the run ends: after this step where that is within an epoch.
    """

    def __init__(
        self,
        model: Network,
        data: Any,
        *,
        loss: str | Loss,
        optimizer: Optimizer | str,
        policy: Policy | str,
        metrics: Iterable[Any] = (),
        batch_size: int = 32,
        validation_split: float = 0.0,
        validation_data: Any = None,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: ArrayLike | None = None,
        shuffle: bool = True,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        seed: int = 0,
        recorder: Follower | None = None,
    ) -> None:
        self.model, self.seed, self.batch_size, self.shuffle = model, seed, batch_size, shuffle
        self.loss = in_its_state(losses.get(loss))
        # what is all lowprec's may be called once more; a user's function may count its calls
        self._is_all_ours = self.loss is losses.get(loss) and all(
            is_lowprecs(type(layer)) for layer in model.layers
        )
        self.loss_name = plain(loss)
        self.told = (loss, _metrics.listed(metrics))
        self.class_weight = checked_weights(class_weight)
        self.step_loss = self.loss
        if self.class_weight:
            if sample_weight is not None:
                raise ValueError(
                    "class_weight and sample_weight both say how much samples count; pass one: "
                    "sample_weight = sample_weight * numpy.array([weight of each class])[y]"
                )
            self.step_loss = by_class(self.loss, self.class_weight)
        self.policy = get_policy(policy)
        # what is run: the model, but for a last softmax before a loss that takes logits
        self.network, run_policy, self.activation = trained_network(model, loss, self.policy)
        self.numerics = numerics_of(run_policy)
        self.places = policies_of(run_policy, self.network.layers)
        self._stores_float32 = self.places is None and self.numerics.stores_float32
        self.optimizer = self.given_optimizer = optimizers.get(optimizer)
        self._shows_rate = callable(self.optimizer.learning_rate)
        self._last_rate = math.nan
        self.optimizer_facts = _facts_of(self.optimizer)
        self.validation_split = validation_split
        self.feed, self.validation = feed_of(
            model,
            data,
            validation_data,
            loss=loss,
            batch_size=batch_size,
            order=self._order,
            split=self._split if validation_split else None,
            steps=steps_per_epoch,
            weights=sample_weight,
            validation_steps=validation_steps,
        )
        self.data_checksum = self.feed.checksum()
        model.check_inputs(np.empty((0, *self.feed.input_shape), np.float32))
        self._check_labels()
        named = _metrics.get_all(metrics, loss)
        self.metrics = named or _metrics.for_loss(loss) or metrics_for(self.feed.some_targets)
        self.units = self.feed.target_scale
        own_units = None if self.units is None else self.units.own
        self.reading = _metrics.Reading(loss, self.activation, own_units)
        if not isinstance(recorder, Follower | None):
            raise TypeError(f"recorder is {recorder!r}; pass one, such as train.Recorder(every=10)")
        self.recorder = recorder
        self.params: Params = {}
        self.state: State = {}  # the optimizer's
        self.lost: Params = {}  # by updates, as Kahan's sum keeps it for the next step
        self.loss_scale: LossScale | None = _scale_of(self.policy)
        self.epoch = self.step = self.seen = 0
        self.history = History(recorder=recorder)
        self.observed: list[float] = []
        self._set_rate: float | None = None  # by a callback
        self.known: dict[str, float | None] = {}
        self.before = (0, 0)  # epochs and steps of an earlier `fit`, which this one goes on from
        self._initial: Params | None = None  # until the loss of the start is known
        self.stop_training = False

    def _at(self, name: str) -> Numerics:
        """Return the numerics of a parameter."""
        return self.numerics if self.places is None else numerics_of(self.places.of(name))

    def _update_of(self, name: str) -> str:
        """Return how an update is rounded into a parameter."""
        return self._at(name).policy.update

    def _check_labels(self) -> None:
        """Refuse labels that are not classes of the model, by their row in the data."""
        if self.loss is losses.sparse_categorical_crossentropy and self.dataset is not None:
            outputs = self.model.shapes(self.feed.input_shape)[-1]
            for name in ("y_train", "y_test"):
                labels = getattr(self.dataset, name)
                if not len(labels):
                    continue
                try:
                    class_numbers(labels, (len(labels), *outputs))
                except (TypeError, ValueError) as error:
                    raise type(error)(f"{name}: {error}") from None

    @property
    def data(self) -> Any:
        """The data set; or the batches, of which `summary` tells what they are."""
        return self.feed if self.dataset is None else self.dataset

    @property
    def dataset(self) -> Dataset | None:
        """The data set in memory; None where batches are given."""
        return self.feed.data if isinstance(self.feed, OfArrays) else None

    @property
    def steps(self) -> int | None:
        """How many steps an epoch has; None before a generator's first end."""
        return self.feed.steps

    def _split(self, data: Dataset) -> Dataset:
        return data.split(self.validation_split, rng=_generator(self.seed, _SPLIT))

    # Beginning and ending ------------------------------------------------------------------------

    def start(self, params: Mapping[str, ArrayLike] | None) -> None:
        """Begin with these parameters, or with those that the seed draws."""
        shape = self.feed.input_shape
        if params is None:
            params = drawn_params(self.model, self.seed, shape)
        checked = self.model.check_params(params, self.numerics.dtype, shape)
        self._initial = {name: w.copy() for name, w in checked.items()}
        if self._is_all_ours:
            self._learn_what_is_known()
        # copies: whatever becomes of the caller's arrays, the training keeps its own
        self.params = {name: w.copy() for name, w in checked.items()}
        self.params |= {name: self._at(name).params(w) for name, w in self._trained().items()}
        trained = self._trained()
        self.state = self.optimizer.at(0).init(trained)
        compensated = [name for name in trained if self._update_of(name) == "kahan"]
        self.lost = {name: np.zeros_like(trained[name]) for name in compensated}

    def _learn_what_is_known(self) -> None:
        """Note the losses that a run must fall below to have learnt anything."""
        if self._initial is None:
            return
        params, self._initial = self._initial, None
        batches, targets = self.feed.first_batches(baselines.BATCHES)
        seen = [(x, self._in_loss(y), by_sample(self.step_loss, w)) for x, y, w in batches]
        targets = None if targets is None else self._in_loss(targets)
        start = baselines.start_loss(self.network, params, seen, is_float64=self.policy.is_float64)
        constant = deviation = None
        if targets is not None:
            deviation = baselines.deviation_of(targets)
            is_weighted = self.class_weight or any(w is not None for _, _, w in batches)
            constant = None if is_weighted else baselines.constant_loss(self.loss, targets)
        self.known = {
            "start": start,
            "constant": constant,
            "deviation": deviation,
            "unit_roundoff": self.policy.formats["compute"].unit_roundoff,
        }
        if self.recorder is not None:
            self.recorder.facts["outcome"] = self.known

    def _order(self, epoch: int, samples: int) -> Array:
        """Return the order of the samples in an epoch."""
        if not self.shuffle:
            return np.arange(samples)
        return _generator(self.seed, _SHUFFLE, epoch).permutation(samples)

    def _in_loss(self, y: Array) -> Array:
        """Return targets as the loss compares them with outputs."""
        return y if self.units is None else self.units.scaled(y)

    def resume(self, earlier: History) -> None:
        """Go on where another run ended."""
        mine, its = self.facts(), earlier.facts
        for name in ("model", "formats", "optimizer", "loss", "batch_size", "validation_split"):
            if mine[name] != its.get(name):
                raise ValueError(
                    f"the earlier run had {name}={its.get(name)!r}, and this one has "
                    f"{mine[name]!r}; resume with the same, or start anew with params="
                )
        if mine["data"] != its.get("data") or mine["data_checksum"] != its.get("data_checksum"):
            other = " with other numbers" if mine["data"] == its.get("data") else ""
            raise ValueError(
                f"the earlier run had {its.get('data')}, this one {mine['data']}{other}; resume "
                "with the same data"
            )
        self.start(earlier.params)
        self._take_up(earlier)
        self.history = _copied(earlier, recorder=self.recorder)
        self.before = tuple(its.get("before", (0, 0)))

    def go_on(self, earlier: History, params: Mapping[str, ArrayLike]) -> None:
        """Go on from other parameters, data or sizes of batches, with a history of its own.

        The optimizer's state, the loss scale and the counts of steps are the earlier run's.
        """
        self.start(params)
        state, lost = self.state, self.lost
        self._take_up(earlier)
        self.state = state | {slot: x for slot, x in self.state.items() if slot in state}
        self.lost = lost | {name: x for name, x in self.lost.items() if name in lost}
        self.before = (self.epoch, self.seen)

    def _take_up(self, earlier: History) -> None:
        its = earlier.facts
        self.known, self._initial = its.get("outcome", self.known), None
        kept = {slot: np.array(values) for slot, values in earlier.state.items()}
        self.state = {slot: x for slot, x in kept.items() if slot.kind != KAHAN}
        self.lost = {slot.parameter: x for slot, x in kept.items() if slot.kind == KAHAN}
        self.epoch, self.step, self.seen = its["epoch"], its["step"], its["seen"]
        self.loss_scale = None if its["loss_scale"] is None else LossScale(**its["loss_scale"])
        for metric in its["observed"]:
            self._observe(metric)
        if its.get("learning_rate") is not None:
            self.learning_rate = its["learning_rate"]

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return self.optimizer.rate(self._position)

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        if callable(self.given_optimizer.learning_rate):
            raise ValueError(
                f"the learning rate follows {self.given_optimizer.learning_rate!r}, and a callback "
                "would set it; give the optimizer a number, or let the schedule do it: "
                "train.schedules.Performance reduces on a plateau"
            )
        if not self._shows_rate:
            before = [self.learning_rate] * len(self.history.epoch)
            self.history.history["learning_rate"] = before
            self._shows_rate = True
        self._set_rate = float(rate)
        self.optimizer = dataclasses.replace(self.optimizer, learning_rate=self._set_rate)

    @property
    def _position(self) -> int:
        """Where the schedule is: after how many steps or epochs."""
        return self.epoch if counts_epochs(self.optimizer.learning_rate) else self.step

    def saved_model(self) -> Saved:
        """Return the model as it is now, with what it is trained with, for a file."""
        loss, listed = self.told
        history = self.snapshot()
        return Saved(
            self.model.layers,
            self.model.input_shape,
            tuple(self.feed.input_shape),
            history.params,
            Compiled(self.given_optimizer, loss, listed, self.policy),
            history,
        )

    def snapshot(self) -> History:
        """Return all that the run has come to, from which `resume` goes on."""
        return _copied(
            self.history,
            params=TrainedParams(
                {name: values.copy() for name, values in self.params.items()}, self.units
            ),
            facts=self.facts(),
            state={slot: x.copy() for slot, x in self.state.items()}
            | {Slot(KAHAN, name): x.copy() for name, x in self.lost.items()},
        )

    def facts(self) -> dict[str, Any]:
        """Return what the run is and how far it has come, as JSON holds it."""
        scale = self.loss_scale
        return {
            "model": plain(self.model),
            "policy": str(self.policy),
            "formats": str(dataclasses.replace(self.policy, name="")),
            "optimizer": self.optimizer_facts,
            "loss": self.loss_name,
            "batch_size": self.batch_size,
            "validation_split": self.validation_split,
            "data": self.data.summary,
            "data_checksum": self.data_checksum,
            "seed": self.seed,
            "epoch": self.epoch,
            "step": self.step,
            "seen": self.seen,
            "loss_scale": None if scale is None else dataclasses.asdict(scale),
            "observed": list(self.observed),
            "learning_rate": self._set_rate,
            "outcome": self.known,
            "input_shape": list(self.feed.input_shape),
            "before": list(self.before),
            "metrics": [metric.name for metric in self.metrics],
            "target_scale": None if self.units is None else [list(part) for part in self.units],
        }

    # Running -------------------------------------------------------------------------------------

    def run(self, epochs: int, callbacks: list[Callback], progress: Progress) -> None:
        """Run until `epochs` epochs are finished, or a callback stops it."""
        if any(getattr(callback, "changes_learning_rate", False) for callback in callbacks):
            self._shows_rate = True
        callbacks = [
            callback
            if is_lowprecs(type(callback))
            else cast("Callback", InUsersState(with_run(callback, self)))
            for callback in callbacks
        ]
        for callback in callbacks:
            callback.on_train_begin(self)
        with progress:
            while self.epoch < epochs and not self.stop_training:
                for callback in callbacks:
                    callback.on_epoch_begin(self.epoch - self.before[0], self)
                logs = self._run_epoch(callbacks, progress)
                if self._shows_rate:
                    logs["learning_rate"] = self._last_rate
                if self.loss_scale is not None:
                    logs["loss_scale"] = self.history.loss_scales[-1]
                self._keep(logs)
                self.epoch += 1
                self._observe(logs.get("val_loss", logs["loss"]))
                progress.end_epoch(logs)
                for callback in callbacks:
                    callback.on_epoch_end(self.epoch - 1 - self.before[0], logs, self)
        self._learn_what_is_known()
        for callback in callbacks:
            callback.on_train_end(self)

    def _run_epoch(self, callbacks: list[Callback], progress: Progress) -> dict[str, float]:
        averages = _metrics.Averages(self.metrics, self.reading)
        progress.begin_epoch(self.epoch - self.before[0])
        for x, y, weights in self.feed.batches(self.epoch):
            result = self.run_step(x, y, weights)
            averages.add(result.loss, y, result.outputs)
            progress.update(averages.result)
            for callback in callbacks:
                step = self.seen - 1 - self.before[1]
                callback.on_batch_end(step, {"loss": result.loss}, self)
            if self.stop_training:
                break
        logs = averages.result()
        if self.validation:
            found = evaluate_pieces(
                self.network,
                self.params,
                self.validation.pieces(),
                self.loss,
                self.metrics,
                self.numerics.policy,
                self.reading,
                self._in_loss,
            )
            logs |= {f"val_{name}": value for name, value in found.items()}
        return logs

    def run_step(self, x: Array, y: Array, weights: Array | None = None) -> passes.Pass:
        """Take one step: both passes, and the update unless scaled gradients are not finite."""
        scale, y = self.loss_scale, self._in_loss(y)
        recorder, before = self.recorder, self.params.copy()  # updates leave the arrays alone
        watch = None if recorder is None else recorder.watch(self)
        loss = by_sample(self.step_loss, weights)
        result = self._passes(before, x, y, loss, watch)
        self.history.loss_scales.append(1.0 if scale is None else scale.value)
        self.history.step_losses.append(result.loss)
        self._last_rate = self.learning_rate
        if scale is None:
            self._update(result, result.gradients, watch)
        else:
            finite = self.numerics.unscale(result.gradients, scale.inverse)
            if finite:
                self._update(result, result.gradients, watch)
            else:
                self.history.skipped_steps.append(self.seen - self.before[1])
                self.history.skip_reasons.append(_reason(result.gradients, scale.value))
        if recorder is not None:
            recorder.finish(self, lambda inquest: self._passes(before, x, y, loss, inquest))
        if scale is not None:
            self.loss_scale = scale.adjust(finite)
        self.seen += 1
        return result

    def _passes(
        self, params: Params, x: Array, y: Array, loss: Loss, watch: Watch | None
    ) -> passes.Pass:
        """Run both passes of this step."""
        return passes.run_pass(
            self.network,
            params,
            self.numerics.array(x),
            y,
            loss,
            self.numerics,
            scale=1.0 if self.loss_scale is None else self.loss_scale.value,
            seed=(self.seed, _LAYERS, self.seen),
            watch=watch,
        )

    def _update(
        self, result: passes.Pass, gradients: Params, watch: StepWatch | None = None
    ) -> None:
        """Apply the optimizer's updates and the new moving statistics."""
        rate, optimizer = self._last_rate, self.optimizer.at(self._position)
        fused = optimizer.transform.fused
        self.step += 1
        if fused is not None and self._stores_float32:
            updates = self._update_fused(gradients, fused, rate, watch)
        else:
            updates = self._update_in_parts(gradients, optimizer, rate, watch)
        with np.errstate(all="ignore"):
            self._constrain(updates)
        self.params |= result.updates  # statistics are float32 whatever the parameters are

    def _update_fused(
        self, gradients: Params, fused: Fused, rate: float, watch: StepWatch | None
    ) -> Params:
        """Apply the optimizer's updates; return arrays by the names of what was updated."""
        before, state = self.params.copy(), self.state
        kinds = dict.fromkeys(slot.kind for slot in state)
        store = None if watch is None else watch.store(state, self._at)
        updates = {name: g if lies_flat(g) else g.copy() for name, g in gradients.items()}
        for name, g in updates.items():
            out = g if watch is None else np.empty_like(g)
            self.params[name] = fused(state, name, before[name], g, out, self.step, rate)
            if store is not None:
                for kind in kinds:
                    store(state[Slot(kind, name)])
        if watch is not None:
            watch.update(updates, before, state, self._at, self.params)
        return updates

    def _update_in_parts(
        self, gradients: Params, optimizer: Optimizer, rate: float, watch: StepWatch | None
    ) -> Params:
        """Apply the optimizer's updates, and return them."""
        trained, state = self._trained(), self.state
        store = self._store(state) if watch is None else watch.store(state, self._at)
        updates, self.state = optimizer.update(gradients, state, trained, self.step, rate, store)
        with np.errstate(all="ignore"):
            sums = {} if watch is None else watch.update(updates, trained, self.state, self._at)
            self._add(updates, sums)
        return updates

    def _store(self, state: State) -> Callable[[Array], Array]:
        """Return what rounds an array of the state to the format of its parameter's state."""
        if self.places is None:
            return self.numerics.state
        numerics = {id(x): self._at(slot.parameter) for slot, x in state.items()}

        def store(array: Array) -> Array:
            return numerics.get(id(array), self.numerics).state(array)

        return store

    def _add(self, updates: Params, sums: Params) -> None:
        """Add updates to the parameters, each rounded as its policy says.

        sums: What is known of them already: each rounded to nearest.
        """
        keys: list[int] = []
        if any(self._update_of(name) == "stochastic" for name in updates):
            generator = _generator(self.seed, _UPDATE, self.step)
            keys = generator.integers(0, 2**64 - 1, len(updates), np.uint64, endpoint=True).tolist()
        for place, (name, update) in enumerate(updates.items()):
            numerics, w = self._at(name), self.params[name]
            match numerics.policy.update:
                case "kahan":
                    self.params[name] = self._compensated(numerics, name, update)
                case "stochastic":
                    self.params[name] = numerics.updated_at_random(w, update, keys[place])
                case _:
                    self.params[name] = sums[name] if sums else numerics.updated(w, update)

    def _compensated(self, numerics: Numerics, name: str, update: Array) -> Array:
        """Add an update as Kahan's sum adds a term; what was lost is kept for the next step."""
        rounded = numerics.params
        w = self.params[name]
        y = rounded(update - self.lost[name])
        total = rounded(w + y)
        self.lost[name] = rounded(rounded(total - w) - y)
        return total

    def _constrain(self, updates: Params) -> None:
        for i, layer in enumerate(self.model.layers):
            for short, constraint in layer.constraints.items():
                name = f"{i}/{short}"
                if name in updates:
                    free = self.params[name]
                    constrained = self.numerics.array(constraint(free))
                    self.params[name] = self._at(name).params(constrained)
                    if self._update_of(name) == "kahan":  # what was lost belonged to the free ones
                        self.lost[name][self.params[name] != free] = 0

    def _trained(self) -> Params:
        return {
            f"{i}/{name}": self.params[f"{i}/{name}"]
            for i, layer in enumerate(self.model.layers)
            if layer.trainable
            for name in layer.parameters
            if name not in layer.statistics
        }

    def _keep(self, logs: dict[str, float]) -> None:
        self.history.epoch.append(self.epoch - self.before[0])
        for name, value in logs.items():
            self.history.history.setdefault(name, []).append(float(value))

    def _observe(self, metric: float) -> None:
        self.observed.append(metric)
        self.optimizer = self.optimizer.observe(metric)


class Follower(abc.ABC):
    """What is told of every step of a training: a recorder is one.

    Attributes
    ----------
    facts : dict
        What the training is and comes to; the training adds what must be exceeded to have learnt.
    """

    facts: dict[str, Any]

    @abc.abstractmethod
    def watch(self, training: Training) -> StepWatch | None:
        """Return what looks at this step, or None where nothing does."""

    @abc.abstractmethod
    def finish(self, training: Training, repeat: Callable[[Watch], passes.Pass]) -> None:
        """Look at the training after a step; `repeat` runs the step's passes again."""


def initial_params(model: Network, data: Dataset, how: Mapping[str, Any]) -> Params:
    """Return the float32 parameters that `fit` with these arguments starts from."""
    training = Training(
        model,
        data,
        loss=how["loss"],
        optimizer=how["optimizer"],
        policy="float32",
        batch_size=how.get("batch_size", 32),
        validation_split=how.get("validation_split", 0.0),
        seed=draw_key(how.get("rng", 0)),
    )
    params = how.get("params")
    drawn = drawn_params(model, training.seed, training.feed.input_shape)
    return {name: np.array(w, np.float32) for name, w in (params or drawn).items()}


def _copied(history: History, **changes: Any) -> History:
    """Return a history whose lists may be written to."""
    lists = {
        name: list(getattr(history, name))
        for name in ("loss_scales", "step_losses", "skipped_steps", "skip_reasons", "epoch")
    }
    curves = {name: list(values) for name, values in history.history.items()}
    return dataclasses.replace(history, **{"history": curves, **lists, **changes})


def _generator(seed: int, *use: int) -> np.random.Generator:
    return np.random.default_rng([seed, *use])


def _scale_of(policy: Policy) -> LossScale | None:
    assert policy.loss_scale is None or isinstance(policy.loss_scale, LossScale)
    return policy.loss_scale


def _reason(gradients: Params, scale: float) -> str:
    """Name the first gradient, in the order of the backward pass, that is not finite."""
    for name, gradient in reversed(gradients.items()):
        finite = np.isfinite(gradient)
        if not finite.all():
            value = gradient[~finite][0]
            return f"gradient of {name} holds {value} under the loss scale {scale:g}"
    raise AssertionError("all gradients are finite")


def _facts_of(optimizer: Optimizer) -> dict[str, Any]:
    """Return an optimizer's name and numbers, as JSON holds them."""
    numbers = {"learning_rate": optimizer.learning_rate, **optimizer.hyperparameters}
    return {"name": optimizer.name} | {name: plain(value) for name, value in numbers.items()}


def drawn_params(model: Network, seed: int, shape: tuple[int, ...] | None = None) -> Params:
    """Return the parameters that a training with this seed starts from."""
    return model.init(_generator(seed, _INIT), input_shape=shape)
