"""Losses and metrics: finite differences in float64, torch in float32, and what is refused."""

from __future__ import annotations

import functools
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from lowprec.train import activations, losses, metrics
from lowprec.train.exponentials import exp, log

CLASSES = 5


def one_hot(labels):
    return np.eye(CLASSES)[labels]


def sample(name, rng, n=7):
    """Targets and predictions of a kind that the loss takes."""
    logits = rng.normal(0, 3, (n, CLASSES))
    labels = rng.integers(0, CLASSES, n)
    match name:
        case "sparse_categorical_crossentropy":
            return labels, logits
        case "categorical_crossentropy":
            return 0.9 * one_hot(labels) + 0.1 / CLASSES, logits
        case "binary_crossentropy":
            return rng.integers(0, 2, (n, CLASSES)), logits
    return rng.normal(0, 3, (n, CLASSES)), logits


ALL = ["mse", "mae", "huber", "binary_crossentropy", "categorical_crossentropy"]
ALL += ["sparse_categorical_crossentropy"]
CLASSIFIERS = ALL[3:]
ALL += ["log_cosh", "mape", "msle", "hinge"]


# Values and gradients ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_gradient_is_the_slope_of_the_value(name):
    rng = np.random.default_rng(1)
    loss = losses.get(name)
    y_true, y_pred = sample(name, rng)
    _, gradient = loss(y_true, y_pred)
    step = 1e-6
    for place in np.ndindex(y_pred.shape):
        ends = []
        for sign in (-1, 1):
            moved = y_pred.copy()
            moved[place] += sign * step
            ends.append(loss(y_true, moved)[0])
        slope = (ends[1] - ends[0]) / (2 * step)
        assert gradient[place] == pytest.approx(slope, abs=2e-9 * max(1.0, ends[0]))


@pytest.mark.parametrize("classes", [1, 2, 7, 8, 9, 10, 16, 31, 127, 128, 129])
def test_softmax_in_one_pass_has_the_bits_of_its_steps(classes):
    rng = np.random.default_rng(classes)
    logits = (rng.normal(size=(21, classes)) * np.geomspace(1e-3, 1e4, 21)[:, None]).astype("f4")
    labels = rng.integers(0, classes, 21)
    logits[0, 0], logits[1, -1], logits[2] = np.inf, np.nan, -np.inf
    with np.errstate(all="ignore"):
        shifted = logits - logits.max(axis=1, keepdims=True)
        powers = exp(shifted)
        sums = powers.sum(axis=1, keepdims=True)  # NumPy's order
        logarithms, shares = shifted - log(sums), powers / sums
        np.testing.assert_array_equal(activations.softmax(logits), shares)
        for rows in (slice(3, None), slice(None)):
            given = logits[rows], labels[rows]
            value, gradient = losses.sparse_categorical_crossentropy(*given[::-1])
            of_labels = np.eye(classes, dtype=np.float32)[given[1]]
            expected = (shares[rows] - of_labels) / np.float32(len(given[1]))
            np.testing.assert_array_equal(gradient, expected)
            picked = logarithms[rows][np.arange(len(given[1])), given[1]]
            assert value == pytest.approx(-picked.mean(dtype=np.float64), rel=1e-14, nan_ok=True)


def test_gradient_is_the_slope_where_rows_sum_to_nearly_1():
    y_true, y_pred = sample("categorical_crossentropy", np.random.default_rng(1), n=1)
    y_true *= 1.0009
    _, gradient = losses.categorical_crossentropy(y_true, y_pred)
    ends = [losses.categorical_crossentropy(y_true, y_pred + s * 1e-4)[0] for s in (-1, 1)]
    assert ends[1] == pytest.approx(ends[0], abs=1e-12)  # a common shift changes nothing
    assert gradient.sum() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradient_has_dtype_and_shape_of_predictions(name, dtype):
    y_true, y_pred = sample(name, np.random.default_rng(2))
    value, gradient = losses.get(name)(y_true, y_pred.astype(dtype))
    assert type(value) is float
    assert gradient.dtype == dtype
    assert gradient.shape == y_pred.shape


@pytest.mark.parametrize("name", ALL)
def test_float16_predictions_are_computed_in_float32(name):
    y_true, y_pred = sample(name, np.random.default_rng(3))
    half = y_pred.astype(np.float16)
    value, gradient = losses.get(name)(y_true, half)
    expected = losses.get(name)(y_true, half.astype(np.float32))
    assert value == expected[0]
    np.testing.assert_array_equal(gradient, expected[1], strict=True)


@pytest.mark.parametrize("name", ALL)
def test_inputs_are_left_alone(name):
    y_true, y_pred = sample(name, np.random.default_rng(4))
    before = y_true.copy(), y_pred.copy()
    losses.get(name)(y_true, y_pred)
    np.testing.assert_array_equal(y_true, before[0])
    np.testing.assert_array_equal(y_pred, before[1])


@pytest.mark.parametrize("name", ALL)
def test_loss_agrees_with_torch(name):
    torch = pytest.importorskip("torch", reason="compares with torch")
    peers = {
        "mse": torch.nn.functional.mse_loss,
        "mae": torch.nn.functional.l1_loss,
        "huber": torch.nn.functional.huber_loss,
        "binary_crossentropy": torch.nn.functional.binary_cross_entropy_with_logits,
        "log_cosh": lambda p, y: (p - y).cosh().log().mean(),
        "mape": lambda p, y: 100 * ((p - y) / y.abs().clamp(min=1e-7)).abs().mean(),
        "msle": lambda p, y: (
            (p.clamp(min=1e-7).log1p() - y.clamp(min=1e-7).log1p()).square().mean()
        ),
        "hinge": lambda p, y: (1 - p * y).clamp(min=0).mean(),
    }
    peer = peers.get(name, torch.nn.functional.cross_entropy)
    rng = np.random.default_rng(5)
    for _ in range(20):
        y_true, y_pred = sample(name, rng, n=32)
        prediction = torch.tensor(y_pred, dtype=torch.float32, requires_grad=True)
        is_label = name == "sparse_categorical_crossentropy"
        target = torch.tensor(y_true, dtype=torch.int64 if is_label else torch.float32)
        expected = peer(prediction, target)
        expected.backward()
        value, gradient = losses.get(name)(y_true, y_pred.astype(np.float32))
        assert value == pytest.approx(expected.item(), rel=4e-7)
        # the difference of a probability and a label is exact to a few units of 2**-24 / 32
        np.testing.assert_allclose(gradient, prediction.grad.numpy(), rtol=4e-7, atol=2**-24 / 8)


def test_mean_is_taken_over_batch_and_outputs():
    rng = np.random.default_rng(6)
    y_true, y_pred = rng.integers(-50, 50, (2, 8, 4)).astype(np.float64)
    errors = [Fraction(int(p) - int(t)) for p, t in zip(y_pred.flat, y_true.flat, strict=True)]
    assert losses.mse(y_true, y_pred)[0] == float(sum(e * e for e in errors) / 32)
    assert losses.mae(y_true, y_pred)[0] == float(sum(map(abs, errors)) / 32)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("magnitude", [100.0, 1e10, 1e38])
def test_huge_logits_give_finite_losses_and_gradients(name, magnitude):
    y_true, y_pred = sample(name, np.random.default_rng(7))
    logits = (np.sign(y_pred) * magnitude).astype(np.float32)
    value, gradient = losses.get(name)(y_true, logits)
    assert math.isfinite(value)
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient) <= 1).all()


def test_certain_and_right_costs_nothing():
    logits = np.array([[1000.0, -1000.0]], np.float32)
    for name, y_true in (
        ("sparse_categorical_crossentropy", np.array([0])),
        ("categorical_crossentropy", np.array([[1.0, 0.0]])),
        ("binary_crossentropy", np.array([[1, 0]])),
    ):
        value, gradient = losses.get(name)(y_true, logits)
        assert value == 0
        assert not gradient.any()


@pytest.mark.parametrize("name", ALL)
def test_nan_is_never_hidden(name):
    y_true, y_pred = sample(name, np.random.default_rng(8))
    y_pred[1, 2] = np.nan
    value, gradient = losses.get(name)(y_true, y_pred.astype(np.float32))
    assert math.isnan(value)
    assert math.isnan(gradient[1, 2])


def test_a_loss_that_overflows_is_infinite_and_its_gradient_is_not():
    value, gradient = losses.mse(np.zeros(4), np.full(4, 1e30, np.float32))
    assert value == math.inf
    np.testing.assert_array_equal(gradient, np.full(4, 5e29, np.float32))


def test_one_hot_rows_and_labels_give_the_same():
    labels, logits = sample("sparse_categorical_crossentropy", np.random.default_rng(9))
    sparse = losses.sparse_categorical_crossentropy(labels, logits)
    dense = losses.categorical_crossentropy(one_hot(labels), logits)
    assert dense[0] == pytest.approx(sparse[0], rel=1e-15)
    np.testing.assert_array_equal(dense[1], sparse[1])


def test_images_of_labels_are_averaged_over_pixels():
    rng = np.random.default_rng(10)
    labels, logits = rng.integers(0, CLASSES, (2, 3, 4)), rng.normal(size=(2, 3, 4, CLASSES))
    value, gradient = losses.sparse_categorical_crossentropy(labels, logits)
    flat = losses.sparse_categorical_crossentropy(labels.ravel(), logits.reshape(-1, CLASSES))
    assert value == flat[0]
    np.testing.assert_array_equal(gradient.reshape(-1, CLASSES), flat[1])


def test_huber_of_another_delta_is_a_partial():
    loss = losses.get(functools.partial(losses.huber, delta=2.0))
    assert loss(np.zeros(2), np.array([1.0, 10.0]))[0] == (0.5 + 2 * (10 - 1)) / 2
    with pytest.raises(ValueError, match="must be positive"):
        losses.huber(np.zeros(2), np.zeros(2), delta=0)


# Shapes and labels -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "binary_crossentropy"])
def test_a_vector_of_targets_is_a_column(name):
    rng = np.random.default_rng(11)
    y_true, y_pred = rng.integers(0, 2, 6), rng.normal(size=(6, 1))
    value, gradient = losses.get(name)(y_true, y_pred)
    expected = losses.get(name)(y_true[:, None], y_pred)
    assert value == expected[0]
    np.testing.assert_array_equal(gradient, expected[1], strict=True)


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "binary_crossentropy"])
def test_targets_are_never_broadcast(name):
    for shape in ((1,), (6,), (3, 2), (1, 3), (2, 1)):
        with pytest.raises(ValueError, match=r"do not fit predictions of shape \(2, 3\)"):
            losses.get(name)(np.zeros(shape), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, -1, 2], "label -1 in row 1 is not one of the 5 classes"),
        ([0, 1, 5], "label 5 in row 2 .* counted from 0 to 4"),
        ([[0, 1]], "categorical_crossentropy"),
        (np.eye(5, dtype=int)[:3], "for one-hot rows use categorical_crossentropy"),
    ],
)
def test_labels_that_are_no_classes_are_refused_with_the_row(labels, message):
    with pytest.raises(ValueError, match=message):
        losses.sparse_categorical_crossentropy(np.array(labels), np.zeros((3, CLASSES)))


def test_float_labels_are_refused():
    with pytest.raises(TypeError, match=r"labels are float64; .* y\.astype\(int\)"):
        losses.sparse_categorical_crossentropy(np.zeros(3), np.zeros((3, CLASSES)))


def test_rows_that_are_no_distributions_are_refused():
    logits = np.zeros((2, 3))
    with pytest.raises(ValueError, match="row 1 of the labels sums to 2"):
        losses.categorical_crossentropy(np.array([[1, 0, 0], [1, 1, 0]]), logits)
    with pytest.raises(ValueError, match="row 0 of the labels holds -1"):
        losses.categorical_crossentropy(np.array([[-1, 1, 1], [1, 0, 0]]), logits)
    with pytest.raises(ValueError, match="use sparse_categorical_crossentropy"):
        losses.categorical_crossentropy(np.array([0, 1]), logits)


def test_binary_labels_are_between_0_and_1():
    with pytest.raises(ValueError, match="row 2 of the labels holds 2"):
        losses.binary_crossentropy(np.array([0, 1, 2]), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="row 0 of the labels holds nan"):
        losses.binary_crossentropy(np.array([np.nan]), np.zeros((1, 1)))


# By name -----------------------------------------------------------------------------------------


def test_full_names_are_the_same_functions():
    assert losses.get("mse") is losses.get("mean_squared_error") is losses.mse
    assert losses.get("mae") is losses.get("mean_absolute_error") is losses.mae


def test_a_function_of_ones_own_passes_through():
    def own(y_true, y_pred):
        return 0.0, np.zeros_like(y_pred)

    assert losses.get(own) is own
    assert not losses.takes_logits(own)
    assert metrics.for_loss(own) == ()


def test_an_unknown_loss_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'binary_crossentropy'"):
        losses.get("binary_crossentropi")
    with pytest.raises(TypeError, match="a loss is a name or a function"):
        losses.get(3)


def test_exactly_the_cross_entropies_take_logits():
    assert [losses.takes_logits(name) for name in ALL] == [name in CLASSIFIERS for name in ALL]


# Metrics -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_every_loss_is_reported_as_keras_names_it(name):
    names = [metric.name for metric in metrics.for_loss(name)]
    assert names == (["accuracy"] if name in (*CLASSIFIERS, "hinge") else ["mae", "rmse"])


@pytest.mark.parametrize("name", ALL)
def test_averages_over_batches_are_those_of_all_samples(name):
    y_true, y_pred = sample(name, np.random.default_rng(12), n=50)
    loss, reported = losses.get(name), metrics.for_loss(name)
    averages = metrics.Averages(reported)
    for rows in (slice(0, 1), slice(1, 33), slice(33, 50)):
        averages.add(loss(y_true[rows], y_pred[rows])[0], y_true[rows], y_pred[rows])
    expected = {"loss": loss(y_true, y_pred)[0]}
    expected |= {metric.name: metric(y_true, y_pred) for metric in reported}
    assert averages.result() == pytest.approx(expected, rel=1e-12)


def test_hinge_takes_either_spelling_of_two_classes():
    scores = np.random.default_rng(0).normal(size=(40, 1)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 2, 40)
    ours, theirs = losses.hinge(labels, scores), losses.hinge(2 * labels - 1, scores)
    assert ours[0] == theirs[0]
    np.testing.assert_array_equal(ours[1], theirs[1])


def test_the_area_below_the_roc_curve_is_that_of_keras_thresholds():
    rng = np.random.default_rng(3)
    labels, said = rng.integers(0, 2, 300), rng.random((300, 1))
    said += 0.3 * labels[:, None]
    said /= said.max()
    said[:5, 0] = [0, 1, 0.5, 1 / 199, 2 / 199]
    edges = [-1e-7, *(i / 199 for i in range(1, 199)), 1 + 1e-7]
    rates = []
    for kind in (0, 1):
        own = said[labels == kind, 0].tolist()
        rates.append([sum(p > edge for p in own) / len(own) for edge in edges])
    steps = list(zip(*rates, strict=True))
    area = sum((a - c) * (b + d) / 2 for (a, b), (c, d) in itertools.pairwise(steps))
    assert metrics.auc(labels, said) == pytest.approx(area, rel=1e-12)
    above = np.subtract.outer(said[labels == 1, 0], said[labels == 0, 0])
    assert area == pytest.approx((above > 0).mean() + (above == 0).mean() / 2, abs=0.01)
    assert metrics.auc(np.ones(3), np.full((3, 1), 0.5)) == 0
    averages = metrics.Averages((metrics.auc,))
    for rows in (slice(0, 7), slice(7, 300)):
        averages.add(0.0, labels[rows], said[rows])
    assert averages.result()["auc"] == pytest.approx(area, rel=1e-12)


def test_accuracy_counts_the_right_answers():
    labels, logits = sample("sparse_categorical_crossentropy", np.random.default_rng(13), n=40)
    right = sum(
        max(range(CLASSES), key=row.__getitem__) == k for row, k in zip(logits, labels, strict=True)
    )
    assert metrics.accuracy(labels, logits) == right / 40
    assert metrics.accuracy(labels[:, None], logits) == right / 40
    assert metrics.one_hot_accuracy(one_hot(labels), logits) == right / 40


def test_binary_accuracy_splits_logits_at_0():
    labels, logits = np.array([0, 1, 1, 0]), np.array([[-2.0], [0.1], [-0.1], [3.0]])
    assert metrics.binary_accuracy(labels, logits) == 0.5


def test_averages_of_nothing_are_nan():
    assert math.isnan(metrics.Averages().result()["loss"])


@pytest.mark.parametrize("classes", [2, 10, 64, 65])
def test_the_shape_of_a_batch_does_not_change_the_bits(classes):
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal((12, classes)) * 30).astype(np.float32)
    logits[3, 1], logits[5] = np.inf, np.nan
    truth = np.eye(classes, dtype=np.float32)[rng.integers(0, classes, 12)]
    value, gradient = losses.categorical_crossentropy(truth, logits)
    shape = (3, 4, classes)
    same = losses.categorical_crossentropy(truth.reshape(shape), logits.reshape(shape))
    assert gradient.tobytes() == same[1].tobytes()
    assert np.isnan(value)
    assert np.isnan(same[0])
