"""Elementary functions, correctly rounded in every mode.

The seam: ``elementary_kernel(function, fmt, source, rounding, overflow, …)`` returns a kernel that
is called as those of `lowprec.kernels.operations.loops` are: on contiguous arrays of the source
dtype, with `out`, a key and an index; it returns the counts of `lowprec.arithmetic.flags.Events`.
`NAMES` lists the functions: exp, exp2, expm1, log, log2, log10, log1p, sin, cos, tan, sinh, cosh,
tanh, asin, acos, atan, sigmoid, erf, cbrt, rsqrt, reciprocal, and power, atan2 and hypot, which
take two operands. Importing this imports Numba.

How it works: `rounding_equivalents` finds, for each operand, a float64 that rounds as the exact
result does, with the help of `decimals` where float64 cannot tell; `tables` rounds stand-ins once,
keeps the results for all codes of formats of at most 16 bits, and looks them up. Others are
computed one by one, which takes a hundred times as long.

Formats have a precision of at most 24 and magnitudes from 2**-500 to 2**500. NaN operands give NaN
and no event; all NaN are positive but those of overflow in a format without infinities. Results
that a format has no place for (negative ones in an unsigned format, zero in a scale) are NaN, and
invalid. Formats without infinities or NaN take infinite results as they take infinite sources; what
is NaN where there is none is NaN in `out`, for the caller to refuse. In stochastic modes the
fraction that decides is known within 2**(p-45).
"""

from lowprec.arithmetic.elementary.rounding_equivalents import NAMES as NAMES
from lowprec.arithmetic.elementary.tables import elementary_kernel as elementary_kernel

__all__ = ["NAMES", "elementary_kernel"]
