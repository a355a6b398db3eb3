"""Data sets: the same on every machine, scaled by the training set alone, refused with the row."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowprec.train import data
from lowprec.train.dataset import FIELDS, Dataset

SKLEARN = ["digits", "breast_cancer", "wine", "iris", "diabetes"]
SYNTHETIC = ["linear", "quadratic", "linear_map"]


def small(**changes):
    arrays = {
        "x_train": np.arange(12.0).reshape(6, 2),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": np.ones((2, 2)),
        "y_test": np.array([2, 0]),
    }
    return Dataset(**(arrays | changes))


def load(name):
    if name in SKLEARN:
        pytest.importorskip("sklearn", reason="the report's extra is missing")
    return data.get(name)


def rows_of(x):
    return sorted(row.tobytes() for row in x)


# Loaders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SKLEARN + SYNTHETIC)
def test_a_loader_gives_the_same_arrays_each_time(name):
    first, second = load(name), load(name)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field), strict=True)
    assert first.x_train.dtype == np.float32
    assert first.y_train.dtype == (np.int64 if first.is_classification else np.float32)


@pytest.mark.parametrize("name", SKLEARN)
def test_every_sample_is_in_one_of_the_two_sets(name):
    pytest.importorskip("sklearn", reason="the report's extra is missing")
    from sklearn import datasets

    source, found = getattr(datasets, f"load_{name}")(), load(name)
    x = (source.data / 16 if name == "digits" else source.data).astype(np.float32)
    whole = np.column_stack([x, source.target]).astype(np.float32)
    parts = [
        np.column_stack([getattr(found, f"x_{part}"), getattr(found, f"y_{part}")])
        for part in ("train", "test")
    ]
    assert rows_of(whole) == rows_of(np.concatenate(parts).astype(np.float32))


@pytest.mark.parametrize("name", SKLEARN[:-1])
def test_each_class_has_its_share_of_the_test_set(name):
    found = load(name)
    counts = [np.bincount(y, minlength=found.classes) for y in (found.y_train, found.y_test)]
    exact = (counts[0] + counts[1]) * counts[1].sum() / (counts[0] + counts[1]).sum()
    assert (np.abs(counts[1] - exact) < 1).all()


def test_digits_are_1437_and_360_multiples_of_a_sixteenth():
    found = load("digits")
    assert (len(found.x_train), len(found.x_test), found.classes) == (1437, 360, 10)
    assert found.input_shape == (64,)
    sixteenths = found.x_train * 16
    np.testing.assert_array_equal(sixteenths, np.round(sixteenths))
    assert found.x_train.min() == 0
    assert found.x_train.max() == 1


def test_digits_as_images_are_the_same_pixels():
    flat, images = load("digits"), data.digits(flat=False)
    assert images.input_shape == (8, 8, 1)
    np.testing.assert_array_equal(images.x_test.reshape(-1, 64), flat.x_test)


def test_another_seed_is_another_split():
    load("digits")
    assert rows_of(data.digits(rng=1).x_test) != rows_of(data.digits(rng=2).x_test)


def test_linear_is_x_plus_10_in_the_order_of_the_legacy_seed():
    found = data.linear()
    order = np.random.RandomState(1234).permutation(100)
    np.testing.assert_array_equal(found.x_train[:, 0], order)
    np.testing.assert_array_equal(found.x_test[:, 0], np.arange(100, 200))
    np.testing.assert_array_equal(found.y_train, found.x_train + 10)
    np.testing.assert_array_equal(found.y_test, found.x_test + 10)


def test_synthetic_targets_are_the_rounded_function_of_the_stored_inputs():
    for found, function in (
        (data.quadratic(), lambda a, b: [a * a / 2 - 3 * b + 5]),
        (
            data.linear_map(),
            lambda a, b, c, d: [
                0.3 * a + 0.2 * b - 0.4 * c + 0.1 * d + 2,
                0.5 * a - 0.1 * b + 0.3 * c - 2,
            ],
        ),
    ):
        for x, y in ((found.x_train, found.y_train), (found.x_test, found.y_test)):
            expected = np.array([function(*row.tolist()) for row in x])
            np.testing.assert_allclose(y, expected, rtol=2**-24, atol=1e-14)


def test_a_missing_scikit_learn_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.startswith("sklearn"):
            raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r'digits .* pip install "lowprec\[report\]"'):
        data.digits()


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        data.get("digit")
    assert data.get(whole := small()) is whole


# Checks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["x_train", "x_test"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_with_the_row(field, value):
    x = np.ones((6 if field == "x_train" else 2, 2))
    x[1, 1] = value
    with pytest.raises(ValueError, match=f"{field} holds {value} in row 1; remove"):
        small(**{field: x})


def test_targets_that_are_not_finite_are_refused_with_the_row():
    with pytest.raises(ValueError, match="y_test holds nan in row 1"):
        small(y_train=np.ones(6), y_test=np.array([1.0, np.nan]))


def test_what_float32_cannot_hold_is_refused_with_the_row():
    x = np.ones((6, 2))
    x[4, 0] = 1e39
    with pytest.raises(ValueError, match=r"x_train holds 1e\+39 in row 4; scale it"):
        small(x_train=x)


@pytest.mark.parametrize(
    ("field", "labels", "message"),
    [
        ("y_train", [0, 1, -1, 0, 1, 2], "y_train holds label -1 in row 2"),
        ("y_test", [0, 3], "y_test holds label 3 in row 1; .* here to 2"),
    ],
)
def test_labels_out_of_range_are_refused_with_the_row(field, labels, message):
    with pytest.raises(ValueError, match=message):
        small(**{field: np.array(labels)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.ones((5, 2))}, "x_train has 5 rows and y_train 6"),
        ({"x_test": np.ones((2, 3))}, r"x_train have shape \(2,\) and of x_test \(3,\)"),
        ({"x_train": np.ones(6)}, r"x_train has shape \(6,\); .* x\.reshape\(-1, 1\)"),
        ({"y_test": np.array([1.0, 2.0])}, "y_train holds labels and y_test targets"),
        ({"y_train": np.array(3)}, "y_train is a single number"),
        ({"x_train": np.ones((0, 2)), "y_train": np.ones(0, int)}, "x_train is empty"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


@pytest.mark.parametrize("kind", [complex, "U3", object])
def test_what_is_no_real_number_is_refused(kind):
    with pytest.raises(TypeError):
        small(x_train=np.ones((6, 2)).astype(kind))


def test_a_data_set_may_have_no_test_set():
    found = small(x_test=np.ones((0, 2)), y_test=np.ones(0, int))
    assert found.scaled("standard").x_test.shape == (0, 2)


def test_integers_are_labels_and_floats_are_targets():
    assert small().classes == small().outputs == 3
    assert small(y_train=np.eye(6, 3, dtype=int), y_test=np.eye(2, 3)).classes is None
    column = small(y_train=np.array([[0], [1], [2]] * 2), y_test=np.array([[True], [False]]))
    assert column.y_train.shape == (6,)
    assert column.y_test.tolist() == [1, 0]
    floats = small(y_train=np.ones((6, 4)), y_test=np.ones((2, 4)))
    assert (floats.classes, floats.outputs) == (None, 4)


def test_a_data_set_cannot_be_changed():
    with pytest.raises(AttributeError):
        small().x_train = np.ones((6, 2))


# Scaling and splitting ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["minmax", "standard"])
@pytest.mark.parametrize("name", ["breast_cancer", "wine", "digits"])
def test_scaling_agrees_with_scikit_learn(how, name):
    found = load(name)
    from sklearn import preprocessing

    peer = {"minmax": preprocessing.MinMaxScaler, "standard": preprocessing.StandardScaler}[how]()
    scaled = found.scaled(how)
    train = peer.fit_transform(found.x_train.astype(np.float64))
    np.testing.assert_allclose(scaled.x_train, train, rtol=1e-6, atol=1e-6)
    test = peer.transform(found.x_test.astype(np.float64))
    np.testing.assert_allclose(scaled.x_test, test, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("how", ["minmax", "standard"])
def test_scaling_never_looks_at_the_test_set(how):
    first = small(x_test=np.ones((2, 2))).scaled(how)
    second = small(x_test=np.full((2, 2), 1e6)).scaled(how)
    np.testing.assert_array_equal(first.x_train, second.x_train)


@pytest.mark.parametrize("how", ["minmax", "standard"])
@pytest.mark.parametrize("value", [0.0, 0.1, 7.0, -1e30])
def test_a_constant_feature_becomes_0(how, value):
    x = np.column_stack([np.arange(6), np.full(6, value)])
    scaled = small(x_train=x, x_test=x[:2]).scaled(how)
    assert not scaled.x_train[:, 1].any()
    assert not scaled.x_test[:, 1].any()
    assert scaled.x_train[:, 0].any()


def test_minmax_reaches_0_and_1_in_every_feature():
    scaled = load("wine").scaled("minmax").x_train
    np.testing.assert_array_equal(scaled.min(axis=0), 0)
    np.testing.assert_array_equal(scaled.max(axis=0), 1)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_images_have_one_scale_a_channel(shape):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (6, *shape)).astype(np.uint8)
    if len(shape) == 3:
        x = x // np.array([1, 2, 4], np.uint8)
    scaled = small(x_train=x, x_test=x[:2]).scaled("minmax").x_train
    low, high = x.min(axis=(0, 1, 2)), x.max(axis=(0, 1, 2))
    expected = (x - low.astype(float)) / (high - low)
    np.testing.assert_array_equal(scaled, expected.astype(np.float32))


def test_an_unknown_scaling_is_refused():
    with pytest.raises(ValueError, match="did you mean 'minmax'"):
        small().scaled("minmaks")


def test_a_split_leaves_the_test_set_out():
    found = load("digits")
    part = found.split(0.25, rng=3)
    assert len(part.x_test) == 360
    assert rows_of(np.concatenate([part.x_train, part.x_test])) == rows_of(found.x_train)
    again = found.split(0.25, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(part.x_test, again.x_test)
    assert rows_of(part.x_test) != rows_of(found.split(0.25, rng=4).x_test)


@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=6).filter(lambda c: sum(c) > len(c)),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 100),
)
def test_a_split_keeps_every_class_to_train_on(counts, fraction, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    x = np.arange(len(labels), dtype=float).reshape(-1, 1)
    whole = Dataset(x, labels, x[:0], labels[:0])
    try:
        part = whole.split(fraction, seed)
    except ValueError as error:
        assert "leaves one part empty" in str(error)  # noqa: PT017
        assert fraction * len(labels) > len(labels) - 1
        return
    assert set(part.y_train) == set(labels)
    np.testing.assert_array_equal(np.sort(np.concatenate([part.x_train, part.x_test]), 0), x)
    for x_part, y_part in ((part.x_train, part.y_train), (part.x_test, part.y_test)):
        np.testing.assert_array_equal(labels[x_part[:, 0].astype(int)], y_part)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2, float("nan")])
def test_a_split_needs_two_parts(fraction):
    with pytest.raises(ValueError, match="leaves one part empty"):
        small().split(fraction)


def test_samples_that_are_each_the_only_one_of_their_class_cannot_be_split():
    x, labels = np.ones((5, 1)), np.arange(5)
    with pytest.raises(ValueError, match=r"0\.5 of 5 samples leaves one part empty"):
        Dataset(x, labels, x, labels).split(0.5)


def test_fractions_are_rounded_up_to_whole_samples_despite_rounding_errors():
    whole = Dataset(np.ones((10, 1)), np.ones(10), np.ones((0, 1)), np.ones(0))
    assert [len(whole.split(f).x_test) for f in (0.1 + 0.2, 0.3, 0.31, 0.7)] == [3, 3, 4, 7]


# Files -------------------------------------------------------------------------------------------


def mnist_like(path, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (20, 28, 28)).astype(np.uint8),
        "y_train": (np.arange(20) % 10).astype(np.uint8),
        "x_test": rng.integers(0, 256, (5, 28, 28)).astype(np.uint8),
        "y_test": np.arange(5, dtype=np.uint8),
    }
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return arrays


def test_a_file_in_keras_layout_is_a_data_set(tmp_path):
    path = tmp_path / "mnist.npz"
    arrays = mnist_like(path)
    for found in (data.load_npz(path), data.get(str(path)), data.get(path)):
        assert found.summary == (
            "mnist: 20 training and 5 test samples of shape (28, 28), 10 classes"
        )
        for field, array in arrays.items():
            np.testing.assert_array_equal(getattr(found, field), array)


def test_a_file_that_lacks_an_array_says_which(tmp_path):
    path = tmp_path / "half.npz"
    mnist_like(path, x_test=None, y_test=None)
    with pytest.raises(
        ValueError, match=r"half\.npz is not a data set: it holds no x_test, y_test"
    ):
        data.load_npz(path)


def test_pickled_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "objects.npz"
    mnist_like(path, x_train=np.array([None] * 20))
    with pytest.raises(ValueError, match="is not a data set"):
        data.load_npz(path)
    mnist_like(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is not a data set"):
        data.load_npz(path)
    with pytest.raises(FileNotFoundError):
        data.load_npz(tmp_path / "absent.npz")
