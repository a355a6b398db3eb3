"""A format for each tensor under a budget of bits: a plan that `convert` carries out."""

from __future__ import annotations

import dataclasses
import heapq
import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.analysis.judgement import holds
from lowprec.blocks.formats import BlockFormat, get_format
from lowprec.common.outputs import json_kind
from lowprec.tensors.layouts import can_be_quantized, layout_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lowprec.analysis.judgement import Rows
    from lowprec.analysis.measurement import Measurement
    from lowprec.blocks.formats import AnyFormat
    from lowprec.tensors.tensor import Tensor

_MOST_BYTES = 100_000_000
PLAN = json_kind("a plan of lowprec compare", lambda content: "formats" in content)


@dataclasses.dataclass(frozen=True)
class FormatPlan:
    """Which format each tensor is to be converted to; made by `plan_formats`.

    budget: The bits a value that were allowed, on average.
    bits: Those that the plan takes; tensors that it leaves as they are count.
    formats: By the tensor's name.
    not_held: Tensors whose format loses something that matters, or is too coarse for the tolerance.
    """

    budget: float
    bits: float
    formats: dict[str, AnyFormat]
    not_held: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data for JSON."""
        return {
            "budget": self.budget,
            "bits": self.bits,
            "formats": {name: str(fmt) for name, fmt in self.formats.items()},
            "not_held": list(self.not_held),
        }


class _Choice(NamedTuple):
    """A format that a tensor may take."""

    bits: float  # a value
    noise: float  # relative to the signal
    fmt: AnyFormat
    measured: Measurement


def plan_formats(
    rows: Rows, tensors: Mapping[str, Tensor], bits: float, tolerance: float | None = None
) -> FormatPlan:
    """Choose the cheapest format that holds each tensor, within a budget of bits.

    Where those together exceed the budget, tensors take cheaper formats, one step at a time: the
    step that adds the least noise, relative to the tensor, for the bits that it saves.

    rows: The `measurements` of a comparison of the formats to choose from.
    tensors: The same tensors. Block formats are for those that a layout holds.
    bits: The budget: bits a value, on average over all tensors.
    tolerance: The largest relative error that holds, as for `compare`.
    Raises ValueError if no choice stays within the budget.
    """
    choices = {name: _choices(row, tensors[name]) for name, row in rows.items()}
    sizes = {name: tensors[name].size for name in rows}
    stored = {name: 8.0 * tensors[name].nbytes / max(1, tensors[name].size) for name in rows}
    taken = {name: _first(found, tolerance) for name, found in choices.items()}

    def spent() -> float:
        return sum(
            sizes[name] * (choices[name][i].bits if i is not None else stored[name])
            for name, i in taken.items()
        )

    total = max(1, sum(sizes.values()))
    left = spent() - bits * total
    steps = [step for name in rows for step in _step(name, choices, taken[name], sizes)]
    heapq.heapify(steps)
    while left > 0 and steps:
        _, name, i, saved = heapq.heappop(steps)
        taken[name] = i
        left -= saved
        for step in _step(name, choices, i, sizes):
            heapq.heappush(steps, step)
    if spent() > bits * total * (1 + 1e-12):
        raise ValueError(
            f"{bits:g} bits a value are not enough: the cheapest formats take "
            f"{spent() / total:.4g} (block formats hold matrices of whole blocks alone); allow "
            "more, or compare cheaper formats"
        )
    chosen = {name: choices[name][i] for name, i in taken.items() if i is not None}
    return FormatPlan(
        bits,
        spent() / total,
        {name: choice.fmt for name, choice in chosen.items()},
        tuple(name for name, one in chosen.items() if not holds(one.measured, tolerance)),
    )


def _choices(row: Mapping[str, Measurement], tensor: Tensor) -> list[_Choice]:
    """Return the formats that a tensor may take, the cheapest first, each better than the last."""
    found = []
    for measured in row.values():
        fmt = measured.fmt
        if isinstance(fmt, BlockFormat):
            layout_for(fmt)
            if not can_be_quantized(tensor, fmt, is_asked_for=True):
                continue
        width = fmt.bits_per_value if isinstance(fmt, BlockFormat) else float(fmt.bits)
        sqnr = measured.sqnr_db
        noise = 0.0 if math.isnan(sqnr) else 10 ** (-sqnr / 10)
        found.append(_Choice(width, noise + measured.lost, fmt, measured))
    kept: list[_Choice] = []
    for choice in sorted(found, key=lambda one: (one.bits, one.noise)):
        if not kept or choice.noise < kept[-1].noise:
            kept.append(choice)
    return kept


def _first(choices: list[_Choice], tolerance: float | None) -> int | None:
    """Return the cheapest choice that holds, else the best; None where there is none."""
    holding = [i for i, choice in enumerate(choices) if holds(choice.measured, tolerance)]
    return holding[0] if holding else len(choices) - 1 if choices else None


def _step(
    name: str, choices: Mapping[str, list[_Choice]], at: int | None, sizes: Mapping[str, int]
) -> Iterator[tuple[float, str, int, float]]:
    """Yield the step to the next cheaper format: its cost for a bit, and the bits it saves."""
    if at:
        now, then = choices[name][at], choices[name][at - 1]
        saved = sizes[name] * (now.bits - then.bits)
        yield (then.noise - now.noise) * sizes[name] / saved, name, at - 1, saved


def read_plan(path: Path) -> dict[str, AnyFormat]:
    """Read the formats of a plan, or of the figures of a comparison that has one.

    Raises ValueError if the file is not a plan.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, too many for a plan")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        formats = content.get("plan", content)["formats"]
        return {str(name): get_format(fmt) for name, fmt in formats.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a plan that lowprec compare --bits wrote: {error}"
        ) from None
