"""Sequential sums of rows: one addition a term for as long as a sum stays in its binade.

Between 2**e and 2**(e + 1) the values of a format are multiples of one quantum 2**q. So are the
float64 between h = 1.5·2**(52 + q) and its neighbours in the same binade: one float64 addition of a
term to h + |sum| rounds the exact sum once to a multiple of the quantum. The processor rounds it in
the direction that the mode asks for, as its state says. This goes on until the exact sum leaves the
binade, which a comparison beside the chain of additions tells. If float64 holds the exact sum, it
is added to the next binade's h; otherwise, at 0 and at an overflow, the general rule makes a step
and the next binade begins. Below the smallest normal number the quantum stays the same, down
to the quantum itself.

Terms take the sign of the sum, so that the sum is positive here: toward zero is downward.

- The nearest modes but ties_to_even leave ties to the general rule.
- to_odd rounds downward, and sets the last bit if anything was left.
- stochastic rounds the sum and the random bits, which are multiples of 2**(q - r), downward: what
  is left of the sum below them cannot carry.
- stochastic_equal rounds downward, and adds a quantum if anything was left and the bit says so.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

import numpy as np

from lowprec.formats import Format, float32, float64
from lowprec.kernels.compiler import (
    get_or_insert_function,
    intrinsic,
    ir,
    types,
)
from lowprec.kernels.lanes import Lanes
from lowprec.kernels.loops import (
    DIRECTED_FLOATS,
    EXACT_FLOATS,
    compile_as,
    kept,
    load_constants,
    swap_float_state,
)
from lowprec.kernels.philox import LANES, philox
from lowprec.kernels.plans import variant
from lowprec.kernels.sums.orders import NATIVE, added, drawn, rounded
from lowprec.rounding import Overflow, Rounding, is_usual

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]

_SIGN, _FIELD = np.int64(-(2**63)), np.int64(0x7FF << 52)
_HALF = np.int64(1 << 51)
_LARGEST_FIELD = 2000  # of h
_WORDS = 4 * LANES  # random words that are drawn at once
_DOWN, _UP = DIRECTED_FLOATS or (EXACT_FLOATS, EXACT_FLOATS)


class Binades(NamedTuple):
    """What the sums of rows know of a format beside the rule's constants."""

    emin: int  # as float64's exponent field
    trailing_bits: int
    least: int  # bits of the least float64 that binades hold
    most: int  # bits of the largest


def binades_of(fmt: Format, rounding: Rounding, overflow: Overflow) -> Binades | None:
    """Return what `make_row_sums` needs of a format; None where binades do not serve it."""
    if fmt == float64 or (fmt == float32 and is_usual(rounding, overflow)):
        return Binades(0, 0, 0, 0)
    match rounding:  # the loop below knows these
        case Rounding.TIES_TO_EVEN | Rounding.TIES_TO_AWAY | Rounding.TIES_TOWARD_ZERO:
            is_directed = False
        case (
            Rounding.TOWARD_ZERO
            | Rounding.AWAY_FROM_ZERO
            | Rounding.TOWARD_POSITIVE
            | Rounding.TOWARD_NEGATIVE
            | Rounding.TO_ODD
            | Rounding.STOCHASTIC
            | Rounding.STOCHASTIC_EQUAL
        ):
            is_directed = True
        case _:
            assert_never(rounding)
    if fmt.counts_exponent_parity and rounding.looks_at_parity:
        return None
    if not variant(fmt).has_sign or (is_directed and DIRECTED_FLOATS is None):
        return None
    least = fmt.smallest_subnormal if fmt.subnormals else fmt.smallest_normal
    bits = np.array([least, fmt.max]).view(np.int64)
    return Binades(fmt.emin + 1023, fmt.trailing_bits, int(bits[0]), int(bits[1]))


@intrinsic
def add_as_set(_: Any, x: Any, y: Any) -> Any:
    """Return x + y in float64, rounded as the processor's state says when this is reached."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        double, module = ir.DoubleType(), builder.module
        kind = ir.FunctionType(double, [double, double, ir.MetaDataType(), ir.MetaDataType()])
        name = "llvm.experimental.constrained.fadd.f64"
        function = get_or_insert_function(module, kind, name)
        how = [ir.MetaDataString(module, text) for text in ("round.dynamic", "fpexcept.ignore")]
        return builder.call(function, [*args, *how])

    return types.float64(x, y), generate


@intrinsic
def draw_row(_: Any, words: Any, output: Any, first: Any, key: Any) -> Any:
    """Fill an array with the words of an output's roundings from number `first` on, a multiple."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        output, first, key = (Lanes(builder, value) for value in args[1:])
        counter = (first >> 2).splat(LANES) + first.ramp(LANES)
        counter = (output << 32).splat(LANES) | (counter & 0xFFFFFFFF)
        for n, word in enumerate(philox(counter, key)):
            address = builder.gep(data, [ir.Constant(ir.IntType(64), n * LANES)])
            pointer = builder.bitcast(address, word.value.type.as_pointer())
            builder.store(word.value, pointer, align=8)
        return context.get_dummy_value()

    return types.void(words, output, first, key), generate


@functools.cache
def make_row_sums(source: str, plan: str, is_single: bool) -> Callable[..., None]:
    """Return the loop that sums the rows of an array of dtype `source`, float32 or float64.

    ``sum_rows(x, sums, constants, binades, first, output, key)``: ``x[i, 0]`` is the term number
    `first` of the sum ``sums[i]``, of output ``output + i``, which is so far what earlier terms
    left. `plan` is the rule of `rounding_plan`; `is_single` says that it is float32's own.
    """
    dtype = types.float32 if source == "float32" else types.float64
    if plan == NATIVE or (is_single and source == "float32"):
        loop = _native_loop(np.float32 if is_single else np.float64)
    else:
        loop = _binade_loop(plan)
    signature = types.void(
        types.Array(dtype, 2, "C", readonly=True),
        types.Array(types.float64, 1, "C"),
        types.Array(types.uint64, 1, "C"),
        types.Array(types.int64, 1, "C"),
        types.int64,
        types.int64,
        types.uint64,
    )
    return compile_as(f"row sums|{source}|{is_single}|{plan}", loop, signature)


def _native_loop(kind: Any) -> Callable[..., None]:
    """Return the loop of a format whose additions are the processor's own."""

    def sum_rows(x, sums, constants, binades, first, output, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        for i in range(x.shape[0]):
            row, begin = x[i], 0
            total = kind(sums[i])
            if first == 0:
                total, begin = row[0], 1
            for k in range(begin, row.size):
                total += row[k]
            sums[i] = total if total == total else np.nan
        swap_float_state(floats)

    return sum_rows


def _binade_loop(plan: str) -> Callable[..., None]:
    mode = kept(plan).mode
    r = kept(plan).random_bits
    breaks_ties = mode in ("ties_to_away", "ties_toward_zero")
    is_directed = not Rounding(mode).is_nearest
    ups = (
        mode in ("away_from_zero", "toward_positive"),
        mode in ("away_from_zero", "toward_negative"),
    )
    to_odd, equal, stochastic = (mode == m for m in ("to_odd", "stochastic_equal", "stochastic"))
    all_bits = np.uint64((1 << r) - 1)
    drop = np.uint64(32 - r)

    def sum_rows(x, sums, constants, binades, first, output, key):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c = load_constants(constants)
        emin, t, least, most = binades[0], binades[1], binades[2], binades[3]
        words = np.empty(_WORDS, np.uint64)
        for i in range(x.shape[0]):
            row = x[i]
            total, k, drawn_to = sums[i], 0, np.int64(-1)
            while k < row.size:
                random = drawn(output + i, first + k, key, plan)
                if first + k == 0:
                    total = rounded(np.float64(row[0]), c, random, plan)
                else:
                    total = added(np.float64(row[k]), 1.0, total, c, random, plan)
                k += 1
                size = np.float64(total).view(np.int64) & ~_SIGN
                if size > _FIELD:  # NaN stays
                    break
                if size == _FIELD:  # infinity stays while terms are finite
                    while k < row.size and abs(row[k]) < np.inf:
                        k += 1
                    continue
                if size < least or size > most:
                    continue
                e = max(size >> 52, emin)
                q = e - t
                if q - 33 < 1 or q + 52 > _LARGEST_FIELD:
                    continue
                low = least if e == emin else e << 52
                span = min((e + 1) << 52, most + 1) - low
                h = np.int64(((q + 52) << 52) | _HALF).view(np.float64)
                sign = np.float64(total).view(np.int64) & _SIGN
                left = abs(total)
                raised = h + left
                if is_directed:
                    is_up = ups[1] if sign else ups[0]
                    swap_float_state(_UP if is_up else _DOWN)
                while k < row.size:
                    term = np.int64(np.float64(row[k]).view(np.int64) ^ sign).view(np.float64)
                    left = raised - h  # exact
                    exact = add_as_set(left, term)
                    size = np.float64(exact).view(np.int64)
                    if np.uint64(size - low) >= np.uint64(span):
                        e = max(size >> 52, emin)
                        q = e - t
                        is_exact = add_as_set(exact, -left) == term
                        is_exact &= add_as_set(exact, -term) == left
                        if (
                            size < least
                            or size > most
                            or not is_exact
                            or q - 33 < 1
                            or q + 52 > _LARGEST_FIELD
                        ):
                            break
                        low = least if e == emin else e << 52
                        span = min((e + 1) << 52, most + 1) - low
                        h = np.int64(((q + 52) << 52) | _HALF).view(np.float64)
                        raised, term = h, exact
                    if stochastic or equal:
                        n = first + k
                        if n >> 6 != drawn_to:
                            drawn_to = n >> 6
                            draw_row(words, output + i, drawn_to << 6, key)
                        word = words[((n & 3) << 4) | ((n >> 2) & 15)] >> drop
                    if stochastic:
                        unit = np.int64((q - r) << 52).view(np.float64)
                        carry = np.float64(np.int64(all_bits - word)) * unit
                        raised = add_as_set(raised, add_as_set(term, carry))
                    elif to_odd or equal:
                        lower = add_as_set(raised, term)
                        more = np.int64(lower - raised != term)
                        bits = np.float64(lower).view(np.int64)
                        if to_odd:
                            raised = np.int64(bits | more).view(np.float64)
                        else:
                            goes_up = more & np.int64(word >> np.uint64(r - 1) == 0)
                            raised = np.int64(bits + goes_up).view(np.float64)
                    elif breaks_ties:
                        nearest = raised + term
                        half = np.int64((q - 1) << 52).view(np.float64)
                        if abs(term - (nearest - raised)) == half:
                            break
                        raised = nearest
                    elif is_directed:
                        raised = add_as_set(raised, term)
                    else:
                        raised = raised + term
                    k += 1
                if k == row.size:
                    left = raised - h
                total = np.int64(np.float64(left).view(np.int64) | sign).view(np.float64)
                if is_directed:
                    swap_float_state(EXACT_FLOATS)
            sums[i] = total if total == total else np.nan
        words[0] = 0
        swap_float_state(floats)

    return sum_rows
