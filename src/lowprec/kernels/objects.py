"""Many arrays in one call: a loop reads them where the numbers of their Python objects say.

Numba takes every argument apart before a call, which costs as much as counting a thousand numbers.
In CPython the `id` of an object is its address, and an array's object holds, after the header, the
address of the data, the number of axes and the address of the shape: NumPy's ABI, by which Numba
reads arrays too. Whoever passes an `id` keeps the array alive until the loop returns.
"""

from __future__ import annotations

from typing import Any

from lowprec.kernels.compiler import cgutils, intrinsic, ir, types

HEADER = object.__basicsize__
"""Bytes of an object before its own fields."""


_DATA, _AXES, _SHAPE = HEADER, HEADER + 8, HEADER + 16


def _word(builder: Any, address: Any, offset: int = 0) -> Any:
    """Return the 64 bits at an address."""
    place = builder.add(address, ir.Constant(address.type, offset))
    return builder.load(builder.inttoptr(place, address.type.as_pointer()))


@intrinsic
def size_of(_: Any, identity: Any) -> Any:
    """Return how many elements an array has."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (array,) = args
        word = array.type
        axes = builder.and_(_word(builder, array, _AXES), ir.Constant(word, 0xFFFFFFFF))
        shape, size = _word(builder, array, _SHAPE), cgutils.alloca_once(builder, word)
        builder.store(ir.Constant(word, 1), size)
        with cgutils.for_range(builder, axes) as loop:
            place = builder.add(shape, builder.shl(loop.index, ir.Constant(word, 3)))
            builder.store(builder.mul(builder.load(size), _word(builder, place)), size)
        return builder.load(size)

    return types.int64(types.int64), generate


def _reading(kind: Any) -> Any:
    """Return what makes `size` elements of an object's data, from `first` on, an array."""
    item = kind.dtype.bitwidth // 8

    def read(_: Any, identity: Any, first: Any, size: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = args[0].type
            offset = builder.mul(args[1], ir.Constant(word, item))
            data = builder.add(_word(builder, args[0], _DATA), offset)
            array = context.make_array(kind)(context, builder)
            array.data = builder.inttoptr(data, array.data.type)
            array.nitems, array.itemsize = args[2], ir.Constant(word, item)
            array.shape = cgutils.pack_array(builder, [array.nitems])
            array.strides = cgutils.pack_array(builder, [array.itemsize])
            return array._getvalue()

        return kind(types.int64, types.int64, types.int64), generate

    return intrinsic(read)


floats_of, doubles_of, integers_of = (
    _reading(types.Array(dtype, 1, "C")) for dtype in (types.float32, types.float64, types.int64)
)
