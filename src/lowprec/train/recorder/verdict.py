"""The verdict in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lowprec.train.recorder.recorder import Recorder

__all__ = ["verdict"]


def verdict(recorder: Recorder) -> list[str]:
    """Return what happened and what to do, a sentence a finding, the worst first."""
    if not recorder.tracks:
        return ["Nothing was recorded: give the recorder to fit(recorder=…), or observe tensors."]
    found = recorder.findings
    sentences = [str(finding) for finding in found]
    if any(finding.level != "note" or finding.rule == "lost updates" for finding in found):
        return sentences  # lost updates without a reference: nobody knows whether to worry
    healthy = (
        f"Nothing to worry about: {recorder.recorded} recorded step"
        f"{'' if recorder.recorded == 1 else 's'} of {recorder.steps} in {recorder.policy} show no "
        "loss that matters."
    )
    return [healthy, *sentences]
