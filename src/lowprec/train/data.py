"""Data to train on, each from one call.

The loaders draw nothing from a global generator and download nothing: the same call gives the same
arrays. Those of scikit-learn's data need the extra: ``pip install "lowprec[report]"``.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.names import named
from lowprec.common.processor_state import in_exact_state
from lowprec.train.dataset import FIELDS, Dataset, split_samples

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

__all__ = [
    "NAMES",
    "Dataset",
    "breast_cancer",
    "characters",
    "diabetes",
    "digits",
    "get",
    "iris",
    "linear",
    "linear_map",
    "load_npz",
    "quadratic",
    "to_categorical",
    "wine",
]

Array = np.ndarray[Any, Any]

# What scikit-learn brings ------------------------------------------------------------------------


@in_exact_state
def digits(*, flat: bool = True, test_fraction: float = 0.2, rng: Any = 0) -> Dataset:
    """Return the 1797 handwritten digits, 8 by 8 pixels divided by 16: 1437 to train, 360 to test.

    Parameters
    ----------
    flat : bool
        Whether a sample is 64 features; else it is an image of shape (8, 8, 1).
    test_fraction : float
        How much of the data is the test set; each class has its share.
    rng : None, int, SeedSequence or Generator
        Which samples are.

    Returns
    -------
    Dataset
        Every pixel is a multiple of 1/16, which bfloat16 and float16 hold exactly.

    Raises
    ------
    ModuleNotFoundError
        Without scikit-learn, naming the extra to install.

    Examples
    --------
    >>> digits().summary
    'digits: 1,437 training and 360 test samples of shape (64,), 10 classes'
    """
    source = _from_scikit_learn("digits")
    x = source.data / 16
    return split_samples(
        x if flat else x.reshape(-1, 8, 8, 1), source.target, test_fraction, rng, "digits"
    )


@in_exact_state
def breast_cancer(*, test_fraction: float = 0.2, rng: Any = 0) -> Dataset:
    """Return 569 tumours: 30 features, unscaled; benign is 1. Parameters as in `digits`.

    Examples
    --------
    >>> breast_cancer().scaled("standard").summary
    'breast_cancer: 455 training and 114 test samples of shape (30,), 2 classes'
    """
    return _table("breast_cancer", test_fraction, rng)


@in_exact_state
def wine(*, test_fraction: float = 0.2, rng: Any = 0) -> Dataset:
    """Return 178 wines of three growers: 13 features, unscaled. Parameters as in `digits`.

    Examples
    --------
    >>> wine().summary
    'wine: 142 training and 36 test samples of shape (13,), 3 classes'
    """
    return _table("wine", test_fraction, rng)


@in_exact_state
def iris(*, test_fraction: float = 0.2, rng: Any = 0) -> Dataset:
    """Return 150 irises of three species: 4 features in centimetres. Parameters as in `digits`.

    Examples
    --------
    >>> iris().summary
    'iris: 120 training and 30 test samples of shape (4,), 3 classes'
    """
    return _table("iris", test_fraction, rng)


@in_exact_state
def diabetes(*, test_fraction: float = 0.2, rng: Any = 0) -> Dataset:
    """Return 442 patients: 10 scaled features, and the progress of their disease, 25 to 346.

    Parameters as in `digits`.

    Examples
    --------
    >>> diabetes().summary
    'diabetes: 353 training and 89 test samples of shape (10,), 1 target'
    """
    return _table("diabetes", test_fraction, rng)


def _table(name: str, test_fraction: float, rng: Any) -> Dataset:
    source = _from_scikit_learn(name)
    return split_samples(source.data, source.target, test_fraction, rng, name)


def _from_scikit_learn(name: str) -> Any:
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the {name} data come with scikit-learn, which is not installed; "
            'run: pip install "lowprec[report]"',
            name=error.name,
        ) from error
    return getattr(datasets, f"load_{name}")()


# What Python brings ------------------------------------------------------------------------------

_ALPHABET = "abcdefghijklmnopqrstuvwxyz .,:()_-\"'=\n"


@in_exact_state
def characters(*, context: int = 8, samples: int = 10_000, test_fraction: float = 0.1) -> Dataset:
    """Return the next character of English text, given those before: Python's own help pages.

    The text is that of ``help("topics")``, `pydoc_data.topics`, which every Python brings (its
    words differ a little between versions), in small letters; characters beyond a set of 38 are
    left out. Training and test samples are from different pages.

    Parameters
    ----------
    context : int
        How many characters come before: a sample is one-hot, 38 features each.
    samples : int
        How many places in the text, evenly spaced.
    test_fraction : float
        How much of the text the test samples are from: its end.

    Returns
    -------
    Dataset
        Labels are characters' places in the alphabet.

    Examples
    --------
    >>> characters(context=4, samples=1000)
    <Dataset characters: 900 training and 100 test samples of shape (152,), 38 classes>
    """
    from pydoc_data.topics import topics

    if context < 1 or samples < 10 * len(_ALPHABET):
        raise ValueError(
            f"context is {context} and samples {samples}; use at least 1 and {10 * len(_ALPHABET)}"
        )
    place = {letter: number for number, letter in enumerate(_ALPHABET)}
    text = "".join(topics[name] for name in sorted(topics)).lower()
    codes = np.array([place[letter] for letter in text if letter in place])
    last = np.linspace(context, len(codes) - 1, samples).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(codes, context)[last - context]
    one_hot = np.eye(len(_ALPHABET), dtype=np.float32)[windows].reshape(samples, -1)
    cut = samples - round(samples * test_fraction)
    first = np.searchsorted(last[:cut], last[cut] - context) if cut < samples else cut
    y = codes[last]
    return Dataset(one_hot[:first], y[:first], one_hot[cut:], y[cut:], "characters")


# Functions to learn ------------------------------------------------------------------------------


@in_exact_state
def linear(*, seed: int = 1234) -> Dataset:
    """Return y = x + 10 on whole numbers: trained on x = 0 … 99, tested on x = 100 … 199.

    There is no noise. The 100 training points come in an order drawn with NumPy's legacy seed, as
    ``numpy.random.seed`` sets it, the test points ascending. The test set asks for extrapolation.

    Parameters
    ----------
    seed : int
        The legacy seed.

    Examples
    --------
    >>> data = linear()
    >>> data.x_test[:2].ravel().tolist(), data.y_test[:2].ravel().tolist()
    ([100.0, 101.0], [110.0, 111.0])
    """
    x = np.arange(200.0).reshape(-1, 1)
    x[:100] = np.random.RandomState(seed).permutation(x[:100])
    y = x + 10
    return Dataset(x[:100], y[:100], x[100:], y[100:], "linear")


@in_exact_state
def quadratic(*, integers: bool = False, seed: int = 1234) -> Dataset:
    """Return y = x₁²/2 - 3·x₂ + 5 at 1000 points to train and 200 to test, uniform in [-5, 5)².

    There is no noise; the points are drawn with NumPy's legacy seed.

    Parameters
    ----------
    integers : bool
        Whether points are whole, as ``numpy.random.randint(-5, 5, …)`` draws them: every bfloat16
        value of x and y is exact then.
    seed : int
        The legacy seed.

    Examples
    --------
    >>> quadratic().summary
    'quadratic: 1,000 training and 200 test samples of shape (2,), 1 target'
    """
    x = _points(2, integers, seed)
    y = x[:, :1] ** 2 / 2 - 3 * x[:, 1:] + 5
    return Dataset(x[:1000], y[:1000], x[1000:], y[1000:], "quadratic")


@in_exact_state
def linear_map(*, integers: bool = False, collinear: bool = False, seed: int = 1234) -> Dataset:
    """Return a linear map of four inputs to two outputs at 1000 points to train and 200 to test.

    y₁ = 0.3·x₁ + 0.2·x₂ - 0.4·x₃ + 0.1·x₄ + 2 and y₂ = 0.5·x₁ - 0.1·x₂ + 0.3·x₃ - 2, without noise;
    the points are uniform in [-5, 5)⁴, drawn with NumPy's legacy seed.

    Parameters
    ----------
    integers : bool
        Whether points are whole, as ``numpy.random.randint(-5, 5, …)`` draws them.
    collinear : bool
        Whether x₄ is x₁ + x₂: many kernels give the same targets then, and training chooses one.
    seed : int
        The legacy seed.

    Examples
    --------
    >>> linear_map().summary
    'linear_map: 1,000 training and 200 test samples of shape (4,), 2 targets'
    """
    x = _points(4, integers, seed)
    if collinear:
        x[:, 3] = (x[:, 0] + x[:, 1]).astype(np.float32)
    rows = np.array([[0.3, 0.2, -0.4, 0.1], [0.5, -0.1, 0.3, 0.0]])
    # not a product of matrices, whose last bits depend on the processor
    y = (x[:, np.newaxis] * rows).sum(axis=-1) + np.array([2.0, -2.0])
    return Dataset(x[:1000], y[:1000], x[1000:], y[1000:], "linear_map")


def _points(inputs: int, integers: bool, seed: int) -> Array:
    """Return 1200 points that float32 holds, so that targets belong to the stored inputs."""
    legacy = np.random.RandomState(seed)
    if integers:
        return legacy.randint(-5, 5, (1200, inputs)).astype(np.float64)
    x = legacy.uniform(-5, 5, (1200, inputs))
    return x.astype(np.float32).astype(np.float64)


# Files, and all by name --------------------------------------------------------------------------


def load_npz(path: str | os.PathLike[str], *, channel_axis: bool = False) -> Dataset:
    """Return the data in an .npz file of Keras' layout: x_train, y_train, x_test, y_test.

    Images stay (n, height, width[, channels]); pixels stay as they are: `Dataset.scaled` scales
    them.

    Parameters
    ----------
    path : str or path
        The file, such as Keras' ``mnist.npz``.
    channel_axis : bool
        Whether images (n, height, width) get an axis for their one channel, which `Conv2D` wants.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, lacks one of the four arrays, or holds data that `Dataset` refuses.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            missing = [field for field in FIELDS if field not in archive]
            if missing:
                raise ValueError(
                    f"it holds no {', '.join(missing)}; save it with "
                    "numpy.savez(path, x_train=…, y_train=…, x_test=…, y_test=…)"
                )
            arrays: dict[str, Any] = {field: archive[field] for field in FIELDS}
    except (EOFError, zipfile.BadZipFile, zlib.error, ValueError) as error:
        raise ValueError(f"{path} is not a data set: {error}") from None
    if channel_axis:
        for field in ("x_train", "x_test"):
            if arrays[field].ndim == 3:
                arrays[field] = arrays[field][..., np.newaxis]
    return Dataset(**arrays, name=path.stem)


def to_categorical(labels: Any, classes: int | None = None) -> Array:
    """Return one-hot rows of labels, float32: what ``categorical_crossentropy`` takes.

    Parameters
    ----------
    labels : array_like of int, shape (n,) or (n, 1)
        The numbers of classes, from 0.
    classes : int, optional
        How many there are; by default the largest label and one.

    Raises
    ------
    ValueError
        If a label is negative, or not below `classes`.
    TypeError
        If labels are not integers.

    Examples
    --------
    >>> to_categorical([2, 0]).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "biu":
        raise TypeError(
            f"labels are {array.dtype}; number the classes: "
            "np.unique(labels, return_inverse=True)[1]"
        )
    numbers = array.reshape(-1).astype(np.int64)
    count = int(numbers.max(initial=-1)) + 1 if classes is None else classes
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < count:
        raise ValueError(
            f"labels from {numbers.min()} to {numbers.max()} with {count} classes; classes are "
            "counted from 0"
        )
    return np.eye(count, dtype=np.float32)[numbers]


_LOADERS: dict[str, Callable[[], Dataset]] = {
    loader.__name__: loader
    for loader in (digits, breast_cancer, diabetes, wine, iris, linear, quadratic, linear_map)
}

NAMES = tuple(_LOADERS)
"""What `get` knows by name."""


def get(data: str | os.PathLike[str] | Dataset) -> Dataset:
    """Return the data set of that name, or in that .npz file; a `Dataset` is returned as it is.

    Examples
    --------
    >>> get("iris")
    <Dataset iris: 120 training and 30 test samples of shape (4,), 3 classes>
    """
    if isinstance(data, Dataset):
        return data
    if Path(data).suffix == ".npz":
        return load_npz(data)
    return named(str(data), _LOADERS, "data set")()
