"""One training step in lowprec, in plain NumPy and in torch: the same network, batch and optimizer.

784-100-100-100-100-100-10 with ReLU, batches of 128, cross-entropy: as small as networks that
people train to learn, so that what a step costs beside its products shows.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import numpy as np

from lowprec import train
from lowprec.train.running.training import Training

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Step = Callable[[], float | list[float]]

WIDTHS = (784, 100, 100, 100, 100, 100, 10)
BATCH = 128
RATES = {"SGD": 0.01, "Adam": 1e-3}
CROSSENTROPY = "sparse_categorical_crossentropy"


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Draw inputs in 0…1, most of them small as in pictures, and labels."""
    rng = np.random.default_rng(0)
    x = rng.random((BATCH, WIDTHS[0]), np.float32) ** 4
    return x, rng.integers(0, WIDTHS[-1], BATCH)


def network() -> train.Sequential:
    """Return the network."""
    hidden = [train.Dense(width, activation="relu") for width in WIDTHS[1:-1]]
    return train.Sequential([train.Input((WIDTHS[0],)), *hidden, train.Dense(WIDTHS[-1])])


def ours(policy: str, optimizer: str) -> Step:
    """Return a step of `train.fit`."""
    x, y = batch()
    made = {"SGD": train.SGD, "Adam": train.Adam}[optimizer](RATES[optimizer])
    data = train.Dataset(x, y, x, y)
    running = Training(network(), data, loss=CROSSENTROPY, optimizer=made, policy=policy)
    running.start(None)
    return lambda: running.run_step(x, y).loss


def digits() -> tuple[train.Sequential, np.ndarray, np.ndarray]:
    """Return a network for digits, 64-100-100-10, and a batch of 32."""
    hidden = [train.Dense(100, activation="relu") for _ in range(2)]
    data = train.data.digits()
    model = train.Sequential([train.Input((64,)), *hidden, train.Dense(10)])
    return model, np.ascontiguousarray(data.x_train[:32]), data.y_train[:32]


SETTINGS = {"pictures": lambda: (network(), *batch()), "digits": digits}


def ten_steps(setting: str, policy: str, optimizer: str, recorder: train.Recorder | None) -> Step:
    """Return ten steps of `train.fit`, which a recorder may look at."""
    model, x, y = SETTINGS[setting]()
    made = {"SGD": train.SGD, "Adam": train.Adam}[optimizer](RATES[optimizer])
    data = train.Dataset(x, y, x, y)
    running = Training(
        model, data, loss=CROSSENTROPY, optimizer=made, policy=policy, recorder=recorder
    )
    running.start(None)
    return lambda: [running.run_step(x, y).loss for _ in range(10)]


def in_numpy(optimizer: str) -> Step:
    """Return the step as one writes it in NumPy, in float32 throughout."""
    x, y = batch()
    params = list(network().init(0).values())
    moments = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]
    done = 0
    rows = np.arange(len(y))

    def step() -> float:
        nonlocal done
        done += 1
        activations = [x]
        for i in range(0, len(params), 2):
            z = activations[-1] @ params[i] + params[i + 1]
            activations.append(np.maximum(z, 0) if i + 2 < len(params) else z)
        logits = activations.pop()
        shifted = logits - logits.max(axis=1, keepdims=True)
        powers = np.exp(shifted)
        sums = powers.sum(axis=1, keepdims=True)
        loss = float(np.mean(np.log(sums[:, 0]) - shifted[rows, y]))
        dz = powers / sums
        dz[rows, y] -= 1
        dz /= len(y)
        gradients: list[np.ndarray] = []
        for i in range(len(params) - 2, -1, -2):
            gradients[:0] = [activations[i // 2].T @ dz, dz.sum(axis=0)]
            if i:
                dz = (dz @ params[i].T) * (activations[i // 2] > 0)
        if optimizer == "SGD":
            for p, g in zip(params, gradients, strict=True):
                p -= np.float32(RATES["SGD"]) * g
        else:
            adam(params, gradients, *moments, done)
        return loss

    return step


def adam(params, gradients, means, squares, step, beta_1=0.9, beta_2=0.999, epsilon=1e-8) -> None:
    """Update parameters in place, as the formula reads."""
    for p, g, m, v in zip(params, gradients, means, squares, strict=True):
        m += (1 - beta_1) * (g - m)
        v *= beta_2
        v += (1 - beta_2) * g * g
        size = np.sqrt(v / (1 - beta_2**step)) + epsilon
        p -= RATES["Adam"] * (m / (1 - beta_1**step)) / size


def in_torch(optimizer: str, dtype: str | None = None) -> Step:
    """Return the step in torch on the CPU; under autocast if a dtype is given."""
    import torch

    x, y = map(torch.from_numpy, batch())
    layers: list[torch.nn.Module] = []
    for rows, columns in itertools.pairwise(WIDTHS):
        layers += [torch.nn.Linear(rows, columns), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    with torch.no_grad():
        arrays = iter(network().init(0).values())
        for linear in model[::2]:
            linear.weight.copy_(torch.from_numpy(next(arrays).T.copy()))
            linear.bias.copy_(torch.from_numpy(next(arrays)))
    made = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam}[optimizer]
    update = made(model.parameters(), lr=RATES[optimizer])
    kind = getattr(torch, dtype) if dtype else None

    def step() -> float:
        update.zero_grad()
        with torch.autocast("cpu", dtype=kind) if kind else contextlib.nullcontext():
            loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        update.step()
        return float(loss.detach())

    return step


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run NumPy's own products on one thread."""
    import threadpoolctl

    with threadpoolctl.threadpool_limits(1):
        yield
