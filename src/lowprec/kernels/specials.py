"""Whether there is NaN among numbers: one pass that reads, and writes nothing.

It goes backwards: what it read last, and so what the caches still hold, is what the conversion that
comes next reads first; and what was written last to the array is read first.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from lowprec.kernels.compiler import cgutils, from_dtype, intrinsic, ir, types
from lowprec.kernels.lanes import Lanes, maximum
from lowprec.kernels.loops import Elements, compile_as

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

_LANES = 32


@intrinsic
def _largest_bits(_: Any, x: Any) -> Any:
    """Return the largest magnitude of whole vectors, as twice its bits."""
    word = ir.IntType(x.dtype.bitwidth)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        index, source = ir.IntType(64), Elements(context, builder, signature.args[0], args[0])
        size = context.make_array(signature.args[0])(context, builder, args[0]).nitems
        slot = cgutils.alloca_once(builder, ir.VectorType(word, _LANES))
        builder.store(ir.Constant(ir.VectorType(word, _LANES), None), slot)
        whole = builder.udiv(size, index(_LANES))
        with cgutils.for_range(builder, whole) as loop:
            before = builder.sub(whole, builder.add(loop.index, index(1)))
            i = builder.mul(before, index(_LANES))
            source.prefetch(i, _LANES, backwards=True)
            bits = source.load(i, _LANES).as_integers() << 1
            builder.store(maximum(Lanes(builder, builder.load(slot)), bits).value, slot)
        lanes, largest = builder.load(slot), Lanes(builder, word(0))
        for lane in range(_LANES):
            one = builder.extract_element(lanes, ir.IntType(32)(lane))
            largest = maximum(largest, Lanes(builder, one))
        return largest.value

    return {32: types.uint32, 64: types.uint64}[x.dtype.bitwidth](x), generate


def _has_nan(x: Any, infinity: int) -> bool:
    for i in range(x.size - x.size % _LANES, x.size):
        if x[i] != x[i]:
            return True
    return _largest_bits(x) > infinity


@functools.cache
def nan_finder(dtype: np.dtype[Any]) -> Callable[..., bool]:
    """Return ``has_nan(x, infinity)`` for flat arrays of float32 or float64.

    `infinity` is twice the bits of that number: what is left of bits without their sign.
    """
    x = types.Array(from_dtype(dtype), 1, "C", readonly=True)
    return compile_as(f"has-nan|{dtype}", _has_nan, types.boolean(x, types.uint64))


def has_nan(x: np.ndarray[Any, Any]) -> bool:
    """Whether NaN is among the numbers of a contiguous array of float32 or float64."""
    infinity = 0xFF << 24 if x.itemsize == 4 else 0x7FF << 53
    return nan_finder(x.dtype)(x.reshape(-1), infinity)
