"""Conversions as operators take them: a string that is read once, and kept with its kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from lowprec.conversion.requests import conversion_work, without_code
from lowprec.formats import Format, FormatLike, get_format
from lowprec.rounding import Overflow, OverflowLike, Rounding, RoundingLike
from lowprec.torch.dtypes import (
    CODES,
    DTYPE_OF,
    FORMAT_OF,
    INTEGERS,
    read,
    result_dtype,
    spell,
    working_dtype,
)

if TYPE_CHECKING:
    from lowprec.arrays.direct import NoCode, Work

NARROW = tuple(dtype for dtype in FORMAT_OF if dtype not in (torch.float32, torch.float64))
"""Floating-point dtypes that NumPy or the kernels do not read."""

VIEW = {1: torch.uint8, 2: torch.uint16}
"""What narrow floats are seen as, by their bytes."""


def constant(function: Any) -> Any:
    """Have torch.compile call a function when it traces, and keep the result."""
    function._dynamo_marked_constant = True
    return function


class Asked(NamedTuple):
    """A format and a mode, checked."""

    fmt: Format
    rounding: Rounding
    overflow: Overflow
    random_bits: int | None
    strict: bool = False  # whether what has no code is refused


class Steps(NamedTuple):
    """How tensors of a dtype become tensors of another on the CPU."""

    working: torch.dtype  # what is read
    round: Work | None  # rounds, in `working`
    encode: Work | None  # makes codes of what was rounded, or of the source
    result: torch.dtype
    seen_as: torch.dtype  # what the result's memory is written as
    refuses: NoCode | None = None  # what may not pass
    is_simple: bool = False  # whether memory of one dtype goes to one kernel


_kept: dict[tuple[str, torch.dtype, torch.dtype], Steps] = {}


def spell_request(
    fmt: Format,
    rounding: Rounding,
    overflow: Overflow,
    random_bits: int | None,
    strict: bool = False,
) -> str:
    """Spell what an operator is asked for.

    Examples
    --------
    >>> spell_request(get_format("bf16"), Rounding("RNE"), Overflow("ieee"), None)
    'bfloat16, ties_to_even, ieee'
    """
    words = [spell(fmt), rounding.value, overflow.value]
    words += [] if random_bits is None else [f"{random_bits} random bits"]
    return ", ".join([*words, "strict"] if strict else words)


def read_request(how: str) -> Asked:
    """Read the spelling of `spell_request`."""
    fmt, rounding, overflow, *more = how.split(", ")
    strict = "strict" in more
    bits = [int(word.split()[0]) for word in more if word != "strict"]
    return Asked(
        read(fmt), Rounding(rounding), Overflow(overflow), bits[0] if bits else None, strict
    )


def check_request(
    fmt: FormatLike,
    rounding: RoundingLike,
    overflow: OverflowLike,
    random_bits: int | None,
    strict: bool = False,
) -> Asked:
    """Check what the caller asks for, in the words of `lowprec.round_to`."""
    asked = Asked(get_format(fmt), Rounding(rounding), Overflow(overflow), random_bits, strict)
    source = np.dtype(np.float64)  # which every format may be rounded from
    conversion_work(asked.fmt, asked.rounding, asked.overflow, random_bits, source, "encode")
    return asked


def steps_for(how: str, source: torch.dtype, result: torch.dtype) -> Steps:
    """Return the steps from a dtype to a dtype; `result` is of unsigned integers for codes."""
    kept = _kept.get((how, source, result))
    if kept:
        return kept
    asked = read_request(how)
    steps = _steps(asked[:4], asked.fmt, source, result)
    if asked.strict or result in CODES.values():
        refuses = without_code(asked.fmt)
        steps = steps._replace(refuses=refuses, is_simple=steps.is_simple and refuses is None)
    return _kept.setdefault((how, source, result), steps)


def _steps(asked: Any, fmt: Format, source: torch.dtype, result: torch.dtype) -> Steps:
    working = working_dtype(source, fmt)
    read_as = np.dtype(str(working).removeprefix("torch."))
    if source in INTEGERS:
        read_as = np.dtype(str(source).removeprefix("torch."))
    elif result in CODES.values() and source != torch.float64:
        working, read_as = torch.float32, np.dtype(np.float32)
    if result in CODES.values():
        return Steps(working, None, conversion_work(*asked, read_as, "encode"), result, result)
    own = FORMAT_OF[result]
    if result in NARROW:
        seen_as = VIEW[result.itemsize]
        if own == fmt:
            return Steps(working, None, conversion_work(*asked, read_as, "encode"), result, seen_as)
        rounding = conversion_work(*asked, read_as, "round")
        exactly = (own, Rounding.TIES_TO_EVEN, Overflow.IEEE, None)
        exact = conversion_work(*exactly, rounding.result, "encode")
        return Steps(working, rounding, exact, result, seen_as)
    is_simple = source == working == result
    rounding = conversion_work(*asked, read_as, "round")
    return Steps(working, rounding, None, result, result, is_simple=is_simple)


def code_dtype(fmt: Format) -> torch.dtype:
    """Return the dtype of a format's codes."""
    return CODES[8 * fmt.code_dtype.itemsize]


@constant
def gradient_dtype(how: str, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of gradients that are rounded as `spell_request` says."""
    return result_dtype(dtype, read_request(how).fmt, None)


def cast_dtype(fmt: Format) -> torch.dtype:
    """Return torch's dtype of a format, or that of its codes where torch has none."""
    return DTYPE_OF.get(fmt) or code_dtype(fmt)
