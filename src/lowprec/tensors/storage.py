"""How numbers of a format are stored: under a dtype of the file's, or as codes with a note.

The note is one JSON text that a file keeps under the key ``lowprec``. It names the format of each
tensor that is stored as unsigned codes, and the power of two that its values are scaled by.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

from lowprec.formats import Format, Specials, get_format, named_formats, scaled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lowprec.tensors.tensor import Tensor

KEY = "lowprec"
_VERSION = 1


def with_notes(metadata: Mapping[str, str], tensors: Iterable[Tensor]) -> dict[str, str]:
    """Return a file's metadata with the note of its tensors; without one where none needs it.

    metadata: What the file keeps besides.
    """
    notes = {tensor.name: _note(tensor) for tensor in tensors if tensor.is_coded}
    kept = {key: text for key, text in metadata.items() if key != KEY}
    if notes:
        kept[KEY] = json.dumps({"version": _VERSION, "tensors": notes})
    return kept


def _note(tensor: Tensor) -> dict[str, Any]:
    assert isinstance(tensor.fmt, Format), "others are not coded"
    note: dict[str, Any] = {"format": _spell(tensor.fmt)}
    if tensor.scale != 1.0:
        note["scale"] = tensor.scale
    return note


def _spell(fmt: Format) -> str | dict[str, Any]:
    """Return the name of a format that has one, else its fields."""
    if named_formats().get(fmt.name) == fmt:
        return fmt.name
    return dataclasses.asdict(fmt) | {"specials": fmt.specials.value}


def apply_notes(metadata: Mapping[str, str], tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Return tensors with the formats and scales that the file's note gives them.

    Raises ValueError if the note is damaged, or of a version to come.
    """
    notes = _read_notes(metadata[KEY]) if KEY in metadata else {}
    noted = tuple(_apply(notes.pop(tensor.name, None), tensor) for tensor in tensors)
    if notes:
        raise ValueError(f"its note speaks of {next(iter(notes))!r:.100}, which it does not hold")
    return noted


def _read_notes(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
        version, notes = content["version"], content["tensors"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(f"its note {text!r:.60} is damaged") from None
    if version != _VERSION or not isinstance(notes, dict):
        raise ValueError(f"its note has version {version!r:.20}; this lowprec reads {_VERSION}")
    return notes


def _apply(note: Any, tensor: Tensor) -> Tensor:
    if note is None:
        return tensor
    try:
        fmt = _read_format(note["format"])
        scale = float(note.get("scale", 1.0))
        noted = dataclasses.replace(tensor, fmt=fmt, scale=scale)
        scaled(fmt, scale)  # which checks it
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"the note of {tensor.name!r:.100} is damaged: {error}") from None
    if tensor.dtype not in (fmt.code_dtype, fmt.dtype):
        raise ValueError(f"{tensor.name!r:.100} holds {tensor.dtype}; its note says {fmt}")
    return noted


def _read_format(spelling: Any) -> Format:
    if isinstance(spelling, str):
        return get_format(spelling)
    fields = dict(spelling)
    integers = [fields["exponent_bits"], fields["precision"], fields["bias"]]
    if not all(type(n) is int and math.fabs(n) < 2**16 for n in integers):
        raise ValueError(f"{spelling!r:.100} describes no format")
    return Format(
        **fields | {"name": str(fields["name"]), "specials": Specials(fields["specials"])}
    )
