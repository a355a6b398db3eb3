"""Vectors in memory, whole or in part: what packing and tiles share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.kernels.compiler import cgutils, ir
from lowprec.kernels.lanes import Lanes
from lowprec.kernels.plans import processor_has

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_VECTOR = 64 if processor_has("avx512f") else 32  # bytes
_INDEX = ir.IntType(32)
INTEGER = ir.IntType(64)


class Element(NamedTuple):
    """What vectors are made of: float32, or float16 where the processor computes with it."""

    kind: ir.Type
    bytes: int
    nan: int  # the bits of NaN without a sign

    @property
    def lanes(self) -> int:
        """How many elements a vector has."""
        return _VECTOR // self.bytes

    @property
    def vector(self) -> ir.Type:
        """The type of a vector."""
        return ir.VectorType(self.kind, self.lanes)


FLOAT = Element(ir.FloatType(), 4, 0x7FC00000)
HALF_FLOAT = Element(ir.HalfType(), 2, 0x7E00)


def element_of(is_half: bool) -> Element:
    """Return float16 or float32."""
    return HALF_FLOAT if is_half else FLOAT


class Vectors:
    """So many elements in memory as vectors, of which the last may be filled in part."""

    def __init__(self, builder: Any, element: Element, count: int, elements: Any) -> None:
        self.builder, self.element, self.count = builder, element, count
        last = builder.sub(elements, INTEGER(element.lanes * (count - 1)))
        filled = Lanes(builder, builder.trunc(last, _INDEX))
        self._mask = (filled.ramp(element.lanes) < filled.splat(element.lanes)).value
        self._zeros = ir.Constant(element.vector, [0.0] * element.lanes)

    def load(self, address: Any) -> list[Any]:
        """Read the elements at an address; lanes beyond the last are 0."""
        return [self._load(self._pointer(address, v), v) for v in range(self.count)]

    def gather(self, address: Any, distance: Any) -> list[Any]:
        """Read elements that are so many bytes apart."""
        builder, lanes = self.builder, self.element.lanes
        step = Lanes(builder, distance)
        places = step.ramp(lanes) * step.splat(lanes)
        pointer = ir.VectorType(self.element.kind.as_pointer(), lanes)
        values = []
        for v in range(self.count):
            start = builder.add(address, builder.mul(distance, INTEGER(lanes * v)))
            pointers = builder.inttoptr(
                (places + Lanes(builder, start).splat(lanes)).value, pointer
            )
            values.append(self._load(pointers, v))
        return values

    def store(self, values: list[Any], address: Any, whole: bool = False) -> None:
        """Write the elements, or with `whole` all lanes, to an address."""
        for v, value in enumerate(values):
            pointer = self._pointer(address, v)
            if whole or v < self.count - 1:
                self.builder.store(value, pointer, align=self.element.bytes)
            else:
                self._call("masked.store", ir.VoidType(), [value, pointer, *self._masked])

    def only_filled(self, condition: Lanes, v: int) -> Lanes:
        """Return where a condition holds in vector v, lanes beyond the last element apart."""
        return condition if v < self.count - 1 else condition & Lanes(self.builder, self._mask)

    @property
    def _masked(self) -> list[Any]:
        return [_INDEX(self.element.bytes), self._mask]

    def _load(self, pointer: Any, v: int) -> Any:
        """Read a vector from one place, or from as many as it has lanes."""
        is_gather = isinstance(pointer.type, ir.VectorType)
        if not is_gather and v < self.count - 1:
            return self.builder.load(pointer, align=self.element.bytes)
        arguments = [pointer, *self._masked, self._zeros]
        if v < self.count - 1:
            arguments[2] = ir.Constant(self._mask.type, [1] * self.element.lanes)
        name = "masked.gather" if is_gather else "masked.load"
        return self._call(name, self.element.vector, arguments)

    def _pointer(self, address: Any, v: int) -> Any:
        place = self.builder.add(address, INTEGER(_VECTOR * v))
        return self.builder.inttoptr(place, self.element.vector.as_pointer())

    def _call(self, name: str, result: Any, arguments: list[Any]) -> Any:
        signature = ir.FunctionType(result, [argument.type for argument in arguments])
        lanes = self.element.lanes
        pointers = f"v{lanes}p0" if name == "masked.gather" else "p0"
        name = f"llvm.{name}.v{lanes}f{8 * self.element.bytes}.{pointers}"
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, arguments)


def clamped(builder: Any, index: Any, count: Any) -> Any:
    """Return an index, or the last one of so many if there are fewer."""
    last = builder.sub(count, INTEGER(1))
    return builder.select(builder.icmp_signed("<", index, last), index, last)


def choose(builder: Any, value: Any, cases: Sequence[tuple[int, Callable[[], None]]]) -> None:
    """Generate what belongs to the first limit that a value exceeds, or to the last case."""
    done = builder.append_basic_block("chosen")
    *others, (_, generate_last) = cases
    for limit, generate in others:
        with builder.if_then(builder.icmp_signed(">", value, INTEGER(limit))):
            generate()
            builder.branch(done)
    generate_last()
    builder.branch(done)
    builder.position_at_end(done)
