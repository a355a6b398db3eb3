"""Conversion: `round_to`, `encode`, `decode`, `cast`, and the neighbours of a value.

Arguments are checked once and kept; arrays of any layout then reach one kernel. `door` takes calls,
`requests` checks what is asked and refuses what a format has no code for.
"""

from lowprec.conversion.door import cast, decode, encode, round_to
from lowprec.conversion.neighbours import next_down, next_up, ulp

__all__ = ["cast", "decode", "encode", "next_down", "next_up", "round_to", "ulp"]
