"""Arithmetic in a format: every operation rounded once, its IEEE 754 events counted.

`Arithmetic` is to arrays what `decimal.Context` is to numbers.
"""

from lowprec.arithmetic.arithmetic import Arithmetic
from lowprec.arithmetic.flags import Events, Flags

__all__ = ["Arithmetic", "Events", "Flags"]
