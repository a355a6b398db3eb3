"""Sums, means and products by the accumulator of the line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.accumulation.cumulative import cumsum
from lowprec.accumulation.means import mean
from lowprec.accumulation.products import matmul
from lowprec.accumulation.sums import sum as rounded_sum

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.trace.engine import Engine
    from lowprec.trace.kits import Kit
    from lowprec.trace.places import Site

Array = np.ndarray[Any, Any]

_COUNTED = 1 << 16  # terms of sums, up to which those are counted that change nothing


def summed(engine: Engine, x: Any, site: Site, axis: Any = None, keepdims: bool = False) -> Any:
    """Return the sum of elements by the line's accumulator."""
    return _of_terms(engine, np.sum, rounded_sum, x, site, axis, keepdims=keepdims)


def running_sum(engine: Engine, x: Any, site: Site, axis: int | None = None) -> Any:
    """Return running sums, every step rounded."""
    array = engine.array(x, site)
    if axis is None:
        array, axis = engine.reshaped(array, (-1,)), 0
    return _of_terms(engine, np.cumsum, cumsum, array, site, axis)


def averaged(engine: Engine, x: Any, site: Site, axis: Any = None, keepdims: bool = False) -> Any:
    """Return the mean: the sum by the line's accumulator, divided by the exact number."""
    return _of_terms(engine, np.mean, mean, x, site, axis, keepdims=keepdims)


def _of_terms(
    engine: Engine, function: Any, rounded: Any, x: Any, site: Site, axis: Any, **how: bool
) -> Any:
    """Return a function of NumPy's that is linear in its terms, by the line's accumulator."""
    taken = engine.operand(engine.array(x, site), site)
    value, shadow, _ = taken
    kit = site.kit

    def flow(part: Any) -> Any:
        return function(part, axis=axis, **how)

    zs = flow(shadow)
    if kit.is_numpy:
        z = flow(value)
    else:
        z = _in_format(rounded(value, kit.accumulator, axis, *how.values()), kit)
        _count_absorbed(engine, value, axis, site)
    kept = _kept_of_sum(flow, value, shadow, zs) if engine.budget else 1.0
    made = int(np.size(value)) + (int(np.size(z)) if function is np.mean else 0)
    return engine.linear(z, zs, [taken], [(flow, kept)], site, function.__name__, made)


def matrix_product(engine: Engine, a: Any, b: Any, site: Site) -> Any:
    """Return a matrix product by the line's accumulator."""
    x, y = engine.operand(engine.array(a, site), site), engine.operand(engine.array(b, site), site)
    (va, sa, _), (vb, sb, _) = x, y
    kit = site.kit
    zs = np.matmul(sa, sb)
    if kit.is_numpy:
        z = np.matmul(va, vb)
    else:
        z = matmul(va, vb, inputs=kit.fmt, accumulator=kit.accumulator)  # type: ignore[arg-type]
        z = _in_format(z, kit)
        _count_absorbed_products(engine, va, vb, site)
    middle_a = 0.5 * (va.astype(np.float64) + sa)
    middle_b = 0.5 * (vb.astype(np.float64) + sb)
    kept: Any = 1.0
    if engine.budget:
        kept = _ratio(np.abs(zs), np.matmul(np.abs(sa), np.abs(sb)))
    flows = [
        (lambda part: np.matmul(part, middle_b), kept),
        (lambda part: np.matmul(middle_a, part), kept),
    ]
    made = int(np.size(z)) * int(va.shape[-1])
    return engine.linear(z, zs, [x, y], flows, site, "matmul", made)


def _in_format(z: Any, kit: Kit) -> Any:
    """Round what an accumulator of another format gives to the line's."""
    assert kit.accumulator is not None
    return z if kit.accumulator.fmt == kit.fmt else kit.enter(z)


def _count_absorbed(engine: Engine, terms: Array, axis: Any, site: Site) -> None:
    """Count the terms that change nothing of sequential sums in one format."""
    how = site.kit.accumulator
    if how is None or how.order != "sequential" or how.fmt != site.kit.fmt:
        return
    if isinstance(axis, tuple) or not engine.budget or not 1 < terms.size <= _COUNTED:
        return
    # A bound without summing again: terms below half a spacing of the running exact sum.
    terms = np.moveaxis(np.ravel(terms) if axis is None else terms, axis or 0, 0)
    running = np.abs(np.cumsum(terms, axis=0, dtype=np.float64))
    spacing = np.ldexp(1.0, np.frexp(running[:-1])[1] - site.kit.fmt.precision)
    small = (terms[1:] != 0) & (np.abs(terms[1:]) < 0.5 * spacing)
    site.unit.absorbed += int(np.count_nonzero(small))


def _count_absorbed_products(engine: Engine, a: Array, b: Array, site: Site) -> None:
    """Count the products that change nothing of what they are added to."""
    if a.ndim <= 2 and b.ndim <= 2 and a.size * (b.size // max(len(b), 1)) <= _COUNTED:
        right = b.reshape(len(b), -1).astype(np.float64)
        _count_absorbed(engine, a.reshape(-1, len(b), 1) * right, 1, site)


def _ratio(a: Any, b: Any) -> Any:
    """Return a / b, 1 where b is 0; at most 1."""
    with np.errstate(all="ignore"):
        return np.minimum(1.0, np.where(np.asarray(b) > 0, a / np.where(b == 0, 1.0, b), 1.0))


def _kept_of_sum(flow: Callable[[Any], Any], value: Any, shadow: Any, zs: Any) -> Any:
    """Return the part of its terms' relative error that a sum has: the rest grew by cancelling.

    Where the errors of the terms cancel with the terms, less grew than the condition number says.
    """
    error = value - shadow
    with np.errstate(all="ignore"):
        cancelled = flow(np.abs(error)) / np.abs(flow(error))
    cancelled = np.where(cancelled >= 1.0, cancelled, 1.0)  # also where there is no error
    return np.minimum(1.0, _ratio(np.abs(zs), flow(np.abs(shadow))) * cancelled)
