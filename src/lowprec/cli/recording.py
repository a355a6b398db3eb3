"""``lowprec train --record``: a recorder for one run, and its page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.train import History, Policy, Recorder

_RECORDED = 200  # steps, about: a short run is recorded more closely than a long one


def recorder_for(policy: Policy, steps: int, fit: Callable[..., History]) -> Recorder:
    """Return a recorder that knows how the same training ends in float32.

    policy: Of the run that is to be recorded.
    steps: How many steps it takes.
    fit: Trains, given a policy.
    """
    from lowprec import train

    every = max(1, min(10, steps // _RECORDED))
    if policy == train.get_policy("float32"):
        return train.Recorder(every)
    return train.Recorder(every, reference=fit(policy="float32", verbose=False))


def write_record(recorder: Recorder, path: str, *, overwrite: bool) -> None:
    """Write the page if a path was given, and print the verdict."""
    from lowprec.train.recorder.verdict import graded
    from lowprec.train.recorder.views import MARKS

    if path:
        recorder.report(path, overwrite=overwrite)
    for level, sentence in graded(recorder):
        say(f"{MARKS[level]} {sentence}", "  ")
