"""A data set: checked once, scaled by what the training set says, split evenly."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from lowprec.arrays.sources import as_array
from lowprec.common.names import named
from lowprec.common.processor_state import in_exact_state
from lowprec.common.randomness import as_generator

Array = np.ndarray[Any, Any]

FIELDS = ("x_train", "y_train", "x_test", "y_test")
_TARGETS = ("y", "y_train", "y_test")


class TargetScale(NamedTuple):
    """How real targets are brought to a size that trains well, and back to their own units.

    Attributes
    ----------
    shift, scale : tuple of float
        One for each output, or one for all: a scaled target is ``(y - shift) / scale``.

    Examples
    --------
    >>> units = TargetScale((10.0,), (2.0,))
    >>> units.own(units.scaled(np.float32([[14.0]])))
    array([[14.]], dtype=float32)
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    @in_exact_state
    def scaled(self, y: Array) -> Array:
        """Return targets scaled, in float64 and rounded once to their dtype."""
        y = np.asarray(y)
        dtype = y.dtype if y.dtype.kind == "f" else np.dtype(np.float32)
        values = (y.astype(np.float64) - self._like(self.shift, y)) / self._like(self.scale, y)
        return np.asarray(values, dtype)

    @in_exact_state
    def own(self, y: Array) -> Array:
        """Return scaled targets, or predictions of them, in their own units; rounded once."""
        y = np.asarray(y)
        with np.errstate(all="ignore"):
            values = y.astype(np.float64) * self._like(self.scale, y) + self._like(self.shift, y)
            return np.asarray(values, y.dtype)

    def _like(self, numbers: tuple[float, ...], y: Array) -> Array:
        found = np.array(numbers, np.float64)
        return found.reshape(()) if found.size == 1 else found.reshape(y.shape[1:])


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training set and a test set.

    Features become float32 (rounded once from what is given). Targets that are integers or bool
    are labels, the numbers of classes from 0, and become int64; all others become float32.

    Attributes
    ----------
    x_train, x_test : ndarray of float32
        A row for each sample: (n, features), or images (n, height, width[, channels]). Without a
        test part both of it are empty.
    y_train, y_test : ndarray
        Labels of shape (n,), or targets of shape (n,) or (n, outputs).
    name : str
        What to call it.
    target_scale : TargetScale or None
        What the targets are scaled by inside the loss; the arrays here are in their own units.

    Raises
    ------
    ValueError
        If lengths or shapes differ, a number is NaN, infinite or too large for float32, or a label
        is negative or never occurs in the training set: the message names the row.
    TypeError
        If an array is not of real numbers.

    Examples
    --------
    >>> data = Dataset([[0.0], [1.0]], [0, 1], [[2.0]], [1])
    >>> data.classes, data.x_train.dtype.name
    (2, 'float32')
    >>> Dataset([[0.0], [np.nan]], [0, 1], [[2.0]], [1])
    Traceback (most recent call last):
        ...
    ValueError: x_train holds nan in row 1; remove the row or fill in the value
    """

    x_train: Array
    y_train: Array
    x_test: Array = None  # type: ignore[assignment]  # then empty
    y_test: Array = None  # type: ignore[assignment]
    name: str = "data"
    target_scale: TargetScale | None = None

    def __post_init__(self) -> None:
        if (self.x_test is None) != (self.y_test is None):
            given, missing = ("x_test", "y_test") if self.y_test is None else ("y_test", "x_test")
            raise ValueError(f"{given} is given without {missing}; pass both, or leave out both")
        for field in FIELDS:
            values = getattr(self, field)
            if values is None:
                values = (self.y_train if field in _TARGETS else self.x_train)[:0]
            object.__setattr__(self, field, _checked(field, array_of(field, values)))
        self._check_shapes()
        if self.is_classification:
            self._check_labels()

    @property
    def is_classification(self) -> bool:
        """Whether the targets are labels."""
        return bool(self.y_train.dtype.kind == "i")

    @property
    def classes(self) -> int | None:
        """The number of classes; None for regression."""
        return int(self.y_train.max()) + 1 if self.is_classification else None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        shape: tuple[int, ...] = self.x_train.shape[1:]
        return shape

    @property
    def outputs(self) -> int:
        """How many units a network's last layer needs: classes, or targets of a sample."""
        return self.classes or math.prod(self.y_train.shape[1:])

    @in_exact_state
    def scaled(self, how: str, *, targets: bool = False, each_feature: bool = True) -> Dataset:
        """Return the data with features scaled as fitted on the training set alone.

        Parameters
        ----------
        how : {"minmax", "standard"}
            To 0 … 1, or to mean 0 and standard deviation 1, in float64 and rounded once. A feature
            that is constant in the training set is only shifted, to 0.
        targets : bool
            Whether the loss is of targets that are scaled alike, each output by itself. The
            targets here, metrics and what `predict` gives stay in the targets' own units.
        each_feature : bool
            Whether each feature of a table, and each channel of images, has a scale of its own;
            False: one for all.

        Raises
        ------
        ValueError
            If `how` is unknown, or targets to scale are labels.

        Returns
        -------
        Dataset
            With float32 features; the test set may leave the interval.

        Examples
        --------
        >>> data = Dataset([[1.0, 7.0], [3.0, 7.0]], [0, 1], [[5.0, 7.0]], [1])
        >>> data.scaled("minmax").x_test.tolist()
        [[2.0, 0.0]]
        """
        fit = named(how, {"minmax": _minmax, "standard": _standard}, "scaling")
        samples = (0,) if self.x_train.ndim == 2 else (0, 1, 2)  # rows, or places in images
        axes = samples if each_feature else None
        shift, scale = fit(self.x_train.astype(np.float64), axes)
        scale = np.where(scale > 0, scale, 1.0)
        found = self.target_scale
        if targets:
            if self.is_classification:
                raise ValueError(
                    "targets=True scales numbers, and these targets are labels; drop it, or pass "
                    "the targets as floats"
                )
            low, size = fit(self.y_train.astype(np.float64).reshape(len(self.y_train), -1), (0,))
            size = np.where(size > 0, size, 1.0)
            found = TargetScale(tuple(low.tolist()), tuple(size.tolist()))
        return dataclasses.replace(
            self,
            x_train=(self.x_train - shift) / scale,
            x_test=(self.x_test - shift) / scale,
            target_scale=found,
        )

    @in_exact_state
    def split(self, fraction: float, rng: Any = 0) -> Dataset:
        """Return the training set in two: a part to train on, and a part to judge on as test set.

        The test set proper is left out. Labels are spread evenly over both parts.

        Parameters
        ----------
        fraction : float
            How much of the training set becomes the test set, above 0 and below 1; rounded up to
            whole samples.
        rng : None, int, SeedSequence or Generator
            Which samples.

        Raises
        ------
        ValueError
            If a part would be empty.

        Examples
        --------
        >>> data = Dataset(np.ones((100, 3)), np.arange(100) % 2, np.ones((9, 3)), np.zeros(9, int))
        >>> data.split(0.25).summary
        'data: 75 training and 25 test samples of shape (3,), 2 classes'
        """
        found = split_samples(self.x_train, self.y_train, fraction, rng, self.name)
        return dataclasses.replace(found, target_scale=self.target_scale)

    def with_numbers_as_targets(self) -> Dataset:
        """Return the data with integer targets as float32 numbers, for a regression."""
        if not self.is_classification:
            return self
        y_train, y_test = (y.astype(np.float32) for y in (self.y_train, self.y_test))
        return dataclasses.replace(self, y_train=y_train, y_test=y_test)

    @property
    def summary(self) -> str:
        """What the data are, in a line."""
        targets = f"{self.outputs} {'classes' if self.is_classification else 'target'}"
        targets += "s" if not self.is_classification and self.outputs > 1 else ""
        tests = f" and {len(self.x_test):,} test" if len(self.x_test) else ""
        return (
            f"{self.name}: {len(self.x_train):,} training{tests} samples "
            f"of shape {self.input_shape}, {targets}"
        )

    def __repr__(self) -> str:
        return f"<Dataset {self.summary}>"

    def _check_shapes(self) -> None:
        for part in ("train", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            if len(x) != len(y):
                raise ValueError(
                    f"x_{part} has {len(x)} rows and y_{part} {len(y)}; a sample needs one target"
                )
        for kind in "xy":
            train, test = getattr(self, f"{kind}_train"), getattr(self, f"{kind}_test")
            if train.shape[1:] != test.shape[1:]:
                raise ValueError(
                    f"samples of {kind}_train have shape {train.shape[1:]} and of {kind}_test "
                    f"{test.shape[1:]}; they must be alike"
                )
        if not len(self.x_train):
            raise ValueError("x_train is empty; training needs at least one sample")
        if self.y_train.dtype != self.y_test.dtype:
            raise ValueError(
                f"y_train holds {_kind(self.y_train)} and y_test {_kind(self.y_test)}; give both "
                "as integers to classify, or both as floats for regression"
            )

    def _check_labels(self) -> None:
        for field in ("y_train", "y_test"):
            labels = getattr(self, field)
            wrong = (labels < 0) | (labels > self.y_train.max())
            if wrong.any():
                row = int(wrong.argmax())
                raise ValueError(
                    f"{field} holds label {labels[row]} in row {row}; labels count the classes of "
                    f"the training set from 0, here to {self.y_train.max()}; for regression pass "
                    "targets as floats"
                )


def array_of(field: str, values: Any) -> Array:
    """Return what a user gives as an array, pandas' tables with their dtypes' names too."""
    kinds = getattr(values, "dtypes", None)  # of a DataFrame or a Series of pandas
    if kinds is None or not hasattr(values, "to_numpy") or isinstance(values, np.ndarray):
        if field in _TARGETS and isinstance(values, list | tuple | np.ndarray):
            _refuse_digits_as_text(field, np.asarray(values))
        return as_array(values)
    array = np.asarray(values)
    if array.dtype.kind in "biuf":
        return as_array(array)
    columns = [str(kind) for kind in np.atleast_1d(np.asarray(kinds, dtype=object))]
    names = [str(name) for name in getattr(values, "columns", [field])]
    text = [n for n, kind in zip(names, columns, strict=True) if not _is_number(kind)]
    if text:
        raise TypeError(
            f"{field} holds {', '.join(map(repr, text))}, of "
            f"{columns[names.index(text[0])]}, which is not numbers; for features pass "
            "pandas.get_dummies(table, dtype=float), for labels pandas.factorize(column)[0]"
        )
    return as_array(values.to_numpy(dtype=np.float64, na_value=np.nan))


def _refuse_digits_as_text(field: str, values: Array) -> None:
    if values.dtype.kind not in "SU" or not values.size:
        return
    with contextlib.suppress(ValueError):  # words: `as_array` says what to do
        values.astype(np.float64)
        raise TypeError(
            f"{field} holds text such as {values.flat[0]!s:.20}; for labels pass "
            "np.unique(x, return_inverse=True)[1], which numbers them, for numbers "
            "x.astype('float64')"
        )


def _is_number(kind: str) -> bool:
    return kind.lower().startswith(("int", "uint", "float", "bool", "double"))


def _kind(y: Array) -> str:
    return "labels" if y.dtype.kind == "i" else "targets"


def checked_array(field: str, values: Any, name: str) -> Array:
    """Return what a user gives in the dtype that training takes.

    field: What it is checked as: ``"x_train"`` or ``"y_train"``.
    values (array_like): The samples or the targets.
    name: What errors call them.
    Raises TypeError, ValueError: As `Dataset` does.
    """
    try:
        return _checked(field, array_of(field, values))
    except (TypeError, ValueError) as error:
        text = str(error)
        said = text.replace(field, name, 1) if field in text else f"{name}: {text}"
        raise type(error)(said) from None


def _checked(field: str, values: Array) -> Array:
    """Return an array in the dtype that training takes, or say which row is wrong."""
    if field not in _TARGETS and values.ndim < 2:
        raise ValueError(
            f"{field} has shape {values.shape}; it takes a row for each sample: x.reshape(-1, 1) "
            "if each has a single feature"
        )
    if values.ndim < 1:
        raise ValueError(f"{field} is a single number; it takes one target for each sample")
    if field in _TARGETS and values.dtype.kind in "biu" and values.size == len(values):
        return values.reshape(-1).astype(np.int64)
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(values, np.float32)
    finite = np.isfinite(converted)
    if not finite.all():
        place = tuple(np.argwhere(~finite)[0])
        raise ValueError(
            f"{field} holds {values[place]} in row {place[0]}; "
            + (
                "scale it to fit float32"
                if np.isfinite(values[place])
                else "remove the row or fill in the value"
            )
        )
    return converted


# Scaling and splitting ---------------------------------------------------------------------------


def _minmax(x: Array, axes: tuple[int, ...] | None) -> tuple[Array, Array]:
    low = x.min(axis=axes)
    return low, x.max(axis=axes) - low


def _standard(x: Array, axes: tuple[int, ...] | None) -> tuple[Array, Array]:
    # std of a constant may be a rounding error away from zero: only the spread says it is constant
    return x.mean(axis=axes), np.where(np.ptp(x, axis=axes) > 0, x.std(axis=axes), 0)


def split_samples(x: Array, y: Array, fraction: float, rng: Any, name: str) -> Dataset:
    """Return samples as a training and a test set, each in the order given.

    x, y: Features and targets.
    fraction: How much becomes the test set; of each class its share.
    rng (None, int, SeedSequence or Generator): Which samples do.
    name: The data set's name.
    Raises ValueError if a part would be empty.
    """
    in_test = np.zeros(len(x), bool)
    in_test[_choose(y, fraction, as_generator(rng))] = True
    return Dataset(x[~in_test], y[~in_test], x[in_test], y[in_test], name)


def _choose(y: Array, fraction: float, rng: np.random.Generator) -> Array:
    """Return the rows of the test set: of each class its share, and a sample left to train on."""
    # 0.2 · 5 may be a rounding error above 1
    wanted = math.ceil(fraction * len(y) - 1e-9) if 0 < fraction < 1 else 0
    counts = np.bincount(y) if y.dtype.kind == "i" else np.array([len(y)])
    take = _shares(counts, wanted)
    if not 0 < take.sum() < len(y):
        raise ValueError(
            f"{fraction!r} of {len(y)} samples leaves one part empty; choose a fraction between "
            "0 and 1 of enough samples"
        )
    if len(counts) == 1:
        return rng.permutation(len(y))[: take[0]]
    members = (np.flatnonzero(y == label) for label in range(len(counts)))
    return np.concatenate(
        [rng.permutation(rows)[:k] for rows, k in zip(members, take, strict=True)]
    )


def _shares(counts: Array, wanted: int) -> Array:
    """Return how many of each class make `wanted` in all: the largest remainders are rounded up."""
    quota = counts * (wanted / counts.sum())
    take: Array = np.floor(quota + 1e-9).astype(np.int64)
    spare = np.flatnonzero(counts - take > 1)
    neediest = spare[np.argsort((take - quota)[spare], kind="stable")]
    take[neediest[: wanted - int(take.sum())]] += 1
    return take
