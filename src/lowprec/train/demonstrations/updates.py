"""Updates and averages that rounding loses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lowprec.train import data as datasets
from lowprec.train.dataset import Dataset
from lowprec.train.demonstrations.demonstration import Demonstration, network, recorded
from lowprec.train.optimizers import SGD, AdaGrad, Adam, AdamW, Momentum

_CROSSENTROPY = "sparse_categorical_crossentropy"


def lost_updates() -> Demonstration:
    """Show that small steps vanish beside bfloat16 weights; float32 master weights keep them."""
    digits = datasets.digits()
    model = network(digits, [100])
    how: dict[str, Any] = {"loss": _CROSSENTROPY, "optimizer": SGD(0.003), "epochs": 30}
    wide, _ = recorded(model, digits, policy="float32", **how)
    narrow, recorder = recorded(model, digits, policy="bfloat16", reference=wide, **how)
    mixed, cured = recorded(model, digits, policy="mixed_bfloat16", reference=wide, **how)
    share = _lost(recorder)
    ends = [history.history["loss"][-1] for history in (wide, narrow, mixed)]
    return Demonstration(
        "Lost updates",
        share,
        f"{share:.0%} of the updates are lost in bfloat16 weights: the loss ends at {ends[1]:.3f}, "
        f"in float32 at {ends[0]:.3f}, with float32 master weights at {ends[2]:.3f}.",
        "lost updates",
        recorder,
        cured,
    )


def _lost(recorder: Any) -> float:
    wholes = [track.whole for track in recorder.of_kind("update")]
    return float(sum(w["lost"] for w in wholes) / sum(w["changes"] for w in wholes))


def weight_decay() -> Demonstration:
    """Show that 1 - rate · decay is 1 in bfloat16 weights: AdamW's decay does nothing."""
    digits = datasets.digits()
    model = network(digits, [64])
    dead = ~digits.x_train.any(axis=0)  # pixels that are never lit: only decay moves their weights
    how: dict[str, Any] = {
        "loss": _CROSSENTROPY,
        "optimizer": AdamW(1e-3, weight_decay=0.1),
        "epochs": 20,
    }
    sizes = {}
    start = model.init(np.random.default_rng(0))
    for policy in ("float32", "bfloat16"):
        history, recorder = recorded(model, digits, policy=policy, params=start, **how)
        first, last = (np.abs(p["0/kernel"][dead]).sum() for p in (start, history.params))
        sizes[policy] = 1 - float(last / first)
    return Demonstration(
        "Weight decay that vanishes",
        sizes["bfloat16"],
        f"The weights of {dead.sum()} pixels that are never lit shrink by "
        f"{100 * sizes['float32']:.1f} % in float32, as rate · decay over {recorder.steps} steps "
        f"asks, and by {100 * sizes['bfloat16']:.1f} % in bfloat16.",
        "numbers of the optimizer",
        recorder,
    )


def beta_2() -> Demonstration:
    """Show that 0.999 is 1 in bfloat16: second moments remember the largest gradients."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 8))
    y = x @ (3 * rng.standard_normal((8, 1)))
    data = Dataset(x[:800], y[:800], x[800:], y[800:], "a plane")
    model = network(data, [])
    how: dict[str, Any] = {"loss": "mse", "optimizer": Adam(1e-2), "epochs": 90}
    wide, reference = recorded(model, data, policy="float32", **how)
    narrow, recorder = recorded(model, data, policy="state=bfloat16", reference=wide, **how)
    tracks = (one.track("moment", "second_moment/0/kernel") for one in (recorder, reference))
    sizes = [float(track.rows[-1].mean) for track in tracks]
    ratio = sizes[0] / sizes[1]
    ends = [history.history["loss"][-1] for history in (wide, narrow)]
    return Demonstration(
        "β₂ = 0.999 rounds to 1 in bfloat16",
        ratio,
        f"The second moments end {ratio:.1f} times as large as with float32 state, so steps are "
        f"{math.sqrt(ratio):.1f} times too small: the loss ends at {ends[1]:.2g}, not "
        f"{ends[0]:.2g}.",
        "numbers of the optimizer",
        recorder,
    )


def optimizers() -> Demonstration:
    """Compare four optimizers on five layers of 100, in float32 and in pure bfloat16."""
    digits = datasets.digits()
    model = network(digits, [100] * 5)
    rows = []
    worst: tuple[float, Any] = (0.0, None)
    for optimizer in (SGD(0.01), Momentum(0.01), AdaGrad(0.01), Adam(1e-3)):
        how: dict[str, Any] = {"loss": _CROSSENTROPY, "optimizer": optimizer, "epochs": 8}
        wide, _ = recorded(model, digits, policy="float32", every=20, **how)
        narrow, recorder = recorded(
            model, digits, policy="bfloat16", every=20, reference=wide, **how
        )
        ends = [history.history["loss"][-1] for history in (wide, narrow)]
        share = _lost(recorder)
        rows.append(f"{optimizer.name} {ends[0]:.3f} → {ends[1]:.3f} ({share:.0%} lost)")
        if share > worst[0]:
            worst = share, recorder
    return Demonstration(
        "SGD, momentum, AdaGrad and Adam in pure bfloat16",
        worst[0],
        f"Loss in float32 → bfloat16, and updates lost: {'; '.join(rows)}.",
        "lost updates",
        worst[1],
    )
