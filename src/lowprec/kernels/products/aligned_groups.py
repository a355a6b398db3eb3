"""Groups of an aligned product on vectors, where float32 and 32-bit integers hold what they need.

The sums of two rows by two vectors of columns stay in registers while the groups pass: the highest
exponent of each, its terms cut and added as integers, the sum rounded. What float32 does not hold
in passing, such as a result that is not a normal float32, is put down as in doubt and left to
`lowprec.kernels.products.aligned`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.formats import Format, float32
from lowprec.kernels.compiler import cgutils, get_or_insert_function, intrinsic, ir, types
from lowprec.kernels.lanes import Lanes, select
from lowprec.kernels.loops import EXACT_FLOATS, compile_as, load_constants, swap_float_state
from lowprec.kernels.magnitudes import Constants
from lowprec.kernels.plans import processor_has
from lowprec.kernels.products.steps import SINGLE, constants_of, rounded_step, step_plan
from lowprec.kernels.products.vectors import FLOAT, INTEGER
from lowprec.rounding import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lowprec.rounding import Overflow

HEIGHT, _VECTORS = 2, 2  # rows and vectors whose sums are formed together
WIDTH = _VECTORS * FLOAT.lanes  # columns of a panel
CUT = "cut"  # plan of the last rounding: to float32, toward zero
_WORD = ir.IntType(32)
_SIGN, _BIAS, _LARGEST = 1 << 31, 127, 254  # of float32, the last two as exponent fields
_SPECIAL = 0x7F800000  # the field of infinities and NaN
_TOWARD_ZERO = 11  # rounding of AVX-512's instructions, without exceptions


def group_plan(fmt: Format, rounding: Rounding, overflow: Overflow) -> tuple[str, Any] | None:
    """Return the last rounding as text, and its constants; None where float32 is too narrow."""
    if fmt == float32 and rounding in (Rounding.TIES_TO_EVEN, Rounding.TOWARD_ZERO):
        nothing = np.zeros(len(Constants._fields), np.uint64)
        return SINGLE if rounding is Rounding.TIES_TO_EVEN else CUT, nothing
    return step_plan(fmt, rounding, overflow)


def has_exact_terms(first: Format, second: Format, block: int, fraction_bits: int) -> bool:
    """Whether float32 holds products of significands, and 32-bit integers the sums of terms."""
    sum_bits = fraction_bits + 2 + (block - 1).bit_length()
    widest = max(-first.emin - second.emin, first.emax + second.emax)
    return first.precision + second.precision <= 24 and sum_bits <= 31 and widest <= 900


def has_exact_values(first: Format, second: Format) -> bool:
    """Whether float32 holds products of the operands, scaled by any power that cuts them."""
    return first.emin + second.emin >= -95 and first.emax + second.emax <= 116


@intrinsic(prefer_literal=True)
def add_groups(
    _: Any, places: Any, sizes: Any, limits: Any, constants: Any, plan: Any, has_values: Any
) -> Any:
    """Add the groups of a panel's terms to some rows of sums; return whether one is in doubt.

    ``places`` are the addresses of the numbers and exponents of left, those of right, and of the
    sums, ``sizes`` the bytes between rows of left, those between rows of sums, the groups and the
    terms of one, ``limits`` the fractional bits, the least m and emin of the output's format.
    """
    text, values = plan.literal_value, bool(has_values.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _Groups(builder, args, text, values).add()

    return types.boolean(places, sizes, limits, constants, plan, has_values), generate


class _Groups:
    """The arguments of `add_groups` as values of LLVM."""

    def __init__(self, builder: Any, args: Any, plan: str, has_values: bool) -> None:
        self.builder, self.plan, self.has_values = builder, plan, has_values
        *self.operands, self.sums = cgutils.unpack_tuple(builder, args[0], 5)
        self.left_row, self.sums_row, self.groups, self.length = cgutils.unpack_tuple(
            builder, args[1], 4
        )
        self.k, self.lowest, self.emin = (
            Lanes(builder, builder.trunc(limit, _WORD)).splat(FLOAT.lanes)
            for limit in cgutils.unpack_tuple(builder, args[2], 3)
        )
        fields = cgutils.unpack_tuple(builder, args[3], len(Constants._fields))
        self.constants = constants_of(builder, fields, plan, FLOAT.lanes)

    def add(self) -> Any:
        """Generate the loop over groups."""
        b, integers = self.builder, ir.VectorType(_WORD, FLOAT.lanes)
        places = [
            b.inttoptr(self._at(self.sums, row, self.sums_row, v), FLOAT.vector.as_pointer())
            for row in range(HEIGHT)
            for v in range(_VECTORS)
        ]
        totals, highest, sums = (
            [cgutils.alloca_once(b, kind) for _ in places]
            for kind in (FLOAT.vector, integers, integers)
        )
        doubt = cgutils.alloca_once(b, integers)
        nothing = self.k.constant(0)
        begin = [Lanes(b, b.load(place, align=FLOAT.bytes)) for place in places]
        over = nothing
        for lanes, total in zip(begin, totals, strict=True):
            b.store(lanes.value, total)
            over = over | _beyond(lanes)
        b.store(over.value, doubt)
        with cgutils.for_range(b, self.groups) as group:
            first = b.mul(group.index, self.length)
            for at, total in enumerate(totals):
                b.store(self._exponent(Lanes(b, b.load(total))).value, highest[at])
                b.store(nothing.value, sums[at])
            with cgutils.for_range(b, self.length) as term:
                for at, e in self._exponents(b.add(first, term.index)):
                    b.store(_larger(e, Lanes(b, b.load(highest[at]))).value, highest[at])
            scales = [self.k + _BIAS - Lanes(b, b.load(m)) for m in highest]
            with cgutils.for_range(b, self.length) as term:
                for at, integer in self._terms(b.add(first, term.index), scales):
                    b.store((Lanes(b, b.load(sums[at])) + integer).value, sums[at])
            for at, total in enumerate(totals):
                parts = Lanes(b, b.load(total)), Lanes(b, b.load(sums[at]))
                result, in_doubt = self._total(*parts, scales[at])
                b.store(result.value, total)
                b.store((Lanes(b, b.load(doubt)) | in_doubt).value, doubt)
        for total, place in zip(totals, places, strict=True):
            b.store(b.load(total), place, align=FLOAT.bytes)
        in_doubt = Lanes(b, b.load(doubt)).differs(0).count_true()
        return in_doubt.differs(0).value

    def _at(self, address: Any, row: int, distance: Any, vector: int = 0) -> Any:
        b = self.builder
        start = b.add(address, b.mul(INTEGER(row), distance))
        return b.add(start, INTEGER(vector * FLOAT.lanes * FLOAT.bytes))

    def _factors(self, which: int, term: Any) -> tuple[list[Lanes], list[Lanes]]:
        """Return numbers (0) or exponents (1) of a term: each row's in all lanes, and columns'."""
        b, kind = self.builder, (FLOAT.kind, _WORD)[which]
        left, right = self.operands[which], self.operands[which + 2]
        along, down = b.mul(term, INTEGER(FLOAT.bytes)), b.mul(term, INTEGER(WIDTH * FLOAT.bytes))
        rows = [
            b.inttoptr(b.add(self._at(left, row, self.left_row), along), kind.as_pointer())
            for row in range(HEIGHT)
        ]
        vector = ir.VectorType(kind, FLOAT.lanes).as_pointer()
        columns = [
            b.inttoptr(self._at(b.add(right, down), 0, INTEGER(0), v), vector)
            for v in range(_VECTORS)
        ]
        return (
            [Lanes(b, b.load(row, align=FLOAT.bytes)).splat(FLOAT.lanes) for row in rows],
            [Lanes(b, b.load(column, align=FLOAT.bytes)) for column in columns],
        )

    def _pairs(self, which: int, term: Any) -> Iterator[tuple[int, Lanes, Lanes]]:
        rows, columns = self._factors(which, term)
        for row, x in enumerate(rows):
            for at, y in enumerate(columns, row * _VECTORS):
                yield at, x, y

    def _exponents(self, term: Any) -> Iterator[tuple[int, Lanes]]:
        for at, x, y in self._pairs(1, term):
            yield at, x + y

    def _terms(self, term: Any, scales: list[Lanes]) -> Iterator[tuple[int, Lanes]]:
        """Generate a term of each sum, cut: an integer of so many fractional bits."""
        exponents = dict(self._exponents(term)) if not self.has_values else {}
        for at, x, y in self._pairs(0, term):
            field = self._within(scales[at])
            if exponents:
                field = _larger(scales[at] + exponents[at], field.constant(0))
            yield at, _truncated(x * y * _power(field))

    def _exponent(self, total: Lanes) -> Lanes:
        """Return the exponent of a sum so far, or the least that terms are aligned to."""
        magnitude = total.as_integers() & (_SIGN - 1)
        e = _larger((magnitude >> 23) - _BIAS, self.emin)
        return _larger(select(magnitude.equals(0), self.lowest, e), self.lowest)

    def _within(self, field: Lanes) -> Lanes:
        """Return a float32's exponent field, the nearest of a normal number."""
        one, largest = field.constant(1), field.constant(_LARGEST)
        field = _larger(field, one)
        return select(_is_larger(field, largest), largest, field)

    def _total(self, before: Lanes, terms: Lanes, scale: Lanes) -> tuple[Lanes, Lanes]:
        """Return the sum of a group and what was before, rounded; nonzero where it is in doubt."""
        field = self._within(scale)
        addend = _truncated(before * _power(field))
        total = terms + addend
        is_new = before.equals(0.0)
        doubt = select(is_new, field.constant(0), field ^ scale)
        doubt = doubt | (((terms ^ total) & (addend ^ total)) >> 31)  # beyond 32 bits
        bits = self._as_float(total).as_integers()
        is_zero = total.equals(0)
        lift = scale.constant(_BIAS) - scale  # m - k
        field = ((bits & (_SIGN - 1)) >> 23) + lift
        doubt = doubt | select(is_zero, field.constant(0), field ^ self._within(field))
        result = select(is_zero, bits, bits + (lift << 23)).as_floats()
        if self.plan not in (SINGLE, CUT):
            result = rounded_step(result, self.plan, self.constants)
        return result, doubt | _beyond(result)

    def _as_float(self, total: Lanes) -> Lanes:
        """Return an integer as float32: to nearest, cut, or rounded to odd for what follows."""
        if self.plan == SINGLE:
            return total.to_floats()
        if processor_has("avx512f"):
            cut = _cut_by_hardware(total)
            is_cut = _truncated(cut).equals(total)
        else:
            is_negative = total >= _SIGN
            magnitude = select(is_negative, total.constant(0) - total, total)
            zeros = magnitude.leading_zeros()
            shift = select(zeros < 8, zeros.constant(8) - zeros, 0)
            kept = magnitude >> shift << shift
            sign = select(is_negative, total.constant(_SIGN), 0)
            cut = (kept.to_floats().as_integers() | sign).as_floats()
            is_cut = kept.equals(magnitude)
        if self.plan == CUT:
            return cut
        bits = cut.as_integers()
        return select(is_cut, bits, bits | 1).as_floats()


def _is_larger(x: Lanes, y: Lanes) -> Lanes:
    return Lanes(x.builder, x.builder.icmp_signed(">", x.value, y.value))


def _larger(x: Lanes, y: Lanes) -> Lanes:
    """Return the larger of two signed integers, lane by lane."""
    return select(_is_larger(x, y), x, y)


def _power(field: Lanes) -> Lanes:
    """Return the float32 that has this exponent field, a power of two or 0."""
    return (field << 23).as_floats()


def _beyond(x: Lanes) -> Lanes:
    """Return nonzero integers where a float32 is infinite or NaN."""
    special = x.as_integers() & _SPECIAL
    return select(special.equals(_SPECIAL), special, 0)


def _truncated(x: Lanes) -> Lanes:
    """Return floats cut to integers, toward zero."""
    kind = ir.VectorType(_WORD, x.count)
    return Lanes(x.builder, x.builder.fptosi(x.value, kind))


def _cut_by_hardware(x: Lanes) -> Lanes:
    """Return integers as float32, toward zero."""
    kind = ir.VectorType(_WORD, x.count)
    signature = ir.FunctionType(FLOAT.vector, [kind, _WORD])
    name = "llvm.x86.avx512.sitofp.round.v16f32.v16i32"
    function = get_or_insert_function(x.builder.module, signature, name)
    return Lanes(x.builder, x.builder.call(function, [x.value, _WORD(_TOWARD_ZERO)]))


@functools.cache
def make_groups(plan: str, has_values: bool) -> Callable[..., None]:
    """Return the loop over panels and rows, compiled for the plan of the last rounding.

    ``add(sa, ea, sb, eb, sums, doubts, length, k, lowest, emin, constants)``: numbers and exponents
    of left, an even number of rows, and of right in panels of `WIDTH` columns; the sums so far,
    which have room for whole panels; where each two rows' and each panel's doubt goes; the terms of
    a group; the fractional bits; the least m; emin of the output's format.
    """
    values = int(has_values)

    def add(sa, ea, sb, eb, sums, doubts, length, k, lowest, emin, constants):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        c = load_constants(constants)
        sizes = (sa.strides[0], sums.strides[0], np.int64(sa.shape[1] // length), length)
        for p in range(sb.shape[0]):
            right = (np.int64(sb[p].ctypes.data), np.int64(eb[p].ctypes.data))
            for i in range(0, sa.shape[0], HEIGHT):
                left = (np.int64(sa[i].ctypes.data), np.int64(ea[i].ctypes.data))
                places = (*left, *right, np.int64(sums[i, p * WIDTH :].ctypes.data))
                doubts[i // HEIGHT, p] = add_groups(
                    places, sizes, (k, lowest, emin), c, plan, values
                )
        swap_float_state(floats)

    of_reals, of_integers = (types.Array(kind, 2, "C") for kind in (types.float32, types.int32))
    panels = [types.Array(kind, 3, "C") for kind in (types.float32, types.int32)]
    doubts, constants = types.Array(types.boolean, 2, "C"), types.Array(types.uint64, 1, "C")
    signature = types.void(
        of_reals, of_integers, *panels, of_reals, doubts, *[types.int64] * 4, constants
    )
    return compile_as(f"aligned groups|{values}|{plan}", add, signature)
