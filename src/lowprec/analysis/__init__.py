"""What a format does to data: `measure` it, `compare` formats, `advise` which one holds it.

`diff` compares two arrays, or two sets of tensors, with each other.
"""

from lowprec.analysis.advice import Advice, advise
from lowprec.analysis.comparison import Comparison, compare
from lowprec.analysis.difference import Difference, diff
from lowprec.analysis.measurement import Measurement
from lowprec.analysis.measuring import measure

__all__ = [
    "Advice",
    "Comparison",
    "Difference",
    "Measurement",
    "advise",
    "compare",
    "diff",
    "measure",
]
