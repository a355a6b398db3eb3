"""One step of a matrix product, ○(x·y + z), on vectors.

A fused multiply-add of the accumulator's own format, float32 or float16, is the step. Otherwise it
is one of float32, rounded to odd: of its 24 bits a narrower format needs two less at least, so that
rounding them is rounding the exact sum. Formats and modes that float32 is too narrow for take
float64.

References
----------
Boldo, Melquiond (2008), "Emulation of a FMA and correctly rounded sums: proved algorithms using
rounding to odd"; Figueroa (1995), "When is double rounding innocuous?".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.formats import Format, bfloat16, float16, float32
from lowprec.kernels.lanes import Lanes
from lowprec.kernels.loops import has_fused_steps, keep, kept, plan_of, spell
from lowprec.kernels.magnitudes import Constants
from lowprec.kernels.plans import conversion_plan, fits_float32_words
from lowprec.kernels.products.double_rounding import Quick, steps_are_innocuous
from lowprec.kernels.products.odd import fma_to_odd
from lowprec.kernels.rules import convert
from lowprec.kernels.sums.orders import round_wide, rounding_plan, sum_wide, zero_of
from lowprec.rounding import Rounding, is_usual

if TYPE_CHECKING:
    from lowprec.rounding import Overflow

SINGLE, HALF = "single", "half"  #: plans of the processor's own steps, of float32 and float16


class Operands(NamedTuple):
    """What is known of the factors, and what becomes of their products."""

    are_exact: bool = False  # products are exact in float32, as far as results depend on it
    are_fused: bool = True  # products are added as they are, not rounded first
    sums_are_safe: bool = False  # float32's nearest to the sum of two values rounds as the sum does
    steps_are_safe: bool = False  # so does float32's nearest to a step


ANY = Operands()  #: of which nothing is known
TERM = Operands(are_exact=True)  #: a factor of 1


class ProductPlan(NamedTuple):
    """How a product is formed: the plan of a step, that of adding the sum of a block, if any."""

    inner: str
    outer: str = ""
    given: Operands = ANY
    quick: Quick | None = None  # what is made first, and again by `inner` where it is in doubt

    def spell(self) -> str:
        """Keep it under a text, which Numba can treat as a constant, and return that."""
        flags = "".join(str(int(flag)) for flag in self.given)
        quick = self.quick.value if self.quick else ""
        return keep(f"{self.inner}&{self.outer}&{flags}&{quick}", self)


def step_plan(fmt: Format, rounding: Rounding, overflow: Overflow) -> tuple[str, Any] | None:
    """Return the rule that rounds a step of float32 to a format, as text, and its constants.

    None where there is no such rule: but for float32 itself it needs fused multiply-adds and
    float16's conversions, a mode that draws nothing and knows one zero for x - x, and a format that
    has two bits less.
    """
    nothing = np.zeros(len(Constants._fields), np.uint64)
    usual = is_usual(rounding, overflow)
    if usual and fmt == float32:
        return SINGLE, nothing
    if not has_fused_steps():
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


def any_step_plan(fmt: Format, rounding: Rounding, overflow: Overflow) -> tuple[str, Any] | None:
    """Return the rule of `step_plan`, or one that rounds sums of float64.

    None where float32 does not hold the format's values, and in modes that draw.
    """
    found = step_plan(fmt, rounding, overflow)
    if found is not None or rounding.is_stochastic or not fmt.fits(float32):
        return found
    return rounding_plan(fmt, rounding, overflow, on_vectors=True)


def operands(
    inputs: Format, fmt: Format, rounding: Rounding, overflow: Overflow, fused: bool
) -> Operands:
    """Return what is known of factors of a format whose products are summed in another.

    Products of bfloat16 have 16 bits. They may over- and underflow, but of sums of float16 that
    changes nothing.
    """
    usual = is_usual(rounding, overflow)
    return Operands(
        inputs.fits(float16) or (usual and fmt == float16 and inputs.fits(bfloat16)),
        fused,
        rounding.is_nearest and fmt.precision <= 11 and (usual or fmt.emax < float32.emax),
        rounding.is_nearest and steps_are_innocuous(inputs, fmt),
    )


def _is_wide(plan: str) -> bool:
    found = plan_of(plan)
    return found is not None and found.word == 64


def constants_of(builder: Any, fields: Any, plan: str, lanes: int) -> Constants | None:
    """Return a plan's constants, values of LLVM, in so many lanes; None where it has none."""
    found = plan_of(plan)
    if found is None:
        return None
    return Constants(*(Lanes(builder, v).resized(found.word).splat(lanes) for v in fields))


def start_of(plan: str) -> float:
    """Return the zero with which sums begin: rounding it and the first product changes neither."""
    return -zero_of(plan)


def step(
    x: Lanes, y: Lanes, z: Lanes, plan: str, c: Constants | None, given: Operands = ANY
) -> Lanes:
    """Return ○(x·y + z)."""
    if plan in (SINGLE, HALF):
        return x.fused(y, z)
    if _is_wide(plan):
        wide = [lanes.float_resized(64) for lanes in (x, y, z)]
        return sum_wide(wide[0] * wide[1], wide[2], kept(plan), _known(c)).float_resized(32)
    s = x.fused(y, z) if given.steps_are_safe else fma_to_odd(x, y, z, given.are_exact)
    return rounded_step(s, plan, c)


def product_step(
    x: Lanes, y: Lanes, z: Lanes, plan: str, c: Constants | None, given: Operands
) -> Lanes:
    """Return ○(x·y + z), or where products are not fused ○(○(x·y) + z)."""
    if given.are_fused:
        return step(x, y, z, plan, c, given)
    if plan in (SINGLE, HALF):
        return x * y + z
    if _is_wide(plan):
        wide = x.float_resized(64) * y.float_resized(64)
        product = round_wide(wide, kept(plan), _known(c))
        return sum_wide(product, z.float_resized(64), kept(plan), _known(c)).float_resized(32)
    if given.are_exact:
        product = rounded_step(x * y, plan, c)
    else:
        product = step(x, y, x.constant(-0.0), plan, c, given)
    if given.sums_are_safe:
        return rounded_step(product + z, plan, c)
    return step(product, x.constant(1.0), z, plan, c, Operands(given.are_exact))


def _known(c: Constants | None) -> Constants:
    assert c is not None
    return c


def rounded_step(s: Lanes, plan: str, c: Constants | None) -> Lanes:
    """Return float32 lanes rounded to the plan's format; a NaN must not have all its bits set."""
    if plan == "float16":
        return s.float_resized(16).float_resized(32)
    if plan == "bfloat16":
        bits = s.as_integers()
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).as_floats()
    return convert(s, kept(plan), _known(c), _known(c).emin)
