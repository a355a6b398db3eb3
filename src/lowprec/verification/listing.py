"""Which checks there are for which formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.formats import float32
from lowprec.kernels.oracle.integers import OPERATIONS as OPERATIONS_ON_INTEGERS
from lowprec.kernels.oracle.integers import code_fields
from lowprec.rounding import Rounding
from lowprec.verification.conversions import encoding_check
from lowprec.verification.functions import FUNCTIONS, function_check
from lowprec.verification.matrix_units import INPUTS, presets, tensor_core_check
from lowprec.verification.operations import operation_check
from lowprec.verification.pairs import PAIRED_FUNCTIONS, pair_check

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowprec.formats import Format
    from lowprec.verification.checks import Check

DETERMINISTIC = tuple(mode for mode in Rounding if not mode.is_stochastic)
TENSOR_CORE = "tensor_core"
OPERATIONS = (*OPERATIONS_ON_INTEGERS, "encode", *FUNCTIONS, *PAIRED_FUNCTIONS, TENSOR_CORE)

_WIDEST = 16  # bits of a code
_LARGEST = 1 << 32  # cases in a mode that a full run takes
_DRAWN = 1 << 27  # in a full run where there are more
_COST = 64  # a value to 120 bits takes longer than this number of sums
_GROUPS = 1_000_000  # of products that a full run takes for each tensor core


def checks(
    formats: Iterable[Format],
    operations: Iterable[str] = OPERATIONS,
    roundings: Iterable[Rounding] = DETERMINISTIC,
    sample: int | None = 1 << 18,
) -> list[Check]:
    """List the checks of formats.

    Parameters
    ----------
    formats : iterable of Format
        Of at most 16 bits, signed, with subnormal numbers and NaN, and none of the fnuz kind;
        tfloat32 for tensor cores alone.
    operations : iterable of str
        Of `OPERATIONS`.
    roundings : iterable of Rounding
        Deterministic modes.
    sample : int or None
        How many operands, pairs, triples or float32 to draw for each operation and mode, of the
        elementary functions and tensor cores one in 64 of that; None for all there are, of the
        triples of 16 bits 2**27, and of tensor cores 10**6 sums each.

    Returns
    -------
    list of Check
        One for each format and operation; the elementary functions of a format are one, those of
        two operands another, and each tensor core that takes the format is one.

    Raises
    ------
    ValueError
        If there is no such operation, no oracle for a format or a mode, or nothing to draw.

    Examples
    --------
    >>> from lowprec import bfloat16
    >>> [check.name for check in checks([bfloat16], ["add", "encode"])]
    ['bfloat16 add', 'bfloat16 encode']
    """
    names, modes = tuple(dict.fromkeys(operations)), tuple(dict.fromkeys(roundings))
    _require_known(names, modes, sample)
    found = []
    few = None if sample is None else -(-sample // _COST)
    for fmt in dict.fromkeys(formats):
        if TENSOR_CORE not in names or fmt not in INPUTS or fmt.bits <= _WIDEST:
            found += _on_codes(_known(fmt), names, modes, sample)
        if TENSOR_CORE in names:
            found += [tensor_core_check(one, few or _GROUPS) for one in presets(fmt)]
    return found


def _on_codes(
    fmt: Format, names: tuple[str, ...], modes: tuple[Rounding, ...], sample: int | None
) -> list[Check]:
    """List the checks whose operands are codes of a format."""
    elsewhere = (*FUNCTIONS, *PAIRED_FUNCTIONS, TENSOR_CORE)
    others = [name for name in names if name not in elsewhere]
    found = [_check(fmt, name, modes, sample) for name in others]
    few = None if sample is None else -(-sample // _COST)
    if functions := [name for name in names if name in FUNCTIONS]:
        found.append(function_check(fmt, functions, modes, few))
    if paired := [name for name in names if name in PAIRED_FUNCTIONS]:
        found.append(pair_check(fmt, paired, modes, few))
    return found


def _check(fmt: Format, name: str, modes: tuple[Rounding, ...], sample: int | None) -> Check:
    if name == "encode":
        return encoding_check(fmt, modes, sample)
    arity = OPERATIONS_ON_INTEGERS[name][0]
    if sample is None and 1 << arity * fmt.bits > _LARGEST:
        sample = _DRAWN
    return operation_check(fmt, name, modes, sample)


def _known(fmt: Format) -> Format:
    code_fields(fmt)
    if fmt.bits > _WIDEST or fmt.precision > 11 or not fmt.fits(float32):
        raise ValueError(
            f"{fmt} has {fmt.bits} bits, p={fmt.precision}, emax={fmt.emax}; the integer oracle "
            "takes at most 16 bits with p up to 11 and values that float32 holds; verify a "
            "narrower format"
        )
    return fmt


def _require_known(names: tuple[str, ...], modes: tuple[Rounding, ...], sample: int | None) -> None:
    for name in names:
        if name not in OPERATIONS:
            raise ValueError(f"no check for {name!r}; use one of {', '.join(OPERATIONS)}")
    for mode in modes:
        if mode.is_stochastic:
            raise ValueError(f"{mode.value} draws random bits; use a deterministic mode")
    if sample is not None and sample < 1:
        raise ValueError(f"a sample of {sample} draws nothing; use 1 or more")
