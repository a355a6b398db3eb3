"""A-priori bounds of the errors of sums and inner products."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING

import numpy as np

from lowprec.accumulation.accumulator import Accumulator, AccumulatorLike, as_accumulator
from lowprec.common.processor_state import in_exact_state
from lowprec.rounding import Rounding

if TYPE_CHECKING:
    from lowprec.formats import Format


@in_exact_state
def error_bound(n: int, accumulator: AccumulatorLike = "float32") -> float:
    """Bound the error of a sum or an inner product of n terms, before it is computed.

    Parameters
    ----------
    n : int
        The number of terms.
    accumulator : Accumulator, or Format, str or dtype
        How they are summed.

    Returns
    -------
    float
        A factor of Σ|term|: the sum differs from the exact one by at most this much of it, unless
        a step overflows or falls below the format's smallest normal number. With u the unit
        roundoff (twice that for modes that do not round to nearest) and m roundings between a
        term and the sum, (1 + u)**m - 1: m is n for ``sequential`` and ``blas``, ⌈log2 n⌉ for
        ``pairwise``, 1 for ``exact``; for ``blocked`` as many in `inner` as a block has terms and
        as many in `fmt` as there are blocks. For ``aligned`` every group of L terms, cut to k
        bits, adds u + (1 + u)(L + 1)·2**-k. For ``kahan`` 3u + 4n·u² and what is of higher order:
        one u more than in the references, whose terms are numbers of the format.

    Raises
    ------
    ValueError
        If n is negative.

    Examples
    --------
    >>> round(error_bound(100, "float16"), 5)
    0.05003
    >>> round(error_bound(100, Accumulator("float16", order="pairwise")), 5)
    0.00342

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, sections 3.1, 4.2 and 4.3.
    """
    n = operator.index(n)
    if n < 0:
        raise ValueError(f"n is {n}; a sum has no terms or more")
    how = as_accumulator(accumulator)
    u, v = (_rounding_error(fmt, how) for fmt in how.formats)
    if n == 0:
        return 0.0
    product = 0.0 if how.fused else math.log1p(v)
    if isinstance(how.inner, Accumulator):
        assert how.block is not None
        within = math.log1p(error_bound(min(n, how.block), how.inner))
        return _grown(within - (-n // how.block) * math.log1p(u))
    match how.order:
        case "aligned":
            assert how.block is not None
            assert how.fraction_bits is not None
            cut = (how.block + 1) * math.ldexp(1.0, -how.fraction_bits)
            exponent = -(-n // how.block) * math.log1p(u + (1 + u) * cut)
        case "sequential" | "blas":
            exponent = n * math.log1p(u)
        case "blocked":
            assert how.block is not None
            exponent = min(n, how.block) * math.log1p(v) + -(-n // how.block) * math.log1p(u)
        case "pairwise":
            exponent = max(1, (n - 1).bit_length()) * math.log1p(u)
        case "kahan":
            exponent = math.log1p(_kahan_bound(n, u))
        case _:
            exponent = math.log1p(u)
    return _grown(exponent + product)


def _grown(exponent: float) -> float:
    try:
        return math.expm1(exponent)
    except OverflowError:
        return math.inf


def _kahan_bound(n: int, u: float) -> float:
    """Bound how far a term's factor in Kahan's sum is from 1.

    With y = (x - c)(1 + η), t = (s + y)(1 + σ) and the new c = ((t - s)(1 + γ) - y)(1 + δ), none of
    the four beyond u, the factors of the first term in s - c and in c grow by a linear map a step.
    """
    if n == 1:
        return u
    two = u * (2 + u)  # (1 + u)² - 1
    own = (1 + u) * (1 + u * u + u * (1 + two)) - 1  # in s - c, of a term that has just come
    lost = (1 + u) * two  # in c, of the same
    kept, spilt = u * two, u * (1 + two)  # how s - c goes into itself, beyond 1, and into c
    step = np.array(
        [[1.0, 0, 0], [kept, 1 + kept, kept + own], [spilt, spilt, spilt + (1 + u) * lost]]
    )
    with np.errstate(over="ignore", invalid="ignore"):
        error, carried = (np.linalg.matrix_power(step, n - 2) @ [1, own, lost])[1:].tolist()
    bound = (1 + error + u * carried) * (1 + u) - 1
    return bound if math.isfinite(bound) else math.inf  # infinity times 0 is NaN


def _rounding_error(fmt: Format, how: Accumulator) -> float:
    is_nearest = Rounding(how.rounding).is_nearest
    return fmt.unit_roundoff if is_nearest else fmt.eps
