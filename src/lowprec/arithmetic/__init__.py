"""Arithmetic in a format: every operation rounded once, its IEEE 754 events counted.

`Arithmetic` is to arrays what `decimal.Context` is to numbers. `methods` lists its operations,
whose rules lie in `lowprec.kernels.operations`; `elementary` has the functions.
"""

from lowprec.arithmetic.arithmetic import Arithmetic
from lowprec.arithmetic.flags import Events, Flags

__all__ = ["Arithmetic", "Events", "Flags"]
