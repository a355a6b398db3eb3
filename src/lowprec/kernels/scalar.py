"""The rules for one number at a time, to be called from a user's own ``@njit`` functions."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from lowprec.formats import FormatLike, float64, get_format
from lowprec.kernels.compiler import intrinsic, types
from lowprec.kernels.lanes import Lanes
from lowprec.kernels.loops import compile_as, keep, kept, spell
from lowprec.kernels.magnitudes import Constants
from lowprec.kernels.plans import conversion_plan
from lowprec.kernels.rules import convert
from lowprec.rounding import Overflow, OverflowLike, Rounding, RoundingLike, checked_overflow

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["scalar_rounder"]


def scalar_rounder(
    fmt: FormatLike,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
) -> Callable[..., float]:
    """Return a compiled function that rounds one float64 to a format, for use in ``@njit`` code.

    Parameters
    ----------
    fmt : Format, str or dtype
        The format.
    rounding : Rounding or str
        As for `lowprec.round_to`.
    overflow : Overflow or str
        As for `lowprec.round_to`.

    Returns
    -------
    callable
        ``f(x) -> float64``; for the stochastic modes ``f(x, random) -> float64``, where `random`
        is an unsigned integer of 32 random bits. Rounds the float64 once, as `lowprec.round_to`
        does (an integer argument is first converted to float64 by Numba). NaN stays NaN also for
        a format that has none, as nothing can be refused here. The rule works on integers, so that
        the processor's rounding mode and its flushing of subnormal numbers change nothing.

    Examples
    --------
    >>> import numba, numpy as np
    >>> to_bfloat16 = scalar_rounder("bfloat16")
    >>> @numba.njit
    ... def rounded_sum(x):
    ...     total = 0.0
    ...     for value in x:
    ...         total = to_bfloat16(total + value)
    ...     return total
    >>> rounded_sum(np.ones(1000))
    256.0
    """
    fmt = get_format(fmt)
    return _make_rounder(fmt, Rounding(rounding), checked_overflow(overflow, fmt))


@functools.cache
def _make_rounder(fmt: Any, rounding: Rounding, overflow: Overflow) -> Callable[..., float]:
    plan, constants = conversion_plan(fmt, "float64", float64.name, rounding, overflow, 32)
    if plan.twin not in ("aligned", "general"):  # those add floats
        plan, constants = conversion_plan(
            fmt, "float64", float64.name, rounding, overflow, 32, twin="general"
        )
    fields = tuple(map(int, constants))
    text = keep(f"{spell(plan)}|{','.join(map(str, fields))}", (plan, fields))
    if rounding.is_stochastic:

        def round_randomly(x, random):  # type: ignore[no-untyped-def]
            return _apply(x, random, text)

        signature = types.float64(types.float64, types.uint64)
        return compile_as(text, round_randomly, signature)

    def round_number(x):  # type: ignore[no-untyped-def]
        return _apply(x, 0, text)

    return compile_as(text, round_number, types.float64(types.float64))


@intrinsic(prefer_literal=True)
def _apply(_: Any, x: Any, random: Any, rule: Any) -> Any:
    """Apply a rule, given with its constants as text, to one number."""
    plan, constants = kept(rule.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        R = Lanes(builder, context.cast(builder, args[1], signature.args[1], types.uint64))
        c = Constants(*(R.constant(field) for field in constants))
        return convert(Lanes(builder, args[0]), plan, c, R & 0xFFFFFFFF).value

    return types.float64(x, random, rule), generate
