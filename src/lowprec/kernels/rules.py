"""The rules: how one number becomes a code of a format, and a code a number.

This is the specification that every kernel applies, written over `Lanes` (see there).
`faster_rules` has faster ones for some formats and processors, `magnitudes` what all share.
Letters: `t` trailing significand bits of the format, `e` a biased exponent, `m` an integer
significand, `q` a rounded one, `r` the number of random bits `R`.

Every rule works on magnitudes. A source is read as m·2**(e - …) with its leading bit, if it is a
normal number, at a known place, the `point`; dropping the low `s` bits leaves `t + 1` of them, or
fewer below the format's smallest normal number, where the exponent stops falling. A code without
its sign is then (e - emin)·2**t + q: the carry of q into the next binade and out of the subnormal
range needs no case of its own, nor does overflow, which is a code greater than `max_code`.
"""

from __future__ import annotations

from lowprec.kernels.faster_rules import (
    convert_aligned,
    convert_hardware,
    decode_hardware,
    round_by_addition,
)
from lowprec.kernels.lanes import Lanes, maximum, minimum, select
from lowprec.kernels.magnitudes import (
    ANY,
    Constants,
    Magnitude,
    Plan,
    adjust,
    adjust_any,
    overflow_of,
    read,
)
from lowprec.rounding import Rounding

# Rounding ----------------------------------------------------------------------------------------


def round_general(x: Magnitude, plan: Plan, c: Constants, R: Lanes) -> Lanes:
    """Return the code of the rounded magnitude, as if the exponent had no upper bound."""
    t = c.trailing_bits
    widest = plan.word - 1
    e = maximum(x.e, c.emin)
    s = (t.constant(x.point) - t) + (e - x.e)
    below = (x.e < c.emin) | (x.m < 1 << x.point)  # the format's smallest normal number
    if plan.variant.flushes:  # one step from 0 to the smallest normal number
        s = select(below, s + t, s)
    m = x.m
    if plan.mode != ANY and Rounding(plan.mode).weighs_fraction:  # which must not grow by a cut
        m = m >> minimum(maximum(s, widest) - widest, widest)
    # m is below 2**(widest - 1), so that cutting s there leaves the other modes' results alone
    s = minimum(s, widest)
    looks_at_exponent = plan.exponent_parity or plan.mode == ANY
    before = e - c.emin - int(plan.variant.is_scale) if looks_at_exponent else None
    if before is not None and plan.variant.is_scale:
        m = maximum(m, x.m.constant(1) << s)  # there is nothing below the smallest number
    if before is not None and plan.mode == ANY:
        q = adjust_any(m, s, x.negative, c, before) >> s
    else:
        q = adjust(m, s, x.negative, plan, R, before) >> s
    if plan.variant.flushes:
        q = select(below, q << t, q)
    if plan.variant.is_scale:  # exponent field 0 is a normal number: there is no zero
        q = maximum(q, 1) - 1
    return ((e - c.emin) << t) + q


# Writing -----------------------------------------------------------------------------------------


def code_to_bits(code: Lanes, plan: Plan, c: Constants) -> Lanes:
    """Return the float bits of a finite code without its sign."""
    trailing = {32: 23, 64: 52}[code.bits]
    t = c.trailing_bits
    scaled = code << (t.constant(trailing) - t)
    if plan.twin == "aligned":
        return scaled  # subnormal numbers of the format are subnormal numbers of the float
    offset = c.emin if plan.variant.is_scale else c.emin - 1
    normal = scaled + (offset << trailing)
    if plan.variant.is_scale:
        return normal
    is_below = (code >> t).equals(0)
    if plan.variant.flushes:
        return select(is_below, code.constant(0), normal)
    subnormal = (code.to_floats() * c.quantum.as_floats()).as_integers()
    return select(is_below, subnormal, normal)


def convert(x: Lanes, plan: Plan, c: Constants, R: Lanes, nan_is_canonical: bool = False) -> Lanes:
    """Round a source once; return its code, or the float that the code stands for.

    `nan_is_canonical` says that no NaN among the sources but the quiet one without payload needs
    a thought, which saves one in the twins that keep it.
    """
    if plan.twin == "aligned":
        return convert_aligned(x, plan, c, R, nan_is_canonical)
    if plan.twin == "hardware":
        return convert_hardware(x, plan, c, nan_is_canonical)
    source = read(x, plan)
    if plan.twin in ("adder", "avx512"):
        magnitude = round_by_addition(source, plan, c)
    else:
        code = round_general(source, plan, c, R)
        word = min(plan.word, 64)
        code, c = code.resized(word), Constants(*(field.resized(word) for field in c))
        magnitude = code if plan.is_encoding else code_to_bits(code, plan, c)
        magnitude = select(code > c.max_code, overflow_of(source, plan, c), magnitude)
    if source.infinity:
        least = source.infinity + 1  # of NaN
        if plan.infinity_is_nan:
            least = source.infinity
        elif plan.infinity_differs:
            magnitude = select(source.bits.equals(source.infinity), c.infinity, magnitude)
        magnitude = select(source.bits >= least, c.nan, magnitude)
    return write(magnitude, source, plan, c)


def write(magnitude: Lanes, source: Magnitude, plan: Plan, c: Constants) -> Lanes:
    """Give the magnitude its sign, and the result its type."""
    is_zero = source.bits.equals(0)
    if plan.variant.is_scale:
        magnitude = select(source.negative | is_zero, c.nan, magnitude)
    elif not plan.variant.has_sign:
        magnitude = select(source.negative & ~is_zero, c.nan, magnitude)
    else:
        sign_mask = c.sign_mask if plan.is_encoding else 1 << (c.nan.bits - 1)
        sign = select(source.negative, magnitude.constant(0) | sign_mask, 0)
        if plan.variant.is_fnuz:  # zero is +0, and the one NaN has the code of -0
            sign = select(magnitude.equals(0), sign.constant(0), sign)
            sign = select(magnitude.equals(c.nan), magnitude.constant(0) | sign_mask, sign)
        magnitude = magnitude | sign
    if plan.is_encoding:
        return magnitude
    return magnitude.as_floats().float_resized(32 if plan.target == "float32" else 64)


# Decoding ----------------------------------------------------------------------------------------


def decode(code: Lanes, plan: Plan, c: Constants) -> Lanes:
    """Return the float that a code stands for; every NaN becomes the quiet one of its sign."""
    if plan.twin == "hardware":
        return decode_hardware(code, plan, c)
    code = code.resized(plan.word)
    code_sign = code & c.sign_mask
    magnitude = code ^ code_sign
    bits = code_to_bits(magnitude, plan, c)
    special = select(magnitude.equals(c.infinity), c.overflow_positive, c.nan)
    bits = select(magnitude > c.max_code, special, bits)
    sign = select(code_sign.equals(0), code.constant(0), 1 << (plan.word - 1))
    if plan.variant.is_fnuz:
        sign = select(bits.equals(0), sign.constant(0), sign)
        bits = select(code.equals(c.sign_mask), c.nan, bits)
        sign = select(code.equals(c.sign_mask), sign.constant(1 << (plan.word - 1)), sign)
    return (bits | sign).as_floats().float_resized(32 if plan.target == "float32" else 64)
