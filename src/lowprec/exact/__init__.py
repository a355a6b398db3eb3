"""One number in pure Python integers and fractions: the readable rules, `inspect` and `finfo`.

`reference` is the specification that the kernels are held against; it shares no rule with them.
"""

from lowprec.exact.inspecting import inspect
from lowprec.exact.inspection import Inspection
from lowprec.exact.limits import FInfo, finfo
from lowprec.exact.number import Number, read_number
from lowprec.exact.reference import decode_exact, round_exact

__all__ = [
    "FInfo",
    "Inspection",
    "Number",
    "decode_exact",
    "finfo",
    "inspect",
    "read_number",
    "round_exact",
]
