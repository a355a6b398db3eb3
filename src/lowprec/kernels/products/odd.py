"""A product and a sum rounded once to odd, in float32.

AVX-512 has multiply-adds rounded down and up, of which one is odd. Elsewhere the error of the usual
one tells: in float32 where products are exact there, else in float64.
"""

from __future__ import annotations

from lowprec.kernels.compiler import processor_has
from lowprec.kernels.lanes import Lanes, select
from lowprec.kernels.sums.orders import sum_to_odd


def fma_to_odd(x: Lanes, y: Lanes, z: Lanes, products_are_exact: bool) -> Lanes:
    """Return x·y + z rounded to odd in float32.

    Where the results of rounding down and up differ they are neighbours, one of them odd. Opposite
    zeros, which an exact x - x gives, are both even; +0 is right.
    """
    if processor_has("avx512f"):
        down, up = (x.in_direction("vfmadd", f"toward_{way}", y, z) for way in _WAYS)
        return select((down.as_integers() & 1).equals(0), up, down)
    if products_are_exact:
        return _to_odd(*error_of_step(x, y, z))
    a, b, c = (lanes.float_resized(64) for lanes in (x, y, z))
    wide = sum_to_odd(a * b, c)  # float64 holds products of float32
    s = wide.float_resized(32)
    return _to_odd(s, wide - s.float_resized(64))


_WAYS = "negative", "positive"


def error_of_step(x: Lanes, y: Lanes, z: Lanes) -> tuple[Lanes, Lanes]:
    """Return the float32 nearest to x·y + z, and what that left out; x·y is exact in float32."""
    s = x.fused(y, z)
    part = s - z  # of s, what the product is; TwoSum
    return s, x.fused(y, part.negated()) + (z - (s - part))


def _to_odd(s: Lanes, error: Lanes) -> Lanes:
    """Return s + error rounded to odd, where s is the nearest float32."""
    bits = s.as_integers()
    has_other_sign = (error.as_integers() >> (error.bits - 1)).resized(32) ^ (bits >> 31)
    return select(error.differs(0.0), ((bits - has_other_sign) | 1).as_floats(), s)
