"""Running sums: every element the sum, in an accumulator's order, of the terms up to it.

Each loop takes the terms ``x[i, k]``, numbered first, first + 1, … in their row, writes the sums of
the terms up to each to ``out[i, k]``, and keeps in ``state[i]`` what the next block needs. Steps,
roundings and their numbers are those of `lowprec.kernels.sums.orders`, so that an element has the
bits of the sum of the terms up to it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from lowprec.kernels.compiler import types
from lowprec.kernels.loops import EXACT_FLOATS, compile_as, load_constants, swap_float_state
from lowprec.kernels.sums.limbs import LIMBS, add_to_limbs, read_limbs
from lowprec.kernels.sums.orders import NATIVE, added, drawn, rounded, zero_of

if TYPE_CHECKING:
    from collections.abc import Callable


def _sequential(plan: str, inner: str) -> Callable[..., None]:
    def cumulate(x, out, state, constants, block, first, row, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c = load_constants(constants[0])
        for i in range(x.shape[0]):
            total = state[i, 0]
            for k in range(x.shape[1]):
                random = drawn(row + i, first + k, key, plan)
                if first + k == 0:
                    total = rounded(x[i, k], c, random, plan)
                else:
                    total = added(x[i, k], 1.0, total, c, random, plan)
                out[i, k] = total
            state[i, 0] = total
        swap_float_state(floats)

    return cumulate


def _blocked(plan: str, inner: str) -> Callable[..., None]:
    def cumulate(x, out, state, constants, block, first, row, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c, ci = load_constants(constants[0]), load_constants(constants[1])
        for i in range(x.shape[0]):
            total, part = state[i, 0], state[i, 1]
            for k in range(x.shape[1]):
                n = first + k
                done = n // block  # blocks before
                random = drawn(row + i, n + done, key, inner)
                if n == done * block:
                    part = rounded(x[i, k], ci, random, inner)
                else:
                    part = added(x[i, k], 1.0, part, ci, random, inner)
                random = drawn(row + i, n + done + 1, key, plan)
                if done == 0:
                    out[i, k] = rounded(part, c, random, plan)
                else:
                    out[i, k] = added(part, 1.0, total, c, random, plan)
                if n + 1 == (done + 1) * block:
                    total = out[i, k]
            state[i, 0], state[i, 1] = total, part
        swap_float_state(floats)

    return cumulate


def _pairwise(plan: str, inner: str) -> Callable[..., None]:
    def cumulate(x, out, state, constants, block, first, row, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c = load_constants(constants[0])
        for i in range(x.shape[0]):
            number = 0  # of additions before the first term
            for level in range(1, 63):
                number += first >> level
            for k in range(x.shape[1]):
                count, level, total = first + k + 1, 0, x[i, k]
                while (count - 1) >> level & 1:
                    random = drawn(row + i, number, key, plan)
                    total = added(total, 1.0, state[i, level], c, random, plan)
                    number += 1
                    level += 1
                state[i, level] = total
                now = number
                if count == 1:
                    total = rounded(total, c, drawn(row + i, now, key, plan), plan)
                for above in range(level + 1, state.shape[1]):
                    if count >> above & 1:
                        random = drawn(row + i, now, key, plan)
                        total = added(total, 1.0, state[i, above], c, random, plan)
                        now += 1
                out[i, k] = total
        swap_float_state(floats)

    return cumulate


def _kahan(plan: str, inner: str) -> Callable[..., None]:
    def cumulate(x, out, state, constants, block, first, row, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c = load_constants(constants[0])
        for i in range(x.shape[0]):
            o, s, lost = row + i, state[i, 0], state[i, 1]
            for k in range(x.shape[1]):
                n = 4 * (first + k)
                if n == 0:
                    s, lost = rounded(x[i, k], c, drawn(o, n, key, plan), plan), 0.0
                else:
                    y = added(x[i, k], 1.0, -lost, c, drawn(o, n, key, plan), plan)
                    t = added(y, 1.0, s, c, drawn(o, n + 1, key, plan), plan)
                    grown = added(t, 1.0, -s, c, drawn(o, n + 2, key, plan), plan)
                    lost = added(grown, 1.0, -y, c, drawn(o, n + 3, key, plan), plan)
                    s = t
                out[i, k] = s
            state[i, 0], state[i, 1] = s, lost
        swap_float_state(floats)

    return cumulate


def _exact(plan: str, inner: str) -> Callable[..., None]:
    """Round a copy of the long fixed-point number, which reading it changes."""
    zero, is_native = zero_of(plan), plan == NATIVE

    def cumulate(x, out, state, constants, block, first, row, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c = load_constants(constants[0])
        for i in range(x.shape[0]):
            for k in range(x.shape[1]):
                add_to_limbs(state[i, :LIMBS], x[i, k], first + k)
                state[i, LIMBS:] = state[i, :LIMBS]
                total = read_limbs(state[i, LIMBS:], zero, is_native)
                out[i, k] = rounded(total, c, drawn(row + i, 0, key, plan), plan)
        swap_float_state(floats)

    return cumulate


_LOOPS = {
    "sequential": _sequential,
    "blocked": _blocked,
    "pairwise": _pairwise,
    "kahan": _kahan,
    "exact": _exact,
}
ORDERS = tuple(_LOOPS)  #: whose running sums there are


def prefix_state_size(order: str, terms: int) -> int:
    """Return how many float64 a row keeps in this order."""
    sizes = {"blocked": 2, "kahan": 2, "pairwise": terms.bit_length(), "exact": 2 * LIMBS}
    return sizes.get(order, 1)


@functools.cache
def make_running_sums(order: str, plan: str, inner: str) -> Callable[..., None]:
    """Return ``loop(x, out, state, constants, block, first, row, key)`` of an order.

    `constants` are those of the format and of the inner one, `row` the index of the first row among
    all outputs.
    """
    signature = types.void(
        types.Array(types.float64, 2, "A", readonly=True),
        types.Array(types.float64, 2, "C"),
        types.Array(types.float64, 2, "C"),
        types.Array(types.uint64, 2, "C"),
        types.int64,
        types.int64,
        types.int64,
        types.uint64,
    )
    loop = _LOOPS[order](plan, inner)
    return compile_as(f"running sums|{order}|{plan}|{inner}", loop, signature)
