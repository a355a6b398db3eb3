"""The limits of a format in NumPy's words."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from lowprec.common.processor_state import in_exact_state
from lowprec.formats import Format, FormatLike, get_format

if TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class FInfo:
    """Limits of a format under NumPy's names and with NumPy's meanings (see `numpy.finfo`)."""

    dtype: np.dtype[Any] | Format
    bits: int
    precision: int
    resolution: float
    machep: int
    eps: float
    negep: int
    epsneg: float
    minexp: int
    smallest_normal: float
    maxexp: int
    max: float
    nexp: int
    min: float
    iexp: int
    nmant: int
    smallest_subnormal: float

    @property
    def tiny(self) -> float:
        """Another name of `smallest_normal`."""
        return self.smallest_normal


@in_exact_state
def finfo(fmt: FormatLike) -> FInfo:
    """Describe a format as `numpy.finfo` does.

    Parameters
    ----------
    fmt : Format, str or dtype
        A format, its name, or a dtype.

    Returns
    -------
    FInfo
        `precision` is the number of decimal digits and `maxexp` is ``emax + 1``, as in NumPy.

    Examples
    --------
    >>> info = finfo("bfloat16")
    >>> info.max, info.eps, info.maxexp
    (3.3895313892515355e+38, 0.0078125, 128)
    """
    fmt = get_format(fmt)
    digits = int(-math.log10(fmt.eps))
    # the spacing below 1, which is subnormal where 1 is the smallest normal number
    negep = math.frexp(fmt.smallest_subnormal)[1] - 1 if fmt.emin >= 0 else -fmt.precision
    return FInfo(
        dtype=fmt.dtype if fmt.dtype is not None else fmt,
        bits=fmt.bits,
        precision=digits,
        resolution=10.0**-digits,
        machep=-fmt.trailing_bits,
        eps=fmt.eps,
        negep=negep,
        epsneg=math.ldexp(1.0, negep),
        minexp=fmt.emin,
        smallest_normal=fmt.smallest_normal,
        maxexp=fmt.emax + 1,
        max=fmt.max,
        nexp=fmt.exponent_bits,
        min=fmt.min,
        iexp=fmt.exponent_bits,
        nmant=fmt.trailing_bits,
        smallest_subnormal=fmt.smallest_subnormal,
    )
