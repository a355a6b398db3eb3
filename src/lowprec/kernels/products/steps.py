"""One step of a matrix product, ○(x·y + z), on vectors.

A fused multiply-add of the accumulator's own format, float32 or float16, is the step. Otherwise it
is one of float32, rounded to odd: of its 24 bits a narrower format needs two less at least, so that
rounding them is rounding the exact sum.

References
----------
Boldo, Melquiond (2008), "Emulation of a FMA and correctly rounded sums: proved algorithms using
rounding to odd".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.formats import Format, bfloat16, float16, float32
from lowprec.kernels.compiler import cgutils, ir
from lowprec.kernels.lanes import Lanes, select
from lowprec.kernels.loops import kept, spell
from lowprec.kernels.magnitudes import Constants
from lowprec.kernels.plans import conversion_plan, fits_float32_words, processor_has
from lowprec.kernels.rules import convert
from lowprec.rounding import is_usual

if TYPE_CHECKING:
    from lowprec.rounding import Overflow, Rounding

SINGLE, HALF = "single", "half"  #: plans of the processor's own steps, of float32 and float16
_DOWNWARD, _UPWARD = 9, 10  # rounding of AVX-512's instructions, without exceptions


def step_plan(fmt: Format, rounding: Rounding, overflow: Overflow) -> tuple[str, Any] | None:
    """Return the rule that rounds a step to a format, as text, and its constants.

    None where there is no such rule on vectors: but for float32 itself it needs AVX-512, a mode
    that draws nothing and knows one zero for x - x, and a format that has two bits less.
    """
    nothing = np.zeros(len(Constants._fields), np.uint64)
    usual = is_usual(rounding, overflow)
    if usual and fmt == float32:
        return SINGLE, nothing
    if not processor_has("avx512f"):
        return None
    if usual and fmt in (float16, bfloat16):
        return {float16: "float16", bfloat16: "bfloat16"}[fmt], nothing
    if (
        rounding.is_stochastic
        or rounding.gives_negative_zero
        or fmt.precision > 22
        or not fits_float32_words(fmt)
    ):
        return None
    plan, constants = conversion_plan(fmt, "float32", "float32", rounding, overflow)
    return spell(plan), constants


def step(x: Lanes, y: Lanes, z: Lanes, plan: str, c: Constants | None) -> Lanes:
    """Return ○(x·y + z)."""
    if plan in (SINGLE, HALF):
        return x.fused(y, z)
    if plan == "bfloat16":
        return fma_to_bfloat16(x, y, z)
    s = fma_to_odd(x, y, z)
    if plan == "float16":
        return s.float_resized(16).float_resized(32)
    assert c is not None
    return convert(s, kept(plan), c, c.emin)


def _fma(x: Lanes, y: Lanes, z: Lanes, direction: int) -> Lanes:
    vector, mode = x.value.type, ir.IntType(32)
    signature = ir.FunctionType(vector, [vector] * 3 + [mode])
    name = "llvm.x86.avx512.vfmadd.ps.512"
    function = cgutils.get_or_insert_function(x.builder.module, signature, name)
    arguments = [x.value, y.value, z.value, ir.Constant(mode, direction)]
    return Lanes(x.builder, x.builder.call(function, arguments))


def fma_to_odd(x: Lanes, y: Lanes, z: Lanes) -> Lanes:
    """Return x·y + z rounded to odd in float32.

    Where the results of rounding down and up differ they are neighbours, one of them odd. Opposite
    zeros, which an exact x - x gives, are both even; +0 is right.
    """
    down, up = (_fma(x, y, z, mode) for mode in (_DOWNWARD, _UPWARD))
    return select((down.as_integers() & 1).equals(0), up, down)


def fma_to_bfloat16(x: Lanes, y: Lanes, z: Lanes) -> Lanes:
    """Return x·y + z rounded to nearest, ties to even; a NaN must not have all its bits set."""
    s = fma_to_odd(x, y, z).as_integers()
    return ((s + 0x7FFF + ((s >> 16) & 1)) & 0xFFFF0000).as_floats()
