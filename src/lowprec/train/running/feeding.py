"""What a training is fed with: arrays in memory, or batches that arrive one after the other."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from lowprec.common.processor_state import users_state
from lowprec.train import losses
from lowprec.train.dataset import Dataset, TargetScale, array_of, checked_array
from lowprec.train.running.weighting import sample_weights

if TYPE_CHECKING:
    from lowprec.train.losses import Loss
    from lowprec.train.network import Network

Array = np.ndarray[Any, Any]
Batch = tuple[Array, Array, Array | None]  # inputs, targets, weights of the samples
_EVALUATED = 1024  # samples at once


class Feed(Protocol):
    """Where a training's batches come from."""

    @property
    def summary(self) -> str:
        """What the data are, in a line."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""

    @property
    def steps(self) -> int | None:
        """How many steps an epoch has; None where that is not known before its end."""

    @property
    def some_targets(self) -> Array:
        """Targets from which one sees what they are."""

    @property
    def target_scale(self) -> TargetScale | None:
        """What targets are scaled by in the loss."""

    def checksum(self) -> int:
        """Return a number that other data hardly have; 0 for data that are not kept."""

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, targets in their own units."""

    def first_batches(self, count: int) -> tuple[list[Batch], Array | None]:
        """Return batches of the first epoch, `count` at most, and all targets where known."""


# Arrays in memory --------------------------------------------------------------------------------


class OfArrays:
    """A training set in memory, in an order that a seed draws for each epoch.

    data: Of which the training part is used.
    batch_size: Samples a step.
    order: ``order(epoch, samples)`` returns the rows in the order of an epoch.
    weights: How much each sample counts.
    """

    def __init__(
        self,
        data: Dataset,
        batch_size: int,
        order: Callable[[int, int], Array],
        weights: Array | None = None,
    ) -> None:
        self.data, self.batch_size, self._order = data, batch_size, order
        self.weights = weights
        self.summary, self.input_shape = data.summary, data.input_shape
        self.steps = math.ceil(len(data.x_train) / batch_size)
        self.some_targets, self.target_scale = data.y_train, data.target_scale

    def checksum(self) -> int:
        """Return the checksum of all four arrays, and of the weights."""
        data = self.data
        arrays = [data.x_train, data.y_train, data.x_test, data.y_test]
        arrays += [] if self.weights is None else [self.weights]
        return functools.reduce(lambda crc, x: zlib.crc32(x.tobytes(), crc), arrays, 0)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        order = self._order(epoch, len(self.data.x_train))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            weights = None if self.weights is None else self.weights[rows]
            yield self.data.x_train[rows], self.data.y_train[rows], weights

    def first_batches(self, count: int) -> tuple[list[Batch], Array | None]:
        """Return batches of the first epoch, and all targets."""
        return list(itertools.islice(self.batches(0), count)), self.data.y_train


# Batches -----------------------------------------------------------------------------------------


class OfBatches:
    """Batches from an iterable: of a loader's, or a generator's, one in memory at a time.

    source (iterable of (x, y) or (x, y, sample weights), or a function that returns one): Iterated
        once an epoch, so that a loader shuffles as it does elsewhere. A generator gives its batches
        once.
    steps: How many batches an epoch takes; by default all.
    numbers: Whether integer targets are numbers, and not labels.
    what: What an error calls them.
    """

    target_scale: TargetScale | None = None

    def __init__(
        self, source: Any, steps: int | None = None, *, numbers: bool = False, what: str = "data"
    ) -> None:
        self.source, self.what, self.numbers = source, what, numbers
        self.steps = steps if steps is not None else _length(source)
        self._limit = steps
        self.is_given_once = isinstance(source, Iterator)
        self._running: Iterator[Batch] | None = None
        self._first: Batch | None = None
        self._known: tuple[tuple[int, ...], Array] | None = None

    @property
    def summary(self) -> str:
        """What is known of the batches before they have come."""
        kind = type(self.source).__name__
        return f"batches of a {kind}, samples of shape {self.input_shape}"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the first batch's samples."""
        self._known = self._known or self._facts(self._peek())
        return self._known[0]

    @property
    def some_targets(self) -> Array:
        """The first batch's targets."""
        self._known = self._known or self._facts(self._peek())
        return self._known[1]

    @staticmethod
    def _facts(batch: Batch) -> tuple[tuple[int, ...], Array]:
        return batch[0].shape[1:], batch[1].copy()

    def checksum(self) -> int:
        """Return 0: batches are not kept."""
        return 0

    def first_batches(self, count: int) -> tuple[list[Batch], Array | None]:
        """Return the first batch, which waits for its epoch; all targets are never known."""
        return [self._peek()], None

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of the next epoch, the one that was looked at first among them."""
        first = [] if self._first is None else [self._first]
        self._first = None
        running = self._running if first or self._running is not None else None
        if running is None:
            running = self._begun()
        taken = 0
        for batch in itertools.chain(first, running):
            yield batch
            taken += 1
            if taken == self._limit:
                break
        self._running = running if self.is_given_once else None
        if not taken or (self._limit is not None and taken < self._limit):
            wanted = "a batch" if self._limit is None else f"{self._limit} batches"
            hint = (
                "a generator gives its batches once: pass the function that makes it, without "
                "calling it"
                if self.is_given_once
                else "pass more batches, or fewer steps_per_epoch"
            )
            raise ValueError(
                f"{self.what} ended after {taken} batches in epoch {epoch + 1}, which takes "
                f"{wanted}; {hint}"
            )

    def _peek(self) -> Batch:
        if self._first is None:
            if self._running is None:
                self._running = self._begun()
            first = next(self._running, None)
            if first is None:
                raise ValueError(f"{self.what} gives no batches; pass one at least, as (x, y)")
            self._first = first
        return self._first

    def _begun(self) -> Iterator[Batch]:
        source = self.source() if _is_maker(self.source) else self.source
        iterator = iter(source)
        number = 0
        while True:
            with users_state():
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
            yield self._checked(batch, number)
            number += 1

    def _checked(self, batch: Any, number: int) -> Batch:
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            count = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
            raise TypeError(
                f"batch {number} of {self.what} is a {type(batch).__name__}{count}; each is a pair "
                "(x, y) of inputs and targets"
            )
        x = checked_array("x_train", batch[0], f"batch {number} of {self.what}: x")
        y = checked_array("y_train", batch[1], f"batch {number} of {self.what}: y")
        if len(x) != len(y) or not len(x):
            raise ValueError(
                f"batch {number} of {self.what} has {len(x)} samples and {len(y)} targets; a "
                "sample needs one target"
            )
        weights = sample_weights(batch[2] if len(batch) == 3 else None, len(x))
        return x, y.astype(np.float32) if self.numbers and y.dtype.kind == "i" else y, weights


def _length(source: Any) -> int | None:
    try:
        return len(source)
    except TypeError:
        return None


def _is_maker(source: Any) -> bool:
    """Whether it is a function that makes batches: callable, without an argument."""
    return callable(source) and not hasattr(source, "__iter__")


# What to validate on -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Validation:
    """What is validated on after each epoch: arrays, or batches that are read again each time.

    arrays: All samples, their targets, and perhaps their weights.
    feed: Where batches come from instead.
    """

    arrays: Batch | None = None
    feed: OfBatches | None = None

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return self.feed is not None or (self.arrays is not None and len(self.arrays[0]) > 0)

    def pieces(self, size: int | None = None) -> Iterator[Batch]:
        """Yield the samples in pieces of this size, in order."""
        if self.feed is not None:
            yield from self.feed.batches(0)
        elif self.arrays is not None:
            x, y, weights = self.arrays
            size = size or _EVALUATED
            for start in range(0, len(x), size):
                rows = slice(start, start + size)
                yield x[rows], y[rows], None if weights is None else weights[rows]


# By what the user gives --------------------------------------------------------------------------


def check_epochs(data: Any, epochs: int, steps: int | None) -> None:
    """Refuse more epochs than a generator that is given once has batches for, before it is read.

    Raises ValueError if nothing says how many of its batches make an epoch.
    """
    if isinstance(data, Iterator) and steps is None and epochs > 1:
        raise ValueError(
            f"data is a {type(data).__name__}, which gives its batches once, and {epochs} epochs "
            "want them again; pass the function that makes it, without calling it, or "
            "steps_per_epoch=, the batches of an epoch"
        )


def feed_of(
    model: Network,
    data: Any,
    validation_data: Any = None,
    *,
    loss: str | Loss,
    batch_size: int,
    order: Callable[[int, int], Array],
    split: Callable[[Dataset], Dataset] | None = None,
    steps: int | None = None,
    weights: Any = None,
    validation_steps: int | None = None,
) -> tuple[Feed, Validation]:
    """Return what is trained on, and what is validated on.

    model: The network: where it has one feature, x may be a vector.
    data (Dataset, pair of arrays, or iterable of batches): What `fit` was given.
    validation_data (Dataset, pair or iterable): In place of the test part.
    loss: Under one of regression integer targets are numbers.
    batch_size: Samples a step; batches that are given have their own.
    order: As for `OfArrays`.
    split: Takes a part of the training set to validate on.
    steps, validation_steps: How many batches make an epoch of an iterable, and how many of one are
        validated on.
    weights (array_like): How much each sample of arrays counts.
    Raises TypeError, ValueError if something else is given, or it does not fit together.
    """
    numbers = is_regression(loss)
    pair = _pair(data)
    if not hasattr(data, "x_train") and pair is None:
        if split is not None and validation_data is None:
            raise ValueError(
                "validation_split takes samples out of arrays, and batches have none to take; "
                "pass validation_data=(x, y)"
            )
        if weights is not None:
            raise ValueError(
                "sample_weight is for arrays; batches bring their own: yield (x, y, sample_weight)"
            )
        feed = OfBatches(_batches(data), steps, numbers=numbers)
        return feed, _validation(model, validation_data, numbers, validation_steps)
    if steps is not None:
        raise ValueError(
            f"steps_per_epoch={steps} counts the batches of a generator; arrays are gone through "
            "whole: drop it"
        )
    found = data if pair is None else _dataset(model, *pair, numbers)
    if numbers:
        found = found.with_numbers_as_targets()
    found_weights = sample_weights(weights, len(found.x_train))
    if split is not None and validation_data is None:
        if found_weights is not None:
            raise ValueError(
                "validation_split would part samples from their sample_weight; pass "
                "validation_data=(x, y)"
            )
        found = split(found)
    validation = Validation((found.x_test, found.y_test, None))
    if validation_data is not None:
        validation = _validation(model, validation_data, numbers, validation_steps)
        if validation.arrays is not None:
            x, y, _ = validation.arrays
            found = dataclasses.replace(found, x_test=x, y_test=y)
    return OfArrays(found, batch_size, order, found_weights), validation


def is_regression(loss: str | Loss) -> bool:
    """Whether targets of this loss are numbers, whatever their dtype."""
    is_ours = losses.without_options(loss) in losses.LOSSES.values()
    return is_ours and not losses.takes_logits(loss)


def inputs_of(model: Network, x: Any) -> Any:
    """Return inputs with an axis for the feature, where the model has one and x is a vector."""
    shape = np.shape(x) if not hasattr(x, "shape") else tuple(x.shape)
    if len(shape) == 1 and model.input_shape in (None, (1,)):
        to_numpy = getattr(x, "to_numpy", None)  # of a Series
        x = to_numpy() if to_numpy is not None else x
        return x.reshape(-1, 1) if hasattr(x, "reshape") else np.asarray(x).reshape(-1, 1)
    return x


def _dataset(model: Network, x: Any, y: Any, numbers: bool) -> Dataset:
    if y is None:
        raise TypeError("targets are missing; pass both, as in fit(model, (x, y), …)")
    if numbers:
        targets = array_of("y_train", y)
        y = targets.astype(np.float32) if targets.dtype.kind in "iub" else targets
    return Dataset(inputs_of(model, x), y)


def _pair(data: Any) -> tuple[Any, Any] | None:
    """Return x and y of a pair of arrays; None for anything else."""
    if isinstance(data, tuple | list) and len(data) == 2:
        are_batches = isinstance(data, list) and all(
            isinstance(one, tuple) and len(one) == 2 for one in data
        )
        return None if are_batches else (data[0], data[1])
    return None


def _batches(data: Any) -> Any:
    """Return what gives batches, or say what could be passed."""
    is_array = hasattr(data, "dtype") or hasattr(data, "to_numpy")
    if isinstance(data, Mapping | str | bytes) or data is None or is_array:
        what = "an array without targets" if is_array else type(data).__name__
        raise TypeError(
            f"data is {what}; pass train.Dataset(x_train, y_train, x_test, y_test), a pair (x, y), "
            "batches (x, y) from a loader or a generator, or one of train.data, such as "
            "train.data.digits()"
        )
    if isinstance(data, tuple):
        raise TypeError(
            f"data is a tuple of {len(data)}; pass a pair (x, y), with validation_data=(x, y), or "
            "train.Dataset(x_train, y_train, x_test, y_test)"
        )
    if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        if callable(data) and not inspect.isclass(data):
            return data
        raise TypeError(
            f"data is a {type(data).__name__}; pass train.Dataset(x_train, y_train, x_test, "
            "y_test), a pair (x, y), or batches (x, y) from a loader or a generator"
        )
    return data


def _validation(model: Network, data: Any, numbers: bool, steps: int | None) -> Validation:
    if data is None:
        return Validation()
    is_weighted = isinstance(data, tuple) and len(data) == 3
    pair = (data[0], data[1]) if is_weighted else _pair(data)
    if hasattr(data, "x_train"):
        parts = (data.x_test, data.y_test) if len(data.x_test) else (data.x_train, data.y_train)
        return Validation(cast("Batch", (*parts, None)))
    if pair is None:
        source = _batches(data)
        if isinstance(source, Iterator) and steps is None:
            raise ValueError(
                "validation_data is a generator, which gives its batches once, and every epoch "
                "reads them; pass the function that makes it, without calling it, or a list, or "
                "validation_steps=, the batches of an epoch"
            )
        return Validation(feed=OfBatches(source, steps, numbers=numbers, what="validation_data"))
    x = checked_array("x_train", inputs_of(model, pair[0]), "validation_data: x")
    y = checked_array("y_train", pair[1], "validation_data: y")
    if len(x) != len(y):
        raise ValueError(
            f"validation_data has {len(x)} samples and {len(y)} targets; a sample needs one target"
        )
    weights = sample_weights(data[2] if is_weighted else None, len(x))
    y = y.astype(np.float32) if numbers and y.dtype.kind == "i" else y
    return Validation((x, y, weights))
