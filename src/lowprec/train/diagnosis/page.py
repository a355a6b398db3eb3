"""The page of a diagnosis: what is wrong and what to type, then the pictures of the failing run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.train.recorder.page import recorder_page
from lowprec.train.recorder.recorder import Recorder

if TYPE_CHECKING:
    from lowprec.train.diagnosis.diagnosis import Diagnosis

__all__ = ["diagnosis_page"]


def diagnosis_page(diagnosis: Diagnosis) -> str:
    """Return the page: HTML that refers to nothing outside itself."""
    first = diagnosis.outcome.level
    levels = [{"green": "healthy"}.get(first, first)] + ["note"] * (len(diagnosis.verdict) - 1)
    recorder = diagnosis.recorder if diagnosis.recorder is not None else Recorder()
    return recorder_page(
        recorder,
        verdict=list(zip(levels, diagnosis.verdict, strict=True)),
        cures=[cure.code for cure in diagnosis.cures if cure.rescues],
        experiments=diagnosis.experiments,
    )
