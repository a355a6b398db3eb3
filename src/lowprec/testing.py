"""Assertions for a user's own tests: whether results are close, a conversion what it claims.

`assert_holds` is for programs in a format.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lowprec.analysis.conformance import conformance
from lowprec.analysis.difference import diff
from lowprec.analysis.difference_figures import roundings
from lowprec.trace.tracing import trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowprec.analysis.conformance import Conversion
    from lowprec.analysis.difference_figures import Element
    from lowprec.blocks.formats import AnyFormatLike
    from lowprec.formats import FormatLike
    from lowprec.rounding import OverflowLike, RoundingLike

__all__ = ["assert_close", "assert_conforms", "assert_holds"]


def assert_conforms(
    function: Conversion,
    fmt: FormatLike,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    takes_float64: bool = False,
) -> None:
    """Raise AssertionError unless a conversion gives the right values of a format.

    Every value and midpoint of the format, their neighbours, both ends of the range, subnormal
    numbers and what is not finite are converted; NaN's bits are the function's own choice.

    Parameters
    ----------
    function : callable
        Takes a one-dimensional float32 array, returns as many values (floats) or codes (integers).
    fmt : Format, str or dtype
        The format.
    rounding, overflow : str
        What the function claims to do; a deterministic mode.
    takes_float64 : bool
        Whether float64 arrays are tried too: they must not pass through float32.

    Raises
    ------
    AssertionError
        With a line a cause: how many cases differ, and the smallest counter-example.

    Examples
    --------
    >>> import numpy as np
    >>> assert_conforms(lambda x: x.astype(np.float16), "float16", takes_float64=True)
    >>> assert_conforms(np.trunc, "bfloat16")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    AssertionError: trunc, bfloat16: ...
    """
    found = conformance(
        function, fmt, rounding=rounding, overflow=overflow, takes_float64=takes_float64
    )
    if not found:
        raise AssertionError(repr(found))


def assert_close(
    actual: Any, expected: Any, fmt: AnyFormatLike, *, ulps: float = 1.0, axis: int = -1
) -> None:
    """Raise AssertionError where results are farther from what is expected than some ulps.

    Parameters
    ----------
    actual, expected : array_like, Tensor, or mapping of str to these
        What was computed, and what it is held to, which may be of a wider format.
    fmt : Format, BlockFormat, str or dtype
        What the distance is counted in, as by `lowprec.diff`: between values of the format the
        number of steps; half a step at most where one rounding to nearest lies between them.
    ulps : float
        The largest distance that is close: 0 asks for equal values.
    axis : int
        Of block formats: the axis along which elements share a scale.

    Raises
    ------
    AssertionError
        With the worst elements and how many roundings may lie between; or with the names or
        shapes that differ.
    ValueError
        If `ulps` is negative or NaN.

    Notes
    -----
    NaN equals NaN, and +0 is close to -0. An infinity is close to nothing but itself.

    Examples
    --------
    >>> import numpy as np
    >>> third = np.float32(1) / 3
    >>> assert_close(np.float16(third), third, "float16", ulps=0.5)
    >>> assert_close([1.0, 2.0625], [1.0, 2.0], "bfloat16")
    Traceback (most recent call last):
        ...
    AssertionError: 1 of 2 elements differ, by up to 4 ulps of bfloat16, and 1 is allowed: more \
than two roundings
      at [1]: actual 2.0625, expected 2.0, 4 ulps
    """
    if not ulps >= 0:
        raise ValueError(f"a tolerance of {ulps} ulps holds nothing; use a number from 0 on")
    found = diff(expected, actual, fmt, axis=axis)
    if found.within(ulps):
        return
    lines = []
    if found.max_ulps > ulps:
        rest = found.count - found.equal
        explained = (
            f"{found.unbounded:,} of them NaN or infinite in one of the two alone"
            if math.isinf(found.max_ulps)
            else roundings(found.max_ulps)
        )
        lines.append(
            f"{rest:,} of {found.count:,} elements differ, by up to {found.max_ulps:.6g} ulps of "
            f"{found.fmt}, and {ulps:g} is allowed: {explained}"
        )
        beyond = [element for element in found.most_distant if element.ulps > ulps]
        lines += [f"  at {_told(element, bool(found.tensors))}" for element in beyond]
    for name, (expected_shape, actual_shape) in found.shapes.items():
        lines.append(f"{name} has shape {actual_shape}, and {expected_shape} is expected")
    if found.missing:
        lines.append(f"missing: {', '.join(found.missing)}")
    if found.extra:
        lines.append(f"not expected: {', '.join(found.extra)}")
    raise AssertionError("\n".join(lines))


def _told(element: Element, is_named: bool) -> str:
    place = ", ".join(map(str, element.index))
    return (
        f"{element.name if is_named else ''}[{place}]: actual {element.y!r}, expected "
        f"{element.x!r}, {element.ulps:.6g} ulps"
    )


def assert_holds(
    f: Callable[..., Any],
    args: Sequence[Any],
    format: FormatLike,  # noqa: A002
    tolerance: float,
    **options: Any,
) -> None:
    """Raise AssertionError unless a NumPy program keeps its error within a tolerance in a format.

    Parameters
    ----------
    f : callable
        A Python function that computes with NumPy.
    args : sequence
        Its arguments.
    format : Format, str or dtype
        What its lines compute in.
    tolerance : float
        The largest error of any array or number that it returns: the 2-norm of the difference from
        plain NumPy float64, over the norm of that (over 1 where it is 0).
    **options
        As for `lowprec.trace`: ``keep``, ``accumulator``, ``modules`` and the like.

    Raises
    ------
    AssertionError
        With the table of lines, the verdict, and what to keep in a wider format.

    Examples
    --------
    >>> import numpy as np
    >>> def mean(x):
    ...     return np.sum(x) / len(x)
    >>> assert_holds(mean, [np.ones(100)], "bfloat16", 1e-2)
    >>> assert_holds(mean, [np.ones(1000)], "bfloat16", 1e-2)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    AssertionError: mean in bfloat16 has an error of 0.744, more than 0.01
    ...
    """
    made = trace(f, *args, format=format, tolerance=tolerance, **options)
    if not made.error <= made.tolerance:
        raise AssertionError(
            f"{made.name} in {made.format} has an error of {made.error:.3g}, more than "
            f"{made.tolerance:.3g}\n{made}"
        )
