"""Real tensors to measure: scikit-learn's bundled data and what people compute from them.

Nothing is downloaded and nothing is drawn at random: the numbers are the same on every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.show.pages import needs_report_extra

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

__all__ = ["load"]

HIDDEN = 32
EPOCHS = 200
LEARNING_RATE = 0.5


def load() -> dict[str, Array]:
    """Return named float64 tensors from digits, breast_cancer, diabetes and wine.

    Beside the features as they come there are the things that a program computes from them:
    squares, variances, standardised features, the weights of a small network and its gradients
    early and late in training.

    Returns
    -------
    dict of str to ndarray
        By a name such as ``"diabetes: target²"``.

    Raises
    ------
    ModuleNotFoundError
        Without scikit-learn, naming the extra to install.
    """
    with needs_report_extra():
        from sklearn import datasets
    digits = datasets.load_digits()
    cancer = datasets.load_breast_cancer()
    diabetes = datasets.load_diabetes()
    wine = datasets.load_wine()
    early, late, weights = _train(digits.data / 16.0, digits.target)
    return {
        "digits: pixels": digits.data,
        "digits: network weights": weights,
        "digits: gradients, first step": early,
        f"digits: gradients, step {EPOCHS}": late,
        "breast cancer: features": cancer.data,
        "breast cancer: standardised": _standardised(cancer.data),
        "breast cancer: covariance": np.cov(cancer.data, rowvar=False),
        "diabetes: features": diabetes.data,
        "diabetes: target": diabetes.target,
        "diabetes: target²": diabetes.target**2,
        "wine: features": wine.data,
        "wine: variances": wine.data.var(axis=0),
    }


def _standardised(features: Array) -> Array:
    standardised: Array = (features - features.mean(axis=0)) / features.std(axis=0)
    return standardised


def _train(x: Array, labels: npt.NDArray[Any]) -> tuple[Array, Array, Array]:
    """Train 64-32-10 on all digits at once by gradient descent in float64.

    Returns all gradients of the first step and of the last, each as one vector, and the weights.
    """
    rng = np.random.default_rng(0)
    targets = np.eye(10)[labels]
    first = rng.normal(0, np.sqrt(2 / x.shape[1]), (x.shape[1], HIDDEN))
    second = rng.normal(0, np.sqrt(2 / HIDDEN), (HIDDEN, 10))
    history = []
    for _ in range(EPOCHS):
        hidden = np.maximum(x @ first, 0)
        scores = np.exp(hidden @ second - (hidden @ second).max(axis=1, keepdims=True))
        error = (scores / scores.sum(axis=1, keepdims=True) - targets) / len(x)
        gradients = (x.T @ (error @ second.T * (hidden > 0)), hidden.T @ error)
        history.append(np.concatenate([g.ravel() for g in gradients]))
        first = first - LEARNING_RATE * gradients[0]
        second = second - LEARNING_RATE * gradients[1]
    return history[0], history[-1], np.concatenate([first.ravel(), second.ravel()])
