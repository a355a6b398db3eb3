"""What keeps a training from learning in every format: told where float32 fails as well."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lowprec.train.recorder.finding import Finding, capital, name_of, percent
from lowprec.train.recorder.kinds import layer_of
from lowprec.train.running.outcome import DIVERGED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lowprec.train.recorder.record import Record
    from lowprec.train.recorder.tracks import Track

DEAD = 0.999
CLIPPED = 1e-3
VANISHING = 1e-3
_DEEP = 3  # layers at least
_CLIPS = ("clipvalue", "clipnorm", "global_clipnorm")


def no_learning(recorder: Record) -> Iterator[Finding]:
    """Tell units that are dead, clips that always act, and rates that diverge."""
    if recorder.outcome.kind != "float32 too" and recorder.outcome.reason != "learns nothing":
        return
    yield from _dead_units(recorder)
    yield from _clipping(recorder)
    yield from _divergence(recorder)
    yield from _vanishing(recorder)


def place_of(recorder: Record) -> str | None:
    """Return where a training that fails in every format does: a layer, or an argument."""
    dead = next(_dead_tracks(recorder), None)
    if dead is not None:
        return recorder.labels.get(dead.name, dead.name)
    if next(_clipping(recorder), None) is not None:
        numbers = recorder.facts.get("hyperparameters", {})
        return f"the optimizer's {next(word for word in _CLIPS if numbers.get(word))}"
    if next(_divergence(recorder), None) is not None:
        return "the learning rate"
    for finding in _vanishing(recorder):
        name = finding.tensor[1] if finding.tensor else ""
        return recorder.label(name.partition("/")[0])
    return None


def _dead_tracks(recorder: Record) -> Iterator[Track]:
    for track in recorder.of_kind("activation"):
        whole = track.whole
        if track.name == "input" or not whole["count"]:
            continue
        if (whole["zeros"] + whole["new_zeros"]) / whole["count"] > DEAD:
            yield track


def _dead_units(recorder: Record) -> Iterator[Finding]:
    for track in _dead_tracks(recorder):
        whole = track.whole
        share = (whole["zeros"] + whole["new_zeros"]) / whole["count"]
        yield Finding(
            "red",
            "no learning",
            f"{capital(name_of(recorder, 'activation', track.name))} are 0 for {percent(share)}"
            " of units and samples, so that no gradient passes: its units are dead",
            "start its biases from zeros and its kernel from he_normal, or lower the rate that "
            "killed them",
            (track.kind, track.name),
        )
        return


def _clipping(recorder: Record) -> Iterator[Finding]:
    numbers = recorder.facts.get("hyperparameters", {})
    for word in _CLIPS:
        limit = numbers.get(word)
        if not limit:
            continue
        wholes = [track.whole for track in recorder.of_kind("weight_gradient")]
        if word == "clipvalue":
            size = max((whole["max_abs"] for whole in wholes), default=0.0)
        else:
            records = max((whole["records"] for whole in wholes), default=0.0)
            total = math.fsum(whole["squares"] for whole in wholes)
            size = math.sqrt(total / records) if records else 0.0
        if size and limit < CLIPPED * size:
            yield Finding(
                "red",
                "no learning",
                f"{word}={limit:g} cuts gradients of {size:.2g} to {limit / size:.1g} of their "
                "size at every step",
                f"use {word}={float(f'{size:.1g}'):g} or more, or none",
            )


def _divergence(recorder: Record) -> Iterator[Finding]:
    account = recorder.reference_account
    if account is None or account.start is None or not account.start > 0 or not account.epochs:
        return
    highest = max(account.epochs)
    if not highest <= DIVERGED * account.start and math.isfinite(account.epochs[0]):
        rate = recorder.facts.get("hyperparameters", {}).get("learning_rate", math.nan)
        yield Finding(
            "red",
            "no learning",
            f"The loss of float32 grows from {account.start:.3g} to {highest:.3g}: at a rate of "
            f"{rate:g} it diverges",
            "lower the learning rate tenfold",
        )


def _vanishing(recorder: Record) -> Iterator[Finding]:
    """Tell gradients that shrink from layer to layer on their way back."""
    kernels = sorted(
        (
            (track, track.whole.rms)
            for track in recorder.of_kind("weight_gradient")
            if track.whole["count"] and _of_kernel(track)
        ),
        key=lambda pair: int(layer_of(pair[0].kind, pair[0].name)),
    )
    if len(kernels) < _DEEP or not kernels[-1][1]:
        return
    (first, least), (last, most) = kernels[0], kernels[-1]
    if not least < VANISHING * most < math.inf:  # NaN and infinity are told by other rules
        return
    yield Finding(
        "red",
        "no learning",
        f"Gradients vanish on their way back: those of {recorder.label(first.name)} are "
        f"{least / most:.1g} times those of {recorder.label(last.name)}, {len(kernels)} layers "
        "later",
        "use relu and he_normal in place of sigmoid or tanh, or normalise between layers",
        (first.kind, first.name),
    )


def _of_kernel(track: Track) -> bool:
    layer, _, parameter = track.name.partition("/")
    return layer.isdecimal() and parameter == "kernel"
