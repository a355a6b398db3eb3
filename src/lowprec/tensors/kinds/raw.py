"""Bytes, or codes in a text, that say nothing of themselves: the caller says what they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.formats import Format, get_format
from lowprec.tensors.checks import checked_name, checked_size
from lowprec.tensors.sources import ArraySource, FileRange, Stamp, Viewed
from lowprec.tensors.tensor import Tensor, TensorFile

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from lowprec.formats import FormatLike

    Array = npt.NDArray[Any]

_TEXTS = (".hex", ".csv", ".txt", ".mem")
_MOST_TEXT = 1 << 28


class Raw(NamedTuple):
    """What the numbers of a file are.

    fmt: The format of the codes.
    shape: The tensor's shape; None for a row.
    byteorder: ``"little"`` or ``"big"``.
    """

    fmt: Format
    shape: tuple[int, ...] | None = None
    byteorder: str = "little"

    @classmethod
    def of(
        cls, fmt: FormatLike, shape: tuple[int, ...] | None = None, byteorder: str = "little"
    ) -> Raw:
        """Check what is said of a file."""
        if byteorder not in ("little", "big"):
            raise ValueError(f"byteorder is {byteorder!r}; use 'little' or 'big'")
        return cls(get_format(fmt), shape, byteorder)


def read_raw(path: Path, raw: Raw) -> TensorFile:
    """Read codes: bytes, or in .hex, .csv, .txt and .mem numbers in a text.

    In a text codes stand between blanks, commas or semicolons: in hexadecimal digits (``3F80``,
    ``0x3f80``), in .csv without ``0x`` in decimal ones. What follows ``#`` or ``//`` in a line is
    a comment.

    Raises ValueError if the length is not that of the shape, or an entry is not a code.
    """
    is_text = path.suffix.lower() in _TEXTS
    tensor = _from_text(path, raw) if is_text else _from_bytes(path, raw)
    return TensorFile(path, (tensor,), {})


def _from_bytes(path: Path, raw: Raw) -> Tensor:
    code = raw.fmt.code_dtype
    with path.open("rb") as file:
        stamp = Stamp.of(file)
    if stamp.size % code.itemsize:
        raise ValueError(
            f"it has {stamp.size:,} bytes, and a code of {raw.fmt} takes {code.itemsize}"
        )
    count = stamp.size // code.itemsize
    dtype = raw.fmt.dtype or code
    is_swapped = code.itemsize > 1 and raw.byteorder == "big"
    place = FileRange(path, 0, code.newbyteorder(">") if is_swapped else dtype, count, stamp)
    source = Viewed(place, dtype) if is_swapped else place
    return Tensor(checked_name(path.stem), _shape(raw, count), dtype, source, raw.fmt)


def _shape(raw: Raw, count: int) -> tuple[int, ...]:
    if raw.shape is None:
        return (count,)
    if checked_size("the tensor", raw.shape, 1) != count:
        raise ValueError(f"it has {count:,} codes, and shape {raw.shape} another number")
    return raw.shape


def _from_text(path: Path, raw: Raw) -> Tensor:
    size = path.stat().st_size
    if size > _MOST_TEXT:
        raise ValueError(f"it has {size:,} bytes of text; {_MOST_TEXT:,} are allowed")
    text = re.sub(r"(#|//)[^\n]*", "", path.read_text(encoding="utf-8", errors="replace"))
    base = 10 if path.suffix.lower() == ".csv" else 16
    words = re.split(r"[\s,;]+", text.strip(" \t\r\n,;"))
    words = words if words != [""] else []
    largest = (1 << raw.fmt.bits) - 1
    codes = np.empty(len(words), raw.fmt.code_dtype)
    for i, word in enumerate(words):
        try:
            code = int(
                word.removeprefix("0x").removeprefix("0X"), 16 if word[:2].lower() == "0x" else base
            )
        except ValueError:
            raise ValueError(f"entry {i:,}, {word!r:.30}, is not a code in base {base}") from None
        if not 0 <= code <= largest:
            raise ValueError(
                f"entry {i:,}, {word!r:.30}, is not a code of {raw.fmt}: 0 to {largest:#x}"
            )
        codes[i] = code
    stored = codes if raw.fmt.dtype is None else codes.view(raw.fmt.dtype)
    shape = _shape(raw, len(words))
    return Tensor(checked_name(path.stem), shape, stored.dtype, ArraySource(stored), raw.fmt)
