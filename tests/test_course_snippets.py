"""Snippets as courses write them: each runs as it stands, or ends in the line to type.

`data/course_snippets.txt` holds them, a blank line between two. Where one begins with a comment,
that is the error it ends in: up to an ellipsis, its beginning.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from lowprec import train

TEXT = (Path(__file__).parent / "data" / "course_snippets.txt").read_text(encoding="utf-8")
SNIPPETS = TEXT.strip().split("\n\n")


def names():
    """Return what a course has imported and made before."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((96, 4)).astype("float32")
    classes = rng.integers(0, 3, 96)
    x[:, 0] += classes

    def reg():
        return train.Sequential([train.Input((4,)), train.Dense(8, "relu"), train.Dense(1)])

    def clf(last="softmax"):
        layers = [train.Input((4,)), train.Dense(8, activation="relu"), train.Dense(3, last)]
        return train.Sequential(layers)

    def cc(**how):
        model = clf()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], **how)
        return model

    def rr(**how):
        model = reg()
        model.compile(**{"optimizer": "adam", "loss": "mse"} | how)
        return model

    found = {name: getattr(train, name) for name in dir(train) if not name.startswith("_")}
    found |= {"keras": train, "train": train, "np": np, "os": os, "rng": rng, "X": x, "yc": classes}
    found |= {"yr": x @ np.array([1.0, -2, 0.5, 3]) + 0.1, "yb": (classes > 1).astype(int)}
    found |= {"Y": np.eye(3)[classes], "IMG": rng.random((64, 8, 8, 1))}
    found |= {"lab": rng.integers(0, 3, 64), "reg": reg, "clf": clf, "cc": cc, "rr": rr}
    return found


@pytest.mark.filterwarnings("ignore:do not pass input_shape:UserWarning")
@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_courses_snippet_runs_or_ends_in_the_line_to_type(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    head, _, rest = snippet.partition("\n")
    kind, _, message = head.removeprefix("# ").partition(": ")
    code = compile(rest if head.startswith("# ") else snippet, "snippet", "exec")
    try:
        if not head.startswith("# "):
            exec(code, names())
            return
        with pytest.raises((AttributeError, TypeError, ValueError)) as caught:
            exec(code, names())
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    told = str(caught.value)
    assert type(caught.value).__name__ == kind
    assert told.startswith(message[:-1]) if message.endswith("…") else told == message


def test_there_are_enough():
    assert len(SNIPPETS) > 200
    assert sum(not one.startswith("# ") for one in SNIPPETS) > 120
