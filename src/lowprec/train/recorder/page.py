"""The recorder's page: the verdict, the pictures, the numbers and the rules behind them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.common.outputs import page_kind
from lowprec.show.pages import page_environment, stylesheet
from lowprec.train.recorder.predictions import WHAT_IF_HEADINGS, what_if_rows
from lowprec.train.recorder.verdict import graded
from lowprec.train.recorder.views import (
    COLUMNS,
    MARKS,
    WORDS,
    caption,
    kind_name,
    short_label,
    shown,
)
from lowprec.train.recorder.whatif import what_if

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lowprec.train.recorder.record import Record

_HEATED = ("weight", "activation", "activation_gradient", "weight_gradient", "moment", "update")
_TITLES = {
    "weight": "Weights",
    "activation": "Activations",
    "activation_gradient": "Activation gradients",
    "weight_gradient": "Weight gradients",
    "moment": "Moments of the optimizer",
    "update": "Updates",
}


class Picture(NamedTuple):
    """A figure of the page, or the words alone that stand for an empty one."""

    title: str
    text: str
    svg: Any


class Row(NamedTuple):
    """A line of the table of tensors; one without cells begins a kind."""

    name: str
    cells: tuple[str, ...] = ()


PAGE = page_kind("lowprec train --record")


def recorder_page(
    recorder: Record,
    *,
    verdict: Sequence[tuple[str, str]] | None = None,
    cures: Sequence[str] = (),
    experiments: Sequence[Any] = (),
) -> str:
    """Return the page.

    Parameters
    ----------
    recorder : Record
        What was recorded.
    verdict : sequence of (level, sentence), optional
        What stands first; by default the recorder's own verdict.
    cures : sequence of str
        Code to paste: cures that were tried.
    experiments : sequence of Experiment
        The trainings of a diagnosis.

    Returns
    -------
    str
        HTML that refers to nothing outside itself.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib or Jinja2, naming the extra to install.
    """
    from lowprec.train.recorder.rules import RULES

    environment = page_environment("lowprec.train.recorder")
    from markupsafe import Markup

    return environment.get_template("recorder.html").render(
        style=Markup(stylesheet("page.css", "recorder.css")),
        caption=caption(recorder),
        verdict=graded(recorder) if verdict is None else verdict,
        cures=cures,
        experiments=experiments,
        marks=MARKS,
        words=WORDS,
        pictures=[p._replace(svg=Markup(p.svg)) for p in _pictures(recorder)],
        columns=COLUMNS,
        rows=_rows(recorder),
        what_if=_what_if(recorder),
        what_if_headings=WHAT_IF_HEADINGS,
        rules=RULES,
    )


def _pictures(recorder: Record) -> Iterator[Picture]:
    from lowprec.train.recorder import figures as figures

    losses = [*recorder.curves.get("loss", ()), *recorder.curves.get("val_loss", ())]
    if losses and any(map(math.isfinite, [*losses, *(recorder.reference or ())])):
        text = "The loss by epoch."
        yield Picture("Learning curves", text, figures.learning_curves(recorder))
    elif losses:
        yield Picture("Learning curves", "The loss was finite in none of the epochs.", "")
    if any(scale != 1 for _, scale in recorder.scales):
        text = "Crosses are skipped steps, whose gradients were not finite."
        yield Picture("Loss scale", text, figures.loss_scales(recorder))
    if any(track.gaps.any() for track in recorder.of_kind("update")):
        text = (
            f"An update is lost if the sum of weight and update, rounded to "
            f"{recorder.policy.formats['params']}, is the weight itself."
        )
        yield Picture("Lost updates", text, figures.lost_updates(recorder))
    for kind, title in _TITLES.items():
        if figures.pick(recorder.of_kind(kind)):
            yield Picture(title, _heat_text(recorder, kind), figures.heat_maps(recorder, kind))
    for kind in ("activation", "activation_gradient"):
        tracks = [t for t in recorder.of_kind(kind) if t.exponents.any() and t.name != "input"]
        if len(tracks) > 1:
            title = f"{_TITLES[kind]} through depth"
            text = (
                "Histograms of exponents over the whole run, with the median as a line; below a "
                "dashed line a format holds nothing. A slope says that signals vanish or explode."
            )
            yield Picture(title, text, figures.depth(recorder, kind))


def _heat_text(recorder: Record, kind: str) -> str:
    fmt = recorder.of_kind(kind)[0].fmt
    text = f"Each panel shows how the exponents of the {kind_name(kind)} move from step to step"
    if fmt.emin < -100:
        return f"{text}; the range of {fmt} is far outside."
    scaled = " under the loss scale" if kind.endswith("gradient") and recorder.scales else ""
    return (
        f"{text}. Lines: {fmt}'s largest and smallest normal number{scaled}; dashed, its smallest."
    )


def _rows(recorder: Record) -> list[Row]:
    rows, kind = [], ""
    for track in shown(recorder):
        if track.kind != kind:
            kind = track.kind
            fmt = "" if kind == "update" else f" in {track.fmt}"
            rows.append(Row(f"{kind_name(kind)}{fmt}"))
        whole = track.whole
        rows.append(Row(short_label(recorder, track), tuple(c.text(whole) for c in COLUMNS)))
    return rows


def _what_if(recorder: Record) -> dict[str, Any] | None:
    """Return the predictions, for a run that was recorded in float32."""
    if any(fmt.name != "float32" for fmt in recorder.policy.formats.values()):
        return None
    if not recorder.of_kind("weight_gradient", "activation_gradient"):
        return None
    found = what_if(recorder, None)
    words = f"{found.verdict} {found.sureness}"
    return {"rows": what_if_rows(found), "verdict": words}
