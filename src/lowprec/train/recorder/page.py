"""The recorder's page: the verdict, the pictures, the numbers and the rules behind them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.common.outputs import page_kind
from lowprec.show.pages import page_environment, stylesheet
from lowprec.train.recorder.finding import capital, name_of
from lowprec.train.recorder.kinds import GRADIENTS
from lowprec.train.recorder.predictions import WHAT_IF_HEADINGS, what_if_rows
from lowprec.train.recorder.verdict import told
from lowprec.train.recorder.views import (
    COLUMNS,
    MARKS,
    WORDS,
    Column,
    caption,
    heading_of,
    kind_name,
    short_label,
    shown,
)
from lowprec.train.recorder.whatif import what_if

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lowprec.train.recorder.finding import Finding
    from lowprec.train.recorder.record import Record
    from lowprec.train.recorder.tracks import Track

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
    is_folded: bool = False  # shown when it is asked for


class Row(NamedTuple):
    """A line of the table of tensors; one without cells begins a kind."""

    name: str
    cells: tuple[tuple[str, bool], ...] = ()  # texts, and whether each is red
    key: str = ""


class Card(NamedTuple):
    """A sentence of the verdict, with the tensor that it leads to."""

    level: str
    text: str
    key: str = ""
    name: str = ""
    is_lead: bool = False  # whether the picture of its tensor follows
    topic: str = ""  # the word before it, where that is not its level's
    cause: str = ""  # what follows the outcome in the same sentence of the verdict


PAGE = page_kind("lowprec train --record")


def recorder_page(
    recorder: Record,
    *,
    verdict: Sequence[tuple[str, str]] | None = None,
    topics: Sequence[str] = (),
    cures: Sequence[Any] = (),
    experiments: Sequence[Any] = (),
) -> str:
    """Return the page.

    verdict: What stands first; by default the recorder's own verdict.
    topics: What its sentences are about: what to type follows the cause and the place.
    cures: Cures that were tried, as a `Diagnosis` has them.
    experiments: The trainings of a diagnosis.
    Returns: HTML that refers to nothing outside itself.
    Raises ModuleNotFoundError without matplotlib or Jinja2, naming the extra to install.
    """
    from lowprec.train.recorder.rules import RULES

    environment = page_environment("lowprec.train.recorder")
    from markupsafe import Markup

    sentences = told(recorder)
    lead = _lead(recorder, [one.finding for one in sentences if one.finding is not None])
    columns = _decisive_first(lead[0] if lead else None)
    return environment.get_template("recorder.html").render(
        style=Markup(stylesheet("page.css", "recorder.css")),
        caption=caption(recorder) if recorder.steps else "",
        verdict=_cards(recorder, sentences, lead and lead[0])
        if verdict is None
        else _cards_of_diagnosis(verdict, topics),
        lead=None if lead is None else lead[1]._replace(svg=Markup(lead[1].svg)),
        cures=cures,
        experiments=experiments,
        marks=MARKS,
        words=WORDS,
        pictures=[p._replace(svg=Markup(p.svg)) for p in _pictures(recorder)],
        columns=columns,
        rows=_rows(recorder, columns),
        what_if=_what_if(recorder),
        what_if_headings=WHAT_IF_HEADINGS,
        rules=RULES,
    )


def _cards(
    recorder: Record, sentences: Sequence[tuple[Any, ...]], lead: Finding | None
) -> list[Card]:
    """Return the sentences as cards; the first finding's picture follows its own."""
    cards = [_card(recorder, *one) for one in sentences]
    told = [one[2] if len(one) > 2 else None for one in sentences]
    at = next((place for place, finding in enumerate(told) if finding is lead), 0)
    return [card._replace(is_lead=place == at) for place, card in enumerate(cards)]


def _cards_of_diagnosis(sentences: Sequence[tuple[str, str]], topics: Sequence[str]) -> list[Card]:
    """Return the sentences as cards; what to type follows those that say what is wrong."""
    known = topics or [""] * len(sentences)
    cards = [
        Card(level, text, topic="" if topic == "outcome" else topic)
        for (level, text), topic in zip(sentences, known, strict=True)
        if topic != "cure"  # which is told as what to type
    ]
    said = sum(topic in ("outcome", "cause", "place") for topic in topics)
    return [card._replace(is_lead=at == max(said, 1) - 1) for at, card in enumerate(cards)]


def _card(recorder: Record, level: str, text: str, finding: Finding | None = None) -> Card:
    """Return a sentence with the tensor of its finding."""
    card = Card(level, text)
    if finding is None:
        return card
    if len(text) > len(cause := str(finding)):
        card = card._replace(text=text[: -len(cause)].rstrip(), cause=cause)
    track = _track_of(recorder, finding)
    if track is None:
        return card
    name = name_of(recorder, track.kind, track.name)
    return card._replace(key=key_of(track), name=name)


def _track_of(recorder: Record, finding: Finding) -> Track | None:
    track = recorder.tracks.get(finding.tensor) if finding.tensor else None
    return track if track is not None and track.length else None


def key_of(track: Track) -> str:
    """Return the name of a tensor's place in the page."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"tensor-{track.kind}-{track.name}")


def _lead(recorder: Record, found: list[Finding]) -> tuple[Finding, Picture] | None:
    """Return the first finding that names a tensor, and the picture of that tensor."""
    from lowprec.train.recorder import figures

    for finding in found:
        track = _track_of(recorder, finding)
        if track is not None and finding.level != "note":
            picture = figures.lead(recorder, track, finding.column)
            if picture is not None:
                name = capital(name_of(recorder, track.kind, track.name))
                return finding, Picture(name, *picture)
    return None


def _decisive_first(finding: Finding | None) -> list[Column]:
    """Return the columns of the table of tensors, what the first finding is about before others."""
    shows = "range" if finding is None else finding.column
    return sorted(COLUMNS, key=lambda column: column.shows != shows)


def _pictures(recorder: Record) -> Iterator[Picture]:
    from lowprec.train.recorder import figures as figures

    losses = [*recorder.curves.get("loss", ()), *recorder.curves.get("val_loss", ())]
    if losses and any(map(math.isfinite, [*losses, *(recorder.reference or ())])):
        text = "The loss by epoch."
        yield Picture("Learning curves", text, figures.learning_curves(recorder))
    elif losses:
        yield Picture("Learning curves", "The loss was finite in none of the epochs.", "")
    if any(scale != 1 for _, scale in recorder.scales):
        text = "Crosses are skipped steps, all of them: their gradients were not finite."
        yield Picture("Loss scale", text, figures.loss_scales(recorder))
    if any(track.gaps.any() for track in recorder.of_kind("update")):
        text = (
            f"An update is lost if the sum of weight and update, rounded to "
            f"{recorder.policy.formats['params']}, is the weight itself."
        )
        yield Picture("Lost updates", text, figures.lost_updates(recorder))
    for kind, title in _TITLES.items():
        groups = figures.groups(recorder.of_kind(kind))
        for number, tracks in enumerate(groups):
            drawing = figures.heat_maps(recorder, kind, tracks, number)
            text = _heat_text(recorder, kind) if not number else ""
            yield Picture(f"{title}, continued" if number else title, text, drawing, number > 0)
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
    scaled = " under the loss scale" if kind in GRADIENTS and recorder.scales else ""
    return (
        f"{text}. Lines: {fmt}'s largest and smallest normal number{scaled}; dashed, its smallest."
    )


def _rows(recorder: Record, columns: Sequence[Column]) -> list[Row]:
    rows, heading = [], ""
    for track in shown(recorder):
        if heading != (heading := heading_of(track)):
            rows.append(Row(heading))
        whole = track.whole
        cells = tuple((c.text(whole), c.is_bad(whole)) for c in columns)
        rows.append(Row(short_label(recorder, track), cells, key_of(track)))
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
