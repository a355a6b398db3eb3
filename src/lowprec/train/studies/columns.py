"""What a table of policies tells of each: the columns, for a page and for a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from lowprec.train.studies.seed_statistics import Spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.train.studies.results import PolicyResult, PolicyResults


class Column(NamedTuple):
    """A column: its heading, what it means, and what stands there for a policy."""

    heading: str
    meaning: str
    text: Callable[[PolicyResult], str]
    brief: str = ""  # its heading in a terminal, where it is shown
    brief_text: Callable[[PolicyResult], str] | None = None


def number(value: float) -> str:
    """Return a number with about four digits; a dash for what is not finite.

    Examples
    --------
    >>> number(0.95278), number(53.13579), number(float("nan"))
    ('0.9528', '53.14', '–')
    """
    if not math.isfinite(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"


def _spread(spread: Spread, is_signed: bool = False) -> str:
    mean = number(spread.mean)
    if is_signed and mean != "–":
        mean = _signed(mean)
    return mean if math.isnan(spread.sd) else f"{mean} ± {number(spread.sd)}"


def _signed(text: str) -> str:
    return text.replace("-", "−") if text.startswith("-") else f"+{text}"


def _difference(result: PolicyResult) -> str:
    return "" if result.is_baseline else _spread(result.difference, is_signed=True)


def _diverged(result: PolicyResult) -> str:
    steps = [run.diverged_at + 1 for run in result.diverged if run.diverged_at is not None]
    return f"{len(steps)} of {len(result.runs)}, step {min(steps)}" if steps else "–"


def _fate(result: PolicyResult) -> str:
    """Return the difference to float32, or that it has no meaning."""
    if not result.diverged:
        return _difference(result)
    return f"{len(result.diverged)} of {len(result.runs)} diverged"


def _training_loss(result: PolicyResult) -> str:
    mean = number(Spread.of([run.history["loss"][-1] for run in result.runs]).mean)
    rise = _rise(result)
    return f"{mean} ({rise})" if rise else mean


def _rise(result: PolicyResult) -> str:
    mean = result.loss_rise.mean
    if result.is_baseline or not math.isfinite(mean):
        return ""
    return _signed(f"{100 * mean:.{0 if abs(mean) >= 0.1 else 1}f} %".replace("-0.0 ", "0.0 "))


def _skipped(result: PolicyResult) -> str:
    steps = result.runs[0].steps
    return f"{_mean_skipped(result)} of {steps}" if result.skipped_share else "–"


def _mean_skipped(result: PolicyResult) -> str:
    mean = sum(len(run.skipped_steps) for run in result.runs) / len(result.runs)
    return f"{mean:.3g}" if mean else "–"


def _scale(result: PolicyResult) -> str:
    if result.policy.loss_scale is None:
        return "–"
    scales = sorted({run.loss_scale for run in result.runs})
    return " … ".join(f"{scale:g}" for scale in (scales[0], scales[-1])[: len(scales)])


_COLUMNS = (
    Column(
        "{metric}",
        "mean ± standard deviation over the seeds, after the last epoch",
        lambda result: _spread(result.spread),
        "{metric}",
    ),
    Column(
        "beside float32",
        "mean ± standard deviation of the differences to float32 with the same seed",
        _difference,
        "beside float32",
        _fate,
    ),
    Column(
        "training loss",
        "of the last epoch, the mean over the seeds, and how much higher than float32's",
        _training_loss,
        "loss",
        _rise,
    ),
    Column(
        "diverged",
        "runs whose loss or parameters became infinite or NaN, and the first such step",
        _diverged,
    ),
    Column(
        "steps skipped",
        "mean number of steps left out because gradients were not finite under the loss scale",
        _skipped,
        "skipped",
        _mean_skipped,
    ),
    Column(
        "final scale",
        "what the loss is multiplied by at the end; the range over the seeds",
        _scale,
        "scale",
    ),
    Column(
        "bytes a parameter",
        "the stored parameter + the optimizer's state + the copy in the compute format; "
        "gradients and activations, where mixed precision saves, are not counted",
        lambda result: str(result.memory),
        "bytes",
        lambda result: f"{result.memory.total:g}",
    ),
    Column(
        "time an epoch, ms",
        "elapsed, of the emulation on this machine, validation included; hardware is not measured",
        lambda result: f"{1e3 * result.seconds:.3g}",
        "ms an epoch",
    ),
)


def shown_columns(comparison: PolicyResults) -> list[tuple[str, Column]]:
    """Return the columns that say something, with their headings."""
    return [
        (column.heading.format(metric=comparison.metric), column)
        for column in _COLUMNS
        if any(column.text(result) not in ("–", "") for result in comparison.results)
    ]
