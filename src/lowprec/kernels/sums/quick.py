"""Sums of float32 rounded twice where that is as good as once, and watched.

A sum that is rounded to float32 first and then to a format goes wrong only if float32's is a point
where the second rounding turns, and not the exact sum: a midpoint of the format's values in the
nearest modes, such a value in the others. For rounding to float32 keeps the order, and these points
are float32. TwoSum's error tells, beside the chain of additions. Zeros apart, sums outside the
format's normal numbers are left to the general step too.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.kernels.compiler import cgutils, intrinsic, ir, types
from lowprec.kernels.lanes import Lanes
from lowprec.kernels.loops import (
    EXACT_FLOATS,
    Elements,
    compile_as,
    kept,
    load_constants,
    plan_of,
    spell,
    swap_float_state,
)
from lowprec.kernels.magnitudes import Constants, Plan, adjust
from lowprec.kernels.plans import conversion_plan, fits_float32_words, processor_has
from lowprec.kernels.products.odd import fma_to_odd
from lowprec.kernels.products.steps import constants_of
from lowprec.kernels.sums.orders import added, rounded, two_sum
from lowprec.rounding import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.formats import Format
    from lowprec.rounding import Overflow

_SIGN, _TRAILING = 1 << 31, 23
_XMM = 4  # lanes of the least vector; a row's sum is the first, so that no step leaves it


def quick_plan(fmt: Format, rounding: Rounding, overflow: Overflow) -> tuple[str, Any] | None:
    """Return the rule of quick sums as text, and its constants; None where they do not serve."""
    if rounding.is_stochastic or fmt.precision > 22 or not fits_float32_words(fmt):
        return None
    plan, constants = conversion_plan(fmt, "float32", "float32", rounding, overflow)
    if not _is_quick(plan):
        return None
    return spell(Plan("float32", "float32", plan.mode, 32)), constants  # for all such formats


def _is_quick(plan: Plan) -> bool:
    has_both_zeros = plan.variant.has_sign and not plan.variant.is_fnuz
    gives_zero = not Rounding(plan.mode).gives_negative_zero
    return plan.word == 32 and has_both_zeros and gives_zero and not plan.exponent_parity


def _finished(bits: Lanes, plan: Plan, c: Constants, rest: Lanes | None) -> tuple[Lanes, Lanes]:
    """Return a sum of float32 rounded, and in which lanes the format may not have a normal one.

    `bits` are those of the sum cut; the last bit of `rest` is 1 where anything was cut off.
    """
    magnitude = bits & (_SIGN - 1)
    shift = c.trailing_bits.constant(_TRAILING) - c.trailing_bits
    least = c.emin << _TRAILING
    largest = (c.max_code << shift) + least - (1 << _TRAILING)
    if rest is not None and plan.mode == "ties_to_even":  # soon: a rest makes a tie go up
        below = bits + ((bits.constant(1) << shift >> 1) - 1)
        adjusted = below + (((bits >> shift) | rest) & 1)
    else:
        odd = bits if rest is None else bits | (rest & 1)
        adjusted = adjust(odd, shift, bits >= _SIGN, plan, c.emin)
    result = adjusted >> shift << shift  # the sign is kept
    is_outside = ((magnitude - least) > (largest - least)) & (magnitude > 0)
    return result.as_floats(), is_outside


def _quick_sum(x: Lanes, z: Lanes, plan: Plan, c: Constants) -> tuple[Lanes, Lanes]:
    """Return ○(x + z), and in which lanes that is in doubt."""
    s, error = two_sum(x, z)
    result, is_outside = _finished(s.as_integers(), plan, c, None)
    one = c.emin.constant(1) << (c.emin.constant(_TRAILING) - c.trailing_bits)
    turns = one >> 1 if Rounding(plan.mode).is_nearest else one.constant(0)
    return result, is_outside | ((s.as_integers() & (one - 1)).equals(turns) & ~error.equals(0.0))


def _cut_sum(x: Lanes, z: Lanes) -> tuple[Lanes, Lanes | None]:
    """Return the bits of x + z cut to float32, and lanes whose last bit is 1 where any were lost.

    The results of rounding down and up are the same, or neighbours, whose last bits differ. Without
    AVX-512 it is the sum rounded to odd, and there is no rest.
    """
    if not processor_has("avx512f"):
        return fma_to_odd(x, x.constant(1.0), z, True).as_integers(), None
    cut, down, up = (
        x.in_direction("add", f"toward_{way}", z).as_integers()
        for way in ("zero", "negative", "positive")
    )
    return cut, down ^ up


def soon_rounded(x: Lanes, z: Lanes, text: str, c: Constants | None, slowly: Any) -> Lanes:
    """Return ○(x + z) of vectors, after few steps one of which waits for another."""
    plan, builder = plan_of(text), x.builder
    if plan is None or c is None or not _is_quick(plan):
        return slowly(x, z)
    bits, rest = _cut_sum(x, z)
    quick, doubt = _finished(bits, plan, c, rest)
    before, flags = builder.block, builder.bitcast(doubt.value, ir.IntType(x.count))
    in_doubt = builder.icmp_unsigned("!=", flags, flags.type(0))
    with builder.if_then(in_doubt, likely=False):
        slow = slowly(x, z)
        after = builder.block
    result = builder.phi(quick.value.type)
    result.add_incoming(quick.value, before)
    result.add_incoming(slow.value, after)
    return Lanes(builder, result)


@intrinsic(prefer_literal=True)
def run(_: Any, row: Any, first: Any, total: Any, constants: Any, plan: Any) -> Any:
    """Add a row's terms from `first` on, up to one that is in doubt; return its place, the sum."""
    text = plan.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, number = builder, ir.IntType(64)
        source = Elements(context, b, signature.args[0], args[0])
        size = context.make_array(signature.args[0])(context, b, args[0]).nitems
        fields = cgutils.unpack_tuple(b, args[3], len(Constants._fields))
        c = constants_of(b, fields, text, _XMM)
        assert c is not None
        nothing = ir.Constant(ir.VectorType(ir.FloatType(), _XMM), None)
        lane = ir.IntType(32)(0)
        begin = b.insert_element(nothing, b.fptrunc(args[2], ir.FloatType()), lane)
        before, entered = b.basic_block, b.append_basic_block("entered")
        step_, goes_on, done = (b.append_basic_block(n) for n in ("step", "goes_on", "done"))
        b.branch(entered)
        b.position_at_end(entered)
        place, sums = b.phi(number), b.phi(nothing.type)
        b.cbranch(b.icmp_signed("<", place, size), step_, done)
        b.position_at_end(step_)
        x = Lanes(b, b.insert_element(nothing, source.load(place, 1).value, lane))
        result, doubt = _quick_sum(x, Lanes(b, sums), kept(text), c)
        b.cbranch(b.extract_element(doubt.value, lane), done, goes_on)
        b.position_at_end(goes_on)
        for phi, start, value in (
            (place, args[1], b.add(place, number(1))),
            (sums, begin, result.value),
        ):
            phi.add_incoming(start, before)
            phi.add_incoming(value, goes_on)
        b.branch(entered)
        b.position_at_end(done)
        total = b.fpext(b.extract_element(sums, lane), ir.DoubleType())
        return context.make_tuple(b, signature.return_type, [place, total])

    result = types.Tuple((types.int64, types.float64))
    return result(row, types.int64, types.float64, constants, plan), generate


@functools.cache
def make_quick_rows(plan: str, term: str) -> Callable[..., None]:
    """Return the loop that sums the rows of a float32 array in sequence.

    ``sum_rows(x, sums, constants, term_constants, first, output, key)`` is as in `binades`; `plan`
    is the rule of `rounding_plan`, `term` that of `quick_plan`.
    """

    def sum_rows(x, sums, constants, term_constants, first, output, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c, ct = load_constants(constants), load_constants(term_constants)
        for i in range(x.shape[0]):
            row, total, k = x[i], sums[i], 0
            while k < row.size:
                if first + k == 0:
                    total = rounded(np.float64(row[0]), c, np.uint64(0), plan)
                else:
                    total = added(np.float64(row[k]), 1.0, total, c, np.uint64(0), plan)
                k, total = run(row, k + 1, total, ct, term)
            sums[i] = total if total == total else np.nan
        swap_float_state(floats)

    constants = types.Array(types.uint64, 1, "C")
    signature = types.void(
        types.Array(types.float32, 2, "C", readonly=True),
        types.Array(types.float64, 1, "C"),
        *[constants] * 2,
        *[types.int64] * 2,
        types.uint64,
    )
    return compile_as(f"quick rows|{plan}|{term}", sum_rows, signature)
