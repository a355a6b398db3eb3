"""One rule of rounding for arrays of NumPy, torch and JAX alike, in their own int32 operations.

The kernels are faster on this machine's processor. This rule runs wherever the array's library
runs: on an accelerator, and inside ``torch.compile`` and ``jax.jit``, which trace it. Hence three
restrictions: neither unsigned integers (torch has few operations for them) nor 64 bits (JAX has
none by default); constants are Python numbers, computed before tracing; float32's subnormal numbers
are no operand of the library's arithmetic but where they become zero, because XLA flushes them.

Letters: `t` trailing significand bits of the format, `e` an exponent in float32's bias, `m` an
integer significand, `s` how many of its bits are dropped, `q` what is left.
"""

from __future__ import annotations

import functools
import struct
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

from lowprec.formats import FormatLike, float32, get_format
from lowprec.rounding import Overflow, Rounding, checked_overflow

if TYPE_CHECKING:
    from types import ModuleType

    from lowprec.rounding import OverflowLike, RoundingLike

_SIGN = -(2**31)
_MAGNITUDE = 2**31 - 1
_INFINITY = 0x7F800000
_NAN = 0x7FC00000
_BIAS, _TRAILING = 127, 23
_WIDEST = 26  # dropping more bits than a doubled significand has changes nothing further


class PortableConstants(NamedTuple):
    """What the rule knows of a format and a mode: integers, magnitudes as bits of float32."""

    mode: Rounding
    trailing_bits: int
    emin: int  # in float32's bias
    quantum: int  # exponent of the smallest positive value
    largest: int
    overflow_positive: int
    overflow_negative: int
    infinity: int
    has_zero: bool
    signed: bool
    has_negative_zero: bool
    subnormals: bool
    exponent_parity: bool  # whether the exponent tells even values from odd ones

    @property
    def is_quick(self) -> bool:
        """Whether ties go to even, in a format with all that IEEE 754's formats have."""
        usual = self.has_zero and self.signed and self.has_negative_zero and self.subnormals
        above_float32 = self.emin == 1 or self.quantum > 2 - _BIAS
        to_even = self.mode is Rounding.TIES_TO_EVEN and not self.exponent_parity
        return usual and above_float32 and to_even


def round_to(
    x: Any,
    fmt: FormatLike,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
) -> Any:
    """Round float32 elements to a format with the operations of the array's own library.

    Parameters
    ----------
    x : array of float32 of NumPy, torch or jax.numpy, any shape, on any device
        What to round; torch tensors without gradient.
    fmt : Format, str or dtype
        A format whose values float32 holds.
    rounding : Rounding or str
        A deterministic mode.
    overflow : Overflow or str
        As for `lowprec.round_to`.

    Returns
    -------
    array of float32 of the same library and shape, on the same device
        The bits of `lowprec.round_to`; NaN stays NaN in a format without NaN.

    Raises
    ------
    TypeError
        If `x` is not an array of float32 of these libraries.
    ValueError
        If the mode draws random bits, or float32 does not hold the format.

    Examples
    --------
    >>> import numpy as np
    >>> round_to(np.array([0.1, 1e5], np.float32), "float16").tolist()
    [0.0999755859375, inf]
    """
    xp = _library(x)
    mode, *rest = _before_tracing(fmt, rounding, overflow)
    return round_array(xp, x, PortableConstants(_MODES[mode], *rest))


def round_array(xp: ModuleType, x: Any, c: PortableConstants, random: Any = None) -> Any:
    """Round an array of the library `xp`; `random` has 32 random bits an element, as int32."""
    if not x.ndim:  # NumPy tells of a carry out of a number, and not of one out of an array
        return round_array(xp, x[None], c, None if random is None else random[None])[0]
    if c.is_quick and random is None:
        return _round_to_even(xp, x, x.view(xp.int32), c)
    return _round_bits(xp, x.view(xp.int32), c, random).view(xp.float32)


def _library(x: Any) -> ModuleType:
    """Return the module whose functions take `x`, which must hold float32."""
    name = next(
        (
            found
            for kind in type(x).__mro__
            if (found := kind.__module__.partition(".")[0]) in ("numpy", "torch", "jax", "jaxlib")
        ),
        "",
    )
    if not name:
        raise TypeError(
            f"x is a {type(x).__name__}; pass an array of NumPy, torch or jax.numpy, or use "
            "lowprec.round_to, which takes whatever numpy.asarray takes"
        )
    if str(x.dtype).rpartition(".")[2] != "float32":
        raise TypeError(
            f"x has dtype {x.dtype}; the portable rule reads float32: pass x as float32 where "
            "that holds its values, or round on the CPU with lowprec.round_to"
        )
    return sys.modules[{"jax": "jax.numpy", "jaxlib": "jax.numpy"}.get(name, name)]


# Constants, before tracing ----------------------------------------------------------------------


_MODES = tuple(Rounding)


def _before_tracing(fmt: FormatLike, rounding: RoundingLike, overflow: OverflowLike) -> Any:
    """Return `constants_of` as numbers alone, from a call that torch's compiler does not trace."""
    mode, *rest = constants_of(fmt, rounding, overflow)
    return _MODES.index(mode), *rest


_before_tracing._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def constants_of(
    fmt: FormatLike, rounding: RoundingLike, overflow: OverflowLike
) -> PortableConstants:
    """Check a format and a mode, and return what the rule needs of them."""
    fmt, rounding = get_format(fmt), Rounding(rounding)
    overflow = checked_overflow(overflow, fmt)
    if rounding.is_stochastic:
        raise ValueError(
            f"the portable rule draws no random bits, and {rounding.value!r} needs them; use "
            "lowprec.jax.round_to with a key, or round on the CPU"
        )
    return make_constants(fmt, rounding, overflow)


@functools.cache
def make_constants(fmt: Any, rounding: Rounding, overflow: Overflow) -> PortableConstants:
    """Return the constants of a format that float32 holds."""
    if not fmt.fits(float32):
        raise ValueError(
            f"float32 cannot hold every value of {str(fmt)!r} (p={fmt.precision}, "
            f"emin={fmt.emin}, emax={fmt.emax}), and the portable rule gives float32; use "
            "lowprec.round_to on float64"
        )
    largest = _bits(fmt.max)
    beyond = _NAN if fmt.has_nan else largest
    beyond = _INFINITY if fmt.has_infinity else beyond

    def overflowed(negative: bool) -> int:
        match overflow:
            case Overflow.IEEE:
                return largest if rounding.overflows_to_max(negative) else beyond
            case Overflow.INFINITE:
                return beyond
            case Overflow.SATURATE | Overflow.SATURATE_FINITE:
                return largest
            case _:
                assert_never(overflow)

    match overflow:
        case Overflow.IEEE | Overflow.INFINITE:
            infinity = beyond
        case Overflow.SATURATE:
            infinity = _INFINITY if fmt.has_infinity else largest
        case Overflow.SATURATE_FINITE:
            infinity = largest
        case _:
            assert_never(overflow)
    return PortableConstants(
        rounding,
        fmt.trailing_bits,
        fmt.emin + _BIAS,
        fmt.emin - (fmt.trailing_bits if fmt.subnormals else 0),
        largest,
        overflowed(False),
        overflowed(True),
        infinity,
        fmt.has_zero,
        fmt.signed,
        not fmt.has_nan_at_negative_zero,
        fmt.subnormals or fmt.precision == 1,
        fmt.counts_exponent_parity,
    )


def _bits(value: float) -> int:
    return int(struct.unpack("<i", struct.pack("<f", value))[0])


# The rule ----------------------------------------------------------------------------------------


def _round_to_even(xp: ModuleType, x: Any, bits: Any, c: PortableConstants) -> Any:
    """Round in few operations: what compilers make of many is not as fast as the kernels.

    A carry moves into the exponent by itself, and out of a NaN, which is replaced. The library
    rounds what the format holds as a subnormal number to a multiple of its quantum, as a float;
    what is subnormal in float32 becomes zero then, flushed before or not.
    """
    u, sign, s = bits & _MAGNITUDE, bits & _SIGN, _TRAILING - c.trailing_bits
    y = _adjust(xp, bits, s, None, c.mode) & -(1 << s) if s else bits
    beyond = c.overflow_positive
    if c.largest + (1 << s) != beyond:
        y = xp.where((y & _MAGNITUDE) > c.largest, sign | beyond, y)
    if c.infinity != beyond:
        y = xp.where(u == _INFINITY, sign | c.infinity, y)
    y = xp.where(u > _INFINITY, sign | _NAN, y).view(xp.float32)
    if c.emin == 1:
        return y
    is_below = u < c.emin << _TRAILING
    steps = xp.round(xp.where(is_below, x, 0.0) * 2.0**-c.quantum)
    return xp.where(is_below, steps * 2.0**c.quantum, y)


def _round_bits(xp: ModuleType, bits: Any, c: PortableConstants, random: Any = None) -> Any:
    """Return the float32 bits of the rounded numbers, from those of the numbers."""
    u, negative = bits & _MAGNITUDE, bits < 0
    if c.emin == 1 and c.has_zero and c.subnormals and random is None:
        y = _round_trailing(xp, u, negative, c)
    else:
        y = _round_significand(xp, u, negative, c, random)
    beyond = c.overflow_positive
    if c.overflow_negative != c.overflow_positive:
        beyond = xp.where(negative, c.overflow_negative, u & 0 | c.overflow_positive)
    y = xp.where(y > c.largest, beyond, y)
    y = xp.where(u == _INFINITY, c.infinity, y)
    y = xp.where(u > _INFINITY, _NAN, y)
    return _with_sign(xp, y, bits, u, negative, c)


def _with_sign(
    xp: ModuleType, y: Any, bits: Any, u: Any, negative: Any, c: PortableConstants
) -> Any:
    if not c.has_zero:  # a scale has neither signs nor zero
        return xp.where(negative | (u == 0), _NAN, y)
    if not c.signed:
        return xp.where(negative & (u != 0), _NAN, y)
    sign = bits & _SIGN
    if not c.has_negative_zero:  # its one NaN has the code of -0
        sign = xp.where(y == 0, 0, sign)
        sign = xp.where(y == _NAN, _SIGN, sign)
    return y | sign


def _round_trailing(xp: ModuleType, u: Any, negative: Any, c: PortableConstants) -> Any:
    """Round where the format's exponents begin as float32's do: the same bits are dropped always.

    A carry moves into the exponent, and out of the subnormal numbers, by itself.
    """
    s = _TRAILING - c.trailing_bits
    if s == 0:
        return u
    u = xp.where(u > _INFINITY, _INFINITY, u)
    return _adjust(xp, u, s, negative, c.mode) >> s << s


def _round_significand(
    xp: ModuleType, u: Any, negative: Any, c: PortableConstants, random: Any
) -> Any:
    """Round any format: q, as a float, is scaled by adding to its exponent."""
    t = c.trailing_bits
    is_normal = u >= 1 << _TRAILING
    m = u & ((1 << _TRAILING) - 1)
    m = xp.where(is_normal, m | 1 << _TRAILING, m)
    e = xp.where(is_normal, u >> _TRAILING, 1)
    if c.emin < 1:  # float32's subnormal numbers may be normal numbers of the format
        zeros = (_BIAS + _TRAILING) - (_as_float_bits(xp, m) >> _TRAILING)
        zeros = xp.where(m == 0, 0, zeros)
        m, e = m << zeros, e - zeros
    exponent = xp.where(e < c.emin, c.emin, e)
    m = m + m  # so that at least one bit is dropped
    s = exponent - e + (_TRAILING + 1 - t)
    is_below = (e < c.emin) | (m < 2 << _TRAILING)
    if not c.subnormals:  # one step from zero to the smallest normal number
        s = xp.where(is_below, s + t, s)
    drop = xp.where(s > _WIDEST, _WIDEST, s)
    if random is None:
        before = exponent - c.emin - int(not c.has_zero) if c.exponent_parity else 0
        q = _adjust(xp, m, drop, negative, c.mode, before) >> drop
    else:
        q = (m >> drop) + _stochastic_step(xp, m, s, c.mode, random)
    if not c.subnormals:
        q = xp.where(is_below, q << t, q)
    if not c.has_zero:
        q = xp.where(q < 1, 1, q)
    y = _as_float_bits(xp, q) + ((exponent - (_BIAS + t)) << _TRAILING)
    y = xp.where(q == 0, 0, y)
    if c.quantum < 1 - _BIAS:  # below, the result is a subnormal number of float32
        shift = exponent + (_TRAILING - 1 - t)
        y = xp.where(y < 1 << _TRAILING, q << xp.where(shift > _TRAILING, 0, shift), y)
    return y


def _as_float_bits(xp: ModuleType, m: Any) -> Any:
    """Return the bits of small integers as floats: exact, and normal numbers or zero."""
    return _cast(m, xp.float32).view(xp.int32)


def _cast(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if hasattr(x, "astype") else x.to(dtype)


def _adjust(xp: ModuleType, m: Any, s: Any, negative: Any, mode: Rounding, before: Any = 0) -> Any:
    """Change m so that dropping its low s bits, at least one, rounds as the mode says.

    The last bit of what is left, and of `before`, tells whether the value toward zero is odd.
    """
    mask = (1 << s) - 1
    match mode:
        case Rounding.TIES_TO_EVEN:
            return m + (mask >> 1) + (((m >> s) + before) & 1)
        case Rounding.TIES_TO_AWAY:
            return m + (mask >> 1) + 1
        case Rounding.TIES_TOWARD_ZERO:
            return m + (mask >> 1)
        case Rounding.TOWARD_ZERO:
            return m
        case Rounding.AWAY_FROM_ZERO:
            return m + mask
        case Rounding.TOWARD_POSITIVE:
            return xp.where(negative, m, m + mask)
        case Rounding.TOWARD_NEGATIVE:
            return xp.where(negative, m + mask, m)
        case Rounding.TO_ODD:
            return xp.where((((m >> s) + before) & 1) == 1, m, m + mask)
        case Rounding.STOCHASTIC | Rounding.STOCHASTIC_EQUAL:
            raise AssertionError(f"{mode.value} draws random bits")
        case _:
            assert_never(mode)


def _stochastic_step(xp: ModuleType, m: Any, s: Any, mode: Rounding, random: Any) -> Any:
    """Return 1 where R < floor(f·2**32), with f the dropped bits as a fraction, else 0."""
    narrow = xp.where(s > 31, 31, s)
    dropped = m & ((1 << narrow) - 1)
    if mode is Rounding.STOCHASTIC_EQUAL:  # either neighbour, where the number is neither
        goes_up = (random >= 0) & ((dropped != 0) | ((s > 31) & (m != 0)))
    else:
        wide = xp.where(s > 63, 31, xp.where(s > 32, s - 32, 0))
        share = xp.where(s > 31, m >> wide, dropped << (32 - narrow))
        goes_up = (random ^ _SIGN) < (share ^ _SIGN)  # compared as unsigned integers
    return xp.where(goes_up, 1, m & 0)
