"""`round_to` for JAX: the portable rule, traced, with the gradient that is asked for."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from lowprec.conversion import portable
from lowprec.formats import float32, get_format
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from lowprec.formats import FormatLike
    from lowprec.rounding import OverflowLike, RoundingLike

_READ = ("float32", "float16", "bfloat16", "int8", "int16", "uint8", "uint16", "bool")


def round_to(
    x: Any,
    fmt: FormatLike,
    *,
    key: Any = None,
    gradient: str | FormatLike | None = None,
    rounding: RoundingLike | None = None,
    overflow: OverflowLike = "ieee",
) -> jax.Array:
    """Round every element to a value of a format, on any device, under any transformation.

    It is made of JAX's own operations on integers, so that it runs under `jit`, `vmap`, `grad` and
    sharding, without a callback; subnormal numbers are kept where XLA flushes them.

    Parameters
    ----------
    x : jax.Array, or what `jax.numpy.asarray` takes
        float32, narrower floats, or integers of at most 16 bits.
    fmt : Format, str or dtype
        A format whose values float32 holds.
    key : jax.random key, optional
        Where stochastic rounding draws its bits from: ``jax.random.bits(key, x.shape, uint32)``.
        A key alone asks for ``rounding="stochastic"``.
    gradient : None, "clip", Format or str
        What becomes of the gradient: passed as it arrives, set to zero where ``|x| > fmt.max``, or
        rounded to a format, ties to even, saturating.
    rounding : Rounding or str, optional
        By default ``ties_to_even``, or ``stochastic`` where there is a key.
    overflow : Overflow or str
        As for `lowprec.round_to`.

    Returns
    -------
    jax.Array of float32, of the shape of `x`
        The bits of `lowprec.round_to` in the deterministic modes; NaN stays NaN in a format
        without NaN. Stochastic: with 32 random bits R and f the position between the neighbours,
        away from zero iff R < floor(f·2**32).

    Raises
    ------
    TypeError
        If `x` has another dtype.
    ValueError
        If float32 does not hold the format, or key and rounding contradict each other.

    Examples
    --------
    >>> import jax
    >>> round_to(0.1, "bfloat16").item()
    0.10009765625
    >>> jax.grad(lambda x: round_to(x, "float16", gradient="clip"))(1e6).item()
    0.0
    """
    x = jnp.asarray(x)
    if str(x.dtype) not in _READ:
        raise TypeError(
            f"x has dtype {x.dtype}; lowprec.jax rounds float32 and what float32 holds: pass "
            "x.astype('float32') where that is exact enough, or use lowprec.round_to outside of "
            "jit, which rounds float64 and all integers once"
        )
    mode = Rounding("ties_to_even" if key is None else "stochastic")
    mode = mode if rounding is None else Rounding(rounding)
    if mode.is_stochastic and key is None:
        raise ValueError(f"rounding={mode.value!r} draws random bits; pass key=jax.random.key(0)")
    if key is not None and not mode.is_stochastic:
        raise ValueError(f"rounding={mode.value!r} draws no random bits; leave key away")
    constants = portable.make_constants(get_format(fmt), mode, Overflow(overflow))
    x = x.astype(jnp.float32)
    bits = None
    if key is not None:
        drawn = jax.random.bits(key, x.shape, jnp.uint32)
        bits = jax.lax.bitcast_convert_type(drawn, jnp.int32)
    return _rounded(constants, _gradient_rule(gradient, fmt), x, bits)


def _gradient_rule(gradient: Any, fmt: Any) -> Any:
    """Return what becomes of the gradient, as what may be hashed: a limit or constants."""
    if gradient is None:
        return None
    if isinstance(gradient, str) and gradient == "clip":
        return get_format(fmt).max
    found = get_format(gradient)
    if not found.fits(float32):
        raise ValueError(f"float32 does not hold every value of {found}; use another gradient=")
    return portable.make_constants(found, Rounding.TIES_TO_EVEN, Overflow.SATURATE)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _rounded(
    constants: portable.PortableConstants, rule: Any, x: jax.Array, bits: Any
) -> jax.Array:
    return _round(constants, x, bits)


def _round(constants: portable.PortableConstants, x: jax.Array, bits: Any) -> jax.Array:
    result: jax.Array = portable.round_array(jnp, x, constants, bits)
    return result


def _forward(constants: portable.PortableConstants, rule: Any, x: jax.Array, bits: Any) -> Any:
    is_beyond = jnp.abs(x) > rule if isinstance(rule, float) else None
    return _round(constants, x, bits), is_beyond


def _backward(
    constants: portable.PortableConstants, rule: Any, is_beyond: Any, g: jax.Array
) -> Any:
    if is_beyond is not None:
        g = jnp.where(is_beyond, 0.0, g)
    elif rule is not None:
        g = _rounded(rule, None, g, None)
    return g, None


_rounded.defvjp(_forward, _backward)
