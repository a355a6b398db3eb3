"""Python's operators on LLVM values, so that a rule is written once for every width.

A `Lanes` wraps one integer, float or boolean of an LLVM function being built, or a vector of them.
The rules of `lowprec.kernels.rules` are plain Python over it: the same lines become scalar 32-bit
code, 64-bit code for float64, 128-bit code for integers, or 512-bit vector code. Integers are
unsigned and wrap; a shift by the width or more is undefined, as in LLVM; Python integers stand for
constants of the other operand's type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowprec.kernels.compiler import get_or_insert_function, ir, processor_has

if TYPE_CHECKING:
    from collections.abc import Callable

# rounding control of x86 instructions
_DIRECTIONS = {"ties_to_even": 0, "toward_negative": 1, "toward_positive": 2, "toward_zero": 3}
_FLOATS = {16: ir.HalfType(), 32: ir.FloatType(), 64: ir.DoubleType()}


def _element(kind: ir.Type) -> ir.Type:
    return kind.element if isinstance(kind, ir.VectorType) else kind


def _bits(kind: ir.Type) -> int:
    """Width of an integer or floating-point type."""
    for bits, float_type in _FLOATS.items():
        if kind == float_type:
            return bits
    return int(kind.width)


class Lanes:
    """A scalar or vector of LLVM values of one type."""

    __slots__ = ("builder", "value")

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder = builder
        self.value = value

    # Shape and type ------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many lanes, 1 for a scalar."""
        kind = self.value.type
        return int(kind.count) if isinstance(kind, ir.VectorType) else 1

    @property
    def bits(self) -> int:
        """Width of one lane."""
        return _bits(_element(self.value.type))

    @property
    def is_float(self) -> bool:
        """Whether lanes are floating-point."""
        return _element(self.value.type) in _FLOATS.values()

    def _shaped(self, element: ir.Type) -> ir.Type:
        return ir.VectorType(element, self.count) if self.count > 1 else element

    def _wrap(self, value: ir.Value) -> Lanes:
        return Lanes(self.builder, value)

    def constant(self, number: int | float) -> Lanes:
        """Return the number in every lane."""
        element = _element(self.value.type)
        if not self.is_float:
            number = int(number) & ((1 << self.bits) - 1)
        if self.count > 1:
            return self._wrap(ir.Constant(self.value.type, [number] * self.count))
        return self._wrap(ir.Constant(element, number))

    def splat(self, count: int) -> Lanes:
        """Return a vector with this scalar in every lane."""
        if count == 1:
            return self
        kind = ir.VectorType(self.value.type, count)
        zero = ir.Constant(ir.IntType(32), 0)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), self.value, zero)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
        return self._wrap(self.builder.shuffle_vector(first, first, everywhere))

    def ramp(self, count: int) -> Lanes:
        """Return the vector 0, 1, … of this scalar's type."""
        kind = ir.VectorType(self.value.type, count)
        return self._wrap(ir.Constant(kind, list(range(count))))

    # Conversions ---------------------------------------------------------------------------------

    def resized(self, bits: int) -> Lanes:
        """Return integers truncated or extended with zeros."""
        if bits == self.bits:
            return self
        build = self.builder.zext if bits > self.bits else self.builder.trunc
        return self._wrap(build(self.value, self._shaped(ir.IntType(bits))))

    def high_halves(self) -> Lanes:
        """Return the upper half of each integer, as integers of half the width."""
        half = ir.IntType(self.bits // 2)
        if self.count == 1:
            return (self >> half.width).resized(half.width)
        halves = self.builder.bitcast(self.value, ir.VectorType(half, 2 * self.count))
        upper = list(range(1, 2 * self.count, 2))  # little-endian
        index = ir.Constant(ir.VectorType(ir.IntType(32), self.count), upper)
        return self._wrap(self.builder.shuffle_vector(halves, halves, index))

    def as_integers(self) -> Lanes:
        """Return the bits of floats."""
        kind = self._shaped(ir.IntType(self.bits))
        return self._wrap(self.builder.bitcast(self.value, kind))

    def as_floats(self) -> Lanes:
        """Return the floats that have these bits."""
        return self._wrap(self.builder.bitcast(self.value, self._shaped(_FLOATS[self.bits])))

    def to_floats(self) -> Lanes:
        """Return integers below half the range converted to floats of the same width."""
        return self._wrap(self.builder.sitofp(self.value, self._shaped(_FLOATS[self.bits])))

    def float_resized(self, bits: int) -> Lanes:
        """Return floats converted to another width, to nearest with ties to even."""
        if bits == self.bits:
            return self
        build = self.builder.fpext if bits > self.bits else self.builder.fptrunc
        return self._wrap(build(self.value, self._shaped(_FLOATS[bits])))

    def leading_zeros(self) -> Lanes:
        """Return the number of zero bits above the leading one."""
        kind, flag = self.value.type, ir.IntType(1)
        shape = f"v{self.count}i{self.bits}" if self.count > 1 else f"i{self.bits}"
        signature = ir.FunctionType(kind, [kind, flag])
        function = self._intrinsic(signature, f"llvm.ctlz.{shape}")
        return self._wrap(self.builder.call(function, [self.value, ir.Constant(flag, 0)]))

    # Instructions with a direction ---------------------------------------------------------------

    def _in_pieces(self, count: int, call: Callable[..., Any], *others: Lanes) -> Lanes:
        """Apply a call on vectors of `count` lanes to all lanes and join the results."""
        index = ir.IntType(32)

        def piece(value: Any, i: int) -> Any:
            lanes = ir.Constant(ir.VectorType(index, count), list(range(i, i + count)))
            return self.builder.shuffle_vector(value, value, lanes)

        values = [self.value, *(other.value for other in others)]
        if self.count == count:
            return self._wrap(call(*values))
        parts = [call(*(piece(v, i) for v in values)) for i in range(0, self.count, count)]
        while len(parts) > 1:
            width = 2 * parts[0].type.count
            lanes = ir.Constant(ir.VectorType(index, width), list(range(width)))
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [self.builder.shuffle_vector(a, b, lanes) for a, b in pairs]
        return self._wrap(parts[0])

    def to_half(self, mode: str) -> Lanes:
        """Return the bits of float32 lanes rounded to float16 in a direction (needs F16C)."""
        direction = ir.Constant(ir.IntType(32), _DIRECTIONS[mode])
        if self.count % 16 == 0 and processor_has("avx512f"):
            return self._to_half_by_16(direction)
        width = 8 if self.count > 1 else 4
        vector = ir.VectorType(_FLOATS[32], width)
        signature = ir.FunctionType(ir.VectorType(ir.IntType(16), 8), [vector, ir.IntType(32)])
        function = self._intrinsic(signature, f"llvm.x86.vcvtps2ph.{32 * width}")
        if self.count > 1:
            return self._in_pieces(8, lambda v: self.builder.call(function, [v, direction]))
        first = ir.Constant(ir.IntType(32), 0)
        alone = self.builder.insert_element(ir.Constant(vector, None), self.value, first)
        halves = self.builder.call(function, [alone, direction])
        return self._wrap(self.builder.extract_element(halves, first))

    def _to_half_by_16(self, direction: Any) -> Lanes:
        halves, mask = ir.VectorType(ir.IntType(16), 16), ir.IntType(16)
        kinds = [ir.VectorType(_FLOATS[32], 16), ir.IntType(32), halves, mask]
        signature = ir.FunctionType(halves, kinds)
        function = self._intrinsic(signature, "llvm.x86.avx512.mask.vcvtps2ph.512")
        rest = [direction, ir.Constant(halves, None), mask(0xFFFF)]
        return self._in_pieces(16, lambda v: self.builder.call(function, [v, *rest]))

    def in_direction(self, operation: str, mode: str, *others: Lanes) -> Lanes:
        """Return an operation on vectors of floats rounded in a direction (needs AVX-512F).

        Operations are those of the instructions: add, sub, mul, div, sqrt, vfmadd.
        """
        direction = ir.Constant(ir.IntType(32), _DIRECTIONS[mode] | 8)  # and no exceptions
        count = 512 // self.bits
        vector = ir.VectorType(_FLOATS[self.bits], count)
        kinds = [vector] * (1 + len(others)) + [ir.IntType(32)]
        name = f"llvm.x86.avx512.{operation}." + {32: "ps", 64: "pd"}[self.bits] + ".512"
        function = self._intrinsic(ir.FunctionType(vector, kinds), name)
        return self._in_pieces(
            count, lambda *values: self.builder.call(function, [*values, direction]), *others
        )

    def _intrinsic(self, signature: Any, name: str) -> Any:
        return get_or_insert_function(self.builder.module, signature, name)

    # Operations rounded once to the lanes' own type ----------------------------------------------

    def fused(self, factor: Lanes, addend: Lanes) -> Lanes:
        """Return self·factor + addend, rounded once."""
        return self._float_call("fma", factor, addend)

    def negated(self) -> Lanes:
        """Return floats of the other sign."""
        return self._wrap(self.builder.fneg(self.value))

    def square_root(self) -> Lanes:
        """Return the square root."""
        return self._float_call("sqrt")

    def rounded_down(self) -> Lanes:
        """Return the largest integer that is not above a float, -0 of -0."""
        return self._float_call("floor")

    def truncated_remainder(self, other: Lanes) -> Lanes:
        """Return what division leaves if its quotient is truncated, as C's fmod; exact."""
        return self._binary("frem", other)

    def _float_call(self, operation: str, *others: Lanes) -> Lanes:
        kind = self.value.type
        shape = f"v{self.count}f{self.bits}" if self.count > 1 else f"f{self.bits}"
        signature = ir.FunctionType(kind, [kind] * (1 + len(others)))
        function = self._intrinsic(signature, f"llvm.{operation}.{shape}")
        values = [self.value, *(other.value for other in others)]
        return self._wrap(self.builder.call(function, values))

    # Operators -----------------------------------------------------------------------------------

    def _coerce(self, other: Lanes | int | float) -> ir.Value:
        return other.value if isinstance(other, Lanes) else self.constant(other).value

    def _binary(self, name: str, other: Lanes | int | float) -> Lanes:
        build: Callable[..., Any] = getattr(self.builder, name)
        return self._wrap(build(self.value, self._coerce(other)))

    def __add__(self, other: Lanes | int | float) -> Lanes:
        return self._binary("fadd" if self.is_float else "add", other)

    def __sub__(self, other: Lanes | int | float) -> Lanes:
        return self._binary("fsub" if self.is_float else "sub", other)

    def __mul__(self, other: Lanes | int | float) -> Lanes:
        return self._binary("fmul" if self.is_float else "mul", other)

    def __truediv__(self, other: Lanes | float) -> Lanes:
        return self._binary("fdiv", other)

    def __floordiv__(self, other: Lanes | int) -> Lanes:
        return self._binary("udiv", other)

    def __mod__(self, other: Lanes | int) -> Lanes:
        return self._binary("urem", other)

    def __and__(self, other: Lanes | int) -> Lanes:
        return self._binary("and_", other)

    def __or__(self, other: Lanes | int) -> Lanes:
        return self._binary("or_", other)

    def __xor__(self, other: Lanes | int) -> Lanes:
        return self._binary("xor", other)

    def __lshift__(self, other: Lanes | int) -> Lanes:
        return self._binary("shl", other)

    def __rshift__(self, other: Lanes | int) -> Lanes:
        return self._binary("lshr", other)

    def __invert__(self) -> Lanes:
        return self._wrap(self.builder.not_(self.value))

    def _compare(self, operator: str, other: Lanes | int | float) -> Lanes:
        build = self.builder.fcmp_ordered if self.is_float else self.builder.icmp_unsigned
        return self._wrap(build(operator, self.value, self._coerce(other)))

    def __lt__(self, other: Lanes | int | float) -> Lanes:
        return self._compare("<", other)

    def __le__(self, other: Lanes | int | float) -> Lanes:
        return self._compare("<=", other)

    def __gt__(self, other: Lanes | int | float) -> Lanes:
        return self._compare(">", other)

    def __ge__(self, other: Lanes | int | float) -> Lanes:
        return self._compare(">=", other)

    def is_nan(self) -> Lanes:
        """Return in which lanes a float is NaN."""
        return self._wrap(self.builder.fcmp_unordered("uno", self.value, self.value))

    def equals(self, other: Lanes | int | float) -> Lanes:
        """Compare lane by lane (``==`` stays Python's identity)."""
        return self._compare("==", other)

    def differs(self, other: Lanes | int | float) -> Lanes:
        """Return in which lanes two numbers, neither of them NaN, are not equal."""
        return self._compare("!=", other)

    def count_true(self) -> Lanes:
        """Return in how many lanes a condition holds, as one 64-bit integer."""
        flags = self.builder.bitcast(self.value, ir.IntType(self.count))
        return self._wrap(self.builder.ctpop(flags)).resized(64)


def select(condition: Lanes, yes: Lanes | int | float, no: Lanes | int | float) -> Lanes:
    """Return `yes` in the lanes where `condition` holds, else `no`."""
    model = yes if isinstance(yes, Lanes) else no
    assert isinstance(model, Lanes), "one of the two must be Lanes"
    build = condition.builder.select
    return model._wrap(build(condition.value, model._coerce(yes), model._coerce(no)))


def maximum(a: Lanes, b: Lanes | int) -> Lanes:
    """Return the larger of two unsigned integers, lane by lane."""
    return select(a > b, a, b)


def minimum(a: Lanes, b: Lanes | int) -> Lanes:
    """Return the smaller of two unsigned integers, lane by lane."""
    return select(a < b, a, b)


def interleave(even: Lanes, odd: Lanes) -> Lanes:
    """Return the low halves of two vectors, alternating: a vector of twice as many lanes."""
    half = even.bits // 2
    pairs = (even & ((1 << half) - 1)) | (odd << half)
    kind = ir.VectorType(ir.IntType(half), 2 * even.count)
    return Lanes(even.builder, even.builder.bitcast(pairs.value, kind))
