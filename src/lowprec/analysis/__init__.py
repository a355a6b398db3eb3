"""What a format does to data: `measure` it, `compare` formats, `advise` which one holds it.

`diff` compares two arrays, or two sets of tensors, with each other; `keepbits` finds how many bits
of a field carry information, and `bitround` keeps those. `counting` is the tally, `variation` finds
values that collapse, `advice` decides which format holds and `judgement` puts it into words.
"""

from lowprec.analysis.advice import Advice, advise
from lowprec.analysis.comparison import Comparison, compare
from lowprec.analysis.difference import Difference, diff
from lowprec.analysis.measurement import Measurement
from lowprec.analysis.measuring import measure
from lowprec.analysis.real_information import bitround, keepbits

__all__ = [
    "Advice",
    "Comparison",
    "Difference",
    "Measurement",
    "advise",
    "bitround",
    "compare",
    "diff",
    "keepbits",
    "measure",
]
