"""Operands drawn from all codes, and more often where operations go wrong."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.kernels.oracle.integers import CodeFields, code_fields, rule_of
from lowprec.kernels.oracle.loops import oracle
from lowprec.rounding import Rounding
from lowprec.verification.codes import CODES

if TYPE_CHECKING:
    from lowprec.formats import Format

Array = np.ndarray[Any, Any]


def draw(fmt: Format, arity: int, count: int, rng: np.random.Generator) -> list[Array]:
    """Draw operands as codes, a quarter of them in each of four ways.

    Any codes at all; the edges of the format; the last operand next to minus or plus what the
    others give, which cancels or makes quotients near 1; and exponents close enough to interact, or
    such that products and quotients come to lie at the ends of the range, with short significands,
    which make ties.

    Parameters
    ----------
    fmt : Format
        A format that the integer oracle knows.
    arity : int
        How many operands, 1 to 3.
    count : int
        How many of each; a multiple of four.
    rng : numpy.random.Generator
        Where they come from.

    Returns
    -------
    list of numpy.ndarray of uint16, shape (count,)
    """
    f = code_fields(fmt)
    codes = rng.integers(0, 1 << (f.width + 1), (arity, count), dtype=CODES)
    _, at_edges, close, aligned = np.split(codes, 4, axis=1)  # views
    takes_edge = rng.random(at_edges.shape) < 0.7
    at_edges[takes_edge] = rng.choice(edges(fmt), int(takes_edge.sum()))
    if arity > 1:
        close[-1] = _near(_product(close, fmt) if arity == 3 else close[0], f, rng)
        _align(aligned, f, rng)
    return list(codes)


@functools.cache
def edges(fmt: Format) -> Array:
    """Return the codes near 0, the least normal number, 1, the largest, infinity and NaN."""
    f = code_fields(fmt)
    one = -(f.lowest + f.trailing) + 1 << f.trailing  # the field of 2**emin is 1
    points = np.array(
        [0, 1 << f.trailing, one, one >> 1, f.max_code, f.max_code - (1 << f.trailing)]
    )
    magnitudes = np.unique((points[:, None] + np.arange(-3, 4)).clip(0, (1 << f.width) - 1))
    return np.concatenate([magnitudes, magnitudes | 1 << f.width]).astype(CODES)


def _product(operands: Array, fmt: Format) -> Array:
    """Return the rounded products of the first two operands."""
    a, b = (np.ascontiguousarray(x) for x in operands[:2])
    out, events = np.empty_like(a), np.zeros(5, np.int64)
    rule = rule_of(Rounding.TIES_TO_EVEN)
    oracle("multiply")(a, b, b, out, events, code_fields(fmt), rule)
    return out


def _near(codes: Array, f: CodeFields, rng: np.random.Generator) -> Array:
    """Return codes at most three steps away, of either sign."""
    magnitudes = (codes & ((1 << f.width) - 1)) + rng.integers(-3, 4, codes.size)
    signs = rng.integers(0, 2, codes.size) << f.width
    near: Array = magnitudes.clip(0, (1 << f.width) - 1) | signs
    return near.astype(CODES)


def _align(operands: Array, f: CodeFields, rng: np.random.Generator) -> None:
    """Give the last operand an exponent that depends on the others', and all short significands."""
    count, middle = operands.shape[1], -(f.lowest + f.trailing) + 1  # the field of 1
    fields = (operands.astype(np.int64) & ((1 << f.width) - 1)) >> f.trailing
    highest = (1 << (f.width - f.trailing)) - 1
    reach = 2 * f.trailing + 5
    steps = rng.integers(-reach, reach + 1, count)
    if len(operands) == 3:
        field = fields[0] + fields[1] - middle + steps
    else:  # beside the other, or where the product or the quotient meets the end of the range
        ends = rng.choice([-f.trailing, 0, highest], count)
        to_end = np.where(steps & 1, fields[0] - ends + middle, ends + middle - fields[0])
        field = np.where(rng.random(count) < 0.5, fields[0] + steps, to_end + steps // 4)
    field = field.clip(0, highest) << f.trailing
    operands[-1] = (operands[-1] & ~CODES(highest << f.trailing)) | field.astype(CODES)
    kept = rng.integers(0, f.trailing + 1, operands.shape)
    operands &= (-1 << kept).astype(np.int64).astype(CODES)
