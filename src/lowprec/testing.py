"""Assertions for a user's own tests: whether a conversion is what it claims to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.verification.conformance import conformance

if TYPE_CHECKING:
    from lowprec.formats import FormatLike
    from lowprec.rounding import OverflowLike, RoundingLike
    from lowprec.verification.conformance import Conversion

__all__ = ["assert_conforms"]


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
