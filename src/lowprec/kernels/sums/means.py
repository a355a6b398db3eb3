"""Quotients of sums and the number of their terms, rounded once to an accumulator's format."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from lowprec.kernels.compiler import intrinsic, types
from lowprec.kernels.lanes import Lanes, select
from lowprec.kernels.loops import EXACT_FLOATS, compile_as, load_constants, swap_float_state
from lowprec.kernels.operations.rules import divide_to_odd, to_odd
from lowprec.kernels.sums.orders import NATIVE, drawn, rounded

if TYPE_CHECKING:
    from collections.abc import Callable

_SMALL, _SCALE = 2.0**-700, 2.0**300


@intrinsic
def _quotient_to_odd(_: Any, x: Any, n: Any) -> Any:
    """Return x / n in float64 rounded to odd, n an integer from 1 to 2**53.

    What is left of a small x is exact if x is scaled up. Scaled down again, its quotient may lose
    bits among the subnormal numbers, which are rounded to odd as well.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, n = (Lanes(builder, value) for value in args)
        size = select(x < 0.0, x * -1.0, x)
        is_small = size < _SMALL
        quotient = divide_to_odd(select(is_small, x * _SCALE, x), n)
        scaled = quotient * (1 / _SCALE)
        scaled = to_odd(scaled, quotient - scaled * _SCALE)
        return select(is_small, scaled, quotient).value

    return types.float64(types.float64, types.float64), generate


@functools.cache
def make_mean(plan: str) -> Callable[..., None]:
    """Return ``loop(sums, n, out, constants, key)``: ``out[i] = ○(sums[i] / n)``.

    Rounding `i` draws the random bits of output `i`.
    """
    is_native = plan == NATIVE

    def divide(sums, n, out, constants, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c = load_constants(constants)
        for i in range(out.size):
            if is_native:
                out[i] = sums[i] / n
            else:
                out[i] = rounded(_quotient_to_odd(sums[i], n), c, drawn(i, 0, key, plan), plan)
        swap_float_state(floats)

    row = types.Array(types.float64, 1, "C", readonly=True)
    out, constants = types.Array(types.float64, 1, "C"), types.Array(types.uint64, 1, "C")
    signature = types.void(row, types.float64, out, constants, types.uint64)
    return compile_as(f"mean|{plan}", divide, signature)
