"""Recorders on disk: one .npz file, written whole or not at all."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lowprec.accumulation import Accumulator
from lowprec.blocks.formats import BlockFormat, IntegerFormat
from lowprec.common.recorded_rows import FIELDS
from lowprec.formats import Format, Specials
from lowprec.train.loss_scale import LossScale
from lowprec.train.policy import Policy
from lowprec.train.recorder.kinds import Event, account_of_reference
from lowprec.train.recorder.record import Record
from lowprec.train.recorder.tracks import ROWS, Track
from lowprec.train.running.archive import archive_kind, read_archive, write_archive
from lowprec.train.running.outcome import Account

if TYPE_CHECKING:
    import os

SAVED = archive_kind("recorder")

R = TypeVar("R", bound=Record)
Array = np.ndarray[Any, Any]

_PLAIN = ("every", "facts", "labels", "steps", "recorded", "skips", "curves", "reference")


def save(recorder: Record, path: str | os.PathLike[str]) -> None:
    """Write a recorder to a file."""
    arrays: dict[str, Array] = {}
    listed = []
    for number, track in enumerate(recorder.tracks.values()):
        first, exponents = _cropped(track.exponents[: track.length])
        arrays[f"{number}/numbers"] = track.numbers[: track.length]
        arrays[f"{number}/exponents"] = exponents
        gap, arrays[f"{number}/gaps"] = _cropped(track.gaps)
        listed.append(
            {
                "kind": track.kind,
                "name": track.name,
                "format": _format_to_json(track.fmt),
                "each": track.each,
                "first_exponent": first,
                "first_gap": gap,
            }
        )
    arrays["step_losses"] = np.array(recorder.step_losses, np.float64)
    arrays["skipped_steps"] = np.array(recorder.skipped_steps, np.int64)
    header = {name: getattr(recorder, name) for name in _PLAIN}
    account = recorder.reference_account
    header["reference_account"] = None if account is None else dataclasses.asdict(account)
    header |= {"content": "recorder", "fields": FIELDS, "tracks": listed}
    header |= {"policy": _policy_to_json(recorder.policy), "scales": recorder.scales}
    header["events"] = [event._asdict() for event in recorder.events]
    write_archive(path, arrays, header)


def load(cls: type[R], path: str | os.PathLike[str]) -> R:
    """Return the recorder in a file."""
    arrays, header = read_archive(path)
    if header.get("content") != "recorder":
        raise ValueError(f"{path} is an archive of lowprec, but not a saved recorder")
    if header["fields"] != list(FIELDS):
        raise ValueError(
            f"{path} counts other things than this lowprec; read it with the one that wrote it"
        )
    recorder = cls(header["every"], policy=_policy_from_json(header["policy"]))
    for name in _PLAIN:
        setattr(recorder, name, header[name])
    recorder.step_losses = arrays.get("step_losses", np.zeros(0)).tolist()
    recorder.skipped_steps = arrays.get("skipped_steps", np.zeros(0, np.int64)).tolist()
    account = header.get("reference_account")  # a file of lowprec 0.1 has losses alone
    if account is None:
        recorder.reference_account = account_of_reference(recorder.reference)
    else:
        recorder.reference_account = Account(**account | {"epochs": tuple(account["epochs"])})
    recorder.events = [Event(**event) for event in header["events"]]
    recorder.scales = [(step, scale) for step, scale in header["scales"]]
    for number, listed in enumerate(header["tracks"]):
        track = Track(listed["kind"], listed["name"], _format_from_json(listed["format"]))
        numbers, exponents, gaps = (
            arrays[f"{number}/{part}"] for part in ("numbers", "exponents", "gaps")
        )
        track.length, track.each = min(len(numbers), ROWS), listed["each"]
        first, gap = listed["first_exponent"], listed["first_gap"]
        track.numbers[: track.length] = numbers
        track.exponents[: track.length, first : first + exponents.shape[1]] = exponents
        track.gaps[:, gap : gap + gaps.shape[1]] = gaps
        recorder.tracks[track.kind, track.name] = track
    return recorder


def _cropped(counts: Array) -> tuple[int, Array]:
    """Return the first column that is not all zeros, and the columns from there to the last."""
    used = np.flatnonzero(counts.any(axis=0))
    if not used.size:
        return 0, counts[:, :0]
    return int(used[0]), np.ascontiguousarray(counts[:, used[0] : used[-1] + 1])


# Formats and policies ----------------------------------------------------------------------------


def _format_to_json(fmt: Format) -> dict[str, Any]:
    return dataclasses.asdict(fmt) | {"specials": fmt.specials.value}


def _format_from_json(fields: dict[str, Any]) -> Format:
    return Format(**fields | {"specials": Specials(fields["specials"])})


def _policy_to_json(policy: Policy) -> dict[str, Any]:
    formats = {k: _format_to_json(fmt) for k, fmt in policy.formats.items() if k != "accumulate"}
    scale, accumulate = policy.loss_scale, policy.accumulate
    return {
        **formats,
        "accumulate": _sum_to_json(accumulate)
        if isinstance(accumulate, Accumulator)
        else _format_to_json(policy.formats["accumulate"]),
        "update": policy.update,
        "loss_scale": dataclasses.asdict(scale) if isinstance(scale, LossScale) else None,
        "tensor_scales": policy.tensor_scales,
        "blocks": {
            name: _block_to_json(value)
            for name in ("compute", "gradients", "weights")
            if isinstance(value := getattr(policy, name), BlockFormat)
        },
        "gradient_rounding": policy.gradient_rounding,
        "hadamard": policy.hadamard,
        "name": policy.name,
        "layers": {
            key: {name: _field_to_json(value) for name, value in fields}
            for key, fields in policy.places
        },
    }


def _field_to_json(value: Any) -> Any:
    """Return what a policy has in one place as JSON holds it."""
    if isinstance(value, Accumulator):
        return _sum_to_json(value)
    if isinstance(value, BlockFormat):
        return _block_to_json(value)
    return _format_to_json(value) if isinstance(value, Format) else value


def _block_to_json(fmt: BlockFormat) -> dict[str, Any]:
    element = fmt.element
    return {
        "name": fmt.name,
        "element": dataclasses.asdict(element)
        if isinstance(element, IntegerFormat)
        else _format_to_json(element),
        "block": fmt.block,
        "scale": _format_to_json(fmt.scale),
        "rule": fmt.rule.value,
        "tensor_scale": fmt.tensor_scale,
    }


def _block_from_json(fields: dict[str, Any]) -> BlockFormat:
    element = fields["element"]
    is_integer = "fraction_bits" in element
    return BlockFormat(
        **fields
        | {
            "element": IntegerFormat(**element) if is_integer else _format_from_json(element),
            "scale": _format_from_json(fields["scale"]),
        }
    )


def _field_from_json(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "element" in value:
        return _block_from_json(value)
    return _sum_from_json(value) if "order" in value else _format_from_json(value)


def _policy_from_json(fields: dict[str, Any]) -> Policy:
    scale, accumulate = fields["loss_scale"], fields["accumulate"]
    blocks = {name: _block_from_json(fmt) for name, fmt in fields.get("blocks", {}).items()}
    fields = {name: value for name, value in fields.items() if name != "blocks"}
    formats = ("params", "compute", "gradients", "state")
    return Policy(
        **fields
        | {name: _format_from_json(fields[name]) for name in formats}
        | blocks
        | {
            "accumulate": _sum_from_json(accumulate)
            if "order" in accumulate
            else _format_from_json(accumulate),
            "loss_scale": None if scale is None else LossScale(**scale),
            "layers": {
                key: {name: _field_from_json(value) for name, value in changes.items()}
                for key, changes in fields.get("layers", {}).items()
            },
        }
    )


def _sum_to_json(accumulator: Accumulator) -> dict[str, Any]:
    fields = {
        field.name: getattr(accumulator, field.name)
        for field in dataclasses.fields(accumulator)
        if field.name != "rng"  # a generator is not a number
    }
    return {
        name: _format_to_json(value)
        if isinstance(value, Format)
        else value.value
        if isinstance(value, enum.Enum)
        else value
        for name, value in fields.items()
    }


def _sum_from_json(fields: dict[str, Any]) -> Accumulator:
    parts: dict[str, Any] = {
        name: _format_from_json(value) if isinstance(value, dict) else value
        for name, value in fields.items()
    }
    return Accumulator(**parts)
